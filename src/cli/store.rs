//! Opens the store of agents for a command, and says why it cannot be opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Context;
use super::output::Failure;
use crate::config;
use crate::store::{Disk, Folder, OpenError, Settings, Store};

/// More than any disk has.
const GB_MAX: f64 = 1e9;

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
    opened.map(Arc::new).map_err(|error| failure(&path, error))
}

/// The configuration's limits, in range.
fn settings(cache: &config::Cache) -> Result<Settings, Failure> {
    let invalid = |what: String| {
        Failure::from(anyhow::anyhow!("the configuration's [cache] is not valid: {what}"))
    };
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

fn failure(path: &Path, error: OpenError) -> Failure {
    let message = format!("{}: {error}", path.display());
    // The store's own messages end with what can be done, where it knows.
    let (message, hint) = match message.split_once("\nhint: ") {
        Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
        None => (message, None),
    };
    let or = |default: &str| hint.clone().unwrap_or_else(|| default.to_owned());
    match error {
        OpenError::Locked { .. } => Failure::Busy {
            hint: or("stop that process, ask it over HTTP if it is a server, or only read"),
            message,
        },
        OpenError::NewerFormat { .. }
        | OpenError::UnknownFormat { .. }
        | OpenError::KeyMissing
        | OpenError::KeyDamaged
        | OpenError::KeyForeign
        | OpenError::Ancestor { .. } => {
            Failure::Misconfigured { hint: or("use another --data-dir"), message }
        }
        OpenError::NotWritable { .. } | OpenError::Io { .. } => {
            let hint = or("make the folder writable for this user, or use another --data-dir");
            Failure::CannotWrite { message, hint }
        }
    }
}
