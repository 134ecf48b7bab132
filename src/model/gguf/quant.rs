//! GGUF's block formats, rewritten as MLX's affine quantisation: `value = scale * code + bias`.
//!
//! Q4_0, Q4_1, Q8_0, Q4_K and Q5_K are affine per 32 weights, so the rewriting is exact (scales
//! and biases are kept in f32: an f16 times a 6-bit integer fits its mantissa). Q6_K has a scale
//! per 16 weights and becomes 8-bit codes in groups of 32, off by at most half a step: 1/510 of
//! the group's range. Block layouts: ggml's `ggml-common.h` and `ggml-quants.c`.

use half::{bf16, f16};

use crate::model::checkpoint::{Affine, Dense};

/// Weights that share a scale and a bias after the rewriting.
pub const GROUP: usize = 32;

/// The block formats we can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// One row per format we can read: number in the file, name, values and bytes per block.
const TYPES: &[(QuantType, u32, &str, usize, usize)] = &[
    (QuantType::F32, 0, "F32", 1, 4),
    (QuantType::F16, 1, "F16", 1, 2),
    (QuantType::Bf16, 30, "BF16", 1, 2),
    (QuantType::Q4_0, 2, "Q4_0", 32, 18),
    (QuantType::Q4_1, 3, "Q4_1", 32, 20),
    (QuantType::Q8_0, 8, "Q8_0", 32, 34),
    (QuantType::Q4K, 12, "Q4_K", 256, 144),
    (QuantType::Q5K, 13, "Q5_K", 256, 176),
    (QuantType::Q6K, 14, "Q6_K", 256, 210),
];

/// Formats we know by name only, so that refusing them says which one it was.
const OTHER_NAMES: &[(u32, &str)] = &[
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// A format's name, also of one that we cannot read.
pub fn type_name(id: u32) -> String {
    let readable = TYPES.iter().find(|row| row.1 == id).map(|row| row.2);
    let other = OTHER_NAMES.iter().find(|row| row.0 == id).map(|row| row.1);
    readable.or(other).map_or_else(|| format!("number {id}"), str::to_owned)
}

impl QuantType {
    pub fn from_id(id: u32) -> Option<QuantType> {
        TYPES.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// The format's number in a file.
    pub fn id(self) -> u32 {
        self.row().1
    }

    /// The names of all formats we can read.
    pub fn names() -> Vec<&'static str> {
        TYPES.iter().map(|row| row.2).collect()
    }

    /// Values per block; a row is a whole number of blocks.
    pub fn block_values(self) -> usize {
        self.row().3
    }

    /// Bytes of `values` values, or `None` if that does not fit a `usize`.
    pub fn bytes(self, values: usize) -> Option<usize> {
        (values / self.block_values()).checked_mul(self.row().4)
    }

    fn row(self) -> &'static (QuantType, u32, &'static str, usize, usize) {
        TYPES.iter().find(|row| row.0 == self).expect("every type has a row")
    }
}

/// A tensor's values in the form that the rest of the room works with.
pub enum Unpacked {
    Dense(Dense),
    Affine(Affine),
}

/// Rewrites the raw bytes of a tensor whose rows have `columns` values.
pub fn unpack(kind: QuantType, raw: &[u8], columns: usize) -> Unpacked {
    match kind {
        QuantType::F32 => Unpacked::Dense(Dense::F32(
            raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        )),
        QuantType::F16 => Unpacked::Dense(Dense::F16(
            raw.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect(),
        )),
        QuantType::Bf16 => Unpacked::Dense(Dense::Bf16(
            raw.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes)).collect(),
        )),
        QuantType::Q4_0 => affine::<18>(raw, columns, 4, q4_0),
        QuantType::Q4_1 => affine::<20>(raw, columns, 4, q4_1),
        QuantType::Q8_0 => affine::<34>(raw, columns, 8, q8_0),
        QuantType::Q4K => affine::<144>(raw, columns, 4, q4_k),
        QuantType::Q5K => affine::<176>(raw, columns, 5, q5_k),
        QuantType::Q6K => affine::<210>(raw, columns, 8, q6_k),
    }
}

