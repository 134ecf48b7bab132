//! The engine's thread: takes commands, lets the worker do its turns, carries events to streams.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc::Sender, oneshot};
use tracing::Span;

use super::io::{Threads, Write};
use super::operations::Operation;
use super::outbox::Outbox;
use super::watchdog::Watchdog;
use super::{Clock, Fatal, Keeper, Worker};
use crate::engine::handle::{Config, Evicted, Stats, Status, Terms};
use crate::engine::keeping::Keeping;
use crate::engine::scheduler::{GeneratedReply, RequestId, Scheduler};
use crate::engine::{AgentError, DrainError, Error, Item, Request, Warmth};
use crate::metrics::{Metrics, Steps};
use crate::model::{Model, Spec};
use crate::text::{Replies, Tokenizer};
use crate::types::{AgentId, BLOCK_TOKENS, Namespace};

/// How often streams that do not take their items, and drains, are looked at while nothing runs.
const IDLE_PERIOD: Duration = Duration::from_millis(10);

/// Of the pool, what is made ready at most for the first conversations that come back: memory that
/// was never used takes a system longer to give than the store to fill.
const PREPARED_BYTES: usize = 256 << 20;

/// What a handle asks of the thread.
pub enum Command {
    Submit(Box<Submission>),
    Drain {
        timeout: Duration,
        /// Requests that had ended when it was asked for.
        finished_before: u64,
        reply: oneshot::Sender<Result<usize, DrainError>>,
    },
    Cut,
    EvictAll {
        reply: oneshot::Sender<Evicted>,
    },
    /// Looks at how things stand, and tells.
    Look(Box<dyn FnOnce(&Scheduler) + Send>),
    Operate(Operation),
    Warm {
        namespace: Namespace,
        agent: AgentId,
        reply: oneshot::Sender<Result<Warmth, AgentError>>,
    },
    /// Writes something that changes nothing for requests. Dropped where nothing is kept.
    Write(Write),
    /// The store has done something.
    Wake,
    Shutdown,
}

pub struct Submission {
    pub request: Request,
    pub terms: Terms,
    pub sender: Sender<Item>,
    pub is_cancelled: Arc<AtomicBool>,
    /// What its caller was in when it asked.
    pub span: Span,
}

/// What handles and the thread both see.
pub struct Shared {
    pub is_draining: AtomicBool,
    pub is_shut_down: AtomicBool,
    /// Requests that have ended.
    pub finished_requests: AtomicU64,
    replies: Mutex<Replies>,
    /// That of the model, once it is there.
    pub spec: OnceLock<Spec>,
    status: Mutex<Status>,
    status_changed: Condvar,
    stats: Mutex<Stats>,
    on_fatal: Box<dyn Fn(&str) + Send + Sync>,
    /// Hears whose time was over, once they are gone.
    pub on_expired: OnceLock<OnExpired>,
}

pub type OnExpired = Box<dyn Fn(&Namespace, &AgentId) + Send + Sync>;

impl Shared {
    pub fn new(on_fatal: Box<dyn Fn(&str) + Send + Sync>) -> Shared {
        Shared {
            is_draining: AtomicBool::new(false),
            is_shut_down: AtomicBool::new(false),
            finished_requests: AtomicU64::new(0),
            replies: Mutex::new(Replies::new()),
            spec: OnceLock::new(),
            status: Mutex::new(Status::Starting),
            status_changed: Condvar::new(),
            stats: Mutex::new(Stats::default()),
            on_fatal,
            on_expired: OnceLock::new(),
        }
    }

    pub fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    pub fn set_status(&self, status: Status) {
        *lock(&self.status) = status;
        self.status_changed.notify_all();
    }

    /// Waits until the model is there, or is not.
    pub fn wait_started(&self) -> Status {
        let status = lock(&self.status);
        let waited = self.status_changed.wait_while(status, |status| *status == Status::Starting);
        waited.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn stats(&self) -> Stats {
        lock(&self.stats).clone()
    }

    pub fn replies(&self) -> MutexGuard<'_, Replies> {
        lock(&self.replies)
    }

    /// What is found again in what clients send.
    fn remember(&self, replies: Vec<GeneratedReply>) {
        for GeneratedReply { namespace, text, tokens } in replies {
            self.replies().remember(&namespace, &text, tokens);
        }
    }

