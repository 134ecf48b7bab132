//! Says in Hugging Face's words what a GGUF file says in its own: tensor names, configuration,
//! vocabulary. The rest of the room then knows one vocabulary of names.

use serde_json::{Map, Value as Json, json};

use super::{Gguf, Value};
use crate::model::Error;
use crate::types::{GgufVocabulary, TokenId};

/// The GGUF name of a tensor, given the one it has in a Hugging Face folder. `special` are the
/// modules of a layer that this architecture calls otherwise.
pub fn tensor_name(name: &str, special: &[(&str, &str)]) -> Option<String> {
    let whole = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(name) = whole {
        return Some(name.to_owned());
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = part.rsplit_once('.')?;
    if let Some((_, module)) = special.iter().find(|(theirs, _)| *theirs == module) {
        return Some(format!("blk.{layer}.{module}.{kind}"));
    }
    let module = match module {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{module}.{kind}"))
}

/// The file's configuration with the keys of a `config.json`.
pub fn config(gguf: &Gguf) -> Result<Map<String, Json>, Error> {
    let invalid = |reason| Error::Invalid { path: gguf.path().to_owned(), reason };
    let architecture = gguf
        .string("general.architecture")
        .ok_or_else(|| invalid("general.architecture is missing".to_owned()))?;
    let integer = |key: &str| gguf.integer(&format!("{architecture}.{key}"));
    let float = |key: &str| gguf.float(&format!("{architecture}.{key}"));
    let mut config = Map::new();
    config.insert("model_type".to_owned(), json!(architecture));
    let integers = [
        ("hidden_size", "embedding_length"),
        ("num_hidden_layers", "block_count"),
        ("intermediate_size", "feed_forward_length"),
        ("num_attention_heads", "attention.head_count"),
        ("num_key_value_heads", "attention.head_count_kv"),
        ("max_position_embeddings", "context_length"),
        ("head_dim", "attention.key_length"),
        ("sliding_window", "attention.sliding_window"),
        ("sliding_window_pattern", "attention.sliding_window_pattern"),
    ];
    for (name, key) in integers {
        if let Some(n) = integer(key) {
            config.insert(name.to_owned(), json!(n));
        }
    }
    let pattern = format!("{architecture}.attention.sliding_window_pattern");
    if !matches!(gguf.value(&pattern), None | Some(Value::Integer(_))) {
        return Err(invalid(format!("{pattern} is not a number, which is not supported")));
    }
    let floats = [
        ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
        ("rope_theta", "rope.freq_base"),
        ("rope_local_base_freq", "rope.freq_base_swa"),
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
    ];
    for (name, key) in floats {
        if let Some(x) = float(key) {
            config.insert(name.to_owned(), json!(x));
        }
    }
    // llama.cpp's converter has already added what an architecture adds to its norms' weights.
    config.insert("norm_weight_offset".to_owned(), json!(0));
    if let Some(head_dim) = integer("rope.dimension_count") {
        // Where the file names no head size, RoPE covers all of the head.
        config.entry("head_dim").or_insert(json!(head_dim));
        config.insert("rope_dimensions".to_owned(), json!(head_dim));
    }
    let rows = gguf.tensor("token_embd.weight").and_then(|tensor| tensor.shape.first());
    if let Some(rows) = rows {
        config.insert("vocab_size".to_owned(), json!(rows));
    }
    config.insert("tie_word_embeddings".to_owned(), json!(gguf.tensor("output.weight").is_none()));
    for projection in ["q", "output"] {
        let biased = gguf.tensor(&format!("blk.0.attn_{projection}.bias")).is_some();
        config.insert(format!("{projection}_bias"), json!(biased));
    }
    config.insert("mlp_bias".to_owned(), json!(gguf.tensor("blk.0.ffn_gate.bias").is_some()));
    if let Some(scaling) = rope_scaling(gguf, architecture)? {
        config.insert("rope_scaling".to_owned(), scaling);
    }
    Ok(config)
}

/// RoPE scaling as a GGUF file has it: a factor per frequency in a tensor, or a named rule.
fn rope_scaling(gguf: &Gguf, architecture: &str) -> Result<Option<Json>, Error> {
    if let Some(tensor) = gguf.tensor("rope_freqs.weight") {
        let raw = gguf.read("rope_freqs.weight", tensor)?;
        let factors: Vec<f32> =
            raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        return Ok(Some(json!({ "rope_type": "factors", "factors": factors })));
    }
    let Some(kind) = gguf.string(&format!("{architecture}.rope.scaling.type")) else {
        return Ok(None);
    };
    let factor = gguf.float(&format!("{architecture}.rope.scaling.factor"));
    Ok(match (kind, factor) {
        ("none", _) | ("linear", None) => None,
        (kind, factor) => Some(json!({ "rope_type": kind, "factor": factor })),
    })
}

/// The `tokenizer.*` metadata.
pub fn vocabulary(gguf: &Gguf) -> Result<GgufVocabulary, Error> {
    let strings = |key: &str| gguf.strings(key).unwrap_or_default().to_vec();
    let token = |key: &str| {
        let id = gguf.integer(&format!("tokenizer.ggml.{key}_token_id"))?;
        u32::try_from(id).ok().map(TokenId)
    };
    let tokens = strings("tokenizer.ggml.tokens");
    let Some(model) = gguf.string("tokenizer.ggml.model").filter(|_| !tokens.is_empty()) else {
        return Err(Error::Invalid {
            path: gguf.path().to_owned(),
            reason: "it has no tokenizer (tokenizer.ggml.model and tokenizer.ggml.tokens)".into(),
        });
    };
    Ok(GgufVocabulary {
        model: model.to_owned(),
        pre: gguf.string("tokenizer.ggml.pre").map(str::to_owned),
        scores: match gguf.value("tokenizer.ggml.scores") {
            Some(Value::Floats(scores)) => scores.clone(),
            _ => Vec::new(),
        },
        token_types: match gguf.value("tokenizer.ggml.token_type") {
            Some(Value::Integers(types)) => types.iter().map(|&kind| kind as i32).collect(),
            _ => Vec::new(),
        },
        merges: strings("tokenizer.ggml.merges"),
        bos: token("bos"),
        eos: token("eos"),
        other_ends: ["eot", "eom"].into_iter().filter_map(token).collect(),
        unknown: token("unknown"),
        padding: token("padding"),
        add_bos: gguf.boolean("tokenizer.ggml.add_bos_token"),
        add_eos: gguf.boolean("tokenizer.ggml.add_eos_token"),
        add_space_prefix: gguf.boolean("tokenizer.ggml.add_space_prefix"),
        chat_template: gguf.string("tokenizer.chat_template").map(str::to_owned),
        tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::tensor_name;

    #[test]
    fn names_translate() {
        let pairs = [
            ("model.layers.12.self_attn.q_proj.weight", Some("blk.12.attn_q.weight")),
            ("model.layers.0.self_attn.q_proj.bias", Some("blk.0.attn_q.bias")),
            ("model.layers.3.mlp.down_proj.weight", Some("blk.3.ffn_down.weight")),
            ("model.norm.weight", Some("output_norm.weight")),
            ("model.layers.3.router.weight", None),
        ];
        for (theirs, ours) in pairs {
            assert_eq!(tensor_name(theirs, &[]).as_deref(), ours);
        }
        let special = [("post_attention_layernorm", "post_attention_norm")];
        let theirs = "model.layers.1.post_attention_layernorm.weight";
        assert_eq!(tensor_name(theirs, &[]).as_deref(), Some("blk.1.ffn_norm.weight"));
        let ours = tensor_name(theirs, &special);
        assert_eq!(ours.as_deref(), Some("blk.1.post_attention_norm.weight"));
    }
}
