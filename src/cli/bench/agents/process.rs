//! A server in the race as a process of its own, which ends with us.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};

use super::client::{Answered, Asked, Client};
use crate::cli::bench::process::last_line;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Failure;

/// A large model takes minutes to load from a slow disk.
const START_TIMEOUT: Duration = Duration::from_secs(600);
/// Between two looks whether it is ready; the same for all servers.
const POLL: Duration = Duration::from_millis(5);
/// Its log of a run; more is something else.
const LOG_BYTES_MAX: u64 = 16 << 20;

pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    client: Client,
}

/// A port that is free now; whoever takes it meanwhile makes the server fail, which says so.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Process {
    /// Returns when the server at this port answers a GET of `ready` with 200.
    pub fn start(
        mut command: Command,
        port: u16,
        ready: &str,
        log: &Path,
        interrupt: &Interrupt,
    ) -> Result<Process, Failure> {
        let name = command.get_program().display().to_string();
        let stderr = OpenOptions::new().create(true).append(true).open(log)?;
        stderr.set_len(0)?;
        let child = command
            // Nothing is written: its end tells a server of ours that we are gone.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot run {name}"))?;
        let client = Client::new(port);
        let mut process = Process { child, name, log: log.to_owned(), client };
        process.wait_ready(ready, interrupt)?;
        Ok(process)
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What it answers; if it fails, with the last that it said.
    pub fn chat(&self, asked: &Asked<'_>) -> Result<Answered, Failure> {
        let answered = self.client.chat(asked);
        Ok(answered.with_context(|| format!("{}, which said {:?}", self.name, self.last_said()))?)
    }

    /// Ends it as a power cut would: it gets to do nothing more.
    pub fn kill(mut self) -> Result<(), Failure> {
        // SIGKILL, on all systems that have signals.
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn wait_ready(&mut self, path: &str, interrupt: &Interrupt) -> Result<(), Failure> {
        let started = Instant::now();
        while !self.client.is_ready(path) {
            interrupt.check()?;
            if let Some(status) = self.child.try_wait()? {
                return Err(anyhow!("{} ended ({status}): {}", self.name, self.last_said()).into());
            }
            if started.elapsed() > START_TIMEOUT {
                let said = self.last_said();
                return Err(anyhow!("{} is not ready: {said}", self.name).into());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn last_said(&self) -> String {
        let mut bytes = Vec::new();
        let read =
            File::open(&self.log).and_then(|log| log.take(LOG_BYTES_MAX).read_to_end(&mut bytes));
        let said = match read {
            Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => return error.to_string(),
        };
        last_line(&said).to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
