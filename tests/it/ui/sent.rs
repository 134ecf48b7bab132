//! What is sent to whoever asks for the page.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use crate::support::http::{Answer, ModelState, Request, Server, Setup};

const KEY: &str = "0123456789abcdef";

fn server() -> Server {
    Server::start(Setup { keys: Some(KEY), model: ModelState::Missing, ..Setup::default() })
}

fn page() -> Answer {
    server().get("/ui")
}

/// What stands between two tags, of which there is one each.
fn inside<'a>(page: &'a str, tag: &str) -> &'a str {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    assert_eq!(page.matches(&open).count(), 1, "{tag}");
    let rest = page.split_once(&open).expect("it begins").1;
    rest.split_once(&close).expect("it ends").0
}

#[test]
fn the_page_needs_no_key_and_may_run_what_is_in_it_and_nothing_else() {
    let answer = page();
    assert_eq!(answer.status, 200);
    let digest = |tag| {
        let text = inside(&answer.body, tag);
        assert!(text.len() > 1000, "{tag}: {text}");
        BASE64_STANDARD.encode(Sha256::digest(text))
    };
    let (script, style) = (digest("script"), digest("style"));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; \
         img-src data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
         form-action 'none'"
    );
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", &policy),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
}

#[test]
fn the_page_names_no_other_place_and_takes_no_text_for_markup() {
    let page = page().body;
    // Addresses, and ways to load something.
    let places = ["://", "src=", "url(", "@import", "import(", "importScripts", "WebSocket"];
    // Ways to make markup or a program of a text, and to keep the key.
    let markup = ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "DOMParser"];
    let programs = ["eval(", "Function(", "setTimeout(\"", " style=", " on", "javascript:"];
    let kept = ["localStorage", "document.cookie", "indexedDB"];
    for part in [&places[..], &markup[..], &kept[..]].concat() {
        assert!(!page.contains(part), "{part}");
    }
    let html = page.replace(inside(&page, "script"), "").replace(inside(&page, "style"), "");
    for part in programs {
        // `on` alone is English; with `=` after a word it is an attribute.
        let is_there = match part {
            " on" => html.split(" on").skip(1).any(|rest| {
                let word: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
                rest[word.len()..].starts_with('=')
            }),
            other => page.contains(other),
        };
        assert!(!is_there, "{part}");
    }
    assert!(!page.contains("/* page."), "a part of it is missing");
}

#[test]
fn who_has_the_page_is_not_sent_it_again() {
    let server = server();
    let first = server.get("/ui");
    let tag = first.header("etag").expect("a tag").to_owned();
    for sent in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}")] {
        let answer = server.send(&Request::get("/ui").header("If-None-Match", sent));
        assert_eq!((answer.status, answer.body.as_str()), (304, ""));
        assert_eq!(answer.header("etag"), Some(tag.as_str()));
        let policy = "content-security-policy";
        assert_eq!(answer.header(policy), first.header(policy));
    }
    let other = server.send(&Request::get("/ui").header("If-None-Match", "\"x\""));
    assert_eq!((other.status, other.body), (200, first.body));
    let head = server.send(&Request::new("HEAD", "/ui"));
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("etag"), Some(tag.as_str()));
}

/// The page is open, and stands behind the same door as all others.
#[test]
fn the_page_is_for_who_names_this_server() {
    let server = server();
    let ask = |name, value: &str| server.send(&Request::get("/ui").header(name, value)).status;
    assert_eq!(ask("Host", "localhost:8000"), 200);
    assert_eq!(ask("Host", "evil.example"), 403);
    assert_eq!(ask("Origin", "http://evil.example"), 403);
    // To write there is nothing, and a key is asked for first.
    assert_eq!(server.send(&Request::post("/ui", "{}")).status, 401);
    for path in ["/v1/status", "/v1/agents"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    assert_eq!(server.get("/").json()["links"]["/ui"][0], "GET");
}
