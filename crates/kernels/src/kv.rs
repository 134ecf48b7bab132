//! One layer's part of a KV block: where everything lies, and how a token is written into it.
//!
//! In this order, each contiguous: K codes, K scales, K biases, V codes, V scales, V biases; scales
//! and biases for 4 and 8 bits only. K is dimension-major, so that lanes are tokens; V is
//! token-major, so that lanes are dimensions.
//!
//! | | K codes | V codes |
//! | --- | --- | --- |
//! | 4 bits | `[head][head_dim / 2][256]`, byte `i` has dimension `2i` low and `2i + 1` high | `[head][256][head_dim / 2]`, byte `j` has dimension `j` low and `j + head_dim / 2` high |
//! | 8 bits | `[head][head_dim][256]` u8 | `[head][256][head_dim]` u8 |
//! | 16, 32 bits | the same as f16, f32 | the same as f16, f32 |
//! | scales, biases | `[head][head_dim / group][256]` f16 | `[head][256][head_dim / group]` f16 |

use std::ops::Range;

use crate::isa::Isa;
use crate::lanes::{self, Kernel, LANES, Lanes};

/// Tokens of a full block.
pub const BLOCK_TOKENS: usize = 256;

/// The largest head that the kernels take.
pub const HEAD_DIM_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    Four,
    Eight,
    Sixteen,
    ThirtyTwo,
}

impl Bits {
    pub const ALL: [Bits; 4] = [Bits::Four, Bits::Eight, Bits::Sixteen, Bits::ThirtyTwo];

    pub fn count(self) -> usize {
        match self {
            Bits::Four => 4,
            Bits::Eight => 8,
            Bits::Sixteen => 16,
            Bits::ThirtyTwo => 32,
        }
    }

    /// Whether values are codes with a scale and a bias per group.
    pub fn is_affine(self) -> bool {
        matches!(self, Bits::Four | Bits::Eight)
    }
}

/// The shape of one layer's part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    kv_heads: usize,
    head_dim: usize,
    key_bits: Bits,
    value_bits: Bits,
}

/// Where the tensors of K or of V lie: byte ranges within a layer's part of a block. `scales` and
/// `biases` are empty for 16 and 32 bits. All start at multiples of 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensors {
    pub codes: Range<usize>,
    pub scales: Range<usize>,
    pub biases: Range<usize>,
}

impl Tensors {
    /// These ranges of a part.
    fn of(self, part: &mut [u8]) -> HeadMut<'_> {
        let (codes, rest) = part[self.codes.start..].split_at_mut(self.codes.len());
        let rest = &mut rest[self.scales.start - self.codes.end..];
        let (scales, rest) = rest.split_at_mut(self.scales.len());
        let rest = &mut rest[self.biases.start - self.scales.end..];
        HeadMut { codes, scales, biases: &mut rest[..self.biases.len()] }
    }
}

impl Layout {
    /// Asserts that `head_dim` is a multiple of 32 up to [`HEAD_DIM_MAX`].
    pub fn new(kv_heads: usize, head_dim: usize, key_bits: Bits, value_bits: Bits) -> Layout {
        assert!(kv_heads > 0);
        assert!(head_dim > 0);
        assert!(head_dim <= HEAD_DIM_MAX, "head_dim {head_dim}");
        assert!(head_dim.is_multiple_of(32), "head_dim {head_dim}");
        Layout { kv_heads, head_dim, key_bits, value_bits }
    }

    pub fn kv_heads(self) -> usize {
        self.kv_heads
    }

    pub fn head_dim(self) -> usize {
        self.head_dim
    }

    pub fn key_bits(self) -> Bits {
        self.key_bits
    }

    pub fn value_bits(self) -> Bits {
        self.value_bits
    }

    /// Values along `head_dim` that share a scale and a bias.
    pub fn group(self) -> usize {
        if self.head_dim.is_multiple_of(64) { 64 } else { 32 }
    }

    pub fn groups(self) -> usize {
        self.head_dim / self.group()
    }

    /// Bytes of the part; a multiple of 64.
    pub fn bytes(self) -> usize {
        self.values().biases.end
    }

    /// Bytes that one token takes.
    pub fn token_bytes(self) -> usize {
        self.bytes() / BLOCK_TOKENS
    }

    pub fn keys(self) -> Tensors {
        self.tensors(0, self.key_bits)
    }

    pub fn values(self) -> Tensors {
        self.tensors(self.keys().biases.end, self.value_bits)
    }

    fn tensors(self, start: usize, bits: Bits) -> Tensors {
        let codes = start + self.kv_heads * self.code_bytes(bits);
        let parameters = if bits.is_affine() { self.kv_heads * self.parameter_bytes() } else { 0 };
        let scales = codes + parameters;
        Tensors { codes: start..codes, scales: codes..scales, biases: scales..scales + parameters }
    }

