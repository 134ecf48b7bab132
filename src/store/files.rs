//! The disk as the store uses it: files that are whole or absent, and errors that name the file.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, Entry, EntryKind};
use super::{BlockName, FullReason, StoreError, layout};

pub struct Files {
    pub disk: Arc<dyn Disk>,
    next_temporary: AtomicU64,
    folders: Mutex<HashMap<String, Folder>>,
}

/// What is known of a folder.
#[derive(Default)]
struct Folder {
    is_there: bool,
    /// It was new when the folder above could not be synced: a power cut may take its name, and
    /// another sync would tell nothing. Nobody was told that anything in it is safe.
    is_doubted: bool,
    /// No name in it changed since it was last synced in this process.
    is_synced: bool,
    /// Blocks that were written since.
    fresh: Vec<BlockName>,
    /// Folders that were made since, and were not there before.
    made: Vec<String>,
}

/// What can never be safe from a power cut, because a sync failed.
pub struct Lost {
    pub blocks: Vec<BlockName>,
    /// With everything below.
    pub folders: Vec<String>,
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

    /// Makes a folder and those above it, as far as they are missing or have to be made again.
    pub fn make_folder(&self, path: &str) -> Result<(), StoreError> {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        for folder in above.chain([path]).filter(|folder| *folder != layout::ROOT) {
            match self.folders().get(folder) {
                Some(Folder { is_doubted: true, .. }) => (),
                Some(Folder { is_there: true, .. }) => continue,
                Some(_) | None => (),
            }
            self.make_one_folder(folder)?;
        }
        Ok(())
    }

    fn make_one_folder(&self, folder: &str) -> Result<(), StoreError> {
        let is_doubted = self.folders().get(folder).is_some_and(|state| state.is_doubted);
        if is_doubted {
            self.clear(folder)?;
        }
        // Only what was not there may ever be cleared: in all else there may be agents.
        let failed = |source| write_error("make", folder, 0, source);
        let is_new = match self.disk.list(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            other => other.map(|_| false).map_err(failed)?,
        };
        self.disk.make_folder(folder).map_err(failed)?;
        self.folders().entry(folder.to_owned()).or_default().is_there = true;
        self.changed(parent(folder), None);
        if is_new {
            let mut folders = self.folders();
            folders.entry(parent(folder).to_owned()).or_default().made.push(folder.to_owned());
        }
        Ok(())
    }

    /// Removes a doubted folder with what this process has put there. Anything else stays, and so
    /// does the folder, with an error.
    fn clear(&self, folder: &str) -> Result<(), StoreError> {
        for entry in self.list(folder)? {
            let path = format!("{folder}/{}", entry.name);
            match entry.kind {
                EntryKind::Folder => self.clear(&path)?,
                EntryKind::File if layout::is_saved_file(&entry.name) => self.remove(&path)?,
                EntryKind::File | EntryKind::Other => (),
            }
        }
        match self.disk.remove_folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            other => other.map_err(|source| write_error("remove", folder, 0, source))?,
        }
        self.folders().remove(folder);
        Ok(())
    }

    /// A name in the folder is new, or gone; perhaps that of a block that was written.
    pub fn changed(&self, folder: &str, fresh: Option<BlockName>) {
        let mut folders = self.folders();
        let folder = folders.entry(folder.to_owned()).or_default();
        folder.is_there = true;
        folder.is_synced = false;
        folder.fresh.extend(fresh);
    }

    /// The folder is not there any more.
    pub fn forget_folder(&self, folder: &str) {
        self.folders().remove(folder);
        self.changed(parent(folder), None);
    }

    /// Makes the names in a folder, and in those above it, safe from a power cut. What can never be
    /// is told to `lose`.
    pub fn sync_path(&self, folder: &str, mut lose: impl FnMut(Lost)) -> Result<(), StoreError> {
        self.make_folder(folder)?;
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

    fn sync_folder(&self, folder: &str) -> Result<(), (StoreError, Lost)> {
        let (blocks, made) = match self.folders().entry(folder.to_owned()).or_default() {
            Folder { is_synced: true, .. } => return Ok(()),
            state => (std::mem::take(&mut state.fresh), std::mem::take(&mut state.made)),
        };
        let synced = self.disk.sync_folder(folder);
        let mut folders = self.folders();
        let state = folders.entry(folder.to_owned()).or_default();
        state.is_synced = synced.is_ok();
        let Err(source) = synced else { return Ok(()) };
        // Perhaps it is not even there.
        state.is_there = false;
        for name in &made {
            folders.entry(name.clone()).or_default().is_doubted = true;
        }
        Err((write_error("sync", folder, 0, source), Lost { blocks, folders: made }))
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
