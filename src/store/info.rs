//! What the store tells about itself: agents, their saves, what they cost, and what is damaged.

use std::ops::Range;
use std::time::SystemTime;

use super::{BlockRef, Flaw, Retention};
use crate::types::{AgentId, Fingerprint, Generation, Line, Namespace};

/// An agent on disk.
#[derive(Clone, Debug)]
pub struct AgentInfo {
    pub namespace: Namespace,
    pub agent: AgentId,
    /// At least one; the newest generation first.
    pub saves: Vec<SaveInfo>,
    /// Of all files that its saves need, each counted once.
    pub bytes: u64,
    /// Of those, in blocks that other agents need as well.
    pub shared_bytes: u64,
    pub retention: Retention,
    /// When it goes unless it has a turn before.
    pub expires_at: Option<SystemTime>,
}

/// An agent on disk, in few words.
#[derive(Clone, Debug)]
pub struct AgentBrief {
    pub agent: AgentId,
    /// Of the newest save of each line, the newest of all first; at least one.
    pub live: Vec<LineBrief>,
    pub saves: usize,
    /// Of all files that its saves need, each counted once.
    pub bytes: u64,
    pub retention: Retention,
    /// When it goes unless it has a turn before.
    pub expires_at: Option<SystemTime>,
}

/// The newest save of a line, in few words.
#[derive(Clone, Debug)]
pub struct LineBrief {
    pub generation: Generation,
    pub fingerprint: Fingerprint,
    pub model: String,
    pub tokens: usize,
    pub saved_at: SystemTime,
}

/// One save of an agent.
#[derive(Clone, Debug)]
pub struct SaveInfo {
    pub line: Line,
    pub generation: Generation,
    /// The one of its line that counts; others are what `rollback` can go back to.
    pub is_live: bool,
    pub saved_at: SystemTime,
    pub fingerprint: Fingerprint,
    pub model: String,
    pub producer: String,
    pub tokens: usize,
    /// Which tokens are replies.
    pub replies: Vec<Range<usize>>,
    pub blocks: Vec<BlockRef>,
    /// How many of the blocks, from the first, are there with the right length.
    pub blocks_there: usize,
    /// Of the manifest and the blocks.
    pub bytes: u64,
}

/// What [`Store::collect`](super::Store::collect) removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub manifests: usize,
    pub blocks: usize,
    pub bytes: u64,
}

/// What [`Store::verify`](super::Store::verify) read.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    pub manifests: usize,
    /// That some save names.
    pub blocks: usize,
    pub bytes: u64,
    pub damage: Vec<Damage>,
}

/// A file that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// In the cache's folder.
    pub path: String,
    pub flaw: Flaw,
    /// Whose saves need it, as far as one can tell.
    pub agents: Vec<(Namespace, AgentId)>,
}

/// What [`Store::repair`](super::Store::repair) did.
#[derive(Clone, Debug, Default)]
pub struct Repaired {
    /// What is in the quarantine now, what opening the store put there included, and what is
    /// missing.
    pub damage: Vec<Damage>,
    /// Saves that go on from fewer tokens than before.
    pub shortened: Vec<Shortened>,
}

/// A line of which not all blocks were left. It has all its tokens, of which the last are to be
/// computed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortened {
    pub namespace: Namespace,
    pub agent: AgentId,
    pub line: Line,
    /// The one that was written instead.
    pub generation: Generation,
    /// Whose KV was saved.
    pub tokens_before: usize,
    /// Whose KV is left.
    pub tokens: usize,
}

/// What the store takes, in bytes.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub budget_bytes: u64,
    /// If each agent had its own copy of what its live saves need.
    pub logical_bytes: u64,
    /// Of the files that live saves need, each counted once.
    pub unique_bytes: u64,
    /// Of all files, also those of older saves, those that nobody needs, and the quarantine.
    pub disk_bytes: u64,
    pub quarantine_bytes: u64,
    pub quarantine_files: usize,
    /// By name.
    pub namespaces: Vec<NamespaceUsage>,
}

#[derive(Clone, Debug)]
pub struct NamespaceUsage {
    pub namespace: Namespace,
    pub agents: usize,
    pub logical_bytes: u64,
    pub unique_bytes: u64,
    pub disk_bytes: u64,
}

impl AgentInfo {
    /// The newest save.
    pub fn newest(&self) -> &SaveInfo {
        &self.saves[0]
    }
}
