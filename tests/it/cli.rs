//! The command line's promises: what goes where, exit codes, which setting wins, being interrupted.

use crate::support;
use crate::support::cli::{Machine, Ran, tiny_with_a_long_context, wait};
use crate::support::golden::data;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use std::io::Read;
use std::process::Child;

/// Answers in milliseconds, with nonsense that does not end by itself.
fn tiny() -> String {
    data("tiny/llama-f16").display().to_string()
}

/// `semantic generate` with the tiny model.
fn generate(machine: &Machine, arguments: &[&str]) -> Ran {
    machine.run(&[&["generate", "--model", &tiny()], arguments].concat())
}

fn report(ran: &Ran) -> Json {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    serde_json::from_str(&ran.stdout).expect("one JSON object")
}

/// A long answer of the tiny model under way: its first byte has been read.
fn long_answer(machine: &Machine) -> (Child, u8) {
    let folder = tiny_with_a_long_context(machine);
    // By lot, so that it falls into no loop and an end token stays unlikely.
    let arguments = ["generate", "-m", &folder, "hi", "-n60000", "-t1", "--seed=5"];
    let mut child = machine.command(&arguments).spawn().expect("the program starts");
    let mut first = [0];
    let stdout = child.stdout.as_mut().expect("a pipe");
    stdout.read_exact(&mut first).expect("a first byte");
    (child, first[0])
}

