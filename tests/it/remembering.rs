//! Agents whose memory outlives the process: on the command line, over HTTP, and from one to the
//! other.

use std::process::Child;

use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::support::cli::{Machine, Ran};
use crate::support::golden::data;
use crate::support::http::Request;
use crate::support::process::Process;

const QUESTIONS: [&str; 3] = ["Who are you?", "And what is it that you do?", "Why?"];

fn tiny() -> String {
    data("tiny/llama-f16").display().to_string()
}

fn generate(machine: &Machine, arguments: &[&str]) -> Ran {
    let model = tiny();
    let all = ["generate", "-m", &model, "--threads=1", "-n8", "--json"];
    machine.run(&[&all, arguments].concat())
}

/// One turn of an agent, each in a process of its own.
fn turn(machine: &Machine, agent: &str, question: &str) -> Json {
    let ran = generate(machine, &["--agent", agent, question]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    serde_json::from_str(&ran.stdout).expect("one object")
}

/// A conversation over HTTP: what has been said so far, the last answer included.
struct Chat {
    agent: &'static str,
    messages: Vec<Json>,
}

impl Chat {
    fn new(agent: &'static str) -> Chat {
        Chat { agent, messages: Vec::new() }
    }

    fn add(&mut self, role: &str, content: &str) {
        self.messages.push(json!({ "role": role, "content": content }));
    }

    fn ask(&mut self, process: &Process, question: &str) -> Json {
        self.add("user", question);
        let body = json!({
            "messages": self.messages,
            "temperature": 0,
            "max_tokens": 8,
            "session_id": self.agent,
        });
        let answer = process.client().send(&Request::chat(&body)).json();
        self.add("assistant", text(&answer));
        answer
    }
}

fn text(answer: &Json) -> &str {
    let text = answer["text"].as_str().or(answer["choices"][0]["message"]["content"].as_str());
    text.expect("an answer")
}

/// Prompt tokens, and those of them that were not computed.
fn tokens(answer: &Json) -> (u64, u64) {
    let usage = &answer["usage"];
    let number = |json: &Json| json.as_u64().expect("a number");
    (number(&usage["prompt_tokens"]), number(&usage["prompt_tokens_details"]["cached_tokens"]))
}

/// All of the turn before is in memory but the last token of the reply. More is, if another agent
/// has said the same.
fn check_memory(before: &Json, after: &Json) {
    let reply = before["usage"]["completion_tokens"].as_u64().expect("a number");
    assert!(tokens(after).1 >= tokens(before).0 + reply - 1, "{before} {after}");
}

#[test]
fn an_agent_goes_on_from_process_to_process() {
    let machine = Machine::new();
    let answers = QUESTIONS.map(|question| turn(&machine, "planner", question));
    for (before, after) in answers.iter().zip(&answers[1..]) {
        check_memory(before, after);
        assert_eq!(after["semantic"]["source"], "warm");
    }
    for (answer, generation) in answers.iter().zip(1..) {
        assert_eq!(answer["semantic"]["agent"], "planner");
        assert_eq!(answer["semantic"]["durable"], true);
        assert_eq!(answer["semantic"]["generation"], generation);
    }
    // Another name, another memory; no name, none.
    assert_eq!(turn(&machine, "Planner", "What?")["semantic"]["generation"], 1);
    let nobody = generate(&machine, &["What?"]);
    assert!(!nobody.stdout.contains("semantic"), "{nobody:?}");
}

/// One process that never leaves says the same as many that do.
#[test]
fn an_agent_says_over_http_what_it_says_on_the_command_line() {
    let machine = Machine::new();
    let process = Process::serving(&machine, &tiny(), &[]);
    let mut chat = Chat::new("planner");
    let expected = QUESTIONS.map(|question| chat.ask(&process, question));
    drop(process);
    let elsewhere = Machine::new();
    for (expected, question) in expected.iter().zip(QUESTIONS) {
        let found = turn(&elsewhere, "planner", question);
        assert_eq!((text(&found), tokens(&found)), (text(expected), tokens(expected)));
    }
}

#[test]
fn an_agent_of_a_server_is_continued_on_the_command_line_and_back() {
    let machine = Machine::new();
    let mut chat = Chat::new("planner");
    let process = Process::serving(&machine, &tiny(), &[]);
    let first = chat.ask(&process, QUESTIONS[0]);
    assert_eq!(first["semantic"]["durable"], true);
    // Dropped, it is killed.
    drop(process);
    let second = turn(&machine, "planner", QUESTIONS[1]);
    check_memory(&first, &second);
    chat.add("user", QUESTIONS[1]);
    chat.add("assistant", text(&second));
    let process = Process::serving(&machine, &tiny(), &[]);
    let third = chat.ask(&process, QUESTIONS[2]);
    check_memory(&second, &third);
    assert_eq!(third["semantic"]["source"], "warm");
    assert_eq!(third["semantic"]["generation"], 3);
    assert!(third["semantic"]["restore_ms"].as_f64().expect("a time") > 0.0);
}

/// A text has no turns, so that there is nothing in it to answer to.
#[test]
fn a_text_that_an_agent_of_a_server_completed_is_not_its_last_conversation() {
    let machine = Machine::new();
    let process = Process::serving(&machine, &tiny(), &[]);
    let first = Chat::new("planner").ask(&process, QUESTIONS[0]);
    let body = json!({ "prompt": "Once upon a time", "max_tokens": 4 });
    let request = Request::post("/v1/completions", body.to_string());
    let completed = process.client().send(&request.header("X-Agent-ID", "planner"));
    assert_eq!(completed.json()["semantic"]["durable"], true);
    drop(process);
    let second = turn(&machine, "planner", QUESTIONS[1]);
    check_memory(&first, &second);
    assert!(tokens(&second).0 > tokens(&first).0, "{first} {second}");
}

#[test]
fn a_server_that_was_killed_and_one_that_was_stopped_go_on_alike() {
    let machine = Machine::new();
    let mut chat = Chat::new("planner");
    let mut last: Option<Json> = None;
    for (question, signal) in QUESTIONS.into_iter().zip([Signal::KILL, Signal::TERM, Signal::KILL])
    {
        let mut process = Process::serving(&machine, &tiny(), &[]);
        let answer = chat.ask(&process, question);
        if let Some(last) = &last {
            check_memory(last, &answer);
        }
        last = Some(answer);
        process.kill(signal);
        process.end();
    }
}

#[test]
fn two_processes_never_write_the_same_memory() {
    let machine = Machine::new();
    let process = Process::serving(&machine, &tiny(), &[]);
    let mut chat = Chat::new("planner");
    let first = chat.ask(&process, QUESTIONS[0]);
    let pid = process.id();
    let refused = generate(&machine, &["--agent", "planner", QUESTIONS[1]]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(75), ""), "{refused:?}");
    assert!(refused.stderr.contains(&format!("process {pid}")), "{refused:?}");
    let second = ["serve", "--no-auth", "--port=0", "-m", &tiny()];
    let refused = machine.run(&second);
    assert_eq!(refused.code, Some(75), "{refused:?}");
    assert!(refused.stderr.contains(&format!("process {pid}")), "{refused:?}");
    // Who only reads is welcome, and who remembers nothing.
    let reading = generate(&machine, &["--agent", "planner", "--read-only", QUESTIONS[1]]);
    assert_eq!(reading.code, Some(0), "{reading:?}");
    let reading: Json = serde_json::from_str(&reading.stdout).expect("one object");
    check_memory(&first, &reading);
    assert_eq!(reading["semantic"]["durable"], false);
    assert_eq!(generate(&machine, &["Hello"]).code, Some(0));
    // It had no part in it.
    let second = chat.ask(&process, QUESTIONS[1]);
    assert_eq!(text(&second), text(&reading));
    assert_eq!(second["semantic"]["generation"], 2);
    // The lock of a process that was killed is free at once.
    drop(process);
    assert_eq!(turn(&machine, "planner", QUESTIONS[2])["semantic"]["generation"], 3);
}

