//! From what was said to the tokens that the engine sees.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

use super::error::Error;
use super::{App, Serving};
use crate::engine::Reply;
use crate::text::{self, Conversation, Message, Prompt, RenderOptions, Tool, chat_prompt};
use crate::types::{Namespace, TokenId};

/// Text that is worked on by the async thread itself: about half a millisecond's work. More goes to
/// a thread that may take its time.
const INLINE_BYTES_MAX: usize = 1 << 10;
/// What a message costs besides its text, as bytes of text that cost as much.
const MESSAGE_BYTES: usize = 64;

/// What a reply is wanted to.
#[derive(Debug, PartialEq)]
pub enum Input {
    /// A conversation, to which the reply is the assistant's next turn.
    Chat { messages: Vec<Message>, tools: Vec<Tool> },
    /// A text as it is, of which the reply is more.
    Text(String),
    /// The same as ids, which may lie outside the vocabulary.
    Tokens(Vec<TokenId>),
    /// A conversation that has been made a prompt.
    Prompt(Prompt),
}

impl Input {
    pub fn reply(&self) -> Reply {
        match self {
            Input::Chat { .. } | Input::Prompt(_) => Reply::Turn,
            Input::Text(_) | Input::Tokens(_) => Reply::Continuation,
        }
    }

    /// The field of a request that it came in.
    pub fn field(&self) -> &'static str {
        match self {
            Input::Chat { .. } => "messages",
            Input::Text(_) | Input::Tokens(_) | Input::Prompt(_) => "prompt",
        }
    }

    /// Of text that is worked on, about.
    fn bytes(&self) -> usize {
        match self {
            Input::Chat { messages, tools } => {
                let message_bytes = |message: &Message| {
                    let extra: usize = message.extra.values().map(json_bytes).sum();
                    MESSAGE_BYTES + message.content.as_ref().map_or(0, String::len) + extra
                };
                let messages: usize = messages.iter().map(message_bytes).sum();
                messages + tools.iter().map(|tool| json_bytes(&tool.schema)).sum::<usize>()
            }
            Input::Text(text) => text.len(),
            Input::Tokens(_) | Input::Prompt(_) => 0,
        }
    }
}

/// Of a value written as JSON, about; without writing it.
fn json_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 4,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| json_bytes(item) + 1).sum(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| name.len() + json_bytes(value) + 4).sum()
        }
    }
}

pub async fn prompt(
    app: &App,
    serving: &Arc<Serving>,
    namespace: &Namespace,
    input: Input,
) -> Result<Prompt, Error> {
    if let Input::Chat { tools, .. } = &input
        && !tools.is_empty()
        && !serving.template.renders_tools()
    {
        let message = format!("the template of {} renders no tools", serving.model);
        return Err(Error::field("tools", message));
    }
    let (serving, own) = (Arc::clone(serving), namespace.clone());
    let bytes = input.bytes();
    let encode = move || match input {
        Input::Chat { messages, tools } => encode(&serving, &own, &messages, tools),
        Input::Text(text) => serving.tokenizer.encode_raw(&text).map(Prompt::from),
        Input::Tokens(tokens) => Ok(tokens.into()),
        Input::Prompt(prompt) => Ok(prompt),
    };
    Ok(beside(app, namespace, bytes, encode).await??)
}

/// Does work that is linear in so many bytes of text: at once if they are few, else beside the
/// async threads.
pub async fn beside<T: Send + 'static>(
    app: &App,
    namespace: &Namespace,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    app.workers.line(namespace).work(bytes, INLINE_BYTES_MAX, work).await
}

fn encode(
    serving: &Serving,
    namespace: &Namespace,
    messages: &[Message],
    tools: Vec<Tool>,
) -> Result<Prompt, text::Error> {
    let options = RenderOptions {
        tools: tools.into_iter().map(|tool| tool.schema).collect(),
        ..RenderOptions::new(SystemTime::now())
    };
    let conversation = Conversation { messages, options: &options };
    let mut known = |reply: &str| serving.engine.known_replies(namespace, reply);
    chat_prompt(&serving.template, &serving.tokenizer, conversation, &mut known)
}
