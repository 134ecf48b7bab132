//! `response_format`, and what it shares with the newer routes: what a reply is to be.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::http::error::Error;
use crate::http::fields::{goes_with, wrong};
use crate::http::tooling;
use crate::text::Schema;

/// As OpenAI has it.
const NAME_CHARS_MAX: usize = 64;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<NamedSchema>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schemars(rename = "ResponseSchema")]
struct NamedSchema {
    name: String,
    schema: Option<Map<String, Value>>,
    /// The model does not read it.
    #[serde(rename = "description")]
    _description: Option<String>,
    /// A reply keeps to its schema either way.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

impl ResponseFormat {
    /// The schema that a reply has to keep to, if there is one.
    pub fn schema(self) -> Result<Option<Schema>, Error> {
        let ResponseFormat { kind, json_schema: schema } = self;
        const FIELD: &str = "response_format.json_schema";
        if kind == "json_schema" {
            let named = schema.ok_or_else(|| missing(FIELD))?;
            return json_schema(FIELD, Some(&named.name), named.schema).map(Some);
        }
        goes_with(FIELD, schema.is_some(), &kind)?;
        plain_format(&kind, "response_format")
    }
}

/// A schema that has a name, whose fields are in this one.
pub fn json_schema(
    field: &str,
    name: Option<&str>,
    schema: Option<Map<String, Value>>,
) -> Result<Schema, Error> {
    let at = |name: &str| format!("{field}.{name}");
    let name = name.ok_or_else(|| missing(&at("name")))?;
    tooling::check_name(&at("name"), name, NAME_CHARS_MAX)?;
    let value = schema.ok_or_else(|| missing(&at("schema")))?.into();
    Ok(Schema { field: at("schema"), value })
}

/// What a format without a schema comes to, which is in this field.
pub fn plain_format(kind: &str, field: &str) -> Result<Option<Schema>, Error> {
    match kind {
        "text" => Ok(None),
        "json_object" => Ok(Some(Schema::object(field))),
        _ => {
            let expected = "\"text\", \"json_object\" or \"json_schema\"";
            Err(wrong(&format!("{field}.type"), kind, expected))
        }
    }
}

fn missing(field: &str) -> Error {
    Error::field(field, format!("{field} is missing"))
}
