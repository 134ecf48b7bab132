//! What a reply is held to, as a request asks for it, and the grammar that it becomes.

use std::sync::Arc;

use super::error::Error;
use super::tooling::{CallCount, ToolChoice};
use super::{App, Serving};
use crate::text::{
    self, CallFormat, CallsOf, Function, GRAMMAR_STACK_BYTES, Grammar, Schema, Tool, ToolCallParser,
};
use crate::types::Namespace;

/// Calls that a reply which is held to them may have: a weak model goes on for as long as it may.
const CALLS_MAX: usize = 16;

/// What a reply is to be.
#[derive(Debug, PartialEq)]
pub enum Format {
    /// JSON that the schema allows.
    Json(Schema),
    /// Calls of these functions, in the model's own format.
    Calls { functions: Vec<Function>, count: CallCount },
    /// The one or the other.
    JsonOrCalls { json: Schema, functions: Vec<Function>, count: CallCount },
    /// Text, with or without calls, which keep to these functions. `field` asks for that.
    TextOrCalls { functions: Vec<Function>, count: CallCount, field: String },
}

/// Where a request has what its tools are held to.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// Of the parameters of a tool, and of whether it is strict, by its number.
    pub parameters: fn(usize) -> String,
    pub strict: fn(usize) -> String,
    /// Of whether there may be more than one call.
    pub parallel: &'static str,
}

/// What a choice among tools and a schema come to.
pub fn format(
    schema: Option<Schema>,
    tools: &[Tool],
    choice: &ToolChoice,
    fields: Fields,
) -> Option<Format> {
    let function = |(index, tool): (usize, &Tool)| {
        let value = tool.parameters().cloned().unwrap_or_else(Function::without_parameters);
        let field = (fields.parameters)(index);
        Function { name: tool.name.clone(), parameters: Schema { field, value } }
    };
    let all = || tools.iter().enumerate();
    match (choice, schema) {
        (ToolChoice::Required(count), _) => {
            Some(Format::Calls { functions: all().map(function).collect(), count: *count })
        }
        (ToolChoice::Named(name), _) => {
            let named = all().filter(|(_, tool)| tool.name == *name);
            let functions = named.map(function).collect();
            Some(Format::Calls { functions, count: CallCount::One })
        }
        (ToolChoice::Auto(count), Some(json)) if !tools.is_empty() => {
            let functions = all().map(function).collect();
            Some(Format::JsonOrCalls { json, functions, count: *count })
        }
        (ToolChoice::Auto(count), None) => {
            let strict = tools.iter().position(|tool| tool.is_strict).map(fields.strict);
            let one = (*count == CallCount::One && !tools.is_empty()).then_some(fields.parallel);
            let field = strict.or(one.map(str::to_owned))?;
            // The others are called with what the model likes.
            let functions = all().map(|(index, tool)| match tool.is_strict {
                true => function((index, tool)),
                false => Function {
                    name: tool.name.clone(),
                    parameters: Schema::object(&(fields.parameters)(index)),
                },
            });
            Some(Format::TextOrCalls { functions: functions.collect(), count: *count, field })
        }
        (ToolChoice::Auto(_) | ToolChoice::None, schema) => schema.map(Format::Json),
    }
}

impl Format {
    /// Whether a reply may be any text.
    pub fn leaves_text(&self) -> bool {
        matches!(self, Format::TextOrCalls { .. })
    }
}

/// What looks for calls in a reply that is held to a format. A call that only looks like one of this
/// model would not be held to anything.
pub fn parser(
    parser: Option<ToolCallParser>,
    format: Option<&Format>,
    serving: &Serving,
) -> Option<ToolCallParser> {
    let is_tagged = serving.template.call_format().is_some_and(CallFormat::is_tagged);
    match format {
        Some(Format::TextOrCalls { .. } | Format::JsonOrCalls { .. }) if is_tagged => {
            parser.map(ToolCallParser::between_tags)
        }
        Some(_) | None => parser,
    }
}

/// The grammar: as it is remembered, or made on a thread that may take its time.
pub async fn grammar(
    app: &App,
    serving: &Arc<Serving>,
    namespace: &Namespace,
    format: Format,
) -> Result<Arc<Grammar>, Error> {
    let format = match format {
        Format::Json(schema) => text::Format::Json(schema),
        Format::Calls { functions, count } => {
            text::Format::Calls(calls(serving, "tool_choice", functions, count)?)
        }
        Format::JsonOrCalls { json, functions, count } => {
            let calls = calls(serving, &json.field, functions, count)?;
            text::Format::JsonOrCalls(json, calls)
        }
        Format::TextOrCalls { functions, count, field } => {
            text::Format::TextOrCalls(calls(serving, &field, functions, count)?)
        }
    };
    let format = Arc::new(format);
    let remembered = {
        let (serving, format) = (Arc::clone(serving), Arc::clone(&format));
        move || serving.grammars.remembered(&format)
    };
    // It is found by all that it was made of, which may be long.
    if let Some(grammar) = app.workers.line(namespace).work(1, 0, remembered).await? {
        return Ok(grammar);
    }
    let serving = Arc::clone(serving);
    let compile = move || serving.grammars.compile(&format);
    // However short a schema is, what it asks for may be much.
    Ok(app.workers.compile(namespace, GRAMMAR_STACK_BYTES, compile).await??)
}

/// `field` asks for them.
fn calls(
    serving: &Serving,
    field: &str,
    functions: Vec<Function>,
    count: CallCount,
) -> Result<CallsOf, Error> {
    let count_max = match count {
        CallCount::One => 1,
        CallCount::OneOrMore => CALLS_MAX,
    };
    match serving.template.call_format().cloned() {
        Some(format) => Ok(CallsOf { format, functions, count_max }),
        None => {
            let model = &serving.model;
            let message = format!(
                "{field} needs calls in the model's own format; the template of {model} shows none"
            );
            Err(Error::field(field, message))
        }
    }
}
