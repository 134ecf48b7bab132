//! How fast several sequences go on together, in the same steps.

use super::report::Section;
use super::rounds::{self, Work};
use super::setup::Setup;
use crate::cli::output::Failure;

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let sizes = &setup.sizes;
    let work = |&sequences: &usize| Work::Batch {
        sequences,
        context: sizes.batch_context,
        tokens: sizes.decode_tokens,
    };
    rounds::section(setup, "batch", sizes.sequences.iter().map(work).collect())
}
