//! A tokenizer from the files of an MLX or Hugging Face folder.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::types::TokenId;

use super::error::Error;
use super::gguf::check_merge;
use super::pieces::{Decoding, Kind, Pieces, VOCABULARY_MAX};
use super::tokenizer::Parts;

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";

pub(super) fn parts(
    tokenizer_json: &[u8],
    config: &Config,
    end_tokens: &[TokenId],
) -> Result<Parts, Error> {
    let file = File::parse(tokenizer_json)?;
    file.check_merges()?;
    let mut encoder = tokenizers::Tokenizer::from_bytes(tokenizer_json)
        .map_err(|error| broken(TOKENIZER, error))?;
    // Left behind by training: they would cut or fill up what is encoded, to any length.
    encoder.with_padding(None);
    encoder.with_truncation(None).map_err(|error| broken(TOKENIZER, error))?;
    for token in &file.added_tokens {
        // The crate numbers added tokens itself and only logs when the file disagrees.
        let found = encoder.token_to_id(&token.content);
        if found != Some(token.id) {
            let found = found.map_or("no id".to_owned(), |id| id.to_string());
            return Err(broken(
                TOKENIZER,
                format!(
                    "the added token {:?} has id {}, but the vocabulary gives it {found}",
                    token.content, token.id
                ),
            ));
        }
    }
    let pieces = Pieces::new(&file.tokens()?, &file.decoding()?)?;

    let id_of = |name: &str| {
        let text = config.special_token(name)?;
        encoder.token_to_id(&text).map(TokenId)
    };
    let mut named_ends = end_tokens.to_vec();
    named_ends.extend(id_of("eos_token"));
    let beginning = match config.flag("add_bos_token") {
        Some(false) => Vec::new(),
        Some(true) => match beginning(&encoder)? {
            ids if ids.is_empty() => id_of("bos_token").into_iter().collect(),
            ids => ids,
        },
        None => beginning(&encoder)?,
    };
    Ok(Parts { encoder, pieces, beginning, named_ends })
}

/// What the file's post-processor puts before a text: BOS, or nothing, or two tokens (GLM).
fn beginning(encoder: &tokenizers::Tokenizer) -> Result<Vec<TokenId>, Error> {
    let encode = |add_special_tokens| {
        encoder.encode_fast("a", add_special_tokens).map_err(|error| broken(TOKENIZER, error))
    };
    let (with, without) = (encode(true)?, encode(false)?);
    let (with, without) = (with.get_ids(), without.get_ids());
    let length = (0..with.len()).find(|start| with[*start..].starts_with(without));
    Ok(with[..length.unwrap_or(0)].iter().copied().map(TokenId).collect())
}

/// `tokenizer_config.json`, of which a few fields matter.
#[derive(Debug, Default)]
pub(super) struct Config(Map<String, Value>);

impl Config {
    pub fn parse(json: Option<&[u8]>) -> Result<Config, Error> {
        match json {
            None => Ok(Config::default()),
            Some(json) => {
                serde_json::from_slice(json).map(Config).map_err(|error| broken(CONFIG, error))
            }
        }
    }

    /// A token's text: a string, or an object with `content`.
    pub fn special_token(&self, name: &str) -> Option<String> {
        token_text(self.0.get(name)?)
    }

    /// Every `*_token` of the file, for the chat template.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&str, String)> {
        self.0
            .iter()
            .filter(|(name, _)| name.ends_with("_token"))
            .filter_map(|(name, value)| Some((name.as_str(), token_text(value)?)))
    }

    pub fn chat_template(&self) -> Option<&Value> {
        self.0.get("chat_template").filter(|value| !value.is_null())
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name)?.as_bool()
    }
}

fn token_text(value: &Value) -> Option<String> {
    let text = value.get("content").unwrap_or(value);
    text.as_str().map(str::to_owned)
}

/// What we read of `tokenizer.json` ourselves; the `tokenizers` crate reads all of it.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    decoder: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    #[serde(default)]
    merges: Vec<Merge>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

