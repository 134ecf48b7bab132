//! Many chats at once.

use super::*;

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

/// This process holds both ends of every connection.
fn allow_many_sockets() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(8192, |most| most.min(8192));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).expect("a limit");
}
