//! `GET /ui`: a page for people, in one answer that asks for nothing else. It holds no secret, so it
//! is open; what it shows comes from routes that ask for a key.
//!
//! Its policy lets it run and look like what is written here and nothing else, and talk to nobody
//! but this server.

use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use super::App;
use super::error::Unchanged;

const MARKUP: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page with its headers, made once.
struct Page {
    text: String,
    headers: HeaderMap,
}

static PAGE: LazyLock<Page> = LazyLock::new(Page::new);

pub async fn page(State(_): State<Arc<App>>, request: HeaderMap) -> Response {
    let Page { text, headers } = &*PAGE;
    match has_it(&request, &headers[ETAG]) {
        true => Unchanged(headers.clone()).into_response(),
        false => (headers.clone(), Body::from(text.as_str())).into_response(),
    }
}

/// A proxy that compresses makes the tag a weak one.
fn has_it(request: &HeaderMap, tag: &HeaderValue) -> bool {
    let sent = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = sent.flat_map(|value| value.split(','));
    tags.any(|sent| sent.trim().trim_start_matches("W/").as_bytes() == tag.as_bytes())
}

impl Page {
    fn new() -> Page {
        let text = MARKUP.replacen("/* page.css */", STYLE, 1).replacen("/* page.js */", SCRIPT, 1);
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; \
             frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
            digest(SCRIPT),
            digest(STYLE)
        );
        let tag = format!("\"{}\"", BASE64_STANDARD.encode(Sha256::digest(&text)));
        let value = |text: String| HeaderValue::try_from(text).expect("visible ASCII");
        let fixed = HeaderValue::from_static;
        let headers: [(HeaderName, HeaderValue); 6] = [
            (CONTENT_TYPE, fixed("text/html; charset=utf-8")),
            (CONTENT_SECURITY_POLICY, value(policy)),
            (X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
            (REFERRER_POLICY, fixed("no-referrer")),
            (CACHE_CONTROL, fixed("no-cache")),
            (ETAG, value(tag)),
        ];
        Page { text, headers: headers.into_iter().collect() }
    }
}

/// As a policy names what stands between two tags.
fn digest(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}
