//! The wire format of an answer.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::request::UsageChunk;
use crate::engine::{Admitted, Choice, Delta, Finish, Outcome, TokenLogprob};
use crate::http::random;
use crate::text::Tokenizer;
use crate::types::TokenId;

/// What OpenAI writes for a token that cannot come; JSON has no infinity.
const LOGPROB_MIN: f32 = -9999.0;

/// One answer under way: what all its parts have in common, and what is kept for the end.
pub struct Reply {
    id: String,
    created: u64,
    model: String,
    usage_chunk: UsageChunk,
    /// There if log-probabilities are wanted: it knows what tokens read.
    tokenizer: Option<Arc<Tokenizer>>,
    /// Per choice, until the answer is sent whole.
    logprobs: Vec<Vec<Logprob>>,
}

impl Reply {
    pub fn new(model: String, tokenizer: Option<Arc<Tokenizer>>, choices: usize) -> Reply {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Reply {
            id: format!("chatcmpl-{}{}", random::hex(), random::hex()),
            created: since.map_or(0, |elapsed| elapsed.as_secs()),
            model,
            usage_chunk: UsageChunk::Without,
            tokenizer,
            logprobs: (0..choices).map(|_| Vec::new()).collect(),
        }
    }

    pub fn with_usage(self, usage_chunk: UsageChunk) -> Reply {
        Reply { usage_chunk, ..self }
    }

    /// For [`Reply::completion`].
    pub fn keep_logprobs(&mut self, delta: &Delta) {
        let logprobs = self.read_logprobs(delta).into_iter().flatten();
        self.logprobs[delta.choice].extend(logprobs);
    }

    /// The whole answer.
    pub fn completion(self, outcome: &Outcome) -> impl Serialize + use<> {
        let has_logprobs = self.tokenizer.is_some();
        let choices = outcome.choices.iter().zip(self.logprobs).enumerate();
        Completion {
            choices: choices
                .map(|(index, (choice, logprobs))| CompletionChoice {
                    index,
                    message: Message { role: "assistant", content: choice.text.clone() },
                    logprobs: has_logprobs.then_some(Logprobs { content: logprobs }),
                    finish_reason: finish_reason(&choice.finish),
                })
                .collect(),
            usage: usage(outcome),
            semantic: semantic(outcome),
            id: self.id,
            object: "chat.completion",
            created: self.created,
            model: self.model,
        }
    }

    /// The role of each choice.
    pub fn first_chunks(&self) -> Vec<String> {
        let role = || ChunkDelta { role: Some("assistant"), content: Some(String::new()) };
        (0..self.logprobs.len()).map(|choice| self.choice_chunk(choice, role(), None)).collect()
    }

    /// More of a choice, if there is anything to show.
    pub fn chunk(&self, delta: &Delta) -> Option<String> {
        let logprobs = self.read_logprobs(delta);
        if delta.text.is_empty() && logprobs.as_ref().is_none_or(Vec::is_empty) {
            return None;
        }
        let content = ChunkDelta { role: None, content: Some(delta.text.clone()) };
        Some(self.choice_chunk(delta.choice, content, logprobs))
    }

    /// How each choice ended, then what was used. The last one says where the KV came from.
    pub fn last_chunks(&self, outcome: &Outcome) -> Vec<String> {
        let nothing = || ChunkDelta { role: None, content: None };
        let ends = outcome.choices.iter().enumerate().map(|(index, choice)| ChunkChoice {
            index,
            delta: nothing(),
            logprobs: None,
            finish_reason: Some(finish_reason(&choice.finish)),
        });
        let mut chunks: Vec<Chunk<'_>> = ends.map(|end| self.new_chunk(vec![end])).collect();
        if let UsageChunk::With = self.usage_chunk {
            let usage = Some(Some(usage(outcome)));
            chunks.push(Chunk { usage, ..self.new_chunk(Vec::new()) });
        }
        if let Some(last) = chunks.last_mut() {
            last.semantic = Some(semantic(outcome));
        }
        chunks.iter().map(to_json).collect()
    }

