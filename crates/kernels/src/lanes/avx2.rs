//! Sixteen lanes as two AVX2 registers.

use std::arch::x86_64::*;

use super::{Kernel, Lanes};
use crate::isa::{Isa, Level};

/// Proves that this CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn of(isa: Isa) -> Avx2 {
        // An `Isa` of this level exists only where the CPU has it.
        assert_eq!(isa.level(), Level::Avx2);
        Avx2(())
    }
}

/// # Safety
/// The CPU has the features below; a value of [`Avx2`] proves it.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline(never)]
unsafe fn call<K: Kernel>(lanes: Avx2, kernel: K) -> K::Output {
    kernel.run(lanes)
}

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

impl Lanes for Avx2 {
    type F = (__m256, __m256);
    type I = (__m256i, __m256i);

    const REGISTERS: usize = 7;

    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { call(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { (_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { (_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { (_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { (_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { (_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { (_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { (_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { (_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { (_mm256_round_ps::<NEAREST>(a.0), _mm256_round_ps::<NEAREST>(a.1)) }
    }

    #[inline(always)]
    fn scale(self, y: Self::F, n: Self::F) -> Self::F {
        // As the scalar version: two steps, the first of them exact.
        let first = self.round(self.mul(n, self.splat(0.5)));
        let second = self.sub(n, first);
        // SAFETY: `self` proves that the CPU has it.
        let (first, second) =
            unsafe { ((power(first.0), power(first.1)), (power(second.0), power(second.1))) };
        self.mul(self.mul(y, first), second)
    }

    #[inline(always)]
    fn select_less(self, x: Self::F, y: Self::F, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe {
            (
                _mm256_blendv_ps(b.0, a.0, _mm256_cmp_ps::<_CMP_LT_OQ>(x.0, y.0)),
                _mm256_blendv_ps(b.1, a.1, _mm256_cmp_ps::<_CMP_LT_OQ>(x.1, y.1)),
            )
        }
    }

    #[inline(always)]
    fn select_lanes(self, from: usize, to: usize, a: Self::F, b: Self::F) -> Self::F {
        let bit = |i: usize| if (from..to).contains(&i) { -1 } else { 0 };
        let inside: [i32; 16] = std::array::from_fn(bit);
        // SAFETY: `self` proves that the CPU has it; the array has 64 bytes.
        unsafe {
            let low = _mm256_loadu_ps(inside.as_ptr().cast());
            let high = _mm256_loadu_ps(inside.as_ptr().add(8).cast());
            (_mm256_blendv_ps(b.0, a.0, low), _mm256_blendv_ps(b.1, a.1, high))
        }
    }

    #[inline(always)]
    fn swap<const DISTANCE: usize>(self, a: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe {
            match DISTANCE {
                1 => (_mm256_permute_ps::<0xb1>(a.0), _mm256_permute_ps::<0xb1>(a.1)),
                2 => (_mm256_permute_ps::<0x4e>(a.0), _mm256_permute_ps::<0x4e>(a.1)),
                4 => (_mm256_permute2f128_ps::<1>(a.0, a.0), _mm256_permute2f128_ps::<1>(a.1, a.1)),
                8 => (a.1, a.0),
                _ => unreachable!("lanes {DISTANCE} apart"),
            }
        }
    }

    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { sum_of_eight(_mm256_add_ps(a.0, a.1)) }
    }

    #[inline(always)]
    fn largest(self, a: Self::F) -> f32 {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { largest_of_eight(_mm256_max_ps(a.0, a.1)) }
    }

    #[inline(always)]
    fn smallest(self, a: Self::F) -> f32 {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { smallest_of_eight(_mm256_min_ps(a.0, a.1)) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe { (_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, a: Self::F) {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe {
            _mm256_storeu_ps(to, a.0);
            _mm256_storeu_ps(to.add(8), a.1);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u8) -> Self::F {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe {
            let low = _mm_loadu_si128(from.cast());
            let high = _mm_loadu_si128(from.add(16).cast());
            (_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8, a: Self::F) {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe {
            let (low, high) = (_mm256_cvtps_epi32(a.0), _mm256_cvtps_epi32(a.1));
            let low =
                _mm_packs_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
            let high =
                _mm_packs_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256::<1>(high));
            _mm_storeu_si128(to.cast(), _mm_packus_epi16(low, high));
        }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u8, a: Self::F) {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe {
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a.0));
            _mm_storeu_si128(to.add(16).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a.1));
        }
    }

    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, a: Self::F) {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe {
            let packed = _mm256_packs_epi32(_mm256_cvtps_epi32(a.0), _mm256_cvtps_epi32(a.1));
            // The halves of the two are interleaved.
            _mm256_storeu_si256(to.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }

    #[inline(always)]
    fn no_sum(self) -> Self::I {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { (_mm256_setzero_si256(), _mm256_setzero_si256()) }
    }

    #[inline(always)]
    unsafe fn add_products(self, a: Self::I, factors: *const i16, sum: Self::I) -> Self::I {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe {
            let factors = _mm256_set1_epi32(factors.cast::<i32>().read_unaligned());
            (
                _mm256_add_epi32(sum.0, _mm256_madd_epi16(a.0, factors)),
                _mm256_add_epi32(sum.1, _mm256_madd_epi16(a.1, factors)),
            )
        }
    }

    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { (_mm256_cvtepi32_ps(a.0), _mm256_cvtepi32_ps(a.1)) }
    }

    #[inline(always)]
    unsafe fn pair_bytes(self, a: *const u8, b: *const u8) -> Self::I {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe { paired(_mm_loadu_si128(a.cast()), _mm_loadu_si128(b.cast())) }
    }

    #[inline(always)]
    unsafe fn pair_halves(self, from: *const u8) -> Self::I {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe {
            let bytes = _mm_loadu_si128(from.cast());
            paired(nibbles(bytes, 0), nibbles(bytes, 4))
        }
    }

    #[inline(always)]
    unsafe fn pair_nibbles(self, a: *const u8, b: *const u8, shift: u32) -> Self::I {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe {
            let (a, b) = (_mm_loadu_si128(a.cast()), _mm_loadu_si128(b.cast()));
            paired(nibbles(a, shift), nibbles(b, shift))
        }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch of any address has no effect but on the cache.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn sum_of_eight(a: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn largest_of_eight(a: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn smallest_of_eight(a: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let a = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_min_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_min_ss(a, _mm_movehdup_ps(a)))
    }
}

/// `2^n` for integral `n` from -126 to 127.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn power(n: __m256) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
    }
}

/// Four bits of each byte, those from bit `shift` (0 or 4) on.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn nibbles(bytes: __m128i, shift: u32) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe {
        // What comes from the byte above is masked away.
        let shifted = _mm_srl_epi16(bytes, _mm_cvtsi32_si128(shift as i32));
        _mm_and_si128(shifted, _mm_set1_epi8(15))
    }
}

/// A byte of `a` and one of `b` in each lane, as i16.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn paired(a: __m128i, b: __m128i) -> (__m256i, __m256i) {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, high) = (_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b));
        (_mm256_cvtepu8_epi16(low), _mm256_cvtepu8_epi16(high))
    }
}
