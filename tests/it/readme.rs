//! What the documents say can be done: every command is run or listed with the reason why not,
//! every link leads somewhere, every error that is explained exists.

use crate::support::cli::{Machine, Ran, tiny_with_a_long_context, wait};
use crate::support::golden::data;
use crate::support::http::{Server, Setup};
use crate::support::markdown::{self, Block};
use crate::support::process::Process;
use crate::support::python::Client;
use crate::support::store::ShakyDisk;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const KEY: &str = "key-of-the-tests-1";

/// How a block of code is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// By a shell, with the program and a tiny model.
    Shell,
    /// The same against a server, to which `localhost:8000` leads.
    Asks,
    /// It starts a server, which must get ready.
    Serves,
    /// Its lines after `$` by a shell; what it shows of answers is the default model's.
    Transcript,
    /// By Python with the SDKs, against a server.
    Python,
    /// It is no command.
    Text,
    /// For this reason.
    NotRun(&'static str),
}

const BUILDS: &str = "builds the program, as whoever runs the tests does";
const MEASURES: &str = "takes minutes; tests/it/bench.rs runs the suites";
const NEEDS_ANOTHER: &str = "needs another server; tests/it/baselines.rs has some";
const NEEDS_ROOT: &str = "needs systemd and its root";
const OTHER_TOOLS: &str = "needs nightly Rust, or what a release build has left";
const MADE_ONCE: &str = "makes the tests' data anew, with mlx-lm";

/// Each block by the first words of its first line.
const BLOCKS: &[(&str, &str, How)] = &[
    ("README.md", "$ (cat LICENSE;", How::Transcript),
    ("README.md", "cargo run --release", How::Shell),
    ("README.md", "cargo install --path .", How::NotRun(BUILDS)),
    ("README.md", ".ci/release", How::NotRun(BUILDS)),
    ("README.md", "semantic serve", How::Serves),
    ("README.md", "export KEY=", How::NotRun("a key stands in its place")),
    ("README.md", "curl http://localhost:8000/v1/agents/planner/generate", How::Asks),
    ("README.md", "curl http://localhost:8000/v1/agents/planner/fork", How::Asks),
    ("README.md", "semantic cache list", How::Shell),
    ("README.md", "semantic generate --agent ada", How::Shell),
    ("README.md", "import os", How::Python),
    ("README.md", "curl http://localhost:8000/v1/chat/completions", How::Asks),
    ("README.md", "semantic bench ", How::NotRun(MEASURES)),
    ("README.md", "semantic bench --url", How::NotRun(NEEDS_ANOTHER)),
    ("README.md", "semantic bench --make-model", How::NotRun("writes a gigabyte")),
    ("docs/disk-format.md", "cache/", How::Text),
    ("docs/disk-format.md", " agent \"planner\"", How::Text),
    ("docs/disk-format.md", "8 bytes", How::Text),
    ("docs/disk-format.md", "head ", How::Text),
    ("docs/disk-format.md", "\"semantic\", version 1 · number", How::Text),
    ("docs/disk-format.md", "save ", How::Text),
    ("docs/disk-format.md", "\"semantic-agent 1", How::Text),
    ("docs/http-api.md", "curl http://localhost:8000/v1/responses", How::Asks),
    ("docs/http-api.md", "curl http://localhost:8000/v1/chat/completions", How::Asks),
    ("docs/http-api.md", "curl http://localhost:8000/v1/agents/planner/generate", How::Asks),
    ("docs/http-api.md", "RateLimit-Policy: ", How::Text),
    ("docs/operating.md", "sum(rate(", How::Text),
    ("docs/benchmarks.md", "semantic bench --suite restore", How::NotRun(MEASURES)),
    (
        "docs/benchmarks.md",
        "semantic bench --from",
        How::NotRun("needs a report of a suite of minutes"),
    ),
    ("docs/benchmarks/agents.md", "semantic bench --suite agents", How::NotRun(MEASURES)),
    ("docs/deploy/README.md", "sudo mkdir", How::NotRun(NEEDS_ROOT)),
    ("docs/deploy/README.md", "sudo apt install", How::NotRun(NEEDS_ROOT)),
    ("docs/deploy/README.md", "sudo systemd-run", How::NotRun(NEEDS_ROOT)),
    ("crates/kernels/README.md", "cargo bench -p kernels", How::NotRun(MEASURES)),
    ("crates/kernels/README.md", "RUSTC_BOOTSTRAP=1", How::NotRun(OTHER_TOOLS)),
    ("crates/kernels/README.md", "MIRIFLAGS=", How::NotRun(OTHER_TOOLS)),
    ("crates/kernels/README.md", "nm -C target/release", How::NotRun(OTHER_TOOLS)),
    ("crates/mlx-sys/README.md", "dirname \"$(ldd target/release", How::NotRun(OTHER_TOOLS)),
    ("tests/data/README.md", "python3.11 -m venv", How::NotRun(MADE_ONCE)),
    ("tests/data/README.md", "{\"source\"", How::Text),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text_of(file: &Path) -> String {
    fs::read_to_string(root().join(file)).expect("a document")
}

/// How a block is checked: of several entries that fit, the one that says most.
fn how(file: &str, block: &Block) -> Option<&'static (&'static str, &'static str, How)> {
    let fits = |entry: &&(&str, &str, How)| entry.0 == file && block.text.starts_with(entry.1);
    BLOCKS.iter().filter(fits).max_by_key(|entry| entry.1.len())
}

