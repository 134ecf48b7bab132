//! What the engine tells of an agent, and why it does not do with one what was asked. Pure.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Error;
use super::agents::HeadId;
use crate::store::Retention;
use crate::types::{AgentId, Generation, TokenId};

/// Where the newest conversation of an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// In the pool.
    Hot,
    /// In the store only.
    Warm,
}

/// An agent as the engine and the store know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentState {
    pub agent: AgentId,
    /// What it can go on from, the newest first. None if its first turn is still under way, or if
    /// its memory is of another model.
    pub heads: Vec<HeadState>,
    /// Requests of it that are under way.
    pub requests: usize,
    /// When a turn of it ended last, if that was in this process.
    pub used: Option<Instant>,
    /// What it has on disk.
    pub stored: Option<StoredState>,
}

impl AgentState {
    /// One of which nothing is known yet.
    pub fn new(agent: AgentId) -> AgentState {
        AgentState { agent, heads: Vec::new(), requests: 0, used: None, stored: None }
    }
}

/// Which of the agents, by name, are told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most so many.
    pub limit: usize,
    /// Those whose names come after this one.
    pub after: Option<String>,
}

/// A part of the agents of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPage {
    /// By name.
    pub agents: Vec<AgentState>,
    /// On all pages together.
    pub total: usize,
    pub has_more: bool,
}

/// One conversation of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadState {
    pub tier: Tier,
    pub tokens: usize,
    pub replies: usize,
    /// Whether the store has all of it.
    pub is_saved: bool,
    /// The last save of it.
    pub generation: Option<Generation>,
}

impl HeadState {
    /// Whether the pool has what the store does not.
    pub fn is_dirty(&self) -> bool {
        self.tier == Tier::Hot && !self.is_saved
    }
}

/// How many agents there are, of all namespaces, by where their newest conversation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tiers {
    pub hot: usize,
    pub warm: usize,
    /// Of these, whose memory has more than the store has.
    pub dirty: usize,
}

/// What an agent has on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredState {
    /// That of its newest save.
    pub model: String,
    /// Whether any of it is of the model that is served, with its settings.
    pub is_usable: bool,
    pub tokens: usize,
    pub generation: Generation,
    pub saves: usize,
    /// Of all files it needs, each counted once.
    pub bytes: u64,
    pub saved_at: SystemTime,
    pub retention: Retention,
    /// When it goes unless it has a turn before.
    pub expires_at: Option<SystemTime>,
}

/// An agent's newest conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    pub tokens: Arc<[TokenId]>,
    /// Which of them are replies.
    pub replies: Vec<Range<usize>>,
}

/// What a turn needs to know that goes on from an agent's newest conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// None if the agent has not said anything yet.
    pub past: Option<Past>,
    pub mark: Mark,
}

/// What an agent had when it was looked at: whether it is the same when the turn comes is the
/// engine's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(pub(super) Marked);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    Nothing,
    /// More agents are on disk than an engine holds in mind.
    OnDisk,
    Head {
        head: HeadId,
        tokens: usize,
    },
}

/// Where an agent's last conversation is once somebody has said that it will be wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warmth {
    /// In the pool.
    Hot,
    /// On its way there.
    Warming,
    /// It stays on disk: others have the pool.
    NoRoom,
    /// There is nothing of it that the engine holds in mind.
    Cold,
}

fn save(generation: Option<Generation>) -> String {
    match generation {
        Some(Generation(number)) => format!("save with generation {number}"),
        None => "older save to go back to".to_owned(),
    }
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    #[error("there is no agent {:?}", .0.as_str())]
    NotFound(AgentId),
    #[error("there is an agent {:?} already", .0.as_str())]
    Exists(AgentId),
    #[error("agent {:?} is busy; try again when its turn has ended", .0.as_str())]
    Busy(AgentId),
    #[error("this server keeps nothing on disk")]
    NothingKept,
    /// The log has the cause.
    #[error("the disk did not take what agent {:?} has said", .0.as_str())]
    NotSaved(AgentId),
    #[error("a copy of agent {:?} is more than its owner may keep on disk", .0.as_str())]
    Quota(AgentId),
    #[error("agent {:?} has no {}", .agent.as_str(), save(*generation))]
    NoSave { agent: AgentId, generation: Option<Generation> },
    #[error("pinned agents take as much of the disk as they may, so {:?} is not pinned", .0.as_str())]
    PinQuota(AgentId),
    #[error("the disk takes long over agent {:?}, and goes on with it", .0.as_str())]
    Late(AgentId),
    #[error("the disk failed")]
    Disk,
    #[error(transparent)]
    Engine(#[from] Error),
}
