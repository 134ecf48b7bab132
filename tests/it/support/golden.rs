//! Reads what mlx-lm answered; `tests/data/README.md` describes the files.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use semantic::types::TokenId;
use serde_json::Value as Json;

/// A prompt with mlx-lm's answer.
pub struct Golden {
    pub ids: Vec<TokenId>,
    /// Positions of the prompt whose logits are known.
    pub positions: Vec<usize>,
    /// `[position][token]`
    pub logits: Vec<Vec<f32>>,
    pub greedy: Vec<TokenId>,
    /// Per greedy step the lead of the best token over the second, in nats.
    pub margins: Vec<f64>,
    /// The best tokens of the prompt's last position and their logits, if the file has them.
    pub top_ids: Vec<TokenId>,
    pub top_logits: Vec<f32>,
}

pub fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// The prompts of `golden.json` in a folder, with the logits of `golden.safetensors` if it is there.
pub fn read(folder: &Path) -> Vec<Golden> {
    read_file(&folder.join("golden.json"))
}

/// The prompts of one file of that form.
pub fn read_file(path: &Path) -> Vec<Golden> {
    let json: Json =
        serde_json::from_slice(&std::fs::read(path).expect("the file is there")).expect("JSON");
    let tensors = std::fs::read(path.with_extension("safetensors")).ok();
    let tensors =
        tensors.as_ref().map(|bytes| SafeTensors::deserialize(bytes).expect("a safetensors file"));
    json["prompts"]
        .as_array()
        .expect("prompts")
        .iter()
        .enumerate()
        .map(|(index, prompt)| Golden {
            ids: ids(&prompt["ids"]),
            positions: numbers(&prompt["positions"]).map(|n| n as usize).collect(),
            logits: tensors
                .as_ref()
                .map_or_else(Vec::new, |tensors| rows(tensors, &format!("logits.{index}"))),
            greedy: ids(&prompt["greedy"]),
            margins: numbers(&prompt["margins"]).collect(),
            top_ids: ids(&prompt["top_ids"]),
            top_logits: numbers(&prompt["top_logits"]).map(|logit| logit as f32).collect(),
        })
        .collect()
}

fn ids(json: &Json) -> Vec<TokenId> {
    numbers(json).map(|id| TokenId(id as u32)).collect()
}

fn numbers(json: &Json) -> impl Iterator<Item = f64> {
    json.as_array().into_iter().flatten().map(|n| n.as_f64().expect("a number"))
}

fn rows(tensors: &SafeTensors<'_>, name: &str) -> Vec<Vec<f32>> {
    let tensor = tensors.tensor(name).expect("the tensor is there");
    let values: Vec<f32> =
        tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    values.chunks_exact(tensor.shape()[1]).map(<[f32]>::to_vec).collect()
}
