//! `POST /v1/chat/completions`, as OpenAI has it: whole, or as server-sent events.

mod format;
mod reply;
mod request;
mod said;
mod tools;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::error::Error;
use super::guard::Caller;
use super::prompt::Input;
use super::turn::{self, Named, Turn};
use super::{App, body};

pub use format::{ResponseFormat, json_schema, plain_format};
pub use reply::{Completion as Answer, Reply};
pub use request::{ChatRequest, WireMessage, messages};
pub use tools::{arguments_of, flat_choice, flat_choice_field, flat_tools};

use request::Chat;
use said::Said;

pub async fn completions(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let request: ChatRequest = body::read(request, &app).await?;
    let chat = Chat::try_from(request)?;
    let turn = Turn {
        named: Named::in_body(chat.session),
        calls: chat.tool_choice.parser(&chat.tools),
        input: Input::Chat { messages: chat.messages, tools: chat.tools },
        max_tokens: chat.max_tokens,
        sampling: chat.sampling,
        stops: chat.stops,
        choices: chat.choices,
        logprobs: chat.logprobs,
        is_end_ignored: chat.is_end_ignored,
        format: chat.format,
    };
    let mut running = turn::start(&app, caller, turn).await?;
    let tokenizer = chat.logprobs.map(|_| Arc::clone(&running.serving.tokenizer));
    let reader = chat.reasoning_format.reader(&running.serving, running.calls.take());
    let said = vec![Said::new(reader); chat.choices];
    let mut reply = Reply::new(running.serving.model.clone(), tokenizer, said);
    match chat.streamed {
        None => {
            let outcome = turn::whole(running, |delta| reply.keep_logprobs(delta)).await?;
            Ok(Json(reply.completion(&outcome)).into_response())
        }
        Some(usage) => {
            turn::streamed(running, reply.with_usage(usage), app.bounds.keep_alive).await
        }
    }
}
