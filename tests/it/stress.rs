//! Many requests: at once, in quick succession, more than there is room for, and the probes beside
//! them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use semantic::engine;
use semantic::http::Rates;
use semantic::model::fake::{FakeConfig, Memory};
use serde_json::{Value as Json, json};

use crate::support::cli::Machine;
use crate::support::golden::data;
use crate::support::http::{Answer, Client, Request, Server, Setup, hello, wait_until};
use crate::support::process::Process;
use crate::support::scale::scaled;

fn pool(pool_blocks: usize) -> FakeConfig {
    FakeConfig { vocabulary: 902, context_tokens: 8192, pool_blocks, memory: Memory::Tokens }
}

/// What temperature 0 makes of it, so that it is always the same.
fn question(text: &str) -> Json {
    let messages = json!([{ "role": "user", "content": text }]);
    hello(json!({ "messages": messages, "temperature": 0, "max_tokens": 20 }))
}

fn ask(client: &mut Client, agent: &str, body: &Json) -> Answer {
    client.send(&Request::chat(body).header("X-Agent-ID", agent))
}

fn text(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    json["choices"][0]["message"]["content"].as_str().expect("a text").to_owned()
}

/// Whether it says when to come back: 429 for who asks too much, 503 where there is no room.
fn is_refused_politely(answer: &Answer) -> bool {
    let seconds = answer.header("retry-after").and_then(|text| text.parse::<u64>().ok());
    answer.error();
    matches!(answer.status, 429 | 503) && seconds >= Some(1)
}

