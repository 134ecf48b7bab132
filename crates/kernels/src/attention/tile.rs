//! A few queries against one block: they share the conversion of its codes to f32.

use std::marker::PhantomData;
use std::ops::Range;

use super::codes::{Eight, Four, Sixteen, ThirtyTwo};
use super::gather::gather;
use super::score::score;
use super::{Attention, Softmax, Span};
use crate::kv::{BLOCK_TOKENS, Bits, HEAD_DIM_MAX};
use crate::lanes::{Kernel, LANES, Lanes};
use crate::math;

/// Queries of a tile, at most: 12 sums of 2 vectors fill the registers of AVX-512.
pub(super) const QUERIES_MAX: usize = 12;

pub(super) const GROUPS_MAX: usize = HEAD_DIM_MAX / 32;

/// f32 per row of the buffers. One vector more than needed, so that the rows of a tile do not all
/// fall on the same cache sets.
pub(super) const STRIDE: usize = BLOCK_TOKENS + LANES;

const _: () = assert!(HEAD_DIM_MAX <= STRIDE);

pub(super) type Row = [f32; STRIDE];

#[repr(C, align(64))]
pub(super) struct Scratch {
    /// `[query][dimension]`, multiplied by the attention's scale
    pub(super) queries: [Row; QUERIES_MAX],
    /// `[query][group]`: sums over the group's dimensions
    pub(super) query_sums: [[f32; GROUPS_MAX]; QUERIES_MAX],
    /// `[query][slot]`: scores, then their exp
    pub(super) scores: [Row; QUERIES_MAX],
    /// `[group][query][slot]`: exp times the value's scale
    pub(super) weights: [[Row; QUERIES_MAX]; GROUPS_MAX],
    /// `[query][dimension]`
    pub(super) values: [Row; QUERIES_MAX],
    /// The values' scales and biases as `[group][slot]`
    scales: [[[u8; 2]; BLOCK_TOKENS]; GROUPS_MAX],
    biases: [[[u8; 2]; BLOCK_TOKENS]; GROUPS_MAX],
}

impl Scratch {
    pub(super) fn new() -> Box<Scratch> {
        Box::new(Scratch {
            queries: [[0.0; STRIDE]; QUERIES_MAX],
            query_sums: [[0.0; GROUPS_MAX]; QUERIES_MAX],
            scores: [[0.0; STRIDE]; QUERIES_MAX],
            weights: [[[0.0; STRIDE]; QUERIES_MAX]; GROUPS_MAX],
            values: [[0.0; STRIDE]; QUERIES_MAX],
            scales: [[[0; 2]; BLOCK_TOKENS]; GROUPS_MAX],
            biases: [[[0; 2]; BLOCK_TOKENS]; GROUPS_MAX],
        })
    }
}

/// Cuts a number of queries into tiles whose sums fit the registers.
pub(super) struct Tiles<S> {
    next: usize,
    end: usize,
    lanes: PhantomData<S>,
}

impl<S: Lanes> Tiles<S> {
    #[inline(always)]
    pub(super) fn new(queries: usize) -> Tiles<S> {
        Tiles { next: 0, end: queries, lanes: PhantomData }
    }

    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<Range<usize>> {
        let left = self.end - self.next;
        // Only these sizes have kernels.
        let size = match left {
            0 => return None,
            1..=4 => left,
            5 => 3,
            7 => 4,
            _ if !wide::<S>() => 6,
            6 | 9 | 10 => 6,
            8 | 11 => 8,
            _ => 12,
        };
        self.next += size;
        Some(self.next - size..self.next)
    }
}

/// Whether there are registers for 24 sums.
#[inline(always)]
pub(super) const fn wide<S: Lanes>() -> bool {
    S::REGISTERS >= 26
}

/// Up to 12 queries, and what they have found in the block that was run last.
pub(super) struct Tile<'a> {
    pub(super) attention: &'a Attention<'a>,
    pub(super) scratch: &'a mut Scratch,
    pub(super) count: usize,
    positions: [usize; QUERIES_MAX],
    pub(super) spans: [Span; QUERIES_MAX],
    found: [Softmax; QUERIES_MAX],
}

