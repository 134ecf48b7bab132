//! One decoder layer over all tokens of a step, as a sequence of kernels.

use std::cell::RefCell;

use kernels::attention::{self, Attention, Scratch};
use kernels::isa::Isa;
use kernels::kv;
use kernels::pool::Pool;
use kernels::rows;
use kernels::strided::{Rows, RowsMut};

use super::parallel::{each, rows_per_piece};
use super::plan::{Plan, RowPlan};
use super::slab::Slab;
use super::weights::{Inputs, Linear, Loader, Norm};
use crate::model::Error;
use crate::model::decoder::{Config, LayerConfig};
use crate::model::kv::KvConfig;
use crate::model::layers::Activation;
use crate::types::BlockId;

/// Rows of one sequence that attend in one piece: enough to share what is read of the KV, few
/// enough that a prefill chunk gives every thread work.
const TILE_ROWS: usize = 32;

/// The sizes of a model, as its kernels need them.
pub struct Shape {
    pub hidden: usize,
    head_dim: usize,
    kv_heads: usize,
    /// Query heads per KV head.
    group_heads: usize,
    intermediate: usize,
    scale: f32,
    activation: Activation,
    rotates_keys: bool,
    rotates_values: bool,
}

/// What the layers of a step share.
pub struct Work<'a> {
    pub isa: Isa,
    pub pool: &'a Pool,
    pub shape: &'a Shape,
    pub plan: &'a Plan,
}

/// Intermediate results, kept from layer to layer and from step to step.
#[derive(Default)]
pub struct Buffers {
    pub normed: Vec<f32>,
    pub inputs: Inputs,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    activated: Vec<f32>,
    partials: Vec<f32>,
    /// What goes out of half a layer, normalised.
    out: Vec<f32>,
}

pub struct Layer {
    config: LayerConfig,
    attention_norm: Norm,
    attention_output_norm: Option<Norm>,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    query_norm: Option<Norm>,
    key_norm: Option<Norm>,
    mlp_norm: Norm,
    mlp_output_norm: Option<Norm>,
    gate: Linear,
    up: Linear,
    down: Linear,
}

