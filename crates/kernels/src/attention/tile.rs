//! A few queries against one block: they share what is made of its numbers.

use std::f32::consts::LOG2_E;
use std::marker::PhantomData;
use std::ops::Range;

use super::coded::{self, Eight, Four, Parameters};
use super::plain::{self, Sixteen, ThirtyTwo};
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
pub(super) type CodedRow = [i16; STRIDE];

#[repr(C, align(64))]
pub(super) struct Scratch {
    /// `[query][dimension]`, multiplied by [`Attention::query_scale`]
    pub(super) queries: [Row; QUERIES_MAX],
    /// The same as integers of `query_steps` each; of coded keys only, as the sums
    pub(super) coded_queries: [CodedRow; QUERIES_MAX],
    /// `[query]`: what scores count in
    query_steps: [f32; QUERIES_MAX],
    /// `[query][group]`: sums over the group's dimensions, in steps
    pub(super) query_sums: [[f32; GROUPS_MAX]; QUERIES_MAX],
    /// `[query][slot]`: scores in steps, then two to their power
    pub(super) scores: [Row; QUERIES_MAX],
    /// `[group][query][slot]`: the same times the value's scale, as integers of `weight_steps` each;
    /// of coded values only, as those and their parameters
    pub(super) weights: [[CodedRow; QUERIES_MAX]; GROUPS_MAX],
    /// `[group][query]`
    pub(super) weight_steps: [[f32; QUERIES_MAX]; GROUPS_MAX],
    /// `[slot]`: weights of one query before they are integers
    pub(super) products: Row,
    pub(super) parameters: Parameters,
    /// `[query][dimension]`
    pub(super) values: [Row; QUERIES_MAX],
}

impl Scratch {
    pub(super) fn new() -> Box<Scratch> {
        Box::new(Scratch {
            queries: [[0.0; STRIDE]; QUERIES_MAX],
            coded_queries: [[0; STRIDE]; QUERIES_MAX],
            query_steps: [1.0; QUERIES_MAX],
            query_sums: [[0.0; GROUPS_MAX]; QUERIES_MAX],
            scores: [[0.0; STRIDE]; QUERIES_MAX],
            weights: [[[0; STRIDE]; QUERIES_MAX]; GROUPS_MAX],
            weight_steps: [[0.0; QUERIES_MAX]; GROUPS_MAX],
            products: [0.0; STRIDE],
            parameters: Parameters::NONE,
            values: [[0.0; STRIDE]; QUERIES_MAX],
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
        let layout = self.attention.layout;
        let scale = lanes.splat(self.attention.query_scale());
        let scaled = &mut self.scratch.queries[index][..query.len()];
        let mut largest = lanes.splat(0.0);
        let vectors = query.as_chunks::<LANES>().0.iter();
        for (x, scaled) in vectors.zip(scaled.as_chunks_mut::<LANES>().0) {
            let x = lanes.mul(lanes.of(x), scale);
            *scaled = lanes.to_array(x);
            largest = coded::magnitude(lanes, x, largest);
        }
        if !layout.key_bits().is_affine() {
            self.scratch.query_steps[index] = 1.0;
            return;
        }
        let coded = &mut self.scratch.coded_queries[index][..query.len()];
        let step = match coded::quantise(lanes, scaled, lanes.largest(largest), coded) {
            // All are 0, or none is a number, as the sums then say.
            0.0 => 1.0,
            step => step,
        };
        self.scratch.query_steps[index] = step;
        let sums = &mut self.scratch.query_sums[index];
        let groups = scaled.chunks_exact(layout.group()).zip(coded.chunks_exact(layout.group()));
        for ((scaled, coded), to) in groups.zip(sums) {
            let mut total = lanes.splat(0.0);
            for x in scaled.as_chunks::<LANES>().0 {
                total = lanes.add(total, lanes.of(x));
            }
            let total = lanes.sum(total);
            // Of the integers, so that what rounding them adds is multiplied with keys, not codes.
            let exact: i32 = coded.iter().map(|x| i32::from(*x)).sum();
            *to = if total.is_finite() { exact as f32 } else { total };
        }
    }

    /// The K of this tile's head in a block, or nothing of none.
    #[inline(always)]
    pub(super) fn head_keys<'b>(&self, block: &'b [u8]) -> &'b [u8] {
        let layout = self.attention.layout;
        let bytes = layout.code_bytes(layout.key_bits());
        let all = block.get(layout.keys().codes).unwrap_or(&[]);
        all.get(self.attention.kv_head * bytes..).and_then(|all| all.get(..bytes)).unwrap_or(&[])
    }

