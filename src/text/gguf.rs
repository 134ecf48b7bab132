//! A tokenizer from the vocabulary inside a GGUF file.

use std::cmp::Reverse;
use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{Prepend, Replace, Sequence};
use tokenizers::{AddedToken, NormalizerWrapper};

use crate::types::{GgufVocabulary, TokenId};

use super::error::Error;
use super::pieces::{Decoding, Kind, Pieces, VOCABULARY_MAX};
use super::pre_tokenizer::Rule;
use super::tokenizer::Parts;

/// Where SentencePiece writes a space.
const SPACE: &str = "▁";

/// The longest SentencePiece token whose merges we look for; the search is quadratic in it.
/// SentencePiece's own default is 16 characters, Gemma's runs of spaces have 31.
const PIECE_BYTES_MAX: usize = 1024;

pub(super) fn parts(vocabulary: &GgufVocabulary) -> Result<Parts, Error> {
    check(vocabulary)?;
    match vocabulary.model.as_str() {
        "gpt2" => byte_level(vocabulary),
        "llama" => sentence_piece(vocabulary),
        other => Err(Error::Unsupported { what: "tokenizer.ggml.model", name: other.to_owned() }),
    }
}

fn check(vocabulary: &GgufVocabulary) -> Result<(), Error> {
    let count = vocabulary.tokens.len();
    if count == 0 {
        return Err(Error::broken_vocabulary("it has no tokens"));
    }
    if count > VOCABULARY_MAX {
        return Err(Error::broken_vocabulary(format!(
            "it has {count} tokens, more than {VOCABULARY_MAX}"
        )));
    }
    for (name, length) in
        [("token_type", vocabulary.token_types.len()), ("scores", vocabulary.scores.len())]
    {
        if length != 0 && length != count {
            return Err(Error::broken_vocabulary(format!(
                "{count} tokens, but {length} entries in {name}"
            )));
        }
    }
    let mut named: Vec<(&str, TokenId)> = Vec::new();
    named.extend(vocabulary.bos.map(|id| ("bos", id)));
    named.extend(vocabulary.eos.map(|id| ("eos", id)));
    named.extend(vocabulary.unknown.map(|id| ("unknown", id)));
    named.extend(vocabulary.padding.map(|id| ("padding", id)));
    named.extend(vocabulary.other_ends.iter().map(|id| ("end of turn", *id)));
    for (name, id) in named {
        if id.0 as usize >= count {
            return Err(Error::broken_vocabulary(format!(
                "the {name} token is {id}, but there are {count} tokens"
            )));
        }
    }
    Ok(())
}

fn byte_level(vocabulary: &GgufVocabulary) -> Result<Parts, Error> {
    let rule = Rule::named(vocabulary.pre.as_deref());
    let ids = ids(vocabulary);
    if vocabulary.merges.is_empty() {
        return Err(Error::broken_vocabulary("it has no merges"));
    }
    let merges = listed_merges(vocabulary, &ids)?;
    let bpe = BPE::builder()
        .vocab_and_merges(ids, merges)
        .ignore_merges(rule.ignores_merges)
        .build()
        .map_err(|error| Error::broken_vocabulary(error.to_string()))?;
    let mut encoder = tokenizers::Tokenizer::new(bpe);
    encoder
        .with_normalizer(rule.normalizer())
        .map_err(|error| Error::broken_vocabulary(error.to_string()))?;
    encoder.with_pre_tokenizer(Some(rule.pre_tokenizer()?));

    let decoding = Decoding { byte_level: true, ..Decoding::default() };
    assemble(vocabulary, encoder, &decoding, rule.adds_bos)
}