#[test]
fn a_fork_goes_its_own_way_and_what_is_ephemeral_leaves_no_trace() {
    let machine = Machine::new();
    let first = turn(&machine, "a", QUESTIONS[0]);
    let fork = generate(&machine, &["--agent", "b", "--fork-from", "a", QUESTIONS[1]]);
    let fork: Json = serde_json::from_str(&fork.stdout).expect("one object");
    check_memory(&first, &fork);
    let again = generate(&machine, &["--agent", "b", "--fork-from", "a", QUESTIONS[1]]);
    assert_eq!(again.code, Some(1), "{again:?}");
    let before = machine.stored();
    for flags in [&["--agent", "a"][..], &["--fork-from", "a"]] {
        let ran = generate(&machine, &[flags, &["--ephemeral", QUESTIONS[1]]].concat());
        let ephemeral: Json = serde_json::from_str(&ran.stdout).expect("one object");
        assert_eq!(text(&ephemeral), text(&fork));
        // The fork has said all of it before.
        assert_eq!(tokens(&ephemeral).1, tokens(&fork).0 - 1);
    }
    assert_eq!(machine.stored(), before);
    check_memory(&first, &turn(&machine, "a", QUESTIONS[2]));
    check_memory(&fork, &turn(&machine, "b", QUESTIONS[2]));
}

