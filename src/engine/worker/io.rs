//! Reads and writes the store off the engine's thread: one thread writes, in order, and two read.
//!
//! Saving 256 tokens of SmolLM2 is 3 MB: a millisecond of copying and hashing on the engine's
//! thread, and the disk's time here. Reading them back is a millisecond of reading and hashing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::engine::scheduler::RestoreId;
use crate::store::{
    BlockName, BlockRef, Committed, Draft, KvBytes, KvModel, Retention, RetentionChange,
    SealedBlock, Store, StoreError, StoredLine, Transcript,
};
use crate::types::{AgentId, Fingerprint, Generation, Line, Namespace, TranscriptId};

/// Bytes on their way to the disk. Whoever has more waits: nothing is dropped.
const WRITE_BYTES_MAX: u64 = 64 << 20;
/// Jobs on their way to the disk.
const WRITE_JOBS_MAX: u64 = 256;
/// One reads while the other hashes.
const READERS: usize = 2;
/// The writer clears away what nothing names any more so often at most.
const COLLECT_PERIOD: Duration = Duration::from_secs(60);
/// The same while a turn is under way. Its blocks have no name yet, and outlive one clearing only.
const BUSY_COLLECT_PERIOD: Duration = Duration::from_secs(600);
/// How often the writer looks whose time is over.
const EXPIRY_PERIOD: Duration = Duration::from_secs(60);
/// Agents that go at once because their time is over: saves wait behind them.
const EXPIRED_MAX: usize = 16;
/// Clearings after the last job, until nothing is left of what it made superfluous.
const COLLECTS: usize = 2;

/// A number that no other save of this process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaveId(pub u64);

/// A number that no other job for an agent of this process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// What is to be written. Jobs are done in order.
pub enum Write {
    Block {
        agent: AgentId,
        block: Box<SealedBlock>,
    },
    /// All blocks of it have been written before.
    Commit {
        save: SaveId,
        draft: Box<Draft>,
    },
    Remove {
        namespace: Namespace,
        agent: AgentId,
        line: Line,
    },
    /// All of it, whatever model it is of.
    RemoveAgent {
        job: JobId,
        namespace: Namespace,
        agent: AgentId,
        /// If there is anything to remove it for: its time may have been prolonged.
        cause: Removal,
        /// Of the lines that the engine can go on from.
        fingerprint: Fingerprint,
    },
    Fork {
        job: JobId,
        namespace: Namespace,
        from: AgentId,
        to: AgentId,
        /// Of the lines that the engine can go on from.
        fingerprint: Fingerprint,
    },
    /// It had a turn, though there is nothing to save.
    Touch {
        namespace: Namespace,
        agent: AgentId,
    },
    Retain {
        job: JobId,
        namespace: Namespace,
        agent: AgentId,
        change: RetentionChange,
    },
    Rollback {
        job: JobId,
        namespace: Namespace,
        agent: AgentId,
        /// The save before the newest, if no other is named.
        to: Option<Generation>,
        /// Of the lines that the engine can go on from.
        fingerprint: Fingerprint,
    },
    KeepTranscript {
        transcript: Box<Transcript>,
        reply: oneshot::Sender<Result<(), Failed>>,
    },
    /// Who asked is told at once, as nobody else is concerned.
    RemoveTranscript {
        namespace: Namespace,
        id: TranscriptId,
        reply: oneshot::Sender<Result<bool, Failed>>,
    },
}

/// Why an agent is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    Asked,
    Expired,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    Gone,
    /// It had a turn since, and stays.
    Prolonged,
}

/// What is to be read.
pub struct Read {
    pub restore: RestoreId,
    /// Which block of the restore.
    pub index: usize,
    pub namespace: Namespace,
    pub block: BlockRef,
    /// Memory to read into.
    pub buffer: Vec<u8>,
}

