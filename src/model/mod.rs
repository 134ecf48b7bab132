//! The model: weights, KV cache and the forward pass. All MLX arrays live and die in this room.
//!
//! The door is [`ModelFiles`] (open, check, then load) and the trait [`Model`] (step, export,
//! import). The engine speaks token ids and block ids; no tensor crosses this line.

mod arch;
mod attention;
mod batch;
mod checkpoint;
mod cpu;
mod decoder;
mod digests;
mod error;
mod exported;
pub mod fake;
mod fingerprint;
mod gguf;
mod kv;
mod layers;
mod load;
pub mod machine;
mod portable;
mod rope;
pub mod sample;
pub mod source;
mod spec;
pub mod synthetic;

use crate::types::{BlockId, TokenId};

pub use error::Error;
pub use kv::{KvBits, KvConfig, KvPart};
pub use load::{Device, LoadOptions, ModelFiles, ModelSummary};
pub use spec::{LayerSpec, Spec};

/// One model in memory, with its pool of KV blocks.
///
/// A block's KV is whatever the rows wrote there; who owns a block, and which blocks form a
/// sequence, is the engine's knowledge.
pub trait Model {
    fn spec(&self) -> &Spec;

    /// What computes, for people to read.
    fn path(&self) -> &'static str;

    /// One forward pass over all rows of the batch: appends their KV to their blocks and returns
    /// the logits each row asked for, in the order of the rows.
    ///
    /// Nothing is written when the batch is refused ([`Error::Batch`]).
    fn step(&mut self, batch: &Batch<'_>) -> Result<Vec<Logits>, Error>;

    /// The KV of the first `tokens` tokens of a block, [`Spec::block_bytes`] long. The order of the
    /// bytes is the same on every path: what one exports, the other can import.
    fn export(&mut self, block: BlockId, tokens: usize) -> Result<Vec<u8>, Error>;

    /// The same into memory that is there, which may be touched already.
    fn export_into(
        &mut self,
        block: BlockId,
        tokens: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        *out = self.export(block, tokens)?;
        Ok(())
    }

    /// Puts exported bytes back; the inverse of [`Model::export`], to the bit.
    fn import(&mut self, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<(), Error>;

    /// Makes the first so many blocks ready to be written to, while nothing is in them: memory that
    /// nobody has touched costs whoever touches it first.
    fn prepare(&mut self, _blocks: usize) {}

    /// The first `tokens` tokens of a block become those of another, to the bit.
    fn copy(&mut self, from: BlockId, to: BlockId, tokens: usize) -> Result<(), Error> {
        let bytes = self.export(from, tokens)?;
        self.import(to, tokens, &bytes)
    }
}

/// The rows of one step. Ragged: every row has any number of new tokens at its own position.
#[derive(Clone, Debug, Default)]
pub struct Batch<'a> {
    pub rows: Vec<Row<'a>>,
}

/// The new tokens of one sequence in a step.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The new tokens; at least one.
    pub tokens: &'a [TokenId],
    /// Position of the first new token: the tokens of this sequence that already have KV.
    pub start: usize,
    /// The sequence's block table; block `i` holds positions `i * BLOCK_TOKENS ..`.
    /// It covers at least `start + tokens.len()` positions.
    pub blocks: &'a [BlockId],
    pub logits: Wanted,
}

impl Row<'_> {
    /// Tokens of the sequence that have KV after the step.
    pub fn end(&self) -> usize {
        self.start + self.tokens.len()
    }
}

/// The positions of a row whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A chunk of a prompt that is not finished yet.
    None,
    /// The next token is to be sampled.
    Last,
    /// Every position, e.g. for perplexity or logprobs of the prompt.
    All,
}

/// The logits of one row: `[positions, vocabulary]`, row-major; no position for [`Wanted::None`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logits {
    vocabulary: usize,
    values: Vec<f32>,
}

impl Logits {
    /// `values` is `[positions, vocabulary]`.
    pub fn new(vocabulary: usize, values: Vec<f32>) -> Logits {
        assert!(vocabulary > 0);
        assert_eq!(values.len() % vocabulary, 0);
        Logits { vocabulary, values }
    }

    pub fn positions(&self) -> usize {
        self.values.len().checked_div(self.vocabulary).unwrap_or(0)
    }

    /// The logits at a position of the row, one value per vocabulary entry.
    pub fn at(&self, position: usize) -> &[f32] {
        &self.values[position * self.vocabulary..][..self.vocabulary]
    }

    /// The logits of the row's last token; what a [`Wanted::Last`] row has.
    pub fn last(&self) -> &[f32] {
        self.at(self.positions() - 1)
    }
}

/// Whether MLX computes on this machine: a product of two small matrices, and its right result.
pub fn check_mlx() -> Result<(), String> {
    let ones = |shape: &[i32]| mlx_rs::Array::from_slice(&[1.0_f32; 16], shape);
    let product = ones(&[2, 8]).matmul(ones(&[8, 2])).map_err(|error| error.to_string())?;
    product.eval().map_err(|error| error.to_string())?;
    match product.as_slice::<f32>() == [8.0; 4] {
        true => Ok(()),
        false => Err("2 × 8 ones by 8 × 2 ones is not 8".to_owned()),
    }
}

/// The version of MLX this program runs on, as its library reports it.
pub fn mlx_version() -> String {
    mlx_sys::linked_version()
}
