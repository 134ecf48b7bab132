//! The health, asked alone and while every core generates.

use std::cell::Cell as Shared;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::client::ms;
use super::{Client, Host, UNLIMITED, chat};
use crate::cli::bench::figure::Figure;
use crate::cli::bench::report::{Cell, Row};
use crate::cli::output::Failure;

/// Checks one after another on an idle server.
const ALONE: usize = 2_000;
/// Checks at once, and how often.
const TOGETHER: usize = 100;
const ROUNDS: usize = 20;
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(100);
/// Who generates meanwhile, and how long their replies may be.
const STREAMS: usize = 8;
const REPLY_TOKENS: usize = 100_000;

/// The promises.
const ALONE_P99_MS_MAX: f64 = 2.0;
const TOGETHER_P95_MS_MAX: f64 = 29.0;

pub fn rows(host: &Host<'_>) -> Result<Vec<Row>, Failure> {
    let server = host.serving("probes", &UNLIMITED)?;
    let address = server.address;
    let alone = host.block_on(async {
        let mut checks = Vec::new();
        for _ in 0..host.share(ALONE) {
            checks.push(check(address).await);
        }
        checks
    });
    let mut rows = vec![row("health, one after another", &alone, 0.99, ALONE_P99_MS_MAX)];
    let (idle, busy) = host.block_on(async {
        let idle = rounds(address, host.share(TOGETHER), host.share(ROUNDS)).await;
        let begun = Shared::new(0);
        let streams = async {
            let streams = (0..STREAMS).map(|number| stream(address, number, &begun));
            futures_util::future::join_all(streams).await
        };
        let checks = async {
            // All generate.
            while begun.get() < STREAMS {
                tokio::time::sleep(PAUSE).await;
            }
            rounds(address, host.share(TOGETHER), host.share(ROUNDS)).await
        };
        let busy = tokio::select! {
            busy = checks => Ok(busy),
            _ = streams => Err(anyhow::anyhow!("the streams ended before the checks did")),
        };
        busy.map(|busy| (idle, busy))
    })?;
    let together = host.share(TOGETHER);
    for (state, checks) in [("idle", &idle), ("8 requests generate", &busy)] {
        let name = format!("health, {together} at once, {state}");
        rows.push(row(&name, checks, 0.95, TOGETHER_P95_MS_MAX));
    }
    Ok(rows)
}

/// The status, if there was one, and the time with the connection.
struct Check {
    status: Option<u16>,
    ms: f64,
}

async fn check(address: SocketAddr) -> Check {
    let started = Instant::now();
    let answer = async { Client::connect(address).await?.get("/health/live").await };
    let status = answer.await.ok().map(|answer| answer.status);
    Check { status, ms: ms(started, Instant::now()) }
}

async fn rounds(address: SocketAddr, together: usize, rounds: usize) -> Vec<Check> {
    let mut checks = Vec::new();
    for _ in 0..rounds {
        let round = (0..together).map(|_| check(address));
        checks.extend(futures_util::future::join_all(round).await);
        tokio::time::sleep(PAUSE).await;
    }
    checks
}

/// Generates, again if a reply ends, and says when it has begun.
async fn stream(address: SocketAddr, number: usize, begun: &Shared<usize>) -> std::io::Result<()> {
    let mut is_first = true;
    let mut client = Client::connect(address).await?;
    loop {
        let body = chat(&format!("Count from {number} to ten thousand."), REPLY_TOKENS);
        let on_text = || {
            if std::mem::take(&mut is_first) {
                begun.set(begun.get() + 1);
            }
        };
        client.stream(&format!("stream-{number}"), &body, on_text).await?;
    }
}

fn row(name: &str, checks: &[Check], percentile: f64, most: f64) -> Row {
    let ok = checks.iter().filter(|check| check.status == Some(200)).count();
    let figure = Figure::new(checks.iter().map(|check| check.ms).collect());
    let holds = ok == checks.len() && figure.percentile(percentile) <= most;
    let bound = format!("p{:.0}_at_most", percentile * 100.0);
    Row::new(name)
        .with("checks", Cell::Count(checks.len() as u64))
        .with("ok", Cell::Count(ok as u64))
        .with("p50_ms", Cell::Number(figure.percentile(0.5), 2))
        .with("p95_ms", Cell::Number(figure.percentile(0.95), 2))
        .with("p99_ms", Cell::Number(figure.percentile(0.99), 2))
        .with(bound, Cell::Number(most, 0))
        .with("promise", Cell::Verdict(holds))
}
