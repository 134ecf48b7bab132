//! The kernel path's promise: the bits of a row's logits depend on that row's tokens and on nothing
//! else. Not on the other rows, the chunks, the threads or the blocks.

use std::path::Path;

use semantic::model::{Batch, Device, LoadOptions, Model, ModelFiles, Row, Wanted};
use semantic::types::{BLOCK_TOKENS, BlockId, TokenId};

use crate::support::golden;
use crate::support::model::smollm2;

const POOL_BLOCKS: usize = 32;

fn load(path: &Path, kv: &str, threads: usize) -> Box<dyn Model> {
    let options = LoadOptions {
        kv: kv.parse().unwrap(),
        pool_blocks: POOL_BLOCKS,
        device: Device::Cpu,
        threads: Some(threads),
    };
    ModelFiles::open(path).unwrap().load(options).unwrap()
}

/// A sequence of its own for every seed.
fn ids(seed: usize, count: usize, vocabulary: usize) -> Vec<TokenId> {
    (0..count).map(|i| TokenId(((i * (2 * seed + 7) + i / 5 + seed) % vocabulary) as u32)).collect()
}

/// The logits after each of `sequences`, all prefilled together, `chunk` tokens of each per step.
fn logits(model: &mut dyn Model, sequences: &[Vec<TokenId>], chunk: usize) -> Vec<Vec<f32>> {
    let mut next_block = 0;
    let tables: Vec<Vec<BlockId>> = sequences
        .iter()
        .map(|tokens| {
            let count = tokens.len().div_ceil(BLOCK_TOKENS) as u32;
            next_block += count;
            (next_block - count..next_block).rev().map(BlockId).collect()
        })
        .collect();
    let mut done = vec![0; sequences.len()];
    let mut last = vec![Vec::new(); sequences.len()];
    while let Some(longest) = (0..sequences.len()).find(|&i| done[i] < sequences[i].len()) {
        let active: Vec<usize> =
            (longest..sequences.len()).filter(|&i| done[i] < sequences[i].len()).collect();
        let rows = active
            .iter()
            .map(|&i| {
                let end = sequences[i].len().min(done[i] + chunk);
                let tokens = &sequences[i][done[i]..end];
                Row { tokens, start: done[i], blocks: &tables[i], logits: Wanted::Last }
            })
            .collect();
        let found = model.step(&Batch { rows }).unwrap();
        for (&i, logits) in active.iter().zip(found) {
            done[i] = sequences[i].len().min(done[i] + chunk);
            last[i] = logits.last().to_vec();
        }
    }
    last
}

fn check(path: &Path, kv: &str, lengths: [usize; 8]) {
    let mut alone = load(path, kv, 1);
    let vocabulary = alone.spec().vocabulary;
    let sequences: Vec<Vec<TokenId>> =
        lengths.iter().enumerate().map(|(seed, &len)| ids(seed, len, vocabulary)).collect();
    let expected: Vec<Vec<f32>> = sequences
        .iter()
        .map(|tokens| logits(&mut *alone, std::slice::from_ref(tokens), usize::MAX / 2).remove(0))
        .collect();
    for threads in [1, 2, 3] {
        let mut model = load(path, kv, threads);
        for chunk in [1, 17, 256, usize::MAX / 2] {
            let found = logits(&mut *model, &sequences, chunk);
            for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let same = found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
                let what = path.display();
                assert!(same, "{what}, KV {kv}, row {row}, chunks of {chunk}, {threads} threads");
            }
        }
    }
}

#[test]
fn batch_chunks_and_threads_change_no_bit_of_a_tiny_model() {
    let lengths = [300, 1, 7, 64, 257, 33, 2, 128];
    for (name, kv) in [
        ("llama-f32", "8"),
        ("llama-q4-g32", "16"),
        ("llama3-rope", "4r"),
        ("qwen2-q4-g64", "8/4r"),
        ("qwen3-q8-g64", "32"),
        ("gemma3", "8"),
        ("gemma3-q4-g32", "8/4r"),
    ] {
        check(&golden::data(&format!("tiny/{name}")), kv, lengths);
    }
}

#[test]
fn batch_chunks_and_threads_change_no_bit_where_a_window_is_longer_than_a_block() {
    let lengths = [700, 1, 301, 556, 257, 33, 513, 300];
    check(&golden::data("tiny/gemma3-wide-window"), "16", lengths);
}

#[test]
fn batch_chunks_and_threads_change_no_bit_of_smollm2() {
    check(smollm2(), "8", [40, 1, 9, 17, 33, 5, 2, 64]);
}
