//! The small kernels between the matrices: each works on one row, whose result depends on it alone.

use crate::isa::Isa;
use crate::lanes::{self, Kernel, LANES, Lanes};
use crate::math;

/// `x / sqrt(mean(x^2) + epsilon) * weight`. The squares are summed in 16 lanes (index mod 16),
/// then by halves.
pub fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert_eq!(weight.len(), x.len());
    assert_eq!(out.len(), x.len());
    lanes::run(isa, RmsNorm { x, weight, epsilon, out });
}

/// `out = silu(gate) * up`
pub fn swiglu(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert_eq!(up.len(), gate.len());
    assert_eq!(out.len(), gate.len());
    lanes::run(isa, Gated { gate, up, out, activation: Activation::Silu });
}

/// `out = gelu(gate) * up`, with GELU's tanh approximation.
pub fn geglu_tanh(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert_eq!(up.len(), gate.len());
    assert_eq!(out.len(), gate.len());
    lanes::run(isa, Gated { gate, up, out, activation: Activation::GeluTanh });
}

/// `x += y`
pub fn add(isa: Isa, x: &mut [f32], y: &[f32]) {
    assert_eq!(y.len(), x.len());
    lanes::run(isa, Add { x, y });
}

/// The cosine and sine of each angle at a position. `frequencies` are reciprocal, as MLX takes them:
/// `theta^(2i / head_dim)`, and the angle is `position / frequency`, in f64.
pub fn rope_angles(position: f64, frequencies: &[f32], cos: &mut [f32], sin: &mut [f32]) {
    assert_eq!(cos.len(), frequencies.len());
    assert_eq!(sin.len(), frequencies.len());
    for ((frequency, cos), sin) in frequencies.iter().zip(cos).zip(sin) {
        let angle = position / f64::from(*frequency);
        *cos = angle.cos() as f32;
        *sin = angle.sin() as f32;
    }
}

/// Rotates the pairs `(x[i], x[i + n])` of a head, `n` being the number of angles (Su et al., 2021,
/// in the split-halves form). Values from `2n` on stay as they are.
pub fn rope(isa: Isa, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert_eq!(sin.len(), cos.len());
    assert!(cos.len() * 2 <= x.len());
    lanes::run(isa, Rope { x, cos, sin });
}

/// The orthonormal Hadamard transform, in place; its own inverse. The length is a power of two.
/// Sums and differences of values 1 apart, then 2, 4 and so on; at the end all times `1 / sqrt(len)`.
pub fn hadamard(isa: Isa, x: &mut [f32]) {
    assert!(x.len().is_power_of_two(), "a Hadamard transform of {}", x.len());
    lanes::run(isa, Hadamard { x });
}

struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
    out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, lanes: S) {
        let mut squares = lanes.splat(0.0);
        for range in vectors(self.x.len()) {
            let x = load(lanes, &self.x[range]);
            squares = lanes.fma(x, x, squares);
        }
        let mean = lanes.sum(squares) / self.x.len() as f32;
        let factor = lanes.splat(1.0 / (mean + self.epsilon).sqrt());
        for range in vectors(self.x.len()) {
            let x = load(lanes, &self.x[range.clone()]);
            let weight = load(lanes, &self.weight[range.clone()]);
            store(lanes, &mut self.out[range], lanes.mul(lanes.mul(x, factor), weight));
        }
    }
}

#[derive(Clone, Copy)]
enum Activation {
    Silu,
    GeluTanh,
}

struct Gated<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
    activation: Activation,
}

impl Kernel for Gated<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, lanes: S) {
        for range in vectors(self.gate.len()) {
            let gate = load(lanes, &self.gate[range.clone()]);
            let up = load(lanes, &self.up[range.clone()]);
            let activated = match self.activation {
                Activation::Silu => math::silu(lanes, gate),
                Activation::GeluTanh => math::gelu_tanh(lanes, gate),
            };
            store(lanes, &mut self.out[range], lanes.mul(activated, up));
        }
    }
}

struct Add<'a> {
    x: &'a mut [f32],
    y: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, _lanes: S) {
        // One rounding each, whatever the compiler makes of it.
        for (x, y) in self.x.iter_mut().zip(self.y) {
            *x += y;
        }
    }
}

