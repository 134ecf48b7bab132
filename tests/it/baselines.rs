//! `semantic bench` about servers: the baselines of ours, and ours beside others.

use serde_json::{Value as Json, json};

use crate::support::cli::{Machine, Ran};
use crate::support::golden::data;
use crate::support::http::Request;
use crate::support::openai::Sparse;
use crate::support::process::Process;

fn model() -> String {
    data("tiny/llama-f16").display().to_string()
}

/// `semantic bench` with the tiny model and as little work as there can be.
fn bench(machine: &Machine, arguments: &[&str]) -> Ran {
    let model = model();
    let small = ["bench", "--model", &model, "--runs=1", "--server-percent=1", "-q", "--json=-"];
    machine.run(&[&small[..], arguments].concat())
}

/// The only suite of a run.
fn suite(ran: &Ran) -> Json {
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let mut report: Json = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!(report["suites"].as_array().map(Vec::len), Some(1), "{report}");
    report["suites"][0].take()
}

fn names(suite: &Json) -> Vec<&str> {
    let rows = suite["rows"].as_array().expect("rows");
    rows.iter().filter_map(|row| row["name"].as_str()).collect()
}

fn row<'a>(suite: &'a Json, name: &str) -> &'a Json {
    let rows = suite["rows"].as_array().expect("rows");
    rows.iter().find(|row| row["name"] == name).expect(name)
}

fn notes(suite: &Json) -> Vec<&str> {
    suite["notes"].as_array().expect("notes").iter().filter_map(Json::as_str).collect()
}

fn number(row: &Json, field: &str) -> f64 {
    let value = &row[field];
    value["median"].as_f64().or(value.as_f64()).unwrap_or_else(|| panic!("{field}: {row}"))
}

fn fails(ran: &Ran, code: i32, error: &str) {
    let message = format!("error: {error}\n");
    assert_eq!((ran.code, ran.stderr.as_str(), ran.stdout.as_str()), (Some(code), &*message, ""));
}

#[test]
fn baselines_have_a_row_for_each_test_with_its_target_and_leave_nothing_behind() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.path("data")).expect("a folder");
    std::fs::write(machine.path("data/mine"), "mine").expect("a file");
    let suite = suite(&bench(&machine, &["--suite=baselines"]));
    let sequence = "sequential_requests_same_agent";
    let mut expected =
        vec!["server_startup".to_owned(), "single_request_cold_start".to_owned(), sequence.into()];
    expected.extend([32, 64, 128, 256].map(|tokens| format!("{sequence}, {tokens} tokens")));
    let probes = ["live", "ready", "startup"];
    expected.extend(probes.map(|probe| format!("health_endpoint_performance, {probe}")));
    expected.extend(["concurrent_health_checks", "capacity, all answered"].map(str::to_owned));
    expected.push("capacity".to_owned());
    assert_eq!(names(&suite), expected);
    for name in &expected {
        let row = row(&suite, name);
        // A percent of all requests is too few to judge the capacity by.
        let is_judged = !name.starts_with("capacity");
        assert_eq!(row["target"].is_string(), is_judged, "{row}");
    }
    let targets = [
        ("server_startup", 60_000.0),
        ("single_request_cold_start", 5_000.0),
        (sequence, 2_000.0),
        ("health_endpoint_performance, live", 100.0),
        ("concurrent_health_checks", 100.0),
    ];
    for (name, target_ms) in targets {
        let row = row(&suite, name);
        assert_eq!(number(row, "target_ms"), target_ms, "{row}");
        assert_eq!(number(row, "ok_percent"), 100.0, "{row}");
        let [p50, p95, p99] = ["p50_ms", "p95_ms", "p99_ms"].map(|field| number(row, field));
        assert!(0.0 < p50 && p50 <= p95 && p95 <= p99, "{row}");
    }
    assert_eq!(number(row(&suite, "concurrent_health_checks"), "requests"), 100.0);
    // The template alone has more than 32.
    for (tokens, prompt_tokens) in [(64, 64.0), (128, 128.0), (256, 256.0)] {
        let row = row(&suite, &format!("{sequence}, {tokens} tokens"));
        assert_eq!(number(row, "prompt_tokens"), prompt_tokens, "{row}");
        // The whole first prompt at least.
        assert!(number(row, "reused_tokens") >= prompt_tokens, "{row}");
        assert!(number(row, "second_prompt_tokens") > number(row, "reused_tokens"), "{row}");
    }
    let capacity = row(&suite, "capacity, all answered");
    assert_eq!(number(capacity, "together"), number(row(&suite, "capacity"), "together_max"));
    assert_eq!(number(capacity, "ok"), number(capacity, "together"), "{capacity}");
    assert_eq!(machine.stored(), ["data/mine"]);
    assert_eq!(std::fs::read(machine.path("data/mine")).expect("a file"), b"mine");
}

