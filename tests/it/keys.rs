//! API keys of a real server: made, kept as hashes, honoured, taken away; and what a first start on
//! a terminal does.

use crate::support::cli::{Machine, wait};
use crate::support::golden::data;
use crate::support::http::{Answer, Client, Request, hello, wait_until};
use crate::support::process::Process;
use expect_test::{Expect, expect};
use rustix::process::Signal;
use serde_json::json;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

fn tiny() -> String {
    data("tiny/llama-f16").display().to_string()
}

/// A key of this name, made by the program.
fn new_key(machine: &Machine, name: &str, flags: &[&str]) -> String {
    let ran = machine.run(&[&["serve", "--new-key", name], flags].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("its hash is in "), "{ran:?}");
    assert!(!ran.stderr.contains("sk-sem-"), "{ran:?}");
    let key = ran.stdout.strip_suffix('\n').expect("a line").to_owned();
    let digits = key.strip_prefix("sk-sem-").expect("our prefix");
    assert!(digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
    key
}

fn serving(machine: &Machine, flags: &[&str], keys: Option<&str>) -> Process {
    let start = ["serve", "--port=0", "--threads=1", "-m", &tiny()];
    let mut command = machine.command(&[&start, flags].concat());
    command.envs(keys.map(|keys| ("SEMANTIC_API_KEYS", keys)));
    let process = Process::start(command);
    process.wait_for("is ready after ");
    process
}

fn chat(process: &Process, key: &str) -> Answer {
    let body = hello(json!({ "max_tokens": 1, "session_id": "planner" }));
    process.client().send(&Request::chat(&body).header("Authorization", format!("Bearer {key}")))
}

fn end(mut process: Process) {
    process.kill(Signal::INT);
    let ran = process.end();
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{ran:?}");
}

fn cached(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
}

fn refused(machine: &Machine, flags: &[&str], code: i32, message: Expect) {
    let ran = machine.run(&[&["serve", "--port=0", "-m", &tiny()], flags].concat());
    message.assert_eq(&machine.anonymous(&ran.stderr));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{ran:?}");
}

#[test]
fn a_key_opens_the_server_until_it_is_taken_away() {
    let machine = Machine::new();
    let (alice, bob) = (new_key(&machine, "alice", &[]), new_key(&machine, "bob", &[]));
    let file = machine.path("data/keys.toml");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    let text = fs::read_to_string(&file).expect("a text");
    assert!(!text.contains("sk-sem-") && !text.contains(&alice[7..]), "{text}");
    let ran = machine.run(&["serve", "--new-key", "alice"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert_eq!(fs::read_to_string(&file).expect("a text"), text);

    let process = serving(&machine, &[], None);
    // Each has a namespace of its own.
    assert_eq!(cached(&chat(&process, &alice)), 0);
    assert!(cached(&chat(&process, &alice)) > 0);
    assert_eq!(cached(&chat(&process, &bob)), 0);
    let unknown = chat(&process, "sk-sem-0000000000000000000000000000000000000000");
    assert_eq!(unknown.status, 401);
    end(process);

    let without_alice = text.split_once("[[key]]\nname = \"bob\"").expect("two keys").1;
    fs::write(&file, format!("[[key]]\nname = \"bob\"{without_alice}")).expect("written");
    let process = serving(&machine, &[], None);
    let revoked = chat(&process, &alice);
    assert_eq!((revoked.status, &revoked.body), (401, &unknown.body));
    assert!(cached(&chat(&process, &bob)) > 0);
    end(process);
}

#[test]
fn keys_of_a_file_may_have_a_namespace_and_limits_and_stand_beside_others() {
    let machine = Machine::new();
    let flags = ["--keys-file", "there/keys.toml"];
    let key = new_key(&machine, "ci", &flags);
    let file = machine.path("there/keys.toml");
    let text = fs::read_to_string(&file).expect("a text");
    let text = text.replace(
        "namespace = \"ci\"",
        "namespace = \"local\"\nrate_limit = 2\ntokens_per_minute = 9000",
    );
    fs::write(&file, text).expect("written");
    // An agent of the command line.
    let model = tiny();
    let generated = machine.run(&[
        "generate",
        "-m",
        &model,
        "--threads=1",
        "-n1",
        "--agent",
        "planner",
        "Hello",
    ]);
    assert_eq!(generated.code, Some(0), "{generated:?}");
    let of_environment = "key-of-the-environment";
    let process = serving(&machine, &flags, Some(of_environment));
    assert!(cached(&chat(&process, &key)) > 0);
    assert_eq!(chat(&process, &key).status, 200);
    let third = chat(&process, &key);
    assert_eq!(third.status, 429);
    assert_eq!(third.error()["message"], "too many requests with this key; try again in 30 s");
    assert_eq!(third.header("retry-after"), Some("30"));
    let policy = "\"requests\";q=2;w=60, \"tokens\";q=9000;w=60;qu=\"tokens\"";
    assert_eq!(third.header("ratelimit-policy"), Some(policy));
    let left = third.header("ratelimit").expect("what is left");
    assert!(left.starts_with("\"requests\";r=0;t=30, \"tokens\";r="), "{left}");
    for _ in 0..3 {
        assert_eq!(chat(&process, of_environment).status, 200);
    }
    end(process);
}

#[test]
fn a_keys_file_that_cannot_be_trusted_is_refused() {
    let machine = Machine::new();
    new_key(&machine, "alice", &[]);
    let file = machine.path("data/keys.toml");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("a mode");
    refused(
        &machine,
        &[],
        78,
        expect![[r#"
        error: the keys file $HERE/data/keys.toml has mode 0644: others on this machine could read or change it
        hint: chmod 600 $HERE/data/keys.toml
    "#]],
    );
    refused(
        &machine,
        &["--new-key", "bob"],
        78,
        expect![[r#"
        error: the keys file $HERE/data/keys.toml has mode 0644: others on this machine could read or change it
        hint: chmod 600 $HERE/data/keys.toml
    "#]],
    );
    refused(
        &machine,
        &["--keys-file", "absent.toml"],
        78,
        expect![[r#"
        error: there is no keys file absent.toml
        hint: `semantic serve --keys-file FILE --new-key NAME` makes it
    "#]],
    );
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("a mode");
    fs::write(&file, "[[key]]\nname = \"a\"\nkey = \"sk-sem-canary\"\n").expect("written");
    refused(
        &machine,
        &[],
        78,
        expect![[r#"
        error: the keys file $HERE/data/keys.toml is not valid: line 3: unknown field `key`, expected one of `name`, `hash`, `namespace`, `rate_limit`, `rate_limit_agent`, `tokens_per_minute`
        hint: each [[key]] has name, hash and, if you like, namespace, rate_limit, rate_limit_agent and tokens_per_minute
    "#]],
    );
    refused(
        &machine,
        &["--new-key", ""],
        64,
        expect![[r#"
        error: the name of the key is empty
    "#]],
    );
}

/// To the whole network, where a page may have any name resolve to it.
#[test]
fn a_server_for_others_answers_to_its_own_names_alone() {
    let machine = Machine::new();
    let key = "key-of-the-environment";
    let flags = ["--host=0.0.0.0", "--allowed-host=box.local"];
    let process = serving(&machine, &flags, Some(key));
    let port = process.address.port();
    let status = |headers: &[(&'static str, &str)]| {
        let mut request = Request::get("/").header("x-api-key", key);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        Client::new(([127, 0, 0, 1], port).into()).send(&request).status
    };
    assert_eq!(status(&[("Host", "box.local:80")]), 200);
    for host in ["evil.com", "x.local", ""] {
        assert_eq!(status(&[("Host", host)]), 403, "{host}");
    }
    for origin in ["http://evil.com", "null"] {
        assert_eq!(status(&[("Origin", origin)]), 403, "{origin}");
    }
    assert_eq!(status(&[("Sec-Fetch-Site", "cross-site")]), 403);
    end(process);
}

/// On disk, in the log, among the arguments, in answers and in the settings that are printed.
#[cfg(target_os = "linux")]
#[test]
fn a_key_is_nowhere_but_with_its_owner() {
    let machine = Machine::new();
    let made = new_key(&machine, "made", &[]);
    let of_environment = "canary-of-the-environment";
    let admin = "canary-of-the-administrator";
    let mut command =
        machine.command(&["serve", "--port=0", "--threads=1", "-m", &tiny(), "--log=trace"]);
    command.env("SEMANTIC_API_KEYS", of_environment).env("SEMANTIC_ADMIN_KEY", admin);
    let mut process = Process::start(command);
    process.wait_for("is ready after ");
    let mut seen = String::new();
    for key in [made.as_str(), of_environment] {
        let answer = chat(&process, key);
        assert_eq!(answer.status, 200);
        seen.push_str(&answer.body);
        let wrong = chat(&process, &format!("{key}x"));
        assert_eq!(wrong.status, 401);
        seen.push_str(&wrong.body);
    }
    let stats = Request::get("/admin/x").header("X-Admin-Key", admin);
    seen.push_str(&process.client().send(&stats).body);
    let arguments = fs::read(format!("/proc/{}/cmdline", process.id())).expect("arguments");
    seen.push_str(&String::from_utf8_lossy(&arguments));
    process.kill(Signal::INT);
    let ran = process.end();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("request answered"), "{ran:?}");
    seen.push_str(&ran.stderr);
    let mut printing = machine.command(&["serve", "--print-config"]);
    printing.env("SEMANTIC_API_KEYS", of_environment).env("SEMANTIC_ADMIN_KEY", admin);
    seen.push_str(&machine.finish(printing, b"").stdout);
    for path in machine.stored() {
        seen.push_str(&String::from_utf8_lossy(&fs::read(machine.path(&path)).expect("a file")));
    }
    for canary in [&made["sk-sem-".len()..], of_environment, admin] {
        assert!(!seen.contains(canary), "{canary}");
    }
}

#[test]
fn the_settings_that_are_printed_are_those_that_are_used() {
    let machine = Machine::new();
    let print = |flags: &[&str], keys: Option<&str>| {
        let mut command = machine.command(&[&["serve", "--print-config"], flags].concat());
        command.envs(keys.map(|keys| ("SEMANTIC_API_KEYS", keys))).env("SEMANTIC_STEP_MS", "50");
        let ran = machine.finish(command, b"");
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        machine.anonymous(&ran.stdout)
    };
    fs::write(machine.path("own.toml"), "[serve]\nport = 1234\nstep_ms = 7\n").expect("a file");
    let flags = [
        "--config=own.toml",
        "--kv-pool-mb=100",
        "--kv-bits=8/4",
        "--cors-origin=https://App.example",
        "--allowed-host=a,b",
        "--threads=1",
        "--lame-duck=2.5",
    ];
    let printed = print(&flags, Some("key-number-one-of-2,key-number-two-of-2"));
    expect![[r##"
        # API keys: 2 in the environment, 0 in $HERE/data/keys.toml. Admin key: not set.
        data_dir = "$HERE/data"
        model = "smollm2-135m"

        [serve]
        host = "127.0.0.1"
        port = 1234
        allowed_hosts = ["a", "b"]
        cors_origins = ["https://app.example"]
        no_auth = false
        rate_limit_agent = 60
        rate_limit_global = 1000
        rate_limit_failed_keys = 20
        tokens_per_minute = 0
        kv_pool_mb = 100
        max_running = 64
        queue_requests = 2048
        queue_timeout_s = 120.0
        step_ms = 50
        lame_duck_s = 2.5
        drain_timeout_s = 30.0
        kv_bits = "8/4"
        device = "auto"
        threads = 1

        [cache]
        budget_gb = 34.359738368
    "##]]
    .assert_eq(&printed);
    // Read as a configuration it comes to the same, but for the keys.
    fs::write(machine.path("again.toml"), &printed).expect("a file");
    let again = print(&["--config=again.toml"], None);
    // Empty variables are none.
    let mut empty = machine.command(&["serve", "--print-config", "--config=again.toml"]);
    for name in ["ALLOWED_HOSTS", "CORS_ORIGINS", "PORT", "HOST", "KEYS_FILE", "NO_AUTH", "MODEL"] {
        empty.env(format!("SEMANTIC_{name}"), "");
    }
    let empty = machine.finish(empty, b"");
    assert_eq!((empty.code, empty.stderr.as_str()), (Some(0), ""));
    let empty = empty.stdout;
    for line in ["allowed_hosts = [\"a\", \"b\"]", "cors_origins = [\"https://app.example\"]"] {
        assert!(empty.contains(line), "{empty}");
    }
    let settings = |text: &str| text.split_once('\n').expect("lines").1.to_owned();
    assert_eq!(settings(&again), settings(&printed));
    assert!(again.starts_with("# API keys: 0 in the environment, 0 in "), "{again}");
    assert_eq!(machine.stored(), Vec::<String>::new());
}

/// Off a terminal it is refused, as a test of `serve` has it.
#[test]
fn a_first_start_on_a_terminal_makes_a_key_and_shows_it_once() {
    let machine = Machine::new();
    let start = |machine: &Machine| {
        let server = machine.command(&["serve", "--port=0", "--threads=1", "-m", &tiny()]);
        let mut command = Command::new("python3");
        let spawn = "import os, pty, sys; \
                     sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        command.args(["-c", spawn]).arg(server.get_program()).args(server.get_args());
        for (name, value) in server.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Terminal::start(command)
    };
    let mut terminal = start(&machine);
    let curl = terminal.wait_for("curl http://");
    let address = curl.split('/').nth(2).expect("an address").parse().expect("an address");
    let bearer = terminal.wait_for("Bearer ");
    let key = bearer.split("Bearer ").nth(1).and_then(|rest| rest.split('"').next());
    let key = key.expect("a key").to_owned();
    terminal.wait_for("is ready after ");
    let ask = |address, key: &str| {
        let body = hello(json!({ "max_tokens": 1 }));
        Client::new(address).send(&Request::chat(&body).header("x-api-key", key)).status
    };
    assert_eq!((ask(address, &key), ask(address, "wrong-key-of-the-tests")), (200, 401));
    assert_eq!(terminal.interrupt(), Some(0));
    let file = fs::read_to_string(machine.path("data/keys.toml")).expect("a keys file");
    assert!(file.contains("name = \"default\"") && !file.contains(&key), "{file}");
    // And never again.
    let mut terminal = start(&machine);
    let line = terminal.wait_for("listening on http://");
    let address = line.trim().rsplit('/').next().expect("an address").parse().expect("an address");
    terminal.wait_for("is ready after ");
    assert_eq!(ask(address, &key), 200);
    assert_eq!(terminal.interrupt(), Some(0));
    assert!(!terminal.said().contains("sk-sem-"), "{}", terminal.said());
}

/// A program on a terminal of its own.
struct Terminal {
    child: Option<std::process::Child>,
    keyboard: std::process::ChildStdin,
    said: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(mut command: Command) -> Terminal {
        let mut child = command.spawn().expect("python3 starts");
        let keyboard = child.stdin.take().expect("a pipe");
        let mut screen = BufReader::new(child.stdout.take().expect("a pipe"));
        let said = Arc::new(Mutex::new(String::new()));
        let hears = Arc::clone(&said);
        std::thread::spawn(move || {
            let mut line = String::new();
            while screen.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                hears.lock().expect("the text").push_str(&line);
                line.clear();
            }
        });
        Terminal { child: Some(child), keyboard, said }
    }

    fn said(&self) -> String {
        self.said.lock().expect("the text").clone()
    }

    fn wait_for(&mut self, text: &str) -> String {
        let mut found = None;
        wait_until(text, || {
            found = self.said().lines().find(|line| line.contains(text)).map(str::to_owned);
            found.is_some()
        });
        found.expect("it was waited for")
    }

    /// Presses Ctrl-C and waits for the end.
    fn interrupt(&mut self) -> Option<i32> {
        self.keyboard.write_all(b"\x03").expect("it reads");
        wait(self.child.take().expect("it runs")).status.code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