#[test]
fn namespaces_share_nothing() {
    let machine = Machine::new();
    turn(&machine, "a", QUESTIONS[0]);
    let other = generate(&machine, &["--agent", "a", "--namespace", "team", QUESTIONS[0]]);
    let other: Json = serde_json::from_str(&other.stdout).expect("one object");
    assert_eq!(tokens(&other).1, 0);
    assert_eq!(other["semantic"]["generation"], 1);
}

#[test]
fn flags_that_make_no_sense_are_misuse() {
    let machine = Machine::new();
    for flags in [
        &["--ephemeral"][..],
        &["--read-only"],
        &["--fork-from", "a"],
        &["--agent", ""],
        &["--agent", "a", "--namespace", ""],
    ] {
        let ran = generate(&machine, &[flags, &["Hello"]].concat());
        assert_eq!(ran.code, Some(64), "{flags:?}: {ran:?}");
    }
    let missing = generate(&machine, &["--agent", "b", "--fork-from", "a", "Hello"]);
    assert_eq!(missing.code, Some(1), "{missing:?}");
}

/// Somebody's environment may name one for all commands.
#[test]
fn a_namespace_without_an_agent_is_misuse_unless_it_is_the_environments() {
    let machine = Machine::new();
    let model = tiny();
    let command = ["generate", "-m", &model, "--threads=1", "-n1", "Hello"];
    let typed = machine.run(&[&command[..], &["--namespace", "team"]].concat());
    assert_eq!((typed.code, typed.stdout.as_str()), (Some(64), ""), "{typed:?}");
    assert_eq!(typed.stderr, "error: --namespace goes with --agent or --fork-from\n");
    let mut of_environment = machine.command(&command);
    of_environment.env("SEMANTIC_NAMESPACE", "team");
    let ran = machine.finish(of_environment, b"");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
}

