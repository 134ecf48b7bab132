//! How fast prompts are read from an empty KV.

use super::report::Section;
use super::rounds::{self, Work};
use super::setup::Setup;
use crate::cli::output::Failure;

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let lengths = setup.sizes.prompt_tokens.iter();
    rounds::section(setup, "prefill", lengths.map(|&tokens| Work::Prefill { tokens }).collect())
}
