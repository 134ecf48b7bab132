//! What is asked for one agent: that it goes to the disk, goes for good, gets a copy, is again as it
//! was, or is kept for another time. Each waits for what has to be safe first, and for the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot::Sender;

use super::io::{Failed, Forked, JobId, Removal, Removed, Write};
use super::saver::Saver;
use super::{Keeper, Worker};
use crate::engine::about::{Mark, Marked, Warmth};
use crate::engine::agents::{Head, HeadId};
use crate::engine::scheduler::RequestId;
use crate::engine::{AgentError, Error, Evicted, Request, Terms};
use crate::metrics::labels::Tier;
use crate::store::{Retention, RetentionChange, StoreError, StoredLine};
use crate::types::{AgentId, Generation, Namespace, TokenId};

/// What is to be safe first is waited for so long at most: the disk may be slow, and an agent that
/// is asked on and on always has something that is not safe yet.
pub const OPERATION_WAIT_MAX: Duration = Duration::from_secs(30);

/// Something to do with an agent, and who hears what came of it.
pub struct Operation {
    pub namespace: Namespace,
    pub agent: AgentId,
    pub what: What,
}

pub enum What {
    Evict(Sender<Result<Evicted, AgentError>>),
    Forget(Sender<Result<(), AgentError>>),
    Fork {
        to: AgentId,
        reply: Sender<Result<(), AgentError>>,
    },
    /// Its time is over.
    Expire,
    Retain {
        change: RetentionChange,
        reply: Sender<Result<(), AgentError>>,
    },
    /// To this save, or to the one before the newest.
    Rollback {
        to: Option<Generation>,
        reply: Sender<Result<(), AgentError>>,
    },
}

/// Those that are under way.
#[derive(Default)]
pub struct Operations {
    /// For what the agents have to be saved.
    waiting: Vec<Waiting>,
    /// For the disk.
    writing: BTreeMap<JobId, Operation>,
    /// To be told.
    answers: Vec<Answer>,
    last_job: u64,
}

struct Waiting {
    operation: Operation,
    until: Instant,
    /// What its agent had that was not safe when it was asked for.
    unsaved: Vec<Arc<[TokenId]>>,
}

impl Operation {
    fn concerns(&self, namespace: &Namespace, agent: &AgentId) -> bool {
        let is_copy = matches!(&self.what, What::Fork { to, .. } if to == agent);
        self.namespace == *namespace && (self.agent == *agent || is_copy)
    }

    /// Whoever asked has gone away.
    fn is_unwanted(&self) -> bool {
        match &self.what {
            What::Evict(reply) => reply.is_closed(),
            What::Expire => false,
            What::Forget(reply)
            | What::Fork { reply, .. }
            | What::Retain { reply, .. }
            | What::Rollback { reply, .. } => reply.is_closed(),
        }
    }

    /// For whoever asked.
    fn answer(self, result: Result<Evicted, AgentError>) -> Option<Answer> {
        match self.what {
            What::Evict(reply) => Some(Answer::Evicted(reply, result)),
            What::Expire => result.is_ok().then_some(Answer::Expired(self.namespace, self.agent)),
            What::Forget(reply)
            | What::Fork { reply, .. }
            | What::Retain { reply, .. }
            | What::Rollback { reply, .. } => Some(Answer::Done(reply, result.map(|_| ()))),
        }
    }
}

/// What came of an operation, and who is to hear it.
pub enum Answer {
    Evicted(Sender<Result<Evicted, AgentError>>, Result<Evicted, AgentError>),
    Done(Sender<Result<(), AgentError>>, Result<(), AgentError>),
    /// Nobody asked.
    Expired(Namespace, AgentId),
}

impl Answer {
    /// Whoever asked may have gone away.
    pub fn tell(self, on_expired: impl FnOnce(&Namespace, &AgentId)) {
        match self {
            Answer::Expired(namespace, agent) => on_expired(&namespace, &agent),
            Answer::Evicted(reply, result) => drop(reply.send(result)),
            Answer::Done(reply, result) => drop(reply.send(result)),
        }
    }
}

impl Operations {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.writing.is_empty() && self.answers.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &Operation> {
        self.waiting.iter().map(|waiting| &waiting.operation).chain(self.writing.values())
    }

