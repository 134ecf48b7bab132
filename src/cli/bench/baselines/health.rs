//! The three probes, one after another and many at once.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Aim, Bench, Times};
use crate::cli::bench::client::{Client, ms};
use crate::cli::bench::report::{Cell, Row};
use crate::cli::output::Failure;

/// Of each probe, one after another.
const CHECKS: usize = 1_000;
/// Checks at once, and how often.
const TOGETHER: usize = 100;
const ROUNDS: usize = 20;
const TARGET_MS: f64 = 100.0;
/// The probes, and what they took before.
const PROBES: [(&str, f64); 3] = [("live", 0.94), ("ready", 1.81), ("startup", 0.55)];
const TOGETHER_BEFORE_MS: f64 = 22.86;
const TOGETHER_BEFORE_P95_MS: f64 = 29.17;

pub fn rows(bench: &Bench<'_>) -> Result<Vec<Row>, Failure> {
    let host = &bench.host;
    let server = host.serving("baseline-health", &[])?;
    let address = server.address;
    let mut rows = Vec::new();
    for (probe, before_ms) in PROBES {
        host.setup.interrupt.check()?;
        let mut times = Times::default();
        for _ in 0..host.share(CHECKS) {
            times.add(host.block_on(check(address, probe)));
        }
        let name = format!("health_endpoint_performance, {probe}");
        rows.push(times.row(&name, &Aim { before_ms, target_ms: TARGET_MS }));
    }
    let mut times = Times::default();
    for _ in 0..host.share(ROUNDS) {
        host.setup.interrupt.check()?;
        let checks = (0..TOGETHER).map(|_| check(address, "live"));
        for took in host.block_on(futures_util::future::join_all(checks)) {
            times.add(took);
        }
    }
    let aim = Aim { before_ms: TOGETHER_BEFORE_MS, target_ms: TARGET_MS };
    let row = times.row("concurrent_health_checks", &aim);
    rows.push(
        row.with("together", Cell::Count(TOGETHER as u64))
            .with("before_p95_ms", Cell::Number(TOGETHER_BEFORE_P95_MS, 2)),
    );
    Ok(rows)
}

/// What a probe on a connection of its own took, if it was answered with 200.
async fn check(address: SocketAddr, probe: &str) -> Option<f64> {
    let asked = Instant::now();
    let path = format!("/health/{probe}");
    let answer = async { Client::connect(address).await?.get(&path).await }.await.ok()?;
    (answer.status == 200).then(|| ms(asked, Instant::now()))
}
