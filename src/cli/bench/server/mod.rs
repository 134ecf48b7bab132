//! How the server conducts itself: what clients, probes and supervisors see of a real process,
//! beside what it promises.
//!
//! Each part starts servers of its own on the model under measurement, on a free port, with a data
//! folder that is gone at the end, and asks them over the network.

mod agents;
mod burst;
mod malformed;
mod overhead;
mod pool;
mod probes;
mod start;
mod stop;
mod sustained;

use super::client::{self, ANSWER_TIMEOUT, Client};
use super::host::{Host, UNLIMITED, chat};
use super::report::{Row, Section};
use super::server_process as process;
use super::setup::Setup;
use super::up_to;
use crate::cli::output::Failure;

/// The promises are about this many.
const PERCENT_ALL: u64 = 100;
/// An hour of it would be a soak, which is another test.
const LOAD_SECONDS_MAX: u64 = 86_400;

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
    malformed::rows,
    stop::rows,
    sustained::rows,
];

#[derive(Debug, clap::Args)]
pub struct ServerFlags {
    /// How much of its requests `server` sends; what it promises is about all of them
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = up_to(PERCENT_ALL))]
    server_percent: usize,
    /// How long `server` holds the load of 80 %; the growth of memory is promised for 300
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = up_to(LOAD_SECONDS_MAX))]
    load_seconds: usize,
}

impl ServerFlags {
    /// So many of so many as the user wants to see, at least one.
    pub fn share(&self, count: usize) -> usize {
        (count * self.server_percent / PERCENT_ALL as usize).max(1)
    }
}

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
    let percent = setup.arguments.server.server_percent;
    if percent < PERCENT_ALL as usize {
        notes.push(format!("{percent} % of the requests: the promises are about all of them"));
    }
    Ok(Section { rows, notes })
}
