//! Activations in the form the kernels read: two int8 terms per value, or plain floats.
//!
//! Of each 32 values of a row, `step` is the greatest magnitude divided by 127 · 128 and each value
//! becomes `q = round(value / step)`, halves to even, kept as two bytes with `q = 128 · high + low`
//! and `-64 <= low < 64`. That is about 15 bits: one byte per value changes a small model's text.
//!
//! Where a chunk holds an infinity or NaN, its `step` is NaN, and so is every output of that row.
//! Where all its values are below 2^-110, they count as zero.

use std::ops::Range;

use super::{CHUNK, ROWS_MAX};
use crate::isa::{Isa, Level};
use crate::pool::{Pool, SharedSlice};

/// What a kind of weights wants to be multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Two int8 terms per value, for quantised weights.
    Quantised,
    /// The values as they are, for dense weights.
    Floats,
}

/// Rows of activations, prepared for [`multiply`](super::multiply). Kept and prepared again for
/// each product, it allocates only when it grows.
pub struct Activations {
    input: Input,
    rows: usize,
    columns: usize,
    chunks: usize,
    /// Blocks of 8 rows (the last has the rest); in a block `[chunk][row]`, so that a kernel reads
    /// it from beginning to end.
    quads: Vec<Quads>,
    factors: Vec<Factor>,
    half_sums: Vec<HalfSums>,
    floats: Vec<Chunk>,
}

/// 32 values as two bytes each, in quads: what one `vpdpbusd` takes. Just a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Quads {
    pub(super) high: [[u8; 4]; CHUNK / 4],
    pub(super) low: [[u8; 4]; CHUNK / 4],
}

impl Quads {
    const ZERO: Quads = Quads { high: [[0; 4]; CHUNK / 4], low: [[0; 4]; CHUNK / 4] };
}

/// What the integers of a chunk are worth.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Factor {
    pub(super) step: f32,
    /// The sum of the chunk's values as quantised.
    pub(super) sum: f32,
}

/// The sums of a chunk's first 16 integers and of the others, for weights whose scales are for 16.
pub(super) type HalfSums = [i32; 2];

#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Chunk(pub(super) [f32; CHUNK]);

/// Up to 8 rows. The parts have `rows` items per chunk: `[chunk][row]`.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    pub(super) quads: &'a [Quads],
    pub(super) factors: &'a [Factor],
    pub(super) half_sums: &'a [HalfSums],
    pub(super) floats: &'a [Chunk],
}

impl Block<'_> {
    fn empty(first_row: usize, rows: usize) -> Self {
        Block { first_row, rows, quads: &[], factors: &[], half_sums: &[], floats: &[] }
    }

    /// What it has of one chunk, for quantised weights.
    pub(super) fn chunk(self, index: usize) -> Self {
        let range = index * self.rows..(index + 1) * self.rows;
        let (quads, factors) = (&self.quads[range.clone()], &self.factors[range.clone()]);
        Block { quads, factors, half_sums: &self.half_sums[range], ..self }
    }
}

/// Below this many rows the pool is not worth waking for.
const POOL_ROWS_MIN: usize = 2 * ROWS_MAX;

const Q_MAX: f32 = 127.0 * 128.0;
/// 2^-110: `Q_MAX` divided by a smaller one could overflow, and a smaller one divided by `Q_MAX`
/// could be subnormal.
const MAGNITUDE_MIN: f32 = f32::from_bits((127 - 110) << 23);
/// Adding 1.5 · 2^23 leaves a float's integer part in its low bits, rounded half to even.
const ROUND: f32 = 12_582_912.0;

impl Default for Activations {
    fn default() -> Activations {
        Activations::new()
    }
}

impl Activations {
    pub const fn new() -> Activations {
        Activations {
            input: Input::Floats,
            rows: 0,
            columns: 0,
            chunks: 0,
            quads: Vec::new(),
            factors: Vec::new(),
            half_sums: Vec::new(),
            floats: Vec::new(),
        }
    }

    /// Takes `x[rows, columns]`, row-major, in place of what it held. Quantised input needs a
    /// number of columns that 32 divides.
    pub fn prepare(
        &mut self,
        isa: Isa,
        pool: &Pool,
        input: Input,
        x: &[f32],
        (rows, columns): (usize, usize),
    ) {
        assert!(x.len() == rows * columns);
        let filling = self.fill(input, (rows, columns));
        let fill_block = |block: usize| {
            for row in block * ROWS_MAX..rows.min((block + 1) * ROWS_MAX) {
                // SAFETY: no two tasks have the same row.
                unsafe { filling.set(isa, row, 0, &x[row * columns..][..columns]) };
            }
        };
        let blocks = rows.div_ceil(ROWS_MAX);
        if rows < POOL_ROWS_MIN {
            (0..blocks).for_each(fill_block);
        } else {
            pool.run(blocks, &fill_block);
        }
    }

