//! `POST /v1/completions`, as OpenAI had it before chats: more of a text, whole or as server-sent events.

mod reply;
mod request;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::error::Error;
use super::guard::Caller;
use super::turn::{self, Named, Turn};
use super::{App, body};

pub use reply::Completion as Answer;
pub use request::CompletionRequest;

use reply::Reply;
use request::Completion;

pub async fn completions(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let request: CompletionRequest = body::read(request, &app).await?;
    let wanted = Completion::try_from(request)?;
    let turn = Turn {
        named: Named::in_body(wanted.session),
        input: wanted.input,
        max_tokens: Some(wanted.max_tokens),
        sampling: wanted.sampling,
        stops: wanted.stops,
        choices: wanted.choices,
        logprobs: wanted.logprobs,
        is_end_ignored: wanted.is_end_ignored,
        format: None,
        calls: None,
    };
    let running = turn::start(&app, caller, turn).await?;
    let tokenizer = wanted.logprobs.map(|_| Arc::clone(&running.serving.tokenizer));
    let mut reply = Reply::new(running.serving.model.clone(), tokenizer, wanted.choices);
    match wanted.streamed {
        None => {
            let outcome = turn::whole(running, |delta| reply.keep_logprobs(delta)).await?;
            Ok(Json(reply.completion(&outcome)).into_response())
        }
        Some(usage) => {
            turn::streamed(running, reply.with_usage(usage), app.bounds.keep_alive).await
        }
    }
}
