//! The wire format of agents.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::{AgentPage, AgentState, HeadState, Page, StoredState, Tier};
use crate::http::error::Error;
use crate::http::fields::in_range;
use crate::types::AgentId;

/// Agents on a page.
const LIMIT_MAX: usize = 1000;
const LIMIT_DEFAULT: usize = 100;

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
        }
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
