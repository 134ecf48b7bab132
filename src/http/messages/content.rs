//! Anthropic's messages of blocks as the messages that templates know.
//!
//! A user's turn may hold results of tools, which are turns of their own to a template. Turns of
//! the same role that follow each other are one, as in Anthropic's API.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::http::error::Error;
use crate::http::fields::{self, OneOrMany, goes_with, refuse_set, wrong};
use crate::text::{Message, PastCall, TEXTS_JOINED_BY};

/// Templates know no failed results, so the model reads of it.
const FAILED: &str = "Error: ";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schemars(rename = "MessageParam")]
pub struct WireMessage {
    role: Role,
    content: OneOrMany<Block>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "MessageRole")]
enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// A block of any type. By hand told apart, because an internally tagged enum's errors do not name
/// the place.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schemars(rename = "ContentBlockParam")]
pub struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    id: Option<String>,
    name: Option<String>,
    input: Option<Map<String, Value>>,
    tool_use_id: Option<String>,
    content: Option<OneOrMany<Block>>,
    is_error: Option<bool>,
    thinking: Option<String>,
    /// Who proves what was thought or why a tool was called; nothing comes of it here.
    signature: Option<String>,
    data: Option<String>,
    #[schemars(with = "Option<serde_json::Value>")]
    caller: Option<IgnoredAny>,
    /// A hint: what was read before is found without being marked.
    #[serde(rename = "cache_control")]
    #[schemars(with = "Option<serde_json::Value>")]
    _cache_control: Option<IgnoredAny>,

    #[schemars(skip)]
    citations: Option<IgnoredAny>,
    #[schemars(skip)]
    toolset_name: Option<IgnoredAny>,
    /// Of types that are refused.
    #[schemars(skip)]
    source: Option<IgnoredAny>,
    #[schemars(skip)]
    title: Option<IgnoredAny>,
    #[schemars(skip)]
    context: Option<IgnoredAny>,
}

/// A block with what its type needs.
enum Part {
    Text(String),
    Call(PastCall),
    Result {
        id: String,
        content: String,
    },
    Thinking(String),
    /// Thoughts that only Anthropic can read.
    Unreadable,
}

/// The system's words and the turns, first the system's.
pub fn messages(
    system: Option<OneOrMany<Block>>,
    wire: Vec<WireMessage>,
) -> Result<Vec<Message>, Error> {
    fields::check_count("messages", wire.len())?;
    if let Some(first) = wire.iter().position(|message| message.role != Role::System)
        && wire[first].role == Role::Assistant
    {
        let field = format!("messages[{first}].role");
        let message = format!("{field} is \"assistant\"; the user begins");
        return Err(Error::field(field, message));
    }
    let mut turns = Turns::default();
    if let Some(system) = system {
        turns.add(Role::System, parts(system, "system", Role::System)?);
        turns.end();
    }
    for (index, message) in wire.into_iter().enumerate() {
        let path = format!("messages[{index}].content");
        turns.add(message.role, parts(message.content, &path, message.role)?);
    }
    turns.end();
    Ok(turns.messages)
}

/// The turns so far, and the one that is being put together.
#[derive(Default)]
struct Turns {
    messages: Vec<Message>,
    /// Of the open turn.
    role: Option<Role>,
    texts: Vec<String>,
    calls: Vec<PastCall>,
    thoughts: Vec<String>,
    /// The names of the tools that were called, by the ids of the calls.
    names: HashMap<String, String>,
}

impl Turns {
    fn add(&mut self, role: Role, parts: Vec<Part>) {
        if self.role != Some(role) {
            self.end();
        }
        self.role = Some(role);
        for part in parts {
            match part {
                Part::Text(text) => self.texts.push(text),
                Part::Call(call) => {
                    self.names.insert(call.id.clone(), call.name.clone());
                    self.calls.push(call);
                }
                Part::Result { id, content } => {
                    self.end();
                    self.role = Some(role);
                    self.messages.push(self.result(id, content));
                }
                Part::Thinking(thought) => self.thoughts.push(thought),
                Part::Unreadable => (),
            }
        }
    }

    /// Templates know a call's result as a turn, some by the name of its tool.
    fn result(&self, id: String, content: String) -> Message {
        let mut message = Message::new("tool", content);
        if let Some(name) = self.names.get(&id) {
            message.extra.insert("name".to_owned(), name.as_str().into());
        }
        message.extra.insert("tool_call_id".to_owned(), id.into());
        message
    }

    /// Ends the open turn, if anything was said in it.
    fn end(&mut self) {
        let Some(role) = self.role.take() else { return };
        let texts = std::mem::take(&mut self.texts);
        let calls = std::mem::take(&mut self.calls);
        let thoughts = std::mem::take(&mut self.thoughts);
        // A reply may be empty, and a user's turn may be nothing but results.
        if texts.is_empty() && role != Role::Assistant {
            return;
        }
        let text = texts.join(TEXTS_JOINED_BY);
        let mut message = match calls.is_empty() {
            true => Message::new(role.name(), text),
            false => Message::calling(Some(text).filter(|text| !text.is_empty()), calls),
        };
        if !thoughts.is_empty() {
            message = message.with_thinking(thoughts.join(TEXTS_JOINED_BY));
        }
        self.messages.push(message);
    }
}