/// One group of 32 after another.
struct Groups {
    bits: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
    biases: Vec<f32>,
}

impl Groups {
    /// Appends a group, packed as MLX has it: a little-endian stream of `bits`-wide codes.
    fn push(&mut self, scale: f32, bias: f32, codes: &[u8; GROUP]) {
        self.scales.push(scale);
        self.biases.push(bias);
        match self.bits {
            8 => self.codes.extend_from_slice(codes),
            4 => self.codes.extend(codes.as_chunks::<2>().0.iter().map(|[a, b]| a | (b << 4))),
            bits => {
                for eight in codes.as_chunks::<8>().0 {
                    let stream = eight
                        .iter()
                        .enumerate()
                        .fold(0u64, |stream, (i, &code)| stream | u64::from(code) << (i * bits));
                    self.codes.extend_from_slice(&stream.to_le_bytes()[..bits]);
                }
            }
        }
    }
}

fn affine<const BLOCK_BYTES: usize>(
    raw: &[u8],
    columns: usize,
    bits: usize,
    convert: fn(&[u8; BLOCK_BYTES], &mut Groups),
) -> Unpacked {
    let (blocks, rest) = raw.as_chunks::<BLOCK_BYTES>();
    assert!(rest.is_empty());
    let groups = blocks.len() * if BLOCK_BYTES < 64 { 1 } else { 256 / GROUP };
    let mut out = Groups {
        bits,
        codes: Vec::with_capacity(groups * GROUP * bits / 8),
        scales: Vec::with_capacity(groups),
        biases: Vec::with_capacity(groups),
    };
    for block in blocks {
        convert(block, &mut out);
    }
    Unpacked::Affine(Affine {
        columns,
        bits,
        group: GROUP,
        codes: out.codes,
        scales: out.scales,
        biases: out.biases,
    })
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The low nibbles of 16 bytes are the first 16 values, the high nibbles the others.
fn split_nibbles(bytes: &[u8]) -> [u8; GROUP] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 0xf } else { bytes[i - 16] >> 4 })
}

fn q4_0(block: &[u8; 18], out: &mut Groups) {
    let d = half_at(block, 0);
    out.push(d, -8.0 * d, &split_nibbles(&block[2..]));
}

fn q4_1(block: &[u8; 20], out: &mut Groups) {
    out.push(half_at(block, 0), half_at(block, 2), &split_nibbles(&block[4..]));
}

fn q8_0(block: &[u8; 34], out: &mut Groups) {
    let d = half_at(block, 0);
    // Signed codes become unsigned: q + 128, which flips the sign bit.
    let codes = std::array::from_fn(|i| block[2 + i] ^ 0x80);
    out.push(d, -128.0 * d, &codes);
}

/// The 6-bit scale and minimum of sub-block `j` of a K-quant, out of its 12 packed bytes.
fn scale_and_minimum(packed: &[u8], j: usize) -> (u8, u8) {
    match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (
            (packed[j + 4] & 0xf) | ((packed[j - 4] >> 6) << 4),
            (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4),
        ),
    }
}

fn q4_k(block: &[u8; 144], out: &mut Groups) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (scales, quants) = (&block[4..16], &block[16..]);
    for j in 0..8 {
        let (scale, minimum) = scale_and_minimum(scales, j);
        let bytes = &quants[j / 2 * 32..][..32];
        let codes = std::array::from_fn(|i| (bytes[i] >> (j % 2 * 4)) & 0xf);
        out.push(d * f32::from(scale), -dmin * f32::from(minimum), &codes);
    }
}

fn q5_k(block: &[u8; 176], out: &mut Groups) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (scales, high, quants) = (&block[4..16], &block[16..48], &block[48..]);
    for j in 0..8 {
        let (scale, minimum) = scale_and_minimum(scales, j);
        let bytes = &quants[j / 2 * 32..][..32];
        let codes = std::array::from_fn(|i| {
            ((bytes[i] >> (j % 2 * 4)) & 0xf) | (((high[i] >> j) & 1) << 4)
        });
        out.push(d * f32::from(scale), -dmin * f32::from(minimum), &codes);
    }
}