    /// The engine is no more. Whoever made it decides what becomes of the process.
    pub fn fail(&self, reason: &str) {
        self.set_status(Status::Failed(reason.to_owned()));
        (self.on_fatal)(reason);
    }
}

/// A map is held for a moment; a panic while it is leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread starts with.
pub struct Setup {
    pub config: Config,
    pub tokenizer: Arc<Tokenizer>,
    pub keeping: Option<Keeping>,
    /// The other end of `commands`.
    pub sender: SyncSender<Command>,
    pub commands: Receiver<Command>,
    pub shared: Arc<Shared>,
}

/// Loads the model and serves until the end.
pub fn run(setup: Setup, load: impl FnOnce() -> Result<Box<dyn Model>, String>) {
    let shared = Arc::clone(&setup.shared);
    let result = catch_unwind(AssertUnwindSafe(|| serve(setup, load)));
    match result {
        Ok(Ok(Ended::Stopped)) => shared.set_status(Status::Stopped),
        Ok(Ok(Ended::Failed)) => (),
        Ok(Err(Fatal(reason))) => shared.fail(&reason),
        Err(_) => shared.fail(PANICKED),
    }
}

const PANICKED: &str = "its thread panicked";

/// How serving ended.
enum Ended {
    Stopped,
    /// It has been told.
    Failed,
}

fn serve(
    setup: Setup,
    load: impl FnOnce() -> Result<Box<dyn Model>, String>,
) -> Result<Ended, Fatal> {
    let Setup { config, tokenizer, keeping, sender, commands, shared } = setup;
    let metrics = Arc::clone(&config.metrics);
    let mut model = load().map_err(Fatal)?;
    let spec = shared.spec.get_or_init(|| model.spec().clone());
    let saves = keeping.as_ref().is_some_and(|keeping| !keeping.store.is_read_only());
    let mut scheduler =
        Scheduler::new(config.limits(), spec.clone(), Arc::clone(&tokenizer), saves);
    let keeper = match keeping {
        None => None,
        Some(keeping) => {
            let mut stored_blocks = 0;
            for line in keeping.store.lines(&keeping.fingerprint) {
                stored_blocks += line.blocks.len();
                scheduler.found(line);
                shared.remember(scheduler.take_replies());
            }
            model.prepare(stored_blocks.min(PREPARED_BYTES / spec.block_bytes(BLOCK_TOKENS)));
            let kv_model = keeping.model(&*model);
            // If the channel is full, its reader is awake.
            let wake = move || drop(sender.try_send(Command::Wake));
            let io =
                Threads::start(&keeping.store, &kv_model, wake).map_err(cannot_start_a_thread)?;
            Some(Keeper::new(keeping.store, kv_model, Box::new(io)))
        }
    };
    let mut worker = Worker::new(scheduler, model, keeper).with_metrics(&metrics);
    let on_hang = {
        let shared = Arc::clone(&shared);
        move |reason: String| shared.fail(&reason)
    };
    let watchdog = Watchdog::start(config.step_patience, on_hang).map_err(cannot_start_a_thread)?;
    worker.warm_up(&SystemClock).map_err(Fatal)?;
    *lock(&shared.stats) = worker.scheduler.stats();
    if !shared.is_shut_down.load(Ordering::SeqCst) {
        shared.set_status(Status::Serving);
    }
    let mut thread = Thread {
        worker,
        commands,
        shared,
        watchdog: Arc::clone(&watchdog),
        outboxes: BTreeMap::new(),
        metrics,
        drains: Vec::new(),
        drained_before: 0,
        evictions: Vec::new(),
    };
    let result = catch_unwind(AssertUnwindSafe(|| thread.serve()));
    watchdog.stop();
    // Told before the thread's things are dropped, as that waits for the disk.
    match result {
        Ok(Ok(())) => return Ok(Ended::Stopped),
        Ok(Err(Fatal(reason))) => thread.shared.fail(&reason),
        Err(_) => thread.shared.fail(PANICKED),
    }
    Ok(Ended::Failed)
}

fn cannot_start_a_thread(error: std::io::Error) -> Fatal {
    Fatal(format!("cannot start a thread: {error}"))
}

