//! The server: requests from the network to the engine, and its answers back.
//!
//! A request passes `listen` (connections and their time limits), `guard` (who may ask what, and
//! how often), then a handler such as `chat`: the wire format becomes a checked type, the
//! conversation a prompt, the engine's stream an answer. Handlers compute nothing: what takes
//! longer than half a millisecond leaves the async threads (`workers`).
//!
//! To add a route: a handler in a file of its own and a line in `routes`, with the policy that it
//! needs. A route without a policy cannot be written.

mod admin;
mod agents;
mod body;
mod budget;
mod chat;
mod completions;
mod cors;
mod error;
mod fields;
mod gcra;
mod guard;
mod guesses;
mod health;
mod held;
mod hosts;
mod info;
mod keys;
mod limits;
mod listen;
mod log;
mod messages;
mod observe;
mod openapi;
mod prompt;
mod random;
mod reasoning;
mod report;
mod responses;
mod routes;
mod scrape;
mod sse;
mod standing;
mod status;
mod tokens;
mod tooling;
mod traceparent;
mod turn;
mod ui;
mod under_way;
mod workers;
mod write_timeout;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::engine::{self, Engine, Status};
use crate::metrics::Metrics;
use crate::text::{ChatTemplate, Grammars, Tokenizer};

use cors::Cors;
use error::Error;
use guesses::Guesses;
use hosts::Hosts;
use limits::Limits;
use responses::Transcripts;
use workers::Workers;

pub use cors::{Origin, OriginError};
pub use guard::Policy;
pub use keys::{Access, AdminKey, Grant, KEY_CHARS_MIN, KeyDigest, KeyError, KeyRates, Keys};
pub use limits::Rates;
pub use listen::{bind, serve};
pub use log::LogControl;
pub use routes::{ANY, Route, all as routes};
pub use workers::THREADS as WORKER_THREADS;

/// How the server conducts itself.
pub struct Config {
    pub access: Access,
    /// Opens the administration; without it nobody does.
    pub admin: Option<AdminKey>,
    /// Host names that requests may be addressed to, with any port; others are refused, so that a
    /// web page cannot reach this server through a name of its own (DNS rebinding).
    pub allowed_hosts: Vec<String>,
    /// Of web pages that may use this server.
    pub cors_origins: Vec<Origin>,
    pub rates: Rates,
    pub bounds: Bounds,
    /// The engine counts in the same.
    pub metrics: Arc<Metrics>,
    pub log: LogControl,
}

/// Every limit of a connection and of a request before it reaches the engine. Tests have shorter
/// ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Beyond these a connection may ask for the health only.
    pub connections: usize,
    pub spare_connections: usize,
    /// For a request's head, and so also for how long a connection may idle.
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub body_bytes: usize,
    /// For a client that does not read what is sent to it.
    pub write_timeout: Duration,
    /// How often a stream that has nothing to say says so.
    pub keep_alive: Duration,
    /// For the connections that are open when the server stops.
    pub closing_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            // Each may have a stream under way, of up to 200 KiB with the system's buffers.
            connections: 1024,
            // Probes come from a handful of places, each with one connection at a time.
            spare_connections: 32,
            // A head is one packet or two; slower is an attack (Slowloris) or a dead peer.
            header_timeout: Duration::from_secs(10),
            // 2 MiB in that time is 0.6 Mbit/s.
            body_timeout: Duration::from_secs(30),
            // About 500,000 tokens: more than the context of any model that runs here.
            body_bytes: 2 << 20,
            write_timeout: Duration::from_secs(30),
            // Proxies give up on a silent connection after 30 to 60 s.
            keep_alive: Duration::from_secs(15),
            // The last events of streams: complete in the engine, but not yet with a slow reader.
            closing_timeout: Duration::from_secs(10),
        }
    }
}

/// What all requests share.
pub struct App {
    access: Access,
    admin: Option<AdminKey>,
    hosts: Hosts,
    cors: Cors,
    guesses: Guesses,
    limits: Limits,
    workers: Workers,
    /// What requests can go on from by the id of a response.
    transcripts: Arc<Transcripts>,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    log: LogControl,
    started: Instant,
    started_unix_seconds: u64,
    serving: OnceLock<Arc<Serving>>,
    is_shutting_down: AtomicBool,
    /// Whether the last look at the pool found it nearly exhausted.
    was_near_exhaustion: AtomicBool,
}

/// What answers, as soon as the model's files are open. The engine may still be loading.
pub struct Serving {
    pub engine: Engine,
    pub tokenizer: Arc<Tokenizer>,
    pub template: ChatTemplate,
    pub grammars: Grammars,
    /// The model's name, as answers report it.
    pub model: String,
    pub kv: KvShape,
}

/// The shape of the model's KV cache, for who asks about the model.
#[derive(Clone, Debug, Default)]
pub struct KvShape {
    pub heads: usize,
    pub head_dim: usize,
    /// Of K and of V, as `--kv-bits` takes it.
    pub bits: String,
}

impl App {
    pub fn new(config: Config) -> Arc<App> {
        Arc::new(App {
            limits: Limits::new(config.rates, &config.access),
            guesses: Guesses::new(config.rates.failed_keys),
            workers: Workers::default(),
            transcripts: Arc::default(),
            access: config.access,
            admin: config.admin,
            hosts: Hosts::new(config.allowed_hosts),
            cors: Cors::new(config.cors_origins),
            bounds: config.bounds,
            metrics: config.metrics,
            log: config.log,
            started: Instant::now(),
            started_unix_seconds: report::unix_seconds(),
            serving: OnceLock::new(),
            is_shutting_down: AtomicBool::new(false),
            was_near_exhaustion: AtomicBool::new(false),
        })
    }

    /// From here on requests reach the engine. Once.
    pub fn start_serving(&self, serving: Serving) {
        let transcripts = Arc::clone(&self.transcripts);
        serving.engine.on_expired(move |namespace, agent| {
            transcripts.forget(namespace, agent);
        });
        let is_first = self.serving.set(Arc::new(serving)).is_ok();
        assert!(is_first, "one model is served");
    }

    /// From here on the server is not ready. It serves until its engine refuses.
    pub fn start_shutting_down(&self) {
        self.is_shutting_down.store(true, Ordering::Relaxed);
    }

    /// Changes what is logged from here on, or says what is wrong with the filter.
    pub fn set_log_level(&self, filter: &str) -> Result<(), String> {
        self.log.set_level(filter)
    }

    /// Refuses what the engine would refuse anyway, before any work is done for it.
    fn serving(&self) -> Result<&Arc<Serving>, Error> {
        let serving = self.serving.get().ok_or(engine::Error::Starting)?;
        match serving.engine.status() {
            Status::Serving => Ok(serving),
            Status::Starting => Err(engine::Error::Starting.into()),
            Status::Draining => Err(engine::Error::Draining.into()),
            Status::Failed(_) | Status::Stopped => Err(engine::Error::Stopped.into()),
        }
    }
}
