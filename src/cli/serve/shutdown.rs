//! From the first signal to the exit code: not ready, draining, cutting, saving.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::output::EXIT_INTERRUPTED;
use crate::engine::{DrainError, Engine, Evicted};
use crate::http::App;

/// For all agents to be saved. Together with a lame duck of 5 s and a drain of 30 s it ends well
/// within the 60 s that the Kubernetes example gives.
const SAVE_TIMEOUT: Duration = Duration::from_secs(8);
/// The signal after which nothing is waited for any more.
const SIGNALS_MAX: usize = 3;

/// How long the phases may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Not ready, but still accepting: until the load balancer has noticed.
    pub lame_duck: Duration,
    pub drain: Duration,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Saved,
    NotAllSaved,
    /// The third signal came first.
    LeftAtOnce,
}

impl End {
    pub fn exit_code(self) -> ExitCode {
        match self {
            End::Saved => ExitCode::SUCCESS,
            End::NotAllSaved => ExitCode::FAILURE,
            End::LeftAtOnce => ExitCode::from(EXIT_INTERRUPTED),
        }
    }
}

/// The signals that end the server.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM: by a supervisor, which may still send requests for a moment.
    ToTerminate,
    /// SIGINT: by someone at the keyboard, who waits.
    ToStop,
}

impl Asked {
    fn name(self) -> &'static str {
        match self {
            Asked::ToTerminate => "SIGTERM",
            Asked::ToStop => "SIGINT",
        }
    }
}

impl Signals {
    /// From here on the signals do not end the process by themselves.
    pub fn catch() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::ToTerminate,
            _ = self.interrupt.recv() => Asked::ToStop,
        }
    }
}

/// The second signal cuts what runs, the third leaves.
pub async fn shut_down(
    app: &Arc<App>,
    engine: &Engine,
    asked: Asked,
    signals: &mut Signals,
    times: &Times,
) -> End {
    let started = Instant::now();
    tracing::info!(signal = asked.name(), requests = requests(engine), "shutting down");
    app.start_shutting_down();
    let mut heard = 1;
    tokio::select! {
        () = wait_and_drain(engine, asked, times) => (),
        _ = signals.next() => {
            heard += 1;
            tracing::warn!(requests = requests(engine), "a second signal: nothing is waited for");
        }
    }
    let end = tokio::select! {
        end = cut_and_save(engine) => end,
        () = async {
            while heard < SIGNALS_MAX {
                signals.next().await;
                heard += 1;
            }
        } => End::LeftAtOnce,
    };
    let elapsed_ms = milliseconds(started);
    match end {
        End::LeftAtOnce => tracing::warn!(elapsed_ms, "leaving without saving: a third signal"),
        End::Saved | End::NotAllSaved => tracing::info!(elapsed_ms, "leaving"),
    }
    end
}

/// Requests that have been accepted and have not ended.
fn requests(engine: &Engine) -> usize {
    let stats = engine.stats();
    stats.running + stats.waiting + stats.parked
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_micros() as f64 / 1e3
}

async fn wait_and_drain(engine: &Engine, asked: Asked, times: &Times) {
    if asked == Asked::ToTerminate && !times.lame_duck.is_zero() {
        let (seconds, requests) = (times.lame_duck.as_secs_f64(), requests(engine));
        tracing::info!(seconds, requests, "not ready, still accepting");
        tokio::time::sleep(times.lame_duck).await;
    }
    let started = Instant::now();
    let (timeout_s, requests) = (times.drain.as_secs_f64(), requests(engine));
    tracing::info!(timeout_s, requests, "draining");
    let drained = engine.drain(times.drain).await;
    let elapsed_ms = milliseconds(started);
    match drained {
        Ok(finished) => tracing::info!(finished, elapsed_ms, "drained"),
        Err(DrainError::Timeout { running, drained: finished, .. }) => {
            tracing::warn!(running, finished, elapsed_ms, "not drained in time");
        }
        Err(error @ DrainError::Stopped) => tracing::error!(%error, "cannot drain"),
    }
}

async fn cut_and_save(engine: &Engine) -> End {
    // A second signal may have ended a lame duck, which was still accepting.
    let _ = engine.drain(Duration::ZERO).await;
    tracing::info!(requests = requests(engine), "cutting what is left, and saving");
    let started = Instant::now();
    engine.cut();
    let evicted = tokio::time::timeout(SAVE_TIMEOUT, engine.evict_all_to_disk()).await;
    let elapsed_ms = milliseconds(started);
    match evicted {
        Ok(Ok(Evicted { saved, failed: 0, forgotten })) => {
            tracing::info!(saved, forgotten, elapsed_ms, "no agent is left");
            End::Saved
        }
        Ok(Ok(Evicted { saved, failed, .. })) => {
            tracing::error!(saved, failed, elapsed_ms, "some agents could not be saved");
            End::NotAllSaved
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "agents could not be saved");
            End::NotAllSaved
        }
        Err(_) => {
            tracing::error!(seconds = SAVE_TIMEOUT.as_secs(), "agents were not saved in time");
            End::NotAllSaved
        }
    }
}
