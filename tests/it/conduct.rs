//! How the server conducts itself when things go wrong: a model that panics or hangs, clients that
//! leave, pools that are full, and what the probes say meanwhile.

use std::time::Duration;

use semantic::engine;
use semantic::model::fake::{FakeConfig, Memory};
use serde_json::{Value as Json, json};

use crate::support::http::{Client, Fault, ModelState, Request, Server, Setup, hello, wait_until};
use crate::support::random::Random;
use crate::support::scale::scaled;

/// A model that takes its time and never ends by itself.
fn endless() -> Setup {
    Setup { is_endless: true, step: Duration::from_millis(2), ..Setup::default() }
}

fn pool(pool_blocks: usize) -> FakeConfig {
    FakeConfig { vocabulary: 902, context_tokens: 8192, pool_blocks, memory: Memory::Tokens }
}

/// Nothing runs, waits or is held that could not be had at once.
fn is_idle(server: &Server) -> bool {
    let stats = server.engine().stats();
    stats.running + stats.waiting + stats.parked == 0 && stats.blocks_used == stats.blocks_evictable
}

fn ready(server: &Server) -> (u16, Json) {
    let answer = server.get("/health/ready");
    (answer.status, answer.json()["reason"].clone())
}

/// One token, greedy.
fn smallest() -> Json {
    hello(json!({ "max_tokens": 1, "temperature": 0 }))
}

#[test]
fn a_model_that_panics_fails_its_request_and_the_third_time_the_server_is_not_ready_again() {
    // The warm-up has three steps.
    let (fails_at, fault) = (Some(8), Fault::Panic);
    let server = Server::start(Setup { fails_at, fault, ..endless() });
    for _ in 0..3 {
        let answer = server.chat(&hello(json!({ "max_tokens": 50 })));
        assert!(answer.status >= 500, "{answer:?}");
        assert!(!answer.body.contains("as the test wants"), "{answer:?}");
        answer.error();
    }
    wait_until("the engine has failed", || server.engine().status() != engine::Status::Serving);
    for _ in 0..20 {
        assert_eq!(ready(&server), (503, json!("engine_failed")));
        assert_eq!(server.get("/health/live").status, 200);
        assert!(server.chat(&smallest()).status >= 500);
    }
}

#[test]
fn a_model_that_hangs_is_not_ready_and_its_clients_are_told() {
    let engine = engine::Config {
        step: Duration::from_millis(1),
        step_patience: Duration::from_millis(50),
        ..engine::Config::default()
    };
    let (fails_at, fault) = (Some(8), Fault::Hang);
    let server = Server::start(Setup { engine, fails_at, fault, ..endless() });
    let mut stream = server.connect();
    stream.stream(&hello(json!({ "stream": true })));
    wait_until("it is found out", || ready(&server) == (503, json!("engine_failed")));
    assert_eq!(server.get("/health/startup").status, 503);
    assert_eq!(server.get("/health/live").status, 200);
    let answer = server.chat(&smallest());
    assert!(answer.status >= 500, "{answer:?}");
    answer.error();
    assert_eq!(ready(&server).0, 503);
}

/// Wherever a client leaves: in line, while its prompt is read, in its stream, or before it has
/// read anything.
#[test]
fn clients_that_leave_at_any_moment_leave_nothing_behind() {
    let engine = engine::Config { running_max: 3, ..engine::Config::default() };
    let server = Server::start(Setup { engine, fake: pool(64), is_endless: true, ..endless() });
    let mut random = Random::new(8);
    let mut staying: Vec<Client> = Vec::new();
    for point in 0..scaled(1_000) {
        let words = "word ".repeat(random.range(1..400));
        let messages = json!([{ "role": "user", "content": format!("{point} {words}") }]);
        let is_stream = random.range(0..4) > 0;
        let body = hello(json!({ "messages": messages, "stream": is_stream, "max_tokens": 300 }));
        let mut client = server.connect();
        client.write(&Request::chat(&body).bytes());
        if is_stream && random.range(0..2) == 0 && staying.is_empty() {
            assert_eq!(client.head().status, 200);
            for _ in 0..random.range(0..20) {
                client.event();
            }
        }
        // Some leave later, in another order; those with bytes unread reset the connection.
        staying.push(client);
        if staying.len() > random.range(0..5) {
            let leaving = random.range(0..staying.len());
            staying.swap_remove(leaving);
        }
        if point % 50 == 0 {
            staying.clear();
            wait_until("nothing is held", || is_idle(&server));
        }
    }
    staying.clear();
    wait_until("nothing is held", || is_idle(&server));
    assert_eq!(ready(&server).0, 200);
    assert_eq!(server.chat(&smallest()).status, 200);
}

