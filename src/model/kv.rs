//! The pool of KV blocks on the portable path, quantised per token and head.
//!
//! One MLX array per layer and part, `[slot, kv_head, …]`; slot `block * BLOCK_TOKENS + i` is the
//! `i`-th token of a block. New tokens are written by `slice_update` on the only handle, which MLX
//! does in place (0.07 ms for 200 MB); with a second handle, or one lazy slice alive, it would copy
//! the pool. So nothing outside this file keeps one of these arrays or a slice of one beyond a step.

use std::fmt;
use std::str::FromStr;

use mlx_rs::ops::indexing::{TryIndexOp, TryIndexUpdateOp, UpdateMode};
use mlx_rs::{Array, Dtype, ops};

use super::exported::{self, Part as Which, Tensor};
use super::layers::dimensions;
use super::spec::LayerSpec;
use super::{Error, Row};
use crate::types::{BLOCK_TOKENS, BlockId};

/// How K and V are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvConfig {
    pub key: KvPart,
    pub value: KvPart,
}

/// How one of the two is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvPart {
    pub bits: KvBits,
    /// Stored after a Hadamard rotation along `head_dim`, which spreads outliers and costs
    /// quantisation less; undone when read.
    pub rotated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvBits {
    Four,
    Eight,
    Sixteen,
    /// For comparisons with other programs only.
    ThirtyTwo,
}

impl KvBits {
    fn count(self) -> usize {
        match self {
            KvBits::Four => 4,
            KvBits::Eight => 8,
            KvBits::Sixteen => 16,
            KvBits::ThirtyTwo => 32,
        }
    }
}

impl KvConfig {
    /// The same for K and V, not rotated.
    pub const fn plain(bits: KvBits) -> KvConfig {
        let part = KvPart { bits, rotated: false };
        KvConfig { key: part, value: part }
    }

    /// Every way to store it.
    pub fn all() -> impl Iterator<Item = KvConfig> {
        let bits = [KvBits::Eight, KvBits::Four, KvBits::Sixteen, KvBits::ThirtyTwo];
        let parts = bits.map(|bits| [false, true].map(|rotated| KvPart { bits, rotated }));
        let parts = parts.concat();
        let values = parts.clone();
        parts.into_iter().flat_map(move |key| {
            let values = values.clone().into_iter();
            values.map(move |value| KvConfig { key, value })
        })
    }

    /// Bytes that one token leaves in one layer.
    pub fn token_bytes(self, heads: usize, head_dim: usize) -> Result<usize, Error> {
        let part = |part| Layout::new(part, heads, head_dim).map(Layout::token_bytes);
        Ok(part(self.key)? + part(self.value)?)
    }
}

impl Default for KvConfig {
    /// 8 bits: +0.02 % and +0.11 % perplexity on SmolLM2, the default for a model nobody measured.
    fn default() -> KvConfig {
        KvConfig::plain(KvBits::Eight)
    }
}

impl fmt::Display for KvConfig {
    /// As [`KvConfig::from_str`] reads it, both parts spelled out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rotation = |part: KvPart| if part.rotated { "r" } else { "" };
        let KvConfig { key, value } = *self;
        write!(f, "{}{}/{}{}", key.bits.count(), rotation(key), value.bits.count(), rotation(value))
    }
}

impl FromStr for KvConfig {
    type Err = String;

    /// `8`, or `8/4` for K and V; an `r` after a number rotates that part, as in `8/4r`.
    fn from_str(text: &str) -> Result<KvConfig, String> {
        let part = |text: &str| {
            let (bits, rotated) = match text.strip_suffix('r') {
                Some(bits) => (bits, true),
                None => (text, false),
            };
            let bits = match bits {
                "4" => KvBits::Four,
                "8" => KvBits::Eight,
                "16" => KvBits::Sixteen,
                "32" => KvBits::ThirtyTwo,
                _ => return Err(format!("{text:?} is not one of 4, 8, 16, 32, with or without r")),
            };
            Ok(KvPart { bits, rotated })
        };
        let (key, value) = text.split_once('/').unwrap_or((text, text));
        Ok(KvConfig { key: part(key)?, value: part(value)? })
    }
}

