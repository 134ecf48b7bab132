//! The kernels for AVX-512 with VNNI: lanes are the 16 rows of a tile.
//!
//! Per chunk the weights are unpacked once into 8 registers; each of up to 8 rows of activations
//! is a broadcast operand of `vpdpbusd`.

// An index of a row or quad is for several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::{Block, CHUNK, LANES, Output, Tile, TileFormat};
use crate::matmul::activations::{Chunk, Factor, HalfSums, Quads};
use crate::matmul::tile::{Bias, Bits, Float, Header, Layout, SECOND_LEVEL, SECOND_LEVEL_BYTES};

const QUADS: usize = CHUNK / 4;

/// Calls a function of a constant number of rows.
macro_rules! for_rows {
    ($rows:expr, $function:ident, [$($parameter:tt)*], $arguments:tt) => {
        match $rows {
            1 => $function::<1, $($parameter)*> $arguments,
            2 => $function::<2, $($parameter)*> $arguments,
            3 => $function::<3, $($parameter)*> $arguments,
            4 => $function::<4, $($parameter)*> $arguments,
            5 => $function::<5, $($parameter)*> $arguments,
            6 => $function::<6, $($parameter)*> $arguments,
            7 => $function::<7, $($parameter)*> $arguments,
            8 => $function::<8, $($parameter)*> $arguments,
            rows => unreachable!("a block of {rows} rows"),
        }
    };
}

/// Likewise, of a constant width of codes too.
macro_rules! for_bits {
    ($rows:expr, $bits:expr, $function:ident, [$($parameter:tt)*], $arguments:tt) => {
        match $bits {
            Bits::Four => for_rows!($rows, $function, [4, $($parameter)*], $arguments),
            Bits::Five => for_rows!($rows, $function, [5, $($parameter)*], $arguments),
            Bits::Six => for_rows!($rows, $function, [6, $($parameter)*], $arguments),
            Bits::Eight => for_rows!($rows, $function, [8, $($parameter)*], $arguments),
        }
    };
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn multiply_tile(tile: Tile, block: Block, out: &mut Output) {
    let bytes = tile.bytes;
    match tile.format {
        TileFormat::Affine(layout) => affine(layout, bytes, block, out),
        TileFormat::Dense(Float::F16) => for_rows!(block.rows, dense, [F16], (bytes, block, out)),
        TileFormat::Dense(Float::Bf16) => for_rows!(block.rows, dense, [BF16], (bytes, block, out)),
        TileFormat::Dense(Float::F32) => for_rows!(block.rows, dense, [F32], (bytes, block, out)),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn affine(layout: Layout, tile: &[u8], block: Block, out: &mut Output) {
    let (rows, bits) = (block.rows, layout.bits);
    let arguments = (layout, tile, block, out);
    match layout.header {
        Header::Plain { float, bias: Bias::Stored } => {
            for_bits!(rows, bits, chunks, [STORED], (float, arguments))
        }
        Header::Plain { float, bias: Bias::Centred } => {
            for_bits!(rows, bits, chunks, [CENTRED], (float, arguments))
        }
        Header::TwoLevel => for_bits!(rows, bits, chunks, [TWO_LEVEL], (Float::F16, arguments)),
        Header::TwoLevelHalves => for_bits!(rows, bits, halves, [], (arguments)),
    }
}

type Arguments<'a> = (Layout, &'a [u8], Block<'a>, &'a mut Output);

/// Of codes of so many bits.
const fn chunk_bytes(bits: usize) -> usize {
    CHUNK * LANES * bits / 8
}

const STORED: u8 = 0;
const CENTRED: u8 = 1;
const TWO_LEVEL: u8 = 2;

/// Chunks have one scale and one bias.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn chunks<const ROWS: usize, const BITS: usize, const HEADER: u8>(
    float: Float,
    (layout, tile, block, out): Arguments,
) {
    let mut x = block.quads.as_chunks::<ROWS>().0.iter().zip(block.factors.as_chunks::<ROWS>().0);
    let mut total = [_mm512_setzero_ps(); ROWS];
    for group in tile.chunks_exact(layout.group_bytes()) {
        let (header, codes) = group.split_at(layout.header_bytes());
        // Of the group, or what those of its chunks are multiples of.
        let first_scale = floats(float, header);
        let first_bias = match HEADER {
            STORED => floats(float, &header[header.len() / 2..]),
            CENTRED => _mm512_mul_ps(first_scale, _mm512_set1_ps(-layout.bits.zero())),
            _ => {
                let dmin = floats(float, &header[2 * LANES..]);
                _mm512_xor_ps(dmin, _mm512_set1_ps(-0.0))
            }
        };
        let codes = codes.chunks_exact(chunk_bytes(BITS));
        for ((index, codes), (quads, factors)) in codes.enumerate().zip(&mut x) {
            let (scale, bias) = match HEADER {
                STORED | CENTRED => (first_scale, first_bias),
                _ => {
                    let second = &header[SECOND_LEVEL + index * SECOND_LEVEL_BYTES..];
                    let (scales, minimums) = (bytes(second), bytes(&second[LANES..]));
                    (_mm512_mul_ps(first_scale, scales), _mm512_mul_ps(first_bias, minimums))
                }
            };
            if ROWS >= PREFETCH_ROWS_MIN {
                prefetch(codes);
            }
            let weights = unpack::<BITS>(codes);
            let dots = dots::<ROWS, QUADS>(&weights, quads, 0);
            for row in 0..ROWS {
                let Factor { step, sum } = factors[row];
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(step));
                let dot = _mm512_cvtepi32_ps(dots[row]);
                total[row] = _mm512_fmadd_ps(scale, dot, total[row]);
                total[row] = _mm512_fmadd_ps(bias, _mm512_set1_ps(sum), total[row]);
            }
        }
    }
    store(&total, out);
}