/// A pool of a few blocks that everybody's KV goes through: the fake makes its text of what is in
/// its blocks, so that a block of somebody else's is wrong text.
#[test]
fn of_many_agents_in_a_small_pool_each_hears_its_own() {
    let agents = scaled(1_000);
    let body = |agent: usize| {
        let canary = Random::new(agent as u64).next();
        let content = format!("My secret is {canary:016x}. {}", "Keep it. ".repeat(agent % 40));
        let messages = json!([{ "role": "user", "content": content }]);
        hello(json!({ "messages": messages, "temperature": 0, "max_tokens": 12 }))
    };
    let content = |server: &Server, agent: usize| {
        let name = format!("agent-{agent}");
        let answer = server.send(&Request::chat(&body(agent)).header("X-Agent-ID", name));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["choices"][0]["message"]["content"].clone()
    };
    let roomy = Server::start(Setup { fake: pool(4096), ..Setup::default() });
    let expected: Vec<Json> = (0..agents).map(|agent| content(&roomy, agent)).collect();
    let small = Server::start(Setup { fake: pool(12), ..Setup::default() });
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (small, expected, content) = (&small, &expected, &content);
            scope.spawn(move || {
                // Each asks twice, so that some come back to what is theirs.
                for agent in (part..agents).step_by(4).flat_map(|agent| [agent, agent]) {
                    assert_eq!(content(small, agent), expected[agent], "{agent}");
                }
            });
        }
    });
    wait_until("nothing is held", || is_idle(&small));
}

/// As full as it gets: some blocks are kept for who comes next.
#[test]
fn a_pool_full_of_idle_agents_is_ready_and_serves() {
    let server = Server::start(Setup { fake: pool(40), ..Setup::default() });
    for agent in 0..50 {
        let messages = json!([{ "role": "user", "content": format!("I am {agent}") }]);
        let session = format!("agent-{agent}");
        let fields = json!({ "messages": messages, "session_id": session, "max_tokens": 4 });
        let body = hello(fields);
        assert_eq!(server.chat(&body).status, 200);
    }
    let stats = server.engine().stats();
    assert!(stats.blocks_used * 5 >= stats.blocks_total * 4, "{stats:?}");
    assert_eq!(ready(&server).0, 200);
    assert_eq!(server.chat(&smallest()).status, 200);
}

/// Whoever is told 200 is served.
#[test]
fn ready_is_never_said_where_the_smallest_request_is_refused() {
    let check = |server: &Server, what: &str| {
        let before = ready(server).0;
        let served = server.chat(&smallest()).status;
        // What changed in between is no lie.
        let is_true = before != 200 || served == 200 || ready(server).0 != 200;
        assert!(is_true, "{what}: ready says {before}, a request {served}");
        (before, served)
    };
    let mut loading = Server::start(Setup { model: ModelState::Loading, ..endless() });
    assert_eq!(check(&loading, "loading"), (503, 503));
    loading.finish_loading();
    assert_eq!(check(&loading, "serving"), (200, 200));
    loading.app.start_shutting_down();
    assert_eq!(check(&loading, "a lame duck"), (503, 200));
    let drained = loading.runtime.block_on(loading.engine().drain(Duration::from_secs(5)));
    assert!(drained.is_ok());
    assert_eq!(check(&loading, "draining"), (503, 503));
    loading.engine().shutdown();
    assert_eq!(check(&loading, "without an engine").0, 503);

    let full =
        Server::start(Setup { fake: pool(30), step: Duration::from_millis(20), ..endless() });
    let mut streams: Vec<Client> = Vec::new();
    for _ in 0..10 {
        let mut client = full.connect();
        client.stream(&hello(json!({ "stream": true })));
        streams.push(client);
        let _ = ready(&full);
    }
    wait_until("the pool is full", || ready(&full).0 == 503);
    streams.truncate(5);
    wait_until("there is room", || ready(&full).0 == 200);
    assert_eq!(check(&full, "half full"), (200, 200));
}
