//! What is seen of a request from outside: its span, its line in the log, its place in the metrics.
//!
//! A request ends with the last byte of its answer, or when its client leaves: a stream's line comes
//! at the end of the stream. What the engine knows of it, it records in the span.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tracing::Span;
use tracing::field::Empty;

use super::error::{CLIENT_LEFT, Error};
use super::guard::{Gate, Peer, Policy};
use super::routes::{METRICS, STATUS};
use super::traceparent::TraceParent;
use crate::metrics::Metrics;
use crate::metrics::labels::{self, Limit};

/// Of a path and a method the log has no more: whoever asks chooses both, with or without a key.
const LOGGED_PATH_BYTES: usize = 256;
const LOGGED_METHOD_BYTES: usize = 16;

/// A request from its coming to its end, which is told when this is dropped.
pub struct Watched {
    seen: Option<Seen>,
}

/// What is told at the end. Of probes nothing is.
struct Seen {
    span: Span,
    /// Who looks at the numbers again and again is neither counted nor, above debug, logged: that would
    /// be most of both.
    is_scrape: bool,
    /// Nor is what strangers are refused logged above debug: they could fill the disk that agents are
    /// kept on.
    is_stranger: bool,
    method: Method,
    route: &'static str,
    metrics: Arc<Metrics>,
    started: Instant,
    /// Once the head of the answer is there.
    status: Option<u16>,
    is_complete: bool,
}

impl Watched {
    pub fn begin(gate: &Gate, request: &Request, id: &str) -> Watched {
        if gate.policy == Policy::Health {
            return Watched { seen: None };
        }
        let is_scrape = matches!(gate.path, METRICS | STATUS);
        let span = match is_scrape {
            true => tracing::debug_span!("request", id),
            false => span(gate, request, id),
        };
        span.in_scope(|| tracing::debug!("request began"));
        let seen = Seen {
            span,
            is_scrape,
            is_stranger: gate.policy == Policy::Open,
            method: request.method().clone(),
            route: gate.path,
            metrics: Arc::clone(&gate.app.metrics),
            started: Instant::now(),
            status: None,
            is_complete: false,
        };
        Watched { seen: Some(seen) }
    }

    /// For everything that is done for the request.
    pub fn span(&self) -> Span {
        self.seen.as_ref().map_or_else(Span::none, |seen| seen.span.clone())
    }

    /// Looks at the error that an answer is, if it is one, before it is written.
    pub fn look(&mut self, response: &Response) {
        let error = response.extensions().get::<Arc<Error>>();
        let (Some(seen), Some(error)) = (&mut self.seen, error) else { return };
        seen.span.record("error", error.code());
        seen.is_stranger |= may_be_of_stranger(error);
        if let Some(limit) = error.limit() {
            seen.metrics.http.refused(limit);
        }
    }

    /// The answer is there: what is seen goes with its body from here on.
    pub fn answered(mut self, response: Response) -> Response {
        let Some(mut seen) = self.seen.take() else { return response };
        let status = response.status().as_u16();
        seen.status = Some(status);
        seen.count(status);
        // Nobody asks for the body of an answer that has none.
        seen.is_complete = seen.method == Method::HEAD || response.body().is_end_stream();
        response.map(|body| Body::new(WatchedBody { body, seen }))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The client left before there was an answer.
        if let Some(seen) = &self.seen {
            seen.count(CLIENT_LEFT);
        }
    }
}

/// What the log has of a request; the engine fills in what is empty.
fn span(gate: &Gate, request: &Request, id: &str) -> Span {
    let trace = TraceParent::of(request.headers());
    let span = tracing::info_span!(
        "request",
        id,
        method = beginning(request.method().as_str(), LOGGED_METHOD_BYTES),
        route = gate.path,
        path = beginning(request.uri().path(), LOGGED_PATH_BYTES),
        peer = Empty,
        trace_id = Empty,
        parent_id = Empty,
        error = Empty,
        agent = Empty,
        source = Empty,
        prompt_tokens = Empty,
        cached_tokens = Empty,
        completion_tokens = Empty,
        queue_ms = Empty,
        restore_ms = Empty,
        ttft_ms = Empty,
        prefill_ms = Empty,
        decode_ms = Empty,
        save_ms = Empty,
        finish = Empty,
        durable = Empty,
    );
    if let Some(Peer(address)) = request.extensions().get() {
        span.record("peer", tracing::field::display(address));
    }
    if let Some(TraceParent { trace_id, parent_id }) = trace {
        tracing::record_all!(span, trace_id, parent_id);
    }
    span
}

impl Seen {
    fn count(&self, status: u16) {
        if !self.is_scrape {
            let method = label(&self.method);
            self.metrics.http.answered(method, self.route, status, self.started.elapsed());
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let _inside = self.span.enter();
        let duration_ms = self.started.elapsed().as_micros() as f64 / 1e3;
        let status = self.status.unwrap_or(CLIENT_LEFT);
        let outcome = if self.is_complete { "complete" } else { "client left" };
        match self.is_scrape || self.is_stranger {
            true => tracing::debug!(status, duration_ms, outcome, "request answered"),
            false => tracing::info!(status, duration_ms, outcome, "request answered"),
        }
    }
}

/// What whoever reaches the server can have as often as they like, and what a wrong path is.
fn may_be_of_stranger(error: &Error) -> bool {
    let is_refused_for_guessing = error.limit() == Some(Limit::FailedKeys);
    is_refused_for_guessing
        || matches!(
            error,
            Error::TooManyConnections
                | Error::ForeignHost
                | Error::ForeignOrigin
                | Error::Unauthorized
                | Error::NotAdmin
                | Error::NoAdminKey
                | Error::NotFound
        )
}

/// At most so many bytes of a text, in whole characters.
fn beginning(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// An answer's body, and what is told when it ends.
struct WatchedBody {
    body: Body,
    seen: Seen,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let WatchedBody { body, seen } = &mut *self;
        let _inside = seen.span.enter();
        let polled = Pin::new(&mut *body).poll_frame(context);
        // Of a body whose length is known, nobody asks for what comes after it.
        if matches!(polled, Poll::Ready(None)) || body.is_end_stream() {
            seen.is_complete = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn label(method: &Method) -> labels::Method {
    match *method {
        Method::GET => labels::Method::Get,
        Method::HEAD => labels::Method::Head,
        Method::POST => labels::Method::Post,
        Method::PUT => labels::Method::Put,
        Method::PATCH => labels::Method::Patch,
        Method::DELETE => labels::Method::Delete,
        Method::OPTIONS => labels::Method::Options,
        _ => labels::Method::Other,
    }
}
