//! A full pool: how soon after the first reply has ended the next request is answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::burst::Said;
use super::client::ms;
use super::client::{Client, chat_once};
use super::{Host, UNLIMITED, chat};
use crate::cli::bench::report::{Cell, Row};
use crate::cli::output::Failure;

/// Of the pool, or a few more: it is given in MB.
const BLOCKS: u64 = 8;
/// Each filler takes two blocks, a last one what is left. One ends before the others.
const FILLER_BLOCKS: usize = 2;
const FILLER_TOKENS: usize = 400;
const FIRST_TOKENS: usize = 300;
const LAST_TOKENS: usize = 150;
/// Beyond these a pool is not full of replies.
const BLOCKS_MAX: usize = 1_000;
/// Between two who ask whether there is room.
const PAUSE: Duration = Duration::from_millis(10);
/// A request that has not begun by then has no room.
const PATIENCE: Duration = Duration::from_millis(500);
/// One place: of a line's places one namespace has half.
const SHORT_LINE: &str = "--queue-requests=2";

/// The promise.
const ROOM_MS_MAX: f64 = 1_000.0;

pub fn rows(host: &Host<'_>) -> Result<Vec<Row>, Failure> {
    let block_bytes = host.setup.files.block_bytes(host.setup.kv)? as u64;
    let pool_mb = (block_bytes * BLOCKS).div_ceil(1_000_000);
    let blocks = (pool_mb * 1_000_000 / block_bytes) as usize;
    if blocks > BLOCKS_MAX {
        // A block is so small that nothing fills a megabyte.
        return Ok(vec![Row::new("a full pool").with("measured", Cell::Text("no".into()))]);
    }
    let [pool, running] =
        [format!("--kv-pool-mb={pool_mb}"), format!("--max-running={}", blocks + 8)];
    let flags = [&UNLIMITED[..], &[&pool, &running, SHORT_LINE]].concat();
    let server = host.serving("pool", &flags)?;
    let address = server.address;
    let state = Arc::new(State::default());
    let answered = host.block_on(async {
        for number in 0..blocks.div_ceil(FILLER_BLOCKS) {
            let tokens = match number {
                0 => FIRST_TOKENS,
                _ if (number + 1) * FILLER_BLOCKS > blocks => LAST_TOKENS,
                _ => FILLER_TOKENS,
            };
            if !fill(address, number, tokens, &state).await {
                break;
            }
        }
        ask(address, &state).await
    });
    let room_ms = match (state.first_end.get(), answered) {
        (Some(end), Some(answered)) => Some(ms(*end, answered)),
        _ => None,
    };
    let refused = state.refused.load(Ordering::Relaxed);
    let wrong = state.wrong.load(Ordering::Relaxed);
    let holds = refused > 0 && wrong == 0 && room_ms.is_some_and(|ms| ms <= ROOM_MS_MAX);
    let mut row = Row::new(format!("a pool of {blocks} blocks is full"))
        .with("http_503", Cell::Count(refused))
        .with("other", Cell::Count(wrong));
    if let Some(room_ms) = room_ms {
        row = row.with("first_200_after_ms", Cell::Number(room_ms, 1));
    }
    Ok(vec![
        row.with("at_most_ms", Cell::Number(ROOM_MS_MAX, 0)).with("promise", Cell::Verdict(holds)),
    ])
}

#[derive(Default)]
struct State {
    /// Replies that have begun.
    begun: AtomicUsize,
    /// When the first of them had ended.
    first_end: OnceLock<Instant>,
    refused: AtomicU64,
    /// Other answers, also a 503 without the time to wait.
    wrong: AtomicU64,
}

/// Starts a reply and waits until it has begun. Leaves the line again if there is no room.
async fn fill(address: SocketAddr, number: usize, tokens: usize, state: &Arc<State>) -> bool {
    let mut body = chat(&format!("Count from {number} to a thousand."), tokens);
    // A model that has said enough would give its blocks back early.
    body["ignore_eos"] = true.into();
    let begun = number + 1;
    let filling = tokio::spawn({
        let state = Arc::clone(state);
        async move {
            let on_text = || {
                state.begun.fetch_max(begun, Ordering::Relaxed);
            };
            let client = Client::connect(address).await;
            let Ok(mut client) = client else { return };
            let streamed = client.stream(&format!("filler-{number}"), &body, on_text).await;
            if streamed.is_ok_and(|streamed| streamed.is_done) {
                let _ = state.first_end.set(Instant::now());
            }
        }
    });
    let started = Instant::now();
    while state.begun.load(Ordering::Relaxed) < begun {
        let is_in_vain = started.elapsed() > PATIENCE || filling.is_finished();
        if is_in_vain || state.first_end.get().is_some() {
            filling.abort();
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
    true
}

/// Two ask until one is answered: when it was. The one waits in line, the other is refused.
async fn ask(address: SocketAddr, state: &Arc<State>) -> Option<Instant> {
    let asker = |number: usize| {
        let state = Arc::clone(state);
        async move {
            let started = Instant::now();
            while started.elapsed() < super::ANSWER_TIMEOUT {
                let body = chat("Is there room?", 1);
                let answer = chat_once(address, &format!("asker-{number}"), &body).await.ok()?;
                match Said::of(&Ok(answer)) {
                    Said::Ok => return Some(Instant::now()),
                    Said::Unavailable => state.refused.fetch_add(1, Ordering::Relaxed),
                    Said::TooMany | Said::Wrong => state.wrong.fetch_add(1, Ordering::Relaxed),
                };
                tokio::time::sleep(PAUSE).await;
            }
            None
        }
    };
    tokio::select! {
        answered = asker(0) => answered,
        answered = asker(1) => answered,
    }
}
