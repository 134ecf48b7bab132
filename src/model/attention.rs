//! Attention of a ragged batch: per row RoPE at its own position, its own blocks, its own length.

use mlx_rs::fast::{self, ScaledDotProductAttentionMask};
use mlx_rs::{Array, ops};

use super::kv::{self, Kv, KvConfig, Run};
use super::layers;
use super::rope::Rope;
use super::{Batch, Error, Row};

/// What the layers of one step share: the rows, and the KV they read and write.
pub struct Attention<'a> {
    batch: &'a Batch<'a>,
    kv: &'a mut Kv,
    config: KvConfig,
    writes: Vec<Run>,
}

/// One layer's projections for all tokens of the step, before RoPE.
pub struct Projections {
    /// `[token, query_head, head_dim]`
    pub queries: Array,
    /// `[token, kv_head, head_dim]`
    pub keys: Array,
    /// `[token, kv_head, head_dim]`
    pub values: Array,
}

/// How one layer attends.
#[derive(Clone, Copy)]
pub struct Rule<'a> {
    pub rope: &'a Rope,
    /// Scores are multiplied by this.
    pub scale: f32,
    /// A token sees only so many, itself included.
    pub window: Option<usize>,
}

impl<'a> Attention<'a> {
    pub fn new(batch: &'a Batch<'a>, kv: &'a mut Kv, config: KvConfig) -> Attention<'a> {
        let mut token = 0;
        let mut writes = Vec::new();
        for row in &batch.rows {
            writes.extend(kv::write_runs(row, token));
            token += row.tokens.len();
        }
        Attention { batch, kv, config, writes }
    }

    /// Appends K and V of the step and attends causally: `[token, query_head * head_dim]`.
    pub fn attend(
        &mut self,
        layer: usize,
        projections: &Projections,
        rule: Rule<'_>,
    ) -> Result<Array, Error> {
        let (queries, keys) = self.rotate_by_position(projections, rule.rope)?;
        self.kv.append(layer, &self.writes, &keys, &projections.values)?;
        let mut outputs = Vec::new();
        for (row, queries) in self.batch.rows.iter().zip(&queries) {
            let first = first_key(row.start, rule.window);
            let (keys, values) = self.kv.read(layer, row, first, queries.dtype())?;
            let queries = match self.config.key.rotated {
                false => queries.clone(),
                true => kv::rotate(queries)?,
            };
            let window_mask;
            let mask = match (row.tokens.len(), rule.window) {
                (1, _) => None,
                (_, Some(window)) if row.end() - first > window => {
                    window_mask = mask(row, first, window);
                    Some(ScaledDotProductAttentionMask::Array(&window_mask))
                }
                _ => Some(ScaledDotProductAttentionMask::Causal),
            };
            let scale = rule.scale;
            let output =
                fast::scaled_dot_product_attention(&queries, &keys, &values, scale, mask, None)?;
            let output = match self.config.value.rotated {
                false => output,
                true => kv::rotate(&output)?,
            };
            // [1, head, token, head_dim] → [token, head * head_dim]
            let output = output.transpose_axes(&[0, 2, 1, 3])?;
            outputs.push(output.reshape(&[row.tokens.len() as i32, -1])?);
        }
        join(outputs)
    }

    /// RoPE: queries per row as `[1, head, token, head_dim]`, keys of all rows as
    /// `[token, head, head_dim]`.
    fn rotate_by_position(
        &self,
        projections: &Projections,
        rope: &Rope,
    ) -> Result<(Vec<Array>, Array), Error> {
        let mut queries = Vec::new();
        let mut keys = Vec::new();
        let mut from = 0;
        for row in &self.batch.rows {
            let to = from + row.tokens.len();
            let heads_first = |x: &Array| {
                let x = layers::rows(x, from, to)?;
                Ok::<_, Error>(x.transpose_axes(&[1, 0, 2])?.expand_dims(0)?)
            };
            queries.push(rope.apply(&heads_first(&projections.queries)?, row.start)?);
            let rotated = rope.apply(&heads_first(&projections.keys)?, row.start)?;
            keys.push(rotated.squeeze_axes(&[0])?.transpose_axes(&[1, 0, 2])?);
            from = to;
        }
        Ok((queries, join(keys)?))
    }
}

/// The first position that a token at `position` sees.
fn first_key(position: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| (position + 1).saturating_sub(window))
}

/// Which of the positions `first .. row.end()` each new token sees: `[token, position]`.
fn mask(row: &Row<'_>, first: usize, window: usize) -> Array {
    let seen: Vec<bool> = (row.start..row.end())
        .flat_map(|query| {
            let from = first_key(query, Some(window));
            (first..row.end()).map(move |key| (from..=query).contains(&key))
        })
        .collect();
    Array::from_slice(&seen, &[row.tokens.len() as i32, (row.end() - first) as i32])
}

fn join(mut pieces: Vec<Array>) -> Result<Array, Error> {
    match pieces.len() {
        1 => Ok(pieces.remove(0)),
        _ => Ok(ops::concatenate(&pieces, 0)?),
    }
}