/// All that are checked in this way, by file.
fn checked(wanted: How) -> Vec<(PathBuf, Block)> {
    let mut found = Vec::new();
    for file in markdown::files(root()) {
        let name = file.display().to_string();
        let blocks = markdown::blocks(&text_of(&file)).into_iter();
        let wanted = blocks.filter(|block| how(&name, block).is_some_and(|it| it.2 == wanted));
        found.extend(wanted.map(|block| (file.clone(), block)));
    }
    assert!(!found.is_empty(), "{wanted:?}");
    found
}

/// A shell on a machine of its own, on which the program is installed and cargo runs it.
fn shell(machine: &Machine, script: &str) -> Command {
    let bin = machine.path("bin");
    fs::create_dir_all(&bin).expect("a folder");
    let program = env!("CARGO_BIN_EXE_semantic");
    let semantic = format!("#!/bin/sh\nexec '{program}' \"$@\"\n");
    let cargo = "#!/bin/sh\ncase \"$*\" in\n  test) exit 0 ;;\n  \"run --release -- \"*) shift 3 ;;\n  \
                 *) exit 64 ;;\nesac\nexec semantic \"$@\"\n";
    // It fails for what the server refuses, and says nothing of its own.
    let curl = "#!/bin/sh\nPATH=${PATH#*:}\nexec curl --silent --show-error --fail \"$@\"\n";
    for (name, text) in [("semantic", semantic.as_str()), ("cargo", cargo), ("curl", curl)] {
        let path = bin.join(name);
        fs::write(&path, text).expect("a script");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
    let mut shell = machine.shell(script);
    let path = std::env::var("PATH").unwrap_or_default();
    shell
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("SEMANTIC_MODEL", data("tiny/llama-f16"))
        .env("SEMANTIC_MAX_TOKENS", "8")
        .env("KEY", KEY)
        .stdin(Stdio::null());
    shell
}

fn runs(mut shell: Command, file: &Path, block: &Block) -> Ran {
    let ran = Ran::of(wait(shell.spawn().expect("bash starts")));
    let (file, line) = (file.display(), block.line);
    assert_eq!(ran.code, Some(0), "{file}:{line}: {}\n{ran:?}", block.text);
    ran
}

#[test]
fn every_block_of_code_is_checked_or_listed_with_a_reason() {
    let mut unknown = Vec::new();
    let mut used = BTreeSet::new();
    for file in markdown::files(root()) {
        let name = file.display().to_string();
        for block in markdown::blocks(&text_of(&file)) {
            match how(&name, &block) {
                Some(entry) => drop(used.insert((entry.0, entry.1))),
                None => unknown.push(format!("{name}:{}: {}", block.line, block.first_line())),
            }
        }
    }
    assert!(unknown.is_empty(), "not in the list:\n{}", unknown.join("\n"));
    let listed = BLOCKS.iter().map(|entry| (entry.0, entry.1));
    let gone: Vec<_> = listed.filter(|entry| !used.contains(entry)).collect();
    assert!(gone.is_empty(), "listed and not there: {gone:?}");
}

#[test]
fn the_commands_of_the_documents_run() {
    let machine = Machine::new();
    // What the reader's server has kept.
    let planner = ["generate", "--agent", "planner", "--namespace", "default", "-n4", "Plan."];
    let mut before = machine.command(&planner);
    before.env("SEMANTIC_MODEL", data("tiny/llama-f16"));
    assert_eq!(machine.finish(before, b"").code, Some(0));
    let mut said = String::new();
    for (file, block) in checked(How::Shell) {
        said.push_str(&runs(shell(&machine, &block.text), &file, &block).stdout);
    }
    for expected in ["planner", "generation"] {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn the_requests_of_the_documents_are_answered() {
    let replies = vec!["The stairs of the museum.", "Then by tram."];
    let disk = Some(ShakyDisk::default());
    let machine = Machine::new();
    let server = Server::start(Setup { keys: Some(KEY), replies, disk, ..Setup::default() });
    for (file, mut block) in checked(How::Asks) {
        block.text = at(&server, &block.text);
        let ran = runs(shell(&machine, &block.text), &file, &block);
        assert!(!ran.stdout.is_empty(), "{ran:?}");
    }
}

fn at(server: &Server, text: &str) -> String {
    assert!(text.contains("localhost:8000"), "{text}");
    text.replace("localhost:8000", &server.address.to_string())
}

#[test]
fn the_server_of_the_documents_gets_ready() {
    let machine = Machine::new();
    let keyed = machine.run(&["serve", "--new-key", "default"]);
    assert_eq!(keyed.code, Some(0), "{keyed:?}");
    for (_, block) in checked(How::Serves) {
        let words = block.text.split_whitespace().skip(1);
        let arguments: Vec<&str> = words.chain(["--port=0", "--threads=1"]).collect();
        let mut command = machine.command(&arguments);
        command.env("SEMANTIC_MODEL", data("tiny/llama-f16"));
        let mut process = Process::start(command);
        process.wait_for("is ready after ");
        process.kill(Signal::INT);
        assert_eq!(process.end().code, Some(0));
    }
}

/// What is cut out of an answer by other programs is not looked at.
#[test]
fn the_commands_of_a_transcript_run() {
    let machine = Machine::new();
    let model = tiny_with_a_long_context(&machine);
    fs::copy(root().join("LICENSE"), machine.path("LICENSE")).expect("a copy");
    for (file, block) in checked(How::Transcript) {
        let mut commands = Vec::new();
        for line in block.text.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => commands.push(command.to_owned()),
                None if line.starts_with("    ") => {
                    commands.last_mut().expect("a command").push_str(&format!("\n{line}"));
                }
                None => (),
            }
        }
        assert!(commands.len() > 1, "{}", block.text);
        let mut sources = Vec::new();
        for command in commands {
            let command = command.split("jq ").next().expect("a part").trim_end();
            let mut shell = shell(&machine, command.trim_end_matches('|'));
            shell.env("SEMANTIC_MODEL", &model);
            let ran = runs(shell, &file, &block);
            let answer: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
            assert!(answer["timings"]["ttft_ms"].is_number(), "{answer}");
            sources.push(answer["semantic"]["source"].clone());
        }
        assert_eq!(sources, ["cold", "warm"]);
        let shown = block.text.lines().filter(|line| line.starts_with('['));
        let shown: Vec<serde_json::Value> =
            shown.map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(sources, shown.iter().map(|line| line[2].clone()).collect::<Vec<_>>());
    }
}

#[test]
fn the_programs_of_the_documents_are_answered() {
    let machine = Machine::new();
    let server = Server::start(Setup {
        keys: Some(KEY),
        replies: vec!["The air scatters blue.", "The air scatters blue."],
        ..Setup::default()
    });
    let programs = checked(How::Python);
    assert_eq!(programs.len(), 2);
    for (_, block) in programs {
        assert_eq!(block.language, "python");
        let script = machine.path("program.py");
        fs::write(&script, at(&server, &block.text)).expect("a script");
        let script = script.to_str().expect("a path");
        let said = Client::new(script).with("KEY", KEY).runs(&[]);
        assert!(said.starts_with("The air scatters blue.\n"), "{said}");
        assert!(said.ends_with("tokens were not computed again\n"), "{said}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut count = 0;
    for file in markdown::files(root()) {
        let folder = file.parent().expect("a folder");
        for link in markdown::links(&text_of(&file)) {
            count += 1;
            let target = match link.path.is_empty() {
                true => file.clone(),
                false => folder.join(&link.path),
            };
            let is_there = root().join(&target).exists();
            let has_place = |anchor: &String| {
                let is_document = target.extension().is_some_and(|it| it == "md");
                is_document && markdown::anchors(&text_of(&target)).contains(anchor)
            };
            if !is_there || !link.anchor.as_ref().is_none_or(has_place) {
                broken.push(format!("{}:{}: {link:?}", file.display(), link.line));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(count > 10, "{count}");
}

/// Each message by the parts between what differs from case to case.
#[test]
fn every_error_that_is_explained_exists() {
    let sources = sources();
    let readme = text_of(Path::new("README.md"));
    let rows = markdown::first_cells(&readme, "Troubleshooting");
    assert!(rows.len() > 8, "{rows:?}");
    for row in rows {
        for message in row.split('`').skip(1).step_by(2) {
            for part in message.split('…').map(str::trim).filter(|part| part.len() > 3) {
                assert!(sources.contains(part), "nobody says {part:?}");
            }
        }
    }
}

/// Everything that may say something, as one text, without the breaks that lines of code need.
fn sources() -> String {
    let mut text = String::new();
    let mut folders = vec![root().join("src"), root().join("crates/mlx-sys/build")];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).expect("a folder") {
            let path = item.expect("an item").path();
            match path.is_dir() {
                true => folders.push(path),
                false => text.push_str(&fs::read_to_string(path).unwrap_or_default()),
            }
        }
    }
    let joined: Vec<&str> = text.split("\\\n").map(str::trim_start).collect();
    joined.concat()
}

/// What reads the documents can itself be wrong.
#[test]
fn blocks_links_and_places_are_found() {
    let text = "# A `b`, c\n\n    one\n    two\n\ntext\n    no block\n\n```sh\n$ [x](no)\n```\n[y](z.md#a-b-c)\n";
    let blocks = markdown::blocks(text);
    let found: Vec<(usize, &str, &str)> =
        blocks.iter().map(|it| (it.line, it.language.as_str(), it.text.as_str())).collect();
    assert_eq!(found, [(3, "", "one\ntwo\n"), (10, "sh", "$ [x](no)\n")]);
    assert!(markdown::anchors(text).contains("a-b-c"));
    let links = markdown::links(text);
    assert_eq!((links.len(), links[0].path.as_str()), (1, "z.md"));
}
