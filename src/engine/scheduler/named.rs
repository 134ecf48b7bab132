//! One agent, as its name finds it: what it has, and that it goes to the disk, or for good.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::about::{AgentState, HeadState, Mark, Marked, Past, Recalled, Tier, Tiers};
use super::super::agents::{Head, HeadId};
use super::Scheduler;
use crate::types::{AgentId, Namespace, TokenId};

impl Scheduler {
    /// The agents of a namespace that have heads or requests, in no order; some more than once.
    pub fn names(&self, namespace: &Namespace) -> Vec<AgentId> {
        self.agents.names(namespace).chain(self.requesting(namespace)).cloned().collect()
    }

    /// Of these agents those that have heads or requests.
    pub fn agents(
        &self,
        namespace: &Namespace,
        names: &[AgentId],
    ) -> BTreeMap<AgentId, AgentState> {
        let mut states: BTreeMap<AgentId, AgentState> =
            names.iter().map(|name| (name.clone(), self.heads_state(namespace, name))).collect();
        for agent in self.requesting(namespace) {
            if let Some(state) = states.get_mut(agent) {
                state.requests += 1;
            }
        }
        states.retain(|_, state| state.requests > 0 || !state.heads.is_empty());
        states
    }

    /// One agent; none if it has neither heads nor requests.
    pub fn agent(&self, namespace: &Namespace, agent: &AgentId) -> Option<AgentState> {
        let requests = self.requests_of(namespace, agent);
        let state = AgentState { requests, ..self.heads_state(namespace, agent) };
        (requests > 0 || !state.heads.is_empty()).then_some(state)
    }

    /// How many agents there are in all, and where.
    pub fn tiers(&self) -> Tiers {
        let mut tiers = Tiers::default();
        for newest in self.agents.newest() {
            match newest.is_hot() {
                true => tiers.hot += 1,
                false => tiers.warm += 1,
            }
            tiers.dirty += usize::from(newest.is_hot() && !newest.is_saved());
        }
        tiers
    }

    fn heads_state(&self, namespace: &Namespace, agent: &AgentId) -> AgentState {
        let heads = self.agents.heads_of(namespace, agent);
        AgentState {
            used: heads.iter().filter_map(|(_, head)| head.ended()).max(),
            heads: heads.iter().rev().map(|(_, head)| head_state(head)).collect(),
            ..AgentState::new(agent.clone())
        }
    }

    /// The conversation that an agent had last.
    pub fn recall(&self, namespace: &Namespace, agent: &AgentId) -> Recalled {
        let past = self.agents.past(namespace, agent).map(|(_, head)| Past {
            tokens: head.all_tokens().collect(),
            replies: head.replies.clone(),
        });
        Recalled { past, mark: self.mark(namespace, agent) }
    }

    /// All of them, the newest first.
    pub fn conversations(&self, namespace: &Namespace, agent: &AgentId) -> Vec<Arc<[TokenId]>> {
        let heads = self.agents.heads_of(namespace, agent);
        heads.iter().rev().map(|(_, head)| head.all_tokens().collect()).collect()
    }

    /// Which one that is.
    pub fn mark(&self, namespace: &Namespace, agent: &AgentId) -> Mark {
        let past = self.agents.past(namespace, agent);
        Mark(past.map_or(Marked::Nothing, |(id, head)| Marked::Head {
            head: id,
            tokens: head.all_tokens().count(),
        }))
    }

    /// Requests of an agent that have not ended, those included whose replies are not yet safe.
    pub fn requests_of(&self, namespace: &Namespace, agent: &AgentId) -> usize {
        self.requesting(namespace).filter(|other| *other == agent).count()
    }

    /// Whose requests are under way.
    fn requesting<'a>(&'a self, namespace: &'a Namespace) -> impl Iterator<Item = &'a AgentId> {
        let tickets = self.tickets.values().filter(move |ticket| ticket.namespace == *namespace);
        let endings = self.endings.values().filter(move |ending| ending.namespace == *namespace);
        tickets.map(|ticket| &ticket.agent).chain(endings.map(|ending| ending.agent()))
    }

    /// Whether there is anything that an agent can go on from.
    pub fn has_heads(&self, namespace: &Namespace, agent: &AgentId) -> bool {
        !self.agents.heads_of(namespace, agent).is_empty()
    }

    /// The heads of an agent that the store does not have all of, and could.
    pub fn unsaved_of(&self, namespace: &Namespace, agent: &AgentId) -> Vec<HeadId> {
        let heads = self.agents.heads_of(namespace, agent);
        let unsaved = heads.into_iter().filter(|(_, head)| head.is_hot() && !head.is_saved());
        unsaved.map(|(id, _)| id).collect()
    }

    /// Whether the store has all of a conversation of an agent. One that left the pool unsaved is only
    /// as much of it as was saved before.
    pub fn is_saved(&self, namespace: &Namespace, agent: &AgentId, tokens: &[TokenId]) -> bool {
        let heads = self.agents.heads_of(namespace, agent);
        heads.iter().any(|(_, head)| head.is_saved() && head.tokens.starts_with(tokens))
    }

    /// What could not be saved of an agent is worth another try.
    pub fn try_again(&mut self, namespace: &Namespace, agent: &AgentId) {
        self.agents.try_again(namespace, agent);
    }

    /// Gives back the blocks of those of an agent's heads that the store has all of. Returns how
    /// many heads that were.
    pub fn evict_agent(&mut self, namespace: &Namespace, agent: &AgentId) -> usize {
        let heads = self.agents.heads_of(namespace, agent);
        let saved = heads.into_iter().filter(|(_, head)| head.is_hot() && head.is_saved());
        let saved: Vec<HeadId> = saved.map(|(id, _)| id).collect();
        saved.iter().for_each(|id| self.evict(*id));
        saved.len()
    }

    /// No head of an agent is here any more. What the store has of them is for the caller to see to.
    pub fn forget_agent(&mut self, namespace: &Namespace, agent: &AgentId) {
        assert_eq!(self.requests_of(namespace, agent), 0);
        self.agents.forget(namespace, agent);
    }

    /// Another agent can go on from the same heads, as long as they are in the pool.
    pub fn copy_agent(&mut self, namespace: &Namespace, from: &AgentId, to: &AgentId) {
        self.agents.copy(namespace, from, to);
    }
}

fn head_state(head: &Head) -> HeadState {
    HeadState {
        tier: if head.is_hot() { Tier::Hot } else { Tier::Warm },
        tokens: head.tokens.len() + head.rest.len(),
        replies: head.replies.len(),
        is_saved: head.is_saved(),
        generation: head.saved().map(|saved| saved.generation),
    }
}
