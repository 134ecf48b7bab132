//! The wire format of a request, and the checked request that it becomes.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::engine::{CHOICES_MAX, Sampling, TOP_LOGPROBS_MAX};
use crate::http::error::Error;
use crate::http::fields::{
    self, Drawing, OneOrMany, PENALTY_MAX, StreamOptions, TEMPERATURE_MAX, TOKENS_MAX, UsageChunk,
    WireBiases, in_range, refuse_set, wrong,
};
use crate::http::held::{self, Fields, Format};
use crate::http::reasoning::ReasoningFormat;
use crate::http::tooling::ToolChoice;
use crate::text::{Message, Tool};
use crate::types::AgentId;

use super::format::ResponseFormat;
use super::tools::{self, WireCall};

/// The body. Fields that we know of and do not serve may be null, as some clients write what they
/// do not set; all others are refused.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct ChatRequest {
    messages: Vec<WireMessage>,
    /// Any name: one model is served.
    #[serde(rename = "model")]
    _model: Option<String>,
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    max_tokens: Option<u64>,
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    max_completion_tokens: Option<u64>,
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
    stop: Option<OneOrMany<String>>,
    seed: Option<i64>,
    logprobs: Option<bool>,
    #[schemars(range(min = 0, max = TOP_LOGPROBS_MAX))]
    top_logprobs: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    response_format: Option<ResponseFormat>,
    session_id: Option<String>,
    /// Go on when the model ends its turn, up to `max_tokens`, as llama.cpp and vLLM have it.
    ignore_eos: Option<bool>,
    /// `none` leaves a model's thinking in the text; `auto` and `deepseek` tell it apart, as llama.cpp
    /// has it.
    reasoning_format: Option<String>,
    #[schemars(with = "Option<Vec<tools::WireTool>>")]
    tools: Option<Vec<Value>>,
    #[schemars(with = "Option<tools::WireChoice>")]
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    /// Labels, which change nothing.
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(rename = "store")]
    _store: Option<bool>,
    #[serde(rename = "prompt_cache_key")]
    _prompt_cache_key: Option<String>,

    #[schemars(skip)]
    audio: Option<IgnoredAny>,
    #[schemars(skip)]
    function_call: Option<IgnoredAny>,
    #[schemars(skip)]
    functions: Option<IgnoredAny>,
    #[schemars(skip)]
    metadata: Option<IgnoredAny>,
    #[schemars(skip)]
    modalities: Option<IgnoredAny>,
    #[schemars(skip)]
    prediction: Option<IgnoredAny>,
    #[schemars(skip)]
    reasoning_effort: Option<IgnoredAny>,
    #[schemars(skip)]
    service_tier: Option<IgnoredAny>,
    #[schemars(skip)]
    verbosity: Option<IgnoredAny>,
    #[schemars(skip)]
    web_search_options: Option<IgnoredAny>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schemars(rename = "ChatMessage")]
pub struct WireMessage {
    role: Role,
    content: Option<OneOrMany<Part>>,
    name: Option<String>,
    tool_call_id: Option<String>,
    tool_calls: Option<Vec<WireCall>>,
    /// What the assistant thought before it said this.
    reasoning_content: Option<String>,
    /// Empty in what OpenAI's models say.
    #[schemars(with = "Option<Vec<Value>>")]
    annotations: Option<Vec<IgnoredAny>>,

    #[schemars(skip)]
    audio: Option<IgnoredAny>,
    #[schemars(skip)]
    function_call: Option<IgnoredAny>,
    #[schemars(skip)]
    refusal: Option<IgnoredAny>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ChatRole")]
enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schemars(rename = "TextPart")]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

const FIELDS: Fields = Fields {
    parameters: |index| format!("tools[{index}].function.parameters"),
    strict: |index| format!("tools[{index}].function.strict"),
    parallel: "parallel_tool_calls",
};

/// A request with nothing left to check but what only the engine knows.
#[derive(Debug, PartialEq)]
pub struct Chat {
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
    pub tool_choice: ToolChoice,
    /// Up to the end of the context if not given, as OpenAI has it.
    pub max_tokens: Option<usize>,
    pub sampling: Sampling,
    pub stops: Vec<String>,
    pub choices: usize,
    /// With so many alternatives.
    pub logprobs: Option<usize>,
    pub is_end_ignored: bool,
    /// What the reply is to be, if the model is not free.
    pub format: Option<Format>,
    pub reasoning_format: ReasoningFormat,
    /// `None` if the answer is wanted whole.
    pub streamed: Option<UsageChunk>,
    /// The agent, if no header names one.
    pub session: Option<AgentId>,
}

