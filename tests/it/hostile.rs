//! What nobody sends by mistake: bodies that are nearly right, numbers at the end of their range,
//! bombs, prompts without end, and bytes that two readers would read as two requests.

use std::io::Read;
use std::time::{Duration, Instant};

use semantic::http::{Bounds, LogControl};
use serde_json::{Value as Json, json};

use crate::support::http::{Answer, CHAT, ModelState, Request, Server, Setup, hello};
use crate::support::scale::scaled;

/// What `semantic bench` sends, too.
#[path = "../../src/cli/bench/server/mutant.rs"]
mod mutant;

use mutant::{Dice, mutant};

/// Checks that it is the client's mistake, said in our shape.
fn refused(answer: &Answer, status: u16) -> Json {
    assert_eq!(answer.status, status, "{answer:?}");
    answer.error()
}

/// Every route that reads a body, with one that has every field and kind of item that there is.
fn whole_bodies() -> Vec<(&'static str, Json)> {
    let drawing = json!({
        "max_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 10,
        "stream": true,
        "session_id": "me",
    });
    let with = |fields: Json| {
        let mut body = drawing.clone();
        for (name, value) in fields.as_object().expect("an object") {
            body[name] = value.clone();
        }
        body
    };
    let parameters = json!({ "type": "object", "properties": { "at": { "type": "string" } } });
    let function = json!({ "name": "look", "description": "Looks.", "parameters": parameters });
    let call = json!({ "name": "look", "arguments": "{\"at\":\"it\"}" });
    let chat = json!([
        { "role": "system", "content": "Be brief.", "name": "s" },
        { "role": "user", "content": [{ "type": "text", "text": "Hello" }] },
        {
            "role": "assistant",
            "content": null,
            "tool_calls": [{ "id": "call_1", "type": "function", "function": call }],
        },
        { "role": "tool", "tool_call_id": "call_1", "content": "It is red." },
    ]);
    let blocks = json!([
        { "role": "user", "content": [{ "type": "text", "text": "Hello" }] },
        {
            "role": "assistant",
            "content": [
                { "type": "thinking", "thinking": "Hm.", "signature": "x" },
                { "type": "redacted_thinking", "data": "x" },
                { "type": "text", "text": "I look." },
                { "type": "tool_use", "id": "toolu_1", "name": "look", "input": { "at": "it" } },
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [{ "type": "text", "text": "It is red." }],
                    "is_error": false,
                    "cache_control": { "type": "ephemeral" },
                },
                { "type": "text", "text": "And?" },
            ],
        },
    ]);
    let messages = with(json!({
        "messages": blocks,
        "model": "any",
        "system": [{ "type": "text", "text": "Be brief." }],
        "stop_sequences": ["a", "b"],
        "tools": [{
            "type": "custom",
            "name": "look",
            "description": "Looks.",
            "input_schema": parameters,
        }],
        "tool_choice": { "type": "auto", "disable_parallel_tool_use": false },
        "thinking": { "type": "disabled" },
        "metadata": { "user_id": "me" },
        "service_tier": "auto",
    }));
    vec![
        (
            CHAT,
            with(json!({
                "messages": chat,
                "model": "any",
                "min_p": 0.1,
                "n": 1,
                "stop": ["a", "b"],
                "seed": 7,
                "ignore_eos": false,
                "logprobs": true,
                "top_logprobs": 2,
                "stream_options": { "include_usage": true },
                "response_format": { "type": "text" },
                "tools": [{ "type": "function", "function": function }],
                "tool_choice": "auto",
                "parallel_tool_calls": true,
                "user": "me",
            })),
        ),
        (
            "/v1/completions",
            with(json!({
                "prompt": [7, 8, 9],
                "min_p": 0.1,
                "n": 1,
                "best_of": 1,
                "stop": "a",
                "seed": 7,
                "ignore_eos": false,
                "logprobs": 2,
                "echo": false,
                "stream_options": { "include_usage": true },
            })),
        ),
        (
            "/v1/responses",
            json!({
                "model": "any",
                "input": [
                    { "role": "user", "content": [{ "type": "input_text", "text": "Hi" }] },
                    { "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}" },
                    { "type": "function_call_output", "call_id": "c", "output": "done" },
                    { "type": "message", "role": "assistant", "content": "Yes." },
                    { "role": "user", "content": "And now?" },
                ],
                "instructions": "Be brief.",
                "max_output_tokens": 2,
                "temperature": 0.5,
                "top_p": 0.9,
                "tools": [{ "type": "function", "name": "f", "parameters": {} }],
                "tool_choice": "auto",
                "stream": true,
                "store": true,
                "metadata": { "a": "b" },
                "text": { "format": { "type": "text" } },
                "truncation": "disabled",
                "session_id": "me",
            }),
        ),
        ("/v1/messages", messages.clone()),
        ("/v1/messages/count_tokens", messages),
        ("/v1/agents", json!({ "agent_id": "new" })),
        (
            "/v1/agents/new/generate",
            json!({
                "prompt": "Hi",
                "system": "Be brief.",
                "max_tokens": 2,
                "temperature": 0.5,
                "stop": ["a"],
                "seed": 7,
                "stream": true,
            }),
        ),
        ("/v1/agents/old/generate", json!({ "messages": chat, "max_tokens": 2 })),
        ("/v1/agents/me/fork", json!({ "agent_id": "copy" })),
        (
            "/tokenize",
            json!({ "content": "Hi", "add_special": true, "parse_special": true, "with_pieces": true }),
        ),
        ("/detokenize", json!({ "tokens": [7, 8, 9] })),
        ("/apply-template", json!({ "messages": chat })),
        ("/admin/drain", json!({ "timeout_s": 0.5 })),
        ("/admin/log-level", json!({ "level": "info" })),
    ]
}

