//! The engine as others hold it: cheap to clone, usable from any thread.

mod agents;
mod transcripts;

pub use transcripts::StoredTranscript;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::keeping::Keeping;
use super::scheduler::Limits;
use super::worker::outbox::STREAM_ITEMS_MAX;
use super::worker::thread::{self as engine_thread, Command, Setup, Shared, Submission};
use super::worker::watchdog::PATIENCE_MIN;
use super::{DrainError, Error, Item, Mark, Purse, Request};
use crate::metrics::Metrics;
use crate::model::{Model, Spec};
use crate::store::Store;
use crate::text::Tokenizer;
use crate::types::{AgentId, Fingerprint, Namespace, TokenId};

/// Commands on their way to the engine's thread, which takes all of them before each step.
const COMMANDS_MAX: usize = 4096;

/// What the engine is held to.
pub struct Config {
    /// A step's time, as far as the size of its work can hold it.
    pub step: Duration,
    /// Sequences that run together.
    pub running_max: usize,
    /// Requests that wait.
    pub queue_max: usize,
    /// How long a request may wait.
    pub queue_time: Duration,
    /// A step that takes longer, and ten times what it was predicted to, hangs.
    pub step_patience: Duration,
    /// Tells the automatic agents of this process from those of others, e.g. the time.
    pub instance: u64,
    /// Where it counts what it does.
    pub metrics: Arc<Metrics>,
    /// Hears why the engine cannot go on, from a thread of the engine's. A server ends its
    /// process here.
    pub on_fatal: Box<dyn Fn(&str) + Send + Sync>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            step: Duration::from_millis(100),
            // Each costs a window of blocks; more than this slow each other down too much.
            running_max: 64,
            // One namespace alone has half of it.
            queue_max: 2048,
            queue_time: Duration::from_secs(120),
            step_patience: PATIENCE_MIN,
            instance: 0,
            metrics: Arc::default(),
            on_fatal: Box::new(|_| ()),
        }
    }
}

impl Config {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            step: self.step,
            running_max: self.running_max,
            queue_max: self.queue_max,
            queue_time: self.queue_time,
            instance: self.instance,
        }
    }
}

/// A handle on the engine's thread. Clones share it; it ends with [`Engine::shutdown`] or with
/// the last clone.
#[derive(Clone)]
pub struct Engine {
    commands: Arc<Commands>,
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    kept: Option<Kept>,
    /// One list of agents at a time: the engine's thread makes it between two steps.
    listing: Arc<Semaphore>,
}

/// Where agents are kept. The store is the thread's: who has a handle does not hold it.
#[derive(Clone)]
struct Kept {
    store: Weak<Store>,
    fingerprint: Fingerprint,
}

/// The way to the thread, which ends when this is dropped.
struct Commands(SyncSender<Command>);

impl Drop for Commands {
    fn drop(&mut self) {
        // Waits only behind thousands of submissions, which the thread takes before its next step.
        let _ = self.0.send(Command::Shutdown);
    }
}

/// How far the engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The model is being loaded, or its first token is not out yet.
    Starting,
    Serving,
    /// New requests are refused; what runs goes on.
    Draining,
    /// It cannot go on: loading failed, or the thread died.
    Failed(String),
    /// Shut down.
    Stopped,
}

/// What the engine is doing, as of the last step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub blocks_total: usize,
    pub blocks_free: usize,
    pub blocks_used: usize,
    /// Of those used, what idle agents hold and could be had at once.
    pub blocks_evictable: usize,
    pub running: usize,
    pub waiting: usize,
    pub parked: usize,
    /// Times that a sequence was parked.
    pub parkings: u64,
    pub agents: usize,
    /// Of these, who has blocks in the pool.
    pub agents_hot: usize,
    /// Those, and who is at work and has nothing in the pool but that.
    pub agents_active: usize,
}

