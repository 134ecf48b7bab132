//! The wire format of a request, and the checked request that it becomes.

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::input::{self, Item, WireItem};
use crate::engine::Sampling;
use crate::http::chat::{flat_choice, flat_choice_field, flat_tools, json_schema, plain_format};
use crate::http::error::Error;
use crate::http::fields::{
    self, Drawing, OneOrMany, TEMPERATURE_MAX, TOKENS_MAX, goes_with, in_range, refuse_set, shown,
    unsupported, wrong,
};
use crate::http::held::{self, Fields, Format};
use crate::http::tooling::ToolChoice;
use crate::text::{Schema, Tool};
use crate::types::AgentId;

/// As OpenAI has it.
const METADATA_MAX: usize = 16;
const METADATA_NAME_CHARS_MAX: usize = 64;
const METADATA_VALUE_CHARS_MAX: usize = 512;

/// The body. Fields that we know of and do not serve may be null, as some clients write what they
/// do not set; all others are refused.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct ResponsesRequest {
    /// A text of the user, or items.
    input: OneOrMany<WireItem>,
    /// The system's words for this response; those of the one before are not carried over.
    instructions: Option<String>,
    /// Whose input and output come before this input.
    previous_response_id: Option<String>,
    /// Any name: one model is served.
    #[serde(rename = "model")]
    _model: Option<String>,
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    max_output_tokens: Option<u64>,
    #[schemars(range(min = 0.0, max = TEMPERATURE_MAX))]
    temperature: Option<f64>,
    #[schemars(range(min = 0.0, max = 1.0))]
    top_p: Option<f64>,
    #[schemars(with = "Option<Vec<WireTool>>")]
    tools: Option<Vec<Value>>,
    #[schemars(with = "Option<WireChoice>")]
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    stream: Option<bool>,
    /// Whether it can be gone on from; true if not given.
    store: Option<bool>,
    #[schemars(with = "Option<std::collections::BTreeMap<String, String>>")]
    metadata: Option<Map<String, Value>>,
    text: Option<Text>,
    truncation: Option<String>,
    /// False, if it is there.
    background: Option<bool>,
    /// Empty, if it is there.
    include: Option<Vec<String>>,
    session_id: Option<String>,
    /// Labels, which change nothing.
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<String>,
    #[serde(rename = "prompt_cache_key")]
    _prompt_cache_key: Option<String>,

    #[schemars(skip)]
    context_management: Option<IgnoredAny>,
    #[schemars(skip)]
    conversation: Option<IgnoredAny>,
    #[schemars(skip)]
    max_tool_calls: Option<IgnoredAny>,
    #[schemars(skip)]
    prompt: Option<IgnoredAny>,
    #[schemars(skip)]
    prompt_cache_retention: Option<IgnoredAny>,
    #[schemars(skip)]
    reasoning: Option<IgnoredAny>,
    #[schemars(skip)]
    service_tier: Option<IgnoredAny>,
    #[schemars(skip)]
    stream_options: Option<IgnoredAny>,
    #[schemars(skip)]
    top_logprobs: Option<IgnoredAny>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schemars(rename = "ResponseText")]
struct Text {
    format: Option<TextFormat>,
    #[schemars(skip)]
    verbosity: Option<IgnoredAny>,
}

/// What its text is to be.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schemars(rename = "ResponseTextFormat")]
pub struct TextFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<Map<String, Value>>,
    /// The model does not read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// The text keeps to its schema either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// How a choice looks. It is checked by hand, and comes back as the JSON that was sent.
#[derive(JsonSchema)]
#[schemars(rename = "ResponseToolChoice", untagged)]
#[expect(dead_code, reason = "the description of the API is made of it")]
pub enum WireChoice {
    /// `auto`, `none` or `required`.
    Word(String),
    Function(WireNamed),
}

#[derive(JsonSchema)]
#[schemars(rename = "ResponseNamedTool")]
#[expect(dead_code, reason = "the description of the API is made of it")]
pub struct WireNamed {
    #[schemars(rename = "type")]
    kind: String,
    name: String,
}

/// How a tool looks. It is checked by hand, and comes back as the JSON that was sent.
#[derive(JsonSchema)]
#[schemars(rename = "ResponseTool")]
#[expect(dead_code, reason = "the description of the API is made of it")]
struct WireTool {
    #[schemars(rename = "type")]
    kind: String,
    name: String,
    description: Option<String>,
    parameters: Option<Map<String, Value>>,
    /// Whether a call keeps to the parameters; one that `tool_choice` forces does so either way.
    strict: Option<bool>,
}

const FIELDS: Fields = Fields {
    parameters: |index| format!("tools[{index}].parameters"),
    strict: |index| format!("tools[{index}].strict"),
    parallel: "parallel_tool_calls",
};

/// A request with nothing left to check but what it goes on from, and what only the engine knows.
#[derive(Debug, PartialEq)]
pub struct Asked {
    pub items: Vec<Item>,
    pub tools: Vec<Tool>,
    pub sampling: Sampling,
    /// What the reply is to be, if the model is not free.
    pub format: Option<Format>,
    pub tool_choice: ToolChoice,
    pub is_streamed: bool,
    /// The agent, if no header names one.
    pub session: Option<AgentId>,
    pub echo: Echo,
}

