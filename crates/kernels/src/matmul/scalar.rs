//! The kernels in plain Rust. They define the results; `mul_add` rounds once on every machine.

use std::ops::Range;

use super::{Block, CHUNK, LANES, Output, Tile, TileFormat};
use crate::matmul::activations::{Chunk, Factor, Quads};
use crate::matmul::tile::{Codes, Float, Group, Header, Layout};

const QUADS: usize = CHUNK / 4;

pub(super) fn multiply_tile(tile: Tile, block: Block, out: &mut Output) {
    let out = &mut out[..block.rows];
    out.fill([0.0; LANES]);
    match tile.format {
        TileFormat::Affine(layout) => affine(layout, tile.bytes, block, out),
        TileFormat::Dense(float) => dense(float, tile.bytes, block, out),
    }
}

fn affine(layout: Layout, tile: &[u8], block: Block, out: &mut [[f32; LANES]]) {
    let groups = tile.chunks_exact(layout.group_bytes());
    for (group, start) in groups.zip((0..).step_by(layout.chunks_per_group)) {
        let group = layout.group(group);
        for chunk in 0..layout.chunks_per_group {
            match layout.header {
                Header::Plain { .. } | Header::TwoLevel => {
                    add_chunk(&group, chunk, block.chunk(start + chunk), out);
                }
                Header::TwoLevelHalves => {
                    add_halves(layout, &group, chunk, block.chunk(start + chunk), out);
                }
            }
        }
    }
}

/// Adds the products with 32 columns that have one scale and one bias.
fn add_chunk(group: &Group, chunk: usize, x: Block, out: &mut [[f32; LANES]]) {
    let codes = group.codes(chunk);
    let scales: [f32; LANES] = std::array::from_fn(|lane| group.scale(chunk, 0, lane));
    let biases: [f32; LANES] = std::array::from_fn(|lane| group.bias(chunk, lane));
    for ((quads, Factor { step, sum }), total) in x.quads.iter().zip(x.factors).zip(out) {
        let dots = dots(&codes, quads, 0..QUADS);
        for lane in 0..LANES {
            let (scale, dot) = (scales[lane] * step, dots[lane] as f32);
            total[lane] = scale.mul_add(dot, total[lane]);
            total[lane] = biases[lane].mul_add(*sum, total[lane]);
        }
    }
}

/// Adds the products with 32 columns whose halves have a scale each, and centred codes.
fn add_halves(layout: Layout, group: &Group, chunk: usize, x: Block, out: &mut [[f32; LANES]]) {
    let codes = group.codes(chunk);
    let zero = layout.bits.zero() as i32;
    for half in 0..2 {
        let scales: [f32; LANES] = std::array::from_fn(|lane| group.scale(chunk, half, lane));
        let quads = half * QUADS / 2..(half + 1) * QUADS / 2;
        for (row, total) in out.iter_mut().enumerate() {
            let dots = dots(&codes, &x.quads[row], quads.clone());
            let offset = zero * x.half_sums[row][half];
            for lane in 0..LANES {
                // Below 2^24 for codes of up to 6 bits, so exact as a float.
                let (scale, dot) = (scales[lane] * x.factors[row].step, dots[lane] - offset);
                total[lane] = scale.mul_add(dot as f32, total[lane]);
            }
        }
    }
}

/// The exact dot products of the codes and activations of some quads.
fn dots(codes: &Codes, x: &Quads, quads: Range<usize>) -> [i32; LANES] {
    let mut dots = [0; LANES];
    for quad in quads {
        let (codes, _) = codes[quad].as_chunks::<4>();
        for (codes, dot) in codes.iter().zip(&mut dots) {
            for (column, code) in codes.iter().enumerate() {
                *dot += i32::from(*code) * x.value(4 * quad + column);
            }
        }
    }
    dots
}

fn dense(float: Float, tile: &[u8], block: Block, out: &mut [[f32; LANES]]) {
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
