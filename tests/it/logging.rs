//! What the log of a server says, and what it never does.

use std::io::{BufRead, BufReader};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use crate::support::cli::{Machine, tiny_with_a_long_context};
use crate::support::golden::data;
use crate::support::http::{CHAT, Client, Request, hello, wait_until};
use crate::support::process::Process;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn tiny() -> String {
    data("tiny/llama-f16").display().to_string()
}

fn start(machine: &Machine, model: &str, level: &str, flags: &[&str]) -> Process {
    let arguments = ["serve", "--no-auth", "--port=0", "--threads=1", "-m", model];
    let mut command = machine.command(&[&arguments, flags].concat());
    // What is logged where nobody sits at a terminal.
    command.env("SEMANTIC_LOG_LEVEL", level).env("SEMANTIC_LOG_FORMAT", "auto");
    let process = Process::start(command);
    process.wait_for("is ready");
    process
}

/// The lines of a log that are JSON: all but what is said to people.
fn lines(text: &str) -> Vec<Json> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The span of this name that a line is in.
fn span<'a>(line: &'a Json, name: &str) -> Option<&'a Json> {
    line["spans"].as_array()?.iter().find(|span| span["name"] == name)
}

/// The line at the end of the request with this id.
fn answered(process: &Process, id: &str) -> Json {
    let mut found = None;
    wait_until(id, || {
        found = lines(&process.said()).into_iter().find(|line| {
            line["message"] == "request answered"
                && span(line, "request").is_some_and(|request| request["id"] == id)
        });
        found.is_some()
    });
    found.expect("it was waited for")
}

#[test]
fn a_request_has_one_line_with_what_it_came_to() {
    let machine = Machine::new();
    let process = start(&machine, &tiny(), "info", &[]);
    let body = hello(json!({ "max_tokens": 4, "session_id": "ada", "temperature": 0 }));
    let request = Request::chat(&body)
        .header("X-Request-ID", "request-1")
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let answer = process.client().send(&request);
    assert_eq!(answer.status, 200, "{answer:?}");
    let usage = &answer.json()["usage"];
    let line = answered(&process, "request-1");
    assert_eq!((&line["level"], &line["status"]), (&json!("INFO"), &json!(200)), "{line}");
    assert_eq!(line["outcome"], "complete");
    let request = span(&line, "request").expect("its span");
    for (field, expected) in [
        ("method", json!("POST")),
        ("route", json!(CHAT)),
        ("peer", json!("127.0.0.1")),
        ("trace_id", json!(TRACE)),
        ("agent", json!("ada")),
        ("source", json!("cold")),
        ("prompt_tokens", usage["prompt_tokens"].clone()),
        ("cached_tokens", json!(0)),
        ("completion_tokens", usage["completion_tokens"].clone()),
        ("durable", json!(true)),
    ] {
        assert_eq!(request[field], expected, "{field}: {line}");
    }
    for time in ["queue_ms", "restore_ms", "ttft_ms", "prefill_ms", "decode_ms", "save_ms"] {
        assert!(request[time].as_f64().is_some_and(|time| time >= 0.0), "{time}: {line}");
    }
    let whole = line["duration_ms"].as_f64().expect("a time");
    assert!(request["ttft_ms"].as_f64().expect("a time") <= whole, "{line}");
    // And no other line at this level: who is refused has one too, with why.
    let bad = Request::chat(&hello(json!({ "max_tokens": 4, "tools": 1 })));
    process.client().send(&bad.header("X-Request-ID", "request-2"));
    assert_eq!(answered(&process, "request-2")["status"], 400);
    let lost = Request::get("/v1/agents/nobody").header("X-Request-ID", "request-3");
    process.client().send(&lost);
    let line = answered(&process, "request-3");
    assert_eq!(span(&line, "request").expect("its span")["error"], "agent_not_found", "{line}");
    let of_requests = lines(&process.said());
    let of_requests = of_requests.iter().filter(|line| span(line, "request").is_some()).count();
    assert_eq!(of_requests, 3, "{}", process.said());
}