/// What comes back with the answer as it was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Echo {
    /// The id of the response to go on from.
    pub previous: Option<String>,
    pub instructions: Option<String>,
    pub max_output_tokens: Option<usize>,
    pub metadata: Map<String, Value>,
    pub temperature: f64,
    pub top_p: f64,
    pub tools: Vec<Value>,
    pub tool_choice: Value,
    pub parallel_tool_calls: bool,
    pub text_format: TextFormat,
    pub is_stored: bool,
}

impl TryFrom<ResponsesRequest> for Asked {
    type Error = Error;

    fn try_from(request: ResponsesRequest) -> Result<Asked, Error> {
        refuse_unsupported(&request)?;
        let drawing = Drawing {
            temperature: request.temperature,
            top_p: request.top_p,
            ..Drawing::default()
        };
        let max = request.max_output_tokens;
        let max = max.map(|max| in_range("max_output_tokens", max, 1, TOKENS_MAX)).transpose()?;
        let wire_tools = request.tools.unwrap_or_default();
        let tools = flat_tools(&wire_tools)?;
        let is_parallel = request.parallel_tool_calls.unwrap_or(true);
        let tool_choice = flat_choice(request.tool_choice.as_ref(), is_parallel)?;
        tool_choice.check(&tools, flat_choice_field(&tool_choice))?;
        let text_format =
            request.text.and_then(|text| text.format).unwrap_or_else(TextFormat::text);
        let schema = text_format.schema()?;
        Ok(Asked {
            items: input::items(request.input)?,
            format: held::format(schema, &tools, &tool_choice, FIELDS),
            tools,
            tool_choice,
            sampling: drawing.sampling()?,
            is_streamed: request.stream.unwrap_or(false),
            session: fields::session(request.session_id.as_deref())?,
            echo: Echo {
                previous: request.previous_response_id,
                instructions: request.instructions,
                max_output_tokens: max.map(|max| max as usize),
                metadata: checked_metadata(request.metadata.unwrap_or_default())?,
                temperature: request.temperature.unwrap_or(fields::TEMPERATURE_DEFAULT),
                top_p: request.top_p.unwrap_or(1.0),
                tools: wire_tools,
                tool_choice: request.tool_choice.unwrap_or_else(|| "auto".into()),
                parallel_tool_calls: is_parallel,
                text_format,
                is_stored: request.store.unwrap_or(true),
            },
        })
    }
}

fn refuse_unsupported(request: &ResponsesRequest) -> Result<(), Error> {
    let fields = [
        ("context_management", request.context_management),
        ("conversation", request.conversation),
        ("max_tool_calls", request.max_tool_calls),
        ("prompt", request.prompt),
        ("prompt_cache_retention", request.prompt_cache_retention),
        ("reasoning", request.reasoning),
        ("service_tier", request.service_tier),
        ("stream_options", request.stream_options),
        ("top_logprobs", request.top_logprobs),
    ];
    refuse_set(&fields, "")?;
    if request.background == Some(true) {
        return Err(unsupported("background"));
    }
    if request.include.as_ref().is_some_and(|include| !include.is_empty()) {
        return Err(unsupported("include"));
    }
    match request.truncation.as_deref() {
        None | Some("disabled") => (),
        Some(other) => return Err(wrong("truncation", other, "\"disabled\"")),
    }
    refuse_set(&[("verbosity", request.text.as_ref().and_then(|text| text.verbosity))], "text.")
}

impl TextFormat {
    pub fn text() -> TextFormat {
        let kind = "text".to_owned();
        TextFormat { kind, name: None, schema: None, description: None, strict: None }
    }

    /// The schema that the text has to keep to, if there is one.
    fn schema(&self) -> Result<Option<Schema>, Error> {
        let TextFormat { kind, name, schema, description, strict } = self;
        if kind == "json_schema" {
            return json_schema("text.format", name.as_deref(), schema.clone()).map(Some);
        }
        let others = [
            ("name", name.is_some()),
            ("schema", schema.is_some()),
            ("description", description.is_some()),
            ("strict", strict.is_some()),
        ];
        for (field, is_set) in others {
            goes_with(&format!("text.format.{field}"), is_set, kind)?;
        }
        plain_format(kind, "text.format")
    }
}

/// Labels of the client's own, which come back.
fn checked_metadata(metadata: Map<String, Value>) -> Result<Map<String, Value>, Error> {
    let problem = |message: String| Err(Error::field("metadata", message));
    if metadata.len() > METADATA_MAX {
        return problem(format!("metadata has {} fields; at most {METADATA_MAX}", metadata.len()));
    }
    for (name, value) in &metadata {
        let shown = shown(name);
        let chars = name.chars().count();
        if chars > METADATA_NAME_CHARS_MAX {
            let most = METADATA_NAME_CHARS_MAX;
            return problem(format!("a name in metadata has {chars} characters; at most {most}"));
        }
        match value.as_str().map(|text| text.chars().count()) {
            None => return problem(format!("metadata's {shown} is not a text")),
            Some(chars) if chars > METADATA_VALUE_CHARS_MAX => {
                let most = METADATA_VALUE_CHARS_MAX;
                return problem(format!(
                    "metadata's {shown} has {chars} characters; at most {most}"
                ));
            }
            Some(_) => (),
        }
    }
    Ok(metadata)
}
