//! The log on stderr: what is logged, in which format, and how that changes while a server runs.

mod queue;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::http::LogControl;
use queue::Queue;

/// What earlier versions called it.
const FILTER_VARIABLE: &str = "SEMANTIC_LOG";
/// A server says what it does: its log is often all that is left of a night.
const SERVER_FILTER: &str = "info";
const FILTER: &str = "warn";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

#[derive(Debug, clap::Args)]
pub struct LogFlags {
    /// What to log on stderr: error, warn, info, debug or trace, also per module
    /// [default: info for `serve` without --quiet, else warn]
    ///
    /// Per module: `info,semantic::engine=debug`.
    #[arg(
        long,
        alias = "log",
        global = true,
        value_name = "LEVEL",
        env = "SEMANTIC_LOG_LEVEL",
        value_parser = checked
    )]
    log_level: Option<String>,
    /// How to log it
    ///
    /// JSON for programs, text for people; auto is text, but JSON for a server whose stderr is no
    /// terminal.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "SEMANTIC_LOG_FORMAT",
        value_enum,
        default_value_t = Format::Auto
    )]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Auto,
    Json,
    Text,
}

impl Format {
    /// How it says that so many lines are missing.
    fn left_out(self) -> fn(u64) -> String {
        match self {
            Format::Json => |lines| {
                let message = "lines of the log were left out: nobody read them";
                serde_json::json!({ "level": "WARN", "message": message, "lines": lines })
                    .to_string()
            },
            Format::Auto | Format::Text => {
                |lines| format!("WARN {lines} lines of the log were left out: nobody read them")
            }
        }
    }
}

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logger {
    Server,
    QuietServer,
    /// A command that ends by itself.
    Command,
}

/// The log of this process.
#[derive(Clone)]
pub struct Log {
    handle: Arc<reload::Handle<EnvFilter, Registry>>,
    /// A server's lines on their way out.
    queue: Option<Queue>,
    reader: Reader,
}

/// Who reads what a server has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Person,
    /// Nothing but JSON may come.
    Program,
}

impl Log {
    /// From here on what is logged goes to stderr. An error is the user's: a filter in the
    /// environment that is none.
    pub fn start(flags: &LogFlags, logger: Logger) -> Result<Log, String> {
        let (filter, handle) = reload::Layer::new(parse(&flags.filter(logger)?)?);
        let is_terminal = io::stderr().is_terminal();
        let format = flags.format(logger, is_terminal);
        // A command may well wait for its reader; a server has others to answer.
        let queue = match logger {
            Logger::Server | Logger::QuietServer => Some(
                Queue::start(io::stderr(), format.left_out())
                    .map_err(|error| format!("no thread for the log: {error}"))?,
            ),
            Logger::Command => None,
        };
        let writer = match &queue {
            Some(queue) => BoxMakeWriter::new(queue.clone()),
            None => BoxMakeWriter::new(io::stderr),
        };
        let lines = fmt::layer().with_writer(writer);
        let lines = match format {
            // The list has every span that a line is in, the request's with its id first.
            Format::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
            // The library is built without colours, and a debug build of it panics if it is asked.
            Format::Auto | Format::Text => lines.with_ansi(false).boxed(),
        };
        // There is one already in a test.
        let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
        let reader = match (logger, format) {
            (Logger::Server | Logger::QuietServer, Format::Json) => Reader::Program,
            _ => Reader::Person,
        };
        Ok(Log { handle: Arc::new(handle), queue, reader })
    }

    /// Before the process ends: what was logged last is what is read first.
    pub fn flush(&self) {
        if let Some(queue) = &self.queue {
            queue.flush();
        }
    }

    pub fn reader(&self) -> Reader {
        self.reader
    }

    /// For a server, which is asked to be louder while it runs.
    pub fn control(&self) -> LogControl {
        let Log { handle, .. } = self.clone();
        LogControl::new(move |filter| {
            let filter = parse(filter)?;
            handle.reload(filter).map_err(|error| error.to_string())
        })
    }
}

impl LogFlags {
    fn filter(&self, logger: Logger) -> Result<String, String> {
        if let Some(given) = &self.log_level {
            return Ok(given.clone());
        }
        match (std::env::var(FILTER_VARIABLE), logger) {
            (Ok(given), _) if !given.is_empty() => {
                parse(&given).map(|_| given).map_err(|error| format!("{FILTER_VARIABLE}: {error}"))
            }
            (_, Logger::Server) => Ok(SERVER_FILTER.to_owned()),
            (_, Logger::QuietServer | Logger::Command) => Ok(FILTER.to_owned()),
        }
    }

    fn format(&self, logger: Logger, is_terminal: bool) -> Format {
        let is_server = matches!(logger, Logger::Server | Logger::QuietServer);
        match self.log_format {
            Format::Auto if is_server && !is_terminal => Format::Json,
            Format::Auto => Format::Text,
            given => given,
        }
    }
}

fn checked(filter: &str) -> Result<String, String> {
    parse(filter).map(|_| filter.to_owned())
}

/// A filter such as `info` or `warn,semantic::http=debug`. A word that is no level would be taken
/// for a module and everything else silenced, so it is refused.
fn parse(filter: &str) -> Result<EnvFilter, String> {
    for part in filter.split(',') {
        let level = part.rsplit('=').next().unwrap_or_default().trim();
        if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            return Err(format!(
                "{part:?} has no level; it is one of {}, alone or as MODULE=LEVEL",
                LEVELS.join(", ")
            ));
        }
    }
    EnvFilter::try_new(filter).map_err(|error| format!("{filter:?} is no filter: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_levels_that_exist() {
        for good in ["info", "off", "WARN", "warn,semantic::http=debug", "semantic::engine=trace"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "inf", "verbose", "info,", "semantic::http=loud", "5"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_running_server_can_be_made_louder_and_not_by_a_word_that_is_no_level() {
        let (filter, handle) = reload::Layer::new(parse("warn").unwrap());
        let _log = tracing::subscriber::set_default(tracing_subscriber::registry().with(filter));
        let log = Log { handle: Arc::new(handle), queue: None, reader: Reader::Person };
        let control = log.control();
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        assert_eq!(control.set_level("semantic=debug"), Ok(()));
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        assert!(control.set_level("loud").is_err());
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        assert_eq!(control.set_level("error"), Ok(()));
        assert!(!tracing::enabled!(tracing::Level::WARN));
    }

    #[test]
    fn a_server_off_the_terminal_speaks_json() {
        let flags = |log_format| LogFlags { log_level: None, log_format };
        for (given, logger, is_terminal, expected) in [
            (Format::Auto, Logger::Server, false, Format::Json),
            (Format::Auto, Logger::QuietServer, false, Format::Json),
            (Format::Auto, Logger::Server, true, Format::Text),
            (Format::Auto, Logger::Command, false, Format::Text),
            (Format::Json, Logger::Command, true, Format::Json),
            (Format::Text, Logger::Server, false, Format::Text),
        ] {
            assert_eq!(flags(given).format(logger, is_terminal), expected, "{given:?} {logger:?}");
        }
    }
}