impl<'a> Tile<'a> {
    #[inline(always)]
    pub(super) fn new(attention: &'a Attention<'a>, scratch: &'a mut Scratch) -> Tile<'a> {
        Tile {
            attention,
            scratch,
            count: 0,
            positions: [0; QUERIES_MAX],
            spans: [Span::EMPTY; QUERIES_MAX],
            found: [Softmax::NOTHING; QUERIES_MAX],
        }
    }

    #[inline(always)]
    pub(super) fn push<S: Lanes>(&mut self, lanes: S, position: usize, query: &[f32]) {
        let index = self.count;
        self.count += 1;
        self.positions[index] = position;
        let scale = lanes.splat(self.attention.scale);
        let sums = &mut self.scratch.query_sums[index];
        let group = self.attention.layout.group();
        let scaled = self.scratch.queries[index].chunks_exact_mut(group);
        for ((x, scaled), sum) in query.chunks_exact(group).zip(scaled).zip(sums) {
            let mut total = lanes.splat(0.0);
            let scaled = scaled.as_chunks_mut::<LANES>().0;
            for (x, scaled) in x.as_chunks::<LANES>().0.iter().zip(scaled) {
                let x = lanes.mul(lanes.of(x), scale);
                *scaled = lanes.to_array(x);
                total = lanes.add(total, x);
            }
            *sum = lanes.sum(total);
        }
    }

    /// The blocks that any of the queries sees.
    #[inline(always)]
    pub(super) fn blocks(&self) -> Range<usize> {
        let positions = &self.positions[..self.count];
        let first = positions.iter().map(|&position| self.attention.first_key(position)).min();
        let last = positions.iter().max();
        let (Some(first), Some(last)) = (first, last) else { return 0..0 };
        first / BLOCK_TOKENS..last / BLOCK_TOKENS + 1
    }

    /// What a query found in the block that was run last; none if it sees nothing of it.
    #[inline(always)]
    pub(super) fn result(&self, query: usize) -> Option<(Softmax, &[f32])> {
        let head_dim = self.attention.layout.head_dim();
        let values = &self.scratch.values[query][..head_dim];
        (!self.spans[query].is_empty()).then_some((self.found[query], values))
    }
}

/// Runs a tile's queries against a block.
pub(super) struct Block<'a, 'b> {
    pub tile: &'a mut Tile<'b>,
    pub block: usize,
}

impl Kernel for Block<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, lanes: S) {
        let Block { tile, block } = self;
        let attention = tile.attention;
        let mut seen = Span { from: BLOCK_TOKENS, to: 0 };
        for query in 0..tile.count {
            let span = attention.visible(tile.positions[query], block);
            tile.spans[query] = span;
            if !span.is_empty() {
                seen = Span { from: seen.from.min(span.from), to: seen.to.max(span.to) };
            }
        }
        if seen.is_empty() {
            return;
        }
        let next = attention.block(block + 1).unwrap_or(&[]);
        let block = attention.block(block).expect("a block that a row sees is in the cache");
        match attention.layout.key_bits() {
            Bits::Four => score::<S, Four>(lanes, tile, block, seen),
            Bits::Eight => score::<S, Eight>(lanes, tile, block, seen),
            Bits::Sixteen => score::<S, Sixteen>(lanes, tile, block, seen),
            Bits::ThirtyTwo => score::<S, ThirtyTwo>(lanes, tile, block, seen),
        }
        if attention.layout.value_bits().is_affine() {
            transpose_parameters(tile, block);
        }
        for query in 0..tile.count {
            if !tile.spans[query].is_empty() {
                softmax(lanes, tile, query);
            }
        }
        match attention.layout.value_bits() {
            Bits::Four => gather::<S, Four>(lanes, tile, block, next),
            Bits::Eight => gather::<S, Eight>(lanes, tile, block, next),
            Bits::Sixteen => gather::<S, Sixteen>(lanes, tile, block, next),
            Bits::ThirtyTwo => gather::<S, ThirtyTwo>(lanes, tile, block, next),
        }
    }
}

