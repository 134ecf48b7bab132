//! `semantic cache export` and `import`: an agent as one file, to be taken to another machine.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use tempfile::NamedTempFile;

use super::reader::Reader;
use super::{
    Context, Failure, Format, Scope, agent_id, failed, find_agent, open_or_make, open_to_read,
    quoted,
};
use crate::cli::beside::{Readers, beside, cannot_write};
use crate::cli::output::{human_bytes, printable};
use crate::cli::table::thousands;
use crate::store::{Import, StoreError, TransferError, Transferred};
use crate::types::{AgentId, Fingerprint};

#[derive(Debug, clap::Args)]
pub struct ExportArguments {
    /// The agent to write
    #[arg(value_parser = agent_id)]
    agent: AgentId,
    /// The file, for this user's eyes alone: it has the whole conversation
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub struct ImportArguments {
    /// What `semantic cache export` wrote
    file: PathBuf,
    /// Call the agent so [default: as it was called]
    #[arg(long = "as", value_name = "AGENT", value_parser = agent_id)]
    name: Option<AgentId>,
    /// The model that is to go on [default: the one of the file]
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Report {
    namespace: String,
    agent: String,
    file: String,
    conversations: usize,
    /// Of the conversation that was used last.
    tokens: usize,
    bytes: u64,
}

impl Report {
    fn new(scope: &Scope, agent: &AgentId, file: &Path, transferred: Transferred) -> Report {
        let Transferred { conversations, tokens, bytes } = transferred;
        Report {
            namespace: scope.namespace.as_str().to_owned(),
            agent: agent.as_str().to_owned(),
            file: file.display().to_string(),
            conversations,
            tokens,
            bytes,
        }
    }

    fn text(&self, verb: &str) -> String {
        let conversations = match self.conversations {
            1 => "one conversation".to_owned(),
            count => format!("{count} conversations"),
        };
        format!(
            "{} {verb} {}: {} tokens in {conversations}, {}\n",
            quoted(&self.agent),
            printable(&self.file),
            thousands(self.tokens),
            human_bytes(self.bytes),
        )
    }
}

pub fn export(arguments: &ExportArguments, context: &Context) -> Result<ExitCode, Failure> {
    let ExportArguments { agent, file, force, scope, format } = arguments;
    if file.exists() && !force {
        let error = anyhow::anyhow!("{} is there already", file.display());
        return Err(Failure::with_hint(error, Some("--force replaces it".to_owned())));
    }
    let store = open_to_read(context)?;
    find_agent(&store, scope, agent)?;
    let mut out = BufWriter::new(beside(file, Readers::OwnerAlone)?);
    let transferred =
        store.export(&scope.namespace, agent, &mut out).map_err(|error| match error {
            TransferError::Store(error) => failed(error),
            TransferError::File(error) => cannot_write(file, error),
            TransferError::Invalid(reason) => anyhow::Error::msg(reason).into(),
        })?;
    let made = finished(out).map_err(|error| cannot_write(file, error))?;
    let named = match force {
        true => made.persist(file),
        false => made.persist_noclobber(file),
    };
    named.map_err(|error| cannot_write(file, error.error))?;
    let report = Report::new(scope, agent, file, transferred);
    format.print(&report, || report.text("is in"))
}

pub fn import(arguments: &ImportArguments, context: &Context) -> Result<ExitCode, Failure> {
    let ImportArguments { file, name, model, scope, format } = arguments;
    let cannot_read =
        |error: anyhow::Error| error.context(format!("cannot read {}", file.display()));
    let opened = File::open(file).map_err(|error| cannot_read(error.into()))?;
    if !opened.metadata()?.is_file() {
        return Err(cannot_read(anyhow::anyhow!("it is no file")).into());
    }
    let mut import = Import::open(opened).map_err(|error| cannot_read(error.into()))?;
    let agent = match name {
        Some(name) => name.clone(),
        None => AgentId::new(import.agent()).map_err(|error| {
            let error = anyhow::anyhow!("the agent's name in {}: {error}", file.display());
            Failure::with_hint(error, Some("--as gives it another".to_owned()))
        })?,
    };
    fits(&import, model.as_deref(), context)?;
    let store = open_or_make(context)?;
    let transferred = store.import(&scope.namespace, &agent, &mut import);
    let transferred = transferred.map_err(|error| match error {
        TransferError::Store(StoreError::Exists(_)) => Failure::with_hint(
            anyhow::anyhow!("there is an agent {} already", quoted(agent.as_str())),
            Some("--as gives this one another name".to_owned()),
        ),
        TransferError::Store(error) => failed(error),
        other => cannot_read(other.into()).into(),
    })?;
    let report = Report::new(scope, &agent, file, transferred);
    format.print(&report, || report.text("has what is in"))
}

/// Nobody could go on from what another model has computed.
fn fits(import: &Import<File>, model: Option<&str>, context: &Context) -> Result<(), Failure> {
    let mut last: Option<&Fingerprint> = None;
    for (name, fingerprint) in import.models() {
        if last.replace(fingerprint) == Some(fingerprint) {
            continue;
        }
        let reader = Reader::open(model.unwrap_or(name), context)?;
        if reader.kv_of(fingerprint, context)?.is_none() {
            let (here, there) = (reader.model.path.display(), printable(name));
            let error = anyhow::anyhow!("{here} is not the model that it was saved with, {there}");
            return Err(Failure::with_hint(
                error,
                Some("nothing was imported; --model says where that one is".to_owned()),
            ));
        }
    }
    Ok(())
}

/// Everything written and synced.
fn finished(mut out: BufWriter<NamedTempFile>) -> std::io::Result<NamedTempFile> {
    out.flush()?;
    let file = out.into_inner().map_err(|error| error.into_error())?;
    file.as_file().sync_all()?;
    Ok(file)
}
