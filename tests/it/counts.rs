//! Counts that are easily wrong by one: who is at work, what is in the store, what drains waited for.

use std::time::Duration;

use serde_json::json;

use crate::support::http::{Request, Server, Setup, hello, wait_until};
use crate::support::scrape::Scrape;
use crate::support::store::ShakyDisk;

/// A model that takes its time and never ends by itself.
fn endless() -> Setup {
    Setup { is_endless: true, step: Duration::from_millis(1), ..Setup::default() }
}

#[test]
fn an_agent_in_its_first_turn_is_active_though_nothing_of_it_is_kept() {
    let server = Server::start(endless());
    let mut client = server.connect();
    client.stream(&hello(json!({ "stream": true, "session_id": "a", "max_tokens": 8_000 })));
    client.event().expect("it has begun");
    let scrape = Scrape::of(&server);
    assert_eq!(scrape.value("semantic_agents_active"), 1.0);
    assert_eq!(scrape.value("semantic_agents{tier=\"hot\"}"), 0.0);
    drop(client);
    wait_until("its turn ends", || {
        let scrape = Scrape::of(&server);
        scrape.value("semantic_agents{tier=\"hot\"}") == 1.0
            && scrape.value("semantic_agents_active") == 1.0
    });
}

#[test]
fn what_is_in_the_store_is_counted_when_somebody_looks() {
    let server = Server::start(Setup { disk: Some(ShakyDisk::default()), ..Setup::default() });
    let bytes = || Scrape::of(&server).value("semantic_store_bytes");
    let empty = bytes();
    let body = hello(json!({ "session_id": "a", "max_tokens": 4 }));
    assert_eq!(server.chat(&body).json()["semantic"]["durable"], true);
    assert!(bytes() > empty);
    assert_eq!(server.send(&Request::new("DELETE", "/v1/agents/a")).status, 204);
    // Not when the next agent is saved.
    assert_eq!(bytes(), empty);
}

#[test]
fn two_drains_at_once_wait_for_the_same_requests_and_count_them_once() {
    let server = Server::start(endless());
    let mut client = server.connect();
    client.stream(&hello(json!({ "stream": true, "max_tokens": 100 })));
    let engine = server.engine().clone();
    let time = Duration::from_secs(20);
    let drains = async move { tokio::join!(engine.drain(time), engine.drain(time)) };
    let drains = server.runtime.spawn(drains);
    assert_eq!(client.rest().last(), Some(&json!("[DONE]")));
    assert_eq!(server.runtime.block_on(drains).expect("no panic"), (Ok(1), Ok(1)));
    let scrape = Scrape::of(&server);
    assert_eq!(scrape.value("semantic_drained_requests_total"), 1.0);
}
