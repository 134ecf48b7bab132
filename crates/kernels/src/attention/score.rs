//! Scores: dot products of a tile's queries with a block's keys. Lanes are tokens.

use std::marker::PhantomData;
use std::ops::Range;

use super::Span;
use super::ahead::Ahead;
use super::codes::Codes;
use super::tile::{GROUPS_MAX, QUERIES_MAX, Row, STRIDE, Tile, wide};
use crate::kv::BLOCK_TOKENS;
use crate::lanes::{Kernel, LANES, Lanes};

/// Scores of all queries against the slots that any of them sees, and some around those.
#[inline(always)]
pub(super) fn score<S: Lanes, C: Codes>(lanes: S, tile: &mut Tile<'_>, block: &[u8], seen: Span) {
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
