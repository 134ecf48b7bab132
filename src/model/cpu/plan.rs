//! What a step is to do, worked out once and read by every layer.

use kernels::decoder::{Angles, Sequence, Shape, Step};

use super::slab::Slab;
use crate::model::rope::Frequencies;
use crate::model::{Batch, Wanted};
use crate::types::{BLOCK_TOKENS, TokenId};

pub struct Plan {
    /// Of all rows, one after another.
    pub tokens: Vec<TokenId>,
    pub step: Step,
    /// The tokens whose logits are wanted, in the order of the rows.
    pub wanted: Vec<usize>,
}

impl Plan {
    pub fn new(
        batch: &Batch<'_>,
        ropes: &[Frequencies],
        shape: &Shape,
        slab: &Slab,
        threads: usize,
    ) -> Plan {
        let mut tokens = Vec::new();
        let mut wanted = Vec::new();
        let mut sequences = Vec::new();
        for row in &batch.rows {
            let first = tokens.len();
            tokens.extend_from_slice(row.tokens);
            match row.logits {
                Wanted::None => (),
                Wanted::Last => wanted.push(tokens.len() - 1),
                Wanted::All => wanted.extend(first..tokens.len()),
            }
            let blocks = &row.blocks[..row.end().div_ceil(BLOCK_TOKENS)];
            sequences.push(Sequence {
                start: row.start,
                tokens: row.tokens.len(),
                blocks: blocks.iter().map(|&block| slab.offset(block)).collect(),
            });
        }
        let positions = || batch.rows.iter().flat_map(|row| row.start..row.end());
        let angles = ropes.iter().map(|rope| angles(rope, positions(), tokens.len())).collect();
        let step = Step::new(sequences, angles, slab.block_bytes(), shape, threads);
        Plan { tokens, step, wanted }
    }
}

fn angles(rope: &Frequencies, positions: impl Iterator<Item = usize>, tokens: usize) -> Angles {
    let half = rope.len();
    let mut cos = vec![0.0; tokens * half];
    let mut sin = vec![0.0; tokens * half];
    let rows = cos.chunks_exact_mut(half).zip(sin.chunks_exact_mut(half));
    for (position, (cos, sin)) in positions.zip(rows) {
        rope.angles(position, cos, sin);
    }
    Angles { cos, sin }
}
