//! What is known of a request from its submission to its end.

use std::time::{Duration, Instant};

use super::super::agents::HeadId;
use super::super::purse::Tab;
use super::super::request::{Admitted, Choice, Durability, Outcome, Source};
use crate::types::{AgentId, Namespace};

pub struct Ticket {
    pub namespace: Namespace,
    pub agent: AgentId,
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub source: Source,
    /// Of the cached tokens, those that came from the store.
    pub restored_tokens: usize,
    pub restore: Duration,
    /// What was kept of it, and how many tokens have to be safe for it to be.
    pub head: Option<(HeadId, usize)>,
    /// Nothing of it is kept.
    pub is_ephemeral: bool,
    /// The client knows that it was admitted: who was parked comes back unseen.
    pub is_announced: bool,
    /// Those that have ended.
    pub choices: Vec<Option<Choice>>,
    /// What it pays, if anybody does.
    pub tab: Option<Tab>,
    submitted: Instant,
    admitted: Option<Instant>,
    first_token: Option<Instant>,
}

impl Ticket {
    pub fn new(
        namespace: Namespace,
        agent: AgentId,
        prompt_tokens: usize,
        choices: usize,
        now: Instant,
    ) -> Ticket {
        Ticket {
            namespace,
            agent,
            prompt_tokens,
            cached_tokens: 0,
            source: Source::Cold,
            restored_tokens: 0,
            restore: Duration::ZERO,
            head: None,
            is_ephemeral: false,
            is_announced: false,
            choices: vec![None; choices],
            tab: None,
            submitted: now,
            admitted: None,
            first_token: None,
        }
    }

    /// It has blocks.
    pub fn admit(&mut self, now: Instant) {
        self.admitted.get_or_insert(now);
    }

    pub fn admitted(&self) -> Admitted {
        Admitted {
            agent: self.agent.clone(),
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            source: self.source,
            restored_tokens: self.restored_tokens,
            restore: self.restore,
            queued: self.queued(),
        }
    }

    /// So much of the prompt has KV.
    pub fn prefilled(&mut self, tokens: usize, now: Instant) {
        if let Some(tab) = &mut self.tab {
            tab.computed(tokens.saturating_sub(self.cached_tokens), now);
        }
    }

    pub fn token(&mut self, now: Instant) {
        self.first_token.get_or_insert(now);
        if let Some(tab) = &mut self.tab {
            tab.generated(1, now);
        }
    }

    pub fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.submitted)
    }

    fn queued(&self) -> Duration {
        self.admitted.map_or(Duration::ZERO, |admitted| self.waited(admitted))
    }

    /// All choices have ended.
    pub fn is_complete(&self) -> bool {
        self.choices.iter().all(Option::is_some)
    }

    pub fn outcome(self, now: Instant) -> Outcome {
        let admitted = self.admitted.unwrap_or(now);
        let first_token = self.first_token.unwrap_or(now);
        Outcome {
            admitted: self.admitted(),
            choices: self.choices.into_iter().flatten().collect(),
            prefill: first_token.saturating_duration_since(admitted),
            decode: now.saturating_duration_since(first_token),
            durability: Durability::NotDurable,
        }
    }
}
