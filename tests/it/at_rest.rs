//! What lies on the disk: nobody else may read it, no text that was said is in it, and nothing is
//! left of an agent that is deleted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use crate::support::cli::Machine;
use crate::support::golden::data;
use crate::support::http::Request;
use crate::support::process::Process;

/// What is said, and nothing else has.
const CANARY: &str = "canary-7f3a-of-the-prompt";
const KEY: &str = "canary-key-of-this-test-0001";

fn bytes_of(machine: &Machine) -> Vec<(String, Vec<u8>)> {
    let stored = machine.stored().into_iter();
    stored.map(|path| (path.clone(), fs::read(machine.path(&path)).expect("a file"))).collect()
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The rights of a file or folder and of all above it, up to the data folder.
fn check_rights(machine: &Machine, path: &str) {
    for place in Path::new(path).ancestors().filter(|place| !place.as_os_str().is_empty()) {
        let full = machine.path(&place.display().to_string());
        let mode = fs::metadata(&full).expect("it is there").permissions().mode() & 0o777;
        let right = if full.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, right, "{}", place.display());
    }
}

#[test]
fn nothing_on_the_disk_can_be_read_by_others_or_tells_what_was_said() {
    let machine = Machine::new();
    let model = data("tiny/llama-f16").display().to_string();
    // Whoever starts it may have no mask at all.
    let arguments = ["serve", "--port=0", "--threads=1", "-m", &model];
    let mut command = machine.limited("-n 1024; umask 000", &arguments);
    command.env("SEMANTIC_API_KEYS", KEY).env("SEMANTIC_LOG_LEVEL", "warn");
    let mut process = Process::start(command);
    process.wait_for("is ready after");
    let send = |request: Request<'_>| {
        process.client().send(&request.header("Authorization", format!("Bearer {KEY}")))
    };
    for agent in ["kept", "deleted"] {
        let body = json!({ "prompt": format!("{CANARY} of {agent}"), "max_tokens": 8 });
        let path = format!("/v1/agents/{agent}/generate");
        let answer = send(Request::post(&path, body.to_string()));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["semantic"]["durable"], true, "{answer:?}");
    }
    let before = bytes_of(&machine);
    assert!(before.iter().any(|(path, _)| path.ends_with(".manifest")), "nothing was kept");
    for (path, bytes) in &before {
        check_rights(&machine, path);
        assert!(!has(bytes, CANARY), "{path} has what was said");
        assert!(!has(bytes, KEY), "{path} has the key");
    }
    assert_eq!(send(Request::new("DELETE", "/v1/agents/deleted")).status, 204);
    let kept = send(Request::get("/v1/agents")).json();
    assert_eq!(kept["total"], 1, "{kept}");
    // One save of one line, and the blocks that it names.
    let manifests = |files: &[(String, Vec<u8>)]| {
        files.iter().filter(|(path, _)| path.ends_with(".manifest")).count()
    };
    let after = bytes_of(&machine);
    assert_eq!((manifests(&before), manifests(&after)), (2, 1));
    assert!(after.iter().all(|(_, bytes)| !has(bytes, "deleted")), "its name is left");
    process.kill(Signal::TERM);
    assert_eq!(process.end().code, Some(0));
}