/// All layers' KV.
pub struct Kv {
    layers: Vec<Layer>,
}

struct Layer {
    key: Part,
    value: Part,
}

struct Part {
    layout: Layout,
    arrays: Arrays,
}

/// The shape of one part's tokens.
#[derive(Clone, Copy)]
pub struct Layout {
    part: KvPart,
    heads: usize,
    head_dim: usize,
    /// Values along `head_dim` that share a scale and a bias.
    group: usize,
}

enum Arrays {
    /// `[slot, head, head_dim]`, f16 or f32
    Dense(Array),
    /// Codes `[slot, head, head_dim * bits / 32]` u32; scales and biases
    /// `[slot, head, head_dim / group]` f16.
    Affine { codes: Array, scales: Array, biases: Array },
}

/// A run of consecutive slots, and the tokens of the step that go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub slot: usize,
    /// First token of the run, counted over all rows of the step.
    pub token: usize,
    pub len: usize,
}

impl Kv {
    pub fn new(
        config: KvConfig,
        layers: usize,
        heads: usize,
        head_dim: usize,
        blocks: usize,
    ) -> Result<Kv, Error> {
        let key = Layout::new(config.key, heads, head_dim)?;
        let value = Layout::new(config.value, heads, head_dim)?;
        check_memory(layers, key.token_bytes() + value.token_bytes(), blocks * BLOCK_TOKENS)?;
        let part = |layout: Layout| {
            Ok::<_, Error>(Part { layout, arrays: layout.allocate(blocks * BLOCK_TOKENS)? })
        };
        let layers = (0..layers)
            .map(|_| Ok(Layer { key: part(key)?, value: part(value)? }))
            .collect::<Result<_, Error>>()?;
        Ok(Kv { layers })
    }

    /// What each layer leaves per token.
    pub fn layer_specs(&self) -> Vec<LayerSpec> {
        self.layers
            .iter()
            .map(|layer| LayerSpec {
                key_bytes: layer.key.layout.token_bytes(),
                value_bytes: layer.value.layout.token_bytes(),
                snapshot_bytes: 0,
            })
            .collect()
    }

    /// Writes the step's tokens: `keys` and `values` are `[token, kv_head, head_dim]`.
    pub fn append(
        &mut self,
        layer: usize,
        runs: &[Run],
        keys: &Array,
        values: &Array,
    ) -> Result<(), Error> {
        self.layers[layer].key.append(runs, keys)?;
        self.layers[layer].value.append(runs, values)
    }

    /// K and V of a row's sequence from position `first` on as they read back,
    /// `[1, kv_head, token, head_dim]` each; rotated parts are still rotated.
    pub fn read(
        &self,
        layer: usize,
        row: &Row<'_>,
        first: usize,
        out: Dtype,
    ) -> Result<(Array, Array), Error> {
        let runs = read_runs(row, first);
        let layer = &self.layers[layer];
        Ok((layer.key.read(&runs, out)?, layer.value.read(&runs, out)?))
    }

    /// Computes what is pending, so that no graph holds a pool array after the step.
    pub fn evaluate(&self, others: &[&Array]) -> Result<(), Error> {
        let arrays = self.parts().flat_map(|part| part.arrays.all());
        Ok(mlx_rs::transforms::eval(arrays.chain(others.iter().copied()))?)
    }

