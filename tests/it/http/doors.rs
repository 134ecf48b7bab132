//! Health, the root, and who may ask for more.

use super::*;

#[test]
fn a_server_whose_model_loads_lives_and_is_neither_started_nor_ready() {
    for model in [ModelState::Missing, ModelState::Loading] {
        let server = Server::start(Setup { model, ..Setup::default() });
        let check = |path: &str, status: u16, body: Json| {
            let answer = server.get(path);
            assert_eq!((answer.status, answer.json()), (status, body), "{path}");
        };
        check("/health", 200, json!({ "status": "ok" }));
        check("/health/live", 200, json!({ "status": "alive" }));
        check("/health/startup", 503, json!({ "status": "starting", "reason": "model_loading" }));
        check(
            "/health/ready",
            503,
            json!({ "status": "not_ready", "reason": "model_loading", "pool_utilization": 0.0 }),
        );
        let answer = server.chat(&hello(json!({})));
        assert_eq!(refused(&answer, 503)["code"], "model_loading");
        assert_eq!(answer.header("retry-after"), Some("5"));
    }
}

#[test]
fn health_answers_whoever_asks_however_they_ask() {
    let rates = Rates { agent: 1, global: 1, failed_keys: 1, tokens: 0 };
    let server = Server::start(Setup { keys: Some(KEY), rates, ..loading() });
    for _ in 0..20 {
        let request = Request::get("/health/live")
            .header("Host", "10.1.2.3:8000")
            .header("Origin", "null")
            .header("Sec-Fetch-Site", "cross-site");
        assert_eq!(server.send(&request).status, 200);
    }
    let answer = server.send(&Request::new("HEAD", "/health"));
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("15")));
    refused(&server.get("/health/nothing"), 404);
    let answer = server.send(&Request::post("/health", "{}"));
    assert_eq!(refused(&answer, 405)["type"], "invalid_request_error");
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
}

#[test]
fn the_root_says_what_this_is() {
    let server = with_keys();
    let about = server.get("/").json();
    assert_eq!((&about["name"], &about["version"]), (&json!("semantic"), &json!("0.1.0")));
    for (path, methods) in about["links"].as_object().expect("links") {
        let method = methods[0].as_str().expect("a method");
        let answer = server.send(&Request::new(method, path));
        // Without a key it is refused before anybody looks for what it names.
        assert_ne!(answer.status, 404, "{path}");
    }
    let answer = server.send(&Request::new("HEAD", "/"));
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
}

