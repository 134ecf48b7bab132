//! What is kept after a request: heads, the sequences that agents can go on from. Pure.
//!
//! One prefix index per namespace and tier says where the longest common prefix is, whoever made
//! it. An agent's name decides nothing about reuse; it names heads, so that each agent keeps its
//! latest ones and no more than [`HEADS_PER_AGENT`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::pool::Lease;
use super::prefix::{Match, PrefixIndex};
use super::store::HeadId;
use crate::model::Spec;
use crate::types::{AgentId, BLOCK_TOKENS, Namespace, TokenId};

/// Sequences that one agent can go on from. A conversation needs one; an edited history, a side
/// request or a parallel one under the same id needs another.
pub const HEADS_PER_AGENT: usize = 4;
/// Heads in all. Each costs four bytes per token beside its blocks, so this bounds what is kept
/// of agents whose blocks are in the store.
pub const HEADS_MAX: usize = 16_384;

/// All heads of all namespaces.
#[derive(Default)]
pub struct Agents {
    spaces: HashMap<Namespace, Space>,
    heads: HashMap<HeadId, Head>,
    /// Heads with blocks in the pool that are safe in the store, least recently used first.
    hot_saved: BTreeSet<(u64, HeadId)>,
    /// Heads with blocks in the pool and nowhere else, least recently used first.
    hot_unsaved: BTreeSet<(u64, HeadId)>,
    /// Heads in the store only, least recently used first.
    warm: BTreeSet<(u64, HeadId)>,
    next_head: u64,
    /// Grows with every use.
    uses: u64,
    /// Heads that are gone, for the store to know.
    forgotten: Vec<HeadId>,
}

#[derive(Default)]
struct Space {
    hot: PrefixIndex,
    warm: PrefixIndex,
    /// Oldest head first.
    agents: HashMap<AgentId, Vec<HeadId>>,
}

/// A kept sequence.
#[derive(Clone, Debug)]
pub struct Head {
    pub namespace: Namespace,
    pub agent: AgentId,
    /// Those that have KV.
    pub tokens: Arc<[TokenId]>,
    /// Empty if it is in the store only.
    blocks: Vec<Lease>,
    is_saved: bool,
    last_use: u64,
}

impl Head {
    /// Its blocks in the pool; none if it is in the store only.
    pub fn blocks(&self) -> &[Lease] {
        &self.blocks
    }

    fn is_hot(&self) -> bool {
        !self.blocks.is_empty()
    }
}

/// A sequence to be kept.
pub struct Kept {
    pub namespace: Namespace,
    pub agent: AgentId,
    /// Those that have KV; at least one.
    pub tokens: Arc<[TokenId]>,
    /// Exactly the blocks that the tokens fill.
    pub blocks: Vec<Lease>,
}

impl Agents {
    pub fn head(&self, head: HeadId) -> Option<&Head> {
        self.heads.get(&head)
    }

    /// Agents with at least one head.
    pub fn count(&self) -> usize {
        self.spaces.values().map(|space| space.agents.len()).sum()
    }

    pub fn heads(&self) -> usize {
        self.heads.len()
    }

    /// The hot head with which most of `tokens` need not be computed, and how many a sequence of
    /// exactly these tokens can go on from. At least one is left to compute.
    pub fn find_hot(
        &self,
        namespace: &Namespace,
        tokens: &[TokenId],
        spec: &Spec,
    ) -> Option<Match> {
        self.find(&self.spaces.get(namespace)?.hot, tokens, spec)
    }

    /// The same among heads that are in the store only.
    pub fn find_warm(
        &self,
        namespace: &Namespace,
        tokens: &[TokenId],
        spec: &Spec,
    ) -> Option<Match> {
        self.find(&self.spaces.get(namespace)?.warm, tokens, spec)
    }

    fn find(&self, index: &PrefixIndex, tokens: &[TokenId], spec: &Spec) -> Option<Match> {
        // The last token's logits are wanted, so it is computed in any case.
        let query = &tokens[..tokens.len() - 1];
        let mut best = index.longest(query)?;
        best.tokens = self.resume(best, spec);
        if spec.snapshot_bytes() > 0
            && let Some(whole) = index.longest_whole(query)
            && whole.tokens > best.tokens
        {
            best = whole;
        }
        (best.tokens > 0).then_some(best)
    }

    /// A whole head can be gone on from where it ends, another only where the model can.
    fn resume(&self, found: Match, spec: &Spec) -> usize {
        match self.heads[&found.head].tokens.len() == found.tokens {
            true => found.tokens,
            false => spec.resume_point(found.tokens),
        }
    }

    /// How much of `tokens` any head of the namespace has.
    pub fn matched(&self, namespace: &Namespace, tokens: &[TokenId]) -> usize {
        let Some(space) = self.spaces.get(namespace) else { return 0 };
        let longest = |index: &PrefixIndex| index.longest(tokens).map_or(0, |found| found.tokens);
        longest(&space.hot).max(longest(&space.warm))
    }

