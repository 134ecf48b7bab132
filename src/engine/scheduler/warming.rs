//! Conversations that are brought back though no request waits for them: somebody has said that one
//! will come. They are the first to give their blocks back, before anybody waits, is parked or refused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::super::about::Warmth;
use super::super::agents::{Head, HeadId};
use super::super::pool::Lease;
use super::admission::POOL_USE_PERCENT;
use super::{Restore, RestoreId, RestoredBlock, Scheduler};
use crate::types::{AgentId, BLOCK_TOKENS, Namespace, TokenId};

/// Heads on their way at once: more than an orchestrator knows the next turns of.
const WARMING_MAX: usize = 16;

/// A head whose blocks are on their way.
pub(super) struct Warming {
    head: HeadId,
    tokens: Arc<[TokenId]>,
    /// All its own: a block that it shared could not be had by giving it up.
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
            return Warmth::Hot;
        }
        if self.warming.values().any(|warming| warming.head == id) {
            return Warmth::Warming;
        }
        let Some(saved) = head.saved() else { return Warmth::Cold };
        let (stored, tokens) = (Arc::clone(&saved.blocks), Arc::clone(&head.tokens));
        let someone_waits = !self.waiting.is_empty() || !self.parked.is_empty();
        if someone_waits || self.warming.len() >= WARMING_MAX {
            return Warmth::NoRoom;
        }
        let needed = stored.len();
        if !self.make_room_for_hint(namespace, needed) {
            return Warmth::NoRoom;
        }
        let Ok(table) = self.pool.allocate(needed) else { return Warmth::NoRoom };
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

    /// Room below the limit to which idle heads are evicted, so that what is brought back is not evicted
    /// at once. For a hint only what is safe on the disk goes, and only from whom asks and from those
    /// who have more than their share.
    fn make_room_for_hint(&mut self, namespace: &Namespace, count: usize) -> bool {
        let most = self.pool.total() * POOL_USE_PERCENT / 100;
        let mut spaces: BTreeSet<Namespace> = self.crowders();
        spaces.insert(namespace.clone());
        let over = (self.pool.used() + count).saturating_sub(most);
        if over > self.safe_blocks_of(&spaces) {
            return false;
        }
        while self.pool.used() + count > most {
            let Some(victim) = self.agents.safe_victim_of(&spaces) else { return false };
            self.evict(victim);
        }
        true
    }

    /// What became of it: its first `restored` blocks are there.
    pub(super) fn warmed(&mut self, restore: &Restore, restored: usize) {
        let Some(warming) = self.warming.remove(&restore.id) else { return };
        let Warming { head, tokens, table } = warming;
        // Whoever needs it finds what is damaged and computes that; until then nothing of what was said
        // is forgotten.
        if restored < restore.blocks.len() {
            return;
        }
        // Meanwhile it may have gone on, or gone.
        let is_as_it_was = |head: &Head| !head.is_hot() && head.tokens == tokens;
        if self.agents.head(head).is_some_and(is_as_it_was) {
            // The last one may not be full: what goes on from it is another block.
            let full = |block: &&RestoredBlock| block.from.tokens == BLOCK_TOKENS;
            let places = table.iter().zip(restore.blocks.iter().filter(full));
            places.for_each(|(lease, block)| lease.set_stored(Some(block.from.clone())));
            self.agents.warmed(head, table);
        }
    }

    /// Gives up the latest of them, of any namespace. Returns whether there was one.
    pub(super) fn cancel_warming(&mut self) -> bool {
        let Some((id, warming)) = self.warming.pop_last() else { return false };
        tracing::debug!(head = warming.head.0, "what was brought back early makes room");
        self.prefetches.retain(|restore| restore.id != id);
        true
    }

    /// Blocks that are had by cancelling all of them.
    pub(super) fn warming_blocks(&self) -> usize {
        self.warming.values().map(|warming| warming.table.len()).sum()
    }
}
