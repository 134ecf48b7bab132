//! What is asked of one agent by its name: which heads it has, and that they go, or are another's
//! too. Pure.

use std::sync::Arc;
use std::time::Instant;

use super::{Agents, Head, HeadId};
use crate::store::StoredLine;
use crate::types::{AgentId, Namespace};

impl Agents {
    /// The agents of a namespace that have heads.
    pub fn names(&self, namespace: &Namespace) -> impl Iterator<Item = &AgentId> {
        self.spaces.get(namespace).into_iter().flat_map(|space| space.agents.keys())
    }

    /// The heads of an agent, the newest last.
    pub fn heads_of(&self, namespace: &Namespace, agent: &AgentId) -> Vec<(HeadId, &Head)> {
        let ids = self.siblings(namespace, agent);
        ids.into_iter().map(|id| (id, &self.heads[&id])).collect()
    }

    /// The conversation that an agent had last, or went back to: the newest head in which it has
    /// spoken.
    pub fn past(&self, namespace: &Namespace, agent: &AgentId) -> Option<(HeadId, &Head)> {
        let heads = self.heads_of(namespace, agent);
        heads.into_iter().rev().find(|(_, head)| !head.spoken().is_empty())
    }

    /// The newest head of each agent of all namespaces.
    pub fn newest(&self) -> impl Iterator<Item = &Head> {
        let agents = self.spaces.values().flat_map(|space| space.agents.values());
        agents.filter_map(|heads| self.heads.get(heads.last()?))
    }

    /// A turn of it has ended.
    pub fn set_ended(&mut self, id: HeadId, now: Instant) {
        if let Some(head) = self.heads.get_mut(&id) {
            head.ended = Some(now);
        }
    }

    /// The store has something else of a line than before, and had all of its head.
    pub fn replaced(&mut self, stored: StoredLine) {
        if let Some(id) = self.own_line(&stored.namespace, &stored.agent, stored.line) {
            self.leave(id);
        }
        self.stored(stored);
    }

    /// None of its heads is here any more. What the store has of them is for the caller to see to.
    pub fn forget(&mut self, namespace: &Namespace, agent: &AgentId) {
        self.siblings(namespace, agent).into_iter().for_each(|id| self.leave(id));
    }

    /// A try to save it has failed.
    pub fn not_saved(&mut self, id: HeadId) {
        if let Some(head) = self.heads.get_mut(&id) {
            head.has_failed = true;
        }
    }

    /// It cannot be saved as it is, however often it is tried.
    pub fn give_up(&mut self, id: HeadId) {
        self.change(id, |head| head.is_dropped = true);
    }

    /// What could not be saved of it is worth another try.
    pub fn try_again(&mut self, namespace: &Namespace, agent: &AgentId) {
        for id in self.siblings(namespace, agent) {
            self.change(id, |head| {
                head.is_dropped = false;
                head.has_failed = false;
            });
        }
    }

    /// Another agent can go on from the same heads, as long as they are in the pool. For where
    /// there is no store to have a copy in.
    pub fn copy(&mut self, namespace: &Namespace, from: &AgentId, to: &AgentId) {
        for id in self.siblings(namespace, from) {
            let Some(head) = self.heads.get(&id) else { continue };
            let copy = Head {
                agent: to.clone(),
                tokens: Arc::clone(&head.tokens),
                line: None,
                saved: None,
                ..head.clone()
            };
            self.limit();
            self.insert(copy);
        }
    }
}
