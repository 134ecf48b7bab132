//! The `openai` and `anthropic` packages from PyPI drive the server, as those who use it do.

use crate::support::cli::Machine;
use crate::support::http::{Server, Setup, wait_until};
use crate::support::model::smollm2;
use crate::support::process::Process;
use crate::support::python::Client;
use rustix::process::Signal;
use semantic::http::Rates;
use serde_json::{Value as Json, json};
use std::net::SocketAddr;
use std::time::Duration;

const KEY: &str = "key-of-the-tests-1";
const TAGGED: &str = include_str!("../data/text/templates/tagged_calls.jinja");

/// What is said in reply to the scripts, whose cases run in one order.
const ANSWERS: [&str; 3] = ["Hello to you.", "On it goes.", "First and last."];
const CALLS: [&str; 3] = [
    "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": \"Graz\"}}\n</tool_call>",
    "It rains.",
    "Well.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": \"Linz\"}}\n</tool_call>",
];

fn openai(address: SocketAddr) -> Client {
    let base = format!("http://{address}/v1");
    Client::new("openai_client.py").with("OPENAI_BASE_URL", &base).with("OPENAI_API_KEY", KEY)
}

fn anthropic(address: SocketAddr) -> Client {
    let base = format!("http://{address}");
    let client = Client::new("anthropic_client.py").with("ANTHROPIC_BASE_URL", &base);
    client.with("ANTHROPIC_API_KEY", KEY)
}

/// A server of its own for each of the two.
fn both(setup: impl Fn() -> Setup, check: impl Fn(&Server, Client)) {
    for client in [openai, anthropic] {
        let server = Server::start(setup());
        check(&server, client(server.address));
    }
}

