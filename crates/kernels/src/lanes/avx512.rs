//! Sixteen lanes as one AVX-512 register.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Kernel, Lanes, avx2};
use crate::isa::{Isa, Level};

/// Proves that this CPU has AVX-512 F, BW, DQ, VL and VNNI, and AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn of(isa: Isa) -> Avx512 {
        // An `Isa` of this level exists only where the CPU has it.
        assert_eq!(isa.level(), Level::Avx512);
        Avx512(())
    }
}

/// # Safety
/// The CPU has the features below; a value of [`Avx512`] proves it.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline(never)]
unsafe fn call<K: Kernel>(lanes: Avx512, kernel: K) -> K::Output {
    kernel.run(lanes)
}

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

impl Lanes for Avx512 {
    type F = __m512;
    type I = __m512i;

    const REGISTERS: usize = 28;

    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { call(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { _mm512_roundscale_ps::<NEAREST>(a) }
    }

    #[inline(always)]
    fn scale(self, y: Self::F, n: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { _mm512_scalef_ps(y, n) }
    }

    #[inline(always)]
    fn select_less(self, x: Self::F, y: Self::F, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe {
            let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, y);
            _mm512_mask_blend_ps(less, b, a)
        }
    }

    #[inline(always)]
    fn select_lanes(self, from: usize, to: usize, a: Self::F, b: Self::F) -> Self::F {
        let below = |end: usize| (1_u32 << end.min(16)) - 1;
        let inside = (below(to) & !below(from)) as __mmask16;
        // SAFETY: `self` proves that the CPU has it.
        unsafe { _mm512_mask_blend_ps(inside, b, a) }
    }

    #[inline(always)]
    fn swap<const DISTANCE: usize>(self, a: Self::F) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe {
            match DISTANCE {
                1 => _mm512_permute_ps::<0xb1>(a),
                2 => _mm512_permute_ps::<0x4e>(a),
                4 => _mm512_shuffle_f32x4::<0xb1>(a, a),
                8 => _mm512_shuffle_f32x4::<0x4e>(a, a),
                _ => unreachable!("lanes {DISTANCE} apart"),
            }
        }
    }

    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        // SAFETY: `self` proves that the CPU has it.
        unsafe {
            let (low, high) = (_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            avx2::sum_of_eight(_mm256_add_ps(low, high))
        }
    }

    #[inline(always)]
    fn largest(self, a: Self::F) -> f32 {
        // SAFETY: `self` proves that the CPU has it.
        unsafe {
            let (low, high) = (_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            avx2::largest_of_eight(_mm256_max_ps(low, high))
        }
    }

    #[inline(always)]
    fn smallest(self, a: Self::F) -> f32 {
        // SAFETY: `self` proves that the CPU has it.
        unsafe {
            let (low, high) = (_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            avx2::smallest_of_eight(_mm256_min_ps(low, high))
        }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, a: Self::F) {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe { _mm512_storeu_ps(to, a) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u8) -> Self::F {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8, a: Self::F) {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a))) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u8, a: Self::F) {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<NEAREST>(a)) }
    }

    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, a: Self::F) {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(a))) }
    }

    #[inline(always)]
    fn no_sum(self) -> Self::I {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn add_products(self, a: Self::I, factors: *const i16, sum: Self::I) -> Self::I {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe { add_products(a, factors, sum) }
    }

    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        // SAFETY: `self` proves that the CPU has it.
        unsafe { _mm512_cvtepi32_ps(a) }
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
            paired(avx2::nibbles(bytes, 0), avx2::nibbles(bytes, 4))
        }
    }

    #[inline(always)]
    unsafe fn pair_nibbles(self, a: *const u8, b: *const u8, shift: u32) -> Self::I {
        // SAFETY: `self` proves that the CPU has it; the memory is the caller's promise.
        unsafe {
            let (a, b) = (_mm_loadu_si128(a.cast()), _mm_loadu_si128(b.cast()));
            paired(avx2::nibbles(a, shift), avx2::nibbles(b, shift))
        }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch of any address has no effect but on the cache.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

/// Written by hand: compilers load the factors of a whole tile at once and then lack registers for
/// its sums.
///
/// # Safety
/// The CPU has the features below, and two i16 can be read at `factors`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn add_products(a: __m512i, factors: *const i16, mut sum: __m512i) -> __m512i {
    // SAFETY: the caller's promise; it reads what is there and writes a register.
    unsafe {
        asm!(
            "vpdpwssd {sum}, {a}, dword ptr [{factors}]{{1to16}}",
            sum = inout(zmm_reg) sum,
            a = in(zmm_reg) a,
            factors = in(reg) factors,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    sum
}

/// A byte of `a` and one of `b` in each lane, as i16.
///
/// # Safety
/// The CPU has what [`Avx512`] proves.
#[inline(always)]
unsafe fn paired(a: __m128i, b: __m128i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, high) = (_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b));
        _mm512_cvtepu8_epi16(_mm256_set_m128i(high, low))
    }
}
