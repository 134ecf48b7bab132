//! Functions that a model may call: what a template shows of them, and the calls in what a model writes.
//!
//! Two formats are read, whatever the model: that of Hermes and Qwen, in which each call stands
//! between tags (`<tool_call>{"name":…,"arguments":{…}}</tool_call>`) and text may stand around
//! it, and that of Llama 3, in which the whole reply is calls (`{"name":…,"parameters":{…}}`).
//! [`ToolCallParser`] looks for both while a reply comes; `scanner` tells at each character whether
//! it may still become one.
//!
//! A client sends a reply back as what the parser made of it. [`reply_key`] and [`message_key`] are
//! how the two find each other.

mod parser;
mod scanner;

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::reasoning::{beside_calls, sent_thought, without_thinking};
use super::template::Message;

pub(super) use parser::CALL;
pub use parser::ToolCallParser;

/// A function as a template gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub name: String,
    /// `{"type":"function","function":{"name",…}}`, keys in the order in which the client sent
    /// them: another order is another prefix.
    pub schema: Value,
    /// Whether each call of it has to keep to its parameters.
    pub is_strict: bool,
}

/// A call that a model wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    pub name: String,
    /// In the order in which the model wrote them.
    pub arguments: Map<String, Value>,
    /// The same, character by character as the model wrote it.
    pub arguments_json: String,
}

/// A part of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyPart {
    Text(String),
    Call(ToolCall),
}

/// A call of an earlier turn, as a client tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct PastCall {
    pub id: String,
    pub name: String,
    pub arguments: Map<String, Value>,
}

/// What joins the texts of a reply that has calls between them, where a client has one text only.
pub const TEXTS_JOINED_BY: &str = "\n";

pub(super) const TOOL_CALLS: &str = "tool_calls";

impl Tool {
    /// A function whose description and parameters are told one by one.
    pub fn function(name: String, description: Option<String>, parameters: Option<Value>) -> Tool {
        let mut function = Map::new();
        function.insert("name".to_owned(), name.as_str().into());
        if let Some(description) = description {
            function.insert("description".to_owned(), description.into());
        }
        if let Some(parameters) = parameters {
            function.insert("parameters".to_owned(), parameters);
        }
        let schema = json!({ "type": "function", "function": function });
        Tool { name, schema, is_strict: false }
    }
}

impl Tool {
    /// What it may be called with, if that is told.
    pub fn parameters(&self) -> Option<&Value> {
        self.schema.pointer("/function/parameters").filter(|parameters| !parameters.is_null())
    }
}

impl Message {
    /// A turn of the assistant that called tools, in the shape that templates read.
    pub fn calling(content: Option<String>, calls: Vec<PastCall>) -> Message {
        let call = |PastCall { id, name, arguments }| {
            json!({
                "id": id,
                "type": "function",
                "function": { "name": name, "arguments": arguments },
            })
        };
        let calls: Vec<Value> = calls.into_iter().map(call).collect();
        let extra = Map::from_iter([(TOOL_CALLS.to_owned(), calls.into())]);
        Message { role: "assistant".to_owned(), content, extra }
    }

    pub(super) fn has_calls(&self) -> bool {
        self.extra.contains_key(TOOL_CALLS)
    }

    /// The same turn as the text that the model wrote, calls included.
    pub(super) fn written(&self, text: String) -> Message {
        let mut message = Message { content: Some(text), ..self.clone() };
        message.extra.shift_remove(TOOL_CALLS);
        message
    }
}

/// What a reply is remembered by: its text without thinking and outer white space or, if there are
/// calls in it, what a client gets to see of them. Of which tools they may be is not asked.
pub fn reply_key(text: &str) -> Cow<'_, str> {
    let text = without_thinking(text);
    calls_key(text).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The same if there are calls in it. A text may look like this key, so who looks for calls does
/// not take a text for them.
pub(super) fn calls_key(text: &str) -> Option<String> {
    if !parser::may_have_calls(text) {
        return None;
    }
    let mut parser = ToolCallParser::of_any_tool();
    let mut parts = parser.push(text);
    parts.extend(parser.finish());
    let mut texts = String::new();
    let mut calls = Vec::new();
    let mut is_behind_call = false;
    for part in parts {
        match part {
            ReplyPart::Text(more) => {
                let is_joined = is_behind_call && !texts.is_empty();
                texts.push_str(if is_joined { TEXTS_JOINED_BY } else { "" });
                texts.push_str(&more);
                is_behind_call = false;
            }
            ReplyPart::Call(call) => {
                calls.push((call.name, call.arguments));
                is_behind_call = true;
            }
        }
    }
    (!calls.is_empty()).then(|| key(&texts, calls))
}

/// The key of a message, as [`reply_key`] makes it of the reply that the message is.
pub(super) fn message_key(message: &Message) -> Cow<'_, str> {
    let content = message.content.as_deref().unwrap_or_default();
    match (message.has_calls(), content.trim()) {
        (true, content) => Cow::Owned(calling_key(beside_calls(content), message)),
        // All that there was may have been thinking.
        (false, "") => reply_key(sent_thought(message).unwrap_or_default()),
        (false, content) => reply_key(content),
    }
}

/// The key of a text with the calls of a message.
pub(super) fn calling_key(text: &str, message: &Message) -> String {
    let calls = message.extra.get(TOOL_CALLS).and_then(Value::as_array);
    let call = |call: &Value| {
        let function = &call["function"];
        let name = function["name"].as_str()?.to_owned();
        Some((name, function["arguments"].as_object()?.clone()))
    };
    key(text, calls.into_iter().flatten().filter_map(call).collect())
}

