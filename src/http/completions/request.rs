//! The wire format of a request, and the checked request that it becomes.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::engine::{CHOICES_MAX, Sampling};
use crate::http::error::Error;
use crate::http::fields::{
    self, Drawing, OneOrMany, PENALTY_MAX, StreamOptions, TEMPERATURE_MAX, TOKENS_MAX, UsageChunk,
    WireBiases, in_range, refuse_set,
};
use crate::http::prompt::Input;
use crate::types::{AgentId, TokenId};

/// OpenAI's default, unlike that of chats.
const MAX_TOKENS_DEFAULT: u64 = 16;
/// As OpenAI has it.
const LOGPROBS_MAX: u64 = 5;

/// The body. Fields that we know of and do not serve may be null, as some clients write what they
/// do not set; all others are refused.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct CompletionRequest {
    #[schemars(with = "OneOrMany<serde_json::Value>")]
    prompt: Prompt,
    /// Any name: one model is served.
    #[serde(rename = "model")]
    _model: Option<String>,
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    max_tokens: Option<u64>,
    #[schemars(range(min = 0.0, max = TEMPERATURE_MAX))]
    temperature: Option<f64>,
    #[schemars(range(min = 0.0, max = 1.0))]
    top_p: Option<f64>,
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    top_k: Option<u64>,
    #[schemars(range(min = 0.0, max = 1.0))]
    min_p: Option<f64>,
    #[schemars(range(min = -PENALTY_MAX, max = PENALTY_MAX))]
    frequency_penalty: Option<f64>,
    #[schemars(range(min = -PENALTY_MAX, max = PENALTY_MAX))]
    presence_penalty: Option<f64>,
    #[schemars(schema_with = "fields::biases_schema")]
    logit_bias: Option<WireBiases>,
    #[schemars(range(min = 1, max = CHOICES_MAX))]
    n: Option<u64>,
    #[schemars(range(min = 1, max = CHOICES_MAX))]
    best_of: Option<u64>,
    stop: Option<OneOrMany<String>>,
    seed: Option<i64>,
    #[schemars(range(min = 0, max = LOGPROBS_MAX))]
    logprobs: Option<u64>,
    echo: Option<bool>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    session_id: Option<String>,
    /// Go on when the model ends its turn, up to `max_tokens`, as llama.cpp and vLLM have it.
    ignore_eos: Option<bool>,
    /// Labels, which change nothing.
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(rename = "store")]
    _store: Option<bool>,
    #[serde(rename = "prompt_cache_key")]
    _prompt_cache_key: Option<String>,

    #[schemars(skip)]
    suffix: Option<IgnoredAny>,
}

/// A text, ids, or a list of several, of which one is served.
enum Prompt {
    Text(String),
    List(Vec<Item>),
}

enum Item {
    Text(String),
    Token(TokenId),
    Tokens(Vec<TokenId>),
}

/// A request with nothing left to check but what only the engine knows.
#[derive(Debug, PartialEq)]
pub struct Completion {
    pub input: Input,
    pub max_tokens: usize,
    pub sampling: Sampling,
    pub stops: Vec<String>,
    pub choices: usize,
    /// With so many alternatives.
    pub logprobs: Option<usize>,
    pub is_end_ignored: bool,
    /// `None` if the answer is wanted whole.
    pub streamed: Option<UsageChunk>,
    /// The agent, if no header names one.
    pub session: Option<AgentId>,
}

impl TryFrom<CompletionRequest> for Completion {
    type Error = Error;

    fn try_from(request: CompletionRequest) -> Result<Completion, Error> {
        let max_tokens = request.max_tokens.unwrap_or(MAX_TOKENS_DEFAULT);
        let logprobs = request.logprobs.map(|top| in_range("logprobs", top, 0, LOGPROBS_MAX));
        let drawing = Drawing {
            temperature: request.temperature,
            top_p: request.top_p,
            top_k: request.top_k,
            min_p: request.min_p,
            frequency_penalty: request.frequency_penalty,
            presence_penalty: request.presence_penalty,
            logit_bias: request.logit_bias.as_ref(),
            seed: request.seed,
        };
        let completion = Completion {
            max_tokens: in_range("max_tokens", max_tokens, 1, TOKENS_MAX)? as usize,
            sampling: drawing.sampling()?,
            choices: fields::choices(request.n)?,
            logprobs: logprobs.transpose()?.map(|top| top as usize),
            streamed: fields::streamed(request.stream, request.stream_options.as_ref())?,
            is_end_ignored: request.ignore_eos.unwrap_or(false),
            session: fields::session(request.session_id.as_deref())?,
            stops: fields::stops("stop", request.stop)?,
            input: request.prompt.input()?,
        };
        refuse_set(&[("suffix", request.suffix)], "")?;
        if request.echo == Some(true) {
            return Err(Error::field("echo", "echo is true; the prompt is not sent back"));
        }
        match request.best_of {
            Some(best_of) if best_of != completion.choices as u64 => {
                let message =
                    format!("best_of is {best_of}; it is n, which is {}", completion.choices);
                Err(Error::field("best_of", message))
            }
            _ => Ok(completion),
        }
    }
}

impl Prompt {
    fn input(self) -> Result<Input, Error> {
        let mut items = match self {
            Prompt::Text(text) => return Ok(Input::Text(text)),
            Prompt::List(items) => items,
        };
        let is_one_list = items.iter().all(|item| matches!(item, Item::Token(_)));
        match (items.pop(), items.len()) {
            (None, _) => Err(Error::field("prompt", "prompt is empty")),
            (Some(Item::Text(text)), 0) => Ok(Input::Text(text)),
            (Some(Item::Tokens(tokens)), 0) => Ok(Input::Tokens(tokens)),
            (Some(Item::Token(last)), _) if is_one_list => {
                let tokens = items.into_iter().chain([Item::Token(last)]);
                Ok(Input::Tokens(tokens.filter_map(Item::token).collect()))
            }
            (Some(_), others) => {
                let message = format!("prompt has {} items; one is served at a time", others + 1);
                Err(Error::field("prompt", message))
            }
        }
    }
}

impl Item {
    fn token(self) -> Option<TokenId> {
        match self {
            Item::Token(token) => Some(token),
            Item::Text(_) | Item::Tokens(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PromptVisitor)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

/// By hand, because an untagged enum's errors name neither the place nor the reason.
struct PromptVisitor;

impl<'de> Visitor<'de> for PromptVisitor {
    type Value = Prompt;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Prompt, E> {
        Ok(Prompt::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Prompt, A::Error> {
        Ok(Prompt::List(all(list)?))
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token id, a string or a list of token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(text.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Item, E> {
        let id = u32::try_from(id).map_err(|_| E::custom(format!("{id} is no token id")))?;
        Ok(Item::Token(TokenId(id)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Item, A::Error> {
        let ids: Vec<u32> = all(list)?;
        Ok(Item::Tokens(ids.into_iter().map(TokenId).collect()))
    }
}

fn all<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(mut list: A) -> Result<Vec<T>, A::Error> {
    let mut items = Vec::new();
    while let Some(item) = list.next_element()? {
        items.push(item);
    }
    Ok(items)
}
