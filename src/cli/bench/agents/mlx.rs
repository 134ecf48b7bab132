//! mlx-lm's server in the race. Its prompt cache is in memory alone: a kill loses all of it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, anyhow};
use serde_json::{Value as Json, json};

use super::client::{Answered, Asked};
use super::plan::Sizes;
use super::process::{Process, free_port};
use super::race::{Contender, Room};
use crate::cli::bench::peer::{PeerFlags, check_files, file_name};
use crate::cli::bench::process::{runnable, version_of};
use crate::cli::bench::report::{Facts, facts};
use crate::cli::bench::scratch::Scratch;
use crate::cli::bench::setup::{Setup, blocks};
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Failure;
use crate::model::KvConfig;

/// A line of Python.
const SAY_VERSIONS: &str = "from importlib.metadata import version as v; \
    print(v('mlx-lm') + ', MLX ' + v('mlx'))";
/// On a CPU it is quickest with weights of 32 bits, whose KV is of 32 bits, too.
const OF_16_BITS: usize = 2;

/// A server that can be started.
pub struct MlxProgram {
    python: PathBuf,
    model: PathBuf,
}

impl MlxProgram {
    /// The one that the flags name, if they do; it is there.
    pub fn new(flags: &PeerFlags) -> Result<Option<MlxProgram>, Failure> {
        let (Some(python), Some(model)) = (&flags.peer_mlx, &flags.peer_mlx_model) else {
            return Ok(None);
        };
        check_files([("--peer-mlx", python)])?;
        if !model.is_dir() {
            return Err(anyhow!("--peer-mlx-model: {} is not a folder", model.display()).into());
        }
        Ok(Some(MlxProgram { python: runnable(python), model: model.clone() }))
    }

    pub fn facts(&self, interrupt: &Interrupt) -> Facts {
        let version = version_of(&self.python, &["-c", SAY_VERSIONS], interrupt);
        facts([("version", json!(version)), ("model", json!(file_name(&self.model)))])
    }
}

pub struct Mlx<'a> {
    setup: &'a Setup<'a>,
    program: &'a MlxProgram,
    log: PathBuf,
    /// What its cache of conversations may hold.
    cache_bytes: usize,
    process: Option<Process>,
}

impl<'a> Mlx<'a> {
    pub fn new(
        setup: &'a Setup<'_>,
        scratch: &Scratch,
        program: &'a MlxProgram,
        sizes: &Sizes,
    ) -> Result<Mlx<'a>, Failure> {
        let kv: KvConfig = "16".parse().map_err(anyhow::Error::msg)?;
        let agent_bytes = blocks(sizes.most_tokens()) * setup.files.block_bytes(kv)? * OF_16_BITS;
        let cache_bytes = Room::Capped.agents(sizes) * agent_bytes;
        Ok(Mlx { setup, program, log: scratch.path("mlx.log"), cache_bytes, process: None })
    }
}

impl Contender for Mlx<'_> {
    fn name(&self) -> String {
        "mlx_lm.server".to_owned()
    }

    fn about(&self) -> String {
        format!("mlx_lm.server: --prompt-cache-bytes {}", self.cache_bytes)
    }

    fn start(&mut self) -> Result<(), Failure> {
        let port = free_port()?;
        let mut command = Command::new(&self.program.python);
        command
            .args(["-m", "mlx_lm.server", "--model"])
            .arg(&self.program.model)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--prompt-cache-bytes", &self.cache_bytes.to_string()]);
        let interrupt = &self.setup.interrupt;
        self.process = Some(Process::start(command, port, "/health", &self.log, interrupt)?);
        Ok(())
    }

    fn ask(
        &mut self,
        _agent: usize,
        messages: &[Json],
        reply_tokens: usize,
    ) -> Result<Answered, Failure> {
        self.setup.interrupt.check()?;
        let process = self.process.as_ref().context("mlx_lm.server does not run")?;
        process.chat(&Asked { agent: "bench", messages, reply_tokens, further: json!({}) })
    }

    fn kill(&mut self) -> Result<(), Failure> {
        self.process.take().map_or(Ok(()), Process::kill)
    }

    fn disk_bytes(&self) -> Result<u64, Failure> {
        Ok(0)
    }
}
