//! `POST /v1/agents/{id}/generate`: one more turn of an agent, which has the turns before.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PathId, path_agent};
use crate::engine::{Outcome, Past, Recalled};
use crate::http::chat::{Reply, ResponseFormat, WireMessage, messages};
use crate::http::error::Error;
use crate::http::fields::{
    Drawing, OneOrMany, PENALTY_MAX, TEMPERATURE_MAX, TOKENS_MAX, in_range, stops, streamed,
};
use crate::http::guard::Caller;
use crate::http::held::Format;
use crate::http::prompt::{Input, beside};
use crate::http::report::{self, Semantic, Usage};
use crate::http::turn::{self, Named, Turn};
use crate::http::{App, Serving, body};
use crate::text::{Message, Piece, Prompt, RenderOptions, has_system, next_turn, text_of, turns};
use crate::types::Namespace;

/// What is said to the agent: its next turn, or a whole conversation.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct GenerateRequest {
    prompt: Option<String>,
    messages: Option<Vec<WireMessage>>,
    /// For an agent that begins; another one's memory begins with its own.
    system: Option<String>,
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    max_tokens: Option<u64>,
    #[schemars(range(min = 0.0, max = TEMPERATURE_MAX))]
    temperature: Option<f64>,
    #[schemars(range(min = 0.0, max = 1.0))]
    top_p: Option<f64>,
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    top_k: Option<u64>,
    #[schemars(range(min = 0.0, max = 1.0))]
    min_p: Option<f64>,
    #[schemars(range(min = -PENALTY_MAX, max = PENALTY_MAX))]
    frequency_penalty: Option<f64>,
    #[schemars(range(min = -PENALTY_MAX, max = PENALTY_MAX))]
    presence_penalty: Option<f64>,
    stop: Option<OneOrMany<String>>,
    seed: Option<i64>,
    stream: Option<bool>,
    response_format: Option<ResponseFormat>,
}

/// The same with nothing left to check.
enum Said {
    Next { prompt: String, system: Option<String> },
    Whole(Vec<Message>),
}

pub async fn generate(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: PathId,
    request: Request,
) -> Result<Response, Error> {
    let request: GenerateRequest = body::read(request, &app).await?;
    let agent = path_agent(path)?;
    let max_tokens =
        request.max_tokens.map(|most| in_range("max_tokens", most, 1, TOKENS_MAX)).transpose()?;
    let drawing = Drawing {
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        min_p: request.min_p,
        frequency_penalty: request.frequency_penalty,
        presence_penalty: request.presence_penalty,
        logit_bias: None,
        seed: request.seed,
    };
    let sampling = drawing.sampling()?;
    let schema = request.response_format.map(ResponseFormat::schema).transpose()?.flatten();
    let stops = stops("stop", request.stop)?;
    let usage = streamed(request.stream, None)?;
    let said = said(request.prompt, request.messages, request.system)?;
    turn::count(&app, &caller, &agent)?;
    // Who has no tokens left is told so before anything is looked for.
    app.limits.purse(&caller)?;
    let (input, mark) = match said {
        Said::Whole(messages) => (Input::Chat { messages, tools: Vec::new() }, None),
        Said::Next { prompt, system } => {
            let serving = app.serving()?;
            let Recalled { past, mark } = serving.engine.recall(&caller.namespace, &agent).await?;
            (next(&app, &caller.namespace, past, prompt, system).await?, Some(mark))
        }
    };
    let turn = Turn {
        named: Named::Path(agent),
        input,
        max_tokens: max_tokens.map(|most| most as usize),
        sampling,
        stops,
        choices: 1,
        logprobs: None,
        is_end_ignored: false,
        format: schema.map(Format::Json),
        calls: None,
    };
    let running = turn::start_after(&app, caller, turn, mark).await?;
    let model = running.serving.model.clone();
    match usage {
        None => {
            let outcome = turn::whole(running, |_| ()).await?;
            Ok(Json(Generation::new(model, &outcome)).into_response())
        }
        Some(usage) => {
            let reply = Reply::of_text(model).with_usage(usage);
            turn::streamed(running, reply, app.bounds.keep_alive).await
        }
    }
}

