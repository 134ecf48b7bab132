//! Limits of requests and of connections.

use super::*;

#[test]
fn the_limits_let_exactly_their_number_through() {
    let rates = Rates { agent: 5, global: 12, failed_keys: 0, tokens: 0 };
    let server = Server::start(Setup { rates, ..loading() });
    let mut client = server.connect();
    let body = hello(json!({}));
    let mut ask = |header: Option<(&'static str, &str)>, body: &Json| {
        let mut request = Request::chat(body);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let answer = client.send(&request);
        match answer.status {
            429 => {
                let error = refused(&answer, 429);
                assert_eq!(
                    (&error["type"], &error["code"]),
                    (&json!("rate_limit_error"), &json!("rate_limit_exceeded"))
                );
                answer.header("retry-after").map(|after| after.parse::<u64>().expect("seconds"))
            }
            status => {
                assert_eq!(status, 503, "{answer:?}");
                None
            }
        }
    };
    let agent = |id| Some(("X-Agent-ID", id));
    for _ in 0..5 {
        assert_eq!(ask(agent("a"), &body), None);
    }
    // 5 a minute is one in 12 s.
    assert_eq!(ask(agent("a"), &body), Some(12));
    assert_eq!(ask(Some(("X-Session-ID", "a")), &body), Some(12));
    for _ in 0..5 {
        assert_eq!(ask(None, &hello(json!({ "session_id": "b" }))), None);
    }
    assert_eq!(ask(agent("b"), &body), Some(12));
    // The two left of the twelve.
    assert_eq!(ask(None, &body), None);
    assert_eq!(ask(agent("c"), &body), None);
    // 12 a minute is one in 5 s.
    assert_eq!(ask(None, &body), Some(5));
    // What generates nothing is not counted.
    assert_eq!(server.get("/").status, 200);
}

/// What is asked of an agent by its path is counted for it, wherever it is named.
#[test]
fn an_agent_in_the_path_is_counted() {
    let rates = Rates { agent: 2, global: 0, failed_keys: 0, tokens: 0 };
    let server = Server::start(Setup { rates, ..Setup::default() });
    for request in [
        Request::post("/v1/agents/a/warm", ""),
        Request::get("/v1/agents/b/explain"),
        Request::post("/v1/agents/c/explain", "{}"),
    ] {
        let statuses = [(); 3].map(|()| server.send(&request).status);
        assert!(statuses[0] != 429 && statuses[1] != 429 && statuses[2] == 429, "{statuses:?}");
    }
}

#[test]
fn a_head_that_does_not_come_closes_the_connection() {
    let timeout = Duration::from_millis(150);
    let server = with_bounds(Bounds { header_timeout: timeout, ..Bounds::default() });
    let started = Instant::now();
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.write(&b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: 1"[..index]);
    }
    // And one that has had an answer and idles.
    let mut idle = server.connect();
    assert_eq!(idle.send(&Request::get("/")).status, 200);
    for client in clients.iter_mut().chain([&mut idle]) {
        let mut rest = String::new();
        // With a 408 or without.
        let _ = std::io::Read::read_to_string(&mut client.socket, &mut rest);
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
    }
    assert!(started.elapsed() >= timeout && started.elapsed() < Duration::from_secs(5));
}

#[test]
fn beyond_the_limit_of_connections_only_the_health_is_answered() {
    let server = with_bounds(Bounds { connections: 3, spare_connections: 2, ..Bounds::default() });
    let mut main: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut main {
        assert_eq!(client.send(&Request::get("/")).status, 200);
    }
    for _ in 0..5 {
        let mut probe = server.connect();
        assert_eq!(probe.send(&Request::get("/health/live")).status, 200);
        assert!(probe.is_closed());
    }
    let mut client = server.connect();
    let answer = client.send(&Request::get("/"));
    assert_eq!(refused(&answer, 503)["code"], "too_many_connections");
    assert_eq!(
        (answer.header("retry-after"), answer.header("connection")),
        (Some("1"), Some("close"))
    );
    assert!(client.is_closed());
    // Both spare places are held by those who ask nothing: the next is not heard at all.
    let silent = [server.connect(), server.connect()];
    assert!(server.connect().is_closed());
    drop(silent);
    drop(main);
    wait_until("a place is free", || server.connect().try_get("/") == Some(200));
}

#[test]
fn bytes_that_are_no_request_are_refused_once_and_closed() {
    let server = Server::start(loading());
    let body = hello(json!({})).to_string();
    let length = body.len();
    let requests = [
        "\0\0\0\0\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "GET /\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost : localhost\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: localhost\r\n folded: x\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "x: y\r\n".repeat(101)),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nx: {}\r\n\r\n", "y".repeat(20_000)),
        format!(
            "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nContent-Length: 1\r\n\r\n{body}"
        ),
        format!("POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{body}"),
        format!("POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x\r\n\r\n{body}"),
    ];
    for request in requests {
        let mut client = server.connect();
        client.write(request.as_bytes());
        let mut answer = Vec::new();
        // The server may close while bytes are on their way.
        let _ = std::io::Read::read_to_end(&mut client.socket, &mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let shown: String = request.chars().take(80).collect();
        assert!(answer.matches("HTTP/1.1").count() <= 1, "{shown:?}: {answer}");
        assert!(
            ["", "HTTP/1.1 4"].iter().any(|start| match start.is_empty() {
                true => answer.is_empty(),
                false => answer.starts_with(start),
            }),
            "{shown:?}: {answer}"
        );
    }
}

#[test]
fn an_idle_server_stops_at_once() {
    let times = std::iter::repeat_with(|| {
        let mut server = Server::start(loading());
        let mut idle = server.connect();
        assert_eq!(idle.send(&Request::get("/")).status, 200);
        let _fresh = server.connect();
        let mut half = server.connect();
        half.write(b"GET / HTTP/1.1\r\nHo");
        // By then it has been read.
        for _ in 0..20 {
            assert_eq!(idle.send(&Request::get("/")).status, 200);
        }
        let time = server.stop();
        assert!(idle.is_closed());
        time
    });
    is_once_below(Duration::from_millis(300), times);
}