    /// The V of this tile's head in a block.
    #[inline(always)]
    pub(super) fn head_values<'b>(&self, block: &'b [u8]) -> &'b [u8] {
        let layout = self.attention.layout;
        let bytes = layout.code_bytes(layout.value_bits());
        &block[layout.values().codes][self.attention.kv_head * bytes..][..bytes]
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
            Bits::Four => coded::score::<S, Four>(lanes, tile, block, seen),
            Bits::Eight => coded::score::<S, Eight>(lanes, tile, block, seen),
            Bits::Sixteen => plain::score::<S, Sixteen>(lanes, tile, block, seen),
            Bits::ThirtyTwo => plain::score::<S, ThirtyTwo>(lanes, tile, block, seen),
        }
        for query in 0..tile.count {
            if !tile.spans[query].is_empty() {
                softmax(lanes, tile, query);
            }
        }
        if attention.layout.value_bits().is_affine() {
            coded::weigh(lanes, tile, block, seen);
        }
        match attention.layout.value_bits() {
            Bits::Four => coded::gather::<S, Four>(lanes, tile, block, next, seen),
            Bits::Eight => coded::gather::<S, Eight>(lanes, tile, block, next, seen),
            Bits::Sixteen => plain::gather::<S, Sixteen>(lanes, tile, block, next),
            Bits::ThirtyTwo => plain::gather::<S, ThirtyTwo>(lanes, tile, block, next),
        }
    }
}

/// Two to the power of a query's scores, relative to the largest, and their sum.
#[inline(always)]
fn softmax<S: Lanes>(lanes: S, tile: &mut Tile<'_>, query: usize) {
    let span = tile.spans[query];
    let Scratch { scores, query_steps, .. } = &mut *tile.scratch;
    let scores = scores[query].as_chunks_mut::<LANES>().0;
    let mut step = query_steps[query];
    if let Some(cap) = tile.attention.softcap {
        for v in span.vectors() {
            let x = lanes.div(lanes.mul(lanes.of(&scores[v]), lanes.splat(step)), lanes.splat(cap));
            scores[v] = lanes.to_array(math::tanh(lanes, x));
        }
        step = cap * LOG2_E;
    }
    let mut largest = lanes.splat(f32::NEG_INFINITY);
    for v in span.vectors() {
        let x = visible(lanes, span, v, lanes.of(&scores[v]), f32::NEG_INFINITY);
        scores[v] = lanes.to_array(x);
        largest = lanes.max(x, largest);
    }
    let largest = lanes.largest(largest) * step;

    let mut sums = lanes.splat(0.0);
    for v in span.vectors() {
        let x = lanes.fma(lanes.of(&scores[v]), lanes.splat(step), lanes.splat(-largest));
        let x = math::exp2(lanes, x);
        scores[v] = lanes.to_array(x);
        sums = lanes.add(sums, x);
    }
    tile.found[query] = Softmax { largest, sum: lanes.sum(sums) };
}

/// The lanes of vector `v` of a block's slots that the span has, from `x`; `hidden` in the others.
/// Not a closure: those are compiled without the lanes' instructions unless they are inlined.
#[inline(always)]
pub(super) fn visible<S: Lanes>(lanes: S, span: Span, v: usize, x: S::F, hidden: f32) -> S::F {
    let start = v * LANES;
    if span.from <= start && start + LANES <= span.to {
        return x;
    }
    let first = span.from.saturating_sub(start);
    lanes.select_lanes(first, (span.to - start).min(LANES), x, lanes.splat(hidden))
}