const ADMIN_KEY: &str = "the-key-of-the-administrator";

#[test]
fn malformed_bodies_are_their_senders_mistake_and_the_server_lives_on() {
    let template = include_str!("../data/text/templates/tagged_calls.jinja");
    let server = Server::start(Setup { admin_key: Some(ADMIN_KEY), template, ..Setup::default() });
    // An order to drain that is right would be the end of the others.
    let (admin_key, model) = (Some(ADMIN_KEY), ModelState::Loading);
    let log = LogControl::new(|_| Ok(()));
    let other = Server::start(Setup { admin_key, model, log, ..Setup::default() });
    for (index, (path, whole)) in whole_bodies().into_iter().enumerate() {
        let is_order = path.starts_with("/admin/");
        malformed(if is_order { &other } else { &server }, path, &whole, 11 + index as u64);
    }
    assert_eq!(server.get("/health/ready").status, 200);
    assert_eq!(server.chat(&hello(json!({ "max_tokens": 1 }))).status, 200);
}

fn malformed(server: &Server, path: &str, whole: &Json, seed: u64) {
    let mut dice = Dice::new(seed);
    let mut client = server.connect();
    let cases = scaled(2_000);
    let (mut refusals, mut others) = (0, 0);
    for case in 0..cases {
        let body = mutant(&mut dice, whole);
        let method = if path == "/admin/log-level" { "PUT" } else { "POST" };
        let request = Request { method, ..Request::post(path, body.clone()) };
        let answer = client.send(&request.header("X-Admin-Key", ADMIN_KEY));
        let shown = format!("{path}, seed {seed}, case {case}: {}", String::from_utf8_lossy(&body));
        match answer.status {
            200 | 201 | 204 => others += 1,
            400..=499 => {
                refusals += 1;
                let error = match path.starts_with("/v1/messages") {
                    true => answer.json()["error"].clone(),
                    false => answer.error(),
                };
                assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{shown}");
                assert!(answer.body.len() < 2000, "{shown}: {answer:?}");
            }
            // It is starting.
            503 if path.starts_with("/admin/") => others += 1,
            status => panic!("{status} for {shown}: {answer:?}"),
        }
        if answer.header("connection") == Some("close") {
            client = server.connect();
        }
    }
    assert!(refusals * 3 > cases, "{path}: {refusals} of {cases}: too few were malformed");
    assert!(others > 0, "{path}: nothing was right");
}

