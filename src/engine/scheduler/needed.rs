//! Which replies may be asked for again: those in conversations that are kept or under way.
//!
//! The ids of any other are worth nothing, as no KV is there that they would lead to.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::ops::Range;

use super::Scheduler;
use crate::types::{Namespace, TokenId};

/// The replies of a moment. Of each there is a hash; a collision only keeps one too many.
#[derive(Default)]
pub struct NeededReplies {
    hashes: HashSet<u64>,
    hasher: RandomState,
}

impl NeededReplies {
    pub fn has(&self, namespace: &Namespace, reply: &[TokenId]) -> bool {
        self.hashes.contains(&self.hash(namespace, reply.iter()))
    }

    /// Those of `tokens` that `replies` are.
    fn add<'a>(
        &mut self,
        namespace: &Namespace,
        tokens: impl Iterator<Item = &'a TokenId> + Clone,
        replies: &[Range<usize>],
    ) {
        let mut rest = tokens;
        let mut start = 0;
        for reply in replies {
            // They come in their order, so that each token is walked over once.
            let Some(ahead) = reply.start.checked_sub(start) else { continue };
            if ahead > 0 {
                rest.nth(ahead - 1);
            }
            start = reply.start;
            self.hashes.insert(self.hash(namespace, rest.clone().take(reply.len())));
        }
    }

    fn hash<'a>(&self, namespace: &Namespace, tokens: impl Iterator<Item = &'a TokenId>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        namespace.hash(&mut hasher);
        for token in tokens {
            token.hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Scheduler {
    pub fn needed_replies(&self) -> NeededReplies {
        let mut needed = NeededReplies::default();
        for head in self.agents.each() {
            let tokens = head.tokens.iter().chain(&head.rest);
            needed.add(&head.namespace, tokens, &head.replies);
        }
        let active = self.running.iter().chain(&self.parked);
        let active = active.map(|(order, active)| (order.request, &active.sequence));
        let waiting = self.waiting.iter().map(|waiting| (waiting.request, &waiting.sequence));
        for (request, sequence) in active.chain(waiting) {
            if let Some(ticket) = self.tickets.get(&request) {
                needed.add(&ticket.namespace, sequence.tokens().iter(), &sequence.replies());
            }
        }
        needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_by_their_tokens_and_their_namespace() {
        let ids: Vec<TokenId> = (0..10).map(TokenId).collect();
        let local = Namespace::local();
        let mut needed = NeededReplies::default();
        // The last one ends beyond the first part of the tokens.
        needed.add(&local, ids[..8].iter().chain(&ids[8..]), &[1..3, 5..6, 7..10]);
        for (reply, is_needed) in
            [(1..3, true), (5..6, true), (7..10, true), (1..2, false), (0..3, false), (3..5, false)]
        {
            assert_eq!(needed.has(&local, &ids[reply.clone()]), is_needed, "{reply:?}");
        }
        assert!(!needed.has(&Namespace::new("other"), &ids[1..3]));
    }
}
