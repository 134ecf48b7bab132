//! The wire format of a request, and the checked request that it becomes.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::content::{self, Block, WireMessage};
use crate::engine::Sampling;
use crate::http::error::Error;
use crate::http::fields::{
    self, Drawing, OneOrMany, TOKENS_MAX, goes_with, in_range, refuse_set, unsupported, wrong,
};
use crate::http::held::{self, Fields, Format};
use crate::http::reasoning::ReasoningFormat;
use crate::http::tooling::{self, CallCount, ToolChoice};
use crate::text::{Message, Tool};
use crate::types::AgentId;

/// As Anthropic has it; above it is more than the model's own distribution.
const TEMPERATURE_MAX: f64 = 1.0;
/// As Anthropic has it.
const TOOL_NAME_CHARS_MAX: usize = 128;

/// The body. Fields that we know of and do not serve may be null, as some clients write what they
/// do not set; all others are refused.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct MessagesRequest {
    messages: Vec<WireMessage>,
    system: Option<OneOrMany<Block>>,
    #[schemars(required)]
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    max_tokens: Option<u64>,
    #[schemars(range(min = 0.0, max = TEMPERATURE_MAX))]
    temperature: Option<f64>,
    #[schemars(range(min = 0.0, max = 1.0))]
    top_p: Option<f64>,
    #[schemars(range(min = 0, max = TOKENS_MAX))]
    top_k: Option<u64>,
    stop_sequences: Option<Vec<String>>,
    stream: Option<bool>,
    tools: Option<Vec<WireTool>>,
    tool_choice: Option<WireToolChoice>,
    thinking: Option<Thinking>,
    service_tier: Option<String>,
    /// As on `/v1/chat/completions`.
    reasoning_format: Option<String>,
    session_id: Option<String>,
    /// Any name: one model is served.
    #[serde(rename = "model")]
    _model: Option<String>,
    /// Labels and hints, which change nothing: what was read before is found without being marked.
    #[serde(rename = "metadata")]
    _metadata: Option<Metadata>,
    #[serde(rename = "cache_control")]
    #[schemars(with = "Option<serde_json::Value>")]
    _cache_control: Option<IgnoredAny>,

    #[schemars(skip)]
    container: Option<IgnoredAny>,
    #[schemars(skip)]
    context_management: Option<IgnoredAny>,
    #[schemars(skip)]
    diagnostics: Option<IgnoredAny>,
    #[schemars(skip)]
    inference_geo: Option<IgnoredAny>,
    #[schemars(skip)]
    mcp_servers: Option<IgnoredAny>,
    #[schemars(skip)]
    output_config: Option<IgnoredAny>,
    #[schemars(skip)]
    output_format: Option<IgnoredAny>,
    #[schemars(skip)]
    speed: Option<IgnoredAny>,
    #[schemars(skip)]
    user_profile_id: Option<IgnoredAny>,
    #[schemars(skip)]
    workspace_id: Option<IgnoredAny>,
}

/// The same to be counted, which need not say how long an answer may be.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct CountRequest(MessagesRequest);

