//! The portable path against mlx-lm, on the same version of MLX and with a 32-bit KV cache.

use std::path::Path;

use semantic::model::{
    Batch, Device, KvBits, KvConfig, LoadOptions, Model, ModelFiles, Row, Wanted,
};
use semantic::types::{BlockId, TokenId};

use crate::support::golden::{self, Golden};
use crate::support::greedy::greedy;
use crate::support::model::smollm2;

const POOL_BLOCKS: usize = 8;

/// How far from the golden an answer may be.
#[derive(Clone, Copy)]
struct Tolerance {
    logit: LogitTolerance,
    /// A greedy step whose two best tokens are closer than this may go either way.
    tie_nats: f64,
}

#[derive(Clone, Copy)]
enum LogitTolerance {
    /// To the largest logit of the position.
    Relative(f32),
    Absolute(f32),
}

const DENSE: Tolerance = Tolerance { logit: LogitTolerance::Relative(1e-4), tie_nats: 0.001 };
const QUANTISED: Tolerance = Tolerance { logit: LogitTolerance::Relative(1e-3), tie_nats: 0.001 };
/// Q6_K has a scale per 16 weights, MLX one per 32: tests/data/README.md has the measurement.
const REPACKED: Tolerance = Tolerance { logit: LogitTolerance::Absolute(0.25), tie_nats: 0.05 };

fn load(path: &Path) -> Box<dyn Model> {
    let files = ModelFiles::open(path).unwrap_or_else(|error| panic!("{error}"));
    let options = LoadOptions {
        kv: KvConfig::plain(KvBits::ThirtyTwo),
        pool_blocks: POOL_BLOCKS,
        device: Device::Portable,
        threads: None,
    };
    files.load(options).unwrap_or_else(|error| panic!("{error}"))
}

/// Largest difference of logits, as a share of what is tolerated.
fn logit_error(model: &mut dyn Model, golden: &Golden, tolerance: LogitTolerance) -> f32 {
    let blocks = [BlockId(3)];
    let row = Row { tokens: &golden.ids, start: 0, blocks: &blocks, logits: Wanted::All };
    let logits = &model.step(&Batch { rows: vec![row] }).expect("the batch is fine")[0];
    let mut worst = 0.0f32;
    for (&position, expected) in golden.positions.iter().zip(&golden.logits) {
        let found = logits.at(position);
        let most = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let tolerated = match tolerance {
            LogitTolerance::Relative(share) => share * most,
            LogitTolerance::Absolute(difference) => difference,
        };
        for (found, expected) in found.iter().zip(expected) {
            worst = worst.max((found - expected).abs() / tolerated);
        }
    }
    worst
}

/// The first greedy step that differs, unless it is a tie. After a tie nothing is comparable.
fn first_difference(golden: &Golden, found: &[TokenId], tie_nats: f64) -> Option<usize> {
    let step = golden.greedy.iter().zip(found).position(|(a, b)| a != b)?;
    (golden.margins[step] >= tie_nats).then_some(step)
}

#[track_caller]
fn check_greedy(what: &str, goldens: &[Golden], found: &[Vec<TokenId>], tie_nats: f64) {
    for (index, (golden, found)) in goldens.iter().zip(found).enumerate() {
        if let Some(step) = first_difference(golden, found, tie_nats) {
            let (found, expected) = (found[step], golden.greedy[step]);
            panic!("{what}: prompt {index}: token {step} is {found} instead of {expected}");
        }
    }
}

#[track_caller]
fn check(model_path: &Path, golden_folder: &Path, tolerance: Tolerance) {
    let goldens = golden::read(golden_folder);
    assert!(!goldens.is_empty());
    let mut model = load(model_path);
    for (index, golden) in goldens.iter().enumerate() {
        let error = logit_error(&mut *model, golden, tolerance.logit);
        let name = model_path.display();
        assert!(error < 1.0, "{name}: prompt {index}: off by {error} times what is tolerated");
    }
    let prompts: Vec<&[TokenId]> = goldens.iter().map(|golden| &golden.ids[..]).collect();
    let count = goldens[0].greedy.len();
    assert!(count >= 32);
    // Whole prompts first, then ragged batches of ever smaller chunks.
    for chunk in [usize::MAX / 2, 64, 7, 1] {
        let found = greedy(&mut *model, &prompts, chunk, count);
        let what = format!("{}, chunks of {chunk}", model_path.display());
        check_greedy(&what, &goldens, &found, tolerance.tie_nats);
    }
}

fn check_tiny(name: &str, tolerance: Tolerance) {
    let folder = golden::data(&format!("tiny/{name}"));
    check(&folder, &folder, tolerance);
}

#[test]
fn tiny_llamas_answer_as_mlx_lm_does() {
    for name in ["llama-f32", "llama-f16", "llama-bf16", "llama-bias", "llama3-rope", "mistral"] {
        check_tiny(name, DENSE);
    }
    for name in ["llama-q4-g32", "llama-q4-g64", "llama-mixed"] {
        check_tiny(name, QUANTISED);
    }
}

#[test]
fn tiny_qwens_answer_as_mlx_lm_does() {
    for name in ["qwen2", "qwen3"] {
        check_tiny(name, DENSE);
    }
    for name in ["qwen2-q4-g32", "qwen2-q4-g64", "qwen3-q4-g32", "qwen3-q4-g64", "qwen3-q8-g64"] {
        check_tiny(name, QUANTISED);
    }
}

#[test]
fn gguf_files_answer_as_their_weights_do_elsewhere() {
    // The same weights as the folder of that name, permuted and renamed as llama.cpp has them.
    for name in ["llama-f16", "llama3-rope", "qwen2", "qwen3"] {
        let file = golden::data(&format!("gguf/{name}.gguf"));
        check(&file, &golden::data(&format!("tiny/{name}")), DENSE);
    }
    for name in ["llama-legacy-quants", "qwen3-q4-q5-k"] {
        let file = golden::data(&format!("gguf/{name}.gguf"));
        check(&file, &golden::data(&format!("gguf/{name}")), QUANTISED);
    }
}

#[test]
fn a_gguf_file_with_q6_k_answers_nearly_as_its_weights_do_elsewhere() {
    let file = golden::data("gguf/qwen3-q4-k-m.gguf");
    check(&file, &golden::data("gguf/qwen3-q4-k-m"), REPACKED);
}

/// The real default model: all prompts of one half in a ragged batch, whole prefills.
/// MLX's quantised product does 10 tokens/s on a CPU whatever the batch, so the halves are two
/// tests, which run side by side.
fn check_smollm2(half: usize) {
    let goldens = golden::read(&golden::data("smollm2"));
    assert_eq!(goldens.len(), 8);
    let goldens = goldens.into_iter().skip(half).step_by(2).collect::<Vec<_>>();
    let prompts: Vec<&[TokenId]> = goldens.iter().map(|golden| &golden.ids[..]).collect();
    let mut model = load(smollm2());
    let found = greedy(&mut *model, &prompts, usize::MAX / 2, goldens[0].greedy.len());
    check_greedy("SmolLM2", &goldens, &found, QUANTISED.tie_nats);
}

#[test]
fn smollm2_answers_as_mlx_lm_does_first_half() {
    check_smollm2(0);
}

#[test]
fn smollm2_answers_as_mlx_lm_does_second_half() {
    check_smollm2(1);
}

#[test]
fn every_tiny_model_is_tested() {
    let mut names: Vec<String> = std::fs::read_dir(golden::data("tiny"))
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    let source = include_str!("golden.rs");
    for name in names {
        assert!(source.contains(&format!("\"{name}\"")), "{name} is in no test");
    }
}
