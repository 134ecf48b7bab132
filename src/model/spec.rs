//! What a model's KV looks like from outside: bytes per token and block, and where one can resume.

use crate::types::{BLOCK_TOKENS, KvTensor};

/// The shape of a model as engine and store need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Logits per position.
    pub vocabulary: usize,
    /// Positions the model was trained for; a longer sequence is refused.
    pub context_tokens: usize,
    /// Blocks in this model's pool; block ids are below it.
    pub pool_blocks: usize,
    /// New tokens per step that use this model's path well and still end soon.
    pub prefill_tokens: usize,
    pub layers: Vec<LayerSpec>,
    /// The tensors of an exported block, in the order of its bytes. Both paths have the same.
    pub tensors: Vec<KvTensor>,
}

/// What one layer leaves behind for each token, and at the end of each block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerSpec {
    /// Bytes of K per token: codes, scales and biases together.
    pub key_bytes: usize,
    /// Bytes of V per token; 0 where V is derived from K (MLA).
    pub value_bytes: usize,
    /// Bytes of recurrent state, which exists only after the last token written to a block.
    pub snapshot_bytes: usize,
}

impl Spec {
    /// KV bytes that one token leaves in all layers.
    pub fn token_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.key_bytes + layer.value_bytes).sum()
    }

    /// Bytes of recurrent state per block, in all layers.
    pub fn snapshot_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.snapshot_bytes).sum()
    }

    /// Bytes of an exported block with `tokens` tokens: layer by layer, first K, then V.
    pub fn block_bytes(&self, tokens: usize) -> usize {
        assert!(tokens <= BLOCK_TOKENS);
        self.token_bytes() * tokens + self.snapshot_bytes()
    }

    /// The longest length, at most `len`, from which a sequence of `len` tokens can go on when it
    /// is cut or matched there.
    ///
    /// Attention can go on anywhere; recurrent state exists only where a block ended.
    pub fn resume_point(&self, len: usize) -> usize {
        match self.snapshot_bytes() {
            0 => len,
            _ => len - len % BLOCK_TOKENS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(layer: LayerSpec) -> Spec {
        Spec {
            vocabulary: 8,
            context_tokens: 1024,
            pool_blocks: 4,
            prefill_tokens: 32,
            layers: vec![layer; 2],
            tensors: Vec::new(),
        }
    }

    #[test]
    fn attention_resumes_anywhere_and_recurrent_state_at_block_ends() {
        let attention = spec(LayerSpec { key_bytes: 3, value_bytes: 2, snapshot_bytes: 0 });
        assert_eq!(attention.resume_point(300), 300);
        assert_eq!(attention.block_bytes(10), 100);
        let recurrent = spec(LayerSpec { key_bytes: 0, value_bytes: 0, snapshot_bytes: 7 });
        assert_eq!(recurrent.resume_point(300), 256);
        assert_eq!(recurrent.resume_point(255), 0);
        assert_eq!(recurrent.block_bytes(10), 14);
    }
}
