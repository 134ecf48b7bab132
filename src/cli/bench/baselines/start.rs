//! How soon a process is ready, and how soon it has answered its first request.

use std::time::Instant;

use serde_json::json;

use super::{Aim, Bench, Times};
use crate::cli::bench::client::{chat_once, ms};
use crate::cli::bench::report::Row;
use crate::cli::bench::server_process::Server;
use crate::cli::output::Failure;

/// Of the first request, with all that the template puts around it, and of its reply.
const PROMPT_TOKENS: usize = 64;
const REPLY_TOKENS: usize = 32;

const READY: Aim = Aim { before_ms: 7_500.0, target_ms: 60_000.0 };
const COLD: Aim = Aim { before_ms: 1_939.0, target_ms: 5_000.0 };

/// After one process that is not counted, which finds the model's files in no cache.
pub fn rows(bench: &Bench<'_>) -> Result<Vec<Row>, Failure> {
    let (mut ready, mut cold) = (Times::default(), Times::default());
    let host = &bench.host;
    for round in 0..=host.setup.sizes.runs {
        let body = json!({
            "messages": bench.talk.opening(&format!("Start {round}."), PROMPT_TOKENS)?,
            "max_tokens": REPLY_TOKENS,
            "temperature": 0,
        });
        let server = Server::start(host, "baseline-start", &[])?;
        let is_ready = host.block_on(server.wait_ready(&host.setup.interrupt))?;
        let asked = Instant::now();
        let answer = host.block_on(chat_once(server.address, "bench-cold", &body))?;
        let answered = Instant::now();
        if round == 0 {
            continue;
        }
        ready.add(Some(ms(server.started, is_ready)));
        cold.add((answer.status == 200).then(|| ms(asked, answered)));
    }
    Ok(vec![ready.row("server_startup", &READY), cold.row("single_request_cold_start", &COLD)])
}
