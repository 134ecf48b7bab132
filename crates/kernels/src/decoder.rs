//! One layer of a pre-norm decoder over all tokens of a step, as one job of the pool.
//!
//! The layer's kernels are phases of the job: whoever finishes one goes on with the next as soon as
//! all of it is done, half a microsecond later. What one kernel writes only for the next to read is
//! left in that one's form: norms and activations leave quantised rows, never f32 ones.
//!
//! | phase | a task |
//! | --- | --- |
//! | norm | some rows: normalised, prepared for the projections |
//! | project | some rows of the q, k and v weights, all tokens |
//! | place | RoPE and norm of heads; K and V quantised into their blocks |
//! | attend | a few rows and one KV head; or, for a single row, one block |
//! | merge | the blocks of a single row |
//! | output | some rows of the o weights, added to `x` |
//! | norm | some rows |
//! | gate | some chunks of 32 rows of the gate and up weights, activated and prepared |
//! | down | some rows of the down weights, added to `x` |
//! | norm | some rows, where a norm follows the MLP |
//!
//! Every result depends on its own row alone, whatever the tasks.

mod attend;
mod inputs;
mod place;
mod project;
mod step;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ops::Range;

use crate::attention::Scratch;
use crate::isa::Isa;
use crate::kv::Layout;
use crate::matmul::Weights;
use crate::pool::{Phase, Pool, SharedSlice};
use crate::rows;

use inputs::{Filling, Inputs};
use project::{Projection, Writes};

pub use project::Head;
pub use step::{Angles, Sequence, Step};

/// The sizes of a model, the same for all of its layers.
#[derive(Clone, Debug)]
pub struct Shape {
    pub hidden: usize,
    pub intermediate: usize,
    /// Query heads per KV head.
    pub group_heads: usize,
    /// Of the KV cache, with the number of KV heads and their size.
    pub layout: Layout,
    /// Attention scores are multiplied by this; usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// K, or V, goes into the cache through a Hadamard transform.
    pub rotates_keys: bool,
    pub rotates_values: bool,
}

impl Shape {
    fn head_dim(&self) -> usize {
        self.layout.head_dim()
    }

    /// Of the query heads that share a KV head.
    fn group_width(&self) -> usize {
        self.group_heads * self.head_dim()
    }

    fn query_width(&self) -> usize {
        self.layout.kv_heads() * self.group_width()
    }

    fn kv_width(&self) -> usize {
        self.layout.kv_heads() * self.head_dim()
    }
}

/// Root mean square normalisation of a row.
pub struct Norm {
    pub weight: Vec<f32>,
    pub epsilon: f32,
}

impl Norm {
    pub fn apply(&self, isa: Isa, x: &[f32], out: &mut [f32]) {
        rows::rms_norm(isa, x, &self.weight, self.epsilon, out);
    }
}

/// `[columns] → [rows]`
pub struct Linear {
    pub weights: Weights,
    pub bias: Option<Vec<f32>>,
}

/// What the gate goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// GELU's tanh approximation.
    GeluTanh,
}

pub struct Layer {
    pub attention_norm: Norm,
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub query_norm: Option<Norm>,
    pub key_norm: Option<Norm>,
    pub output: Linear,
    /// Of what attention adds to the residual.
    pub attention_output_norm: Option<Norm>,
    pub mlp_norm: Norm,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
    /// Of what the MLP adds to the residual.
    pub mlp_output_norm: Option<Norm>,
    pub activation: Activation,
    /// Which of the step's [`Angles`] turn its heads.
    pub angles: usize,
    /// A token sees only this many keys, its own included.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
}

/// What the layers of a step share.
pub struct Work<'a> {
    pub isa: Isa,
    pub pool: &'a Pool,
    pub shape: &'a Shape,
    pub step: &'a Step,
}

/// A layer's part of the KV cache.
pub struct Cache<'a> {
    /// All blocks of all layers, which the step's offsets are for.
    pub blocks: &'a mut [u8],
    /// Where the layer's part begins in each block, in bytes.
    pub part: usize,
}

