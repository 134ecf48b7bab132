//! GGUF's block formats, rewritten as codes with scales: `value = scale * code + bias`.
//!
//! Q4_0, Q4_1 and Q8_0 have a scale for 32 weights. Q4_K, Q5_K and Q6_K have scales of two levels,
//! which are kept: written out in f32 they would take 1.5 bits more per weight. All of it is exact.
//! Block layouts: ggml's `ggml-common.h` and `ggml-quants.c`.

use half::{bf16, f16};

use crate::model::checkpoint::{Affine, Dense, GROUP, Plain, SUPERBLOCK, Scales};

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
        QuantType::Q4_0 => plain::<18>(raw, columns, 4, q4_0),
        QuantType::Q4_1 => plain::<20>(raw, columns, 4, q4_1),
        QuantType::Q8_0 => plain::<34>(raw, columns, 8, q8_0),
        QuantType::Q4K => two_level::<144>(raw, columns, 4, q4_k),
        QuantType::Q5K => two_level::<176>(raw, columns, 5, q5_k),
        QuantType::Q6K => two_level_halves(raw, columns),
    }
}

/// Packed as MLX has them: a little-endian stream of `bits`-wide codes.
struct Codes {
    bits: usize,
    stream: Vec<u8>,
}

impl Codes {
    fn of(bits: usize, groups: usize) -> Codes {
        Codes { bits, stream: Vec::with_capacity(groups * GROUP * bits / 8) }
    }

    fn push(&mut self, codes: &[u8; GROUP]) {
        match self.bits {
            8 => self.stream.extend_from_slice(codes),
            4 => self.stream.extend(codes.as_chunks::<2>().0.iter().map(|[a, b]| a | (b << 4))),
            bits => {
                for eight in codes.as_chunks::<8>().0 {
                    let stream = eight
                        .iter()
                        .enumerate()
                        .fold(0u64, |stream, (i, &code)| stream | u64::from(code) << (i * bits));
                    self.stream.extend_from_slice(&stream.to_le_bytes()[..bits]);
                }
            }
        }
    }

    fn with(self, columns: usize, scales: Scales) -> Unpacked {
        Unpacked::Affine(Affine { columns, bits: self.bits, codes: self.stream, scales })
    }
}

/// What a block of 32 values means.
struct Group {
    scale: f32,
    bias: f32,
    codes: [u8; GROUP],
}

/// Blocks of 32 values.
fn plain<const BLOCK_BYTES: usize>(
    raw: &[u8],
    columns: usize,
    bits: usize,
    convert: fn(&[u8; BLOCK_BYTES]) -> Group,
) -> Unpacked {
    let blocks = blocks(raw);
    let mut codes = Codes::of(bits, blocks.len());
    let mut scales = Vec::with_capacity(blocks.len());
    let mut biases = Vec::with_capacity(blocks.len());
    for block in blocks {
        let Group { scale, bias, codes: group } = convert(block);
        codes.push(&group);
        scales.push(scale);
        biases.push(bias);
    }
    codes.with(columns, Scales::Plain(Plain { group: GROUP, scales, biases }))
}

/// Blocks of 256 values with 12 bytes of scales and minimums; `codes_of` finds a block's codes from
/// `32 * run` on.
fn two_level<const BLOCK_BYTES: usize>(
    raw: &[u8],
    columns: usize,
    bits: usize,
    codes_of: fn(&[u8; BLOCK_BYTES], usize) -> [u8; GROUP],
) -> Unpacked {
    let blocks = blocks(raw);
    let groups = blocks.len() * RUNS;
    let mut codes = Codes::of(bits, groups);
    let (mut d, mut dmin) = (Vec::with_capacity(blocks.len()), Vec::with_capacity(blocks.len()));
    let (mut scales, mut minimums) = (Vec::with_capacity(groups), Vec::with_capacity(groups));
    for block in blocks {
        d.push(half_at(block, 0));
        dmin.push(half_at(block, 2));
        for run in 0..RUNS {
            let (scale, minimum) = scale_and_minimum(&block[4..16], run);
            scales.push(scale);
            minimums.push(minimum);
            codes.push(&codes_of(block, run));
        }
    }
    codes.with(columns, Scales::TwoLevel { d, dmin, scales, minimums })
}

