//! `/v1/agents`: which agents there are, and what becomes of one.

mod generate;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use super::App;
use super::error::Error;
use super::guard::Caller;

pub use generate::generate;

/// `GET /v1/agents`.
pub async fn list(
    State(_app): State<Arc<App>>,
    Extension(_caller): Extension<Caller>,
) -> Result<Response, Error> {
    Err(Error::NotFound)
}

/// `POST /v1/agents`.
pub async fn create(
    State(_app): State<Arc<App>>,
    Extension(_caller): Extension<Caller>,
    _request: Request,
) -> Result<Response, Error> {
    Err(Error::NotFound)
}

/// `GET /v1/agents/{id}`.
pub async fn show(
    State(_app): State<Arc<App>>,
    Extension(_caller): Extension<Caller>,
) -> Result<Response, Error> {
    Err(Error::NotFound)
}

/// `DELETE /v1/agents/{id}`.
pub async fn remove(
    State(_app): State<Arc<App>>,
    Extension(_caller): Extension<Caller>,
) -> Result<Response, Error> {
    Err(Error::NotFound)
}

/// `POST /v1/agents/{id}/fork`.
pub async fn fork(
    State(_app): State<Arc<App>>,
    Extension(_caller): Extension<Caller>,
    _request: Request,
) -> Result<Response, Error> {
    Err(Error::NotFound)
}