    /// Where the K of one head lies.
    pub(crate) fn key_head(self, head: usize) -> Tensors {
        self.head(self.keys(), self.key_bits, head)
    }

    /// Where the V of one head lies.
    pub(crate) fn value_head(self, head: usize) -> Tensors {
        self.head(self.values(), self.value_bits, head)
    }

    fn head(self, tensors: Tensors, bits: Bits, head: usize) -> Tensors {
        assert!(head < self.kv_heads, "head {head}");
        let one = |tensor: Range<usize>| {
            let bytes = tensor.len() / self.kv_heads;
            tensor.start + head * bytes..tensor.start + (head + 1) * bytes
        };
        debug_assert_eq!(one(tensors.codes.clone()).len(), self.code_bytes(bits));
        let Tensors { codes, scales, biases } = tensors;
        Tensors { codes: one(codes), scales: one(scales), biases: one(biases) }
    }

    /// Bytes of the codes of one head.
    pub(crate) fn code_bytes(self, bits: Bits) -> usize {
        BLOCK_TOKENS * self.head_dim * bits.count() / 8
    }

    /// Bytes of the scales, or biases, of one head.
    pub(crate) fn parameter_bytes(self) -> usize {
        BLOCK_TOKENS * self.groups() * 2
    }
}

/// Writes one token into slot `slot` of a block: `keys` and `values` are `[kv_head][head_dim]`.
///
/// 4 and 8 bits, per group: `bias` is the minimum, `scale` is `(maximum - bias) / levels`, both
/// rounded to f16 and kept within its range, and a code is `(x - bias) / scale` rounded to even,
/// within 0 to `levels`; all 0 where the scale is 0. A NaN counts for nothing and gets code 0.
/// 16 bits: rounded to even, kept within the range of f16; a NaN stays one.
pub fn append(
    isa: Isa,
    layout: Layout,
    block: &mut [u8],
    slot: usize,
    keys: &[f32],
    values: &[f32],
) {
    assert_eq!(block.len(), layout.bytes());
    assert!(slot < BLOCK_TOKENS, "slot {slot}");
    assert_eq!(keys.len(), layout.kv_heads * layout.head_dim);
    assert_eq!(values.len(), layout.kv_heads * layout.head_dim);
    for head in 0..layout.kv_heads {
        let x = head * layout.head_dim..(head + 1) * layout.head_dim;
        append_key(isa, layout, layout.key_head(head).of(block), slot, &keys[x.clone()]);
        append_value(isa, layout, layout.value_head(head).of(block), slot, &values[x]);
    }
}

/// One head's K or V of a block, to be written.
pub(crate) struct HeadMut<'a> {
    pub(crate) codes: &'a mut [u8],
    pub(crate) scales: &'a mut [u8],
    pub(crate) biases: &'a mut [u8],
}

/// [`append`] for the key of one head.
pub(crate) fn append_key(isa: Isa, layout: Layout, part: HeadMut<'_>, slot: usize, x: &[f32]) {
    assert!(slot < BLOCK_TOKENS, "slot {slot}");
    assert_eq!(x.len(), layout.head_dim);
    lanes::run(isa, AppendKey { layout, part, slot, x });
}

/// [`append`] for the value of one head.
pub(crate) fn append_value(isa: Isa, layout: Layout, part: HeadMut<'_>, slot: usize, x: &[f32]) {
    assert!(slot < BLOCK_TOKENS, "slot {slot}");
    assert_eq!(x.len(), layout.head_dim);
    lanes::run(isa, AppendValue { layout, part, slot, x });
}

struct AppendKey<'a> {
    layout: Layout,
    part: HeadMut<'a>,
    slot: usize,
    x: &'a [f32],
}

struct AppendValue<'a> {
    layout: Layout,
    part: HeadMut<'a>,
    slot: usize,
    x: &'a [f32],
}

/// One head of one token, as it is stored.
struct Quantised {
    codes: [u8; HEAD_DIM_MAX],
    /// f16, little-endian; of each group.
    scales: [[u8; 2]; HEAD_DIM_MAX / 32],
    biases: [[u8; 2]; HEAD_DIM_MAX / 32],
}

