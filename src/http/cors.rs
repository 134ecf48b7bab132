//! Which web pages of other origins may use this server, and how a browser is told (CORS).
//!
//! Keys travel in headers that a page sets itself, never in cookies, so answers allow an origin by
//! its name and never credentials.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method};

use super::guard::{REQUEST_ID, RESPONSE_TIME};
use super::standing::{LIMIT, POLICY};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE");
/// For how long a browser need not ask again; Chromium takes at most two hours.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("600");

/// `http://host`, `https://host:port` and the like: what a browser says a page is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

/// Why a text is no origin that could be allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error("\"*\" would allow every page; name each origin")]
    Any,
    #[error("{0:?} is no origin; one is http://HOST[:PORT] or https://HOST[:PORT]")]
    Invalid(String),
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Origin, OriginError> {
        let invalid = || OriginError::Invalid(text.to_owned());
        if text == "*" {
            return Err(OriginError::Any);
        }
        let origin = text.to_ascii_lowercase();
        let schemes = [("http://", ":80"), ("https://", ":443")];
        let (rest, usual) = schemes
            .iter()
            .find_map(|(scheme, usual)| Some((origin.strip_prefix(scheme)?, usual)))
            .ok_or_else(invalid)?;
        match is_authority(rest) {
            // Browsers leave the scheme's own port out.
            true => Ok(Origin(origin.strip_suffix(usual).unwrap_or(&origin).to_owned())),
            false => Err(invalid()),
        }
    }
}

/// A name or an address, an IPv6 one in brackets, and perhaps a port.
fn is_authority(text: &str) -> bool {
    let is_port =
        |port: &str| port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let (is_host, rest) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, rest)) => (address.parse::<Ipv6Addr>().is_ok(), rest),
        None => {
            let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (!host.is_empty() && host.bytes().all(is_fine), rest)
        }
    };
    is_host && (rest.is_empty() || is_port(rest))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The origins that are allowed.
pub struct Cors(Vec<Origin>);

impl Cors {
    pub fn new(allowed: Vec<Origin>) -> Cors {
        Cors(allowed)
    }

    /// The request's origin, if it is allowed.
    pub fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let is_it = |allowed: &Origin| origin.as_bytes().eq_ignore_ascii_case(allowed.0.as_bytes());
        self.0.iter().any(is_it).then(|| origin.clone())
    }

    /// Tells a browser that the page which asked may read the answer.
    pub fn mark(&self, headers: &mut HeaderMap, allowed: Option<HeaderValue>) {
        if self.0.is_empty() {
            return;
        }
        // Also where nothing is allowed: a cache must not give that answer to another page.
        headers.append(VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = allowed else { return };
        let exposed = format!("{REQUEST_ID}, {RESPONSE_TIME}, retry-after, {LIMIT}, {POLICY}");
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::try_from(exposed).expect("names of headers"),
        );
    }
}

/// Whether a browser asks if it may ask.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What an allowed page may send: all headers that it has asked for.
pub fn permissions(request: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
    if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    headers.insert(
        VARY,
        HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"),
    );
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for text in ["http://localhost:3000", "https://app.example", "HTTP://[::1]:80"] {
            assert!(text.parse::<Origin>().is_ok(), "{text}");
        }
        for (text, sent) in [
            ("https://app.example:443", "https://app.example"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://localhost:443", "http://localhost:443"),
            ("http://localhost:8080", "http://localhost:8080"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), sent);
        }
        for text in [
            "",
            "null",
            "app.example",
            "https://",
            "https://a.b/",
            "https://a b",
            "ftp://a",
            "http://:80",
            "http://[",
            "http://[a]",
            "http://a:b",
            "http://a:65536",
            "http://a:1:2",
        ] {
            let error = text.parse::<Origin>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is no origin")), "{error}");
        }
        assert_eq!("*".parse::<Origin>(), Err(OriginError::Any));
    }
}
