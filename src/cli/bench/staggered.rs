//! What a request that comes while another runs has to wait for, and what it costs the other.
//!
//! A has a long prompt, B a short one. B's time to its first token counts from its own arrival,
//! which falls on another part of A's prefill in each round. `serial` is A alone and then B alone,
//! as a server would take that admits nothing while it works. In the last row a stream is running
//! when a long prompt arrives: what counts is the time between two of its tokens, and the longest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::figure::Figure;
use super::live::{Live, Timeline, follow};
use super::report::{Cell, Row, Section};
use super::rounds::load_note;
use super::setup::{Setup, blocks};
use crate::cli::output::Failure;
use crate::engine::{Error, Event};

/// Tokens of the long prompt, or as many as the context has room for.
const LONG_TOKENS: usize = 4_000;
const SHORT_TOKENS: usize = 256;
const REPLY_TOKENS: usize = 64;
/// Tokens after which a stream is taken to be running.
const BEGUN_TOKENS: usize = 8;
/// Arrivals are spread over a step too.
const JITTER_MS: u64 = 100;

/// What one round gave.
struct Round {
    short_alone: Timeline,
    long_alone: Timeline,
    short: Timeline,
    long: Timeline,
    /// Between tokens of a stream while a long prompt is read.
    gaps: Vec<Duration>,
}

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let context = setup.summary.context_tokens;
    if context < 4 * SHORT_TOKENS {
        let note = format!("left out, the model's context is {context}");
        return Ok(Section { rows: Vec::new(), notes: vec![note] });
    }
    let long_tokens = LONG_TOKENS.min(context - SHORT_TOKENS - REPLY_TOKENS);
    let pool_blocks = 6 * blocks(long_tokens + 2 * REPLY_TOKENS);
    let live = Live::start(setup, pool_blocks, 8)?;
    let runs = setup.sizes.long_runs;
    let progress = setup.progress("staggered", runs + 1);
    let mut rounds = Vec::new();
    for index in 0..=runs {
        setup.interrupt.check()?;
        let round = round(&live, index, runs, long_tokens)?;
        progress.advance(1);
        // The first teaches the engine how long its steps are.
        if index > 0 {
            rounds.push(round);
        }
    }
    let figure = |value: &dyn Fn(&Round) -> Duration| {
        Figure::new(rounds.iter().map(|round| millis(&value(round))).collect())
    };
    let alone = figure(&|round| round.short_alone.ttft());
    let beside = figure(&|round| round.short.ttft());
    let serial = figure(&|round| round.long_alone.total() + round.short_alone.total());
    let together = figure(&Round::together);
    let longest_gap = figure(&|round| round.gaps.iter().copied().max().unwrap_or_default());
    let gaps: Vec<f64> = rounds.iter().flat_map(|round| &round.gaps).map(millis).collect();
    let mut stream = Row::new(format!("a stream while {long_tokens} tokens are read"));
    if !gaps.is_empty() {
        let gaps = Figure::new(gaps);
        for (field, share) in [("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)] {
            stream = stream.with(field, Cell::Number(gaps.percentile(share), 1));
        }
    }
    let rows = vec![
        Row::new(format!("{SHORT_TOKENS} tokens while {long_tokens} are read"))
            .with("ttft_ms", Cell::Figure(beside.clone()))
            .with("alone_ttft_ms", Cell::Figure(alone.clone()))
            .with("ratio", Cell::Number(beside.ratio(&alone), 2)),
        Row::new(format!("both to the end, {REPLY_TOKENS} tokens each"))
            .with("total_ms", Cell::Figure(together.clone()))
            .with("serial_ms", Cell::Figure(serial.clone()))
            .with("ratio", Cell::Number(together.ratio(&serial), 2)),
        stream.with("longest_gap_ms", Cell::Figure(longest_gap)),
    ];
    Ok(Section { rows, notes: load_note(setup.threads()).into_iter().collect() })
}

impl Round {
    /// From A's submission until both have ended.
    fn together(&self) -> Duration {
        self.long.finished.max(self.short.finished) - self.long.submitted
    }
}

