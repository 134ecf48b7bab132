//! `semantic bench --suite agents`: many agents, little memory, a kill, and the rows about it.

use serde_json::{Value as Json, json};

use crate::support::cli::Machine;
use crate::support::golden::data;
use crate::support::http::{Server, hello};

/// The suite on the tiny model; all sizes shrink with its context.
fn race(machine: &Machine, arguments: &[&str]) -> Json {
    let model = data("tiny/llama-f16").display().to_string();
    let sizes = ["--race-agents=3", "--race-context=150", "--race-turns=6"];
    let flags = ["bench", "--suite=agents", "--json=-", "--quiet", "--model", &model];
    let ran = machine.run(&[&flags[..], &sizes, arguments].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let report: Json = serde_json::from_str(&ran.stdout).expect("one JSON object");
    report["suites"][0].clone()
}

fn row<'a>(suite: &'a Json, name: &str) -> &'a Json {
    let rows = suite["rows"].as_array().expect("rows");
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {suite}"))
}

#[test]
fn agents_that_memory_has_no_room_for_answer_through_a_kill_as_without_one() {
    let machine = Machine::new();
    let suite = race(&machine, &[]);
    let ours = row(&suite, "semantic");
    for field in ["wall_s", "first_prompts_s", "turns_before_s", "restart_s", "turns_after_s"] {
        assert!(ours[field].as_f64() > Some(0.0), "{field}: {ours}");
    }
    assert!(ours["disk_bytes"].as_u64() > Some(0), "{ours}");
    // Three of one token and six turns, each as long as asked for.
    let replied = ours["reply_tokens"].as_u64().expect("a number");
    assert_eq!((replied - 3) % 6, 0, "{ours}");
    // What was said is never computed again, through the kill neither: of a prompt, what is new.
    let computed = ours["computed_tokens"].as_u64().expect("a number");
    assert!(computed < 900, "{ours}");
    let answers = row(&suite, "semantic, answers");
    assert_eq!(answers["answers"], 6);
    assert_eq!(answers["different_answers"], 0, "{suite}");
    let turns = row(&suite, "semantic, turns");
    assert_eq!(turns["ttft_by_turn_ms"].as_array().map(Vec::len), Some(6), "{turns}");
    assert_eq!(turns["killed_after_turn"], 3);
    // Shorter than asked for, because the tiny model's context is.
    let bytes = |setting: &str| {
        let row = row(&suite, &format!("an agent of 56 tokens, KV {setting}"));
        row["stored_bytes"].as_u64().expect("a number")
    };
    let all = ["16/16", "8/8", "8/4", "4/4"].map(bytes);
    assert!(all.is_sorted_by(|one, next| one > next), "{all:?}");
    let kinds = |name: &str| {
        let row = row(&suite, name);
        ["exact", "extend", "diverge", "none"].map(|kind| row[kind].as_u64().expect("a count"))
    };
    assert_eq!(kinds("routing, an article is new"), [0, 0, 0, 10]);
    assert_eq!(kinds("routing, a question to an expert"), [0, 0, 10, 0]);
    assert_eq!(kinds("routing, the same question again"), [6, 0, 0, 0]);
    assert_eq!(machine.stored(), [""; 0]);
}

#[test]
fn a_model_told_to_ignore_its_end_goes_on() {
    let server = Server::new();
    let answered = |changes: Json| {
        let mut body = hello(json!({ "temperature": 1, "seed": 3 }));
        body.as_object_mut().expect("an object").extend(changes.as_object().expect("one").clone());
        server.chat(&body).json()
    };
    let ended = answered(json!({ "ignore_eos": false }));
    assert_eq!(ended["choices"][0]["finish_reason"], "stop", "{ended}");
    let went_on = answered(json!({ "ignore_eos": true }));
    assert_eq!(went_on["choices"][0]["finish_reason"], "length", "{went_on}");
    let tokens = |answer: &Json| answer["usage"]["completion_tokens"].as_u64();
    assert!(tokens(&went_on) > tokens(&ended), "{went_on}");
}
