//! A few queries against one block: they share the conversion of its codes to f32.

use std::marker::PhantomData;
use std::ops::Range;

use super::codes::{Codes, Eight, Four, Place, Sixteen, ThirtyTwo};
use super::{Attention, Softmax, Span};
use crate::kv::{BLOCK_TOKENS, Bits, HEAD_DIM_MAX};
use crate::lanes::{Kernel, LANES, Lanes};
use crate::math;

/// Queries of a tile, at most: 12 sums of 2 vectors fill the registers of AVX-512.
pub(super) const QUERIES_MAX: usize = 12;

const GROUPS_MAX: usize = HEAD_DIM_MAX / 32;

/// f32 per row of the buffers. One vector more than needed, so that the rows of a tile do not all
/// fall on the same cache sets.
const STRIDE: usize = BLOCK_TOKENS + LANES;

const _: () = assert!(HEAD_DIM_MAX <= STRIDE);

type Row = [f32; STRIDE];

#[repr(C, align(64))]
pub(super) struct Scratch {
    /// `[query][dimension]`, multiplied by the attention's scale
    queries: [Row; QUERIES_MAX],
    /// `[query][group]`: sums over the group's dimensions
    query_sums: [[f32; GROUPS_MAX]; QUERIES_MAX],
    /// `[query][slot]`: scores, then their exp
    scores: [Row; QUERIES_MAX],
    /// `[group][query][slot]`: exp times the value's scale
    weights: [[Row; QUERIES_MAX]; GROUPS_MAX],
    /// `[query][dimension]`
    values: [Row; QUERIES_MAX],
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
const fn wide<S: Lanes>() -> bool {
    S::REGISTERS >= 26
}

/// Up to 12 queries, and what they have found in the block that was run last.
pub(super) struct Tile<'a> {
    attention: &'a Attention<'a>,
    scratch: &'a mut Scratch,
    count: usize,
    positions: [usize; QUERIES_MAX],
    spans: [Span; QUERIES_MAX],
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
        let next = attention.blocks.get(block + 1).copied().unwrap_or(&[]);
        let block = attention.blocks[block];
        // A window can hide a block from one row that another sees, but `check` looked at those.
        assert_eq!(block.len(), attention.layout.bytes());
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

/// Memory that is needed next, asked for line by line while the arithmetic goes on: with one row
/// the blocks come from memory, and in an order that the CPU does not foresee.
#[derive(Clone, Copy)]
struct Ahead {
    next: *const u8,
    lines: usize,
    per_step: usize,
}

impl Ahead {
    const NOTHING: Ahead = Ahead { next: std::ptr::null(), lines: 0, per_step: 0 };

    #[inline(always)]
    fn new(bytes: &[u8]) -> Ahead {
        Ahead { next: bytes.as_ptr(), lines: bytes.len() / 64, per_step: 0 }
    }

    /// Spread over a number of steps.
    #[inline(always)]
    fn over(self, steps: usize) -> Ahead {
        Ahead { per_step: self.lines.div_ceil(steps), ..self }
    }