    /// Whom of the two, or one, that an operation is about another one is changing.
    fn busy(&self, operation: &Operation) -> Option<AgentId> {
        let Operation { namespace, agent, what } = operation;
        let is_forgotten = |agent: &AgentId| {
            let mut all = self.all().filter(|other| other.concerns(namespace, agent));
            all.any(|other| matches!(other.what, What::Forget(_) | What::Expire))
        };
        let is_changed = |agent: &AgentId| self.all().any(|other| other.concerns(namespace, agent));
        match what {
            What::Evict(_) | What::Retain { .. } => is_forgotten(agent).then_some(agent),
            What::Forget(_) | What::Expire | What::Rollback { .. } => {
                is_changed(agent).then_some(agent)
            }
            What::Fork { to, .. } if is_changed(to) => Some(to),
            What::Fork { .. } => is_forgotten(agent).then_some(agent),
        }
        .cloned()
    }

    /// Whether what an agent has will be gone or another, or there will be more of it.
    fn remakes(&self, namespace: &Namespace, agent: &AgentId) -> bool {
        let mut all = self.all().filter(|operation| operation.concerns(namespace, agent));
        all.any(|Operation { what, .. }| match what {
            What::Evict(_) | What::Retain { .. } => false,
            What::Forget(_) | What::Expire | What::Rollback { .. } => true,
            What::Fork { to, .. } => to == agent,
        })
    }

    /// Whether an agent is on the way to an older save: a turn that went on from the newest would be
    /// newer than what it goes back to.
    fn rolls_back(&self, namespace: &Namespace, agent: &AgentId) -> bool {
        let is_it = |operation: &Operation| matches!(operation.what, What::Rollback { .. });
        self.all().any(|operation| is_it(operation) && operation.concerns(namespace, agent))
    }

    fn end(&mut self, operation: Operation, result: Result<Evicted, AgentError>) {
        self.answers.extend(operation.answer(result));
    }

    fn next_job(&mut self) -> JobId {
        self.last_job += 1;
        JobId(self.last_job)
    }
}

impl Worker {
    /// Takes a request in, unless it is to go on from what its agent has not any more.
    pub fn submit(
        &mut self,
        request: Request,
        terms: Terms,
        now: Instant,
    ) -> Result<RequestId, Error> {
        // Somebody may have named an agent as one is called that nobody names.
        let agent = request.agent.clone().unwrap_or_else(|| self.scheduler.next_automatic());
        if self.operations.rolls_back(&request.namespace, &agent) {
            return Err(Error::AgentBusy(agent));
        }
        if let (Some(mark), Some(agent)) = (&terms.after, &request.agent)
            && self.has_moved(&request.namespace, agent, mark)
        {
            return Err(Error::AgentBusy(agent.clone()));
        }
        self.scheduler.submit_paid(request, terms.purse, now)
    }

    /// Whether an agent has something else than it had, or is about to.
    fn has_moved(&self, namespace: &Namespace, agent: &AgentId, mark: &Mark) -> bool {
        let is_seen = match mark.0 {
            Marked::OnDisk => {
                self.scheduler.mark(namespace, agent).0 == Marked::Nothing
                    && self.keeper.as_ref().is_some_and(|k| k.store.has_agent(namespace, agent))
            }
            Marked::Nothing | Marked::Head { .. } => self.scheduler.mark(namespace, agent) == *mark,
        };
        !is_seen
            || self.scheduler.requests_of(namespace, agent) > 0
            || self.operations.remakes(namespace, agent)
    }

    /// Behind everything that is on its way to the disk, if there is one that may be written to.
    pub fn write(&mut self, job: Write) {
        if let Some(Keeper { saver: Some(_), io, .. }) = &mut self.keeper {
            io.write(job);
        }
    }

    /// Does what is asked, or begins to.
    pub fn operate(&mut self, operation: Operation, now: Instant) {
        match self.refusal(&operation) {
            Some(error) => self.operations.end(operation, Err(error)),
            None => self.accept(operation, now),
        }
    }

    /// Begins to bring an agent's last conversation back into the pool, if there is room.
    pub fn warm(
        &mut self,
        namespace: &Namespace,
        agent: &AgentId,
        now: Instant,
    ) -> Result<Warmth, AgentError> {
        match self.is_there(namespace, agent) {
            true => Ok(self.scheduler.warm(namespace, agent, now)),
            false => Err(AgentError::NotFound(agent.clone())),
        }
    }

