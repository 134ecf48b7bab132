//! The matrices of a layer, and the output head.

use super::inputs::Filling;
use super::{Activation, Buffers, LOCAL, Layer, Linear, Norm, RowTasks, Run};
use crate::isa::Isa;
use crate::matmul::{self, CHUNK, Grid, LANES, ROWS_MAX, multiply_tile};
use crate::pool::{Phase, Pool, SharedSlice};
use crate::rows;

/// Products of the same rows with `N` matrices.
pub(super) struct Projection<'a, const N: usize> {
    inputs: Filling<'a>,
    products: [Product<'a>; N],
}

#[derive(Clone, Copy)]
struct Product<'a> {
    linear: &'a Linear,
    grid: Grid,
    /// `[row, linear.rows]`
    out: SharedSlice<'a, f32>,
    writes: Writes,
}

/// What a product does to what is there.
#[derive(Clone, Copy)]
pub(super) enum Writes {
    Replaces,
    Adds,
}

impl<'a, const N: usize> Projection<'a, N> {
    /// Each matrix has its own `out [row, matrix rows]`.
    pub(super) fn new(
        threads: usize,
        linears: [&'a Linear; N],
        inputs: Filling<'a>,
        outs: [(SharedSlice<'a, f32>, Writes); N],
    ) -> Projection<'a, N> {
        let products = std::array::from_fn(|index| {
            let (linear, (out, writes)) = (linears[index], outs[index]);
            let input = inputs.of(linear);
            assert_eq!(out.len(), input.rows() * linear.weights.rows());
            let weights = &linear.weights;
            let grid = Grid::new(threads, input, weights.tiles(), weights.tile_bytes());
            Product { linear, grid, out, writes }
        });
        Projection { inputs, products }
    }

    pub(super) fn tasks(&self) -> usize {
        self.products.iter().map(|product| product.grid.tasks()).sum()
    }

    pub(super) fn run(&self, isa: Isa, mut task: usize) {
        for product in &self.products {
            match task.checked_sub(product.grid.tasks()) {
                None => return product.run(isa, &self.inputs, task),
                Some(rest) => task = rest,
            }
        }
    }
}

impl Product<'_> {
    fn run(&self, isa: Isa, inputs: &Filling<'_>, task: usize) {
        let (blocks, tiles) = self.grid.task(task);
        let Linear { weights, bias } = self.linear;
        let mut results = matmul::ZERO;
        for tile in tiles {
            for block in blocks.clone() {
                // SAFETY: an earlier phase set all of it.
                let block = unsafe { inputs.block(self.linear, block) };
                let columns = multiply_tile(isa, weights, tile, block, &mut results);
                for (row, results) in results[..block.rows].iter_mut().enumerate() {
                    let results = &mut results[..columns.len()];
                    if let Some(bias) = bias {
                        add(results, &bias[columns.clone()]);
                    }
                    let start = (block.first_row + row) * weights.rows();
                    let range = start + columns.start..start + columns.end;
                    // SAFETY: no two tasks of the phase have the same block and tile of a matrix.
                    let out = unsafe { self.out.part(range) };
                    match self.writes {
                        Writes::Replaces => copy(out, results),
                        Writes::Adds => add(out, results),
                    }
                }
            }
        }
    }
}

/// `x = y`. Nearly always a whole tile's columns, for which no call is needed.
fn copy(x: &mut [f32], y: &[f32]) {
    match (x.first_chunk_mut::<LANES>(), y.first_chunk::<LANES>()) {
        (Some(x), Some(y)) => *x = *y,
        _ => x.copy_from_slice(y),
    }
}

/// `x += y`
fn add(x: &mut [f32], y: &[f32]) {
    match (x.first_chunk_mut::<LANES>(), y.first_chunk::<LANES>()) {
        (Some(x), Some(y)) => x.iter_mut().zip(y).for_each(|(x, y)| *x += y),
        _ => x.iter_mut().zip(y).for_each(|(x, y)| *x += y),
    }
}

/// Tiles of the gate and of the up matrix that give a chunk of the down matrix's input.
const TILES: usize = CHUNK / LANES;

/// A chunk of up to 8 rows.
type Chunk = [[f32; CHUNK]; ROWS_MAX];

impl Run<'_> {
    fn gate_grid(&self) -> Grid {
        let Layer { gate, up, .. } = self.layer;
        let bytes = TILES * (gate.weights.tile_bytes() + up.weights.tile_bytes());
        let units = self.shape.intermediate.div_ceil(CHUNK);
        Grid::new(self.threads, self.for_gate.of(gate), units, bytes)
    }

