//! The wire format of a request, and the checked request that it becomes.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Map;

use crate::engine::{CHOICES_MAX, Sampling, TOP_LOGPROBS_MAX};
use crate::http::error::Error;
use crate::http::random;
use crate::text::{Message, Tool};
use crate::types::AgentId;

/// A rendering may take 300,000 steps, which is enough for about three thousand messages.
const MESSAGES_MAX: usize = 2048;
/// No model has a context near this, and other servers read it as a 32-bit number.
const TOKENS_MAX: u64 = i32::MAX as u64;
/// OpenAI takes four; each one costs time at every token.
const STOPS_MAX: usize = 16;
/// What may become a stop is held back from the reader.
const STOP_BYTES_MAX: usize = 1024;
/// As OpenAI has it; above 2 nothing sensible comes out.
const TEMPERATURE_MAX: f64 = 2.0;
const PENALTY_MAX: f64 = 2.0;
/// OpenAI's default: the model's own distribution.
const TEMPERATURE_DEFAULT: f64 = 1.0;

/// The body. Fields that we know of and do not serve may be null, as some clients write what they
/// do not set; all others are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct ChatRequest {
    messages: Vec<WireMessage>,
    /// Any name: one model is served.
    #[serde(rename = "model")]
    _model: Option<String>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<u64>,
    min_p: Option<f64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    n: Option<u64>,
    stop: Option<OneOrMany<String>>,
    seed: Option<i64>,
    logprobs: Option<bool>,
    top_logprobs: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    response_format: Option<ResponseFormat>,
    session_id: Option<String>,
    /// Labels, which change nothing.
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(rename = "store")]
    _store: Option<bool>,
    #[serde(rename = "prompt_cache_key")]
    _prompt_cache_key: Option<String>,

    audio: Option<IgnoredAny>,
    function_call: Option<IgnoredAny>,
    functions: Option<IgnoredAny>,
    logit_bias: Option<IgnoredAny>,
    metadata: Option<IgnoredAny>,
    modalities: Option<IgnoredAny>,
    parallel_tool_calls: Option<IgnoredAny>,
    prediction: Option<IgnoredAny>,
    reasoning_effort: Option<IgnoredAny>,
    service_tier: Option<IgnoredAny>,
    tool_choice: Option<IgnoredAny>,
    tools: Option<IgnoredAny>,
    verbosity: Option<IgnoredAny>,
    web_search_options: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct WireMessage {
    role: Role,
    content: Option<OneOrMany<Part>>,
    name: Option<String>,
    tool_call_id: Option<String>,

    annotations: Option<IgnoredAny>,
    audio: Option<IgnoredAny>,
    function_call: Option<IgnoredAny>,
    refusal: Option<IgnoredAny>,
    tool_calls: Option<IgnoredAny>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
}

/// A text, or a list of something that a text may stand for.
enum OneOrMany<T> {
    One(String),
    Many(Vec<T>),
}

/// A request with nothing left to check but what only the engine knows.
#[derive(Debug, PartialEq)]
pub struct Chat {
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
    /// Up to the end of the context if not given, as OpenAI has it.
    pub max_tokens: Option<usize>,
    pub sampling: Sampling,
    pub stops: Vec<String>,
    pub choices: usize,
    /// With so many alternatives.
    pub logprobs: Option<usize>,
    /// `None` if the answer is wanted whole.
    pub streamed: Option<UsageChunk>,
    /// The agent, if no header names one.
    pub session: Option<AgentId>,
}

/// Whether a stream ends with what it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageChunk {
    With,
    Without,
}

impl TryFrom<ChatRequest> for Chat {
    type Error = Error;

    fn try_from(request: ChatRequest) -> Result<Chat, Error> {
        refuse_unsupported(&request)?;
        Ok(Chat {
            max_tokens: max_tokens(&request)?,
            sampling: sampling(&request)?,
            choices: choices(&request)?,
            logprobs: logprobs(&request)?,
            streamed: streamed(&request)?,
            session: session(&request)?,
            stops: stops(request.stop)?,
            messages: messages(request.messages)?,
            tools: Vec::new(),
        })
    }
}

