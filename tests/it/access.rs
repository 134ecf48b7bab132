//! Who may ask what: every route with every credential, and how the server says no.

use crate::support::http::{Answer, ModelState, Request, Server, Setup};
use expect_test::{Expect, expect};
use semantic::http::{ANY, Policy, routes};

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

/// Without a valid key nothing is answered but the health and reading the root; an ordinary key
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
