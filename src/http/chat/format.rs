//! `response_format`: what a reply is to be.

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
        let ResponseFormat { kind, json_schema } = self;
        match kind.as_str() {
            "text" | "json_object" => {
                goes_with("response_format.json_schema", json_schema.is_some(), &kind)?;
                Ok((kind == "json_object").then(|| Schema::object("response_format")))
            }
            "json_schema" => {
                const FIELD: &str = "response_format.json_schema";
                let missing = |field: &str| Error::field(field, format!("{field} is missing"));
                let named = json_schema.ok_or_else(|| missing(FIELD))?;
                tooling::check_name(&format!("{FIELD}.name"), &named.name, NAME_CHARS_MAX)?;
                let field = format!("{FIELD}.schema");
                let value = named.schema.ok_or_else(|| missing(&field))?.into();
                Ok(Some(Schema { field, value }))
            }
            kind => {
                let expected = "\"text\", \"json_object\" or \"json_schema\"";
                Err(wrong("response_format.type", kind, expected))
            }
        }
    }
}
