//! Chats with a served model: whole and streamed, what they report, how they end.

use crate::support::http::{CHAT, Client, ModelState, Request, Server, Setup, hello, wait_until};
use semantic::engine;
use semantic::http::Bounds;
use semantic::model::fake::{FakeConfig, Memory};
use serde_json::{Value as Json, json};
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// A model that takes its time and never ends by itself.
fn endless() -> Setup {
    Setup { is_endless: true, step: Duration::from_millis(2), ..Setup::default() }
}

fn small_pool(pool_blocks: usize) -> FakeConfig {
    let memory = Memory::Tokens;
    FakeConfig { vocabulary: 902, context_tokens: 8192, pool_blocks, memory }
}

/// What temperature 0 makes of it, so that it is always the same.
fn greedy(fields: Json) -> Json {
    let mut body = hello(json!({ "temperature": 0, "max_tokens": 20 }));
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

fn answered(server: &Server, body: &Json) -> Json {
    let answer = server.chat(body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn content(completion: &Json) -> &str {
    completion["choices"][0]["message"]["content"].as_str().expect("a text")
}

/// The chunks of a stream that ends as it should, without `[DONE]`.
fn chunks(server: &Server, body: &Json) -> Vec<Json> {
    let mut client = server.connect();
    let mut body = body.clone();
    body["stream"] = json!(true);
    client.stream(&body);
    let mut chunks = client.rest();
    assert_eq!(chunks.pop(), Some(json!("[DONE]")));
    chunks
}

/// The text of one choice.
fn streamed_text(chunks: &[Json], choice: usize) -> String {
    let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().expect("a list"));
    choices
        .filter(|part| part["index"] == choice)
        .filter_map(|part| part["delta"]["content"].as_str())
        .collect()
}

/// Nothing runs, waits or is held that could not be had at once.
fn is_idle(server: &Server) -> bool {
    let stats = server.engine().stats();
    stats.running + stats.waiting + stats.parked == 0 && stats.blocks_used == stats.blocks_evictable
}

#[test]
fn a_whole_answer_has_openais_shape() {
    let server = Server::new();
    let completion = answered(&server, &greedy(json!({ "model": "whatever" })));
    let keys = |json: &Json| json.as_object().expect("an object").keys().cloned().collect();
    let top: Vec<String> = keys(&completion);
    assert_eq!(top, ["id", "object", "created", "model", "choices", "usage", "semantic"]);
    assert!(completion["id"].as_str().expect("an id").starts_with("chatcmpl-"));
    assert_eq!(completion["object"], "chat.completion");
    assert!(completion["created"].as_u64() > Some(1_700_000_000));
    assert_eq!(completion["model"], "fake");
    let choice = &completion["choices"][0];
    let of_choice: Vec<String> = keys(choice);
    assert_eq!(of_choice, ["index", "message", "logprobs", "finish_reason"]);
    assert_eq!((&choice["index"], &choice["logprobs"]), (&json!(0), &json!(null)));
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(content(&completion).len() > 10);
    assert_eq!(choice["finish_reason"], "length");
    let prompt_tokens = completion["usage"]["prompt_tokens"].as_u64().expect("a number");
    let usage = json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 20,
        "total_tokens": prompt_tokens + 20,
        "prompt_tokens_details": { "cached_tokens": 0 },
    });
    assert_eq!(completion["usage"], usage);
    let agent = completion["semantic"]["agent"].clone();
    let semantic = json!({
        "agent": agent,
        "generation": null,
        "durable": false,
        "source": "cold",
        "restored_tokens": 0,
        "restore_ms": 0.0,
    });
    assert_eq!(completion["semantic"], semantic);
}

