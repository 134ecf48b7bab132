//! The wire format of tools, of the choice among them, and of the calls that a conversation has had.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::http::error::Error;
use crate::http::fields::{self, SHOWN_BYTES_MAX};
use crate::http::tooling::{self, CallCount, ToolChoice};
use crate::text::{PastCall, Tool};

/// As OpenAI has it.
const NAME_CHARS_MAX: usize = 64;
const FUNCTION_FIELDS: [&str; 4] = ["name", "description", "parameters", "strict"];

/// How a tool looks. It is checked by hand, and stays the JSON that was sent.
#[derive(JsonSchema)]
#[schemars(rename = "ChatTool")]
#[expect(dead_code, reason = "the description of the API is made of it")]
pub struct WireTool {
    #[schemars(rename = "type")]
    kind: String,
    function: WireFunction,
}

#[derive(JsonSchema)]
#[schemars(rename = "ChatFunction")]
#[expect(dead_code, reason = "the description of the API is made of it")]
struct WireFunction {
    name: String,
    description: Option<String>,
    parameters: Option<Map<String, Value>>,
    /// Whether a call keeps to the parameters; one that `tool_choice` forces does so either way.
    strict: Option<bool>,
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
    tooling::check_count(wire.len())?;
    let mut tools = Vec::new();
    for (index, schema) in wire.into_iter().enumerate() {
        let path = format!("tools[{index}]");
        let fields = object(&schema, &path, &["type", "function"])?;
        check_kind(&schema, &path)?;
        let path = format!("{path}.function");
        let function = fields.get("function").unwrap_or(&Value::Null);
        let function = object(function, &path, &FUNCTION_FIELDS)?;
        let (name, is_strict) = checked(function, &path)?;
        tools.push(Tool { name, is_strict, schema });
    }
    tooling::check_twins(&tools, "function.name")?;
    Ok(tools)
}

/// The same of OpenAI's newer routes, where a function's fields are the tool's own. The model reads
/// of them as it does of a chat's.
pub fn flat_tools(wire: &[Value]) -> Result<Vec<Tool>, Error> {
    tooling::check_count(wire.len())?;
    let mut tools = Vec::new();
    for (index, tool) in wire.iter().enumerate() {
        let path = format!("tools[{index}]");
        check_kind(tool, &path)?;
        let fields = object(tool, &path, &[&["type"][..], &FUNCTION_FIELDS].concat())?;
        let (name, is_strict) = checked(fields, &path)?;
        // Their clients always say whether a tool is strict, which is not the model's affair.
        let is_shown = |field: &str| !matches!(field, "type" | "strict");
        let shown = fields.iter().filter(|(field, value)| is_shown(field) && !value.is_null());
        let function: Map<String, Value> =
            shown.map(|(field, value)| (field.clone(), value.clone())).collect();
        let schema = json!({ "type": "function", "function": function });
        tools.push(Tool { name, is_strict, schema });
    }
    tooling::check_twins(&tools, "name")?;
    Ok(tools)
}

fn check_kind(tool: &Value, path: &str) -> Result<(), Error> {
    match tool.get("type") {
        Some(Value::String(kind)) if kind == "function" => Ok(()),
        given => Err(wrong(&format!("{path}.type"), given, "\"function\"")),
    }
}

/// The name of a function in which all is as it should be, and whether it is strict.
fn checked(function: &Map<String, Value>, path: &str) -> Result<(String, bool), Error> {
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
    let is_strict = match function.get("strict") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(is_strict)) => *is_strict,
        Some(_) => return Err(wrong("strict", "a boolean")),
    };
    match function.get("name") {
        Some(Value::String(name)) => {
            tooling::check_name(&format!("{path}.name"), name, NAME_CHARS_MAX)?;
            Ok((name.clone(), is_strict))
        }
        _ => Err(wrong("name", "a string")),
    }
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
            let field = match key.len() > SHOWN_BYTES_MAX {
                true => path.to_owned(),
                false => format!("{path}.{key}"),
            };
            let message = match key.len() > SHOWN_BYTES_MAX {
                true => format!("{path} has a field that is not known to this server"),
                false => format!("{field} is not known to this server"),
            };
            Err(Error::field(field, message))
        }
        None => Ok(object),
    }
}

fn wrong(field: &str, given: Option<&Value>, expected: &str) -> Error {
    let message = match given {
        None | Some(Value::Null) => format!("{field} is missing"),
        Some(Value::Object(_) | Value::Array(_)) => format!("{field} is not {expected}"),
        Some(Value::String(text)) => return fields::wrong(field, text, expected),
        Some(given) => format!("{field} is {given}; it is {expected}"),
    };
    Error::field(field, message)
}

