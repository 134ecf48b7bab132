//! Takes the scheduler's decisions to the model and the store, one step at a time.
//!
//! This room alone has a thread, a clock and a model; [`Worker`] itself takes the clock as an
//! argument, so that a simulation runs the same code.

pub(super) mod outbox;
pub(super) mod thread;
pub(super) mod watchdog;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::error::Error;
use super::handle::Evicted;
use super::pace::Shape;
use super::scheduler::{Copy, PlannedRow, Restore, Scheduler, Work};
use super::store::{HeadId, Snapshot, Store};
use crate::model::{self, Batch, Logits, Model, Row, Wanted};
use crate::types::{BLOCK_TOKENS, BlockId, TokenId};

/// A head that could not be saved is tried again after this.
const SAVE_RETRY: Duration = Duration::from_secs(10);
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
    store: Box<dyn Store>,
    /// Heads whose saving failed, and when to try again.
    retries: HashMap<HeadId, Instant>,
    panics: Vec<Instant>,
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
    pub fn new(scheduler: Scheduler, model: Box<dyn Model>, store: Box<dyn Store>) -> Worker {
        Worker { scheduler, model, store, retries: HashMap::new(), panics: Vec::new() }
    }

    /// Lets requests in, computes one step, saves at most one head. Returns whether there was
    /// anything to do.
    pub fn turn(&mut self, clock: &dyn Clock, watch: &dyn Watch) -> Result<bool, Fatal> {
        let mut is_busy = false;
        // Blocks whose copy failed: a later copy may be from one of them.
        let mut broken = Vec::new();
        for work in self.scheduler.admit(clock.now()) {
            is_busy = true;
            match work {
                Work::Copy(copy) => self.copy(&copy, &mut broken),
                Work::Restore(restore) => self.restore(&restore),
            }
        }
        let rows = self.scheduler.rows();
        if !rows.is_empty() {
            is_busy = true;
            self.step(&rows, clock, watch)?;
        }
        for head in self.scheduler.take_forgotten() {
            self.retries.remove(&head);
            self.store.forget(head);
        }
        is_busy |= self.save_one(clock.now());
        Ok(is_busy)
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

    fn restore(&mut self, restore: &Restore) {
        let result = self.import(restore);
        if let Err(reason) = &result {
            tracing::warn!(head = restore.head.0, reason, "saved agent not restored; computing it");
        }
        self.scheduler.restored(restore, result.is_ok());
    }

    fn import(&mut self, restore: &Restore) -> Result<(), String> {
        let last = restore.first + restore.blocks.len();
        let bytes = self.store.load(restore.head, last).map_err(|error| error.to_string())?;
        if bytes.len() != last {
            return Err(format!("{} blocks instead of {last}", bytes.len()));
        }
        for (index, block) in (restore.first..last).zip(&restore.blocks) {
            let tokens = BLOCK_TOKENS.min(restore.head_tokens - index * BLOCK_TOKENS);
            let import = self.model.import(*block, tokens, &bytes[index]);
            import.map_err(|error| error.to_string())?;
        }
        Ok(())
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
        tracing::error!(request = row.order.request.0, reason, "the model failed a request");
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

    /// Saves the head that has waited longest, unless it failed a moment ago.
    fn save_one(&mut self, now: Instant) -> bool {
        if !self.store.keeps() {
            return false;
        }
        let is_due = |head: &HeadId| self.retries.get(head).is_none_or(|at| *at <= now);
        let Some(head) = self.scheduler.unsaved().find(is_due) else { return false };
        if let Err(reason) = self.save(head) {
            tracing::warn!(head = head.0, reason, "agent not saved");
            // Of those that have gone unsaved, nothing else tells.
            self.retries.retain(|head, _| self.scheduler.head(*head).is_some());
            self.retries.insert(head, now + SAVE_RETRY);
        }
        true
    }

    fn save(&mut self, id: HeadId) -> Result<(), String> {
        let Some(head) = self.scheduler.head(id) else { return Ok(()) };
        let mut blocks = Vec::new();
        for (index, lease) in head.blocks().iter().enumerate() {
            let tokens = BLOCK_TOKENS.min(head.tokens.len() - index * BLOCK_TOKENS);
            let bytes = self.model.export(lease.id(), tokens).map_err(|error| error.to_string())?;
            blocks.push(bytes);
        }
        let snapshot = Snapshot {
            head: id,
            namespace: head.namespace.clone(),
            agent: head.agent.clone(),
            tokens: head.tokens.clone(),
            blocks,
        };
        self.store.save(snapshot).map_err(|error| error.to_string())?;
        self.retries.remove(&id);
        self.scheduler.saved(id);
        Ok(())
    }

    /// Saves every idle head, each on its own, and gives the blocks of those that are safe back.
    pub fn evict_all(&mut self) -> Evicted {
        let mut failed = 0;
        if self.store.keeps() {
            let unsaved: Vec<HeadId> = self.scheduler.unsaved().collect();
            for head in unsaved {
                if let Err(reason) = self.save(head) {
                    tracing::error!(head = head.0, reason, "agent not saved");
                    failed += 1;
                }
            }
        }
        let evicted = self.scheduler.evict_idle();
        match self.store.keeps() {
            true => Evicted { saved: evicted, failed, forgotten: 0 },
            false => Evicted { saved: 0, failed, forgotten: evicted },
        }
    }

    /// The first tokens. What a step touches has been touched once after the first of them; the
    /// second tells the scheduler how fast this machine is, so that the first prompt's chunks are
    /// not cut for another.
    pub fn warm_up(&mut self, clock: &dyn Clock) -> Result<(), String> {
        let (tokens, blocks) = ([TokenId(0)], [BlockId(0)]);
        let row = Row { tokens: &tokens, start: 0, blocks: &blocks, logits: Wanted::Last };
        let mut shape = Shape::default();
        shape.add_decode(0);
        for is_timed in [false, true] {
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