fn refuse_unsupported(request: &ChatRequest) -> Result<(), Error> {
    let fields = [
        ("audio", request.audio),
        ("function_call", request.function_call),
        ("functions", request.functions),
        ("logit_bias", request.logit_bias),
        ("metadata", request.metadata),
        ("modalities", request.modalities),
        ("parallel_tool_calls", request.parallel_tool_calls),
        ("prediction", request.prediction),
        ("reasoning_effort", request.reasoning_effort),
        ("service_tier", request.service_tier),
        ("tool_choice", request.tool_choice),
        ("tools", request.tools),
        ("verbosity", request.verbosity),
        ("web_search_options", request.web_search_options),
    ];
    refuse_set(&fields, "")?;
    match &request.response_format {
        Some(format) if format.kind != "text" => {
            let message = format!("response_format.type is {:?}; it is \"text\"", format.kind);
            Err(Error::field("response_format.type", message))
        }
        _ => Ok(()),
    }
}

fn refuse_set(fields: &[(&str, Option<IgnoredAny>)], path: &str) -> Result<(), Error> {
    match fields.iter().find(|(_, value)| value.is_some()) {
        Some((name, _)) => Err(unsupported(&format!("{path}{name}"))),
        None => Ok(()),
    }
}

fn unsupported(field: &str) -> Error {
    Error::field(field, format!("{field} is not supported by this server"))
}

fn max_tokens(request: &ChatRequest) -> Result<Option<usize>, Error> {
    // The older name is still what most clients send.
    let (name, given) = match (request.max_completion_tokens, request.max_tokens) {
        (Some(new), Some(old)) if new != old => {
            let message = format!("max_tokens is {old} and max_completion_tokens {new}; give one");
            return Err(Error::field("max_tokens", message));
        }
        (Some(new), _) => ("max_completion_tokens", new),
        (None, Some(old)) => ("max_tokens", old),
        (None, None) => return Ok(None),
    };
    Ok(Some(in_range(name, given, 1, TOKENS_MAX)? as usize))
}

fn sampling(request: &ChatRequest) -> Result<Sampling, Error> {
    let temperature = request.temperature.unwrap_or(TEMPERATURE_DEFAULT);
    let penalty = |name, given: Option<f64>| {
        Ok::<f32, Error>(in_range(name, given.unwrap_or(0.0), -PENALTY_MAX, PENALTY_MAX)? as f32)
    };
    let top_k = request.top_k.map(|top_k| in_range("top_k", top_k, 1, TOKENS_MAX)).transpose()?;
    let sampling = Sampling {
        temperature: in_range("temperature", temperature, 0.0, TEMPERATURE_MAX)? as f32,
        top_k: top_k.map(|top_k| top_k as usize),
        top_p: in_range("top_p", request.top_p.unwrap_or(1.0), 0.0, 1.0)? as f32,
        min_p: in_range("min_p", request.min_p.unwrap_or(0.0), 0.0, 1.0)? as f32,
        repeat_penalty: 1.0,
        frequency_penalty: penalty("frequency_penalty", request.frequency_penalty)?,
        presence_penalty: penalty("presence_penalty", request.presence_penalty)?,
        seed: request.seed.map_or_else(random::number, i64::cast_unsigned),
    };
    sampling.check().expect("the ranges here lie within those of the sampler");
    Ok(sampling)
}

fn choices(request: &ChatRequest) -> Result<usize, Error> {
    Ok(in_range("n", request.n.unwrap_or(1), 1, CHOICES_MAX as u64)? as usize)
}

fn logprobs(request: &ChatRequest) -> Result<Option<usize>, Error> {
    match (request.logprobs.unwrap_or(false), request.top_logprobs) {
        (true, top) => {
            let top = in_range("top_logprobs", top.unwrap_or(0), 0, TOP_LOGPROBS_MAX as u64)?;
            Ok(Some(top as usize))
        }
        (false, None) => Ok(None),
        (false, Some(_)) => {
            Err(Error::field("top_logprobs", "top_logprobs needs logprobs to be true"))
        }
    }
}