/// The answer to one request, as it comes. Dropping it cancels the request.
pub struct Stream {
    receiver: mpsc::Receiver<Item>,
    is_cancelled: Arc<AtomicBool>,
}

/// On what terms a request is submitted.
#[derive(Debug, Default)]
pub struct Terms {
    /// It goes on from what [`Engine::recall`] told of its agent. It is refused if that is not what the
    /// agent has any more, or another turn of it is under way: of two that go on from the same, one
    /// would be lost.
    pub after: Option<Mark>,
    /// It is refused if there is not enough in here.
    pub purse: Option<Arc<dyn Purse>>,
}

/// What [`Engine::evict_all_to_disk`] came to, in heads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Safe in the store.
    pub saved: usize,
    /// Could not be saved; still in the pool.
    pub failed: usize,
    /// Gone: the store keeps nothing, has no room for them, or they cannot be kept as they are.
    pub forgotten: usize,
}

impl Engine {
    /// Starts the thread, which calls `load` and then serves. [`Engine::wait_started`] tells what
    /// came of it.
    pub fn start(
        config: Config,
        tokenizer: Arc<Tokenizer>,
        keeping: Option<Keeping>,
        load: impl FnOnce() -> Result<Box<dyn Model>, String> + Send + 'static,
    ) -> Engine {
        let (sender, commands) = sync_channel(COMMANDS_MAX);
        let mut config = config;
        let on_fatal = std::mem::replace(&mut config.on_fatal, Box::new(|_| ()));
        let shared = Arc::new(Shared::new(on_fatal));
        let kept = keeping.as_ref().map(|keeping| Kept {
            store: Arc::downgrade(&keeping.store),
            fingerprint: keeping.fingerprint,
        });
        let setup = Setup {
            config,
            tokenizer,
            keeping,
            sender: sender.clone(),
            commands,
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || engine_thread::run(setup, load));
        if let Err(error) = &thread {
            shared.fail(&format!("cannot start a thread: {error}"));
        }
        let commands = Arc::new(Commands(sender));
        let thread = Arc::new(Mutex::new(thread.ok()));
        Engine { commands, shared, thread, kept, listing: Arc::new(Semaphore::new(1)) }
    }

    /// Waits until the model has made its first token, or says why it has not. For a thread that
    /// may block.
    pub fn wait_started(&self) -> Result<(), String> {
        match self.shared.wait_started() {
            Status::Failed(reason) => Err(reason),
            Status::Stopped => Err(Error::Stopped.to_string()),
            Status::Starting | Status::Serving | Status::Draining => Ok(()),
        }
    }

    /// Who hears, from the engine's thread, of agents that are gone because their time was over. Only
    /// the first one does.
    pub fn on_expired(&self, hear: impl Fn(&Namespace, &AgentId) + Send + Sync + 'static) {
        drop(self.shared.on_expired.set(Box::new(hear)));
    }

    /// Never waits. A refusal is the stream's first item. What becomes of the request is recorded in
    /// the caller's span.
    pub fn submit(&self, request: Request) -> Stream {
        self.submit_on(Terms::default(), request)
    }

    /// The same for a turn that goes on from what [`Engine::recall`] told of its agent.
    pub fn submit_after(&self, mark: Mark, request: Request) -> Stream {
        self.submit_on(Terms { after: Some(mark), purse: None }, request)
    }

    /// The same on these terms.
    pub fn submit_on(&self, terms: Terms, request: Request) -> Stream {
        let (sender, receiver) = mpsc::channel(STREAM_ITEMS_MAX);
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let stream = Stream { receiver, is_cancelled: Arc::clone(&is_cancelled) };
        let refusal = match self.status() {
            Status::Serving => {
                let span = tracing::Span::current();
                let sender = sender.clone();
                let submission = Submission { request, terms, sender, is_cancelled, span };
                match self.commands.0.try_send(Command::Submit(Box::new(submission))) {
                    Ok(()) => return stream,
                    Err(TrySendError::Full(_)) => Error::QueueFull { waiting: COMMANDS_MAX },
                    Err(TrySendError::Disconnected(_)) => Error::Stopped,
                }
            }
            Status::Starting => Error::Starting,
            Status::Draining => Error::Draining,
            Status::Failed(_) | Status::Stopped => Error::Stopped,
        };
        sender.try_send(Err(refusal)).expect("the channel is new and empty");
        stream
    }

