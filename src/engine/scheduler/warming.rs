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
    namespace: Namespace,
    head: HeadId,
    tokens: Arc<[TokenId]>,
    /// The first so many blocks are those of a head in the pool.
    shared: usize,
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
        let someone_waits = !self.waiting.is_empty() || !self.parked.is_empty();
        if someone_waits || self.warming.len() >= WARMING_MAX {
            return Warmth::NoRoom;
        }
        let mut table = self.shared_blocks(namespace, &tokens);
        let first = table.len();
        let needed = stored.len() - first;
        if !self.make_room_for_hint(namespace, needed) {
            return Warmth::NoRoom;
        }
        let Ok(own) = self.pool.allocate(needed) else { return Warmth::NoRoom };
        self.next_restore += 1;
        let restore = RestoreId(self.next_restore);
        let places = stored[first..].iter().cloned().zip(own.iter().map(Lease::id));
        self.prefetches.push(Restore {
            id: restore,
            order: None,
            namespace: namespace.clone(),
            head: id,
            first,
            blocks: places.map(|(from, to)| RestoredBlock { from, to }).collect(),
            reused: tokens.len(),
            started: now,
        });
        table.extend(own);
        let namespace = namespace.clone();
        let warming = Warming { namespace, head: id, tokens, shared: first, table };
        self.warming.insert(restore, warming);
        Warmth::Warming
    }

    /// Full blocks of the pool that begin a conversation, one at least left to bring back.
    fn shared_blocks(&self, namespace: &Namespace, tokens: &[TokenId]) -> Vec<Lease> {
        let found = self.agents.find_hot(namespace, tokens, &self.spec);
        let found = found.filter(|_| self.spec.snapshot_bytes() == 0);
        let blocks = found.and_then(|found| {
            let head = self.agents.head(found.head)?;
            Some(head.blocks()[..found.tokens / BLOCK_TOKENS].to_vec())
        });
        blocks.unwrap_or_default()
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
        let Warming { head, tokens, table, .. } = warming;
        if restored < restore.blocks.len() {
            return self.agents.shorten(head, (restore.first + restored) * BLOCK_TOKENS);
        }
        // Meanwhile it may have gone on, or gone.
        let is_as_it_was = |head: &Head| !head.is_hot() && head.tokens == tokens;
        if self.agents.head(head).is_some_and(is_as_it_was) {
            // The last one may not be full: what goes on from it is another block.
            let full = |block: &&RestoredBlock| block.from.tokens == BLOCK_TOKENS;
            let places = table[restore.first..].iter().zip(restore.blocks.iter().filter(full));
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
        self.warming.values().map(|warming| warming.table.len() - warming.shared).sum()
    }

    /// Whose blocks they are.
    pub(super) fn warming_leases(&self) -> impl Iterator<Item = (&Namespace, &[Lease])> {
        self.warming.values().map(|warming| (&warming.namespace, &warming.table[..]))
    }
}
