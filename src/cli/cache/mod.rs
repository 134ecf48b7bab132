//! `semantic cache`: what agents have on disk, without a server and beside one.
//!
//! A subcommand is one file here, or a part of one, and one variant of [`Command`]. Those that only
//! read work beside a process that writes; the others need the store for themselves.

mod check;
mod evict;
mod explain;
mod fork;
mod list;
mod reader;
mod retention;
mod room;
mod show;
mod transfer;
mod usage;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use serde::Serialize;

use super::Context;
use super::output::{self, Failure};
use super::store::{self, Access, failed, not_found, quoted};
use crate::store::{AgentInfo, Store};
use crate::types::{AgentId, Namespace};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List agents with what they take
    List(list::Arguments),
    /// Show what an agent has: its saves, its blocks, and on request its text
    Show(show::Arguments),
    /// Remove agents from disk
    Evict(evict::Arguments),
    /// Read every byte and say what is damaged; exit code 1 if something is
    Verify(check::VerifyArguments),
    /// Keep the longest good part of what is damaged, and put the rest into quarantine
    Repair(check::RepairArguments),
    /// Remove what no agent needs any more
    Gc(usage::GcArguments),
    /// Say how much disk space agents take
    Du(usage::DuArguments),
    /// Give a new agent the memory of another
    Fork(fork::ForkArguments),
    /// Go back to an older save of an agent
    Rollback(fork::RollbackArguments),
    /// Keep an agent on disk when others need room, up to half of it
    Pin(retention::PinArguments),
    /// Let an agent go when others need the room
    Unpin(retention::PinArguments),
    /// Say how long after its last turn an agent goes
    Ttl(retention::TtlArguments),
    /// Write an agent to a file, for another machine
    Export(transfer::ExportArguments),
    /// Take in an agent from such a file
    Import(transfer::ImportArguments),
    /// Say why a prompt, or its last conversation, does not go on from what an agent has
    Explain(explain::Arguments),
}

pub fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::List(arguments) => list::run(arguments, context),
        Command::Show(arguments) => show::run(arguments, context),
        Command::Evict(arguments) => evict::run(arguments, context),
        Command::Verify(arguments) => check::verify(arguments, context),
        Command::Repair(arguments) => check::repair(arguments, context),
        Command::Gc(arguments) => usage::gc(arguments, context),
        Command::Du(arguments) => usage::du(arguments, context),
        Command::Fork(arguments) => fork::fork(arguments, context),
        Command::Rollback(arguments) => fork::rollback(arguments, context),
        Command::Pin(arguments) => retention::pin(arguments, context),
        Command::Unpin(arguments) => retention::unpin(arguments, context),
        Command::Ttl(arguments) => retention::ttl_of(arguments, context),
        Command::Export(arguments) => transfer::export(arguments, context),
        Command::Import(arguments) => transfer::import(arguments, context),
        Command::Explain(arguments) => explain::run(arguments, context),
    }
}

/// Whose agents a command means.
#[derive(Debug, clap::Args)]
struct Scope {
    /// Whose agents these are
    ///
    /// A server without keys has `local`.
    #[arg(long, value_name = "NAME", env = "SEMANTIC_NAMESPACE", default_value = "local", value_parser = namespace)]
    namespace: Namespace,
}

fn namespace(name: &str) -> Result<Namespace, &'static str> {
    match name {
        "" => Err("the namespace is empty"),
        _ => Ok(Namespace::new(name)),
    }
}

/// How an answer is printed.
#[derive(Debug, clap::Args)]
struct Format {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Format {
    /// The object, or the text; nothing for an empty text.
    fn print(
        &self,
        object: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<ExitCode, Failure> {
        let text = match self.json {
            true => format!("{}\n", serde_json::to_string_pretty(object)?),
            false => text(),
        };
        output::data(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn open_to_read(context: &Context) -> Result<Arc<Store>, Failure> {
    store::open(context, Access::Read)
}

/// For a command that changes something. Where there is no store there is nothing to change, so none
/// is made and the command finds nothing.
fn open_to_write(context: &Context) -> Result<Arc<Store>, Failure> {
    match store::folder(context).exists() {
        true => open_or_make(context),
        false => open_to_read(context),
    }
}

/// For a command that brings something.
fn open_or_make(context: &Context) -> Result<Arc<Store>, Failure> {
    let reading = "list, show, verify, du, explain and export only read";
    store::open(context, Access::Write).map_err(|failure| match failure {
        Failure::Busy { message, .. } => {
            let hint = format!("stop that process first; {reading} and work beside it");
            Failure::Busy { message, hint }
        }
        Failure::CannotWrite { message, .. } => {
            let hint = format!("look at who may write there; {reading}");
            Failure::CannotWrite { message, hint }
        }
        other => other,
    })
}

/// What an agent has; a failure that names the nearest one if there is none.
fn find_agent(store: &Store, scope: &Scope, agent: &AgentId) -> Result<AgentInfo, Failure> {
    if let Some(found) = store.agent(&scope.namespace, agent).map_err(failed)? {
        return Ok(found);
    }
    Err(not_found(store, &scope.namespace, agent))
}

/// A name from the command line.
fn agent_id(name: &str) -> Result<AgentId, String> {
    AgentId::new(name).map_err(|error| error.to_string())
}
