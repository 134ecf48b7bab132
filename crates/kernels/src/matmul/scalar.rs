//! The kernels in plain Rust. They define the results; `mul_add` rounds once on every machine.

use super::{Block, CHUNK, LANES, Output, Tile, TileFormat};
use crate::matmul::activations::{Chunk, Factor, Quads};
use crate::matmul::weights::{Codes, Float, Layout};

pub(super) fn multiply_tile(tile: Tile, block: Block, out: &mut Output) {
    let out = &mut out[..block.rows];
    match tile.format {
        TileFormat::Affine(layout) => affine(layout, tile.bytes, block, out),
        TileFormat::Dense(float) => dense(float, tile.bytes, block, out),
    }
}

fn affine(layout: Layout, tile: &[u8], block: Block, out: &mut [[f32; LANES]]) {
    let mut x = block.quads.chunks_exact(block.rows).zip(block.factors.chunks_exact(block.rows));
    out.fill([0.0; LANES]);
    for group in tile.chunks_exact(layout.group_bytes()) {
        let group = layout.group(group);
        let scales: [f32; LANES] = std::array::from_fn(|lane| group.scale(lane));
        let biases: [f32; LANES] = std::array::from_fn(|lane| group.bias(lane));
        for (chunk, (quads, factors)) in (0..layout.chunks_per_group).zip(&mut x) {
            let codes = group.codes(chunk);
            for ((quads, Factor { step, sum }), total) in quads.iter().zip(factors).zip(&mut *out) {
                let dots = dots(&codes, quads);
                for lane in 0..LANES {
                    let (scale, dot) = (scales[lane] * step, dots[lane] as f32);
                    total[lane] = scale.mul_add(dot, total[lane]);
                    total[lane] = biases[lane].mul_add(*sum, total[lane]);
                }
            }
        }
    }
}

/// The exact dot products of 32 codes and 32 activations.
fn dots(codes: &Codes, x: &Quads) -> [i32; LANES] {
    let mut dots = [0; LANES];
    for (quad, codes) in codes.iter().enumerate() {
        let (codes, _) = codes.as_chunks::<4>();
        for (codes, dot) in codes.iter().zip(&mut dots) {
            for (column, code) in codes.iter().enumerate() {
                *dot += i32::from(*code) * x.value(4 * quad + column);
            }
        }
    }
    dots
}

fn dense(float: Float, tile: &[u8], block: Block, out: &mut [[f32; LANES]]) {
    out.fill([0.0; LANES]);
    for (chunk, x) in block.floats.chunks_exact(block.rows).enumerate() {
        for (Chunk(x), total) in x.iter().zip(&mut *out) {
            for (lane, total) in total.iter_mut().enumerate() {
                let mut sum = 0.0;
                for (column, x) in x.iter().enumerate() {
                    let weight = float.read(tile, (chunk * CHUNK + column) * LANES + lane);
                    sum = weight.mul_add(*x, sum);
                }
                *total += sum;
            }
        }
    }
}

impl Quads {
    fn value(&self, column: usize) -> i32 {
        let high = self.high.as_flattened()[column] as i8;
        let low = self.low.as_flattened()[column] as i8;
        128 * i32::from(high) + i32::from(low)
    }
}
