//! Why a request was not served, as the client hears it. The only file that knows status codes.
//!
//! The shape is OpenAI's, `{"error":{"message","type","param","code"}}`, and Anthropic's on its
//! routes. A client hears what it can act on; what concerns us alone goes to the log.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::fields::shown;
use super::limits;
use crate::engine::{self, AgentError, DrainError};
use crate::metrics::labels::Limit;
use crate::text;

/// When to come back if only the engine's queue is full: a request or two will have ended.
const RETRY_FULL: Duration = Duration::from_secs(1);
/// What is counted and logged in place of a status where nobody was left to hear one; the number
/// is nginx's.
pub const CLIENT_LEFT: u16 = 499;
/// When to come back if the server starts, ends or cannot keep up: another may have taken over.
const RETRY_LATER: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    // The guard's.
    #[error("this server has too many connections")]
    TooManyConnections,
    #[error("the host is not one of this server's names; see allowed_hosts")]
    ForeignHost,
    #[error("requests from other web sites are refused")]
    ForeignOrigin,
    #[error("a valid API key is needed, as `Authorization: Bearer KEY` or `x-api-key: KEY`")]
    Unauthorized,
    #[error("a valid admin key is needed, as `X-Admin-Key: KEY` or `Authorization: Bearer KEY`")]
    NotAdmin,
    #[error("this server has no admin key; SEMANTIC_ADMIN_KEY sets it")]
    NoAdminKey,
    #[error("too many {}; try again in {} s", .limits::what(*limit), .retry_after.as_secs())]
    RateLimited { limit: Limit, retry_after: Duration },
    #[error("there is no such route")]
    NotFound,
    #[error("this route does not take {method}")]
    MethodNotAllowed { method: String },

    // The body's.
    #[error("the content type is not application/json")]
    NotJson,
    #[error("the body is encoded as {0}; send it as it is")]
    Encoded(String),
    #[error("the body has more than {bytes_max} bytes")]
    BodyTooLarge { bytes_max: usize },
    #[error("the body did not arrive within {} s", .0.as_secs_f32())]
    BodyTooSlow(Duration),
    #[error("the body ended early")]
    BodyCut,
    #[error("{message}")]
    Invalid { message: String, param: Option<String> },

    // What comes of it.
    #[error(transparent)]
    Prompt(#[from] text::Error),
    #[error(transparent)]
    Grammar(#[from] text::GrammarError),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Drain(#[from] DrainError),
    #[error("there is no model {id:?}; this server serves {served:?}")]
    NoModel { id: String, served: String },
    /// Of a prompt that came in this field.
    #[error("{error}")]
    Unservable { error: engine::Error, field: &'static str },
    #[error("there is no response {} to go on from", shown(.0))]
    NoPrevious(String),
    #[error("there is no response {}", shown(.0))]
    NoResponse(String),
    #[error("no thread for a grammar: {0}")]
    NoThread(std::io::Error),
    #[error("the handler panicked")]
    Panicked,
}

impl Error {
    /// A field of the request that cannot be as it is.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Error {
        Error::Invalid { message: message.into(), param: Some(param.into()) }
    }

    /// The error as JSON, for a stream that has begun.
    pub fn json(&self, dialect: Dialect) -> String {
        self.body(dialect, None)
    }

    /// One word for programs, where there is one.
    pub fn code(&self) -> Option<&'static str> {
        self.describe().code
    }

    /// Whose limit the request was over, if that is why it was refused.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Error::RateLimited { limit, .. } => Some(*limit),
            _ => None,
        }
    }

    /// Tells the log what the client does not hear.
    pub fn logged(self) -> Error {
        let Described { status, retry_after, .. } = self.describe();
        if status.is_server_error() && retry_after.is_none() {
            tracing::error!(error = %self, "a request failed");
        }
        self
    }

    fn body(&self, dialect: Dialect, request_id: Option<&str>) -> String {
        let Described { kind, code, message, .. } = self.describe();
        let message = message.map_or_else(|| self.to_string(), str::to_owned);
        let body = match dialect {
            Dialect::OpenAi => {
                let param = match self {
                    Error::Invalid { param, .. } => param.as_deref(),
                    Error::Grammar(error) => error.field(),
                    Error::Engine(error) => engine_param(error),
                    Error::Unservable { field, .. } => Some(*field),
                    Error::NoPrevious(_) => Some("previous_response_id"),
                    _ => None,
                };
                let kind = kind.for_openai();
                json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
            }
            Dialect::Anthropic => {
                let error = json!({ "type": kind.for_anthropic(), "message": message });
                match request_id {
                    Some(id) => json!({ "type": "error", "error": error, "request_id": id }),
                    None => json!({ "type": "error", "error": error }),
                }
            }
        };
        body.to_string()
    }

    fn describe(&self) -> Described {
        use StatusCode as S;
        match self {
            Error::TooManyConnections => {
                let crowded = Described::new(S::SERVICE_UNAVAILABLE, Kind::Overloaded);
                crowded.code("too_many_connections").retry(RETRY_FULL).closing()
            }
            Error::ForeignHost => {
                Described::new(S::FORBIDDEN, Kind::Permission).code("host_not_allowed")
            }
            Error::ForeignOrigin => {
                Described::new(S::FORBIDDEN, Kind::Permission).code("origin_not_allowed")
            }
            Error::Unauthorized => {
                Described::new(S::UNAUTHORIZED, Kind::Authentication).code("invalid_api_key")
            }
            Error::NotAdmin => {
                Described::new(S::UNAUTHORIZED, Kind::Authentication).code("invalid_admin_key")
            }
            Error::NoAdminKey => {
                Described::new(S::FORBIDDEN, Kind::Permission).code("admin_key_not_configured")
            }
            Error::RateLimited { retry_after, .. } => {
                let limited = Described::new(S::TOO_MANY_REQUESTS, Kind::RateLimit);
                limited.code("rate_limit_exceeded").retry(*retry_after)
            }
            Error::NotFound => Described::new(S::NOT_FOUND, Kind::NotFound).code("not_found"),
            Error::MethodNotAllowed { .. } => {
                let refused = Described::new(S::METHOD_NOT_ALLOWED, Kind::InvalidRequest);
                refused.code("method_not_allowed")
            }
            Error::NotJson | Error::Encoded(_) => {
                let refused = Described::new(S::UNSUPPORTED_MEDIA_TYPE, Kind::InvalidRequest);
                refused.code("unsupported_media_type")
            }
            Error::BodyTooLarge { .. } => {
                let refused = Described::new(S::PAYLOAD_TOO_LARGE, Kind::TooLarge);
                refused.code("request_too_large").closing()
            }
            Error::BodyTooSlow(_) => {
                let refused = Described::new(S::REQUEST_TIMEOUT, Kind::InvalidRequest);
                refused.code("request_timeout").closing()
            }
            Error::BodyCut => Described::new(S::BAD_REQUEST, Kind::InvalidRequest).closing(),
            Error::Invalid { .. } => Described::new(S::BAD_REQUEST, Kind::InvalidRequest),
            Error::Prompt(error) => describe_text(error),
            Error::Grammar(error) => match error.field() {
                Some(_) => Described::new(S::BAD_REQUEST, Kind::InvalidRequest),
                None => Described::internal(),
            },
            Error::Engine(error) | Error::Unservable { error, .. } => describe_engine(error),
            Error::Agent(error) => describe_agent(error),
            Error::Drain(error) => describe_drain(error),
            Error::NoModel { .. } => {
                Described::new(S::NOT_FOUND, Kind::NotFound).code("model_not_found")
            }
            // As OpenAI has it: a field of the request is wrong.
            Error::NoPrevious(_) => {
                let invalid = Described::new(S::BAD_REQUEST, Kind::InvalidRequest);
                invalid.code("previous_response_not_found")
            }
            Error::NoResponse(_) => {
                Described::new(S::NOT_FOUND, Kind::NotFound).code("response_not_found")
            }
            Error::NoThread(_) | Error::Panicked => Described::internal(),
        }
    }
}

