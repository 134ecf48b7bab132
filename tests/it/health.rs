//! `semantic health`: what it finds on this machine, and what it hears from a server.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value as Json;

use crate::support::cli::{Machine, Ran};
use crate::support::golden::data;
use crate::support::http::{ModelState, Server, Setup};
use crate::support::process::Process;

fn tiny() -> String {
    data("tiny/llama-f16").display().to_string()
}

/// The findings of this machine, of which none is one of the others.
fn checks(machine: &Machine, code: i32, flags: &[&str]) -> Vec<Json> {
    let ran = machine.run(&[&["health", "--json"], flags].concat());
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert_eq!(ran.stderr, "");
    let report: Json = serde_json::from_str(&ran.stdout).expect("one JSON object");
    let checks = report["checks"].as_array().expect("a list").clone();
    let worst = ["fail", "warn", "ok"]
        .into_iter()
        .find(|status| checks.iter().any(|check| check["status"] == *status));
    assert_eq!(report["status"].as_str(), worst, "{report}");
    checks
}

fn check<'a>(checks: &'a [Json], name: &str) -> &'a Json {
    checks.iter().find(|check| check["name"] == name).expect("it is checked")
}

#[test]
fn a_machine_that_can_serve_is_healthy_and_stays_as_it_was() {
    let machine = Machine::new();
    let checks = checks(&machine, 0, &["-m", &tiny(), "--kv-pool-mb", "1"]);
    let names: Vec<&str> = checks.iter().filter_map(|check| check["name"].as_str()).collect();
    let expected =
        ["device", "mlx", "threads", "model", "memory", "folders", "store", "space", "disk"];
    assert_eq!(names, expected);
    for name in ["mlx", "model", "folders", "store"] {
        let check = check(&checks, name);
        assert_eq!(check["status"], "ok", "{check}");
        assert_eq!(check["hint"], Json::Null, "{check}");
    }
    assert!(!machine.path("data").exists());
    assert_eq!(machine.stored(), [""; 0]);
}

#[test]
fn what_is_found_is_a_line_each_with_a_hint_below_what_is_not_well() {
    let machine = Machine::new();
    let ran = machine.run(&["health", "-m", "./absent"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""), "{ran:?}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("fail  model    ")).expect("a line");
    assert!(lines[at].contains("absent"), "{ran:?}");
    assert!(lines[at + 1].trim_start().starts_with("hint: "), "{ran:?}");
    assert!(lines.iter().any(|line| line.starts_with("ok    mlx      ")), "{ran:?}");
}

#[test]
fn a_model_that_would_be_fetched_is_a_warning_and_one_that_cannot_be_is_a_failure() {
    let machine = Machine::new();
    let found = checks(&machine, 0, &["-m", "qwen3-4b", "--kv-pool-mb", "1"]);
    let model = check(&found, "model");
    assert_eq!(model["status"], "warn", "{model}");
    assert_eq!(model["hint"], "`semantic pull qwen3-4b` fetches it now");
    let found = checks(&machine, 1, &["-m", "qwen3-4c", "--kv-pool-mb", "1"]);
    assert_eq!(check(&found, "model")["status"], "fail");
}

#[test]
fn a_pool_larger_than_the_memory_is_a_failure() {
    let machine = Machine::new();
    let found = checks(&machine, 1, &["-m", &tiny(), "--kv-pool-mb", "999999999"]);
    let memory = check(&found, "memory");
    assert_eq!(memory["status"], "fail", "{memory}");
    assert!(memory["finding"].as_str().expect("text").contains("a KV pool of up to 1000000.0 GB"));
}

#[test]
fn a_store_that_a_server_has_names_its_process_and_stays_with_it() {
    let machine = Machine::new();
    let model = tiny();
    let process = Process::serving(&machine, &model, &[]);
    let found = checks(&machine, 0, &["-m", &model, "--kv-pool-mb", "1"]);
    let store = check(&found, "store");
    assert_eq!(store["status"], "warn", "{store}");
    let expected = format!("0 agents; process {} has it", process.id());
    assert_eq!(store["finding"], expected.as_str());
    assert_eq!(process.status("/health/ready"), 200);
}

#[test]
fn folders_that_others_can_look_into_are_a_warning() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.path("data/cache")).expect("a folder");
    let mode = |name: &str, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(machine.path(name), permissions).expect("it is ours");
    };
    for (data, cache, expected) in
        [(0o700, 0o700, "ok"), (0o755, 0o700, "ok"), (0o700, 0o750, "warn"), (0o777, 0o700, "warn")]
    {
        mode("data", data);
        mode("data/cache", cache);
        let found = checks(&machine, 0, &["-m", &tiny(), "--kv-pool-mb", "1"]);
        let folders = check(&found, "folders");
        assert_eq!(folders["status"], expected, "{folders}");
    }
}