struct Thread {
    worker: Worker,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    watchdog: Arc<Watchdog>,
    outboxes: BTreeMap<RequestId, Outbox>,
    metrics: Arc<Metrics>,
    drains: Vec<Drain>,
    /// Requests that had ended when a drain counted them last.
    drained_before: u64,
    evictions: Vec<Eviction>,
}

/// Somebody waits for all agents to be saved.
struct Eviction {
    since: Instant,
    reply: oneshot::Sender<Evicted>,
}

/// A drain that waits.
struct Drain {
    /// None if it is further away than time goes.
    deadline: Option<Instant>,
    timeout: Duration,
    since: Instant,
    finished_before: u64,
    reply: oneshot::Sender<Result<usize, DrainError>>,
}

impl Drain {
    /// One without a time only makes sure that nothing more is accepted.
    fn count(&self, count: impl FnOnce(&Steps), metrics: &Metrics) {
        if !self.timeout.is_zero() {
            count(&metrics.steps);
        }
    }
}

/// The clock of the machine.
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// Whether the thread goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    Leave,
}

impl Thread {
    fn serve(&mut self) -> Result<(), Fatal> {
        let mut is_busy = false;
        while self.take_commands(is_busy) == Next::GoOn {
            self.cancel_unwanted();
            let watchdog = Arc::clone(&self.watchdog);
            is_busy = self.worker.turn(&SystemClock, &*watchdog)?;
            self.deliver();
            self.settle_drains();
            self.settle_evictions();
        }
        self.worker.scheduler.cut();
        self.worker.scheduler.end_all_unsaved();
        self.deliver();
        Ok(())
    }

