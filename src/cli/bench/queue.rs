//! Many more requests than can run at a time: each is answered or refused with a reason, and what
//! waits costs little memory.

use std::time::Instant;

use super::live::{Live, follow};
use super::report::{Cell, Row, Section};
use super::setup::{Setup, blocks};
use crate::cli::memory::rss_bytes;
use crate::cli::output::Failure;
use crate::engine::Error;

/// Requests at once.
const REQUESTS: usize = 1_000;
/// Of these many run together.
const RUNNING_MAX: usize = 32;
const PROMPT_TOKENS: usize = 32;
const REPLY_TOKENS: usize = 4;

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    if setup.summary.context_tokens < PROMPT_TOKENS + REPLY_TOKENS {
        let note = format!("left out, the model's context is {}", setup.summary.context_tokens);
        return Ok(Section { rows: Vec::new(), notes: vec![note] });
    }
    let pool_blocks = 2 * RUNNING_MAX * blocks(PROMPT_TOKENS + REPLY_TOKENS);
    let live = Live::start(setup, pool_blocks, RUNNING_MAX)?;
    let progress = setup.progress("queue", 2);
    // The pool's memory is there from now on: it is a budget, not what waiting costs.
    let warm_up = 0..2 * RUNNING_MAX as u64;
    live.run_all(warm_up.map(|seed| live.prompt(seed, PROMPT_TOKENS)).collect(), REPLY_TOKENS)?;
    progress.advance(1);
    setup.interrupt.check()?;
    let before = rss_bytes();
    let started = Instant::now();
    let submitted: Vec<_> = (0..REQUESTS as u64)
        .map(|seed| live.submit(live.prompt(1_000 + seed, PROMPT_TOKENS), REPLY_TOKENS))
        .collect();
    let (results, peak) = live.block_on(async {
        let tasks: Vec<_> = submitted
            .into_iter()
            .map(|(at, stream)| tokio::spawn(follow(at, stream, |_| ())))
            .collect();
        let mut results = Vec::new();
        let mut peak = rss_bytes();
        for task in tasks {
            results.push(task.await.expect("reading does not panic"));
            if results.len() % 64 == 0 {
                peak = peak.max(rss_bytes());
            }
        }
        (results, peak)
    });
    let seconds = started.elapsed().as_secs_f64();
    progress.advance(1);
    let answered = results.iter().filter(|result| result.is_ok()).count();
    let refused = results
        .iter()
        .filter(|result| matches!(result, Err(Error::QueueFull { .. } | Error::WaitedTooLong(_))))
        .count();
    let mut row = Row::new(format!("{REQUESTS} requests, {RUNNING_MAX} at a time"))
        .with("answered", Cell::Count(answered as u64))
        .with("refused", Cell::Count(refused as u64))
        .with("lost", Cell::Count((REQUESTS - answered - refused) as u64))
        .with("seconds", Cell::Number(seconds, 1));
    if let (Some(before), Some(peak)) = (before, peak) {
        let growth = peak.saturating_sub(before) as f64 / f64::from(1 << 20);
        row = row.with("rss_growth_mib", Cell::Number(growth, 1));
    }
    row = row.with("blocks_left", Cell::Count(held(&live) as u64));
    Ok(Section { rows: vec![row], notes: Vec::new() })
}

/// Blocks that nobody uses and that cannot be had: there should be none.
fn held(live: &Live<'_>) -> usize {
    let stats = live.stats();
    stats.blocks_used - stats.blocks_evictable
}
