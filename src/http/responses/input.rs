//! The items of a conversation: as a client sends them, as they are kept, as the messages that
//! templates know.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::http::chat::arguments_of;
use crate::http::error::Error;
use crate::http::fields::{self, OneOrMany, shown, unsupported, wrong};
use crate::text::{Message, PastCall, TEXTS_JOINED_BY};

/// An item of any type. What only some types have may be anything, so that it is the type that is
/// refused.
#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
#[schemars(rename = "ResponseInputItem")]
pub struct WireItem {
    /// A message if it is not there.
    #[serde(rename = "type")]
    kind: Option<String>,
    role: Option<Role>,
    content: Option<OneOrMany<Part>>,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    output: Option<OneOrMany<Part>>,
    /// It is not read: what is told of thinking is its `content`.
    summary: Option<Vec<Value>>,
    /// What our own items have.
    #[serde(rename = "id")]
    _id: Option<String>,
    #[serde(rename = "status")]
    _status: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ResponseRole")]
pub enum Role {
    User,
    Assistant,
    System,
    Developer,
}

#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
#[schemars(rename = "ResponseInputPart")]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    /// What our own parts have.
    #[serde(rename = "annotations")]
    _annotations: Option<Vec<Value>>,
    #[serde(rename = "logprobs")]
    _logprobs: Option<Vec<Value>>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// An item with nothing left to check but whether what it answers is there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    Message {
        role: Role,
        text: String,
    },
    /// The arguments are the text of a JSON object.
    Call {
        call_id: String,
        name: String,
        arguments: String,
    },
    Output {
        call_id: String,
        output: String,
    },
    /// What the assistant thought before what follows.
    Thought {
        text: String,
    },
}

impl Item {
    /// Of its text, about.
    pub fn bytes(&self) -> usize {
        match self {
            Item::Message { text, .. } | Item::Thought { text } => text.len(),
            Item::Call { call_id, name, arguments } => call_id.len() + name.len() + arguments.len(),
            Item::Output { call_id, output } => call_id.len() + output.len(),
        }
    }
}

/// The items of a request.
pub fn items(input: OneOrMany<WireItem>) -> Result<Vec<Item>, Error> {
    match input {
        OneOrMany::One(text) => Ok(vec![Item::Message { role: Role::User, text }]),
        OneOrMany::Many(items) => {
            fields::check_count("input", items.len())?;
            let items = items.into_iter().enumerate();
            items.map(|(index, item)| item.checked(&format!("input[{index}]"))).collect()
        }
    }
}

impl WireItem {
    fn checked(self, path: &str) -> Result<Item, Error> {
        let at = |name: &str| format!("{path}.{name}");
        let missing = |name: &str| Error::field(at(name), format!("{} is missing", at(name)));
        let kind = self.kind.as_deref().unwrap_or("message");
        let own: &[&str] = match kind {
            "message" => &["role", "content"],
            "function_call" => &["call_id", "name", "arguments"],
            "function_call_output" => &["call_id", "output"],
            "reasoning" => &["content", "summary"],
            other => {
                let expected =
                    "\"message\", \"function_call\", \"function_call_output\" or \"reasoning\"";
                return Err(wrong(&at("type"), other, expected));
            }
        };
        self.check_fields(own, kind, path)?;
        Ok(match kind {
            "message" => Item::Message {
                role: self.role.ok_or_else(|| missing("role"))?,
                text: match self.content.ok_or_else(|| missing("content"))? {
                    OneOrMany::Many(parts) if parts.is_empty() => {
                        let field = at("content");
                        return Err(Error::field(field.as_str(), format!("{field} is empty")));
                    }
                    content => joined(content, TEXT_PARTS, &at("content"))?,
                },
            },
            "reasoning" => {
                let content = self.content.unwrap_or(OneOrMany::Many(Vec::new()));
                Item::Thought { text: joined(content, THOUGHT_PARTS, &at("content"))? }
            }
            "function_call" => {
                let arguments = self.arguments.ok_or_else(|| missing("arguments"))?;
                arguments_of(&arguments, &at("arguments"))?;
                Item::Call {
                    call_id: self.call_id.ok_or_else(|| missing("call_id"))?,
                    name: self.name.ok_or_else(|| missing("name"))?,
                    arguments,
                }
            }
            _ => Item::Output {
                call_id: self.call_id.ok_or_else(|| missing("call_id"))?,
                output: {
                    let output = self.output.ok_or_else(|| missing("output"))?;
                    joined(output, TEXT_PARTS, &at("output"))?
                },
            },
        })
    }