/// A template may refuse a conversation or be overwhelmed by it; a tokenizer takes every text.
fn describe_text(error: &text::Error) -> Described {
    match error {
        text::Error::TemplateRaised { .. }
        | text::Error::TemplateFailed { .. }
        | text::Error::TemplateOutOfFuel { .. }
        | text::Error::TemplateTooLarge { .. }
        | text::Error::NoTurn
        | text::Error::NoTemplate => {
            Described::new(StatusCode::BAD_REQUEST, Kind::InvalidRequest).code("invalid_messages")
        }
        text::Error::BrokenFile { .. }
        | text::Error::BrokenVocabulary { .. }
        | text::Error::Unsupported { .. }
        | text::Error::Encode { .. }
        | text::Error::TemplateBroken { .. } => Described::internal(),
    }
}

fn describe_engine(error: &engine::Error) -> Described {
    use engine::Error as E;
    let invalid = Described::new(StatusCode::BAD_REQUEST, Kind::InvalidRequest);
    let overloaded = Described::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Overloaded);
    let cut = Described::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Server).retry(RETRY_LATER);
    match error {
        E::EmptyPrompt
        | E::NoTokensWanted
        | E::Choices { .. }
        | E::Logprobs { .. }
        | E::Sampling(_)
        | E::OutsideVocabulary { .. }
        | E::BiasOutsideVocabulary { .. }
        | E::AllBanned { .. } => invalid,
        E::PromptTooLong { .. } => invalid.code("context_length_exceeded"),
        E::TokensSpent { wait } => {
            let limited = Described::new(StatusCode::TOO_MANY_REQUESTS, Kind::RateLimit);
            limited.code("rate_limit_exceeded").retry(*wait)
        }
        E::AgentBusy(_) => {
            Described::new(StatusCode::CONFLICT, Kind::InvalidRequest).code("agent_busy")
        }
        E::LargerThanPool(_) | E::LargerThanPurse { .. } => invalid.code("request_too_large"),
        E::QueueFull { .. } => overloaded.code("queue_full").retry(RETRY_FULL),
        E::WaitedTooLong(_) => overloaded.code("queue_timeout").retry(RETRY_LATER),
        // Another server behind the same address will take the next request, not this connection.
        E::Draining => overloaded.code("shutting_down").retry(RETRY_LATER).closing(),
        E::Starting => overloaded.code("model_loading").retry(RETRY_LATER),
        E::Cut => cut.code("shutting_down").closing(),
        E::SlowReader => cut.code("slow_reader"),
        E::Grammar(_) => invalid.code("grammar_too_complex"),
        E::NotANumber { .. } | E::Model(_) | E::Stopped => Described::internal(),
    }
}

