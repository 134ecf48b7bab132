//! The architectures we know, one file each, chosen by `model_type` from this table.

mod fields;
mod llama;
mod qwen2;
mod qwen3;

pub use fields::Fields;

use super::Error;
use super::decoder::Config;

/// How an architecture differs from the others.
pub struct Architecture {
    /// The `model_type` of its `config.json`, or `general.architecture` of its GGUF files.
    pub model_type: &'static str,
    /// llama.cpp's converter interleaves the halves of each head's q and k rows.
    pub interleaved_in_gguf: bool,
    pub config: fn(&Fields<'_>) -> Result<Config, Error>,
}

const ARCHITECTURES: &[Architecture] = &[llama::LLAMA, llama::MISTRAL, qwen2::QWEN2, qwen3::QWEN3];

/// The architecture of a model type, or the names of those we know.
pub fn find(model_type: &str) -> Result<&'static Architecture, Vec<&'static str>> {
    ARCHITECTURES
        .iter()
        .find(|architecture| architecture.model_type == model_type)
        .ok_or_else(|| ARCHITECTURES.iter().map(|known| known.model_type).collect())
}
