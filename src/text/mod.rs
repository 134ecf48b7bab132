//! Text to token ids and back: tokenizer, incremental detokenizer, chat templates, stop sequences.
//!
//! Pure: bytes and ids in, ids and text out. No files, no clock.

mod stop;

pub use stop::{StopMatcher, Stopped};
