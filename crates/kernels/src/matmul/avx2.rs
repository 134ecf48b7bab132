//! The kernels for AVX2 and FMA: half a tile of 16 rows in each register.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Block, CHUNK, LANES, Output, Tile, TileFormat};
use crate::matmul::activations::{Chunk, Factor, Quads};
use crate::matmul::tile::{Bias, Bits, Float, Header, Layout, SECOND_LEVEL, SECOND_LEVEL_BYTES};

const QUADS: usize = CHUNK / 4;
/// Lanes of a register; two make a tile.
const HALF: usize = LANES / 2;

/// The codes of 32 columns and 8 rows, a byte each, as low and high nibbles: products of whole
/// 8-bit codes would saturate in `vpmaddubsw`.
struct Nibbles {
    low: [__m256i; QUADS],
    /// Zero if the codes have 4 bits.
    high: [__m256i; QUADS],
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiply_tile(tile: Tile, block: Block, out: &mut Output) {
    for half in 0..2 {
        match tile.format {
            TileFormat::Affine(layout) => affine(layout, tile.bytes, half, block, out),
            TileFormat::Dense(float) => dense(float, tile.bytes, half, block, out),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn affine(layout: Layout, tile: &[u8], half: usize, block: Block, out: &mut Output) {
    let mut total = [_mm256_setzero_ps(); super::ROWS_MAX];
    let mut chunks = 0..;
    for group in tile.chunks_exact(layout.group_bytes()) {
        let (header, codes) = group.split_at(layout.header_bytes());
        let codes = codes.chunks_exact(layout.bits.chunk_bytes());
        for ((codes, in_group), chunk) in codes.zip(0..).zip(&mut chunks) {
            let weights = unpack(layout.bits, codes, half);
            let x = block.chunk(chunk);
            match layout.header {
                Header::Plain { .. } | Header::TwoLevel => {
                    let factors = factors(layout, header, in_group, half);
                    add_chunk(layout.bits, &weights, factors, x, &mut total);
                }
                Header::TwoLevelHalves => {
                    let d = floats(Float::F16, header, half);
                    let scales = [0, 1].map(|part| {
                        let scales = &header[SECOND_LEVEL + in_group * SECOND_LEVEL_BYTES..];
                        _mm256_mul_ps(d, signed_bytes(scales, 2 * part + half))
                    });
                    add_halves(layout.bits, &weights, scales, x, &mut total);
                }
            }
        }
    }
    store(&total, half, out);
}

/// The scales and biases of a chunk.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn factors(layout: Layout, header: &[u8], chunk: usize, half: usize) -> (__m256, __m256) {
    match layout.header {
        Header::Plain { float, bias: Bias::Stored } => {
            (floats(float, header, half), floats(float, header, 2 + half))
        }
        Header::Plain { float, bias: Bias::Centred } => {
            let scale = floats(float, header, half);
            (scale, _mm256_mul_ps(scale, _mm256_set1_ps(-layout.bits.zero())))
        }
        Header::TwoLevel | Header::TwoLevelHalves => {
            let d = floats(Float::F16, header, half);
            let dmin = floats(Float::F16, header, 2 + half);
            let second = &header[SECOND_LEVEL + chunk * SECOND_LEVEL_BYTES..];
            let minus_dmin = _mm256_xor_ps(dmin, _mm256_set1_ps(-0.0));
            (
                _mm256_mul_ps(d, bytes(second, half)),
                _mm256_mul_ps(minus_dmin, bytes(second, 2 + half)),
            )
        }
    }
}

/// Adds the products with 32 columns that have one scale and one bias.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_chunk(
    bits: Bits,
    weights: &Nibbles,
    (scale, bias): (__m256, __m256),
    x: Block,
    total: &mut [__m256; super::ROWS_MAX],
) {
    for ((quads, Factor { step, sum }), total) in x.quads.iter().zip(x.factors).zip(total) {
        let dot = dot(bits, weights, quads, 0..QUADS);
        let scale = _mm256_mul_ps(scale, _mm256_set1_ps(*step));
        *total = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dot), *total);
        *total = _mm256_fmadd_ps(bias, _mm256_set1_ps(*sum), *total);
    }
}

/// Adds the products with 32 columns whose halves have a scale each, and centred codes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_halves(
    bits: Bits,
    weights: &Nibbles,
    scales: [__m256; 2],
    x: Block,
    total: &mut [__m256; super::ROWS_MAX],
) {
    for (row, quads) in x.quads.iter().enumerate() {
        for (part, scale) in scales.into_iter().enumerate() {
            let dot = dot(bits, weights, quads, part * QUADS / 2..(part + 1) * QUADS / 2);
            let offset = bits.zero() as i32 * x.half_sums[row][part];
            let dot = _mm256_sub_epi32(dot, _mm256_set1_epi32(offset));
            let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x.factors[row].step));
            total[row] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dot), total[row]);
        }
    }
}

/// The exact dot products of the codes and activations of some quads.
#[inline]
#[target_feature(enable = "avx2")]
fn dot(bits: Bits, weights: &Nibbles, x: &Quads, quads: Range<usize>) -> __m256i {
    let low = nibble_dot(&weights.low, x, quads.clone());
    match bits {
        Bits::Four => low,
        Bits::Five | Bits::Six | Bits::Eight => {
            let high = nibble_dot(&weights.high, x, quads);
            _mm256_add_epi32(low, _mm256_slli_epi32::<4>(high))
        }
    }
}

