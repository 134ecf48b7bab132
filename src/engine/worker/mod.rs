//! Takes the scheduler's decisions to the model and the store, one step at a time.
//!
//! This room alone has threads, a clock and a model; [`Worker`] itself takes the clock and what
//! does the reading and writing as arguments, so that a simulation runs the same code.

pub mod io;
mod observer;
pub mod operations;
pub(super) mod outbox;
mod restorer;
mod saver;
pub(super) mod thread;
pub(super) mod watchdog;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::Error;
use super::handle::Evicted;
use super::pace::Shape;
use super::scheduler::{Copy, PlannedRow, Scheduler, Work};
use crate::metrics::Metrics;
use crate::metrics::labels::Tier;
use crate::model::{self, Batch, Logits, Model, Row, Wanted};
use crate::store::{KvModel, Store};
use crate::types::{AgentId, BLOCK_TOKENS, BlockId, Line, Namespace, TokenId};
use io::{Done, Io, Write};
use observer::Observer;
use operations::Operations;
use restorer::Restorer;
use saver::Saver;

/// Tokens of the first chunk that is computed: so many as the next turn of a conversation may have.
const WARM_UP_TOKENS: usize = 16;
/// So many panics of the model within [`PANIC_WINDOW`] are no accident: the engine gives up.
const PANICS_MAX: usize = 3;
const PANIC_WINDOW: Duration = Duration::from_secs(60);

/// What tells the time.
pub trait Clock {
    fn now(&self) -> Instant;
}

/// Hears when a step begins, with the time it should take, and when it is over.
pub trait Watch {
    fn begin(&self, predicted: Duration);
    fn end(&self);
}

/// Scheduler, model and store together.
pub struct Worker {
    pub scheduler: Scheduler,
    model: Box<dyn Model>,
    keeper: Option<Keeper>,
    pub(super) observer: Observer,
    metrics: Arc<Metrics>,
    /// Evictions that the metrics have.
    evictions: u64,
    operations: Operations,
    panics: Vec<Instant>,
}

/// What saves and restores.
pub struct Keeper {
    store: Arc<Store>,
    /// None if the store is only read.
    saver: Option<Saver>,
    restorer: Restorer,
    io: Box<dyn Io>,
}

impl Keeper {
    pub fn new(store: Arc<Store>, model: Arc<KvModel>, io: Box<dyn Io>) -> Keeper {
        let restorer = Restorer::new(model.kv_bytes(BLOCK_TOKENS));
        let saver = (!store.is_read_only()).then(|| Saver::new(Arc::clone(&store), model));
        Keeper { store, saver, restorer, io }
    }
}

/// The engine cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

/// How a step failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Refused(model::Error),
    #[error("it panicked")]
    Panicked,
}

impl Worker {
    pub fn new(scheduler: Scheduler, model: Box<dyn Model>, keeper: Option<Keeper>) -> Worker {
        let metrics: Arc<Metrics> = Arc::default();
        let observer = Observer::new(Arc::clone(&metrics));
        let operations = Operations::default();
        Worker {
            scheduler,
            model,
            keeper,
            observer,
            metrics,
            evictions: 0,
            operations,
            panics: Vec::new(),
        }
    }

    /// Counts there what is done from now on.
    pub fn with_metrics(mut self, metrics: &Arc<Metrics>) -> Worker {
        self.metrics = Arc::clone(metrics);
        self.observer = Observer::new(Arc::clone(metrics));
        if let Some(Keeper { saver: Some(saver), .. }) = &mut self.keeper {
            saver.count_in(metrics);
        }
        self
    }

    /// Takes what the store has done, lets requests in, computes one step, saves a little.
    /// Returns whether there was anything to do.
    pub fn turn(&mut self, clock: &dyn Clock, watch: &dyn Watch) -> Result<bool, Fatal> {
        let mut is_busy = self.take_done(clock.now());
        // Blocks whose copy failed: a later copy may be from one of them.
        let mut broken = Vec::new();
        for work in self.scheduler.admit(clock.now()) {
            is_busy = true;
            match work {
                Work::Copy(copy) => self.copy(&copy, &mut broken),
                Work::Restore(restore) => {
                    if let Some(order) = restore.order {
                        self.observer.restoring(order.request, clock.now());
                    }
                    let keeper = self.keeper.as_mut().expect("warm heads come from a store");
                    keeper.restorer.begin(restore, &mut *keeper.io);
                }
            }
        }
        self.look();
        let rows = self.scheduler.rows();
        if !rows.is_empty() {
            is_busy = true;
            self.step(&rows, clock, watch)?;
        }
        let now = clock.now();
        is_busy |= self.save(now, !rows.is_empty());
        let saver = self.keeper.as_ref().and_then(|keeper| keeper.saver.as_ref());
        self.scheduler.end_late(now, |head| saver.is_some_and(|saver| saver.is_pending(head)));
        self.settle_operations(now);
        Ok(is_busy)
    }

