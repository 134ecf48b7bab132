//! How messages wait and end, and many of them at once.

use super::*;

#[test]
fn a_client_that_leaves_a_message_frees_its_blocks() {
    let server = Server::start(endless());
    let mut client = streaming(&server, &hi(json!({ "max_tokens": 5000 })));
    for _ in 0..5 {
        assert!(client.event().is_some());
    }
    assert_eq!(server.engine().stats().running, 1);
    drop(client);
    wait_until("the blocks are free", || is_idle(&server));
}

#[test]
fn a_message_that_is_cut_ends_with_an_error_event() {
    let server = Server::start(endless());
    let mut client = streaming(&server, &hi(json!({ "max_tokens": 5000 })));
    assert!(client.event().is_some());
    server.engine().cut();
    let events = events(&mut client);
    let last = events.last().expect("events");
    assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("api_error")));
    assert!(!events.iter().any(|event| event["type"] == "message_stop"));
}

/// The one runs, the other waits in line, and both say that they are alive.
#[test]
fn a_message_pings_while_it_waits_and_while_the_model_is_busy() {
    let engine = engine::Config { running_max: 1, ..engine::Config::default() };
    let bounds = Bounds { keep_alive: Duration::from_millis(20), ..Bounds::default() };
    let step = Duration::from_millis(100);
    let server = Server::start(Setup { engine, bounds, step, ..endless() });
    let mut first = streaming(&server, &hi(json!({ "max_tokens": 50 })));
    wait_until("it runs", || server.engine().stats().running == 1);
    // Its headers come although it is not admitted.
    let mut second = streaming(&server, &hi(json!({ "max_tokens": 1 })));
    for _ in 0..3 {
        assert_eq!(second.event().as_deref(), Some("event: ping\ndata: {\"type\":\"ping\"}"));
    }
    wait_until("it waits", || server.engine().stats().waiting == 1);
    let pings = std::iter::from_fn(|| first.event()).take(8);
    assert!(pings.filter(|event| event.starts_with("event: ping")).count() >= 3);
    drop(first);
    assert_eq!(outline(&events(&mut second)).last(), Some(&"message_stop"));
}

/// After the headers a refusal can only be an event.
#[test]
fn a_message_that_waits_too_long_is_told_inside_its_stream() {
    let queue_time = Duration::from_millis(300);
    let engine = engine::Config { running_max: 1, queue_time, ..engine::Config::default() };
    let bounds = Bounds { keep_alive: Duration::from_millis(20), ..Bounds::default() };
    let server = Server::start(Setup { engine, bounds, ..endless() });
    let mut first = streaming(&server, &hi(json!({ "max_tokens": 5000 })));
    assert!(first.event().is_some());
    let events = streamed(&server, &hi(json!({})));
    assert_eq!(outline(&events), ["ping", "error"]);
    assert_eq!(events.last().expect("events")["error"]["type"], "overloaded_error");
}

/// As Claude Code holds them: each session with its own system text, the whole conversation sent
/// every time, streamed, and all at once.
#[test]
fn test_five_concurrent_claude_code_sessions() {
    const TURNS: usize = 4;
    let session = |server: &Server, index: usize| {
        let mut turns: Vec<Json> = Vec::new();
        let mut said = Vec::new();
        for turn in 0..TURNS {
            turns.push(json!({ "role": "user", "content": format!("Step {turn} of {index}.") }));
            let body = greedy(json!({
                "system": [{ "type": "text", "text": format!("You are number {index}. ").repeat(20) }],
                "messages": turns,
                "stream": true,
            }));
            let request = Request::post(MESSAGES, body.to_string());
            let mut client = server.connect();
            let head = client.open(&request.header("X-Session-ID", format!("session-{index}")));
            assert_eq!(head.status, 200);
            let events = events(&mut client);
            let text = streamed_text(&events);
            let end = &events[events.len() - 2];
            assert_eq!(end["semantic"]["agent"], format!("session-{index}"));
            if turn > 0 {
                let read = prompt_tokens(end);
                let cached = tokens(end, "cache_read_input_tokens");
                // Most of what it reads it has read before.
                assert!(cached * 10 > read * 7, "{cached} of {read}");
            }
            turns.push(
                json!({ "role": "assistant", "content": [{ "type": "text", "text": text }] }),
            );
            said.push(text);
        }
        said
    };
    let alone: Vec<Vec<String>> = {
        let server = Server::new();
        (0..5).map(|index| session(&server, index)).collect()
    };
    let server = Server::new();
    let together: Vec<Vec<String>> = std::thread::scope(|scope| {
        let (server, session) = (&server, &session);
        let start = |index| scope.spawn(move || session(server, index));
        let sessions: Vec<_> = (0..5).map(start).collect();
        sessions.into_iter().map(|session| session.join().expect("no panic")).collect()
    });
    assert_eq!(together, alone);
    wait_until("nothing is held", || is_idle(&server));
}
