//! Fields that several routes' requests have, as they come and as they are checked.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::error::Error;
use super::random;
use crate::engine::{BIAS_MAX, BIASES_MAX, Bias, CHOICES_MAX, Sampling};
use crate::types::{AgentId, TokenId};

/// A rendering may take 300,000 steps, which is enough for about three thousand messages.
const MESSAGES_MAX: usize = 2048;
/// No model has a context near this, and other servers read it as a 32-bit number.
pub const TOKENS_MAX: u64 = i32::MAX as u64;
/// OpenAI takes four; each one costs time at every token.
const STOPS_MAX: usize = 16;
/// What may become a stop is held back from the reader.
const STOP_BYTES_MAX: usize = 1024;
/// Of a value that cannot be, what is worth repeating.
pub const SHOWN_BYTES_MAX: usize = 100;
/// The names that we know are shorter, with the path before them.
pub const FIELD_BYTES_MAX: usize = 200;
/// As OpenAI has it; above 2 nothing sensible comes out.
pub const TEMPERATURE_MAX: f64 = 2.0;
pub const PENALTY_MAX: f64 = 2.0;
/// OpenAI's default: the model's own distribution.
pub const TEMPERATURE_DEFAULT: f64 = 1.0;

/// As OpenAI has it: token ids as texts, and what is added to their logits.
pub type WireBiases = BTreeMap<String, f64>;

/// How tokens are drawn, as far as a request says it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drawing<'a> {
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u64>,
    pub min_p: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    pub logit_bias: Option<&'a WireBiases>,
    pub seed: Option<i64>,
}

/// Whether a stream ends with what it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageChunk {
    With,
    Without,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct StreamOptions {
    include_usage: Option<bool>,
}

/// A text, or a list of something that a text may stand for.
pub enum OneOrMany<T> {
    One(String),
    Many(Vec<T>),
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OneOrMany".into()
    }

    fn json_schema(schemas: &mut SchemaGenerator) -> Schema {
        let many = schemas.subschema_for::<Vec<T>>();
        json_schema!({ "anyOf": [{ "type": "string" }, many] })
    }
}

impl Drawing<'_> {
    pub fn sampling(self) -> Result<Sampling, Error> {
        let temperature = self.temperature.unwrap_or(TEMPERATURE_DEFAULT);
        let penalty = |name, given: Option<f64>| {
            let given = given.unwrap_or(0.0);
            Ok::<f32, Error>(in_range(name, given, -PENALTY_MAX, PENALTY_MAX)? as f32)
        };
        let top_k = self.top_k.map(|top_k| in_range("top_k", top_k, 1, TOKENS_MAX)).transpose()?;
        let sampling = Sampling {
            temperature: in_range("temperature", temperature, 0.0, TEMPERATURE_MAX)? as f32,
            top_k: top_k.map(|top_k| top_k as usize),
            top_p: in_range("top_p", self.top_p.unwrap_or(1.0), 0.0, 1.0)? as f32,
            min_p: in_range("min_p", self.min_p.unwrap_or(0.0), 0.0, 1.0)? as f32,
            repeat_penalty: 1.0,
            frequency_penalty: penalty("frequency_penalty", self.frequency_penalty)?,
            presence_penalty: penalty("presence_penalty", self.presence_penalty)?,
            biases: self.logit_bias.and_then(|wire| biases(wire).transpose()).transpose()?,
            seed: self.seed.map_or_else(random::number, i64::cast_unsigned),
        };
        sampling.check().expect("the ranges here lie within those of the sampler");
        Ok(sampling)
    }
}

/// `None` if there are none. Whether the ids are the model's own, the engine knows.
fn biases(wire: &WireBiases) -> Result<Option<Arc<[Bias]>>, Error> {
    if wire.len() > BIASES_MAX {
        let message = format!("logit_bias has {} tokens; at most {BIASES_MAX}", wire.len());
        return Err(Error::field("logit_bias", message));
    }
    let checked = |(key, bias): (&String, &f64)| {
        // "7", not "+7" or "07": of every token there is one.
        let id = key.parse::<u32>().ok().filter(|id| id.to_string() == *key).ok_or_else(|| {
            let message = format!("logit_bias has the key {}; a key is a token's id", shown(key));
            Error::field("logit_bias", message)
        })?;
        let most = f64::from(BIAS_MAX);
        let bias = in_range(&format!("logit_bias.{id}"), *bias, -most, most)? as f32;
        Ok(Bias { token: TokenId(id), bias })
    };
    match wire.is_empty() {
        true => Ok(None),
        false => Ok(Some(wire.iter().map(checked).collect::<Result<_, Error>>()?)),
    }
}