struct Rope<'a> {
    x: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Kernel for Rope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, _lanes: S) {
        // Rust neither contracts nor reorders, so plain code is the same on every instruction set.
        let (first, second) = self.x.split_at_mut(self.cos.len());
        let angles = self.cos.iter().zip(self.sin);
        for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}

struct Hadamard<'a> {
    x: &'a mut [f32],
}

impl Kernel for Hadamard<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, lanes: S) {
        let factor = 1.0 / (self.x.len() as f32).sqrt();
        // Vectors, or less than one.
        let (vectors, few) = self.x.as_chunks_mut::<LANES>();
        let mut half = 1;
        while half < few.len() {
            for pair in few.chunks_exact_mut(2 * half) {
                let (first, second) = pair.split_at_mut(half);
                for (a, b) in first.iter_mut().zip(second) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        for x in few {
            *x *= factor;
        }
        for vector in vectors.iter_mut() {
            let x = lanes.of(vector);
            let x = butterfly::<S, 1>(lanes, x);
            let x = butterfly::<S, 2>(lanes, x);
            let x = butterfly::<S, 4>(lanes, x);
            *vector = lanes.to_array(butterfly::<S, 8>(lanes, x));
        }
        let mut half = 1;
        while half < vectors.len() {
            for pair in vectors.chunks_exact_mut(2 * half) {
                let (first, second) = pair.split_at_mut(half);
                for (first, second) in first.iter_mut().zip(second) {
                    let (a, b) = (lanes.of(first), lanes.of(second));
                    *first = lanes.to_array(lanes.add(a, b));
                    *second = lanes.to_array(lanes.sub(a, b));
                }
            }
            half *= 2;
        }
        let factor = lanes.splat(factor);
        for vector in vectors {
            *vector = lanes.to_array(lanes.mul(lanes.of(vector), factor));
        }
    }
}

/// The sums of lanes that are so far apart, and in the second of the two their difference.
#[inline(always)]
fn butterfly<S: Lanes, const DISTANCE: usize>(lanes: S, x: S::F) -> S::F {
    // A product with 1 or -1 is exact, so that there is one rounding.
    let signs = const { signs(DISTANCE) };
    lanes.add(lanes.swap::<DISTANCE>(x), lanes.mul(x, lanes.of(&signs)))
}

const fn signs(distance: usize) -> [f32; LANES] {
    let mut signs = [1.0; LANES];
    let mut lane = 0;
    while lane < LANES {
        if lane & distance != 0 {
            signs[lane] = -1.0;
        }
        lane += 1;
    }
    signs
}

/// The ranges of a row that make up its vectors; the last one may be short. An iterator, because a
/// closure around the arithmetic would be compiled without the lanes' instructions.
#[inline(always)]
fn vectors(len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..len).step_by(LANES).map(move |start| start..len.min(start + LANES))
}

/// Up to 16 values, the others 0.
#[inline(always)]
fn load<S: Lanes>(lanes: S, x: &[f32]) -> S::F {
    match x.first_chunk() {
        Some(x) => lanes.of(x),
        None => {
            let mut padded = [0.0; LANES];
            padded[..x.len()].copy_from_slice(x);
            lanes.of(&padded)
        }
    }
}

