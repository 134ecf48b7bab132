//! What a reply is held to, as a request asks for it, and the grammar that it becomes.

use std::sync::Arc;
use std::thread;

use super::error::Error;
use super::tooling::{CallCount, ToolChoice};
use super::{App, Serving};
use crate::text::{self, CallsOf, Function, GRAMMAR_STACK_BYTES, Grammar, Schema, Tool};
use crate::types::Namespace;

/// Calls that a reply which has to call may have: a weak model goes on for as long as it may.
const CALLS_MAX: usize = 16;

/// What a reply is to be.
#[derive(Debug, PartialEq)]
pub enum Format {
    /// JSON that the schema allows.
    Json(Schema),
    /// Calls of these functions, in the model's own format.
    Calls { functions: Vec<Function>, count: CallCount },
    /// The one or the other.
    JsonOrCalls { json: Schema, functions: Vec<Function> },
}

/// What a choice among tools and a schema come to. `field` is where the parameters of a tool are,
/// by its number.
pub fn format(
    schema: Option<Schema>,
    tools: &[Tool],
    choice: &ToolChoice,
    field: impl Fn(usize) -> String,
) -> Option<Format> {
    let function = |(index, tool): (usize, &Tool)| {
        let value = tool.parameters().cloned().unwrap_or_else(Function::without_parameters);
        Function { name: tool.name.clone(), parameters: Schema { field: field(index), value } }
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
        (ToolChoice::Auto, Some(json)) if !tools.is_empty() => {
            Some(Format::JsonOrCalls { json, functions: all().map(function).collect() })
        }
        (ToolChoice::Auto | ToolChoice::None, schema) => schema.map(Format::Json),
    }
}

/// Makes the grammar, on a thread that may take its time.
pub async fn grammar(
    app: &App,
    serving: &Arc<Serving>,
    namespace: &Namespace,
    format: Format,
) -> Result<Arc<Grammar>, Error> {
    let format = match format {
        Format::Json(schema) => text::Format::Json(schema),
        Format::Calls { functions, count } => {
            let count_max = match count {
                CallCount::One => 1,
                CallCount::OneOrMore => CALLS_MAX,
            };
            text::Format::Calls(calls(serving, "tool_choice", functions, count_max)?)
        }
        Format::JsonOrCalls { json, functions } => {
            let calls = calls(serving, "response_format", functions, CALLS_MAX)?;
            text::Format::JsonOrCalls(json, calls)
        }
    };
    let serving = Arc::clone(serving);
    let compile = move || serving.grammars.compile(&format);
    // However short a schema is, what it asks for may be much.
    let line = app.workers.line(namespace);
    line.work(1, 0, || with_deep_stack(compile)).await??.map_err(Error::from)
}

fn with_deep_stack<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    // Only the pages that it touches become memory.
    let builder = thread::Builder::new().name("grammar".to_owned());
    let thread = builder.stack_size(GRAMMAR_STACK_BYTES).spawn(work).map_err(Error::NoThread)?;
    thread.join().map_err(|_| Error::Panicked)
}

/// `field` asks for them.
fn calls(
    serving: &Serving,
    field: &str,
    functions: Vec<Function>,
    count_max: usize,
) -> Result<CallsOf, Error> {
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
