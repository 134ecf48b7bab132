//! Keys and values that are f16 or f32: sums of floats.

mod gather;
mod score;

use crate::kv::BLOCK_TOKENS;
use crate::lanes::Lanes;

pub(super) use gather::gather;
pub(super) use score::score;

/// One width of stored numbers.
pub(super) trait Floats {
    const BYTES: usize;

    /// Sixteen numbers.
    ///
    /// # Safety
    /// As many can be read at `from`, of any alignment.
    unsafe fn load<S: Lanes>(lanes: S, from: *const u8) -> S::F;

    /// The keys of sixteen tokens from `token` on in dimensions `2 * pair` and `2 * pair + 1`.
    ///
    /// # Safety
    /// `keys` starts one head's K, which has that pair and those tokens.
    #[inline(always)]
    unsafe fn keys<S: Lanes>(lanes: S, keys: *const u8, pair: usize, token: usize) -> (S::F, S::F) {
        // SAFETY: the caller's promise; a dimension has one number per token.
        unsafe {
            let from = keys.add((2 * pair * BLOCK_TOKENS + token) * Self::BYTES);
            (Self::load(lanes, from), Self::load(lanes, from.add(BLOCK_TOKENS * Self::BYTES)))
        }
    }
}

pub(super) struct Sixteen;
pub(super) struct ThirtyTwo;

impl Floats for Sixteen {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Lanes>(lanes: S, from: *const u8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { lanes.load_f16(from) }
    }
}

impl Floats for ThirtyTwo {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<S: Lanes>(lanes: S, from: *const u8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { lanes.load(from.cast()) }
    }
}
