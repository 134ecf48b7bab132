//! Llama and what is built like it: SmolLM2, Llama 2 and 3.x, Mistral.
//!
//! Reference: `mlx_lm/models/llama.py`.

use super::{Architecture, Fields};
use crate::model::Error;
use crate::model::decoder::Config;
use crate::model::layers::Bias;

pub const LLAMA: Architecture =
    Architecture { model_type: "llama", interleaved_in_gguf: true, config };

/// Mistral's GGUF files say `llama`; its folders say `mistral`.
pub const MISTRAL: Architecture = Architecture { model_type: "mistral", ..LLAMA };

fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    fields.refuse_windows()?;
    let attention_bias = fields.boolean("attention_bias")?.unwrap_or(false);
    let bias = |yes| if yes { Bias::Added } else { Bias::None };
    // A GGUF file shows its biases tensor by tensor, a config.json with one word.
    let qkv_bias = fields.boolean("q_bias")?.unwrap_or(attention_bias);
    let output_bias = fields.boolean("output_bias")?.unwrap_or(attention_bias);
    Ok(Config {
        qkv_bias: bias(qkv_bias),
        output_bias: bias(output_bias),
        mlp_bias: bias(fields.boolean("mlp_bias")?.unwrap_or(false)),
        ..fields.decoder(10_000.0)?
    })
}
