//! Text to tokens and back, without a model: `/tokenize`, `/detokenize`, `/apply-template`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::App;
use super::error::Error;

/// `POST /tokenize`.
pub async fn tokenize(State(_app): State<Arc<App>>, _request: Request) -> Result<Response, Error> {
    Err(Error::NotFound)
}

/// `POST /detokenize`.
pub async fn detokenize(
    State(_app): State<Arc<App>>,
    _request: Request,
) -> Result<Response, Error> {
    Err(Error::NotFound)
}

/// `POST /apply-template`.
pub async fn apply_template(
    State(_app): State<Arc<App>>,
    _request: Request,
) -> Result<Response, Error> {
    Err(Error::NotFound)
}
