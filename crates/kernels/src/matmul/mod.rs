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
mod tests;

use crate::isa::{Isa, Level};
use crate::pool::{Pool, SharedSlice};

pub use activations::{Activations, Input};
pub use weights::{Affine, Error, SUPERBLOCK, Scales, Weights};

use activations::Block;
use tile::{Tile, TileFormat};

/// Rows of weights that are packed together: the 32-bit lanes of a 512-bit register.
const LANES: usize = 16;
/// Columns that are quantised and summed together.
const CHUNK: usize = 32;
/// Rows of activations that a kernel takes at once: with the 8 registers of one chunk's weights
/// and two registers per row they still fit in 32.
const ROWS_MAX: usize = 8;

/// The results of one tile of weights and one block of activations.
type Output = [[f32; LANES]; ROWS_MAX];

/// Sets `out[m, weights.rows()]`, row-major, to the products of the rows of `x` with the rows of
/// `weights`. Every element is written. `x` was prepared for `weights.input()`.
pub fn multiply(isa: Isa, pool: &Pool, weights: &Weights, x: &Activations, out: &mut [f32]) {
    assert!(x.input() == weights.input(), "activations prepared for another kind of weights");
    assert!(x.columns() == weights.columns());
    assert!(out.len() == x.rows() * weights.rows());
    let plan = Plan::new(pool, weights, x);
    let out = SharedSlice::new(out);
    pool.run(plan.tasks(), &|task| plan.run(task, isa, weights, x, &out));
}

/// How the product is cut into tasks: bands of activations that stay in a core's L2 cache, and for
/// each band some tiles of weights, each of which stays in L1 while the band streams past it.
struct Plan {
    blocks: usize,
    tiles: usize,
    blocks_per_task: usize,
    tiles_per_task: usize,
}

/// Half of the L2 cache of the smallest core worth tuning for.
const BAND_BYTES: usize = 512 * 1024;
/// Enough that an unlucky thread, which begins a task as the others run out, is not waited for
/// long; few enough that taking tasks costs nothing.
const TASKS_PER_THREAD: usize = 8;

impl Plan {
    fn new(pool: &Pool, weights: &Weights, x: &Activations) -> Plan {
        let tiles = weights.rows().div_ceil(LANES);
        Plan {
            blocks: x.rows().div_ceil(ROWS_MAX),
            tiles,
            blocks_per_task: (BAND_BYTES / (ROWS_MAX * x.row_bytes()).max(1)).max(1),
            tiles_per_task: tiles.div_ceil(pool.threads() * TASKS_PER_THREAD).max(1),
        }
    }

    fn tasks(&self) -> usize {
        self.blocks.div_ceil(self.blocks_per_task) * self.tiles.div_ceil(self.tiles_per_task)
    }

    fn run(
        &self,
        task: usize,
        isa: Isa,
        weights: &Weights,
        x: &Activations,
        out: &SharedSlice<f32>,
    ) {
        let tasks_per_band = self.tiles.div_ceil(self.tiles_per_task);
        let first_block = task / tasks_per_band * self.blocks_per_task;
        let first_tile = task % tasks_per_band * self.tiles_per_task;
        let end_block = (first_block + self.blocks_per_task).min(self.blocks);
        let end_tile = (first_tile + self.tiles_per_task).min(self.tiles);
        let mut results = [[0.0; LANES]; ROWS_MAX];
        for tile in first_tile..end_tile {
            let column = tile * LANES;
            let width = LANES.min(weights.rows() - column);
            let tile = weights.tile(tile);
            for block in first_block..end_block {
                let block = x.block(block);
                multiply_tile(isa, tile, block, &mut results);
                for (row, results) in results[..block.rows].iter().enumerate() {
                    let start = (block.first_row + row) * weights.rows() + column;
                    // SAFETY: no two tasks have the same tile and block, so none has these rows
                    // and columns of `out` but this one, which holds them for the next line only.
                    let out = unsafe { out.part(start..start + width) };
                    out.copy_from_slice(&results[..width]);
                }
            }
        }
    }
}

/// Sets the first `block.rows` rows of `out`.
fn multiply_tile(isa: Isa, tile: Tile, block: Block, out: &mut Output) {
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
