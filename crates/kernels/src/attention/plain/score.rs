//! Scores: dot products of a tile's queries with a block's keys. Lanes are tokens.

use std::marker::PhantomData;

use super::Floats;
use crate::attention::Span;
use crate::attention::ahead::Ahead;
use crate::attention::tile::{QUERIES_MAX, Row, STRIDE, Tile, wide};
use crate::kv::BLOCK_TOKENS;
use crate::lanes::{Kernel, LANES, Lanes};

/// Scores of all queries against the slots that any of them sees, and some around those.
#[inline(always)]
pub(in crate::attention) fn score<S: Lanes, C: Floats>(
    lanes: S,
    tile: &mut Tile<'_>,
    block: &[u8],
    seen: Span,
) {
    let head_dim = tile.attention.layout.head_dim();
    let scores = Scores::<C, 1, 1> {
        keys: tile.head_keys(block).as_ptr(),
        head_dim,
        seen,
        ahead: Ahead::new(tile.head_values(block)),
        queries: &tile.scratch.queries,
        scores: &mut tile.scratch.scores,
        width: PhantomData,
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
    /// One head's K
    keys: *const u8,
    head_dim: usize,
    seen: Span,
    ahead: Ahead,
    queries: &'a [Row; QUERIES_MAX],
    scores: &'a mut [Row; QUERIES_MAX],
    width: PhantomData<C>,
}

impl<'a, C> Scores<'a, C, 1, 1> {
    #[inline(always)]
    fn sized<const Q: usize, const V: usize>(self) -> Scores<'a, C, Q, V> {
        const { assert!(Q <= QUERIES_MAX) };
        const { assert!(BLOCK_TOKENS.is_multiple_of(V * LANES)) };
        let Scores { keys, head_dim, seen, ahead, queries, scores, width } = self;
        Scores { keys, head_dim, seen, ahead, queries, scores, width }
    }
}

impl<C: Floats, const Q: usize, const V: usize> Kernel for Scores<'_, C, Q, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, lanes: S) {
        let width = V * LANES;
        let queries = self.queries.as_flattened().as_ptr();
        let scores = self.scores.as_flattened_mut().as_mut_ptr();
        let chunks = self.seen.from / width..self.seen.to.div_ceil(width);
        let mut ahead = self.ahead.over(chunks.len() * self.head_dim / 2);
        for chunk in chunks {
            let token = chunk * width;
            let mut dots = [[lanes.splat(0.0); V]; Q];
            for pair in 0..self.head_dim / 2 {
                ahead.step(lanes);
                let mut keys = [(lanes.splat(0.0), lanes.splat(0.0)); V];
                for (v, keys) in keys.iter_mut().enumerate() {
                    // SAFETY: there are `head_dim` dimensions of 256 tokens, and
                    // `token + V * 16 <= 256` as `seen` ends at 256 at most.
                    *keys = unsafe { C::keys(lanes, self.keys, pair, token + v * LANES) };
                }
                // One factor at a time, for all vectors: more of them would not fit the registers.
                for (q, dots) in dots.iter_mut().enumerate() {
                    // SAFETY: `Q` queries of `head_dim <= STRIDE` values are there.
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
            for (q, dots) in dots.iter().enumerate() {
                for (v, dot) in dots.iter().enumerate() {
                    // SAFETY: row `q` of the scores has 256 of them.
                    unsafe { lanes.store(scores.add(q * STRIDE + token + v * LANES), *dot) };
                }
            }
        }
    }
}