/// The same of nibbles. A sum of 16 products of a nibble and a byte is below 16 · 15 · 128 =
/// 30,720, so 16 bits hold it.
#[inline]
#[target_feature(enable = "avx2")]
fn nibble_dot(weights: &[__m256i; QUADS], x: &Quads, quads: Range<usize>) -> __m256i {
    let mut high = _mm256_setzero_si256();
    let mut low = _mm256_setzero_si256();
    for quad in quads {
        let x_high = _mm256_set1_epi32(i32::from_le_bytes(x.high[quad]));
        let x_low = _mm256_set1_epi32(i32::from_le_bytes(x.low[quad]));
        high = _mm256_add_epi16(high, _mm256_maddubs_epi16(weights[quad], x_high));
        low = _mm256_add_epi16(low, _mm256_maddubs_epi16(weights[quad], x_low));
    }
    _mm256_add_epi32(
        _mm256_madd_epi16(high, _mm256_set1_epi16(128)),
        _mm256_madd_epi16(low, _mm256_set1_epi16(1)),
    )
}

#[inline]
#[target_feature(enable = "avx2")]
fn unpack(bits: Bits, codes: &[u8], half: usize) -> Nibbles {
    let (registers, _) = codes.as_chunks::<32>();
    let mask = _mm256_set1_epi8(15);
    let mut low = [_mm256_setzero_si256(); QUADS];
    let mut high = [_mm256_setzero_si256(); QUADS];
    if bits == Bits::Eight {
        for quad in 0..QUADS {
            let both = load(&registers[2 * quad + half]);
            low[quad] = _mm256_and_si256(both, mask);
            high[quad] = _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask);
        }
        return Nibbles { low, high };
    }
    let nibbles = &registers[2 * (bits.count() - 4)..];
    for pair in 0..QUADS / 2 {
        let both = load(&nibbles[2 * pair + half]);
        low[2 * pair] = _mm256_and_si256(both, mask);
        low[2 * pair + 1] = _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask);
    }
    if bits == Bits::Five {
        let (words, _) = codes.as_chunks::<4>();
        for quad in 0..QUADS {
            high[quad] = spread_bits(i32::from_le_bytes(words[2 * quad + half]));
        }
    }
    if bits == Bits::Six {
        let mask = _mm256_set1_epi8(3);
        for four in 0..QUADS / 4 {
            let all = load(&registers[2 * four + half]);
            high[4 * four] = _mm256_and_si256(all, mask);
            high[4 * four + 1] = _mm256_and_si256(_mm256_srli_epi16::<2>(all), mask);
            high[4 * four + 2] = _mm256_and_si256(_mm256_srli_epi16::<4>(all), mask);
            high[4 * four + 3] = _mm256_and_si256(_mm256_srli_epi16::<6>(all), mask);
        }
    }
    Nibbles { low, high }
}

/// Bit `i` becomes byte `i`.
#[inline]
#[target_feature(enable = "avx2")]
fn spread_bits(bits: i32) -> __m256i {
    // Byte `i` takes the byte its bit is in, keeps that bit, and becomes 1 if it is set.
    let source =
        _mm256_set_epi64x(0x0303_0303_0303_0303, 0x0202_0202_0202_0202, 0x0101_0101_0101_0101, 0);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), source);
    let is_set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    _mm256_and_si256(is_set, _mm256_set1_epi8(1))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dense(float: Float, tile: &[u8], half: usize, block: Block, out: &mut Output) {
    let column_bytes = LANES * float.bytes();
    let mut total = [_mm256_setzero_ps(); super::ROWS_MAX];
    let chunks = tile.chunks_exact(CHUNK * column_bytes);
    for (tile, x) in chunks.zip(block.floats.chunks_exact(block.rows)) {
        let mut sum = [_mm256_setzero_ps(); super::ROWS_MAX];
        for (column, weights) in tile.chunks_exact(column_bytes).enumerate() {
            let weights = floats(float, weights, half);
            for (Chunk(x), sum) in x.iter().zip(&mut sum) {
                *sum = _mm256_fmadd_ps(weights, _mm256_set1_ps(x[column % CHUNK]), *sum);
            }
        }
        for (sum, total) in sum.iter().zip(&mut total) {
            *total = _mm256_add_ps(*total, *sum);
        }
    }
    store(&total, half, out);
}

/// Eight numbers of the given type: the `index`-th eight in `bytes`.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn floats(float: Float, bytes: &[u8], index: usize) -> __m256 {
    match float {
        Float::F16 => _mm256_cvtph_ps(load_half(&bytes.as_chunks().0[index])),
        Float::Bf16 => {
            let wide = _mm256_cvtepu16_epi32(load_half(&bytes.as_chunks().0[index]));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
        Float::F32 => _mm256_castsi256_ps(load(&bytes.as_chunks().0[index])),
    }
}

/// Eight bytes as numbers: the `index`-th eight.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes(bytes: &[u8], index: usize) -> __m256 {
    let eight = _mm_cvtsi64_si128(i64::from_le_bytes(bytes.as_chunks().0[index]));
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight))
}

#[inline]
#[target_feature(enable = "avx2")]
fn signed_bytes(bytes: &[u8], index: usize) -> __m256 {
    let eight = _mm_cvtsi64_si128(i64::from_le_bytes(bytes.as_chunks().0[index]));
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the 32 bytes are there; no alignment is asked for.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_half(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the 16 bytes are there; no alignment is asked for.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(total: &[__m256; super::ROWS_MAX], half: usize, out: &mut Output) {
    for (total, out) in total.iter().zip(out) {
        let (halves, _) = out.as_chunks_mut::<HALF>();
        // SAFETY: a half is 8 floats; no alignment is asked for.
        unsafe { _mm256_storeu_ps(halves[half].as_mut_ptr(), *total) };
    }
}
