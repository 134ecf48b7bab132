//! What `semantic bench` leaves: reports in files, what is worse than before, targets, nothing else.

use std::path::Path;
use std::time::SystemTime;

use expect_test::expect;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use crate::support::cli::{Machine, Ran, wait};
use crate::support::golden::data;

/// `semantic bench` with the tiny model and as little of these suites as there can be.
fn bench(machine: &Machine, arguments: &[&str]) -> Ran {
    let model = data("tiny/llama-f16").display().to_string();
    let sizes = ["--runs=2", "--contexts=4", "--decode-tokens=3", "--prompt-tokens=8"];
    machine.run(&[&["bench", "--model", &model], &sizes[..], arguments].concat())
}

/// A report with one row of `decode`, and a target.
fn report(tokens_per_s: &[f64], target: &str) -> Json {
    json!({
        "schema": 1,
        "began": "2026-01-02T03:04:05Z",
        "machine": { "cpu": "a cpu", "threads": 2 },
        "model": { "file": "model.gguf" },
        "settings": { "kv_bits": "8/8", "runs": tokens_per_s.len(), "device": "cpu" },
        "peer": null,
        "suites": [{
            "suite": "decode",
            "rows": [{
                "name": "context 128",
                "tokens_per_s": { "runs": tokens_per_s },
                "promise": "does not hold",
                "target": target,
            }],
            "notes": [],
        }],
    })
}

fn write(machine: &Machine, name: &str, json: &Json) {
    std::fs::write(machine.path(name), json.to_string()).expect("a file");
}

fn read(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("it is JSON")
}

/// Every file below a folder: its path, its bytes and when it was changed.
fn photograph(folder: &Path) -> Vec<(String, Vec<u8>, SystemTime)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let changed = path.metadata().and_then(|it| it.modified()).expect("a time");
        let name = path.display().to_string();
        match path.is_dir() {
            true => {
                found.push((name, Vec::new(), changed));
                found.extend(photograph(&path));
            }
            false => found.push((name, std::fs::read(&path).expect("a file"), changed)),
        }
    }
    found.sort();
    found
}

#[test]
fn a_report_is_written_beside_the_tables_and_shown_again_from_its_file() {
    let machine = Machine::new();
    let ran = bench(&machine, &["--suite=decode", "--json=a.json", "--html=a.html"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("\ndecode\n"), "{ran:?}");
    assert!(ran.stderr.starts_with("1/1 decode: "), "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    let report = read(&machine.path("a.json"));
    let figure = &report["suites"][0]["rows"][0]["tokens_per_s"];
    assert_eq!(figure["runs"].as_array().map(Vec::len), Some(2), "{report}");
    for name in ["median", "min", "max", "p50", "p95", "p99"] {
        assert!(figure[name].is_f64(), "{name}: {report}");
    }
    let page = std::fs::read_to_string(machine.path("a.html")).expect("a file");
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");

    let again = machine.run(&["bench", "--from=a.json", "--json=b.json", "--html=b.html"]);
    assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""), "{again:?}");
    assert!(again.stdout.contains("\ndecode\n"), "{again:?}");
    let copy = read(&machine.path("b.json"));
    for facts in ["schema", "began", "model", "settings", "peer"] {
        assert_eq!(copy[facts], report[facts], "{facts}");
    }
    let runs = |report: &Json| report["suites"][0]["rows"][0]["tokens_per_s"]["runs"].clone();
    for index in 0..2 {
        let run = |report: &Json| runs(report)[index].as_f64().expect("a number");
        // Reading JSON may cost the last bit.
        assert!((run(&copy) / run(&report) - 1.0).abs() < 1e-9, "{copy}");
    }
    assert!(machine.path("b.html").is_file());
    // No file that was on the way.
    let left: Vec<_> = std::fs::read_dir(machine.path("")).expect("a folder").collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn a_suite_that_fails_leaves_the_report_of_those_before_it() {
    let machine = Machine::new();
    std::fs::write(machine.path("peer.gguf"), "").expect("a file");
    let ran = bench(
        &machine,
        &[
            "--suite=decode",
            "--suite=agents",
            "--peer-server=/bin/false",
            "--peer-model=peer.gguf",
            "--race-agents=2",
            "--race-context=64",
            "--race-turns=2",
            "--json=part.json",
        ],
    );
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("\nerror: "), "{ran:?}");
    let report = read(&machine.path("part.json"));
    let suites = report["suites"].as_array().expect("suites");
    assert_eq!(suites.iter().map(|it| &it["suite"]).collect::<Vec<_>>(), ["decode"]);
    assert_eq!(report["settings"]["race"]["context"], 64, "{report}");
    assert_eq!(report["peer"]["llama-server"]["model"], "peer.gguf", "{report}");
}

