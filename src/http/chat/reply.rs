//! The wire format of an answer.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::{Admitted, Delta, Outcome, TokenLogprob};
use crate::http::error::{Dialect, Error};
use crate::http::fields::UsageChunk;
use crate::http::report::{self, Semantic, Usage};
use crate::http::{sse, turn};
use crate::text::{ReplyReader, Tokenizer};
use crate::types::TokenId;

use super::said::{More, Said};

/// One answer under way: what all its parts have in common, and what is kept for the end.
pub struct Reply {
    id: String,
    created: u64,
    model: String,
    usage_chunk: UsageChunk,
    /// There if log-probabilities are wanted: it knows what tokens read.
    tokenizer: Option<Arc<Tokenizer>>,
    choices: Vec<Said>,
    /// Of each choice, those that are not sent yet.
    logprobs: Vec<Vec<Logprob>>,
}

impl Reply {
    pub fn new(model: String, tokenizer: Option<Arc<Tokenizer>>, choices: Vec<Said>) -> Reply {
        Reply {
            id: report::id("chatcmpl-"),
            created: report::unix_seconds(),
            model,
            usage_chunk: UsageChunk::Without,
            tokenizer,
            logprobs: choices.iter().map(|_| Vec::new()).collect(),
            choices,
        }
    }

    /// One choice that is text as it is.
    pub fn of_text(model: String) -> Reply {
        Reply::new(model, None, vec![Said::new(ReplyReader::new(None, None))])
    }

    pub fn with_usage(self, usage_chunk: UsageChunk) -> Reply {
        Reply { usage_chunk, ..self }
    }

    /// For what is sent next, which may be the whole answer.
    pub fn keep_logprobs(&mut self, delta: &Delta) {
        if let Some(tokenizer) = &self.tokenizer {
            let logprobs = delta.logprobs.iter().map(|chosen| Logprob::new(tokenizer, chosen));
            self.logprobs[delta.choice].extend(logprobs);
        }
    }

