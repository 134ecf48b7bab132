//! `POST /v1/messages` and `/v1/messages/count_tokens`, as Anthropic has them.

mod content;
mod reply;
mod request;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Serialize;

use super::error::Error;
use super::guard::Caller;
use super::prompt::{self, Input};
use super::turn::{self, Named, Turn};
use super::{App, body};

pub use reply::Message as Answer;
pub use request::{CountRequest, MessagesRequest};

use reply::Reply;
use request::{Asked, Delivery, Talk};

/// What `count_tokens` answers.
#[derive(JsonSchema, Serialize)]
pub struct Count {
    input_tokens: usize,
}

pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let request: MessagesRequest = body::read(request, &app).await?;
    let asked = Asked::try_from(request)?;
    let Talk { messages, tools, tool_choice, format } = asked.talk;
    let reasoning = asked.reasoning_format.of_a_reply(format.as_ref());
    let turn = Turn {
        named: Named::in_body(asked.session),
        calls: tool_choice.parser(&tools),
        input: Input::Chat { messages, tools },
        max_tokens: Some(asked.max_tokens),
        sampling: asked.sampling,
        stops: asked.stops,
        choices: 1,
        logprobs: None,
        is_end_ignored: false,
        format,
    };
    let mut running = turn::start(&app, caller, turn).await?;
    let reader = reasoning.reader(&running.serving, running.calls.take());
    let reply = Reply::new(running.serving.model.clone(), reader);
    match asked.delivery {
        Delivery::Whole => {
            let outcome = turn::whole(running, |_| ()).await?;
            Ok(Json(reply.message(&outcome)).into_response())
        }
        Delivery::Streamed => turn::streamed(running, reply, app.bounds.keep_alive).await,
    }
}

/// What `create` would read, to the token, as long as a reply that the server remembers was not
/// generated in several ways.
pub async fn count_tokens(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Count>, Error> {
    let request: CountRequest = body::read(request, &app).await?;
    let Talk { messages, tools, .. } = Talk::try_from(request)?;
    let serving = app.serving()?;
    let prompt =
        prompt::prompt(&app, serving, &caller.namespace, Input::Chat { messages, tools }).await?;
    let input_tokens = prompt.resolve_anew().tokens.len();
    Ok(Json(Count { input_tokens }))
}
