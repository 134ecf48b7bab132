//! A disk in memory that tells what programs see from what a power cut would leave: a file's bytes
//! are safe after its `sync`, a name after the `sync_folder` of the folder that it was put in.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use semantic::store::disk::{Disk, Entry, EntryKind, Lock, LockError, NewFile, Space, StoredFile};

use super::volume::{Node, Volume};

/// Clones are the same disk.
#[derive(Clone)]
pub struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Clone, Default)]
pub(super) struct State {
    seen: Names,
    pub(super) safe: Names,
    /// What happened to names since their folders were synced, oldest first.
    pub(super) pending: Vec<Change>,
    pub(super) files: BTreeMap<FileId, Content>,
    next: u64,
    used_bytes: u64,
    total_bytes: u64,
    is_locked: bool,
    /// The next sync of this folder fails.
    failing: Option<String>,
    /// Every path that anything was asked of.
    asked: Arc<Mutex<BTreeSet<String>>>,
}

pub(super) type Names = BTreeMap<String, Place>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(u64);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Folder,
    File(FileId),
    Other,
}

#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) seen: Arc<Vec<u8>>,
    pub(super) safe: Arc<Vec<u8>>,
    /// Where each write began that is not synced.
    pub(super) writes: Vec<usize>,
}

#[derive(Clone)]
pub(super) enum Change {
    Folder(String),
    File(String, FileId),
    Renamed { from: String, to: String, file: FileId },
    Removed(String),
}

const TOTAL_BYTES: u64 = 1 << 40;

impl Default for MemoryDisk {
    fn default() -> MemoryDisk {
        MemoryDisk::of(&Volume::default())
    }
}

impl MemoryDisk {
    /// A disk with this on it, all of it safe.
    pub fn of(volume: &Volume) -> MemoryDisk {
        let mut state = State { total_bytes: TOTAL_BYTES, ..State::default() };
        for (path, node) in &volume.0 {
            let place = match node {
                Node::Folder => Place::Folder,
                Node::Other => Place::Other,
                Node::File(bytes) => Place::File(state.new_file(bytes)),
            };
            state.seen.insert(path.clone(), place);
        }
        state.safe = state.seen.clone();
        MemoryDisk(Arc::new(Mutex::new(state)))
    }

    /// What programs see.
    pub fn volume(&self) -> Volume {
        let state = self.state();
        state.volume(&state.seen, |content| Arc::clone(&content.seen))
    }

    /// Every path that was looked for, read, made, written or removed, whatever came of it.
    pub fn asked(&self) -> BTreeSet<String> {
        self.state().asked().clone()
    }

    /// The next sync of this folder fails and what is new in it never becomes safe, although the
    /// one after it says that all is well.
    pub fn lose_next_sync(&self, folder: &str) {
        self.state().failing = Some(folder.to_owned());
    }

