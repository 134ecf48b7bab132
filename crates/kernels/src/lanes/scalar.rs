//! Sixteen lanes in plain Rust: what every operation means.

use half::f16;

use super::{Kernel, LANES, Lanes};

#[derive(Clone, Copy)]
pub(super) struct Scalar;

#[inline(always)]
fn each(f: impl FnMut(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

/// Combines lane `i` with `i + 8`, then with `i + 4`, `i + 2`, `i + 1`.
#[inline(always)]
fn by_halves(mut a: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            a[i] = f(a[i], a[i + half]);
        }
    }
    a[0]
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// `2^n` for integral `n` from -126 to 127.
#[inline(always)]
fn power(n: f32) -> f32 {
    f32::from_bits(((n as i32 + 127) as u32) << 23)
}

impl Lanes for Scalar {
    type F = [f32; LANES];
    type I = [i32; LANES];

    const REGISTERS: usize = 8;

    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| larger(a[i], b[i]))
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| smaller(a[i], b[i]))
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        each(|i| a[i].round_ties_even())
    }

    #[inline(always)]
    fn scale(self, y: Self::F, n: Self::F) -> Self::F {
        // In two steps, as 2^n alone may be no f32. The first is exact, so there is one rounding.
        each(|i| {
            let first = (n[i] * 0.5).round_ties_even();
            y[i] * power(first) * power(n[i] - first)
        })
    }

    #[inline(always)]
    fn select_less(self, x: Self::F, y: Self::F, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if x[i] < y[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn select_lanes(self, from: usize, to: usize, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if (from..to).contains(&i) { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn swap<const DISTANCE: usize>(self, a: Self::F) -> Self::F {
        each(|i| a[i ^ DISTANCE])
    }

    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        by_halves(a, |a, b| a + b)
    }

    #[inline(always)]
    fn largest(self, a: Self::F) -> f32 {
        by_halves(a, larger)
    }

    #[inline(always)]
    fn smallest(self, a: Self::F) -> f32 {
        by_halves(a, smaller)
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: the caller's promise; an array of f32 is sixteen f32 in a row.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, a: Self::F) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(a) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u8) -> Self::F {
        // SAFETY: the caller's promise.
        let bytes = unsafe { from.cast::<[[u8; 2]; LANES]>().read() };
        each(|i| f16::from_le_bytes(bytes[i]).to_f32())
    }

    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8, a: Self::F) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u8; LANES]>().write(a.map(|x| x as u8)) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u8, a: Self::F) {
        let bytes = a.map(|x| f16::from_f32(x).to_le_bytes());
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[[u8; 2]; LANES]>().write(bytes) }
    }

    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, a: Self::F) {
        // SAFETY: the caller's promise.
        unsafe {
            to.cast::<[i16; LANES]>().write_unaligned(a.map(|x| x.round_ties_even() as i16));
        }
    }

    #[inline(always)]
    fn no_sum(self) -> Self::I {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn add_products(self, a: Self::I, factors: *const i16, sum: Self::I) -> Self::I {
        // SAFETY: the caller's promise.
        let [x, y] = unsafe { factors.cast::<[i16; 2]>().read_unaligned() }.map(i32::from);
        std::array::from_fn(|i| {
            let (even, odd) = (i32::from(a[i] as i16), a[i] >> 16);
            sum[i].wrapping_add(even * x).wrapping_add(odd * y)
        })
    }

    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        a.map(|a| a as f32)
    }

    #[inline(always)]
    unsafe fn pair_bytes(self, a: *const u8, b: *const u8) -> Self::I {
        // SAFETY: the caller's promise.
        let (a, b) = unsafe { (a.cast::<[u8; LANES]>().read(), b.cast::<[u8; LANES]>().read()) };
        std::array::from_fn(|i| i32::from(a[i]) | i32::from(b[i]) << 16)
    }

    #[inline(always)]
    unsafe fn pair_halves(self, from: *const u8) -> Self::I {
        // SAFETY: the caller's promise.
        let bytes = unsafe { from.cast::<[u8; LANES]>().read() };
        bytes.map(|byte| i32::from(byte & 15) | i32::from(byte >> 4) << 16)
    }

    #[inline(always)]
    unsafe fn pair_nibbles(self, a: *const u8, b: *const u8, shift: u32) -> Self::I {
        // SAFETY: the caller's promise.
        let pairs = unsafe { self.pair_bytes(a, b) };
        pairs.map(|pair| (pair >> shift) & 0x000f_000f)
    }
}
