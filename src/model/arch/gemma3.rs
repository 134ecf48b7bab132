//! Gemma 3: most layers see only a window and have a RoPE base of their own, every sixth sees all;
//! norms around both halves of a layer, on queries and on keys.
//!
//! Reference: `mlx_lm/models/gemma3_text.py`; for what a file may leave out, `Gemma3TextConfig` in
//! Hugging Face's `transformers`.

use half::bf16;
use serde_json::{Map, Value as Json, json};

use super::{Architecture, Fields};
use crate::model::Error;
use crate::model::decoder::{Config, LayerNorms};
use crate::model::layers::{Activation, NormConfig};
use crate::model::rope::{RopeConfig, RopeScaling};

/// The text model alone, as in folders.
pub const GEMMA3_TEXT: Architecture = Architecture {
    model_type: "gemma3_text",
    // Most architectures have one norm where Gemma has two; the usual name means the other one.
    gguf_modules: &[("post_attention_layernorm", "post_attention_norm")],
    ..Architecture::new(config)
};

/// A folder with the vision model beside it, of which only the text is read; or a GGUF file.
pub const GEMMA3: Architecture =
    Architecture { model_type: "gemma3", folder_prefix: "language_model.", ..GEMMA3_TEXT };

const NORMS: LayerNorms = LayerNorms {
    attention: "input_layernorm",
    attention_output: Some("post_attention_layernorm"),
    mlp: "pre_feedforward_layernorm",
    mlp_output: Some("post_feedforward_layernorm"),
};

/// Of `ropes`: that of the layers that see everything is the first.
const SLIDING_ROPE: usize = 1;

/// Layers of the 27B model, the only one whose scores are scaled by another size than its heads'.
const LAYERS_27B: usize = 62;

fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let map = text_map(fields)?;
    let fields = Fields { path: fields.path, map: &map };
    for key in [
        "attention_bias",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "use_bidirectional_attention",
    ] {
        fields.refuse(key)?;
    }
    check_activation(&fields)?;
    let decoder = fields.decoder(1_000_000.0)?;
    let count = decoder.layers.len();
    let pattern = fields.dimension("sliding_window_pattern")?.unwrap_or(6);
    let offset = fields.number("norm_weight_offset")?.unwrap_or(1.0) as f32;
    Ok(Config {
        layers: fields.layers(count, SLIDING_ROPE, |layer| (layer + 1) % pattern != 0)?,
        norm: NormConfig { offset, ..decoder.norm },
        layer_norms: NORMS,
        ropes: vec![decoder.ropes[0].clone(), sliding_rope(&fields)?],
        attention_scale: attention_scale(&fields, &decoder)?,
        // mlx-lm and Hugging Face round it like this, llama.cpp does not.
        embedding_scale: Some(bf16::from_f64((decoder.hidden as f64).sqrt()).to_f32()),
        activation: Activation::GeluTanh,
        qk_norm: true,
        ..decoder
    })
}

/// The text model's fields, whichever way they are nested, with what may be left out filled in.
fn text_map(fields: &Fields<'_>) -> Result<Map<String, Json>, Error> {
    let mut map = match fields.map.get("text_config") {
        None => fields.map.clone(),
        Some(Json::Object(text)) => {
            let mut map = text.clone();
            let vocabulary = fields.map.get("vocab_size").cloned().unwrap_or(json!(262_208));
            fill(&mut map, "vocab_size", vocabulary);
            fill(&mut map, "num_attention_heads", json!(8));
            fill(&mut map, "num_key_value_heads", json!(4));
            fill(&mut map, "max_position_embeddings", json!(131_072));
            map
        }
        Some(other) => {
            return Err(fields.invalid(format!("text_config is {other}; wanted an object")));
        }
    };
    fill(&mut map, "head_dim", json!(256));
    fill(&mut map, "rms_norm_eps", json!(1e-6));
    // Only a GGUF file calls the text model itself so, and it has its own rule for this one.
    if map.get("model_type").and_then(Json::as_str) != Some(GEMMA3.model_type) {
        fill(&mut map, "query_pre_attn_scalar", json!(256));
    }
    flatten_rope(&mut map);
    Ok(map)
}