/// One thread for each, all at the same time.
fn at_once<T: Send>(count: usize, each: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let each = &each;
        let threads: Vec<_> = (0..count).map(|index| scope.spawn(move || each(index))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// Nothing runs, waits or is held that could not be had at once.
fn is_idle(server: &Server) -> bool {
    let stats = server.engine().stats();
    stats.running + stats.waiting + stats.parked == 0 && stats.blocks_used == stats.blocks_evictable
}

/// For the reader of the test's output; how long it takes depends on the machine.
#[expect(clippy::print_stdout, reason = "a test's output is the test runner's")]
fn record(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{what}: p50 {:?}, p99 {:?}, of {}", at(50), at(99), times.len());
}

/// Not a 429 here: that is for who asks too often. No room is a 503, as for every other server that
/// is full for a moment.
#[test]
fn test_graceful_429_when_pool_exhausted() {
    let engine = engine::Config { queue_max: 8, ..engine::Config::default() };
    let step = Duration::from_millis(2);
    let server = Server::start(Setup { engine, fake: pool(6), step, ..Setup::default() });
    let answers = at_once(40, |index| {
        server.chat(&question(&format!("Number {index} wants two blocks. {}", "Hm. ".repeat(90))))
    });
    let (served, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert!(!served.is_empty() && !refused.is_empty(), "{} of {}", served.len(), answers.len());
    for answer in refused {
        assert!(is_refused_politely(answer), "{answer:?}");
    }
    wait_until("the blocks are free", || is_idle(&server));
    text(&server.chat(&question("Is there room now?")));
}

#[test]
fn test_100_plus_concurrent_requests() {
    const CLIENTS: usize = 150;
    let server = Server::start(Setup { fake: pool(256), ..Setup::default() });
    let body = |index: usize| question(&format!("I am number {index}."));
    let alone: Vec<String> = (0..10).map(|index| text(&server.chat(&body(index)))).collect();
    let answers = at_once(CLIENTS, |index| {
        let (agent, body) = (format!("agent-{index}"), body(index % 10));
        let mut answer = ask(&mut server.connect(), &agent, &body);
        // As told, or sooner: nobody sleeps here.
        while answer.status != 200 {
            assert!(is_refused_politely(&answer), "{answer:?}");
            answer = ask(&mut server.connect(), &agent, &body);
        }
        text(&answer)
    });
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(*answer, alone[index % 10], "{index}");
    }
    wait_until("nothing is held", || is_idle(&server));
}

#[test]
fn test_10_agents_50_rapid_requests() {
    const AGENTS: usize = 10;
    let requests = scaled(500);
    let body = |agent: usize| question(&format!("I am agent {agent} and nobody else."));
    let server = Server::start(Setup { fake: pool(128), ..Setup::default() });
    let alone: Vec<String> = (0..AGENTS).map(|agent| text(&server.chat(&body(agent)))).collect();
    let all_differ: std::collections::BTreeSet<_> = alone.iter().collect();
    assert_eq!(all_differ.len(), AGENTS, "the answers cannot tell the agents apart");
    let right = at_once(AGENTS, |agent| {
        let (mut client, name) = (server.connect(), format!("agent-{agent}"));
        let is_right = |_: &usize| {
            let answer = ask(&mut client, &name, &body(agent));
            text(&answer) == alone[agent] && answer.json()["semantic"]["agent"] == *name
        };
        (0..requests).filter(is_right).count()
    });
    assert_eq!(right, [requests; AGENTS]);

    // With the usual limits nobody is refused for another reason, and each agent for itself.
    const PER_AGENT: usize = 60;
    let rates = Rates { agent: PER_AGENT as u32, global: 1000, failed_keys: 20, tokens: 0 };
    let server = Server::start(Setup { rates, fake: pool(128), ..Setup::default() });
    let requests = requests.max(2 * PER_AGENT);
    let started = Instant::now();
    let served = at_once(AGENTS, |agent| {
        let (mut client, name) = (server.connect(), format!("agent-{agent}"));
        let is_served = |_: &usize| {
            let answer = ask(&mut client, &name, &body(agent));
            let is_refused = answer.status == 429 && is_refused_politely(&answer);
            assert!(answer.status == 200 || is_refused, "{answer:?}");
            answer.status == 200
        };
        (0..requests).filter(is_served).count()
    });
    // One more for every second that it took.
    let most = PER_AGENT + started.elapsed().as_secs() as usize + 1;
    for served in served {
        assert!((PER_AGENT..=most).contains(&served), "{served} of {most}");
    }
}

#[test]
fn test_sustained_load() {
    let server = Server::start(Setup { fake: pool(24), ..Setup::default() });
    let before = server.engine().stats().blocks_total;
    let requests = scaled(1_000);
    at_once(4, |client| {
        let mut connection = server.connect();
        for number in 0..requests {
            let body = question(&format!("Report {number} of {client}. {}", "Ah. ".repeat(50)));
            text(&ask(&mut connection, &format!("agent-{}", number % 7), &body));
        }
    });
    wait_until("nothing is held", || is_idle(&server));
    let stats = server.engine().stats();
    assert_eq!(stats.blocks_total, before);
    assert_eq!(stats.blocks_free + stats.blocks_used, stats.blocks_total);
}

#[test]
fn test_single_request_cold_start() {
    let machine = Machine::new();
    let model = data("tiny/llama-f16").display().to_string();
    let started = Instant::now();
    let process = Process::serving(&machine, &model, &[]);
    let ready = started.elapsed();
    let answer = process.client().send(&Request::chat(&question("Hello")));
    text(&answer);
    record("process to ready", vec![ready]);
    record("process to first answer", vec![started.elapsed()]);
}

#[test]
fn test_sequential_requests_same_agent() {
    let server = Server::new();
    let mut client = server.connect();
    let mut messages = vec![json!({ "role": "user", "content": "Hello" })];
    let mut times = Vec::new();
    for turn in 0..20 {
        let body = hello(json!({ "messages": messages, "temperature": 0, "max_tokens": 8 }));
        let started = Instant::now();
        let answer = ask(&mut client, "one", &body);
        times.push(started.elapsed());
        let said = text(&answer);
        let usage = &answer.json()["usage"];
        let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64();
        assert_eq!(cached > Some(0), turn > 0, "{turn}: {usage}");
        messages.push(json!({ "role": "assistant", "content": said }));
        messages.push(json!({ "role": "user", "content": format!("And then, number {turn}?") }));
    }
    record("a turn of the same agent", times);
}

/// On a connection of its own, as a probe has it.
fn check(address: SocketAddr, path: &str) -> Duration {
    let started = Instant::now();
    let answer = Client::new(address).send(&Request::get(path));
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    started.elapsed()
}

#[test]
fn test_health_endpoint_performance() {
    let server = Server::new();
    for path in ["/health", "/health/live", "/health/ready", "/health/startup"] {
        let times = (0..scaled(1_000)).map(|_| check(server.address, path)).collect();
        record(path, times);
    }
}

#[test]
fn test_concurrent_health_checks() {
    let step = Duration::from_millis(2);
    let server = Server::start(Setup { is_endless: true, step, ..Setup::default() });
    let mut streams: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.stream(&hello(json!({ "stream": true })));
        stream.data().expect("it has begun");
    }
    let times = at_once(100, |_| check(server.address, "/health/live"));
    record("100 checks at once while 8 generate", times);
    assert_eq!(server.engine().stats().running, 8);
}
