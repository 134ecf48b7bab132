//! The text that quality is measured on, and how a model is led through it.

use std::ops::Range;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::driver::step;
use super::peer::file_name;
use super::plan::TOKENS_MAX;
use super::setup::{Setup, blocks};
use super::up_to;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Failure;
use crate::model::{Batch, Logits, Model, Row, Wanted};
use crate::text::Tokenizer;
use crate::types::{BlockId, TokenId};

/// This project's own documents and comments as they once were. It stays as it is, so that
/// figures of two versions compare.
const TEXT: &str = include_str!("text.txt");
/// Logits of a step are this large at most; there is a float per position and vocabulary entry.
const LOGITS_BYTES_MAX: usize = 64 << 20;
/// A token to read and one to foretell.
const TOKENS_MIN: usize = 2;

#[derive(Debug, clap::Args)]
pub struct TextFlags {
    /// The text of `kv-quality`, `fidelity`, `restore` and `store` [default: this project's own documents]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Tokens of the text that are used; what `fidelity` promises is about 2048 and more
    /// [default: 2048 for kv-quality, 256 for fidelity]
    #[arg(long, value_name = "N", value_parser = up_to(TOKENS_MAX))]
    tokens: Option<usize>,
}

impl TextFlags {
    /// What was read and how much of it, for a report.
    pub fn named(&self) -> Json {
        json!({ "file": self.text.as_deref().map(file_name), "tokens": self.tokens })
    }
}

/// The text itself.
pub fn text(setup: &Setup<'_>) -> Result<String, Failure> {
    match &setup.arguments.text.text {
        None => Ok(TEXT.to_owned()),
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            anyhow::Error::new(error).context(format!("cannot read {}", path.display())).into()
        }),
    }
}

/// All of its tokens, however long the model's context is.
pub fn all_tokens(setup: &Setup<'_>) -> Result<Vec<TokenId>, Failure> {
    Ok(Tokenizer::new(&setup.files.text()?)?.encode_raw(&text(setup)?)?)
}

/// The beginning of the text: as many tokens as the user wants, else `default` if there are.
pub fn tokens(setup: &Setup<'_>, default: usize) -> Result<Vec<TokenId>, Failure> {
    let mut tokens = all_tokens(setup)?;
    let context = setup.summary.context_tokens;
    let available = tokens.len().min(context);
    let wanted = setup.arguments.text.tokens.unwrap_or(default.min(available));
    if wanted > available || wanted < TOKENS_MIN {
        return Err(Failure::Usage(format!(
            "cannot use {wanted} tokens of text: it has {}, the model's context is {context}, \
             at least {TOKENS_MIN} are needed",
            tokens.len()
        )));
    }
    tokens.truncate(wanted);
    Ok(tokens)
}

/// A model on its way through a text from the beginning, all logits wanted.
pub struct Reader<'a> {
    model: Box<dyn Model>,
    tokens: &'a [TokenId],
    blocks: Vec<BlockId>,
    interrupt: &'a Interrupt,
}

impl Reader<'_> {
    pub fn new<'a>(
        model: Box<dyn Model>,
        tokens: &'a [TokenId],
        interrupt: &'a Interrupt,
    ) -> Reader<'a> {
        let blocks = (0..blocks(tokens.len()) as u32).map(BlockId).collect();
        Reader { model, tokens, blocks, interrupt }
    }

    pub fn token_bytes(&self) -> usize {
        self.model.spec().token_bytes()
    }

    /// The logits of these positions; those before have been read.
    pub fn read(&mut self, range: Range<usize>) -> Result<Logits, Failure> {
        let row = Row {
            tokens: &self.tokens[range.clone()],
            start: range.start,
            blocks: &self.blocks,
            logits: Wanted::All,
        };
        let mut logits = step(&mut *self.model, Batch { rows: vec![row] }, self.interrupt)?;
        Ok(logits.pop().expect("a step answers every row"))
    }
}

/// The positions of a text in pieces whose logits fit the memory that we allow them.
pub fn pieces(tokens: usize, vocabulary: usize) -> impl Iterator<Item = Range<usize>> {
    let piece = (LOGITS_BYTES_MAX / (vocabulary * size_of::<f32>())).clamp(1, 256);
    (0..tokens).step_by(piece).map(move |start| start..tokens.min(start + piece))
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn pieces_cover_a_text_and_shrink_with_the_vocabulary() {
        assert_eq!(pieces(600, 100).collect::<Vec<_>>(), [0..256, 256..512, 512..600]);
        assert_eq!(pieces(300, 128_256).next(), Some(0..130));
        assert_eq!(pieces(2, usize::MAX / 8).collect::<Vec<_>>(), [0..1, 1..2]);
    }
}
