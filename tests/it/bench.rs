//! `semantic bench` from outside: what it prints, what it leaves alone, how it fails.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use expect_test::expect;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use crate::support::cli::{Machine, Ran, copy_folder, wait};
use crate::support::golden::data;
use crate::support::http::wait_until;

/// What llama.cpp's two programs print, shortened to what is read.
const PEER_RESULT: &str = r#"[{"avg_ts": 50.0, "model_type": "llama 1B", "build_commit": "abc"}]"#;
const PEER_BATCHED_RESULT: &str = r#"{"pl": 1, "speed_tg": 25.0}"#;

/// `semantic bench` with the tiny model and as little work as there can be.
fn bench(machine: &Machine, arguments: &[&str]) -> Ran {
    let model = data("tiny/llama-f16").display().to_string();
    let sizes = [
        "--runs=2",
        "--prompt-tokens=8,40",
        "--contexts=4,9",
        "--decode-tokens=3",
        "--sequences=1,3",
        "--batch-context=5",
        "--restore-tokens=8,40",
        "--agents=20",
        "--server-percent=2",
        "--load-seconds=1",
        "--tokens=24",
    ];
    machine.run(&[&["bench", "--model", &model], &sizes[..], arguments].concat())
}

fn report(ran: &Ran) -> Json {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.stdout.lines().count(), 1, "{ran:?}");
    serde_json::from_str(&ran.stdout).expect("one JSON object")
}

fn keys(json: &Json) -> Vec<&str> {
    json.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// A copy of a tiny model in a folder `model`, with the tokenizer of the one that has it and with
/// these changes to its configuration.
fn copy_model(machine: &Machine, name: &str, changes: &[(&str, usize)]) {
    copy_folder(&data("tiny").join(name), &machine.path("model"));
    let tokenizer = data("tiny/llama-f16/tokenizer.json");
    std::fs::copy(tokenizer, machine.path("model/tokenizer.json")).expect("a file");
    let path = machine.path("model/config.json");
    let text = std::fs::read(&path).expect("a file");
    let mut config: Json = serde_json::from_slice(&text).expect("it is JSON");
    for (key, value) in changes {
        config[*key] = json!(value);
    }
    std::fs::write(path, config.to_string()).expect("a file");
}

/// A program that prints this text, or fails.
fn script(path: &Path, body: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{body}\n")).expect("a file");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}

fn prints(text: &str) -> String {
    format!("echo '{text}'")
}

#[test]
fn decode_as_json_has_every_field_and_the_data_folder_stays_as_it_was() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.path("data")).expect("a folder");
    std::fs::write(machine.path("data/mine"), "mine").expect("a file");
    let ran = bench(&machine, &["--suite", "decode", "--json=-", "--quiet"]);
    assert_eq!(ran.stderr, "");
    let report = report(&ran);
    assert_eq!(
        keys(&report),
        ["schema", "began", "machine", "model", "settings", "peer", "suites"]
    );
    assert_eq!(keys(&report["machine"])[..4], ["cpu", "cores", "memory_bytes", "system"]);
    let expected =
        ["threads", "instruction_set", "memory_read_gb_per_s", "semantic", "commit", "mlx"];
    assert_eq!(keys(&report["machine"])[4..], expected);
    assert!(report["machine"]["memory_read_gb_per_s"].as_f64() > Some(0.0), "{report}");
    assert_eq!(report["model"]["file"], "llama-f16");
    assert!(report["model"]["file_bytes"].as_u64() > Some(0), "{report}");
    let settings = &report["settings"];
    assert_eq!(keys(settings), ["device", "kv_bits", "runs", "plan", "sizes", "race", "text"]);
    assert_eq!((&settings["kv_bits"], &settings["runs"]), (&json!("8/8"), &json!(2)));
    assert_eq!((&settings["plan"], &settings["sizes"]["agents"]), (&json!("full"), &json!(20)));
    assert_eq!(report["peer"], Json::Null);
    let suite = &report["suites"][0];
    assert_eq!(suite["suite"], "decode");
    let rows = suite["rows"].as_array().expect("rows");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, ["context 4", "context 9"]);
    for row in rows {
        let expected = ["name", "tokens_per_s", "bytes_per_token", "gb_per_s", "of_memory_read"];
        assert_eq!(keys(row), expected);
        let figure = |name: &str| row["tokens_per_s"][name].as_f64().expect("a number");
        assert!(0.0 < figure("min") && figure("min") <= figure("median"), "{row}");
        assert!(figure("median") <= figure("max"), "{row}");
        assert!(row["bytes_per_token"].as_u64() > Some(0), "{row}");
    }
    assert_eq!(machine.stored(), ["data/mine"]);
    assert_eq!(std::fs::read(machine.path("data/mine")).expect("a file"), b"mine");
}