    pub fn status(&self) -> Status {
        match self.shared.status() {
            Status::Serving if self.shared.is_draining.load(Ordering::SeqCst) => Status::Draining,
            status => status,
        }
    }

    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// The bytes in the store, and how many there may be; none if nothing is kept.
    pub fn store_occupancy(&self) -> Option<(u64, u64)> {
        Some(self.kept.as_ref()?.store.upgrade()?.occupancy())
    }

    /// The shape of the model, once it is loaded.
    pub fn spec(&self) -> Option<&Spec> {
        self.shared.spec.get()
    }

    /// The ids that replies with this key were generated as, latest first: what a chat's prompt is
    /// made with.
    pub fn known_replies(&self, namespace: &Namespace, key: &str) -> Vec<Arc<[TokenId]>> {
        self.shared.replies().known(namespace, key)
    }

    /// From the instant of the call new requests are refused. Waits until everything accepted
    /// before has finished and returns how much that was. May be called again.
    pub async fn drain(&self, timeout: Duration) -> Result<usize, DrainError> {
        // Looked at first: what ends from here on was waited for.
        let finished_before = self.shared.finished_requests.load(Ordering::SeqCst);
        self.shared.is_draining.store(true, Ordering::SeqCst);
        let (reply, answer) = oneshot::channel();
        match self.shared.status() {
            // Nothing has been accepted.
            Status::Starting => return Ok(0),
            Status::Serving | Status::Draining => (),
            Status::Failed(_) | Status::Stopped => return Err(DrainError::Stopped),
        }
        let command = Command::Drain { timeout, finished_before, reply };
        self.send(command).map_err(|Gone| DrainError::Stopped)?;
        answer.await.unwrap_or(Err(DrainError::Stopped))
    }

    /// Ends every request with [`Error::Cut`]; their KV is kept.
    pub fn cut(&self) {
        // If it is gone, so are the requests.
        let _ = self.send(Command::Cut);
    }

    /// Saves every idle agent and gives the blocks of those that are safe back.
    pub async fn evict_all_to_disk(&self) -> Result<Evicted, Error> {
        if self.shared.status() == Status::Starting {
            return Ok(Evicted::default());
        }
        let (reply, answer) = oneshot::channel();
        self.send(Command::EvictAll { reply }).map_err(|Gone| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)
    }

    /// Ends the thread, and every request with [`Error::Cut`]; waits for the end of the step. May
    /// be called again. A model that is still loading is not waited for.
    pub fn shutdown(&self) {
        self.shared.is_draining.store(true, Ordering::SeqCst);
        self.shared.is_shut_down.store(true, Ordering::SeqCst);
        let _ = self.send(Command::Shutdown);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.shared.status() != Status::Starting
            && let Some(thread) = thread
        {
            // Its panic has been reported already.
            let _ = thread.join();
        }
    }

    fn send(&self, command: Command) -> Result<(), Gone> {
        // Waits only behind thousands of submissions, which the thread takes before its next step.
        self.commands.0.send(command).map_err(|_| Gone)
    }
}

/// The engine's thread has ended.
struct Gone;

impl Stream {
    /// The next item; `None` after the last, [`Event::Finished`](super::Event::Finished) or an
    /// error, and if the engine has died.
    pub async fn next(&mut self) -> Option<Item> {
        self.receiver.recv().await
    }

    /// As [`Stream::next`], for callers without a runtime.
    pub fn blocking_next(&mut self) -> Option<Item> {
        self.receiver.blocking_recv()
    }

    /// Ends the reply where it is; what was held back and the outcome still come.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }
}