/// What has been done.
pub enum Done {
    Committed {
        save: SaveId,
        result: Result<Committed, Failed>,
    },
    /// A block is written; this was its memory.
    Written {
        buffer: Vec<u8>,
    },
    /// A commit that names it will find it missing.
    NotWritten {
        block: BlockName,
    },
    /// Lines that went to make room for something that tells of none.
    MadeRoom {
        removed: Vec<(Namespace, AgentId, Line)>,
    },
    Removed {
        job: JobId,
        result: Result<Removed, Failed>,
        /// Lines that are still there.
        left: Vec<StoredLine>,
    },
    Forked {
        job: JobId,
        result: Result<Forked, Failed>,
    },
    Retained {
        job: JobId,
        result: Result<Retention, Failed>,
    },
    /// For who asked, when the engine knows what went to make room for it.
    Kept {
        reply: oneshot::Sender<Result<(), Failed>>,
        result: Result<(), Failed>,
    },
    /// The time of these is over.
    Expired {
        agents: Vec<(Namespace, AgentId)>,
    },
    /// With the line that has changed, if the engine can go on from it.
    RolledBack {
        job: JobId,
        result: Result<Forked, Failed>,
    },
    Read {
        restore: RestoreId,
        index: usize,
        result: Result<KvBytes, Failed>,
    },
}

/// What a copy of an agent has, or what has changed of one that is again as it was.
pub struct Forked {
    pub lines: Vec<StoredLine>,
    /// Lines that went to make room for that.
    pub removed: Vec<(Namespace, AgentId, Line)>,
}

/// Why it has not been done.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it panicked")]
    Panicked,
    #[error("its thread is gone")]
    Stopped,
}

/// Does what is asked at some later time.
pub trait Io {
    /// Whether another block may be written now.
    fn has_room(&self) -> bool;

    /// Whether a turn is under way, whose blocks are of use though no save names them.
    fn set_busy(&mut self, is_busy: bool);

    fn write(&mut self, job: Write);

    fn read(&mut self, job: Read);

    /// What has been done since the last call.
    fn take_done(&mut self) -> Vec<Done>;
}

/// Threads. Dropped, they end when everything that was asked for has been written.
pub struct Threads {
    queued: Arc<Queued>,
    writes: Option<Sender<Write>>,
    reads: Option<Sender<Box<Read>>>,
    done: Receiver<Done>,
    done_sender: Sender<Done>,
    threads: Vec<JoinHandle<()>>,
}

/// What the writer has not done yet.
#[derive(Default)]
struct Queued {
    jobs: AtomicU64,
    bytes: AtomicU64,
    is_busy: AtomicBool,
}

impl Threads {
    /// `wake` is called when there is something to [take](Io::take_done), and when there may be room
    /// again.
    pub fn start(
        store: &Arc<Store>,
        model: &Arc<KvModel>,
        wake: impl Fn() + Clone + Send + 'static,
    ) -> std::io::Result<Threads> {
        let (done_sender, done) = mpsc::channel();
        let (writes, write_jobs) = mpsc::channel();
        let (reads, read_jobs) = mpsc::channel();
        let read_jobs = Arc::new(Mutex::new(read_jobs));
        let queued = Arc::new(Queued::default());
        let mut threads = Vec::new();
        let tell = {
            let done = done_sender.clone();
            move |all: Vec<Done>| {
                // Nobody listens any more when the engine has ended.
                if all.into_iter().all(|what| done.send(what).is_ok()) {
                    wake();
                }
            }
        };
        threads.push(thread::Builder::new().name("writer".to_owned()).spawn({
            let (store, queued, tell) = (Arc::clone(store), Arc::clone(&queued), tell.clone());
            move || write_all(&store, &write_jobs, &queued, &tell)
        })?);
        for _ in 0..READERS {
            threads.push(thread::Builder::new().name("reader".to_owned()).spawn({
                let (store, model, tell) = (Arc::clone(store), Arc::clone(model), tell.clone());
                let jobs = Arc::clone(&read_jobs);
                move || read_all(&store, &model, &jobs, &tell)
            })?);
        }
        let (writes, reads) = (Some(writes), Some(reads));
        Ok(Threads { queued, writes, reads, done, done_sender, threads })
    }
}

impl Io for Threads {
    fn has_room(&self) -> bool {
        self.queued.jobs.load(Ordering::Acquire) < WRITE_JOBS_MAX
            && self.queued.bytes.load(Ordering::Acquire) < WRITE_BYTES_MAX
    }

    fn set_busy(&mut self, is_busy: bool) {
        self.queued.is_busy.store(is_busy, Ordering::Relaxed);
    }