#[test]
fn every_suite_runs_in_the_order_of_the_table() {
    let machine = Machine::new();
    let report = report(&bench(&machine, &["--json=-"]));
    let suites = report["suites"].as_array().expect("suites");
    let names: Vec<&str> = suites.iter().filter_map(|suite| suite["suite"].as_str()).collect();
    let measured = ["load", "prefill", "decode", "batch", "staggered", "queue", "restore", "store"];
    let others = ["baselines", "server", "kv-quality", "fidelity"];
    assert_eq!(names, [&measured[..], &others].concat());
    let rows: Vec<usize> =
        suites.iter().map(|suite| suite["rows"].as_array().map_or(0, Vec::len)).collect();
    // The context is too short for a prompt that takes a while.
    assert_eq!(rows[..6], [1, 2, 2, 2, 0, 1], "{report}");
    assert_eq!(rows[10], 7, "{report}");
    let kv = &suites[10]["rows"];
    let settings: Vec<&str> =
        kv.as_array().expect("rows").iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(settings, ["16/16", "8/8", "8r/8r", "8/4", "8/4r", "4/4", "4r/4r"]);
    assert_eq!(kv[0]["top1_agreement_percent"], 100.0);
    assert_eq!(kv[0]["change_percent"], 0.0);
    assert_eq!(suites[11]["rows"][0]["name"], "kernels");
}

#[test]
fn kv_speed_has_each_work_with_each_setting() {
    let report = report(&bench(&Machine::new(), &["--suite=kv-speed", "--json=-"]));
    let settings = ["8/8", "8r/8r", "8/4", "8/4r", "4/4", "4r/4r"];
    // Each work with all settings but the one that they are compared with.
    let works = ["prefill 4 tokens", "decode, context 4", "prefill 9 tokens", "decode, context 9"];
    let expected =
        works.iter().flat_map(|work| settings.iter().map(move |kv| format!("{work}, KV {kv}")));
    let speeds = report["suites"][0]["rows"].as_array().expect("rows");
    assert_eq!(speeds.len(), 24, "{report}");
    for (row, name) in speeds.iter().zip(expected) {
        assert_eq!(row["name"], name);
        assert_eq!(keys(row), ["name", "tokens_per_s", "tokens_per_s_at_16", "ratio_to_16"]);
        let median = |name: &str| row[name]["median"].as_f64().expect("a number");
        let ratio = median("tokens_per_s") / median("tokens_per_s_at_16");
        let shown = row["ratio_to_16"].as_f64().expect("a number");
        // Reading JSON may cost the last bit.
        assert!((shown - ratio).abs() < 1e-9 * ratio, "{row}");
    }
}

/// The names of a suite's rows, and the row of one.
fn names(suite: &Json) -> Vec<&str> {
    let rows = suite["rows"].as_array().expect("rows");
    rows.iter().filter_map(|row| row["name"].as_str()).collect()
}

fn row<'a>(suite: &'a Json, name: &str) -> &'a Json {
    let rows = suite["rows"].as_array().expect("rows");
    rows.iter().find(|row| row["name"] == name).expect(name)
}

