//! Why a request was refused or failed.

use std::time::Duration;

use crate::types::{AgentId, TokenId};

use super::pool::Exhausted;

/// Refusals first: nothing was computed for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the prompt is empty")]
    EmptyPrompt,
    #[error("max_tokens is 0; it is at least 1")]
    NoTokensWanted,
    #[error("{choices} choices; at least 1 and at most {most}")]
    Choices { choices: usize, most: usize },
    #[error("{top} alternatives per token; at most {most}")]
    Logprobs { top: usize, most: usize },
    #[error("{0}")]
    Sampling(String),
    #[error("the prompt has {prompt_tokens} tokens; the model's context is {context_tokens}")]
    PromptTooLong { prompt_tokens: usize, context_tokens: usize },
    #[error("the prompt has token {token}; the model's vocabulary is {vocabulary}")]
    OutsideVocabulary { token: TokenId, vocabulary: usize },
    #[error("logit_bias has token {token}; the model's vocabulary is {vocabulary}")]
    BiasOutsideVocabulary { token: TokenId, vocabulary: usize },
    #[error("logit_bias bans all {vocabulary} tokens of the vocabulary")]
    AllBanned { vocabulary: usize },
    /// It would not fit even if nothing else ran.
    #[error("the request does not fit the KV pool: {0}")]
    LargerThanPool(Exhausted),
    /// Whoever pays has not enough for it now.
    #[error("too many tokens; there will be enough in {} s", .wait.as_secs())]
    TokensSpent { wait: Duration },
    #[error(
        "the request takes {tokens} tokens at least, which are not in memory; there are never more \
         than {most} a minute"
    )]
    LargerThanPurse { tokens: usize, most: usize },
    #[error("{waiting} requests are waiting; no more are taken")]
    QueueFull { waiting: usize },
    #[error("waited {} s for room in the KV pool", .0.as_secs())]
    WaitedTooLong(Duration),
    #[error("the engine is draining; it takes no new requests")]
    Draining,
    /// What the turn was to go on from is not what the agent has now, or will not be.
    #[error("agent {:?} is busy; try again when its turn has ended", .0.as_str())]
    AgentBusy(AgentId),
    #[error("the model is still loading")]
    Starting,

    /// What was running when the time of a drain was over, or at a shutdown.
    #[error("the engine is shutting down; the reply was cut")]
    Cut,
    #[error("the reader was too slow; the reply was cut")]
    SlowReader,
    /// The numbers left the range of floats; no token can be chosen honestly.
    #[error("the model computed NaN at position {position}")]
    NotANumber { position: usize },
    /// A limit of the work that a token may take, in a grammar that is too much for it.
    #[error("the reply could not be held to its grammar: {0}")]
    Grammar(String),
    #[error("the model failed: {0}")]
    Model(String),
    /// The engine is gone, and with it the process unless this is a test.
    #[error("the engine has stopped")]
    Stopped,
}

/// A drain that did not finish in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    #[error("{running} requests were still running after {} s; {drained} had finished", .timeout.as_secs_f32())]
    Timeout { running: usize, drained: usize, timeout: Duration },
    #[error("the engine has stopped")]
    Stopped,
}
