//! The bytes that each token id stands for: all that decoding needs.
//!
//! The `tokenizers` crate decodes a whole list of ids at once, which makes streaming quadratic
//! or heuristic. Every decoder that language models use is a plain map from id to bytes, plus at
//! most one space dropped at the start; this table is that map.

use std::sync::LazyLock;

use crate::types::TokenId;

use super::error::Error;
use super::reasoning::{THINK, THINK_END};

/// The largest vocabulary we accept. Gemma's, the largest in use, has 262,144 entries; an id
/// beyond this bound is a damaged file, not a model, and must not size an allocation.
pub(super) const VOCABULARY_MAX: usize = 1 << 20;

/// How a token's text in the vocabulary becomes bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Decoding {
    /// GPT-2's alphabet: each character stands for one byte.
    pub byte_level: bool,
    /// `<0x0A>` stands for one byte.
    pub byte_fallback: bool,
    /// Replaced in each token, usually `▁` by a space.
    pub replace: Vec<(String, String)>,
    /// Spaces dropped at the start of a decoded text.
    pub leading_spaces_dropped: usize,
}

/// What an id is, besides its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Part of the model's own vocabulary: its text is encoded as [`Decoding`] says.
    Model,
    /// Matched as a whole, before the model splits; its text is meant literally.
    Added,
    /// Like `Added`, and never shown: `<|im_end|>`, `<s>`.
    Special,
    /// A gap in the vocabulary.
    Unused,
}

#[derive(Debug)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// `ends[id]` is where the bytes of `id` end; they start where those of `id - 1` end.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    pub leading_spaces_dropped: usize,
}

impl Pieces {
    /// `tokens[id]` is the text in the vocabulary.
    pub fn new(tokens: &[(String, Kind)], decoding: &Decoding) -> Result<Pieces, Error> {
        let mut pieces = Pieces {
            bytes: Vec::new(),
            ends: Vec::with_capacity(tokens.len()),
            kinds: Vec::with_capacity(tokens.len()),
            leading_spaces_dropped: decoding.leading_spaces_dropped,
        };
        for (text, kind) in tokens {
            let kind = match kind {
                // Whoever reads a reply has to see where thinking ends, whatever a vocabulary says.
                Kind::Special if [THINK, THINK_END].contains(&text.as_str()) => Kind::Added,
                kind => *kind,
            };
            match kind {
                Kind::Model => decoding.decode_into(text, &mut pieces.bytes),
                Kind::Added | Kind::Special => pieces.bytes.extend_from_slice(text.as_bytes()),
                Kind::Unused => (),
            }
            let end = u32::try_from(pieces.bytes.len())
                .map_err(|_| Error::broken_vocabulary("its texts are longer than 4 GiB"))?;
            pieces.ends.push(end);
            pieces.kinds.push(kind);
        }
        Ok(pieces)
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn kind(&self, id: TokenId) -> Option<Kind> {
        self.kinds.get(id.0 as usize).copied()
    }

    /// The bytes of any token, special ones included; `None` beyond the vocabulary.
    pub fn bytes(&self, id: TokenId) -> Option<&[u8]> {
        let index = id.0 as usize;
        let end = *self.ends.get(index)? as usize;
        let start = match index {
            0 => 0,
            _ => self.ends[index - 1] as usize,
        };
        Some(&self.bytes[start..end])
    }

    /// The bytes a reader sees: none for special tokens and for ids beyond the vocabulary (a
    /// model's embedding is often padded, and an untrained row can be sampled).
    pub fn visible_bytes(&self, id: TokenId) -> &[u8] {
        match self.kind(id) {
            Some(Kind::Model | Kind::Added) => self.bytes(id).unwrap_or_default(),
            Some(Kind::Special | Kind::Unused) | None => &[],
        }
    }
}

impl Decoding {
    fn decode_into(&self, text: &str, bytes: &mut Vec<u8>) {
        if self.byte_level {
            let start = bytes.len();
            for character in text.chars() {
                match byte_of(character) {
                    Some(byte) => bytes.push(byte),
                    None => {
                        // Not in the alphabet: the whole token is literal text, as in
                        // `ByteLevel::decode_chain` of the `tokenizers` crate.
                        bytes.truncate(start);
                        bytes.extend_from_slice(text.as_bytes());
                        return;
                    }
                }
            }
            return;
        }
        if let Some(byte) = byte_token(text).filter(|_| self.byte_fallback) {
            bytes.push(byte);
            return;
        }
        let mut text = text.to_owned();
        for (from, to) in &self.replace {
            text = text.replace(from, to);
        }
        bytes.extend_from_slice(text.as_bytes());
    }
}

/// The byte that SentencePiece's `<0x0A>` names.
fn byte_token(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hex = hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
    match is_hex {
        true => u8::from_str_radix(hex, 16).ok(),
        false => None,
    }
}

/// GPT-2's `bytes_to_unicode`, backwards: printable Latin-1 stands for itself, the other 68 bytes
/// for U+0100 onwards in order.
fn byte_of(character: char) -> Option<u8> {
    static TABLE: LazyLock<Vec<Option<u8>>> = LazyLock::new(|| {
        let mut table = vec![None; 0x100 + 68];
        let mut shifted = 0x100;
        for byte in 0..=u8::MAX {
            let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            if printable {
                table[usize::from(byte)] = Some(byte);
            } else {
                table[shifted] = Some(byte);
                shifted += 1;
            }
        }
        table
    });
    TABLE.get(character as usize).copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_gpt_2s() {
        assert_eq!(byte_of('a'), Some(b'a'));
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
        assert_eq!(byte_of('ł'), Some(0xA0));
        assert_eq!(byte_of('Ń'), Some(0xAD));
        assert_eq!(byte_of('ÿ'), Some(0xFF));
        assert_eq!(byte_of('▁'), None);
        assert_eq!((0..0x400).filter_map(char::from_u32).filter_map(byte_of).count(), 256);
    }

    #[test]
    fn only_two_hexadecimal_digits_name_a_byte() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xfF>"), Some(255));
        assert_eq!(byte_token("<0xA>"), None);
        assert_eq!(byte_token("<0x0A"), None);
        assert_eq!(byte_token("<0x+1>"), None);
    }
}
