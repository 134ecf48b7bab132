//! What who runs the server may ask of it: `/admin/…`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::App;
use super::error::Error;

/// `POST /admin/evict`.
pub async fn evict(State(_app): State<Arc<App>>) -> Result<Response, Error> {
    Err(Error::NotFound)
}

/// `POST /admin/drain`.
pub async fn drain(State(_app): State<Arc<App>>, _request: Request) -> Result<Response, Error> {
    Err(Error::NotFound)
}

/// `GET /admin/stats`.
pub async fn stats(State(_app): State<Arc<App>>) -> Result<Response, Error> {
    Err(Error::NotFound)
}

/// `PUT /admin/log-level`.
pub async fn log_level(State(_app): State<Arc<App>>, _request: Request) -> Result<Response, Error> {
    Err(Error::NotFound)
}
