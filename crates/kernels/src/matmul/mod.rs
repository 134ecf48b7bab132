//! Activations times weights: `y[m][n] = Σ_k W[n][k] · x[m][k]`, W quantised or dense.
//!
//! Quantised weights are `scale · code + bias` per group of columns. Each activation becomes two
//! int8 terms, about 15 bits (`activations.rs` says how), so that the sum over 32 columns is an
//! exact integer in any order, and only the sum over these chunks has one: ascending, by `fma`. An
//! output depends on its row of weights and its row of activations and on nothing else: not on the
//! other rows of the batch, the number of threads or the instruction set.
//!
//! Cost on a Zen 4 core: 16 `vpdpbusd` and 3 float operations for 1,024 integer operations, so at
//! most 200 GOP/s at 3.7 GHz; with few rows it is as fast as the weights can be read.

mod activations;
mod weights;

mod tile;

mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;

use crate::isa::{Isa, Level};
use crate::pool::{Pool, SharedSlice};

pub use activations::{Activations, Input};
pub use weights::{Affine, Error, SUPERBLOCK, Scales, Weights};

pub(crate) use activations::{Block, Filling};
use tile::{Tile, TileFormat};

/// Rows of weights that are packed together: the 32-bit lanes of a 512-bit register.
pub(crate) const LANES: usize = 16;
/// Columns that are quantised and summed together.
pub(crate) const CHUNK: usize = 32;
/// Rows of activations that a kernel takes at once: with the 8 registers of one chunk's weights
/// and two registers per row they still fit in 32.
pub(crate) const ROWS_MAX: usize = 8;

/// The results of one tile of weights and one block of activations.
pub(crate) type Output = [[f32; LANES]; ROWS_MAX];

pub(crate) const ZERO: Output = [[0.0; LANES]; ROWS_MAX];

/// Sets `out[m, weights.rows()]`, row-major, to the products of the rows of `x` with the rows of
/// `weights`. Every element is written. `x` was prepared for `weights.input()`.
pub fn multiply(isa: Isa, pool: &Pool, weights: &Weights, x: &Activations, out: &mut [f32]) {
    assert!(x.input() == weights.input(), "activations prepared for another kind of weights");
    assert!(x.columns() == weights.columns());
    assert!(out.len() == x.rows() * weights.rows());
    let rows = (x.rows(), x.row_bytes());
    let grid = Grid::of(pool.threads(), rows, weights.tiles(), weights.tile_bytes());
    let out = SharedSlice::new(out);
    pool.run(grid.tasks(), &|task| {
        let (blocks, tiles) = grid.task(task);
        let mut results = ZERO;
        for tile in tiles {
            for block in blocks.clone() {
                let block = x.block(block);
                let columns = multiply_tile(isa, weights, tile, block, &mut results);
                for (row, results) in results[..block.rows].iter().enumerate() {
                    let start = (block.first_row + row) * weights.rows();
                    // SAFETY: no two tasks have the same tile and block, so none has these rows
                    // and columns of `out` but this one, which holds them for the next line only.
                    let out = unsafe { out.part(start + columns.start..start + columns.end) };
                    out.copy_from_slice(&results[..columns.len()]);
                }
            }
        }
    });
}

/// How a product is cut into tasks: bands of activations that stay in a core's L2 cache, and for
/// each band some units of weights, each of which stays in L1 while the band streams past it.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    blocks: usize,
    units: usize,
    blocks_per_task: usize,
    units_per_task: usize,
}

/// Half of the L2 cache of the smallest core worth tuning for.
const BAND_BYTES: usize = 512 * 1024;
/// Enough that an unlucky thread, which begins a task as the others run out, is not waited for
/// long; few enough that taking tasks costs nothing.
const TASKS_PER_THREAD: usize = 8;
/// Weights times blocks that a task reads at least: 2 µs, or taking tasks would cost as much.
const TASK_BYTES_MIN: usize = 32 * 1024;

impl Grid {
    /// `units` are tiles of weights, or several that are taken together, of `unit_bytes`.
    pub(crate) fn new(threads: usize, rows: &Filling, units: usize, unit_bytes: usize) -> Grid {
        Grid::of(threads, (rows.rows(), rows.row_bytes()), units, unit_bytes)
    }

    fn of(threads: usize, rows: (usize, usize), units: usize, unit_bytes: usize) -> Grid {
        let (rows, row_bytes) = rows;
        let blocks = rows.div_ceil(ROWS_MAX);
        let worthwhile = TASK_BYTES_MIN / (unit_bytes * blocks).max(1);
        Grid {
            blocks,
            units,
            blocks_per_task: (BAND_BYTES / (ROWS_MAX * row_bytes).max(1)).max(1),
            units_per_task: units.div_ceil(threads * TASKS_PER_THREAD).max(worthwhile).max(1),
        }
    }

    pub(crate) fn tasks(&self) -> usize {
        self.blocks.div_ceil(self.blocks_per_task) * self.units.div_ceil(self.units_per_task)
    }

    /// The blocks and the units of a task.
    pub(crate) fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let tasks_per_band = self.units.div_ceil(self.units_per_task);
        let block = task / tasks_per_band * self.blocks_per_task;
        let unit = task % tasks_per_band * self.units_per_task;
        (
            block..(block + self.blocks_per_task).min(self.blocks),
            unit..(unit + self.units_per_task).min(self.units),
        )
    }
}

/// Sets the first `block.rows` rows of `out` to the products with one tile's rows of weights, and
/// returns which these are: all 16 columns of `out`, or the first of them.
pub(crate) fn multiply_tile(
    isa: Isa,
    weights: &Weights,
    tile: usize,
    block: Block,
    out: &mut Output,
) -> Range<usize> {
    let first = tile * LANES;
    tile_kernel(isa, weights.tile(tile), block, out);
    first..weights.rows().min(first + LANES)
}

/// Sets the first `block.rows` rows of `out`.
fn tile_kernel(isa: Isa, tile: Tile, block: Block, out: &mut Output) {
    match isa.level() {
        Level::Scalar => scalar::multiply_tile(tile, block, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` of this level exists on CPUs that have it only.
        Level::Avx2 => unsafe { avx2::multiply_tile(tile, block, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 => unsafe { avx512::multiply_tile(tile, block, out) },
        #[cfg(not(target_arch = "x86_64"))]
        Level::Avx2 | Level::Avx512 => unreachable!("not available on this architecture"),
    }
}