impl Kernel for AppendKey<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, lanes: S) {
        let AppendKey { layout, part: HeadMut { codes, scales, biases }, slot, x } = self;
        let bits = layout.key_bits;
        match bits {
            Bits::Sixteen => {
                let (elements, _) = codes.as_chunks_mut::<2>();
                let mut halves = [[0; 2]; HEAD_DIM_MAX];
                round_to_f16(lanes, x, &mut halves);
                for (dimension, half) in halves[..x.len()].iter().enumerate() {
                    elements[dimension * BLOCK_TOKENS + slot] = *half;
                }
            }
            Bits::ThirtyTwo => {
                let (elements, _) = codes.as_chunks_mut::<4>();
                for (dimension, x) in x.iter().enumerate() {
                    elements[dimension * BLOCK_TOKENS + slot] = x.to_le_bytes();
                }
            }
            Bits::Four | Bits::Eight => {
                let quantised = quantise(lanes, x, layout.group(), bits);
                if bits == Bits::Eight {
                    for (dimension, code) in quantised.codes[..x.len()].iter().enumerate() {
                        codes[dimension * BLOCK_TOKENS + slot] = *code;
                    }
                } else {
                    let (pairs, _) = quantised.codes[..x.len()].as_chunks::<2>();
                    for (pair, [low, high]) in pairs.iter().enumerate() {
                        codes[pair * BLOCK_TOKENS + slot] = low | (high << 4);
                    }
                }
                for group in 0..layout.groups() {
                    let at = group * BLOCK_TOKENS + slot;
                    scales.as_chunks_mut::<2>().0[at] = quantised.scales[group];
                    biases.as_chunks_mut::<2>().0[at] = quantised.biases[group];
                }
            }
        }
    }
}

impl Kernel for AppendValue<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, lanes: S) {
        let AppendValue { layout, part: HeadMut { codes, scales, biases }, slot, x } = self;
        let bits = layout.value_bits;
        let token_bytes = layout.code_bytes(bits) / BLOCK_TOKENS;
        let codes = &mut codes[slot * token_bytes..][..token_bytes];
        match bits {
            Bits::Sixteen => {
                let mut halves = [[0; 2]; HEAD_DIM_MAX];
                round_to_f16(lanes, x, &mut halves);
                codes.copy_from_slice(halves[..x.len()].as_flattened());
            }
            Bits::ThirtyTwo => {
                for (element, x) in codes.as_chunks_mut::<4>().0.iter_mut().zip(x) {
                    *element = x.to_le_bytes();
                }
            }
            Bits::Four | Bits::Eight => {
                let quantised = quantise(lanes, x, layout.group(), bits);
                if bits == Bits::Eight {
                    codes.copy_from_slice(&quantised.codes[..x.len()]);
                } else {
                    let (low, high) = quantised.codes[..x.len()].split_at(x.len() / 2);
                    for (byte, (low, high)) in codes.iter_mut().zip(low.iter().zip(high)) {
                        *byte = low | (high << 4);
                    }
                }
                let groups = layout.groups();
                let at = slot * groups * 2;
                scales[at..][..groups * 2]
                    .copy_from_slice(quantised.scales[..groups].as_flattened());
                biases[at..][..groups * 2]
                    .copy_from_slice(quantised.biases[..groups].as_flattened());
            }
        }
    }
}

#[inline(always)]
fn quantise<S: Lanes>(lanes: S, x: &[f32], group: usize, bits: Bits) -> Quantised {
    let mut quantised = Quantised {
        codes: [0; HEAD_DIM_MAX],
        scales: [[0; 2]; HEAD_DIM_MAX / 32],
        biases: [[0; 2]; HEAD_DIM_MAX / 32],
    };
    let levels = if bits == Bits::Four { 15.0 } else { 255.0 };
    for (index, x) in x.chunks_exact(group).enumerate() {
        let (vectors, _) = x.as_chunks::<LANES>();
        let mut largest = lanes.splat(f32::NEG_INFINITY);
        let mut smallest = lanes.splat(f32::INFINITY);
        for x in vectors {
            largest = lanes.max(lanes.of(x), largest);
            smallest = lanes.min(lanes.of(x), smallest);
        }
        let (largest, smallest) = (lanes.largest(largest), lanes.smallest(smallest));
        let (bias_bytes, bias) = to_f16(lanes, smallest);
        let (scale_bytes, scale) = to_f16(lanes, ((largest - bias) / levels).max(0.0));
        quantised.biases[index] = bias_bytes;
        quantised.scales[index] = scale_bytes;
        if scale == 0.0 {
            continue;
        }
        let (codes, _) = quantised.codes[index * group..][..group].as_chunks_mut::<LANES>();
        for (codes, x) in codes.iter_mut().zip(vectors) {
            let x = lanes.sub(lanes.of(x), lanes.splat(bias));
            let code = lanes.round(lanes.div(x, lanes.splat(scale)));
            let code = lanes.min(lanes.max(code, lanes.splat(0.0)), lanes.splat(levels));
            // SAFETY: `codes` has 16 bytes.
            unsafe { lanes.store_u8(codes.as_mut_ptr(), code) };
        }
    }
    quantised
}

