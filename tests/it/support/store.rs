//! Stores on a disk in memory that fails as a test wants.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use semantic::engine::Keeping;
use semantic::store::disk::{Entry, Lock, LockError, NewFile, Space, StoredFile};
use semantic::store::{Disk, Settings, Store, StoredLine};
use semantic::types::Fingerprint;

use super::disk::MemoryDisk;

/// What fails from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failing {
    #[default]
    Nothing,
    /// Whatever makes a file.
    Writes,
    /// Whatever opens a block.
    Reads,
    /// Whatever opens a block does not come back until something else is set.
    ReadsHang,
    /// Whatever makes a file does not come back until something else is set.
    Hangs,
    /// Whatever removes a file.
    Removals,
    /// Each block that is read has one wrong bit near its end.
    Flips,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct ShakyDisk {
    memory: MemoryDisk,
    state: Arc<Mutex<State>>,
    changed: Arc<Condvar>,
}

#[derive(Default)]
struct State {
    failing: Failing,
    reads: usize,
}

impl ShakyDisk {
    pub fn set_failing(&self, failing: Failing) {
        self.state().failing = failing;
        self.changed.notify_all();
    }

    /// Another disk with what a process that is killed now leaves on this one.
    pub fn as_left(&self) -> ShakyDisk {
        ShakyDisk { memory: MemoryDisk::of(&self.memory.volume()), ..ShakyDisk::default() }
    }

    /// Blocks that were opened since the last call.
    pub fn take_reads(&self) -> usize {
        std::mem::take(&mut self.state().reads)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store on it, as a process that starts finds it.
    pub fn open(&self) -> Arc<Store> {
        self.open_with(Settings::default())
    }

    pub fn open_with(&self, settings: Settings) -> Arc<Store> {
        let disk: Arc<dyn Disk> = Arc::new(self.clone());
        Arc::new(Store::open(disk, settings).expect("the disk is well"))
    }

    /// The same beside a process that writes.
    pub fn open_read_only(&self) -> Arc<Store> {
        let disk: Arc<dyn Disk> = Arc::new(self.clone());
        Arc::new(Store::open_read_only(disk, Settings::default()).expect("the disk is well"))
    }
}

/// What an engine keeps agents with: the store, and a model that is always the same one.
pub fn keeping(store: Arc<Store>) -> Keeping {
    Keeping { store, fingerprint: Fingerprint([7; 32]), model: "fake".to_owned() }
}

/// What a process that starts could go on from.
pub fn lines(store: &Store) -> Vec<StoredLine> {
    store.lines(&Fingerprint([7; 32]))
}

impl Disk for ShakyDisk {
    fn make_folder(&self, folder: &str) -> io::Result<()> {
        self.memory.make_folder(folder)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        self.memory.list(folder)
    }

    fn open(&self, file: &str) -> io::Result<Box<dyn StoredFile>> {
        let opened = self.memory.open(file)?;
        if !file.ends_with(".safetensors") {
            return Ok(opened);
        }
        let mut state = self.state();
        state.reads += 1;
        let hangs = |state: &mut State| state.failing == Failing::ReadsHang;
        let state = self.changed.wait_while(state, hangs).unwrap_or_else(PoisonError::into_inner);
        match state.failing {
            Failing::Reads => Err(io::Error::other("the test wants it")),
            Failing::Flips => Ok(Box::new(Flipped(opened))),
            Failing::Nothing
            | Failing::Writes
            | Failing::Hangs
            | Failing::ReadsHang
            | Failing::Removals => Ok(opened),
        }
    }

    fn create(&self, file: &str) -> io::Result<Box<dyn NewFile>> {
        let hangs = |state: &mut State| state.failing == Failing::Hangs;
        let state = self.changed.wait_while(self.state(), hangs);
        let failing = state.unwrap_or_else(PoisonError::into_inner).failing;
        if failing == Failing::Writes {
            return Err(io::Error::other("the test wants it"));
        }
        self.memory.create(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.memory.rename(from, to)
    }

    fn remove_file(&self, file: &str) -> io::Result<()> {
        if self.state().failing == Failing::Removals {
            return Err(io::Error::other("the test wants it"));
        }
        self.memory.remove_file(file)
    }

    fn remove_folder(&self, folder: &str) -> io::Result<()> {
        self.memory.remove_folder(folder)
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.memory.sync_folder(folder)
    }

    fn space(&self) -> io::Result<Space> {
        self.memory.space()
    }

    fn lock(&self, file: &str) -> Result<Box<dyn Lock>, LockError> {
        self.memory.lock(file)
    }
}

/// A file whose last byte but nine has a wrong bit.
struct Flipped(Box<dyn StoredFile>);

impl StoredFile for Flipped {
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read_at(offset, buffer)?;
        let wrong = self.0.bytes().checked_sub(10).and_then(|at| at.checked_sub(offset));
        if let Some(byte) = wrong.and_then(|at| buffer[..count].get_mut(at as usize)) {
            *byte ^= 4;
        }
        Ok(count)
    }
}
