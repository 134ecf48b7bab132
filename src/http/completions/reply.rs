//! The wire format of an answer.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

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
    choices: Vec<Progress>,
}

/// What one choice has said so far.
#[derive(Default)]
struct Progress {
    /// Characters of the tokens.
    characters: usize,
    /// Until the answer is sent whole.
    logprobs: Logprobs,
}

impl Reply {
    pub fn new(model: String, tokenizer: Option<Arc<Tokenizer>>, choices: usize) -> Reply {
        Reply {
            id: report::id("cmpl-"),
            created: report::unix_seconds(),
            model,
            usage_chunk: UsageChunk::Without,
            tokenizer,
            choices: (0..choices).map(|_| Progress::default()).collect(),
        }
    }

    pub fn with_usage(self, usage_chunk: UsageChunk) -> Reply {
        Reply { usage_chunk, ..self }
    }

    /// For [`Reply::completion`].
    pub fn keep_logprobs(&mut self, delta: &Delta) {
        if let Some(more) = self.read_logprobs(delta) {
            self.choices[delta.choice].logprobs.extend(more);
        }
    }

    /// The whole answer.
    pub fn completion(mut self, outcome: &Outcome) -> Completion {
        let has_logprobs = self.tokenizer.is_some();
        let kept = std::mem::take(&mut self.choices).into_iter().map(|choice| choice.logprobs);
        let choices = outcome.choices.iter().zip(kept).enumerate();
        let choices = choices.map(|(index, (choice, logprobs))| WireChoice {
            text: choice.text.clone(),
            index,
            logprobs: has_logprobs.then_some(logprobs),
            finish_reason: Some(finish_reason(&choice.finish)),
        });
        let choices = choices.collect();
        Completion {
            usage: Some(Some(Usage::of(outcome))),
            semantic: Some(Semantic::of(outcome)),
            ..self.part(choices)
        }
    }

    fn part(&self, choices: Vec<WireChoice>) -> Completion {
        Completion {
            id: self.id.clone(),
            object: "text_completion",
            created: self.created,
            model: self.model.clone(),
            choices,
            // Null in every chunk but the last, as OpenAI does it, or not there at all.
            usage: match self.usage_chunk {
                UsageChunk::With => Some(None),
                UsageChunk::Without => None,
            },
            semantic: None,
        }
    }

    fn read_logprobs(&mut self, delta: &Delta) -> Option<Logprobs> {
        let tokenizer = self.tokenizer.as_ref()?;
        let mut read = Logprobs::default();
        for chosen in &delta.logprobs {
            let offset = &mut self.choices[delta.choice].characters;
            read.push(tokenizer, chosen, *offset);
            *offset += characters(tokenizer, chosen.token);
        }
        Some(read)
    }
}

impl turn::Events for Reply {
    fn admitted(&mut self, _: &Admitted) -> String {
        String::new()
    }

    fn text(&mut self, delta: &Delta) -> String {
        let logprobs = self.read_logprobs(delta);
        if delta.text.is_empty() && delta.logprobs.is_empty() {
            return String::new();
        }
        let (text, index) = (delta.text.clone(), delta.choice);
        event(&self.part(vec![WireChoice { text, index, logprobs, finish_reason: None }]))
    }

    fn finished(&mut self, outcome: &Outcome) -> String {
        let ends = outcome.choices.iter().enumerate().map(|(index, choice)| {
            let finish_reason = Some(finish_reason(&choice.finish));
            WireChoice { text: String::new(), index, logprobs: None, finish_reason }
        });
        let mut parts: Vec<Completion> = ends.map(|end| self.part(vec![end])).collect();
        if let UsageChunk::With = self.usage_chunk {
            parts.push(Completion {
                usage: Some(Some(Usage::of(outcome))),
                ..self.part(Vec::new())
            });
        }
        if let Some(last) = parts.last_mut() {
            last.semantic = Some(Semantic::of(outcome));
        }
        parts.iter().map(event).collect::<String>() + &sse::event("[DONE]")
    }

    fn failed(&mut self, error: &Error) -> String {
        sse::event(&error.json(Dialect::OpenAi))
    }
}

fn event(part: &Completion) -> String {
    sse::event(&serde_json::to_string(part).expect("texts and numbers are JSON"))
}

/// The whole, or a part of a stream: OpenAI has one object for both.
#[derive(JsonSchema, Serialize)]
pub struct Completion {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<WireChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    semantic: Option<Semantic>,
}

#[derive(JsonSchema, Serialize)]
#[schemars(rename = "CompletionChoice")]
struct WireChoice {
    text: String,
    index: usize,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

/// Lists of the same length, an item for each token.
#[derive(Default, JsonSchema, Serialize)]
#[schemars(rename = "CompletionLogprobs")]
struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    /// The token itself and its alternatives.
    #[schemars(with = "Vec<std::collections::BTreeMap<String, f32>>")]
    top_logprobs: Vec<Top>,
    /// Where a token begins in the completion, in characters.
    text_offset: Vec<usize>,
}

/// Texts with their log-probabilities, an object to the client.
struct Top(Vec<(String, f32)>);

impl Serialize for Top {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(text, logprob)| (text, logprob)))
    }
}

impl Logprobs {
    fn push(&mut self, tokenizer: &Tokenizer, chosen: &TokenLogprob, offset: usize) {
        let logprob = |logprob: f32| logprob.max(report::LOGPROB_MIN);
        let all = chosen.top.iter().copied().chain([(chosen.token, chosen.logprob)]);
        let mut top: Vec<(String, f32)> = Vec::new();
        for (token, value) in all {
            let text = read(tokenizer, token);
            // Two tokens may read the same; the likelier comes first.
            if !top.iter().any(|(other, _)| *other == text) {
                top.push((text, logprob(value)));
            }
        }
        self.tokens.push(read(tokenizer, chosen.token));
        self.token_logprobs.push(logprob(chosen.logprob));
        self.top_logprobs.push(Top(top));
        self.text_offset.push(offset);
    }

    fn extend(&mut self, more: Logprobs) {
        self.tokens.extend(more.tokens);
        self.token_logprobs.extend(more.token_logprobs);
        self.top_logprobs.extend(more.top_logprobs);
        self.text_offset.extend(more.text_offset);
    }
}

/// The token's text, or its bytes if they are a part of a character, as OpenAI writes them.
fn read(tokenizer: &Tokenizer, token: TokenId) -> String {
    let bytes = tokenizer.token_bytes(token).unwrap_or_default();
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let escaped = bytes.iter().map(|byte| format!("\\x{byte:02x}"));
            format!("bytes:{}", escaped.collect::<String>())
        }
    }
}

/// Characters that begin in a token.
fn characters(tokenizer: &Tokenizer, token: TokenId) -> usize {
    let bytes = tokenizer.token_bytes(token).unwrap_or_default();
    bytes.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count()
}
