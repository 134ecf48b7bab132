//! How chats wait and end: clients that leave, models that fail.

use super::*;

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
