//! The pool of KV blocks of the kernel path: one range of memory outside MLX.
//!
//! A block is contiguous, layer by layer in the layout of `kernels::kv`, so a full block is
//! exported by copying a slice. Memory that no token has been written to is never touched, so it
//! costs nothing before it is used.

use std::ops::Range;

use kernels::kv::{Bits, Layout};
use kernels::memory::Pages;

use crate::model::decoder::Config;
use crate::model::kv::{KvBits, KvConfig, check_memory};
use crate::model::{Error, LayerSpec};
use crate::types::{BLOCK_TOKENS, BlockId};

pub struct Slab {
    pages: Pages,
    layout: Layout,
    layers: usize,
}

impl Slab {
    pub fn new(layout: Layout, config: &Config, blocks: usize) -> Result<Slab, Error> {
        assert_eq!(kernels::kv::BLOCK_TOKENS, BLOCK_TOKENS);
        let layers = config.layers.len();
        check_memory(layers, layout.bytes().div_ceil(BLOCK_TOKENS), blocks * BLOCK_TOKENS)?;
        let len = layout.bytes() * layers * blocks;
        let pages = Pages::zeroed(len).map_err(|error| Error::Setting(error.to_string()))?;
        Ok(Slab { pages, layout, layers })
    }

    /// What each layer leaves per token.
    pub fn layer_spec(&self) -> LayerSpec {
        let token_bytes = |ranges: Vec<Range<usize>>| {
            ranges.iter().map(ExactSizeIterator::len).sum::<usize>() / BLOCK_TOKENS
        };
        LayerSpec {
            key_bytes: token_bytes(tensors(self.layout.keys())),
            value_bytes: token_bytes(tensors(self.layout.values())),
            snapshot_bytes: 0,
        }
    }

    /// One layer's part of a block.
    fn part(&self, block: BlockId, layer: usize) -> &[u8] {
        &self.pages.as_slice()[self.range(block, layer)]
    }

    /// All blocks.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.pages.as_mut_slice()
    }

    /// Touches the first so many blocks, in which nothing is.
    pub fn prepare(&mut self, blocks: usize) {
        let bytes = blocks * self.block_bytes();
        self.pages.as_mut_slice()[..bytes].fill(0);
    }

    /// Where a block begins.
    pub fn offset(&self, block: BlockId) -> usize {
        block.0 as usize * self.block_bytes()
    }

    /// Where a layer's part begins in each block.
    pub fn part_offset(&self, layer: usize) -> usize {
        layer * self.layout.bytes()
    }

    /// The first `tokens` tokens of a block: per layer each tensor of K, then of V, cut to them.
    pub fn export(&self, block: BlockId, tokens: usize) -> Vec<u8> {
        let mut out = Vec::new();
        self.export_into(block, tokens, &mut out);
        out
    }

    pub fn export_into(&self, block: BlockId, tokens: usize, out: &mut Vec<u8>) {
        let runs = self.runs(tokens);
        let layer_bytes: usize = runs.iter().map(ExactSizeIterator::len).sum();
        out.clear();
        out.reserve_exact(layer_bytes * self.layers);
        for layer in 0..self.layers {
            let part = self.part(block, layer);
            for run in &runs {
                out.extend_from_slice(&part[run.clone()]);
            }
        }
    }

    /// The inverse of [`Slab::export`].
    pub fn import(&mut self, block: BlockId, tokens: usize, bytes: &[u8]) {
        let mut rest = bytes;
        let runs = self.runs(tokens);
        for layer in 0..self.layers {
            let range = self.range(block, layer);
            let part = &mut self.pages.as_mut_slice()[range];
            for run in &runs {
                let (head, tail) = rest.split_at(run.len());
                part[run.clone()].copy_from_slice(head);
                rest = tail;
            }
        }
        assert!(rest.is_empty());
    }

    /// The bytes of a part that belong to its first `tokens` tokens, neighbours joined: of a whole
    /// block few are left. K has a row of 256 tokens per dimension, V and its parameters have a
    /// row per token and head.
    fn runs(&self, tokens: usize) -> Vec<Range<usize>> {
        let heads = self.layout.kv_heads();
        let mut runs: Vec<Range<usize>> = Vec::new();
        for tensor in tensors(self.layout.keys()) {
            let token_bytes = match tensor.start == self.layout.keys().codes.start {
                true => key_code_bytes(self.layout.key_bits()),
                false => size_of::<half::f16>(),
            };
            let row = BLOCK_TOKENS * token_bytes;
            runs.extend(tensor.step_by(row).map(|start| start..start + tokens * token_bytes));
        }
        for tensor in tensors(self.layout.values()) {
            let head = tensor.len() / heads;
            let token_bytes = head / BLOCK_TOKENS;
            runs.extend(tensor.step_by(head).map(|start| start..start + tokens * token_bytes));
        }
        runs.dedup_by(|next, run| {
            let is_neighbour = run.end == next.start;
            if is_neighbour {
                run.end = next.end;
            }
            is_neighbour
        });
        runs
    }

    fn range(&self, block: BlockId, layer: usize) -> Range<usize> {
        let start = self.offset(block) + self.part_offset(layer);
        start..start + self.layout.bytes()
    }

    /// What a block takes, all layers together.
    pub fn block_bytes(&self) -> usize {
        self.layout.bytes() * self.layers
    }
}

/// Bytes from one token to the next in a row of K's codes; at 4 bits a byte holds two dimensions.
fn key_code_bytes(bits: Bits) -> usize {
    match bits {
        Bits::Four | Bits::Eight => 1,
        Bits::Sixteen => 2,
        Bits::ThirtyTwo => 4,
    }
}

fn tensors(tensors: kernels::kv::Tensors) -> Vec<Range<usize>> {
    [tensors.codes, tensors.scales, tensors.biases]
        .into_iter()
        .filter(|range| !range.is_empty())
        .collect()
}

/// The layout of the model's KV, if there are kernels for its heads.
pub fn layout(kv: KvConfig, config: &Config) -> Result<Layout, Error> {
    let head_dim = config.head_dim;
    let group_heads = config.query_heads / config.kv_heads;
    if group_heads > kernels::attention::GROUP_HEADS_MAX {
        return Err(Error::NoKernel(format!(
            "{group_heads} of its query heads share a KV head, more than {}",
            kernels::attention::GROUP_HEADS_MAX
        )));
    }
    if !head_dim.is_multiple_of(32) || head_dim > kernels::kv::HEAD_DIM_MAX {
        return Err(Error::NoKernel(format!(
            "its heads are of {head_dim}, not of a multiple of 32 up to {}",
            kernels::kv::HEAD_DIM_MAX
        )));
    }
    if (kv.key.rotated || kv.value.rotated) && !head_dim.is_power_of_two() {
        return Err(Error::Setting(format!(
            "KV rotation needs a head size that is a power of two; this model's is {head_dim}"
        )));
    }
    let bits = |bits| match bits {
        KvBits::Four => Bits::Four,
        KvBits::Eight => Bits::Eight,
        KvBits::Sixteen => Bits::Sixteen,
        KvBits::ThirtyTwo => Bits::ThirtyTwo,
    };
    Ok(Layout::new(config.kv_heads, head_dim, bits(kv.key.bits), bits(kv.value.bits)))
}