    pub(super) fn gate_tasks(&self) -> usize {
        self.gate_grid().tasks()
    }

    /// Some chunks of the gated rows, from the products with both matrices to the next one's input.
    pub(super) fn gate(&self, task: usize) {
        let (blocks, chunks) = self.gate_grid().task(task);
        let [mut gate, mut up, mut activated] = [[[0.0; CHUNK]; ROWS_MAX]; 3];
        let activate = match self.layer.activation {
            Activation::Silu => rows::swiglu,
            Activation::GeluTanh => rows::geglu_tanh,
        };
        for chunk in chunks {
            let width = CHUNK.min(self.shape.intermediate - chunk * CHUNK);
            for block in blocks.clone() {
                self.chunk(&self.layer.gate, chunk, block, &mut gate);
                self.chunk(&self.layer.up, chunk, block, &mut up);
                let first = block * ROWS_MAX;
                let rows = ROWS_MAX.min(self.step.tokens() - first);
                let len = rows * CHUNK;
                let out = &mut activated.as_flattened_mut()[..len];
                activate(self.isa, &gate.as_flattened()[..len], &up.as_flattened()[..len], out);
                for (row, activated) in activated[..rows].iter().enumerate() {
                    // SAFETY: no other task of the phase has this block and chunk.
                    unsafe {
                        self.for_down.set(self.isa, first + row, chunk, &activated[..width]);
                    }
                }
            }
        }
    }

    /// Sets 32 columns of a block's product with a matrix, or as many as it has.
    fn chunk(&self, linear: &Linear, chunk: usize, block: usize, out: &mut Chunk) {
        let mut results = matmul::ZERO;
        // SAFETY: the phase before set all of it.
        let block = unsafe { self.for_gate.block(linear, block) };
        let tiles = chunk * TILES..((chunk + 1) * TILES).min(linear.weights.tiles());
        for (tile, at) in tiles.zip((0..CHUNK).step_by(LANES)) {
            let columns = multiply_tile(self.isa, &linear.weights, tile, block, &mut results);
            for (out, results) in out.iter_mut().zip(&mut results[..block.rows]) {
                let results = &mut results[..columns.len()];
                if let Some(bias) = &linear.bias {
                    add(results, &bias[columns.clone()]);
                }
                copy(&mut out[at..at + columns.len()], results);
            }
        }
    }
}

/// The last norm and the output head.
pub struct Head<'a> {
    pub isa: Isa,
    pub pool: &'a Pool,
    pub norm: &'a Norm,
    pub linear: &'a Linear,
}

impl Head<'_> {
    /// The logits of some rows of `x [row, hidden]`: `out [wanted, vocabulary]`.
    pub fn run(&self, buffers: &mut Buffers, x: &[f32], wanted: &[usize], out: &mut [f32]) {
        let Head { isa, pool, norm, linear } = *self;
        let hidden = norm.weight.len();
        let inputs = buffers.for_projections.fill(&[linear], wanted.len());
        let outs = [(SharedSlice::new(out), Writes::Replaces)];
        let head = Projection::new(pool.threads(), [linear], inputs, outs);
        let rows = RowTasks::new(wanted.len(), pool.threads());
        let normalise = |task: usize| {
            LOCAL.with_borrow_mut(|local| {
                local.rows.resize(hidden, 0.0);
                for row in rows.of(task) {
                    norm.apply(isa, &x[wanted[row] * hidden..][..hidden], &mut local.rows);
                    // SAFETY: no other task has this row.
                    unsafe { inputs.set(isa, row, 0, &local.rows) };
                }
            });
        };
        pool.run_phases(&[
            Phase { tasks: rows.tasks(), run: &normalise },
            Phase { tasks: head.tasks(), run: &|task| head.run(isa, task) },
        ]);
    }
}
