//! How responses are kept and let go: with their agent, within limits, in nobody else's way.

use super::*;
use crate::support::engine::block_on;
use crate::support::log;
use crate::support::scrape::Scrape;
use crate::support::store::keeping;
use semantic::http::{KeyRates, Rates};
use semantic::store::Settings;

fn path(response: &Json) -> String {
    format!("{RESPONSES}/{}", response["id"].as_str().expect("an id"))
}

fn delete(server: &Server, path: &str) -> u16 {
    server.send(&Request::new("DELETE", path)).status
}

/// All that there is of it are the words of its answers.
#[test]
fn an_agent_that_is_gone_from_memory_is_deleted_with_what_it_said() {
    let server = Server::start(speaking());
    let first = answered(&server, &hi(json!({ "session_id": "a" })));
    let stays = answered(&server, &hi(json!({ "session_id": "b" })));
    assert_eq!(block_on(server.engine().evict_all_to_disk()).expect("it serves").forgotten, 2);
    assert_eq!(server.get("/v1/agents/a").status, 404);
    assert_eq!(server.get(&path(&first)).status, 200);
    assert_eq!(delete(&server, "/v1/agents/a"), 204);
    assert_eq!(server.get(&path(&first)).status, 404);
    assert_eq!(delete(&server, "/v1/agents/a"), 404);
    assert_eq!(server.get(&path(&stays)).status, 200);
}

#[test]
fn an_agent_is_deleted_with_what_it_said_though_nobody_waits_for_it() {
    let disk = ShakyDisk::default();
    let server = Server::start(Setup { disk: Some(disk.clone()), ..speaking() });
    disk.set_failing(Failing::Writes);
    // In memory, with its words.
    let first = answered(&server, &hi(json!({ "session_id": "a" })));
    assert_eq!(first["semantic"]["durable"], false);
    disk.set_failing(Failing::Hangs);
    // The disk is at this one's turn, and what comes later waits.
    let mut other = server.connect();
    other.write(&Request::post(RESPONSES, hi(json!({ "session_id": "b" })).to_string()).bytes());
    let is_there = |agent: &str| server.get(&format!("/v1/agents/{agent}")).status == 200;
    let is_over = || server.engine().stats().running == 0;
    wait_until("the other has had its turn", || is_there("b") && is_over());
    let mut client = server.connect();
    client.write(&Request::new("DELETE", "/v1/agents/a").bytes());
    wait_until("it is under way", || !is_there("a"));
    drop(client);
    let left = "semantic_request_total{method=\"DELETE\",path=\"/v1/agents/{id}\",status=\"499\"}";
    wait_until("nobody waits", || Scrape::of(&server).count(left) == 1.0);
    assert_eq!(server.get(&path(&first)).status, 200);
    disk.set_failing(Failing::Nothing);
    wait_until("its words are gone", || server.get(&path(&first)).status == 404);
}

/// What was said may be too long for the disk where what is remembered of it is not.
#[test]
fn words_that_the_disk_does_not_take_live_in_memory_though_their_turn_is_safe() {
    let disk = ShakyDisk::default();
    let on = |disk: &ShakyDisk| {
        // Of which words have an eighth.
        let settings = Settings { namespace_bytes: Some(48 << 10), ..Settings::default() };
        Server::start(Setup { keeping: Some(keeping(disk.open_with(settings))), ..speaking() })
    };
    let metadata: serde_json::Map<String, Json> =
        (0..16).map(|n| (n.to_string(), json!("x".repeat(500)))).collect();
    let server = on(&disk);
    let first = answered(&server, &hi(json!({ "metadata": metadata })));
    assert_eq!((&first["semantic"]["durable"], &first["store"]), (&json!(true), &json!(true)));
    let second = after(&server, &first, "And now?");
    assert_eq!(server.get(&path(&first)).json(), first);
    drop(server);
    let server = on(&disk);
    assert_eq!(server.get(&path(&first)).status, 404);
    assert_eq!(server.get(&path(&second)).json(), second);
}

#[test]
fn looking_at_responses_is_counted() {
    let rates = Rates { agent: 0, global: 3, failed_keys: 0, tokens: 0 };
    let server = Server::start(Setup {
        keys: Some("0123456789abcdef"),
        rates,
        key_rates: KeyRates::default(),
        ..speaking()
    });
    let send = |request: Request<'_>| server.send(&request.header("X-API-Key", "0123456789abcdef"));
    let first = send(Request::post(RESPONSES, hi(json!({})).to_string())).json();
    let path = path(&first);
    assert_eq!(send(Request::get(&path)).status, 200);
    assert_eq!(send(Request::get(&path)).status, 200);
    assert_eq!(send(Request::get(&path)).status, 429);
    assert_eq!(send(Request::new("DELETE", &path)).status, 429);
}

