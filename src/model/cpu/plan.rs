//! What a step is to do, worked out once and read by every layer.

use crate::model::rope::Frequencies;
use crate::model::{Batch, Wanted};
use crate::types::{BLOCK_TOKENS, BlockId, TokenId};

/// A step: its tokens one after another, whose they are, and where their KV goes.
pub struct Plan {
    pub tokens: Vec<TokenId>,
    /// Position of each token in its sequence.
    pub positions: Vec<usize>,
    pub rows: Vec<RowPlan>,
    /// The tokens whose logits are wanted, in the order of the rows.
    pub wanted: Vec<usize>,
    /// The cosines of each token's angles, `[token, head_dim / 2]`.
    pub cos: Vec<f32>,
    /// The sines, likewise.
    pub sin: Vec<f32>,
}

/// One sequence's share of a step.
pub struct RowPlan {
    /// Its first token, counted over all rows.
    pub first: usize,
    pub len: usize,
    /// The blocks that hold the sequence once the step is done.
    pub blocks: Vec<BlockId>,
}

impl Plan {
    pub fn new(batch: &Batch<'_>, rope: &Frequencies) -> Plan {
        let mut plan = Plan {
            tokens: Vec::new(),
            positions: Vec::new(),
            rows: Vec::new(),
            wanted: Vec::new(),
            cos: Vec::new(),
            sin: Vec::new(),
        };
        for row in &batch.rows {
            let first = plan.tokens.len();
            plan.tokens.extend_from_slice(row.tokens);
            plan.positions.extend(row.start..row.end());
            plan.rows.push(RowPlan {
                first,
                len: row.tokens.len(),
                blocks: row.blocks[..row.end().div_ceil(BLOCK_TOKENS)].to_vec(),
            });
            match row.logits {
                Wanted::None => (),
                Wanted::Last => plan.wanted.push(plan.tokens.len() - 1),
                Wanted::All => plan.wanted.extend(first..plan.tokens.len()),
            }
        }
        let half = rope.len();
        plan.cos.resize(plan.tokens.len() * half, 0.0);
        plan.sin.resize(plan.tokens.len() * half, 0.0);
        let angles = plan.cos.chunks_exact_mut(half).zip(plan.sin.chunks_exact_mut(half));
        for (&position, (cos, sin)) in plan.positions.iter().zip(angles) {
            rope.angles(position, cos, sin);
        }
        plan
    }

    /// Where a token of a row goes: its block, and its slot there.
    pub fn place(&self, row: &RowPlan, token: usize) -> (BlockId, usize) {
        let position = self.positions[token];
        (row.blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS)
    }
}
