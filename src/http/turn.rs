//! What all routes that generate share: from who asks and what was said to the engine's stream, and
//! from there to an answer, whole or as events.
//!
//! A route makes its checked request a [`Turn`] and [`start`]s it. Then [`whole`] waits for the
//! outcome, or [`streamed`] tells it as it comes, in the words of the route's [`Events`].

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use tracing::Span;

use super::error::Error;
use super::guard::Caller;
use super::held::{self, Format};
use super::limits::limited;
use super::prompt::{self, Input};
use super::{App, Serving, sse};
use crate::engine::{self, Admitted, Delta, Event, Mark, Outcome, Sampling, Stream, Terms};
use crate::metrics::labels::Limit;
use crate::text::ToolCallParser;
use crate::types::AgentId;

/// A request with nothing left to check but what only the engine knows.
#[derive(Debug)]
pub struct Turn {
    pub named: Named,
    pub input: Input,
    /// Up to the end of the context if not given.
    pub max_tokens: Option<usize>,
    pub sampling: Sampling,
    pub stops: Vec<String>,
    pub choices: usize,
    /// With so many alternatives.
    pub logprobs: Option<usize>,
    /// Go on when the model ends its turn.
    pub is_end_ignored: bool,
    /// What the reply is to be, if the model is not free.
    pub format: Option<Format>,
    /// What looks for calls in it, if anything does.
    pub calls: Option<ToolCallParser>,
}

/// Where a request names its agent. A path comes before the headers, and they before the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Counted already, by [`count`].
    Path(AgentId),
    Body(AgentId),
    /// In a header, if anywhere.
    Elsewhere,
}

impl Named {
    pub fn in_body(session: Option<AgentId>) -> Named {
        session.map_or(Named::Elsewhere, Named::Body)
    }
}

/// A turn that the engine has. If it is dropped, the engine forgets it.
pub struct Running {
    pub serving: Arc<Serving>,
    /// What looks for calls in its replies.
    pub calls: Option<ToolCallParser>,
    stream: Stream,
    /// The field that its prompt came in.
    field: &'static str,
}

/// Submits a turn. It may have to wait before it is admitted.
pub async fn start(app: &App, caller: Caller, turn: Turn) -> Result<Running, Error> {
    start_after(app, caller, turn, None).await
}

/// The same for one that goes on from what its agent had.
pub async fn start_after(
    app: &App,
    caller: Caller,
    turn: Turn,
    after: Option<Mark>,
) -> Result<Running, Error> {
    let agent = agent(app, &caller, turn.named)?;
    let purse = app.limits.purse(&caller)?;
    let serving = Arc::clone(app.serving()?);
    let namespace = caller.namespace;
    let (reply, field) = (turn.input.reply(), turn.input.field());
    let calls = held::parser(turn.calls, turn.format.as_ref(), &serving);
    let grammar = match turn.format {
        Some(format) => Some(held::grammar(app, &serving, &namespace, format).await?),
        None => None,
    };
    let prompt = prompt::prompt(app, &serving, &namespace, turn.input).await?;
    let request = engine::Request {
        namespace,
        agent,
        prompt,
        max_tokens: turn.max_tokens,
        sampling: turn.sampling,
        stops: turn.stops,
        reply,
        choices: turn.choices,
        logprobs: turn.logprobs,
        is_end_ignored: turn.is_end_ignored,
        grammar,
        is_ephemeral: false,
    };
    let stream = serving.engine.submit_on(Terms { after, purse }, request);
    Ok(Running { serving, calls, stream, field })
}

impl Running {
    /// The same, of a prompt that came in another field.
    pub fn asked_in(self, field: &'static str) -> Running {
        Running { field, ..self }
    }

    /// The next event. May be dropped while it waits.
    async fn next(&mut self) -> Result<Event, Error> {
        use engine::Error as E;
        let field = self.field;
        let item = self.stream.next().await;
        item.unwrap_or(Err(E::Stopped)).map_err(|error| match error {
            E::EmptyPrompt
            | E::OutsideVocabulary { .. }
            | E::PromptTooLong { .. }
            | E::LargerThanPurse { .. } => Error::Unservable { error, field },
            E::TokensSpent { wait } => limited(Limit::Tokens, wait),
            error => error.into(),
        })
    }
}

