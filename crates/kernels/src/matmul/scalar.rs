//! The kernels in plain Rust. They define the results.

use super::{Block, CHUNK, LANES, Output, Tile, TileFormat};
use crate::matmul::activations::{Chunk, Factor, Quads};
use crate::matmul::weights::{Float, Layout};

pub(super) fn multiply_tile(tile: Tile, block: Block, out: &mut Output) {
    for (row, out) in out[..block.rows].iter_mut().enumerate() {
        *out = match tile.format {
            TileFormat::Affine(layout) => affine(layout, tile.bytes, block, row),
            TileFormat::Dense(float) => dense(float, tile.bytes, block, row),
        }
    }
}

fn affine(layout: Layout, tile: &[u8], block: Block, row: usize) -> [f32; LANES] {
    let mut quads = block.quads[row..].iter().step_by(block.rows);
    let mut factors = block.factors[row..].iter().step_by(block.rows);
    let mut total = [0.0; LANES];
    for group in tile.chunks_exact(layout.group_bytes()) {
        let group = layout.group(group);
        for chunk in 0..layout.chunks_per_group {
            let quads = quads.next().expect("as many chunks as the weights have");
            let Factor { step, sum } = *factors.next().expect("as many chunks");
            for (lane, total) in total.iter_mut().enumerate() {
                let mut dot = 0;
                for column in 0..CHUNK {
                    let code = i32::from(group.code(chunk * CHUNK + column, lane));
                    dot += code * quads.value(column);
                }
                *total = (group.scale(lane) * step).mul_add(dot as f32, *total);
                *total = group.bias(lane).mul_add(sum, *total);
            }
        }
    }
    total
}

fn dense(float: Float, tile: &[u8], block: Block, row: usize) -> [f32; LANES] {
    let chunks = block.floats[row..].iter().step_by(block.rows);
    let mut total = [0.0; LANES];
    for (chunk, Chunk(x)) in chunks.enumerate() {
        for (lane, total) in total.iter_mut().enumerate() {
            let mut sum = 0.0;
            for (column, x) in x.iter().enumerate() {
                let weight = float.read(tile, (chunk * CHUNK + column) * LANES + lane);
                sum = weight.mul_add(*x, sum);
            }
            *total += sum;
        }
    }
    total
}

impl Quads {
    fn value(&self, column: usize) -> i32 {
        let high = self.high.as_flattened()[column] as i8;
        let low = self.low.as_flattened()[column] as i8;
        128 * i32::from(high) + i32::from(low)
    }
}