fn describe_agent(error: &AgentError) -> Described {
    use StatusCode as S;
    let conflict = Described::new(S::CONFLICT, Kind::InvalidRequest);
    match error {
        AgentError::NotFound(_) => {
            Described::new(S::NOT_FOUND, Kind::NotFound).code("agent_not_found")
        }
        AgentError::NoSave { .. } => {
            Described::new(S::NOT_FOUND, Kind::NotFound).code("save_not_found")
        }
        AgentError::Exists(_) => conflict.code("agent_exists"),
        AgentError::Busy(_) => conflict.code("agent_busy"),
        AgentError::Quota(_) | AgentError::PinQuota(_) => conflict.code("quota_exceeded"),
        AgentError::NothingKept => conflict.code("nothing_kept"),
        AgentError::NotSaved(_) => {
            let failed = Described::new(S::SERVICE_UNAVAILABLE, Kind::Server);
            failed.code("not_saved").retry(RETRY_LATER)
        }
        AgentError::Late(_) => {
            let late = Described::new(S::SERVICE_UNAVAILABLE, Kind::Server);
            late.code("disk_slow").retry(RETRY_LATER)
        }
        AgentError::Disk => Described::internal(),
        AgentError::Engine(error) => describe_engine(error),
    }
}

fn describe_drain(error: &DrainError) -> Described {
    match error {
        DrainError::Timeout { .. } => {
            let late = Described::new(StatusCode::GATEWAY_TIMEOUT, Kind::Server);
            late.code("drain_timeout").retry(RETRY_LATER)
        }
        DrainError::Stopped => Described::internal(),
    }
}

/// The field of a request that the engine did not like.
fn engine_param(error: &engine::Error) -> Option<&'static str> {
    match error {
        engine::Error::NoTokensWanted => Some("max_tokens"),
        engine::Error::Choices { .. } => Some("n"),
        engine::Error::Logprobs { .. } => Some("top_logprobs"),
        engine::Error::BiasOutsideVocabulary { .. } | engine::Error::AllBanned { .. } => {
            Some("logit_bias")
        }
        _ => None,
    }
}

/// What HTTP and OpenAI's clients want to know of an error.
struct Described {
    status: StatusCode,
    kind: Kind,
    code: Option<&'static str>,
    retry_after: Option<Duration>,
    /// Whether this connection is of no further use.
    is_closing: bool,
    /// In place of the error's own text, where that is not for clients.
    message: Option<&'static str>,
}

/// Whose clients a route is for, and so whose words it has for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    Anthropic,
}

impl Dialect {
    /// That of a path, whether or not it is a route.
    pub fn of(path: &str) -> Dialect {
        match path.strip_prefix("/v1/messages") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Dialect::Anthropic,
            Some(_) | None => Dialect::OpenAi,
        }
    }
}