#[test]
fn the_line_of_a_stream_comes_with_its_end() {
    let machine = Machine::new();
    let process = start(&machine, &tiny_with_a_long_context(&machine), "info", &[]);
    let body = json!({
        "stream": true,
        "temperature": 0,
        "frequency_penalty": -2,
        "max_tokens": 60_000,
    });
    let mut client = process.client();
    let request = Request::chat(&hello(body)).header("X-Request-ID", "stream-1");
    client.open(&request);
    client.event().expect("it has begun");
    // Another is answered in the meantime.
    let other = Request::chat(&hello(json!({ "max_tokens": 1 })));
    process.client().send(&other.header("X-Request-ID", "short-1"));
    answered(&process, "short-1");
    assert!(!process.said().contains("stream-1"), "{}", process.said());
    drop(client);
    let line = answered(&process, "stream-1");
    assert_eq!((&line["status"], &line["outcome"]), (&json!(200), &json!("client left")), "{line}");
}

/// At `debug`: where the time went, and the children say whose they are.
#[test]
fn the_phases_of_a_request_are_spans_inside_it() {
    let machine = Machine::new();
    let phases = |process: &Process, id: &str| {
        answered(process, id);
        let mut phases = Vec::new();
        for line in lines(&process.said()) {
            let is_own = span(&line, "request").is_some_and(|request| request["id"] == id);
            let names = ["queue", "restore", "prefill", "decode", "save"];
            let inside = names.into_iter().find(|name| span(&line, name).is_some());
            if let (true, Some(phase)) = (is_own, inside) {
                assert!(line["duration_ms"].is_number(), "{line}");
                phases.push(phase);
            }
        }
        phases
    };
    let ask = |process: &Process, id: &str| {
        let body = hello(json!({ "max_tokens": 4, "session_id": "ada", "temperature": 0 }));
        let answer = process.client().send(&Request::chat(&body).header("X-Request-ID", id));
        assert_eq!(answer.json()["semantic"]["durable"], true, "{answer:?}");
    };
    let mut process = start(&machine, &tiny(), "semantic=debug", &[]);
    ask(&process, "cold-1");
    assert_eq!(phases(&process, "cold-1"), ["queue", "prefill", "decode", "save"]);
    let metrics = process.client().send(&Request::get("/metrics")).body;
    assert!(metrics.contains("semantic_save_duration_seconds_count 1\n"), "{metrics}");
    assert!(!metrics.contains("semantic_save_bytes_total 0\n"), "{metrics}");
    process.kill(Signal::INT);
    process.end();
    let process = start(&machine, &tiny(), "semantic=debug", &[]);
    ask(&process, "warm-1");
    assert_eq!(phases(&process, "warm-1"), ["queue", "restore", "prefill", "decode", "save"]);
    let line = answered(&process, "warm-1");
    assert_eq!(span(&line, "request").expect("its span")["source"], "warm");
    let metrics = process.client().send(&Request::get("/metrics")).body;
    for series in [
        "semantic_cache_hits_total{tier=\"warm\"} 1\n",
        "semantic_restore_duration_seconds_count 1\n",
        "semantic_build_info{",
    ] {
        assert!(metrics.contains(series), "{series}: {metrics}");
    }
    for counted in ["restored_tokens_total", "restore_bytes_total", "store_bytes"] {
        let series = format!("\nsemantic_{counted} ");
        let value = metrics.split(&series).nth(1).and_then(|rest| rest.lines().next());
        assert!(value.is_some_and(|value| value != "0"), "{counted}: {metrics}");
    }
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// A pipe that nobody empties, as of a stuck log driver, or a terminal after Ctrl-S.
#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let machine = Machine::new();
    let model = tiny();
    let arguments = ["serve", "--no-auth", "--port=0", "--threads=1", "-m", &model];
    let mut command = machine.command(&arguments);
    command.env("SEMANTIC_LOG_LEVEL", "trace");
    let Killed(child) = &mut Killed(command.spawn().expect("the program starts"));
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut wait_for = |text: &str| loop {
        let mut line = String::new();
        assert_ne!(stderr.read_line(&mut line).expect("text"), 0, "it ended before {text:?}");
        if line.contains(text) {
            break line;
        }
    };
    let line = wait_for("listening on http://");
    let address = line.trim().rsplit('/').next().expect("an address").parse().expect("an address");
    wait_for("is ready");
    // Several times as much as a pipe and the reader's buffer hold.
    let path = format!("/{}", "a".repeat(250));
    let mut client = Client::new(address);
    for _ in 0..1000 {
        assert_eq!(client.send(&Request::get(&path)).status, 404);
    }
    assert_eq!(client.send(&Request::get("/health/live")).status, 200);
    kill_process(Pid::from_child(child), Signal::TERM).expect("it runs");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

/// Who has no key writes next to nothing into the log, however much they send.
#[test]
fn strangers_cannot_fill_the_log() {
    let machine = Machine::new();
    for (level, bytes_max) in [("info", 0), ("debug", 1500)] {
        let arguments = ["serve", "--port=0", "--threads=1", "--log-format=json", "-m", &tiny()];
        let mut command = machine.command(&arguments);
        command.env("SEMANTIC_LOG_LEVEL", level);
        command.env("SEMANTIC_API_KEYS", "key-of-the-tests-1");
        let process = Process::start(command);
        process.wait_for("is ready");
        let before = process.said().len();
        let path = format!("/{}", "a".repeat(12_000));
        let method = "B".repeat(3_000);
        let mut client = process.client();
        for request in [Request::get(&path), Request::new(&method, "/v1/models")] {
            for (key, status) in [("", 401), ("wrong-key-of-the-tests", 401)] {
                let request = request.clone().header("X-Request-ID", "stranger");
                let answer = client.send(&request.header("x-api-key", key));
                assert_eq!(answer.status, status);
            }
        }
        // What comes after it in the log is there.
        let known = Request::get("/v1/models").header("x-api-key", "key-of-the-tests-1");
        client.send(&known.header("X-Request-ID", "tenant"));
        answered(&process, "tenant");
        let said = process.said();
        let lines: Vec<&str> =
            said[before..].lines().filter(|line| line.contains("\"stranger\"")).collect();
        assert!(lines.len() >= 4 || level == "info", "{said}");
        assert!(lines.iter().all(|line| line.len() < bytes_max), "{lines:?}");
    }
}

#[test]
fn health_checks_are_not_logged_at_any_level() {
    let machine = Machine::new();
    let process = start(&machine, &tiny(), "trace", &[]);
    for path in ["/health", "/health/live", "/health/ready", "/health/startup"] {
        assert_eq!(process.status(path), 200);
    }
    let metrics = Request::get("/metrics").header("X-Request-ID", "scrape-1");
    process.client().send(&metrics);
    assert_eq!(answered(&process, "scrape-1")["level"], "DEBUG");
    assert!(!process.said().contains("/health"), "{}", process.said());
}

/// Everything that is logged and counted, of requests that say secrets in every place they can.
#[test]
fn no_prompt_no_reply_and_no_key_is_in_the_log_or_the_metrics() {
    const CANARY: &str = "canary-of-the-tests-1";
    for format in ["json", "text"] {
        let machine = Machine::new();
        let model = tiny();
        let arguments = ["serve", "--port=0", "--threads=1", "-m", &model, "--log-level=trace"];
        let mut command = machine.command(&arguments);
        command.env("SEMANTIC_API_KEYS", CANARY).env("SEMANTIC_LOG_FORMAT", format);
        let mut process = Process::start(command);
        process.wait_for("is ready");
        let mut replies = Vec::new();
        for (turn, tail) in ["one", "two", "three"].into_iter().enumerate() {
            let message =
                |role: &str| json!({ "role": role, "content": format!("{CANARY} {role} {tail}") });
            let body = json!({
                "messages": [message("system"), message("user")],
                "max_tokens": 24,
                "session_id": "ada",
                "stop": [format!("{CANARY} stop")],
                "user": CANARY,
                "stream": turn == 1,
            });
            let request = Request::chat(&body).header("x-api-key", CANARY);
            let mut client = process.client();
            if turn == 1 {
                client.open(&request);
                client.rest();
                continue;
            }
            let answer = client.send(&request);
            assert_eq!(answer.status, 200, "{answer:?}");
            let reply = answer.json()["choices"][0]["message"]["content"].clone();
            replies.push(reply.as_str().expect("a text").to_owned());
        }
        let wrong = Request::chat(&hello(json!({}))).header("x-api-key", format!("{CANARY}x"));
        assert_eq!(process.client().send(&wrong).status, 401);
        let unknown = format!("{{\"{CANARY}\": \"{CANARY}\"}}");
        let unknown = Request::post(CHAT, unknown).header("x-api-key", CANARY);
        assert_eq!(process.client().send(&unknown).status, 400);
        let by_query = format!("/metrics?key={CANARY}");
        assert_eq!(process.status(&by_query), 401);
        let metrics = Request::get("/metrics").header("x-api-key", CANARY);
        let metrics = process.client().send(&metrics);
        assert_eq!(metrics.status, 200);
        process.kill(Signal::INT);
        let ran = process.end();
        assert_eq!(ran.code, Some(0), "{ran:?}");
        for (place, text) in [("log", &ran.stderr), ("metrics", &metrics.body)] {
            assert!(!text.contains("canary"), "{format} {place}: {text}");
            for reply in replies.iter().filter(|reply| reply.len() > 8) {
                let escaped = json!(reply).to_string();
                let is_told = text.contains(reply) || text.contains(escaped.trim_matches('"'));
                assert!(!is_told, "{format} {place} has the reply {reply:?}: {text}");
            }
        }
        assert!(ran.stderr.contains("request answered"), "{}", ran.stderr);
        // The second turn and the third part from the one before them.
        assert!(ran.stderr.contains("parts from what its agent remembers"), "{}", ran.stderr);
    }
}

/// Names may have line breaks and what moves a terminal's cursor; lines are still ours alone.
#[test]
fn no_name_of_an_agent_makes_a_line_of_its_own() {
    let machine = Machine::new();
    let process = start(&machine, &tiny(), "debug", &["--log-format=text"]);
    let name = "ada\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J\u{9b}2J";
    let body = hello(json!({ "max_tokens": 1, "session_id": name }));
    assert_eq!(process.client().send(&Request::chat(&body)).status, 200);
    process.wait_for("request answered");
    let said = process.said();
    assert!(!said.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")), "{said}");
    assert!(!said.contains(['\u{1b}', '\u{9b}']), "{said}");
}

#[test]
fn the_end_has_a_line_for_each_stage_with_counts() {
    let machine = Machine::new();
    let model = tiny_with_a_long_context(&machine);
    let flags = ["--lame-duck", "0.05", "--drain-timeout", "0.2"];
    let mut process = start(&machine, &model, "info", &flags);
    let body = hello(json!({
        "stream": true,
        "temperature": 0,
        "frequency_penalty": -2,
        "max_tokens": 60_000,
    }));
    let mut client = process.client();
    client.stream(&body);
    client.event().expect("it has begun");
    process.kill(Signal::TERM);
    client.rest();
    drop(client);
    let ran = process.end();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let stages: Vec<Json> = lines(&ran.stderr)
        .into_iter()
        .filter(|line| line["target"] == "semantic::cli::serve::shutdown")
        .collect();
    let told: Vec<(&str, Vec<&str>)> = stages
        .iter()
        .map(|line| {
            let counts = ["requests", "running", "finished", "saved", "forgotten"];
            let there = counts.into_iter().filter(|count| line[count].is_number()).collect();
            (line["message"].as_str().expect("a text"), there)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("shutting down", vec!["requests"]),
            ("not ready, still accepting", vec!["requests"]),
            ("draining", vec!["requests"]),
            ("not drained in time", vec!["running", "finished"]),
            ("cutting what is left, and saving", vec!["requests"]),
            ("no agent is left", vec!["saved", "forgotten"]),
            ("leaving", vec![]),
        ],
        "{}",
        ran.stderr
    );
    assert_eq!(stages[3]["running"], 1);
    assert_eq!(stages[5]["saved"], 1);
}

#[test]
fn a_level_that_is_none_is_refused() {
    let machine = Machine::new();
    for (level, wrong) in [("inf", "inf"), ("info,semantic::http=loud", "semantic::http=loud")] {
        let ran = machine.run(&["models", "--log-level", level]);
        assert_ne!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stderr.contains(&format!("{wrong:?} has no level")), "{ran:?}");
    }
    let mut command = machine.command(&["models"]);
    command.env("SEMANTIC_LOG", "inf");
    let ran = machine.finish(command, b"");
    assert!(ran.stderr.contains("SEMANTIC_LOG: \"inf\" has no level"), "{ran:?}");
    // The old name of the flag.
    assert_eq!(machine.run(&["models", "--log", "info"]).code, Some(0));
}