/// Intermediate results, kept from layer to layer and from step to step.
#[derive(Default)]
pub struct Buffers {
    for_projections: Inputs,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    partials: Vec<f32>,
    for_output: Inputs,
    /// What goes through a norm before it is added to the residual.
    added: Vec<f32>,
    for_gate: Inputs,
    for_down: Inputs,
}

/// The buffers of one thread.
#[derive(Default)]
struct Local {
    attention: Scratch,
    rows: Vec<f32>,
}

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::default();
}

impl Layer {
    /// Adds the layer's attention and its MLP to `x [token, hidden]`.
    pub fn run(&self, work: &Work<'_>, cache: Cache<'_>, buffers: &mut Buffers, x: &mut [f32]) {
        let run = Run::new(self, work, cache, buffers, x);
        let rows = run.rows.tasks();
        let phase = |tasks, run| Phase { tasks, run };
        work.pool.run_phases(&[
            phase(rows, &|task| run.normalise_for_projections(task)),
            phase(run.projections.tasks(), &|task| run.projections.run(work.isa, task)),
            phase(run.place_tasks(), &|task| run.place(task)),
            phase(run.attend_tasks(), &|task| run.attend(task)),
            phase(run.merge_tasks(), &|task| run.merge(task)),
            phase(run.output.tasks(), &|task| run.output.run(work.isa, task)),
            phase(rows, &|task| run.normalise_for_gate(task)),
            phase(run.gate_tasks(), &|task| run.gate(task)),
            phase(run.down.tasks(), &|task| run.down.run(work.isa, task)),
            phase(if self.mlp_output_norm.is_some() { rows } else { 0 }, &|task| {
                run.add_mlp(task);
            }),
        ]);
    }

    fn check(&self, shape: &Shape) {
        let check = |linear: &Linear, rows: usize, columns: usize| {
            assert_eq!((linear.weights.rows(), linear.weights.columns()), (rows, columns));
            assert!(linear.bias.as_ref().is_none_or(|bias| bias.len() == rows));
        };
        let Shape { hidden, intermediate, .. } = *shape;
        check(&self.query, shape.query_width(), hidden);
        check(&self.key, shape.kv_width(), hidden);
        check(&self.value, shape.kv_width(), hidden);
        check(&self.output, hidden, shape.query_width());
        check(&self.gate, intermediate, hidden);
        check(&self.up, intermediate, hidden);
        check(&self.down, hidden, intermediate);
    }
}

/// A layer at work on a step: what its phases share. Each part of it is written by the tasks of one
/// phase, no two of them the same range, and read by later phases.
struct Run<'a> {
    isa: Isa,
    layer: &'a Layer,
    shape: &'a Shape,
    step: &'a Step,
    part: usize,
    rows: RowTasks,
    threads: usize,
    blocks: SharedSlice<'a, u8>,
    x: SharedSlice<'a, f32>,
    added: SharedSlice<'a, f32>,
    queries: SharedSlice<'a, f32>,
    keys: SharedSlice<'a, f32>,
    values: SharedSlice<'a, f32>,
    partials: SharedSlice<'a, f32>,
    for_projections: Filling<'a>,
    for_output: Filling<'a>,
    for_gate: Filling<'a>,
    for_down: Filling<'a>,
    projections: Projection<'a, 3>,
    output: Projection<'a, 1>,
    down: Projection<'a, 1>,
}

