//! `/v1/agents`: which agents there are, and what becomes of one.

mod explain;
mod generate;
mod wire;

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use tracing::Instrument;

use super::admin::Evicted;
use super::error::{Created, Done, Error};
use super::guard::Caller;
use super::{App, body, random, turn};
use crate::engine::AgentError;
use crate::types::AgentId;

pub use explain::{ExplainQuery, ExplainRequest, Explanation, explain, explain_given};
pub use generate::{GenerateRequest, Generation, generate};
pub use wire::{
    Agent, AgentList, CreateRequest, ForkRequest, ListQuery, NewAgent, RemoveQuery,
    RetentionRequest, RollbackRequest, Warmed,
};

/// The agent that a path names, percent-encoded UTF-8.
type PathId = Result<Path<String>, PathRejection>;

/// `GET /v1/agents`: by name, a page at a time.
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Error> {
    let page = read(query)?.page()?;
    let agents = app.serving()?.engine.agents(&caller.namespace, &page).await?;
    Ok(Json(AgentList::from(agents)).into_response())
}

/// `POST /v1/agents`: a name that is free. Nothing is stored before its first turn.
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let request: CreateRequest = body::read_if_any(request, &app).await?;
    let agent = match request.agent_id.as_deref() {
        Some(name) => named("agent_id", name)?,
        None => named("agent_id", &format!("agent-{}{}", random::hex(), random::hex()))?,
    };
    let engine = &app.serving()?.engine;
    match engine.agent(&caller.namespace, &agent).await? {
        Some(_) => Err(AgentError::Exists(agent).into()),
        None => Ok(Created(NewAgent::new(&agent)).into_response()),
    }
}

/// `GET /v1/agents/{id}`. Brings nothing back into memory.
pub async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: PathId,
) -> Result<Response, Error> {
    let agent = path_agent(path)?;
    let state = app.serving()?.engine.agent(&caller.namespace, &agent).await?;
    let state = state.ok_or(AgentError::NotFound(agent))?;
    Ok(Json(Agent::from(state)).into_response())
}

/// `DELETE /v1/agents/{id}`: for good, or out of the pool and no further.
pub async fn remove(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: PathId,
    query: Result<Query<RemoveQuery>, QueryRejection>,
) -> Result<Response, Error> {
    let agent = path_agent(path)?;
    let RemoveQuery { evict_only } = read(query)?;
    let engine = &app.serving()?.engine;
    match evict_only {
        Some(true) => {
            let evicted = engine.evict(&caller.namespace, &agent).await?;
            match evicted.failed {
                0 => Ok(Json(Evicted::from(evicted)).into_response()),
                _ => Err(AgentError::NotSaved(agent).into()),
            }
        }
        Some(false) | None => {
            forget(&app, caller, agent).await?;
            Ok(Done::AsAsked.into_response())
        }
    }
}

/// All of an agent, and what it has said, also if whoever asked does not wait for it.
async fn forget(app: &Arc<App>, caller: Caller, agent: AgentId) -> Result<(), Error> {
    let app = Arc::clone(app);
    let engine = app.serving()?.engine.clone();
    let forget = async move {
        let forgotten = engine.forget(&caller.namespace, &agent).await;
        let had_words = match &forgotten {
            // One that comes late has been begun.
            Ok(()) | Err(AgentError::NotFound(_) | AgentError::Late(_)) => {
                app.transcripts.forget(&caller.namespace, &agent)
            }
            // It is there as before.
            Err(_) => false,
        };
        match forgotten {
            // All that was left of it were words.
            Err(AgentError::NotFound(_)) if had_words => Ok(()),
            other => other,
        }
    };
    let forgetting = tokio::spawn(forget.in_current_span());
    Ok(forgetting.await.map_err(|_| Error::Panicked)??)
}

/// `POST /v1/agents/{id}/fork`: a new agent that begins with all this one has.
pub async fn fork(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: PathId,
    request: Request,
) -> Result<Response, Error> {
    let request: ForkRequest = body::read(request, &app).await?;
    let from = path_agent(path)?;
    let to = named("agent_id", &request.agent_id)?;
    let engine = &app.serving()?.engine;
    engine.fork(&caller.namespace, &from, &to).await?;
    // It was there a moment ago.
    let copy = engine.agent(&caller.namespace, &to).await?.ok_or(AgentError::NotFound(to))?;
    Ok(Created(Agent::from(copy)).into_response())
}

/// `POST /v1/agents/{id}/warm`: a turn will come soon.
pub async fn warm(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: PathId,
) -> Result<Response, Error> {
    let agent = path_agent(path)?;
    turn::count(&app, &caller, &agent)?;
    let warmth = app.serving()?.engine.warm(&caller.namespace, &agent).await?;
    Ok(Json(Warmed::new(&agent, warmth)).into_response())
}

/// `PUT /v1/agents/{id}/retention`: how long the agent is kept on disk.
pub async fn retain(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: PathId,
    request: Request,
) -> Result<Response, Error> {
    let request: RetentionRequest = body::read(request, &app).await?;
    let agent = path_agent(path)?;
    let engine = &app.serving()?.engine;
    engine.retain(&caller.namespace, &agent, request.change()?).await?;
    let state = engine.agent(&caller.namespace, &agent).await?;
    let state = state.ok_or(AgentError::NotFound(agent))?;
    Ok(Json(Agent::from(state)).into_response())
}

/// `POST /v1/agents/{id}/rollback`: the agent goes on from an older save.
pub async fn rollback(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: PathId,
    request: Request,
) -> Result<Response, Error> {
    let request: RollbackRequest = body::read_if_any(request, &app).await?;
    let agent = path_agent(path)?;
    let engine = &app.serving()?.engine;
    engine.rollback(&caller.namespace, &agent, request.generation()?).await?;
    let state = engine.agent(&caller.namespace, &agent).await?;
    let state = state.ok_or(AgentError::NotFound(agent))?;
    Ok(Json(Agent::from(state)).into_response())
}

fn path_agent(path: PathId) -> Result<AgentId, Error> {
    let Path(name) =
        path.map_err(|_| Error::field("id", "the agent in the path is not percent-encoded UTF-8"))?;
    named("id", &name)
}

fn named(field: &str, name: &str) -> Result<AgentId, Error> {
    AgentId::new(name).map_err(|error| Error::field(field, format!("{field}: {error}")))
}

fn read<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Error> {
    let Query(query) = query?;
    Ok(query)
}
