//! The nouns that more than one room uses, as types the compiler can tell apart.
//!
//! Nothing here is `Serialize`: the wire, the disk and the terminal each have their own types.

use std::fmt;
use std::sync::Arc;

/// An index into the model's vocabulary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u32);

/// A set of tokens, such as those that may come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSet {
    /// Token `id` is bit `id % 32` of word `id / 32`.
    words: Vec<u32>,
}

impl TokenSet {
    pub fn from_words(words: Vec<u32>) -> TokenSet {
        TokenSet { words }
    }

    pub fn has(&self, token: TokenId) -> bool {
        let word = self.words.get(token.0 as usize / 32).copied().unwrap_or(0);
        word >> (token.0 % 32) & 1 == 1
    }

    /// Those in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = TokenId> {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(TokenId(index as u32 * 32 + bit))
            })
        })
    }
}

impl FromIterator<TokenId> for TokenSet {
    fn from_iter<I: IntoIterator<Item = TokenId>>(tokens: I) -> TokenSet {
        let mut words = Vec::new();
        for TokenId(id) in tokens {
            let index = id as usize / 32;
            if words.len() <= index {
                words.resize(index + 1, 0);
            }
            words[index] |= 1 << (id % 32);
        }
        TokenSet { words }
    }
}

/// A block of the pool: the KV of up to [`BLOCK_TOKENS`] consecutive tokens, all layers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// Tokens in one KV block. Also the granularity of what is saved, shared and restored.
pub const BLOCK_TOKENS: usize = 256;

/// What one API key may see: agents and shared prefixes never cross its border.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

/// A named conversation with memory, unique in its [`Namespace`]. From outside, so never a file
/// name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(Arc<str>);

/// What ids of automatic agents begin with.
const AUTOMATIC: &str = "auto-";

/// The longest agent id, in bytes: enough for any name with a path or a UUID in it.
pub const AGENT_ID_BYTES_MAX: usize = 256;

/// Says whether two KV caches mean the same: a digest of everything about a model and its settings
/// that the bytes of a block depend on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// The number of a save of an agent: each has a higher one than all before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// One of the conversations that an agent can go on from. Its saves have the same line, and the
/// newest of them counts. No two lines of a store have the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line(pub u64);

/// Names a transcript: what was said up to one answer, word for word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TranscriptId(pub u128);

/// One tensor of an exported block. A block's bytes are its tensors' one after the other, each
/// row-major in this shape, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvTensor {
    /// E.g. `layer.0.key.codes`.
    pub name: String,
    pub element: KvElement,
    pub shape: Vec<KvAxis>,
}

/// What a tensor of a block is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvElement {
    U8,
    F16,
    F32,
    U64,
}

/// How long a tensor of a block is along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvAxis {
    /// As long as the block has tokens.
    Tokens,
    Fixed(usize),
}

/// Why a text is no agent id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentIdError {
    #[error("the agent id is empty")]
    Empty,
    #[error("the agent id has {bytes} bytes; at most {AGENT_ID_BYTES_MAX}")]
    TooLong { bytes: usize },
}

impl Namespace {
    /// That of the command line, and of a server without keys.
    pub fn local() -> Namespace {
        Namespace::new("local")
    }

