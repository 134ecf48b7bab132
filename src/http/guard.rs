//! What stands before every handler: who may ask, what, and how often.
//!
//! Outermost are the request's id, its time and its line in the log, so that refusals have them
//! too. Then, in this order: health, the host and the origin, the key and how many wrong ones came
//! from this address, the rate limits. The body is not read before all of them agree.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::Instrument;

use super::error::{self, Dialect, Done, Error};
use super::keys::{KeyId, Presented};
use super::observe::Watched;
use super::{App, body, cors, random};
use crate::types::{AgentId, Namespace};

pub const REQUEST_ID: &str = "x-request-id";
pub const RESPONSE_TIME: &str = "x-response-time";
/// Where an agent is named, the first wins.
const AGENT_HEADERS: [&str; 2] = ["x-agent-id", "x-session-id"];
/// A client's own request id is echoed up to this length: a UUID has 36 characters.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The guard of some routes.
#[derive(Clone)]
pub struct Gate {
    pub app: Arc<App>,
    pub door: Door,
    pub policy: Policy,
    /// With `{names}` in place of what varies.
    pub path: &'static str,
}

/// Where a connection comes from: the socket's own word, which no header can change.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// How a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Main,
    /// Beyond the limit of connections: only the health is answered.
    Spare,
}

/// What a route asks of those who ask it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing, and nothing is logged: probes must get through.
    Health,
    /// A right host, to read.
    Open,
    /// A key as well.
    Key,
    /// And that the rate limits allow it: what costs the model's time or the processor's.
    Counted,
    /// The administrator's key, which is another one.
    Admin,
}

/// Who asks, as the guard found out.
#[derive(Clone, Debug)]
pub struct Caller {
    pub namespace: Namespace,
    /// As named in a header.
    pub agent: Option<AgentId>,
    /// `None` where none is asked for.
    pub key: Option<KeyId>,
}

impl Caller {
    /// Who need not say who they are.
    fn anybody() -> Caller {
        Caller { namespace: Namespace::local(), agent: None, key: None }
    }
}

/// What is to be done with a request.
enum Admitted {
    Handle(Caller),
    /// Nothing but to tell a browser that its page may ask.
    Permit,
    /// Who asks is known, and asks too often.
    Refuse(Caller, Error),
}

pub async fn guard(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let path = request.uri().path().to_owned();
    let peer = *request.extensions().get::<Peer>().expect("every connection has its own");
    let origin = gate.app.cors.allowed(request.headers());
    let mut watched = Watched::begin(&gate, &request, id.as_str());
    let span = watched.span();
    let refuse = |request, refusal: Error| {
        body::discard(request, &gate.app.bounds);
        span.in_scope(|| refusal.into_response())
    };
    let mut limited = None;
    let mut response = match gate.admit(&request, peer, origin.as_ref()) {
        Ok(Admitted::Permit) => {
            Done::Permitted(cors::permissions(request.headers())).into_response()
        }
        Ok(Admitted::Handle(caller)) => {
            limited = Some(caller.clone());
            request.extensions_mut().insert(caller);
            let answer = next.run(request).instrument(span.clone());
            let answer = AssertUnwindSafe(answer).catch_unwind().await;
            answer.unwrap_or_else(|_| span.in_scope(|| Error::Panicked.into_response()))
        }
        Ok(Admitted::Refuse(caller, refusal)) => {
            limited = Some(caller);
            refuse(request, refusal)
        }
        Err(refusal) => refuse(request, refusal),
    };
    watched.look(&response);
    error::render(&mut response, Dialect::of(&path), id.as_str());
    gate.app.cors.mark(response.headers_mut(), origin);
    let elapsed_ms = started.elapsed().as_micros() as f64 / 1e3;
    let time = HeaderValue::try_from(format!("{elapsed_ms:.3}ms")).expect("digits and a point");
    response.headers_mut().insert(REQUEST_ID, id.0);
    response.headers_mut().insert(RESPONSE_TIME, time);
    if let (Some(caller), Policy::Key | Policy::Counted) = (&limited, gate.policy) {
        gate.app.limits.mark(caller, response.headers_mut());
    }
    watched.answered(response)
}

