//! `POST /v1/chat/completions`, as OpenAI has it: whole, or as server-sent events.

mod reply;
mod request;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::error::{Dialect, Error};
use super::guard::Caller;
use super::{App, body, prompt, sse};
use crate::engine::{self, Event, Outcome, Stream};

use reply::Reply;
use request::{Chat, ChatRequest};

pub async fn completions(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let request: ChatRequest = body::read(request, &app.bounds).await?;
    let chat = Chat::try_from(request)?;
    let Caller { namespace, agent } = caller;
    let agent = match (agent, chat.session) {
        (Some(agent), _) => Some(agent),
        (None, Some(session)) => {
            app.limits.check_agent(&namespace, &session)?;
            Some(session)
        }
        (None, None) => None,
    };
    let serving = app.serving()?;
    let prompt = prompt::prompt(serving, &namespace, chat.messages, chat.tools).await?;
    let mut stream = serving.engine.submit(engine::Request {
        namespace,
        agent,
        prompt,
        max_tokens: chat.max_tokens,
        sampling: chat.sampling,
        stops: chat.stops,
        reply: engine::Reply::Turn,
        choices: chat.choices,
        logprobs: chat.logprobs,
        is_end_ignored: false,
        is_ephemeral: false,
    });
    // Its first item decides between an answer and a refusal.
    admitted(&mut stream).await?;
    let tokenizer = chat.logprobs.map(|_| Arc::clone(&serving.tokenizer));
    let reply = Reply::new(serving.model.clone(), tokenizer, chat.choices);
    match chat.streamed {
        None => whole(reply, stream).await,
        Some(usage) => {
            let reply = reply.with_usage(usage);
            let chunks = Chunks { reply, stream, stage: Stage::Beginning };
            Ok(sse::response(chunks, app.bounds.keep_alive))
        }
    }
}

async fn admitted(stream: &mut Stream) -> Result<(), Error> {
    match stream.next().await {
        Some(Ok(Event::Admitted(_))) => Ok(()),
        Some(Ok(event)) => panic!("the engine began with {event:?}"),
        Some(Err(error)) => Err(error.into()),
        None => Err(engine::Error::Stopped.into()),
    }
}

/// Dropped with the handler if the client leaves, and the stream with it.
async fn whole(mut reply: Reply, mut stream: Stream) -> Result<Response, Error> {
    loop {
        match stream.next().await {
            Some(Ok(Event::Admitted(_) | Event::Prefilled { .. })) => (),
            // The outcome has the text; the log-probabilities come in the deltas alone.
            Some(Ok(Event::Text(delta))) => reply.keep_logprobs(&delta),
            Some(Ok(Event::Finished(outcome))) => {
                return Ok(Json(reply.completion(&outcome)).into_response());
            }
            Some(Err(error)) => return Err(error.into()),
            None => return Err(engine::Error::Stopped.into()),
        }
    }
}

/// The reply as a stream of chunks.
struct Chunks {
    reply: Reply,
    stream: Stream,
    stage: Stage,
}

enum Stage {
    Beginning,
    Running,
    Ended,
}

impl sse::Source for Chunks {
    async fn next(&mut self) -> Option<String> {
        match self.stage {
            Stage::Beginning => {
                self.stage = Stage::Running;
                Some(events(&self.reply.first_chunks()))
            }
            Stage::Running => Some(self.running().await),
            Stage::Ended => None,
        }
    }
}

impl Chunks {
    async fn running(&mut self) -> String {
        loop {
            let error = match self.stream.next().await {
                Some(Ok(Event::Admitted(_) | Event::Prefilled { .. })) => continue,
                Some(Ok(Event::Text(delta))) => match self.reply.chunk(&delta) {
                    Some(chunk) => return sse::event(&chunk),
                    None => continue,
                },
                Some(Ok(Event::Finished(outcome))) => return self.finished(&outcome),
                Some(Err(error)) => error,
                None => engine::Error::Stopped,
            };
            self.stage = Stage::Ended;
            return sse::event(&Error::from(error).logged().json(Dialect::OpenAi));
        }
    }

    fn finished(&mut self, outcome: &Outcome) -> String {
        self.stage = Stage::Ended;
        events(&self.reply.last_chunks(outcome)) + &sse::event("[DONE]")
    }
}

fn events(chunks: &[String]) -> String {
    chunks.iter().map(|chunk| sse::event(chunk)).collect()
}
