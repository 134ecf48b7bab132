//! What is asked for one agent: that it goes to the disk, goes for good, or gets a copy. Each waits
//! for what has to be safe first, and for the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot::Sender;

use super::io::{Failed, Forked, JobId, Write};
use super::saver::Saver;
use super::{Keeper, Worker};
use crate::engine::about::{Mark, Marked};
use crate::engine::agents::{Head, HeadId};
use crate::engine::scheduler::RequestId;
use crate::engine::{AgentError, Error, Evicted, Request};
use crate::metrics::labels::Tier;
use crate::store::{StoreError, StoredLine};
use crate::types::{AgentId, Namespace, TokenId};

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
    Fork { to: AgentId, reply: Sender<Result<(), AgentError>> },
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
            What::Forget(reply) | What::Fork { reply, .. } => reply.is_closed(),
        }
    }

    fn answer(self, result: Result<Evicted, AgentError>) -> Answer {
        match self.what {
            What::Evict(reply) => Answer::Evicted(reply, result),
            What::Forget(reply) | What::Fork { reply, .. } => {
                Answer::Done(reply, result.map(|_| ()))
            }
        }
    }
}

/// What came of an operation, and who is to hear it.
pub enum Answer {
    Evicted(Sender<Result<Evicted, AgentError>>, Result<Evicted, AgentError>),
    Done(Sender<Result<(), AgentError>>, Result<(), AgentError>),
}

impl Answer {
    /// Whoever asked may have gone away.
    pub fn tell(self) {
        match self {
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
            all.any(|other| matches!(other.what, What::Forget(_)))
        };
        let is_changed = |agent: &AgentId| self.all().any(|other| other.concerns(namespace, agent));
        match what {
            What::Evict(_) => is_forgotten(agent).then_some(agent),
            What::Forget(_) => is_changed(agent).then_some(agent),
            What::Fork { to, .. } if is_changed(to) => Some(to),
            What::Fork { .. } => is_forgotten(agent).then_some(agent),
        }
        .cloned()
    }

    /// Whether what an agent has will be gone, or there will be more of it.
    fn remakes(&self, namespace: &Namespace, agent: &AgentId) -> bool {
        let mut all = self.all().filter(|operation| operation.concerns(namespace, agent));
        all.any(|Operation { what, .. }| match what {
            What::Evict(_) => false,
            What::Forget(_) => true,
            What::Fork { to, .. } => to == agent,
        })
    }

    fn end(&mut self, operation: Operation, result: Result<Evicted, AgentError>) {
        self.answers.push(operation.answer(result));
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
        after: Option<&Mark>,
        now: Instant,
    ) -> Result<RequestId, Error> {
        if let (Some(mark), Some(agent)) = (after, &request.agent)
            && self.has_moved(&request.namespace, agent, mark)
        {
            return Err(Error::AgentBusy(agent.clone()));
        }
        self.scheduler.submit(request, now)
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
            What::Evict(_) => self.saver().is_none().then_some(AgentError::NothingKept),
            // Its end would bring back what is forgotten now.
            What::Forget(_) if requests > 0 => Some(AgentError::Busy(agent.clone())),
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
        let Some(Keeper { saver: Some(saver), io, .. }) = &mut self.keeper else {
            // There is the pool and nothing else.
            match what {
                What::Forget(_) => self.scheduler.forget_agent(namespace, agent),
                What::Fork { to, .. } => self.scheduler.copy_agent(namespace, agent, to),
                What::Evict(_) => unreachable!("without a saver it was refused"),
            }
            return self.operations.end(operation, Ok(Evicted::default()));
        };
        match what {
            What::Evict(_) | What::Fork { .. } => {
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
            What::Forget(_) => {
                self.scheduler.forget_agent(namespace, agent);
                saver.forget_agent(namespace, agent);
                // Behind everything of it that is on its way to the disk.
                let job = self.operations.next_job();
                let (namespace, agent) = (namespace.clone(), agent.clone());
                let fingerprint = saver.fingerprint();
                io.write(Write::RemoveAgent { job, namespace, agent, fingerprint });
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
            What::Fork { .. }
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
            What::Forget(_) => unreachable!("it waits for nothing to be saved"),
        }
    }

    /// The disk has removed an agent, or not.
    pub(super) fn removed(
        &mut self,
        job: JobId,
        result: Result<(), Failed>,
        left: Vec<StoredLine>,
    ) {
        // What the disk still has can be gone on from.
        left.into_iter().for_each(|line| self.scheduler.found(line));
        let Some(operation) = self.operations.writing.remove(&job) else { return };
        match result {
            Ok(()) => self.operations.end(operation, Ok(Evicted::default())),
            Err(error) => {
                tracing::error!(%error, agent = operation.agent.as_str(), "an agent was not removed");
                self.operations.end(operation, Err(AgentError::Disk));
            }
        }
    }

    /// The disk has a copy of an agent, or not.
    pub(super) fn forked(&mut self, job: JobId, result: Result<Forked, Failed>) {
        let Some(operation) = self.operations.writing.remove(&job) else { return };
        match result {
            Ok(Forked { lines, removed }) => {
                self.metrics.cache.evicted(Tier::Warm, removed.len() as u64);
                removed.into_iter().for_each(|(_, _, line)| self.scheduler.dropped(line));
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
        What::Evict(_) | What::Forget(_) => &operation.agent,
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
