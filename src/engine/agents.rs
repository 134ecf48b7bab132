//! What is kept after a request: heads, the sequences that agents can go on from. Pure.
//!
//! One prefix index per namespace and tier says where the longest common prefix is, whoever made
//! it. An agent's name decides nothing about reuse; it names heads, so that each agent keeps its
//! latest ones and no more than [`HEADS_PER_AGENT`].

mod named;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::pool::Lease;
use super::prefix::{Match, PrefixIndex};
use crate::model::Spec;
use crate::store::{BlockRef, StoredLine};
use crate::types::{AgentId, BLOCK_TOKENS, Generation, Line, Namespace, TokenId};

/// Sequences that one agent can go on from. A conversation needs one; an edited history, a side
/// request or a parallel one under the same id needs another.
pub const HEADS_PER_AGENT: usize = 4;
/// Heads in all. Each costs four bytes per token beside its blocks, so this bounds what is kept
/// of agents whose blocks are in the store.
pub const HEADS_MAX: usize = 16_384;

/// A number that no other head of this process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeadId(pub u64);

/// All heads of all namespaces.
#[derive(Default)]
pub struct Agents {
    spaces: HashMap<Namespace, Space>,
    heads: HashMap<HeadId, Head>,
    /// Heads by the line that they are, or are to be, in the store.
    lines: HashMap<Line, HeadId>,
    /// Heads with blocks in the pool that nothing is to be saved of, least recently used first.
    hot_saved: BTreeSet<(u64, HeadId)>,
    /// Heads with blocks in the pool that the store does not have all of, least recently used
    /// first.
    hot_unsaved: BTreeSet<(u64, HeadId)>,
    /// Heads in the store only, least recently used first.
    warm: BTreeSet<(u64, HeadId)>,
    /// Heads with blocks in the pool, of each agent that has any.
    hot_agents: HashMap<(Namespace, AgentId), usize>,
    next_head: u64,
    /// Grows with every use.
    uses: u64,
    /// Lines whose heads are gone, for the store to know.
    forgotten: Vec<Forgotten>,
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
    /// What follows them and has no KV: at most the last token of a reply.
    pub rest: Vec<TokenId>,
    /// Which of all these tokens are replies.
    pub replies: Vec<Range<usize>>,
    /// Its prompt was cut short: worth its KV, but no conversation of its agent.
    is_cut: bool,
    /// Empty if it is in the store only.
    blocks: Vec<Lease>,
    line: Option<Line>,
    saved: Option<Saved>,
    /// Its agent has gone back to it since: what comes last on disk is another one's save.
    is_moved: bool,
    /// The store gave it up to make room: it is not saved again as it is.
    is_dropped: bool,
    /// The last try to save it as it is has failed.
    has_failed: bool,
    /// When its last turn ended, if that was in this process.
    ended: Option<Instant>,
    last_use: u64,
}

/// What the store has of a head: all of it, or what it was some turns ago.
#[derive(Clone, Debug)]
pub struct Saved {
    pub generation: Generation,
    /// The first so many tokens of the head.
    pub tokens: usize,
    /// What follows these without KV.
    rest: Vec<TokenId>,
    pub blocks: Arc<[BlockRef]>,
}

/// A line that the store need not keep any longer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forgotten {
    pub namespace: Namespace,
    pub agent: AgentId,
    pub line: Line,
}

impl Head {
    /// Its blocks in the pool; none if it is in the store only.
    pub fn blocks(&self) -> &[Lease] {
        &self.blocks
    }

    /// The conversation of the store that it is saved as, if it has been or is about to be.
    pub fn line(&self) -> Option<Line> {
        self.line
    }

    pub fn saved(&self) -> Option<&Saved> {
        self.saved.as_ref()
    }

    /// Whether the store has all of it.
    pub fn is_saved(&self) -> bool {
        let is_all = |saved: &Saved| saved.tokens == self.tokens.len() && saved.rest == self.rest;
        !self.is_moved && self.saved.as_ref().is_some_and(is_all)
    }

