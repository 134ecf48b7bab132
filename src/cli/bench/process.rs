//! Runs another program to its end, or to the user's.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};

use crate::cli::interrupt::Interrupt;
use crate::cli::output::Failure;

/// Longer than any work that one would repeat.
const TIME_MAX: Duration = Duration::from_secs(3600);
/// Between two looks whether the process has ended or the user has had enough.
const POLL: Duration = Duration::from_millis(20);
/// A few results; more is something else.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// What a program prints, once it has ended well.
pub fn output_of(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    interrupt: &Interrupt,
) -> Result<String, Failure> {
    Ok(outputs_of(program, arguments, interrupt)?.0)
}

/// What a program says of its version, on either stream; `None` if nothing.
pub fn version_of(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    interrupt: &Interrupt,
) -> Option<String> {
    let (stdout, stderr) = outputs_of(program, arguments, interrupt).ok()?;
    let line = stdout.lines().chain(stderr.lines()).map(str::trim).find(|it| !it.is_empty())?;
    Some(line.strip_prefix("version: ").unwrap_or(line).to_owned())
}

/// stdout and stderr of a program that has ended well.
fn outputs_of(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    interrupt: &Interrupt,
) -> Result<(String, String), Failure> {
    // Files, because a pipe that is not read while the program runs fills up.
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let child = Command::new(program)
        .args(arguments)
        // Nothing is written: its end tells a child of ours that we are gone.
        .stdin(Stdio::piped())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let status = wait(child, interrupt)
        .map_err(|failure| failure.context(&program.display().to_string()))?;
    if !status.success() {
        // A Ctrl-C on the terminal reaches the peer, too.
        interrupt.check()?;
        let said = text_in(stderr)?;
        let last = last_line(&said);
        return Err(anyhow!("{} failed ({status}): {last}", program.display()).into());
    }
    Ok((text_in(stdout)?, text_in(stderr)?))
}

/// Waits for the process, which ends with us if it has not ended before.
fn wait(mut child: Child, interrupt: &Interrupt) -> Result<ExitStatus, Failure> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let failure = match interrupt.is_set() {
            true => Some(Failure::Interrupted),
            false if started.elapsed() > TIME_MAX => {
                Some(anyhow!("it still runs after {} s", TIME_MAX.as_secs()).into())
            }
            false => None,
        };
        if let Some(failure) = failure {
            child.kill()?;
            child.wait()?;
            return Err(failure);
        }
        std::thread::sleep(POLL);
    }
}

pub fn text_in(mut file: File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last that a program said, where it may have said nothing.
pub fn last_line(said: &str) -> &str {
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    last.unwrap_or("it said nothing")
}

/// A bare name would be looked for in `PATH`, though the user meant the file here.
pub fn runnable(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent == Path::new("") => Path::new(".").join(path),
        _ => path.to_owned(),
    }
}