#[test]
fn a_slip_in_a_name_is_no_answer_without_memory() {
    let machine = Machine::new();
    turn(&machine, "planner", QUESTIONS[0]);
    for flags in [
        &["--agent", "plannr", "--ephemeral"][..],
        &["--agent", "plannr", "--read-only"],
        &["--fork-from", "plannr", "--ephemeral"],
        &["--fork-from", "plannr", "--agent", "copy"],
    ] {
        let ran = generate(&machine, &[flags, &[QUESTIONS[1]]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{flags:?}: {ran:?}");
        let expected = "error: no agent \"plannr\" in namespace local\n\
                        hint: did you mean \"planner\"?\n";
        assert_eq!(ran.stderr, expected, "{flags:?}");
    }
    let flags = ["--agent", "planner", "--namespace", "team", "--ephemeral", QUESTIONS[1]];
    let elsewhere = generate(&machine, &flags);
    assert_eq!(elsewhere.code, Some(1), "{elsewhere:?}");
    assert!(elsewhere.stderr.contains("hint: it is in another namespace: --namespace local"));
}

#[test]
fn what_the_store_refuses_is_said_with_what_can_be_done() {
    let machine = Machine::new();
    turn(&machine, "a", QUESTIONS[0]);
    turn(&machine, "b", QUESTIONS[0]);
    let fork = ["--agent", "b", "--fork-from", "a"];
    let taken = generate(&machine, &[&fork[..], &[QUESTIONS[1]]].concat());
    assert_eq!(taken.code, Some(1), "{taken:?}");
    let expected = "error: there is an agent \"b\" already\n\
                    hint: take another name, or evict that one first\n";
    assert_eq!(taken.stderr, expected);
    // Two agents are all it may have.
    let limit = machine.path("limit.toml");
    std::fs::write(&limit, "[cache]\nbudget_gb = 0.000001\n").unwrap();
    let fork = ["--agent", "c", "--fork-from", "a", "--config", limit.to_str().unwrap()];
    let full = generate(&machine, &[&fork[..], &[QUESTIONS[1]]].concat());
    assert_eq!(full.code, Some(73), "{full:?}");
    assert!(full.stderr.contains("hint: free disk space, raise budget_gb"), "{full:?}");
}

#[test]
fn a_folder_that_is_of_no_use_is_said_with_what_this_command_can_do() {
    let machine = Machine::new();
    std::fs::create_dir(machine.path("data")).unwrap();
    std::fs::write(machine.path("data/cache"), "a file").unwrap();
    let writing = generate(&machine, &["--agent", "a", "Hello"]);
    assert_eq!(writing.code, Some(73), "{writing:?}");
    let hint = "hint: make the folder writable for this user, use another --data-dir, or only read \
                with --read-only\n";
    assert!(writing.stderr.ends_with(hint), "{writing:?}");
    let serving = machine.run(&["serve", "--no-auth", "--port=0", "-m", &tiny()]);
    assert_eq!(serving.code, Some(73), "{serving:?}");
    let hint = "hint: make the folder writable for this user, or use another --data-dir\n";
    assert!(serving.stderr.ends_with(hint), "{serving:?}");
    let reading = generate(&machine, &["--agent", "a", "--read-only", "Hello"]);
    assert_eq!(reading.code, Some(1), "{reading:?}");
    let hint = "hint: make the folder readable for this user, or use another --data-dir\n";
    assert!(reading.stderr.ends_with(hint), "{reading:?}");
}

#[test]
fn a_system_message_that_an_agent_did_not_begin_with_is_not_dropped_in_silence() {
    let machine = Machine::new();
    let ask = |agent: &str, system: &str, flags: &[&str]| {
        let all = [&["--agent", agent, "--system", system, QUESTIONS[0]], flags].concat();
        let ran = generate(&machine, &all);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.stderr
    };
    let note = "the agent keeps the system message that it began with\n\
                hint: begin another --agent with this one\n";
    assert_eq!(ask("a", "You are brief.", &[]), "");
    assert_eq!(ask("a", "You are brief.", &[]), "");
    for other in ["You are wordy.", "You are", "are brief.", "You are brief. Always."] {
        assert_eq!(ask("a", other, &[]), note, "{other}");
    }
    assert_eq!(ask("a", "You are wordy.", &["--quiet"]), "");
    turn(&machine, "b", QUESTIONS[0]);
    assert_eq!(ask("b", "You are brief.", &[]), note);
    turn(&machine, "a", QUESTIONS[1]);
}

/// An answer that is interrupted is remembered as far as it came.
#[test]
fn ctrl_c_keeps_what_was_said() {
    use crate::support::cli::{tiny_with_a_long_context, wait};
    use rustix::process::{Pid, kill_process};
    use std::io::Read;
    let machine = Machine::new();
    let model = tiny_with_a_long_context(&machine);
    let command = ["generate", "-m", &model, "--threads=1", "--agent=a", "-n60000", "Hello"];
    let mut child: Child = machine.command(&command).spawn().expect("the program starts");
    let mut byte = [0];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut byte).expect("an answer begins");
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    assert_eq!(Ran::of(wait(child)).code, Some(130));
    let more = ["generate", "-m", &model, "--threads=1", "--agent=a", "-n8", "--json", "And?"];
    let ran = machine.run(&more);
    let next: Json = serde_json::from_str(&ran.stdout).expect("one object");
    assert_eq!(next["semantic"]["source"], "warm", "{ran:?}");
    assert_eq!(next["semantic"]["generation"], 2);
}
