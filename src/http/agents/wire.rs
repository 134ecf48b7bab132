//! The wire format of agents.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::{
    AgentPage, AgentState, HeadState, Page, RetentionChange, StoredState, TTL_MAX, Tier, Warmth,
};
use crate::http::error::Error;
use crate::http::fields::in_range;
use crate::types::{AgentId, Generation};

/// Agents on a page.
const LIMIT_MAX: usize = 1000;
const LIMIT_DEFAULT: usize = 100;
/// Above it JSON's numbers are not exact; no agent has been saved so often.
const GENERATION_MAX: u64 = (1 << 53) - 1;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    #[schemars(range(min = 1, max = LIMIT_MAX))]
    limit: Option<usize>,
    /// The last agent of the page before.
    after: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveQuery {
    pub evict_only: Option<bool>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schemars(rename = "NewAgentRequest")]
pub struct CreateRequest {
    pub agent_id: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schemars(rename = "ForkRequest")]
pub struct ForkRequest {
    /// Of the copy.
    pub agent_id: String,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schemars(rename = "RollbackRequest")]
pub struct RollbackRequest {
    /// The save to go back to; the one before the newest if there is none.
    #[schemars(range(min = 1, max = GENERATION_MAX))]
    generation: Option<u64>,
}

/// How long an agent is kept on disk. What is not said is as if it had never been.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schemars(rename = "RetentionRequest")]
pub struct RetentionRequest {
    /// It stays when others need room; what is pinned beyond half of the room goes last.
    #[serde(default)]
    pinned: bool,
    /// It goes so many seconds after its last turn; null: it stays.
    #[schemars(range(min = 1, max = TTL_SECONDS_MAX))]
    ttl_seconds: Option<u64>,
}

const TTL_SECONDS_MAX: u64 = TTL_MAX.as_secs();

impl RetentionRequest {
    pub fn change(&self) -> Result<RetentionChange, Error> {
        let in_range = |seconds| in_range("ttl_seconds", seconds, 1, TTL_SECONDS_MAX);
        let ttl = self.ttl_seconds.map(in_range).transpose()?.map(Duration::from_secs);
        Ok(RetentionChange { is_pinned: Some(self.pinned), ttl: Some(ttl) })
    }
}

impl RollbackRequest {
    pub fn generation(&self) -> Result<Option<Generation>, Error> {
        let in_range = |number| in_range("generation", number, 1, GENERATION_MAX).map(Generation);
        self.generation.map(in_range).transpose()
    }
}

impl ListQuery {
    /// Which part of the list is wanted.
    pub fn page(self) -> Result<Page, Error> {
        let limit = in_range("limit", self.limit.unwrap_or(LIMIT_DEFAULT), 1, LIMIT_MAX)?;
        Ok(Page { limit, after: self.after })
    }
}

/// A part of all agents.
#[derive(Serialize, JsonSchema)]
pub struct AgentList {
    object: &'static str,
    data: Vec<Agent>,
    /// On all pages together.
    total: usize,
    has_more: bool,
}

impl From<AgentPage> for AgentList {
    fn from(AgentPage { agents, total, has_more }: AgentPage) -> AgentList {
        let data = agents.into_iter().map(Agent::from).collect();
        AgentList { object: "list", data, total, has_more }
    }
}

/// A name that is free.
#[derive(Serialize, JsonSchema)]
pub struct NewAgent {
    object: &'static str,
    id: String,
    agent_id: String,
    status: &'static str,
    cache_size_tokens: usize,
}

impl NewAgent {
    pub fn new(agent: &AgentId) -> NewAgent {
        NewAgent {
            object: "agent",
            id: agent.to_string(),
            agent_id: agent.to_string(),
            status: "new",
            cache_size_tokens: 0,
        }
    }
}

/// What is known of an agent.
#[derive(Serialize, JsonSchema)]
pub struct Agent {
    object: &'static str,
    id: String,
    /// Where its newest conversation is: `hot` in memory, `warm` on disk; null if it has none that
    /// this model can go on from.
    tier: Option<&'static str>,
    /// Of its newest conversation.
    tokens: usize,
    conversations: usize,
    /// Whether the disk has less than the memory.
    dirty: bool,
    busy: bool,
    /// Of its newest save; null if there is none.
    generation: Option<u64>,
    /// Of all its files.
    bytes: u64,
    /// Of its newest save.
    model: Option<String>,
    /// Whether the model that is served can go on from what it has.
    usable: bool,
    /// In seconds since 1970; null if its first turn has not ended.
    last_used: Option<u64>,
    /// Whether it stays on disk when others need room, while at most half of it is pinned.
    pinned: bool,
    /// After how many seconds without a turn it goes; null if it stays.
    ttl_seconds: Option<u64>,
    /// When that is, in seconds since 1970.
    expires_at: Option<u64>,
}

impl From<AgentState> for Agent {
    fn from(state: AgentState) -> Agent {
        let newest = state.heads.first();
        let stored = state.stored.as_ref();
        let saved_at = stored.and_then(|stored| unix_seconds(stored.saved_at));
        Agent {
            object: "agent",
            id: state.agent.to_string(),
            tier: newest.map(|head| tier(head.tier)),
            tokens: newest.map_or(stored.map_or(0, |stored| stored.tokens), |head| head.tokens),
            conversations: state.heads.len(),
            dirty: state.heads.iter().any(HeadState::is_dirty),
            busy: state.requests > 0,
            generation: stored.map(|StoredState { generation, .. }| generation.0),
            bytes: stored.map_or(0, |stored| stored.bytes),
            model: stored.map(|stored| stored.model.clone()),
            usable: newest.is_some() || stored.is_none_or(|stored| stored.is_usable),
            last_used: state.used.and_then(when).or(saved_at),
            pinned: stored.is_some_and(|stored| stored.retention.is_pinned),
            ttl_seconds: stored.and_then(|stored| stored.retention.ttl).map(|ttl| ttl.as_secs()),
            expires_at: stored.and_then(|stored| stored.expires_at).and_then(unix_seconds),
        }
    }
}

/// What became of a hint that a turn will come.
#[derive(Serialize, JsonSchema)]
pub struct Warmed {
    object: &'static str,
    id: String,
    /// `hot`: in memory; `warming`: on its way there; `no_room`: it stays on disk, as others need the
    /// memory; `cold`: there is nothing that this model can go on from.
    state: &'static str,
}

impl Warmed {
    pub fn new(agent: &AgentId, warmth: Warmth) -> Warmed {
        let state = match warmth {
            Warmth::Hot => "hot",
            Warmth::Warming => "warming",
            Warmth::NoRoom => "no_room",
            Warmth::Cold => "cold",
        };
        Warmed { object: "agent.warmed", id: agent.to_string(), state }
    }
}

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Hot => "hot",
        Tier::Warm => "warm",
    }
}

/// On the clock that people read.
fn when(instant: Instant) -> Option<u64> {
    SystemTime::now().checked_sub(instant.elapsed()).and_then(unix_seconds)
}

fn unix_seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}
