//! Stores to measure with, in a folder of their own that is gone at the end.
//!
//! The folder lies in the data folder or in the nearest one above it that is there: on the disk
//! that the user's agents are on, whose speed is the question.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tempfile::TempDir;

use super::setup::Setup;
use crate::cli::output::Failure;
use crate::engine::Keeping;
use crate::model::{KvConfig, ModelFiles};
use crate::store::{Disk, Folder, Settings, Store};

/// Folders in folders; the store's files lie five deep.
const DEPTH_MAX: usize = 8;

pub struct Scratch {
    folder: TempDir,
}

/// A store and the model whose KV goes there, as a process finds them.
pub struct Place<'a> {
    pub store: &'a Path,
    /// Where digests of model files are remembered.
    pub digests: &'a Path,
}

impl Scratch {
    pub fn new(setup: &Setup<'_>) -> Result<Scratch, Failure> {
        let data_dir = std::path::absolute(&setup.data_dir)?;
        let there = data_dir.ancestors().find(|folder| folder.is_dir());
        let there = there.context("there is no folder above the data folder")?;
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(there)
            .with_context(|| format!("cannot make a folder in {}", there.display()))?;
        Ok(Scratch { folder })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A store of this name, for the model under measurement.
    pub fn keeping(&self, setup: &Setup<'_>, name: &str) -> Result<Keeping, Failure> {
        let place = Place { store: &self.path(name), digests: &self.path("digests") };
        place.keeping(&setup.files, setup.kv)
    }
}

impl Place<'_> {
    pub fn keeping(&self, files: &ModelFiles, kv: KvConfig) -> Result<Keeping, Failure> {
        let fingerprint = files.fingerprint(kv, self.digests)?;
        Ok(Keeping { store: open(self.store)?, fingerprint, model: "bench".to_owned() })
    }
}

/// The store in this folder, for writing.
pub fn open(folder: &Path) -> Result<Arc<Store>, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(Folder::make(folder)?);
    Ok(Arc::new(Store::open(disk, Settings::default())?))
}

/// Bytes of all files in a folder.
pub fn bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for file in files(folder)? {
        bytes += file.metadata()?.len();
    }
    Ok(bytes)
}

/// Writes the files of a folder to the disk and forgets what the page cache has of them. Returns
/// whether this system can. Under a virtual machine the host may remember all the same.
#[cfg(target_os = "linux")]
pub fn drop_from_page_cache(folder: &Path) -> io::Result<bool> {
    rustix::fs::syncfs(File::open(folder)?)?;
    for path in files(folder)? {
        let advice = rustix::fs::Advice::DontNeed;
        rustix::fs::fadvise(File::open(path)?, 0, None, advice)?;
    }
    Ok(true)
}

#[cfg(not(target_os = "linux"))]
pub fn drop_from_page_cache(_: &Path) -> io::Result<bool> {
    Ok(false)
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() && depth < DEPTH_MAX {
                folders.push((entry.path(), depth + 1));
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}
