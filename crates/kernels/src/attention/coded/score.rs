//! Scores: dot products of a tile's queries with the codes of a block's keys. Lanes are tokens.

use std::marker::PhantomData;
use std::ops::Range;

use super::Codes;
use crate::attention::Span;
use crate::attention::ahead::Ahead;
use crate::attention::tile::{CodedRow, GROUPS_MAX, QUERIES_MAX, Row, STRIDE, Tile, wide};
use crate::kv::BLOCK_TOKENS;
use crate::lanes::{Kernel, LANES, Lanes};

/// Scores, in steps of each query, against the slots that any of them sees, and some around those.
#[inline(always)]
pub(in crate::attention) fn score<S: Lanes, C: Codes>(
    lanes: S,
    tile: &mut Tile<'_>,
    block: &[u8],
    seen: Span,
) {
    let layout = tile.attention.layout;
    let tensors = layout.keys();
    let head = tile.attention.kv_head;
    let bytes = layout.parameter_bytes();
    let head_of = |tensor: Range<usize>| &block[tensor][head * bytes..][..bytes];
    let scores = Scores::<C, 1, 1> {
        codes: tile.head_keys(block).as_ptr(),
        scales: head_of(tensors.scales).as_ptr(),
        biases: head_of(tensors.biases).as_ptr(),
        groups: layout.groups(),
        group: layout.group(),
        seen,
        ahead: Ahead::new(tile.head_values(block)),
        queries: &tile.scratch.coded_queries,
        sums: &tile.scratch.query_sums,
        scores: &mut tile.scratch.scores,
        width: PhantomData,
    };
    match (wide::<S>(), tile.count) {
        (true, 12) => lanes.call(scores.sized::<12, 2>()),
        (true, 8) => lanes.call(scores.sized::<8, 2>()),
        (true, 6) => lanes.call(scores.sized::<6, 4>()),
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
    /// One head's K: all of its codes, scales and biases.
    codes: *const u8,
    scales: *const u8,
    biases: *const u8,
    groups: usize,
    group: usize,
    seen: Span,
    ahead: Ahead,
    queries: &'a [CodedRow; QUERIES_MAX],
    sums: &'a [[f32; GROUPS_MAX]; QUERIES_MAX],
    scores: &'a mut [Row; QUERIES_MAX],
    width: PhantomData<C>,
}

impl<'a, C> Scores<'a, C, 1, 1> {
    #[inline(always)]
    fn sized<const Q: usize, const V: usize>(self) -> Scores<'a, C, Q, V> {
        const { assert!(Q <= QUERIES_MAX) };
        const { assert!(BLOCK_TOKENS.is_multiple_of(V * LANES)) };
        let Scores { codes, scales, biases, groups, group, seen, ahead, .. } = self;
        let Scores { queries, sums, scores, width, .. } = self;
        #[rustfmt::skip]
        let sized = Scores {
            codes, scales, biases, groups, group, seen, ahead, queries, sums, scores, width,
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
                let mut dots = [[lanes.no_sum(); V]; Q];
                for pair in group * self.group / 2..(group + 1) * self.group / 2 {
                    ahead.step(lanes);
                    let mut keys = [lanes.no_sum(); V];
                    for (v, keys) in keys.iter_mut().enumerate() {
                        // SAFETY: `codes` has `groups * group` dimensions of 256 tokens, and
                        // `token + V * 16 <= 256` as `seen` ends at 256 at most.
                        *keys = unsafe { C::keys(lanes, self.codes, pair, token + v * LANES) };
                    }
                    for (q, dots) in dots.iter_mut().enumerate() {
                        let factors = queries.wrapping_add(q * STRIDE + 2 * pair);
                        for (dot, keys) in dots.iter_mut().zip(keys) {
                            // SAFETY: `Q` queries of `groups * group <= STRIDE` integers are there.
                            *dot = unsafe { lanes.add_products(keys, factors, *dot) };
                        }
                    }
                }
                for v in 0..V {
                    let token = token + v * LANES;
                    let slot = (group * BLOCK_TOKENS + token) * 2;
                    // SAFETY: there are 256 scales and biases per group.
                    let (scale, bias) = unsafe {
                        let scale = lanes.load_f16(self.scales.add(slot));
                        (scale, lanes.load_f16(self.biases.add(slot)))
                    };
                    for (q, dots) in dots.iter().enumerate() {
                        let sum = lanes.splat(self.sums[q][group]);
                        let dot = lanes.to_float(dots[v]);
                        // SAFETY: row `q` of the scores has 256 of them.
                        unsafe {
                            let at = scores.add(q * STRIDE + token);
                            let score = match group {
                                0 => lanes.mul(scale, dot),
                                _ => lanes.fma(scale, dot, lanes.load(at)),
                            };
                            lanes.store(at, lanes.fma(bias, sum, score));
                        }
                    }
                }
            }
        }
    }
}
