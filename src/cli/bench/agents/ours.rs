//! Our server in the race, used as any client would: an id in a header, the whole conversation each
//! time, nothing else.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value as Json, json};

use super::client::{Answered, Asked};
use super::plan::Sizes;
use super::process::{Process, free_port};
use super::race::{Contender, Room};
use crate::cli::bench::scratch::{self, Scratch};
use crate::cli::bench::setup::{Setup, blocks};
use crate::cli::output::Failure;

const MEGABYTE: usize = 1_000_000;

pub struct Ours<'a> {
    setup: &'a Setup<'a>,
    data_dir: PathBuf,
    log: PathBuf,
    pool_mb: usize,
    process: Option<Process>,
}

impl<'a> Ours<'a> {
    /// With a data folder of this name.
    pub fn new(setup: &'a Setup<'_>, scratch: &Scratch, name: &str, pool_mb: usize) -> Ours<'a> {
        let log = scratch.path(&format!("{name}.log"));
        Ours { setup, data_dir: scratch.path(name), log, pool_mb, process: None }
    }

    /// Memory for as many agents at their longest as the room allows.
    pub fn pool_mb(setup: &Setup<'_>, sizes: &Sizes, room: Room) -> Result<usize, Failure> {
        let blocks = room.agents(sizes) * blocks(sizes.most_tokens());
        Ok((blocks * setup.files.block_bytes(setup.kv)?).div_ceil(MEGABYTE))
    }

    /// Forgets an agent, as its user would.
    pub fn forget(&self, agent: &str) -> Result<(), Failure> {
        Ok(self.process()?.client().delete(&format!("/v1/agents/{agent}"))?)
    }

    pub fn chat(
        &self,
        agent: &str,
        messages: &[Json],
        reply_tokens: usize,
    ) -> Result<Answered, Failure> {
        self.setup.interrupt.check()?;
        let further = json!({ "ignore_eos": true });
        let process = self.process()?;
        process.chat(&Asked { agent, messages, reply_tokens, further })
    }

    fn process(&self) -> Result<&Process, Failure> {
        let process = self.process.as_ref();
        process.ok_or_else(|| anyhow::anyhow!("our server does not run").into())
    }
}

impl Contender for Ours<'_> {
    fn name(&self) -> String {
        "semantic".to_owned()
    }

    fn about(&self) -> String {
        format!("semantic: --kv-pool-mb {}, KV bits {}", self.pool_mb, self.setup.kv)
    }

    fn start(&mut self) -> Result<(), Failure> {
        let setup = self.setup;
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        for (variable, _) in std::env::vars_os() {
            // What the user's environment says of the server is not what is measured.
            if variable.to_string_lossy().starts_with("SEMANTIC_") {
                command.env_remove(variable);
            }
        }
        command
            .args(["--config", "/dev/null", "--log-level", "warn", "--data-dir"])
            .arg(&self.data_dir)
            .args([
                "serve",
                "--end-with-stdin",
                "--no-auth",
                "--rate-limit-agent=0",
                "--rate-limit-global=0",
            ])
            .arg("--model")
            .arg(&setup.model_path)
            .args(["--port", &port.to_string()])
            .args(["--threads", &setup.threads().to_string()])
            .args(["--device", &setup.compute.device.to_string()])
            .args(["--kv-bits", &setup.kv.to_string()])
            .args(["--kv-pool-mb", &self.pool_mb.to_string()]);
        let ready = "/health/ready";
        self.process = Some(Process::start(command, port, ready, &self.log, &setup.interrupt)?);
        Ok(())
    }

    fn ask(
        &mut self,
        agent: usize,
        messages: &[Json],
        reply_tokens: usize,
    ) -> Result<Answered, Failure> {
        self.chat(&format!("bench-{agent}"), messages, reply_tokens)
    }

    fn kill(&mut self) -> Result<(), Failure> {
        self.process.take().map_or(Ok(()), Process::kill)
    }

    fn disk_bytes(&self) -> Result<u64, Failure> {
        Ok(scratch::bytes(&self.data_dir)?)
    }
}
