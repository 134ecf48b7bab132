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
use super::error::Dialect;
use super::guard::Policy;
use super::routes::{self, Route};
use crate::types::AGENT_ID_BYTES_MAX;

/// What a route is for, what it takes and what it answers.
#[derive(Default)]
pub struct Doc {
    summary: &'static str,
    takes: Option<Takes>,
    gives: Gives,
    query: Option<MakeSchema>,
}

type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

#[derive(Clone, Copy)]
enum Takes {
    Always(MakeSchema),
    /// A body may be left out.
    Perhaps(MakeSchema),
}

#[derive(Clone, Copy, Default)]
enum Gives {
    /// That it is done, without a word.
    #[default]
    Nothing,
    Json(MakeSchema),
    /// That it is done, or what came of it, as the request asks.
    NothingOrJson(MakeSchema),
    /// Something that was not there before.
    Created(MakeSchema),
    /// JSON, or server-sent events if the request asks for a stream.
    JsonOrEvents(MakeSchema),
    /// The same whether all is well or not; only the status differs.
    Probe(MakeSchema),
    Text(&'static str),
    /// A page, unless the browser has it already.
    Page,
}

/// The words by which the table of routes describes one.
impl Route {
    /// In one line.
    pub fn says(mut self, summary: &'static str) -> Route {
        self.doc.summary = summary;
        self
    }

    pub fn queries<T: JsonSchema>(mut self) -> Route {
        self.doc.query = Some(T::json_schema);
        self
    }

    pub fn takes<T: JsonSchema>(mut self) -> Route {
        self.doc.takes = Some(Takes::Always(schema_of::<T>));
        self
    }

    pub fn may_take<T: JsonSchema>(mut self) -> Route {
        self.doc.takes = Some(Takes::Perhaps(schema_of::<T>));
        self
    }

    pub fn gives<T: JsonSchema>(mut self) -> Route {
        self.doc.gives = Gives::Json(schema_of::<T>);
        self
    }

    pub fn may_give<T: JsonSchema>(mut self) -> Route {
        self.doc.gives = Gives::NothingOrJson(schema_of::<T>);
        self
    }

    pub fn creates<T: JsonSchema>(mut self) -> Route {
        self.doc.gives = Gives::Created(schema_of::<T>);
        self
    }

    pub fn gives_or_streams<T: JsonSchema>(mut self) -> Route {
        self.doc.gives = Gives::JsonOrEvents(schema_of::<T>);
        self
    }

    pub fn probes<T: JsonSchema>(mut self) -> Route {
        self.doc.gives = Gives::Probe(schema_of::<T>);
        self
    }

    pub fn gives_page(mut self) -> Route {
        self.doc.gives = Gives::Page;
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

/// What this document is to itself.
pub type Document = Map<String, Value>;

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
        let method = route.method.to_ascii_lowercase();
        path[&method] = operation(route, &method, &mut schemas);
        if method == "get" {
            path["head"] = without_contents(operation(route, "head", &mut schemas));
        }
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
            "responses": {
                "Error": error(Dialect::OpenAi),
                "AnthropicError": error(Dialect::Anthropic),
            },
            "headers": {
                "X-Request-ID": {
                    "description": "The request's own, if it has a fit one, or else a new one.",
                    "schema": { "type": "string" },
                },
                "X-Response-Time": {
                    "description": "Until the head of the answer, in milliseconds.",
                    "schema": { "type": "string" },
                },
                "RateLimit-Policy": {
                    "description": "The limits of the key, where it has any: requests or tokens (q) \
                                    in so many seconds (w).",
                    "schema": { "type": "string" },
                    "example": "\"requests\";q=60;w=60, \"tokens\";q=100000;w=60;qu=\"tokens\"",
                },
                "RateLimit": {
                    "description": "What is left of them (r), and in how many seconds it is more (t).",
                    "schema": { "type": "string" },
                    "example": "\"requests\";r=59;t=1, \"tokens\";r=99000;t=1",
                },
                "Retry-After": {
                    "description": "In so many seconds it may go better.",
                    "schema": { "type": "integer" },
                },
            },
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "apiKey": { "type": "apiKey", "in": "header", "name": "x-api-key" },
                "adminKey": { "type": "apiKey", "in": "header", "name": "x-admin-key" },
            },
        },
    })
}

