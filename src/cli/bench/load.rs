//! How long a model takes to load, and how much memory it takes while and after.

use std::time::Instant;

use super::figure::Figure;
use super::report::{Cell, Row, Section};
use super::setup::Setup;
use crate::cli::memory::{peak_rss_bytes, rss_bytes};
use crate::cli::output::Failure;
use crate::model::ModelFiles;

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let progress = setup.progress("load", setup.sizes.runs + 1);
    // The first load is not timed, as it may find the file on disk only; but it alone shows the
    // peak, because what the second takes the first has left.
    let before = rss_bytes();
    load(setup)?;
    progress.advance(1);
    let growth = match (before, peak_rss_bytes()) {
        (Some(before), Some(peak)) => Some(peak.saturating_sub(before)),
        _ => None,
    };
    let mut runs = Vec::new();
    for _ in 0..setup.sizes.runs {
        setup.interrupt.check()?;
        let started = Instant::now();
        load(setup)?;
        runs.push(started.elapsed().as_secs_f64() * 1e3);
        progress.advance(1);
    }
    let mut row = Row::new("from the page cache")
        .with("load_ms", Cell::Figure(Figure::new(runs)))
        .with("file_bytes", Cell::Count(setup.file_bytes));
    if let Some(growth) = growth {
        row = row
            .with("rss_growth_bytes", Cell::Count(growth))
            .with("growth_per_file_byte", Cell::Number(growth as f64 / setup.file_bytes as f64, 2));
    }
    Ok(Section { rows: vec![row], notes: Vec::new() })
}

/// As a command does it: opened, checked, read, packed; with a pool for one block.
fn load(setup: &Setup<'_>) -> Result<(), Failure> {
    ModelFiles::open(&setup.model_path)?;
    setup.load(1, 1).map(drop)
}
