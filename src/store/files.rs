//! The disk as the store uses it: files that are whole or absent, and errors that name the file.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, Entry};
use super::{BlockName, FullReason, StoreError, layout};

pub struct Files {
    pub disk: Arc<dyn Disk>,
    next_temporary: AtomicU64,
    folders: Mutex<HashMap<String, Folder>>,
}

/// A folder that is surely there.
#[derive(Default)]
struct Folder {
    /// No name in it changed since it was last synced in this process.
    is_synced: bool,
    /// Blocks that were written since.
    fresh: Vec<BlockName>,
}

/// A file of which every byte is safe, under a name that the next start clears. Removed unless it
/// gets its own name.
pub struct Temporary<'a> {
    files: &'a Files,
    path: Option<String>,
}

impl Files {
    pub fn new(disk: Arc<dyn Disk>) -> Files {
        Files { disk, next_temporary: AtomicU64::new(0), folders: Mutex::default() }
    }

    /// Writes the parts one after the other, and syncs.
    pub fn write(&self, parts: &[&[u8]]) -> Result<Temporary<'_>, StoreError> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let path = layout::temporary_file(number);
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        let failed = |operation| {
            let path = path.clone();
            move |source| write_error(operation, &path, bytes, source)
        };
        let mut file = self.disk.create(&path).map_err(failed("make"))?;
        let temporary = Temporary { files: self, path: Some(path.clone()) };
        for part in parts {
            file.write_all(part).map_err(failed("write"))?;
        }
        file.sync().map_err(failed("sync"))?;
        Ok(temporary)
    }

    /// Makes a folder and those above it, as far as they are missing.
    pub fn make_folder(&self, path: &str) -> Result<(), StoreError> {
        let mut above = path;
        let mut missing = Vec::new();
        while above != layout::ROOT && !self.folders().contains_key(above) {
            missing.push(above);
            above = parent(above);
        }
        for folder in missing.into_iter().rev() {
            self.disk
                .make_folder(folder)
                .map_err(|source| write_error("make", folder, 0, source))?;
            self.folders().insert(folder.to_owned(), Folder::default());
            self.changed(parent(folder), None);
        }
        Ok(())
    }

    /// A name in the folder is new, or gone; perhaps that of a block that was written.
    pub fn changed(&self, folder: &str, fresh: Option<BlockName>) {
        let mut folders = self.folders();
        let folder = folders.entry(folder.to_owned()).or_default();
        folder.is_synced = false;
        folder.fresh.extend(fresh);
    }

    /// The folder is not there any more.
    pub fn forget_folder(&self, folder: &str) {
        self.folders().remove(folder);
        self.changed(parent(folder), None);
    }

    /// Makes the names in a folder, and in those above it, safe from a power cut. Blocks that can
    /// never be are told to `lose`.
    pub fn sync_path(
        &self,
        folder: &str,
        mut lose: impl FnMut(Vec<BlockName>),
    ) -> Result<(), StoreError> {
        let mut folder = folder;
        loop {
            if let Err((error, lost)) = self.sync_folder(folder) {
                lose(lost);
                return Err(error);
            }
            if folder == layout::ROOT {
                return Ok(());
            }
            folder = parent(folder);
        }
    }

    fn sync_folder(&self, folder: &str) -> Result<(), (StoreError, Vec<BlockName>)> {
        let fresh = match self.folders().entry(folder.to_owned()).or_default() {
            Folder { is_synced: true, .. } => return Ok(()),
            state => std::mem::take(&mut state.fresh),
        };
        if let Err(source) = self.disk.sync_folder(folder) {
            // Perhaps it is not even there.
            self.folders().remove(folder);
            return Err((write_error("sync", folder, 0, source), fresh));
        }
        self.folders().entry(folder.to_owned()).or_default().is_synced = true;
        Ok(())
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.disk.rename(from, to).map_err(|source| write_error("name", to, 0, source))
    }

    /// Removes a file. One that is not there is no error.
    pub fn remove(&self, file: &str) -> Result<(), StoreError> {
        match self.disk.remove_file(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| write_error("remove", file, 0, source)),
        }
    }

    /// What is in a folder; nothing if it is not there.
    pub fn list(&self, folder: &str) -> Result<Vec<Entry>, StoreError> {
        match self.disk.list(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|source| read_error("list", folder, source)),
        }
    }

    fn folders(&self) -> MutexGuard<'_, HashMap<String, Folder>> {
        self.folders.lock().expect("nobody panics with the folders")
    }
}

impl Temporary<'_> {
    /// Gives the file its name, unless something has it: then the file is still there.
    pub fn rename(&mut self, to: &str) -> io::Result<()> {
        let from = self.path.as_ref().expect("it is renamed once");
        self.files.disk.rename(from, to)?;
        self.path = None;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // What stays is cleared by the next start.
        if let Some(path) = &self.path
            && let Err(error) = self.files.disk.remove_file(path)
        {
            tracing::warn!(path, %error, "a temporary file of the cache stays");
        }
    }
}

pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or(layout::ROOT, |(parent, _)| parent)
}

pub fn read_error(operation: &'static str, path: &str, source: io::Error) -> StoreError {
    StoreError::Io { operation, path: path.to_owned(), source }
}

pub fn write_error(
    operation: &'static str,
    path: &str,
    needed_bytes: u64,
    source: io::Error,
) -> StoreError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full { needed_bytes, reason: FullReason::Disk }
        }
        _ => StoreError::Io { operation, path: path.to_owned(), source },
    }
}