#[test]
fn restore_has_a_row_for_each_place_and_leaves_nothing_behind() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.path("data")).expect("a folder");
    std::fs::write(machine.path("data/mine"), "mine").expect("a file");
    let flags = ["--suite=restore", "--restore-tokens=500", "--json=-", "-q"];
    let report = report(&bench(&machine, &flags));
    let suite = &report["suites"][0];
    let mut expected = Vec::new();
    for tokens in ["8 tokens", "40 tokens"] {
        let ways = [
            "cold",
            "hot",
            "hot exact",
            "hot extend",
            "warm",
            "warm exact",
            "warm extend",
            "restart",
            "restart, dropped",
        ];
        // Only Linux can be asked to forget files.
        let ways = if cfg!(target_os = "linux") { &ways[..] } else { &ways[..8] };
        expected.extend(ways.iter().map(|way| format!("{tokens}, {way}")));
    }
    expected.extend(["8 tokens", "40 tokens", "process start to ready"].map(str::to_owned));
    assert_eq!(names(suite), expected);
    let tokens = [
        ("cold", 0, 0),
        ("hot", 40, 0),
        // The last token's logits are not kept.
        ("hot exact", 39, 0),
        ("hot extend", 40, 0),
        ("warm", 40, 40),
        ("warm exact", 39, 39),
        ("warm extend", 40, 40),
        ("restart", 40, 40),
    ];
    for (name, reused, restored) in tokens {
        let row = row(suite, &format!("40 tokens, {name}"));
        let expected = ["name", "ttft_ms", "reused_tokens", "restored_tokens", "restore_ms"];
        assert_eq!(keys(row), expected);
        assert_eq!(
            (&row["reused_tokens"], &row["restored_tokens"]),
            (&json!(reused), &json!(restored))
        );
        assert!(row["ttft_ms"]["min"].as_f64() > Some(0.0), "{row}");
    }
    let promise = row(suite, "40 tokens");
    let expected = [
        "name",
        "stored_bytes",
        "gb_per_s",
        "restart_ms",
        "at_most_ms",
        "promise",
        "cold_per_restart",
    ];
    assert_eq!(keys(promise), expected);
    assert!(promise["stored_bytes"].as_u64() > Some(40), "{promise}");
    let left_out = suite["notes"][0].as_str().expect("a note");
    assert!(left_out.starts_with("500 tokens: left out, the model's context is 512"), "{report}");
    assert_eq!(machine.stored(), ["data/mine"]);
}

#[test]
fn store_weighs_saves_forks_and_lists_and_leaves_nothing_behind() {
    let machine = Machine::new();
    let report = report(&bench(&machine, &["--suite=store", "--json=-", "-q"]));
    let suite = &report["suites"][0];
    let mut expected = vec![
        "an agent of 480 tokens",
        "20 agents, 240 shared tokens, 2 own",
        "a turn of 12 tokens after 240",
        "decode beside others' turns, one each 20 tokens",
        "fork of 480 tokens, store just opened",
        "fork of 480 tokens, the next",
        "20 agents, files in the page cache",
        "20 agents, files dropped",
    ];
    if !cfg!(target_os = "linux") {
        expected.pop();
    }
    assert_eq!(names(suite), expected);
    let figure = |name: &str, field: &str| row(suite, name)[field].clone();
    let weight = figure(expected[0], "bytes_per_token").as_f64().expect("a number");
    assert!(weight > figure(expected[0], "kv_bytes_per_token").as_f64().expect("a number"));
    assert!(figure(expected[2], "written_mb")["min"].as_f64() > Some(0.0), "{report}");
    assert!(figure(expected[6], "open_ms")["min"].as_f64() > Some(0.0), "{report}");
    // There was no data folder, and there is none.
    assert_eq!(machine.stored(), [""; 0]);
    assert!(!machine.path("data").exists());
}

/// The promise that the suite judges; quantised weights, whose activations the kernels round.
#[test]
fn server_has_a_row_for_each_promise_and_leaves_nothing_behind() {
    let machine = Machine::new();
    let report = report(&bench(&machine, &["--suite", "server", "--json=-", "--quiet"]));
    let suite = &report["suites"][0];
    let expected = [
        "start, and Ctrl-C when idle",
        "HTTP over the engine",
        "health, one after another",
        "health, 2 at once, idle",
        "health, 2 at once, 8 requests generate",
        "3 requests at once, defaults",
        "3 requests at once, 8 at a time, 80 wait",
        "10 agents × 1 requests, no limits",
        "10 agents × 1 requests, default limits",
        "a pool of 13 blocks is full",
        "1 s of 4 times what it can do, 2 at a time, no line",
        "1 turns beside 4 who flood",
        "200 malformed bodies",
        "SIGTERM with 1 streams",
        "1 s at 80 % load",
    ];
    assert_eq!(names(suite), expected);
    for name in expected {
        assert!(row(suite, name)["promise"].is_string(), "{name}");
    }
    // What does not hang on how fast this machine is.
    for name in &expected[5..9] {
        let row = row(suite, name);
        assert_eq!(row["promise"], "holds", "{row}");
    }
    let malformed = row(suite, "200 malformed bodies");
    assert_eq!(malformed["promise"], "holds", "{malformed}");
    assert_eq!(row(suite, "SIGTERM with 1 streams")["streams_done"], 1);
    assert_eq!(suite["notes"].as_array().map(Vec::len), Some(2));
    assert_eq!(machine.stored(), [""; 0]);
}

