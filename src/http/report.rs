//! What answers of several routes tell of a turn.

use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

use super::random;
use crate::engine::{Admitted, Choice, Finish, Outcome};

/// What OpenAI writes for a token that cannot come; JSON has no infinity.
pub const LOGPROB_MIN: f32 = -9999.0;

/// What OpenAI's and Anthropic's formats have no place for: whose memory a turn became and where
/// it was.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Semantic {
    agent: String,
    /// Of the agent's saves, that which has this turn; null if it is not on disk.
    generation: Option<u64>,
    durable: bool,
    source: &'static str,
    restored_tokens: usize,
    restore_ms: f64,
}

/// OpenAI's `usage`.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Debug, JsonSchema, Serialize)]
struct PromptTokensDetails {
    cached_tokens: usize,
}

impl Semantic {
    pub fn of(outcome: &Outcome) -> Semantic {
        let Admitted { agent, source, restored_tokens, restore, .. } = &outcome.admitted;
        Semantic {
            agent: agent.to_string(),
            generation: outcome.durability.generation().map(|generation| generation.0),
            durable: outcome.durability.is_durable(),
            source: source.word(),
            restored_tokens: *restored_tokens,
            restore_ms: restore.as_secs_f64() * 1e3,
        }
    }
}

impl Usage {
    pub fn of(outcome: &Outcome) -> Usage {
        let prompt_tokens = outcome.admitted.prompt_tokens;
        let completion_tokens = completion_tokens(outcome);
        Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens: outcome.admitted.cached_tokens,
            },
        }
    }
}

/// Of all choices together.
pub fn completion_tokens(outcome: &Outcome) -> usize {
    outcome.choices.iter().map(|choice: &Choice| choice.completion_tokens).sum()
}

/// OpenAI's word.
pub fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        // Whoever cancelled is gone, and a word that OpenAI's clients do not know helps nobody.
        Finish::Stop | Finish::StopSequence(_) | Finish::Cancelled => "stop",
        Finish::Length => "length",
    }
}

/// A new id, which says what it is the id of.
pub fn id(prefix: &str) -> String {
    format!("{prefix}{}{}", random::hex(), random::hex())
}

pub fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_secs())
}