    /// What came of those that are over, for who is to hear it. Told when others can see it.
    pub fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.operations.answers)
    }

    pub fn is_operating(&self) -> bool {
        !self.operations.is_empty()
    }

    fn refusal(&self, operation: &Operation) -> Option<AgentError> {
        let Operation { namespace, agent, what } = operation;
        if let Some(busy) = self.operations.busy(operation) {
            return Some(AgentError::Busy(busy));
        }
        let requests = self.scheduler.requests_of(namespace, agent);
        let has_memory = self.has_memory(namespace, agent);
        let is_read_only = self.keeper.as_ref().is_some_and(|keeper| keeper.saver.is_none());
        match what {
            _ if requests == 0 && !has_memory => Some(AgentError::NotFound(agent.clone())),
            // Its end would bring back what is forgotten now, or be the newest again.
            What::Forget(_) | What::Expire | What::Rollback { .. } if requests > 0 => {
                Some(AgentError::Busy(agent.clone()))
            }
            What::Evict(_) | What::Expire | What::Retain { .. } | What::Rollback { .. } => {
                self.saver().is_none().then_some(AgentError::NothingKept)
            }
            What::Fork { to, .. } if self.is_there(namespace, to) => {
                Some(AgentError::Exists(to.clone()))
            }
            // Its first turn has not ended.
            What::Fork { .. } if !has_memory => Some(AgentError::Busy(agent.clone())),
            What::Forget(_) | What::Fork { .. } => is_read_only.then_some(AgentError::NothingKept),
        }
    }

    fn is_there(&self, namespace: &Namespace, agent: &AgentId) -> bool {
        self.scheduler.requests_of(namespace, agent) > 0 || self.has_memory(namespace, agent)
    }

    fn has_memory(&self, namespace: &Namespace, agent: &AgentId) -> bool {
        let is_kept = |keeper: &Keeper| {
            let saver = keeper.saver.as_ref();
            keeper.store.has_agent(namespace, agent)
                || saver.is_some_and(|saver| saver.is_saving(namespace, agent))
        };
        self.scheduler.has_heads(namespace, agent) || self.keeper.as_ref().is_some_and(is_kept)
    }

    fn saver(&self) -> Option<&Saver> {
        self.keeper.as_ref()?.saver.as_ref()
    }

    fn accept(&mut self, operation: Operation, now: Instant) {
        let Operation { namespace, agent, what } = &operation;
        let Some(Keeper { saver: Some(saver), io, store, .. }) = &mut self.keeper else {
            // There is the pool and nothing else.
            match what {
                What::Forget(_) => self.scheduler.forget_agent(namespace, agent),
                What::Fork { to, .. } => self.scheduler.copy_agent(namespace, agent, to),
                What::Evict(_) | What::Expire | What::Retain { .. } | What::Rollback { .. } => {
                    unreachable!("without a saver it was refused")
                }
            }
            return self.operations.end(operation, Ok(Evicted::default()));
        };
        match what {
            // One save of it is enough.
            What::Retain { .. } if store.has_agent(namespace, agent) => {
                self.go_on(Waiting { operation, until: now, unsaved: Vec::new() }, 0);
            }
            What::Evict(_) | What::Fork { .. } | What::Retain { .. } | What::Rollback { .. } => {
                let heads = self.scheduler.unsaved_of(namespace, agent);
                // Each try copies out all that it has: who asks again and again has no more of them.
                if saver.try_again(&heads, now) {
                    self.scheduler.try_again(namespace, agent);
                }
                let tokens = |head: &HeadId| Some(Arc::clone(&self.scheduler.head(*head)?.tokens));
                let unsaved = heads.iter().filter_map(tokens).collect();
                let until = now + OPERATION_WAIT_MAX;
                self.operations.waiting.push(Waiting { operation, until, unsaved });
            }
            What::Forget(_) | What::Expire => {
                self.scheduler.forget_agent(namespace, agent);
                saver.forget_agent(namespace, agent);
                let cause = match what {
                    What::Expire => Removal::Expired,
                    _ => Removal::Asked,
                };
                // Behind everything of it that is on its way to the disk.
                let job = self.operations.next_job();
                let (namespace, agent) = (namespace.clone(), agent.clone());
                let fingerprint = saver.fingerprint();
                io.write(Write::RemoveAgent { job, namespace, agent, cause, fingerprint });
                self.operations.writing.insert(job, operation);
            }
        }
    }

    /// Goes on with those whose agents are safe now, or cannot be.
    pub(super) fn settle_operations(&mut self, now: Instant) {
        for waiting in std::mem::take(&mut self.operations.waiting) {
            let Waiting { operation, until, .. } = &waiting;
            if operation.is_unwanted() {
                continue;
            }
            let unsaved = self.scheduler.unsaved_of(&operation.namespace, &operation.agent);
            let scheduler = &self.scheduler;
            let is_awaited = |head: &HeadId| scheduler.head(*head).is_some_and(Head::will_be_saved);
            if now < *until && unsaved.iter().any(is_awaited) {
                self.operations.waiting.push(waiting);
            } else {
                self.go_on(waiting, unsaved.len());
            }
        }
    }

    fn go_on(&mut self, waiting: Waiting, unsaved: usize) {
        let Waiting { operation, unsaved: began_unsaved, .. } = waiting;
        let Operation { namespace, agent, what } = &operation;
        match what {
            What::Evict(_) => {
                let saved = self.scheduler.evict_agent(namespace, agent);
                self.operations
                    .end(operation, Ok(Evicted { saved, failed: unsaved, forgotten: 0 }));
            }
            // Its end would be the newest again.
            What::Rollback { .. } if self.scheduler.requests_of(namespace, agent) > 0 => {
                let error = AgentError::Busy(agent.clone());
                self.operations.end(operation, Err(error));
            }
            What::Fork { .. } | What::Rollback { .. }
                if unsaved > 0
                    || !began_unsaved
                        .iter()
                        .all(|it| self.scheduler.is_saved(namespace, agent, it)) =>
            {
                let error = AgentError::NotSaved(agent.clone());
                self.operations.end(operation, Err(error));
            }
            What::Fork { to, .. } => {
                let Some(Keeper { saver: Some(saver), io, .. }) = &mut self.keeper else { return };
                let job = self.operations.next_job();
                io.write(Write::Fork {
                    job,
                    namespace: namespace.clone(),
                    from: agent.clone(),
                    to: to.clone(),
                    fingerprint: saver.fingerprint(),
                });
                self.operations.writing.insert(job, operation);
            }
            What::Rollback { to, .. } => {
                let Some(Keeper { saver: Some(saver), io, .. }) = &mut self.keeper else { return };
                let job = self.operations.next_job();
                io.write(Write::Rollback {
                    job,
                    namespace: namespace.clone(),
                    agent: agent.clone(),
                    to: *to,
                    fingerprint: saver.fingerprint(),
                });
                self.operations.writing.insert(job, operation);
            }
            What::Retain { change, .. } => {
                let Some(Keeper { saver: Some(_), io, .. }) = &mut self.keeper else { return };
                let job = self.operations.next_job();
                let (namespace, agent) = (namespace.clone(), agent.clone());
                io.write(Write::Retain { job, namespace, agent, change: *change });
                self.operations.writing.insert(job, operation);
            }
            What::Forget(_) | What::Expire => {
                unreachable!("it waits for nothing to be saved")
            }
        }
    }

    /// The time of these agents is over: they go, unless a turn of theirs is under way or has to be
    /// saved. Then they are told of again.
    pub fn expire(&mut self, agents: Vec<(Namespace, AgentId)>) {
        for (namespace, agent) in agents {
            let is_unsaved = !self.scheduler.unsaved_of(&namespace, &agent).is_empty()
                || self.saver().is_none_or(|saver| saver.is_saving(&namespace, &agent));
            let operation = Operation { namespace, agent, what: What::Expire };
            if is_unsaved || self.refusal(&operation).is_some() {
                continue;
            }
            tracing::info!(
                namespace = %operation.namespace,
                agent = operation.agent.as_str(),
                "an agent's time to live is over"
            );
            self.metrics.cache.evicted(Tier::Warm, 1);
            self.accept(operation, Instant::now());
        }
    }

    /// The disk keeps an agent as it was asked to, or not.
    pub(super) fn retained(&mut self, job: JobId, result: Result<Retention, Failed>) {
        let Some(operation) = self.operations.writing.remove(&job) else { return };
        let result = result.map(|_| Evicted::default()).map_err(|error| {
            let agent = operation.agent.clone();
            match error {
                // It had no turn that the disk took.
                Failed::Store(StoreError::NotFound(_)) => AgentError::NotSaved(agent),
                Failed::Store(StoreError::Quota { .. }) => AgentError::PinQuota(agent),
                Failed::Store(StoreError::Full { .. }) => AgentError::NotSaved(agent),
                Failed::Store(_) | Failed::Panicked | Failed::Stopped => {
                    tracing::error!(%error, agent = agent.as_str(), "how long an agent is kept was not saved");
                    AgentError::Disk
                }
            }
        });
        self.operations.end(operation, result);
    }

    /// The disk has removed an agent, or not.
    pub(super) fn removed(
        &mut self,
        job: JobId,
        result: Result<Removed, Failed>,
        left: Vec<StoredLine>,
    ) {
        // What the disk still has can be gone on from.
        left.into_iter().for_each(|line| self.scheduler.found(line));
        let Some(operation) = self.operations.writing.remove(&job) else { return };
        match result {
            Ok(Removed::Prolonged) => (),
            Ok(Removed::Gone) => self.operations.end(operation, Ok(Evicted::default())),
            Err(error) => {
                tracing::error!(%error, agent = operation.agent.as_str(), "an agent was not removed");
                self.operations.end(operation, Err(AgentError::Disk));
            }
        }
    }

    /// The disk has an agent as it was, or not.
    pub(super) fn rolled_back(&mut self, job: JobId, result: Result<Forked, Failed>) {
        let Some(operation) = self.operations.writing.remove(&job) else { return };
        match result {
            Ok(Forked { lines, removed }) => {
                self.made_room(removed);
                lines.into_iter().for_each(|line| self.scheduler.replaced(line));
                self.operations.end(operation, Ok(Evicted::default()));
            }
            Err(error) => {
                let refused = rollback_error(&operation, &error);
                if refused == AgentError::Disk {
                    tracing::error!(%error, agent = operation.agent.as_str(), "an agent was not rolled back");
                }
                self.operations.end(operation, Err(refused));
            }
        }
    }

    /// The disk has a copy of an agent, or not.
    pub(super) fn forked(&mut self, job: JobId, result: Result<Forked, Failed>) {
        let Some(operation) = self.operations.writing.remove(&job) else { return };
        match result {
            Ok(Forked { lines, removed }) => {
                self.made_room(removed);
                lines.into_iter().for_each(|line| self.scheduler.found(line));
                self.operations.end(operation, Ok(Evicted::default()));
            }
            Err(error) => {
                let refused = fork_error(&operation, &error);
                if matches!(refused, AgentError::Disk | AgentError::NotSaved(_)) {
                    tracing::error!(%error, agent = operation.agent.as_str(), "an agent was not copied");
                }
                self.operations.end(operation, Err(refused));
            }
        }
    }
}

