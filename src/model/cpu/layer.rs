//! A decoder layer's weights, for the kernels.

use kernels::decoder::{self, Layer, Shape};
use kernels::kv::Layout;

use super::weights::Loader;
use crate::model::Error;
use crate::model::decoder::{Config, LayerConfig};
use crate::model::kv::KvConfig;
use crate::model::layers::Activation;

pub fn shape(config: &Config, kv: KvConfig, layout: Layout) -> Shape {
    Shape {
        hidden: config.hidden,
        intermediate: config.intermediate,
        group_heads: config.query_heads / config.kv_heads,
        layout,
        scale: config.attention_scale,
        rotates_keys: kv.key.rotated,
        rotates_values: kv.value.rotated,
    }
}

pub fn load(index: usize, config: &Config, loader: &Loader<'_>) -> Result<Layer, Error> {
    let name = |module: &str| format!("model.layers.{index}.{module}");
    let norm = |module: &str| loader.norm(&name(module), config.hidden, config.norm);
    let head_norm = |module: &str| match config.qk_norm {
        false => Ok(None),
        true => loader.norm(&name(module), config.head_dim, config.norm).map(Some),
    };
    let linear =
        |module: &str, rows, columns, bias| loader.linear(&name(module), rows, columns, bias);
    let (hidden, intermediate) = (config.hidden, config.intermediate);
    let queries = config.query_heads * config.head_dim;
    let keys = config.kv_heads * config.head_dim;
    let norms = config.layer_norms;
    let LayerConfig { window, rope } = config.layers[index];
    Ok(Layer {
        attention_norm: norm(norms.attention)?,
        query: linear("self_attn.q_proj", queries, hidden, config.qkv_bias)?,
        key: linear("self_attn.k_proj", keys, hidden, config.qkv_bias)?,
        value: linear("self_attn.v_proj", keys, hidden, config.qkv_bias)?,
        query_norm: head_norm("self_attn.q_norm")?,
        key_norm: head_norm("self_attn.k_norm")?,
        output: linear("self_attn.o_proj", hidden, queries, config.output_bias)?,
        attention_output_norm: norms.attention_output.map(norm).transpose()?,
        mlp_norm: norm(norms.mlp)?,
        gate: linear("mlp.gate_proj", intermediate, hidden, config.mlp_bias)?,
        up: linear("mlp.up_proj", intermediate, hidden, config.mlp_bias)?,
        down: linear("mlp.down_proj", hidden, intermediate, config.mlp_bias)?,
        mlp_output_norm: norms.mlp_output.map(norm).transpose()?,
        activation: match config.activation {
            Activation::Silu => decoder::Activation::Silu,
            Activation::GeluTanh => decoder::Activation::GeluTanh,
        },
        angles: rope,
        window,
        softcap: None,
    })
}
