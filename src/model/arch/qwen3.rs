//! Qwen3: queries and keys are normalised per head; a head's size is its own setting.
//!
//! Reference: `mlx_lm/models/qwen3.py`.

use super::{Architecture, Fields};
use crate::model::Error;
use crate::model::decoder::Config;

pub const QWEN3: Architecture = Architecture { model_type: "qwen3", ..Architecture::new(config) };

fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    if fields.boolean("use_sliding_window")?.unwrap_or(false) {
        fields.refuse_windows()?;
    }
    Ok(Config { qk_norm: true, ..fields.decoder(1_000_000.0)? })
}
