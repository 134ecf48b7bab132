//! Conversations that are brought back though no request waits for them: somebody has said that one
//! will come.

use std::sync::Arc;
use std::time::Instant;

use super::super::about::Warmth;
use super::super::agents::{Head, HeadId};
use super::super::pool::Lease;
use super::admission::POOL_USE_PERCENT;
use super::{Restore, RestoreId, RestoredBlock, Scheduler};
use crate::types::{AgentId, BLOCK_TOKENS, Namespace, TokenId};

/// A head whose blocks are on their way.
pub(super) struct Warming {
    head: HeadId,
    tokens: Arc<[TokenId]>,
    table: Vec<Lease>,
}

impl Warming {
    pub fn leases(&self) -> &[Lease] {
        &self.table
    }
}

impl Scheduler {
    /// Begins to bring back the conversation that an agent had last, if there is room without anybody's
    /// need: a request that comes before it is there does not wait for it, and brings back its own.
    pub fn warm(&mut self, namespace: &Namespace, agent: &AgentId, now: Instant) -> Warmth {
        let Some((id, head)) = self.agents.past(namespace, agent) else { return Warmth::Cold };
        if head.is_hot() {
            self.agents.touch(id);
            return Warmth::Hot;
        }
        if self.warming.values().any(|warming| warming.head == id) {
            return Warmth::Warming;
        }
        let Some(saved) = head.saved() else { return Warmth::Cold };
        let (stored, tokens) = (Arc::clone(&saved.blocks), Arc::clone(&head.tokens));
        // More would be evicted again at once.
        let most = self.pool.total() * POOL_USE_PERCENT / 100;
        if stored.len() > most || !self.waiting.is_empty() || !self.make_spare_room(stored.len()) {
            return Warmth::NoRoom;
        }
        let Ok(table) = self.pool.allocate(stored.len()) else { return Warmth::NoRoom };
        self.next_restore += 1;
        let restore = RestoreId(self.next_restore);
        let places = stored.iter().cloned().zip(table.iter().map(Lease::id));
        self.prefetches.push(Restore {
            id: restore,
            order: None,
            namespace: namespace.clone(),
            head: id,
            first: 0,
            blocks: places.map(|(from, to)| RestoredBlock { from, to }).collect(),
            reused: tokens.len(),
            started: now,
        });
        self.warming.insert(restore, Warming { head: id, tokens, table });
        Warmth::Warming
    }

    /// What became of it: its first `restored` blocks are there.
    pub(super) fn warmed(&mut self, restore: &Restore, restored: usize) {
        let Some(Warming { head, tokens, table }) = self.warming.remove(&restore.id) else {
            return;
        };
        if restored < restore.blocks.len() {
            return self.agents.shorten(head, restored * BLOCK_TOKENS);
        }
        // Meanwhile it may have gone on, or gone.
        let is_as_it_was = |head: &Head| !head.is_hot() && head.tokens == tokens;
        if self.agents.head(head).is_some_and(is_as_it_was) {
            for (lease, block) in table.iter().zip(&restore.blocks) {
                if block.from.tokens == BLOCK_TOKENS {
                    lease.set_stored(Some(block.from.clone()));
                }
            }
            self.agents.warmed(head, table);
        }
    }
}