/// As f16, kept within its range, and what that reads back as.
#[inline(always)]
fn to_f16<S: Lanes>(lanes: S, x: f32) -> ([u8; 2], f32) {
    let mut bytes = [[0; 2]; LANES];
    // SAFETY: `bytes` has 32 bytes.
    let back = unsafe {
        lanes.store_f16(bytes.as_flattened_mut().as_mut_ptr(), saturated(lanes, lanes.splat(x)));
        lanes.load_f16(bytes.as_flattened().as_ptr())
    };
    (bytes[0], lanes.to_array(back)[0])
}

#[inline(always)]
fn round_to_f16<S: Lanes>(lanes: S, x: &[f32], out: &mut [[u8; 2]; HEAD_DIM_MAX]) {
    let (out, _) = out.as_chunks_mut::<LANES>();
    for (out, x) in out.iter_mut().zip(x.as_chunks::<LANES>().0) {
        let x = saturated(lanes, lanes.of(x));
        // SAFETY: `out` has 32 bytes.
        unsafe { lanes.store_f16(out.as_flattened_mut().as_mut_ptr(), x) };
    }
}

#[inline(always)]
fn saturated<S: Lanes>(lanes: S, x: S::F) -> S::F {
    const F16_MAX: f32 = 65504.0;
    lanes.min(lanes.splat(F16_MAX), lanes.max(lanes.splat(-F16_MAX), x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn the_parts_lie_in_order_and_fill_the_block() {
        let layout = Layout::new(3, 64, Bits::Eight, Bits::Four);
        let (keys, values) = (layout.keys(), layout.values());
        assert_eq!(keys.codes, 0..3 * 64 * 256);
        assert_eq!(keys.scales.len(), 3 * 256 * 2);
        assert_eq!(keys.biases.start, keys.scales.end);
        assert_eq!(values.codes.start, keys.biases.end);
        assert_eq!(values.codes.len(), 3 * 32 * 256);
        assert_eq!(values.biases.end, layout.bytes());
        // 192 codes of 8 and of 4 bits, and 3 groups with 8 bytes of scales and biases.
        assert_eq!(layout.token_bytes(), 192 + 96 + 24);

        let layout = Layout::new(3, 64, Bits::Sixteen, Bits::ThirtyTwo);
        assert_eq!(layout.token_bytes(), 192 * 6);
        for tensors in [layout.keys(), layout.values()] {
            assert!(tensors.scales.is_empty());
            assert!(tensors.biases.is_empty());
        }
    }

    /// One token of one head of 32, as it reads back: K is what is looked at.
    fn round_trip(bits: Bits, x: &[f32; 32]) -> Vec<f32> {
        let layout = Layout::new(1, 32, bits, bits);
        let mut block = vec![0xff; layout.bytes()];
        append(Isa::best(), layout, &mut block, 77, x, x);
        let tensors = layout.keys();
        let half = |bytes: &[u8], at: usize| f16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]);
        let codes = &block[tensors.codes];
        if bits == Bits::Sixteen {
            return (0..32).map(|d| half(codes, d * 256 + 77).to_f32()).collect();
        }
        let scale = half(&block[tensors.scales], 77).to_f32();
        let bias = half(&block[tensors.biases], 77).to_f32();
        let code = |d: usize| match bits {
            Bits::Eight => codes[d * 256 + 77],
            _ => (codes[d / 2 * 256 + 77] >> (d % 2 * 4)) & 15,
        };
        (0..32).map(|d| scale * f32::from(code(d)) + bias).collect()
    }

    #[test]
    fn stored_values_are_within_half_a_step() {
        let x: [f32; 32] = std::array::from_fn(|i| ((i * 37) % 32) as f32 / 5.0 - 3.0);
        for (bits, levels) in [(Bits::Four, 15.0), (Bits::Eight, 255.0)] {
            let step = 6.2 / levels;
            for (ours, x) in round_trip(bits, &x).iter().zip(&x) {
                // The scale and the bias are rounded to f16.
                assert!((ours - x).abs() <= 0.5 * step + 4e-3, "{bits:?}: {ours} for {x}");
            }
        }
    }

    #[test]
    fn constant_huge_and_nan_values_are_stored_as_well_as_can_be() {
        assert_eq!(round_trip(Bits::Eight, &[1.5; 32]), [1.5; 32]);
        assert_eq!(round_trip(Bits::Four, &[0.0; 32]), [0.0; 32]);
        assert_eq!(round_trip(Bits::Sixteen, &[1e9; 32]), [65504.0; 32]);
        assert_eq!(round_trip(Bits::Eight, &[-1e9; 32]), [-65504.0; 32]);
        let mut x = [2.0; 32];
        x[5] = f32::NAN;
        assert_eq!(round_trip(Bits::Eight, &x), [2.0; 32]);
        assert!(round_trip(Bits::Sixteen, &x)[5].is_nan());
    }
}