/// As the guard takes it; a longer one is not echoed.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// What every answer carries, and what it may if a key was asked for.
const HEADERS: [&str; 2] = ["X-Request-ID", "X-Response-Time"];
const LIMITED_HEADERS: [&str; 4] = [HEADERS[0], HEADERS[1], "RateLimit-Policy", "RateLimit"];
const JSON: &str = "application/json";
const ERROR: &str = "Why the request was not served. What is no HTTP at all is refused without a \
                     body.";

fn operation(route: &Route, method: &str, schemas: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "summary": route.doc.summary,
        "operationId": operation_id(method, route.path),
        "security": security(route.policy),
        "parameters": parameters(route, schemas),
        "responses": responses(route, schemas),
    });
    if let Some(takes) = route.doc.takes {
        let (is_required, schema) = match takes {
            Takes::Always(schema) => (true, schema),
            Takes::Perhaps(schema) => (false, schema),
        };
        let content = json!({ JSON: { "schema": schema(schemas) } });
        operation["requestBody"] = json!({ "required": is_required, "content": content });
    }
    operation
}

/// What `HEAD` answers is what `GET` would, without the bodies.
fn without_contents(mut operation: Value) -> Value {
    if let Some(Value::Object(responses)) = operation.get_mut("responses") {
        for response in responses.values_mut() {
            *response = json!({
                "description": "The head of what GET answers.",
                "headers": headers(&HEADERS),
            });
        }
    }
    operation
}

/// `post_v1_chat_completions`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

fn security(policy: Policy) -> Value {
    match policy {
        Policy::Health | Policy::Open => json!([]),
        Policy::Key | Policy::Counted => json!([{ "bearer": [] }, { "apiKey": [] }]),
        Policy::Admin => json!([{ "adminKey": [] }, { "bearer": [] }]),
    }
}