    /// Keeps a sequence as a head of its agent. It takes the place of the agent's head that it
    /// extends; if a hot head already has all of it, nothing is added.
    pub fn keep(&mut self, kept: Kept) -> HeadId {
        assert!(!kept.tokens.is_empty());
        assert_eq!(kept.blocks.len(), kept.tokens.len().div_ceil(BLOCK_TOKENS));
        let siblings = self.siblings(&kept.namespace, &kept.agent);
        if let Some(head) = siblings.iter().copied().find(|head| {
            let head = &self.heads[head];
            head.is_hot() && head.tokens.starts_with(&kept.tokens)
        }) {
            self.touch(head);
            return head;
        }
        // The longest, so that what is left over is the most different.
        let extended = siblings
            .iter()
            .copied()
            .filter(|head| kept.tokens.starts_with(&self.heads[head].tokens))
            .max_by_key(|head| self.heads[head].tokens.len());
        if let Some(head) = extended {
            self.remove(head);
        } else if siblings.len() >= HEADS_PER_AGENT {
            self.remove(siblings[0]);
        }
        if self.heads.len() >= HEADS_MAX
            && let Some(oldest) = self.least_recently_used()
        {
            self.remove(oldest);
        }
        self.insert(kept)
    }

    fn siblings(&self, namespace: &Namespace, agent: &AgentId) -> Vec<HeadId> {
        let space = self.spaces.get(namespace);
        space.and_then(|space| space.agents.get(agent)).cloned().unwrap_or_default()
    }

    fn least_recently_used(&self) -> Option<HeadId> {
        let sets = [&self.warm, &self.hot_saved, &self.hot_unsaved];
        sets.into_iter().filter_map(BTreeSet::first).min().map(|(_, head)| *head)
    }

    fn insert(&mut self, kept: Kept) -> HeadId {
        self.next_head += 1;
        self.uses += 1;
        let id = HeadId(self.next_head);
        let Kept { namespace, agent, tokens, blocks } = kept;
        let space = self.spaces.entry(namespace.clone()).or_default();
        space.hot.insert(Arc::clone(&tokens), id);
        space.agents.entry(agent.clone()).or_default().push(id);
        let last_use = self.uses;
        let head = Head { namespace, agent, tokens, blocks, is_saved: false, last_use };
        self.hot_unsaved.insert((last_use, id));
        self.heads.insert(id, head);
        id
    }

    /// It was used, or will be at once.
    pub fn touch(&mut self, id: HeadId) {
        self.uses += 1;
        let uses = self.uses;
        self.change(id, |head| head.last_use = uses);
    }

    /// It is safe in the store.
    pub fn saved(&mut self, id: HeadId) {
        self.change(id, |head| head.is_saved = true);
    }

    /// The hot head to give up first: the least recently used of those that are safe in the store,
    /// or else of all.
    pub fn victim(&self) -> Option<HeadId> {
        self.saved_victim().or_else(|| self.hot_unsaved.first().map(|(_, head)| *head))
    }

    /// The least recently used hot head that is safe in the store.
    pub fn saved_victim(&self) -> Option<HeadId> {
        self.hot_saved.first().map(|(_, head)| *head)
    }

    /// Hot heads that are nowhere else, least recently used first.
    pub fn unsaved(&self) -> impl Iterator<Item = HeadId> {
        self.hot_unsaved.iter().map(|(_, head)| *head)
    }

    /// Hot heads that are safe in the store.
    pub fn hot_saved(&self) -> impl Iterator<Item = HeadId> {
        self.hot_saved.iter().map(|(_, head)| *head)
    }

    /// All heads with blocks in the pool.
    pub fn hot(&self) -> impl Iterator<Item = HeadId> {
        self.hot_saved.iter().chain(&self.hot_unsaved).map(|(_, head)| *head)
    }

    /// Gives the head's blocks back. It stays as a warm one if it is safe in the store, and is
    /// gone otherwise.
    pub fn evict(&mut self, id: HeadId) {
        let Some(head) = self.heads.get(&id) else { return };
        if !head.is_saved {
            self.remove(id);
            return;
        }
        let (namespace, tokens) = (head.namespace.clone(), Arc::clone(&head.tokens));
        self.change(id, |head| head.blocks.clear());
        let space = self.spaces.get_mut(&namespace).expect("a head's namespace exists");
        space.hot.remove(&tokens, id);
        space.warm.insert(tokens, id);
    }

    /// The head is gone, from the store too.
    pub fn remove(&mut self, id: HeadId) {
        let Some(head) = self.heads.remove(&id) else { return };
        self.set_of(&head).remove(&(head.last_use, id));
        if head.is_saved {
            self.forgotten.push(id);
        }
        let space = self.spaces.get_mut(&head.namespace).expect("a head's namespace exists");
        let index = if head.is_hot() { &mut space.hot } else { &mut space.warm };
        index.remove(&head.tokens, id);
        let siblings = space.agents.get_mut(&head.agent).expect("a head's agent exists");
        siblings.retain(|sibling| *sibling != id);
        if siblings.is_empty() {
            space.agents.remove(&head.agent);
        }
        if space.agents.is_empty() {
            self.spaces.remove(&head.namespace);
        }
    }

    /// Heads that have gone since the last call and that the store still has.
    pub fn take_forgotten(&mut self) -> Vec<HeadId> {
        std::mem::take(&mut self.forgotten)
    }

    /// Changes a head and moves it to the set it belongs to then.
    fn change(&mut self, id: HeadId, change: impl FnOnce(&mut Head)) {
        let Some(mut head) = self.heads.remove(&id) else { return };
        self.set_of(&head).remove(&(head.last_use, id));
        change(&mut head);
        self.set_of(&head).insert((head.last_use, id));
        self.heads.insert(id, head);
    }

    fn set_of(&mut self, head: &Head) -> &mut BTreeSet<(u64, HeadId)> {
        match (head.is_hot(), head.is_saved) {
            (true, true) => &mut self.hot_saved,
            (true, false) => &mut self.hot_unsaved,
            (false, _) => &mut self.warm,
        }
    }
}

#[cfg(test)]
mod tests;