fn sentence_piece(vocabulary: &GgufVocabulary) -> Result<Parts, Error> {
    let ids = ids(vocabulary);
    let merges = match (vocabulary.scores.is_empty(), vocabulary.merges.is_empty()) {
        (false, _) => merges_from_scores(vocabulary, &ids)?,
        (true, false) => listed_merges(vocabulary, &ids)?,
        (true, true) => return Err(Error::broken_vocabulary("it has neither scores nor merges")),
    };
    let mut builder =
        BPE::builder().vocab_and_merges(ids, merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = unknown_text(vocabulary) {
        builder = builder.unk_token(unknown.to_owned());
    }
    let bpe = builder.build().map_err(|error| Error::broken_vocabulary(error.to_string()))?;
    let mut encoder = tokenizers::Tokenizer::new(bpe);

    // Every stretch of text between special tokens gets the prefix, as in llama.cpp and in Hugging
    // Face's conversion of Llama 2.
    let adds_space_prefix = vocabulary.add_space_prefix.unwrap_or(true);
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if adds_space_prefix {
        normalizers.push(Prepend::new(SPACE.to_owned()).into());
    }
    let replace =
        Replace::new(" ", SPACE).map_err(|error| Error::broken_vocabulary(error.to_string()))?;
    normalizers.push(replace.into());
    encoder
        .with_normalizer(Some(Sequence::new(normalizers)))
        .map_err(|error| Error::broken_vocabulary(error.to_string()))?;

    let decoding = Decoding {
        byte_fallback: true,
        replace: vec![(SPACE.to_owned(), " ".to_owned())],
        leading_spaces_dropped: usize::from(adds_space_prefix),
        ..Decoding::default()
    };
    assemble(vocabulary, encoder, &decoding, true)
}

fn assemble(
    vocabulary: &GgufVocabulary,
    mut encoder: tokenizers::Tokenizer,
    decoding: &Decoding,
    adds_bos: bool,
) -> Result<Parts, Error> {
    let mut tokens: Vec<(String, Kind)> = Vec::with_capacity(vocabulary.tokens.len());
    let mut added = Vec::new();
    for (index, text) in vocabulary.tokens.iter().enumerate() {
        let kind = kind(vocabulary, index);
        if !text.is_empty() && matches!(kind, Kind::Added | Kind::Special) {
            // Matched in the text as it is, before normalisation: the converter has already
            // written user-defined tokens with real spaces.
            let token = AddedToken::from(text.clone(), kind == Kind::Special).normalized(false);
            added.push(token);
        }
        tokens.push((text.clone(), kind));
    }
    encoder.add_tokens(added).map_err(|error| Error::broken_vocabulary(error.to_string()))?;

    let beginning = match vocabulary.add_bos.unwrap_or(adds_bos) {
        true => vocabulary.bos.into_iter().collect(),
        false => Vec::new(),
    };
    Ok(Parts {
        encoder,
        pieces: Pieces::new(&tokens, decoding)?,
        beginning,
        named_ends: vocabulary
            .eos
            .into_iter()
            .chain(vocabulary.other_ends.iter().copied())
            .collect(),
    })
}

/// Text to id. A text that occurs twice keeps its first id.
fn ids(vocabulary: &GgufVocabulary) -> Vocab {
    let mut ids = Vocab::with_capacity(vocabulary.tokens.len());
    for (index, text) in vocabulary.tokens.iter().enumerate() {
        // `check` has bounded the count.
        ids.entry(text.clone()).or_insert(index as u32);
    }
    ids
}

/// GGUF's token types: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
fn kind(vocabulary: &GgufVocabulary, index: usize) -> Kind {
    let id = TokenId(index as u32);
    let ends_or_begins = vocabulary.bos == Some(id)
        || vocabulary.eos == Some(id)
        || vocabulary.other_ends.contains(&id);
    match vocabulary.token_types.get(index) {
        Some(2 | 3) => Kind::Special,
        _ if ends_or_begins => Kind::Special,
        Some(4) => Kind::Added,
        Some(5) => Kind::Unused,
        Some(_) | None => Kind::Model,
    }
}

fn unknown_text(vocabulary: &GgufVocabulary) -> Option<&str> {
    let index = match vocabulary.unknown {
        Some(id) => id.0 as usize,
        None => vocabulary.token_types.iter().position(|kind| *kind == 2)?,
    };
    vocabulary.tokens.get(index).map(String::as_str)
}

/// `tokenizer.ggml.merges`, each `left right`.
fn listed_merges(vocabulary: &GgufVocabulary, ids: &Vocab) -> Result<Vec<(String, String)>, Error> {
    let mut merges = Vec::with_capacity(vocabulary.merges.len());
    for merge in &vocabulary.merges {
        // The space that separates is never the first character (llama.cpp: `find(' ', 1)`).
        let space = merge.char_indices().skip(1).find(|(_, c)| *c == ' ');
        let Some((space, _)) = space else {
            return Err(Error::broken_vocabulary(format!("the merge {merge:?} is not a pair")));
        };
        let (left, right) = (&merge[..space], &merge[space + 1..]);
        check_merge(left, right, |text| ids.contains_key(text))
            .map_err(Error::broken_vocabulary)?;
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(merges)
}

/// Both halves and the whole must be tokens: the `tokenizers` crate panics on some that are not.
pub(super) fn check_merge(
    left: &str,
    right: &str,
    contains: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let whole = format!("{left}{right}");
    for token in [left, right, &whole] {
        if !contains(token) {
            return Err(format!(
                "the merge {left:?} {right:?} names {token:?}, which is not a token"
            ));
        }
    }
    Ok(())
}

/// SentencePiece has scores instead of merges: every way to cut a token into two tokens is a
/// merge, ranked by the token's score. `generate_merges` of `convert_slow_tokenizer.py` in
/// Hugging Face's `transformers`, including its order of ties.
fn merges_from_scores(
    vocabulary: &GgufVocabulary,
    ids: &Vocab,
) -> Result<Vec<(String, String)>, Error> {
    struct Merge<'a> {
        score: f32,
        left: &'a str,
        right: &'a str,
    }
    let normal: HashMap<&str, u32> = ids
        .iter()
        .filter(|(_, id)| kind(vocabulary, **id as usize) == Kind::Model)
        .filter(|(_, id)| vocabulary.token_types.get(**id as usize) != Some(&6))
        .map(|(text, id)| (text.as_str(), *id))
        .collect();
    let mut merges: Vec<Merge> = Vec::new();
    for (token, score) in vocabulary.tokens.iter().zip(&vocabulary.scores) {
        if !normal.contains_key(token.as_str()) {
            continue;
        }
        if token.len() > PIECE_BYTES_MAX {
            return Err(Error::broken_vocabulary(format!(
                "a token of {} bytes, more than {PIECE_BYTES_MAX}",
                token.len()
            )));
        }
        let mut cuts: Vec<(u32, u32, Merge)> = Vec::new();
        for (middle, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(middle);
            if let (Some(left_id), Some(right_id)) = (normal.get(left), normal.get(right)) {
                let score = *score;
                cuts.push((*left_id, *right_id, Merge { score, left, right }));
            }
        }
        cuts.sort_by_key(|(left_id, right_id, _)| (*left_id, *right_id));
        merges.extend(cuts.into_iter().map(|(_, _, merge)| merge));
    }
    merges.sort_by(|a, b| {
        let lengths = |merge: &Merge| (merge.left.chars().count(), merge.right.chars().count());
        b.score.total_cmp(&a.score).then_with(|| Reverse(lengths(a)).cmp(&Reverse(lengths(b))))
    });
    Ok(merges.into_iter().map(|merge| (merge.left.to_owned(), merge.right.to_owned())).collect())
}
