//! What this server is, and which model it serves.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::error::Error;
use super::{ANY, App, Serving, routes};
use crate::engine::{self, Spec};
use crate::types::BLOCK_TOKENS;

#[derive(Serialize, JsonSchema)]
pub struct About {
    name: &'static str,
    version: &'static str,
    /// Null until its files are open.
    model: Option<String>,
    /// The methods of each path.
    #[schemars(with = "std::collections::BTreeMap<String, Vec<String>>")]
    links: Map<String, Value>,
}

/// `GET /`: what this is and where things are.
pub async fn about(State(app): State<Arc<App>>) -> Response {
    let mut links: Map<String, Value> = Map::new();
    for route in routes().into_iter().filter(|route| route.method != ANY) {
        let methods = links.entry(route.path).or_insert_with(|| json!([]));
        if let Value::Array(methods) = methods {
            methods.push(route.method.into());
        }
    }
    let model = app.serving.get().map(|serving| serving.model.clone());
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    Json(About { name, version, model, links }).into_response()
}

/// `GET /v1/models`: the one that is served.
pub async fn models(State(app): State<Arc<App>>) -> Result<Response, Error> {
    let list = ModelList { object: "list", data: vec![Model::of(&app)?] };
    Ok(Json(list).into_response())
}

/// `GET /v1/models/{id}`, where an id may have slashes.
pub async fn model(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Error> {
    let Path(id) =
        path.map_err(|_| Error::field("id", "the model in the path is not percent-encoded UTF-8"))?;
    let model = Model::of(&app)?;
    match model.id == id {
        true => Ok(Json(model).into_response()),
        false => Err(Error::NoModel { id, served: model.id }),
    }
}

#[derive(Serialize, JsonSchema)]
pub struct ModelList {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Serialize, JsonSchema)]
pub struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    spec: ModelSpec,
}

#[derive(Serialize, JsonSchema)]
struct ModelSpec {
    n_layers: usize,
    n_kv_heads: usize,
    head_dim: usize,
    block_tokens: usize,
    /// Of K and of V, as `--kv-bits` takes it.
    kv_bits: String,
    kv_bytes_per_token: usize,
    vocabulary: usize,
    max_context_length: usize,
}

impl Model {
    fn of(app: &App) -> Result<Model, Error> {
        let serving: &Serving = app.serving()?;
        let spec: &Spec = serving.engine.spec().ok_or(engine::Error::Starting)?;
        Ok(Model {
            id: serving.model.clone(),
            object: "model",
            created: app.started_unix_seconds,
            owned_by: env!("CARGO_PKG_NAME"),
            spec: ModelSpec {
                n_layers: spec.layers.len(),
                n_kv_heads: serving.kv.heads,
                head_dim: serving.kv.head_dim,
                block_tokens: BLOCK_TOKENS,
                kv_bits: serving.kv.bits.clone(),
                kv_bytes_per_token: spec.token_bytes(),
                vocabulary: spec.vocabulary,
                max_context_length: spec.context_tokens,
            },
        })
    }
}
