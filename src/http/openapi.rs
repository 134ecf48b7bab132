//! `GET /openapi.json`: what the server takes and answers, for programs that write clients.
//!
//! It is made of the table of routes and of the types that read requests and write answers, so it
//! cannot tell of a route or a field that is not there, nor forget one.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::App;
use super::guard::Policy;
use super::routes::{self, Route};

/// What a route is for, what it takes and what it answers.
#[derive(Default)]
pub struct Doc {
    summary: &'static str,
    takes: Option<MakeSchema>,
    gives: Gives,
    queries: &'static [&'static str],
}

type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

#[derive(Clone, Copy, Default)]
enum Gives {
    #[default]
    Nothing,
    Json(MakeSchema),
    /// JSON, or server-sent events if the request asks for a stream.
    JsonOrEvents(MakeSchema),
    Text(&'static str),
}

/// The words by which the table of routes describes one.
impl Route {
    /// In one line.
    pub fn says(mut self, summary: &'static str) -> Route {
        self.doc.summary = summary;
        self
    }

    pub fn queries(mut self, queries: &'static [&'static str]) -> Route {
        self.doc.queries = queries;
        self
    }

    pub fn takes<T: JsonSchema>(mut self) -> Route {
        self.doc.takes = Some(schema_of::<T>);
        self
    }

    pub fn gives<T: JsonSchema>(mut self) -> Route {
        self.doc.gives = Gives::Json(schema_of::<T>);
        self
    }

    pub fn gives_or_streams<T: JsonSchema>(mut self) -> Route {
        self.doc.gives = Gives::JsonOrEvents(schema_of::<T>);
        self
    }

    pub fn gives_text(mut self, media_type: &'static str) -> Route {
        self.doc.gives = Gives::Text(media_type);
        self
    }
}

fn schema_of<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Schema {
    schemas.subschema_for::<T>()
}

/// The same for everybody, so it is made once.
pub async fn openapi(State(_): State<Arc<App>>) -> Response {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| document(&routes::all()));
    Json(&*DOCUMENT).into_response()
}

fn document(routes: &[Route]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut paths = Map::new();
    for route in routes.iter().filter(|route| route.method != routes::ANY) {
        let path = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation(route, &mut schemas);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": env!("CARGO_PKG_NAME"),
            "version": env!("CARGO_PKG_VERSION"),
            "description": env!("CARGO_PKG_DESCRIPTION"),
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "responses": { "Error": { "description": ERROR, "content": { JSON: { "schema": error_schema() } } } },
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "apiKey": { "type": "apiKey", "in": "header", "name": "x-api-key" },
                "adminKey": { "type": "apiKey", "in": "header", "name": "x-admin-key" },
            },
        },
    })
}

const JSON: &str = "application/json";
const ERROR: &str = "Why the request was not served; `Retry-After` says when to come back, where \
                     that helps. `/v1/messages` has Anthropic's shape.";

fn operation(route: &Route, schemas: &mut SchemaGenerator) -> Value {
    let Doc { summary, takes, gives, queries } = &route.doc;
    let mut operation = json!({
        "summary": summary,
        "operationId": operation_id(route),
        "security": security(route.policy),
        "responses": {
            "2XX": answer(*gives, schemas),
            "4XX": { "$ref": "#/components/responses/Error" },
            "5XX": { "$ref": "#/components/responses/Error" },
        },
    });
    let parameters: Vec<Value> = parameters(route.path, queries).collect();
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if let Some(takes) = takes {
        let schema = takes(schemas);
        operation["requestBody"] =
            json!({ "required": true, "content": { JSON: { "schema": schema } } });
    }
    operation
}

/// `post_v1_chat_completions`.
fn operation_id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    let method = route.method.to_ascii_lowercase();
    std::iter::once(method.as_str()).chain(words).collect::<Vec<_>>().join("_")
}

fn security(policy: Policy) -> Value {
    match policy {
        Policy::Health | Policy::Open => json!([]),
        Policy::Key | Policy::Counted => json!([{ "bearer": [] }, { "apiKey": [] }]),
        Policy::Admin => json!([{ "adminKey": [] }, { "bearer": [] }]),
    }
}

fn parameters<'a>(path: &'a str, queries: &'a [&str]) -> impl Iterator<Item = Value> + 'a {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let text = json!({ "type": "string" });
    let in_path = names.map(|name| name.trim_start_matches('*')).map({
        let text = text.clone();
        move |name| json!({ "name": name, "in": "path", "required": true, "schema": text })
    });
    let in_query =
        queries.iter().map(move |name| json!({ "name": name, "in": "query", "schema": text }));
    in_path.chain(in_query)
}

fn answer(gives: Gives, schemas: &mut SchemaGenerator) -> Value {
    match gives {
        Gives::Nothing => json!({ "description": "Done." }),
        Gives::Json(schema) => {
            json!({ "description": "The answer.", "content": { JSON: { "schema": schema(schemas) } } })
        }
        Gives::JsonOrEvents(schema) => json!({
            "description": "The answer, or its parts as server-sent events.",
            "content": {
                JSON: { "schema": schema(schemas) },
                "text/event-stream": { "schema": { "type": "string" } },
            },
        }),
        Gives::Text(media_type) => json!({
            "description": "The answer.",
            "content": { media_type: { "schema": { "type": "string" } } },
        }),
    }
}

fn error_schema() -> Value {
    let text_or_null = json!({ "type": ["string", "null"] });
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type"],
                "properties": {
                    "message": { "type": "string" },
                    "type": { "type": "string" },
                    "param": text_or_null,
                    "code": text_or_null,
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described() {
        let routes = routes::all();
        let document = document(&routes);
        for route in routes.iter().filter(|route| route.method != routes::ANY) {
            let name = format!("{} {}", route.method, route.path);
            assert!(!route.doc.summary.is_empty(), "{name} says nothing");
            let path = route.path.replace("{*", "{");
            let operation = &document["paths"][&path][route.method.to_ascii_lowercase()];
            assert_eq!(operation["operationId"], operation_id(route), "{name}");
            // Who posts or puts sends something, but for an order that is complete without.
            let has_body = matches!(route.method, "POST" | "PUT") && route.path != "/admin/evict";
            assert_eq!(operation.get("requestBody").is_some(), has_body, "{name}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(to)) = fields.get("$ref") {
                        found.push(to);
                    }
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => (),
            }
        }
        let document = document(&routes::all());
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("it is in here");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