fn parts(content: OneOrMany<Block>, path: &str, role: Role) -> Result<Vec<Part>, Error> {
    let parts = match content {
        OneOrMany::One(text) => vec![Part::Text(text)],
        OneOrMany::Many(blocks) => {
            let blocks = blocks.into_iter().enumerate();
            let parts = blocks.map(|(index, block)| block.part(&format!("{path}[{index}]"), role));
            parts.collect::<Result<Vec<Part>, Error>>()?
        }
    };
    let is_empty = |part: &Part| matches!(part, Part::Text(text) if text.is_empty());
    let has_nothing = parts.is_empty() || parts.iter().any(is_empty);
    match role {
        // A reply may have been empty, and comes back so.
        Role::Assistant => Ok(parts.into_iter().filter(|part| !is_empty(part)).collect()),
        // Clients that have nothing to say as the system say nothing.
        Role::System if path == "system" => {
            Ok(parts.into_iter().filter(|part| !is_empty(part)).collect())
        }
        Role::System | Role::User if has_nothing => {
            Err(Error::field(path, format!("{path} is empty or has an empty text")))
        }
        Role::System | Role::User => Ok(parts),
    }
}

impl Block {
    fn part(self, path: &str, role: Role) -> Result<Part, Error> {
        let at = |name: &str| format!("{path}.{name}");
        let missing = |name: &str| Error::field(at(name), format!("{} is missing", at(name)));
        self.check_fields(path, role)?;
        match (self.kind.as_str(), role) {
            ("text", _) => {
                refuse_set(&[("citations", self.citations)], &at(""))?;
                self.text.map(Part::Text).ok_or_else(|| missing("text"))
            }
            ("tool_use", Role::Assistant) => {
                refuse_set(&[("toolset_name", self.toolset_name)], &at(""))?;
                Ok(Part::Call(PastCall {
                    id: self.id.ok_or_else(|| missing("id"))?,
                    name: self.name.ok_or_else(|| missing("name"))?,
                    arguments: self.input.ok_or_else(|| missing("input"))?,
                }))
            }
            ("tool_result", Role::User) => {
                let id = self.tool_use_id.ok_or_else(|| missing("tool_use_id"))?;
                let mut content = match self.content {
                    None => String::new(),
                    Some(content) => result_text(content, &at("content"))?,
                };
                if self.is_error == Some(true) {
                    content.insert_str(0, FAILED);
                }
                Ok(Part::Result { id, content })
            }
            ("thinking", Role::Assistant) => {
                self.thinking.map(Part::Thinking).ok_or_else(|| missing("thinking"))
            }
            ("redacted_thinking", Role::Assistant) => Ok(Part::Unreadable),
            (kind, role) => {
                let expected = match role {
                    Role::System => "\"text\"",
                    Role::User => "\"text\" or \"tool_result\"",
                    Role::Assistant => {
                        "\"text\", \"tool_use\", \"thinking\" or \"redacted_thinking\""
                    }
                };
                Err(wrong(&at("type"), kind, expected))
            }
        }
    }

    /// Refuses what is there and is another type's. Of a type that is refused itself, that is told.
    fn check_fields(&self, path: &str, role: Role) -> Result<(), Error> {
        let own: &[&str] = match (self.kind.as_str(), role) {
            ("text", _) => &["text", "citations"],
            ("tool_use", Role::Assistant) => &["id", "name", "input", "caller", "toolset_name"],
            ("tool_result", Role::User) => &["tool_use_id", "content", "is_error"],
            ("thinking", Role::Assistant) => &["thinking", "signature"],
            ("redacted_thinking", Role::Assistant) => &["data"],
            _ => return Ok(()),
        };
        let all = [
            ("text", self.text.is_some()),
            ("id", self.id.is_some()),
            ("name", self.name.is_some()),
            ("input", self.input.is_some()),
            ("tool_use_id", self.tool_use_id.is_some()),
            ("content", self.content.is_some()),
            ("is_error", self.is_error.is_some()),
            ("thinking", self.thinking.is_some()),
            ("signature", self.signature.is_some()),
            ("data", self.data.is_some()),
            ("caller", self.caller.is_some()),
            ("citations", self.citations.is_some()),
            ("toolset_name", self.toolset_name.is_some()),
            ("source", self.source.is_some()),
            ("title", self.title.is_some()),
            ("context", self.context.is_some()),
        ];
        let others = all.into_iter().filter(|(name, _)| !own.contains(name));
        for (name, is_set) in others {
            goes_with(&format!("{path}.{name}"), is_set, &self.kind)?;
        }
        Ok(())
    }
}

/// The text of a tool's result, which may be empty.
fn result_text(content: OneOrMany<Block>, path: &str) -> Result<String, Error> {
    let blocks = match content {
        OneOrMany::One(text) => return Ok(text),
        OneOrMany::Many(blocks) => blocks,
    };
    let mut texts = Vec::new();
    for (index, block) in blocks.into_iter().enumerate() {
        match block.part(&format!("{path}[{index}]"), Role::System)? {
            Part::Text(text) => texts.push(text),
            Part::Call(_) | Part::Result { .. } | Part::Thinking(_) | Part::Unreadable => (),
        }
    }
    Ok(texts.join(TEXTS_JOINED_BY))
}