#[inline(always)]
fn store<S: Lanes>(lanes: S, to: &mut [f32], a: S::F) {
    let values = lanes.to_array(a);
    match to.first_chunk_mut() {
        Some(to) => *to = values,
        None => to.copy_from_slice(&values[..to.len()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same(a: &[f32], b: &[f32]) -> bool {
        a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()))
    }

    /// What `f` writes on each instruction set, which must be the same; that result.
    fn on_all(len: usize, f: impl Fn(Isa, &mut [f32])) -> Vec<f32> {
        let mut scalar = vec![0.0; len];
        f(Isa::SCALAR, &mut scalar);
        for &isa in Isa::available() {
            let mut out = vec![0.0; len];
            f(isa, &mut out);
            assert!(same(&out, &scalar), "{isa:?}: {out:?} {scalar:?}");
        }
        scalar
    }

    fn close(ours: f32, exact: f64, size: f64) -> bool {
        (f64::from(ours) - exact).abs() <= 1e-6 * size
    }

    fn plain_hadamard(x: &[f32]) -> Vec<f32> {
        let mut x = x.to_vec();
        for stage in 0..x.len().ilog2() {
            let half = 1 << stage;
            for i in (0..x.len()).filter(|i| i & half == 0) {
                (x[i], x[i + half]) = (x[i] + x[i + half], x[i] - x[i + half]);
            }
        }
        let factor = 1.0 / (x.len() as f32).sqrt();
        x.iter().map(|x| x * factor).collect()
    }

    fn row(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(-20.0_f32..20.0, len)
    }

    proptest! {
        #[test]
        fn rows_are_the_same_on_every_instruction_set_and_right(x in row(1..200), shift in 0.1_f32..3.0) {
            let y: Vec<f32> = x.iter().rev().map(|x| x * shift - 1.0).collect();
            let n = x.len();

            let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
            let out = on_all(n, |isa, out| rms_norm(isa, &x, &y, 1e-5, out));
            for i in 0..n {
                let exact = f64::from(x[i]) / (mean + 1e-5).sqrt() * f64::from(y[i]);
                prop_assert!(close(out[i], exact, exact.abs() + 1e-6));
            }

            let out = on_all(n, |isa, out| swiglu(isa, &x, &y, out));
            for i in 0..n {
                let (gate, up) = (f64::from(x[i]), f64::from(y[i]));
                let exact = gate / (1.0 + (-gate).exp()) * up;
                prop_assert!(close(out[i], exact, exact.abs() + 1e-6));
            }

            let out = on_all(n, |isa, out| geglu_tanh(isa, &x, &y, out));
            for i in 0..n {
                let (gate, up) = (f64::from(x[i]), f64::from(y[i]));
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044715 * gate.powi(3));
                let exact = 0.5 * gate * (1.0 + inner.tanh()) * up;
                // 1 + tanh loses what the two cancel.
                prop_assert!(close(out[i], exact, (gate * up).abs() + 1e-6));
            }

            let out = on_all(n, |isa, out| {
                out.copy_from_slice(&x);
                add(isa, out, &y);
            });
            prop_assert!(out.iter().zip(x.iter().zip(&y)).all(|(sum, (x, y))| *sum == x + y));
        }

        #[test]
        fn rope_turns_and_keeps_lengths(x in row(64..65), position in 0_u32..100_000) {
            let frequencies: Vec<f32> = (0..32).map(|i| 1e5_f32.powf(i as f32 / 32.0)).collect();
            let (mut cos, mut sin) = ([0.0; 32], [0.0; 32]);
            rope_angles(f64::from(position), &frequencies, &mut cos, &mut sin);
            let out = on_all(64, |isa, out| {
                out.copy_from_slice(&x);
                rope(isa, out, &cos, &sin);
            });
            for i in 0..32 {
                let angle = f64::from(position) / f64::from(frequencies[i]);
                let (a, b) = (f64::from(x[i]), f64::from(x[i + 32]));
                prop_assert!(close(out[i], a * angle.cos() - b * angle.sin(), 40.0));
                prop_assert!(close(out[i + 32], b * angle.cos() + a * angle.sin(), 40.0));
            }
        }

        #[test]
        fn hadamard_is_its_own_inverse(x in row(1024..1025), log in 0_u32..11) {
            let x = &x[..1 << log];
            let once = on_all(x.len(), |isa, out| {
                out.copy_from_slice(x);
                hadamard(isa, out);
            });
            prop_assert!(same(&once, &plain_hadamard(x)));
            let entry = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
            for (i, &ours) in once.iter().enumerate() {
                let sum: f64 = x.iter().enumerate().map(|(j, &x)| f64::from(x) * entry(i, j)).sum();
                prop_assert!(close(ours, sum / (x.len() as f64).sqrt(), 800.0));
            }
            let mut twice = once;
            hadamard(Isa::best(), &mut twice);
            prop_assert!(twice.iter().zip(x).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }
}
