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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value as Json, json};

    use super::*;

    /// The windows of a two-layer model with these fields.
    fn windows(field: &str, value: Json) -> Vec<Option<usize>> {
        let mut json = json!({
            "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96,
            "num_attention_heads": 2, "vocab_size": 288, "sliding_window": 4096,
        });
        json[field] = value;
        let map = json.as_object().expect("an object");
        let config = config(&Fields { path: Path::new("config.json"), map }).expect("complete");
        config.layers.iter().map(|layer| layer.window).collect()
    }

    #[test]
    fn a_window_is_that_of_all_layers_unless_they_are_listed() {
        let window = Some(4096);
        assert_eq!(windows("rope_theta", json!(1e4)), [window, window]);
        assert_eq!(windows("sliding_window", Json::Null), [None, None]);
        let types = json!(["full_attention", "sliding_attention"]);
        assert_eq!(windows("layer_types", types), [None, window]);
    }
}