#[test]
fn a_store_that_is_none_is_a_failure() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.path("data/cache")).expect("a folder");
    std::fs::write(machine.path("data/cache/FORMAT"), "semantic store 999\n").expect("a file");
    let found = checks(&machine, 1, &["-m", &tiny(), "--kv-pool-mb", "1"]);
    assert_eq!(check(&found, "store")["status"], "fail", "{found:?}");
}

/// What is heard from the server there.
fn ask(machine: &Machine, url: &str, flags: &[&str]) -> Ran {
    machine.run(&[&["health", "--url", url], flags].concat())
}

#[test]
fn each_probe_of_a_server_is_an_exit_code() {
    let machine = Machine::new();
    let mut server = Server::start(Setup { model: ModelState::Loading, ..Setup::default() });
    let url = format!("http://{}", server.address);
    let expect = |flags: &[&str], code: i32, said: &str| {
        let ran = ask(&machine, &url, flags);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(code), ""), "{ran:?}");
        assert!(ran.stdout.starts_with(said), "{ran:?}");
    };
    expect(&["--probe=live"], 0, "live: 200, alive, after ");
    expect(&["--probe=startup"], 1, "startup: 503, model_loading, after ");
    expect(&[], 1, "ready: 503, model_loading, after ");
    server.finish_loading();
    expect(&["--probe=startup"], 0, "startup: 200, started, after ");
    expect(&["--probe=ready", "--timeout=30"], 0, "ready: 200, ready, after ");
    let ran = ask(&machine, &format!("{url}/"), &["--json"]);
    let report: Json = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!((&report["status"], &report["http_status"]), (&"ok".into(), &200.into()));
    server.app.start_shutting_down();
    expect(&[], 1, "ready: 503, shutting_down, after ");
    expect(&["--probe=live"], 0, "live: 200, alive, after ");
}

#[test]
fn a_server_that_is_not_there_or_says_nothing_is_not_healthy() {
    let machine = Machine::new();
    // Connections wait in its line, and nobody takes them out.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let ran = ask(&machine, &url, &["--timeout=0.2"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let said = format!("ready: no answer from {url}/health/ready: ");
    assert!(ran.stdout.starts_with(&said), "{ran:?}");
    drop(silent);
    let ran = ask(&machine, &url, &["--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report: Json = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!(report["status"], "fail");
    assert!(report["error"].is_string(), "{report}");
}

#[test]
fn an_address_that_is_none_is_misuse() {
    let machine = Machine::new();
    for url in ["garbage", "localhost:8000", "ftp://localhost", "http://", "http://a b", "", "/x"] {
        let ran = ask(&machine, url, &[]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(64), ""), "{url}: {ran:?}");
        let expected = format!(
            "error: --url is {:?}; it is like http://localhost:8000\n",
            url.trim_end_matches('/')
        );
        assert_eq!(ran.stderr, expected);
    }
    for timeout in ["0", "-1", "NaN", "1e9"] {
        let ran = ask(&machine, "http://localhost:1", &[&format!("--timeout={timeout}")]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(64), ""), "{timeout}: {ran:?}");
    }
    // What only a server can be asked is not silently ignored.
    let ran = machine.run(&["health", "--probe", "live"]);
    assert_eq!(ran.code, Some(64), "{ran:?}");
}