    /// Whether it is about to be saved, so that it is worth waiting for.
    pub fn will_be_saved(&self) -> bool {
        !self.is_saved() && !self.is_dropped && !self.has_failed
    }

    /// When its last turn ended, if that was in this process.
    pub fn ended(&self) -> Option<Instant> {
        self.ended
    }

    pub fn is_hot(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Those that have KV, and what follows them.
    pub fn all_tokens(&self) -> impl Iterator<Item = TokenId> {
        self.tokens.iter().chain(&self.rest).copied()
    }

    /// The replies in it that its agent can be asked to go on from; none if it is no conversation.
    pub fn spoken(&self) -> &[Range<usize>] {
        if self.is_cut { &[] } else { &self.replies }
    }

    /// Whether nothing of a sequence is new. A warm head of the same tokens has no blocks in the pool,
    /// which the sequence has.
    fn has(&self, kept: &Kept) -> bool {
        let is_longer = self.tokens.len() > kept.tokens.len();
        let mut rest = self.all_tokens().skip(kept.tokens.len());
        (self.is_hot() || is_longer)
            && self.tokens.starts_with(&kept.tokens)
            && match is_longer {
                true => kept.rest.iter().all(|token| rest.next() == Some(*token)),
                false => self.rest == kept.rest,
            }
    }

    /// Makes it what the store has of it: its first tokens, and what follows them without KV.
    fn cut_to(&mut self, tokens: usize, rest: Vec<TokenId>) {
        if tokens < self.tokens.len() {
            self.tokens = self.tokens[..tokens].into();
        }
        let end = tokens + rest.len();
        self.rest = rest;
        self.replies.retain(|reply| reply.end <= end);
    }
}

/// A sequence to be kept.
pub struct Kept {
    pub namespace: Namespace,
    pub agent: AgentId,
    /// Those that have KV; at least one.
    pub tokens: Arc<[TokenId]>,
    pub rest: Vec<TokenId>,
    pub replies: Vec<Range<usize>>,
    /// Of a request that ended before its prompt was done.
    pub is_cut: bool,
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

    /// Agents with blocks in the pool.
    pub fn count_hot(&self) -> usize {
        self.hot_agents.len()
    }

    /// Whether an agent has blocks in the pool.
    pub fn is_hot(&self, namespace: &Namespace, agent: &AgentId) -> bool {
        self.hot_agents.contains_key(&(namespace.clone(), agent.clone()))
    }

    /// The heads of one agent.
    pub fn of(&self, namespace: &Namespace, agent: &AgentId) -> impl Iterator<Item = &Head> {
        let space = self.spaces.get(namespace);
        let heads = space.and_then(|space| space.agents.get(agent));
        heads.into_iter().flatten().map(|id| &self.heads[id])
    }

