//! Sixteen f32 lanes, written once per instruction set: kernels over them are written once.
//!
//! A kernel is generic over [`Lanes`], so its vector versions do the operations of the scalar one,
//! in the same order, by construction. What is left to compare is each operation here, and every
//! one is exactly rounded, or exact.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use crate::isa::{Isa, Level};

/// Lanes of a vector, on every instruction set.
pub(crate) const LANES: usize = 16;

/// Code generic over the instruction set. `run` must be `#[inline(always)]`, as all it calls, or it
/// is compiled without the instructions.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Lanes>(self, lanes: S) -> Self::Output;
}

/// Runs a kernel with an instruction set.
pub(crate) fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa.level() {
        Level::Scalar => scalar::Scalar.call(kernel),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::Avx2::of(isa).call(kernel),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::Avx512::of(isa).call(kernel),
        #[cfg(not(target_arch = "x86_64"))]
        Level::Avx2 | Level::Avx512 => unreachable!("this CPU has no {isa:?}"),
    }
}

/// Sixteen f32. A value of the implementing type proves that this CPU has the instructions.
pub(crate) trait Lanes: Copy {
    type F: Copy;
    /// Sixteen i32, or as many pairs of i16.
    type I: Copy;

    /// Vectors of 16 that fit the registers at once, as sums and operands.
    const REGISTERS: usize;

    /// Runs a kernel as a function of its own, compiled with these instructions.
    fn call<K: Kernel>(self, kernel: K) -> K::Output;