    pub fn set_total_bytes(&self, bytes: u64) {
        self.state().total_bytes = bytes;
    }

    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for MemoryDisk {
    fn make_folder(&self, folder: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check_parent(folder)?;
        match state.seen.get(folder) {
            Some(Place::Folder) => return Ok(()),
            Some(_) => return Err(Errno::NOTDIR.into()),
            None => (),
        }
        state.seen.insert(folder.to_owned(), Place::Folder);
        state.pending.push(Change::Folder(folder.to_owned()));
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        let state = self.state();
        state.check_folder(folder)?;
        let inside = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let below = state.seen.range(inside.clone()..);
        let below = below.take_while(|(path, _)| path.starts_with(&inside));
        let children = below.filter(|(path, _)| !path[inside.len()..].contains('/'));
        Ok(children.map(|(path, place)| state.entry(&path[inside.len()..], *place)).collect())
    }

    fn open(&self, file: &str) -> io::Result<Box<dyn StoredFile>> {
        let state = self.state();
        state.check_parent(file)?;
        match state.seen.get(file) {
            Some(Place::File(id)) => Ok(Box::new(Opened(Arc::clone(&state.files[id].seen)))),
            Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "is no regular file")),
            None => Err(Errno::NOENT.into()),
        }
    }

    fn create(&self, file: &str) -> io::Result<Box<dyn NewFile>> {
        let mut state = self.state();
        state.check_parent(file)?;
        if state.seen.contains_key(file) {
            return Err(Errno::EXIST.into());
        }
        let id = state.new_name(file);
        Ok(Box::new(Created { disk: self.clone(), file: id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check_parent(from)?;
        state.check_parent(to)?;
        if state.seen.contains_key(to) {
            return Err(Errno::EXIST.into());
        }
        let Some(&Place::File(file)) = state.seen.get(from) else {
            return Err(Errno::NOENT.into());
        };
        state.seen.remove(from);
        state.seen.insert(to.to_owned(), Place::File(file));
        let (from, to) = (from.to_owned(), to.to_owned());
        state.pending.push(Change::Renamed { from, to, file });
        Ok(())
    }

    fn remove_file(&self, file: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check_parent(file)?;
        match state.seen.get(file) {
            Some(Place::Folder) => return Err(Errno::ISDIR.into()),
            Some(Place::Other) => (),
            Some(Place::File(id)) => {
                let bytes = state.files[id].seen.len() as u64;
                state.used_bytes -= bytes;
            }
            None => return Err(Errno::NOENT.into()),
        }
        state.remove(file);
        Ok(())
    }

    fn remove_folder(&self, folder: &str) -> io::Result<()> {
        if !self.list(folder)?.is_empty() {
            return Err(Errno::NOTEMPTY.into());
        }
        self.state().remove(folder);
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check_folder(folder)?;
        if state.failing.take_if(|failing| failing == folder).is_some() {
            state.pending.retain(|change| parent(change.path()) != folder);
            return Err(Errno::IO.into());
        }
        state.sync_folder(folder);
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.state();
        let free_bytes = state.total_bytes.saturating_sub(state.used_bytes);
        Ok(Space { total_bytes: state.total_bytes, free_bytes })
    }

    fn lock(&self, file: &str) -> Result<Box<dyn Lock>, LockError> {
        let mut state = self.state();
        state.check_parent(file).map_err(LockError::Io)?;
        if state.is_locked {
            return Err(LockError::Held { pid: Some(std::process::id()) });
        }
        let id = match state.seen.get(file) {
            Some(Place::File(id)) => *id,
            Some(_) => return Err(LockError::Io(Errno::LOOP.into())),
            None => state.new_name(file),
        };
        state.is_locked = true;
        // The one file that is written in place; nobody believes it after a crash.
        let pid = format!("{}\n", std::process::id()).into_bytes();
        let old = state.files[&id].seen.len() as u64;
        state.used_bytes = state.used_bytes - old + pid.len() as u64;
        let content = state.files.get_mut(&id).expect("it has a name");
        content.seen = Arc::new(pid);
        content.writes = vec![0];
        Ok(Box::new(Held(self.clone())))
    }
}

struct Opened(Arc<Vec<u8>>);

impl StoredFile for Opened {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let bytes = rest.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&rest[..bytes]);
        Ok(bytes)
    }
}

struct Created {
    disk: MemoryDisk,
    file: FileId,
}

impl NewFile for Created {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let free = state.total_bytes.saturating_sub(state.used_bytes) as usize;
        let fits = &bytes[..bytes.len().min(free)];
        state.used_bytes += fits.len() as u64;
        let content = state.files.get_mut(&self.file).expect("it is open");
        content.writes.push(content.seen.len());
        Arc::make_mut(&mut content.seen).extend_from_slice(fits);
        match fits.len() == bytes.len() {
            true => Ok(()),
            false => Err(Errno::NOSPC.into()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let content = state.files.get_mut(&self.file).expect("it is open");
        content.safe = Arc::clone(&content.seen);
        content.writes.clear();
        Ok(())
    }
}

struct Held(MemoryDisk);

impl Lock for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state().is_locked = false;
    }
}

