//! The clock of the machine jumps: by an hour, by ten years, back, to before 1970. People read its
//! times, and nothing that is kept, counted or limited depends on them.

use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use semantic::http::Rates;
use semantic::store::{Settings as StoreSettings, Store};
use serde_json::{Value as Json, json};

use crate::support::cli::Machine;
use crate::support::disk::MemoryDisk;
use crate::support::golden::data;
use crate::support::http::{Answer, Request, Server, Setup};
use crate::support::store::keeping;

/// Seconds after 1970, and before it if they are negative.
static NOW: AtomicI64 = AtomicI64::new(0);
/// The clock is everybody's.
static TURN: Mutex<()> = Mutex::new(());

fn now() -> SystemTime {
    let seconds = NOW.load(Ordering::SeqCst);
    let distance = Duration::from_secs(seconds.unsigned_abs());
    match seconds < 0 {
        true => UNIX_EPOCH - distance,
        false => UNIX_EPOCH + distance,
    }
}

const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24 * HOUR;
/// In 2026.
const TODAY: i64 = 56 * YEAR;
/// Where it jumps, one after the other.
const JUMPS: [i64; 9] =
    [TODAY, TODAY + HOUR, TODAY, TODAY + 10 * YEAR, TODAY - 10 * YEAR, 0, -1, -10 * YEAR, TODAY];

/// A process that starts on this disk, whatever the time is.
fn serve(disk: &MemoryDisk, budget_bytes: u64) -> Server {
    let settings = StoreSettings { budget_bytes, now, ..StoreSettings::default() };
    let store = Store::open(Arc::new(disk.clone()), settings).expect("the disk is well");
    let rates = Rates { agent: 4, global: 0, failed_keys: 0, tokens: 0 };
    Server::start(Setup { keeping: Some(keeping(Arc::new(store))), rates, ..Setup::default() })
}

fn say(server: &Server, agent: &str) -> Answer {
    let prompt = format!("I am {agent}. What is the time?");
    let body = json!({ "prompt": prompt, "max_tokens": 8, "temperature": 0 });
    server.send(&Request::post(&format!("/v1/agents/{agent}/generate"), body.to_string()))
}

fn cached(answer: &Json) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count")
}

#[test]
fn an_agent_goes_on_wherever_the_clock_has_jumped() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let disk = MemoryDisk::default();
    let mut memory = 0;
    for (jump, seconds) in JUMPS.into_iter().enumerate() {
        NOW.store(seconds, Ordering::SeqCst);
        // Each turn is another process's, with nothing but what the disk has.
        let server = serve(&disk, 1 << 30);
        let answer = say(&server, "a");
        assert_eq!(answer.status, 200, "{seconds}: {answer:?}");
        let answer = answer.json();
        assert_eq!(answer["semantic"]["durable"], true, "{seconds}: {answer}");
        assert_eq!(cached(&answer), if jump == 0 { 0 } else { memory - 1 }, "{seconds}");
        memory = answer["cache_size_tokens"].as_u64().expect("a count");
        let told = server.get("/v1/agents/a").json();
        assert_eq!(told["generation"], jump as u64 + 1, "{told}");
    }
}

/// It is the least recently used that goes, not the one with the oldest date.
#[test]
fn who_goes_to_make_room_does_not_depend_on_dates() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let disk = MemoryDisk::default();
    let server = serve(&disk, 1 << 30);
    NOW.store(TODAY, Ordering::SeqCst);
    assert_eq!(say(&server, "first").status, 200);
    drop(server);
    let one = disk.used_bytes();
    let server = serve(&disk, one * 5 / 2);
    // Older by its date, and saved later.
    NOW.store(-10 * YEAR, Ordering::SeqCst);
    assert_eq!(say(&server, "second").status, 200);
    assert_eq!(say(&server, "third").status, 200);
    drop(server);
    let server = serve(&disk, one * 5 / 2);
    let list = server.get("/v1/agents").json();
    let ids: Vec<&str> = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|agent| agent["id"].as_str())
        .collect();
    assert_eq!(ids, ["second", "third"]);
}

#[test]
fn limits_count_time_that_passes_and_not_dates() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = serve(&MemoryDisk::default(), 1 << 30);
    let mut refused = Vec::new();
    for seconds in JUMPS {
        NOW.store(seconds, Ordering::SeqCst);
        refused.push(say(&server, "a").status == 429);
    }
    // Four a minute, and no minute has passed.
    assert_eq!(refused.iter().filter(|is_refused| !**is_refused).count(), 4, "{refused:?}");
}

/// The whole program under libfaketime, where it is installed.
#[test]
#[expect(clippy::print_stderr, reason = "--nocapture shows it")]
fn the_program_runs_at_any_date() {
    let places =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let library = places
        .iter()
        .map(|place| format!("{place}/faketime/libfaketimeMT.so.1"))
        .find(|path| std::path::Path::new(path).is_file());
    let Some(library) = library else {
        eprintln!("not run: libfaketime is not installed");
        return;
    };
    let machine = Machine::new();
    let model = data("tiny/llama-f16").display().to_string();
    let ask = |date: &str| {
        let arguments = ["generate", "-m", &model, "--agent=a", "--threads=1", "-n4", "Hello"];
        let mut command: Command = machine.command(&arguments);
        command.env("LD_PRELOAD", &library).env("FAKETIME", date);
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        machine.finish(command, b"")
    };
    for date in ["@2026-01-01 00:00:00", "@2036-01-01 00:00:00", "@1969-06-01 00:00:00"] {
        let ran = ask(date);
        assert_eq!(ran.code, Some(0), "{date}: {ran:?}");
    }
}
