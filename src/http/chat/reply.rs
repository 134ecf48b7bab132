//! The wire format of an answer.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::{Admitted, Delta, Outcome, TokenLogprob};
use crate::http::error::{Dialect, Error};
use crate::http::fields::UsageChunk;
use crate::http::report::{self, Semantic, Usage, finish_reason};
use crate::http::{sse, turn};
use crate::text::Tokenizer;
use crate::types::TokenId;

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
        Reply {
            id: report::id("chatcmpl-"),
            created: report::unix_seconds(),
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
    pub fn completion(self, outcome: &Outcome) -> Completion {
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
            usage: Usage::of(outcome),
            semantic: Semantic::of(outcome),
            id: self.id,
            object: "chat.completion",
            created: self.created,
            model: self.model,
        }
    }

    /// The role of each choice.
    fn first_chunks(&self) -> Vec<String> {
        let role = || ChunkDelta { role: Some("assistant"), content: Some(String::new()) };
        (0..self.logprobs.len()).map(|choice| self.choice_chunk(choice, role(), None)).collect()
    }

    /// More of a choice, if there is anything to show.
    fn chunk(&self, delta: &Delta) -> Option<String> {
        let logprobs = self.read_logprobs(delta);
        if delta.text.is_empty() && logprobs.as_ref().is_none_or(Vec::is_empty) {
            return None;
        }
        let content = ChunkDelta { role: None, content: Some(delta.text.clone()) };
        Some(self.choice_chunk(delta.choice, content, logprobs))
    }

    /// How each choice ended, then what was used. The last one says where the KV came from.
    fn last_chunks(&self, outcome: &Outcome) -> Vec<String> {
        let nothing = || ChunkDelta { role: None, content: None };
        let ends = outcome.choices.iter().enumerate().map(|(index, choice)| ChunkChoice {
            index,
            delta: nothing(),
            logprobs: None,
            finish_reason: Some(finish_reason(&choice.finish)),
        });
        let mut chunks: Vec<Chunk<'_>> = ends.map(|end| self.new_chunk(vec![end])).collect();
        if let UsageChunk::With = self.usage_chunk {
            let usage = Some(Some(Usage::of(outcome)));
            chunks.push(Chunk { usage, ..self.new_chunk(Vec::new()) });
        }
        if let Some(last) = chunks.last_mut() {
            last.semantic = Some(Semantic::of(outcome));
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

impl turn::Events for Reply {
    fn admitted(&mut self, _: &Admitted) -> String {
        events(&self.first_chunks())
    }

    fn text(&mut self, delta: &Delta) -> String {
        self.chunk(delta).map_or_else(String::new, |chunk| sse::event(&chunk))
    }

    fn finished(&mut self, outcome: &Outcome) -> String {
        events(&self.last_chunks(outcome)) + &sse::event("[DONE]")
    }

    fn failed(&mut self, error: &Error) -> String {
        sse::event(&error.json(Dialect::OpenAi))
    }
}

fn events(chunks: &[String]) -> String {
    chunks.iter().map(|chunk| sse::event(chunk)).collect()
}

fn to_json(chunk: &Chunk<'_>) -> String {
    serde_json::to_string(chunk).expect("texts and numbers are JSON")
}

#[derive(JsonSchema, Serialize)]
#[schemars(rename = "ChatCompletion")]
pub struct Completion {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<CompletionChoice>,
    usage: Usage,
    semantic: Semantic,
}

#[derive(JsonSchema, Serialize)]
#[schemars(rename = "ChatChoice")]
struct CompletionChoice {
    index: usize,
    message: Message,
    logprobs: Option<Logprobs>,
    finish_reason: &'static str,
}

#[derive(JsonSchema, Serialize)]
#[schemars(rename = "ChatReply")]
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

#[derive(JsonSchema, Serialize)]
#[schemars(rename = "ChatLogprobs")]
struct Logprobs {
    content: Vec<Logprob>,
}

#[derive(JsonSchema, Serialize)]
struct Logprob {
    #[serde(flatten)]
    chosen: Alternative,
    top_logprobs: Vec<Alternative>,
}

#[derive(JsonSchema, Serialize)]
struct Alternative {
    token: String,
    logprob: f32,
    /// Of a character that takes several tokens, this one's part.
    bytes: Vec<u8>,
}

impl Alternative {
    fn new(tokenizer: &Tokenizer, token: TokenId, logprob: f32) -> Alternative {
        let bytes = tokenizer.token_bytes(token).unwrap_or_default().to_vec();
        let logprob = logprob.max(report::LOGPROB_MIN);
        Alternative { token: String::from_utf8_lossy(&bytes).into_owned(), logprob, bytes }
    }
}
