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
const PREFIX: &str = "bench-";
/// In each such folder: says that it is ours. Who measures there holds its lock.
const LOCK: &str = "semantic-bench.lock";

pub struct Scratch {
    folder: TempDir,
    /// Until the folder is gone.
    _lock: File,
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
        remove_abandoned(there)?;
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(there)
            .with_context(|| format!("cannot make a folder in {}", there.display()))?;
        let lock = lock(folder.path())?;
        Ok(Scratch { folder, _lock: lock })
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

/// The file has its name once it is locked: by that name nobody finds it without an owner.
fn lock(folder: &Path) -> io::Result<File> {
    let nameless = folder.join("lock");
    let file = File::create_new(&nameless)?;
    file.lock()?;
    fs::rename(nameless, folder.join(LOCK))?;
    Ok(file)
}

/// Removes what runs left here that were killed.
fn remove_abandoned(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_named = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if !is_named || !entry.file_type()?.is_dir() {
            continue;
        }
        // Without the file it is somebody else's, and with the lock taken it is in use.
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            // What a process that has survived still writes there, the next run removes.
            let _ = remove(&entry.path());
        }
    }
    Ok(())
}

/// The lock goes last, so that a folder of which something stays is still known for ours.
fn remove(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false if entry.file_name() != LOCK => fs::remove_file(entry.path())?,
            false => (),
        }
    }
    fs::remove_file(folder.join(LOCK))?;
    fs::remove_dir(folder)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let data = tempfile::tempdir().expect("a folder");
        let make = |name: &str| {
            let folder = data.path().join(name);
            fs::create_dir(&folder).expect("a folder");
            fs::write(folder.join("file"), "text").expect("a file");
            folder
        };
        let (abandoned, used, users) = (make("bench-1"), make("bench-2"), make("bench-mine"));
        fs::write(data.path().join("bench-file"), "text").expect("a file");
        drop(lock(&abandoned).expect("a lock"));
        let held = lock(&used).expect("a lock");
        remove_abandoned(data.path()).expect("it can be removed");
        assert!(!abandoned.exists());
        assert!(used.exists());
        assert!(users.exists());
        assert!(data.path().join("bench-file").exists());
        drop(held);
        remove_abandoned(data.path()).expect("it can be removed");
        assert!(!used.exists());
    }
}
