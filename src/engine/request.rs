//! What is asked of the engine and what it answers. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::model::sample::{Sampling, TokenLogprob};
use crate::text::{Grammar, Prompt};
use crate::types::{AgentId, Generation, Namespace};

use super::Error;

/// Replies that one request may ask for. OpenAI's limit is 128; each one costs blocks.
pub const CHOICES_MAX: usize = 16;
/// Alternatives that a request may ask for at each token, as in OpenAI's API.
pub const TOP_LOGPROBS_MAX: usize = 20;

/// What to generate.
#[derive(Clone, Debug)]
pub struct Request {
    /// What may be seen: only KV of this namespace is reused.
    pub namespace: Namespace,
    /// Whose memory the conversation becomes; an automatic agent's if there is none.
    pub agent: Option<AgentId>,
    /// At least one token.
    pub prompt: Prompt,
    /// The longest reply, cut to what the context has room for. If not given: whatever context
    /// and pool have room for.
    pub max_tokens: Option<usize>,
    pub sampling: Sampling,
    /// Texts that end the reply; they are not part of it.
    pub stops: Vec<String>,
    pub reply: Reply,
    /// Replies to the same prompt, 1 to [`CHOICES_MAX`]. Choice `i` draws with the seed plus `i`.
    pub choices: usize,
    /// Log-probabilities of each token and of so many alternatives, at most [`TOP_LOGPROBS_MAX`].
    pub logprobs: Option<usize>,
    /// Go on when the model ends its turn, e.g. to measure replies of a certain length.
    pub is_end_ignored: bool,
    /// What each reply is held to: no token comes that would leave it.
    pub grammar: Option<Arc<Grammar>>,
    /// Nothing of it is kept, neither in the pool nor in the store.
    pub is_ephemeral: bool,
}

/// How the reply relates to the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A turn of its own.
    Turn,
    /// More of the same text; a space that joins the two belongs to it.
    Continuation,
}

/// What a stream brings, in this order: `Admitted`, any number of `Prefilled` and `Text`, one
/// `Finished`. An error in its place ends the stream.
#[derive(Clone, Debug)]
pub enum Event {
    /// The request has its blocks and runs from the next step on.
    Admitted(Admitted),
    /// So many tokens of the prompt have KV now.
    Prefilled { tokens: usize },
    /// More of a reply.
    Text(Delta),
    /// All choices are complete.
    Finished(Outcome),
}

/// What a request found when it was admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    pub agent: AgentId,
    pub prompt_tokens: usize,
    /// Tokens of the prompt whose KV was there; all others are computed.
    pub cached_tokens: usize,
    pub source: Source,
    /// Of the cached tokens, those that came from the store.
    pub restored_tokens: usize,
    /// What bringing them took.
    pub restore: Duration,
    pub queued: Duration,
}

/// Where the KV that a request reuses was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the pool.
    Hot,
    /// In the store only.
    Warm,
    /// Nowhere: the whole prompt is computed.
    Cold,
}

impl Source {
    /// As answers say it.
    pub fn word(self) -> &'static str {
        match self {
            Source::Hot => "hot",
            Source::Warm => "warm",
            Source::Cold => "cold",
        }
    }
}

/// More text of one choice, and the tokens it came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    pub choice: usize,
    /// May be empty: half a character, or what may become a stop sequence, is held back.
    pub text: String,
    /// One for each token since the last delta of this choice, if the request asked for them.
    pub logprobs: Vec<TokenLogprob>,
    /// Tokens since the last delta of this choice.
    pub tokens: usize,
}

/// Why a reply ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn, or its grammar has nothing more.
    Stop,
    /// This stop sequence of the request came.
    StopSequence(String),
    /// The token limit or the context is used up.
    Length,
    /// The caller went away.
    Cancelled,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it found, as its first event said.
    pub admitted: Admitted,
    /// In the order of their numbers.
    pub choices: Vec<Choice>,
    /// From admission to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    pub durability: Durability,
}

/// Whether a turn outlives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is on disk, and so are the names that lead to it.
    Durable(Generation),
    /// It is in memory at best: nothing keeps it, the disk fails or takes its time.
    NotDurable,
}

impl Durability {
    pub fn is_durable(self) -> bool {
        self.generation().is_some()
    }

    /// Of the agent's saves, that which has the turn.
    pub fn generation(self) -> Option<Generation> {
        match self {
            Durability::Durable(generation) => Some(generation),
            Durability::NotDurable => None,
        }
    }
}

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub finish: Finish,
    /// The whole reply, without the stop sequence.
    pub text: String,
    /// Tokens generated, the one that ended the turn included.
    pub completion_tokens: usize,
}

/// One item of a stream.
pub type Item = Result<Event, Error>;

/// The tokens that prompt and reply may have together within the context.
pub fn budget_tokens(
    prompt_tokens: usize,
    max_tokens: usize,
    context_tokens: usize,
) -> Result<usize, Error> {
    if prompt_tokens == 0 {
        return Err(Error::EmptyPrompt);
    }
    if max_tokens == 0 {
        return Err(Error::NoTokensWanted);
    }
    if prompt_tokens >= context_tokens {
        return Err(Error::PromptTooLong { prompt_tokens, context_tokens });
    }
    Ok(prompt_tokens.saturating_add(max_tokens).min(context_tokens))
}