    /// Makes room for `[rows, columns]`, to be set by the tasks of a job.
    pub(crate) fn fill(&mut self, input: Input, (rows, columns): (usize, usize)) -> Filling<'_> {
        assert!(input == Input::Floats || columns.is_multiple_of(CHUNK));
        (self.input, self.rows, self.columns) = (input, rows, columns);
        self.chunks = columns.div_ceil(CHUNK);
        let len = rows * self.chunks;
        match input {
            Input::Quantised => {
                self.quads.resize(len, Quads::ZERO);
                self.factors.resize(len, Factor { step: 0.0, sum: 0.0 });
                self.half_sums.resize(len, [0; 2]);
            }
            Input::Floats => self.floats.resize(len, Chunk([0.0; CHUNK])),
        }
        Filling {
            input,
            rows,
            columns,
            chunks: self.chunks,
            quantised: Quantised {
                quads: SharedSlice::new(&mut self.quads),
                factors: SharedSlice::new(&mut self.factors),
                half_sums: SharedSlice::new(&mut self.half_sums),
            },
            floats: SharedSlice::new(&mut self.floats),
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// What it was last prepared as.
    pub fn input(&self) -> Input {
        self.input
    }

    /// What most weights read of a row: few have their scales for 16 columns.
    pub(super) fn row_bytes(&self) -> usize {
        row_bytes(self.input, self.chunks)
    }

    pub(super) fn block(&self, index: usize) -> Block<'_> {
        let (first_row, rows, range) = block_range(index, self.rows, self.chunks);
        let block = Block::empty(first_row, rows);
        match self.input {
            Input::Quantised => {
                let (quads, factors) = (&self.quads[range.clone()], &self.factors[range.clone()]);
                Block { quads, factors, half_sums: &self.half_sums[range], ..block }
            }
            Input::Floats => Block { floats: &self.floats[range], ..block },
        }
    }
}

fn row_bytes(input: Input, chunks: usize) -> usize {
    chunks
        * match input {
            Input::Quantised => size_of::<Quads>() + size_of::<Factor>(),
            Input::Floats => size_of::<Chunk>(),
        }
}

/// The first row of a block, how many it has, and where its items are.
fn block_range(index: usize, rows: usize, chunks: usize) -> (usize, usize, Range<usize>) {
    let first = index * ROWS_MAX;
    let count = ROWS_MAX.min(rows - first);
    (first, count, first * chunks..(first + count) * chunks)
}

/// Activations that the tasks of a job set row by row, and those of a later phase read.
#[derive(Clone, Copy)]
pub(crate) struct Filling<'a> {
    input: Input,
    rows: usize,
    columns: usize,
    chunks: usize,
    quantised: Quantised<'a>,
    floats: SharedSlice<'a, Chunk>,
}

#[derive(Clone, Copy)]
struct Quantised<'a> {
    quads: SharedSlice<'a, Quads>,
    factors: SharedSlice<'a, Factor>,
    half_sums: SharedSlice<'a, HalfSums>,
}

impl Filling<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn row_bytes(&self) -> usize {
        row_bytes(self.input, self.chunks)
    }

    /// Sets the columns of a row from `32 * chunk` on: whole chunks, or to the end of the row.
    ///
    /// # Safety
    /// Nobody else reads or writes these columns of the row meanwhile.
    pub(crate) unsafe fn set(&self, isa: Isa, row: usize, chunk: usize, x: &[f32]) {
        let end = chunk * CHUNK + x.len();
        assert!(row < self.rows);
        assert!(end == self.columns || end < self.columns && x.len().is_multiple_of(CHUNK));
        let (first, count, range) = block_range(row / ROWS_MAX, self.rows, self.chunks);
        let places = Places { first: range.start + chunk * count + row - first, step: count };
        match self.input {
            // SAFETY: the places are those of the caller's row and columns.
            Input::Quantised => unsafe { quantise(isa, x, places, self.quantised) },
            Input::Floats => {
                for (index, x) in x.chunks(CHUNK).enumerate() {
                    let at = places.at(index);
                    // SAFETY: likewise.
                    let Chunk(out) = &mut unsafe { self.floats.part(at..at + 1) }[0];
                    out[..x.len()].copy_from_slice(x);
                    out[x.len()..].fill(0.0);
                }
            }
        }
    }

    /// # Safety
    /// All of the block's rows have been set, and nobody writes to them meanwhile.
    pub(crate) unsafe fn block(&self, index: usize) -> Block<'_> {
        let (first_row, rows, range) = block_range(index, self.rows, self.chunks);
        let block = Block::empty(first_row, rows);
        match self.input {
            Input::Quantised => {
                let Quantised { quads, factors, half_sums } = &self.quantised;
                // SAFETY: the caller's promise.
                let quads = unsafe { quads.read(range.clone()) };
                // SAFETY: likewise.
                let factors = unsafe { factors.read(range.clone()) };
                // SAFETY: likewise.
                let half_sums = unsafe { half_sums.read(range) };
                Block { quads, factors, half_sums, ..block }
            }
            // SAFETY: likewise.
            Input::Floats => Block { floats: unsafe { self.floats.read(range) }, ..block },
        }
    }
}

