//! Server-sent events: an answer that is sent as it comes.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use futures_util::stream::unfold;

/// What clients skip: the connection is alive, the model is busy.
pub const COMMENT: &str = ": keep-alive\n\n";

/// What an answer is made of.
pub trait Source: Send + 'static {
    /// The next events, whole; `None` after the last. May be dropped while it waits.
    fn next(&mut self) -> impl Future<Output = Option<String>> + Send;
}

/// An answer that goes on until the source ends, and that says `alive` as often as this while the
/// source has nothing to say. If the client leaves, the source is dropped.
pub fn response(source: impl Source, keep_alive: Duration, alive: &'static str) -> Response {
    let events = unfold(source, move |mut source| async move {
        let text = match tokio::time::timeout(keep_alive, source.next()).await {
            Ok(events) => Bytes::from(events?),
            Err(_) => Bytes::from_static(alive.as_bytes()),
        };
        Some((Ok::<_, Infallible>(text), source))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx and those who follow it collect an answer unless they are told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// One event that has a name.
pub fn named_event(name: &str, json: &str) -> String {
    format!("event: {name}\n{}", event(json))
}

/// One event. JSON has no line breaks outside strings and escapes those inside, so whatever the
/// model writes stays in its event.
pub fn event(json: &str) -> String {
    assert!(!json.contains(['\n', '\r']));
    format!("data: {json}\n\n")
}
