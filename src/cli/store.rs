//! Opens the store of agents for a command, and says why it cannot be opened, or why it did not do
//! what the command asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Context;
use super::output::{Failure, printable};
use crate::config;
use crate::store::{AgentInfo, Committed, Disk, Folder, OpenError, Settings, Store, StoreError};
use crate::types::{AgentId, Namespace};

/// More than any disk has.
const GB_MAX: f64 = 1e9;
/// How alike two names must be for one to be a slip of the other.
const SIMILARITY_MIN: f64 = 0.7;

/// What a command does with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody else may write meanwhile.
    Write,
    /// Nothing is changed, so that a server may run beside it.
    Read,
}

/// Where agents are kept.
pub fn folder(context: &Context) -> PathBuf {
    context.data_dir.join("cache")
}

/// Where the digests of model files are remembered.
pub fn digests(context: &Context) -> PathBuf {
    context.data_dir.join("digests")
}

pub fn open(context: &Context, access: Access) -> Result<Arc<Store>, Failure> {
    let path = folder(context);
    let settings = settings(&context.config.cache)?;
    let opened = match access {
        Access::Write => Folder::make(&path)
            .map_err(|source| OpenError::NotWritable { source })
            .and_then(|folder| Store::open(Arc::new(folder) as Arc<dyn Disk>, settings)),
        Access::Read => Folder::at(&path)
            .map_err(|source| OpenError::Io { operation: "open", path: String::new(), source })
            .and_then(|folder| Store::open_read_only(Arc::new(folder), settings)),
    };
    opened.map(Arc::new).map_err(|error| failure(&path, access, error))
}

/// The configuration's limits, in range.
fn settings(cache: &config::Cache) -> Result<Settings, Failure> {
    let invalid = |what: String| Failure::in_configuration("cache", what);
    let bytes = |name: &str, gb: f64| match gb > 0.0 && gb <= GB_MAX {
        true => Ok((gb * 1e9) as u64),
        false => Err(invalid(format!("{name} is {gb}; it is above 0 and at most {GB_MAX}"))),
    };
    let defaults = Settings::default();
    let budget = cache.budget_gb.map(|gb| bytes("budget_gb", gb)).transpose()?;
    if cache.namespace_agents == Some(0) {
        return Err(invalid("namespace_agents is 0; it is at least 1".to_owned()));
    }
    Ok(Settings {
        budget_bytes: budget.unwrap_or(defaults.budget_bytes),
        namespace_bytes: cache.namespace_gb.map(|gb| bytes("namespace_gb", gb)).transpose()?,
        namespace_agents: cache.namespace_agents,
        now: defaults.now,
    })
}

/// With the defaults in place of what it does not say.
pub fn effective(cache: &config::Cache) -> config::Cache {
    let default_gb = Settings::default().budget_bytes as f64 / 1e9;
    config::Cache { budget_gb: Some(cache.budget_gb.unwrap_or(default_gb)), ..cache.clone() }
}

/// Gives a new agent the memory of another.
pub fn fork(
    store: &Store,
    namespace: &Namespace,
    from: &AgentId,
    to: &AgentId,
) -> Result<Committed, Failure> {
    store.fork(namespace, from, to).map_err(|error| match error {
        StoreError::Exists(_) => Failure::with_hint(
            anyhow::anyhow!("there is an agent {} already", quoted(to.as_str())),
            Some("take another name, or evict that one first".to_owned()),
        ),
        StoreError::NotFound(_) => not_found(store, namespace, from),
        other => failed(other),
    })
}

/// That there is no such agent, with the nearest one.
pub fn not_found(store: &Store, namespace: &Namespace, agent: &AgentId) -> Failure {
    let error = anyhow::anyhow!("no agent {} in namespace {namespace}", quoted(agent.as_str()));
    let all = store.agents().unwrap_or_default();
    let elsewhere = all.iter().find(|it| it.agent == *agent && it.namespace != *namespace);
    let near = nearest(agent, all.iter().filter(|it| it.namespace == *namespace));
    let hint = match (elsewhere, near) {
        (Some(other), _) => {
            format!(
                "it is in another namespace: --namespace {}",
                printable(other.namespace.as_str())
            )
        }
        (None, Some(near)) => format!("did you mean {}?", quoted(near.as_str())),
        (None, None) => "`semantic cache list` shows those that there are".to_owned(),
    };
    Failure::with_hint(error, Some(hint))
}

fn nearest<'a>(
    agent: &AgentId,
    others: impl Iterator<Item = &'a AgentInfo>,
) -> Option<&'a AgentId> {
    let likeness = |other: &AgentId| strsim::jaro_winkler(agent.as_str(), other.as_str());
    others
        .map(|it| (likeness(&it.agent), &it.agent))
        .filter(|(likeness, _)| *likeness >= SIMILARITY_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, agent)| agent)
}

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", printable(name))
}

/// Why the store did not do it, with its exit code.
pub fn failed(error: StoreError) -> Failure {
    let (message, hint) = (printable(&error.to_string()), error_hint(&error));
    match error {
        StoreError::Full { .. } | StoreError::Quota { .. } | StoreError::ReadOnly => {
            Failure::CannotWrite { message, hint }
        }
        StoreError::Io { source, .. } if is_about_writing(&source) => {
            Failure::CannotWrite { message, hint }
        }
        _ => Failure::with_hint(anyhow::Error::msg(message), Some(hint)),
    }
}

fn error_hint(error: &StoreError) -> String {
    match error {
        StoreError::Full { .. } => {
            "free disk space, raise budget_gb, or remove agents with `semantic cache evict`"
        }
        StoreError::Quota { .. } => {
            "raise namespace_gb or namespace_agents, or remove agents with `semantic cache evict`"
        }
        StoreError::ReadOnly => "nothing was changed",
        StoreError::Damaged { .. } | StoreError::Missing(_) => {
            "`semantic cache repair` keeps what is good"
        }
        StoreError::Io { .. } => "look at the disk and at who may use the folder, and try again",
        StoreError::NotFound(_) => "`semantic cache show` lists what an agent has",
        StoreError::OtherModel(_) => "give the --model and --kv-bits that it was made with",
        StoreError::Exists(_) => "take another name, or evict that one first",
    }
    .to_owned()
}

fn is_about_writing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
    )
}

fn failure(path: &Path, access: Access, error: OpenError) -> Failure {
    let message = format!("{}: {error}", path.display());
    // The store's own messages end with what can be done, where it knows.
    let (message, hint) = match message.split_once("\nhint: ") {
        Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
        None => (message, None),
    };
    let or = |default: &str| hint.clone().unwrap_or_else(|| default.to_owned());
    match error {
        OpenError::Locked { .. } => {
            Failure::Busy { hint: or("stop that process, or use another --data-dir"), message }
        }
        OpenError::NewerFormat { .. }
        | OpenError::UnknownFormat { .. }
        | OpenError::KeyMissing
        | OpenError::KeyDamaged
        | OpenError::KeyForeign
        | OpenError::Ancestor { .. } => {
            Failure::Misconfigured { hint: or("use another --data-dir"), message }
        }
        OpenError::NotWritable { .. } | OpenError::Io { .. } if access == Access::Write => {
            let hint = or("make the folder writable for this user, or use another --data-dir");
            Failure::CannotWrite { message, hint }
        }
        OpenError::NotWritable { .. } | OpenError::Io { .. } => {
            let hint = or("make the folder readable for this user, or use another --data-dir");
            Failure::with_hint(anyhow::Error::msg(message), Some(hint))
        }
    }
}