/// Nobody reads it; in JSON no text and no name can be taken for the beginning of another call.
fn key(text: &str, calls: Vec<(String, Map<String, Value>)>) -> String {
    let call = |(name, arguments)| json!([name, as_any_client_writes(Value::Object(arguments))]);
    let calls: Vec<Value> = calls.into_iter().map(call).collect();
    json!([text.trim(), calls]).to_string()
}

/// For a client in JavaScript `1.0` is `1`.
fn as_any_client_writes(value: Value) -> Value {
    /// Beyond it not every whole number is an `f64`.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < WHOLE_MAX => {
                Value::from(float as i64)
            }
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(as_any_client_writes).collect(),
        Value::Object(fields) => {
            let field = |(name, value)| (name, as_any_client_writes(value));
            Value::Object(fields.into_iter().map(field).collect())
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: Value) -> PastCall {
        let arguments = arguments.as_object().expect("an object").clone();
        PastCall { id: "call_1".to_owned(), name: name.to_owned(), arguments }
    }

    #[track_caller]
    fn check(reply: &str, content: Option<&str>, calls: Vec<PastCall>) {
        let message = Message::calling(content.map(str::to_owned), calls);
        assert_eq!(reply_key(reply), message_key(&message));
    }

    #[test]
    fn a_reply_is_known_by_what_its_client_sees_of_it() {
        let paris = || call("look", json!({ "at": "Paris é", "zoom": 2, "deep": [0.5, null] }));
        check(
            "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"Paris \\u00e9\", \"zoom\": 2.0, \"deep\": [5e-1, null]}}\n</tool_call>",
            None,
            vec![paris()],
        );
        check(
            "{\"parameters\":{\"at\":\"Paris é\",\"zoom\":2,\"deep\":[0.5,null]},\"name\":\"look\"}",
            Some(""),
            vec![paris()],
        );
        check(
            " A\n<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call> B <tool_call>{\"name\":\"b\",\"arguments\":{}}</tool_call>",
            Some("A\nB"),
            vec![call("a", json!({})), call("b", json!({}))],
        );
        check(
            "A<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>\nB <tool",
            Some("A\nB <tool"),
            vec![call("a", json!({}))],
        );
    }

    #[test]
    fn other_calls_and_the_same_in_another_order_are_another_reply() {
        let key = |text, calls: &[(&str, Value)]| {
            let calls = calls.iter().map(|(name, arguments)| call(name, arguments.clone()));
            let message = Message::calling(Some(String::from(text)), calls.collect());
            message_key(&message).into_owned()
        };
        let one = key("A", &[("a", json!({ "x": 1, "y": 2 })), ("b", json!({}))]);
        assert_ne!(one, key("B", &[("a", json!({ "x": 1, "y": 2 })), ("b", json!({}))]));
        assert_ne!(one, key("A", &[("b", json!({})), ("a", json!({ "x": 1, "y": 2 }))]));
        assert_ne!(one, key("A", &[("a", json!({ "y": 2, "x": 1 })), ("b", json!({}))]));
        assert_ne!(one, key("A", &[("a", json!({ "x": 1, "y": 2 }))]));
    }

    /// The ids of one would stand in a prompt for what its client has as the other.
    #[test]
    fn no_text_and_no_name_reads_as_a_call() {
        let key = |text: &str, calls: &[&str]| {
            let calls = calls.iter().map(|name| call(name, json!({})));
            message_key(&Message::calling(Some(text.to_owned()), calls.collect())).into_owned()
        };
        assert_ne!(key("A", &["b", "c"]), key("A\n<tool_call>b{}", &["c"]));
        assert_ne!(key("A", &["b", "c"]), key("A", &["b{}\n<tool_call>c"]));
        assert_ne!(key("A", &["b"]), reply_key("A\n<tool_call>b{}"));
        // A text can look like anything, and has no calls for all that.
        let text = key("A", &["b"]);
        assert_eq!((calls_key(&text), reply_key(&text)), (None, Cow::Borrowed(&*text)));
    }

    #[test]
    fn a_reply_is_known_by_its_answer_with_its_thinking_and_without() {
        let call = "<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>";
        for thinking in ["<think>Hm.\n</think>\n\n", "Hm.\n</think>\n\n", "\n<think></think>"] {
            assert_eq!(reply_key(&format!("{thinking}No. ")), "No.");
            let inline = Message::new("assistant", format!("{thinking}No."));
            assert_eq!(message_key(&inline), "No.");
            let inside = format!("{thinking}No.{call}");
            check(&inside, Some("No."), vec![self::call("a", json!({}))]);
            check(&inside, Some(&format!("{thinking}No.")), vec![self::call("a", json!({}))]);
            check(&format!("{thinking}{call}"), Some(thinking), vec![self::call("a", json!({}))]);
        }
        let apart = Message::new("assistant", "No.").with_thinking("Hm.".to_owned());
        assert_eq!(message_key(&apart), "No.");
        // One that never came to an answer.
        let unfinished = Message::new("assistant", "").with_thinking("Hm.".to_owned());
        assert_eq!(
            (reply_key("<think>\nHm. "), message_key(&unfinished)),
            ("Hm.".into(), "Hm.".into())
        );
    }

    #[test]
    fn a_reply_without_calls_is_known_by_its_text() {
        assert_eq!(reply_key(" Hello\n"), "Hello");
        let text = "<tool_call>{\"name\":1}</tool_call>";
        assert_eq!(reply_key(text), text);
        assert_eq!(message_key(&Message::new("assistant", " Hello ")), "Hello");
    }
}
