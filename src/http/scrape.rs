//! `GET /metrics`: the numbers that Prometheus reads.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::App;
use crate::engine::{Engine, Stats};
use crate::metrics::{self, Levels};

/// `GET /metrics`, also while the model loads.
pub async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let engine = app.serving.get().map(|serving| &serving.engine);
    let stats = engine.map(Engine::stats).unwrap_or_default();
    if let Some((bytes, budget)) = engine.and_then(Engine::store_occupancy) {
        app.metrics.cache.store_has(bytes, budget);
    }
    app.metrics.steps.set(&levels(&stats));
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], app.metrics.text())
}

fn levels(stats: &Stats) -> Levels {
    Levels {
        running: stats.running,
        waiting: stats.waiting,
        parked: stats.parked,
        blocks_total: stats.blocks_total,
        blocks_free: stats.blocks_free,
        blocks_used: stats.blocks_used,
        blocks_evictable: stats.blocks_evictable,
        agents_hot: stats.agents_hot,
        agents_active: stats.agents_active,
        agents_warm: stats.agents.saturating_sub(stats.agents_hot),
    }
}
