//! `semantic serve` as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use super::cli::{Machine, Ran, wait};
use super::http::{Client, Request, wait_until};

/// A server that has said where it listens.
pub struct Process {
    child: Option<Child>,
    /// What it has said so far, and who listens.
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
    pub address: SocketAddr,
}

impl Process {
    pub fn start(mut command: Command) -> Process {
        let mut child = command.spawn().expect("the program starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let said = Arc::new(Mutex::new(String::new()));
        let hears = Arc::clone(&said);
        let listener = std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).expect("text") > 0 {
                hears.lock().expect("the text").push_str(&line);
                line.clear();
            }
        });
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let listener = Some(listener);
        let mut process = Process { child: Some(child), said, listener, address };
        // The line that says so, be it JSON or not.
        let line = process.wait_for("listening");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('"').next());
        process.address = address.expect("an address").parse().expect("an address");
        process
    }

    /// With a model that is ready.
    pub fn serving(machine: &Machine, model: &str, flags: &[&str]) -> Process {
        let arguments =
            [&["serve", "--no-auth", "--port=0", "--threads=1", "-m", model], flags].concat();
        let mut command = machine.command(&arguments);
        // What it does goes without saying, here.
        command.env("SEMANTIC_LOG_LEVEL", "warn");
        let process = Process::start(command);
        process.wait_for(&format!("{model} is ready after "));
        // The last line of what is said at the start.
        process.wait_for("    -d '{");
        process
    }

    /// The line with this text.
    pub fn wait_for(&self, text: &str) -> String {
        let mut found = None;
        wait_until(text, || {
            let said = self.said.lock().expect("the text");
            found = said.lines().find(|line| line.contains(text)).map(str::to_owned);
            found.is_some()
        });
        found.expect("it was waited for")
    }

    /// All that it has said so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("the text").clone()
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it has not ended").id()
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub fn status(&self, path: &str) -> u16 {
        self.client().send(&Request::get(path)).status
    }

    pub fn kill(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it has not ended");
        kill_process(Pid::from_child(child), signal).expect("it runs");
    }

    /// Waits for its end. What it said while it started is left out.
    pub fn end(&mut self) -> Ran {
        let mut ran = Ran::of(wait(self.child.take().expect("it has not ended")));
        self.listener.take().expect("a thread").join().expect("it hears all");
        ran.stderr = without_start(&self.said());
        ran
    }
}

/// What a server says beside how its start goes.
pub fn without_start(said: &str) -> String {
    let is_start = |line: &str| {
        let stages =
            ["listening on http://", "API keys: ", "no key is asked for", "agents on disk: "];
        let further =
            ["the model ", "loading ", "warming up", "try it:", "    curl http", "      -"];
        let is_stage = stages.iter().chain(&further).any(|stage| line.starts_with(stage));
        is_stage || line.is_empty() || line.contains(" is ready after ")
    };
    said.lines().filter(|line| !is_start(line)).map(|line| format!("{line}\n")).collect()
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