    /// Counts what was decided.
    fn look(&mut self) {
        for (request, parting) in self.scheduler.take_partings() {
            self.observer.parting(request, &parting, self.scheduler.tokenizer());
        }
        let evictions = self.scheduler.evictions();
        self.metrics.cache.evicted(Tier::Hot, evictions - self.evictions);
        self.evictions = evictions;
    }

    fn take_done(&mut self, now: Instant) -> bool {
        let Some(Keeper { io, .. }) = &mut self.keeper else { return false };
        let all_done = io.take_done();
        let is_busy = !all_done.is_empty();
        for done in all_done {
            let Some(Keeper { saver, restorer, io, .. }) = &mut self.keeper else { break };
            match done {
                Done::Committed { save, result } => {
                    if let Some(saver) = saver {
                        saver.committed(save, result, &mut self.scheduler, now);
                    }
                }
                Done::Written { buffer } => {
                    if let Some(saver) = saver {
                        saver.written(buffer);
                    }
                }
                Done::NotWritten { block } => {
                    if let Some(saver) = saver {
                        saver.not_written(block);
                    }
                }
                Done::MadeRoom { removed } => self.made_room(removed),
                Done::Removed { job, result, left } => self.removed(job, result, left),
                Done::Forked { job, result } => self.forked(job, result),
                Done::RolledBack { job, result } => self.rolled_back(job, result),
                Done::Retained { job, result } => self.retained(job, result),
                // Whoever asked may have gone away.
                Done::Kept { reply, result } => drop(reply.send(result)),
                Done::Expired { agents } => self.expire(agents),
                Done::Read { restore, index, result } => {
                    let read = restorer::Arrived { restore, index, result };
                    let (scheduler, model) = (&mut self.scheduler, &mut *self.model);
                    restorer.arrived(read, scheduler, model, &mut **io, &self.observer, now);
                }
            }
        }
        is_busy
    }

    /// The store has these lines no more.
    fn made_room(&mut self, removed: Vec<(Namespace, AgentId, Line)>) {
        saver::made_room(removed, &mut self.scheduler, &self.metrics);
    }

    fn save(&mut self, now: Instant, is_stepping: bool) -> bool {
        let forgotten = self.scheduler.take_forgotten();
        let repeated = self.scheduler.take_repeated();
        let Some(Keeper { saver: Some(saver), io, .. }) = &mut self.keeper else { return false };
        for (namespace, agent) in repeated {
            io.write(Write::Touch { namespace, agent });
        }
        saver.forget(forgotten, &mut **io);
        saver.turn(&mut self.scheduler, &mut *self.model, &mut **io, now, is_stepping)
    }

    /// When there is something to do again though nobody asks for it.
    pub fn next_retry(&self, now: Instant) -> Option<Instant> {
        self.keeper.as_ref()?.saver.as_ref()?.next_retry(&self.scheduler, now)
    }

    fn copy(&mut self, copy: &Copy, broken: &mut Vec<BlockId>) {
        let result = match broken.contains(&copy.from.id()) {
            true => Err("what it is a copy of could not be copied".to_owned()),
            false => self
                .model
                .copy(copy.from.id(), copy.to, copy.tokens)
                .map_err(|error| error.to_string()),
        };
        if let Err(reason) = result {
            broken.push(copy.to);
            self.scheduler.fail(copy.order.request, Error::Model(reason));
        }
    }

