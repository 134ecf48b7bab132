//! Anthropic's messages of blocks as the messages that templates know.
//!
//! A user's turn may hold results of tools, which are turns of their own to a template. Turns of
//! the same role that follow each other are one, as in Anthropic's API.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::http::error::Error;
use crate::http::fields::{MESSAGES_MAX, OneOrMany, refuse_set};
use crate::text::Message;

/// What stands between texts that were given apart, as in chats.
const BETWEEN_TEXTS: &str = "\n";
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
    #[serde(rename = "signature")]
    _signature: Option<String>,
    #[serde(rename = "data")]
    _data: Option<String>,
    #[serde(rename = "caller")]
    #[schemars(with = "Option<serde_json::Value>")]
    _caller: Option<IgnoredAny>,
    /// A hint: what was read before is found without being marked.
    #[serde(rename = "cache_control")]
    #[schemars(with = "Option<serde_json::Value>")]
    _cache_control: Option<IgnoredAny>,

    #[schemars(skip)]
    citations: Option<IgnoredAny>,
    #[schemars(skip)]
    toolset_name: Option<IgnoredAny>,
    /// Of types that are refused.
    #[serde(rename = "source")]
    #[schemars(with = "Option<serde_json::Value>")]
    _source: Option<IgnoredAny>,
    #[serde(rename = "title")]
    #[schemars(with = "Option<serde_json::Value>")]
    _title: Option<IgnoredAny>,
    #[serde(rename = "context")]
    #[schemars(with = "Option<serde_json::Value>")]
    _context: Option<IgnoredAny>,
}

/// A block with what its type needs.
enum Part {
    Text(String),
    Use {
        id: String,
        name: String,
        input: Map<String, Value>,
    },
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
    match wire.len() {
        0 => return Err(Error::field("messages", "messages is empty; there is at least one")),
        count if count > MESSAGES_MAX => {
            let message = format!("messages has {count} items; at most {MESSAGES_MAX}");
            return Err(Error::field("messages", message));
        }
        _ => (),
    }
    if let Some(first) = wire.iter().position(|message| message.role != Role::System)
        && wire[first].role == Role::Assistant
    {
        let field = format!("messages[{first}].role");
        let message = format!("{field} is \"assistant\"; the user begins");
        return Err(Error::field(field, message));
    }
    let mut turns = Turns::default();
    if let Some(system) = system {
        for part in parts(system, "system", Role::System)? {
            turns.add(Role::System, part);
        }
    }
    turns.end();
    for (index, message) in wire.into_iter().enumerate() {
        let path = format!("messages[{index}].content");
        if turns.role != Some(message.role) {
            turns.end();
        }
        turns.role = Some(message.role);
        let parts = parts(message.content, &path, message.role)?;
        turns.is_after_call = false;
        for part in parts {
            turns.add(message.role, part);
        }
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
    text: Option<String>,
    /// What was said last in the open turn is a call: text after it goes on where text before ended.
    is_after_call: bool,
    calls: Vec<Value>,
    thoughts: Vec<String>,
    /// The names of the tools that were called, by the ids of the calls.
    names: HashMap<String, String>,
}

impl Turns {
    fn add(&mut self, role: Role, part: Part) {
        self.role = Some(role);
        match part {
            Part::Text(more) => match &mut self.text {
                Some(text) => {
                    if !self.is_after_call {
                        text.push_str(BETWEEN_TEXTS);
                    }
                    text.push_str(&more);
                    self.is_after_call = false;
                }
                None => self.text = Some(more),
            },
            Part::Use { id, name, input } => {
                self.calls.push(json!({
                    "id": id,
                    "type": "function",
                    "function": { "name": name, "arguments": input },
                }));
                self.names.insert(id, name);
                self.is_after_call = true;
            }
            Part::Result { id, content } => {
                self.end();
                let name = self.names.get(&id).cloned();
                let mut message = Message::new("tool", content);
                message.extra.insert("tool_call_id".to_owned(), id.into());
                if let Some(name) = name {
                    message.extra.insert("name".to_owned(), name.into());
                }
                self.messages.push(message);
                self.role = Some(role);
            }
            Part::Thinking(thought) => self.thoughts.push(thought),
            Part::Unreadable => (),
        }
    }

    /// Ends the open turn, if anything was said in it.
    fn end(&mut self) {
        let role = match self.role.take() {
            None => return,
            Some(Role::System) => "system",
            Some(Role::User) => "user",
            Some(Role::Assistant) => "assistant",
        };
        self.is_after_call = false;
        let (text, calls) = (self.text.take(), std::mem::take(&mut self.calls));
        let thoughts = std::mem::take(&mut self.thoughts);
        let is_assistant = role == "assistant";
        if text.is_none() && !is_assistant {
            return;
        }
        let mut extra = Map::new();
        if !thoughts.is_empty() {
            let thoughts = thoughts.join(BETWEEN_TEXTS);
            extra.insert("reasoning_content".to_owned(), thoughts.into());
        }
        let content = match calls.is_empty() {
            // A reply may be empty.
            true => Some(text.unwrap_or_default()),
            false => text,
        };
        if !calls.is_empty() {
            extra.insert("tool_calls".to_owned(), calls.into());
        }
        self.messages.push(Message { role: role.to_owned(), content, extra });
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
        match (self.kind.as_str(), role) {
            ("text", _) => {
                refuse_set(&[("citations", self.citations)], &at(""))?;
                self.text.map(Part::Text).ok_or_else(|| missing("text"))
            }
            ("tool_use", Role::Assistant) => {
                refuse_set(&[("toolset_name", self.toolset_name)], &at(""))?;
                Ok(Part::Use {
                    id: self.id.ok_or_else(|| missing("id"))?,
                    name: self.name.ok_or_else(|| missing("name"))?,
                    input: self.input.ok_or_else(|| missing("input"))?,
                })
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
                let most = match role {
                    Role::System => "\"text\"",
                    Role::User => "\"text\" or \"tool_result\"",
                    Role::Assistant => {
                        "\"text\", \"tool_use\", \"thinking\" or \"redacted_thinking\""
                    }
                };
                let message = format!("{} is {kind:?}; here it is {most}", at("type"));
                Err(Error::field(at("type"), message))
            }
        }
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
            Part::Use { .. } | Part::Result { .. } | Part::Thinking(_) | Part::Unreadable => (),
        }
    }
    Ok(texts.join(BETWEEN_TEXTS))
}
