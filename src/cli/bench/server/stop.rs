//! SIGTERM while streams run: not ready, drained, saved, gone.

use std::cell::Cell as Shared;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::ms;
use super::process::Server;
use super::{Client, Host, UNLIMITED, chat};
use crate::cli::bench::report::{Cell, Row};
use crate::cli::output::Failure;

const STREAMS: usize = 50;
const REPLY_TOKENS: usize = 96;
const POLL: Duration = Duration::from_millis(1);
/// Lines of the server's log.
const DRAINED: &str = "drained";
const SAVED: &str = "no agent is left";

/// The promise: a probe that comes then finds it not ready.
const NOT_READY_MS_MAX: f64 = 100.0;

pub fn rows(host: &Host<'_>) -> Result<Vec<Row>, Failure> {
    let mut server = host.serving("stop", &UNLIMITED)?;
    let count = host.share(STREAMS);
    let begun = Shared::new(0);
    let (ends, times) = host.block_on(async {
        let address = server.address;
        let streams = futures_util::future::join_all(
            (0..count).map(|number| stream(address, number, &begun)),
        );
        tokio::join!(streams, stop(&mut server, count, &begun))
    });
    let times = times?;
    let done = ends.iter().filter(|is_done| **is_done).count();
    let holds = done == count && times.is_clean && times.not_ready_ms <= NOT_READY_MS_MAX;
    let row = Row::new(format!("SIGTERM with {count} streams"))
        .with("streams_done", Cell::Count(done as u64))
        .with("not_ready_ms", Cell::Number(times.not_ready_ms, 1))
        .with("at_most_ms", Cell::Number(NOT_READY_MS_MAX, 0))
        .with("drained_ms", Cell::Number(times.drained_ms, 0))
        .with("saved_ms", Cell::Number(times.saved_ms, 0))
        .with("exit_ms", Cell::Number(times.exit_ms, 0))
        .with("promise", Cell::Verdict(holds));
    Ok(vec![row])
}

/// From the signal.
struct Times {
    not_ready_ms: f64,
    drained_ms: f64,
    saved_ms: f64,
    exit_ms: f64,
    /// With exit code 0.
    is_clean: bool,
}

/// Whether it came to its proper end.
async fn stream(address: SocketAddr, number: usize, begun: &Shared<usize>) -> bool {
    let body = chat(&format!("Tell a long tale of {number} geese."), REPLY_TOKENS);
    let mut is_first = true;
    let on_text = || {
        if std::mem::take(&mut is_first) {
            begun.set(begun.get() + 1);
        }
    };
    let streamed = async {
        Client::connect(address).await?.stream(&format!("agent-{number}"), &body, on_text).await
    };
    streamed.await.is_ok_and(|streamed| streamed.is_done)
}

/// Terminates it once all streams have begun, and watches.
async fn stop(server: &mut Server, count: usize, begun: &Shared<usize>) -> Result<Times, Failure> {
    while begun.get() < count {
        tokio::time::sleep(POLL).await;
    }
    let asked = Instant::now();
    server.signal(Signal::TERM)?;
    let (mut not_ready, mut drained, mut saved) = (None, None, None);
    loop {
        if not_ready.is_none() && !is_ready(server.address).await {
            not_ready = Some(Instant::now());
        }
        let status = server.try_wait()?;
        let said = server.said()?;
        for (text, at) in [(DRAINED, &mut drained), (SAVED, &mut saved)] {
            if at.is_none() && said.contains(text) {
                *at = Some(Instant::now());
            }
        }
        if let Some(status) = status {
            let exited = Instant::now();
            let since = |at: Option<Instant>| ms(asked, at.unwrap_or(exited));
            return Ok(Times {
                not_ready_ms: since(not_ready),
                drained_ms: since(drained),
                saved_ms: since(saved),
                exit_ms: since(Some(exited)),
                is_clean: status.success() && drained.is_some() && saved.is_some(),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn is_ready(address: SocketAddr) -> bool {
    let answer = async { Client::connect(address).await?.get("/health/ready").await };
    answer.await.is_ok_and(|answer| answer.status == 200)
}