#[test]
fn ours_is_compared_with_another_of_ours_whose_agents_are_left_as_they_were() {
    let (machine, other) = (Machine::new(), Machine::new());
    let peer = Process::serving(&other, &model(), &[]);
    let mine = json!({ "prompt": "Hello", "max_tokens": 4 }).to_string();
    let made = peer.client().send(&Request::post("/v1/agents/mine/generate", mine));
    assert_eq!(made.status, 200, "{made:?}");
    // A name for what is there; the `/v1` that clients want is no part of the address.
    let url = format!("--url=other=http://{}/v1/", peer.address);
    let suite = suite(&bench(&machine, &[&url]));
    assert_eq!(suite["suite"], "compare");
    let works = ["64 tokens", "1 stream", "4 streams"];
    let expected = works
        .iter()
        .flat_map(|work| ["semantic", "other"].map(|server| format!("{work}, {server}")));
    assert_eq!(names(&suite), expected.collect::<Vec<_>>());
    for server in ["semantic", "other"] {
        let turns = row(&suite, &format!("64 tokens, {server}"));
        assert_eq!(number(turns, "prompt_tokens"), 64.0, "{turns}");
        assert!(number(turns, "second_reused_tokens") >= 64.0, "{turns}");
        assert!(number(turns, "ttft_ms") > 0.0, "{turns}");
        assert!(number(row(&suite, &format!("4 streams, {server}")), "tokens_per_s") > 0.0);
    }
    for work in works {
        let field = if work == "64 tokens" { "ttft" } else { "tokens_per_s" };
        let (value, ratio) = match field {
            "ttft" => ("ttft_ms", "ttft_ratio"),
            _ => ("tokens_per_s", "ratio"),
        };
        let [ours, theirs] =
            ["semantic", "other"].map(|server| row(&suite, &format!("{work}, {server}")));
        assert_eq!(number(ours, ratio), 1.0);
        let expected = number(ours, value) / number(theirs, value);
        assert!((number(theirs, ratio) - expected).abs() < 1e-9 * expected, "{theirs}");
    }
    assert!(notes(&suite)[0].starts_with("other: "), "{suite}");
    let left = peer.client().send(&Request::get("/v1/agents")).json();
    let left: Vec<&str> = left["data"]
        .as_array()
        .expect("agents")
        .iter()
        .filter_map(|agent| agent["id"].as_str())
        .collect();
    assert_eq!(left, ["mine"]);
    assert_eq!(machine.stored(), [""; 0]);
}

