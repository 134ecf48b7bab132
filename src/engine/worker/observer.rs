//! Sees where each request is, for the metrics and the log. Decides nothing.
//!
//! A request's span is the caller's, as it was when the request was submitted; what it comes to is
//! recorded there, so that whoever logs the answer logs that too. Its phases are spans inside it:
//! what is logged on behalf of a request says which request that is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Span;

use crate::engine::scheduler::{Order, Parting, Place, RequestId, Restore};
use crate::engine::{Admitted, Delta, Error, Event, Finish, Item, Outcome, Source};
use crate::metrics::Metrics;
use crate::metrics::labels::{Finished, Miss, Tier};
use crate::text::{Cause, Role, Tokenizer, difference};

pub struct Observer {
    metrics: Arc<Metrics>,
    accounts: BTreeMap<RequestId, Account>,
}

/// What is known of one request.
struct Account {
    span: Span,
    phase: Phase,
    submitted: Instant,
    /// By choice.
    last_tokens: Vec<Option<Instant>>,
    first_token: Option<Instant>,
}

/// Where a request is, and since when.
struct Phase {
    name: &'static str,
    span: Span,
    since: Instant,
}

impl Observer {
    pub fn new(metrics: Arc<Metrics>) -> Observer {
        Observer { metrics, accounts: BTreeMap::new() }
    }

    /// It is in line.
    pub fn submitted(&mut self, request: RequestId, span: Span, now: Instant) {
        let phase = Phase::queue(&span, now);
        let account =
            Account { span, phase, submitted: now, last_tokens: Vec::new(), first_token: None };
        self.accounts.insert(request, account);
    }

    /// It has its blocks, which are being filled from the store.
    pub fn restoring(&mut self, request: RequestId, now: Instant) {
        if let Some(account) = self.accounts.get_mut(&request) {
            account.enter(Phase::restore(&account.span, now), now);
        }
    }

    /// Logs something on behalf of a request.
    pub fn in_scope<T>(&self, request: RequestId, log: impl FnOnce() -> T) -> T {
        match self.accounts.get(&request) {
            Some(account) => account.phase.span.in_scope(log),
            None => log(),
        }
    }

    /// What a request's client is about to hear.
    pub fn item(&mut self, request: RequestId, item: &Item, now: Instant) {
        let Some(account) = self.accounts.get_mut(&request) else { return };
        let metrics = &*self.metrics;
        match item {
            Ok(Event::Admitted(admitted)) => account.admitted(admitted, metrics, now),
            Ok(Event::Prefilled { .. }) => (),
            Ok(Event::Text(delta)) => account.text(delta, metrics, now),
            Ok(Event::Finished(outcome)) => {
                account.finished(outcome, metrics, now);
                self.accounts.remove(&request);
            }
            Err(error) => {
                account.failed(error, metrics, now);
                self.accounts.remove(&request);
            }
        }
    }

    /// A prompt cannot go on from all that its agent remembers. The text is looked at and not told:
    /// the log has the place and the cause.
    pub fn parting(&self, request: RequestId, parting: &Parting, tokenizer: &Tokenizer) {
        let Parting::At(place) = parting else {
            return self.metrics.cache.missed(Miss::New);
        };
        let difference = difference(tokenizer, &place.stored, &place.given);
        let cause = difference.map_or(Cause::Unknown, |difference| difference.cause);
        self.metrics.cache.missed(label(cause));
        let Place { token, stored_tokens, prompt_tokens, .. } = place;
        let cause = cause.code();
        self.in_scope(request, || {
            tracing::info!(
                token,
                stored_tokens,
                prompt_tokens,
                cause,
                "the prompt parts from what its agent remembers"
            );
        });
    }

    /// A block has come from the store.
    pub fn read(&self, bytes: u64) {
        self.metrics.cache.read(bytes);
    }

    /// Of a restore, so many blocks have come and are of use.
    pub fn restored(&self, restore: &Restore, blocks: usize, now: Instant) {
        self.metrics.cache.restored(now.saturating_duration_since(restore.started));
        let is_awaited = |order: Order| self.accounts.contains_key(&order.request);
        if blocks < restore.blocks.len() && restore.order.is_some_and(is_awaited) {
            self.metrics.cache.missed(Miss::Unreadable);
        }
    }
}

impl Account {
    fn enter(&mut self, next: Phase, now: Instant) {
        std::mem::replace(&mut self.phase, next).end(now);
    }