    pub fn each(&self) -> impl Iterator<Item = &Head> {
        self.heads.values()
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

    /// How much of `tokens` a head of this agent has, if it is at least so much; of any agent that
    /// nobody named if none is.
    pub fn matched_by(
        &self,
        namespace: &Namespace,
        agent: Option<&AgentId>,
        tokens: &[TokenId],
        least: usize,
    ) -> usize {
        let Some(space) = self.spaces.get(namespace) else { return 0 };
        let is_own = |found: &Match| match agent {
            Some(agent) => self.heads[&found.head].agent == *agent,
            None => self.heads[&found.head].agent.is_automatic(),
        };
        let longest = |index: &PrefixIndex| {
            let enough = index.matches(tokens).take_while(|found| found.tokens >= least);
            enough.filter(is_own).map(|found| found.tokens).next().unwrap_or(0)
        };
        longest(&space.hot).max(longest(&space.warm))
    }

    /// Keeps a sequence as a head of its agent. It takes the place of the agent's head that it
    /// extends; if a head already has all of it, nothing is added. One whose prompt was cut
    /// short takes nobody else's place; if there is none for it, it is not kept.
    pub fn keep(&mut self, kept: Kept) -> Option<HeadId> {
        assert!(!kept.tokens.is_empty());
        assert_eq!(kept.blocks.len(), kept.tokens.len().div_ceil(BLOCK_TOKENS));
        let siblings = self.siblings(&kept.namespace, &kept.agent);
        // Nobody asks for those that nobody named in their order.
        let last = siblings.last().copied().filter(|_| !kept.agent.is_automatic());
        let has_order = |head: HeadId| last.is_some_and(|last| last != head);
        if let Some(head) = siblings.iter().copied().find(|head| self.heads[head].has(&kept)) {
            self.touch(head);
            // There may be room for it by now.
            self.change(head, |changed| {
                changed.is_dropped = false;
                changed.is_moved |= has_order(head) && changed.saved.is_some();
            });
            self.move_last(head);
            return Some(head);
        }
        // The longest, so that what is left over is the most different.
        let extended = siblings
            .iter()
            .copied()
            .filter(|head| kept.tokens.starts_with(&self.heads[head].tokens))
            .max_by_key(|head| self.heads[head].tokens.len());
        if extended.is_none() && siblings.len() >= HEADS_PER_AGENT {
            let cut = siblings.iter().copied().find(|head| self.heads[head].is_cut);
            self.remove(cut.or(siblings.first().copied().filter(|_| !kept.is_cut))?);
        }
        // What the store has of it stays until the store has more.
        let is_moved = extended.is_some_and(has_order);
        let (line, saved, is_whole) = match extended.and_then(|head| self.take(head)) {
            Some(head) => (head.line, head.saved, !head.is_cut),
            None => (None, None, false),
        };
        self.limit();
        let Kept { namespace, agent, tokens, rest, replies, is_cut, blocks } = kept;
        // It has all of the conversation that it goes on from.
        let is_cut = is_cut && !is_whole;
        let (is_dropped, has_failed, ended, last_use) = (false, false, None, 0);
        Some(self.insert(Head {
            namespace,
            agent,
            tokens,
            rest,
            replies,
            is_cut,
            blocks,
            line,
            saved,
            is_moved,
            is_dropped,
            has_failed,
            ended,
            last_use,
        }))
    }

    /// The store has this: of a head that is here, or of one that is to be here from now on.
    pub fn stored(&mut self, stored: StoredLine) {
        let StoredLine { namespace, agent, line, generation, tokens, replies, blocks, .. } = stored;
        let with_kv: usize = blocks.iter().map(|block| block.tokens).sum();
        let (with_kv, rest) = tokens.split_at(with_kv);
        if with_kv.is_empty() {
            return;
        }
        let saved =
            Saved { generation, tokens: with_kv.len(), rest: rest.to_vec(), blocks: blocks.into() };
        let known = self.own_line(&namespace, &agent, line);
        // Numbers of lines are the store's, and a file that could not be read when it was opened
        // may come back with one that was given out again.
        if known.is_none() && self.lines.contains_key(&line) {
            return;
        }
        match known {
            Some(id) if self.heads[&id].is_hot() => self.change(id, |head| {
                // It may have gone on since, or have been cut and gone on otherwise.
                head.saved = head.tokens.starts_with(with_kv).then_some(saved);
                (head.is_dropped, head.is_moved) = (false, false);
            }),
            Some(id) => self.alter(id, |head| {
                head.tokens = with_kv.into();
                head.rest = rest.to_vec();
                head.replies = replies;
                (head.saved, head.is_moved) = (Some(saved), false);
            }),
            None => {
                let siblings = self.siblings(&namespace, &agent);
                if siblings.len() >= HEADS_PER_AGENT {
                    self.leave(siblings[0]);
                }
                self.limit();
                self.insert(Head {
                    namespace,
                    agent,
                    tokens: with_kv.into(),
                    rest: rest.to_vec(),
                    replies,
                    is_cut: false,
                    blocks: Vec::new(),
                    line: Some(line),
                    saved: Some(saved),
                    is_moved: false,
                    is_dropped: false,
                    has_failed: false,
                    ended: None,
                    last_use: 0,
                });
            }
        }
    }

    /// The head that is a line of the store, if the line is the agent's.
    fn own_line(&self, namespace: &Namespace, agent: &AgentId, line: Line) -> Option<HeadId> {
        let id = *self.lines.get(&line)?;
        let head = &self.heads[&id];
        ((&head.namespace, &head.agent) == (namespace, agent)).then_some(id)
    }

    /// All blocks of a warm head are in the pool.
    pub fn warmed(&mut self, id: HeadId, blocks: Vec<Lease>) {
        self.alter(id, |head| {
            assert_eq!(blocks.len(), head.tokens.len().div_ceil(BLOCK_TOKENS));
            head.blocks = blocks;
        });
        self.touch(id);
    }

    /// The store gave a line up.
    pub fn dropped(&mut self, line: Line) {
        let Some(id) = self.lines.get(&line).copied() else { return };
        match self.heads[&id].is_hot() {
            true => self.change(id, |head| {
                head.is_dropped = head.is_saved();
                head.saved = None;
            }),
            false => self.leave(id),
        }
    }

    /// The store has no more of a warm head than its first tokens.
    pub fn shorten(&mut self, id: HeadId, tokens: usize) {
        // Another restore of it may have found less, and it may have been evicted or be hot again.
        let is_less = |head: &Head| !head.is_hot() && tokens < head.tokens.len();
        if !self.heads.get(&id).is_some_and(is_less) {
            return;
        }
        if tokens == 0 {
            return self.leave(id);
        }
        self.alter(id, |head| {
            head.cut_to(tokens, Vec::new());
            if let Some(saved) = &mut head.saved {
                saved.blocks = saved.blocks[..tokens.div_ceil(BLOCK_TOKENS)].into();
                saved.tokens = tokens;
                saved.rest.clear();
            }
        });
    }

    /// The line that a head is to be saved as.
    pub fn set_line(&mut self, id: HeadId, line: Line) {
        if let Some(head) = self.heads.get_mut(&id) {
            assert_eq!(head.line.replace(line), None);
            assert_eq!(self.lines.insert(line, id), None);
        }
    }

    /// It becomes the newest of its agent.
    fn move_last(&mut self, id: HeadId) {
        let head = &self.heads[&id];
        let space = self.spaces.get_mut(&head.namespace).expect("a head's namespace exists");
        let siblings = space.agents.get_mut(&head.agent).expect("a head's agent exists");
        siblings.retain(|sibling| *sibling != id);
        siblings.push(id);
    }

    fn siblings(&self, namespace: &Namespace, agent: &AgentId) -> Vec<HeadId> {
        let space = self.spaces.get(namespace);
        space.and_then(|space| space.agents.get(agent)).cloned().unwrap_or_default()
    }

    /// The first to go: of agents that nobody named, if there are any.
    fn least_recently_used(&self) -> Option<HeadId> {
        let is_automatic = |(_, head): &&(u64, HeadId)| self.heads[head].agent.is_automatic();
        let sets = [&self.warm, &self.hot_saved, &self.hot_unsaved];
        let oldest = sets.into_iter().filter_map(BTreeSet::first).min();
        let automatic = sets.into_iter().filter_map(|set| set.iter().find(is_automatic)).min();
        automatic.or(oldest).map(|(_, head)| *head)
    }

    /// Makes room for one more. What the store has of whom it takes stays there: how much that may
    /// be is the store's to say.
    fn limit(&mut self) {
        if self.heads.len() >= HEADS_MAX
            && let Some(oldest) = self.least_recently_used()
        {
            self.leave(oldest);
        }
    }

    fn insert(&mut self, mut head: Head) -> HeadId {
        self.next_head += 1;
        self.uses += 1;
        let id = HeadId(self.next_head);
        head.last_use = self.uses;
        let space = self.spaces.entry(head.namespace.clone()).or_default();
        space.agents.entry(head.agent.clone()).or_default().push(id);
        self.index(&head.namespace, head.is_hot()).insert(Arc::clone(&head.tokens), id);
        if let Some(line) = head.line {
            self.lines.insert(line, id);
        }
        self.enlist(id, &head);
        self.heads.insert(id, head);
        id
    }

    /// It was used, or will be at once.
    pub fn touch(&mut self, id: HeadId) {
        self.uses += 1;
        let uses = self.uses;
        self.change(id, |head| head.last_use = uses);
    }

    /// The hot head to give up first: the least recently used of those that nothing is to be saved
    /// of, or else of all.
    pub fn victim(&self) -> Option<HeadId> {
        // What the disk does not take before what it is about to.
        let failed = || self.hot_unsaved.iter().find(|(_, head)| self.heads[head].has_failed);
        let unsaved = || failed().or_else(|| self.hot_unsaved.first()).map(|(_, head)| *head);
        self.saved_victim().or_else(unsaved)
    }

    /// The least recently used hot head that nothing is to be saved of.
    pub fn saved_victim(&self) -> Option<HeadId> {
        self.hot_saved.first().map(|(_, head)| *head)
    }

    /// The same of these namespaces.
    pub fn saved_victim_of(&self, spaces: &BTreeSet<Namespace>) -> Option<HeadId> {
        self.first_of(&self.hot_saved, spaces)
    }

    /// The same, and the store has all of it: what it gave up is only here.
    pub fn safe_victim_of(&self, spaces: &BTreeSet<Namespace>) -> Option<HeadId> {
        let mut heads = self.hot_saved.iter().map(|(_, id)| (*id, &self.heads[id]));
        let safe = heads.find(|(_, head)| head.is_saved() && spaces.contains(&head.namespace));
        safe.map(|(id, _)| id)
    }

    /// The least recently used hot head of these namespaces that the store does not have all of.
    pub fn unsaved_victim_of(&self, spaces: &BTreeSet<Namespace>) -> Option<HeadId> {
        self.first_of(&self.hot_unsaved, spaces)
    }

    fn first_of(
        &self,
        set: &BTreeSet<(u64, HeadId)>,
        spaces: &BTreeSet<Namespace>,
    ) -> Option<HeadId> {
        let mut heads = set.iter().map(|(_, head)| *head);
        heads.find(|head| spaces.contains(&self.heads[head].namespace))
    }

    /// Whether one namespace alone has heads, or none has.
    pub fn has_one_space(&self) -> bool {
        self.spaces.len() <= 1
    }

    /// Whether no other namespace has heads.
    pub fn has_no_space_but(&self, namespace: &Namespace) -> bool {
        self.spaces.keys().all(|space| space == namespace)
    }

    /// Hot heads that the store does not have all of, least recently used first.
    pub fn unsaved(&self) -> impl Iterator<Item = HeadId> {
        self.hot_unsaved.iter().map(|(_, head)| *head)
    }

    /// Hot heads that nothing is to be saved of.
    pub fn hot_saved(&self) -> impl Iterator<Item = HeadId> {
        self.hot_saved.iter().map(|(_, head)| *head)
    }

    /// All heads with blocks in the pool.
    pub fn hot(&self) -> impl Iterator<Item = HeadId> {
        self.hot_saved.iter().chain(&self.hot_unsaved).map(|(_, head)| *head)
    }

    /// Gives the head's blocks back. What the store has of it stays as a warm head.
    pub fn evict(&mut self, id: HeadId) {
        let saved = self.heads.get(&id).and_then(|head| head.saved.as_ref());
        match saved.map(|saved| (saved.tokens, saved.rest.clone())) {
            // A save on its way makes it known again when it arrives.
            None => self.leave(id),
            Some((tokens, rest)) => self.alter(id, |head| {
                head.blocks.clear();
                head.cut_to(tokens, rest);
            }),
        }
    }

    /// The head is gone, from the store too.
    pub fn remove(&mut self, id: HeadId) {
        if let Some(Head { namespace, agent, line: Some(line), .. }) = self.take(id) {
            self.forgotten.push(Forgotten { namespace, agent, line });
        }
    }

    /// The head is gone from here; what the store has of it stays there.
    fn leave(&mut self, id: HeadId) {
        self.take(id);
    }

    fn take(&mut self, id: HeadId) -> Option<Head> {
        let head = self.heads.remove(&id)?;
        self.delist(id, &head);
        if let Some(line) = head.line {
            self.lines.remove(&line);
        }
        self.index(&head.namespace, head.is_hot()).remove(&head.tokens, id);
        let space = self.spaces.get_mut(&head.namespace).expect("a head's namespace exists");
        let siblings = space.agents.get_mut(&head.agent).expect("a head's agent exists");
        siblings.retain(|sibling| *sibling != id);
        if siblings.is_empty() {
            space.agents.remove(&head.agent);
        }
        if space.agents.is_empty() {
            self.spaces.remove(&head.namespace);
        }
        Some(head)
    }

    /// Lines whose heads have gone since the last call.
    pub fn take_forgotten(&mut self) -> Vec<Forgotten> {
        std::mem::take(&mut self.forgotten)
    }

    /// Changes a head's tokens or tier.
    fn alter(&mut self, id: HeadId, change: impl FnOnce(&mut Head)) {
        let Some(head) = self.heads.get(&id) else { return };
        let tokens = Arc::clone(&head.tokens);
        let namespace = head.namespace.clone();
        let is_hot = head.is_hot();
        self.index(&namespace, is_hot).remove(&tokens, id);
        self.change(id, change);
        let head = &self.heads[&id];
        let (tokens, is_hot) = (Arc::clone(&head.tokens), head.is_hot());
        self.index(&namespace, is_hot).insert(tokens, id);
    }

    fn index(&mut self, namespace: &Namespace, is_hot: bool) -> &mut PrefixIndex {
        let space = self.spaces.get_mut(namespace).expect("a head's namespace exists");
        if is_hot { &mut space.hot } else { &mut space.warm }
    }

    /// Changes a head and moves it to the set it belongs to then.
    fn change(&mut self, id: HeadId, change: impl FnOnce(&mut Head)) {
        let Some(mut head) = self.heads.remove(&id) else { return };
        self.delist(id, &head);
        change(&mut head);
        self.enlist(id, &head);
        self.heads.insert(id, head);
    }

    fn enlist(&mut self, id: HeadId, head: &Head) {
        self.set_of(head).insert((head.last_use, id));
        if head.is_hot() {
            let key = (head.namespace.clone(), head.agent.clone());
            *self.hot_agents.entry(key).or_default() += 1;
        }
    }

    fn delist(&mut self, id: HeadId, head: &Head) {
        self.set_of(head).remove(&(head.last_use, id));
        if head.is_hot() {
            let key = (head.namespace.clone(), head.agent.clone());
            let heads = self.hot_agents.get_mut(&key).expect("it was counted");
            *heads -= 1;
            if *heads == 0 {
                self.hot_agents.remove(&key);
            }
        }
    }

    fn set_of(&mut self, head: &Head) -> &mut BTreeSet<(u64, HeadId)> {
        match (head.is_hot(), head.is_saved() || head.is_dropped) {
            (true, true) => &mut self.hot_saved,
            (true, false) => &mut self.hot_unsaved,
            (false, _) => &mut self.warm,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