fn streamed(request: &ChatRequest) -> Result<Option<UsageChunk>, Error> {
    match (request.stream.unwrap_or(false), &request.stream_options) {
        (true, options) => {
            let includes = options.as_ref().and_then(|options| options.include_usage);
            Ok(Some(match includes.unwrap_or(false) {
                true => UsageChunk::With,
                false => UsageChunk::Without,
            }))
        }
        (false, None) => Ok(None),
        (false, Some(_)) => {
            Err(Error::field("stream_options", "stream_options needs stream to be true"))
        }
    }
}

fn session(request: &ChatRequest) -> Result<Option<AgentId>, Error> {
    let agent = request.session_id.as_deref().map(AgentId::new).transpose();
    agent.map_err(|error| Error::field("session_id", format!("session_id: {error}")))
}

fn stops(stop: Option<OneOrMany<String>>) -> Result<Vec<String>, Error> {
    let stops = match stop {
        None => Vec::new(),
        Some(OneOrMany::One(stop)) => vec![stop],
        Some(OneOrMany::Many(stops)) => stops,
    };
    let problem = match stops.iter().map(String::len).max() {
        _ if stops.len() > STOPS_MAX => {
            format!("stop has {} texts; at most {STOPS_MAX}", stops.len())
        }
        _ if stops.iter().any(String::is_empty) => "a stop text is empty".to_owned(),
        Some(bytes) if bytes > STOP_BYTES_MAX => {
            format!("a stop text has {bytes} bytes; at most {STOP_BYTES_MAX}")
        }
        _ => return Ok(stops),
    };
    Err(Error::field("stop", problem))
}

fn messages(wire: Vec<WireMessage>) -> Result<Vec<Message>, Error> {
    match wire.len() {
        0 => Err(Error::field("messages", "messages is empty; there is at least one")),
        count if count > MESSAGES_MAX => {
            let message = format!("messages has {count} items; at most {MESSAGES_MAX}");
            Err(Error::field("messages", message))
        }
        _ => wire.into_iter().enumerate().map(message).collect(),
    }
}

fn message((index, wire): (usize, WireMessage)) -> Result<Message, Error> {
    let path = format!("messages[{index}].");
    let fields = [
        ("annotations", wire.annotations),
        ("audio", wire.audio),
        ("function_call", wire.function_call),
        ("refusal", wire.refusal),
        ("tool_calls", wire.tool_calls),
    ];
    refuse_set(&fields, &path)?;
    let content = match wire.content {
        Some(OneOrMany::One(text)) => text,
        Some(OneOrMany::Many(parts)) => join(parts, &path)?,
        None => {
            let field = format!("{path}content");
            return Err(Error::field(field.as_str(), format!("{field} is missing")));
        }
    };
    // Templates know the older name only.
    let role = match wire.role {
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let named = [("name", wire.name), ("tool_call_id", wire.tool_call_id)];
    let extra =
        named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
    Ok(Message {
        role: role.to_owned(),
        content: Some(content),
        extra: extra.collect::<Map<_, _>>(),
    })
}

/// Parts are joined by line breaks, as vLLM and llama.cpp do it.
fn join(parts: Vec<Part>, path: &str) -> Result<String, Error> {
    let mut texts = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        let field = format!("{path}content[{index}]");
        match part {
            Part { kind, text: Some(text) } if kind == "text" => texts.push(text),
            Part { kind, text: None } if kind == "text" => {
                let field = format!("{field}.text");
                return Err(Error::field(field.as_str(), format!("{field} is missing")));
            }
            Part { kind, .. } => {
                let message = format!("{field}.type is {kind:?}; only \"text\" is supported");
                return Err(Error::field(format!("{field}.type"), message));
            }
        }
    }
    match texts.is_empty() {
        true => Err(Error::field(format!("{path}content"), format!("{path}content is empty"))),
        false => Ok(texts.join("\n")),
    }
}

fn in_range<T: PartialOrd + fmt::Debug>(name: &str, value: T, low: T, high: T) -> Result<T, Error> {
    match (&low..=&high).contains(&&value) {
        true => Ok(value),
        false => Err(Error::field(
            name,
            format!("{name} is {value:?}; it goes from {low:?} to {high:?}"),
        )),
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

/// By hand, because an untagged enum's errors name neither the place nor the reason.
struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(OneOrMany::One(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(OneOrMany::One(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(OneOrMany::Many(items))
    }
}
