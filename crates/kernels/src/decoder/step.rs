//! What a step is to do, worked out once and read by every layer.

use std::ops::Range;

use super::Shape;
use crate::kv::BLOCK_TOKENS;

/// Rows of one sequence that attend in one task: enough to share what is read of the KV, and few
/// enough that the threads end at about the same time. A chunk that follows a long context has some
/// tens of rows: of 32 at a time, a model with 3 KV heads has 3 tasks, and one of two threads waits
/// for a quarter of the phase.
const TILE_ROWS: usize = 8;
/// Attention tasks per thread below which single rows are cut into their blocks.
const TASKS_PER_THREAD_MIN: usize = 4;

/// New tokens of one sequence.
pub struct Sequence {
    /// The position of the first.
    pub start: usize,
    pub tokens: usize,
    /// Where the blocks that hold the sequence once the step is done begin in the KV cache, in bytes.
    pub blocks: Vec<usize>,
}

impl Sequence {
    /// Of the new tokens, for which there are blocks.
    fn positions(&self) -> Range<usize> {
        let end = self.start.checked_add(self.tokens).expect("positions are small numbers");
        assert!(
            self.tokens == 0 || end.div_ceil(BLOCK_TOKENS) <= self.blocks.len(),
            "too few blocks"
        );
        self.start..end
    }
}

/// The cosines and sines by which the heads of each token turn, `[token, head_dim / 2]`.
pub struct Angles {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

/// A step: its sequences' tokens one after another, and how its attention is cut into tasks.
pub struct Step {
    pub(super) sequences: Vec<Sequence>,
    /// Each sequence's first token, counted over all.
    pub(super) firsts: Vec<usize>,
    /// Of each token in its sequence.
    pub(super) positions: Vec<usize>,
    pub(super) angles: Vec<Angles>,
    pub(super) writes: Vec<Write>,
    pub(super) tiles: Vec<Tile>,
    pub(super) pieces: Vec<Piece>,
    pub(super) merges: Vec<Merge>,
    block_bytes: usize,
    kv_heads: usize,
}

/// New tokens that go to one block.
pub(super) struct Write {
    pub(super) block: usize,
    /// Of the first of them.
    pub(super) slot: usize,
    pub(super) token: usize,
    pub(super) tokens: usize,
}

/// Some tokens of a sequence that attend together, for one KV head.
pub(super) struct Tile {
    pub(super) sequence: usize,
    pub(super) kv_head: usize,
    pub(super) token: usize,
    pub(super) tokens: usize,
}

/// One block of a sequence with a single new token, for one KV head.
pub(super) struct Piece {
    pub(super) sequence: usize,
    pub(super) kv_head: usize,
    pub(super) block: usize,
}

/// All pieces of a sequence and KV head, which are consecutive.
pub(super) struct Merge {
    pub(super) sequence: usize,
    pub(super) kv_head: usize,
    pub(super) first_piece: usize,
    pub(super) pieces: usize,
}

impl Step {
    /// `block_bytes` is what a block takes, all layers together.
    ///
    /// # Panics
    /// When two sequences write to the same block or to overlapping ones, or one has too few blocks.
    pub fn new(
        sequences: Vec<Sequence>,
        angles: Vec<Angles>,
        block_bytes: usize,
        shape: &Shape,
        threads: usize,
    ) -> Step {
        let kv_heads = shape.layout.kv_heads();
        let mut step = Step {
            sequences,
            firsts: Vec::new(),
            positions: Vec::new(),
            angles,
            writes: Vec::new(),
            tiles: Vec::new(),
            pieces: Vec::new(),
            merges: Vec::new(),
            block_bytes,
            kv_heads,
        };
        for sequence in &step.sequences {
            step.firsts.push(step.positions.len());
            step.positions.extend(sequence.positions());
        }
        step.plan_writes();
        let singles = step.sequences.iter().filter(|sequence| sequence.tokens == 1).count();
        let cuts = threads > 1 && singles * kv_heads < threads * TASKS_PER_THREAD_MIN;
        for index in 0..step.sequences.len() {
            step.plan_attention(index, cuts);
        }
        // Later tiles see more keys: taken first, they do not make the other threads wait at the end.
        step.tiles.reverse();
        step
    }

    fn plan_writes(&mut self) {
        for (sequence, &first) in self.sequences.iter().zip(&self.firsts) {
            let end = first + sequence.tokens;
            let mut token = first;
            while token < end {
                let position = self.positions[token];
                let slot = position % BLOCK_TOKENS;
                let tokens = (BLOCK_TOKENS - slot).min(end - token);
                let block = sequence.blocks[position / BLOCK_TOKENS];
                self.writes.push(Write { block, slot, token, tokens });
                token += tokens;
            }
        }
        let mut blocks: Vec<usize> = self.writes.iter().map(|write| write.block).collect();
        blocks.sort_unstable();
        let mut pairs = blocks.array_windows();
        let apart = |[first, second]: &[usize; 2]| second - first >= self.block_bytes;
        assert!(pairs.all(apart), "two sequences write to one block");
    }

    fn plan_attention(&mut self, index: usize, cuts: bool) {
        let sequence = &self.sequences[index];
        let blocks = sequence.positions().end.div_ceil(BLOCK_TOKENS);
        for kv_head in 0..self.kv_heads {
            if cuts && sequence.tokens == 1 && blocks > 1 {
                let first_piece = self.pieces.len();
                let piece = |block| Piece { sequence: index, kv_head, block };
                self.pieces.extend((0..blocks).map(piece));
                self.merges.push(Merge { sequence: index, kv_head, first_piece, pieces: blocks });
                continue;
            }
            let (first, end) = (self.firsts[index], self.firsts[index] + sequence.tokens);
            self.tiles.extend((first..end).step_by(TILE_ROWS).map(|token| {
                let tokens = TILE_ROWS.min(end - token);
                Tile { sequence: index, kv_head, token, tokens }
            }));
        }
    }

    /// Of all sequences.
    pub fn tokens(&self) -> usize {
        self.positions.len()
    }

    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Asserts that a layer stays within the KV cache and its own part of each block. Then no sum of
    /// a block's start, `part` and an offset within the part overflows.
    pub(super) fn check(&self, shape: &Shape, cache_bytes: usize, part: usize) {
        assert_eq!(shape.layout.kv_heads(), self.kv_heads);
        let fits = |start: usize, len: usize, room: usize| {
            start.checked_add(len).is_some_and(|end| end <= room)
        };
        assert!(
            fits(part, shape.layout.bytes(), self.block_bytes),
            "part {part} is not in a block"
        );
        for block in self.sequences.iter().flat_map(|sequence| &sequence.blocks) {
            assert!(
                fits(*block, self.block_bytes, cache_bytes),
                "block {block} is not in the cache"
            );
        }
        let half = shape.layout.head_dim() / 2;
        for Angles { cos, sin } in &self.angles {
            assert_eq!((cos.len(), sin.len()), (self.tokens() * half, self.tokens() * half));
        }
    }
}