/// Halves of chunks have a scale each, and centred codes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn halves<const ROWS: usize, const BITS: usize>((layout, tile, block, out): Arguments) {
    let quads: &[[Quads; ROWS]] = block.quads.as_chunks().0;
    let factors: &[[Factor; ROWS]] = block.factors.as_chunks().0;
    let sums: &[[HalfSums; ROWS]] = block.half_sums.as_chunks().0;
    let mut chunk = 0;
    let zero = layout.bits.zero() as i32;
    let mut total = [_mm512_setzero_ps(); ROWS];
    for group in tile.chunks_exact(layout.group_bytes()) {
        let (header, codes) = group.split_at(layout.header_bytes());
        let (first, second) = header.split_at(SECOND_LEVEL);
        let d = floats(Float::F16, first);
        let second = second.chunks_exact(SECOND_LEVEL_BYTES);
        let codes = codes.chunks_exact(chunk_bytes(BITS));
        for (second, codes) in second.zip(codes) {
            if ROWS >= PREFETCH_ROWS_MIN {
                prefetch(codes);
            }
            let weights = unpack::<BITS>(codes);
            let (weights, _) = weights.as_chunks::<{ QUADS / 2 }>();
            for half in 0..2 {
                let scale = _mm512_mul_ps(d, signed_bytes(&second[half * LANES..]));
                let dots =
                    dots::<ROWS, { QUADS / 2 }>(&weights[half], &quads[chunk], half * QUADS / 2);
                for row in 0..ROWS {
                    let offset = _mm512_set1_epi32(zero * sums[chunk][row][half]);
                    let dot = _mm512_cvtepi32_ps(_mm512_sub_epi32(dots[row], offset));
                    let scale = _mm512_mul_ps(scale, _mm512_set1_ps(factors[chunk][row].step));
                    total[row] = _mm512_fmadd_ps(scale, dot, total[row]);
                }
            }
            chunk += 1;
        }
    }
    store(&total, out);
}

/// From so many rows on, a chunk's work fills the reorder buffer, so that the core does not come to
/// the loads of the next ones by itself: asking ahead gains up to a fifth. With fewer it does, and
/// asking costs as much.
const PREFETCH_ROWS_MIN: usize = 4;
const PREFETCH_BYTES: usize = 2048;

/// Asks for the weights that come some way after these, in this tile or the next.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch(weights: &[u8]) {
    for line in weights.chunks(64) {
        // A hint: any address will do, even one that is not there.
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(PREFETCH_BYTES).cast());
    }
}

/// The exact dot products of the codes of `N` quads and the activations from `first` on.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dots<const ROWS: usize, const N: usize>(
    weights: &[__m512i; N],
    x: &[Quads; ROWS],
    first: usize,
) -> [__m512i; ROWS] {
    let mut high = [_mm512_setzero_si512(); ROWS];
    for quad in 0..N {
        for row in 0..ROWS {
            let x = _mm512_set1_epi32(i32::from_le_bytes(x[row].high[first + quad]));
            high[row] = _mm512_dpbusd_epi32(high[row], weights[quad], x);
        }
    }
    let mut dots = high.map(|high| _mm512_slli_epi32::<7>(high));
    for quad in 0..N {
        for row in 0..ROWS {
            let x = _mm512_set1_epi32(i32::from_le_bytes(x[row].low[first + quad]));
            dots[row] = _mm512_dpbusd_epi32(dots[row], weights[quad], x);
        }
    }
    dots
}

