//! The kernel path: the forward pass on this project's own CPU kernels.
//!
//! MLX stays the runtime: each layer is one operation of an MLX graph, whose work `crates/kernels`
//! does on slices. Order follows from the data edge between layers. Every row's result depends on
//! nothing but its own tokens: not on the batch, the chunks or the number of threads.

mod layer;
mod plan;
mod slab;
mod weights;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernels::decoder::{Buffers, Cache, Head, Layer, Linear, Norm, Shape, Work};
use kernels::isa::Isa;
use kernels::pool::{Pool, physical_cores};
use mlx_custom::{CpuKernel, Input, Kernel, OutputSpec, View, ViewMut, cpu_stream};
use mlx_rs::{Array, Dtype};

use super::batch::{check_block, check_length};
use super::checkpoint::Checkpoint;
use super::decoder::Config;
use super::kv::KvConfig;
use super::rope::Frequencies;
use super::{Batch, Error, Logits, Model, Spec};
use crate::types::{BlockId, TokenId};
use plan::Plan;
use slab::Slab;
use weights::Loader;

/// Enough rows that each weight is read from cache for most of them.
const PREFILL_TOKENS: usize = 256;

pub struct Cpu {
    shared: Arc<Shared>,
    spec: Spec,
}

/// What the operations of a step have in common; MLX's thread runs them one after another.
struct Shared {
    isa: Isa,
    pool: Pool,
    shape: Shape,
    ropes: Vec<Frequencies>,
    embedding: Linear,
    /// Embeddings are multiplied by this on their way in.
    embedding_scale: Option<f32>,
    layers: Vec<Layer>,
    norm: Norm,
    /// `None` if the embedding is the head too.
    head: Option<Linear>,
    state: Mutex<State>,
}

/// What the operations of a step write.
struct State {
    slab: Slab,
    buffers: Buffers,
}

impl Cpu {
    /// Reads and packs the weights. `threads` is a number of threads, all physical cores if not
    /// given.
    pub fn load(
        config: &Config,
        checkpoint: &Checkpoint,
        kv: KvConfig,
        pool_blocks: usize,
        threads: Option<usize>,
    ) -> Result<Cpu, Error> {
        // Before a weight is read.
        let layout = slab::layout(kv, config)?;
        let loader = Loader { checkpoint };
        // What is unpacked on the way in is largest for embedding and head, so they come first.
        let embedding = loader.embedding("model.embed_tokens", config.vocabulary, config.hidden)?;
        let head = match config.tied {
            true => None,
            false => Some(loader.embedding("lm_head", config.vocabulary, config.hidden)?),
        };
        let layers = (0..config.layers.len())
            .map(|index| layer::load(index, config, &loader))
            .collect::<Result<_, _>>()?;
        let norm = loader.norm("model.norm", config.hidden, config.norm)?;
        let slab = Slab::new(layout, config, pool_blocks)?;
        let spec = Spec {
            vocabulary: config.vocabulary,
            context_tokens: config.context_tokens,
            pool_blocks,
            prefill_tokens: PREFILL_TOKENS,
            layers: vec![slab.layer_spec(); config.layers.len()],
            tensors: config.kv_tensors(kv)?,
        };
        let threads = threads.unwrap_or_else(physical_cores);
        let pool = Pool::new(threads)
            .map_err(|error| Error::Setting(format!("cannot start {threads} threads: {error}")))?;
        let shared = Shared {
            isa: Isa::best(),
            pool,
            shape: layer::shape(config, kv, layout),
            ropes: config
                .ropes
                .iter()
                .map(|rope| Frequencies::new(rope, config.head_dim))
                .collect::<Result<_, _>>()?,
            embedding,
            embedding_scale: config.embedding_scale,
            layers,
            norm,
            head,
            state: Mutex::new(State { slab, buffers: Buffers::default() }),
        };
        Ok(Cpu { shared: Arc::new(shared), spec })
    }
}