#[test]
fn a_server_that_counts_nothing_is_counted_by_its_events_and_said_so() {
    let machine = Machine::new();
    let peer = Sparse::new(20, 3);
    let url = format!("sparse={}", peer.url);
    let model = model();
    let mut command = machine.command(&[
        "bench",
        "--model",
        &model,
        "--runs=1",
        "-q",
        "--json=-",
        "--url",
        &url,
        "--url-key=sparse=PEER_KEY",
        "--url-model=sparse=second",
    ]);
    command.env("PEER_KEY", "secret-key");
    let ran = machine.finish(command, b"");
    let suite = suite(&ran);
    let turns = row(&suite, "64 tokens, sparse");
    for field in ["prompt_tokens", "second_prompt_tokens", "second_reused_tokens"] {
        assert_eq!(turns[field], "not said", "{turns}");
    }
    assert!(number(turns, "second_ttft_ms") > 0.0, "{turns}");
    assert!(number(row(&suite, "4 streams, sparse"), "tokens_per_s") > 0.0);
    let said = notes(&suite);
    assert!(said.contains(&format!("sparse: second at {}", peer.url).as_str()), "{said:?}");
    let counted = "sparse counts no tokens: an event with text is taken for one";
    assert!(said.contains(&counted), "{said:?}");
    assert!(!ran.stdout.contains("secret-key"), "{ran:?}");
    let asked = peer.asked();
    for asked in &asked {
        assert!(asked.head.contains("authorization: bearer secret-key\r\n"), "{asked:?}");
        assert!(!asked.head.contains("x-agent-id"), "{asked:?}");
    }
    let chats = asked.iter().filter(|asked| asked.what == "post /v1/chat/completions");
    assert!(chats.clone().all(|chat| chat.body["model"] == "second"), "{asked:?}");
    // Once refused, the field is left out for good.
    assert_eq!(chats.filter(|chat| chat.body.get("stream_options").is_some()).count(), 1);
    // Nothing else: it is none of ours, and has no agents.
    let others = asked.iter().filter(|asked| asked.what != "post /v1/chat/completions");
    let others: Vec<&str> = others.map(|asked| asked.what.as_str()).collect();
    assert_eq!(others, ["get /v1/models", "get /"]);
}

#[test]
fn what_a_server_refuses_is_left_out_and_said_so() {
    let machine = Machine::new();
    // No second turns, and too little text for a speed.
    let peer = Sparse::new(2, 1);
    let suite = suite(&bench(&machine, &["--url", &format!("small={}", peer.url)]));
    assert_eq!(names(&suite), ["64 tokens, semantic", "1 stream, semantic", "4 streams, semantic"]);
    let said = notes(&suite);
    let expected = [
        "small, 64 tokens: 400: the conversation is too long",
        "small, 1 stream: too little was said to have a speed",
        "small, 4 streams: too little was said to have a speed",
    ];
    for note in expected {
        assert!(said.contains(&note), "{note}: {said:?}");
    }
}

#[test]
fn a_server_that_does_not_answer_is_named_before_anything_runs() {
    let machine = Machine::new();
    // Nobody listens where somebody did.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    // There is no such model, either, but that is looked for later.
    let ran = machine.run(&["bench", "--model=./absent", &format!("--url=gone=http://{address}")]);
    let start = format!("error: --url gone=http://{address}: ");
    assert!(ran.stderr.starts_with(&start), "{ran:?}");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");

    // Somebody else's.
    let peer = Sparse::new(0, 0);
    let ran = bench(&machine, &[&format!("--url=page={}/elsewhere", peer.url)]);
    let page = "/v1/models is refused: 404: <html>nothing here</html>";
    fails(&ran, 1, &format!("--url page={}/elsewhere: {page}", peer.url));
}

#[test]
fn servers_and_suites_that_do_not_go_together_are_refused() {
    let machine = Machine::new();
    let ran = bench(&machine, &["--suite=compare"]);
    fails(&ran, 64, "--suite compare needs a server: --url NAME=URL");
    let ran = bench(&machine, &["--suite=load", "--url=a=http://localhost:1"]);
    fails(&ran, 64, "--url is for the suite `compare`, which --suite leaves out");
    let ran = bench(&machine, &["--url=a=http://localhost:1", "--url-key=a=NO_SUCH_VARIABLE"]);
    let key = "--url-key a=NO_SUCH_VARIABLE: the environment has no key in that variable";
    fails(&ran, 64, key);
}