/// A key whose line is full waits its turn for what is on the disk, too, and others do not.
#[test]
fn what_is_read_from_the_disk_is_read_in_its_keys_line() {
    log::keep();
    let keys = ["0123456789abcdef", "fedcba9876543210"];
    let bounds = Bounds { body_bytes: 1 << 30, ..Bounds::default() };
    let server = Server::start(Setup {
        bounds,
        keys: Some("0123456789abcdef,fedcba9876543210"),
        disk: Some(ShakyDisk::default()),
        ..endless()
    });
    let send = |key, request: Request<'_>| server.send(&request.header("X-API-Key", key));
    let post = |body: Json| Request::post(RESPONSES, body.to_string());
    let [first, other] = keys.map(|key| path(&send(key, post(hi(json!({})))).json()));
    assert_eq!(send(keys[0], Request::get(&first)).status, 200);
    // A turn that is under way meanwhile.
    let body = hi(json!({ "stream": true, "max_output_tokens": 4000, "session_id": "a" }));
    let request = post(body).header("X-API-Key", keys[0]).header("X-Request-ID", "in-line");
    let mut turn = server.connect();
    turn.open(&request);
    // As many bytes as a line may have, and one that does not come.
    let mut filling = server.connect();
    let bytes = 128 << 20;
    let head = Request::new("POST", RESPONSES)
        .header("X-API-Key", keys[0])
        .header("Content-Type", "application/json")
        .header("Content-Length", (bytes + 1).to_string());
    let head = String::from_utf8(head.bytes()).expect("text").replace("Content-Length: 0\r\n", "");
    filling.write(head.as_bytes());
    filling.write(&vec![b' '; bytes]);
    wait_until("its line is full", || send(keys[0], Request::get(&first)).status == 503);
    assert_eq!(send(keys[1], Request::get(&other)).status, 200);
    // An answer that cannot be written down is not kept, and the log says so.
    let all = events(&mut turn, 0);
    let response = &all.last().expect("events")["response"];
    assert_eq!((&response["status"], &response["store"]), (&json!("incomplete"), &json!(false)));
    let is_told = |line: &Json| line["message"].as_str().is_some_and(|it| it.contains("not kept"));
    wait_until("it is told", || log::lines_of("in-line").iter().any(is_told));
    drop(filling);
    wait_until("its line is free", || send(keys[0], Request::get(&first)).status == 200);
}

#[test]
fn a_response_takes_no_query() {
    let server = Server::start(speaking());
    let path = path(&answered(&server, &hi(json!({}))));
    for query in ["stream=true", "stream=false", "include=x", "starting_after=1", "x"] {
        for method in ["GET", "DELETE"] {
            let answer = server.send(&Request::new(method, &format!("{path}?{query}")));
            let name = query.split('=').next().expect("a name");
            assert_eq!(answer.status, 400, "{query}");
            let message = answer.error()["message"].to_string();
            assert!(message.contains(name), "{message}");
        }
    }
    assert_eq!(server.get(&path).status, 200);
    assert_eq!(server.get(&format!("{path}?")).status, 200);
}

/// A response is a point in what was said, wherever its agent has gone back to.
#[test]
fn a_response_is_gone_on_from_though_its_agent_was_rolled_back() {
    let server = Server::start(Setup { disk: Some(ShakyDisk::default()), ..speaking() });
    let first = answered(&server, &hi(json!({ "session_id": "a" })));
    let second = after(&server, &first, "And now?");
    let back = server.send(&Request::post("/v1/agents/a/rollback", "{}"));
    assert_eq!(back.status, 200);
    assert_eq!(server.get(&path(&second)).json(), second);
    let third = after(&server, &second, "And then?");
    assert_eq!(third["semantic"]["agent"], "a");
    assert!(tokens(&third, "input_tokens") > tokens(&second, "total_tokens"), "{second} {third}");
    assert!(cached(&third) >= tokens(&first, "total_tokens") - 1, "{first} {third}");
    // It says what it said.
    let said = |text: &str, role: &str| json!({ "role": role, "content": text });
    let items = json!([
        said("Hello", "user"),
        said(text(&first), "assistant"),
        said("And now?", "user"),
        said(text(&second), "assistant"),
        said("And then?", "user"),
    ]);
    let whole = answered(&server, &hi(json!({ "input": items })));
    assert_eq!(tokens(&whole, "input_tokens"), tokens(&third, "input_tokens"));
}
