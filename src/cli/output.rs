//! How the commands talk: data to stdout, everything else to stderr, failures to exit codes.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::hints::{self, MEND_SETTINGS};
use crate::model::source::Progress;

/// A command that did not do what was asked.
pub enum Failure {
    /// Exit code 1.
    Failed { error: anyhow::Error, hint: Option<String> },
    /// Exit code 64: the request itself makes no sense.
    Usage(String),
    /// Exit code 69: something that is needed is not to be had: an address, a model.
    Unavailable { error: anyhow::Error, hint: Option<String> },
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
/// `EX_USAGE`, `EX_UNAVAILABLE`, `EX_CANTCREAT`, `EX_TEMPFAIL` and `EX_CONFIG` of sysexits.h.
pub const EXIT_USAGE: u8 = 64;
const EXIT_UNAVAILABLE: u8 = 69;
const EXIT_CANNOT_WRITE: u8 = 73;
const EXIT_BUSY: u8 = 75;
const EXIT_CONFIG: u8 = 78;

impl Failure {
    pub fn with_hint(error: impl Into<anyhow::Error>, hint: Option<String>) -> Failure {
        Failure::Failed { error: error.into(), hint }
    }

    /// A section of the configuration says what makes no sense.
    pub fn in_configuration(section: &str, reason: impl std::fmt::Display) -> Failure {
        let error = anyhow::anyhow!("the configuration's [{section}] is not valid: {reason}");
        Failure::with_hint(error, Some(MEND_SETTINGS.to_owned()))
    }

    /// Puts what it happened to before the reason.
    pub fn context(self, what: &str) -> Failure {
        match self {
            Failure::Failed { error, hint } => {
                Failure::Failed { error: error.context(what.to_owned()), hint }
            }
            Failure::Unavailable { error, hint } => {
                Failure::Unavailable { error: error.context(what.to_owned()), hint }
            }
            other => other,
        }
    }

    /// The same as the settings' fault, which no further start mends.
    pub fn of_settings(self) -> Failure {
        match self {
            Failure::Failed { error, hint } => {
                let hint = hint.unwrap_or_else(|| MEND_SETTINGS.to_owned());
                Failure::Misconfigured { message: format!("{error:#}"), hint }
            }
            other => other,
        }
    }

    /// What went wrong, for who shows it among other things.
    pub fn message(&self) -> String {
        match self {
            Failure::Failed { error, .. } | Failure::Unavailable { error, .. } => {
                format!("{error:#}")
            }
            Failure::Usage(message)
            | Failure::CannotWrite { message, .. }
            | Failure::Busy { message, .. }
            | Failure::Misconfigured { message, .. } => message.clone(),
            Failure::Interrupted => "interrupted".to_owned(),
            Failure::ClosedPipe => "nobody reads".to_owned(),
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Failure::Failed { hint, .. } | Failure::Unavailable { hint, .. } => hint.as_deref(),
            Failure::CannotWrite { hint, .. }
            | Failure::Busy { hint, .. }
            | Failure::Misconfigured { hint, .. } => Some(hint),
            Failure::Usage(_) | Failure::Interrupted | Failure::ClosedPipe => None,
        }
    }

    /// Says what went wrong and gives the exit code.
    pub fn report(self) -> ExitCode {
        if self.is_news() {
            talk(&format!("error: {}", self.message()));
            if let Some(hint) = self.hint() {
                talk(&format!("hint: {hint}"));
            }
        }
        ExitCode::from(self.exit_code())
    }

    /// The same to a program that reads the log and nothing else.
    pub fn log(self) -> ExitCode {
        let exit_code = self.exit_code();
        if self.is_news() {
            tracing::error!(error = self.message(), hint = self.hint(), exit_code, "failed");
        }
        ExitCode::from(exit_code)
    }

    /// Whether there is anybody who does not know it.
    fn is_news(&self) -> bool {
        !matches!(self, Failure::Interrupted | Failure::ClosedPipe)
    }

    fn exit_code(&self) -> u8 {
        match self {
            Failure::Failed { .. } => EXIT_FAILED,
            Failure::Usage(_) => EXIT_USAGE,
            Failure::Unavailable { .. } => EXIT_UNAVAILABLE,
            Failure::CannotWrite { .. } => EXIT_CANNOT_WRITE,
            Failure::Busy { .. } => EXIT_BUSY,
            Failure::Misconfigured { .. } => EXIT_CONFIG,
            Failure::Interrupted => EXIT_INTERRUPTED,
            Failure::ClosedPipe => 0,
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        let error = error.into();
        let hint = hints::hint(&error).map(str::to_owned);
        Failure::Failed { error, hint }
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

/// A time as people and programs read it: `2026-01-02T03:04:05Z`.
pub fn utc(time: SystemTime) -> String {
    let seconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs() as i64,
        Err(before) => -(before.duration().as_secs() as i64),
    };
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day so many days after 1970-01-01. After Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>): years begin in March, so that the leap
/// day is a year's last, and repeat every 400 years.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

/// A name from outside on one line, without what could move a terminal's cursor or turn its
/// direction of writing.
pub fn printable(name: &str) -> String {
    let shown = |c: char| match c {
        c if c.is_control() => c.escape_default().collect::<String>(),
        '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => c.escape_unicode().collect(),
        c => c.to_string(),
    };
    name.chars().map(shown).collect()
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

/// A bar over `length` units on a terminal, a spinner if the length is unknown; nothing elsewhere.
pub fn bar(length: Option<u64>, numbers: &str) -> Option<ProgressBar> {
    // A dumb terminal cannot move its cursor, which a bar does all the time.
    let is_dumb = std::env::var_os("TERM").is_none_or(|kind| kind == "dumb");
    if !io::stderr().is_terminal() || is_dumb {
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
    use super::*;

    #[test]
    fn bytes_read_well() {
        let all: Vec<String> = [0, 999, 1_000, 98_362_432, 4_700_000_000].map(human_bytes).to_vec();
        assert_eq!(all, ["0 B", "999 B", "1.0 kB", "98.4 MB", "4.7 GB"]);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds: u64| utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_767_323_045), "2026-01-02T03:04:05Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(utc(before), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn no_name_moves_the_cursor() {
        let harmless = "räuber 日本 \"x\" \\";
        assert_eq!(printable(harmless), harmless);
        let shown = printable("a\u{1b}[2Jb\n\u{202e}c\u{85}");
        assert_eq!(shown, r"a\u{1b}[2Jb\n\u{202e}c\u{85}");
    }
}
