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
    /// By RoPE rule.
    pub angles: Vec<Angles>,
}

/// The tokens' angles by one RoPE rule.
pub struct Angles {
    /// The cosines, `[token, head_dim / 2]`.
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
    pub fn new(batch: &Batch<'_>, ropes: &[Frequencies]) -> Plan {
        let mut plan = Plan {
            tokens: Vec::new(),
            positions: Vec::new(),
            rows: Vec::new(),
            wanted: Vec::new(),
            angles: Vec::new(),
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
        plan.angles = ropes.iter().map(|rope| Angles::new(&plan.positions, rope)).collect();
        plan
    }

    /// Where a token of a row goes: its block, and its slot there.
    pub fn place(&self, row: &RowPlan, token: usize) -> (BlockId, usize) {
        let position = self.positions[token];
        (row.blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS)
    }
}

impl Angles {
    fn new(positions: &[usize], rope: &Frequencies) -> Angles {
        let half = rope.len();
        let len = positions.len() * half;
        let mut angles = Angles { cos: vec![0.0; len], sin: vec![0.0; len] };
        let pairs = angles.cos.chunks_exact_mut(half).zip(angles.sin.chunks_exact_mut(half));
        for (&position, (cos, sin)) in positions.iter().zip(pairs) {
            rope.angles(position, cos, sin);
        }
        angles
    }
}