fn fill(map: &mut Map<String, Json>, key: &str, value: Json) {
    let entry = map.entry(key).or_insert(Json::Null);
    if entry.is_null() {
        *entry = value;
    }
}

/// transformers 5 has RoPE's settings by type of layer under `rope_parameters`.
fn flatten_rope(map: &mut Map<String, Json>) {
    let nested = |parameters: &&mut Json| parameters.get("full_attention").is_some();
    let Some(parameters) = map.get_mut("rope_parameters").filter(nested) else { return };
    let mut take = |kind: &str| parameters.get_mut(kind).map(Json::take).unwrap_or_default();
    let (full, sliding) = (take("full_attention"), take("sliding_attention"));
    map.remove("rope_parameters");
    fill(map, "rope_theta", full["rope_theta"].clone());
    fill(map, "rope_local_base_freq", sliding["rope_theta"].clone());
    fill(map, "rope_scaling", full);
}

fn sliding_rope(fields: &Fields<'_>) -> Result<RopeConfig, Error> {
    let key = "rope_local_base_freq";
    let theta = fields.number(key)?.unwrap_or(10_000.0);
    match theta > 1.0 {
        true => Ok(RopeConfig { theta: theta as f32, scaling: RopeScaling::None }),
        false => Err(fields.invalid(format!("{key} is {theta}"))),
    }
}

fn attention_scale(fields: &Fields<'_>, decoder: &Config) -> Result<f32, Error> {
    let key = "query_pre_attn_scalar";
    let scalar = match fields.number(key)? {
        Some(scalar) => scalar,
        // GGUF files do not say it; llama.cpp tells the models apart in the same way.
        None if decoder.layers.len() == LAYERS_27B => {
            decoder.hidden as f64 / decoder.query_heads as f64
        }
        None => decoder.head_dim as f64,
    };
    match scalar > 0.0 {
        true => Ok(scalar.powf(-0.5) as f32),
        false => Err(fields.invalid(format!("{key} is {scalar}"))),
    }
}