    fn choice_chunk(
        &self,
        index: usize,
        delta: ChunkDelta,
        logprobs: Option<Vec<Logprob>>,
    ) -> String {
        let logprobs = logprobs.map(|content| Logprobs { content });
        to_json(&self.new_chunk(vec![ChunkChoice { index, delta, logprobs, finish_reason: None }]))
    }

    fn new_chunk(&self, choices: Vec<ChunkChoice>) -> Chunk<'_> {
        Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices,
            // Null in every chunk but the last, as OpenAI does it, or not there at all.
            usage: match self.usage_chunk {
                UsageChunk::With => Some(None),
                UsageChunk::Without => None,
            },
            semantic: None,
        }
    }

    fn read_logprobs(&self, delta: &Delta) -> Option<Vec<Logprob>> {
        let tokenizer = self.tokenizer.as_ref()?;
        let read = |chosen: &TokenLogprob| {
            let top = chosen.top.iter();
            Logprob {
                chosen: Alternative::new(tokenizer, chosen.token, chosen.logprob),
                top_logprobs: top
                    .map(|(token, logprob)| Alternative::new(tokenizer, *token, *logprob))
                    .collect(),
            }
        };
        Some(delta.logprobs.iter().map(read).collect())
    }
}

fn to_json(chunk: &Chunk<'_>) -> String {
    serde_json::to_string(chunk).expect("texts and numbers are JSON")
}

fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        // Whoever cancelled is gone, and a word that OpenAI's clients do not know helps nobody.
        Finish::Stop | Finish::StopSequence(_) | Finish::Cancelled => "stop",
        Finish::Length => "length",
    }
}

fn usage(outcome: &Outcome) -> Usage {
    let completion_tokens = outcome.choices.iter().map(|choice: &Choice| choice.completion_tokens);
    let (prompt_tokens, completion_tokens) =
        (outcome.admitted.prompt_tokens, completion_tokens.sum());
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        prompt_tokens_details: PromptTokensDetails {
            cached_tokens: outcome.admitted.cached_tokens,
        },
    }
}

fn semantic(outcome: &Outcome) -> Semantic {
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

#[derive(Serialize)]
struct Completion {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<CompletionChoice>,
    usage: Usage,
    semantic: Semantic,
}

#[derive(Serialize)]
struct CompletionChoice {
    index: usize,
    message: Message,
    logprobs: Option<Logprobs>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: String,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<ChunkChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    semantic: Option<Semantic>,
}

#[derive(Serialize)]
struct ChunkChoice {
    index: usize,
    delta: ChunkDelta,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct ChunkDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Serialize)]
struct PromptTokensDetails {
    cached_tokens: usize,
}

/// What OpenAI's format has no place for: whose memory this became and where it was.
#[derive(Serialize)]
struct Semantic {
    agent: String,
    /// Of the agent's saves, that which has this turn; null if it is not on disk.
    generation: Option<u64>,
    durable: bool,
    source: &'static str,
    restored_tokens: usize,
    restore_ms: f64,
}

#[derive(Serialize)]
struct Logprobs {
    content: Vec<Logprob>,
}

#[derive(Serialize)]
struct Logprob {
    #[serde(flatten)]
    chosen: Alternative,
    top_logprobs: Vec<Alternative>,
}

#[derive(Serialize)]
struct Alternative {
    token: String,
    logprob: f32,
    /// Of a character that takes several tokens, this one's part.
    bytes: Vec<u8>,
}

impl Alternative {
    fn new(tokenizer: &Tokenizer, token: TokenId, logprob: f32) -> Alternative {
        let bytes = tokenizer.token_bytes(token).unwrap_or_default().to_vec();
        let logprob = logprob.max(LOGPROB_MIN);
        Alternative { token: String::from_utf8_lossy(&bytes).into_owned(), logprob, bytes }
    }
}
