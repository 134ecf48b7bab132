//! Drives a model greedily, several sequences in one ragged batch.

use semantic::model::sample::argmax;
use semantic::model::{Batch, Model, Row, Wanted};
use semantic::types::{BLOCK_TOKENS, BlockId, TokenId};

/// A sequence on its way: what it has been given, and how much of that has KV.
struct Sequence {
    tokens: Vec<TokenId>,
    done: usize,
    blocks: Vec<BlockId>,
    first_logits: Vec<f32>,
}

/// What a model made of a prompt.
pub struct Answer {
    pub tokens: Vec<TokenId>,
    /// Of the prompt's last position, from which the first token was chosen.
    pub first_logits: Vec<f32>,
}

/// Prefills all prompts at once, `chunk` tokens of each per step, then decodes `count` tokens of
/// each. A sequence decodes as soon as its own prompt is in, while others still prefill.
pub fn greedy(
    model: &mut dyn Model,
    prompts: &[&[TokenId]],
    chunk: usize,
    count: usize,
) -> Vec<Answer> {
    let mut next_block = 0;
    let mut sequences: Vec<Sequence> = prompts
        .iter()
        .map(|prompt| {
            let blocks = (prompt.len() + count).div_ceil(BLOCK_TOKENS) as u32;
            next_block += blocks;
            // Descending, so that a sequence's blocks are not neighbours in the pool.
            let blocks = (next_block - blocks..next_block).rev().map(BlockId).collect();
            Sequence { tokens: prompt.to_vec(), done: 0, blocks, first_logits: Vec::new() }
        })
        .collect();
    let finished =
        |sequence: &Sequence, prompt: &[TokenId]| sequence.tokens.len() == prompt.len() + count;
    loop {
        let active: Vec<usize> = (0..prompts.len())
            .filter(|&index| !finished(&sequences[index], prompts[index]))
            .collect();
        if active.is_empty() {
            break;
        }
        let rows = active
            .iter()
            .map(|&index| {
                let sequence = &sequences[index];
                let end = sequence.tokens.len().min(sequence.done + chunk);
                let logits = match end == sequence.tokens.len() {
                    true => Wanted::Last,
                    false => Wanted::None,
                };
                Row {
                    tokens: &sequence.tokens[sequence.done..end],
                    start: sequence.done,
                    blocks: &sequence.blocks,
                    logits,
                }
            })
            .collect();
        let batch = Batch { rows };
        let ends: Vec<usize> = batch.rows.iter().map(Row::end).collect();
        let logits = model.step(&batch).expect("the batch is fine");
        for ((&index, end), logits) in active.iter().zip(ends).zip(logits) {
            let sequence = &mut sequences[index];
            sequence.done = end;
            if logits.positions() > 0 {
                if sequence.first_logits.is_empty() {
                    sequence.first_logits = logits.last().to_vec();
                }
                sequence.tokens.push(argmax(logits.last()));
            }
        }
    }
    sequences
        .into_iter()
        .zip(prompts)
        .map(|(sequence, prompt)| Answer {
            tokens: sequence.tokens[prompt.len()..].to_vec(),
            first_logits: sequence.first_logits,
        })
        .collect()
}