/// The answer to every path that is no route.
pub async fn not_found(State(app): State<Arc<App>>, request: Request) -> Error {
    body::discard(request, &app.bounds);
    Error::NotFound
}

/// The answer to every method that a route does not take; axum adds those that it does.
pub async fn method_not_allowed(State(app): State<Arc<App>>, request: Request) -> Error {
    let method = request.method().to_string();
    body::discard(request, &app.bounds);
    Error::MethodNotAllowed { method }
}

impl Gate {
    /// `origin` is that of a page that may use this server.
    fn admit(
        &self,
        request: &Request,
        peer: Peer,
        origin: Option<&HeaderValue>,
    ) -> Result<Admitted, Error> {
        let headers = request.headers();
        let is_preflight = origin.is_some() && cors::is_preflight(request.method(), headers);
        match (self.policy, self.door) {
            (Policy::Health, _) if is_preflight => return Ok(Admitted::Permit),
            (Policy::Health, _) => return Ok(Admitted::Handle(Caller::anybody())),
            (_, Door::Spare) => return Err(Error::TooManyConnections),
            (_, Door::Main) => (),
        }
        self.app.hosts.check(request.uri(), headers, origin)?;
        if is_preflight {
            return Ok(Admitted::Permit);
        }
        let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
        if self.policy == Policy::Open && is_reading {
            return Ok(Admitted::Handle(Caller::anybody()));
        }
        let caller = self.identify(headers, peer)?;
        if self.policy == Policy::Counted
            && let Err(refusal) = self.app.limits.check(&caller)
        {
            return Ok(Admitted::Refuse(caller, refusal));
        }
        Ok(Admitted::Handle(caller))
    }

    fn identify(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, Error> {
        let App { access, admin, guesses, .. } = &*self.app;
        let (presented, refusal) = match self.policy {
            Policy::Admin => {
                let admin = admin.as_ref().ok_or(Error::NoAdminKey)?;
                (admin.look_up(headers).map(|()| Caller::anybody()), Error::NotAdmin)
            }
            Policy::Health | Policy::Open | Policy::Key | Policy::Counted => {
                let found = access.look_up(headers);
                let caller = |(key, namespace)| Caller { namespace, agent: None, key };
                (found.map(caller), Error::Unauthorized)
            }
        };
        match presented {
            Presented::Nothing => Err(refusal),
            Presented::Wrong(keys) => {
                guesses.count(peer.0, keys)?;
                Err(refusal)
            }
            Presented::Right(caller) => Ok(Caller { agent: named_agent(headers)?, ..caller }),
        }
    }
}

fn named_agent(headers: &HeaderMap) -> Result<Option<AgentId>, Error> {
    for name in AGENT_HEADERS {
        let Some(value) = headers.get(name) else { continue };
        let id = std::str::from_utf8(value.as_bytes())
            .map_err(|_| Error::field(name, format!("{name} is not UTF-8")))?;
        return match AgentId::new(id) {
            Ok(agent) => Ok(Some(agent)),
            Err(error) => Err(Error::field(name, format!("{name}: {error}"))),
        };
    }
    Ok(None)
}

/// An id of visible ASCII characters.
struct RequestId(HeaderValue);

impl RequestId {
    fn as_str(&self) -> &str {
        self.0.to_str().expect("it is ASCII")
    }
}

/// The client's own, so that its log and ours can be laid side by side; else a new one.
fn request_id(headers: &HeaderMap) -> RequestId {
    let given = headers.get(REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    let new = || HeaderValue::try_from(random::hex()).expect("hexadecimal digits");
    RequestId(given.cloned().unwrap_or_else(new))
}