impl File {
    fn parse(json: &[u8]) -> Result<File, Error> {
        #[derive(Deserialize)]
        struct Outer {
            model: Inner,
        }
        #[derive(Deserialize)]
        struct Inner {
            // Old files leave it out, and mean BPE.
            #[serde(rename = "type")]
            kind: Option<String>,
        }
        let outer: Outer =
            serde_json::from_slice(json).map_err(|error| broken(TOKENIZER, error))?;
        if let Some(name) = outer.model.kind.filter(|kind| kind != "BPE") {
            return Err(unsupported("the tokenizer model", name));
        }
        let file: File = serde_json::from_slice(json).map_err(|error| broken(TOKENIZER, error))?;
        for affix in [&file.model.continuing_subword_prefix, &file.model.end_of_word_suffix] {
            if let Some(affix) = affix.as_ref().filter(|affix| !affix.is_empty()) {
                return Err(unsupported("the subword affix", affix.clone()));
            }
        }
        Ok(file)
    }

    fn check_merges(&self) -> Result<(), Error> {
        let contains = |text: &str| self.model.vocab.contains_key(text);
        for merge in &self.model.merges {
            let (left, right) = match merge {
                Merge::Pair(left, right) => (left.as_str(), right.as_str()),
                Merge::Line(line) => line.split_once(' ').ok_or_else(|| {
                    broken(TOKENIZER, format!("the merge {line:?} is not a pair"))
                })?,
            };
            check_merge(left, right, contains).map_err(|reason| broken(TOKENIZER, reason))?;
        }
        Ok(())
    }

    /// Every token's text and kind, by id.
    fn tokens(&self) -> Result<Vec<(String, Kind)>, Error> {
        let model = self.model.vocab.iter().map(|(text, id)| (*id, text, Kind::Model));
        let added = self.added_tokens.iter().map(|token| match token.special {
            true => (token.id, &token.content, Kind::Special),
            false => (token.id, &token.content, Kind::Added),
        });
        let mut tokens: Vec<(String, Kind)> = Vec::new();
        for (id, text, kind) in model.chain(added) {
            let index = id as usize;
            if index >= VOCABULARY_MAX {
                return Err(broken(
                    TOKENIZER,
                    format!("the token {text:?} has id {id}, not below {VOCABULARY_MAX}"),
                ));
            }
            if index >= tokens.len() {
                tokens.resize(index + 1, (String::new(), Kind::Unused));
            }
            tokens[index] = (text.clone(), kind);
        }
        Ok(tokens)
    }

    fn decoding(&self) -> Result<Decoding, Error> {
        let mut decoding = Decoding::default();
        match &self.decoder {
            Some(decoder) if !decoder.is_null() => add_decoder(decoder, &mut decoding)?,
            _ => return Err(unsupported("the decoder", "null".to_owned())),
        }
        Ok(decoding)
    }
}

/// The decoders that language models use come to a map from token to bytes and a space less at
/// the start. Any other is refused rather than guessed at.
fn add_decoder(decoder: &Value, decoding: &mut Decoding) -> Result<(), Error> {
    let refused = || unsupported("the decoder", decoder.to_string());
    let text = |name: &str| decoder.get(name).and_then(Value::as_str);
    match text("type") {
        Some("ByteLevel") => decoding.byte_level = true,
        Some("ByteFallback") => decoding.byte_fallback = true,
        Some("Fuse") => (),
        Some("Sequence") => {
            let steps = decoder.get("decoders").and_then(Value::as_array);
            for step in steps.ok_or_else(refused)? {
                add_decoder(step, decoding)?;
            }
        }
        Some("Replace") => {
            let from = decoder.pointer("/pattern/String").and_then(Value::as_str);
            let (from, to) = from.zip(text("content")).ok_or_else(refused)?;
            decoding.replace.push((from.to_owned(), to.to_owned()));
        }
        Some("Strip") => {
            let count = |name: &str| decoder.get(name).and_then(Value::as_u64);
            match (text("content"), count("start"), count("stop")) {
                (Some(" "), Some(start @ 0..=1), Some(0)) => {
                    decoding.leading_spaces_dropped = start as usize;
                }
                _ => return Err(refused()),
            }
        }
        Some("Metaspace") => {
            let replacement = text("replacement").ok_or_else(refused)?;
            let adds_prefix = text("prepend_scheme") != Some("never")
                && decoder.get("add_prefix_space") != Some(&Value::Bool(false));
            decoding.replace.push((replacement.to_owned(), " ".to_owned()));
            decoding.leading_spaces_dropped = usize::from(adds_prefix);
        }
        Some(_) | None => return Err(refused()),
    }
    Ok(())
}

fn broken(file: &'static str, reason: impl ToString) -> Error {
    Error::BrokenFile { file, reason: reason.to_string() }
}

fn unsupported(what: &'static str, name: String) -> Error {
    Error::Unsupported { what, name }
}
