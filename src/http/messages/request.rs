//! The wire format of a request, and the checked request that it becomes.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::content::{self, Block, WireMessage};
use crate::engine::Sampling;
use crate::http::error::Error;
use crate::http::fields::{
    self, Drawing, OneOrMany, TOKENS_MAX, in_range, refuse_set, unsupported,
};
use crate::text::{Message, Tool};
use crate::types::AgentId;

/// As Anthropic has it; above it is more than the model's own distribution.
const TEMPERATURE_MAX: f64 = 1.0;
/// Each one is read by the model at every turn.
const TOOLS_MAX: usize = 128;
/// As Anthropic has it.
const TOOL_NAME_CHARS_MAX: usize = 128;

/// The body. Fields that we know of and do not serve may be null, as some clients write what they
/// do not set; all others are refused.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct MessagesRequest {
    messages: Vec<WireMessage>,
    system: Option<OneOrMany<Block>>,
    max_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<u64>,
    stop_sequences: Option<Vec<String>>,
    stream: Option<bool>,
    tools: Option<Vec<WireTool>>,
    tool_choice: Option<WireToolChoice>,
    thinking: Option<Thinking>,
    service_tier: Option<String>,
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
    /// How much of it is shown; there is none.
    #[serde(rename = "display")]
    _display: Option<String>,
    #[serde(rename = "budget_tokens")]
    _budget_tokens: Option<u64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct WireToolChoice {
    #[serde(rename = "type")]
    kind: String,
    disable_parallel_tool_use: Option<bool>,
    #[serde(rename = "name")]
    _name: Option<String>,
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
    /// The agent, if no header names one.
    pub session: Option<AgentId>,
}

/// What the model reads.
#[derive(Debug, PartialEq)]
pub struct Talk {
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
    pub tool_choice: ToolChoice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Whole,
    Streamed,
}

/// Whether calls are looked for. The model reads of its tools either way, so that a conversation
/// which changes its mind begins as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    Auto,
    None,
}

impl TryFrom<MessagesRequest> for Asked {
    type Error = Error;

    fn try_from(mut request: MessagesRequest) -> Result<Asked, Error> {
        let max_tokens = request
            .max_tokens
            .ok_or_else(|| Error::field("max_tokens", "max_tokens is missing"))?;
        let stops = request.stop_sequences.take().map(OneOrMany::Many);
        Ok(Asked {
            max_tokens: in_range("max_tokens", max_tokens, 1, TOKENS_MAX)? as usize,
            sampling: sampling(&request)?,
            stops: fields::stops("stop_sequences", stops)?,
            delivery: match request.stream.unwrap_or(false) {
                true => Delivery::Streamed,
                false => Delivery::Whole,
            },
            session: fields::session(request.session_id.as_deref())?,
            talk: Talk::try_from(request)?.answerable()?,
        })
    }
}

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
        Ok(Talk {
            messages: content::messages(request.system, request.messages)?,
            tools: tools(request.tools.unwrap_or_default())?,
            tool_choice: request.tool_choice.map_or(Ok(ToolChoice::Auto), tool_choice)?,
        })
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

/// `adaptive` leaves it to the model whether it thinks; here it does so within its text, if it is
/// one that does.
fn check_thinking(thinking: Option<Thinking>) -> Result<(), Error> {
    let Some(Thinking { kind, .. }) = thinking else { return Ok(()) };
    match kind.as_str() {
        "disabled" | "adaptive" => Ok(()),
        _ => {
            let message = format!("thinking.type is {kind:?}; it is \"disabled\" or \"adaptive\"");
            Err(Error::field("thinking.type", message))
        }
    }
}

fn check_service_tier(tier: Option<&str>) -> Result<(), Error> {
    match tier {
        None | Some("auto" | "standard_only") => Ok(()),
        Some(tier) => {
            let message = format!("service_tier is {tier:?}; it is \"auto\" or \"standard_only\"");
            Err(Error::field("service_tier", message))
        }
    }
}

fn tool_choice(choice: WireToolChoice) -> Result<ToolChoice, Error> {
    if choice.disable_parallel_tool_use == Some(true) {
        return Err(unsupported("tool_choice.disable_parallel_tool_use"));
    }
    match choice.kind.as_str() {
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::None),
        kind => {
            let message = format!("tool_choice.type is {kind:?}; it is \"auto\" or \"none\"");
            Err(Error::field("tool_choice.type", message))
        }
    }
}

fn tools(wire: Vec<WireTool>) -> Result<Vec<Tool>, Error> {
    if wire.len() > TOOLS_MAX {
        let message = format!("tools has {} items; at most {TOOLS_MAX}", wire.len());
        return Err(Error::field("tools", message));
    }
    let tools = wire.into_iter().enumerate().map(|(index, tool)| tool.checked(index));
    let tools: Vec<Tool> = tools.collect::<Result<_, _>>()?;
    let mut names = HashSet::new();
    match tools.iter().position(|tool| !names.insert(tool.name.as_str())) {
        Some(index) => {
            let field = format!("tools[{index}].name");
            let message = format!("{field} is {:?}, which another tool has", tools[index].name);
            Err(Error::field(field, message))
        }
        None => Ok(tools),
    }
}

impl WireTool {
    fn checked(self, index: usize) -> Result<Tool, Error> {
        let at = |name: &str| format!("tools[{index}].{name}");
        let missing = |name: &str| Error::field(at(name), format!("{} is missing", at(name)));
        if let Some(kind) = self.kind.filter(|kind| kind != "custom") {
            let message = format!("{} is {kind:?}; only \"custom\" is supported", at("type"));
            return Err(Error::field(at("type"), message));
        }
        if let Some((other, _)) = self.others.iter().find(|(_, value)| !value.is_null()) {
            return Err(unsupported(&at(other)));
        }
        for (name, value) in [("strict", self.strict), ("defer_loading", self.defer_loading)] {
            if value == Some(true) {
                return Err(unsupported(&at(name)));
            }
        }
        let name = self.name.ok_or_else(|| missing("name"))?;
        check_tool_name(&at("name"), &name)?;
        let parameters = self.input_schema.ok_or_else(|| missing("input_schema"))?;
        Ok(Tool::function(name, self.description, Some(parameters.into())))
    }
}

fn check_tool_name(field: &str, name: &str) -> Result<(), Error> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let is_name = (1..=TOOL_NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(is_plain);
    match is_name {
        true => Ok(()),
        false => {
            let message = format!(
                "{field} is {name:?}; it has 1 to {TOOL_NAME_CHARS_MAX} letters, digits, _, - and ."
            );
            Err(Error::field(field, message))
        }
    }
}
