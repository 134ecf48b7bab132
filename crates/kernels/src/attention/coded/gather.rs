//! Sums of a block's values, weighted by the tile's queries. Lanes are dimensions.

use std::marker::PhantomData;
use std::ops::Range;

use super::{Codes, Place};
use crate::attention::Span;
use crate::attention::ahead::Ahead;
use crate::attention::tile::{QUERIES_MAX, STRIDE, Tile, wide};
use crate::kv::BLOCK_TOKENS;
use crate::lanes::{Kernel, LANES, Lanes};

/// Adds the values' codes, weighted, to each query's values. Weights are 0 where a query sees
/// nothing, and 0 times any code is 0.
#[inline(always)]
pub(in crate::attention) fn gather<S: Lanes, C: Codes>(
    lanes: S,
    tile: &mut Tile<'_>,
    block: &[u8],
    next: &[u8],
    seen: Span,
) {
    let layout = tile.attention.layout;
    let head_dim = layout.head_dim();
    let codes = tile.head_values(block);
    let keys = tile.head_keys(next);
    assert!(seen.to <= BLOCK_TOKENS);
    assert!(tile.count <= QUERIES_MAX);
    assert_eq!(codes.len(), BLOCK_TOKENS * head_dim * C::BITS / 8);
    let per_group = layout.group() / LANES;
    let mut vector = 0;
    while vector < head_dim / LANES {
        let group = vector / per_group;
        let gather = Gather::<C, 1, 1> {
            codes: codes.as_ptr(),
            head_dim,
            pairs: seen.from / 2..seen.to.div_ceil(2),
            weights: tile.scratch.weights[group].as_flattened().as_ptr(),
            steps: &tile.scratch.weight_steps[group],
            values: tile.scratch.values.as_flattened_mut().as_mut_ptr(),
            vector,
            ahead: if vector == 0 { Ahead::new(keys) } else { Ahead::NOTHING },
            width: PhantomData,
        };
        // A group has 2 or 4 vectors.
        let four = per_group - vector % per_group >= 4;
        vector += match (wide::<S>(), tile.count, four) {
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

/// Adds `V` vectors of the tokens' values to those of `Q` queries; returns `V`.
struct Gather<'a, C, const Q: usize, const V: usize> {
    codes: *const u8,
    head_dim: usize,
    /// Of tokens
    pairs: Range<usize>,
    /// `Q` rows of `STRIDE`
    weights: *const i16,
    steps: &'a [f32; QUERIES_MAX],
    /// `Q` rows of `STRIDE`
    values: *mut f32,
    vector: usize,
    ahead: Ahead,
    width: PhantomData<C>,
}

impl<'a, C> Gather<'a, C, 1, 1> {
    #[inline(always)]
    fn sized<const Q: usize, const V: usize>(self) -> Gather<'a, C, Q, V> {
        const { assert!(Q <= QUERIES_MAX) };
        let Gather { codes, head_dim, pairs, weights, steps, values, vector, ahead, width } = self;
        Gather { codes, head_dim, pairs, weights, steps, values, vector, ahead, width }
    }
}

impl<C: Codes, const Q: usize, const V: usize> Kernel for Gather<'_, C, Q, V> {
    type Output = usize;

    #[inline(always)]
    fn run<S: Lanes>(self, lanes: S) -> usize {
        let token_bytes = self.head_dim * C::BITS / 8;
        let mut places = [Place::default(); V];
        for (v, place) in places.iter_mut().enumerate() {
            *place = C::place(self.vector + v, self.head_dim);
        }
        let mut sums = [[lanes.no_sum(); V]; Q];
        let mut ahead = self.ahead.over(self.pairs.len());
        // `gather` checked that the pairs lie within the 256 tokens of `codes`, and gave `Q` rows of
        // weights and values with at least `vector + V` vectors each.
        for pair in self.pairs {
            ahead.step(lanes);
            let mut values = [lanes.no_sum(); V];
            for (value, place) in values.iter_mut().zip(places) {
                // SAFETY: as above.
                *value = unsafe {
                    let first = self.codes.add(2 * pair * token_bytes + place.offset);
                    C::values(lanes, first, first.add(token_bytes), place)
                };
            }
            for (q, sums) in sums.iter_mut().enumerate() {
                let factors = self.weights.wrapping_add(q * STRIDE + 2 * pair);
                for (sum, value) in sums.iter_mut().zip(values) {
                    // SAFETY: as above.
                    *sum = unsafe { lanes.add_products(value, factors, *sum) };
                }
            }
        }
        for (q, sums) in sums.iter().enumerate() {
            let step = lanes.splat(self.steps[q]);
            for (v, sum) in sums.iter().enumerate() {
                let at = self.values.wrapping_add(q * STRIDE + (self.vector + v) * LANES);
                // SAFETY: as above.
                unsafe { lanes.store(at, lanes.fma(lanes.to_float(*sum), step, lanes.load(at))) };
            }
        }
        V
    }
}
