//! What this server is, and which model it serves.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::App;
use super::error::Error;

/// `GET /v1/models`.
pub async fn models(State(_app): State<Arc<App>>) -> Result<Response, Error> {
    Err(Error::NotFound)
}

/// `GET /v1/models/{id}`.
pub async fn model(State(_app): State<Arc<App>>) -> Result<Response, Error> {
    Err(Error::NotFound)
}