#[test]
fn a_stream_says_the_same_in_parts() {
    let server = Server::new();
    let body = greedy(json!({}));
    let whole = answered(&server, &body);
    let chunks = chunks(&server, &body);
    assert_eq!(streamed_text(&chunks, 0), content(&whole));
    assert!(chunks.len() > 5, "{chunks:?}");
    let (first, last) = (&chunks[0], chunks.last().expect("chunks"));
    assert_eq!(first["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!((&chunk["id"], &chunk["created"]), (&first["id"], &first["created"]));
        assert_eq!(chunk.get("usage"), None);
        let is_last = std::ptr::eq(chunk, last);
        let reason = if is_last { json!("length") } else { json!(null) };
        assert_eq!(chunk["choices"][0]["finish_reason"], reason);
        assert_eq!(chunk.get("semantic").is_some(), is_last);
    }
    assert_eq!(last["choices"][0]["delta"], json!({}));
}

#[test]
fn a_stream_tells_its_usage_if_it_is_asked() {
    let server = Server::new();
    let whole = answered(&server, &greedy(json!({})));
    let asked = greedy(json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let chunks = chunks(&server, &asked);
    let (last, others) = chunks.split_last().expect("chunks");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
    assert_eq!(last["usage"]["completion_tokens"], 20);
    assert_eq!(last["semantic"]["source"], "hot");
    assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
}

/// The second turn recomputes its own message and no more, and whose agent it is does not matter.
#[test]
fn what_was_said_before_is_not_computed_again() {
    let server = Server::new();
    let ask = |messages: &Json| answered(&server, &greedy(json!({ "messages": messages })));
    let mut messages = json!([{ "role": "user", "content": "Tell me something." }]);
    let first = ask(&messages);
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    let again = ask(&messages);
    assert_eq!(content(&again), content(&first));
    let tokens =
        |completion: &Json, name: &str| completion["usage"][name].as_u64().expect("a number");
    let cached = |completion: &Json| {
        completion["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
    };
    // At least one token is computed for its logits.
    assert_eq!(cached(&again), tokens(&first, "prompt_tokens") - 1);
    let turns = messages.as_array_mut().expect("a list");
    turns.push(json!({ "role": "assistant", "content": content(&first) }));
    turns.push(json!({ "role": "user", "content": "Go on." }));
    let second = ask(&messages);
    let before = tokens(&first, "prompt_tokens") + tokens(&first, "completion_tokens");
    assert!(cached(&second) >= before - 1, "{second}");
    assert!(cached(&second) < tokens(&second, "prompt_tokens"));
    assert_eq!(second["semantic"]["source"], "hot");
}

#[test]
fn an_agent_is_named_by_header_then_body_or_gets_a_name() {
    let server = Server::new();
    let agent = |headers: &[(&'static str, &str)], body: Json| {
        let body = greedy(body);
        let mut request = Request::chat(&body);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let answer = server.send(&request);
        answer.json()["semantic"]["agent"].as_str().expect("a name").to_owned()
    };
    let body = || json!({ "session_id": "from-body", "max_tokens": 1 });
    let session = ("X-Session-ID", "from-session");
    assert_eq!(agent(&[session, ("X-Agent-ID", "from-agent")], body()), "from-agent");
    assert_eq!(agent(&[session], body()), "from-session");
    assert_eq!(agent(&[], body()), "from-body");
    assert_eq!(agent(&[("X-Agent-ID", "Zoë/../x")], body()), "Zoë/../x");
    let nameless = || agent(&[], json!({ "max_tokens": 1 }));
    assert_ne!(nameless(), nameless());
}

#[test]
fn one_key_never_sees_what_another_one_computed() {
    let keys = "key-of-the-tests-1,key-of-the-tests-2";
    let server = Server::start(Setup { keys: Some(keys), ..Setup::default() });
    let cached = |key: &str| {
        let request = Request::chat(&greedy(json!({}))).header("x-api-key", key);
        let answer = server.send(&request.header("X-Agent-ID", "same"));
        let completion = answer.json();
        completion["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
    };
    assert_eq!(cached("key-of-the-tests-1"), 0);
    assert!(cached("key-of-the-tests-1") > 0);
    assert_eq!(cached("key-of-the-tests-2"), 0);
}

#[test]
fn a_stop_text_ends_the_answer_and_is_not_part_of_it() {
    let server = Server::new();
    let whole = answered(&server, &greedy(json!({})));
    let whole = content(&whole);
    let middle = whole.char_indices().nth(whole.chars().count() / 2).expect("a middle").0;
    let stop: String = whole[middle..].chars().take(3).collect();
    let expected = whole.split(&stop).next().expect("a beginning");
    for stop in [json!(stop), json!(["\u{1}never\u{1}", stop])] {
        let cut = answered(&server, &greedy(json!({ "stop": stop })));
        assert_eq!(
            (content(&cut), &cut["choices"][0]["finish_reason"]),
            (expected, &json!("stop"))
        );
        let chunks = chunks(&server, &greedy(json!({ "stop": stop })));
        assert_eq!(streamed_text(&chunks, 0), expected);
    }
}

#[test]
fn a_model_that_ends_its_turn_stops() {
    let server = Server::new();
    let body = hello(json!({ "temperature": 1, "seed": 3 }));
    let completion = answered(&server, &body);
    assert_eq!(completion["choices"][0]["finish_reason"], "stop", "{completion}");
}

#[test]
fn a_seed_repeats_an_answer_and_choices_count_it_up() {
    let server = Server::new();
    let body = |seed: i64, n: u64| {
        hello(json!({ "seed": seed, "n": n, "max_tokens": 20, "temperature": 1.5 }))
    };
    let alone: Vec<String> =
        (7..10).map(|seed| content(&answered(&server, &body(seed, 1))).to_owned()).collect();
    assert_eq!(alone[0], content(&answered(&server, &body(7, 1))));
    assert!(alone[0] != alone[1] && alone[1] != alone[2]);
    let together = answered(&server, &body(7, 3));
    let chunks = chunks(&server, &body(7, 3));
    for (index, text) in alone.iter().enumerate() {
        let choice = &together["choices"][index];
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"], text.as_str());
        assert_eq!(&streamed_text(&chunks, index), text);
    }
    assert_eq!(together["usage"]["completion_tokens"], 60);
    // Without a seed none is repeated.
    let mut body = body(0, 1);
    body.as_object_mut().expect("an object").remove("seed");
    assert_ne!(content(&answered(&server, &body)), content(&answered(&server, &body)));
}

#[test]
fn log_probabilities_of_every_token_and_its_rivals() {
    let server = Server::new();
    let body = greedy(json!({ "logprobs": true, "top_logprobs": 3, "max_tokens": 12 }));
    let completion = answered(&server, &body);
    let whole = completion["choices"][0]["logprobs"]["content"].as_array().expect("a list").clone();
    assert_eq!(whole.len(), 12);
    for token in &whole {
        let top = token["top_logprobs"].as_array().expect("a list");
        assert_eq!(top.len(), 3);
        // The likeliest was taken.
        let plain = json!({
            "token": token["token"],
            "logprob": token["logprob"],
            "bytes": token["bytes"],
        });
        assert_eq!(top[0], plain);
        let values: Vec<f64> =
            top.iter().map(|rival| rival["logprob"].as_f64().expect("a number")).collect();
        assert!(values[0] < 0.0 && values.is_sorted_by(|a, b| a >= b), "{values:?}");
    }
    let bytes: Vec<u8> = whole
        .iter()
        .flat_map(|token| token["bytes"].as_array().expect("a list"))
        .map(|byte| byte.as_u64().expect("a byte") as u8)
        .collect();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with(content(&completion).trim_end_matches('\u{fffd}')), "{text}");
    let chunks = chunks(&server, &body);
    let streamed: Vec<Json> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .cloned()
        .collect();
    assert_eq!(streamed, whole);
    let none = answered(&server, &greedy(json!({ "logprobs": true, "max_tokens": 1 })));
    assert_eq!(none["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[test]
fn a_prompt_that_cannot_be_served_is_refused_with_the_numbers() {
    let server = Server::start(Setup { fake: small_pool(4), ..Setup::default() });
    let long = |words: usize| json!([{ "role": "user", "content": "word ".repeat(words) }]);
    let answer = server.chat(&greedy(json!({ "messages": long(20_000) })));
    let error = answer.error();
    assert_eq!((answer.status, &error["code"]), (400, &json!("context_length_exceeded")));
    let message = error["message"].as_str().expect("a text");
    assert!(message.contains("context is 8192"), "{message}");
    let answer = server.chat(&greedy(json!({ "messages": long(300), "max_tokens": 4000 })));
    let error = answer.error();
    assert_eq!((answer.status, &error["code"]), (400, &json!("request_too_large")), "{error}");
    let message = error["message"].as_str().expect("a text");
    assert!(message.contains("of 4 available"), "{message}");
}

#[test]
fn a_conversation_that_the_template_refuses_is_the_clients_to_mend() {
    let template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}x";
    let server = Server::start(Setup { template, ..Setup::default() });
    let messages = json!([{ "role": "system", "content": "x" }]);
    let answer = server.chat(&hello(json!({ "messages": messages })));
    assert_eq!((answer.status, &answer.error()["code"]), (400, &json!("invalid_messages")));
    assert!(answer.body.contains("no system message"));
}

#[test]
fn a_client_that_leaves_a_stream_frees_its_blocks() {
    let server = Server::start(endless());
    let mut client = server.connect();
    client.stream(&hello(json!({ "stream": true })));
    for _ in 0..5 {
        client.data().expect("more");
    }
    assert!(!is_idle(&server));
    drop(client);
    wait_until("the blocks are free", || is_idle(&server));
}

#[test]
fn a_client_that_does_not_wait_for_its_answer_frees_its_blocks() {
    let server = Server::start(endless());
    let mut client = server.connect();
    client.write(&Request::chat(&hello(json!({}))).bytes());
    wait_until("it runs", || server.engine().stats().running == 1);
    drop(client);
    wait_until("the blocks are free", || is_idle(&server));
}

#[test]
fn a_client_that_leaves_the_line_is_not_served() {
    let engine = engine::Config { running_max: 1, ..engine::Config::default() };
    let server = Server::start(Setup { engine, ..endless() });
    let mut first = server.connect();
    first.stream(&hello(json!({ "stream": true })));
    let mut second = server.connect();
    second.write(&Request::chat(&hello(json!({ "stream": true }))).bytes());
    wait_until("it waits", || server.engine().stats().waiting == 1);
    drop(second);
    wait_until("it is gone", || server.engine().stats().waiting == 0);
    assert!(first.data().is_some());
    drop(first);
    wait_until("the blocks are free", || is_idle(&server));
}

/// The system's and our own buffers fill up, then writing takes too long.
#[test]
fn a_client_that_never_reads_is_cut() {
    let write_timeout = Duration::from_millis(100);
    let bounds = Bounds { write_timeout, ..Bounds::default() };
    let server = Server::start(Setup { bounds, step: Duration::ZERO, ..endless() });
    let mut client = server.connect();
    let body = hello(json!({ "stream": true, "n": 8, "logprobs": true, "top_logprobs": 20 }));
    client.stream(&body);
    wait_until("it is cut or complete", || is_idle(&server));
    std::thread::sleep(3 * write_timeout);
    // Had the server waited, it would go on now.
    let mut rest = Vec::new();
    let _ = client.socket.read_to_end(&mut rest);
    assert!(rest.len() > 10_000 && !rest.ends_with(b"0\r\n\r\n"), "{}", rest.len());
}

#[test]
fn a_silent_stream_says_that_it_is_alive() {
    let bounds = Bounds { keep_alive: Duration::from_millis(20), ..Bounds::default() };
    let step = Duration::from_millis(150);
    let server = Server::start(Setup { bounds, step, ..endless() });
    let mut client = server.connect();
    client.stream(&hello(json!({ "stream": true, "max_tokens": 2 })));
    let events: Vec<String> = std::iter::from_fn(|| client.event()).collect();
    assert!(events.iter().filter(|event| *event == ": keep-alive").count() >= 3, "{events:?}");
    assert_eq!(events.last().map(String::as_str), Some("data: [DONE]"));
}

#[test]
fn who_finds_the_line_full_or_waits_too_long_is_told_when_to_come_back() {
    let engine = engine::Config {
        running_max: 1,
        queue_max: 1,
        queue_time: Duration::from_millis(200),
        ..engine::Config::default()
    };
    let server = Server::start(Setup { engine, ..endless() });
    let mut running = server.connect();
    running.stream(&hello(json!({ "stream": true })));
    let mut waiting = server.connect();
    waiting.write(&Request::chat(&hello(json!({}))).bytes());
    wait_until("it waits", || server.engine().stats().waiting == 1);
    let refused = server.chat(&hello(json!({})));
    let answer = |answer: &crate::support::http::Answer| {
        let error = answer.error();
        let code = error["code"].as_str().expect("a code").to_owned();
        assert_eq!((answer.status, &error["type"]), (503, &json!("overloaded_error")));
        (code, answer.header("retry-after").expect("a time").to_owned())
    };
    assert_eq!(answer(&refused), ("queue_full".to_owned(), "1".to_owned()));
    assert_eq!(answer(&waiting.answer("POST")), ("queue_timeout".to_owned(), "5".to_owned()));
    assert!(running.data().is_some());
}

#[test]
fn a_model_that_fails_tells_its_reasons_to_the_log_alone() {
    let failing = || Server::start(Setup { fails_at: Some(10), ..endless() });
    let answer = failing().chat(&hello(json!({})));
    assert_eq!((answer.status, &answer.error()["type"]), (500, &json!("server_error")));
    assert!(!answer.body.contains("secret"), "{answer:?}");
    let server = failing();
    let mut client = server.connect();
    client.stream(&hello(json!({ "stream": true })));
    let events = client.rest();
    assert_eq!(events.last().expect("events")["error"]["code"], "internal_error");
    assert!(!format!("{events:?}").contains("secret"));
}

#[test]
fn what_is_cut_ends_with_an_error_event() {
    let server = Server::start(endless());
    let mut client = server.connect();
    client.stream(&hello(json!({ "stream": true })));
    let mut whole = server.connect();
    whole.write(&Request::chat(&hello(json!({}))).bytes());
    wait_until("both run", || server.engine().stats().running == 2);
    server.engine().cut();
    let events = client.rest();
    let error = &events.last().expect("events")["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!("server_error"), &json!("shutting_down")));
    assert!(!events.contains(&json!("[DONE]")));
    let answer = whole.answer("POST");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let server = Server::new();
    let mut client = server.connect();
    for _ in 0..3 {
        let answer = client.send(&Request::chat(&greedy(json!({ "max_tokens": 2 }))));
        assert_eq!(answer.status, 200);
        client.stream(&greedy(json!({ "max_tokens": 2, "stream": true })));
        assert_eq!(client.rest().last(), Some(&json!("[DONE]")));
    }
}

#[test]
fn many_clients_at_once_each_get_their_own_answer() {
    let server = Server::new();
    let body = |index: usize| {
        let messages = json!([{ "role": "user", "content": format!("I am number {index}.") }]);
        greedy(json!({ "messages": messages, "max_tokens": 20 }))
    };
    let alone: Vec<String> = {
        let other = Server::new();
        (0..40).map(|index| content(&answered(&other, &body(index))).to_owned()).collect()
    };
    std::thread::scope(|scope| {
        for (index, expected) in alone.iter().enumerate() {
            let server = &server;
            scope.spawn(move || match index % 2 {
                0 => assert_eq!(content(&answered(server, &body(index))), expected),
                _ => assert_eq!(&streamed_text(&chunks(server, &body(index)), 0), expected),
            });
        }
    });
    wait_until("nothing is held", || is_idle(&server));
}

#[test]
fn a_long_prompt_is_read_beside_the_others() {
    let server = Server::new();
    let long = json!([{ "role": "user", "content": "word ".repeat(2000) }]);
    let completion = answered(&server, &greedy(json!({ "messages": long, "max_tokens": 2 })));
    assert!(completion["usage"]["prompt_tokens"].as_u64() > Some(1000));
}

fn ready(server: &Server) -> (u16, Json) {
    let answer = server.get("/health/ready");
    (answer.status, answer.json())
}

#[test]
fn test_health_live_always_200() {
    let is_alive = |server: &Server| server.get("/health/live").status == 200;
    let mut server =
        Server::start(Setup { model: ModelState::Loading, fake: small_pool(3), ..endless() });
    assert!(is_alive(&server), "while the model loads");
    server.finish_loading();
    assert!(is_alive(&server), "serving");
    let mut client = server.connect();
    client.stream(&hello(json!({ "stream": true })));
    wait_until("the pool is exhausted", || ready(&server).0 == 503);
    assert!(is_alive(&server), "with an exhausted pool");
    server.app.start_shutting_down();
    assert!(is_alive(&server), "shutting down");
    let drained = server.runtime.block_on(server.engine().drain(Duration::from_millis(10)));
    assert!(drained.is_err() && is_alive(&server), "draining");
    server.engine().shutdown();
    assert!(is_alive(&server), "without an engine");
}

#[test]
fn test_health_startup_503_until_model_loaded() {
    let mut server = Server::start(Setup { model: ModelState::Loading, ..Setup::default() });
    let startup = |server: &Server| {
        let answer = server.get("/health/startup");
        (answer.status, answer.json())
    };
    let starting = json!({ "status": "starting", "reason": "model_loading" });
    assert_eq!(startup(&server), (503, starting));
    assert_eq!(ready(&server).1["reason"], "model_loading");
    server.finish_loading();
    assert_eq!(startup(&server), (200, json!({ "status": "started" })));
    assert_eq!(ready(&server), (200, json!({ "status": "ready", "pool_utilization": 0.0 })));
    server.app.start_shutting_down();
    assert_eq!(startup(&server).0, 200);
}

/// Each of these requests holds three blocks: its prompt and 512 tokens ahead.
#[test]
fn test_health_ready_503_when_pool_exhausted() {
    let step = Duration::from_millis(20);
    let server = Server::start(Setup { fake: small_pool(30), step, ..endless() });
    let mut clients: Vec<Client> = Vec::new();
    let mut open = |count: usize| {
        for _ in 0..count {
            let mut client = server.connect();
            client.stream(&hello(json!({ "stream": true })));
            clients.push(client);
        }
    };
    let wait_for = |percent: f64| {
        wait_until("so much is in use", || ready(&server).1["pool_utilization"] == percent);
    };
    open(9);
    wait_for(90.0);
    assert_eq!(ready(&server), (200, json!({ "status": "ready", "pool_utilization": 90.0 })));
    open(1);
    wait_for(100.0);
    let exhausted = json!({
        "status": "not_ready",
        "reason": "pool_near_exhaustion",
        "pool_utilization": 100.0,
    });
    assert_eq!(ready(&server), (503, exhausted));
    clients.pop();
    wait_for(90.0);
    assert_eq!(ready(&server).0, 503, "not before 85 %");
    clients.pop();
    wait_until("it is ready again", || ready(&server).0 == 200);
    clients.clear();
    wait_for(0.0);
}

#[test]
fn test_health_ready_503_when_shutting_down() {
    let server = Server::new();
    assert_eq!(ready(&server).0, 200);
    server.app.start_shutting_down();
    let leaving = json!({
        "status": "not_ready",
        "reason": "shutting_down",
        "pool_utilization": 0.0,
    });
    assert_eq!(ready(&server), (503, leaving.clone()));
    // A lame duck still answers.
    assert_eq!(server.chat(&greedy(json!({}))).status, 200);
    server.runtime.block_on(server.engine().drain(Duration::from_secs(5))).expect("it drains");
    assert_eq!(ready(&server).1["reason"], "shutting_down");
}

#[test]
fn test_drain_prevents_new_requests() {
    let server = Server::start(endless());
    let mut running = server.connect();
    running.stream(&hello(json!({ "stream": true, "max_tokens": 100 })));
    let engine = server.engine().clone();
    let drain = server.runtime.spawn(async move { engine.drain(Duration::from_secs(10)).await });
    wait_until("it drains", || server.engine().status() == engine::Status::Draining);
    let mut refused = server.connect();
    let answer = refused.send(&Request::chat(&hello(json!({}))));
    assert_eq!((answer.status, &answer.error()["code"]), (503, &json!("shutting_down")));
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert!(refused.is_closed());
    assert_eq!(ready(&server).0, 503);
    assert_eq!(server.get("/health").status, 200);
    let events = running.rest();
    assert_eq!(events.last(), Some(&json!("[DONE]")));
    assert_eq!(server.runtime.block_on(drain).expect("no panic"), Ok(1));
}

#[test]
fn test_graceful_shutdown_with_active_requests() {
    const CLIENTS: usize = 50;
    let fake = small_pool(400);
    let mut server = Server::start(Setup { fake, ..endless() });
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = server.connect();
            client.stream(&hello(json!({ "stream": true, "max_tokens": 50 })));
            client
        })
        .collect();
    server.app.start_shutting_down();
    assert_eq!(ready(&server).0, 503);
    let engine = server.engine().clone();
    let shutdown = server.runtime.spawn(async move {
        engine.drain(Duration::from_secs(20)).await.expect("all finish");
        engine.evict_all_to_disk().await.expect("the engine lives")
    });
    let readers: Vec<_> =
        clients.into_iter().map(|mut client| std::thread::spawn(move || client.rest())).collect();
    server.runtime.block_on(shutdown).expect("no panic");
    server.stop();
    for reader in readers {
        let events = reader.join().expect("no panic");
        assert_eq!(events.last(), Some(&json!("[DONE]")));
        assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "length");
    }
    assert!(std::net::TcpStream::connect(server.address).is_err());
}

/// The promise of a stream's format: nothing that a model writes can end an event.
#[test]
fn every_event_is_one_line_of_json() {
    let server = Server::new();
    let mut client = server.connect();
    let body = hello(json!({ "stream": true, "max_tokens": 400, "temperature": 2, "seed": 1 }));
    assert_eq!(client.open(&Request::post(CHAT, body.to_string())).status, 200);
    let text: String = client
        .rest()
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert!(text.contains(|c: char| c.is_control()), "{text:?}");
}

/// Twenty conversations, each held by fifty clients at once; meanwhile the probes get through.
#[test]
fn a_thousand_streams_get_their_own_answers_or_are_told_to_come_back() {
    const CLIENTS: usize = 1000;
    allow_many_sockets();
    let body = |index: usize| {
        let messages = json!([{ "role": "user", "content": format!("I am number {index}.") }]);
        greedy(json!({ "messages": messages, "stream": true }))
    };
    let server = Server::start(Setup { fake: small_pool(256), ..Setup::default() });
    let expected: Vec<String> =
        (0..20).map(|index| streamed_text(&chunks(&server, &body(index)), 0)).collect();
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let is_over = AtomicBool::new(false);
    let (answers, mut probes) = std::thread::scope(|scope| {
        let probe = scope.spawn(|| {
            let mut times = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let started = Instant::now();
                assert_eq!(server.get("/health/live").status, 200);
                times.push(started.elapsed());
                std::thread::sleep(Duration::from_millis(5));
            }
            times
        });
        let answers = clients.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for index in 0..CLIENTS {
                let request = Request::chat(&body(index % 20)).header("Connection", "close");
                let (address, bytes) = (server.address, request.bytes());
                tasks.spawn(async move { (index % 20, exchange(address, &bytes).await) });
            }
            tasks.join_all().await
        });
        is_over.store(true, Ordering::Relaxed);
        (answers, probe.join().expect("no panic"))
    });
    let mut served = 0;
    for (index, answer) in answers {
        match answer.split(' ').nth(1) {
            Some("200") => {
                assert!(answer.contains("data: [DONE]\n\n"), "{answer}");
                let chunks: Vec<Json> = answer
                    .lines()
                    .filter_map(|line| line.strip_prefix("data: {"))
                    .map(|json| serde_json::from_str(&format!("{{{json}")).expect("JSON"))
                    .collect();
                assert_eq!(streamed_text(&chunks, 0), expected[index]);
                served += 1;
            }
            Some("503") => assert!(answer.contains("retry-after: "), "{answer}"),
            _ => panic!("{answer:?}"),
        }
    }
    assert!(served > CLIENTS / 2, "{served}");
    probes.sort();
    let p99 = probes[probes.len() * 99 / 100];
    assert!(p99 < Duration::from_secs(1), "a probe gives up after that: {p99:?}");
    wait_until("nothing is held", || is_idle(&server));
}

/// All that the server sends until it closes.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let socket = TcpStream::connect(address).await.expect("the server listens");
    socket.writable().await.expect("the server reads");
    assert_eq!(socket.try_write(request).expect("a small request"), request.len());
    let (mut answer, mut part) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        socket.readable().await.expect("the server answers");
        match socket.try_read(&mut part) {
            Ok(0) => return String::from_utf8(answer).expect("text"),
            Ok(length) => answer.extend_from_slice(&part[..length]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
}

/// This process holds both ends of every connection.
fn allow_many_sockets() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(8192, |most| most.min(8192));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).expect("a limit");
}
