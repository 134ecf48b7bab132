//! What is asked for agents in the simulation while they talk: that they go, come, are copied, go back
//! or are kept for another time.

use std::time::Duration;

use semantic::engine::worker::Clock;
use semantic::engine::worker::operations::{Operation, What};
use semantic::engine::{AgentError, Evicted, Warmth};
use semantic::store::RetentionChange;
use tokio::sync::oneshot;

use super::{Agent, World, id, space};
use crate::support::io::SlowIo;

/// Something asked for an agent.
pub struct Operating {
    pub agent: Agent,
    pub answer: Answer,
    /// Somebody has asked the agent since, so that it is there again.
    is_asked_again: bool,
}

pub enum Answer {
    Evicted(oneshot::Receiver<Result<Evicted, AgentError>>),
    Forgotten(oneshot::Receiver<Result<(), AgentError>>),
    RolledBack(oneshot::Receiver<Result<(), AgentError>>),
    Retained(oneshot::Receiver<Result<(), AgentError>>),
    Forked { to: Agent, answer: oneshot::Receiver<Result<(), AgentError>> },
}

impl World {
    pub fn is_there_again(&mut self, agent: Agent) {
        self.forgotten.remove(&agent);
        for operating in &mut self.operations {
            operating.is_asked_again |= operating.agent == agent;
        }
    }

    /// Asks something for one agent.
    pub fn operate(&mut self) {
        let namespace = self.random.range(0..self.histories.len());
        let agents = self.histories[namespace].len();
        let (agent, to) = (self.random.range(0..agents), self.random.range(0..agents));
        let (what, answer) = match self.random.range(0..7) {
            0 => {
                let (reply, answer) = oneshot::channel();
                (What::Evict(reply), Answer::Evicted(answer))
            }
            1 => {
                let (reply, answer) = oneshot::channel();
                (What::Forget(reply), Answer::Forgotten(answer))
            }
            2 => {
                let (reply, answer) = oneshot::channel();
                (What::Rollback { to: None, reply }, Answer::RolledBack(answer))
            }
            3 => {
                let (reply, answer) = oneshot::channel();
                let ttl = [None, Some(Duration::from_secs(1))][self.random.range(0..2)];
                let is_pinned = Some(self.random.range(0..2) == 0);
                let change = RetentionChange { is_pinned, ttl: Some(ttl) };
                (What::Retain { change, reply }, Answer::Retained(answer))
            }
            // Of most the time is not over, so that they stay.
            4 => return self.worker.expire(vec![(space(namespace), id(agent))]),
            5 => {
                let (namespace, agent) = (space(namespace), id(agent));
                let warmth = self.worker.warm(&namespace, &agent, self.time.now());
                self.totals.warmed += usize::from(warmth == Ok(Warmth::Warming));
                return;
            }
            _ => {
                let (reply, answer) = oneshot::channel();
                let answer = Answer::Forked { to: (namespace, to), answer };
                (What::Fork { to: id(to), reply }, answer)
            }
        };
        let operation = Operation { namespace: space(namespace), agent: id(agent), what };
        self.worker.operate(operation, self.time.now());
        let agent = (namespace, agent);
        self.operations.push(Operating { agent, answer, is_asked_again: false });
    }

    fn is_there(&self, (namespace, agent): Agent) -> bool {
        let (namespace, agent) = (space(namespace), id(agent));
        let is_stored = |io: &SlowIo| io.store().has_agent(&namespace, &agent);
        self.worker.scheduler.agent(&namespace, &agent).is_some()
            || self.io.as_ref().is_some_and(is_stored)
    }

    pub fn check_operations(&mut self) {
        for mut operating in std::mem::take(&mut self.operations) {
            let is_over = match &mut operating.answer {
                Answer::Evicted(answer) => answer.try_recv().map(|evicted| {
                    self.totals.evicted += evicted.map_or(0, |evicted| evicted.saved);
                }),
                Answer::Forgotten(answer) => answer.try_recv().map(|forgotten| {
                    if forgotten.is_ok() && !operating.is_asked_again {
                        self.totals.forgotten += 1;
                        self.forgotten.insert(operating.agent);
                    }
                }),
                Answer::RolledBack(answer) => answer.try_recv().map(|rolled_back| {
                    self.totals.rolled_back += usize::from(rolled_back.is_ok());
                }),
                Answer::Retained(answer) => answer.try_recv().map(|retained| {
                    self.totals.retained += usize::from(retained.is_ok());
                }),
                Answer::Forked { to, answer } => answer.try_recv().map(|forked| {
                    if forked.is_ok() {
                        self.totals.forked += 1;
                        assert!(self.is_there(*to), "a copy that is not there");
                    }
                }),
            };
            match (is_over, &operating.answer) {
                (Err(oneshot::error::TryRecvError::Closed), _) => panic!("it is answered"),
                (Err(oneshot::error::TryRecvError::Empty), _) => self.operations.push(operating),
                (Ok(()), Answer::Forked { to, .. }) => self.is_there_again(*to),
                (
                    Ok(()),
                    Answer::Evicted(_)
                    | Answer::Forgotten(_)
                    | Answer::Retained(_)
                    | Answer::RolledBack(_),
                ) => (),
            }
        }
        // While a copy is made it may be there before that is said.
        let copies: Vec<Agent> = self
            .operations
            .iter()
            .filter_map(|operating| match operating.answer {
                Answer::Forked { to, .. } => Some(to),
                Answer::Evicted(_)
                | Answer::Forgotten(_)
                | Answer::Retained(_)
                | Answer::RolledBack(_) => None,
            })
            .collect();
        for agent in self.forgotten.iter().filter(|agent| !copies.contains(agent)) {
            assert!(!self.is_there(*agent), "{agent:?} is back");
        }
    }
}
