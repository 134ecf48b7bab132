//! Sums of a block's values, weighted by the tile's queries. Lanes are dimensions.

use std::marker::PhantomData;

use super::Floats;
use crate::attention::Span;
use crate::attention::ahead::Ahead;
use crate::attention::tile::{QUERIES_MAX, STRIDE, Tile, wide};
use crate::kv::BLOCK_TOKENS;
use crate::lanes::{Kernel, LANES, Lanes};

/// Adds the values, weighted, to each query's: each query sees its own slots only.
#[inline(always)]
pub(in crate::attention) fn gather<S: Lanes, C: Floats>(
    lanes: S,
    tile: &mut Tile<'_>,
    block: &[u8],
    next: &[u8],
) {
    let head_dim = tile.attention.layout.head_dim();
    for values in &mut tile.scratch.values[..tile.count] {
        values[..head_dim].fill(0.0);
    }
    let ahead = Ahead::new(tile.head_keys(next));
    let all = tile.head_values(block);
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
                all,
                query,
                1,
                Span { from: span.from, to: from },
                Ahead::NOTHING,
            );
        }
        gather_span::<S, C>(lanes, tile, all, 0, tile.count, Span { from, to }, ahead);
        for (query, span) in spans.iter().enumerate() {
            gather_span::<S, C>(
                lanes,
                tile,
                all,
                query,
                1,
                Span { from: to, to: span.to },
                Ahead::NOTHING,
            );
        }
    } else {
        for (query, span) in spans.iter().enumerate() {
            gather_span::<S, C>(lanes, tile, all, query, 1, *span, Ahead::NOTHING);
        }
    }
}

/// `all` are one head's values.
#[inline(always)]
fn gather_span<S: Lanes, C: Floats>(
    lanes: S,
    tile: &mut Tile<'_>,
    all: &[u8],
    first_query: usize,
    queries: usize,
    span: Span,
    ahead: Ahead,
) {
    if span.is_empty() {
        return;
    }
    let head_dim = tile.attention.layout.head_dim();
    assert!(span.to <= BLOCK_TOKENS);
    assert!(first_query + queries <= QUERIES_MAX);
    assert_eq!(all.len(), BLOCK_TOKENS * head_dim * C::BYTES);
    let vectors = head_dim / LANES;
    let mut vector = 0;
    while vector < vectors {
        let gather = Gather::<C, 1, 1> {
            all: all.as_ptr(),
            head_dim,
            span,
            weights: tile.scratch.scores[first_query..].as_flattened().as_ptr(),
            values: tile.scratch.values[first_query..].as_flattened_mut().as_mut_ptr(),
            vector,
            ahead: if vector == 0 { ahead } else { Ahead::NOTHING },
            width: PhantomData,
        };
        // A head has an even number of vectors.
        let four = vectors - vector >= 4;
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
    all: *const u8,
    head_dim: usize,
    span: Span,
    /// `Q` rows of `STRIDE`
    weights: *const f32,
    /// `Q` rows of `STRIDE`
    values: *mut f32,
    vector: usize,
    ahead: Ahead,
    width: PhantomData<C>,
}

impl<C> Gather<C, 1, 1> {
    #[inline(always)]
    fn sized<const Q: usize, const V: usize>(self) -> Gather<C, Q, V> {
        let Gather { all, head_dim, span, weights, values, vector, ahead, width } = self;
        Gather { all, head_dim, span, weights, values, vector, ahead, width }
    }
}

impl<C: Floats, const Q: usize, const V: usize> Kernel for Gather<C, Q, V> {
    type Output = usize;

    #[inline(always)]
    fn run<S: Lanes>(self, lanes: S) -> usize {
        let token_bytes = self.head_dim * C::BYTES;
        // `gather_span` checked that the span lies within the 256 tokens of `all`, and gave `Q` rows
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
            for (v, value) in values.iter_mut().enumerate() {
                // SAFETY: as above.
                *value = unsafe {
                    let from = self.all.add(token * token_bytes);
                    C::load(lanes, from.add((self.vector + v) * LANES * C::BYTES))
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
