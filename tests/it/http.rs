//! The server's door: health, who may ask, what is refused and how, and the limits of connections.

mod bodies;
mod doors;
mod limits;
mod tokens;

use crate::support::http::{
    Answer, CHAT, ModelState, Request, Server, Setup, hello, is_once_below, wait_until,
};
use expect_test::expect;
use semantic::http::{Bounds, Rates};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

const KEY: &str = "key-of-the-tests-1";
const OTHER_KEY: &str = "key-of-the-tests-2";

fn with_keys() -> Server {
    Server::start(Setup { keys: Some("key-of-the-tests-1,key-of-the-tests-2"), ..loading() })
}

/// Where everything is as it should be, it says that the model is loading.
fn loading() -> Setup {
    Setup { model: ModelState::Loading, ..Setup::default() }
}

fn with_bounds(bounds: Bounds) -> Server {
    Server::start(Setup { bounds, ..loading() })
}

/// A refusal with the headers that every answer has.
fn refused(answer: &Answer, status: u16) -> Json {
    assert_eq!(answer.status, status, "{answer:?}");
    let id = answer.header("x-request-id").expect("an id");
    assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert!(answer.header("x-response-time").expect("a time").ends_with("ms"));
    answer.error()
}