/// The codes of 32 columns as bytes, four columns to a register.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn unpack<const BITS: usize>(codes: &[u8]) -> [__m512i; QUADS] {
    let (registers, _) = codes.as_chunks::<64>();
    if BITS == 8 {
        return std::array::from_fn(|quad| load(&registers[quad]));
    }
    let nibbles = &registers[BITS - 4..];
    let mask = _mm512_set1_epi8(15);
    let mut out = [_mm512_setzero_si512(); QUADS];
    for pair in 0..QUADS / 2 {
        let both = load(&nibbles[pair]);
        out[2 * pair] = _mm512_and_si512(both, mask);
        out[2 * pair + 1] = _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask);
    }
    if BITS == 5 {
        let fifth = _mm512_set1_epi8(16);
        for quad in 0..QUADS {
            let bits = u64::from_le_bytes(registers[0].as_chunks().0[quad]);
            out[quad] = _mm512_mask_add_epi8(out[quad], bits, out[quad], fifth);
        }
    }
    if BITS == 6 {
        let mask = _mm512_set1_epi8(48);
        for four in 0..QUADS / 4 {
            let all = load(&registers[four]);
            let shifted = [
                _mm512_slli_epi16::<4>(all),
                _mm512_slli_epi16::<2>(all),
                all,
                _mm512_srli_epi16::<2>(all),
            ];
            for (upper, out) in shifted.into_iter().zip(&mut out[4 * four..]) {
                *out = _mm512_or_si512(*out, _mm512_and_si512(upper, mask));
            }
        }
    }
    out
}

const F16: u8 = 0;
const BF16: u8 = 1;
const F32: u8 = 2;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn dense<const ROWS: usize, const FLOAT: u8>(tile: &[u8], block: Block, out: &mut Output) {
    let float = match FLOAT {
        F16 => Float::F16,
        BF16 => Float::Bf16,
        _ => Float::F32,
    };
    let column_bytes = LANES * float.bytes();
    let mut total = [_mm512_setzero_ps(); ROWS];
    let chunks = tile.chunks_exact(CHUNK * column_bytes);
    for (tile, x) in chunks.zip(block.floats.as_chunks::<ROWS>().0) {
        if ROWS >= PREFETCH_ROWS_MIN {
            prefetch(tile);
        }
        let mut sum = [_mm512_setzero_ps(); ROWS];
        for (column, weights) in tile.chunks_exact(column_bytes).enumerate() {
            let weights = floats(float, weights);
            for row in 0..ROWS {
                let Chunk(x) = &x[row];
                sum[row] = _mm512_fmadd_ps(weights, _mm512_set1_ps(x[column % CHUNK]), sum[row]);
            }
        }
        for row in 0..ROWS {
            total[row] = _mm512_add_ps(total[row], sum[row]);
        }
    }
    store(&total, out);
}

/// 16 numbers of the given type.
#[inline]
#[target_feature(enable = "avx512f")]
fn floats(float: Float, bytes: &[u8]) -> __m512 {
    match float {
        Float::F16 => _mm512_cvtph_ps(load_half(first(bytes))),
        Float::Bf16 => {
            let wide = _mm512_cvtepu16_epi32(load_half(first(bytes)));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
        Float::F32 => _mm512_castsi512_ps(load(first(bytes))),
    }
}

/// 16 bytes as numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn bytes(bytes: &[u8]) -> __m512 {
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load_quarter(first(bytes))))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn signed_bytes(bytes: &[u8]) -> __m512 {
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_quarter(first(bytes))))
}

#[inline]
fn first<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    bytes.first_chunk().expect("a whole register")
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the 64 bytes are there; no alignment is asked for.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_half(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the 32 bytes are there; no alignment is asked for.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_quarter(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the 16 bytes are there; no alignment is asked for.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<const ROWS: usize>(total: &[__m512; ROWS], out: &mut Output) {
    for (total, out) in total.iter().zip(out) {
        // SAFETY: `out` is 16 floats; no alignment is asked for.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *total) };
    }
}