    #[inline(always)]
    fn step<S: Lanes>(&mut self, lanes: S) {
        for _ in 0..self.per_step {
            lanes.prefetch(self.next);
            self.next = self.next.wrapping_add(64);
        }
    }
}

/// Scores of all queries against the slots that any of them sees, and some around those.
#[inline(always)]
fn score<S: Lanes, C: Codes>(lanes: S, tile: &mut Tile<'_>, block: &[u8], seen: Span) {
    let layout = tile.attention.layout;
    let tensors = layout.keys();
    let affine = layout.key_bits().is_affine();
    let head = tile.attention.kv_head;
    let code_bytes = layout.code_bytes(layout.key_bits());
    let parameter_bytes = if affine { layout.parameter_bytes() } else { 0 };
    let values = layout.values();
    let head_of = |tensor: Range<usize>, bytes: usize| &block[tensor][head * bytes..][..bytes];
    let scores = Scores::<C, 1, 1> {
        codes: head_of(tensors.codes, code_bytes).as_ptr(),
        scales: head_of(tensors.scales, parameter_bytes).as_ptr(),
        biases: head_of(tensors.biases, parameter_bytes).as_ptr(),
        groups: if affine { layout.groups() } else { 1 },
        group: if affine { layout.group() } else { layout.head_dim() },
        affine,
        seen,
        ahead: Ahead::new(head_of(values.codes, layout.code_bytes(layout.value_bits()))),
        queries: &tile.scratch.queries,
        query_sums: &tile.scratch.query_sums,
        scores: &mut tile.scratch.scores,
        codes_type: PhantomData,
    };
    match (wide::<S>(), tile.count) {
        (true, 12) => lanes.call(scores.sized::<12, 2>()),
        (true, 8) => lanes.call(scores.sized::<8, 2>()),
        (true, 6) => lanes.call(scores.sized::<6, 2>()),
        (true, 4) => lanes.call(scores.sized::<4, 4>()),
        (true, 3) => lanes.call(scores.sized::<3, 4>()),
        (true, 2) => lanes.call(scores.sized::<2, 4>()),
        (true, 1) => lanes.call(scores.sized::<1, 4>()),
        (false, 6) => lanes.call(scores.sized::<6, 1>()),
        (false, 4) => lanes.call(scores.sized::<4, 1>()),
        (false, 3) => lanes.call(scores.sized::<3, 2>()),
        (false, 2) => lanes.call(scores.sized::<2, 2>()),
        (false, 1) => lanes.call(scores.sized::<1, 4>()),
        (_, count) => unreachable!("a tile of {count}"),
    }
}

/// Scores of `Q` queries, `V` vectors of tokens at a time.
struct Scores<'a, C, const Q: usize, const V: usize> {
    /// One head's K, in this layout: all of its codes, scales and biases.
    codes: *const u8,
    scales: *const u8,
    biases: *const u8,
    groups: usize,
    group: usize,
    affine: bool,
    seen: Span,
    ahead: Ahead,
    queries: &'a [Row; QUERIES_MAX],
    query_sums: &'a [[f32; GROUPS_MAX]; QUERIES_MAX],
    scores: &'a mut [Row; QUERIES_MAX],
    codes_type: PhantomData<C>,
}

impl<'a, C> Scores<'a, C, 1, 1> {
    #[inline(always)]
    fn sized<const Q: usize, const V: usize>(self) -> Scores<'a, C, Q, V> {
        const { assert!(Q <= QUERIES_MAX) };
        const { assert!(BLOCK_TOKENS.is_multiple_of(V * LANES)) };
        let Scores { codes, scales, biases, groups, group, affine, seen, ahead, .. } = self;
        let Scores { queries, query_sums, scores, codes_type, .. } = self;
        #[rustfmt::skip]
        let sized = Scores {
            codes, scales, biases, groups, group, affine, seen, ahead, queries, query_sums, scores, codes_type,
        };
        sized
    }
}