    /// The first `tokens` tokens of a block, in the order that `exported.rs` has.
    pub fn export(&self, block: BlockId, tokens: usize) -> Result<Vec<u8>, Error> {
        let from = block.0 as usize * BLOCK_TOKENS;
        let mut bytes = Vec::new();
        for layer in &self.layers {
            for (which, part) in [(Which::Key, &layer.key), (Which::Value, &layer.value)] {
                for (index, array) in part.arrays.all().into_iter().enumerate() {
                    let slice = slots(array, from, from + tokens)?;
                    slice.eval()?;
                    let mut native = Vec::new();
                    append_bytes(&mut native, &slice)?;
                    let tensor = part.tensor(which, array, tokens, index == 0);
                    let mut exported = tensor.export(&native);
                    if index == 0 && exported::has_halves(which, part.layout.part.bits) {
                        exported.chunks_exact_mut(tensor.width).for_each(exported::to_halves);
                    }
                    bytes.extend(exported);
                }
            }
        }
        Ok(bytes)
    }

    /// The inverse of [`Kv::export`].
    pub fn import(&mut self, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<(), Error> {
        let from = block.0 as usize * BLOCK_TOKENS;
        let mut rest = bytes;
        for layer in &mut self.layers {
            for (which, part) in [(Which::Key, &mut layer.key), (Which::Value, &mut layer.value)] {
                for index in 0..part.arrays.all().len() {
                    let array = part.arrays.all()[index];
                    let tensor = part.tensor(which, array, tokens, index == 0);
                    let mut shape = array.shape().to_vec();
                    shape[0] = tokens as i32;
                    let len = array.nbytes() / array.dim(0) as usize * tokens;
                    let (head, tail) = rest.split_at(len);
                    rest = tail;
                    let mut head = head.to_vec();
                    if index == 0 && exported::has_halves(which, part.layout.part.bits) {
                        head.chunks_exact_mut(tensor.width).for_each(exported::from_halves);
                    }
                    let update = from_bytes(&tensor.import(&head), &shape, array.dtype());
                    replace(part.arrays.all_mut()[index], from, tokens, &update)?;
                }
            }
        }
        assert!(rest.is_empty());
        self.evaluate(&[])
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.layers.iter().flat_map(|layer| [&layer.key, &layer.value])
    }
}

/// Refuses a pool that the system would not give us: MLX does not survive being told so. Where
/// the system promises more than it has, as macOS does, this finds nothing.
pub fn check_memory(layers: usize, token_bytes: usize, slots: usize) -> Result<(), Error> {
    let bytes = token_bytes.checked_mul(layers).and_then(|bytes| bytes.checked_mul(slots));
    match bytes.map(|bytes| Vec::<u8>::new().try_reserve_exact(bytes)) {
        Some(Ok(())) => Ok(()),
        Some(Err(_)) | None => Err(Error::Setting(format!(
            "not enough memory for the KV cache of {slots} tokens, {token_bytes} bytes each in \
             {layers} layers; hint: a smaller --max-tokens or fewer --kv-bits"
        ))),
    }
}

impl Layout {
    pub fn new(part: KvPart, heads: usize, head_dim: usize) -> Result<Layout, Error> {
        if part.rotated && !head_dim.is_power_of_two() {
            return Err(Error::Setting(format!(
                "KV rotation needs a head size that is a power of two; this model's is {head_dim}"
            )));
        }
        let group = [64, 32].into_iter().find(|&group| head_dim.is_multiple_of(group));
        let group = match (part.bits, group) {
            (KvBits::Sixteen | KvBits::ThirtyTwo, _) => head_dim,
            (_, Some(group)) => group,
            (bits, None) => {
                return Err(Error::Setting(format!(
                    "a {}-bit KV cache needs a head size that is a multiple of 32; \
                     this model's is {head_dim}: use 16 bits",
                    bits.count()
                )));
            }
        };
        Ok(Layout { part, heads, head_dim, group })
    }

    /// Scales, or biases, per token and head; none if it has no codes.
    pub fn groups(self) -> usize {
        match self.part.bits {
            KvBits::Sixteen | KvBits::ThirtyTwo => 0,
            KvBits::Four | KvBits::Eight => self.head_dim / self.group,
        }
    }

