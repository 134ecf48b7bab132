//! Keys and values that are codes with a scale and a bias per group: sums of integers.
//!
//! A query's dimensions become integers of 16 bits ([`quantise`]), and so do the weights of a block's
//! values. The sum over a group's dimensions, or over a block's tokens, is then exact, whatever its
//! order: at most 256 codes below 256 times 32,767 fit an i32.

mod gather;
mod score;
mod weigh;

use crate::kv::BLOCK_TOKENS;
use crate::lanes::{LANES, Lanes};

pub(super) use gather::gather;
pub(super) use score::score;
pub(super) use weigh::{Parameters, weigh};

/// Of the integers that stand for factors.
const LARGEST: f32 = 32_767.0;
/// Factors that are all smaller count as 0.
const SMALLEST: f32 = 1e-30;

const _: () = assert!(BLOCK_TOKENS as i64 * 255 * LARGEST as i64 <= i32::MAX as i64);

/// One width of stored codes.
pub(super) trait Codes {
    const BITS: usize;

    /// The keys of sixteen tokens from `token` on in dimensions `2 * pair` and `2 * pair + 1`.
    ///
    /// # Safety
    /// `keys` starts one head's K codes, which have that pair and those tokens.
    unsafe fn keys<S: Lanes>(lanes: S, keys: *const u8, pair: usize, token: usize) -> S::I;

    /// Where sixteen dimensions of a token lie in its row of V, from dimension `16 * vector` on.
    fn place(vector: usize, head_dim: usize) -> Place;

    /// Sixteen dimensions of two tokens' values.
    ///
    /// # Safety
    /// `first` and `second` are the tokens' rows of V codes plus `place.offset`.
    unsafe fn values<S: Lanes>(lanes: S, first: *const u8, second: *const u8, place: Place)
    -> S::I;
}

#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    pub offset: usize,
    pub shift: u32,
}

pub(super) struct Four;
pub(super) struct Eight;

impl Codes for Four {
    const BITS: usize = 4;

    #[inline(always)]
    unsafe fn keys<S: Lanes>(lanes: S, keys: *const u8, pair: usize, token: usize) -> S::I {
        // SAFETY: the caller's promise; a pair of dimensions has one byte per token.
        unsafe { lanes.pair_halves(keys.add(pair * BLOCK_TOKENS + token)) }
    }

    #[inline(always)]
    fn place(vector: usize, head_dim: usize) -> Place {
        let half = head_dim / 32;
        match vector < half {
            true => Place { offset: vector * LANES, shift: 0 },
            false => Place { offset: (vector - half) * LANES, shift: 4 },
        }
    }

    #[inline(always)]
    unsafe fn values<S: Lanes>(
        lanes: S,
        first: *const u8,
        second: *const u8,
        place: Place,
    ) -> S::I {
        // SAFETY: the caller's promise.
        unsafe { lanes.pair_nibbles(first, second, place.shift) }
    }
}

impl Codes for Eight {
    const BITS: usize = 8;

    #[inline(always)]
    unsafe fn keys<S: Lanes>(lanes: S, keys: *const u8, pair: usize, token: usize) -> S::I {
        // SAFETY: the caller's promise; a dimension has one byte per token.
        unsafe {
            let even = keys.add(2 * pair * BLOCK_TOKENS + token);
            lanes.pair_bytes(even, even.add(BLOCK_TOKENS))
        }
    }

    #[inline(always)]
    fn place(vector: usize, _head_dim: usize) -> Place {
        Place { offset: vector * LANES, shift: 0 }
    }

    #[inline(always)]
    unsafe fn values<S: Lanes>(
        lanes: S,
        first: *const u8,
        second: *const u8,
        _place: Place,
    ) -> S::I {
        // SAFETY: the caller's promise.
        unsafe { lanes.pair_bytes(first, second) }
    }
}

/// Factors as integers; returns what 1 stands for. `largest` is the greatest magnitude among them.
/// Where it is no number, nor are the factors' own sums, so that nobody takes the result for one.
#[inline(always)]
pub(super) fn quantise<S: Lanes>(lanes: S, x: &[f32], largest: f32, to: &mut [i16]) -> f32 {
    let (step, inverse) = match largest < SMALLEST {
        true => (0.0, 0.0),
        false => (largest / LARGEST, LARGEST / largest),
    };
    let (from, to) = (x.as_chunks::<LANES>().0, to.as_chunks_mut::<LANES>().0);
    for (x, to) in from.iter().zip(to) {
        // SAFETY: `to` has sixteen i16.
        unsafe { lanes.store_i16(to.as_mut_ptr(), lanes.mul(lanes.of(x), lanes.splat(inverse))) };
    }
    step
}

/// The larger of the magnitudes of `x` and what is found already. Whoever else writes a cache may
/// give codes a negative scale, as MLX does.
#[inline(always)]
pub(super) fn magnitude<S: Lanes>(lanes: S, x: S::F, so_far: S::F) -> S::F {
    let negative = lanes.sub(lanes.splat(0.0), x);
    lanes.max(x, lanes.max(negative, so_far))
}
