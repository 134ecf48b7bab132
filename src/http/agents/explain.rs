//! `/v1/agents/{id}/explain`: where a prompt, or the agent's last conversation, parts from what the agent
//! has, and why. The prompt is in the query, which proxies log, or in the body.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PathId, path_agent, read};
use crate::engine::{AgentError, StoredState};
use crate::http::error::Error;
use crate::http::guard::Caller;
use crate::http::prompt::beside;
use crate::http::tokens::chat_tokens;
use crate::http::{App, Serving, body, turn};
use crate::text::{self, Cause, Difference, Message};
use crate::types::{AgentId, TokenId};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// The message of a user to compare with; the agent's last conversation is compared with the one
    /// before if there is none.
    prompt: Option<String>,
    /// The system message before it.
    system: Option<String>,
}

/// The same.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct ExplainRequest {
    prompt: Option<String>,
    system: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Explanation {
    object: &'static str,
    id: String,
    stored_tokens: usize,
    given_tokens: usize,
    same_tokens: usize,
    /// The first token that differs; null if one goes on where the other ends.
    difference: Option<Parting>,
    /// One word; null if nothing differs.
    cause: Option<&'static str>,
    explanation: String,
    advice: Option<&'static str>,
}

/// With the text on both sides.
#[derive(Serialize, JsonSchema)]
struct Parting {
    token: usize,
    stored_token: u32,
    given_token: u32,
    before: String,
    stored: String,
    given: String,
}

/// `GET /v1/agents/{id}/explain`.
pub async fn explain(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: PathId,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Response, Error> {
    let agent = path_agent(path)?;
    let ExplainQuery { prompt, system } = read(query)?;
    explained(&app, &caller, agent, ExplainRequest { prompt, system }).await
}

/// `POST /v1/agents/{id}/explain`.
pub async fn explain_given(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: PathId,
    request: Request,
) -> Result<Response, Error> {
    let request: ExplainRequest = body::read_if_any(request, &app).await?;
    explained(&app, &caller, path_agent(path)?, request).await
}

async fn explained(
    app: &App,
    caller: &Caller,
    agent: AgentId,
    ExplainRequest { prompt, system }: ExplainRequest,
) -> Result<Response, Error> {
    turn::count(app, caller, &agent)?;
    let messages = match (prompt, system) {
        (None, Some(_)) => return Err(Error::field("prompt", "system goes with prompt")),
        (None, None) => None,
        (Some(prompt), system) => {
            let system = system.map(|text| Message::new("system", text));
            Some(system.into_iter().chain([Message::new("user", prompt)]).collect::<Vec<_>>())
        }
    };
    let serving = Arc::clone(app.serving()?);
    let stored = serving.engine.conversations(&caller.namespace, &agent).await?;
    if stored.is_empty() {
        let state = serving.engine.agent(&caller.namespace, &agent).await?;
        let of_another = state.and_then(|state| state.stored).filter(|stored| !stored.is_usable);
        let Some(StoredState { tokens, .. }) = of_another else {
            return Err(AgentError::NotFound(agent).into());
        };
        return Ok(Json(Explanation::of_another_model(&agent, tokens)).into_response());
    }
    let bytes = stored.iter().map(|tokens| size_of_val(&**tokens)).sum();
    let explained = move || Explanation::new(&serving, &agent, messages, &stored);
    Ok(Json(beside(app, &caller.namespace, bytes, explained).await??).into_response())
}

impl Explanation {
    /// What the agent has is no use to the model that is served.
    fn of_another_model(agent: &AgentId, stored_tokens: usize) -> Explanation {
        let cause = Cause::OtherModel;
        Explanation {
            object: "agent.explanation",
            id: agent.to_string(),
            stored_tokens,
            given_tokens: 0,
            same_tokens: 0,
            difference: None,
            cause: Some(cause.code()),
            explanation: cause.explanation().to_owned(),
            advice: cause.advice(),
        }
    }

    /// The newest of what is stored comes first.
    fn new(
        serving: &Serving,
        agent: &AgentId,
        messages: Option<Vec<Message>>,
        stored: &[Arc<[TokenId]>],
    ) -> Result<Explanation, Error> {
        let same = |given: &[TokenId], tokens: &[TokenId]| text::common_tokens(tokens, given);
        let (given, stored, name): (Arc<[TokenId]>, _, _) = match messages {
            Some(messages) => {
                let given: Arc<[TokenId]> = chat_tokens(serving, &messages)?.into();
                let best = stored.iter().rev().max_by_key(|tokens| same(&given, tokens));
                (given, best, "the prompt")
            }
            None => (Arc::clone(&stored[0]), stored.get(1), "the last conversation"),
        };
        let Some(stored) = stored else {
            let message = "the agent has one conversation, and nothing to compare it with; prompt \
                           gives a text";
            return Err(Error::field("prompt", message));
        };
        let found = text::explain(&serving.tokenizer, stored, &given, name);
        let cause = found.cause();
        Ok(Explanation {
            object: "agent.explanation",
            id: agent.to_string(),
            stored_tokens: stored.len(),
            given_tokens: given.len(),
            same_tokens: found.same_tokens,
            cause: cause.map(Cause::code),
            advice: cause.and_then(Cause::advice),
            explanation: found.text,
            difference: found.difference.map(Parting::from),
        })
    }
}

impl From<Difference> for Parting {
    fn from(difference: Difference) -> Parting {
        Parting {
            token: difference.same_tokens,
            stored_token: difference.stored.0,
            given_token: difference.given.0,
            before: difference.before,
            stored: difference.stored_text,
            given: difference.given_text,
        }
    }
}
