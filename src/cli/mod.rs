//! The commands: flags in, text and exit code out.
//!
//! stdout is data, stderr is talk. Exit codes: 0 done, 1 failed, 64 wrong usage, 69 an address or a
//! model is not to be had, 73 cannot write, 75 another process is in the way, 78 not started because
//! of its settings, 130 interrupted.

mod bench;
mod beside;
mod cache;
mod compute;
mod generate;
mod health;
mod help;
mod hints;
mod interrupt;
mod log;
mod memory;
mod model;
mod models;
mod output;
mod parent;
mod pull;
mod serve;
mod store;
mod table;
mod version;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::Config;
use log::{Log, LogFlags, Logger, Reader};
use output::{EXIT_USAGE, Failure};

/// A local LLM server and command line whose agents keep their memory.
#[derive(Debug, Parser)]
#[command(
    name = "semantic",
    version = version::text(),
    disable_help_subcommand = true,
    disable_help_flag = true,
    disable_version_flag = true
)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    /// Print the version
    #[arg(long, short = 'V', action = ArgAction::Version)]
    version: Option<bool>,
    /// With --version: also the commit, MLX, the target, the processor and the compiler
    #[arg(long, short, requires = "version")]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, clap::Args)]
struct Global {
    /// The configuration file, instead of the one in the usual place
    #[arg(long, global = true, value_name = "FILE", env = "SEMANTIC_CONFIG")]
    config: Option<PathBuf>,
    /// The folder for everything the program stores
    #[arg(long, global = true, value_name = "FOLDER", env = "SEMANTIC_DATA_DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    log: LogFlags,
    /// Print help on one screen
    #[arg(long, short, global = true, action = ArgAction::HelpShort, display_order = 1000)]
    help: Option<bool>,
    /// Print help with every flag and its variable
    #[arg(long, global = true, action = ArgAction::HelpLong, display_order = 1001)]
    help_all: Option<bool>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve agents over HTTP, as OpenAI's and Anthropic's APIs have it
    Serve(serve::Arguments),
    /// Answer a prompt on the terminal
    Generate(generate::Arguments),
    /// Show, keep, copy, move, repair and remove what agents remember
    Cache(cache::Arguments),
    /// Measure a model on this machine, or write a model to measure with
    Bench(Box<bench::Arguments>),
    /// Check this machine, or ask a server for its health
    Health(health::Arguments),
    /// Fetch a model
    Pull(pull::Arguments),
    /// List the models on this machine
    Models(models::Arguments),
    /// Print the completion script of a shell
    Completions {
        /// Whose script
        shell: clap_complete::Shell,
    },
}

impl Command {
    fn logger(&self) -> Logger {
        match self {
            Command::Serve(arguments) if !arguments.is_server() => Logger::Command,
            Command::Serve(arguments) if arguments.is_quiet() => Logger::QuietServer,
            Command::Serve(_) => Logger::Server,
            _ => Logger::Command,
        }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(error)
            if error.kind() == ErrorKind::DisplayVersion
                && version::is_verbose(lossy_arguments()) =>
        {
            let printed = output::data(version::verbose_text().as_bytes());
            return printed.map_or_else(Failure::report, |()| ExitCode::SUCCESS);
        }
        Err(error) => {
            // Help and version are errors to clap, with exit code 0.
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return output::exit_after_printing(error.print(), code);
        }
    };
    let log = match Log::start(&arguments.global.log, arguments.command.logger()) {
        Ok(log) => log,
        Err(reason) => return Failure::Usage(reason).report(),
    };
    let code = match (run(arguments, log.clone()), log.reader()) {
        (Ok(code), _) => code,
        (Err(failure), Reader::Program) => failure.log(),
        (Err(failure), Reader::Person) => {
            log.flush();
            failure.report()
        }
    };
    log.flush();
    code
}

/// The commands with their help.
fn command() -> clap::Command {
    help::for_terminal(Arguments::command())
}

fn parse() -> Result<Arguments, clap::Error> {
    let mut command = without_empty_variables(command());
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    let bench = command.find_subcommand_mut("bench").zip(matches.subcommand_matches("bench"));
    if let Some((bench, flags)) = bench {
        bench::check_flags(bench, flags)?;
    }
    Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// An empty variable is none: compose files and unit files set what they have no value for.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|argument| match argument.get_env().is_some_and(is_empty) {
        true => argument.env(Resettable::Reset),
        false => argument,
    });
    command.mut_subcommands(without_empty_variables)
}

fn lossy_arguments() -> impl Iterator<Item = String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned())
}

fn run(arguments: Arguments, log: Log) -> Result<ExitCode, Failure> {
    let global = arguments.global;
    let context = || Context::new(&global);
    match arguments.command {
        Command::Serve(arguments) => {
            serve::run(&arguments, &context().map_err(Failure::of_settings)?, &log)
        }
        Command::Generate(arguments) => generate::run(arguments, &context()?),
        Command::Cache(arguments) => cache::run(&arguments, &context()?),
        Command::Bench(arguments) => bench::run(&arguments, &context()?),
        Command::Pull(arguments) => pull::run(&arguments, &context()?),
        Command::Models(arguments) => models::run(&arguments, &context()?),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), "semantic", &mut script);
            output::data(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Health(arguments) => health::run(&arguments, &context()?),
    }
}

/// What the commands know besides their own flags.
#[derive(Clone)]
struct Context {
    config: Config,
    data_dir: PathBuf,
}

impl Context {
    fn new(global: &Global) -> Result<Context, Failure> {
        let config = Config::load(global.config.as_deref())?;
        let data_dir = config.data_dir(global.data_dir.clone())?;
        if data_dir.exists() && !data_dir.is_dir() {
            let message = format!("the data folder {} is not a folder", data_dir.display());
            let hint = "move it away, or give another --data-dir".to_owned();
            return Err(Failure::with_hint(anyhow::anyhow!(message), Some(hint)));
        }
        Ok(Context { config, data_dir })
    }
}