impl Model for Cpu {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn path(&self) -> &'static str {
        "cpu kernels"
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<Vec<Logits>, Error> {
        batch.check(&self.spec)?;
        let shared = &self.shared;
        let plan = {
            let State { slab, .. } = &*shared.state();
            Arc::new(Plan::new(batch, &shared.ropes, &shared.shape, slab, shared.pool.threads()))
        };
        let (tokens, hidden) = (plan.tokens.len(), shared.shape.hidden);
        let mut x = vec![0.0; tokens * hidden];
        for (token, x) in plan.tokens.iter().zip(x.chunks_exact_mut(hidden)) {
            shared.embed(*token, x);
        }
        let stream = cpu_stream();
        let shape = [tokens as i32, hidden as i32];
        let mut x = Array::from_slice(&x, &shape);
        for index in 0..shared.layers.len() {
            let shared = Arc::clone(shared);
            let kernel = Kernel::new(LayerStep { shared, plan: Arc::clone(&plan), index });
            let input = Input { name: "x", array: &x, shape: &shape, dtype: Dtype::Float32 };
            let output = OutputSpec { shape: &shape, dtype: Dtype::Float32 };
            x = kernel.apply_one(&[input], output, &stream).map_err(mlx_error)?;
        }
        if plan.wanted.is_empty() {
            x.eval()?;
            return Ok(batch.split_logits(self.spec.vocabulary, &[]));
        }
        let kernel = Kernel::new(HeadStep { shared: Arc::clone(shared), plan: Arc::clone(&plan) });
        let input = Input { name: "x", array: &x, shape: &shape, dtype: Dtype::Float32 };
        let shape = [plan.wanted.len() as i32, self.spec.vocabulary as i32];
        let output = OutputSpec { shape: &shape, dtype: Dtype::Float32 };
        let logits = kernel.apply_one(&[input], output, &stream).map_err(mlx_error)?;
        logits.eval()?;
        let values = logits.try_as_slice::<f32>().map_err(|error| Error::Mlx(error.to_string()))?;
        Ok(batch.split_logits(self.spec.vocabulary, values))
    }

    fn export(&mut self, block: BlockId, tokens: usize) -> Result<Vec<u8>, Error> {
        check_block(&self.spec, block, tokens)?;
        let bytes = self.shared.state().slab.export(block, tokens);
        assert_eq!(bytes.len(), self.spec.block_bytes(tokens));
        Ok(bytes)
    }

    fn export_into(
        &mut self,
        block: BlockId,
        tokens: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        check_block(&self.spec, block, tokens)?;
        self.shared.state().slab.export_into(block, tokens, out);
        Ok(())
    }

    fn import(&mut self, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<(), Error> {
        check_block(&self.spec, block, tokens)?;
        check_length(&self.spec, tokens, bytes)?;
        self.shared.state().slab.import(block, tokens, bytes);
        Ok(())
    }

    fn prepare(&mut self, blocks: usize) {
        self.shared.state().slab.prepare(blocks.min(self.spec.pool_blocks));
    }
}

fn mlx_error(error: mlx_custom::Error) -> Error {
    Error::Mlx(error.to_string())
}

impl Shared {
    /// What goes into the first layer for a token, `[hidden]`.
    fn embed(&self, token: TokenId, x: &mut [f32]) {
        self.embedding.weights.row(token.0 as usize, x);
        if let Some(scale) = self.embedding_scale {
            for x in x {
                *x *= scale;
            }
        }
    }

    /// Held by one operation at a time. A panic in one fails its step; what it left in its rows'
    /// blocks is overwritten or never read, so the next step may go on.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One layer over all tokens of a step: `[token, hidden] → [token, hidden]`.
struct LayerStep {
    shared: Arc<Shared>,
    plan: Arc<Plan>,
    index: usize,
}

impl CpuKernel for LayerStep {
    fn name(&self) -> &'static str {
        "decoder layer"
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let x = outputs[0].f32_mut();
        x.copy_from_slice(inputs[0].f32());
        let mut state = self.shared.state();
        let State { slab, buffers } = &mut *state;
        let Shared { isa, pool, shape, layers, .. } = &*self.shared;
        let work = Work { isa: *isa, pool, shape, step: &self.plan.step };
        let part = slab.part_offset(self.index);
        let cache = Cache { blocks: slab.bytes_mut(), part };
        layers[self.index].run(&work, cache, buffers, x);
    }
}

/// The last norm and the output head, for the positions whose logits are wanted:
/// `[token, hidden] → [wanted, vocabulary]`.
struct HeadStep {
    shared: Arc<Shared>,
    plan: Arc<Plan>,
}

impl CpuKernel for HeadStep {
    fn name(&self) -> &'static str {
        "output head"
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let Shared { isa, pool, norm, head, embedding, .. } = &*self.shared;
        let linear = head.as_ref().unwrap_or(embedding);
        let head = Head { isa: *isa, pool, norm, linear };
        let buffers = &mut self.shared.state().buffers;
        let x = inputs[0].f32();
        head.run(buffers, x, &self.plan.wanted, outputs[0].f32_mut());
    }
}
