//! A disk whose operation number N fails, once or for ever, in one of the ways that disks fail.

use std::io;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use semantic::store::disk::{Disk, Entry, Lock, LockError, NewFile, Space, StoredFile};

/// Clones are the same disk.
#[derive(Clone)]
pub struct FaultDisk {
    inner: Arc<dyn Disk>,
    plan: Arc<Mutex<Plan>>,
    meanwhile: Arc<Mutex<Option<Meanwhile>>>,
}

type Meanwhile = Box<dyn FnOnce() + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Full,
    Broken,
    OverQuota,
    ReadOnly,
    TooManyFiles,
    Interrupted,
    /// Half of a write is done, then the disk is full.
    ShortWrite,
    /// A sync fails, the bytes are lost, and the next sync of the same file says that all is well.
    LyingSync,
    /// A file is shorter than it said when it was opened.
    Shrunk,
}

impl Fault {
    fn error(self) -> io::Error {
        let code = match self {
            Fault::Full | Fault::ShortWrite => Errno::NOSPC,
            Fault::Broken | Fault::LyingSync | Fault::Shrunk => Errno::IO,
            Fault::OverQuota => Errno::DQUOT,
            Fault::ReadOnly => Errno::ROFS,
            Fault::TooManyFiles => Errno::MFILE,
            Fault::Interrupted => Errno::INTR,
        };
        code.into()
    }

    /// Whether an operation of this kind can fail like that.
    fn strikes(self, kind: Kind) -> bool {
        match self {
            Fault::Broken | Fault::Interrupted => true,
            Fault::Full | Fault::OverQuota => kind == Kind::Change || kind == Kind::Write,
            Fault::ReadOnly => matches!(kind, Kind::Change | Kind::Write | Kind::Sync),
            Fault::TooManyFiles => kind == Kind::Open || kind == Kind::Change,
            Fault::ShortWrite => kind == Kind::Write,
            Fault::LyingSync => kind == Kind::Sync,
            Fault::Shrunk => kind == Kind::Read,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open,
    Read,
    Change,
    Write,
    Sync,
}

#[derive(Default)]
struct Plan {
    operations: usize,
    fails: Option<Fails>,
    /// What the store did that no disk makes good.
    wrongs: Vec<String>,
}

#[derive(Clone, Copy)]
struct Fails {
    fault: Fault,
    /// The number of the first operation that fails.
    from: usize,
    /// Those after it fail as well.
    is_sticky: bool,
    struck: usize,
}

impl FaultDisk {
    pub fn on(inner: Arc<dyn Disk>) -> FaultDisk {
        FaultDisk { inner, plan: Arc::default(), meanwhile: Arc::default() }
    }

    /// Operation `at` from now on, counted from 1, fails if this fault can strike it.
    pub fn fail_once(&self, at: usize, fault: Fault) {
        self.fail(at, fault, false);
    }

    /// Operation `at` from now on and all after it fail.
    pub fn fail_from(&self, at: usize, fault: Fault) {
        self.fail(at, fault, true);
    }

    fn fail(&self, at: usize, fault: Fault, is_sticky: bool) {
        let mut plan = self.plan.lock().unwrap();
        plan.operations = 0;
        plan.fails = Some(Fails { fault, from: at, is_sticky, struck: 0 });
    }

    /// Does this once, when the next file has been opened to be read, or was not there.
    pub fn after_next_open(&self, act: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some(Box::new(act));
    }

    /// All is well again. How many operations there were, and how many of them failed.
    pub fn heal(&self) -> (usize, usize) {
        let mut plan = self.plan.lock().unwrap();
        let struck = plan.fails.take().map_or(0, |fails| fails.struck);
        (plan.operations, struck)
    }

    /// What the store did that no disk makes good, such as a second sync after one that failed.
    pub fn wrongs(&self) -> Vec<String> {
        self.plan.lock().unwrap().wrongs.clone()
    }

    /// Counts an operation and says how it fails.
    fn next(&self, kind: Kind) -> Option<Fault> {
        let mut plan = self.plan.lock().unwrap();
        plan.operations += 1;
        let now = plan.operations;
        let fails = plan.fails.as_mut()?;
        let is_due = now == fails.from || (fails.is_sticky && now > fails.from);
        if !is_due || !fails.fault.strikes(kind) {
            return None;
        }
        fails.struck += 1;
        Some(fails.fault)
    }

    fn check(&self, kind: Kind) -> io::Result<()> {
        self.next(kind).map_or(Ok(()), |fault| Err(fault.error()))
    }
}

impl Disk for FaultDisk {
    fn make_folder(&self, folder: &str) -> io::Result<()> {
        self.check(Kind::Change)?;
        self.inner.make_folder(folder)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        self.check(Kind::Open)?;
        self.inner.list(folder)
    }

    fn open(&self, file: &str) -> io::Result<Box<dyn StoredFile>> {
        self.check(Kind::Open)?;
        let opened = self.inner.open(file);
        let meanwhile = self.meanwhile.lock().unwrap().take();
        meanwhile.into_iter().for_each(|act| act());
        Ok(Box::new(Opened { disk: self.clone(), inner: opened? }))
    }

    fn create(&self, file: &str) -> io::Result<Box<dyn NewFile>> {
        self.check(Kind::Change)?;
        let inner = self.inner.create(file)?;
        let path = file.to_owned();
        Ok(Box::new(Created { disk: self.clone(), path, inner, has_failed: false }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check(Kind::Change)?;
        self.inner.rename(from, to)
    }

    fn remove_file(&self, file: &str) -> io::Result<()> {
        self.check(Kind::Change)?;
        self.inner.remove_file(file)
    }

    fn remove_folder(&self, folder: &str) -> io::Result<()> {
        self.check(Kind::Change)?;
        self.inner.remove_folder(folder)
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.check(Kind::Sync)?;
        self.inner.sync_folder(folder)
    }

    fn space(&self) -> io::Result<Space> {
        self.check(Kind::Open)?;
        self.inner.space()
    }

    fn lock(&self, file: &str) -> Result<Box<dyn Lock>, LockError> {
        self.check(Kind::Change).map_err(LockError::Io)?;
        self.inner.lock(file)
    }
}

struct Opened {
    disk: FaultDisk,
    inner: Box<dyn StoredFile>,
}

impl StoredFile for Opened {
    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match self.disk.next(Kind::Read) {
            None => self.inner.read_at(offset, buffer),
            Some(Fault::Shrunk) => {
                let half = buffer.len() / 2;
                self.inner.read_at(offset, &mut buffer[..half])
            }
            Some(fault) => Err(fault.error()),
        }
    }
}

struct Created {
    disk: FaultDisk,
    path: String,
    inner: Box<dyn NewFile>,
    has_failed: bool,
}

impl NewFile for Created {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.disk.next(Kind::Write) {
            None => self.inner.write_all(bytes),
            Some(Fault::ShortWrite) => {
                self.inner.write_all(&bytes[..bytes.len() / 2])?;
                Err(Fault::ShortWrite.error())
            }
            Some(fault) => Err(fault.error()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.has_failed {
            let wrong = format!("{} was synced again after a sync that failed", self.path);
            self.disk.plan.lock().unwrap().wrongs.push(wrong);
            // As Linux does: the pages are marked clean, and nothing was written.
            return Ok(());
        }
        let failed = self.disk.check(Kind::Sync);
        self.has_failed = failed.is_err();
        failed?;
        self.inner.sync()
    }
}