impl<C: Codes, const Q: usize, const V: usize> Kernel for Scores<'_, C, Q, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, lanes: S) {
        let width = V * LANES;
        let queries = self.queries.as_flattened().as_ptr();
        let scores = self.scores.as_flattened_mut().as_mut_ptr();
        let chunks = self.seen.from / width..self.seen.to.div_ceil(width);
        let mut ahead = self.ahead.over(chunks.len() * self.groups * self.group / 2);
        for chunk in chunks {
            let token = chunk * width;
            for group in 0..self.groups {
                let mut dots = [[lanes.splat(0.0); V]; Q];
                for pair in group * self.group / 2..(group + 1) * self.group / 2 {
                    ahead.step(lanes);
                    let mut keys = [(lanes.splat(0.0), lanes.splat(0.0)); V];
                    for (v, keys) in keys.iter_mut().enumerate() {
                        // SAFETY: `codes` has `groups * group` dimensions of 256 tokens, and
                        // `token + V * 16 <= 256` as `seen` ends at 256 at most.
                        *keys = unsafe { C::keys(lanes, self.codes, pair, token + v * LANES) };
                    }
                    // One factor at a time, for all vectors: more of them would not fit the registers.
                    for (q, dots) in dots.iter_mut().enumerate() {
                        // SAFETY: `Q` queries of `groups * group <= STRIDE` values are there.
                        let (x, y) = unsafe {
                            let at = queries.add(q * STRIDE + 2 * pair);
                            (*at, *at.add(1))
                        };
                        for (dot, (even, _)) in dots.iter_mut().zip(keys) {
                            *dot = lanes.fma(lanes.splat(x), even, *dot);
                        }
                        for (dot, (_, odd)) in dots.iter_mut().zip(keys) {
                            *dot = lanes.fma(lanes.splat(y), odd, *dot);
                        }
                    }
                }
                for v in 0..V {
                    let token = token + v * LANES;
                    let slot = (group * BLOCK_TOKENS + token) * 2;
                    for (q, dots) in dots.iter().enumerate() {
                        // SAFETY: row `q` of the scores has 256 of them; an affine layout has 256
                        // scales and biases per group.
                        unsafe {
                            let at = scores.add(q * STRIDE + token);
                            let mut score = dots[v];
                            if self.affine {
                                let scale = lanes.load_f16(self.scales.add(slot));
                                let bias = lanes.load_f16(self.biases.add(slot));
                                let sum = lanes.splat(self.query_sums[q][group]);
                                score = match group {
                                    0 => lanes.mul(scale, score),
                                    _ => lanes.fma(scale, score, lanes.load(at)),
                                };
                                score = lanes.fma(bias, sum, score);
                            }
                            lanes.store(at, score);
                        }
                    }
                }
            }
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
    let Span { from, to } = tile.spans[query];
    let scores = scratch.scores[query].as_chunks_mut::<LANES>().0;
    let vectors = from / LANES..to.div_ceil(LANES);
    // The lanes of vector `v` that the query sees, `x`; `hidden` in the others.
    let seen = |v: usize, x: S::F, hidden: f32| {
        let start = v * LANES;
        match from <= start && start + LANES <= to {
            true => x,
            false => {
                let first = from.saturating_sub(start);
                lanes.select_lanes(first, (to - start).min(LANES), x, lanes.splat(hidden))
            }
        }
    };

    let mut largest = lanes.splat(f32::NEG_INFINITY);
    for v in vectors.clone() {
        let mut x = lanes.of(&scores[v]);
        if let Some(cap) = attention.softcap {
            let cap = lanes.splat(cap);
            x = lanes.mul(cap, math::tanh(lanes, lanes.div(x, cap)));
        }
        let x = seen(v, x, f32::NEG_INFINITY);
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
            sums = lanes.fma(x, seen(v, bias, 0.0), sums);
        }
        values.fill(lanes.sum(sums));
    }
}

/// Adds the values' codes, weighted, to each query's values: each query sees its own slots only.
#[inline(always)]
fn gather<S: Lanes, C: Codes>(lanes: S, tile: &mut Tile<'_>, block: &[u8], next: &[u8]) {
    let layout = tile.attention.layout;
    let key_bytes = layout.code_bytes(layout.key_bits());
    let mut keys = next.get(layout.keys().codes).unwrap_or(&[]).chunks_exact(key_bytes);
    let ahead = Ahead::new(keys.nth(tile.attention.kv_head).unwrap_or(&[]));
    let bytes = layout.code_bytes(layout.value_bits());
    let codes = &block[layout.values().codes][tile.attention.kv_head * bytes..][..bytes];
    let spans = tile.spans;
    let spans = &spans[..tile.count];
    let from = spans.iter().map(|span| span.from).max().unwrap_or(0);
    let to = spans.iter().map(|span| span.to).min().unwrap_or(0);
    if from < to {
        // What all see, in one go; what only some see lies around it.
        for (query, span) in spans.iter().enumerate() {
            gather_span::<S, C>(
                lanes,
                tile,
                codes,
                query,
                1,
                Span { from: span.from, to: from },
                Ahead::NOTHING,
            );
        }
        gather_span::<S, C>(lanes, tile, codes, 0, tile.count, Span { from, to }, ahead);
        for (query, span) in spans.iter().enumerate() {
            gather_span::<S, C>(
                lanes,
                tile,
                codes,
                query,
                1,
                Span { from: to, to: span.to },
                Ahead::NOTHING,
            );
        }
    } else {
        for (query, span) in spans.iter().enumerate() {
            gather_span::<S, C>(lanes, tile, codes, query, 1, *span, Ahead::NOTHING);
        }
    }
}