/// How a choice looks. It is checked by hand.
#[derive(JsonSchema)]
#[schemars(rename = "ChatToolChoice", untagged)]
#[expect(dead_code, reason = "the description of the API is made of it")]
pub enum WireChoice {
    /// `auto`, `none` or `required`.
    Word(String),
    Function(WireNamed),
}

#[derive(JsonSchema)]
#[schemars(rename = "ChatNamedTool")]
#[expect(dead_code, reason = "the description of the API is made of it")]
pub struct WireNamed {
    #[schemars(rename = "type")]
    kind: String,
    function: WireName,
}

#[derive(JsonSchema)]
#[schemars(rename = "ChatToolName")]
#[expect(dead_code, reason = "the description of the API is made of it")]
struct WireName {
    name: String,
}

pub fn choice(wire: Option<&Value>, is_parallel: bool) -> Result<ToolChoice, Error> {
    choice_of(wire, is_parallel, named)
}

/// The same of OpenAI's newer routes, where a function is named without an object around it.
pub fn flat_choice(wire: Option<&Value>, is_parallel: bool) -> Result<ToolChoice, Error> {
    choice_of(wire, is_parallel, |choice| {
        let choice = object(choice, "tool_choice", &["type", "name"])?;
        check_choice(choice)?;
        function_of(choice, "tool_choice.name")
    })
}

fn choice_of(
    wire: Option<&Value>,
    is_parallel: bool,
    named: impl Fn(&Value) -> Result<ToolChoice, Error>,
) -> Result<ToolChoice, Error> {
    const EXPECTED: &str = "\"auto\", \"none\", \"required\" or a function";
    let count = match is_parallel {
        true => CallCount::OneOrMore,
        false => CallCount::One,
    };
    match wire {
        None => Ok(ToolChoice::Auto(count)),
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => Ok(ToolChoice::Auto(count)),
            "none" => Ok(ToolChoice::None),
            "required" => Ok(ToolChoice::Required(count)),
            _ => Err(wrong("tool_choice", wire, EXPECTED)),
        },
        Some(Value::Object(_)) => named(wire.unwrap_or(&Value::Null)),
        given => Err(wrong("tool_choice", given, EXPECTED)),
    }
}

/// The field in which a choice is.
pub fn choice_field(choice: &ToolChoice) -> &'static str {
    match choice {
        ToolChoice::Named(_) => "tool_choice.function.name",
        ToolChoice::Auto(_) | ToolChoice::None | ToolChoice::Required(_) => "tool_choice",
    }
}

/// The same of the newer routes.
pub fn flat_choice_field(choice: &ToolChoice) -> &'static str {
    match choice {
        ToolChoice::Named(_) => "tool_choice.name",
        other => choice_field(other),
    }
}

fn named(choice: &Value) -> Result<ToolChoice, Error> {
    let choice = object(choice, "tool_choice", &["type", "function"])?;
    check_choice(choice)?;
    let function = choice.get("function").unwrap_or(&Value::Null);
    let function = object(function, "tool_choice.function", &["name"])?;
    function_of(function, "tool_choice.function.name")
}

fn check_choice(choice: &Map<String, Value>) -> Result<(), Error> {
    match choice.get("type") {
        Some(Value::String(kind)) if kind == "function" => Ok(()),
        given => Err(wrong("tool_choice.type", given, "\"function\"")),
    }
}

/// The choice of a function, whose name is in this field.
fn function_of(function: &Map<String, Value>, field: &str) -> Result<ToolChoice, Error> {
    match function.get("name") {
        Some(Value::String(name)) => Ok(ToolChoice::Named(name.clone())),
        given => Err(wrong(field, given, "a string")),
    }
}

/// The calls of a message at this path.
pub fn past_calls(wire: Vec<WireCall>, path: &str) -> Result<Vec<PastCall>, Error> {
    let call = |(index, call): (usize, WireCall)| {
        let path = format!("{path}tool_calls[{index}]");
        let WireCall { id, kind, function: WireCalled { name, arguments }, .. } = call;
        if let Some(kind) = kind.filter(|kind| kind != "function") {
            return Err(fields::wrong(&format!("{path}.type"), &kind, "\"function\""));
        }
        let arguments = arguments_of(&arguments, &format!("{path}.function.arguments"))?;
        Ok(PastCall { id, name, arguments })
    };
    wire.into_iter().enumerate().map(call).collect()
}

/// The arguments of a call, which come as text in this field.
pub fn arguments_of(text: &str, field: &str) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(text)
        .map_err(|_| Error::field(field, format!("{field} is not the text of a JSON object")))
}