    fn token_bytes(self) -> usize {
        let values = self.heads * self.head_dim;
        let codes = values * self.part.bits.count() / 8;
        match self.part.bits {
            KvBits::Sixteen | KvBits::ThirtyTwo => codes,
            // An f16 scale and an f16 bias per group.
            KvBits::Four | KvBits::Eight => codes + values / self.group * 4,
        }
    }

    fn allocate(self, slots: usize) -> Result<Arrays, Error> {
        let zeros = |width: usize, dtype: Dtype| {
            let array = ops::zeros_dtype(&dimensions(&[slots, self.heads, width])?, dtype)?;
            array.eval()?;
            Ok::<_, Error>(array)
        };
        let bits = self.part.bits.count();
        Ok(match self.part.bits {
            KvBits::Sixteen => Arrays::Dense(zeros(self.head_dim, Dtype::Float16)?),
            KvBits::ThirtyTwo => Arrays::Dense(zeros(self.head_dim, Dtype::Float32)?),
            KvBits::Four | KvBits::Eight => Arrays::Affine {
                codes: zeros(self.head_dim * bits / 32, Dtype::Uint32)?,
                scales: zeros(self.head_dim / self.group, Dtype::Float16)?,
                biases: zeros(self.head_dim / self.group, Dtype::Float16)?,
            },
        })
    }
}

impl Part {
    /// How the bytes of one of its arrays lie; the first are the codes.
    fn tensor(&self, part: Which, array: &Array, tokens: usize, is_codes: bool) -> Tensor {
        let heads = self.layout.heads;
        let bytes = array.nbytes() / array.dim(0) as usize / heads;
        let element = match (is_codes, self.layout.part.bits) {
            (true, KvBits::Four | KvBits::Eight) => 1,
            (true, KvBits::ThirtyTwo) => 4,
            (true, KvBits::Sixteen) | (false, _) => 2,
        };
        Tensor { part, tokens, heads, width: bytes / element, element }
    }

    fn append(&mut self, runs: &[Run], x: &Array) -> Result<(), Error> {
        let rotated;
        let x = match self.layout.part.rotated {
            false => x,
            true => {
                rotated = rotate(x)?;
                &rotated
            }
        };
        let group = self.layout.group as i32;
        let bits = self.layout.part.bits.count() as i32;
        let new: Vec<Array> = match &self.arrays {
            Arrays::Dense(pool) => vec![x.as_dtype(pool.dtype())?],
            Arrays::Affine { .. } => {
                let wide = x.as_dtype(Dtype::Float32)?;
                let (codes, scales, biases) = ops::quantize(&wide, group, bits)?;
                vec![codes, scales.as_dtype(Dtype::Float16)?, biases.as_dtype(Dtype::Float16)?]
            }
        };
        for (pool, new) in self.arrays.all_mut().into_iter().zip(&new) {
            for run in runs {
                let update = slots(new, run.token, run.token + run.len)?;
                replace(pool, run.slot, run.len, &update)?;
            }
        }
        Ok(())
    }

    fn read(&self, runs: &[Run], out: Dtype) -> Result<Array, Error> {
        let all = self
            .arrays
            .all()
            .into_iter()
            .map(|array| gather(array, runs))
            .collect::<Result<Vec<_>, _>>()?;
        let values = match &all[..] {
            [dense] => dense.as_dtype(out)?,
            [codes, scales, biases] => {
                let scales = scales.as_dtype(out)?;
                let biases = biases.as_dtype(out)?;
                let bits = self.layout.part.bits.count() as i32;
                ops::dequantize(codes, scales, &biases, self.layout.group as i32, bits)?
            }
            _ => unreachable!("a part is one array or three"),
        };
        // [token, head, head_dim] → [1, head, token, head_dim]
        Ok(values.transpose_axes(&[1, 0, 2])?.expand_dims(0)?)
    }
}

impl Arrays {
    fn all(&self) -> Vec<&Array> {
        match self {
            Arrays::Dense(values) => vec![values],
            Arrays::Affine { codes, scales, biases } => vec![codes, scales, biases],
        }
    }

