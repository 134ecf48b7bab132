//! The architectures we know, one file each, chosen by `model_type` from this table.

mod fields;
mod gemma3;
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
    /// Modules of a layer that its GGUF files call otherwise than most: Hugging Face's name and
    /// theirs.
    pub gguf_modules: &'static [(&'static str, &'static str)],
    /// Before the name of every tensor in a folder, where the model is a part of a larger one.
    pub folder_prefix: &'static str,
    pub config: fn(&Fields<'_>) -> Result<Config, Error>,
}

impl Architecture {
    /// One whose files are as most are; the name is still to be given.
    const fn new(config: fn(&Fields<'_>) -> Result<Config, Error>) -> Architecture {
        Architecture {
            model_type: "",
            interleaved_in_gguf: false,
            gguf_modules: &[],
            folder_prefix: "",
            config,
        }
    }
}

const ARCHITECTURES: &[Architecture] = &[
    llama::LLAMA,
    llama::MISTRAL,
    qwen2::QWEN2,
    qwen3::QWEN3,
    gemma3::GEMMA3,
    gemma3::GEMMA3_TEXT,
];

/// The architecture of a model type, or the names of those we know.
pub fn find(model_type: &str) -> Result<&'static Architecture, Vec<&'static str>> {
    ARCHITECTURES
        .iter()
        .find(|architecture| architecture.model_type == model_type)
        .ok_or_else(|| ARCHITECTURES.iter().map(|known| known.model_type).collect())
}
