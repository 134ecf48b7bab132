//! Whether the server lives, has started, and can take work: what probes ask.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use schemars::JsonSchema;
use serde::Serialize;

use super::App;
use super::error::Probe;
use crate::engine::{Stats, Status};

/// Above this much of the pool the server is not ready; exactly this much is still fine.
const BUSY_PERCENT_MAX: usize = 90;
/// And it is ready again when use has fallen to this, so that it does not flap.
const BUSY_PERCENT_AGAIN: usize = 85;

/// What a probe hears.
#[derive(Serialize, JsonSchema)]
pub struct Health {
    status: &'static str,
    /// Why all is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// In percent, as far as a new request could not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_utilization: Option<f64>,
}

impl Health {
    fn of(status: &'static str) -> Health {
        Health { status, reason: None, pool_utilization: None }
    }
}

pub async fn ok() -> impl IntoResponse {
    Json(Health::of("ok"))
}

pub async fn live() -> impl IntoResponse {
    Json(Health::of("alive"))
}

pub async fn startup(State(app): State<Arc<App>>) -> Probe<Health> {
    let starting =
        |reason| Probe::Unwell(Health { reason: Some(reason), ..Health::of("starting") });
    match app.serving.get().map(|serving| serving.engine.status()) {
        None | Some(Status::Starting) => starting(Reason::ModelLoading),
        Some(Status::Failed(_)) => starting(Reason::EngineFailed),
        Some(Status::Serving | Status::Draining | Status::Stopped) => {
            Probe::Well(Health::of("started"))
        }
    }
}

pub async fn ready(State(app): State<Arc<App>>) -> Probe<Health> {
    let engine = app.serving.get().map(|serving| &serving.engine);
    let status = engine.map_or(Status::Starting, |engine| engine.status());
    let stats = engine.map(|engine| engine.stats()).unwrap_or_default();
    let busy = busy_blocks(&stats);
    let is_near = is_near_exhaustion(
        busy,
        stats.blocks_total,
        app.was_near_exhaustion.load(Ordering::Relaxed),
    );
    app.was_near_exhaustion.store(is_near, Ordering::Relaxed);
    let is_leaving = app.is_shutting_down.load(Ordering::Relaxed);
    let pool_utilization = Some(busy as f64 * 100.0 / stats.blocks_total.max(1) as f64);
    match reason(&status, is_leaving, is_near) {
        None => Probe::Well(Health { pool_utilization, ..Health::of("ready") }),
        reason => Probe::Unwell(Health { reason, pool_utilization, ..Health::of("not_ready") }),
    }
}

/// Why the server takes no work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Reason {
    ModelLoading,
    ShuttingDown,
    PoolNearExhaustion,
    EngineFailed,
}

fn reason(status: &Status, is_shutting_down: bool, is_near_exhaustion: bool) -> Option<Reason> {
    match status {
        Status::Failed(_) => Some(Reason::EngineFailed),
        Status::Draining | Status::Stopped => Some(Reason::ShuttingDown),
        _ if is_shutting_down => Some(Reason::ShuttingDown),
        Status::Starting => Some(Reason::ModelLoading),
        Status::Serving => is_near_exhaustion.then_some(Reason::PoolNearExhaustion),
    }
}

/// Blocks that a new request could not have: idle agents give theirs back at once.
fn busy_blocks(stats: &Stats) -> usize {
    stats.blocks_used.saturating_sub(stats.blocks_evictable)
}

fn is_near_exhaustion(busy: usize, total: usize, was_near: bool) -> bool {
    let percent_max = match was_near {
        true => BUSY_PERCENT_AGAIN,
        false => BUSY_PERCENT_MAX,
    };
    busy * 100 > percent_max * total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ninety_percent_is_ready_and_a_block_more_is_not_until_use_has_fallen_to_85() {
        let steps =
            [(900, false), (901, true), (900, true), (851, true), (850, false), (900, false)];
        let mut was_near = false;
        for (busy, expected) in steps {
            was_near = is_near_exhaustion(busy, 1000, was_near);
            assert_eq!(was_near, expected, "{busy}");
        }
        // No pool yet.
        assert!(!is_near_exhaustion(0, 0, false));
    }

    #[test]
    fn what_idle_agents_hold_is_not_busy() {
        let stats = Stats { blocks_used: 100, blocks_evictable: 70, ..Stats::default() };
        assert_eq!(busy_blocks(&stats), 30);
    }

    #[test]
    fn the_gravest_reason_is_told() {
        let failed = Status::Failed(String::new());
        for (status, is_shutting_down, is_near, expected) in [
            (Status::Serving, false, false, None),
            (Status::Serving, false, true, Some(Reason::PoolNearExhaustion)),
            (Status::Serving, true, true, Some(Reason::ShuttingDown)),
            (Status::Draining, false, false, Some(Reason::ShuttingDown)),
            (Status::Stopped, true, false, Some(Reason::ShuttingDown)),
            (Status::Starting, false, false, Some(Reason::ModelLoading)),
            (Status::Starting, true, false, Some(Reason::ShuttingDown)),
            (failed, true, true, Some(Reason::EngineFailed)),
        ] {
            assert_eq!(reason(&status, is_shutting_down, is_near), expected, "{status:?}");
        }
    }
}
