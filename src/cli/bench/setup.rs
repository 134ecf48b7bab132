//! What every suite measures: one model, on this machine, with these settings.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Value as Json, json};

use super::Arguments;
use super::agents::MlxProgram;
use super::compare::Endpoint;
use super::machine::cpu_name;
use super::peer::Peer;
use super::peer_server::{self, PeerProgram};
use super::plan::{Plan, Sizes};
use super::progress::{Progress, Talk, Turn};
use super::report::{Facts, Report, SCHEMA, SuiteReport, facts};
use crate::cli::Context;
use crate::cli::compute::{Compute, ComputeFlags};
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{Failure, human_bytes, utc};
use crate::cli::{memory, model};
use crate::config;
use crate::model::{
    Device, Error, KvConfig, LoadOptions, Model, ModelFiles, ModelSummary, machine,
};
use crate::types::BLOCK_TOKENS;

pub struct Setup<'a> {
    pub arguments: &'a Arguments,
    /// In UTC.
    began: String,
    pub plan: Plan,
    pub sizes: Sizes,
    pub turn: Turn,
    pub interrupt: Interrupt,
    pub compute: Compute,
    pub kv: KvConfig,
    pub files: ModelFiles,
    pub summary: ModelSummary,
    pub peer: Option<Peer>,
    pub peer_server: Option<PeerProgram>,
    pub peer_mlx: Option<MlxProgram>,
    /// Of `compare`; each has answered.
    pub servers: Vec<Endpoint>,
    /// As the user named it.
    pub model_name: String,
    pub model_path: PathBuf,
    pub file_bytes: u64,
    /// Where the user's agents are: nothing there is touched, but disks differ.
    pub data_dir: PathBuf,
    /// Measured when first asked for.
    read_bytes_per_s: OnceCell<f64>,
}

