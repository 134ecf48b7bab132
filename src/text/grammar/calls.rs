//! The grammar of calls in a model's own format.

use serde_json::{Value, json};

use super::{GrammarError, Schema, place, with_options};
use crate::text::tokenizer::Tokenizer;
use crate::text::tools::{ReplyPart, ToolCallParser};

/// How a model writes a call, as its template shows those of earlier turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFormat {
    /// Before the name.
    pub before: String,
    /// Between the name and the arguments.
    pub between: String,
    /// Behind the arguments.
    pub behind: String,
}

/// A reply that is calls.
#[derive(Clone, Debug, PartialEq)]
pub struct CallsOf {
    pub format: CallFormat,
    pub functions: Vec<Function>,
    /// At least one, where there is nothing else.
    pub count_max: usize,
}

/// One that may be called.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    pub name: String,
    /// Any object if there is none.
    pub parameters: Schema,
}

const CALL: &str = "<tool_call>";
const CALL_END: &str = "</tool_call>";
/// How a reply, or what follows its thinking, begins if it may be a call without tags.
const BARE_CALL: &str = r#"((?s:.*)<\/think>)?\s*\{\s*"(type|name|arguments|parameters)"(?s:.*)"#;
/// What may be one token of its own.
const TAGS: &[&str] = &[CALL, CALL_END];

impl Function {
    /// The schema of arguments that there are none of.
    pub fn without_parameters() -> Value {
        json!({ "type": "object", "properties": {}, "additionalProperties": false })
    }
}

impl CallFormat {
    /// Whether a call is told from the text around it by its tags.
    pub fn is_tagged(&self) -> bool {
        self.before.starts_with(CALL)
    }

    /// As a rendered conversation shows it, whose last call is of this function. `None` if the
    /// parser of replies would not read what is written so.
    pub(in crate::text) fn of(rendered: &str, name: &str) -> Option<CallFormat> {
        let (head, tail) = rendered.rsplit_once(name)?;
        let object = head.rfind('{')?;
        let tag = head[..object].trim_end().strip_suffix(CALL).map(str::len);
        let before = &head[tag.unwrap_or(object)..];
        let (between, rest) = tail.split_at(tail.find('{')?);
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        values.next()?.ok()?;
        let (arguments, rest) = rest.split_at(values.byte_offset());
        let end = match tag {
            Some(_) => rest.find(CALL_END)? + CALL_END.len(),
            None => rest.find('}')? + 1,
        };
        let behind = &rest[..end];
        let mut parser = ToolCallParser::new([name.to_owned()]);
        let mut parts = parser.push(&format!("{before}{name}{between}{arguments}{behind}"));
        parts.extend(parser.finish());
        matches!(&parts[..], [ReplyPart::Call(_)]).then(|| CallFormat {
            before: before.to_owned(),
            between: between.to_owned(),
            behind: behind.to_owned(),
        })
    }
}

impl CallsOf {
    pub(super) fn key(&self) -> String {
        let CallsOf { format: CallFormat { before, between, behind }, functions, count_max } = self;
        let functions = functions.iter().map(|f| format!("{} {}\n", f.name, f.parameters.value));
        let functions: String = functions.collect();
        format!("{count_max} {before:?} {between:?} {behind:?}\n{functions}")
    }
}

/// JSON or calls, in the library's language.
pub fn grammar_or_json(json: &Value, calls: &CallsOf, tokenizer: &Tokenizer) -> String {
    let json = with_options(json);
    format!("start: json | calls\njson: %json {json}\n{}", rules(calls, tokenizer))
}

/// In the library's language.
pub fn grammar(calls: &CallsOf, tokenizer: &Tokenizer) -> String {
    format!("start: calls\n{}", rules(calls, tokenizer))
}

/// Any text, in which what would be read as a call is one. In the library's language.
pub fn grammar_among_text(calls: &CallsOf, tokenizer: &Tokenizer) -> String {
    let CallsOf { format, count_max, .. } = calls;
    let text = format!("ANY: /(?s:.*)/\nTEXT: ANY & ~(ANY {CALL:?} ANY)");
    match format.before.strip_prefix(CALL) {
        // The tag, however the model cuts it into tokens, ends the text before a call.
        Some(before) => {
            let start = format!("start: (lead call){{0,{count_max}}} TEXT");
            let token = tokenizer.added_token(CALL).filter(|tag| tokenizer.is_special(*tag));
            // A special token is no text, whatever it is called.
            let token = token.map(|tag| format!(" | TEXT <[{}]>", tag.0)).unwrap_or_default();
            let lead = format!("lead: tagged{token}\ntagged[lazy]: ANY {CALL:?}");
            let calls = of_functions(calls, before, tokenizer);
            format!("{start}\n{lead}\n{text}\n{calls}")
        }
        None => {
            let calls = of_functions(calls, &format.before, tokenizer);
            format!("start: call | TEXT\n{text} & ~/{BARE_CALL}/\n{calls}")
        }
    }
}

fn rules(calls: &CallsOf, tokenizer: &Tokenizer) -> String {
    let CallsOf { format, count_max, .. } = calls;
    let more = match *count_max {
        // Without tags the whole reply is one call: templates that show none refuse several.
        _ if !format.is_tagged() => String::new(),
        0 | 1 => String::new(),
        most => format!(" (\"\\n\" call){{0,{}}}", most - 1),
    };
    format!("calls: call{more}\n{}", of_functions(calls, &format.before, tokenizer))
}

/// A call of one of the functions, that begins so.
fn of_functions(calls: &CallsOf, before: &str, tokenizer: &Tokenizer) -> String {
    let CallsOf { format, functions, .. } = calls;
    let names: Vec<String> = (0..functions.len()).map(|index| format!("call_{index}")).collect();
    let mut grammar = format!("call: {}\n", names.join(" | "));
    for (index, Function { name, parameters }) in functions.iter().enumerate() {
        let head = written(&format!("{before}{name}{}", format.between), tokenizer);
        let tail = written(&format.behind, tokenizer);
        let schema = with_options(&object(&parameters.value));
        grammar += &format!("call_{index}: {head} arguments_{index} {tail}\n");
        grammar += &format!("arguments_{index}: %json {schema}\n");
    }
    grammar
}

/// Of arguments: an object, whatever else the schema says.
fn object(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("type".to_owned(), "object".into());
    }
    schema
}

/// A text as it is, in which tags are tokens if they can be.
fn written(text: &str, tokenizer: &Tokenizer) -> String {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let tag = TAGS.iter().filter_map(|tag| Some((rest.find(tag)?, *tag))).min();
        let token = tag.and_then(|(at, tag)| Some((at, tag, tokenizer.added_token(tag)?)));
        let (plain, after) = match token {
            Some((at, tag, _)) => (&rest[..at], &rest[at + tag.len()..]),
            None => (rest, ""),
        };
        if !plain.is_empty() {
            parts.push(Value::from(plain).to_string());
        }
        parts.extend(token.map(|(_, _, token)| format!("<[{}]>", token.0)));
        rest = after;
    }
    parts.join(" ")
}

/// The error for calls that were refused for this reason.
pub fn error(
    calls: &CallsOf,
    reason: String,
    refusal: impl Fn(&Value) -> Option<String>,
) -> GrammarError {
    for Function { parameters, .. } in &calls.functions {
        if let Some(reason) = refusal(&object(&parameters.value)) {
            return place::error(parameters, reason, refusal);
        }
    }
    GrammarError::Schema { field: "tools".to_owned(), place: String::new(), reason }
}