impl JsonSchema for CountRequest {
    fn schema_name() -> Cow<'static, str> {
        "CountRequest".into()
    }

    fn json_schema(schemas: &mut SchemaGenerator) -> Schema {
        let mut schema = MessagesRequest::json_schema(schemas);
        if let Some(Value::Array(required)) = schema.get_mut("required") {
            required.retain(|name| name != "max_tokens");
        }
        schema
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Metadata {
    #[serde(rename = "user_id")]
    _user_id: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
    /// How much of it is shown; all is.
    #[serde(rename = "display")]
    _display: Option<String>,
    budget_tokens: Option<u64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct WireToolChoice {
    #[serde(rename = "type")]
    kind: String,
    disable_parallel_tool_use: Option<bool>,
    name: Option<String>,
}

/// What only some types have may be anything, so that it is the type that is refused.
#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
struct WireTool {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
    description: Option<String>,
    input_schema: Option<Map<String, Value>>,
    strict: Option<bool>,
    defer_loading: Option<bool>,
    #[serde(rename = "cache_control")]
    #[schemars(with = "Option<serde_json::Value>")]
    _cache_control: Option<IgnoredAny>,
    /// How soon parts of an input are sent.
    #[serde(rename = "eager_input_streaming")]
    _eager_input_streaming: Option<bool>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// A request with nothing left to check but what only the engine knows.
#[derive(Debug, PartialEq)]
pub struct Asked {
    pub talk: Talk,
    pub max_tokens: usize,
    pub sampling: Sampling,
    pub stops: Vec<String>,
    pub delivery: Delivery,
    pub reasoning_format: ReasoningFormat,
    /// The agent, if no header names one.
    pub session: Option<AgentId>,
}

/// What the model reads.
#[derive(Debug, PartialEq)]
pub struct Talk {
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
    pub tool_choice: ToolChoice,
    /// What the reply is to be, if the model is not free.
    pub format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Whole,
    Streamed,
}

impl TryFrom<MessagesRequest> for Asked {
    type Error = Error;

    fn try_from(request: MessagesRequest) -> Result<Asked, Error> {
        let Manner { max_tokens, sampling, stops, delivery, reasoning_format, session } =
            Manner::of(&request)?;
        Ok(Asked {
            max_tokens: max_tokens
                .ok_or_else(|| Error::field("max_tokens", "max_tokens is missing"))?,
            sampling,
            stops,
            delivery,
            reasoning_format,
            session,
            talk: Talk::try_from(request)?.answerable()?,
        })
    }
}

/// How an answer is wanted.
struct Manner {
    max_tokens: Option<usize>,
    sampling: Sampling,
    stops: Vec<String>,
    delivery: Delivery,
    reasoning_format: ReasoningFormat,
    session: Option<AgentId>,
}

impl Manner {
    fn of(request: &MessagesRequest) -> Result<Manner, Error> {
        let max_tokens = request.max_tokens.map(|most| in_range("max_tokens", most, 1, TOKENS_MAX));
        Ok(Manner {
            max_tokens: max_tokens.transpose()?.map(|most| most as usize),
            sampling: sampling(request)?,
            stops: fields::stops(
                "stop_sequences",
                request.stop_sequences.clone().map(OneOrMany::Many),
            )?,
            delivery: match request.stream.unwrap_or(false) {
                true => Delivery::Streamed,
                false => Delivery::Whole,
            },
            reasoning_format: ReasoningFormat::read(request.reasoning_format.as_deref())?,
            session: fields::session(request.session_id.as_deref())?,
        })
    }
}

/// What would be refused is not counted either.
impl TryFrom<CountRequest> for Talk {
    type Error = Error;

    fn try_from(CountRequest(request): CountRequest) -> Result<Talk, Error> {
        Manner::of(&request)?;
        Talk::try_from(request)
    }
}

const FIELDS: Fields = Fields {
    parameters: |index| format!("tools[{index}].input_schema"),
    strict: |index| format!("tools[{index}].strict"),
    parallel: "tool_choice.disable_parallel_tool_use",
};

impl TryFrom<MessagesRequest> for Talk {
    type Error = Error;

    fn try_from(request: MessagesRequest) -> Result<Talk, Error> {
        let unserved = [
            ("container", request.container),
            ("context_management", request.context_management),
            ("diagnostics", request.diagnostics),
            ("inference_geo", request.inference_geo),
            ("mcp_servers", request.mcp_servers),
            ("output_config", request.output_config),
            ("output_format", request.output_format),
            ("speed", request.speed),
            ("user_profile_id", request.user_profile_id),
            ("workspace_id", request.workspace_id),
        ];
        refuse_set(&unserved, "")?;
        check_thinking(request.thinking)?;
        check_service_tier(request.service_tier.as_deref())?;
        let tool_choice =
            request.tool_choice.map_or(Ok(ToolChoice::Auto(CallCount::OneOrMore)), tool_choice)?;
        let tools = tools(request.tools.unwrap_or_default())?;
        let field = match tool_choice {
            ToolChoice::Named(_) => "tool_choice.name",
            ToolChoice::Auto(_) | ToolChoice::None | ToolChoice::Required(_) => "tool_choice",
        };
        tool_choice.check(&tools, field)?;
        let format = held::format(None, &tools, &tool_choice, FIELDS);
        let messages = content::messages(request.system, request.messages)?;
        Ok(Talk { messages, tools, tool_choice, format })
    }
}

impl Talk {
    /// Refuses a beginning of the reply, which templates cannot leave open.
    fn answerable(self) -> Result<Talk, Error> {
        match self.messages.last() {
            Some(last) if last.role == "assistant" => {
                let message =
                    "the last of messages is the assistant's; replies cannot be prefilled";
                Err(Error::field("messages", message))
            }
            Some(_) | None => Ok(self),
        }
    }
}

fn sampling(request: &MessagesRequest) -> Result<Sampling, Error> {
    let temperature = request.temperature.map(|t| in_range("temperature", t, 0.0, TEMPERATURE_MAX));
    let drawing = Drawing {
        temperature: temperature.transpose()?,
        top_p: request.top_p,
        // None of the likeliest is all of them, as in Anthropic's API.
        top_k: request.top_k.filter(|top_k| *top_k > 0),
        ..Drawing::default()
    };
    drawing.sampling()
}

/// `adaptive` leaves it to the model whether it thinks; here it does so if it is one that does,
/// and nothing keeps it from that.
fn check_thinking(thinking: Option<Thinking>) -> Result<(), Error> {
    let Some(Thinking { kind, budget_tokens, .. }) = thinking else { return Ok(()) };
    match kind.as_str() {
        "disabled" | "adaptive" => {
            goes_with("thinking.budget_tokens", budget_tokens.is_some(), &kind)
        }
        _ => Err(wrong("thinking.type", &kind, "\"disabled\" or \"adaptive\"")),
    }
}

fn check_service_tier(tier: Option<&str>) -> Result<(), Error> {
    match tier {
        None | Some("auto" | "standard_only") => Ok(()),
        Some(tier) => Err(wrong("service_tier", tier, "\"auto\" or \"standard_only\"")),
    }
}

fn tool_choice(choice: WireToolChoice) -> Result<ToolChoice, Error> {
    let WireToolChoice { kind, disable_parallel_tool_use, name } = choice;
    let count = match disable_parallel_tool_use {
        Some(true) => CallCount::One,
        Some(false) | None => CallCount::OneOrMore,
    };
    let missing = || Error::field("tool_choice.name", "tool_choice.name is missing");
    let (choice, name) = match (kind.as_str(), name) {
        ("auto", name) => (ToolChoice::Auto(count), name),
        ("none", name) => (ToolChoice::None, name),
        ("any", name) => (ToolChoice::Required(count), name),
        ("tool", name) => (ToolChoice::Named(name.ok_or_else(missing)?), None),
        (kind, _) => {
            let expected = "\"auto\", \"any\", \"tool\" or \"none\"";
            return Err(wrong("tool_choice.type", kind, expected));
        }
    };
    goes_with("tool_choice.name", name.is_some(), &kind)?;
    Ok(choice)
}

fn tools(wire: Vec<WireTool>) -> Result<Vec<Tool>, Error> {
    tooling::check_count(wire.len())?;
    let tools = wire.into_iter().enumerate().map(|(index, tool)| tool.checked(index));
    let tools: Vec<Tool> = tools.collect::<Result<_, _>>()?;
    tooling::check_twins(&tools, "name")?;
    Ok(tools)
}

impl WireTool {
    fn checked(self, index: usize) -> Result<Tool, Error> {
        let at = |name: &str| format!("tools[{index}].{name}");
        let missing = |name: &str| Error::field(at(name), format!("{} is missing", at(name)));
        if let Some(kind) = self.kind.filter(|kind| kind != "custom") {
            return Err(wrong(&at("type"), &kind, "\"custom\""));
        }
        if let Some((other, _)) = self.others.iter().find(|(_, value)| !value.is_null()) {
            return Err(unsupported(&at(other)));
        }
        if self.defer_loading == Some(true) {
            return Err(unsupported(&at("defer_loading")));
        }
        let name = self.name.ok_or_else(|| missing("name"))?;
        tooling::check_name(&at("name"), &name, TOOL_NAME_CHARS_MAX)?;
        let parameters = self.input_schema.ok_or_else(|| missing("input_schema"))?;
        let is_strict = self.strict.unwrap_or(false);
        Ok(Tool { is_strict, ..Tool::function(name, self.description, Some(parameters.into())) })
    }
}
