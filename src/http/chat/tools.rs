//! The wire format of tools, of the choice among them, and of the calls that a conversation has had.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::http::error::Error;
use crate::http::fields::unsupported;
use crate::text::{PastCall, Tool};

/// As OpenAI has it; the model reads all of them before anything else.
const TOOLS_MAX: usize = 128;
/// As OpenAI has it.
const NAME_CHARS_MAX: usize = 64;

/// Of a value that cannot be, what is worth repeating.
const SHOWN_BYTES_MAX: usize = 100;

/// Whether calls are looked for. The model reads of its tools either way, so that a conversation
/// keeps its beginning when the choice changes; asked for none, it may write a call nevertheless,
/// which is text then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    Auto,
    None,
}

/// A call of an earlier turn.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schemars(rename = "ToolCall")]
pub struct WireCall {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    function: WireCalled,
    /// Clients that collected a stream leave it there.
    #[serde(rename = "index")]
    #[schemars(skip)]
    _index: Option<IgnoredAny>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schemars(rename = "ToolCallFunction")]
struct WireCalled {
    name: String,
    arguments: String,
}

/// They stay as they were sent, to the order of their keys: the template shows them so.
pub fn tools(wire: Vec<Value>) -> Result<Vec<Tool>, Error> {
    if wire.len() > TOOLS_MAX {
        let message = format!("tools has {} items; at most {TOOLS_MAX}", wire.len());
        return Err(Error::field("tools", message));
    }
    let mut names = HashSet::new();
    let mut tools = Vec::new();
    for (index, schema) in wire.into_iter().enumerate() {
        let name = checked_name(&schema, &format!("tools[{index}]"))?.to_owned();
        if !names.insert(name.clone()) {
            let field = format!("tools[{index}].function.name");
            let message = format!("{field} is {name:?}, which another tool has");
            return Err(Error::field(field, message));
        }
        tools.push(Tool { name, schema });
    }
    Ok(tools)
}

/// The name of a tool in which all is as it should be.
fn checked_name<'a>(tool: &'a Value, path: &str) -> Result<&'a str, Error> {
    let tool = object(tool, path, &["type", "function"])?;
    match tool.get("type") {
        Some(Value::String(kind)) if kind == "function" => (),
        given => return Err(wrong(&format!("{path}.type"), given, "\"function\"")),
    }
    let path = format!("{path}.function");
    let function = tool.get("function").unwrap_or(&Value::Null);
    let function = object(function, &path, &["name", "description", "parameters", "strict"])?;
    let wrong =
        |name: &str, expected| wrong(&format!("{path}.{name}"), function.get(name), expected);
    match function.get("description") {
        None | Some(Value::Null | Value::String(_)) => (),
        Some(_) => return Err(wrong("description", "a string")),
    }
    match function.get("parameters") {
        None | Some(Value::Null | Value::Object(_)) => (),
        Some(_) => return Err(wrong("parameters", "an object")),
    }
    match function.get("strict") {
        None | Some(Value::Null | Value::Bool(false)) => (),
        Some(Value::Bool(true)) => return Err(unsupported(&format!("{path}.strict"))),
        Some(_) => return Err(wrong("strict", "a boolean")),
    }
    match function.get("name") {
        Some(Value::String(name)) if is_name(name) => Ok(name),
        _ => {
            let expected = format!("1 to {NAME_CHARS_MAX} letters, digits, _, - and .");
            Err(wrong("name", &expected))
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(is_plain)
}

fn object<'a>(
    value: &'a Value,
    path: &str,
    known: &[&str],
) -> Result<&'a Map<String, Value>, Error> {
    let Some(object) = value.as_object() else {
        return Err(wrong(path, Some(value), "an object"));
    };
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => {
            let field = format!("{path}.{key}");
            let message = format!("{field} is not known to this server");
            Err(Error::field(field, message))
        }
        None => Ok(object),
    }
}

fn wrong(field: &str, given: Option<&Value>, expected: &str) -> Error {
    let message = match given {
        None | Some(Value::Null) => format!("{field} is missing"),
        Some(Value::Object(_) | Value::Array(_)) => format!("{field} is not {expected}"),
        Some(Value::String(text)) if text.len() > SHOWN_BYTES_MAX => {
            format!("{field} has {} bytes; it is {expected}", text.len())
        }
        Some(given) => format!("{field} is {given}; it is {expected}"),
    };
    Error::field(field, message)
}

pub fn choice(wire: Option<&Value>) -> Result<ToolChoice, Error> {
    match wire {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(choice)) if choice == "auto" => Ok(ToolChoice::Auto),
        Some(Value::String(choice)) if choice == "none" => Ok(ToolChoice::None),
        given => Err(wrong("tool_choice", given, "\"auto\" or \"none\"")),
    }
}

/// As many calls as the model writes are told; that there is one at most is not promised.
pub fn check_parallel(wire: Option<bool>) -> Result<(), Error> {
    match wire {
        None | Some(true) => Ok(()),
        Some(false) => Err(Error::field(
            "parallel_tool_calls",
            "parallel_tool_calls is false; this server cannot hold a model to one call",
        )),
    }
}

/// The calls of a message at this path.
pub fn past_calls(wire: Vec<WireCall>, path: &str) -> Result<Vec<PastCall>, Error> {
    let call = |(index, call): (usize, WireCall)| {
        let path = format!("{path}tool_calls[{index}]");
        let WireCall { id, kind, function: WireCalled { name, arguments }, .. } = call;
        if let Some(kind) = kind.filter(|kind| kind != "function") {
            let field = format!("{path}.type");
            let message = format!("{field} is {kind:?}; only \"function\" is supported");
            return Err(Error::field(field, message));
        }
        match serde_json::from_str(&arguments) {
            Ok(arguments) => Ok(PastCall { id, name, arguments }),
            Err(_) => {
                let field = format!("{path}.function.arguments");
                let message = format!("{field} is not the text of a JSON object");
                Err(Error::field(field, message))
            }
        }
    };
    wire.into_iter().enumerate().map(call).collect()
}
