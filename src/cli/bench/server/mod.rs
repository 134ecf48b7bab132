//! How the server conducts itself: what clients, probes and supervisors see of a real process,
//! beside what it promises.
//!
//! Each part starts servers of its own on the model under measurement, on a free port, with a data
//! folder that is gone at the end, and asks them over the network.

mod agents;
mod burst;
mod malformed;
mod mutant;
mod neighbour;
mod overhead;
mod overload;
mod pool;
mod probes;
mod start;
mod stop;
mod sustained;

use super::client::{self, ANSWER_TIMEOUT, Client};
use super::host::{Host, UNLIMITED, chat};
use super::plan::PERCENT_ALL;
use super::report::{Row, Section};
use super::server_process as process;
use super::setup::Setup;
use crate::cli::output::Failure;

/// A few promises and what became of them.
type Part = fn(&Host<'_>) -> Result<Vec<Row>, Failure>;

/// In the order in which they run.
const PARTS: &[Part] = &[
    start::rows,
    overhead::rows,
    probes::rows,
    burst::rows,
    agents::rows,
    pool::rows,
    overload::rows,
    neighbour::rows,
    malformed::rows,
    stop::rows,
    sustained::rows,
];

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let host = Host::new(setup)?;
    let progress = setup.progress("server", PARTS.len());
    let mut rows = Vec::new();
    for part in PARTS {
        setup.interrupt.check()?;
        rows.extend(part(&host)?);
        progress.advance(1);
    }
    let mut notes = vec![
        "clients run on the same cores; every time is what they saw, connections included"
            .to_owned(),
    ];
    let percent = setup.sizes.server_percent;
    if percent < PERCENT_ALL as usize {
        notes.push(format!("{percent} % of the requests: the promises are about all of them"));
    }
    Ok(Section { rows, notes })
}
