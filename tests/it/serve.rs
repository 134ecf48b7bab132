//! `semantic serve` as a process: starting, refusing to start, signals, exit codes.

use crate::support::cli::{Machine, copy_folder, tiny_with_a_long_context};
use crate::support::golden::data;
use crate::support::http::{Client, Request, hello, is_once_below, wait_until};
use crate::support::process::{Process, without_start};
use expect_test::{Expect, expect};
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

fn tiny() -> String {
    data("tiny/llama-f16").display().to_string()
}

/// An answer that goes on until it is cut, of which something has come: each token makes itself
/// likelier.
fn endless_stream(process: &Process) -> Client {
    let mut client = process.client();
    client.stream(&hello(json!({
        "stream": true,
        "temperature": 0,
        "frequency_penalty": -2,
        "max_tokens": 60_000,
    })));
    assert!(client.data().is_some() && client.data().is_some());
    client
}

/// How a stream ended: with `[DONE]`, or with the error's code.
fn end_of(mut stream: Client) -> Json {
    let last = stream.rest().pop().expect("events");
    last.get("error").map_or(last.clone(), |error| error["code"].clone())
}

fn refused(machine: &Machine, command: Command, code: i32, message: &Expect) {
    let ran = machine.finish(command, b"");
    message.assert_eq(&machine.anonymous(&ran.stderr));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{ran:?}");
}

/// L8: who connects and says nothing takes no file that a save needs.
#[test]
fn idle_connections_leave_the_disk_its_files() {
    let machine = Machine::new();
    let arguments = ["serve", "--no-auth", "--port=0", "--threads=1", "-m", &tiny()];
    let process = Process::start(machine.limited("-n 256", &arguments));
    process.wait_for("is ready after");
    let mut client = process.client();
    let said = |client: &mut Client, agent: &str| {
        let body = hello(json!({ "max_tokens": 4, "session_id": agent }));
        client.send(&Request::chat(&body)).json()["semantic"]["durable"].clone()
    };
    assert_eq!(said(&mut client, "before"), true);
    let idle: Vec<TcpStream> = (0..400)
        .filter_map(|_| TcpStream::connect_timeout(&process.address, Duration::from_secs(1)).ok())
        .collect();
    assert!(idle.len() > 256, "{}", idle.len());
    for turn in 0..3 {
        assert_eq!(said(&mut client, &format!("agent-{turn}")), true);
    }
    drop(idle);
    // Until it has noticed, it has no place.
    wait_until("a new connection", || process.client().try_get("/health/ready") == Some(200));
}

#[test]
fn the_server_answers_as_generate_does() {
    let machine = Machine::new();
    let mut process = Process::serving(&machine, &tiny(), &[]);
    assert_eq!(process.status("/health/ready"), 200);
    let body = hello(json!({ "temperature": 0, "max_tokens": 8 }));
    let answer = process.client().send(&Request::chat(&body)).json();
    let content = answer["choices"][0]["message"]["content"].as_str().expect("a text").to_owned();
    let generated = machine.run(&["generate", "-m", &tiny(), "--threads=1", "-n8", "Hello"]);
    assert_eq!(content, generated.stdout.trim_end_matches('\n'));
    assert_eq!(answer["model"], "llama-f16");
    process.kill(Signal::INT);
    let ran = process.end();
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""), "{ran:?}");
    // Its agents, and what it remembers of model files.
    let stored = machine.stored();
    let is_known =
        |path: &String| ["data/cache/", "data/digests/"].iter().any(|at| path.starts_with(at));
    assert!(stored.iter().all(is_known), "{stored:?}");
}

#[test]
fn an_idle_server_ends_at_once_when_it_is_interrupted() {
    let machine = Machine::new();
    let times = std::iter::repeat_with(|| {
        let mut process = Process::serving(&machine, &tiny(), &[]);
        let mut idle = process.client();
        assert_eq!(idle.send(&Request::get("/health")).status, 200);
        let started = Instant::now();
        process.kill(Signal::INT);
        assert_eq!(process.end().code, Some(0));
        started.elapsed()
    });
    is_once_below(Duration::from_millis(300), times);
}