fn said(
    prompt: Option<String>,
    wire: Option<Vec<WireMessage>>,
    system: Option<String>,
) -> Result<Said, Error> {
    match (prompt, wire, system) {
        (Some(_), Some(_), _) => {
            Err(Error::field("messages", "messages and prompt exclude each other"))
        }
        (None, Some(_), Some(_)) => {
            Err(Error::field("system", "system goes with prompt; messages have their own"))
        }
        (None, None, _) => Err(Error::field("prompt", "prompt is missing")),
        (Some(prompt), None, _) if prompt.is_empty() => {
            Err(Error::field("prompt", "prompt is empty"))
        }
        (Some(prompt), None, system) => Ok(Said::Next { prompt, system }),
        (None, Some(wire), None) => Ok(Said::Whole(messages(wire)?)),
    }
}

async fn next(
    app: &App,
    namespace: &Namespace,
    past: Option<Past>,
    prompt: String,
    system: Option<String>,
) -> Result<Input, Error> {
    let turns = past.as_ref().and_then(|past| turns(&past.tokens, &past.replies));
    let (Some(past), Some(turns)) = (past, turns) else {
        // It has not said anything yet.
        let system = system.map(|system| Message::new("system", system));
        let messages = system.into_iter().chain([Message::new("user", prompt)]).collect();
        return Ok(Input::Chat { messages, tools: Vec::new() });
    };
    let bytes = prompt.len() + system.as_ref().map_or(0, String::len);
    let serving = Arc::clone(app.serving()?);
    let follow = move || following(&serving, &past, turns, &prompt, system.as_deref());
    Ok(Input::Prompt(beside(app, namespace, bytes, follow).await??))
}

/// One more turn after those that the agent has.
fn following(
    serving: &Serving,
    past: &Past,
    mut turns: Vec<Piece>,
    prompt: &str,
    system: Option<&str>,
) -> Result<Prompt, Error> {
    let Serving { tokenizer, template, .. } = serving;
    let options = RenderOptions::new(SystemTime::now());
    if let Some(system) = system {
        let end = past.replies.first().map_or(past.tokens.len(), |reply| reply.start);
        let beginning = text_of(tokenizer, past.tokens.get(..end).unwrap_or_default());
        if !has_system(&beginning, system, template, &options)? {
            let message = "the agent keeps the system message that it began with";
            return Err(Error::field("system", message));
        }
    }
    let next = next_turn(template, tokenizer, prompt, &options)?;
    turns.push(Piece::Tokens(next));
    Ok(Prompt::new(turns))
}

/// A turn as a whole.
#[derive(Serialize, JsonSchema)]
pub struct Generation {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    agent: String,
    text: String,
    finish_reason: &'static str,
    tokens_generated: usize,
    /// The agent's memory with this turn.
    cache_size_tokens: usize,
    usage: Usage,
    semantic: Semantic,
}

impl Generation {
    fn new(model: String, outcome: &Outcome) -> Generation {
        let choice = outcome.choices.first();
        let tokens_generated = report::completion_tokens(outcome);
        Generation {
            id: report::id("gen-"),
            object: "agent.generation",
            created: report::unix_seconds(),
            model,
            agent: outcome.admitted.agent.to_string(),
            text: choice.map_or_else(String::new, |choice| choice.text.clone()),
            finish_reason: choice.map_or("stop", |choice| report::finish_reason(&choice.finish)),
            tokens_generated,
            cache_size_tokens: outcome.admitted.prompt_tokens + tokens_generated,
            usage: Usage::of(outcome),
            semantic: Semantic::of(outcome),
        }
    }
}