    /// The whole answer.
    pub fn completion(self, outcome: &Outcome) -> Completion {
        let has_logprobs = self.tokenizer.is_some();
        let choices = outcome.choices.iter().zip(self.choices).zip(self.logprobs).enumerate();
        Completion {
            choices: choices
                .map(|(index, ((choice, mut said), logprobs))| CompletionChoice {
                    index,
                    message: Message::new(said.push(&choice.text), said.finish()),
                    logprobs: has_logprobs.then_some(Logprobs { content: logprobs }),
                    finish_reason: said.finish_reason(&choice.finish),
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
        let role = || ChunkDelta {
            role: Some("assistant"),
            content: Some(String::new()),
            ..ChunkDelta::default()
        };
        (0..self.choices.len()).map(|choice| self.choice_chunk(choice, role(), None)).collect()
    }

    /// More of a choice, if there is anything to show. The log-probabilities of what is held back
    /// go with what comes next.
    fn chunks(&mut self, choice: usize, more: Vec<More>) -> Vec<String> {
        let mut chunks = Vec::new();
        for delta in more.into_iter().flat_map(ChunkDelta::of) {
            let logprobs = self.take_logprobs(choice);
            let is_nothing = logprobs.as_ref().is_none_or(Vec::is_empty);
            if delta.content.as_deref() != Some("") || !is_nothing {
                chunks.push(self.choice_chunk(choice, delta, logprobs));
            }
        }
        chunks
    }

    /// What was held back, how each choice ended, then what was used. The last one says where the
    /// KV came from.
    fn last_chunks(&mut self, outcome: &Outcome) -> Vec<String> {
        let mut chunks = Vec::new();
        for choice in 0..self.choices.len() {
            let rest = self.choices[choice].finish();
            chunks.extend(self.chunks(choice, rest));
        }
        let left: Vec<Option<Vec<Logprob>>> =
            (0..self.choices.len()).map(|choice| self.take_logprobs(choice)).collect();
        let ends = outcome.choices.iter().zip(left).enumerate();
        let ends = ends.map(|(index, (choice, logprobs))| ChunkChoice {
            index,
            delta: ChunkDelta::default(),
            logprobs: logprobs
                .filter(|logprobs| !logprobs.is_empty())
                .map(|content| Logprobs { content }),
            finish_reason: Some(self.choices[index].finish_reason(&choice.finish)),
        });
        let mut ends: Vec<Chunk<'_>> = ends.map(|end| self.new_chunk(vec![end])).collect();
        if let UsageChunk::With = self.usage_chunk {
            let usage = Some(Some(Usage::of(outcome)));
            ends.push(Chunk { usage, ..self.new_chunk(Vec::new()) });
        }
        if let Some(last) = ends.last_mut() {
            last.semantic = Some(Semantic::of(outcome));
        }
        chunks.extend(ends.iter().map(to_json));
        chunks
    }

    /// `None` if none are wanted.
    fn take_logprobs(&mut self, choice: usize) -> Option<Vec<Logprob>> {
        let logprobs = std::mem::take(&mut self.logprobs[choice]);
        self.tokenizer.is_some().then_some(logprobs)
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
}

impl turn::Events for Reply {
    fn admitted(&mut self, _: &Admitted) -> String {
        events(&self.first_chunks())
    }

    fn text(&mut self, delta: &Delta) -> String {
        self.keep_logprobs(delta);
        let more = self.choices[delta.choice].push(&delta.text);
        events(&self.chunks(delta.choice, more))
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
    /// What the model thought before. Not there if that is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    /// Null if it is all calls.
    content: Option<String>,
    /// Not there if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    tool_calls: Vec<Call>,
}

#[derive(JsonSchema, Serialize)]
#[schemars(rename = "ChatReplyCall")]
struct Call {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Called,
}

#[derive(JsonSchema, Serialize)]
#[schemars(rename = "ChatReplyFunction")]
struct Called {
    name: String,
    arguments: String,
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

#[derive(Default, Serialize)]
struct ChunkDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallDelta; 1]>,
}

/// First who is called, then how.
#[derive(Serialize)]
struct CallDelta {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: CalledDelta,
}

#[derive(Serialize)]
struct CalledDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
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

impl Message {
    fn new(said: Vec<More>, rest: Vec<More>) -> Message {
        let (mut thought, mut text) = (String::new(), String::new());
        let mut tool_calls = Vec::new();
        for more in said.into_iter().chain(rest) {
            match more {
                More::Thought(more) => thought.push_str(&more),
                More::Text(more) => text.push_str(&more),
                More::Call { id, call, .. } => {
                    let function = Called { name: call.name, arguments: call.arguments_json };
                    tool_calls.push(Call { id, kind: "function", function });
                }
            }
        }
        let content = Some(text).filter(|text| !text.is_empty() || tool_calls.is_empty());
        let reasoning_content = Some(thought).filter(|thought| !thought.is_empty());
        Message { role: "assistant", reasoning_content, content, tool_calls }
    }
}

impl ChunkDelta {
    fn of(more: More) -> Vec<ChunkDelta> {
        let calling = |call| ChunkDelta { tool_calls: Some([call]), ..ChunkDelta::default() };
        match more {
            More::Thought(thought) => {
                vec![ChunkDelta { reasoning_content: Some(thought), ..ChunkDelta::default() }]
            }
            More::Text(text) => {
                vec![ChunkDelta { content: Some(text), ..ChunkDelta::default() }]
            }
            More::Call { index, id, call } => {
                let who = CalledDelta { name: Some(call.name), arguments: String::new() };
                let how = CalledDelta { name: None, arguments: call.arguments_json };
                vec![
                    calling(CallDelta {
                        index,
                        id: Some(id),
                        kind: Some("function"),
                        function: who,
                    }),
                    calling(CallDelta { index, id: None, kind: None, function: how }),
                ]
            }
        }
    }
}

impl Logprob {
    fn new(tokenizer: &Tokenizer, chosen: &TokenLogprob) -> Logprob {
        let top = chosen.top.iter();
        Logprob {
            chosen: Alternative::new(tokenizer, chosen.token, chosen.logprob),
            top_logprobs: top
                .map(|(token, logprob)| Alternative::new(tokenizer, *token, *logprob))
                .collect(),
        }
    }
}

impl Alternative {
    fn new(tokenizer: &Tokenizer, token: TokenId, logprob: f32) -> Alternative {
        let bytes = tokenizer.token_bytes(token).unwrap_or_default().to_vec();
        let logprob = logprob.max(report::LOGPROB_MIN);
        Alternative { token: String::from_utf8_lossy(&bytes).into_owned(), logprob, bytes }
    }
}
