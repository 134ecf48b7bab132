//! The baselines: how long a server of ours takes to start, to answer and to say that it is well,
//! and how many it answers at once, beside what was measured before and what is aimed at.
//!
//! Real processes on free ports, asked over the network, a connection for each request as clients
//! have it. A row has the name of the test that its figure was first measured by.

mod capacity;
mod health;
mod sequence;
mod start;

use super::figure::Figure;
use super::host::Host;
use super::report::{Cell, Row, Section};
use super::rounds::load_note;
use super::setup::Setup;
use super::talk::Talk;
use crate::cli::output::Failure;

/// Aimed at is that so many of all requests are answered.
const OK_PERCENT_MIN: f64 = 95.0;

/// What all parts need.
struct Bench<'a> {
    host: Host<'a>,
    talk: Talk,
}

/// A few rows.
type Part = fn(&Bench<'_>) -> Result<Vec<Row>, Failure>;

/// In the order in which they run.
const PARTS: &[Part] = &[start::rows, sequence::rows, health::rows, capacity::rows];

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let bench = Bench { host: Host::new(setup)?, talk: Talk::new(setup)? };
    let progress = setup.progress("baselines", PARTS.len());
    let mut rows = Vec::new();
    for part in PARTS {
        setup.interrupt.check()?;
        rows.extend(part(&bench)?);
        progress.advance(1);
    }
    let mut notes = vec![
        "before: of an earlier server with a larger model, on an Apple M4".to_owned(),
        format!("the target is about p95, and {OK_PERCENT_MIN} % answered with 200"),
    ];
    notes.extend(load_note(setup.threads()));
    Ok(Section { rows, notes })
}

/// What requests of a kind took, and how many of them were answered.
#[derive(Default)]
struct Times {
    /// Of those that were answered.
    ms: Vec<f64>,
    asked: usize,
}

/// What a row's figure is held against.
struct Aim {
    before_ms: f64,
    target_ms: f64,
}

impl Times {
    /// `None` is a request that was not answered.
    fn add(&mut self, took_ms: Option<f64>) {
        self.asked += 1;
        self.ms.extend(took_ms);
    }

    fn ok_percent(&self) -> f64 {
        100.0 * self.ms.len() as f64 / self.asked.max(1) as f64
    }

    /// Without times if nothing was answered.
    fn row(self, name: &str, aim: &Aim) -> Row {
        let ok_percent = self.ok_percent();
        let row = Row::new(name)
            .with("requests", Cell::Count(self.asked as u64))
            .with("ok_percent", Cell::Number(ok_percent, 1));
        let (row, p95) = match self.ms.is_empty() {
            true => (row, f64::INFINITY),
            false => {
                let took = Figure::new(self.ms);
                (percentiles(row, &took), took.percentile(0.95))
            }
        };
        let holds = ok_percent >= OK_PERCENT_MIN && p95 <= aim.target_ms;
        row.with("before_ms", Cell::Number(aim.before_ms, 2))
            .with("target_ms", Cell::Number(aim.target_ms, 0))
            .with("target", Cell::Verdict(holds))
    }
}

fn percentiles(row: Row, took: &Figure) -> Row {
    row.with("p50_ms", Cell::Number(took.percentile(0.5), 2))
        .with("p95_ms", Cell::Number(took.percentile(0.95), 2))
        .with("p99_ms", Cell::Number(took.percentile(0.99), 2))
}
