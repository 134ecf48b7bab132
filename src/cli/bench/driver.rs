//! Drives a model step by step and times it, as the engine would and without anything else.

use std::time::{Duration, Instant};

use super::rounds::Work;
use super::setup::blocks;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Failure;
use crate::model::{Batch, Logits, Model, Row, Wanted};
use crate::types::{BlockId, TokenId};

/// A model with sequences of random tokens, each in its own blocks.
///
/// The token at a position is always the same, so KV that one work left is right for the next.
pub struct Driver<'a> {
    model: Box<dyn Model>,
    sequences: Vec<Sequence>,
    interrupt: &'a Interrupt,
}

struct Sequence {
    tokens: Vec<TokenId>,
    blocks: Vec<BlockId>,
    /// Tokens that have KV.
    filled: usize,
}

impl Driver<'_> {
    /// For works of up to `count` sequences of `tokens` tokens; the model's pool holds them.
    pub fn new(
        model: Box<dyn Model>,
        count: usize,
        tokens: usize,
        interrupt: &Interrupt,
    ) -> Driver<'_> {
        let vocabulary = model.spec().vocabulary;
        let per_sequence = blocks(tokens) as u32;
        let sequences = (0..count as u32)
            .map(|index| Sequence {
                tokens: random_tokens(u64::from(index), vocabulary, tokens),
                blocks: (index * per_sequence..(index + 1) * per_sequence).map(BlockId).collect(),
                filled: 0,
            })
            .collect();
        Driver { model, sequences, interrupt }
    }

    /// Does the work once: tokens per second, of all sequences together.
    pub fn tokens_per_s(&mut self, work: &Work) -> Result<f64, Failure> {
        let time = match *work {
            Work::Prefill { tokens } => {
                self.sequences[0].filled = 0;
                let started = Instant::now();
                self.fill(0, tokens, Wanted::Last)?;
                started.elapsed()
            }
            Work::Decode { context, tokens } => self.decode(1, context, tokens)?,
            Work::Batch { sequences, context, tokens } => {
                self.decode(sequences, context, tokens)?
            }
        };
        Ok(work.timed_tokens() as f64 / time.as_secs_f64())
    }

    fn decode(&mut self, count: usize, context: usize, tokens: usize) -> Result<Duration, Failure> {
        for index in 0..count {
            self.fill(index, context, Wanted::None)?;
        }
        let started = Instant::now();
        for position in context..context + tokens {
            let rows = self.sequences[..count]
                .iter()
                .map(|sequence| sequence.row(position, position + 1, Wanted::Last))
                .collect();
            step(&mut *self.model, Batch { rows }, self.interrupt)?;
        }
        Ok(started.elapsed())
    }

    /// Prefills what a sequence lacks of its first `tokens` tokens.
    fn fill(&mut self, index: usize, tokens: usize, last: Wanted) -> Result<(), Failure> {
        let chunk = self.model.spec().prefill_tokens;
        let sequence = &mut self.sequences[index];
        while sequence.filled < tokens {
            let end = tokens.min(sequence.filled + chunk);
            let wanted = if end == tokens { last } else { Wanted::None };
            let rows = vec![sequence.row(sequence.filled, end, wanted)];
            step(&mut *self.model, Batch { rows }, self.interrupt)?;
            sequence.filled = end;
        }
        Ok(())
    }
}

impl Sequence {
    fn row(&self, start: usize, end: usize, logits: Wanted) -> Row<'_> {
        Row { tokens: &self.tokens[start..end], start, blocks: &self.blocks, logits }
    }
}

/// One step, unless the user has had enough.
pub fn step(
    model: &mut dyn Model,
    batch: Batch<'_>,
    interrupt: &Interrupt,
) -> Result<Vec<Logits>, Failure> {
    interrupt.check()?;
    Ok(model.step(&batch)?)
}

/// The same for the same seed: a xorshift (Marsaglia, 2003) from it.
pub fn random_tokens(seed: u64, vocabulary: usize, count: usize) -> Vec<TokenId> {
    // Zero would stay zero.
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count).map(|_| TokenId((next() % vocabulary as u64) as u32)).collect()
}

#[cfg(test)]
mod tests {
    use super::random_tokens;

    #[test]
    fn tokens_are_in_the_vocabulary_and_differ_between_sequences() {
        let (a, b) = (random_tokens(0, 50, 1000), random_tokens(1, 50, 1000));
        assert!(a.iter().chain(&b).all(|token| token.0 < 50));
        assert_eq!(a, random_tokens(0, 50, 1000));
        assert_ne!(a, b);
    }
}
