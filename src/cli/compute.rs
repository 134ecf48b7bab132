//! The flags that say how a model computes, as commands share them.

use crate::config;
use crate::model::machine::THREADS_MAX;
use crate::model::{Device, KvConfig};

#[derive(Debug, clap::Args)]
pub struct ComputeFlags {
    /// Bits of the KV cache, as 8 or 8/4r [default: the model's]
    ///
    /// One number, or one each for K and V; an `r` rotates a part.
    #[arg(long, value_name = "BITS", env = "SEMANTIC_KV_BITS")]
    kv_bits: Option<KvConfig>,
    /// What computes: cpu, portable or auto [default: auto]
    ///
    /// cpu is this program's kernels, portable plain MLX.
    #[arg(long, env = "SEMANTIC_DEVICE")]
    device: Option<Device>,
    /// Threads of the CPU kernels [default: all physical cores]
    #[arg(long, env = "SEMANTIC_THREADS")]
    threads: Option<usize>,
}

/// How a model computes.
#[derive(Clone, Copy, Debug)]
pub struct Compute {
    /// The model's own if not given.
    pub kv: Option<KvConfig>,
    pub device: Device,
    /// All physical cores if not given.
    pub threads: Option<usize>,
}

impl ComputeFlags {
    /// The flags and the environment over the configuration, in range.
    pub fn merge(&self, defaults: config::Compute<'_>) -> Result<Compute, String> {
        let kv = match (self.kv_bits, defaults.kv_bits) {
            (Some(kv), _) => Some(kv),
            (None, Some(text)) => {
                Some(text.parse().map_err(|reason| format!("kv_bits: {reason}"))?)
            }
            (None, None) => None,
        };
        let device = match (self.device, defaults.device) {
            (Some(device), _) => device,
            (None, Some(text)) => text.parse().map_err(|reason| format!("device: {reason}"))?,
            (None, None) => Device::Auto,
        };
        let threads = self.threads.or(defaults.threads);
        if let Some(threads) = threads
            && !(1..=THREADS_MAX).contains(&threads)
        {
            return Err(format!("threads is {threads}; it goes from 1 to {THREADS_MAX}"));
        }
        Ok(Compute { kv, device, threads })
    }
}
