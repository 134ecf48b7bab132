//! Runs Python scripts with packages from PyPI, which are fetched once and kept between test runs.

use super::cli::wait;
use super::golden::data;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

/// A script with its environment.
pub struct Client {
    script: PathBuf,
    environment: Vec<(&'static str, String)>,
}

/// A script that waits for its input to end.
pub struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    pub fn new(script: &str) -> Client {
        Client { script: data("sdk").join(script), environment: Vec::new() }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Client {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Runs to the end, which must be a good one. Returns what was printed.
    pub fn runs(&self, arguments: &[&str]) -> String {
        let child = self.command(arguments).stdin(Stdio::null()).spawn().expect("python3 starts");
        let output = wait(child);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {arguments:?}: {stderr}", self.script.display());
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn starts(&self, arguments: &[&str]) -> Running {
        let mut child = self.command(arguments).spawn().expect("python3 starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Running { child, stdout }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = python();
        command
            .arg(&self.script)
            .args(arguments)
            .env("PYTHONPATH", packages())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Nobody's own settings, and no proxy between the script and this machine.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let is_setting = ["OPENAI_", "ANTHROPIC_"].iter().any(|start| name.starts_with(start));
            if is_setting || name.to_lowercase().ends_with("_proxy") {
                command.env_remove(&*name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Running {
    /// The first line that it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }

    pub fn end(mut self) {
        drop(self.child.stdin.take());
        let output = wait(self.child);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn python() -> Command {
    let mut python = Command::new("python3");
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

/// The folder with the packages, whole as soon as it has its name. A change of the list is another
/// folder.
fn packages() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let list = data("sdk/requirements.txt");
        let text = fs::read(&list).expect("the list of packages");
        let name = format!("sdk-{}", &blake3::hash(&text).to_hex()[..16]);
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = temporary.join(name);
        if !folder.exists() {
            let making = tempfile::tempdir_in(temporary).expect("a folder");
            install(&list, making.path());
            // Another process of tests may have been quicker.
            if fs::rename(making.path(), &folder).is_ok() {
                let _ = making.keep();
            }
        }
        folder
    })
}

fn install(list: &Path, folder: &Path) {
    let mut pip = python();
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
    pip.arg("--target").arg(folder).arg("--requirement").arg(list);
    let needs = "these tests need python3 with pip, and PyPI or what was fetched from it before";
    let output = pip.output().unwrap_or_else(|error| panic!("{needs}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{needs}: {stderr}");
}
