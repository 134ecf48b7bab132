//! From a conversation to the tokens that the engine sees.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::JoinHandle;

use super::Serving;
use super::error::Error;
use crate::text::{self, Conversation, Message, Prompt, RenderOptions, Tool, chat_prompt};
use crate::types::Namespace;

/// Text that is made a prompt on the async thread itself: about half a millisecond's work. More
/// goes to a thread that may take its time.
const INLINE_BYTES_MAX: usize = 1 << 10;
/// What a message costs besides its text, as bytes of text that cost as much.
const MESSAGE_BYTES: usize = 64;

pub async fn prompt(
    serving: &Arc<Serving>,
    namespace: &Namespace,
    messages: Vec<Message>,
    tools: Vec<Tool>,
) -> Result<Prompt, Error> {
    if !tools.is_empty() && !serving.template.renders_tools() {
        let message = format!("the template of {} renders no tools", serving.model);
        return Err(Error::field("tools", message));
    }
    let text_bytes = |message: &Message| message.content.as_ref().map_or(0, String::len);
    let bytes: usize = messages.iter().map(|message| text_bytes(message) + MESSAGE_BYTES).sum();
    let options = RenderOptions {
        tools: tools.into_iter().map(|tool| tool.schema).collect(),
        ..RenderOptions::new(SystemTime::now())
    };
    if options.tools.is_empty() && bytes <= INLINE_BYTES_MAX {
        return Ok(encode(serving, namespace, &messages, &options)?);
    }
    let (serving, namespace) = (Arc::clone(serving), namespace.clone());
    let encode = move || encode(&serving, &namespace, &messages, &options);
    let mut encoding = AbortedIfDropped(tokio::task::spawn_blocking(encode));
    Ok((&mut encoding.0).await.map_err(|_| Error::Panicked)??)
}

/// If the client leaves while its prompt waits for a thread, nobody makes it.
struct AbortedIfDropped<T>(JoinHandle<T>);

impl<T> Drop for AbortedIfDropped<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn encode(
    serving: &Serving,
    namespace: &Namespace,
    messages: &[Message],
    options: &RenderOptions,
) -> Result<Prompt, text::Error> {
    let conversation = Conversation { messages, options };
    let mut known = |reply: &str| serving.engine.known_replies(namespace, reply);
    chat_prompt(&serving.template, &serving.tokenizer, conversation, &mut known)
}
