//! A disk that shows what a power cut may leave, at every moment of what was done to it.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex};

use semantic::store::disk::{Disk, Entry, Lock, LockError, NewFile, Space, StoredFile};

use super::memory::{Content, MemoryDisk, State};
use super::volume::Volume;
use crate::support::random::Random;

/// Clones are the same disk.
#[derive(Clone)]
pub struct CrashDisk {
    memory: MemoryDisk,
    moments: Arc<Mutex<Vec<Moment>>>,
}

/// The disk after one operation.
#[derive(Clone)]
pub struct Moment {
    /// E.g. `sync tmp/1`.
    pub operation: String,
    state: Arc<State>,
}

/// What becomes of the bytes of a file that were not synced.
#[derive(Clone, Copy)]
enum Loss {
    None,
    All,
    /// Only so many 1024ths of them are there.
    Tail(usize),
    /// The file is as long as it was, with zeros.
    Zeros,
    /// The first write is zeros, the others are there.
    Hole,
}

const LOSSES: &[Loss] =
    &[Loss::None, Loss::All, Loss::Tail(512), Loss::Tail(1023), Loss::Zeros, Loss::Hole];

impl CrashDisk {
    pub fn on(memory: &MemoryDisk) -> CrashDisk {
        let disk = CrashDisk { memory: memory.clone(), moments: Arc::default() };
        disk.done(String::from("begin"));
        disk
    }

    /// How many operations there were: one after the index of the newest moment.
    pub fn now(&self) -> usize {
        self.moments.lock().unwrap().len()
    }

    /// All moments so far.
    pub fn moments(&self) -> Vec<Moment> {
        self.moments.lock().unwrap().clone()
    }

    /// What programs see.
    pub fn volume(&self) -> Volume {
        self.memory.volume()
    }

    fn done(&self, operation: String) {
        let moment = Moment { operation, ..Moment::of(&self.memory) };
        self.moments.lock().unwrap().push(moment);
    }
}

impl Moment {
    /// This moment of a disk that does not remember its own.
    pub fn of(memory: &MemoryDisk) -> Moment {
        let state = Arc::new(memory.state().clone());
        Moment { operation: String::from("now"), state }
    }

    /// Only what is safe.
    pub fn safe(&self) -> Volume {
        self.state_with(|_| false, |_| Loss::All)
    }

    /// What may be on the disk if the power goes now: any part of the changes of names that were
    /// not synced, with any loss of the bytes that were not. All of it if that is at most `limit`
    /// states; otherwise every prefix, every single change alone and left out, and random parts.
    /// Each state once.
    pub fn states(&self, limit: usize, random: &mut Random) -> Vec<Volume> {
        let changes = self.state.pending.len();
        let mut found = Found { seen: HashSet::new(), states: Vec::new() };
        if changes < 16 && LOSSES.len() << changes <= limit {
            for part in 0..1usize << changes {
                self.every_loss(|change| part >> change & 1 == 1, &mut found);
            }
            return found.states;
        }
        for end in (0..=changes).rev() {
            found.add(self.state_with(|change| change < end, |_| Loss::None));
        }
        self.every_loss(|_| true, &mut found);
        for one in 0..changes {
            found.add(self.state_with(|change| change != one, |_| Loss::All));
            found.add(self.state_with(|change| change == one, |_| Loss::None));
        }
        // Equal states are found again and again where little is pending.
        for _ in 0..limit {
            if found.states.len() >= limit {
                break;
            }
            let part = [random.next(), random.next()];
            let loss = random.range(0..LOSSES.len());
            let survives = |change: usize| part[change / 64 % 2] >> (change % 64) & 1 == 1;
            let losses = |at: usize| LOSSES[(loss + at) % LOSSES.len()];
            found.add(self.state_with(survives, losses));
        }
        found.states
    }

    fn every_loss(&self, survives: impl Fn(usize) -> bool, found: &mut Found) {
        for loss in LOSSES {
            found.add(self.state_with(&survives, |_| *loss));
        }
    }

    fn state_with(&self, survives: impl Fn(usize) -> bool, loss: impl Fn(usize) -> Loss) -> Volume {
        let mut names = self.state.safe.clone();
        for (at, change) in self.state.pending.iter().enumerate() {
            if survives(at) {
                change.apply(&mut names);
            }
        }
        self.state.volume(&names, |content| loss(content.seen.len()).of(content))
    }
}

impl Loss {
    fn of(self, content: &Content) -> Arc<Vec<u8>> {
        if content.writes.is_empty() {
            return Arc::clone(&content.safe);
        }
        let (seen, synced) = (&content.seen, content.safe.len().min(content.seen.len()));
        let zeroed = |to: usize| {
            let mut bytes = seen.to_vec();
            bytes[synced..to.max(synced)].fill(0);
            Arc::new(bytes)
        };
        match self {
            Loss::None => Arc::clone(seen),
            Loss::All => Arc::clone(&content.safe),
            Loss::Tail(part) => {
                let kept = synced + (seen.len() - synced) * part / 1024;
                Arc::new(seen[..kept].to_vec())
            }
            Loss::Zeros => zeroed(seen.len()),
            Loss::Hole => zeroed(content.writes.get(1).copied().unwrap_or(seen.len())),
        }
    }
}

struct Found {
    seen: HashSet<Volume>,
    states: Vec<Volume>,
}

impl Found {
    fn add(&mut self, state: Volume) {
        if self.seen.insert(state.clone()) {
            self.states.push(state);
        }
    }
}

impl Disk for CrashDisk {
    fn make_folder(&self, folder: &str) -> io::Result<()> {
        self.memory.make_folder(folder)?;
        self.done(format!("make {folder}"));
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        self.memory.list(folder)
    }

    fn open(&self, file: &str) -> io::Result<Box<dyn StoredFile>> {
        self.memory.open(file)
    }

    fn create(&self, file: &str) -> io::Result<Box<dyn NewFile>> {
        let created = self.memory.create(file)?;
        self.done(format!("create {file}"));
        Ok(Box::new(Created { disk: self.clone(), path: file.to_owned(), inner: created }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.memory.rename(from, to)?;
        self.done(format!("rename {from} {to}"));
        Ok(())
    }

    fn remove_file(&self, file: &str) -> io::Result<()> {
        self.memory.remove_file(file)?;
        self.done(format!("remove {file}"));
        Ok(())
    }

    fn remove_folder(&self, folder: &str) -> io::Result<()> {
        self.memory.remove_folder(folder)?;
        self.done(format!("remove {folder}"));
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.memory.sync_folder(folder)?;
        self.done(format!("sync_folder {folder}"));
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        self.memory.space()
    }

    fn lock(&self, file: &str) -> Result<Box<dyn Lock>, LockError> {
        let lock = self.memory.lock(file)?;
        self.done(format!("lock {file}"));
        Ok(lock)
    }
}

struct Created {
    disk: CrashDisk,
    path: String,
    inner: Box<dyn NewFile>,
}

impl NewFile for Created {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.disk.done(format!("write {}", self.path));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.inner.sync()?;
        self.disk.done(format!("sync {}", self.path));
        Ok(())
    }
}