thread_local! {
    /// The attention kernel's buffers, one set per thread.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

impl Shape {
    pub fn new(config: &Config, kv: KvConfig) -> Shape {
        Shape {
            hidden: config.hidden,
            head_dim: config.head_dim,
            kv_heads: config.kv_heads,
            group_heads: config.query_heads / config.kv_heads,
            intermediate: config.intermediate,
            scale: config.attention_scale,
            activation: config.activation,
            rotates_keys: kv.key.rotated,
            rotates_values: kv.value.rotated,
        }
    }

    fn query_width(&self) -> usize {
        self.kv_heads * self.group_heads * self.head_dim
    }

    fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

impl Layer {
    pub fn load(index: usize, config: &Config, loader: &Loader<'_>) -> Result<Layer, Error> {
        let name = |module: &str| format!("model.layers.{index}.{module}");
        let norm = |module: &str| loader.norm(&name(module), config.hidden, config.norm);
        let head_norm = |module: &str| match config.qk_norm {
            false => Ok(None),
            true => loader.norm(&name(module), config.head_dim, config.norm).map(Some),
        };
        let linear =
            |module: &str, rows, columns, bias| loader.linear(&name(module), rows, columns, bias);
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let queries = config.query_heads * config.head_dim;
        let keys = config.kv_heads * config.head_dim;
        let norms = config.layer_norms;
        Ok(Layer {
            config: config.layers[index],
            attention_norm: norm(norms.attention)?,
            attention_output_norm: norms.attention_output.map(norm).transpose()?,
            query: linear("self_attn.q_proj", queries, hidden, config.qkv_bias)?,
            key: linear("self_attn.k_proj", keys, hidden, config.qkv_bias)?,
            value: linear("self_attn.v_proj", keys, hidden, config.qkv_bias)?,
            output: linear("self_attn.o_proj", hidden, queries, config.output_bias)?,
            query_norm: head_norm("self_attn.q_norm")?,
            key_norm: head_norm("self_attn.k_norm")?,
            mlp_norm: norm(norms.mlp)?,
            mlp_output_norm: norms.mlp_output.map(norm).transpose()?,
            gate: linear("mlp.gate_proj", intermediate, hidden, config.mlp_bias)?,
            up: linear("mlp.up_proj", intermediate, hidden, config.mlp_bias)?,
            down: linear("mlp.down_proj", hidden, intermediate, config.mlp_bias)?,
        })
    }

    /// Adds the layer's attention and its MLP to `x [token, hidden]`.
    pub fn run(
        &self,
        work: &Work<'_>,
        index: usize,
        slab: &mut Slab,
        buffers: &mut Buffers,
        x: &mut [f32],
    ) {
        let Work { isa, pool, shape, plan } = *work;
        let tokens = plan.tokens.len();
        let b = buffers;

        normalise(work, &self.attention_norm, x, &mut b.normed);
        b.inputs.set();
        b.queries.resize(tokens * shape.query_width(), 0.0);
        b.keys.resize(tokens * shape.kv_width(), 0.0);
        b.values.resize(tokens * shape.kv_width(), 0.0);
        self.query.apply(isa, pool, &mut b.inputs, &b.normed, &mut b.queries);
        self.key.apply(isa, pool, &mut b.inputs, &b.normed, &mut b.keys);
        self.value.apply(isa, pool, &mut b.inputs, &b.normed, &mut b.values);

        self.place_heads(work, &mut b.queries, &mut b.keys, &mut b.values);
        append(work, index, slab, &b.keys, &b.values);
        b.attended.resize(tokens * shape.query_width(), 0.0);
        let keys = Keys { slab, layer: index, window: self.config.window };
        attend(work, keys, &b.queries, &mut b.attended, &mut b.partials);
        if shape.rotates_values {
            each(pool, b.attended.chunks_exact_mut(shape.head_dim), |head| {
                rows::hadamard(isa, head);
            });
        }
        b.inputs.set();
        b.normed.resize(tokens * shape.hidden, 0.0);
        self.output.apply(isa, pool, &mut b.inputs, &b.attended, &mut b.normed);
        add(work, x, normalised(work, &self.attention_output_norm, &b.normed, &mut b.out));

        normalise(work, &self.mlp_norm, x, &mut b.normed);
        b.inputs.set();
        b.gate.resize(tokens * shape.intermediate, 0.0);
        b.up.resize(tokens * shape.intermediate, 0.0);
        self.gate.apply(isa, pool, &mut b.inputs, &b.normed, &mut b.gate);
        self.up.apply(isa, pool, &mut b.inputs, &b.normed, &mut b.up);
        activate(work, &b.gate, &b.up, &mut b.activated);
        b.inputs.set();
        self.down.apply(isa, pool, &mut b.inputs, &b.activated, &mut b.normed);
        add(work, x, normalised(work, &self.mlp_output_norm, &b.normed, &mut b.out));
    }

    /// Norms of queries and keys, RoPE, and the cache's rotation, in place.
    fn place_heads(
        &self,
        work: &Work<'_>,
        queries: &mut [f32],
        keys: &mut [f32],
        values: &mut [f32],
    ) {
        let Work { isa, pool, shape, plan } = *work;
        let half = shape.head_dim / 2;
        let angles = &plan.angles[self.config.rope];
        let turn = |heads: &mut [f32], norm: &Option<Norm>, token: usize| {
            let range = token * half..(token + 1) * half;
            let (cos, sin) = (&angles.cos[range.clone()], &angles.sin[range]);
            for head in heads.chunks_exact_mut(shape.head_dim) {
                if let Some(norm) = norm {
                    let mut normed = [0.0; kv::HEAD_DIM_MAX];
                    norm.apply(isa, head, &mut normed[..shape.head_dim]);
                    head.copy_from_slice(&normed[..shape.head_dim]);
                }
                rows::rope(isa, head, cos, sin);
                if shape.rotates_keys {
                    rows::hadamard(isa, head);
                }
            }
        };
        let count = rows_per_piece(pool, plan.tokens.len(), shape.query_width());
        let pieces = queries
            .chunks_mut(count * shape.query_width())
            .zip(keys.chunks_mut(count * shape.kv_width()))
            .zip(values.chunks_mut(count * shape.kv_width()))
            .enumerate();
        each(pool, pieces, |(piece, ((queries, keys), values))| {
            let first = piece * count;
            for (row, heads) in queries.chunks_exact_mut(shape.query_width()).enumerate() {
                turn(heads, &self.query_norm, first + row);
            }
            for (row, heads) in keys.chunks_exact_mut(shape.kv_width()).enumerate() {
                turn(heads, &self.key_norm, first + row);
            }
            if shape.rotates_values {
                for head in values.chunks_exact_mut(shape.head_dim) {
                    rows::hadamard(isa, head);
                }
            }
        });
    }
}

/// Writes K and V of the step's tokens to their blocks; a block is written by one thread.
fn append(work: &Work<'_>, layer: usize, slab: &mut Slab, keys: &[f32], values: &[f32]) {
    let Work { isa, pool, shape, plan } = *work;
    let layout = slab.layout();
    let mut writes: Vec<(BlockId, Vec<(usize, usize)>)> = Vec::new();
    for row in &plan.rows {
        for token in row.first..row.first + row.len {
            let (block, slot) = plan.place(row, token);
            match writes.last_mut() {
                Some((last, places)) if *last == block => places.push((slot, token)),
                _ => writes.push((block, vec![(slot, token)])),
            }
        }
    }
    // The batch was checked: no two rows write to one block.
    writes.sort_unstable_by_key(|(block, _)| *block);
    let blocks: Vec<BlockId> = writes.iter().map(|(block, _)| *block).collect();
    let parts = slab.parts_mut(&blocks, layer);
    each(pool, parts.into_iter().zip(&writes), |((_, part), (_, places))| {
        for &(slot, token) in places {
            let row = token * shape.kv_width()..(token + 1) * shape.kv_width();
            kv::append(isa, layout, part, slot, &keys[row.clone()], &values[row]);
        }
    });
}

/// What a layer's rows attend to.
#[derive(Clone, Copy)]
struct Keys<'a> {
    slab: &'a Slab,
    layer: usize,
    /// A row sees only so many keys, its own included.
    window: Option<usize>,
}

/// Attention of every row over its own blocks.
fn attend(
    work: &Work<'_>,
    keys: Keys<'_>,
    queries: &[f32],
    out: &mut [f32],
    partials: &mut Vec<f32>,
) {
    let Work { isa, pool, shape, plan } = *work;
    let Keys { slab, layer, window } = keys;
    let width = shape.query_width();
    let head_width = shape.group_heads * shape.head_dim;
    let tables: Vec<Vec<&[u8]>> = plan
        .rows
        .iter()
        .map(|row| row.blocks.iter().map(|&block| slab.part(block, layer)).collect())
        .collect();
    let attention = |row: usize, kv_head: usize| Attention {
        layout: slab.layout(),
        kv_head,
        group_heads: shape.group_heads,
        scale: shape.scale,
        window,
        softcap: None,
        blocks: &tables[row],
    };
    let splits = |index: usize, row: &RowPlan| {
        row.len == 1 && attention(index, 0).blocks_seen(plan.positions[row.first]).len() > 1
    };
    let mut rest = &mut out[..];
    let mut tiles = Vec::new();
    let mut single_rows = Vec::new();
    for (index, row) in plan.rows.iter().enumerate() {
        let (mine, others) = rest.split_at_mut(row.len * width);
        rest = others;
        if splits(index, row) {
            single_rows.push((index, mine));
            continue;
        }
        for (kv_head, mut heads) in RowsMut::split(mine, width, head_width).enumerate() {
            let mut first = row.first;
            while heads.count() > 0 {
                let count = heads.count().min(TILE_ROWS);
                let (tile, later) = heads.split_at(count);
                tiles.push((index, kv_head, first, tile));
                heads = later;
                first += count;
            }
        }
    }
    // Later tiles see more keys: taken first, they do not make the other threads wait at the end.
    tiles.reverse();
    each(pool, tiles, |(index, kv_head, first, tile)| {
        let from = first * width + kv_head * head_width;
        let count = tile.count();
        let to = from + (count - 1) * width + head_width;
        let queries = Rows::new(&queries[from..to], width, head_width);
        let positions = &plan.positions[first..first + count];
        SCRATCH.with_borrow_mut(|scratch| {
            let attention = attention(index, kv_head);
            attention::attend(isa, &attention, positions, queries, tile, scratch);
        });
    });
    attend_by_blocks(work, &attention, queries, single_rows, partials);
}

/// A single new token over a long context: its blocks are shared among the threads.
fn attend_by_blocks<'a>(
    work: &Work<'_>,
    attention: &(impl Fn(usize, usize) -> Attention<'a> + Sync),
    queries: &[f32],
    rows: Vec<(usize, &mut [f32])>,
    partials: &mut Vec<f32>,
) {
    let Work { isa, pool, shape, plan } = *work;
    if rows.is_empty() {
        return;
    }
    let head_width = shape.group_heads * shape.head_dim;
    let partial_len = attention::partial_len(&attention(rows[0].0, 0));
    let query = |index: usize, kv_head: usize| {
        let from = plan.rows[index].first * shape.query_width() + kv_head * head_width;
        &queries[from..from + head_width]
    };
    let position = |index: usize| plan.positions[plan.rows[index].first];
    let seen = |index: usize| attention(index, 0).blocks_seen(position(index));
    let lens: Vec<usize> = rows.iter().map(|(index, _)| seen(*index).len() * partial_len).collect();
    partials.resize(lens.iter().sum::<usize>() * shape.kv_heads, 0.0);
    let mut pieces = Vec::new();
    let mut rest = &mut partials[..];
    for ((index, _), len) in rows.iter().zip(&lens) {
        for kv_head in 0..shape.kv_heads {
            let (mine, others) = rest.split_at_mut(*len);
            rest = others;
            for (block, partial) in seen(*index).zip(mine.chunks_exact_mut(partial_len)) {
                pieces.push((*index, kv_head, block, partial));
            }
        }
    }
    each(pool, pieces, |(index, kv_head, block, partial)| {
        SCRATCH.with_borrow_mut(|scratch| {
            attention::attend_blocks(
                isa,
                &attention(index, kv_head),
                position(index),
                query(index, kv_head),
                block..block + 1,
                partial,
                scratch,
            );
        });
    });
    let mut rest = &partials[..];
    for ((index, out), len) in rows.into_iter().zip(lens) {
        for (kv_head, out) in out.chunks_exact_mut(head_width).enumerate() {
            let (mine, others) = rest.split_at(len);
            rest = others;
            attention::merge(isa, &attention(index, kv_head), mine, out);
        }
    }
}

fn normalise(work: &Work<'_>, norm: &Norm, x: &[f32], out: &mut Vec<f32>) {
    let Work { isa, pool, shape, .. } = *work;
    out.resize(x.len(), 0.0);
    let piece = rows_per_piece(pool, x.len() / shape.hidden, shape.hidden) * shape.hidden;
    each(pool, x.chunks(piece).zip(out.chunks_mut(piece)), |(x, out)| {
        for (x, out) in x.chunks_exact(shape.hidden).zip(out.chunks_exact_mut(shape.hidden)) {
            norm.apply(isa, x, out);
        }
    });
}

/// `norm(y)`, in `out`; or `y` itself in a layer without that norm.
fn normalised<'a>(
    work: &Work<'_>,
    norm: &Option<Norm>,
    y: &'a [f32],
    out: &'a mut Vec<f32>,
) -> &'a [f32] {
    match norm {
        None => y,
        Some(norm) => {
            normalise(work, norm, y, out);
            out
        }
    }
}

/// `x += y`
fn add(work: &Work<'_>, x: &mut [f32], y: &[f32]) {
    let Work { isa, pool, shape, .. } = *work;
    let piece = rows_per_piece(pool, x.len() / shape.hidden, shape.hidden) * shape.hidden;
    each(pool, x.chunks_mut(piece).zip(y.chunks(piece)), |(x, y)| rows::add(isa, x, y));
}

/// `out = activation(gate) * up`
fn activate(work: &Work<'_>, gate: &[f32], up: &[f32], out: &mut Vec<f32>) {
    let Work { isa, pool, shape, .. } = *work;
    out.resize(up.len(), 0.0);
    let row_count = up.len() / shape.intermediate;
    let piece = rows_per_piece(pool, row_count, shape.intermediate) * shape.intermediate;
    let pieces = gate.chunks(piece).zip(up.chunks(piece)).zip(out.chunks_mut(piece));
    let gated = match shape.activation {
        Activation::Silu => rows::swiglu,
        Activation::GeluTanh => rows::geglu_tanh,
    };
    each(pool, pieces, |((gate, up), out)| gated(isa, gate, up, out));
}