/// `codes` are one head's V codes.
#[inline(always)]
fn gather_span<S: Lanes, C: Codes>(
    lanes: S,
    tile: &mut Tile<'_>,
    codes: &[u8],
    first_query: usize,
    queries: usize,
    span: Span,
    ahead: Ahead,
) {
    if span.is_empty() {
        return;
    }
    let layout = tile.attention.layout;
    let head_dim = layout.head_dim();
    assert!(span.to <= BLOCK_TOKENS);
    assert!(first_query + queries <= QUERIES_MAX);
    assert_eq!(codes.len(), BLOCK_TOKENS * head_dim * C::BITS / 8);
    let affine = layout.value_bits().is_affine();
    let per_group = if affine { layout.group() / LANES } else { head_dim / LANES };
    let mut vector = 0;
    while vector < head_dim / LANES {
        let weights = match affine {
            true => &tile.scratch.weights[vector / per_group],
            false => &tile.scratch.scores,
        };
        let gather = Gather::<C, 1, 1> {
            codes: codes.as_ptr(),
            head_dim,
            span,
            weights: weights[first_query..].as_flattened().as_ptr(),
            values: tile.scratch.values[first_query..].as_flattened_mut().as_mut_ptr(),
            vector,
            ahead: if vector == 0 { ahead } else { Ahead::NOTHING },
            codes_type: PhantomData,
        };
        // A group has 2 or 4 vectors, a head an even number of them.
        let four = per_group - vector % per_group >= 4;
        vector += match (wide::<S>(), queries, four) {
            (true, 12, _) => lanes.call(gather.sized::<12, 2>()),
            (true, 8, _) => lanes.call(gather.sized::<8, 2>()),
            (true, 6, true) => lanes.call(gather.sized::<6, 4>()),
            (true, 4, true) => lanes.call(gather.sized::<4, 4>()),
            (true, 3, true) => lanes.call(gather.sized::<3, 4>()),
            (true, 2, true) => lanes.call(gather.sized::<2, 4>()),
            (_, 1, true) => lanes.call(gather.sized::<1, 4>()),
            (true, 6, false) => lanes.call(gather.sized::<6, 2>()),
            (true, 4, false) => lanes.call(gather.sized::<4, 2>()),
            (false, 6, _) => lanes.call(gather.sized::<6, 1>()),
            (false, 4, _) => lanes.call(gather.sized::<4, 1>()),
            (_, 3, _) => lanes.call(gather.sized::<3, 2>()),
            (_, 2, _) => lanes.call(gather.sized::<2, 2>()),
            (_, 1, false) => lanes.call(gather.sized::<1, 2>()),
            (_, count, _) => unreachable!("a tile of {count}"),
        };
    }
}

/// Adds `V` vectors of the span's tokens to the values of `Q` queries; returns `V`.
struct Gather<C, const Q: usize, const V: usize> {
    codes: *const u8,
    head_dim: usize,
    span: Span,
    /// `Q` rows of `STRIDE`
    weights: *const f32,
    /// `Q` rows of `STRIDE`
    values: *mut f32,
    vector: usize,
    ahead: Ahead,
    codes_type: PhantomData<C>,
}

impl<C> Gather<C, 1, 1> {
    #[inline(always)]
    fn sized<const Q: usize, const V: usize>(self) -> Gather<C, Q, V> {
        let Gather { codes, head_dim, span, weights, values, vector, ahead, codes_type } = self;
        Gather { codes, head_dim, span, weights, values, vector, ahead, codes_type }
    }
}

impl<C: Codes, const Q: usize, const V: usize> Kernel for Gather<C, Q, V> {
    type Output = usize;

    #[inline(always)]
    fn run<S: Lanes>(self, lanes: S) -> usize {
        let token_bytes = self.head_dim * C::BITS / 8;
        let mut places = [Place::default(); V];
        for (v, place) in places.iter_mut().enumerate() {
            *place = C::place(self.vector + v, self.head_dim);
        }
        // `gather_span` checked that the span lies within the 256 tokens of `codes`, and gave `Q` rows
        // of weights and values with at least `vector + V` vectors each.
        let at =
            |q: usize, v: usize| self.values.wrapping_add(q * STRIDE + (self.vector + v) * LANES);
        let mut sums = [[lanes.splat(0.0); V]; Q];
        for (q, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                *sum = unsafe { lanes.load(at(q, v)) };
            }
        }
        let mut ahead = self.ahead.over(self.span.to - self.span.from);
        for token in self.span.from..self.span.to {
            ahead.step(lanes);
            let mut values = [lanes.splat(0.0); V];
            for (value, place) in values.iter_mut().zip(places) {
                // SAFETY: as above.
                *value = unsafe {
                    let from = self.codes.add(token * token_bytes + place.offset);
                    C::values(lanes, from, place)
                };
            }
            for (q, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                let weight = lanes.splat(unsafe { *self.weights.add(q * STRIDE + token) });
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = lanes.fma(weight, value, *sum);
                }
            }
        }
        for (q, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                // SAFETY: as above.
                unsafe { lanes.store(at(q, v), *sum) };
            }
        }
        V
    }
}