/// Q6_K: blocks of 256 values with a signed scale for 16.
fn two_level_halves(raw: &[u8], columns: usize) -> Unpacked {
    let blocks = blocks(raw);
    let mut codes = Codes::of(6, blocks.len() * RUNS);
    let mut d = Vec::with_capacity(blocks.len());
    let mut scales = Vec::with_capacity(blocks.len() * 2 * RUNS);
    for block in blocks {
        d.push(half_at(block, 208));
        scales.extend(block[192..208].iter().map(|byte| byte.cast_signed()));
        for run in 0..RUNS {
            codes.push(&q6_k(block, run));
        }
    }
    codes.with(columns, Scales::TwoLevelHalves { d, scales })
}

/// Runs of 32 values in a block of a K-quant.
const RUNS: usize = SUPERBLOCK / GROUP;

fn blocks<const BLOCK_BYTES: usize>(raw: &[u8]) -> &[[u8; BLOCK_BYTES]] {
    let (blocks, rest) = raw.as_chunks();
    assert!(rest.is_empty());
    blocks
}

fn half_at(block: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

/// The low nibbles of 16 bytes are the first 16 values, the high nibbles the others.
fn split_nibbles(bytes: &[u8]) -> [u8; GROUP] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 0xf } else { bytes[i - 16] >> 4 })
}

fn q4_0(block: &[u8; 18]) -> Group {
    let d = half_at(block, 0).to_f32();
    Group { scale: d, bias: -8.0 * d, codes: split_nibbles(&block[2..]) }
}

fn q4_1(block: &[u8; 20]) -> Group {
    let (d, m) = (half_at(block, 0).to_f32(), half_at(block, 2).to_f32());
    Group { scale: d, bias: m, codes: split_nibbles(&block[4..]) }
}

fn q8_0(block: &[u8; 34]) -> Group {
    let d = half_at(block, 0).to_f32();
    // Signed codes become unsigned: q + 128, which flips the sign bit.
    let codes = std::array::from_fn(|i| block[2 + i] ^ 0x80);
    Group { scale: d, bias: -128.0 * d, codes }
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

fn q4_k(block: &[u8; 144], run: usize) -> [u8; GROUP] {
    let bytes = &block[16..][run / 2 * 32..][..32];
    std::array::from_fn(|i| (bytes[i] >> (run % 2 * 4)) & 0xf)
}

fn q5_k(block: &[u8; 176], run: usize) -> [u8; GROUP] {
    let (high, bytes) = (&block[16..48], &block[48..][run / 2 * 32..][..32]);
    std::array::from_fn(|i| ((bytes[i] >> (run % 2 * 4)) & 0xf) | (((high[i] >> run) & 1) << 4))
}

/// Two halves of 128 values; in each, four runs share the bytes of `high`.
fn q6_k(block: &[u8; 210], run: usize) -> [u8; GROUP] {
    let (half, quarter) = (run / 4, run % 4);
    let low = &block[..128][half * 64 + quarter % 2 * 32..][..32];
    let high = &block[128..192][half * 32..][..32];
    std::array::from_fn(|i| {
        ((low[i] >> (quarter / 2 * 4)) & 0xf) | (((high[i] >> (quarter * 2)) & 3) << 4)
    })
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
    fn every_type_means_what_gguf_py_says_to_the_bit() {
        for name in QuantType::names().into_iter().map(str::to_lowercase) {
            let found = match unpacked(&name) {
                Unpacked::Dense(dense) => dense.into_f32(),
                Unpacked::Affine(affine) => affine.dequantised(),
            };
            check_equal(&name, &found);
        }
    }

    #[test]
    fn what_mlx_gets_means_the_same_but_for_q6_k() {
        for name in ["q4_0", "q4_1", "q8_0", "q4_k", "q5_k"] {
            check_equal(name, &as_mlx_has_it(name));
        }
    }

    #[track_caller]
    fn check_equal(name: &str, found: &[f32]) {
        let expected = expected(name);
        assert_eq!(found.len(), 4 * 512);
        let difference = found.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(difference, None, "{name}");
    }

    fn as_mlx_has_it(name: &str) -> Vec<f32> {
        let Unpacked::Affine(affine) = unpacked(name) else { panic!("{name} is not dense") };
        let columns = affine.columns;
        let (bits, codes, plain) = affine.into_plain();
        Affine { columns, bits, codes, scales: Scales::Plain(plain) }.dequantised()
    }

    #[test]
    fn mlx_gets_q6_k_off_by_half_a_step_of_its_group_at_most() {
        let (found, expected) = (as_mlx_has_it("q6_k"), expected("q6_k"));
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