/// The engine is still starting: what reached it would be a 503.
#[test]
fn numbers_at_the_end_of_their_range_never_reach_the_engine() {
    let server = Server::start(Setup { model: ModelState::Loading, ..Setup::default() });
    let of_all = [
        "\"1\"",
        "true",
        "[]",
        "{}",
        "1e309",
        "-1e309",
        "NaN",
        "Infinity",
        "-Infinity",
        "0x10",
        "1e",
        "--1",
        "18446744073709551616",
        "-9223372036854775809",
        "1e18446744073709551616",
    ];
    let counts = ["-1", "1.5", "4294967296", "9223372036854775807"];
    let fractions = ["-0.1", "1.0000001", "1e38"];
    let fields: [(&str, &[&str]); 11] = [
        ("max_tokens", &["-1", "0", "1.5", "2147483648"]),
        ("max_completion_tokens", &["-1", "0", "1.5", "2147483648"]),
        ("n", &["0", "129", "-1", "1.5"]),
        ("top_logprobs", &["21", "-1", "1.5"]),
        ("top_k", &counts[..2]),
        ("temperature", &["-0.1", "2.0001", "1e38"]),
        ("top_p", &fractions),
        ("min_p", &fractions),
        ("frequency_penalty", &["-2.1", "2.1", "1e38"]),
        ("presence_penalty", &["-2.1", "2.1", "1e38"]),
        ("seed", &["1.5", "9223372036854775808"]),
    ];
    let mut cases = 0;
    let mut client = server.connect();
    let mut check = |field: &str, value: &str| {
        let logprobs = if field == "top_logprobs" { "\"logprobs\":true," } else { "" };
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":"Hi"}}],{logprobs}"{field}":{value}}}"#
        );
        let answer = client.send(&Request::post(CHAT, body.clone()));
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let error = answer.error();
        // What is no JSON has no fields.
        let names = |text: &Json| text.as_str().is_some_and(|text| text.contains(field));
        assert!(names(&error["param"]) || error["param"].is_null(), "{body}: {error}");
        if answer.header("connection") == Some("close") {
            client = server.connect();
        }
        cases += 1;
    };
    for (field, own) in fields {
        for value in of_all.iter().chain(own) {
            check(field, value);
        }
    }
    check("stop", &json!(vec!["x"; 10_000]).to_string());
    check("stop", &json!("x".repeat(100_000)).to_string());
    check("stop", "[1]");
    assert!(cases >= 120, "{cases}");
    // What is right waits for the engine.
    assert_eq!(server.chat(&hello(json!({ "max_tokens": 1 }))).status, 503);
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let server = Server::start(Setup { model: ModelState::Loading, ..Setup::default() });
    let message = json!({ "role": "user", "content": "" });
    let many = json!({ "messages": vec![&message; 60_000] });
    assert_eq!(refused(&server.chat(&many), 400)["param"], "messages");
    let too_many = json!({ "messages": vec![&message; 100_000] });
    refused(&server.chat(&too_many), 413);
    let parts =
        json!([{ "role": "user", "content": vec![json!({ "type": "text", "text": "" }); 50_000] }]);
    assert!(matches!(server.chat(&json!({ "messages": parts })).status, 400 | 503));
    for encoding in ["gzip", "br", "deflate", "zstd", "gzip, gzip"] {
        let request = Request::chat(&hello(json!({}))).header("Content-Encoding", encoding);
        refused(&server.send(&request), 415);
    }
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}7{}", open.repeat(100_000), close.repeat(100_000));
        let body = format!("{{\"messages\":[{{\"role\":\"user\",\"content\":{deep}}}]}}");
        refused(&server.send(&Request::post(CHAT, body)), 400);
    }
    // In chunks that never end.
    let mut client = server.connect();
    client.write(
        format!("POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes(),
    );
    let chunk = format!("{:x}\r\n{}\r\n", 64 << 10, " ".repeat(64 << 10));
    // Two MiB are taken; what is refused then may be cut while it is on its way.
    for _ in 0..40 {
        if std::io::Write::write_all(client.socket.get_mut(), chunk.as_bytes()).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = client.socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
}

/// Two MiB of what tokenizers like least. Meanwhile the server answers others.
#[test]
fn prompts_without_end_are_refused_with_their_length_and_hold_up_nobody() {
    let server = Server::new();
    for unit in ["a", "a ", "\u{200b}", "👩\u{200d}👩\u{200d}👧\u{200d}👦", "\n", "7", "é"]
    {
        let message = |text: &str| json!({ "messages": [{ "role": "user", "content": text }] });
        let unit_bytes = json!(unit).to_string().len() - 2;
        let body = message(&unit.repeat(1_900_000 / unit_bytes));
        let mut client = server.connect();
        client.write(&Request::chat(&body).bytes());
        // Asked while the prompt is being read, or after: it is answered either way.
        assert_eq!(server.get("/health/live").status, 200);
        let error = refused(&client.answer("POST"), 400);
        assert_eq!(error["code"], "context_length_exceeded", "{unit:?}");
    }
    let stats = server.engine().stats();
    assert_eq!((stats.running, stats.waiting, stats.blocks_used), (0, 0, 0));
}

#[test]
fn templates_that_a_request_brings_are_refused_by_name() {
    let server = Server::start(Setup { model: ModelState::Loading, ..Setup::default() });
    let bomb = "{% for i in range(999999999) %}{{ 'x' * 999999999 }}{% endfor %}";
    for field in ["chat_template", "template", "prompt_template"] {
        let error = refused(&server.chat(&hello(json!({ field: bomb }))), 400);
        assert!(error["message"].as_str().expect("a text").contains(field), "{error}");
    }
}

/// A template that never ends is the server's own; its requests are refused, its probes answered.
#[test]
fn a_template_that_goes_on_for_ever_is_stopped() {
    let template = "{% for i in range(100000) %}{% for j in range(100000) %}{{ i * j }}{% endfor %}{% endfor %}";
    let server = Server::start(Setup { template, ..Setup::default() });
    let answer = server.chat(&hello(json!({})));
    assert!((400..=599).contains(&answer.status), "{answer:?}");
    answer.error();
    assert_eq!(server.get("/health/ready").status, 200);
}

/// Heads that two readers would not read alike, each with a second request in its body.
fn ambiguous() -> Vec<String> {
    let body = hello(json!({})).to_string();
    let length = body.len();
    let second = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = |headers: &str, body: &str| {
        format!(
            "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n{body}"
        )
    };
    let get = |headers: &str| format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let mut cases = vec![
        // Two lengths, or none that is one.
        post(
            &format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length + second.len()),
            &format!("{body}{second}"),
        ),
        post(&format!("Content-Length: {length}, {}\r\n", length + 1), &body),
        post("Content-Length: +5\r\n", &body),
        post("Content-Length: -1\r\n", &body),
        post("Content-Length: 0x10\r\n", &body),
        post("Content-Length: 1e2\r\n", &body),
        post("Content-Length: 18446744073709551616\r\n", &body),
        post("Content-Length: 5 5\r\n", &body),
        post("Content-Length:\r\n", &body),
        post("Content-Length: a\r\n", &body),
        // Other codings than the one there is.
        post("Transfer-Encoding: gzip\r\n", &body),
        post("Transfer-Encoding: chunked, gzip\r\n", &chunked),
        post("Transfer-Encoding: xchunked\r\n", &chunked),
        post("Transfer-Encoding: identity\r\n", &body),
        post("Transfer-Encoding: \"chunked\"\r\n", &chunked),
        post("Transfer-Encoding: chunked\x0b\r\n", &chunked),
        // Chunks that are none.
        post("Transfer-Encoding: chunked\r\n", &format!("x\r\n{body}")),
        post("Transfer-Encoding: chunked\r\n", &format!("-1\r\n{body}")),
        post("Transfer-Encoding: chunked\r\n", &format!("0x5\r\n{body}")),
        post("Transfer-Encoding: chunked\r\n", &format!("ffffffffffffffffff\r\n{body}")),
        post("Transfer-Encoding: chunked\r\n", &format!("5\r\n{body}")),
        post("Transfer-Encoding: chunked\r\n", &format!("{length:x}\n{body}\n0\n\n")),
        post("Transfer-Encoding: chunked\r\n", &format!(" \r\n{body}")),
        // Names and lines that are none.
        get("Host : localhost\r\n"),
        get(" folded: x\r\n"),
        get("a: b\r\n folded\r\n"),
        get("a\x00b: c\r\n"),
        get("a: b\x00c\r\n"),
        get("a: b\rc: d\r\n"),
        get("no colon\r\n"),
        get(": no name\r\n"),
        get("a b: c\r\n"),
        get("é: c\r\n"),
        get(&"x: y\r\n".repeat(101)),
        get(&format!("x: {}\r\n", "y".repeat(20_000))),
        format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(20_000)),
    ];
    // Request lines that are none.
    for line in [
        "GET / HTTP/9.9",
        "GET / HTTP/2.0",
        "GET /",
        "GET  / HTTP/1.1",
        "GET / / HTTP/1.1",
        "G\x01T / HTTP/1.1",
        "GET / HTTP/1.1 x",
        "GET \x00 HTTP/1.1",
        "GET / http/1.1",
        "/ GET HTTP/1.1",
        "PRI * HTTP/2.0",
        "\x16\x03\x01\x02\x00",
        "get",
        "GET http:// HTTP/1.1",
    ] {
        cases.push(format!("{line}\r\nHost: localhost\r\n\r\n"));
    }
    cases
}

