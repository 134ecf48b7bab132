//! What the server counts and times, as Prometheus reads it.
//!
//! [`Metrics`] is made once per server and handed on; nothing is global, so that two servers in one
//! process count for themselves. Names and buckets are those of vLLM where it has one. Labels come
//! from lists that are known when the program is compiled: no agent, path or text of a client
//! becomes one, so that the number of series does not grow with the traffic.
//!
//! What is counted per token is a few atomic operations and allocates nothing.

mod buckets;
mod cache;
mod family;
mod http;
pub mod labels;
mod process;
mod recent;
mod requests;
mod steps;
mod totals;

use std::time::Instant;

use prometheus::{Registry, TextEncoder};

pub use cache::Cache;
pub use http::{Connection, Http};
pub use process::resident_bytes;
pub use recent::{INTERVAL, Interval, Past, Recent};
pub use requests::Requests;
pub use steps::{Levels, Steps};
pub use totals::Totals;

use family::Families;
use process::Process;

/// As the text format's clients ask for it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is counted and timed.
pub struct Metrics {
    registry: Registry,
    process: Process,
    /// What comes in and goes out.
    pub http: Http,
    /// Where the time of requests goes.
    pub requests: Requests,
    /// What agents keep, and what it spares.
    pub cache: Cache,
    /// What the engine does, step by step.
    pub steps: Steps,
    /// How fast it went in the last minutes.
    pub recent: Recent,
    build: prometheus::IntGaugeVec,
}

impl Metrics {
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let families = Families::new(&registry);
        Metrics {
            process: Process::new(&families),
            http: Http::new(&families),
            requests: Requests::new(&families),
            cache: Cache::new(&families),
            steps: Steps::new(&families),
            recent: Recent::new(Instant::now()),
            build: families.gauges(
                "semantic_build_info",
                "Always 1; the labels say what is running.",
                &["version", "mlx", "model"],
            ),
            registry,
        }
    }

    /// Says what is running. Once per process: each call adds a series.
    pub fn set_build(&self, version: &str, mlx: &str, model: &str) {
        self.build.with_label_values(&[version, mlx, model]).set(1);
    }

    /// What was counted so far.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.requests.add_to(&mut totals);
        self.cache.add_to(&mut totals);
        self.steps.add_to(&mut totals);
        totals
    }

    /// Everything, in the text format 0.0.4.
    pub fn text(&self) -> String {
        self.process.look();
        let families = self.registry.gather();
        let text = TextEncoder::new().encode_to_string(&families);
        text.expect("names and labels are checked when a family is made")
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}
