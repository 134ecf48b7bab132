//! Where a prompt leaves what its agent remembers: a miss, which has a cause. Pure.

use super::super::prefix::common;
use super::{RequestId, Scheduler};
use crate::types::{AgentId, Namespace, TokenId};

/// Of both sides, what is kept for the cause: tokens before the place and after it. A turn or two;
/// all of a long conversation would hold up those who wait for their next token.
const TOKENS_BEFORE: usize = 512;
const TOKENS_AFTER: usize = 128;

/// Why a prompt could not go on from all that its agent remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parting {
    /// The agent remembers nothing, and nobody else has the beginning of the prompt.
    New,
    At(Place),
}

/// Where they part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The first token that differs.
    pub token: usize,
    /// Tokens of the nearest conversation of the agent.
    pub stored_tokens: usize,
    pub prompt_tokens: usize,
    /// What is around the place in it, and in the prompt.
    pub stored: Vec<TokenId>,
    pub given: Vec<TokenId>,
}

impl Scheduler {
    /// Notes it if a prompt, of which `reused` tokens need not be computed, is a miss.
    pub(super) fn note_parting(&mut self, request: RequestId, prompt: &[TokenId], reused: usize) {
        let ticket = &self.tickets[&request];
        if let Some(parting) = self.parting(&ticket.namespace, &ticket.agent, prompt, reused) {
            self.partings.push((request, parting));
        }
    }

    fn parting(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        prompt: &[TokenId],
        reused: usize,
    ) -> Option<Parting> {
        let own = self.agents.of(namespace, agent);
        let nearest = own.map(|head| (common(&head.tokens, prompt), &*head.tokens));
        let Some((token, stored)) = nearest.max_by_key(|(token, _)| *token) else {
            return (reused == 0).then_some(Parting::New);
        };
        // It goes on, or back to an earlier turn; or another conversation has more of it.
        if token == stored.len() || token == prompt.len() || reused > token {
            return None;
        }
        let around = |tokens: &[TokenId]| {
            let end = tokens.len().min(token + TOKENS_AFTER);
            tokens[token.saturating_sub(TOKENS_BEFORE)..end].to_vec()
        };
        Some(Parting::At(Place {
            token,
            stored_tokens: stored.len(),
            prompt_tokens: prompt.len(),
            stored: around(stored),
            given: around(prompt),
        }))
    }

    /// Misses since the last call.
    pub fn take_partings(&mut self) -> Vec<(RequestId, Parting)> {
        std::mem::take(&mut self.partings)
    }

    /// The text of tokens, for whoever looks for a cause.
    pub fn tokenizer(&self) -> &crate::text::Tokenizer {
        &self.tokenizer
    }
}
