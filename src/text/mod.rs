//! Text to token ids and back: tokenizer, incremental detokenizer, chat templates, tools, stop sequences.
//!
//! Pure: bytes and ids in, ids and text out. No files, no clock; the date a template may ask for
//! comes in as an argument. This room alone names `tokenizers`, `minijinja`, `llguidance` and
//! `toktrie`.
//!
//! [`Tokenizer::new`] reads either an MLX / Hugging Face folder (`hugging_face.rs`) or the
//! vocabulary inside a GGUF file (`gguf.rs`); both end in the same two things: an encoder of the
//! `tokenizers` crate, and our own table of the bytes each id stands for (`pieces.rs`).
//!
//! [`chat_prompt`] makes a conversation a [`Prompt`]: the template's text as ids, with the ids of
//! our own replies, which [`Replies`] remembers, in place of theirs. [`ReplyReader`] takes a reply
//! apart into thinking, text and calls of tools, and [`Grammars`] hold one to a JSON schema or to calls.
//! Where such a prompt still parts
//! from what is remembered, [`difference`](fn@difference) says where and probably why.

mod cause;
mod chat;
mod detokenizer;
mod difference;
mod error;
mod gguf;
mod grammar;
mod hugging_face;
mod pieces;
mod pre_tokenizer;
mod prompt;
mod python;
mod reasoning;
mod replies;
mod shown;
mod stop;
mod template;
mod tokenizer;
mod tools;

#[cfg(test)]
mod tests;

pub use cause::{Cause, Role};
pub use chat::{Conversation, chat_prompt, has_system, next_turn};
pub use detokenizer::Detokenizer;
pub use difference::{Difference, Explanation, common_tokens, difference, explain, text_of};
pub use error::Error;
pub use grammar::{
    CallFormat, CallsOf, Format, Function, Grammar, GrammarError, Grammars, Lost, Matcher,
    SCHEMA_PARTS_MAX, STACK_BYTES as GRAMMAR_STACK_BYTES, Schema,
};
pub use prompt::{Kept, Piece, Prompt, Resolved, Said, turns};
pub use reasoning::{Reasoning, ReplyReader, Splitter, Spoken};
pub use replies::Replies;
pub use stop::{StopMatcher, Stopped};
pub use template::{ChatTemplate, Message, RenderOptions};
pub use tokenizer::{Special, Tokenizer};
pub use tools::{PastCall, ReplyPart, TEXTS_JOINED_BY, Tool, ToolCall, ToolCallParser};
