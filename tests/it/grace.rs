//! The end of the time that a supervisor gives: what was acknowledged is there, however the process
//! ends.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::cli::{Machine, tiny_with_a_long_context};
use crate::support::http::{Client, Request, Server, Setup, hello, wait_until};
use crate::support::process::Process;
use crate::support::store::{Failing, ShakyDisk};

const AGENTS: usize = 6;

/// A turn of an agent: how many tokens of what it had were there, and how many it has now.
fn turn(client: &mut Client, number: usize) -> (u64, u64) {
    let text = format!("What is {number} to you?");
    let body = json!({ "prompt": text, "max_tokens": 24, "temperature": 0 });
    let path = format!("/v1/agents/agent-{number}/generate");
    let answer = client.send(&Request::post(&path, body.to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!(answer["semantic"]["durable"], true, "{answer}");
    let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
    let memory = &answer["cache_size_tokens"];
    (cached.as_u64().expect("a count"), memory.as_u64().expect("a count"))
}

/// What each agent has after a turn that was acknowledged.
fn begin(client: &mut Client) -> Vec<u64> {
    (0..AGENTS).map(|number| turn(client, number).1).collect()
}

/// Each goes on from all that it had.
fn go_on(client: &mut Client, memories: &[u64]) {
    for (number, memory) in memories.iter().enumerate() {
        // The last token that it said has no KV yet.
        assert_eq!(turn(client, number).0, memory - 1, "agent-{number}");
    }
}

/// The whole order of things with short times: the signal, a stream that nobody reads, the drain's
/// time, and SIGKILL in the middle of what follows.
#[test]
fn a_process_that_is_killed_when_its_time_is_up_has_kept_what_it_acknowledged() {
    let machine = Machine::new();
    let model = tiny_with_a_long_context(&machine);
    let flags = ["--lame-duck", "0.2", "--drain-timeout", "0.2"];
    let mut process = Process::serving(&machine, &model, &flags);
    let memories = begin(&mut process.client());
    // It fills its socket and waits.
    let mut stuck = process.client();
    stuck.stream(&hello(json!({
        "stream": true,
        "temperature": 0,
        "frequency_penalty": -2,
        "max_tokens": 60_000,
    })));
    process.kill(Signal::TERM);
    wait_until("it is not ready", || process.client().try_get("/health/ready") != Some(200));
    process.kill(Signal::KILL);
    let ran = process.end();
    assert_eq!(ran.code, None, "{ran:?}");
    drop(stuck);
    let process = Process::serving(&machine, &model, &[]);
    go_on(&mut process.client(), &memories);
    let check = machine.run(&["cache", "verify"]);
    assert_eq!(check.code, Some(0), "{check:?}");
}

/// The disk has stopped: nothing that the end of a process waits for comes, and what lies there at
/// that moment is what the next one finds.
#[test]
fn a_disk_that_hangs_at_the_end_takes_nothing_of_what_it_had() {
    let disk = ShakyDisk::default();
    let server = Server::start(Setup { disk: Some(disk.clone()), ..Setup::default() });
    let memories = begin(&mut server.connect());
    disk.set_failing(Failing::Hangs);
    // Of a second turn nothing is acknowledged, as nothing of it can be written.
    let mut unsaved = server.connect();
    unsaved.stream(&hello(json!({ "stream": true, "session_id": "agent-0", "max_tokens": 8 })));
    let mut endless = server.connect();
    endless.stream(&hello(json!({ "stream": true, "max_tokens": 4_000 })));
    let engine = server.engine().clone();
    let in_time = server.runtime.block_on(async {
        // Short of what a stream waits for the disk, so that it is still there.
        let _ = engine.drain(Duration::from_millis(100)).await;
        engine.cut();
        tokio::time::timeout(Duration::from_millis(100), engine.evict_all_to_disk()).await
    });
    assert!(in_time.is_err(), "the disk hangs: {in_time:?}");
    let left = disk.as_left();
    disk.set_failing(Failing::Nothing);
    drop((unsaved, endless, server));
    let server = Server::start(Setup { disk: Some(left), ..Setup::default() });
    go_on(&mut server.connect(), &memories);
}
