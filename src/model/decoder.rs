//! The pre-norm decoder that all architectures share; an architecture says where it differs.

use mlx_rs::{Array, ops};

use super::attention::{Attention, Projections, Rule};
use super::kv::KvConfig;
use super::layers::{self, Activation, Bias, Embedding, Linear, Loader, NormConfig, RmsNorm};
use super::rope::{Rope, RopeConfig};
use super::{Error, exported};
use crate::types::KvTensor;

/// Everything about a decoder that its weights do not say.
#[derive(Clone, Debug)]
pub struct Config {
    pub hidden: usize,
    pub layers: Vec<LayerConfig>,
    pub intermediate: usize,
    pub query_heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocabulary: usize,
    pub context_tokens: usize,
    pub norm: NormConfig,
    pub layer_norms: LayerNorms,
    /// The rules that layers choose from.
    pub ropes: Vec<RopeConfig>,
    /// Scores are multiplied by this.
    pub attention_scale: f32,
    /// Embeddings are multiplied by this on their way in, not as output head (Gemma).
    pub embedding_scale: Option<f32>,
    pub activation: Activation,
    /// The embedding is the output head too.
    pub tied: bool,
    /// Of the q, k and v projections.
    pub qkv_bias: Bias,
    pub output_bias: Bias,
    pub mlp_bias: Bias,
    /// Queries and keys are normalised per head before RoPE (Qwen3).
    pub qk_norm: bool,
}

/// How one layer attends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerConfig {
    /// A token sees only so many, itself included.
    pub window: Option<usize>,
    /// Which of the configuration's `ropes` turns its queries and keys.
    pub rope: usize,
}

impl LayerConfig {
    pub const GLOBAL: LayerConfig = LayerConfig { window: None, rope: 0 };
}

/// The modules that normalise what goes into the two halves of a layer and, in some architectures,
/// what comes out of them before it is added.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorms {
    pub attention: &'static str,
    pub attention_output: Option<&'static str>,
    pub mlp: &'static str,
    pub mlp_output: Option<&'static str>,
}

impl LayerNorms {
    pub const INPUTS: LayerNorms = LayerNorms {
        attention: "input_layernorm",
        attention_output: None,
        mlp: "post_attention_layernorm",
        mlp_output: None,
    };
}

impl Config {
    /// The tensors of an exported block.
    pub fn kv_tensors(&self, kv: KvConfig) -> Result<Vec<KvTensor>, Error> {
        exported::tensors(kv, self.layers.len(), self.kv_heads, self.head_dim)
    }
}

pub struct Decoder {
    embedding: Embedding,
    embedding_scale: Option<Array>,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Option<Linear>,
    ropes: Vec<Rope>,
}

struct Block {
    attention_norm: RmsNorm,
    attention: AttentionLayer,
    attention_output_norm: Option<RmsNorm>,
    mlp_norm: RmsNorm,
    mlp: Mlp,
    mlp_output_norm: Option<RmsNorm>,
}

struct AttentionLayer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    query_norm: Option<RmsNorm>,
    key_norm: Option<RmsNorm>,
    head_dim: i32,
    scale: f32,
    config: LayerConfig,
}

struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl Decoder {
    pub fn load(config: &Config, loader: &Loader<'_>) -> Result<Decoder, Error> {
        // The largest matrices come first: a tensor is in memory twice while MLX copies it, which
        // must not come on top of all the others.
        let embedding = loader.embedding("model.embed_tokens", config.vocabulary, config.hidden)?;
        let head = match config.tied {
            true => None,
            false => {
                Some(loader.linear("lm_head", config.vocabulary, config.hidden, Bias::None)?)
            }
        };
        let blocks = (0..config.layers.len())
            .map(|index| Block::load(index, config, loader))
            .collect::<Result<_, _>>()?;
        Ok(Decoder {
            embedding,
            embedding_scale: config.embedding_scale.map(Array::from_f32),
            blocks,
            norm: loader.norm("model.norm", config.hidden, config.norm)?,
            head,
            ropes: config
                .ropes
                .iter()
                .map(|rope| Rope::new(rope, config.head_dim))
                .collect::<Result<_, _>>()?,
        })
    }

    /// `ids [token] → [token, hidden]`, normalised and ready for the head.
    pub fn forward(&self, ids: &Array, attention: &mut Attention<'_>) -> Result<Array, Error> {
        let mut x = self.embedding.lookup(ids)?;
        if let Some(scale) = &self.embedding_scale {
            x = ops::multiply(x, scale)?;
        }
        for (index, block) in self.blocks.iter().enumerate() {
            let normed = block.attention_norm.apply(&x)?;
            let attended = block.attention.apply(index, &normed, &self.ropes, attention)?;
            x = ops::add(x, normalised(attended, &block.attention_output_norm)?)?;
            let normed = block.mlp_norm.apply(&x)?;
            x = ops::add(&x, normalised(block.mlp.apply(&normed)?, &block.mlp_output_norm)?)?;
        }
        self.norm.apply(&x)
    }

    /// `[token, hidden] → [token, vocabulary]`
    pub fn head(&self, hidden: &Array) -> Result<Array, Error> {
        match &self.head {
            Some(head) => head.apply(hidden),
            None => self.embedding.as_head(hidden),
        }
    }
}

