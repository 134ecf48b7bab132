//! Qwen2 and Qwen2.5: biases on the q, k and v projections.
//!
//! Reference: `mlx_lm/models/qwen2.py`.

use super::{Architecture, Fields};
use crate::model::Error;
use crate::model::decoder::Config;
use crate::model::layers::Bias;

pub const QWEN2: Architecture = Architecture { model_type: "qwen2", ..Architecture::new(config) };

fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    if fields.boolean("use_sliding_window")?.unwrap_or(false) {
        fields.refuse_windows()?;
    }
    Ok(Config { qkv_bias: Bias::Added, ..fields.decoder(1_000_000.0)? })
}