#[test]
fn who_is_being_answered_at_the_end_gets_the_whole_answer() {
    let machine = Machine::new();
    let model = tiny_with_a_long_context(&machine);
    let mut process = Process::serving(&machine, &model, &[]);
    let mut streams: Vec<Client> = (0..8).map(|_| process.client()).collect();
    for stream in &mut streams {
        stream.stream(&hello(json!({ "stream": true, "seed": 5, "max_tokens": 300 })));
    }
    // So that it goes on until all has been looked at.
    let longest = endless_stream(&process);
    process.kill(Signal::TERM);
    wait_until("it drains", || {
        let answer = process.client().send(&Request::chat(&hello(json!({ "max_tokens": 1 }))));
        answer.status == 503 && answer.error()["code"] == "shutting_down"
    });
    assert_eq!((process.status("/health/ready"), process.status("/health/live")), (503, 200));
    for stream in streams {
        assert_eq!(end_of(stream), "[DONE]");
    }
    drop(longest);
    let ran = process.end();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
}

#[test]
fn what_outlives_the_drain_is_cut_with_an_error_event() {
    let machine = Machine::new();
    let model = tiny_with_a_long_context(&machine);
    let mut process =
        Process::serving(&machine, &model, &["--drain-timeout", "0.2", "--log", "error"]);
    let stream = endless_stream(&process);
    let started = Instant::now();
    process.kill(Signal::TERM);
    assert_eq!(end_of(stream), "shutting_down");
    let ran = process.end();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let elapsed = started.elapsed();
    assert!(elapsed > Duration::from_millis(200), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

#[test]
fn a_second_signal_does_not_wait_for_what_runs() {
    let machine = Machine::new();
    let model = tiny_with_a_long_context(&machine);
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT)] {
        let mut process = Process::serving(&machine, &model, &["--lame-duck", "30"]);
        let stream = endless_stream(&process);
        let started = Instant::now();
        process.kill(first);
        wait_until("it is not ready", || process.status("/health/ready") == 503);
        process.kill(second);
        assert_eq!(end_of(stream), "shutting_down");
        let ran = process.end();
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn a_lame_duck_is_not_ready_and_still_answers() {
    let machine = Machine::new();
    let mut process = Process::serving(&machine, &tiny(), &["--lame-duck", "0.4"]);
    let started = Instant::now();
    process.kill(Signal::TERM);
    wait_until("it is not ready", || process.status("/health/ready") == 503);
    let answer = process.client().send(&Request::chat(&hello(json!({ "max_tokens": 2 }))));
    assert_eq!(answer.status, 200);
    assert_eq!(process.end().code, Some(0));
    let elapsed = started.elapsed();
    assert!(elapsed > Duration::from_millis(400), "{elapsed:?}");
}

/// A hub that never answers stands for a large model.
#[test]
fn while_the_model_is_fetched_probes_are_answered_and_a_signal_ends_it() {
    let machine = Machine::new();
    let hub = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", hub.local_addr().expect("an address"));
    for signal in [Signal::TERM, Signal::INT] {
        let mut command = machine.command(&["serve", "--no-auth", "--port=0", "-m", "org/name"]);
        command.env("HF_ENDPOINT", &url).env("HF_HUB_OFFLINE", "0");
        let mut process = Process::start(command);
        let _held = hub.accept().expect("it asks the hub");
        assert_eq!(process.status("/health/live"), 200);
        assert_eq!(process.status("/health/startup"), 503);
        assert_eq!(process.status("/health/ready"), 503);
        let started = Instant::now();
        process.kill(signal);
        assert_eq!(process.end().code, Some(0));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

/// At every moment between taking the address and being ready.
#[test]
fn a_signal_during_the_start_ends_it_cleanly() {
    let machine = Machine::new();
    for delay_ms in [0, 1, 2, 5, 10, 20, 40] {
        let arguments = ["serve", "--no-auth", "--port=0", "-m", &tiny()];
        let mut process = Process::start(machine.command(&arguments));
        std::thread::sleep(Duration::from_millis(delay_ms));
        process.kill(Signal::TERM);
        let ran = process.end();
        assert_eq!(ran.code, Some(0), "after {delay_ms} ms: {ran:?}");
        assert!(!ran.stderr.contains("error"), "{ran:?}");
    }
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_server_as_it_ends_generate() {
    let machine = Machine::new();
    let damages: [fn(&std::path::Path); 2] = [
        |folder| std::fs::remove_file(folder.join("tokenizer.json")).expect("removed"),
        |folder| {
            let path = folder.join("model-00001-of-00002.safetensors");
            let bytes = std::fs::read(&path).expect("weights");
            std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
        },
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        let folder = machine.path(&format!("model-{index}"));
        copy_folder(&data("tiny/llama-f16"), &folder);
        damage(&folder);
        let model = folder.display().to_string();
        let generated = machine.run(&["generate", "-m", &model, "hi"]);
        let served = machine.run(&["serve", "--no-auth", "--port=0", "-m", &model]);
        assert_eq!((generated.code, served.code), (Some(1), Some(1)));
        assert!(served.stderr.starts_with("listening on "), "{served:?}");
        assert_eq!(without_start(&served.stderr), generated.stderr);
    }
    let machine = Machine::new();
    let ran = machine.run(&["serve", "--no-auth", "--port=0", "-m", &tiny(), "--kv-pool-mb=0"]);
    assert_eq!(ran.code, Some(64), "{ran:?}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let machine = Machine::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let ran = machine.run(&["serve", "--no-auth", "-m", &tiny(), &format!("--port={port}")]);
    assert_eq!(ran.code, Some(69));
    expect![[r#"
        error: 127.0.0.1:PORT is in use
        hint: another server runs there; stop it, or give another --port
    "#]]
    .assert_eq(&ran.stderr.replace(&port.to_string(), "PORT"));
}

#[test]
fn a_server_that_is_open_to_others_by_accident_does_not_start() {
    let machine = Machine::new();
    let check = |flags: &[&str], keys: Option<&str>, message: Expect| {
        let mut command = machine.command(&[&["serve", "-m", &tiny()], flags].concat());
        command.envs(keys.map(|keys| ("SEMANTIC_API_KEYS", keys)));
        refused(&machine, command, 78, &message);
    };
    check(
        &[],
        None,
        expect![[r#"
        error: there are no API keys
        hint: make one with `semantic serve --new-key NAME`, set SEMANTIC_API_KEYS=KEY[,KEY…] or name a --keys-file; --no-auth lets every program on this machine in, on a loopback address
    "#]],
    );
    check(
        &["--host=0.0.0.0"],
        None,
        expect![[r#"
        error: there are no API keys
        hint: make one with `semantic serve --new-key NAME`, set SEMANTIC_API_KEYS=KEY[,KEY…] or name a --keys-file; --no-auth lets every program on this machine in, on a loopback address
    "#]],
    );
    check(
        &["--host=0.0.0.0", "--no-auth"],
        None,
        expect![[r#"
        error: --no-auth would let everyone who reaches 0.0.0.0 in
        hint: set SEMANTIC_API_KEYS or name a --keys-file, or listen on 127.0.0.1
    "#]],
    );
    check(
        &[],
        Some("long-enough-to-be-a-key,short"),
        expect![[r#"
        error: SEMANTIC_API_KEYS: key 2 has 5 characters; at least 16
        hint: give random keys of 16 or more letters and digits, separated by commas: `openssl rand -hex 16` makes one
    "#]],
    );
    check(
        &["--no-auth"],
        Some("long-enough-to-be-a-key"),
        expect![[r#"
        error: SEMANTIC_API_KEYS is set and --no-auth is given
        hint: take one of them away
    "#]],
    );
}

#[test]
fn flags_out_of_range_are_misuse_and_settings_out_of_range_a_misconfiguration() {
    let machine = Machine::new();
    let check = |flags: &[&str], code: i32, message: Expect| {
        let command = machine.command(&[&["serve", "--no-auth", "-m", &tiny()], flags].concat());
        refused(&machine, command, code, &message);
    };
    check(
        &["--step-ms=0"],
        64,
        expect![[r#"
        error: step_ms is 0; it goes from 1 to 10000
    "#]],
    );
    check(
        &["--max-running=0"],
        64,
        expect![[r#"
        error: max_running is 0; it goes from 1 to 4096
    "#]],
    );
    check(
        &["--drain-timeout=-1"],
        64,
        expect![[r#"
        error: drain_timeout is -1; it goes from 0 to 86400
    "#]],
    );
    check(
        &["--lame-duck=nan"],
        64,
        expect![[r#"
        error: lame_duck is NaN; it goes from 0 to 86400
    "#]],
    );
    check(
        &["--kv-bits=5"],
        64,
        expect![[r#"
        error: invalid value '5' for '--kv-bits <BITS>': "5" is not one of 4, 8, 16, 32, with or without r

        For more information, try '--help'.
    "#]],
    );
    std::fs::write(machine.path("bad.toml"), "[serve]\nqueue_timeout_s = 1e9\n").expect("a file");
    check(
        &["--config=bad.toml"],
        78,
        expect![[r#"
        error: the configuration's [serve] is not valid: queue_timeout is 1000000000; it goes from 0 to 86400
        hint: mend it in the configuration file, or name another with --config
    "#]],
    );
    std::fs::write(machine.path("bad.toml"), "[serve]\nprot = 1\n").expect("a file");
    check(
        &["--config=bad.toml"],
        78,
        expect![[r#"
            error: the configuration bad.toml is not valid: TOML parse error at line 2, column 1
              |
            2 | prot = 1
              | ^^^^
            unknown field `prot`, expected one of `host`, `port`, `allowed_hosts`, `cors_origins`, `no_auth`, `keys_file`, `rate_limit_agent`, `rate_limit_global`, `rate_limit_failed_keys`, `tokens_per_minute`, `kv_pool_mb`, `max_running`, `queue_requests`, `queue_timeout_s`, `step_ms`, `lame_duck_s`, `drain_timeout_s`, `kv_bits`, `device`, `threads`
            did you mean `port`?
            hint: mend it in the configuration file, or name another with --config
        "#]],
    );
}

/// With everything logged that there is to log.
#[test]
fn neither_keys_nor_prompts_are_ever_logged() {
    let (key, prompt) = ("canary-of-the-keys", "canary of the prompts");
    let machine = Machine::new();
    let mut command = machine.command(&["serve", "--port=0", "-m", &tiny(), "--log=trace"]);
    command.env("SEMANTIC_API_KEYS", key);
    let mut process = Process::start(command);
    process.wait_for("is ready after");
    let messages = json!([{ "role": "user", "content": prompt }]);
    let body = hello(json!({ "messages": messages, "max_tokens": 4 }));
    for (name, value) in [("x-api-key", key.to_owned()), ("Authorization", format!("Bearer {key}"))]
    {
        let answer = process.client().send(&Request::chat(&body).header(name, value));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let wrong = format!("Bearer {key}x");
    let answer = process.client().send(&Request::chat(&body).header("Authorization", wrong));
    assert_eq!(answer.status, 401);
    assert!(!answer.body.contains("canary"), "{answer:?}");
    let garbled = Request::post("/v1/chat/completions", format!("{{\"{prompt}\": 1}}"));
    assert_eq!(process.client().send(&garbled.header("x-api-key", key)).status, 400);
    process.kill(Signal::INT);
    let ran = process.end();
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains("request answered"), "{ran:?}");
    assert!(!ran.stderr.contains("canary"), "{}", ran.stderr);
}
