//! `POST /v1/agents/{id}/generate`: one more turn of an agent, which has the turns before.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::http::App;
use crate::http::error::Error;
use crate::http::guard::Caller;

pub async fn generate(
    State(_app): State<Arc<App>>,
    Extension(_caller): Extension<Caller>,
    _request: Request,
) -> Result<Response, Error> {
    Err(Error::NotFound)
}