#[test]
fn stdout_is_the_answer_and_stderr_is_silent() {
    let machine = Machine::new();
    let ran = generate(&machine, &["hi", "-n", "8"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.stdout.len() > 4 && ran.stdout.ends_with('\n'), "{ran:?}");
    // A model that is given by its path stores nothing.
    assert_eq!(machine.stored(), Vec::<String>::new());
}

#[test]
fn json_is_one_object_and_nothing_else() {
    let machine = Machine::new();
    let ran = generate(&machine, &["hi", "-n", "8", "--json"]);
    assert_eq!((ran.stdout.lines().count(), ran.stderr.as_str()), (1, ""));
    let report = report(&ran);
    let keys = |json: &Json| json.as_object().expect("an object").keys().cloned().collect();
    let top: Vec<String> = keys(&report);
    assert_eq!(top, ["text", "finish_reason", "usage", "timings", "memory", "model"]);
    let usage = serde_json::json!({
        "prompt_tokens": 19,
        "completion_tokens": 8,
        "prompt_tokens_details": { "cached_tokens": 0 },
    });
    assert_eq!(report["usage"], usage);
    let timings: Vec<String> = keys(&report["timings"]);
    assert_eq!(timings, ["load_ms", "ttft_ms", "prefill_tokens_per_s", "decode_tokens_per_s"]);
    assert!(timings.iter().all(|name| report["timings"][name].as_f64() > Some(0.0)), "{report}");
    assert_eq!(report["finish_reason"], "length");
    assert_eq!(report["model"], tiny().as_str());
    let plain = generate(&machine, &["hi", "-n", "8"]);
    assert_eq!(report["text"], plain.stdout.trim_end_matches('\n'));
}

#[test]
fn raw_leaves_the_template_out() {
    let machine = Machine::new();
    let tokens = |arguments: &[&str]| {
        let arguments = [&["hi", "-n1", "--json"], arguments].concat();
        report(&generate(&machine, &arguments))["usage"]["prompt_tokens"].clone()
    };
    assert_eq!(tokens(&[]), 19);
    assert_eq!(tokens(&["--raw"]), 2);
    assert_eq!(tokens(&["--raw", "--system", "be brief"]), 2);
}

#[test]
fn a_stop_text_ends_the_answer_and_is_not_part_of_it() {
    let machine = Machine::new();
    let whole = report(&generate(&machine, &["hi", "-n40", "--json"]));
    let whole = whole["text"].as_str().expect("a text");
    let stop = whole.split_at(whole.find("Ib").expect("a piece of the answer")).1;
    let stop: String = stop.chars().take(3).collect();
    let cut =
        report(&generate(&machine, &["hi", "-n40", "--json", "--stop", "x", "--stop", &stop]));
    assert_eq!(cut["finish_reason"], "stop");
    assert_eq!(cut["text"].as_str(), whole.split(&stop).next());
}

#[test]
fn a_seed_repeats_an_answer() {
    let machine = Machine::new();
    let answer = |seed: &str| generate(&machine, &["hi", "-n16", "-t1", "--seed", seed]).stdout;
    assert_eq!(answer("7"), answer("7"));
    assert_ne!(answer("7"), answer("8"));
}

#[test]
fn a_dash_or_a_pipe_is_the_prompt() {
    let machine = Machine::new();
    let given = generate(&machine, &["good day", "-n8"]);
    for arguments in
        [&["generate", "-n8", "-m", &tiny()][..], &["generate", "-n8", "-m", &tiny(), "-"]]
    {
        let ran = machine.finish(machine.command(arguments), b"good day");
        assert_eq!((ran.code, ran.stdout), (Some(0), given.stdout.clone()));
    }
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_the_default() {
    let machine = Machine::new();
    let file = machine.config_folder();
    std::fs::create_dir_all(&file).expect("a folder");
    let (file, other) = (file.join("config.toml"), machine.path("other.toml"));
    let model = tiny();
    let tokens = |environment: Option<&str>, arguments: &[&str]| {
        let all = [&["generate", "-m", &model, "hi", "--json"], arguments].concat();
        let mut command = machine.command(&all);
        command.envs(environment.map(|value| ("SEMANTIC_MAX_TOKENS", value)));
        report(&machine.finish(command, b""))["usage"]["completion_tokens"].clone()
    };
    // The default of 512 reaches the end of the context.
    assert_eq!(tokens(None, &[]), 512 - 19);
    std::fs::write(&file, "[generate]\nmax_tokens = 5\n").expect("a file");
    std::fs::write(&other, "[generate]\nmax_tokens = 6\n").expect("a file");
    assert_eq!(tokens(None, &[]), 5);
    assert_eq!(tokens(None, &["--config", &other.display().to_string()]), 6);
    assert_eq!(tokens(Some("4"), &[]), 4);
    assert_eq!(tokens(Some("4"), &["--max-tokens", "3"]), 3);
}

/// The default model where the program looks for it, and the hint that its first answer ends with.
#[test]
fn the_data_folder_holds_everything_the_program_stores() {
    let machine = Machine::new();
    let name = "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf";
    // A tiny model of the right size: a pinned file is hashed before it gets its name, not after.
    let place = |data: &str| {
        let path = machine.path(data).join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::copy(support::golden::data("gguf/llama-f16.gguf"), &path).expect("a copy");
        let file = std::fs::File::options().write(true).open(&path).expect("the copy");
        file.set_len(98_362_432).expect("a file with a hole");
        path.display().to_string()
    };
    let model = place("data");
    let listed =
        |arguments: &[&str]| report(&machine.run(&[&["models", "--json"], arguments].concat()));
    assert_eq!(listed(&[])[0]["path"], model.as_str());
    let first = machine.run(&["generate", "hi", "-n1", "--raw"]);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.stderr.starts_with("hint: smollm2-135m is a demonstration model"), "{first:?}");
    let again = machine.run(&["generate", "hi", "-n1", "--raw"]);
    assert_eq!((again.code, again.stdout, again.stderr), (Some(0), first.stdout, String::new()));
    let mut stored = machine.stored();
    stored.sort();
    assert_eq!(stored, ["data/first-answer".to_owned(), format!("data/{name}")]);

    // The flag wins over the environment, which wins over the file.
    let elsewhere = place("elsewhere");
    let flag = machine.path("elsewhere").display().to_string();
    assert_eq!(listed(&["--data-dir", &flag])[0]["path"], elsewhere.as_str());
    let config = machine.path("config.toml");
    std::fs::write(&config, format!("data_dir = {flag:?}\n")).expect("a file");
    let config = config.display().to_string();
    assert_eq!(listed(&["--config", &config])[0]["path"], model.as_str());
    let mut command = machine.command(&["models", "--json", "--config", &config]);
    command.env_remove("SEMANTIC_DATA_DIR");
    assert_eq!(report(&machine.finish(command, b""))[0]["path"], elsewhere.as_str());
}

#[test]
fn ctrl_c_keeps_what_there_is_and_exits_130() {
    let machine = Machine::new();
    let (child, first) = long_answer(&machine);
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = wait(child);
    assert_eq!(output.status.code(), Some(130));
    let text =
        String::from_utf8([&[first], &output.stdout[..]].concat()).expect("whole characters");
    assert!(text.ends_with('\n') && text.len() > 1, "{text:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let machine = Machine::new();
    let (mut child, _) = long_answer(&machine);
    drop(child.stdout.take());
    let ran = Ran::of(wait(child));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
}

#[test]
fn exit_codes_tell_done_from_failed_from_misused() {
    let machine = Machine::new();
    for (arguments, code) in [
        (&["--version"][..], 0),
        (&["--help"], 0),
        (&["generate", "--help"], 0),
        (&["bench", "--help"], 0),
        (&["models", "--all"], 0),
        (&["completions", "bash"], 0),
        (&[], 64),
        (&["frobnicate"], 64),
        (&["generate", "hi", "--frobnicate"], 64),
        (&["completions", "frob"], 64),
        (&["cache"], 64),
        (&["cache", "du"], 0),
        (&["pull"], 64),
        (&["bench", "--suite", "frob"], 64),
        (&["bench", "--make-model", "frob", "--out", "x"], 64),
        (&["serve"], 78),
        (&["health"], 1),
        (&["pull", "no-such-model"], 1),
    ] {
        let ran = machine.run(arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {ran:?}");
        assert_eq!(
            (ran.stdout.is_empty(), ran.stderr.is_empty()),
            (code != 0, code == 0),
            "{ran:?}"
        );
    }
}
