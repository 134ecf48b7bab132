//! `/v1/responses`, as OpenAI has it: a turn of a conversation by its items, whole or as server-sent
//! events, that may go on from an earlier response.
//!
//! What was said up to a response is kept by its words (`keep`), because a request may change what
//! stands before them: the instructions. The engine finds again what it has of it, as it does for
//! a client that sends its whole conversation each time.

mod input;
mod keep;
mod reply;
mod request;

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::guard::Caller;
use super::prompt::Input;
use super::reasoning::ReasoningFormat;
use super::turn::{self, Named, Turn};
use super::{App, body};

pub use keep::Transcripts;
pub use reply::Response as Answer;
pub use request::ResponsesRequest;

use keep::{Keep, Transcript, parse_id};
use reply::Reply;
use request::Asked;

/// The field that a conversation comes in.
const INPUT: &str = "input";

/// `POST /v1/responses`.
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let request: ResponsesRequest = body::read(request, &app).await?;
    let asked = Asked::try_from(request)?;
    // Who has no tokens left is told so before anything is looked for.
    app.limits.purse(&caller)?;
    let begun = app.transcripts.begin(&caller.namespace);
    let previous = match &asked.echo.previous {
        Some(id) => Some(previous(&app, &caller, id).await?),
        None => None,
    };
    // The agent of the response before goes on with it, unless another one is named.
    let (mut items, agent) = match previous {
        Some(Transcript { agent, items, .. }) => (items, Some(agent)),
        None => (Vec::new(), None),
    };
    let past = items.len();
    items.extend(asked.items);
    let echo = asked.echo;
    let messages = input::messages(echo.instructions.clone(), &items, past)?;
    let keep = echo.is_stored.then(|| Keep {
        app: Arc::clone(&app),
        namespace: caller.namespace.clone(),
        begun,
        items,
    });
    let reasoning = ReasoningFormat::Apart.of_a_reply(asked.format.as_ref());
    let turn = Turn {
        named: Named::in_body(asked.session.or(agent)),
        calls: asked.tool_choice.parser(&asked.tools),
        input: Input::Chat { messages, tools: asked.tools },
        max_tokens: echo.max_output_tokens,
        sampling: asked.sampling,
        stops: Vec::new(),
        choices: 1,
        logprobs: None,
        is_end_ignored: false,
        format: asked.format,
    };
    let mut running = turn::start(&app, caller, turn).await?.asked_in(INPUT);
    let model = running.serving.model.clone();
    let reader = reasoning.reader(&running.serving, running.calls.take());
    let reply = Reply::new(model, echo, reader, keep);
    match asked.is_streamed {
        false => {
            let outcome = turn::whole(running, |_| ()).await?;
            Ok(Json(reply.whole(&outcome).await).into_response())
        }
        true => turn::streamed(running, reply, app.bounds.keep_alive).await,
    }
}

/// `GET /v1/responses/{id}`.
pub async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: PathId,
    query: NoQuery,
) -> Result<Response, Error> {
    let id = path_id(path)?;
    refuse_query(query)?;
    let transcript = find(&app, &caller, &id).await?;
    let Transcript { response, .. } = transcript.ok_or(Error::NoResponse(id))?;
    Ok(Json(response).into_response())
}

/// What `DELETE` answers.
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "DeletedResponse")]
pub struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// `DELETE /v1/responses/{id}`: nobody goes on from it any more. What its agent remembers stays.
pub async fn remove(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: PathId,
    query: NoQuery,
) -> Result<Response, Error> {
    let id = path_id(path)?;
    refuse_query(query)?;
    let is_gone = match parse_id(&id) {
        Some(transcript) => app.transcripts.remove(&app, &caller.namespace, transcript).await?,
        None => false,
    };
    match is_gone {
        true => Ok(Json(Deleted { id, object: "response", deleted: true }).into_response()),
        false => Err(Error::NoResponse(id)),
    }
}

/// A response comes whole and as it was: OpenAI's `stream` and `include` are not served.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

type NoQuery = Result<Query<Nothing>, QueryRejection>;

fn refuse_query(query: NoQuery) -> Result<(), Error> {
    query.map(|_| ()).map_err(Error::from)
}

type PathId = Result<Path<String>, PathRejection>;

fn path_id(path: PathId) -> Result<String, Error> {
    let Path(id) = path
        .map_err(|_| Error::field("id", "the response in the path is not percent-encoded UTF-8"))?;
    Ok(id)
}

async fn previous(app: &App, caller: &Caller, id: &str) -> Result<Transcript, Error> {
    find(app, caller, id).await?.ok_or_else(|| Error::NoPrevious(id.to_owned()))
}

/// What was said up to a response of the caller's; none if it is not there.
async fn find(app: &App, caller: &Caller, id: &str) -> Result<Option<Transcript>, Error> {
    match parse_id(id) {
        Some(transcript) => app.transcripts.find(app, &caller.namespace, transcript).await,
        None => Ok(None),
    }
}