fn says(replies: &[&'static str]) -> Setup {
    let replies = replies.to_vec();
    Setup { keys: Some(KEY), template: TAGGED, replies, ..Setup::default() }
}

fn endless() -> Setup {
    Setup { is_endless: true, step: Duration::from_millis(2), ..says(&[]) }
}

#[test]
fn the_sdks_get_their_answers_whole_and_streamed() {
    both(|| says(&ANSWERS), |_, client| drop(client.runs(&["answers"])));
}

#[test]
fn the_openai_sdk_completes_a_text() {
    let server = Server::start(Setup { is_endless: true, ..says(&[]) });
    openai(server.address).runs(&["completes"]);
}

#[test]
fn the_sdks_call_tools() {
    both(|| says(&CALLS), |_, client| drop(client.runs(&["tools"])));
}

#[test]
fn the_openai_sdk_goes_on_from_responses() {
    let server = Server::start(says(&ANSWERS));
    openai(server.address).runs(&["responds"]);
}

#[test]
fn the_openai_sdk_calls_tools_in_responses() {
    let server = Server::start(says(&CALLS));
    openai(server.address).runs(&["response_tools"]);
}

#[test]
fn the_openai_sdk_hears_that_a_response_failed() {
    let server = Server::start(Setup { fails_at: Some(20), ..endless() });
    openai(server.address).runs(&["response_fails_in_a_stream"]);
}

#[test]
fn the_sdks_get_the_json_and_the_calls_that_they_ask_for() {
    both(|| says(&[]), |_, client| drop(client.runs(&["structured"])));
}

/// The model begins a call at first, and says nothing else itself.
#[test]
fn the_openai_sdk_gets_what_it_makes_of_types() {
    let begun = "<tool_call>\n{\"name\": \"Town\", \"arguments\": {\"town\": \"";
    let server = Server::start(says(&[begun]));
    openai(server.address).runs(&["strict"]);
}

#[test]
fn the_openai_sdk_tells_thinking_in_responses() {
    let template = include_str!("../data/text/templates/thinking.jinja");
    let replies = ["<think>\nHm.\n</think>\n\nNo."; 2];
    let server = Server::start(Setup { template, ..says(&replies) });
    openai(server.address).runs(&["response_thinks"]);
}

#[test]
fn the_sdks_tell_thinking_from_the_answer() {
    let template = include_str!("../data/text/templates/thinking.jinja");
    let replies = ["<think>\nHm.\n</think>\n\nNo."; 3];
    both(|| Setup { template, ..says(&replies) }, |_, client| drop(client.runs(&["thinks"])));
}

#[test]
fn the_sdks_raise_the_errors_that_their_users_catch() {
    let rates = Rates { agent: 1, global: 0, failed_keys: 0, tokens: 0 };
    both(|| Setup { rates, ..says(&[]) }, |_, client| drop(client.runs(&["errors"])));
}

#[test]
fn the_sdks_raise_an_error_that_comes_inside_a_stream() {
    let setup = || Setup { fails_at: Some(20), ..endless() };
    both(setup, |_, client| drop(client.runs(&["fails_in_a_stream"])));
}

/// The script lives on, so that it is not its end which ends the stream.
#[test]
fn a_stream_that_an_sdk_closes_early_ends_in_the_engine() {
    both(endless, |server, client| {
        let mut running = client.starts(&["leaves"]);
        assert_eq!(running.line(), "left");
        wait_until("the engine is idle", || server.engine().stats().running == 0);
        running.end();
    });
}

/// What an agent's next turns found, as the script puts it down.
fn talks(client: &Client, machine: &Machine, agent: &str, turns: usize) -> Vec<Json> {
    let path = machine.path(agent).display().to_string();
    let said = client.runs(&["talks", agent, &path, &turns.to_string()]);
    serde_json::from_str(&said).expect("a list")
}

fn number(turn: &Json, name: &str) -> u64 {
    turn[name].as_u64().expect("a number")
}

#[test]
fn the_agents_of_the_sdks_are_still_warm_after_the_server_was_restarted() {
    type NewClient = fn(SocketAddr) -> Client;
    let clients: [(&str, NewClient); 2] = [("of openai", openai), ("of anthropic", anthropic)];
    let machine = Machine::new();
    let model = smollm2().display().to_string();
    let mut process = Process::serving(&machine, &model, &[]);
    let before = clients.map(|(agent, client)| talks(&client(process.address), &machine, agent, 3));
    for turns in &before {
        for (turn, next) in turns.iter().zip(&turns[1..]) {
            assert_eq!(next["source"], "hot", "{turns:?}");
            assert!(number(next, "cached") >= number(turn, "total") - 1, "{turns:?}");
        }
    }
    process.kill(Signal::TERM);
    assert_eq!(process.end().code, Some(0));

    let process = Process::serving(&machine, &model, &[]);
    for ((agent, client), before) in clients.into_iter().zip(before) {
        let after = talks(&client(process.address), &machine, agent, 2);
        let (last, first) = (&before[2], &after[0]);
        assert_eq!((&first["source"], &first["agent"]), (&json!("warm"), &json!(agent)));
        assert!(number(first, "cached") >= number(last, "total") - 1, "{last} {first}");
        assert_eq!(after[1]["source"], "hot");
        assert!(before.iter().chain(&after).all(|turn| turn["durable"] == true), "{after:?}");
    }
}

#[test]
fn a_response_of_the_openai_sdk_is_gone_on_from_after_the_server_was_restarted() {
    let machine = Machine::new();
    let model = smollm2().display().to_string();
    let path = machine.path("last-response").display().to_string();
    let goes_on = |process: &Process, turns: &str| -> Vec<Json> {
        let said = openai(process.address).runs(&["goes_on", &path, turns]);
        serde_json::from_str(&said).expect("a list")
    };
    let mut process = Process::serving(&machine, &model, &[]);
    let before = goes_on(&process, "3");
    for (turn, next) in before.iter().zip(&before[1..]) {
        assert_eq!((&next["source"], &next["agent"]), (&json!("hot"), &turn["agent"]));
        assert!(number(next, "cached") >= number(turn, "total") - 1, "{before:?}");
    }
    process.kill(Signal::TERM);
    assert_eq!(process.end().code, Some(0));

    let process = Process::serving(&machine, &model, &[]);
    let after = goes_on(&process, "2");
    let (last, first) = (&before[2], &after[0]);
    assert_eq!((&first["source"], &first["agent"]), (&json!("warm"), &last["agent"]));
    assert!(number(first, "cached") >= number(last, "total") - 1, "{last} {first}");
    assert_eq!(after[1]["source"], "hot");
    assert!(before.iter().chain(&after).all(|turn| turn["durable"] == true), "{after:?}");
}
