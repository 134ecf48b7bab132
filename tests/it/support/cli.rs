//! Runs the program as on a machine of its own: nothing of the outer environment, no network.

use super::golden::data;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Far above what any run here takes on a busy machine; a program that hangs must not hang us.
const WATCHDOG: Duration = Duration::from_secs(120);

/// Empty folders for a home, for the program's data, and for a model.
pub struct Machine {
    folder: tempfile::TempDir,
}

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Machine {
    pub fn new() -> Machine {
        Machine { folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the program looks for its configuration. macOS knows no `XDG_CONFIG_HOME`.
    pub fn config_folder(&self) -> PathBuf {
        self.path(match cfg!(target_os = "macos") {
            true => "home/Library/Application Support/semantic",
            false => "home/config/semantic",
        })
    }

    /// The program, ready to start. The hub is off unless the caller turns it on.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_semantic"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let is_read = ["SEMANTIC_", "HF_", "HUGGING", "TRANSFORMERS_", "XDG_"];
            if is_read.iter().any(|start| name.starts_with(start)) {
                command.env_remove(&*name);
            }
        }
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HOME", self.path("home"))
            .env("XDG_CONFIG_HOME", self.path("home/config"))
            .env("XDG_CACHE_HOME", self.path("home/cache"))
            .env("XDG_DATA_HOME", self.path("home/data"))
            .env("SEMANTIC_DATA_DIR", self.path("data"))
            .env("HF_HUB_OFFLINE", "1")
            // As on a terminal; tests of the log ask for JSON.
            .env("SEMANTIC_LOG_FORMAT", "text")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The same under a shell's `ulimit`.
    pub fn limited(&self, limit: &str, arguments: &[&str]) -> Command {
        let program = self.command(arguments);
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]);
        limited.arg(program.get_program()).args(program.get_args()).current_dir(self.path(""));
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        limited
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.finish(self.command(arguments), b"")
    }

    /// Runs a command to its end.
    pub fn finish(&self, mut command: Command, stdin: &[u8]) -> Ran {
        let mut child = command.spawn().expect("the program starts");
        // A program that does not read its stdin may have closed it.
        let _ = child.stdin.take().expect("a pipe").write_all(stdin);
        Ran::of(wait(child))
    }

    /// Everything in the data folder and the home, relative to the machine.
    pub fn stored(&self) -> Vec<String> {
        let mut found = Vec::new();
        for start in ["data", "home"] {
            list(&self.path(start), &mut found);
        }
        let own = format!("{}/", self.folder.path().display());
        found.iter().map(|path| path.display().to_string().replace(&own, "")).collect()
    }

    /// A text without this machine's folder, which is another one every time.
    pub fn anonymous(&self, text: &str) -> String {
        text.replace(&self.folder.path().display().to_string(), "$HERE")
    }
}

impl Ran {
    pub fn of(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }
}

/// Waits for a program that was started, and no longer than the watchdog.
pub fn wait(child: Child) -> Output {
    let pid = Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(WATCHDOG) {
        Ok(output) => output.expect("the program was waited for"),
        Err(_) => {
            let _ = kill_process(pid, Signal::KILL);
            panic!("the program still runs after {WATCHDOG:?}");
        }
    }
}

fn list(folder: &Path, found: &mut Vec<PathBuf>) {
    for item in std::fs::read_dir(folder).into_iter().flatten() {
        let path = item.expect("an item").path();
        match path.is_dir() {
            true => list(&path, found),
            false => found.push(path),
        }
    }
}

/// Copies the files of a folder.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for item in std::fs::read_dir(from).expect("the folder") {
        let item = item.expect("an item");
        std::fs::copy(item.path(), to.join(item.file_name())).expect("a copy");
    }
}

/// A model that goes on for 65,536 tokens if it is let.
pub fn tiny_with_a_long_context(machine: &Machine) -> String {
    let folder = machine.path("model");
    copy_folder(&data("tiny/llama-f16"), &folder);
    let config = folder.join("config.json");
    let text = std::fs::read_to_string(&config).expect("a config");
    std::fs::write(config, text.replace(": 512,", ": 65536,")).expect("a config");
    folder.display().to_string()
}
