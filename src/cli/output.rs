//! How the commands talk: data to stdout, everything else to stderr, failures to exit codes.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::model::source::Progress;

/// A command that did not do what was asked.
pub enum Failure {
    /// Exit code 1.
    Failed { error: anyhow::Error, hint: Option<String> },
    /// Exit code 2: the request itself makes no sense.
    Usage(String),
    /// Exit code 73: what is to be written cannot be.
    CannotWrite { message: String, hint: String },
    /// Exit code 75: another process has what this one needs; later it may go.
    Busy { message: String, hint: String },
    /// Exit code 78: nothing is wrong with the command, but it must not run set up like this.
    Misconfigured { message: String, hint: String },
    /// Exit code 130: the user pressed Ctrl-C and knows why.
    Interrupted,
    /// Whoever read stdout has gone: nothing to say and nobody to say it to.
    ClosedPipe,
}

/// Interrupted by the user, as shells count it: 128 + SIGINT.
pub const EXIT_INTERRUPTED: u8 = 130;
const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
/// `EX_CANTCREAT`, `EX_TEMPFAIL` and `EX_CONFIG` of sysexits.h.
const EXIT_CANNOT_WRITE: u8 = 73;
const EXIT_BUSY: u8 = 75;
const EXIT_CONFIG: u8 = 78;

impl Failure {
    pub fn with_hint(error: impl Into<anyhow::Error>, hint: Option<String>) -> Failure {
        Failure::Failed { error: error.into(), hint }
    }

    /// Puts what it happened to before the reason.
    pub fn context(self, what: &str) -> Failure {
        match self {
            Failure::Failed { error, hint } => {
                Failure::Failed { error: error.context(what.to_owned()), hint }
            }
            other => other,
        }
    }

    /// Says what went wrong and gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Failure::ClosedPipe => ExitCode::SUCCESS,
            Failure::Interrupted => ExitCode::from(EXIT_INTERRUPTED),
            Failure::Usage(message) => {
                talk(&format!("error: {message}"));
                ExitCode::from(EXIT_USAGE)
            }
            Failure::CannotWrite { message, hint } => report(&message, &hint, EXIT_CANNOT_WRITE),
            Failure::Busy { message, hint } => report(&message, &hint, EXIT_BUSY),
            Failure::Misconfigured { message, hint } => report(&message, &hint, EXIT_CONFIG),
            Failure::Failed { error, hint } => {
                talk(&format!("error: {error:#}"));
                if let Some(hint) = hint {
                    talk(&format!("hint: {hint}"));
                }
                ExitCode::from(EXIT_FAILED)
            }
        }
    }
}

fn report(message: &str, hint: &str, code: u8) -> ExitCode {
    talk(&format!("error: {message}"));
    talk(&format!("hint: {hint}"));
    ExitCode::from(code)
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::with_hint(error, None)
    }
}

/// Writes to stdout at once.
pub fn data(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::ClosedPipe),
        Err(error) => {
            Err(Failure::from(anyhow::Error::new(error).context("cannot write to stdout")))
        }
    }
}

/// A line on stderr. If nobody reads that, nothing can be done about it.
pub fn talk(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The exit code of something clap printed itself.
pub fn exit_after_printing(printed: io::Result<()>, code: u8) -> ExitCode {
    match printed {
        Ok(()) => ExitCode::from(code),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_FAILED),
    }
}

/// Log lines go to stderr; a filter that cannot be read falls back to warnings, and says so.
pub fn log_to_stderr(filter: &str) {
    let parsed = tracing_subscriber::EnvFilter::try_new(filter);
    let is_valid = parsed.is_ok();
    let env_filter = parsed.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(env_filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init();
    if !is_valid {
        tracing::warn!(filter, "log filter cannot be read, logging warnings");
    }
}

/// Bytes as people read them: `98.4 MB`.
pub fn human_bytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        0.0..1e3 => format!("{bytes} B"),
        1e3..1e6 => format!("{:.1} kB", bytes / 1e3),
        1e6..1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.1} GB", bytes / 1e9),
    }
}

/// Shows downloads on stderr: a bar on a terminal, one line with the size off it.
pub struct Downloads {
    bar: Option<ProgressBar>,
    is_quiet: bool,
}

impl Downloads {
    pub fn new(is_quiet: bool) -> Downloads {
        Downloads { bar: None, is_quiet }
    }
}

impl Progress for Downloads {
    fn note(&mut self, message: &str) {
        if !self.is_quiet {
            talk(message);
        }
    }

    fn start(&mut self, what: &str, bytes: Option<u64>) {
        if self.is_quiet {
            return;
        }
        match bytes {
            Some(bytes) => talk(&format!("{what}: {}", human_bytes(bytes))),
            None => talk(what),
        }
        self.bar = bar(bytes, "{bytes}/{total_bytes} at {binary_bytes_per_sec}, {eta} left");
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// A bar over `length` units on a terminal, a spinner if the length is unknown; nothing off it.
pub fn bar(length: Option<u64>, numbers: &str) -> Option<ProgressBar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let bar = match length {
        Some(length) => ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr()),
        None => ProgressBar::new_spinner(),
    };
    let template = match length {
        Some(_) => format!("{{wide_bar}} {numbers}"),
        None => "{spinner} {elapsed}".to_owned(),
    };
    bar.set_style(ProgressStyle::with_template(&template).expect("the templates are ours"));
    bar.enable_steady_tick(Duration::from_millis(100));
    Some(bar)
}

#[cfg(test)]
mod tests {
    use super::human_bytes;

    #[test]
    fn bytes_read_well() {
        let all: Vec<String> = [0, 999, 1_000, 98_362_432, 4_700_000_000].map(human_bytes).to_vec();
        assert_eq!(all, ["0 B", "999 B", "1.0 kB", "98.4 MB", "4.7 GB"]);
    }
}
