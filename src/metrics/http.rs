//! Requests, refusals and connections.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::buckets;
use super::family::{By, Families};
use super::labels::{Door, Label, Limit, Method};

pub struct Http {
    requests: IntCounterVec,
    durations: HistogramVec,
    refusals: By<Limit, IntCounter>,
    connections: By<Door, IntGauge>,
}

impl Http {
    pub(super) fn new(families: &Families<'_>) -> Http {
        Http {
            requests: families.counters(
                "semantic_request_total",
                "Requests that were answered, by the route's template.",
                &["method", "path", "status"],
            ),
            durations: families.histograms(
                "semantic_request_duration_seconds",
                "From a request's head to its answer's head.",
                buckets::ANSWER,
                &["method", "path"],
            ),
            refusals: families.counter_by(
                "semantic_limiter_refusals_total",
                "Requests refused because there were too many.",
            ),
            connections: families.gauge_by("semantic_connections", "Connections that are open."),
        }
    }

    /// A request has its answer. `route` is a template such as `/v1/agents/{id}`, or `other`.
    pub fn answered(&self, method: Method, route: &str, status: u16, took: Duration) {
        let mut digits = [0; 3];
        let status = three_digits(status, &mut digits);
        self.requests.with_label_values(&[method.word(), route, status]).inc();
        let duration = self.durations.with_label_values(&[method.word(), route]);
        duration.observe(took.as_secs_f64());
    }

    pub fn refused(&self, limit: Limit) {
        self.refusals.of(limit).inc();
    }
}

/// An HTTP status, without an allocation.
fn three_digits(status: u16, digits: &mut [u8; 3]) -> &str {
    *digits = [status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
    std::str::from_utf8(digits).expect("digits are ASCII")
}

/// A connection that is open until this is dropped.
pub struct Connection {
    metrics: Arc<super::Metrics>,
    door: Door,
}

impl Connection {
    pub fn open(metrics: &Arc<super::Metrics>, door: Door) -> Connection {
        metrics.http.connections.of(door).inc();
        Connection { metrics: Arc::clone(metrics), door }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.metrics.http.connections.of(self.door).dec();
    }
}
