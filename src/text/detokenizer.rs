//! Ids to text, one at a time: holds back half a character and nothing else.

use std::sync::Arc;

use crate::types::TokenId;

use super::pieces::Pieces;

/// Turns a stream of ids into text, O(bytes) in all. What it emits, joined, is what
/// [`Tokenizer::decode`](super::Tokenizer::decode) makes of all the ids.
///
/// Special tokens emit nothing. Bytes that are no UTF-8 become U+FFFD as in
/// `String::from_utf8_lossy`, also for SentencePiece byte tokens, where Hugging Face replaces each
/// byte of a run that has one wrong byte: a stream cannot take back what it has shown.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    pieces: Arc<Pieces>,
    /// Bytes of a character that is not complete yet: at most three.
    pending: Vec<u8>,
    /// What the last `push` emitted; kept for its allocation.
    emitted: String,
    /// Spaces still to be dropped from the start of the text.
    spaces_to_drop: usize,
}

impl Detokenizer {
    pub(super) fn new(pieces: Arc<Pieces>, spaces_to_drop: usize) -> Detokenizer {
        Detokenizer { pieces, pending: Vec::new(), emitted: String::new(), spaces_to_drop }
    }

    /// The text that became complete with this token, if any.
    pub fn push(&mut self, id: TokenId) -> Option<&str> {
        self.emitted.clear();
        let mut bytes = self.pieces.visible_bytes(id);
        while let [first, rest @ ..] = bytes {
            if self.spaces_to_drop == 0 {
                break;
            }
            if *first != b' ' {
                self.spaces_to_drop = 0;
                break;
            }
            self.spaces_to_drop -= 1;
            bytes = rest;
        }
        self.pending.extend_from_slice(bytes);
        self.emit_complete_characters();
        Some(self.emitted.as_str()).filter(|text| !text.is_empty())
    }

    /// The end of the text: U+FFFD if a character was left incomplete.
    pub fn finish(self) -> Option<String> {
        match self.pending.is_empty() {
            true => None,
            false => Some(char::REPLACEMENT_CHARACTER.to_string()),
        }
    }

    fn emit_complete_characters(&mut self) {
        let mut rest = self.pending.as_slice();
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.emitted.push_str(text);
                    self.pending.clear();
                    return;
                }
                Err(error) => error,
            };
            let (valid, after) = rest.split_at(error.valid_up_to());
            self.emitted
                .push_str(std::str::from_utf8(valid).expect("valid up to here, says the error"));
            match error.error_len() {
                Some(invalid_bytes) => {
                    self.emitted.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[invalid_bytes..];
                }
                None => {
                    let incomplete = after.len();
                    let complete = self.pending.len() - incomplete;
                    self.pending.drain(..complete);
                    return;
                }
            }
        }
    }
}
