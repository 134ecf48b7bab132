//! How stored keys and values become numbers, per width.

use crate::lanes::Lanes;

/// One width of stored numbers.
pub(super) trait Codes {
    const BITS: usize;

    /// The keys of sixteen tokens from `token` on in dimensions `2 * pair` and `2 * pair + 1`.
    ///
    /// # Safety
    /// `keys` starts one head's K codes, which have that pair and those tokens.
    unsafe fn keys<S: Lanes>(lanes: S, keys: *const u8, pair: usize, token: usize) -> (S::F, S::F);

    /// Where sixteen dimensions of a token lie in its row of V, from dimension `16 * vector` on.
    fn place(vector: usize, head_dim: usize) -> Place;

    /// Sixteen dimensions of a token's value.
    ///
    /// # Safety
    /// `at` is a token's row of V codes plus `place.offset`.
    unsafe fn values<S: Lanes>(lanes: S, at: *const u8, place: Place) -> S::F;
}

#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    pub offset: usize,
    pub shift: u32,
}

pub(super) struct Four;
pub(super) struct Eight;
pub(super) struct Sixteen;
pub(super) struct ThirtyTwo;

const TOKENS: usize = crate::kv::BLOCK_TOKENS;

impl Codes for Four {
    const BITS: usize = 4;

    #[inline(always)]
    unsafe fn keys<S: Lanes>(lanes: S, keys: *const u8, pair: usize, token: usize) -> (S::F, S::F) {
        // SAFETY: the caller's promise; a pair of dimensions has one byte per token.
        unsafe { lanes.load_nibbles(keys.add(pair * TOKENS + token)) }
    }

    #[inline(always)]
    fn place(vector: usize, head_dim: usize) -> Place {
        let half = head_dim / 32;
        match vector < half {
            true => Place { offset: vector * 16, shift: 0 },
            false => Place { offset: (vector - half) * 16, shift: 4 },
        }
    }

    #[inline(always)]
    unsafe fn values<S: Lanes>(lanes: S, at: *const u8, place: Place) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { lanes.load_nibble(at, place.shift) }
    }
}

/// Widths of whole bytes differ in their size and the way they are loaded.
macro_rules! whole_bytes {
    ($codes:ident, $bits:literal, |$lanes:ident, $from:ident| $load:expr) => {
        impl Codes for $codes {
            const BITS: usize = $bits;

            #[inline(always)]
            unsafe fn keys<S: Lanes>(
                $lanes: S,
                keys: *const u8,
                pair: usize,
                token: usize,
            ) -> (S::F, S::F) {
                // SAFETY: the caller's promise; a dimension has one number per token.
                unsafe {
                    let $from = keys.add((2 * pair * TOKENS + token) * ($bits / 8));
                    let even = $load;
                    let $from = $from.add(TOKENS * ($bits / 8));
                    (even, $load)
                }
            }

            #[inline(always)]
            fn place(vector: usize, _head_dim: usize) -> Place {
                Place { offset: vector * 16 * ($bits / 8), shift: 0 }
            }

            #[inline(always)]
            unsafe fn values<S: Lanes>($lanes: S, $from: *const u8, _place: Place) -> S::F {
                // SAFETY: the caller's promise.
                unsafe { $load }
            }
        }
    };
}

whole_bytes!(Eight, 8, |lanes, from| lanes.load_u8(from));
whole_bytes!(Sixteen, 16, |lanes, from| lanes.load_f16(from));
whole_bytes!(ThirtyTwo, 32, |lanes, from| lanes.load(from.cast()));