impl Setup<'_> {
    pub fn new<'a>(
        arguments: &'a Arguments,
        context: &Context,
        interrupt: Interrupt,
    ) -> Result<Setup<'a>, Failure> {
        let compute = compute(&arguments.compute, &context.config.generate)?;
        // Before the model, which may have to be fetched.
        let threads = compute.threads.unwrap_or_else(machine::default_threads);
        let peer = Peer::new(&arguments.peer, threads)?;
        let peer_server = PeerProgram::new(&arguments.peer)?;
        let peer_mlx = MlxProgram::new(&arguments.peer)?;
        let servers = arguments.urls.endpoints(&arguments.suite)?;
        let name = arguments.model.name(context);
        let resolved = model::resolve(name, context, arguments.quiet)?;
        let files = model::open(&resolved)?;
        let plan = arguments.plan();
        Ok(Setup {
            arguments,
            began: utc(SystemTime::now()),
            plan,
            sizes: Sizes::new(plan, arguments.suites_said(), &arguments.sizes),
            turn: Turn::default(),
            interrupt,
            compute,
            kv: compute.kv.unwrap_or(resolved.kv),
            summary: files.summary(),
            files,
            peer,
            peer_server,
            peer_mlx,
            servers,
            data_dir: context.data_dir.clone(),
            model_name: resolved.name,
            file_bytes: model::file_bytes(&resolved.path)?,
            model_path: resolved.path,
            read_bytes_per_s: OnceCell::new(),
        })
    }

    /// The model as the flags say, with a pool for so many sequences of so many tokens.
    pub fn load(&self, sequences: usize, tokens: usize) -> Result<Box<dyn Model>, Failure> {
        let pool_blocks = sequences * blocks(tokens);
        Ok(self.load_with(self.compute.device, self.kv, pool_blocks)?)
    }

    pub fn load_with(
        &self,
        device: Device,
        kv: KvConfig,
        pool_blocks: usize,
    ) -> Result<Box<dyn Model>, Error> {
        self.files.load(LoadOptions { kv, device, ..self.options(pool_blocks) })
    }

    /// How the flags want the model run.
    pub fn options(&self, pool_blocks: usize) -> LoadOptions {
        let Compute { device, threads, .. } = self.compute;
        LoadOptions { kv: self.kv, pool_blocks, device, threads }
    }

    pub fn threads(&self) -> usize {
        self.compute.threads.unwrap_or_else(machine::default_threads)
    }

    /// What this machine's memory can deliver to our threads.
    pub fn read_bytes_per_s(&self) -> f64 {
        *self.read_bytes_per_s.get_or_init(|| machine::read_bytes_per_s(self.threads()))
    }

    /// Shows on stderr that a suite gets on; it takes `steps` steps.
    pub fn progress(&self, suite: &str, steps: usize) -> Progress {
        self.turn.bar(suite, steps, self.talk())
    }

    pub fn talk(&self) -> Talk {
        if self.arguments.quiet { Talk::Failures } else { Talk::All }
    }

    /// The lines above the tables.
    pub fn headline(&self) -> String {
        let (kv, device) = (self.kv, self.compute.device);
        let mut text = format!(
            "semantic {}, MLX {}\n\
             model   {}, {}, KV bits {kv}\n\
             machine {}, {} threads, {}, device {device}\n",
            env!("CARGO_PKG_VERSION"),
            crate::model::mlx_version(),
            self.model_path.display(),
            human_bytes(self.file_bytes),
            cpu_name(),
            self.threads(),
            machine::instruction_set(),
        );
        if let Some(peer) = &self.peer {
            text += &format!("peer    {}\n", peer.headline());
        }
        text
    }

    /// What the suites found, and on what. Asked for at the end: the memory's speed may have to be
    /// measured, which `load` must not see, and the peer says what it is when it has run.
    pub fn report(&self, suites: Vec<SuiteReport>) -> Report {
        Report {
            schema: SCHEMA,
            began: self.began.clone(),
            machine: self.machine(),
            model: self.model(),
            settings: self.settings(),
            peer: self.peers(),
            suites,
            against: None,
        }
    }

    fn machine(&self) -> Facts {
        facts([
            ("cpu", json!(cpu_name())),
            ("cores", json!(machine::default_threads())),
            ("memory_bytes", json!(memory::total_bytes())),
            ("system", json!(env!("SEMANTIC_TARGET"))),
            ("threads", json!(self.threads())),
            ("instruction_set", json!(machine::instruction_set())),
            ("memory_read_gb_per_s", json!(self.read_bytes_per_s() / 1e9)),
            ("semantic", json!(env!("CARGO_PKG_VERSION"))),
            ("commit", json!(env!("SEMANTIC_COMMIT"))),
            ("mlx", json!(crate::model::mlx_version())),
        ])
    }

    /// Each program beside ours, by its name; `None` if there is none.
    fn peers(&self) -> Option<Facts> {
        let mut peers = self.peer.as_ref().map_or_else(Facts::new, Peer::facts);
        let server = self.peer_server.as_ref().map(|it| it.facts(&self.interrupt));
        let mlx = self.peer_mlx.as_ref().map(|it| it.facts(&self.interrupt));
        peers.extend(server.map(|facts| (peer_server::NAME.to_owned(), Json::Object(facts))));
        peers.extend(mlx.map(|facts| ("mlx_lm.server".to_owned(), Json::Object(facts))));
        (!peers.is_empty()).then_some(peers)
    }

    fn model(&self) -> Facts {
        facts([
            ("name", json!(self.model_name)),
            ("file", json!(self.file_name())),
            ("file_bytes", json!(self.file_bytes)),
            ("step_bytes", json!(self.summary.step_bytes)),
            ("layer_weights", json!(self.summary.layer_weights)),
            ("head_weights", json!(self.summary.head_weights)),
        ])
    }

    fn settings(&self) -> Facts {
        facts([
            ("device", json!(self.compute.device.to_string())),
            ("kv_bits", json!(self.kv.to_string())),
            ("runs", json!(self.sizes.runs)),
            ("plan", json!(self.plan)),
            ("sizes", json!(self.sizes)),
            ("race", json!(self.arguments.agents.sizes(self.plan))),
            ("text", json!(self.arguments.text.named())),
        ])
    }

    fn file_name(&self) -> String {
        let name = self.model_path.file_name().unwrap_or(self.model_path.as_os_str());
        name.to_string_lossy().into_owned()
    }
}

/// The flags over the configuration; a value out of range is blamed on whoever set it.
fn compute(flags: &ComputeFlags, defaults: &config::Generate) -> Result<Compute, Failure> {
    flags.merge(config::Compute::default()).map_err(Failure::Usage)?;
    flags.merge(defaults.compute()).map_err(|reason| {
        anyhow::anyhow!("the configuration's [generate] is not valid: {reason}").into()
    })
}

/// Blocks of a sequence with so many tokens.
pub fn blocks(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK_TOKENS)
}
