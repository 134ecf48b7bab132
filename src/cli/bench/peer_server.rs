//! llama.cpp's server beside us: saves the slot that a conversation is in, and brings it back.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value as Json, json};

use super::peer::{CONTEXT_MULTIPLE, PeerFlags, check_files, file_name};
use super::process::{last_line, runnable, text_in, version_of};
use super::report::{Facts, facts};
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Failure;

pub const NAME: &str = "llama-server";
/// Loading a model takes seconds; a prompt of thousands of tokens may take minutes.
const TIME_MAX: Duration = Duration::from_secs(600);
/// Between two looks whether it is ready.
const POLL: Duration = Duration::from_millis(50);

/// A server that can be started.
pub struct PeerProgram {
    program: PathBuf,
    model: PathBuf,
}

/// A server that runs, until this is dropped.
pub struct PeerServer {
    child: Child,
    address: String,
    agent: ureq::Agent,
    about: String,
}

/// How a slot came back.
#[derive(Clone, Copy, Debug)]
pub struct SlotRestored {
    /// From the request to restore it to the first token after it.
    pub ttft_ms: f64,
    /// Of that, until it was restored.
    pub restore_ms: f64,
}

impl PeerProgram {
    /// The server that the flags name, if they do; its files are there.
    pub fn new(flags: &PeerFlags) -> Result<Option<PeerProgram>, Failure> {
        let (Some(program), Some(model)) = (&flags.peer_server, &flags.peer_model) else {
            return Ok(None);
        };
        check_files([("--peer-server", program), ("--peer-model", model)])?;
        Ok(Some(PeerProgram { program: runnable(program), model: model.clone() }))
    }

    pub fn facts(&self, interrupt: &Interrupt) -> Facts {
        let version = version_of(&self.program, &["--version"], interrupt);
        facts([("version", json!(version)), ("model", json!(file_name(&self.model)))])
    }

    /// It on its model, with nothing else said.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-m").arg(&self.model);
        command
    }

    /// Starts it with one slot for so many tokens, which it saves in this folder, and waits until
    /// it is ready.
    pub fn start(
        &self,
        tokens: usize,
        threads: usize,
        slots: &Path,
        interrupt: &Interrupt,
    ) -> Result<PeerServer, Failure> {
        std::fs::create_dir_all(slots)?;
        // Free now; whoever takes it meanwhile makes the server fail, which says so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let context = (tokens + CONTEXT_MULTIPLE).next_multiple_of(CONTEXT_MULTIPLE);
        // Without the cache in memory that it would copy each slot to when another prompt comes.
        let flags = format!("-c {context} -np 1 -t {threads} -fa on --cache-ram 0");
        let stderr = tempfile::tempfile()?;
        let child = self
            .command()
            .args(flags.split(' '))
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .arg("--slot-save-path")
            .arg(slots)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIME_MAX))
            .http_status_as_error(false)
            // A second request on a connection may wait 40 ms for an acknowledgement (RFC 1122).
            .max_idle_connections(0);
        let mut server = PeerServer {
            child,
            address: format!("http://127.0.0.1:{port}"),
            agent: config.build().into(),
            about: format!("{} on {}: {flags}, KV bits 16/16", NAME, file_name(&self.model)),
        };
        server
            .wait_ready(stderr, interrupt)
            .map_err(|failure| failure.context(&self.program.display().to_string()))?;
        Ok(server)
    }
}

impl PeerServer {
    /// What it is and how it was started.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// The text as its tokenizer has it.
    pub fn tokens(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let answer = self.post("/tokenize", &json!({ "content": text }))?;
        Ok(serde_json::from_value(answer["tokens"].clone())?)
    }

    /// Computes a prompt and saves the slot: the bytes that it takes.
    pub fn save(&self, tokens: &[u32], file: &str) -> anyhow::Result<u64> {
        self.complete(tokens)?;
        let saved = self.post("/slots/0?action=save", &json!({ "filename": file }))?;
        if saved["n_saved"] != tokens.len() {
            bail!("the peer saved {} tokens of {}", saved["n_saved"], tokens.len());
        }
        saved["n_written"].as_u64().with_context(|| format!("the peer answered {saved}"))
    }

    /// Brings a slot back and goes on with `tokens`, of which it has the first `saved_tokens`.
    pub fn restore(
        &self,
        file: &str,
        tokens: &[u32],
        saved_tokens: usize,
    ) -> anyhow::Result<SlotRestored> {
        self.post("/slots/0?action=erase", &json!({}))?;
        let started = Instant::now();
        self.post("/slots/0?action=restore", &json!({ "filename": file }))?;
        let restored = started.elapsed();
        let answer = self.complete(tokens)?;
        let took = started.elapsed();
        let computed = &answer["timings"]["prompt_n"];
        if *computed != tokens.len() - saved_tokens {
            bail!("the peer computed {computed} tokens beside the {saved_tokens} restored");
        }
        Ok(SlotRestored {
            ttft_ms: took.as_secs_f64() * 1e3,
            restore_ms: restored.as_secs_f64() * 1e3,
        })
    }

    /// Computes what the slot has not of a prompt, and one token.
    fn complete(&self, tokens: &[u32]) -> anyhow::Result<Json> {
        let request = json!({
            "prompt": tokens,
            "n_predict": 1,
            "id_slot": 0,
            "cache_prompt": true,
            "temperature": 0,
            "response_fields": ["timings"],
        });
        self.post("/completion", &request)
    }

    fn post(&self, path: &str, body: &Json) -> anyhow::Result<Json> {
        let url = format!("{}{path}", self.address);
        let mut response =
            self.agent.post(&url).send_json(body).with_context(|| format!("the peer's {path}"))?;
        let answer: Json = response.body_mut().with_config().limit(u64::MAX).read_json()?;
        match response.status().is_success() {
            true => Ok(answer),
            false => bail!("the peer's {path} answered {}: {answer}", response.status()),
        }
    }

    fn wait_ready(&mut self, stderr: File, interrupt: &Interrupt) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            interrupt.check()?;
            let health = self.agent.get(format!("{}/health", self.address)).call();
            if health.is_ok_and(|response| response.status().is_success()) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let said = text_in(stderr)?;
                return Err(anyhow!("{status}: {}", last_line(&said)).into());
            }
            if started.elapsed() > TIME_MAX {
                return Err(anyhow!("not ready after {} s", TIME_MAX.as_secs()).into());
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