#[test]
fn the_kernels_are_as_near_to_plain_mlx_as_promised() {
    let machine = Machine::new();
    copy_model(&machine, "llama-q4-g32", &[("max_position_embeddings", 2048)]);
    let flags = ["--model=./model", "--suite=fidelity", "--tokens=2048", "--json=-", "-q"];
    let report = report(&machine.run(&[&["bench"], &flags[..]].concat()));
    let suite = &report["suites"][0];
    let figures = &suite["rows"][0];
    let figure = |name: &str| figures[name].as_f64().expect("a number");
    assert!(figure("top1_agreement_percent") >= 99.5, "{report}");
    assert!(figure("largest_gap_nats") < 0.02, "{report}");
    assert!(figure("mean_kl_nats") < 2e-4, "{report}");
    assert!(figure("change_percent").abs() <= 0.1, "{report}");
    for row in suite["rows"].as_array().expect("rows") {
        assert_eq!(row["promise"], "holds", "{report}");
    }
    let notes = [
        "2048 tokens of text; the reference is plain MLX",
        "top-1 agreement of 99.5 % or more: holds",
        "every disagreement a tie, a gap below 0.02 nats: holds",
        "mean KL divergence below 2e-4 nats: holds",
        "perplexity within 0.1 % of the reference's: holds",
    ];
    assert_eq!(suite["notes"], json!(notes));
}

/// The suites ended in an error, after those before them had taken their minutes.
#[test]
fn what_a_model_cannot_have_is_left_out_and_said_so() {
    let machine = Machine::new();
    // Heads of 16 have neither kernels nor a KV cache of 8 or 4 bits.
    let changes = [("head_dim", 16), ("num_attention_heads", 8), ("num_key_value_heads", 4)];
    copy_model(&machine, "llama-f32", &changes);
    let suites = ["--suite=kv-quality", "--suite=kv-speed", "--suite=fidelity"];
    let flags = ["--model=./model", "--contexts=4", "--decode-tokens=2", "--runs=1", "--tokens=9"];
    let report =
        report(&machine.run(&[&["bench", "-q", "--json=-"], &suites[..], &flags].concat()));
    let suite = |index: usize| {
        let suite = &report["suites"][index];
        let notes = suite["notes"].as_array().expect("notes");
        let notes: Vec<String> = notes.iter().filter_map(Json::as_str).map(str::to_owned).collect();
        (suite["rows"].as_array().map_or(0, Vec::len), notes)
    };
    let cannot = |kv: &str, bits: usize| {
        format!(
            "{kv}: left out: a {bits}-bit KV cache needs a head size that is a multiple of 32; \
             this model's is 16: use 16 bits"
        )
    };
    let settings = [("8/8", 8), ("8r/8r", 8), ("8/4", 8), ("8/4r", 8), ("4/4", 4), ("4r/4r", 4)];
    let left_out = settings.map(|(kv, bits)| cannot(kv, bits));
    let (rows, notes) = suite(0);
    assert_eq!((rows, &notes[1..]), (1, &left_out[..]));
    let (rows, notes) = suite(1);
    assert_eq!((rows, &notes[..6]), (0, &left_out[..]));
    let no_kernel = "left out: the CPU kernels cannot run this model: its heads are of 16, not of \
                     a multiple of 32 up to 256; --device portable can";
    assert_eq!(suite(2), (0, vec![no_kernel.to_owned()]));
}

