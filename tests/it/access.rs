//! Who may ask what: every route with every credential, and how the server says no.

use crate::support::http::{Answer, CHAT, ModelState, Request, Server, Setup, hello};
use expect_test::{Expect, expect};
use semantic::http::{ANY, Policy, Rates, routes};
use serde_json::json;
use std::time::Instant;

const KEY: &str = "key-of-the-tests-1";
const OTHER_KEY: &str = "key-of-the-tests-2";
const ADMIN_KEY: &str = "admin-key-of-the-tests";

/// Two keys and an administrator's; where everything is as it should be, the model is loading.
fn guarded() -> Setup {
    Setup {
        keys: Some("key-of-the-tests-1,key-of-the-tests-2"),
        admin_key: Some(ADMIN_KEY),
        model: ModelState::Loading,
        ..Setup::default()
    }
}

fn bearer(key: &str) -> (&'static str, String) {
    ("Authorization", format!("Bearer {key}"))
}

fn ask(server: &Server, method: &str, path: &str, headers: Vec<(&'static str, String)>) -> Answer {
    server.send(&Request { headers, ..Request::new(method, path) })
}

/// A path that the route answers.
fn example(path: &str) -> String {
    path.split('/')
        .map(|part| if part.starts_with('{') { "x" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

/// Without a valid key nothing is answered but the health, reading the root and the page; an ordinary key
/// opens all but the administration, and the administrator's that alone.
#[test]
fn every_route_asks_for_what_its_policy_says() {
    let server = Server::start(guarded());
    let no_keys = [
        vec![],
        vec![bearer("wrong-key-of-the-tests")],
        vec![bearer(&KEY.to_uppercase())],
        vec![("x-api-key", "wrong-key-of-the-tests".to_owned())],
        vec![("X-Admin-Key", "wrong-key-of-the-tests".to_owned())],
        vec![("Cookie", format!("key={KEY}"))],
    ];
    let keys = [vec![bearer(KEY)], vec![bearer(OTHER_KEY)], vec![("x-api-key", KEY.to_owned())]];
    let admin_keys = [vec![bearer(ADMIN_KEY)], vec![("X-Admin-Key", ADMIN_KEY.to_owned())]];
    let all = routes();
    assert!(all.len() >= 8);
    for route in all {
        let path = example(route.path);
        let method = match route.method {
            ANY => "GET",
            method => method,
        };
        let is_open = matches!(route.policy, Policy::Health | Policy::Open);
        for (credentials, opens) in [
            (&no_keys[..], is_open),
            (&keys[..], route.policy != Policy::Admin),
            (&admin_keys[..], is_open || route.policy == Policy::Admin),
        ] {
            for headers in credentials {
                let status = ask(&server, method, &path, headers.clone()).status;
                assert_eq!(status != 401, opens, "{method} {path} {headers:?}: {status}");
                assert_ne!(status, 403, "{method} {path} {headers:?}");
            }
        }
        // What the route does not take is no way around its policy.
        let status = ask(&server, "TRACE", &path, vec![]).status;
        match route.policy {
            Policy::Health => assert!([404, 405].contains(&status), "{path}: {status}"),
            _ => assert_eq!(status, 401, "{path}"),
        }
    }
}

#[test]
fn without_an_admin_key_nobody_administers() {
    let server = Server::start(Setup { admin_key: None, ..guarded() });
    for headers in [vec![], vec![bearer(KEY)], vec![("X-Admin-Key", KEY.to_owned())]] {
        let answer = ask(&server, "GET", "/admin/x", headers);
        assert_eq!(answer.status, 403);
        assert_eq!(answer.error()["code"], "admin_key_not_configured");
    }
    // Nor is everybody who needs no key.
    let server = Server::start(Setup { keys: None, ..guarded() });
    assert_eq!(ask(&server, "GET", "/admin/x", vec![]).status, 401);
    assert_eq!(ask(&server, "GET", "/admin/x", vec![bearer(ADMIN_KEY)]).status, 404);
}

#[test]
fn refusals_have_the_words_of_whose_client_asks() {
    let server = Server::start(guarded());
    let check = |path: &str, headers: Vec<(&'static str, String)>, expected: Expect| {
        let answer =
            ask(&server, "GET", path, [headers, vec![("X-Request-ID", "r1".to_owned())]].concat());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        expected.assert_eq(&format!("{} {}", answer.status, answer.body));
    };
    check(
        "/v1/x",
        vec![],
        expect![[
            r#"401 {"error":{"message":"a valid API key is needed, as `Authorization: Bearer KEY` or `x-api-key: KEY`","type":"authentication_error","param":null,"code":"invalid_api_key"}}"#
        ]],
    );
    check(
        "/v1/x",
        vec![bearer(KEY)],
        expect![[
            r#"404 {"error":{"message":"there is no such route","type":"not_found_error","param":null,"code":"not_found"}}"#
        ]],
    );
    check(
        "/v1/messagesx",
        vec![bearer(KEY)],
        expect![[
            r#"404 {"error":{"message":"there is no such route","type":"not_found_error","param":null,"code":"not_found"}}"#
        ]],
    );
    check(
        "/v1/messages/x",
        vec![],
        expect![[
            r#"401 {"type":"error","error":{"type":"authentication_error","message":"a valid API key is needed, as `Authorization: Bearer KEY` or `x-api-key: KEY`"},"request_id":"r1"}"#
        ]],
    );
    check(
        "/v1/messages/x",
        vec![bearer(KEY)],
        expect![[
            r#"404 {"type":"error","error":{"type":"not_found_error","message":"there is no such route"},"request_id":"r1"}"#
        ]],
    );
    check(
        "/v1/messages/x",
        vec![("Host", "evil.com".to_owned())],
        expect![[
            r#"403 {"type":"error","error":{"type":"permission_error","message":"the host is not one of this server's names; see allowed_hosts"},"request_id":"r1"}"#
        ]],
    );
}

/// A thousand wrong keys, each as if from elsewhere and for another agent.
#[test]
fn who_guesses_keys_soon_waits_and_costs_those_who_have_one_nothing() {
    let rates = Rates { agent: 0, global: 12, failed_keys: 20, tokens: 0 };
    let server = Server::start(Setup { rates, ..guarded() });
    let chat = |headers: Vec<(&'static str, String)>| {
        let request = Request::chat(&hello(json!({})));
        Request { headers: [headers, request.headers.clone()].concat(), ..request }
    };
    let mut tenant = server.connect();
    assert_eq!(tenant.send(&chat(vec![bearer(KEY)])).status, 503);
    let mut guesser = server.connect();
    let started = Instant::now();
    let mut refused = 0;
    for guess in 0..1000 {
        let answer = guesser.send(&chat(vec![
            bearer(&format!("guess-number-{guess:04}")),
            ("X-Forwarded-For", format!("10.0.{}.{}", guess / 250, guess % 250)),
            ("X-Agent-ID", format!("agent-{guess}")),
        ]));
        match answer.status {
            401 => refused += 1,
            429 => {
                assert_eq!(answer.error()["code"], "rate_limit_exceeded");
                let wait: u64 = answer.header("retry-after").expect("a wait").parse().expect("s");
                assert!((1..=3).contains(&wait), "{wait}");
            }
            status => panic!("{status}"),
        }
    }
    let regained = started.elapsed().as_secs() / 3 + 1;
    assert!((20..=20 + regained).contains(&refused), "{refused}");
    assert_eq!(server.get("/health/live").status, 200);
    // Who asked before goes on, with all of the quota there was.
    let answers: Vec<u16> = (0..12).map(|_| tenant.send(&chat(vec![bearer(KEY)])).status).collect();
    assert_eq!(answers, [vec![503; 11], vec![429]].concat());
}

/// Who guesses waits, and never who has a key: not even one that comes for the first time, from the
/// address of the guesser.
#[test]
fn a_right_key_is_honoured_however_many_wrong_ones_came_before_it() {
    let rates = Rates { agent: 0, global: 0, failed_keys: 1, tokens: 0 };
    let server = Server::start(Setup { rates, ..guarded() });
    let get = |headers| ask(&server, "GET", "/v1/x", headers).status;
    assert_eq!(get(vec![bearer("wrong-key-of-the-tests")]), 401);
    for wrong in ["wrong-key-of-the-tests", &KEY.to_uppercase()] {
        assert_eq!(get(vec![bearer(wrong)]), 429);
    }
    for right in [KEY, OTHER_KEY] {
        assert_eq!(get(vec![bearer(right)]), 404);
    }
    assert_eq!(ask(&server, "GET", "/admin/x", vec![bearer(ADMIN_KEY)]).status, 404);
    // No key at all is no guess.
    assert_eq!(get(vec![]), 401);
}

#[test]
fn each_wrong_key_of_a_request_is_a_guess() {
    let rates = Rates { agent: 0, global: 0, failed_keys: 4, tokens: 0 };
    let server = Server::start(Setup { rates, ..guarded() });
    let own = |name, key: &str| (name, key.to_owned());
    let two = vec![bearer("wrong-key-of-the-tests"), own("x-api-key", "wrong-key-of-the-test2")];
    let statuses = |headers: &[(&'static str, String)]| -> Vec<u16> {
        (0..3).map(|_| ask(&server, "GET", "/v1/x", headers.to_vec()).status).collect()
    };
    assert_eq!(statuses(&two), [401, 401, 429]);
}

/// Four tokens in all: what one agent is refused is left for the others.
#[test]
fn an_agent_over_its_limit_costs_the_others_nothing_wherever_it_is_named() {
    let rates = Rates { agent: 2, global: 4, failed_keys: 0, tokens: 0 };
    for is_in_path in [true, false] {
        let server = Server::start(Setup { rates, ..Setup::default() });
        let turn = |agent: &str| {
            let path = format!("/v1/agents/{agent}/generate");
            let body = json!({ "prompt": "Hello", "max_tokens": 1 }).to_string();
            let named = hello(json!({ "max_tokens": 1, "session_id": agent }));
            let request = match is_in_path {
                true => Request::post(&path, body),
                false => Request::chat(&named),
            };
            server.send(&request).status
        };
        let greedy: Vec<u16> = (0..20).map(|_| turn("greedy")).collect();
        assert_eq!(greedy, [vec![200; 2], vec![429; 18]].concat(), "{is_in_path}");
        assert_eq!([turn("a"), turn("b"), turn("c")], [200, 200, 429], "{is_in_path}");
    }
}

#[test]
fn what_costs_the_processor_is_counted_like_what_generates() {
    let text = json!({ "content": "Hello" });
    let chat = hello(json!({ "max_tokens": 1 }));
    for (path, body) in [
        ("/tokenize", &text),
        ("/detokenize", &json!({ "tokens": [1] })),
        ("/apply-template", &hello(json!({}))),
        ("/v1/messages/count_tokens", &chat),
    ] {
        let rates = Rates { agent: 0, global: 1, failed_keys: 0, tokens: 0 };
        let server = Server::start(Setup { rates, ..Setup::default() });
        let status = || server.send(&Request::post(path, body.to_string())).status;
        assert_eq!([status(), status()], [200, 429], "{path}");
    }
}

#[test]
fn a_page_of_an_allowed_origin_may_ask_and_is_told_so() {
    let origin = "https://app.example";
    let cors_origins = vec![origin.parse().expect("an origin")];
    let server = Server::start(Setup { cors_origins, ..guarded() });
    let from = |origin: &str| ("Origin", origin.to_owned());
    let preflight = |path: &str, from: (&'static str, String)| {
        let asked = ("Access-Control-Request-Method", "POST".to_owned());
        let headers = ("Access-Control-Request-Headers", "authorization,x-agent-id".to_owned());
        ask(&server, "OPTIONS", path, vec![from, asked, headers])
    };
    for path in [CHAT, "/v1/messages", "/health/live", "/nowhere", "/admin/stats"] {
        let answer = preflight(path, from(origin));
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        let methods = answer.header("access-control-allow-methods").expect("methods");
        assert!(methods.contains("POST") && methods.contains("DELETE"), "{methods}");
        let headers = answer.header("access-control-allow-headers");
        assert_eq!(headers, Some("authorization,x-agent-id"));
        assert_eq!(answer.header("access-control-max-age"), Some("600"));
        assert!(
            answer.header("x-request-id").is_some() && answer.header("x-response-time").is_some()
        );
    }
    // What is answered and what is refused: the page may read both.
    let cross_site = ("Sec-Fetch-Site", "cross-site".to_owned());
    for (method, path, headers, status) in [
        ("GET", "/", vec![cross_site.clone()], 200),
        ("GET", "/health/live", vec![], 200),
        ("GET", "/v1/x", vec![], 401),
        ("GET", "/v1/x", vec![bearer(KEY)], 404),
        ("GET", CHAT, vec![bearer(KEY)], 405),
        ("POST", CHAT, vec![bearer(KEY)], 415),
        ("OPTIONS", CHAT, vec![], 401),
        ("GET", "/", vec![("Host", "evil.com".to_owned())], 403),
    ] {
        let answer = ask(&server, method, path, [headers, vec![from(origin)]].concat());
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let exposed = answer.header("access-control-expose-headers").expect("headers");
        assert_eq!(
            exposed,
            "x-request-id, x-response-time, retry-after, ratelimit, ratelimit-policy"
        );
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    for other in
        ["https://app.example.evil.com", "http://app.example", "https://app.example:1", "null"]
    {
        for answer in [
            preflight(CHAT, from(other)),
            ask(&server, "GET", "/", vec![from(other)]),
            ask(&server, "GET", "/health/live", vec![from(other)]),
        ] {
            assert!([403, 200].contains(&answer.status), "{other}: {answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), None, "{other}: {answer:?}");
            assert_eq!(answer.header("vary"), Some("Origin"));
        }
        assert_eq!(preflight(CHAT, from(other)).status, 403);
    }
    // A page on this machine may ask as before, but reads nothing.
    let answer = ask(&server, "GET", "/", vec![from("http://localhost:3000")]);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
    assert_eq!(ask(&server, "GET", "/", vec![cross_site]).status, 403);
}

#[test]
fn what_begins_as_http2_is_refused_and_harms_nobody() {
    let server = Server::start(guarded());
    let mut other = server.connect();
    assert_eq!(other.send(&Request::get("/")).status, 200);
    for _ in 0..20 {
        let mut client = server.connect();
        // The preface and an empty SETTINGS frame of RFC 9113, 3.4.
        client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        let mut answer = Vec::new();
        // The server may close while bytes are on their way.
        let _ = std::io::Read::read_to_end(&mut client.socket, &mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(other.send(&Request::get("/")).status, 200);
}

/// All use the same name for their agent, and the same words.
#[test]
fn fifteen_keys_with_an_agent_each_are_fifteen_agents() {
    let names: Vec<String> = (0..15).map(|key| format!("key-of-tenant-number-{key:02}")).collect();
    let keys: &'static str = names.join(",").leak();
    let rates = Rates { agent: 60, global: 1000, failed_keys: 20, tokens: 0 };
    let server = Server::start(Setup { keys: Some(keys), rates, ..Setup::default() });
    let text = "The same words of everybody. ".repeat(20);
    let messages = json!([{ "role": "user", "content": text }]);
    let body = json!({ "messages": messages, "max_tokens": 4, "session_id": "planner" });
    let turn = |key: &str| {
        let answer = server.send(&Request::chat(&body).header("x-api-key", key));
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        assert_eq!(json["semantic"]["agent"], "planner");
        json["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
    };
    let at_once = || -> Vec<u64> {
        std::thread::scope(|scope| {
            let turns: Vec<_> = names.iter().map(|key| scope.spawn(|| turn(key))).collect();
            turns.into_iter().map(|turn| turn.join().expect("a turn")).collect()
        })
    };
    // Nobody has anything of anybody's, and then each has their own.
    assert_eq!(at_once(), [0; 15]);
    assert!(at_once().iter().all(|cached| *cached > 0));
}
