//! How soon a process that has just begun is there, and how soon it is gone.

use rustix::process::Signal;
use std::time::Instant;

use super::client::ms;
use super::process::Server;
use super::{Client, Host};
use crate::cli::bench::figure::Figure;
use crate::cli::bench::report::{Cell, Row};
use crate::cli::output::Failure;

/// The promises.
const LIVE_MS_MAX: f64 = 50.0;
const READY_MS_MAX: f64 = 1_000.0;
const EXIT_MS_MAX: f64 = 300.0;

/// After one that is not counted, which finds the model's files in no cache.
pub fn rows(host: &Host<'_>) -> Result<Vec<Row>, Failure> {
    let (mut bound, mut live, mut ready, mut exit) = (vec![], vec![], vec![], vec![]);
    for round in 0..=host.setup.sizes.runs {
        host.setup.interrupt.check()?;
        let mut server = Server::start(host, "start", &[])?;
        let answered = host.block_on(async {
            Client::connect(server.address).await?.get("/health/live").await?;
            std::io::Result::Ok(Instant::now())
        })?;
        let is_ready = host.block_on(server.wait_ready(&host.setup.interrupt))?;
        let asked = Instant::now();
        server.signal(Signal::INT)?;
        server.wait()?;
        if round > 0 {
            bound.push(ms(server.started, server.bound));
            live.push(ms(server.bound, answered));
            ready.push(ms(server.started, is_ready));
            exit.push(ms(asked, Instant::now()));
        }
    }
    let [bound, live, ready, exit] = [bound, live, ready, exit].map(Figure::new);
    let holds = [(&live, LIVE_MS_MAX), (&ready, READY_MS_MAX), (&exit, EXIT_MS_MAX)]
        .iter()
        .all(|(figure, most)| figure.median() <= *most);
    let row = Row::new("start, and Ctrl-C when idle")
        .with("bound_ms", Cell::Figure(bound))
        .with("live_after_bound_ms", Cell::Figure(live))
        .with("live_at_most", Cell::Number(LIVE_MS_MAX, 0))
        .with("ready_ms", Cell::Figure(ready))
        .with("ready_at_most", Cell::Number(READY_MS_MAX, 0))
        .with("exit_ms", Cell::Figure(exit))
        .with("exit_at_most", Cell::Number(EXIT_MS_MAX, 0))
        .with("promise", Cell::Verdict(holds));
    Ok(vec![row])
}
