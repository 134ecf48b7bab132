//! The tokenizer of a model: text to ids, ids to text, and which ids end a turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokenizers::{AddedVocabulary, Model, OffsetReferential, OffsetType, PreTokenizer};

use crate::types::{TextSource, TokenId};

use super::detokenizer::Detokenizer;
use super::error::Error;
use super::pieces::{Kind, Pieces};
use super::{gguf, hugging_face};

/// Tokens that end a turn in the models that have them, whatever else a model's files name.
const WELL_KNOWN_ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|return|>",
    "<|call|>",
    "<｜end▁of▁sentence｜>",
    "<end_of_turn>",
    "</s>",
];

/// Whether `<|im_end|>` in a text is that token or eleven characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// As in a rendered chat template.
    Parse,
    /// As in text that must not be able to end its own turn. Added tokens that are not special
    /// (`<think>` of Qwen) are still found, as in llama.cpp and Hugging Face.
    Ignore,
}

/// Shared by all requests: encoding takes `&self` and may run on many threads.
pub struct Tokenizer {
    encoder: tokenizers::Tokenizer,
    /// The encoder's added tokens, set to leave special ones in the text.
    without_special: AddedVocabulary,
    pieces: Arc<Pieces>,
    beginning: Vec<TokenId>,
    end_tokens: Vec<TokenId>,
}

/// What a model's files come to, whichever files they are.
pub(super) struct Parts {
    pub encoder: tokenizers::Tokenizer,
    pub pieces: Pieces,
    /// What raw text begins with: BOS, or nothing.
    pub beginning: Vec<TokenId>,
    /// The end tokens that the files name.
    pub named_ends: Vec<TokenId>,
}

impl Tokenizer {
    pub fn new(source: &TextSource) -> Result<Tokenizer, Error> {
        // The library trusts parts of the file to fit each other, and panics if they do not.
        let read = catch_unwind(AssertUnwindSafe(|| Tokenizer::read(source)));
        read.unwrap_or_else(|_| {
            let reason = "the tokenizers library panicked on it".to_owned();
            Err(Error::BrokenFile { file: "tokenizer.json", reason })
        })
    }

    fn read(source: &TextSource) -> Result<Tokenizer, Error> {
        let parts = match source {
            TextSource::Folder { tokenizer_json, tokenizer_config_json, end_tokens, .. } => {
                let config = hugging_face::Config::parse(tokenizer_config_json.as_deref())?;
                hugging_face::parts(tokenizer_json, &config, end_tokens)?
            }
            TextSource::Gguf(vocabulary) => gguf::parts(vocabulary)?,
        };
        let mut without_special = parts.encoder.get_added_vocabulary().clone();
        without_special.set_encode_special_tokens(true);
        Ok(Tokenizer {
            without_special,
            end_tokens: end_tokens(&parts),
            encoder: parts.encoder,
            pieces: Arc::new(parts.pieces),
            beginning: parts.beginning,
        })
    }

    /// The ids of a text, with nothing put before or after it: a rendered chat template already
    /// contains BOS. Linear in the text, about 2 MB/s.
    ///
    /// One known difference to Hugging Face's own build, which uses Oniguruma: after a run of
    /// about a million spaces `fancy-regex` gives up and the rest of the text is one piece. The
    /// ids still stand for the same text.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<TokenId>, Error> {
        let added = match special {
            Special::Parse => self.encoder.get_added_vocabulary(),
            Special::Ignore => &self.without_special,
        };
        let failed = |error: tokenizers::Error| Error::Encode { reason: error.to_string() };
        let mut pieces = added.extract_and_normalize(self.encoder.get_normalizer(), text);
        if let Some(pre_tokenizer) = self.encoder.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(failed)?;
        }
        let model = self.encoder.get_model();
        pieces.tokenize(|piece| model.tokenize(piece.get())).map_err(failed)?;
        Ok(pieces
            .get_splits(OffsetReferential::Original, OffsetType::None)
            .into_iter()
            .filter_map(|(_, _, tokens)| tokens.as_ref())
            .flatten()
            .map(|token| TokenId(token.id))
            .collect())
    }

    /// The ids of a text that no template has seen (`--raw`, `/v1/completions`): special tokens
    /// are parsed, and BOS is put before it if the model wants one and the text has none.
    pub fn encode_raw(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        let ids = self.encode(text, Special::Parse)?;
        if ids.starts_with(&self.beginning) {
            return Ok(ids);
        }
        Ok([self.beginning.as_slice(), &ids].concat())
    }

    /// The text of a reply, without special tokens. As Hugging Face's `decode`: SentencePiece's
    /// leading space is dropped where the model's decoder drops it.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let mut detokenizer = self.detokenizer();
        let mut text = String::new();
        for id in ids {
            text.extend(detokenizer.push(*id));
        }
        text.extend(detokenizer.finish());
        text
    }

    /// For a text that starts here: the reply to a chat.
    pub fn detokenizer(&self) -> Detokenizer {
        Detokenizer::new(Arc::clone(&self.pieces), self.pieces.leading_spaces_dropped)
    }

    /// For a text that goes on where another ends, as a raw completion does: SentencePiece's
    /// leading space belongs to it.
    pub fn continuing_detokenizer(&self) -> Detokenizer {
        Detokenizer::new(Arc::clone(&self.pieces), 0)
    }

    /// The bytes one token stands for, special tokens included; half a character is possible.
    pub fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.pieces.bytes(id)
    }

    /// The id of a special or added token by its text, such as `<|im_end|>`.
    pub fn added_token(&self, text: &str) -> Option<TokenId> {
        added_token(&self.encoder, &self.pieces, text)
    }

    pub fn is_special(&self, id: TokenId) -> bool {
        self.pieces.kind(id) == Some(Kind::Special)
    }

    pub(super) fn kind(&self, id: TokenId) -> Option<Kind> {
        self.pieces.kind(id)
    }

    /// One more than the highest id. The model's embedding may have more rows.
    pub fn vocabulary_size(&self) -> usize {
        self.pieces.len()
    }

    /// Every token that ends a turn, ascending.
    pub fn end_tokens(&self) -> &[TokenId] {
        &self.end_tokens
    }
}

fn end_tokens(parts: &Parts) -> Vec<TokenId> {
    let find = |text: &str| added_token(&parts.encoder, &parts.pieces, text);
    let mut ends = parts.named_ends.clone();
    for text in WELL_KNOWN_ENDS {
        // In gpt-oss `<|end|>` ends a message of the reply, `<|return|>` the reply.
        let is_inner = *text == "<|end|>" && find("<|return|>").is_some();
        if !is_inner {
            ends.extend(find(text));
        }
    }
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// A plain piece of the vocabulary that happens to read `</s>` is no end of anything.
fn added_token(encoder: &tokenizers::Tokenizer, pieces: &Pieces, text: &str) -> Option<TokenId> {
    let id = TokenId(encoder.token_to_id(text)?);
    match pieces.kind(id)? {
        Kind::Added | Kind::Special => Some(id),
        Kind::Model | Kind::Unused => None,
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocabulary_size", &self.vocabulary_size())
            .field("beginning", &self.beginning)
            .field("end_tokens", &self.end_tokens)
            .finish_non_exhaustive()
    }
}
