//! Reads a `config.json` (or what a GGUF file says in its words) field by field, with bounds.

use std::path::Path;

use serde_json::{Map, Value as Json};

use crate::model::Error;
use crate::model::decoder::{Config, LayerConfig, LayerNorms};
use crate::model::layers::{Activation, Bias, NormConfig};
use crate::model::rope::{RopeConfig, RopeScaling};

/// No model has a dimension above this; a larger one is a broken file, and would overflow.
const DIMENSION_MAX: usize = 1 << 24;
/// Far above any model (the deepest have about 130).
const LAYERS_MAX: usize = 1024;

/// A configuration and the file it came from.
pub struct Fields<'a> {
    pub path: &'a Path,
    pub map: &'a Map<String, Json>,
}

impl Fields<'_> {
    /// What all decoders have in common; the caller fills in where its architecture differs.
    pub fn decoder(&self, default_theta: f32) -> Result<Config, Error> {
        let hidden = self.required("hidden_size")?;
        let query_heads = self.required("num_attention_heads")?;
        let kv_heads = self.dimension("num_key_value_heads")?.unwrap_or(query_heads);
        let head_dim = self.dimension("head_dim")?.unwrap_or(hidden / query_heads);
        let layers = self.required("num_hidden_layers")?;
        if layers > LAYERS_MAX {
            return Err(
                self.invalid(format!("num_hidden_layers is {layers}; at most {LAYERS_MAX}"))
            );
        }
        if !query_heads.is_multiple_of(kv_heads) || head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(self.invalid(format!(
                "{query_heads} attention heads of {head_dim} over {kv_heads} KV heads; the KV heads \
                 have to divide the others evenly, and a head's size has to be even"
            )));
        }
        match self.dimension("rope_dimensions")? {
            Some(dimensions) if dimensions != head_dim => {
                let reason =
                    format!("RoPE over {dimensions} of {head_dim} values is not supported");
                return Err(self.invalid(reason));
            }
            _ => (),
        }
        let epsilon = self.number("rms_norm_eps")?.unwrap_or(1e-5) as f32;
        Ok(Config {
            hidden,
            layers: vec![LayerConfig::GLOBAL; layers],
            intermediate: self.required("intermediate_size")?,
            query_heads,
            kv_heads,
            head_dim,
            vocabulary: self.required("vocab_size")?,
            context_tokens: self.dimension("max_position_embeddings")?.unwrap_or(2048),
            norm: NormConfig { epsilon, offset: 0.0 },
            layer_norms: LayerNorms::INPUTS,
            ropes: vec![self.rope(default_theta)?],
            attention_scale: (head_dim as f32).powf(-0.5),
            embedding_scale: None,
            activation: Activation::Silu,
            tied: self.boolean("tie_word_embeddings")?.unwrap_or(true),
            qkv_bias: Bias::None,
            output_bias: Bias::None,
            mlp_bias: Bias::None,
            qk_norm: false,
        })
    }

    /// How each of `count` layers attends. Those that slide see `sliding_window` tokens and turn
    /// by `sliding_rope`; `layer_types` says which they are or, if it is not there, `slides`.
    pub fn layers(
        &self,
        count: usize,
        sliding_rope: usize,
        slides: impl Fn(usize) -> bool,
    ) -> Result<Vec<LayerConfig>, Error> {
        let types = self.layer_types(count)?;
        let slides = |index: usize| match &types {
            None => slides(index),
            Some(types) => types[index],
        };
        let layer = |index: usize| match slides(index) {
            false => Ok(LayerConfig::GLOBAL),
            true => {
                let window = Some(self.required("sliding_window")?);
                Ok(LayerConfig { window, rope: sliding_rope })
            }
        };
        (0..count).map(layer).collect()
    }

    /// Whether each layer slides, if the configuration lists it.
    fn layer_types(&self, count: usize) -> Result<Option<Vec<bool>>, Error> {
        let types = match self.map.get("layer_types") {
            None | Some(Json::Null) => return Ok(None),
            Some(types) => types.as_array().filter(|types| types.len() == count),
        };
        let types = types.ok_or_else(|| {
            self.invalid(format!(
                "layer_types is not a list of one type for each of {count} layers"
            ))
        })?;
        let slides = |kind: &Json| match kind.as_str() {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            _ => Err(self.invalid(format!(
                "layer_types has {kind}; supported: full_attention, sliding_attention"
            ))),
        };
        types.iter().map(slides).collect::<Result<_, _>>().map(Some)
    }

    /// An error for a setting that changes the answer and that we do not have.
    pub fn refuse(&self, key: &str) -> Result<(), Error> {
        match self.map.get(key) {
            None | Some(Json::Null | Json::Bool(false)) => Ok(()),
            Some(value) => Err(self.invalid(format!(
                "{key} is {value}, which is not supported for this architecture"
            ))),
        }
    }

    /// An error for a model with sliding-window attention, which would answer wrongly without it.
    pub fn refuse_windows(&self) -> Result<(), Error> {
        let types = self.map.get("layer_types").and_then(Json::as_array);
        let all_full = types
            .is_some_and(|types| types.iter().all(|kind| kind.as_str() == Some("full_attention")));
        match self.dimension("sliding_window") {
            Ok(Some(window)) if !all_full => Err(self.invalid(format!(
                "sliding-window attention ({window} tokens) is not supported for this architecture"
            ))),
            _ => Ok(()),
        }
    }

    pub fn boolean(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.map.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.invalid(format!("{key} is {other}; wanted true or false"))),
        }
    }

    fn rope(&self, default_theta: f32) -> Result<RopeConfig, Error> {
        // transformers 5 nests theta and scaling under rope_parameters.
        let nested = self.map.get("rope_parameters").filter(|entry| entry.is_object());
        let theta = match nested.and_then(|entry| entry["rope_theta"].as_f64()) {
            Some(theta) => theta,
            None => self.number("rope_theta")?.unwrap_or(default_theta.into()),
        };
        if !theta.is_finite() || theta <= 1.0 {
            return Err(self.invalid(format!("rope_theta is {theta}")));
        }
        let scaling = self.map.get("rope_scaling").filter(|entry| !entry.is_null()).or(nested);
        Ok(RopeConfig {
            theta: theta as f32,
            scaling: match scaling {
                None => RopeScaling::None,
                Some(entry) => self.rope_scaling(entry)?,
            },
        })
    }

    fn rope_scaling(&self, entry: &Json) -> Result<RopeScaling, Error> {
        let kind = entry["rope_type"].as_str().or(entry["type"].as_str()).unwrap_or("default");
        let positive = |key: &str, default: Option<f64>| {
            entry[key]
                .as_f64()
                .or(default)
                .filter(|x| x.is_finite() && *x > 0.0)
                .map(|x| x as f32)
                .ok_or_else(|| self.invalid(format!("rope_scaling has no usable {key}")))
        };
        Ok(match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: positive("factor", None)? },
            "llama3" => RopeScaling::Llama3 {
                factor: positive("factor", None)?,
                low_freq_factor: positive("low_freq_factor", Some(1.0))?,
                high_freq_factor: positive("high_freq_factor", Some(4.0))?,
                original_context: positive("original_max_position_embeddings", Some(8192.0))?,
            },
            "factors" => RopeScaling::Factors(
                entry["factors"]
                    .as_array()
                    .map(|all| all.iter().filter_map(Json::as_f64).map(|x| x as f32).collect())
                    .unwrap_or_default(),
            ),
            other => {
                return Err(self.invalid(format!(
                    "RoPE scaling {other:?} is not supported; supported: linear, llama3"
                )));
            }
        })
    }

    pub fn required(&self, key: &str) -> Result<usize, Error> {
        self.dimension(key)?.ok_or_else(|| self.invalid(format!("{key} is missing")))
    }

    /// A positive integer within reason.
    pub fn dimension(&self, key: &str) -> Result<Option<usize>, Error> {
        match self.map.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(value) => match value.as_u64().map(|n| n as usize) {
                Some(n @ 1..=DIMENSION_MAX) => Ok(Some(n)),
                _ => Err(self.invalid(format!(
                    "{key} is {value}; wanted an integer from 1 to {DIMENSION_MAX}"
                ))),
            },
        }
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        match self.map.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(x) if x.is_finite() => Ok(Some(x)),
                _ => Err(self.invalid(format!("{key} is {value}; wanted a number"))),
            },
        }
    }

    pub fn invalid(&self, reason: String) -> Error {
        Error::Invalid { path: self.path.to_owned(), reason }
    }
}