impl<'a> Run<'a> {
    fn new(
        layer: &'a Layer,
        work: &Work<'a>,
        cache: Cache<'a>,
        buffers: &'a mut Buffers,
        x: &'a mut [f32],
    ) -> Run<'a> {
        let Work { isa, pool, shape, step } = *work;
        let Cache { blocks, part } = cache;
        let (tokens, threads) = (step.tokens(), pool.threads());
        assert_eq!(x.len(), tokens * shape.hidden);
        layer.check(shape);
        step.check(shape, blocks.len(), part);
        let b = buffers;
        let has_output_norm =
            layer.attention_output_norm.is_some() || layer.mlp_output_norm.is_some();
        let x = SharedSlice::new(x);
        let added = shared(&mut b.added, if has_output_norm { tokens * shape.hidden } else { 0 });
        let queries = shared(&mut b.queries, tokens * shape.query_width());
        let keys = shared(&mut b.keys, tokens * shape.kv_width());
        let values = shared(&mut b.values, tokens * shape.kv_width());
        let qkv = [&layer.query, &layer.key, &layer.value];
        let for_projections = b.for_projections.fill(&qkv, tokens);
        let for_output = b.for_output.fill(&[&layer.output], tokens);
        let for_gate = b.for_gate.fill(&[&layer.gate, &layer.up], tokens);
        let for_down = b.for_down.fill(&[&layer.down], tokens);
        // Straight to the residual, or first through a norm.
        let residual = |post_norm: &Option<Norm>| match post_norm {
            None => (x, Writes::Adds),
            Some(_) => (added, Writes::Replaces),
        };
        let outs = [queries, keys, values].map(|out| (out, Writes::Replaces));
        let output = [residual(&layer.attention_output_norm)];
        let down = [residual(&layer.mlp_output_norm)];
        Run {
            isa,
            layer,
            shape,
            step,
            part,
            rows: RowTasks::new(tokens, threads),
            threads,
            blocks: SharedSlice::new(blocks),
            x,
            added,
            queries,
            keys,
            values,
            partials: shared(&mut b.partials, step.pieces() * attend::partial_len(shape)),
            projections: Projection::new(threads, qkv, for_projections, outs),
            output: Projection::new(threads, [&layer.output], for_output, output),
            down: Projection::new(threads, [&layer.down], for_down, down),
            for_projections,
            for_output,
            for_gate,
            for_down,
        }
    }

    fn normalise_for_projections(&self, task: usize) {
        self.normalise(task, None, Some((&self.layer.attention_norm, &self.for_projections)));
    }

    fn normalise_for_gate(&self, task: usize) {
        let post_norm = self.layer.attention_output_norm.as_ref();
        self.normalise(task, post_norm, Some((&self.layer.mlp_norm, &self.for_gate)));
    }

    fn add_mlp(&self, task: usize) {
        self.normalise(task, self.layer.mlp_output_norm.as_ref(), None);
    }

    /// Adds what was left in `added`, through its norm, to some rows of `x`; then leaves these,
    /// normalised, as the input of what comes next.
    fn normalise(&self, task: usize, post: Option<&Norm>, next: Option<(&Norm, &Filling<'_>)>) {
        let hidden = self.shape.hidden;
        LOCAL.with_borrow_mut(|local| {
            local.rows.resize(hidden, 0.0);
            for row in self.rows.of(task) {
                let range = row * hidden..(row + 1) * hidden;
                // SAFETY: no other task of the phase has this row, of either.
                let x = unsafe { self.x.part(range.clone()) };
                if let Some(post) = post {
                    // SAFETY: an earlier phase wrote it.
                    post.apply(self.isa, unsafe { self.added.read(range) }, &mut local.rows);
                    rows::add(self.isa, x, &local.rows);
                }
                if let Some((norm, inputs)) = next {
                    norm.apply(self.isa, x, &mut local.rows);
                    // SAFETY: as for `x`.
                    unsafe { inputs.set(self.isa, row, 0, &local.rows) };
                }
            }
        });
    }
}

fn shared(buffer: &mut Vec<f32>, len: usize) -> SharedSlice<'_, f32> {
    buffer.resize(len, 0.0);
    SharedSlice::new(buffer)
}

/// Rows cut into tasks that do a few microseconds of work each.
#[derive(Clone, Copy)]
struct RowTasks {
    rows: usize,
    per_task: usize,
}

impl RowTasks {
    const TASKS_PER_THREAD: usize = 4;
    const ROWS_MAX: usize = 8;

    fn new(rows: usize, threads: usize) -> RowTasks {
        let tasks = threads * RowTasks::TASKS_PER_THREAD;
        RowTasks { rows, per_task: rows.div_ceil(tasks).clamp(1, RowTasks::ROWS_MAX) }
    }

    fn tasks(self) -> usize {
        self.rows.div_ceil(self.per_task)
    }

    fn of(self, task: usize) -> Range<usize> {
        task * self.per_task..self.rows.min((task + 1) * self.per_task)
    }
}
