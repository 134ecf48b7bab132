//! How the server conducts itself: what clients, probes and supervisors see of a real process,
//! beside what it promises.
//!
//! Each part starts servers of its own on the model under measurement, on a free port, with a data
//! folder that is gone at the end, and asks them over the network.

mod client;
mod process;

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

use std::future::Future;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;

use super::report::{Row, Section};
use super::scratch::Scratch;
use super::setup::Setup;
use super::up_to;
use crate::cli::output::Failure;
use client::Client;
use process::Server;

/// The promises are about this many.
const PERCENT_ALL: u64 = 100;
/// An hour of it would be a soak, which is another test.
const LOAD_SECONDS_MAX: u64 = 86_400;
/// Nobody waits longer for an answer, whatever becomes of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

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

#[derive(Debug, clap::Args)]
pub struct ServerFlags {
    /// How much of its requests `server` sends; what it promises is about all of them
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = up_to(PERCENT_ALL))]
    server_percent: usize,
    /// How long `server` holds the load of 80 %; the growth of memory is promised for 300
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = up_to(LOAD_SECONDS_MAX))]
    load_seconds: usize,
}

/// What all parts need.
struct Host<'a> {
    setup: &'a Setup<'a>,
    scratch: Scratch,
    runtime: Runtime,
}

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let host = Host { setup, scratch: Scratch::new(setup)?, runtime };
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

impl Host<'_> {
    /// So many of so many as the user wants to see, at least one.
    fn share(&self, count: usize) -> usize {
        (count * self.setup.arguments.server.server_percent / PERCENT_ALL as usize).max(1)
    }

    /// A server with these flags and a data folder of this name that takes requests.
    fn serving(&self, name: &str, flags: &[&str]) -> Result<Server, Failure> {
        let server = Server::start(self, name, flags)?;
        self.ready(server)
    }

    fn ready(&self, server: Server) -> Result<Server, Failure> {
        self.block_on(server.wait_ready(&self.setup.interrupt))?;
        Ok(server)
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

/// A chat request that is answered with the likeliest tokens.
fn chat(text: &str, tokens: usize) -> Json {
    json!({
        "messages": [{ "role": "user", "content": text }],
        "max_tokens": tokens,
        "temperature": 0,
    })
}

/// Without the limits of requests per minute.
const UNLIMITED: [&str; 2] = ["--rate-limit-agent=0", "--rate-limit-global=0"];