/// Where the chunks of a row lie in `[chunk][row]`.
#[derive(Clone, Copy)]
struct Places {
    first: usize,
    step: usize,
}

impl Places {
    #[inline(always)]
    fn at(self, index: usize) -> usize {
        self.first + index * self.step
    }
}

/// # Safety
/// Nobody else reads or writes the places meanwhile.
unsafe fn quantise(isa: Isa, x: &[f32], places: Places, out: Quantised) {
    match isa.level() {
        // SAFETY: the caller's promise.
        Level::Scalar => unsafe { quantise_any(x, places, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: likewise; an `Isa` of this level exists on CPUs that have it only.
        Level::Avx2 => unsafe { quantise_avx2(x, places, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 => unsafe { quantise_avx512(x, places, out) },
        #[cfg(not(target_arch = "x86_64"))]
        Level::Avx2 | Level::Avx512 => unreachable!("not available on this architecture"),
    }
}

// One source, three compilations: it has no sum of floats and no fma, so they agree.

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn quantise_avx2(x: &[f32], places: Places, out: Quantised) {
    // SAFETY: the caller's promise.
    unsafe { quantise_any(x, places, out) };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn quantise_avx512(x: &[f32], places: Places, out: Quantised) {
    // SAFETY: the caller's promise.
    unsafe { quantise_any(x, places, out) };
}

#[inline(always)]
unsafe fn quantise_any(x: &[f32], places: Places, out: Quantised) {
    let (x, rest) = x.as_chunks::<CHUNK>();
    assert!(rest.is_empty());
    for (index, x) in x.iter().enumerate() {
        let at = places.at(index);
        // SAFETY: the caller's promise.
        let quads = &mut unsafe { out.quads.part(at..at + 1) }[0];
        // SAFETY: likewise.
        let factor = &mut unsafe { out.factors.part(at..at + 1) }[0];
        // SAFETY: likewise.
        let half_sums = &mut unsafe { out.half_sums.part(at..at + 1) }[0];
        (*factor, *half_sums) = quantise_chunk(x, quads);
    }
}

#[inline(always)]
fn quantise_chunk(x: &[f32; CHUNK], quads: &mut Quads) -> (Factor, HalfSums) {
    // As integers, magnitudes are in the same order, and infinity and NaN are above all others.
    let mut magnitude = 0;
    for x in x {
        magnitude = magnitude.max(x.to_bits() & 0x7fff_ffff);
    }
    let magnitude = f32::from_bits(magnitude);
    if !magnitude.is_finite() {
        *quads = Quads::ZERO;
        return (Factor { step: f32::NAN, sum: f32::NAN }, [0; 2]);
    }
    let (step, inverse) =
        if magnitude < MAGNITUDE_MIN { (0.0, 0.0) } else { (magnitude / Q_MAX, Q_MAX / magnitude) };
    let high = quads.high.as_flattened_mut();
    let low = quads.low.as_flattened_mut();
    let mut sums = [0; 2];
    for (half, sum) in sums.iter_mut().enumerate() {
        for i in half * CHUNK / 2..(half + 1) * CHUNK / 2 {
            // At most `Q_MAX` in magnitude: the rounding of `inverse` moves it by thousandths.
            let q = (x[i] * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
            let q_high = (q + 64) >> 7;
            high[i] = q_high as u8;
            low[i] = (q - (q_high << 7)) as u8;
            *sum += q;
        }
    }
    let sum = sums[0] + sums[1];
    (Factor { step, sum: step * sum as f32 }, sums)
}