/// Every route with every kind of credential. Only the health, reading the root and the page are open.
#[test]
fn nothing_else_is_answered_without_a_key() {
    let server = with_keys();
    let routes = [
        ("POST", CHAT),
        ("GET", CHAT),
        ("OPTIONS", CHAT),
        ("POST", "/"),
        ("DELETE", "/"),
        ("GET", "/metrics"),
        ("GET", "/v1"),
        ("POST", "/v1/chat/completions/"),
        ("GET", "//health"),
        ("GET", "/healthy"),
        ("GET", "/%68ealth"),
        ("GET", "/x/../health"),
    ];
    let bearer = |key: &str| ("Authorization", format!("Bearer {key}"));
    let own = |key: &str| ("x-api-key", key.to_owned());
    let invalid = [
        vec![],
        vec![bearer("")],
        vec![bearer("wrong-key-of-the-tests")],
        vec![bearer(&KEY.to_uppercase())],
        vec![bearer(&KEY[1..])],
        vec![bearer(&format!("{KEY},{OTHER_KEY}"))],
        vec![("Authorization", KEY.to_owned())],
        vec![("Authorization", format!("Basic {KEY}"))],
        vec![("Authorization", format!("Bearer{KEY}"))],
        vec![("Authorization", "é".to_owned())],
        vec![own("")],
        vec![own("wrong-key-of-the-tests")],
        vec![("Cookie", format!("key={KEY}"))],
    ];
    let valid = [
        vec![bearer(KEY)],
        vec![bearer(OTHER_KEY)],
        vec![own(KEY)],
        vec![("authorization", format!("bEARER  {KEY} "))],
        vec![("X-API-Key", OTHER_KEY.to_owned())],
        // A proxy's own.
        vec![("Authorization", "Basic dXNlcg==".to_owned()), own(KEY)],
        vec![bearer("wrong-key-of-the-tests"), own(KEY)],
    ];
    let send = |(method, path), headers: &Vec<(&'static str, String)>| {
        let request = Request { headers: headers.clone(), ..Request::new(method, path) };
        server.send(&request)
    };
    for route in routes {
        for headers in &invalid {
            let answer = send(route, headers);
            let error = refused(&answer, 401);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            expect![[r#"{"message":"a valid API key is needed, as `Authorization: Bearer KEY` or `x-api-key: KEY`","type":"authentication_error","param":null,"code":"invalid_api_key"}"#]]
                .assert_eq(&error.to_string());
        }
        for headers in &valid {
            let answer = send(route, headers);
            let expected: &[u16] = match route {
                ("GET", "/metrics") => &[200],
                _ => &[404, 405, 415],
            };
            assert!(expected.contains(&answer.status), "{route:?}: {answer:?}");
        }
    }
    // And a key in the address is none.
    refused(&server.get(&format!("{CHAT}?key={KEY}")), 401);
}

#[test]
fn what_is_meant_for_another_host_or_sent_by_another_site_is_refused() {
    let server = Server::start(loading());
    let check = |headers: &[(&'static str, &str)], status: u16, code: &str| {
        let mut request = Request::get("/");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let answer = server.send(&request);
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
        if status != 200 {
            assert_eq!(refused(&answer, 403)["code"], code);
        }
    };
    for host in ["localhost", "LocalHost:1234", "127.0.0.1:8000", "[::1]:8000"] {
        check(&[("Host", host)], 200, "");
    }
    for host in ["", "evil.com", "x.local:8000", "localhost.evil.com", "127.0.0.2", "0.0.0.0"] {
        check(&[("Host", host)], 403, "host_not_allowed");
    }
    for origin in ["http://localhost:3000", "https://127.0.0.1"] {
        check(&[("Origin", origin)], 200, "");
    }
    for origin in ["null", "", "http://evil.com", "https://localhost.evil.com", "file://"] {
        check(&[("Origin", origin)], 403, "origin_not_allowed");
    }
    check(&[("Sec-Fetch-Site", "cross-site")], 403, "origin_not_allowed");
    check(&[("Sec-Fetch-Site", "same-origin")], 200, "");
    // Named twice, both count.
    let answer = server.get("http://evil.com/");
    assert_eq!(refused(&answer, 403)["code"], "host_not_allowed");
    let mut client = server.connect();
    client.write(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(refused(&client.answer("GET"), 403)["code"], "host_not_allowed");
    // A proxy may have read the other one.
    for (twice, code) in [
        ("Host: localhost\r\nHost: evil.com", "host_not_allowed"),
        ("Host: localhost\r\nHost: localhost", "host_not_allowed"),
        ("Host: localhost\r\nOrigin: http://localhost\r\nOrigin: null", "origin_not_allowed"),
    ] {
        let mut client = server.connect();
        client.write(format!("GET / HTTP/1.1\r\n{twice}\r\n\r\n").as_bytes());
        assert_eq!(refused(&client.answer("GET"), 403)["code"], code, "{twice}");
    }
}

#[test]
fn a_browser_page_is_never_told_that_it_may() {
    let server = Server::start(loading());
    let request = Request::new("OPTIONS", CHAT)
        .header("Origin", "http://localhost:3000")
        .header("Access-Control-Request-Method", "POST");
    let answer = server.send(&request);
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[test]
fn a_request_id_is_echoed_if_it_can_be_and_made_if_not() {
    let server = Server::start(loading());
    let echoed = |id: &str| {
        let answer = server.send(&Request::get("/").header("X-Request-ID", id));
        answer.header("x-request-id").expect("an id").to_owned()
    };
    assert_eq!(echoed("trace-7/a"), "trace-7/a");
    for id in ["", "two words", "é", &"x".repeat(129)] {
        let made = echoed(id);
        assert!(made.len() == 16 && made != echoed(id), "{made}");
    }
}