impl State {
    fn new_file(&mut self, bytes: &Arc<Vec<u8>>) -> FileId {
        let id = FileId(self.next);
        self.next += 1;
        self.used_bytes += bytes.len() as u64;
        let (seen, safe) = (Arc::clone(bytes), Arc::clone(bytes));
        self.files.insert(id, Content { seen, safe, writes: Vec::new() });
        id
    }

    fn new_name(&mut self, path: &str) -> FileId {
        let id = self.new_file(&Arc::default());
        self.seen.insert(path.to_owned(), Place::File(id));
        self.pending.push(Change::File(path.to_owned(), id));
        id
    }

    fn remove(&mut self, path: &str) {
        self.seen.remove(path);
        self.pending.push(Change::Removed(path.to_owned()));
    }

    fn sync_folder(&mut self, folder: &str) {
        let (now, later): (Vec<Change>, Vec<Change>) =
            self.pending.drain(..).partition(|change| parent(change.path()) == folder);
        self.pending = later;
        for change in now {
            change.apply(&mut self.safe);
            // Where it came from was its first name, which is gone whether that was safe or not.
            if let Change::Renamed { file, .. } = change {
                self.pending.retain(|other| !matches!(other, Change::File(_, id) if *id == file));
            }
        }
    }

    /// These names with these contents, without what is in folders that are not there.
    pub(super) fn volume(&self, names: &Names, bytes: impl Fn(&Content) -> Arc<Vec<u8>>) -> Volume {
        let mut volume = Volume::default();
        for (path, place) in names {
            let folder = parent(path);
            if !folder.is_empty() && volume.0.get(folder) != Some(&Node::Folder) {
                continue;
            }
            let node = match place {
                Place::Folder => Node::Folder,
                Place::Other => Node::Other,
                Place::File(id) => Node::File(bytes(&self.files[id])),
            };
            volume.0.insert(path.clone(), node);
        }
        volume
    }

    fn entry(&self, name: &str, place: Place) -> Entry {
        let (kind, bytes) = match place {
            Place::Folder => (EntryKind::Folder, 0),
            Place::Other => (EntryKind::Other, 0),
            Place::File(id) => (EntryKind::File, self.files[&id].seen.len() as u64),
        };
        Entry { name: name.to_owned(), kind, bytes }
    }

    fn check_folder(&self, folder: &str) -> io::Result<()> {
        if folder.is_empty() {
            return Ok(());
        }
        self.check_parent(folder)?;
        match self.seen.get(folder) {
            Some(Place::Folder) => Ok(()),
            Some(_) => Err(Errno::NOTDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    fn asked(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That every folder on the way is one; and that the path cannot lead out of the root.
    fn check_parent(&self, path: &str) -> io::Result<()> {
        self.asked().insert(path.to_owned());
        for part in path.split('/') {
            assert!(!["", ".", ".."].contains(&part), "{path:?} is not plain");
            assert!(!part.contains('\0'), "{path:?} has a NUL");
            assert!(part.len() <= 255, "{path:?} is too long for most disks");
        }
        let folder = parent(path);
        if folder.is_empty() || self.seen.get(folder) == Some(&Place::Folder) {
            return Ok(());
        }
        match self.seen.get(folder) {
            Some(_) => Err(Errno::NOTDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }
}

impl Change {
    /// The name that it makes or takes away.
    fn path(&self) -> &str {
        match self {
            Change::Folder(path) | Change::File(path, _) | Change::Removed(path) => path,
            Change::Renamed { to, .. } => to,
        }
    }

    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Change::Folder(path) => drop(names.insert(path.clone(), Place::Folder)),
            Change::File(path, file) => drop(names.insert(path.clone(), Place::File(*file))),
            Change::Removed(path) => drop(names.remove(path)),
            Change::Renamed { from, to, file } => {
                if names.get(from) == Some(&Place::File(*file)) {
                    names.remove(from);
                }
                names.insert(to.clone(), Place::File(*file));
            }
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
