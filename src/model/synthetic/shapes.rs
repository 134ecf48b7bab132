//! The dimensions of models that synthetic ones imitate.

use std::str::FromStr;

/// A model to imitate: its dimensions, without its weights.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    pub layers: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub query_heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocabulary: usize,
    pub context_tokens: usize,
    pub rope_theta: f32,
    /// The factor of Llama 3.1's RoPE scaling, if the model has it.
    pub rope_factor: Option<f32>,
    /// The embedding is the output head too.
    pub tied: bool,
    /// `tokenizer.ggml.pre`
    pub pre_tokenizer: &'static str,
    /// Offered to users; the others are for tests.
    is_listed: bool,
}

/// To add a shape: its numbers here, from the `config.json` of the model.
pub const SHAPES: &[Shape] = &[
    Shape {
        name: "smollm2-135m",
        layers: 30,
        hidden: 576,
        intermediate: 1536,
        query_heads: 9,
        kv_heads: 3,
        head_dim: 64,
        vocabulary: 49_152,
        context_tokens: 8192,
        rope_theta: 100_000.0,
        rope_factor: None,
        tied: true,
        pre_tokenizer: "smollm",
        is_listed: true,
    },
    Shape {
        name: "llama-3.2-1b",
        layers: 16,
        hidden: 2048,
        intermediate: 8192,
        query_heads: 32,
        kv_heads: 8,
        head_dim: 64,
        vocabulary: 128_256,
        context_tokens: 131_072,
        rope_theta: 500_000.0,
        rope_factor: Some(32.0),
        tied: true,
        pre_tokenizer: "llama-bpe",
        is_listed: true,
    },
    Shape {
        name: "llama-3.1-8b",
        layers: 32,
        hidden: 4096,
        intermediate: 14_336,
        query_heads: 32,
        kv_heads: 8,
        head_dim: 128,
        vocabulary: 128_256,
        context_tokens: 131_072,
        rope_theta: 500_000.0,
        rope_factor: Some(8.0),
        tied: false,
        pre_tokenizer: "llama-bpe",
        is_listed: true,
    },
    Shape {
        name: "tiny",
        layers: 2,
        hidden: 64,
        intermediate: 128,
        query_heads: 4,
        kv_heads: 2,
        head_dim: 32,
        vocabulary: 320,
        context_tokens: 1024,
        rope_theta: 10_000.0,
        rope_factor: Some(8.0),
        tied: false,
        pre_tokenizer: "llama-bpe",
        is_listed: false,
    },
];

impl FromStr for &'static Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<&'static Shape, String> {
        SHAPES.iter().find(|shape| shape.name == text).ok_or_else(|| {
            let listed = SHAPES.iter().filter(|shape| shape.is_listed);
            let names: Vec<&str> = listed.map(|shape| shape.name).collect();
            format!("{text:?} is not one of {}", names.join(", "))
        })
    }
}