    /// All there are; if there is nothing to do, waits for the next.
    fn take_commands(&mut self, is_busy: bool) -> Next {
        if !is_busy {
            let command = match self.patience() {
                Some(time) => self.commands.recv_timeout(time),
                None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match command {
                Ok(command) => {
                    if self.obey(command) == Next::Leave {
                        return Next::Leave;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Next::Leave,
                Err(RecvTimeoutError::Timeout) => (),
            }
        }
        loop {
            match self.commands.try_recv() {
                Ok(command) => {
                    if self.obey(command) == Next::Leave {
                        return Next::Leave;
                    }
                }
                Err(TryRecvError::Empty) => return Next::GoOn,
                // Every handle is gone: nobody can submit any more, or hear.
                Err(TryRecvError::Disconnected) => return Next::Leave,
            }
        }
    }

    /// How long to wait for a command while nothing can be computed; none if only a command
    /// changes that.
    fn patience(&self) -> Option<Duration> {
        let is_watching = !self.worker.scheduler.is_idle()
            || !self.outboxes.is_empty()
            || !self.drains.is_empty()
            || !self.evictions.is_empty()
            || self.worker.is_operating();
        match is_watching {
            true => Some(IDLE_PERIOD),
            false => {
                let now = Instant::now();
                let retry = self.worker.next_retry(now)?;
                Some(retry.saturating_duration_since(now))
            }
        }
    }

    fn obey(&mut self, command: Command) -> Next {
        match command {
            Command::Submit(submission) => self.submit(*submission),
            Command::Drain { timeout, finished_before, reply } => {
                let since = Instant::now();
                let deadline = since.checked_add(timeout);
                self.drains.push(Drain { deadline, timeout, since, finished_before, reply });
            }
            Command::Cut => {
                self.worker.scheduler.cut();
                self.deliver();
            }
            Command::EvictAll { reply } => {
                self.worker.evict_all();
                self.evictions.push(Eviction { since: Instant::now(), reply });
            }
            Command::Look(look) => look(&self.worker.scheduler),
            Command::Operate(operation) => self.worker.operate(operation, Instant::now()),
            Command::Warm { namespace, agent, reply } => {
                // Who asked may have gone away.
                drop(reply.send(self.worker.warm(&namespace, &agent, Instant::now())));
            }
            Command::Write(job) => self.worker.write(job),
            Command::Wake => (),
            Command::Shutdown => return Next::Leave,
        }
        Next::GoOn
    }

    fn submit(&mut self, submission: Submission) {
        let Submission { request, terms, sender, is_cancelled, span } = submission;
        let now = Instant::now();
        let mut outbox = Outbox::new(sender, is_cancelled);
        // The flag was set before the drain's command was sent, so nothing slips in between.
        let accepted = match self.shared.is_draining.load(Ordering::SeqCst) {
            true => Err(Error::Draining),
            false => self.worker.submit(request, terms, now),
        };
        match accepted {
            Ok(id) => {
                self.worker.observer.submitted(id, span, now);
                self.outboxes.insert(id, outbox);
            }
            Err(error) => outbox.push(Err(error), now),
        }
    }

    /// Ends what nobody waits for: its blocks are free before the next step.
    fn cancel_unwanted(&mut self) {
        let now = Instant::now();
        let scheduler = &mut self.worker.scheduler;
        let mut has_ended = false;
        for (id, outbox) in &mut self.outboxes {
            if outbox.is_cancelled() {
                scheduler.cancel(*id, now);
            } else if outbox.is_stuck(now) && !outbox.is_cut() {
                outbox.cut();
                scheduler.fail(*id, Error::SlowReader);
            } else {
                continue;
            }
            has_ended = true;
        }
        if has_ended {
            self.deliver();
        }
    }

    /// Replies of conversations that are gone, once there may be many.
    fn forget_replies(&self) {
        let mut replies = self.shared.replies();
        if replies.has_grown() {
            let needed = self.worker.scheduler.needed_replies();
            replies.retain(|namespace, tokens| needed.has(namespace, tokens));
        }
    }

    /// Lets handles see how things stand.
    fn publish(&self) {
        let scheduler = &self.worker.scheduler;
        *lock(&self.shared.stats) = scheduler.stats();
        self.shared.finished_requests.store(scheduler.finished_requests(), Ordering::SeqCst);
    }

    fn deliver(&mut self) {
        // Whoever hears that a request has ended finds it so in the statistics.
        self.publish();
        let now = Instant::now();
        self.shared.remember(self.worker.scheduler.take_replies());
        self.forget_replies();
        for answer in self.worker.take_answers() {
            answer.tell(|namespace, agent| {
                if let Some(on_expired) = self.shared.on_expired.get() {
                    on_expired(namespace, agent);
                }
            });
        }
        for (id, item) in self.worker.scheduler.take_items() {
            self.worker.observer.item(id, &item, now);
            if let Some(outbox) = self.outboxes.get_mut(&id) {
                outbox.push(item, now);
            }
        }
        for outbox in self.outboxes.values_mut() {
            outbox.flush(now);
        }
        let scheduler = &self.worker.scheduler;
        self.outboxes.retain(|id, outbox| {
            let is_over = !scheduler.knows(*id);
            !(is_over && (outbox.is_empty() || outbox.is_gone()))
        });
    }

    fn settle_evictions(&mut self) {
        if self.evictions.is_empty() {
            return;
        }
        let Some(evicted) = self.worker.evicted() else { return };
        self.publish();
        for Eviction { since, reply } in self.evictions.drain(..) {
            self.metrics.cache.evicted_all(since.elapsed());
            // Nobody may be there to hear it.
            let _ = reply.send(evicted);
        }
    }

    fn settle_drains(&mut self) {
        let now = Instant::now();
        let scheduler = &self.worker.scheduler;
        let running = scheduler.in_flight();
        for drain in std::mem::take(&mut self.drains) {
            let drained = (scheduler.finished_requests() - drain.finished_before) as usize;
            let timeout = drain.timeout;
            let took = now.saturating_duration_since(drain.since);
            // Who asked may have gone away.
            // Of two at once, one has counted what both waited for.
            let finished = scheduler.finished_requests();
            let counted = finished - drain.finished_before.max(self.drained_before);
            if running == 0 {
                drain.count(|metrics| metrics.drained(counted as usize, took), &self.metrics);
                self.drained_before = finished;
                let _ = drain.reply.send(Ok(drained));
            } else if drain.deadline.is_some_and(|deadline| deadline <= now) {
                drain.count(|metrics| metrics.not_drained(counted as usize), &self.metrics);
                self.drained_before = finished;
                let _ = drain.reply.send(Err(DrainError::Timeout { running, drained, timeout }));
            } else {
                self.drains.push(drain);
            }
        }
    }
}
