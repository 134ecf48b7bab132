//! `GET /v1/status`: how the server is, in numbers, for the page of `/ui` and whoever polls.
//!
//! Any key may ask, as of `/metrics`, and hears nothing of others that is not there: numbers of all
//! together. Whose agents there are is told by `/v1/agents`, of the caller's own.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::admin::status_word;
use super::{App, report};
use crate::engine::{Engine, Status};
use crate::metrics::{self, INTERVAL, Interval, Past, Totals};
use crate::types::BLOCK_TOKENS;

/// How the server is.
#[derive(Serialize, JsonSchema)]
pub struct ServerStatus {
    object: &'static str,
    /// `starting`, `serving`, `draining`, `failed` or `stopped`.
    status: &'static str,
    version: &'static str,
    /// Null until its files are open.
    model: Option<String>,
    uptime_s: f64,
    /// By the server's clock, in seconds since 1970.
    time: u64,
    /// Null where the system does not tell.
    resident_bytes: Option<u64>,
    requests: StatusRequests,
    pool: StatusPool,
    /// Of all keys.
    agents: StatusAgents,
    /// Null if nothing is kept on disk.
    store: Option<StatusStore>,
    since_start: SinceStart,
    recent: StatusRecent,
}

#[derive(Serialize, JsonSchema)]
struct StatusRequests {
    running: usize,
    waiting: usize,
    parked: usize,
}

#[derive(Serialize, JsonSchema)]
struct StatusPool {
    blocks_total: usize,
    blocks_used: usize,
    /// Of those used, what idle agents hold and could be had at once.
    blocks_evictable: usize,
    block_tokens: usize,
    /// Null until the model is loaded.
    block_bytes: Option<usize>,
}

#[derive(Serialize, JsonSchema)]
struct StatusAgents {
    /// In memory.
    hot: usize,
    /// On disk only.
    warm: usize,
}

#[derive(Serialize, JsonSchema)]
struct StatusStore {
    bytes: u64,
    budget_bytes: u64,
}

#[derive(Serialize, JsonSchema)]
struct SinceStart {
    prompts: u64,
    /// Of the prompts, those of which something was in memory, or on disk.
    prompts_hot: u64,
    prompts_warm: u64,
    prompt_tokens: u64,
    /// Of these, those that were not computed again.
    reused_tokens: u64,
    /// Of the reused, those that came from the disk.
    restored_tokens: u64,
    generation_tokens: u64,
    restore_s: f64,
    /// As steps took that read prompts and did nothing else; null if there was none.
    seconds_per_prompt_token: Option<f64>,
    /// `reused_tokens` times `seconds_per_prompt_token`, less `restore_s`; null if nothing measured
    /// it.
    seconds_saved: Option<f64>,
}

/// The last minutes in intervals, the oldest first; none is from before the start.
#[derive(Serialize, JsonSchema)]
struct StatusRecent {
    interval_s: u64,
    /// So much of the last interval is over.
    elapsed_s: f64,
    /// Generated.
    tokens: Vec<u64>,
    /// Replies that began.
    first_tokens: Vec<u64>,
    /// From request to first token, of all of these together.
    first_token_s: Vec<f64>,
}

/// `GET /v1/status`, also while the model loads.
pub async fn status(State(app): State<Arc<App>>) -> Response {
    let serving = app.serving.get();
    let engine = serving.map(|serving| &serving.engine);
    let stats = engine.map(Engine::stats).unwrap_or_default();
    let spec = engine.and_then(Engine::spec);
    let store = engine.and_then(Engine::store_occupancy);
    Json(ServerStatus {
        object: "status",
        status: status_word(&engine.map_or(Status::Starting, Engine::status)),
        version: env!("CARGO_PKG_VERSION"),
        model: serving.map(|serving| serving.model.clone()),
        uptime_s: app.started.elapsed().as_secs_f64(),
        time: report::unix_seconds(),
        resident_bytes: metrics::resident_bytes(),
        requests: StatusRequests {
            running: stats.running,
            waiting: stats.waiting,
            parked: stats.parked,
        },
        pool: StatusPool {
            blocks_total: stats.blocks_total,
            blocks_used: stats.blocks_used,
            blocks_evictable: stats.blocks_evictable,
            block_tokens: BLOCK_TOKENS,
            block_bytes: spec.map(|spec| spec.block_bytes(BLOCK_TOKENS)),
        },
        agents: StatusAgents {
            hot: stats.agents_hot,
            warm: stats.agents.saturating_sub(stats.agents_hot),
        },
        store: store.map(|(bytes, budget_bytes)| StatusStore { bytes, budget_bytes }),
        since_start: SinceStart::of(&app.metrics.totals()),
        recent: StatusRecent::of(&app.metrics.recent.until(Instant::now())),
    })
    .into_response()
}

impl SinceStart {
    fn of(totals: &Totals) -> SinceStart {
        SinceStart {
            prompts: totals.prompts,
            prompts_hot: totals.prompts_hot,
            prompts_warm: totals.prompts_warm,
            prompt_tokens: totals.prompt_tokens,
            reused_tokens: totals.reused_tokens,
            restored_tokens: totals.restored_tokens,
            generation_tokens: totals.generation_tokens,
            restore_s: totals.restore_s,
            seconds_per_prompt_token: totals.seconds_per_prompt_token(),
            seconds_saved: totals.seconds_saved(),
        }
    }
}

impl StatusRecent {
    fn of(past: &Past) -> StatusRecent {
        fn all<T>(past: &Past, field: impl Fn(&Interval) -> T) -> Vec<T> {
            past.intervals.iter().map(field).collect()
        }
        StatusRecent {
            interval_s: INTERVAL.as_secs(),
            elapsed_s: past.elapsed.as_secs_f64(),
            tokens: all(past, |interval| interval.tokens),
            first_tokens: all(past, |interval| interval.first_tokens),
            first_token_s: all(past, |interval| interval.first_token_s),
        }
    }
}