#[test]
fn bytes_that_can_be_read_in_two_ways_get_one_refusal_and_the_connection_ends() {
    let header_timeout = Duration::from_millis(300);
    let bounds = Bounds { header_timeout, body_timeout: header_timeout, ..Bounds::default() };
    let server = Server::start(Setup { bounds, ..Setup::default() });
    let cases = ambiguous();
    assert!(cases.len() >= 40, "{}", cases.len());
    for request in cases {
        let shown: String = request.chars().take(160).collect();
        let second = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut client = server.connect();
        client.write(request.as_bytes());
        // The server may have closed already.
        let _ = std::io::Write::write_all(client.socket.get_mut(), second.as_bytes());
        let mut answer = Vec::new();
        let _ = client.socket.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{shown:?}: {answer}");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{shown:?}: {answer}");
    }
    assert_eq!(server.get("/health/ready").status, 200);
}

/// Both lengths at once is how requests are smuggled past a proxy that believes the other one.
#[test]
fn of_a_length_and_chunks_the_chunks_count_or_nothing() {
    let server = Server::new();
    let body = hello(json!({ "max_tokens": 1 })).to_string();
    let second = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for length in [4, body.len(), 10_000] {
        let mut client = server.connect();
        let request = format!(
            "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n{second}",
            body.len()
        );
        client.write(request.as_bytes());
        let mut answer = Vec::new();
        let _ = client.socket.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{answer}");
        assert!(!answer.contains("smuggled"), "{answer}");
    }
}