/// Puts the values' scales and biases in the order of slots, per group.
#[inline(always)]
fn transpose_parameters(tile: &mut Tile<'_>, block: &[u8]) {
    let layout = tile.attention.layout;
    let (groups, bytes) = (layout.groups(), layout.parameter_bytes());
    let tensors = layout.values();
    let scratch = &mut *tile.scratch;
    for (tensor, to) in
        [(tensors.scales, &mut scratch.scales), (tensors.biases, &mut scratch.biases)]
    {
        let from = block[tensor][tile.attention.kv_head * bytes..][..bytes].as_chunks::<2>().0;
        if groups == 1 {
            to[0].copy_from_slice(from);
            continue;
        }
        for (slot, from) in from.chunks_exact(groups).enumerate() {
            for (group, value) in from.iter().enumerate() {
                to[group][slot] = *value;
            }
        }
    }
}

/// A query's exp of its scores, their sum, and the weights of the values' codes. Leaves the sum of
/// `exp * bias` in the query's values.
#[inline(always)]
fn softmax<S: Lanes>(lanes: S, tile: &mut Tile<'_>, query: usize) {
    let Tile { attention, scratch, .. } = tile;
    let span = tile.spans[query];
    let Span { from, to } = span;
    let scores = scratch.scores[query].as_chunks_mut::<LANES>().0;
    let vectors = from / LANES..to.div_ceil(LANES);
    let mut largest = lanes.splat(f32::NEG_INFINITY);
    for v in vectors.clone() {
        let mut x = lanes.of(&scores[v]);
        if let Some(cap) = attention.softcap {
            let cap = lanes.splat(cap);
            x = lanes.mul(cap, math::tanh(lanes, lanes.div(x, cap)));
        }
        let x = visible(lanes, span, v, x, f32::NEG_INFINITY);
        scores[v] = lanes.to_array(x);
        largest = lanes.max(x, largest);
    }
    let largest = lanes.largest(largest);

    let mut sums = lanes.splat(0.0);
    for v in vectors.clone() {
        let x = lanes.sub(lanes.of(&scores[v]), lanes.splat(largest));
        let x = math::exp(lanes, x);
        scores[v] = lanes.to_array(x);
        sums = lanes.add(sums, x);
    }
    tile.found[query] = Softmax { largest, sum: lanes.sum(sums) };

    let values = &mut scratch.values[query][..attention.layout.head_dim()];
    if !attention.layout.value_bits().is_affine() {
        values.fill(0.0);
        return;
    }
    let group = attention.layout.group();
    for (index, values) in values.chunks_exact_mut(group).enumerate() {
        let weights = scratch.weights[index][query].as_chunks_mut::<LANES>().0;
        let scales = scratch.scales[index].as_chunks::<LANES>().0;
        let biases = scratch.biases[index].as_chunks::<LANES>().0;
        let mut sums = lanes.splat(0.0);
        for v in vectors.clone() {
            let x = lanes.of(&scores[v]);
            // SAFETY: sixteen f16 each.
            let (scale, bias) = unsafe {
                let scale = lanes.load_f16(scales[v].as_flattened().as_ptr());
                (scale, lanes.load_f16(biases[v].as_flattened().as_ptr()))
            };
            // 0 times a hidden bias could be NaN. Hidden weights are never read.
            weights[v] = lanes.to_array(lanes.mul(x, scale));
            sums = lanes.fma(x, visible(lanes, span, v, bias, 0.0), sums);
        }
        values.fill(lanes.sum(sums));
    }
}

/// The lanes of vector `v` of a block's slots that the span has, from `x`; `hidden` in the others.
/// Not a closure: those are compiled without the lanes' instructions unless they are inlined.
#[inline(always)]
fn visible<S: Lanes>(lanes: S, span: Span, v: usize, x: S::F, hidden: f32) -> S::F {
    let start = v * LANES;
    if span.from <= start && start + LANES <= span.to {
        return x;
    }
    let first = span.from.saturating_sub(start);
    lanes.select_lanes(first, (span.to - start).min(LANES), x, lanes.splat(hidden))
}