    fn write(&mut self, job: Write) {
        self.queued.jobs.fetch_add(1, Ordering::AcqRel);
        self.queued.bytes.fetch_add(job.bytes(), Ordering::AcqRel);
        let sent = self.writes.as_ref().map(|writes| writes.send(job));
        let Some(Err(mpsc::SendError(job))) = sent else { return };
        let done = match job {
            Write::Commit { save, .. } => Done::Committed { save, result: Err(Failed::Stopped) },
            Write::RemoveAgent { job, .. } => {
                Done::Removed { job, result: Err(Failed::Stopped), left: Vec::new() }
            }
            Write::Fork { job, .. } => Done::Forked { job, result: Err(Failed::Stopped) },
            Write::Rollback { job, .. } => Done::RolledBack { job, result: Err(Failed::Stopped) },
            Write::Retain { job, .. } => Done::Retained { job, result: Err(Failed::Stopped) },
            // Who waits for one of the last two hears it as they are dropped.
            Write::Block { .. }
            | Write::Remove { .. }
            | Write::Touch { .. }
            | Write::KeepTranscript { .. }
            | Write::RemoveTranscript { .. } => return,
        };
        // This end of the channel is here, so that it is never closed.
        let _ = self.done_sender.send(done);
    }

    fn read(&mut self, job: Read) {
        let sent = self.reads.as_ref().map(|reads| reads.send(Box::new(job)));
        if let Some(Err(mpsc::SendError(job))) = sent {
            let Read { restore, index, .. } = *job;
            let _ =
                self.done_sender.send(Done::Read { restore, index, result: Err(Failed::Stopped) });
        }
    }

    fn take_done(&mut self) -> Vec<Done> {
        self.done.try_iter().collect()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.writes = None;
        self.reads = None;
        for thread in self.threads.drain(..) {
            // A panic in it has been told as a failed job.
            let _ = thread.join();
        }
    }
}

impl Write {
    fn bytes(&self) -> u64 {
        match self {
            Write::Block { block, .. } => block.block.file_bytes,
            Write::Commit { draft, .. } => size_of_val(&*draft.tokens) as u64,
            Write::KeepTranscript { transcript, .. } => transcript.said.len() as u64,
            Write::Remove { .. }
            | Write::RemoveAgent { .. }
            | Write::Fork { .. }
            | Write::Retain { .. }
            | Write::Rollback { .. }
            | Write::Touch { .. }
            | Write::RemoveTranscript { .. } => 0,
        }
    }
}

fn write_all(store: &Store, jobs: &Receiver<Write>, queued: &Queued, tell: &impl Fn(Vec<Done>)) {
    let mut collects_left = 0;
    let mut collected = Instant::now();
    // At the start, as nobody watched while no process ran.
    let mut next_expiry = Instant::now();
    loop {
        if next_expiry <= Instant::now() {
            let agents = store.expired(EXPIRED_MAX);
            next_expiry = Instant::now() + expiry_period(agents.len());
            if !agents.is_empty() {
                tell(vec![Done::Expired { agents }]);
            }
        }
        let job = match (collects_left > 0, store.has_expiring()) {
            (false, false) => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            (true, false) => jobs.recv_timeout(COLLECT_PERIOD),
            (_, true) => {
                let left = next_expiry.saturating_duration_since(Instant::now());
                jobs.recv_timeout(left.min(COLLECT_PERIOD))
            }
        };
        match job {
            Ok(job) => {
                let bytes = job.bytes();
                collects_left = COLLECTS;
                let done = do_write(store, job);
                queued.jobs.fetch_sub(1, Ordering::AcqRel);
                queued.bytes.fetch_sub(bytes, Ordering::AcqRel);
                tell(done);
            }
            Err(RecvTimeoutError::Timeout) => (),
            Err(RecvTimeoutError::Disconnected) => {
                if collects_left > 0 {
                    collect(store);
                }
                return;
            }
        }
        let period = match queued.is_busy.load(Ordering::Relaxed) {
            true => BUSY_COLLECT_PERIOD,
            false => COLLECT_PERIOD,
        };
        if collects_left > 0 && collected.elapsed() >= period {
            collect(store);
            collects_left = collects_left.saturating_sub(1);
            collected = Instant::now();
        }
    }
}

/// When to look again whose time is over: soon if there may be more than were told of.
fn expiry_period(told: usize) -> Duration {
    match told < EXPIRED_MAX {
        true => EXPIRY_PERIOD,
        false => Duration::from_secs(1),
    }
}

