//! The vocabulary as the grammar library reads it: the bytes of each token, in a tree.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie};

use crate::text::pieces::Kind;
use crate::text::tokenizer::Tokenizer;
use crate::types::TokenId;

/// A longer token is never allowed: the library's tree is a thousand bytes deep. GLM-4's longest is
/// a thousand spaces.
const TOKEN_BYTES_MAX: usize = 512;

pub fn environment(tokenizer: &Tokenizer) -> Result<TokEnv, String> {
    let size = tokenizer.vocabulary_size();
    let words: Vec<Vec<u8>> = (0..size).map(|id| word(tokenizer, TokenId(id as u32))).collect();
    let ends: Vec<u32> = tokenizer.end_tokens().iter().map(|token| token.0).collect();
    let info = TokRxInfo::new(size as u32, ends.first().copied().unwrap_or(INVALID_TOKEN));
    // It asserts what it wants of a vocabulary.
    let trie = catch_unwind(AssertUnwindSafe(|| {
        let trie = TokTrie::from(&info, &words);
        match ends.is_empty() {
            true => trie,
            false => trie.with_eos_tokens(&ends),
        }
    }));
    let trie = trie.map_err(|_| "the library panicked on it".to_owned())?;
    // Approximate: it is never asked to make tokens of a text.
    Ok(Arc::new(ApproximateTokEnv::new(trie)))
}

/// What a token adds to a text. A special one adds nothing: it is marked, and allowed where a
/// grammar names it.
fn word(tokenizer: &Tokenizer, token: TokenId) -> Vec<u8> {
    const MARKER: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
    let bytes = tokenizer.token_bytes(token).unwrap_or_default();
    match tokenizer.kind(token) {
        _ if bytes.len() > TOKEN_BYTES_MAX => Vec::new(),
        // Whatever its kind: it would end the reply in the middle of a text.
        _ if tokenizer.end_tokens().contains(&token) => [&[MARKER], bytes].concat(),
        Some(Kind::Special) => [&[MARKER], bytes].concat(),
        // No text has this byte.
        Some(Kind::Model | Kind::Added) if bytes.contains(&MARKER) => Vec::new(),
        Some(Kind::Model | Kind::Added) => bytes.to_vec(),
        Some(Kind::Unused) | None => Vec::new(),
    }
}