    fn step(
        &mut self,
        rows: &[PlannedRow],
        clock: &dyn Clock,
        watch: &dyn Watch,
    ) -> Result<(), Fatal> {
        let shape = self.scheduler.shape(rows);
        watch.begin(self.scheduler.predict(&shape));
        let started = clock.now();
        let result = run(&mut *self.model, &self.scheduler.batch(rows));
        let ended = clock.now();
        watch.end();
        match result {
            Ok(logits) => {
                self.scheduler.complete(rows, &logits, ended);
                // Choosing the tokens belongs to a step's time.
                let took = clock.now().saturating_duration_since(started);
                self.scheduler.observe(&shape, took);
                self.metrics.steps.stepped(rows.len(), took);
                // What a token of a prompt costs: a short turn's only step would tell what a step
                // costs, and one beside replies what they do.
                if rows.iter().all(|row| !row.is_last) {
                    let tokens = rows.iter().map(|row| row.end - row.start).sum();
                    self.metrics.steps.read(tokens, took);
                }
                Ok(())
            }
            Err(failure) if rows.len() == 1 => self.blame(&rows[0], failure, ended),
            Err(_) => {
                // Somebody's row is to blame; the others go on.
                for row in rows {
                    // Another choice of its request has just failed, and with it all of them.
                    if !self.scheduler.knows(row.order.request) {
                        continue;
                    }
                    watch.begin(self.scheduler.predict(&self.scheduler.shape(&[*row])));
                    let result = run(&mut *self.model, &self.scheduler.batch(&[*row]));
                    watch.end();
                    match result {
                        Ok(logits) => self.scheduler.complete(&[*row], &logits, clock.now()),
                        Err(failure) => self.blame(row, failure, clock.now())?,
                    }
                }
                Ok(())
            }
        }
    }

    fn blame(&mut self, row: &PlannedRow, failure: Failure, now: Instant) -> Result<(), Fatal> {
        let reason = failure.to_string();
        let request = row.order.request;
        self.observer.in_scope(request, || {
            tracing::error!(request = request.0, reason, "the model failed a request");
        });
        self.scheduler.fail(row.order.request, Error::Model(reason));
        if matches!(failure, Failure::Panicked) {
            self.panics.retain(|at| now.saturating_duration_since(*at) < PANIC_WINDOW);
            self.panics.push(now);
        }
        match self.panics.len() >= PANICS_MAX {
            true => Err(Fatal(format!("the model panicked {PANICS_MAX} times within a minute"))),
            false => Ok(()),
        }
    }

    /// From here on every idle head is saved, each on its own, as fast as it goes.
    pub fn evict_all(&mut self) {
        if let Some(Keeper { saver: Some(saver), .. }) = &mut self.keeper {
            saver.hurry(&self.scheduler);
        }
    }

    /// Once everything is saved that can be: gives the blocks of what is safe back, and says what
    /// [`Worker::evict_all`] came to.
    pub fn evicted(&mut self) -> Option<Evicted> {
        let saver = self.keeper.as_mut().and_then(|keeper| keeper.saver.as_mut());
        match saver {
            None => Some(self.scheduler.evict_idle()),
            Some(saver) => {
                let failed = saver.hurried(&self.scheduler)?;
                Some(Evicted { failed, ..self.scheduler.evict_idle() })
            }
        }
    }

    /// The first tokens: a few together, as of a prompt, and two alone. What a step touches has been
    /// touched once after the first of a kind; the last tells the scheduler how fast this machine
    /// is, so that the first prompt's chunks are not cut for another.
    pub fn warm_up(&mut self, clock: &dyn Clock) -> Result<(), String> {
        let mut shape = Shape::default();
        shape.add_decode(0);
        let count = WARM_UP_TOKENS.min(self.scheduler.context_tokens());
        for (count, is_timed) in [(count, false), (1, false), (1, true)] {
            let (tokens, blocks) = (vec![TokenId(0); count], [BlockId(0)]);
            let row = Row { tokens: &tokens, start: 0, blocks: &blocks, logits: Wanted::Last };
            let started = clock.now();
            let result = run(&mut *self.model, &Batch { rows: vec![row] });
            let took = clock.now().saturating_duration_since(started);
            let logits = result.map_err(|failure| failure.to_string())?;
            if logits[0].last().iter().any(|logit| logit.is_nan()) {
                return Err("the model computed NaN in its first step".to_owned());
            }
            if is_timed {
                self.scheduler.observe(&shape, took);
            }
        }
        Ok(())
    }
}

/// One step; a panic in it is a failure like another, because what it left in its rows' blocks is
/// overwritten or never read.
fn run(model: &mut dyn Model, batch: &Batch<'_>) -> Result<Vec<Logits>, Failure> {
    match catch_unwind(AssertUnwindSafe(|| model.step(batch))) {
        Ok(result) => result.map_err(Failure::Refused),
        Err(_) => Err(Failure::Panicked),
    }
}