/// Of [`WireBiases`].
pub fn biases_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["object", "null"],
        "description": "Token ids, and what is added to their logits: -100 bans a token, 100 all \
                        but forces it.",
        "propertyNames": { "pattern": "^[0-9]+$" },
        "maxProperties": BIASES_MAX,
        "additionalProperties": { "type": "number", "minimum": -BIAS_MAX, "maximum": BIAS_MAX },
    })
}

pub fn choices(n: Option<u64>) -> Result<usize, Error> {
    Ok(in_range("n", n.unwrap_or(1), 1, CHOICES_MAX as u64)? as usize)
}

/// `None` if the answer is wanted whole.
pub fn streamed(
    stream: Option<bool>,
    options: Option<&StreamOptions>,
) -> Result<Option<UsageChunk>, Error> {
    match (stream.unwrap_or(false), options) {
        (true, options) => {
            let includes = options.and_then(|options| options.include_usage);
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

pub fn session(id: Option<&str>) -> Result<Option<AgentId>, Error> {
    let agent = id.map(AgentId::new).transpose();
    agent.map_err(|error| Error::field("session_id", format!("session_id: {error}")))
}

/// Refuses a conversation of no or of too many messages; `name` is the field's.
pub fn check_count(name: &str, messages: usize) -> Result<(), Error> {
    let problem = match messages {
        0 => format!("{name} is empty; there is at least one"),
        count if count > MESSAGES_MAX => {
            format!("{name} has {count} items; at most {MESSAGES_MAX}")
        }
        _ => return Ok(()),
    };
    Err(Error::field(name, problem))
}

/// The same of a conversation that goes on from another, of which only `new` items are its own.
pub fn check_count_after(name: &str, past: usize, new: usize) -> Result<(), Error> {
    if past == 0 || past + new <= MESSAGES_MAX {
        return check_count(name, new);
    }
    let message = format!(
        "{name} has {new} items and the responses before it have {past}; at most {MESSAGES_MAX} in \
         all: begin a new conversation"
    );
    Err(Error::field(name, message))
}

/// The texts that end a reply; `name` is the field's.
pub fn stops(name: &str, stop: Option<OneOrMany<String>>) -> Result<Vec<String>, Error> {
    let stops = match stop {
        None => Vec::new(),
        Some(OneOrMany::One(stop)) => vec![stop],
        Some(OneOrMany::Many(stops)) => stops,
    };
    let problem = match stops.iter().map(String::len).max() {
        _ if stops.len() > STOPS_MAX => {
            format!("{name} has {} texts; at most {STOPS_MAX}", stops.len())
        }
        _ if stops.iter().any(String::is_empty) => format!("a text of {name} is empty"),
        Some(bytes) if bytes > STOP_BYTES_MAX => {
            format!("a text of {name} has {bytes} bytes; at most {STOP_BYTES_MAX}")
        }
        _ => return Ok(stops),
    };
    Err(Error::field(name, problem))
}

pub fn in_range<T: PartialOrd + fmt::Debug>(
    name: &str,
    value: T,
    low: T,
    high: T,
) -> Result<T, Error> {
    match (&low..=&high).contains(&&value) {
        true => Ok(value),
        false => Err(Error::field(
            name,
            format!("{name} is {value:?}; it goes from {low:?} to {high:?}"),
        )),
    }
}

/// Refuses the first of these fields that is there. `path` is where they are.
pub fn refuse_set(fields: &[(&str, Option<IgnoredAny>)], path: &str) -> Result<(), Error> {
    match fields.iter().find(|(_, value)| value.is_some()) {
        Some((name, _)) => Err(unsupported(&format!("{path}{name}"))),
        None => Ok(()),
    }
}

/// Refuses a field that is set beside a `type` which has none such.
pub fn goes_with(field: &str, is_set: bool, kind: &str) -> Result<(), Error> {
    match is_set {
        true => Err(Error::field(field, format!("{field} does not go with type {kind:?}"))),
        false => Ok(()),
    }
}

/// Refuses a text that is none of those expected.
pub fn wrong(field: &str, given: &str, expected: &str) -> Error {
    Error::field(field, format!("{field} is {}; it is {expected}", shown(given)))
}

/// A client's text as an answer repeats it: in quotes, or only its length if it is long.
pub fn shown(text: &str) -> String {
    match text.len() {
        bytes if bytes > SHOWN_BYTES_MAX => format!("a text of {bytes} bytes"),
        _ => format!("{text:?}"),
    }
}

pub fn unsupported(field: &str) -> Error {
    let field = named(field);
    Error::field(field, format!("{field} is not supported by this server"))
}

pub fn unknown(field: &str) -> Error {
    let field = named(field);
    Error::field(field, format!("{field} is not known to this server"))
}

/// A field as an answer names it, whose name the client has chosen.
fn named(field: &str) -> &str {
    match field.len() {
        bytes if bytes > FIELD_BYTES_MAX => "a field with a long name",
        _ => field,
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