#[test]
fn a_table_begins_with_what_was_measured() {
    let machine = Machine::new();
    let ran = bench(&machine, &["--suite", "batch", "--suite", "prefill", "--kv-bits", "8/4"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.starts_with("semantic "), "{ran:?}");
    for words in ["KV bits 8/4", "\nprefill\n", "\nbatch\n", "40 tokens", "3 sequences", "GB/s"] {
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
}

#[test]
fn work_beyond_the_context_is_left_out_and_said_so() {
    let machine = Machine::new();
    let ran = bench(&machine, &["--suite=decode", "--contexts=4,510", "--json=-", "-q"]);
    let suite = &report(&ran)["suites"][0];
    // Those that every test here asks for, and one more.
    assert_eq!(suite["rows"].as_array().map(Vec::len), Some(3));
    assert_eq!(suite["notes"][0], "context 510: left out, the model's context is 512");
    let ran = bench(&machine, &["--suite=kv-speed", "--contexts=510,600", "--json=-", "-q"]);
    let suite = &report(&ran)["suites"][0];
    // Two works at each of 4 and 9 tokens, a prompt of 510, all with each of six settings.
    assert_eq!(suite["rows"].as_array().map(Vec::len), Some(5 * 6));
    let notes = ["context 510", "600 tokens", "context 600"]
        .map(|work| format!("{work}: left out, the model's context is 512"));
    assert_eq!(suite["notes"].as_array().map(|all| &all[..3]), Some(&notes.map(Json::from)[..]));
}

#[test]
fn a_peer_gets_its_columns_and_the_ratio() {
    let machine = Machine::new();
    script(&machine.path("llama-bench"), &prints(PEER_RESULT));
    std::fs::write(machine.path("peer.gguf"), "").expect("a file");
    let peer = ["--peer-llama-bench=llama-bench", "--peer-model=peer.gguf", "--json=-", "-q"];
    let run = |suite: &str| report(&bench(&machine, &[&["--suite", suite], &peer[..]].concat()));

    let prefill = run("prefill");
    assert_eq!(prefill["peer"]["about"]["model_type"], "llama 1B");
    for row in prefill["suites"][0]["rows"].as_array().expect("rows") {
        let expected = [
            "name",
            "tokens_per_s",
            "peer_tokens_per_s",
            "ratio",
            "operations_per_token",
            "gop_per_s",
        ];
        assert_eq!(keys(row), expected);
        assert_eq!(row["peer_tokens_per_s"]["median"], 50.0);
        let ours = row["tokens_per_s"]["median"].as_f64().expect("a number");
        let ratio = row["ratio"].as_f64().expect("a number");
        // Reading JSON may cost the last bit.
        assert!((ratio - ours / 50.0).abs() < 1e-9 * ratio, "{row}");
    }
    // Without the other program there is no ratio; with it there is.
    let batch = run("batch");
    assert_eq!(batch["suites"][0]["rows"][0].get("ratio"), None);
    assert_eq!(
        batch["suites"][0]["notes"][0],
        "no ratio: there is no llama-batched-bench beside the peer's llama-bench"
    );
    script(&machine.path("llama-batched-bench"), &prints(PEER_BATCHED_RESULT));
    assert_eq!(run("batch")["suites"][0]["rows"][0]["peer_tokens_per_s"]["median"], 25.0);
}

#[test]
fn a_peer_that_fails_is_named_with_what_it_said() {
    let machine = Machine::new();
    let script = |name: &str, body: &str| script(&machine.path(name), body);
    std::fs::write(machine.path("peer.gguf"), "").expect("a file");
    std::fs::write(machine.path("text"), "no program").expect("a file");
    script("fails", "echo first >&2; echo 'failed to load model' >&2; exit 3");
    script("talks", "echo hello");
    let check = |peer: &str, model: &str, message: expect_test::Expect| {
        let arguments = ["--suite=decode", "-q", "--peer-model", model, "--peer-llama-bench", peer];
        let ran = bench(&machine, &[&arguments[..], &["--json=-"]].concat());
        message.assert_eq(&ran.stderr);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    };
    check(
        "absent",
        "peer.gguf",
        expect![[r#"
        error: --peer-llama-bench: absent is not a file
    "#]],
    );
    check(
        "fails",
        "absent.gguf",
        expect![[r#"
        error: --peer-model: absent.gguf is not a file
    "#]],
    );
    check(
        "fails",
        "peer.gguf",
        expect![[r#"
        error: ./fails failed (exit status: 3): failed to load model
    "#]],
    );
    check(
        "talks",
        "peer.gguf",
        expect![[r#"
        error: cannot read the output of ./talks: it printed "hello": expected value at line 1 column 1
    "#]],
    );
    check(
        "text",
        "peer.gguf",
        expect![[r#"
        error: cannot run ./text: Permission denied (os error 13)
    "#]],
    );
}

#[test]
fn a_peer_server_that_does_not_start_is_named_with_what_it_said() {
    let machine = Machine::new();
    script(&machine.path("server"), "echo 'failed to load model' >&2; exit 3");
    std::fs::write(machine.path("peer.gguf"), "").expect("a file");
    let check = |server: &str, message: expect_test::Expect| {
        let peer = ["--peer-model=peer.gguf", "--peer-server", server, "--json=-", "-q"];
        let ran = bench(&machine, &[&["--suite=restore"], &peer[..]].concat());
        message.assert_eq(&ran.stderr);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    };
    check(
        "absent",
        expect![[r#"
        error: --peer-server: absent is not a file
    "#]],
    );
    check(
        "server",
        expect![[r#"
        error: ./server: exit status: 3: failed to load model
    "#]],
    );
    assert_eq!(machine.stored(), [""; 0]);
}

#[test]
fn a_made_model_can_be_run_and_is_not_replaced_unasked() {
    let machine = Machine::new();
    let make = |arguments: &[&str]| {
        let all = [&["bench", "--make-model", "tiny", "--out", "made.gguf"], arguments].concat();
        let mut command = machine.command(&all);
        // Named for other commands, and nothing to this one.
        command.env("SEMANTIC_MODEL", "absent");
        machine.finish(command, b"")
    };
    let made = make(&["-q"]);
    assert_eq!((made.code, made.stdout.as_str()), (Some(0), "made.gguf\n"), "{made:?}");
    let answer = machine.run(&["generate", "--model", "./made.gguf", "hi", "--raw", "-n4"]);
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{answer:?}");
    let measured = machine.run(&[
        "bench",
        "--model",
        "./made.gguf",
        "--suite=decode",
        "--contexts=4",
        "--decode-tokens=2",
        "--runs=1",
        "--json=-",
    ]);
    assert_eq!(report(&measured)["model"]["file"], "made.gguf");

    let again = make(&[]);
    expect![[r#"
        error: cannot write made.gguf: the file exists
        hint: --force replaces it
    "#]]
    .assert_eq(&again.stderr);
    assert_eq!((again.code, again.stdout.as_str()), (Some(1), ""));
    assert_eq!(make(&["--force", "--quantisation=q4_1"]).code, Some(0));
    let elsewhere = machine.run(&["bench", "--make-model", "tiny", "--out", "no/such/x.gguf"]);
    assert_eq!(elsewhere.code, Some(1), "{elsewhere:?}");
}

#[test]
fn ctrl_c_ends_it_with_130() {
    let machine = Machine::new();
    let model = data("tiny/llama-f16").display().to_string();
    let arguments = ["bench", "-m", &model, "--suite=decode", "--contexts=4", "--runs=1000"];
    let mut child = machine
        .command(&[&arguments[..], &["--decode-tokens=500"]].concat())
        .spawn()
        .expect("it starts");
    // The first line says what is measured: Ctrl-C is caught by then.
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("a line");
    assert!(line.starts_with("semantic "), "{line}");
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    assert_eq!(Ran::of(wait(child)).code, Some(130));
}

/// The processes of all that say this in their arguments.
fn processes(text: &str) -> Vec<String> {
    let listed = Command::new("ps").args(["-axww", "-o", "pid=,command="]).output();
    let listed = String::from_utf8(listed.expect("ps runs").stdout).expect("text");
    listed.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

/// SIGKILL leaves it no time to end them.
#[test]
fn servers_of_a_run_that_is_killed_end_with_it() {
    let machine = Machine::new();
    let model = data("tiny/llama-f16").display().to_string();
    let arguments = ["bench", "-m", &model, "--suite=baselines", "--quiet"];
    let mut child = machine.command(&arguments).spawn().expect("it starts");
    // Their folders are in this one.
    let folder = machine.path("").display().to_string();
    wait_until("a server starts", || {
        processes(&folder).iter().any(|line| line.contains(" serve "))
    });
    child.kill().expect("it runs");
    child.wait().expect("it is ours");
    wait_until("nobody is left", || processes(&folder).is_empty());
}

#[test]
fn more_text_than_there_is_cannot_be_read() {
    let machine = Machine::new();
    std::fs::write(machine.path("text"), "a b c").expect("a file");
    let ran = bench(&machine, &["--suite=kv-quality", "--text=text", "-q", "--json=-"]);
    expect![[r#"
        error: cannot use 24 tokens of text: it has 4, the model's context is 512, at least 2 are needed
    "#]].assert_eq(&ran.stderr);
    assert_eq!(ran.code, Some(64), "{ran:?}");
    let ran = bench(&machine, &["--suite=fidelity", "--text=absent", "-q", "--json=-"]);
    expect![[r#"
        error: cannot read absent: No such file or directory (os error 2)
    "#]]
    .assert_eq(&ran.stderr);
    assert_eq!(ran.code, Some(1), "{ran:?}");
}