impl TryFrom<ChatRequest> for Chat {
    type Error = Error;

    fn try_from(mut request: ChatRequest) -> Result<Chat, Error> {
        refuse_unsupported(&request)?;
        let schema =
            request.response_format.take().map(ResponseFormat::schema).transpose()?.flatten();
        let is_parallel = request.parallel_tool_calls.unwrap_or(true);
        let tool_choice = tools::choice(request.tool_choice.as_ref(), is_parallel)?;
        let tools = tools::tools(request.tools.take().unwrap_or_default())?;
        tool_choice.check(&tools, tools::choice_field(&tool_choice))?;
        let format = held::format(schema, &tools, &tool_choice, FIELDS);
        if format.is_some() && request.ignore_eos == Some(true) {
            let message = "ignore_eos does not go with a reply that is held to a format";
            return Err(Error::field("ignore_eos", message));
        }
        Ok(Chat {
            max_tokens: max_tokens(&request)?,
            sampling: sampling(&request)?,
            choices: fields::choices(request.n)?,
            logprobs: logprobs(&request)?,
            is_end_ignored: request.ignore_eos.unwrap_or(false),
            reasoning_format: ReasoningFormat::read(request.reasoning_format.as_deref())?
                .of_a_reply(format.as_ref()),
            streamed: fields::streamed(request.stream, request.stream_options.as_ref())?,
            session: fields::session(request.session_id.as_deref())?,
            stops: fields::stops("stop", request.stop)?,
            messages: messages(request.messages)?,
            tool_choice,
            tools,
            format,
        })
    }
}

fn refuse_unsupported(request: &ChatRequest) -> Result<(), Error> {
    let fields = [
        ("audio", request.audio),
        ("function_call", request.function_call),
        ("functions", request.functions),
        ("metadata", request.metadata),
        ("modalities", request.modalities),
        ("prediction", request.prediction),
        ("reasoning_effort", request.reasoning_effort),
        ("service_tier", request.service_tier),
        ("verbosity", request.verbosity),
        ("web_search_options", request.web_search_options),
    ];
    refuse_set(&fields, "")
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
    drawing.sampling()
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

pub fn messages(wire: Vec<WireMessage>) -> Result<Vec<Message>, Error> {
    fields::check_count("messages", wire.len())?;
    wire.into_iter().enumerate().map(message).collect()
}

fn message((index, wire): (usize, WireMessage)) -> Result<Message, Error> {
    let path = format!("messages[{index}].");
    let fields = [
        ("annotations", wire.annotations.and_then(|list| list.first().copied())),
        ("audio", wire.audio),
        ("function_call", wire.function_call),
        ("refusal", wire.refusal),
    ];
    refuse_set(&fields, &path)?;
    let calls = tools::past_calls(wire.tool_calls.unwrap_or_default(), &path)?;
    if !calls.is_empty() && !matches!(wire.role, Role::Assistant) {
        let field = format!("{path}tool_calls");
        let message = format!("{field} is there; only the assistant calls tools");
        return Err(Error::field(field, message));
    }
    let thought = wire.reasoning_content.filter(|thought| !thought.is_empty());
    if thought.is_some() && !matches!(wire.role, Role::Assistant) {
        let field = format!("{path}reasoning_content");
        let message = format!("{field} is there; only the assistant thinks aloud");
        return Err(Error::field(field, message));
    }
    let content = match wire.content {
        Some(OneOrMany::One(text)) => Some(text),
        Some(OneOrMany::Many(parts)) => Some(join(parts, &path)?),
        None if !calls.is_empty() => None,
        // It may have come to nothing else.
        None if thought.is_some() => Some(String::new()),
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
    let mut message = match calls.is_empty() {
        true => Message { role: role.to_owned(), content, extra: Map::new() },
        false => Message::calling(content, calls),
    };
    let named = [("name", wire.name), ("tool_call_id", wire.tool_call_id)];
    let named =
        named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
    message.extra.extend(named);
    Ok(match thought {
        Some(thought) => message.with_thinking(thought),
        None => message,
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
                return Err(wrong(&format!("{field}.type"), &kind, "\"text\""));
            }
        }
    }
    match texts.is_empty() {
        true => Err(Error::field(format!("{path}content"), format!("{path}content is empty"))),
        false => Ok(texts.join("\n")),
    }
}