fn fork_error(operation: &Operation, error: &Failed) -> AgentError {
    let to = match &operation.what {
        What::Fork { to, .. } => to,
        What::Evict(_)
        | What::Expire
        | What::Forget(_)
        | What::Retain { .. }
        | What::Rollback { .. } => &operation.agent,
    };
    match error {
        Failed::Store(StoreError::Exists(_)) => AgentError::Exists(to.clone()),
        Failed::Store(StoreError::NotFound(_)) => AgentError::NotFound(operation.agent.clone()),
        // Coming back helps with the one and not with the other.
        Failed::Store(StoreError::Full { .. }) => AgentError::NotSaved(operation.agent.clone()),
        Failed::Store(StoreError::Quota { .. }) => AgentError::Quota(operation.agent.clone()),
        Failed::Store(_) | Failed::Panicked | Failed::Stopped => AgentError::Disk,
    }
}

fn rollback_error(operation: &Operation, error: &Failed) -> AgentError {
    let agent = operation.agent.clone();
    let to = match operation.what {
        What::Rollback { to, .. } => to,
        What::Evict(_)
        | What::Expire
        | What::Forget(_)
        | What::Fork { .. }
        | What::Retain { .. } => None,
    };
    match error {
        Failed::Store(StoreError::NotFound(_)) => AgentError::NoSave { agent, generation: to },
        Failed::Store(StoreError::Full { .. }) => AgentError::NotSaved(agent),
        Failed::Store(StoreError::Quota { .. }) => AgentError::Quota(agent),
        Failed::Store(_) | Failed::Panicked | Failed::Stopped => AgentError::Disk,
    }
}
