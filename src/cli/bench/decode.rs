//! How fast one sequence goes on, token by token, at a given depth.

use super::report::Section;
use super::rounds::{self, Work};
use super::setup::Setup;
use crate::cli::output::Failure;

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let sizes = &setup.sizes;
    let work = |&context: &usize| Work::Decode { context, tokens: sizes.decode_tokens };
    rounds::section(setup, "decode", sizes.contexts.iter().map(work).collect())
}
