//! What who runs the server may ask of it: `/admin/…`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{Done, Error};
use super::fields::in_range;
use super::{App, body};
use crate::engine::{self, Engine, Status, StoreUsage};
use crate::metrics;

/// As `--drain-timeout`.
const DRAIN_TIMEOUT_DEFAULT: f64 = 30.0;
/// A request that takes longer than a day is none that anybody waits for.
const DRAIN_TIMEOUT_MAX: f64 = 86_400.0;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct DrainRequest {
    #[schemars(range(min = 0.0, max = DRAIN_TIMEOUT_MAX))]
    timeout_s: Option<f64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct LogLevelRequest {
    level: String,
}

/// In conversations.
#[derive(Serialize, JsonSchema)]
pub struct Evicted {
    saved: usize,
    failed: usize,
    forgotten: usize,
}

impl From<engine::Evicted> for Evicted {
    fn from(evicted: engine::Evicted) -> Evicted {
        let engine::Evicted { saved, failed, forgotten } = evicted;
        Evicted { saved, failed, forgotten }
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Drained {
    drained: usize,
}

/// What the server is doing.
#[derive(Serialize, JsonSchema)]
pub struct Stats {
    status: &'static str,
    uptime_s: f64,
    /// Null where the system does not tell.
    resident_bytes: Option<u64>,
    requests: Requests,
    pool: Pool,
    agents: Agents,
    /// Null if nothing is kept on disk.
    store: Option<Store>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RequestStats")]
struct Requests {
    running: usize,
    waiting: usize,
    parked: usize,
    parkings: u64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PoolStats")]
struct Pool {
    blocks_total: usize,
    blocks_used: usize,
    blocks_free: usize,
    blocks_evictable: usize,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AgentStats")]
struct Agents {
    total: usize,
    hot: usize,
    warm: usize,
    dirty: usize,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "StoreStats")]
struct Store {
    budget_bytes: u64,
    disk_bytes: u64,
    logical_bytes: u64,
    unique_bytes: u64,
    quarantine_bytes: u64,
    quarantine_files: usize,
    namespaces: usize,
    agents: usize,
}

/// `POST /admin/evict`: every idle agent to the disk.
pub async fn evict(State(app): State<Arc<App>>) -> Result<Response, Error> {
    let evicted = engine(&app)?.evict_all_to_disk().await?;
    Ok(Json(Evicted::from(evicted)).into_response())
}

/// `POST /admin/drain`: no new requests from here on, for there is no way back; answers when
/// those that run have ended.
pub async fn drain(State(app): State<Arc<App>>, request: Request) -> Result<Response, Error> {
    let request: DrainRequest = body::read_if_any(request, &app).await?;
    let seconds = request.timeout_s.unwrap_or(DRAIN_TIMEOUT_DEFAULT);
    let seconds = in_range("timeout_s", seconds, 0.0, DRAIN_TIMEOUT_MAX)?;
    let engine = engine(&app)?;
    app.start_shutting_down();
    tracing::info!(timeout_s = seconds, "draining, as the administrator asks");
    let drained = engine.drain(Duration::from_secs_f64(seconds)).await?;
    tracing::info!(drained, "drained");
    Ok(Json(Drained { drained }).into_response())
}

/// `GET /admin/stats`.
pub async fn stats(State(app): State<Arc<App>>) -> Result<Response, Error> {
    let engine = engine(&app)?;
    let stats = engine.stats();
    let tiers = engine.tiers().await?;
    let store = engine.store_usage().await?;
    Ok(Json(Stats {
        status: status_word(&engine.status()),
        uptime_s: app.started.elapsed().as_secs_f64(),
        resident_bytes: metrics::resident_bytes(),
        requests: Requests {
            running: stats.running,
            waiting: stats.waiting,
            parked: stats.parked,
            parkings: stats.parkings,
        },
        pool: Pool {
            blocks_total: stats.blocks_total,
            blocks_used: stats.blocks_used,
            blocks_free: stats.blocks_free,
            blocks_evictable: stats.blocks_evictable,
        },
        agents: Agents {
            total: stats.agents,
            hot: tiers.hot,
            warm: tiers.warm,
            dirty: tiers.dirty,
        },
        store: store.as_ref().map(usage),
    })
    .into_response())
}

/// `PUT /admin/log-level`: a level, or a filter as `--log-level` takes it.
pub async fn log_level(State(app): State<Arc<App>>, request: Request) -> Result<Done, Error> {
    let LogLevelRequest { level } = body::read(request, &app).await?;
    app.set_log_level(&level)
        .map_err(|reason| Error::field("level", format!("level: {reason}")))?;
    tracing::info!(level, "the log has another level");
    Ok(Done::AsAsked)
}

/// Also while it drains.
fn engine(app: &App) -> Result<&Engine, Error> {
    let engine = &app.serving.get().ok_or(engine::Error::Starting)?.engine;
    match engine.status() {
        Status::Starting => Err(engine::Error::Starting.into()),
        Status::Failed(_) | Status::Stopped => Err(engine::Error::Stopped.into()),
        Status::Serving | Status::Draining => Ok(engine),
    }
}

pub fn status_word(status: &Status) -> &'static str {
    match status {
        Status::Starting => "starting",
        Status::Serving => "serving",
        Status::Draining => "draining",
        Status::Failed(_) => "failed",
        Status::Stopped => "stopped",
    }
}

fn usage(usage: &StoreUsage) -> Store {
    Store {
        budget_bytes: usage.budget_bytes,
        disk_bytes: usage.disk_bytes,
        logical_bytes: usage.logical_bytes,
        unique_bytes: usage.unique_bytes,
        quarantine_bytes: usage.quarantine_bytes,
        quarantine_files: usage.quarantine_files,
        namespaces: usage.namespaces.len(),
        agents: usage.namespaces.iter().map(|namespace| namespace.agents).sum(),
    }
}