fn q6_k(block: &[u8; 210], out: &mut Groups) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    // Two halves of 128 values; in each, four runs of 32 share the bytes of `high`.
    for run in 0..8 {
        let (half, quarter) = (run / 4, run % 4);
        let low = &low[half * 64 + quarter % 2 * 32..][..32];
        let high = &high[half * 32..][..32];
        let values: [f32; GROUP] = std::array::from_fn(|i| {
            let code =
                ((low[i] >> (quarter / 2 * 4)) & 0xf) | (((high[i] >> (quarter * 2)) & 3) << 4);
            let scale = scales[run * 2 + i / 16] as i8;
            d * f32::from(scale) * f32::from(code as i8 - 32)
        });
        let minimum = values.iter().copied().fold(f32::INFINITY, f32::min);
        let maximum = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let step = (maximum - minimum) / 255.0;
        let codes = values.map(|value| match step {
            // All values are equal: the bias says it all.
            0.0 => 0,
            _ => ((value - minimum) / step).round() as u8,
        });
        out.push(step, minimum, &codes);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use safetensors::SafeTensors;

    use super::*;
    use crate::model::gguf::Gguf;

    fn data(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/gguf").join(name)
    }

    /// The tensor of `types.gguf` as we rewrite it.
    fn unpacked(name: &str) -> Unpacked {
        let gguf = Gguf::open(&data("types.gguf")).expect("the file is fine");
        let tensor = gguf.tensor(name).expect("it has one of every type");
        let kind = gguf.quant_type(name, tensor).expect("all types are supported");
        assert_eq!(type_name(tensor.type_id).to_lowercase(), name);
        unpack(kind, &gguf.read(name, tensor).expect("readable"), *tensor.shape.last().unwrap())
    }

    /// What gguf-py makes of it.
    fn expected(name: &str) -> Vec<f32> {
        let bytes = std::fs::read(data("types.safetensors")).expect("the file is there");
        let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let tensor = tensors.tensor(name).expect("the same names");
        tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn every_type_but_q6_k_means_what_gguf_py_says_to_the_bit() {
        let names = QuantType::names().into_iter().filter(|name| *name != "Q6_K");
        for name in names.map(str::to_lowercase) {
            let found = match unpacked(&name) {
                Unpacked::Dense(dense) => dense.into_f32(),
                Unpacked::Affine(affine) => affine.dequantised(),
            };
            let expected = expected(&name);
            assert_eq!(found.len(), 4 * 512);
            let difference = found.iter().zip(&expected).position(|(a, b)| a != b);
            assert_eq!(difference, None, "{name}");
        }
    }

    #[test]
    fn q6_k_is_off_by_half_a_step_of_its_group_at_most() {
        let Unpacked::Affine(affine) = unpacked("q6_k") else { panic!("q6_k is not dense") };
        let (found, expected) = (affine.dequantised(), expected("q6_k"));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.chunks(GROUP).zip(expected.chunks(GROUP)) {
            let most = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let least = expected.iter().copied().fold(f32::INFINITY, f32::min);
            let rounding = 4.0 * f32::EPSILON * most.abs().max(least.abs());
            let tolerance = (most - least) / 510.0 + rounding;
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() <= tolerance, "{found} instead of {expected}");
            }
        }
    }

    #[test]
    fn an_unsupported_type_is_refused_with_those_that_are_not() {
        let gguf = Gguf::open(&data("unsupported.gguf")).expect("the container is fine");
        let type_of = |name| gguf.quant_type(name, gguf.tensor(name).expect("it is there"));
        assert_eq!(type_of("good.weight").expect("supported"), QuantType::Q8_0);
        let error = type_of("bad.weight").expect_err("Q2_K is not supported").to_string();
        let (_, message) = error.split_once("unsupported.gguf: ").expect("it names the file");
        let expected = "tensor \"bad.weight\" has type Q2_K, which is not supported; \
                        supported: F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K, Q5_K, Q6_K";
        assert_eq!(message, expected);
    }
}