/// The `type` of an error.
#[derive(Clone, Copy)]
enum Kind {
    InvalidRequest,
    Authentication,
    Permission,
    NotFound,
    TooLarge,
    RateLimit,
    Overloaded,
    Server,
}

impl Kind {
    fn for_openai(self) -> &'static str {
        match self {
            Kind::InvalidRequest | Kind::TooLarge => "invalid_request_error",
            Kind::Authentication => "authentication_error",
            Kind::Permission => "permission_error",
            Kind::NotFound => "not_found_error",
            Kind::RateLimit => "rate_limit_error",
            Kind::Overloaded => "overloaded_error",
            Kind::Server => "server_error",
        }
    }

    fn for_anthropic(self) -> &'static str {
        match self {
            Kind::TooLarge => "request_too_large",
            Kind::Server => "api_error",
            Kind::InvalidRequest
            | Kind::Authentication
            | Kind::Permission
            | Kind::NotFound
            | Kind::RateLimit
            | Kind::Overloaded => self.for_openai(),
        }
    }
}

impl Described {
    fn new(status: StatusCode, kind: Kind) -> Described {
        Described { status, kind, code: None, retry_after: None, is_closing: false, message: None }
    }

    fn internal() -> Described {
        let message = Some("the server failed to answer this request; its log has the cause");
        let internal = Described::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Server);
        Described { message, ..internal.code("internal_error") }
    }

    fn code(self, code: &'static str) -> Described {
        Described { code: Some(code), ..self }
    }

    fn retry(self, after: Duration) -> Described {
        Described { retry_after: Some(after), ..self }
    }

    fn closing(self) -> Described {
        Described { is_closing: true, ..self }
    }
}

/// An answer without a body: [`render`] writes it, as a handler does not know who asked how.
impl From<QueryRejection> for Error {
    fn from(rejection: QueryRejection) -> Error {
        let message = format!("the query is not valid: {}", rejection.body_text());
        Error::Invalid { message, param: None }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let Described { status, retry_after, is_closing, .. } = self.describe();
        let mut response = status.into_response();
        let headers = response.headers_mut();
        if let Some(after) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs()));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if is_closing {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.extensions_mut().insert(Arc::new(self.logged()));
        response
    }
}

/// Writes the error that an answer is, if it is one.
pub fn render(response: &mut Response, dialect: Dialect, request_id: &str) {
    let Some(error) = response.extensions_mut().remove::<Arc<Error>>() else { return };
    *response.body_mut() = Body::from(error.body(dialect, Some(request_id)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
}

/// That something was done about which there is nothing to say: 204.
pub enum Done {
    /// A browser has heard what its page may do.
    Permitted(HeaderMap),
    AsAsked,
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        match self {
            Done::Permitted(headers) => (StatusCode::NO_CONTENT, headers).into_response(),
            Done::AsAsked => StatusCode::NO_CONTENT.into_response(),
        }
    }
}

/// That a client has already what it asks for, with these headers: 304.
pub struct Unchanged(pub HeaderMap);

impl IntoResponse for Unchanged {
    fn into_response(self) -> Response {
        (StatusCode::NOT_MODIFIED, self.0).into_response()
    }
}

/// Something that was not there before: 201.
pub struct Created<T>(pub T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

/// A probe's answer.
pub enum Probe<T> {
    /// 200.
    Well(T),
    /// 503.
    Unwell(T),
}

impl<T: Serialize> IntoResponse for Probe<T> {
    fn into_response(self) -> Response {
        match self {
            Probe::Well(body) => (StatusCode::OK, Json(body)).into_response(),
            Probe::Unwell(body) => (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_us_alone_is_not_told() {
        for error in [
            Error::Engine(engine::Error::Model("weights at 0x7f".to_owned())),
            Error::Engine(engine::Error::NotANumber { position: 7 }),
            Error::Engine(engine::Error::Stopped),
            Error::Prompt(text::Error::Encode { reason: "token 17 of secret".to_owned() }),
            Error::Panicked,
        ] {
            expect_test::expect![[
                r#"{"error":{"message":"the server failed to answer this request; its log has the cause","type":"server_error","param":null,"code":"internal_error"}}"#
            ]]
            .assert_eq(&error.json(Dialect::OpenAi));
            expect_test::expect![[r#"{"type":"error","error":{"type":"api_error","message":"the server failed to answer this request; its log has the cause"}}"#]]
            .assert_eq(&error.json(Dialect::Anthropic));
            assert_eq!(error.into_response().status(), 500);
        }
    }
}