    fn admitted(&mut self, admitted: &Admitted, metrics: &Metrics, now: Instant) {
        self.enter(Phase::prefill(&self.span, now), now);
        metrics.requests.admitted(admitted.queued, admitted.prompt_tokens);
        let tier = match admitted.source {
            Source::Hot => Some(Tier::Hot),
            Source::Warm => Some(Tier::Warm),
            Source::Cold => None,
        };
        metrics.cache.looked_up();
        if let Some(tier) = tier {
            metrics.cache.hit(tier, admitted.cached_tokens, admitted.restored_tokens);
        }
        tracing::record_all!(
            self.span,
            agent = admitted.agent.as_str(),
            prompt_tokens = admitted.prompt_tokens,
            cached_tokens = admitted.cached_tokens,
            source = admitted.source.word(),
            queue_ms = milliseconds(admitted.queued),
            restore_ms = milliseconds(admitted.restore),
        );
    }

    fn text(&mut self, delta: &Delta, metrics: &Metrics, now: Instant) {
        if delta.tokens == 0 {
            return;
        }
        if self.first_token.is_none() {
            self.first_token = Some(now);
            self.enter(Phase::decode(&self.span, now), now);
            let since_submitted = now.saturating_duration_since(self.submitted);
            metrics.requests.first_token(since_submitted);
            metrics.recent.first_token(since_submitted, now);
        }
        metrics.requests.tokens(delta.tokens);
        metrics.recent.tokens(delta.tokens, now);
        if self.last_tokens.len() <= delta.choice {
            self.last_tokens.resize(delta.choice + 1, None);
        }
        if let Some(last) = self.last_tokens[delta.choice].replace(now) {
            let gap = now.saturating_duration_since(last) / delta.tokens as u32;
            for _ in 0..delta.tokens {
                metrics.requests.between_tokens(gap);
            }
        }
    }

    fn finished(&mut self, outcome: &Outcome, metrics: &Metrics, now: Instant) {
        let last_token = self.last_tokens.iter().flatten().max().copied().unwrap_or(now);
        let save = now.saturating_duration_since(last_token);
        self.enter(Phase::save(&self.span, last_token), last_token);
        self.phase.end(now);
        let finish = outcome.choices.first().map(|choice| &choice.finish);
        let (why, word) = match finish {
            Some(Finish::Stop | Finish::StopSequence(_)) => (Finished::Stop, "stop"),
            Some(Finish::Length) => (Finished::Length, "length"),
            Some(Finish::Cancelled) | None => (Finished::Abort, "cancelled"),
        };
        let since_submitted = now.saturating_duration_since(self.submitted);
        metrics.requests.finished(why, since_submitted);
        let ttft = self.first_token.map(|first| first.saturating_duration_since(self.submitted));
        if ttft.is_some() {
            metrics.requests.prefilled(outcome.prefill);
            metrics.requests.decoded(outcome.decode);
        }
        let completion_tokens: usize =
            outcome.choices.iter().map(|choice| choice.completion_tokens).sum();
        tracing::record_all!(
            self.span,
            completion_tokens,
            ttft_ms = ttft.map(milliseconds),
            prefill_ms = milliseconds(outcome.prefill),
            decode_ms = milliseconds(outcome.decode),
            save_ms = milliseconds(save),
            finish = word,
            durable = outcome.durability.is_durable(),
        );
    }

    fn failed(&mut self, error: &Error, metrics: &Metrics, now: Instant) {
        self.phase.end(now);
        let since_submitted = now.saturating_duration_since(self.submitted);
        metrics.requests.finished(Finished::Error, since_submitted);
        self.span.record("finish", "error");
        self.span.in_scope(|| tracing::info!(%error, "the request ended with an error"));
    }
}

macro_rules! phase {
    ($name:ident) => {
        fn $name(request: &Span, since: Instant) -> Phase {
            let span = tracing::info_span!(parent: request, stringify!($name));
            Phase { name: stringify!($name), span, since }
        }
    };
}

impl Phase {
    phase!(queue);
    phase!(restore);
    phase!(prefill);
    phase!(decode);
    phase!(save);

    fn end(&self, now: Instant) {
        let duration_ms = milliseconds(now.saturating_duration_since(self.since));
        self.span.in_scope(|| tracing::debug!(duration_ms, "{} ended", self.name));
    }
}

/// With three places: log lines are read by people, too.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

fn label(cause: Cause) -> Miss {
    match cause {
        Cause::Date => Miss::Date,
        Cause::Time => Miss::Time,
        Cause::Nonce => Miss::Nonce,
        Cause::ToolJson => Miss::ToolJson,
        Cause::Thinking => Miss::Thinking,
        Cause::SystemChanged | Cause::Message(Role::System) => Miss::SystemChanged,
        Cause::SystemMoved => Miss::SystemMoved,
        Cause::OtherModel => Miss::OtherModel,
        Cause::OtherTokens => Miss::OtherTokens,
        Cause::Message(Role::User | Role::Assistant | Role::Tool) => Miss::Message,
        Cause::Unknown => Miss::Unknown,
    }
}