fn check_activation(fields: &Fields<'_>) -> Result<(), Error> {
    match fields.map.get("hidden_activation").and_then(Json::as_str) {
        None | Some("gelu_pytorch_tanh") => Ok(()),
        Some(_) => fields.refuse("hidden_activation"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::decoder::LayerConfig;

    fn parse(json: Json) -> Result<Config, Error> {
        let map = json.as_object().expect("an object");
        config(&Fields { path: Path::new("config.json"), map })
    }

    /// As the 1B model's folder has it, with other values for some keys; null takes a key away.
    fn text_with(changes: Json) -> Json {
        let mut json = json!({
            "model_type": "gemma3_text", "hidden_size": 1152, "num_hidden_layers": 26,
            "intermediate_size": 6912, "num_attention_heads": 4, "num_key_value_heads": 1,
            "head_dim": 256, "vocab_size": 262144, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
            "rope_local_base_freq": 10000, "query_pre_attn_scalar": 256, "sliding_window": 512,
            "sliding_window_pattern": 6, "max_position_embeddings": 32768,
            "hidden_activation": "gelu_pytorch_tanh", "attn_logit_softcapping": null,
        });
        for (key, value) in changes.as_object().expect("an object") {
            json[key] = value.clone();
        }
        json
    }

    /// As the 4B model's folder has it: all else is left out.
    fn nested() -> Json {
        json!({
            "model_type": "gemma3",
            "text_config": {
                "model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34,
                "intermediate_size": 10240, "sliding_window": 1024,
                "rope_scaling": { "rope_type": "linear", "factor": 8.0 },
            },
        })
    }

    fn global_layers(config: &Config) -> Vec<usize> {
        let global = |index: &usize| config.layers[*index] == LayerConfig::GLOBAL;
        (0..config.layers.len()).filter(global).collect()
    }

    #[test]
    fn a_text_model_and_one_inside_a_larger_are_read() {
        let config = parse(text_with(json!({}))).expect("it is complete");
        assert_eq!(global_layers(&config), [5, 11, 17, 23]);
        assert_eq!(config.layers[0], LayerConfig { window: Some(512), rope: SLIDING_ROPE });
        // 33.94, as bf16 has it.
        assert_eq!(config.embedding_scale, Some(34.0));
        assert_eq!(config.attention_scale, 1.0 / 16.0);
        assert_eq!(config.norm, NormConfig { epsilon: 1e-6, offset: 1.0 });

        let config = parse(nested()).expect("the rest has defaults");
        assert_eq!((config.query_heads, config.kv_heads, config.head_dim), (8, 4, 256));
        assert_eq!((config.vocabulary, config.context_tokens), (262_208, 131_072));
        assert_eq!(global_layers(&config), [5, 11, 17, 23, 29]);
        assert_eq!(config.layers[33].window, Some(1024));
        let ropes = [
            RopeConfig { theta: 1e6, scaling: RopeScaling::Linear { factor: 8.0 } },
            RopeConfig { theta: 1e4, scaling: RopeScaling::None },
        ];
        assert_eq!(config.ropes, ropes);
    }

    #[test]
    fn what_transformers_5_writes_means_the_same() {
        let (sliding, full) = ("sliding_attention", "full_attention");
        let json = text_with(json!({
            "num_hidden_layers": 3, "layer_types": [sliding, full, sliding],
            "sliding_window_pattern": null, "rope_theta": null, "rope_local_base_freq": null,
            "rope_parameters": {
                full: { "rope_theta": 5e5, "rope_type": "linear", "factor": 4.0 },
                sliding: { "rope_theta": 2e4, "rope_type": "default" },
            },
        }));
        let config = parse(json).expect("it is complete");
        assert_eq!(global_layers(&config), [1]);
        let ropes = [
            RopeConfig { theta: 5e5, scaling: RopeScaling::Linear { factor: 4.0 } },
            RopeConfig { theta: 2e4, scaling: RopeScaling::None },
        ];
        assert_eq!(config.ropes, ropes);
    }

    #[test]
    fn the_27b_model_scales_scores_by_another_size_than_its_heads() {
        let large = json!({
            "num_hidden_layers": 62, "hidden_size": 5376, "num_attention_heads": 32,
            "head_dim": 128, "query_pre_attn_scalar": 168,
        });
        let scale = |json| parse(json).expect("it is complete").attention_scale;
        let mut json = text_with(large);
        assert_eq!(scale(json.clone()), 168f64.powf(-0.5) as f32);
        json["query_pre_attn_scalar"] = Json::Null;
        assert_eq!(scale(json.clone()), 1.0 / 16.0);
        // As a GGUF file says it.
        json["model_type"] = json!("gemma3");
        assert_eq!(scale(json.clone()), 168f64.powf(-0.5) as f32);
        json["num_hidden_layers"] = json!(34);
        assert_eq!(scale(json), 128f64.powf(-0.5) as f32);
    }

    #[test]
    fn what_is_missing_or_not_supported_is_said() {
        let cases = [
            (json!({ "sliding_window": null }), "sliding_window is missing"),
            (json!({ "hidden_size": null }), "hidden_size is missing"),
            (json!({ "text_config": 1 }), "text_config is 1; wanted an object"),
            (
                json!({ "layer_types": ["full_attention"] }),
                "layer_types is not a list of one type for each of 26 layers",
            ),
            (
                json!({ "num_hidden_layers": 1, "layer_types": ["linear"] }),
                "layer_types has \"linear\"; supported: full_attention, sliding_attention",
            ),
            (
                json!({ "attn_logit_softcapping": 50.0 }),
                "attn_logit_softcapping is 50.0, which is not supported for this architecture",
            ),
            (
                json!({ "use_bidirectional_attention": true }),
                "use_bidirectional_attention is true, which is not supported for this architecture",
            ),
            (
                json!({ "hidden_activation": "silu" }),
                "hidden_activation is \"silu\", which is not supported for this architecture",
            ),
            (json!({ "rope_local_base_freq": 0 }), "rope_local_base_freq is 0"),
            (json!({ "query_pre_attn_scalar": -1 }), "query_pre_attn_scalar is -1"),
        ];
        for (changes, reason) in cases {
            let error = parse(text_with(changes)).expect_err("it is not usable");
            let expected = format!("config.json is not a usable model: {reason}");
            assert_eq!(error.to_string(), expected);
        }
    }
}