impl Block {
    fn load(index: usize, config: &Config, loader: &Loader<'_>) -> Result<Block, Error> {
        let name = |module: &str| format!("model.layers.{index}.{module}");
        let norm = |module: &str| loader.norm(&name(module), config.hidden, config.norm);
        let linear =
            |module: &str, rows, columns, bias| loader.linear(&name(module), rows, columns, bias);
        let head_norm = |module: &str| match config.qk_norm {
            false => Ok(None),
            true => loader.norm(&name(module), config.head_dim, config.norm).map(Some),
        };
        let norms = config.layer_norms;
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let queries = config.query_heads * config.head_dim;
        let keys = config.kv_heads * config.head_dim;
        Ok(Block {
            attention_norm: norm(norms.attention)?,
            attention: AttentionLayer {
                query: linear("self_attn.q_proj", queries, hidden, config.qkv_bias)?,
                key: linear("self_attn.k_proj", keys, hidden, config.qkv_bias)?,
                value: linear("self_attn.v_proj", keys, hidden, config.qkv_bias)?,
                output: linear("self_attn.o_proj", hidden, queries, config.output_bias)?,
                query_norm: head_norm("self_attn.q_norm")?,
                key_norm: head_norm("self_attn.k_norm")?,
                head_dim: config.head_dim as i32,
                scale: config.attention_scale,
                config: config.layers[index],
            },
            attention_output_norm: norms.attention_output.map(norm).transpose()?,
            mlp_norm: norm(norms.mlp)?,
            mlp: Mlp {
                gate: linear("mlp.gate_proj", intermediate, hidden, config.mlp_bias)?,
                up: linear("mlp.up_proj", intermediate, hidden, config.mlp_bias)?,
                down: linear("mlp.down_proj", hidden, intermediate, config.mlp_bias)?,
                activation: config.activation,
            },
            mlp_output_norm: norms.mlp_output.map(norm).transpose()?,
        })
    }
}

impl AttentionLayer {
    fn apply(
        &self,
        layer: usize,
        x: &Array,
        ropes: &[Rope],
        attention: &mut Attention<'_>,
    ) -> Result<Array, Error> {
        // [token, head * head_dim] → [token, head, head_dim]
        let heads = |x: Array| Ok::<_, Error>(x.reshape(&[x.dim(0), -1, self.head_dim])?);
        let projections = Projections {
            queries: normalised(heads(self.query.apply(x)?)?, &self.query_norm)?,
            keys: normalised(heads(self.key.apply(x)?)?, &self.key_norm)?,
            values: heads(self.value.apply(x)?)?,
        };
        let LayerConfig { window, rope } = self.config;
        let rule = Rule { rope: &ropes[rope], scale: self.scale, window };
        self.output.apply(&attention.attend(layer, &projections, rule)?)
    }
}

impl Mlp {
    fn apply(&self, x: &Array) -> Result<Array, Error> {
        let activated = layers::gated(self.activation, &self.gate.apply(x)?, &self.up.apply(x)?)?;
        self.down.apply(&activated)
    }
}

fn normalised(x: Array, norm: &Option<RmsNorm>) -> Result<Array, Error> {
    match norm {
        None => Ok(x),
        Some(norm) => norm.apply(&x),
    }
}
