//! The pre-norm decoder that Llama, Qwen2 and Qwen3 share; an architecture says where it differs.

use mlx_rs::{Array, ops};

use super::Error;
use super::attention::{Attention, Projections};
use super::layers::{self, Bias, Embedding, Linear, Loader, RmsNorm};
use super::rope::{Rope, RopeConfig};

/// Everything about a decoder that its weights do not say.
#[derive(Clone, Debug)]
pub struct Config {
    pub hidden: usize,
    pub layers: usize,
    pub intermediate: usize,
    pub query_heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocabulary: usize,
    pub context_tokens: usize,
    pub norm_epsilon: f32,
    pub rope: RopeConfig,
    /// The embedding is the output head too.
    pub tied: bool,
    /// Of the q, k and v projections.
    pub qkv_bias: Bias,
    pub output_bias: Bias,
    pub mlp_bias: Bias,
    /// Queries and keys are normalised per head before RoPE (Qwen3).
    pub qk_norm: bool,
}

pub struct Decoder {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Option<Linear>,
    rope: Rope,
}

struct Block {
    attention_norm: RmsNorm,
    attention: AttentionLayer,
    mlp_norm: RmsNorm,
    mlp: Mlp,
}

struct AttentionLayer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    query_norm: Option<RmsNorm>,
    key_norm: Option<RmsNorm>,
    head_dim: i32,
}

struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
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
        let blocks = (0..config.layers)
            .map(|index| Block::load(index, config, loader))
            .collect::<Result<_, _>>()?;
        Ok(Decoder {
            embedding,
            blocks,
            norm: loader.norm("model.norm", config.hidden, config.norm_epsilon)?,
            head,
            rope: Rope::new(&config.rope, config.head_dim)?,
        })
    }

    /// `ids [token] → [token, hidden]`, normalised and ready for the head.
    pub fn forward(&self, ids: &Array, attention: &mut Attention<'_>) -> Result<Array, Error> {
        let mut x = self.embedding.lookup(ids)?;
        for (index, block) in self.blocks.iter().enumerate() {
            let normed = block.attention_norm.apply(&x)?;
            let attended = block.attention.apply(index, &normed, &self.rope, attention)?;
            x = ops::add(x, attended)?;
            let normed = block.mlp_norm.apply(&x)?;
            x = ops::add(&x, block.mlp.apply(&normed)?)?;
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
        let norm = |module: &str| loader.norm(&name(module), config.hidden, config.norm_epsilon);
        let linear =
            |module: &str, rows, columns, bias| loader.linear(&name(module), rows, columns, bias);
        let head_norm = |module: &str| match config.qk_norm {
            false => Ok(None),
            true => loader.norm(&name(module), config.head_dim, config.norm_epsilon).map(Some),
        };
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let queries = config.query_heads * config.head_dim;
        let keys = config.kv_heads * config.head_dim;
        Ok(Block {
            attention_norm: norm("input_layernorm")?,
            attention: AttentionLayer {
                query: linear("self_attn.q_proj", queries, hidden, config.qkv_bias)?,
                key: linear("self_attn.k_proj", keys, hidden, config.qkv_bias)?,
                value: linear("self_attn.v_proj", keys, hidden, config.qkv_bias)?,
                output: linear("self_attn.o_proj", hidden, queries, config.output_bias)?,
                query_norm: head_norm("self_attn.q_norm")?,
                key_norm: head_norm("self_attn.k_norm")?,
                head_dim: config.head_dim as i32,
            },
            mlp_norm: norm("post_attention_layernorm")?,
            mlp: Mlp {
                gate: linear("mlp.gate_proj", intermediate, hidden, config.mlp_bias)?,
                up: linear("mlp.up_proj", intermediate, hidden, config.mlp_bias)?,
                down: linear("mlp.down_proj", hidden, intermediate, config.mlp_bias)?,
            },
        })
    }
}

impl AttentionLayer {
    fn apply(
        &self,
        layer: usize,
        x: &Array,
        rope: &Rope,
        attention: &mut Attention<'_>,
    ) -> Result<Array, Error> {
        // [token, head * head_dim] → [token, head, head_dim]
        let heads = |x: Array| Ok::<_, Error>(x.reshape(&[x.dim(0), -1, self.head_dim])?);
        let normed = |x: Array, norm: &Option<RmsNorm>| match norm {
            None => Ok(x),
            Some(norm) => norm.apply(&x),
        };
        let projections = Projections {
            queries: normed(heads(self.query.apply(x)?)?, &self.query_norm)?,
            keys: normed(heads(self.key.apply(x)?)?, &self.key_norm)?,
            values: heads(self.value.apply(x)?)?,
        };
        let scale = (self.head_dim as f32).powf(-0.5);
        self.output.apply(&attention.attend(layer, &projections, rope, scale)?)
    }
}

impl Mlp {
    fn apply(&self, x: &Array) -> Result<Array, Error> {
        self.down.apply(&layers::swiglu(&self.gate.apply(x)?, &self.up.apply(x)?)?)
    }
}
