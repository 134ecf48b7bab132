//! Llama and what is built like it: SmolLM2, Llama 2 and 3.x, Mistral.
//!
//! Reference: `mlx_lm/models/llama.py`.

use super::{Architecture, Fields};
use crate::model::Error;
use crate::model::decoder::Config;
use crate::model::layers::Bias;

pub const LLAMA: Architecture =
    Architecture { model_type: "llama", interleaved_in_gguf: true, ..Architecture::new(config) };

/// Mistral's GGUF files say `llama`; its folders say `mistral`.
pub const MISTRAL: Architecture = Architecture { model_type: "mistral", ..LLAMA };

fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let attention_bias = fields.boolean("attention_bias")?.unwrap_or(false);
    let bias = |yes| if yes { Bias::Added } else { Bias::None };
    // A GGUF file shows its biases tensor by tensor, a config.json with one word.
    let qkv_bias = fields.boolean("q_bias")?.unwrap_or(attention_bias);
    let output_bias = fields.boolean("output_bias")?.unwrap_or(attention_bias);
    let decoder = fields.decoder(10_000.0)?;
    // Mistral 7B v0.1: with nothing said about single layers, a window is that of all of them.
    let windowed = fields.dimension("sliding_window")?.is_some();
    Ok(Config {
        layers: fields.layers(decoder.layers.len(), 0, |_| windowed)?,
        qkv_bias: bias(qkv_bias),
        output_bias: bias(output_bias),
        mlp_bias: bias(fields.boolean("mlp_bias")?.unwrap_or(false)),
        ..decoder
    })
}