    pub fn new(name: &str) -> Namespace {
        Namespace(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AgentId {
    /// Any text of 1 to [`AGENT_ID_BYTES_MAX`] bytes.
    pub fn new(id: &str) -> Result<AgentId, AgentIdError> {
        match id.len() {
            0 => Err(AgentIdError::Empty),
            bytes if bytes > AGENT_ID_BYTES_MAX => Err(AgentIdError::TooLong { bytes }),
            _ => Ok(AgentId(id.into())),
        }
    }

    /// One for a request that names nobody; `instance` tells this process from others.
    pub fn automatic(instance: u64, request: u64) -> AgentId {
        AgentId(format!("{AUTOMATIC}{instance:x}-{request}").into())
    }

    /// Whether nobody has asked for this agent by name: it is the first to go. A name that only
    /// begins like those of [`AgentId::automatic`] is somebody's.
    pub fn is_automatic(&self) -> bool {
        let numbers = self.0.strip_prefix(AUTOMATIC).and_then(|rest| rest.split_once('-'));
        let Some((instance, request)) = numbers else { return false };
        match (u64::from_str_radix(instance, 16), request.parse()) {
            (Ok(instance), Ok(request)) => *self == AgentId::automatic(instance, request),
            _ => false,
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}

impl TranscriptId {
    const DIGITS: usize = 32;

    /// From exactly what [`fmt::Display`] writes.
    pub fn parse(digits: &str) -> Option<TranscriptId> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let are_digits = digits.len() == TranscriptId::DIGITS && digits.bytes().all(is_digit);
        let number = are_digits.then(|| u128::from_str_radix(digits, 16).ok());
        number.flatten().map(TranscriptId)
    }
}

impl fmt::Display for TranscriptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl KvElement {
    pub fn bytes(self) -> usize {
        match self {
            KvElement::U8 => 1,
            KvElement::F16 => 2,
            KvElement::F32 => 4,
            KvElement::U64 => 8,
        }
    }
}

impl KvTensor {
    /// Bytes in a block of so many tokens.
    pub fn bytes(&self, tokens: usize) -> usize {
        self.shape(tokens).iter().product::<usize>() * self.element.bytes()
    }

    /// The shape in a block of so many tokens.
    pub fn shape(&self, tokens: usize) -> Vec<usize> {
        let axis = |axis: &KvAxis| match axis {
            KvAxis::Tokens => tokens,
            KvAxis::Fixed(length) => *length,
        };
        self.shape.iter().map(axis).collect()
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Everything a model's files say about text, as `model` found it and as `text` reads it.
///
/// The model room finds the bytes (it knows folders and GGUF), the text room gives them meaning.
pub enum TextSource {
    /// An MLX or Hugging Face folder. All contents are the raw bytes of the files of that name.
    Folder {
        tokenizer_json: Vec<u8>,
        tokenizer_config_json: Option<Vec<u8>>,
        /// `chat_template.jinja`, which wins over the template inside `tokenizer_config.json`.
        chat_template_jinja: Option<String>,
        /// Every `eos_token_id` of `config.json` and `generation_config.json`.
        end_tokens: Vec<TokenId>,
    },
    /// The vocabulary inside a GGUF file.
    Gguf(GgufVocabulary),
}

/// The `tokenizer.*` metadata of a GGUF file.
#[derive(Clone, Debug, Default)]
pub struct GgufVocabulary {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
    pub model: String,
    /// `tokenizer.ggml.pre`: names the pre-tokenisation, e.g. `smollm`, `llama-bpe`, `qwen2`.
    pub pre: Option<String>,
    /// One entry per id.
    pub tokens: Vec<String>,
    /// SentencePiece scores, one per id, or empty.
    pub scores: Vec<f32>,
    /// GGUF token types, one per id, or empty: 1 normal, 2 unknown, 3 control, 4 user defined,
    /// 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// BPE merges, `left right`, in order of rank, or empty.
    pub merges: Vec<String>,
    pub bos: Option<TokenId>,
    pub eos: Option<TokenId>,
    /// `eot_token_id`, `eom_token_id` and their like: further tokens that end a turn.
    pub other_ends: Vec<TokenId>,
    pub unknown: Option<TokenId>,
    pub padding: Option<TokenId>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub add_space_prefix: Option<bool>,
    pub chat_template: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_transcript_is_written_one_way_only() {
        for id in [0, 1, u128::MAX].map(TranscriptId) {
            assert_eq!(TranscriptId::parse(&id.to_string()), Some(id));
        }
        let digits = "0123456789abcdef0123456789abcdef";
        assert!(TranscriptId::parse(digits).is_some());
        for other in [&digits[1..], &digits.to_uppercase(), &digits.replace('0', "+"), ""] {
            assert_eq!(TranscriptId::parse(other), None, "{other}");
        }
    }

    /// Such a name goes first from a full disk, so nobody may choose one by chance.
    #[test]
    fn only_an_id_that_was_given_is_automatic() {
        let is_automatic = |id: &str| AgentId::new(id).unwrap().is_automatic();
        assert!(AgentId::automatic(0xabc, 2).is_automatic());
        assert!(AgentId::automatic(u64::MAX, u64::MAX).is_automatic());
        for id in ["auto-pilot", "auto-", "auto-abc", "auto-abc-", "auto--2", "auto-abc-2-3"] {
            assert!(!is_automatic(id), "{id}");
        }
        for id in ["auto-ABC-2", "auto-0abc-2", "auto-abc-02", "auto-abc-+2", "auto-xyz-2"] {
            assert!(!is_automatic(id), "{id}");
        }
    }
}