    fn all_mut(&mut self) -> Vec<&mut Array> {
        match self {
            Arrays::Dense(values) => vec![values],
            Arrays::Affine { codes, scales, biases } => vec![codes, scales, biases],
        }
    }
}

/// The orthonormal Hadamard transform along the last axis; its own inverse.
pub fn rotate(x: &Array) -> Result<Array, Error> {
    Ok(x.hadamard_transform(None)?)
}

/// Where the new tokens of a row go; `token` is the row's first token within the step.
pub fn write_runs(row: &Row<'_>, token: usize) -> Vec<Run> {
    runs(row.blocks, row.start, row.end(), token)
}

/// Where the tokens of a row's sequence lie from `first` on, once its new ones are written.
fn read_runs(row: &Row<'_>, first: usize) -> Vec<Run> {
    runs(row.blocks, first, row.end(), 0)
}

/// Positions `from .. to` as runs of slots, neighbouring blocks joined.
fn runs(blocks: &[BlockId], from: usize, to: usize, token: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut position = from;
    while position < to {
        let block = blocks[position / BLOCK_TOKENS].0 as usize;
        let slot = block * BLOCK_TOKENS + position % BLOCK_TOKENS;
        let len = (BLOCK_TOKENS - position % BLOCK_TOKENS).min(to - position);
        match runs.last_mut() {
            Some(last) if last.slot + last.len == slot => last.len += len,
            _ => runs.push(Run { slot, token: token + position - from, len }),
        }
        position += len;
    }
    runs
}

fn slots(array: &Array, from: usize, to: usize) -> Result<Array, Error> {
    Ok(array.try_index(from as i32..to as i32)?)
}

fn gather(array: &Array, runs: &[Run]) -> Result<Array, Error> {
    let pieces = runs
        .iter()
        .map(|run| slots(array, run.slot, run.slot + run.len))
        .collect::<Result<Vec<_>, _>>()?;
    match &pieces[..] {
        [one] => Ok(one.clone()),
        many => Ok(ops::concatenate(many, 0)?),
    }
}

/// Replaces slots of a pool array through its only handle.
fn replace(pool: &mut Array, slot: usize, len: usize, update: &Array) -> Result<(), Error> {
    let range = slot as i32..(slot + len) as i32;
    let updated = pool
        .try_index_update(range, update, UpdateMode::Replace)
        .map_err(|error| Error::Mlx(error.to_string()))?;
    *pool = updated;
    Ok(())
}

fn append_bytes(bytes: &mut Vec<u8>, array: &Array) -> Result<(), Error> {
    let mlx = |error: mlx_rs::error::AsSliceError| Error::Mlx(error.to_string());
    // A slice of whole slots is contiguous, so it reads as one run of memory.
    match array.dtype() {
        Dtype::Uint32 => {
            for word in array.try_as_slice::<u32>().map_err(mlx)? {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        Dtype::Float16 => {
            for half in array.try_as_slice::<half::f16>().map_err(mlx)? {
                bytes.extend_from_slice(&half.to_le_bytes());
            }
        }
        Dtype::Float32 => {
            for value in array.try_as_slice::<f32>().map_err(mlx)? {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        other => unreachable!("no pool array is {other:?}"),
    }
    Ok(())
}

fn from_bytes(bytes: &[u8], shape: &[i32], dtype: Dtype) -> Array {
    match dtype {
        Dtype::Uint32 => {
            let words: Vec<u32> =
                bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
            Array::from_slice(&words, shape)
        }
        Dtype::Float16 => {
            let halves: Vec<half::f16> =
                bytes.as_chunks().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes)).collect();
            Array::from_slice(&halves, shape)
        }
        Dtype::Float32 => {
            let values: Vec<f32> =
                bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            Array::from_slice(&values, shape)
        }
        other => unreachable!("no pool array is {other:?}"),
    }
}

#[cfg(test)]
mod tests;