    fn splat(self, x: f32) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a` where `a > b`, else `b`; so `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a` where `a < b`, else `b`; so `b` where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `y * 2^n`, rounded once, for integral `n` from -152 to 128 and `y` from 0.5 to 2.
    fn scale(self, y: Self::F, n: Self::F) -> Self::F;
    /// `a` where `x < y`, else `b`.
    fn select_less(self, x: Self::F, y: Self::F, a: Self::F, b: Self::F) -> Self::F;
    /// `a` in the lanes from `from` up to `to`, `b` in the others.
    fn select_lanes(self, from: usize, to: usize, a: Self::F, b: Self::F) -> Self::F;
    /// Lane `i ^ DISTANCE` in lane `i`; the distance is 1, 2, 4 or 8.
    fn swap<const DISTANCE: usize>(self, a: Self::F) -> Self::F;

    /// The sum by halves: lane `i` with `i + 8`, then with `i + 4`, `i + 2`, `i + 1`.
    fn sum(self, a: Self::F) -> f32;
    /// The largest lane, by halves as [`Lanes::sum`].
    fn largest(self, a: Self::F) -> f32;
    /// The smallest lane, by halves as [`Lanes::sum`].
    fn smallest(self, a: Self::F) -> f32;

    /// # Safety
    /// Sixteen f32 can be read at `from`, of any alignment.
    unsafe fn load(self, from: *const f32) -> Self::F;
    /// # Safety
    /// Sixteen f32 can be written at `to`, of any alignment.
    unsafe fn store(self, to: *mut f32, a: Self::F);
    /// Sixteen f16.
    ///
    /// # Safety
    /// 32 bytes can be read at `from`, of any alignment.
    unsafe fn load_f16(self, from: *const u8) -> Self::F;
    /// Integral values from 0 to 255 as bytes.
    ///
    /// # Safety
    /// 16 bytes can be written at `to`.
    unsafe fn store_u8(self, to: *mut u8, a: Self::F);
    /// Rounds to f16, nearest even.
    ///
    /// # Safety
    /// 32 bytes can be written at `to`, of any alignment.
    unsafe fn store_f16(self, to: *mut u8, a: Self::F);

    /// Rounds to integers of 16 bits, nearest even; of what is none of them, whatever.
    ///
    /// # Safety
    /// 32 bytes can be written at `to`.
    unsafe fn store_i16(self, to: *mut i16, a: Self::F);

    /// Nothing in all lanes.
    fn no_sum(self) -> Self::I;
    /// The products of pairs with the two i16 at `factors`, added to each lane's sum. No sum may
    /// overflow. The factors are in memory, as a register for them would be one sum less.
    ///
    /// # Safety
    /// Two i16 can be read at `factors`, of any alignment.
    unsafe fn add_products(self, a: Self::I, factors: *const i16, sum: Self::I) -> Self::I;
    /// To f32, nearest even.
    fn to_float(self, a: Self::I) -> Self::F;
    /// A byte of `a` and one of `b` in each lane.
    ///
    /// # Safety
    /// 16 bytes can be read at each.
    unsafe fn pair_bytes(self, a: *const u8, b: *const u8) -> Self::I;
    /// The low and the high half of a byte in each lane.
    ///
    /// # Safety
    /// 16 bytes can be read at `from`.
    unsafe fn pair_halves(self, from: *const u8) -> Self::I;
    /// Of a byte of `a` and one of `b` the four bits from bit `shift` (0 or 4) on.
    ///
    /// # Safety
    /// 16 bytes can be read at each.
    unsafe fn pair_nibbles(self, a: *const u8, b: *const u8, shift: u32) -> Self::I;

    /// Asks for the cache line at `at`, any address.
    #[inline(always)]
    fn prefetch(self, _at: *const u8) {}

    #[inline(always)]
    fn of(self, x: &[f32; LANES]) -> Self::F {
        // SAFETY: the array has sixteen f32.
        unsafe { self.load(x.as_ptr()) }
    }

    #[inline(always)]
    fn to_array(self, a: Self::F) -> [f32; LANES] {
        let mut x = [0.0; LANES];
        // SAFETY: the array has room for sixteen f32.
        unsafe { self.store(x.as_mut_ptr(), a) };
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each operation on vectors that hold the numbers where rounding goes wrong.
    struct Everything<'a> {
        x: &'a [f32; LANES],
        y: &'a [f32; LANES],
        bytes: &'a [u8; 64],
    }

    impl Kernel for Everything<'_> {
        type Output = Vec<u32>;

        #[inline(always)]
        fn run<S: Lanes>(self, lanes: S) -> Vec<u32> {
            let x = lanes.of(self.x);
            let y = lanes.of(self.y);
            let bytes = self.bytes.as_ptr();
            let half = lanes.splat(0.5);
            let n = lanes.round(lanes.max(lanes.min(x, lanes.splat(128.0)), lanes.splat(-151.0)));
            // SAFETY: 64 bytes are there.
            let (pairs, halves_of_bytes, low, high, halves) = unsafe {
                let pairs = lanes.pair_bytes(bytes.add(1), bytes.add(20));
                let low = lanes.pair_nibbles(bytes.add(9), bytes.add(30), 0);
                let high = lanes.pair_nibbles(bytes.add(9), bytes.add(30), 4);
                (pairs, lanes.pair_halves(bytes), low, high, lanes.load_f16(bytes))
            };
            // SAFETY: 4 bytes are there.
            let sums = unsafe {
                let sums = lanes.add_products(pairs, bytes.add(40).cast(), lanes.no_sum());
                lanes.add_products(low, bytes.add(51).cast(), sums)
            };
            let integers = lanes.min(lanes.max(x, lanes.splat(-32767.0)), lanes.splat(32767.0));
            let mut stored = [0_u8; 48];
            let mut words = [0_i16; LANES];
            // SAFETY: 16, 32 and 32 bytes are there.
            unsafe {
                lanes.store_u8(
                    stored.as_mut_ptr(),
                    lanes.round(lanes.select_less(
                        lanes.mul(x, x),
                        lanes.splat(255.0),
                        lanes.mul(x, x),
                        half,
                    )),
                );
                lanes.store_f16(stored.as_mut_ptr().add(16), x);
                lanes.store_i16(words.as_mut_ptr(), integers);
            }
            let vectors = [
                lanes.add(x, y),
                lanes.sub(x, y),
                lanes.mul(x, y),
                lanes.fma(x, y, half),
                lanes.max(x, y),
                lanes.min(x, y),
                lanes.round(x),
                lanes.scale(lanes.splat(1.37), n),
                lanes.select_less(x, y, half, x),
                lanes.select_lanes(3, 11, x, y),
                lanes.select_lanes(0, 16, x, y),
                lanes.swap::<1>(x),
                lanes.swap::<2>(x),
                lanes.swap::<4>(x),
                lanes.swap::<8>(x),
                lanes.div(x, lanes.fma(y, y, half)),
                lanes.to_float(pairs),
                lanes.to_float(halves_of_bytes),
                lanes.to_float(low),
                lanes.to_float(high),
                lanes.to_float(sums),
                halves,
            ];
            let mut all: Vec<u32> = Vec::new();
            for vector in vectors {
                all.extend(lanes.to_array(vector).map(f32::to_bits));
            }
            all.extend([lanes.sum(x), lanes.largest(x), lanes.smallest(x)].map(f32::to_bits));
            all.extend(stored.map(u32::from));
            all.extend(words.map(|word| word as u32));
            all
        }
    }

    #[test]
    fn every_operation_is_the_same_on_every_instruction_set() {
        let mut state = 7_u64;
        let mut random = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u32
        };
        let special =
            [0.0, -0.0, 0.5, 1.5, -2.5, 65504.0, 65520.0, 6e-8, 1e-40, -1e-30, 254.5, 3.4e38];
        for _ in 0..2000 {
            let mut number = || match random() % 4 {
                0 => special[random() as usize % special.len()],
                1 => f32::from_bits((random() << 2) & 0xbfff_ffff),
                _ => random() as f32 / 1e9 - 1.0,
            };
            let x: [f32; LANES] = std::array::from_fn(|_| number());
            let y: [f32; LANES] = std::array::from_fn(|_| number());
            // No NaN among the halves: instruction sets may differ in its payload.
            let bytes: [u8; 64] =
                std::array::from_fn(|i| random() as u8 & if i % 2 == 1 { 0xbf } else { 0xff });
            let all = |isa| run(isa, Everything { x: &x, y: &y, bytes: &bytes });
            for &isa in Isa::available() {
                let same = |a: &u32, b: &u32| {
                    a == b || (f32::from_bits(*a).is_nan() && f32::from_bits(*b).is_nan())
                };
                let (ours, scalar) = (all(isa), all(Isa::SCALAR));
                let first = ours.iter().zip(&scalar).position(|(a, b)| !same(a, b));
                assert_eq!(
                    first.map(|i| (i / 16, ours[i], scalar[i])),
                    None,
                    "{isa:?} {x:?} {y:?}"
                );
            }
        }
    }
}
