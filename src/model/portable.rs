//! The portable path: the forward pass in plain MLX operations, in f32.
//! Tested on CPU; nothing in it is particular to one of MLX's devices.

use mlx_rs::{Array, Dtype};

use super::attention::Attention;
use super::batch::{check_block, check_length};
use super::decoder::{Config, Decoder};
use super::kv::{Kv, KvConfig};
use super::layers::Loader;
use super::{Batch, Error, Logits, Model, Spec, Wanted};
use crate::types::BlockId;

/// Between two steps a cancellation is seen. On a CPU this many tokens of a 4-bit model of 135M
/// weights take about three seconds, of a larger model as many times longer as it is larger.
const PREFILL_TOKENS: usize = 32;

pub struct Portable {
    decoder: Decoder,
    kv: Kv,
    kv_config: KvConfig,
    spec: Spec,
}

impl Portable {
    pub fn load(
        config: &Config,
        loader: &Loader<'_>,
        kv_config: KvConfig,
        pool_blocks: usize,
    ) -> Result<Portable, Error> {
        // The weights first: once they have the shapes that the configuration promises, its
        // dimensions can be trusted with the size of an allocation.
        let decoder = Decoder::load(config, loader)?;
        let kv =
            Kv::new(kv_config, config.layers.len(), config.kv_heads, config.head_dim, pool_blocks)?;
        let spec = Spec {
            vocabulary: config.vocabulary,
            context_tokens: config.context_tokens,
            pool_blocks,
            prefill_tokens: PREFILL_TOKENS,
            layers: kv.layer_specs(),
            tensors: config.kv_tensors(kv_config)?,
        };
        Ok(Portable { decoder, kv, kv_config, spec })
    }

    /// Rows of the hidden states whose logits are wanted, in the order of the rows.
    fn wanted(batch: &Batch<'_>) -> Vec<u32> {
        let mut indices = Vec::new();
        let mut from = 0;
        for row in &batch.rows {
            let to = from + row.tokens.len();
            match row.logits {
                Wanted::None => (),
                Wanted::Last => indices.push(to as u32 - 1),
                Wanted::All => indices.extend(from as u32..to as u32),
            }
            from = to;
        }
        indices
    }
}

impl Model for Portable {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn path(&self) -> &'static str {
        "plain MLX"
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<Vec<Logits>, Error> {
        batch.check(&self.spec)?;
        let ids: Vec<u32> = batch.rows.iter().flat_map(|row| row.tokens).map(|id| id.0).collect();
        let ids = Array::from_slice(&ids, &[ids.len() as i32]);
        let mut attention = Attention::new(batch, &mut self.kv, self.kv_config);
        let hidden = self.decoder.forward(&ids, &mut attention)?;
        let wanted = Portable::wanted(batch);
        if wanted.is_empty() {
            self.kv.evaluate(&[])?;
            return Ok(batch.split_logits(self.spec.vocabulary, &[]));
        }
        let hidden = match wanted.len() == hidden.dim(0) as usize {
            true => hidden,
            false => {
                let indices = Array::from_slice(&wanted, &[wanted.len() as i32]);
                hidden.take_axis(&indices, 0)?
            }
        };
        let logits = self.decoder.head(&hidden)?.as_dtype(Dtype::Float32)?;
        let logits = logits.contiguous()?;
        self.kv.evaluate(&[&logits])?;
        let values = logits.try_as_slice::<f32>().map_err(|error| Error::Mlx(error.to_string()))?;
        Ok(batch.split_logits(self.spec.vocabulary, values))
    }

    fn export(&mut self, block: BlockId, tokens: usize) -> Result<Vec<u8>, Error> {
        check_block(&self.spec, block, tokens)?;
        let bytes = self.kv.export(block, tokens)?;
        assert_eq!(bytes.len(), self.spec.block_bytes(tokens));
        Ok(bytes)
    }

    fn import(&mut self, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<(), Error> {
        check_block(&self.spec, block, tokens)?;
        check_length(&self.spec, tokens, bytes)?;
        self.kv.import(block, tokens, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::Row;
    use crate::model::arch::{self, Fields};
    use crate::model::checkpoint::{Checkpoint, Folder};
    use crate::types::TokenId;

    /// The model of `tests/data/tiny` with that name and eight blocks.
    fn tiny(name: &str, kv: &str) -> Portable {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny").join(name);
        let json = std::fs::read(path.join("config.json")).unwrap();
        let map: serde_json::Map<_, _> = serde_json::from_slice(&json).unwrap();
        let architecture = arch::find(map["model_type"].as_str().unwrap()).ok().unwrap();
        let config = (architecture.config)(&Fields { path: &path, map: &map }).unwrap();
        let checkpoint =
            Checkpoint::Folder(Folder::open(&path, &map, architecture.folder_prefix).unwrap());
        let loader = Loader { checkpoint: &checkpoint };
        Portable::load(&config, &loader, kv.parse().unwrap(), 8).unwrap()
    }

    fn ids(count: u32) -> Vec<TokenId> {
        (0..count).map(|i| TokenId(i * 7 % 288)).collect()
    }

    /// A pool that is copied costs 100 ms per step and nobody would know why.
    #[test]
    fn the_pool_stays_where_it_is() {
        for kv in ["32", "16", "8", "4", "8/4r"] {
            let mut model = tiny("llama-f32", kv);
            let before = model.kv.addresses();
            let prompts = [ids(300), ids(20), ids(256)];
            let tables =
                [vec![BlockId(6), BlockId(1)], vec![BlockId(0)], vec![BlockId(7), BlockId(3)]];
            let row = |row: usize, start, tokens, logits| Row {
                tokens,
                start,
                blocks: &tables[row],
                logits,
            };
            let prefill =
                |row_index: usize| row(row_index, 0, &prompts[row_index][..], Wanted::None);
            let rows = (0..3).map(prefill).collect();
            model.step(&Batch { rows }).unwrap();
            assert_eq!(model.kv.addresses(), before, "{kv}: prefill");
            for step in 0..4 {
                let rows = (0..3)
                    .map(|index| {
                        row(index, prompts[index].len() + step, &prompts[index][..1], Wanted::Last)
                    })
                    .collect();
                model.step(&Batch { rows }).unwrap();
                assert_eq!(model.kv.addresses(), before, "{kv}: decoding step {step}");
            }
            let bytes = model.export(BlockId(6), 100).unwrap();
            model.import(BlockId(5), 100, &bytes).unwrap();
            model.step(&Batch { rows: vec![prefill(1)] }).unwrap();
            assert_eq!(model.kv.addresses(), before, "{kv}: after an export and an import");
        }
    }
}
