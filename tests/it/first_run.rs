//! What `semantic serve` says while it starts: a line per stage to people, events to programs.

use crate::support::cli::Machine;
use crate::support::golden::data;
use crate::support::http::{Client, wait_until};
use crate::support::process::Process;
use expect_test::expect;
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

const KEY: &str = "key-of-the-tests-1";

fn tiny() -> String {
    data("tiny/llama-f16").display().to_string()
}

fn serve(machine: &Machine, flags: &[&str]) -> Command {
    let arguments = ["serve", "--port=0", "--threads=1", "--kv-pool-mb=8", "-m"];
    let mut command = machine.command(&[&arguments[..], &[&tiny()], flags].concat());
    command.env("SEMANTIC_LOG_LEVEL", "warn");
    command
}

/// All that a server said from its start to its end, without what differs from run to run.
fn said(machine: &Machine, command: Command) -> String {
    let mut process = Process::start(command);
    process.wait_for("    -d '{");
    let port = format!(":{}", process.address.port());
    process.kill(Signal::INT);
    assert_eq!(process.end().code, Some(0));
    let said = machine.anonymous(&process.said()).replace(&port, ":PORT");
    let said = said.replace(&tiny(), "$MODEL");
    let seconds = said.split("is ready after ").nth(1).and_then(|rest| rest.split(' ').next());
    let seconds = format!("after {} s", seconds.expect("a time"));
    said.replace(&seconds, "after SECONDS s")
}

#[test]
fn a_start_says_each_stage_in_a_line_and_then_what_to_try() {
    let machine = Machine::new();
    expect![[r#"
        listening on http://127.0.0.1:PORT
        no key is asked for: every program on this machine may ask
        agents on disk: 0 in $HERE/data/cache
        the model is $MODEL
        loading 299.5 kB, with a KV pool of 8.0 MB at 8/8 bits
        warming up
        $MODEL is ready after SECONDS s

        try it:

            curl http://127.0.0.1:PORT/v1/chat/completions \
              -H "Content-Type: application/json" \
              -d '{"messages": [{"role": "user", "content": "Why is the sky blue?"}]}'

    "#]]
    .assert_eq(&said(&machine, serve(&machine, &["--no-auth"])));
    assert_eq!(machine.run(&["serve", "--new-key", "ada"]).code, Some(0));
    let remembers = ["generate", "-m", &tiny(), "-n4", "--agent", "ada", "Hello"];
    assert_eq!(machine.run(&remembers).code, Some(0));
    expect![[r#"
        listening on http://127.0.0.1:PORT
        API keys: 1 in $HERE/data/keys.toml
        agents on disk: 1 in $HERE/data/cache
        the model is $MODEL
        loading 299.5 kB, with a KV pool of 8.0 MB at 8/8 bits
        warming up
        $MODEL is ready after SECONDS s

        try it:

            curl http://127.0.0.1:PORT/v1/chat/completions \
              -H "Authorization: Bearer YOUR_KEY" -H "Content-Type: application/json" \
              -d '{"messages": [{"role": "user", "content": "Why is the sky blue?"}]}'

    "#]]
    .assert_eq(&said(&machine, serve(&machine, &[])));
}

#[test]
fn the_command_that_a_start_shows_is_answered() {
    let machine = Machine::new();
    let mut command = serve(&machine, &[]);
    command.env("SEMANTIC_API_KEYS", KEY);
    let process = Process::start(command);
    process.wait_for("    -d '{");
    let said = process.said();
    let (_, shown) = said.split_once("try it:\n\n").expect("a command");
    let mut shell = machine.command(&[]);
    shell = {
        let mut sh = Command::new("sh");
        sh.args(["-c", &format!("curl() {{ command curl --silent --fail \"$@\"; }}\n{shown}")]);
        sh.envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
        sh.env("SEMANTIC_API_KEYS", KEY).env("no_proxy", "*");
        sh.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        sh.stderr(std::process::Stdio::piped());
        sh
    };
    let ran = machine.finish(shell, b"");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let answer: Json = serde_json::from_str(&ran.stdout).expect("an answer");
    assert_eq!(answer["object"], "chat.completion", "{answer}");
}

#[test]
fn a_quiet_start_says_nothing() {
    let machine = Machine::new();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address: SocketAddr = free.local_addr().expect("an address");
    drop(free);
    let port = format!("--port={}", address.port());
    let arguments = ["serve", "--no-auth", "--quiet", "--threads=1", &port, "-m", &tiny()];
    let child = machine.command(&arguments).spawn().expect("the program starts");
    let ready = || {
        let there = std::net::TcpStream::connect(address).is_ok();
        there && Client::new(address).try_get("/health/ready") == Some(200)
    };
    wait_until("it is ready", ready);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).expect("it runs");
    let output = crate::support::cli::wait(child);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn beside_json_there_is_nothing_else() {
    let machine = Machine::new();
    let mut command = serve(&machine, &["--no-auth"]);
    command.env("SEMANTIC_LOG_FORMAT", "json").env("SEMANTIC_LOG_LEVEL", "info");
    let mut process = Process::start(command);
    process.wait_for("the model is ready");
    process.kill(Signal::INT);
    assert_eq!(process.end().code, Some(0));
    let said = process.said();
    let lines: Vec<Json> =
        said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let stages = lines.iter().filter(|line| line["target"] == "semantic::cli::serve::stages");
    let messages: Vec<&str> = stages.filter_map(|line| line["message"].as_str()).collect();
    let expected = [
        "listening",
        "API keys",
        "agents found on disk",
        "model found",
        "loading the model",
        "warming up",
        "the model is ready",
    ];
    assert_eq!(messages, expected, "{said}");
}

#[test]
fn why_it_does_not_start_is_an_event_beside_json() {
    let machine = Machine::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let port = format!("--port={}", address.port());
    let mut command = machine.command(&["serve", "--no-auth", "-m", &tiny(), &port]);
    command.env("SEMANTIC_LOG_FORMAT", "auto");
    let ran = machine.finish(command, b"");
    assert_eq!(ran.code, Some(69), "{ran:?}");
    let line: Json = serde_json::from_str(&ran.stderr).expect("one line of JSON");
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["error"], format!("{address} is in use"));
    assert_eq!(line["exit_code"], json!(69));
    let hint = "another server runs there; stop it, or give another --port";
    assert_eq!(line["hint"], hint);
}