/// Carries a job out, on whichever thread. Whatever came of it, what went to make room for it is told,
/// and first: a later job may have brought it back.
pub fn do_write(store: &Store, job: Write) -> Vec<Done> {
    let done = carry_out(store, job);
    let removed = store.take_removed();
    let made_room = (!removed.is_empty()).then_some(Done::MadeRoom { removed });
    made_room.into_iter().chain(done).collect()
}

fn carry_out(store: &Store, job: Write) -> Option<Done> {
    match job {
        Write::Block { agent, block } => {
            Some(match guarded(|| store.write_block(&agent, &block)) {
                Ok(()) => Done::Written { buffer: block.into_kv() },
                Err(error) => {
                    tracing::warn!(%error, "a block was not saved");
                    Done::NotWritten { block: block.block.name }
                }
            })
        }
        Write::Commit { save, draft } => {
            let result = guarded(|| store.commit(&draft));
            Some(Done::Committed { save, result })
        }
        Write::Remove { namespace, agent, line } => {
            if let Err(error) = guarded(|| store.remove_line(&namespace, &agent, line)) {
                tracing::warn!(%error, agent = agent.as_str(), "an old conversation was not removed");
            }
            None
        }
        Write::RemoveAgent { job, namespace, agent, cause, fingerprint } => {
            let is_due = cause == Removal::Asked || store.is_expired(&namespace, &agent);
            let result = guarded(|| match is_due {
                true => store.remove_agent(&namespace, &agent).map(|_| Removed::Gone),
                false => Ok(Removed::Prolonged),
            });
            let left = match result {
                Ok(Removed::Gone) => Ok(Vec::new()),
                Ok(Removed::Prolonged) | Err(_) => {
                    guarded(|| Ok(store.lines_of(&namespace, &agent, &fingerprint)))
                }
            };
            Some(Done::Removed { job, result, left: left.unwrap_or_default() })
        }
        Write::Fork { job, namespace, from, to, fingerprint } => {
            let result = guarded(|| {
                let Committed { removed, .. } = store.fork(&namespace, &from, &to)?;
                let lines = store.lines_of(&namespace, &to, &fingerprint);
                Ok(Forked { lines, removed })
            });
            Some(Done::Forked { job, result })
        }
        Write::Touch { namespace, agent } => {
            if let Err(error) = guarded(|| store.touch(&namespace, &agent)) {
                tracing::warn!(%error, agent = agent.as_str(), "a turn did not prolong an agent's time");
            }
            None
        }
        Write::Retain { job, namespace, agent, change } => {
            let result = guarded(|| store.retain(&namespace, &agent, change));
            Some(Done::Retained { job, result })
        }
        Write::Rollback { job, namespace, agent, to, fingerprint } => {
            let result = guarded(|| {
                let (committed, line) = store.rollback_of(&namespace, &agent, to, &fingerprint)?;
                Ok(Forked { lines: vec![line], removed: committed.removed })
            });
            Some(Done::RolledBack { job, result })
        }
        Write::KeepTranscript { transcript, reply } => {
            let result = guarded(|| store.keep_transcript(&transcript));
            Some(Done::Kept { reply, result })
        }
        // Whoever asked may have gone away.
        Write::RemoveTranscript { namespace, id, reply } => {
            let _ = reply.send(guarded(|| store.remove_transcript(&namespace, id)));
            None
        }
    }
}

fn collect(store: &Store) {
    if let Err(error) = guarded(|| store.collect()) {
        tracing::warn!(%error, "the store was not cleared up");
    }
}

fn read_all(
    store: &Store,
    model: &KvModel,
    jobs: &Mutex<Receiver<Box<Read>>>,
    tell: &impl Fn(Vec<Done>),
) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => tell(vec![do_read(store, model, *job)]),
            Err(_) => return,
        }
    }
}

/// Carries a job out, on whichever thread.
pub fn do_read(store: &Store, model: &KvModel, job: Read) -> Done {
    let Read { restore, index, namespace, block, buffer } = job;
    let result = guarded(|| store.read_block(&namespace, model, &block, buffer));
    Done::Read { restore, index, result }
}

/// A bug in the store fails one job and not the thread: somebody waits for each.
fn guarded<T>(job: impl FnOnce() -> Result<T, StoreError>) -> Result<T, Failed> {
    match catch_unwind(AssertUnwindSafe(job)) {
        Ok(result) => result.map_err(Failed::Store),
        Err(_) => Err(Failed::Panicked),
    }
}