/// Counts a request for the agent that its path or its body names, before anything is done for it.
/// The guard has counted it for the agent that a header names, and for no other.
pub fn count(app: &App, caller: &Caller, agent: &AgentId) -> Result<(), Error> {
    match &caller.agent {
        Some(header) if header == agent => Ok(()),
        Some(_) | None => app.limits.check_agent(caller, agent),
    }
}

fn agent(app: &App, caller: &Caller, named: Named) -> Result<Option<AgentId>, Error> {
    Ok(match (named, &caller.agent) {
        (Named::Path(path), _) => Some(path),
        (Named::Body(_) | Named::Elsewhere, Some(header)) => Some(header.clone()),
        (Named::Body(session), None) => {
            count(app, caller, &session)?;
            Some(session)
        }
        (Named::Elsewhere, None) => None,
    })
}

/// Waits for the outcome. The outcome has the text; what `hear` gets has the log-probabilities.
/// Dropped with the handler if the client leaves, and the turn with it.
pub async fn whole(
    mut running: Running,
    mut hear: impl FnMut(&Delta) + Send,
) -> Result<Outcome, Error> {
    loop {
        match running.next().await? {
            Event::Admitted(_) | Event::Prefilled { .. } => (),
            Event::Text(delta) => hear(&delta),
            Event::Finished(outcome) => return Ok(outcome),
        }
    }
}

/// Something to wait for before the end of a turn is told.
pub type Settling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a route tells a turn: each of these is any number of whole events, as [`sse::event`] writes
/// them.
pub trait Events: Send + 'static {
    /// What is sent when there was nothing to tell for a while.
    const KEEP_ALIVE: &'static str = sse::COMMENT;

    /// First, and once.
    fn admitted(&mut self, admitted: &Admitted) -> String;
    fn text(&mut self, delta: &Delta) -> String;
    /// What there is to do before the end is told, if there is anything.
    fn settle(&mut self, _outcome: &Outcome) -> Option<Settling> {
        None
    }
    /// Last, unless it failed.
    fn finished(&mut self, outcome: &Outcome) -> String;
    /// Last, perhaps before it was admitted.
    fn failed(&mut self, error: &Error) -> String;
}

/// The turn as a stream of events. A refusal within the time after which a stream says that it is
/// alive has a status of its own; then the headers go out, and what comes later is an event.
pub async fn streamed<E: Events>(
    mut running: Running,
    mut events: E,
    keep_alive: Duration,
) -> Result<Response, Error> {
    let pending = match tokio::time::timeout(keep_alive, running.next()).await {
        Ok(first) => match first? {
            Event::Admitted(admitted) => events.admitted(&admitted),
            // Not what it says, which is in no log.
            Event::Prefilled { .. } => panic!("the engine began with a prefill"),
            Event::Text(_) => panic!("the engine began with text"),
            Event::Finished(_) => panic!("the engine began with the end"),
        },
        // It waits in line.
        Err(_) => E::KEEP_ALIVE.to_owned(),
    };
    let told = Told { events, running, pending, ending: None, is_over: false };
    Ok(sse::response(told, keep_alive, E::KEEP_ALIVE))
}

struct Told<E> {
    events: E,
    running: Running,
    /// What is to be sent before anything else.
    pending: String,
    /// The outcome, and what is to be done before it is told.
    ending: Option<(Outcome, Option<Settling>)>,
    is_over: bool,
}

impl<E: Events> sse::Source for Told<E> {
    async fn next(&mut self) -> Option<String> {
        loop {
            if !self.pending.is_empty() {
                return Some(std::mem::take(&mut self.pending));
            }
            if self.is_over {
                return None;
            }
            if let Some((outcome, settling)) = &mut self.ending {
                if let Some(settling) = settling {
                    settling.await;
                }
                self.pending = self.events.finished(outcome);
                self.is_over = true;
                self.ending = None;
                continue;
            }
            self.pending = match self.running.next().await {
                Ok(Event::Admitted(admitted)) => self.events.admitted(&admitted),
                Ok(Event::Prefilled { .. }) => continue,
                Ok(Event::Text(delta)) => self.events.text(&delta),
                // It stays here, as this may be dropped while it waits.
                Ok(Event::Finished(outcome)) => {
                    let settling = self.events.settle(&outcome);
                    self.ending = Some((outcome, settling));
                    continue;
                }
                Err(error) => {
                    self.is_over = true;
                    // The head said 200, and the request's line is to say what came of it.
                    Span::current().record("error", error.code());
                    self.events.failed(&error.logged())
                }
            };
        }
    }
}