#[test]
fn a_report_that_cannot_be_written_is_said_before_anything_is_measured() {
    let machine = Machine::new();
    std::fs::create_dir(machine.path("folder")).expect("a folder");
    let check = |flags: &[&str], code: i32, message: expect_test::Expect| {
        let ran = bench(&machine, &[&["--suite=decode"], flags].concat());
        message.assert_eq(&ran.stderr);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{ran:?}");
    };
    check(
        &["--json=no/such/file"],
        73,
        expect![[r#"
        error: cannot write no/such/file: there is no folder no/such
        hint: name a file in a folder that is yours
    "#]],
    );
    check(
        &["--html=folder"],
        73,
        expect![[r#"
        error: cannot write folder: it is a folder
        hint: name a file in a folder that is yours
    "#]],
    );
    check(
        &["--html=-", "--json=-"],
        64,
        expect![[r#"
        error: --json and --html cannot go to the same place
    "#]],
    );
}

#[test]
fn what_is_worse_than_it_was_is_marked_and_ends_in_1() {
    let machine = Machine::new();
    write(&machine, "old.json", &report(&[99.0, 100.0, 104.0], "holds"));
    write(&machine, "new.json", &report(&[79.0, 80.0], "holds"));
    let flags = ["bench", "--from=new.json", "--against=old.json", "--json=out.json"];
    let ran = machine.run(&flags);
    expect![[r#"
        semantic ?, MLX ?, measured 2026-01-02T03:04:05Z
        model   model.gguf, KV bits 8/8
        machine a cpu, 2 threads, ?, device cpu

        decode
                                   tokens_per_s        promise  target
          context 128  79.5 (79.0–80.0) ! -20 %  does not hold   holds

        against old.json, tolerance 10 %
          1 worse, 0 better, 2 the same
          worse   decode: context 128: tokens_per_s 100.00, now 79.50 (-20.5 %)
          (not the same: settings runs: 3, now 2)
    "#]]
    .assert_eq(&ran.stdout);
    expect![[r#"
        error: 1 worse than in old.json:
          decode: context 128: tokens_per_s 100.00, now 79.50 (-20.5 %)
    "#]]
    .assert_eq(&ran.stderr);
    assert_eq!(ran.code, Some(1));
    let against = &read(&machine.path("out.json"))["against"];
    assert_eq!(against["changes"][0]["mark"], "regression", "{against}");

    let tolerant = machine.run(&[&flags[..], &["--tolerance=25"]].concat());
    assert_eq!((tolerant.code, tolerant.stderr.as_str()), (Some(0), ""), "{tolerant:?}");
    // The other way round it is an improvement.
    let back = machine.run(&["bench", "--from=old.json", "--against=new.json"]);
    assert_eq!(back.code, Some(0), "{back:?}");
    assert!(back.stdout.contains("better  decode: context 128: tokens_per_s"), "{back:?}");
}

#[test]
fn a_missed_target_ends_in_1_and_a_promise_only_if_all_are_asked_for() {
    let machine = Machine::new();
    write(&machine, "good.json", &report(&[1.0], "holds"));
    write(&machine, "bad.json", &report(&[1.0], "does not hold"));
    let mut none = report(&[1.0], "holds");
    none["suites"] = json!([]);
    write(&machine, "none.json", &none);
    let check = |flags: &[&str], code: i32, message: expect_test::Expect| {
        let ran = machine.run(&[&["bench"], flags].concat());
        message.assert_eq(&ran.stderr);
        assert_eq!(ran.code, Some(code), "{ran:?}");
    };
    check(&["--from=good.json", "--check"], 0, expect![[""]]);
    check(&["--from=bad.json"], 0, expect![[""]]);
    check(
        &["--from=bad.json", "--check"],
        1,
        expect![[r#"
        error: 1 of 1 missed:
          decode: context 128: target
    "#]],
    );
    check(
        &["--from=good.json", "--check=all"],
        1,
        expect![[r#"
        error: 1 of 2 missed:
          decode: context 128: promise
    "#]],
    );
    check(
        &["--from=none.json", "--check"],
        1,
        expect![[r#"
        error: nothing that was measured has a target
    "#]],
    );
}

#[test]
fn a_file_that_is_no_report_is_named_with_what_is_wrong() {
    let machine = Machine::new();
    std::fs::write(machine.path("text"), "no report").expect("a file");
    let mut other = report(&[1.0], "holds");
    other["schema"] = json!(7);
    write(&machine, "other.json", &other);
    write(&machine, "empty.json", &report(&[], "holds"));
    let check = |flags: &[&str], code: i32, message: expect_test::Expect| {
        let ran = machine.run(&[&["bench"], flags].concat());
        message.assert_eq(ran.stderr.lines().next().unwrap_or_default());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{ran:?}");
    };
    let read = "error: cannot read the report";
    check(
        &["--from=absent"],
        1,
        expect!["error: cannot read the report absent: No such file or directory (os error 2)"],
    );
    check(
        &["--against=text"],
        1,
        expect![
            "error: cannot read the report text: it is no JSON: expected ident at line 1 column 2"
        ],
    );
    check(
        &["--from=other.json"],
        1,
        expect!["error: cannot read the report other.json: it has schema 7; this program reads 1"],
    );
    let ran = machine.run(&["bench", "--from=empty.json"]);
    assert!(ran.stderr.starts_with(read) && ran.stderr.contains("a figure has no runs"), "{ran:?}");
    check(
        &["--from=a", "--suite=load"],
        64,
        expect!["error: --from measures nothing, so it cannot be used with '--suite <SUITE>'"],
    );
    check(
        &["--from=a", "--runs=3"],
        64,
        expect!["error: --from measures nothing, so it cannot be used with '--runs <N>'"],
    );
    check(
        &["--from=a", "-m", "b"],
        64,
        expect!["error: --from measures nothing, so it cannot be used with '--model <MODEL>'"],
    );
    check(
        &["--url=a=http://localhost:1", "--from=a"],
        64,
        expect!["error: --from measures nothing, so it cannot be used with '--url <NAME=URL>'"],
    );
    check(
        &["--tolerance=5"],
        64,
        expect!["error: the following required arguments were not provided:"],
    );
    check(
        &["--from=a", "--against=a", "--tolerance=-1"],
        64,
        expect!["error: invalid value '-1' for '--tolerance <PERCENT>': it is not from 0 to 1000"],
    );
    check(
        &["--from=a", "--check=frob"],
        64,
        expect!["error: invalid value 'frob' for '--check[=<WHAT>]'"],
    );
}

#[test]
fn a_run_can_be_compared_with_a_report_as_it_goes() {
    let machine = Machine::new();
    let old = bench(&machine, &["--suite=decode", "--json=old.json", "-q"]);
    assert_eq!(old.code, Some(0), "{old:?}");
    let mut impossible = read(&machine.path("old.json"));
    let row = &mut impossible["suites"][0]["rows"][0];
    *row = json!({ "name": row["name"], "tokens_per_s": { "runs": [1e12] } });
    write(&machine, "old.json", &impossible);
    let ran = bench(&machine, &["--suite=decode", "--against=old.json", "-q"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains(" ! -100 %"), "{ran:?}");
    assert!(ran.stderr.starts_with("error: 1 worse than in old.json:\n"), "{ran:?}");
}

#[test]
fn a_quick_run_does_less_and_a_flag_says_otherwise() {
    let machine = Machine::new();
    let sizes = |flags: &[&str]| {
        let model = data("tiny/llama-f16").display().to_string();
        let all = [&["bench", "-q", "--suite=load", "--json=-", "--model", &model], flags].concat();
        let ran = machine.run(&all);
        let report: Json = serde_json::from_str(&ran.stdout).expect("it is JSON");
        report["settings"].clone()
    };
    let (quick, full) = (sizes(&["--quick"]), sizes(&[]));
    assert_eq!((&quick["plan"], &full["plan"]), (&json!("quick"), &json!("full")));
    assert!(quick["runs"].as_u64() < full["runs"].as_u64(), "{quick} {full}");
    assert!(quick["sizes"]["agents"].as_u64() < full["sizes"]["agents"].as_u64());
    let both = sizes(&["--quick", "--agents=7", "--contexts=3,4", "--runs=1"]);
    assert_eq!(both["sizes"]["agents"], 7);
    assert_eq!((&both["sizes"]["contexts"], &both["runs"]), (&json!([3, 4]), &json!(1)));
}

/// All suites that anyone runs unasked, beside what a user has there.
#[test]
fn no_run_touches_what_the_user_has() {
    let machine = Machine::new();
    let model = data("tiny/llama-f16").display().to_string();
    let model = model.as_str();
    let said = machine.run(&["generate", "--model", model, "-n4", "--agent=mine", "hello"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let before = photograph(&machine.path("data"));
    assert!(before.len() > 3, "{before:?}");
    let small = [
        "--runs=1",
        "--prompt-tokens=8",
        "--contexts=4",
        "--decode-tokens=2",
        "--sequences=2",
        "--batch-context=4",
        "--restore-tokens=40",
        "--agents=5",
        "--server-percent=1",
        "--load-seconds=1",
        "--tokens=8",
        "-q",
    ];
    let ran = machine.run(&[&["bench", "--model", model], &small[..]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(before == photograph(&machine.path("data")));
}

#[test]
fn a_signal_leaves_nothing_and_the_next_run_removes_what_a_killed_one_left() {
    let machine = Machine::new();
    let model = data("tiny/llama-f16").display().to_string();
    let mine = machine.path("data/bench-mine");
    std::fs::create_dir_all(&mine).expect("a folder");
    let folders = || {
        let all = std::fs::read_dir(machine.path("data")).expect("a folder");
        let others = all.map(|entry| entry.expect("an entry").path()).filter(|it| *it != mine);
        others.collect::<Vec<_>>()
    };
    // Long enough to be caught at it.
    let flags = ["bench", "-m", &model, "--suite=restore", "--restore-tokens=40", "--runs=1000"];
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut child = machine.command(&flags).spawn().expect("it starts");
        // From then on it is known for what it is.
        while !folders().iter().any(|folder| folder.join("semantic-bench.lock").exists()) {
            assert!(child.try_wait().expect("a status").is_none(), "it ended");
            std::thread::yield_now();
        }
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        let code = if signal == Signal::KILL { None } else { Some(130) };
        assert_eq!(Ran::of(wait(child)).code, code, "{signal:?}");
        assert_eq!(folders().len(), usize::from(signal == Signal::KILL), "{signal:?}");
    }
    let ran = bench(&machine, &["--suite=restore", "--restore-tokens=8", "-q"]);
    assert_eq!((ran.code, folders().len()), (Some(0), 0), "{ran:?}");
    assert!(mine.is_dir());
}

/// A bar is for a terminal; off it a line says that a suite has ended.
#[test]
fn off_a_terminal_each_suite_that_has_ended_is_a_line() {
    let machine = Machine::new();
    let ran = bench(&machine, &["--suite=decode", "--suite=prefill"]);
    let lines: Vec<&str> = ran.stderr.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(lines, ["1/2 prefill", "2/2 decode"], "{ran:?}");
    assert!(!ran.stderr.contains('\u{1b}'), "{ran:?}");
    assert_eq!(bench(&machine, &["--suite=decode", "-q"]).stderr, "");
}
