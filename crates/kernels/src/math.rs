//! exp, tanh and what is made of them, from exactly rounded operations only.

use crate::lanes::Lanes;

const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `e^x`, within 2 units in the last place; 0 below -105, infinity above 89.
///
/// Coefficients of Cephes' `expf` (Moshier).
#[inline(always)]
pub(crate) fn exp<S: Lanes>(lanes: S, x: S::F) -> S::F {
    let c = |value: f32| lanes.splat(value);
    let x = lanes.min(c(89.0), lanes.max(c(-105.0), x));
    let n = lanes.round(lanes.mul(x, c(std::f32::consts::LOG2_E)));
    let r = lanes.fma(n, c(-LN2_HIGH), x);
    let r = lanes.fma(n, c(-LN2_LOW), r);
    let mut p = c(1.987_569_1e-4);
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = lanes.fma(p, r, c(coefficient));
    }
    let y = lanes.add(lanes.fma(p, lanes.mul(r, r), r), c(1.0));
    lanes.scale(y, n)
}

/// `2^x` for `x` up to 0, within 2 units in the last place; 0 below -150.
///
/// Coefficients of Cephes' `exp2f` (Moshier).
#[inline(always)]
pub(crate) fn exp2<S: Lanes>(lanes: S, x: S::F) -> S::F {
    let c = |value: f32| lanes.splat(value);
    let x = lanes.max(c(-151.0), x);
    let n = lanes.round(x);
    let r = lanes.sub(x, n);
    let mut p = c(1.535_336_2e-4);
    for coefficient in [1.339_887_5e-3, 9.618_437e-3, 5.550_332_6e-2, 2.402_264_7e-1, 6.931_472e-1]
    {
        p = lanes.fma(p, r, c(coefficient));
    }
    lanes.scale(lanes.fma(p, r, c(1.0)), n)
}

/// `tanh(x)`, within 3 units in the last place. Coefficients of Cephes' `tanhf`.
#[inline(always)]
pub(crate) fn tanh<S: Lanes>(lanes: S, x: S::F) -> S::F {
    let c = |value: f32| lanes.splat(value);
    let negative = lanes.sub(c(0.0), x);
    let size = lanes.max(x, negative);

    let e = exp(lanes, lanes.add(size, size));
    let large = lanes.sub(c(1.0), lanes.div(c(2.0), lanes.add(e, c(1.0))));
    let large = lanes.select_less(x, c(0.0), lanes.sub(c(0.0), large), large);

    let square = lanes.mul(x, x);
    let mut p = c(-5.704_988_6e-3);
    for coefficient in [2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_3e-1, -3.333_328e-1] {
        p = lanes.fma(p, square, c(coefficient));
    }
    let small = lanes.fma(lanes.mul(p, square), x, x);
    lanes.select_less(size, c(0.625), small, large)
}

/// `x / (1 + e^-x)`
#[inline(always)]
pub(crate) fn silu<S: Lanes>(lanes: S, x: S::F) -> S::F {
    let e = exp(lanes, lanes.sub(lanes.splat(0.0), x));
    lanes.div(x, lanes.add(lanes.splat(1.0), e))
}

/// The tanh approximation of GELU (Hendrycks and Gimpel, 2016), as Gemma uses it.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Lanes>(lanes: S, x: S::F) -> S::F {
    const ROOT_2_OVER_PI: f32 = 0.797_884_6;
    let cube = lanes.mul(lanes.mul(x, x), x);
    let inner = lanes.fma(lanes.splat(0.044_715), cube, x);
    let t = tanh(lanes, lanes.mul(lanes.splat(ROOT_2_OVER_PI), inner));
    let half = lanes.mul(lanes.splat(0.5), x);
    lanes.fma(half, t, half)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::lanes::{self, Kernel, LANES};

    struct Both([f32; LANES]);

    impl Kernel for Both {
        type Output = [[f32; LANES]; 2];

        #[inline(always)]
        fn run<S: Lanes>(self, lanes: S) -> Self::Output {
            let x = lanes.of(&self.0);
            [lanes.to_array(exp(lanes, x)), lanes.to_array(tanh(lanes, x))]
        }
    }

    fn ulps(ours: f32, exact: f64) -> f64 {
        let rounded = exact as f32;
        let ulp = f64::from(f32::from_bits(rounded.abs().to_bits() + 1)) - f64::from(rounded.abs());
        (f64::from(ours) - exact).abs() / ulp
    }

    #[test]
    fn exp_and_tanh_are_within_a_few_units_in_the_last_place() {
        let (mut worst_exp, mut worst_tanh) = (0.0_f64, 0.0_f64);
        let mut start = -110.0_f32;
        while start < 88.6 {
            let x: [f32; LANES] = std::array::from_fn(|i| start + i as f32 * 1.3e-3);
            let all: Vec<_> =
                Isa::available().iter().map(|&isa| lanes::run(isa, Both(x))).collect();
            for other in &all {
                for (a, b) in other.iter().flatten().zip(all[0].iter().flatten()) {
                    assert_eq!(a.to_bits(), b.to_bits());
                }
            }
            for (i, &x) in x.iter().enumerate() {
                worst_exp = worst_exp.max(ulps(all[0][0][i], f64::from(x).exp()));
                worst_tanh = worst_tanh.max(ulps(all[0][1][i], f64::from(x).tanh()));
            }
            start += 16.0 * 1.3e-3;
        }
        assert!(worst_exp <= 2.0, "exp {worst_exp}");
        assert!(worst_tanh <= 3.0, "tanh {worst_tanh}");
    }

    #[test]
    fn exp_has_the_right_ends() {
        let mut x = [0.0; LANES];
        x[..6].copy_from_slice(&[f32::NEG_INFINITY, -104.5, 89.5, f32::INFINITY, -0.0, f32::NAN]);
        for &isa in Isa::available() {
            let [e, t] = lanes::run(isa, Both(x));
            assert_eq!(&e[..5], [0.0, 0.0, f32::INFINITY, f32::INFINITY, 1.0]);
            assert_eq!(&t[..5], [-1.0, -1.0, 1.0, 1.0, 0.0]);
            assert!(e[5].is_nan());
            assert!(t[5].is_nan());
        }
    }
}
