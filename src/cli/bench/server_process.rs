//! A server of ours as a process of its own, which ends with us.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;
use super::host::Host;
use super::process::last_line;
use crate::cli::interrupt::Interrupt;
use crate::cli::memory;
use crate::cli::output::Failure;

/// A large model takes minutes to load from a slow disk.
const START_TIMEOUT: Duration = Duration::from_secs(600);
/// A drain, a save and some more.
const END_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at what is timed to the millisecond.
const POLL: Duration = Duration::from_millis(1);
/// Its log of a run; more is something else.
const LOG_BYTES_MAX: u64 = 16 << 20;

pub struct Server {
    child: Child,
    log: PathBuf,
    pub address: SocketAddr,
    /// When the process was started.
    pub started: Instant,
    /// When it had its address.
    pub bound: Instant,
}

impl Server {
    /// Returns when it listens. The model still loads. Anybody may ask it.
    pub fn start(host: &Host<'_>, name: &str, flags: &[&str]) -> Result<Server, Failure> {
        Server::start_for(host, name, &[&["--no-auth"], flags].concat(), None)
    }

    /// The same for who has one of these keys, if there are any.
    pub fn start_for(
        host: &Host<'_>,
        name: &str,
        flags: &[&str],
        keys: Option<&str>,
    ) -> Result<Server, Failure> {
        let setup = host.setup;
        let log = host.scratch.path(&format!("{name}.log"));
        // Appended to, because it is read from the beginning while the server writes.
        let stderr = OpenOptions::new().create(true).append(true).open(&log)?;
        stderr.set_len(0)?;
        let program = std::env::current_exe()?;
        let mut command = Command::new(&program);
        for (variable, _) in std::env::vars_os() {
            // What the user's environment says of the server is not what is measured.
            if variable.to_string_lossy().starts_with("SEMANTIC_") {
                command.env_remove(variable);
            }
        }
        let started = Instant::now();
        let child = command
            .args(["--config", "/dev/null", "--log-level", "info", "--log-format", "text"])
            .arg("--data-dir")
            .arg(host.scratch.path(name))
            .envs(keys.map(|keys| ("SEMANTIC_API_KEYS", keys)))
            .args(["serve", "--port=0", "--end-with-stdin", "--model"])
            .arg(&setup.model_path)
            .args(["--threads", &setup.threads().to_string()])
            .args(["--device", &setup.compute.device.to_string()])
            .args(["--kv-bits", &setup.kv.to_string()])
            .args(flags)
            // Nothing is written: its end tells the server that we are gone.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server { child, log, address, started, bound: started };
        let said = server.wait_for("listening on http://", &setup.interrupt)?;
        server.bound = Instant::now();
        let address = said.rsplit('/').next().unwrap_or_default();
        server.address = address.trim().parse().with_context(|| format!("it said {said:?}"))?;
        Ok(server)
    }

    /// Asks until it is ready: when it was.
    pub async fn wait_ready(&self, interrupt: &Interrupt) -> Result<Instant, Failure> {
        loop {
            let answer = Client::connect(self.address).await?.get("/health/ready").await?;
            if answer.status == 200 {
                return Ok(Instant::now());
            }
            if self.started.elapsed() > START_TIMEOUT {
                return Err(anyhow!("the server is not ready: {}", self.last_said()).into());
            }
            interrupt.check()?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// The first line of its log with this text.
    fn wait_for(&mut self, text: &str, interrupt: &Interrupt) -> Result<String, Failure> {
        let started = Instant::now();
        loop {
            if let Some(line) = self.said()?.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = self.child.try_wait()? {
                let said = self.last_said();
                return Err(anyhow!("the server ended ({status}): {said}").into());
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(anyhow!("the server did not say {text:?}").into());
            }
            interrupt.check()?;
            std::thread::sleep(POLL);
        }
    }

    /// Its log so far.
    pub fn said(&self) -> std::io::Result<String> {
        let mut bytes = Vec::new();
        File::open(&self.log)?.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn last_said(&self) -> String {
        let said = self.said().unwrap_or_default();
        last_line(&said).to_owned()
    }

    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end after a signal.
    pub fn wait(&mut self) -> Result<ExitStatus, Failure> {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if asked.elapsed() > END_TIMEOUT {
                return Err(anyhow!("the server does not end: {}", self.last_said()).into());
            }
            std::thread::sleep(POLL);
        }
    }

    /// What of its memory is resident; `None` where the system does not say.
    pub fn rss_bytes(&self) -> Option<u64> {
        memory::rss_bytes_of(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