/// Five hundred connections that say a little now and then, and one that asks.
#[test]
fn who_never_finishes_a_request_is_cut_and_holds_up_nobody() {
    let count = scaled(500).max(100);
    let timeout = Duration::from_millis(400);
    let bounds = Bounds { header_timeout: timeout, body_timeout: timeout, ..Bounds::default() };
    let server = Server::start(Setup { bounds, ..Setup::default() });
    let body = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    );
    let mut clients: Vec<_> = (0..count).map(|_| server.connect()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        match index % 2 {
            0 => client.write(b"GET / HTTP/1.1\r\nHost: "),
            _ => client.write(body.as_bytes()),
        }
    }
    let mut open = clients;
    let started = Instant::now();
    while !open.is_empty() {
        assert_eq!(server.get("/health/live").status, 200);
        assert!(started.elapsed() < Duration::from_secs(20), "{} are open", open.len());
        open.retain_mut(|client| {
            // A byte more, and whether anybody is still there.
            let socket = client.socket.get_mut();
            if std::io::Write::write_all(socket, b"x").is_err() {
                return false;
            }
            socket.set_nonblocking(true).expect("an option");
            let mut part = [0; 512];
            let read = socket.read(&mut part);
            let is_open = match read {
                Ok(0) => false,
                Ok(_) => true,
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            };
            socket.set_nonblocking(false).expect("an option");
            is_open
        });
    }
    assert_eq!(server.chat(&hello(json!({ "max_tokens": 1 }))).status, 200);
}
