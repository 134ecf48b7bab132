//! Affine-quantised matrices in host memory: `value = scale * code + bias`.

use half::f16;

/// Codes row by row, and what they are worth.
#[derive(Clone, Debug)]
pub struct Affine {
    pub columns: usize,
    pub bits: usize,
    /// A little-endian stream of `bits`-wide codes.
    pub codes: Vec<u8>,
    pub scales: Scales,
}

/// What codes are worth, as the file has it.
#[derive(Clone, Debug)]
pub enum Scales {
    Plain(Plain),
    /// GGUF's Q4_K and Q5_K: `d` and `dmin` for 256 values, a scale and a minimum for 32. The scale
    /// is `d * scale`, the bias `-dmin * minimum`: exact in f32.
    TwoLevel {
        d: Vec<f16>,
        dmin: Vec<f16>,
        scales: Vec<u8>,
        minimums: Vec<u8>,
    },
    /// GGUF's Q6_K: `d` for 256 values, a scale for 16, and 32 is subtracted from codes. The value
    /// `d * scale * (code - 32)` is exact in f32.
    TwoLevelHalves {
        d: Vec<f16>,
        scales: Vec<i8>,
    },
}

/// MLX's own form: a scale and a bias for `group` values of a row.
#[derive(Clone, Debug)]
pub struct Plain {
    pub group: usize,
    /// `[rows, columns / group]`
    pub scales: Vec<f32>,
    /// `[rows, columns / group]`
    pub biases: Vec<f32>,
}

/// Values for which [`Scales::TwoLevel`] and [`Scales::TwoLevelHalves`] have a `d`.
pub const SUPERBLOCK: usize = 256;
/// Values for which the former has a scale.
pub const GROUP: usize = 32;
/// Values for which the latter has a scale.
pub const HALF: usize = 16;
/// What the latter subtracts from codes.
const ZERO: f32 = 32.0;

impl Affine {
    /// The values, row-major: the plain meaning of the format, for small tensors and tests.
    pub fn dequantised(&self) -> Vec<f32> {
        (0..self.codes.len() * 8 / self.bits).map(|index| self.value(index)).collect()
    }

    /// The same in MLX's form: the bits, the codes and their worth. Exact but for 6-bit codes with
    /// a scale for 16 values: those become 8-bit codes in groups of 32, off by at most half a step,
    /// 1/510 of the group's range.
    pub fn into_plain(self) -> (usize, Vec<u8>, Plain) {
        let Affine { bits, codes, scales, columns } = self;
        match scales {
            Scales::Plain(plain) => (bits, codes, plain),
            Scales::TwoLevel { d, dmin, scales, minimums } => {
                let product = |first: &[f16], second: &[u8], sign: f32| {
                    let first = first.iter().flat_map(|first| [first; SUPERBLOCK / GROUP]);
                    let pairs = first.zip(second);
                    pairs
                        .map(|(first, &second)| sign * first.to_f32() * f32::from(second))
                        .collect()
                };
                let scales = product(&d, &scales, 1.0);
                let biases = product(&dmin, &minimums, -1.0);
                (bits, codes, Plain { group: GROUP, scales, biases })
            }
            scales @ Scales::TwoLevelHalves { .. } => {
                Affine { bits, codes, scales, columns }.requantised()
            }
        }
    }

    fn requantised(&self) -> (usize, Vec<u8>, Plain) {
        let groups = self.codes.len() * 8 / self.bits / GROUP;
        let mut codes = Vec::with_capacity(groups * GROUP);
        let (mut scales, mut biases) = (Vec::with_capacity(groups), Vec::with_capacity(groups));
        for group in 0..groups {
            let values: [f32; GROUP] = std::array::from_fn(|i| self.value(group * GROUP + i));
            let minimum = values.iter().copied().fold(f32::INFINITY, f32::min);
            let maximum = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let step = (maximum - minimum) / 255.0;
            codes.extend(values.map(|value| match step {
                // All values are equal: the bias says it all.
                0.0 => 0,
                _ => ((value - minimum) / step).round() as u8,
            }));
            scales.push(step);
            biases.push(minimum);
        }
        (8, codes, Plain { group: GROUP, scales, biases })
    }

    /// The value of an index, row-major.
    fn value(&self, index: usize) -> f32 {
        let code = self.code(index);
        match &self.scales {
            Scales::Plain(Plain { group, scales, biases }) => {
                scales[index / group] * code + biases[index / group]
            }
            Scales::TwoLevel { d, dmin, scales, minimums } => {
                let (block, group) = (index / SUPERBLOCK, index / GROUP);
                let scale = d[block].to_f32() * f32::from(scales[group]);
                scale * code - dmin[block].to_f32() * f32::from(minimums[group])
            }
            Scales::TwoLevelHalves { d, scales } => {
                let scale = d[index / SUPERBLOCK].to_f32() * f32::from(scales[index / HALF]);
                scale * (code - ZERO)
            }
        }
    }

    fn code(&self, index: usize) -> f32 {
        // A row is whole bytes.
        let at = index * self.bits;
        let next = self.codes.get(at / 8 + 1).copied().unwrap_or(0);
        let wide = u16::from_le_bytes([self.codes[at / 8], next]);
        f32::from((wide >> (at % 8)) & ((1 << self.bits) - 1))
    }
}