fn parameters(route: &Route, schemas: &mut SchemaGenerator) -> Vec<Value> {
    let text = json!({ "type": "string", "minLength": 1 });
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut all: Vec<Value> = names
        .map(|name| name.trim_start_matches('*'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": text }))
        .collect();
    let has_path_agent = !all.is_empty();
    let query = route.doc.query.map(|query| query(schemas));
    let fields = query.as_ref().and_then(|schema| schema.get("properties")?.as_object());
    for (name, schema) in fields.into_iter().flatten() {
        all.push(json!({ "name": name, "in": "query", "schema": without_null(schema) }));
    }
    let mut header = |name: &str, description: &str, bytes_max: usize| {
        let schema = json!({ "type": "string", "minLength": 1, "maxLength": bytes_max });
        all.push(json!({
            "name": name,
            "in": "header",
            "description": description,
            "schema": schema,
        }));
    };
    header("X-Request-ID", "Comes back with the answer, and is in the log.", REQUEST_ID_BYTES_MAX);
    let is_turn = matches!(route.doc.gives, Gives::JsonOrEvents(_));
    if is_turn && !has_path_agent {
        header("X-Agent-ID", "The agent whose turn it is.", AGENT_ID_BYTES_MAX);
        header("X-Session-ID", "The same, if X-Agent-ID is not there.", AGENT_ID_BYTES_MAX);
    }
    all
}

/// A query has no null: what is not there is left out.
fn without_null(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = &mut types[..] {
            schema["type"] = only.take();
        }
    }
    schema
}

fn responses(route: &Route, schemas: &mut SchemaGenerator) -> Value {
    let json = |schema: &Value| json!({ JSON: { "schema": schema } });
    let (status, description, content) = match route.doc.gives {
        Gives::Nothing => ("204", "Done.", None),
        Gives::Json(schema) | Gives::NothingOrJson(schema) => {
            ("200", "The answer.", Some(json(&schema(schemas).into())))
        }
        Gives::Created(schema) => ("201", "What is new.", Some(json(&schema(schemas).into()))),
        Gives::Probe(schema) => ("200", "All is well.", Some(json(&schema(schemas).into()))),
        Gives::JsonOrEvents(schema) => {
            let mut content = json(&schema(schemas).into());
            content["text/event-stream"] = json!({ "schema": { "type": "string" } });
            ("200", "The answer, or its parts as server-sent events.", Some(content))
        }
        Gives::Text(media_type) => {
            let content = json!({ media_type: { "schema": { "type": "string" } } });
            ("200", "The answer.", Some(content))
        }
        Gives::Page => {
            let content = json!({ "text/html": { "schema": { "type": "string" } } });
            ("200", "The page.", Some(content))
        }
    };
    let error = match Dialect::of(route.path) {
        Dialect::OpenAi => "#/components/responses/Error",
        Dialect::Anthropic => "#/components/responses/AnthropicError",
    };
    let headers = match route.policy {
        Policy::Key | Policy::Counted => headers(&LIMITED_HEADERS),
        Policy::Health | Policy::Open | Policy::Admin => headers(&HEADERS),
    };
    let mut all = json!({ status: { "description": description, "headers": headers } });
    if let Some(content) = content {
        all[status]["content"] = content;
    }
    if let Gives::NothingOrJson(_) = route.doc.gives {
        all["204"] = json!({ "description": "Done.", "headers": all[status]["headers"] });
    }
    if let Gives::Page = route.doc.gives {
        all["304"] = json!({ "description": "It is the same.", "headers": all[status]["headers"] });
    }
    if let Gives::Probe(_) = route.doc.gives {
        all["503"] = all[status].clone();
        all["503"]["description"] = "Not so, for this reason.".into();
    }
    all["4XX"] = json!({ "$ref": error });
    all["5XX"] = json!({ "$ref": error });
    all
}

/// What every answer carries.
fn headers(names: &[&str]) -> Value {
    let one = |name: &&str| {
        let place = format!("#/components/headers/{name}");
        ((*name).to_owned(), json!({ "$ref": place }))
    };
    names.iter().map(one).collect::<Map<String, Value>>().into()
}

fn error(dialect: Dialect) -> Value {
    let text = json!({ "type": "string" });
    let text_or_null = json!({ "type": ["string", "null"] });
    let object = |properties: Value| {
        let names: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
        json!({ "type": "object", "required": names, "properties": properties })
    };
    let schema = match dialect {
        Dialect::OpenAi => object(json!({
            "error": object(json!({
                "message": text,
                "type": text,
                "param": text_or_null,
                "code": text_or_null,
            })),
        })),
        Dialect::Anthropic => object(json!({
            "type": { "const": "error" },
            "error": object(json!({ "type": text, "message": text })),
            "request_id": text,
        })),
    };
    json!({
        "description": ERROR,
        "headers": headers(&[&LIMITED_HEADERS[..], &["Retry-After"]].concat()),
        "content": { JSON: { "schema": schema } },
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
            let method = route.method.to_ascii_lowercase();
            let operation = &document["paths"][&path][&method];
            assert_eq!(operation["operationId"], operation_id(&method, route.path), "{name}");
            // Who posts or puts sends something, but for an order that is complete without.
            let is_whole = route.path == "/admin/evict" || route.path.ends_with("/warm");
            let has_body = matches!(route.method, "POST" | "PUT") && !is_whole;
            assert_eq!(operation.get("requestBody").is_some(), has_body, "{name}");
            let says_nothing = matches!(route.doc.gives, Gives::Nothing | Gives::NothingOrJson(_));
            // OpenAI's clients look for a word that it is gone.
            let is_deletion = route.method == "DELETE" && route.path != "/v1/responses/{id}";
            let is_order = is_deletion || route.path == "/admin/log-level";
            assert_eq!(says_nothing, is_order, "{name} answers something");
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
