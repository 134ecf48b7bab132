//! Parts of suites in a process of their own: what only a process that has just begun can show.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::live::{Live, Start, Timeline, request};
use super::process::output_of;
use super::scratch::{self, Place, Scratch};
use crate::cli::interrupt::Interrupt;
use crate::cli::memory::rss_bytes;
use crate::cli::output::{self, Failure};
use crate::cli::parent::end_with_parent;
use crate::model::{LoadOptions, ModelFiles};
use crate::types::{Namespace, TokenId};

/// What a child does.
#[derive(Debug, Serialize, Deserialize)]
pub enum Task {
    /// Starts an engine on a store and answers one request: an [`Answered`].
    Answer(Answer),
    /// Opens a store and lists its agents: a [`Listed`].
    List { store: PathBuf },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    pub model: PathBuf,
    pub kv: String,
    pub device: String,
    pub threads: Option<usize>,
    pub pool_blocks: usize,
    pub store: PathBuf,
    pub digests: PathBuf,
    pub namespace: String,
    pub prompt: Vec<u32>,
}

/// What a request found, and how long its first token took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Found {
    pub ttft_ms: f64,
    pub cached_tokens: usize,
    pub restored_tokens: usize,
    pub restore_ms: f64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Answered {
    /// When the engine was ready, by the clock of all processes.
    pub ready_unix_s: f64,
    pub found: Found,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Listed {
    pub agents: usize,
    pub open_ms: f64,
    pub list_ms: f64,
    /// `None` where the system does not say.
    pub rss_bytes: Option<u64>,
}

impl Found {
    pub fn of(timeline: &Timeline) -> Found {
        let admitted = &timeline.outcome.admitted;
        Found {
            ttft_ms: timeline.ttft().as_secs_f64() * 1e3,
            cached_tokens: admitted.cached_tokens,
            restored_tokens: admitted.restored_tokens,
            restore_ms: admitted.restore.as_secs_f64() * 1e3,
        }
    }
}

impl Task {
    /// Lets a new process do it, and reads what that prints.
    pub fn run<T: DeserializeOwned>(
        &self,
        scratch: &Scratch,
        interrupt: &Interrupt,
    ) -> Result<T, Failure> {
        let file = scratch.path("task.json");
        std::fs::write(&file, serde_json::to_vec(self)?)?;
        let program = std::env::current_exe()?;
        let file = file.display().to_string();
        // What the user's configuration says, the task says.
        let arguments = ["--config", "/dev/null", "bench", "--child", &file];
        let printed = output_of(&program, &arguments, interrupt)?;
        Ok(serde_json::from_str(&printed).with_context(|| format!("it printed {printed:?}"))?)
    }
}

/// What the clock of all processes says.
pub fn unix_s() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// In the child.
pub fn run(task: &Path, interrupt: &Interrupt) -> Result<(), Failure> {
    end_with_parent()?;
    let printed = match serde_json::from_slice(&std::fs::read(task)?)? {
        Task::Answer(task) => serde_json::to_string(&answer(task, interrupt)?)?,
        Task::List { store } => serde_json::to_string(&list(&store)?)?,
    };
    output::data(printed.as_bytes())
}

fn answer(task: Answer, interrupt: &Interrupt) -> Result<Answered, Failure> {
    let options = LoadOptions {
        kv: task.kv.parse().map_err(anyhow::Error::msg)?,
        pool_blocks: task.pool_blocks,
        device: task.device.parse().map_err(anyhow::Error::msg)?,
        threads: task.threads,
    };
    let place = Place { store: &task.store, digests: &task.digests };
    let keeping = place.keeping(&ModelFiles::open(&task.model)?, options.kv)?;
    let start = Start { model: task.model, options, running_max: 1, keeping: Some(keeping) };
    let live = Live::begin(start, interrupt)?;
    let ready_unix_s = unix_s();
    let prompt = task.prompt.into_iter().map(TokenId).collect();
    let mut request = request(prompt, 1);
    request.namespace = Namespace::new(&task.namespace);
    // The next process is to find the store as this one did.
    request.is_ephemeral = true;
    let found = Found::of(&live.answer(request)?);
    Ok(Answered { ready_unix_s, found })
}

fn list(store: &Path) -> Result<Listed, Failure> {
    let started = Instant::now();
    let store = scratch::open(store)?;
    let opened = Instant::now();
    let agents = store.agents()?.len();
    let listed = Instant::now();
    Ok(Listed {
        agents,
        open_ms: (opened - started).as_secs_f64() * 1e3,
        list_ms: (listed - opened).as_secs_f64() * 1e3,
        rss_bytes: rss_bytes(),
    })
}