    /// Refuses what is there and is another type's, or nobody's.
    fn check_fields(&self, own: &[&str], kind: &str, path: &str) -> Result<(), Error> {
        let all = [
            ("role", self.role.is_some()),
            ("content", self.content.is_some()),
            ("call_id", self.call_id.is_some()),
            ("name", self.name.is_some()),
            ("arguments", self.arguments.is_some()),
            ("output", self.output.is_some()),
            ("summary", self.summary.is_some()),
        ];
        for (name, is_set) in all.into_iter().filter(|(name, _)| !own.contains(name)) {
            fields::goes_with(&format!("{path}.{name}"), is_set, kind)?;
        }
        refuse_others(&self.others, path)
    }
}

fn refuse_others(others: &Map<String, Value>, path: &str) -> Result<(), Error> {
    match others.iter().find(|(_, value)| !value.is_null()) {
        Some((name, _)) => Err(unsupported(&format!("{path}.{name}"))),
        None => Ok(()),
    }
}

/// The types of parts.
const TEXT_PARTS: &[&str] = &["input_text", "output_text"];
const THOUGHT_PARTS: &[&str] = &["reasoning_text"];

/// Parts of these types, joined by line breaks as those of a chat's messages.
fn joined(content: OneOrMany<Part>, kinds: &[&str], path: &str) -> Result<String, Error> {
    let parts = match content {
        OneOrMany::One(text) => return Ok(text),
        OneOrMany::Many(parts) => parts,
    };
    let mut texts = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        if !kinds.contains(&part.kind.as_str()) {
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
            return Err(wrong(&format!("{path}.type"), &part.kind, &kinds.join(" or ")));
        }
        refuse_others(&part.others, &path)?;
        let field = format!("{path}.text");
        let missing = || Error::field(field.as_str(), format!("{field} is missing"));
        texts.push(part.text.ok_or_else(missing)?);
    }
    Ok(texts.join("\n"))
}

/// The conversation as templates know it. The first `past` of the items are of the responses
/// before; a fault is in one of the others.
pub fn messages(
    instructions: Option<String>,
    items: &[Item],
    past: usize,
) -> Result<Vec<Message>, Error> {
    fields::check_count_after("input", past, items.len().saturating_sub(past))?;
    let mut turns = Turns::default();
    turns.messages.extend(instructions.map(|text| Message::new("system", text)));
    for (index, item) in items.iter().enumerate() {
        turns.add(item, index.saturating_sub(past))?;
    }
    turns.end();
    Ok(turns.messages)
}

/// The turns so far, and the assistant's that is being put together: what it says before and behind
/// its calls is one turn, as the model wrote it.
#[derive(Default)]
struct Turns<'a> {
    messages: Vec<Message>,
    thought: Option<&'a str>,
    texts: Vec<&'a str>,
    calls: Vec<PastCall>,
    /// The names of the tools that were called, by the ids of the calls.
    names: HashMap<&'a str, &'a str>,
}

impl<'a> Turns<'a> {
    fn add(&mut self, item: &'a Item, index: usize) -> Result<(), Error> {
        match item {
            Item::Message { role: Role::Assistant, text } => {
                // Without a call between them they are two turns.
                if self.calls.is_empty() && !self.texts.is_empty() {
                    self.end();
                }
                self.texts.push(text);
            }
            Item::Message { role, text } => {
                self.end();
                // Templates know the older name only.
                let role = match role {
                    Role::User => "user",
                    Role::Assistant => "assistant",
                    Role::System | Role::Developer => "system",
                };
                self.messages.push(Message::new(role, text));
            }
            Item::Thought { text } => {
                self.end();
                self.thought = Some(text);
            }
            Item::Call { call_id, name, arguments } => {
                let arguments = arguments_of(arguments, &format!("input[{index}].arguments"))?;
                self.names.insert(call_id, name);
                self.calls.push(PastCall { id: call_id.clone(), name: name.clone(), arguments });
            }
            Item::Output { call_id, output } => {
                self.end();
                let Some(name) = self.names.get(call_id.as_str()) else {
                    let field = format!("input[{index}].call_id");
                    let message = format!("{field} is {}, which no call has", shown(call_id));
                    return Err(Error::field(field, message));
                };
                let mut message = Message::new("tool", output);
                message.extra.insert("name".to_owned(), (*name).into());
                message.extra.insert("tool_call_id".to_owned(), call_id.as_str().into());
                self.messages.push(message);
            }
        }
        Ok(())
    }

    /// Ends the open turn, if there is one.
    fn end(&mut self) {
        let thought = self.thought.take().filter(|thought| !thought.is_empty());
        let texts = std::mem::take(&mut self.texts);
        let calls = std::mem::take(&mut self.calls);
        if thought.is_none() && texts.is_empty() && calls.is_empty() {
            return;
        }
        let text = texts.join(TEXTS_JOINED_BY);
        let message = match calls.is_empty() {
            true => Message::new("assistant", text),
            false => Message::calling(Some(text).filter(|text| !text.is_empty()), calls),
        };
        self.messages.push(match thought {
            Some(thought) => message.with_thinking(thought.to_owned()),
            None => message,
        });
    }
}