fn round(live: &Live<'_>, index: usize, runs: usize, long_tokens: usize) -> Result<Round, Failure> {
    // No prompt comes twice: nothing is reused.
    let seed = |role: u64| 1_000 + 10 * index as u64 + role;
    let one = |role: u64, tokens: usize| -> Result<Timeline, Failure> {
        let mut timelines = live.run_all(vec![live.prompt(seed(role), tokens)], REPLY_TOKENS)?;
        Ok(timelines.remove(0))
    };
    let short_alone = one(0, SHORT_TOKENS)?;
    let long_alone = one(1, long_tokens)?;
    let arrival = long_tokens * (2 * index).saturating_sub(1) / (2 * runs);
    let jitter = Duration::from_millis(index as u64 * 37 % JITTER_MS);
    let (long, short) = live.block_on(overlap(live, seed(2), long_tokens, arrival, jitter))?;
    let gaps = live.block_on(gaps(live, seed(4), long_tokens))?;
    Ok(Round { short_alone, long_alone, short, long, gaps })
}

/// A, and B when A has read `arrival` tokens and a little later.
async fn overlap(
    live: &Live<'_>,
    seed: u64,
    long_tokens: usize,
    arrival: usize,
    jitter: Duration,
) -> Result<(Timeline, Timeline), Error> {
    let has_come = Arc::new(Notify::new());
    let notify = Arc::clone(&has_come);
    let (submitted, stream) = live.submit(live.prompt(seed, long_tokens), REPLY_TOKENS);
    let mut long = tokio::spawn(follow(submitted, stream, move |event| {
        if matches!(event, Event::Prefilled { tokens } if *tokens >= arrival) {
            notify.notify_one();
        }
    }));
    tokio::select! {
        () = has_come.notified() => (),
        ended = &mut long => {
            // Too soon, so it failed.
            return Err(ended.expect("reading does not panic").err().unwrap_or(Error::Stopped));
        }
    }
    tokio::time::sleep(jitter).await;
    let (submitted, stream) = live.submit(live.prompt(seed + 1, SHORT_TOKENS), REPLY_TOKENS);
    let short = follow(submitted, stream, |_| ()).await?;
    Ok((long.await.expect("reading does not panic")?, short))
}

/// The times between two tokens of a stream while a long prompt is read.
async fn gaps(live: &Live<'_>, seed: u64, long_tokens: usize) -> Result<Vec<Duration>, Error> {
    let begun = Arc::new(Notify::new());
    let notify = Arc::clone(&begun);
    // Enough tokens for the whole time: the stream is cut when the prompt has been read.
    let reply_tokens = long_tokens / 2;
    let (_, mut stream) = live.submit(live.prompt(seed, SHORT_TOKENS), reply_tokens);
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let mut reader = tokio::spawn(async move {
        let mut times: Vec<Instant> = Vec::new();
        while let Some(item) = stream.next().await {
            match item? {
                Event::Text(_) => times.push(Instant::now()),
                Event::Finished(_) => break,
                Event::Admitted(_) | Event::Prefilled { .. } => (),
            }
            if times.len() == BEGUN_TOKENS {
                notify.notify_one();
            }
            if over.load(Ordering::Relaxed) {
                stream.cancel();
            }
        }
        Ok::<_, Error>(times)
    });
    tokio::select! {
        () = begun.notified() => (),
        ended = &mut reader => {
            return Err(ended.expect("reading does not panic").err().unwrap_or(Error::Stopped));
        }
    }
    let (submitted, stream) = live.submit(live.prompt(seed + 1, long_tokens), 1);
    let long = follow(submitted, stream, |_| ()).await?;
    is_over.store(true, Ordering::Relaxed);
    let times = reader.await.expect("reading does not panic")?;
    let during = |time: &Instant| (long.submitted..=long.finished).contains(time);
    let gaps = times.windows(2).filter(|pair| during(&pair[0]) || during(&pair[1]));
    Ok(gaps.map(|pair| pair[1] - pair[0]).collect())
}

fn millis(duration: &Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
