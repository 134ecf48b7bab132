//! Holds the rules that `src/lib.rs` and the style state: which room may name what, what lies where.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A room, the rooms it may import, and the names that it alone may use in `src`.
struct Room {
    name: &'static str,
    imports: &'static [&'static str],
    alone: &'static [&'static str],
}

const ROOMS: &[Room] = &[
    Room { name: "types", imports: &[], alone: &[] },
    Room { name: "metrics", imports: &["types"], alone: &["prometheus"] },
    Room {
        name: "text",
        imports: &["types"],
        alone: &["tokenizers", "minijinja", "llguidance", "toktrie"],
    },
    Room {
        name: "model",
        imports: &["types"],
        alone: &["mlx_rs", "mlx_sys", "mlx_custom", "kernels", "hf_hub"],
    },
    Room { name: "store", imports: &["types", "metrics"], alone: &["blake3"] },
    Room { name: "engine", imports: &["types", "metrics", "text", "model", "store"], alone: &[] },
    Room {
        name: "http",
        imports: &["types", "metrics", "text", "engine"],
        alone: &["axum", "hyper", "hyper_util", "http_body_util", "subtle"],
    },
    Room { name: "config", imports: &[], alone: &["toml", "directories"] },
    Room {
        name: "cli",
        imports: &["types", "metrics", "text", "model", "store", "engine", "http", "config"],
        alone: &["clap", "indicatif", "anyhow", "ctrlc"],
    },
];

/// What printing looks like; `cli` alone does it.
const PRINTING: &[&str] = &["println", "print", "eprintln", "eprint", "io::stdout", "io::stderr"];
const FILES: &[&str] = &["std::fs", "tokio::fs"];
const ROOMS_WITHOUT_FILES: &[&str] = &["types", "text", "engine", "http"];
/// Threads and channels are the engine's. A download that waits between two tries starts none.
const THREADS: &[&str] = &["thread::spawn", "thread::scope", "thread::Builder", "mpsc"];
/// `pip` blocks when nobody reads its stderr, so a thread of its own does; and ours may block, so a
/// thread of its own writes the log. One more does nothing but wait for the end of stdin, and a schema
/// may need a deeper stack than other work.
const OTHER_THREADS: [&str; 4] = [
    "src/model/source/pypi.rs",
    "src/cli/log/queue.rs",
    "src/cli/parent.rs",
    "src/http/workers.rs",
];
const CLOCKS: &[&str] = &["SystemTime::now", "Instant::now"];
/// The one file that knows what an answer is to HTTP.
const STATUS_CODES: &str = "src/http/error.rs";
/// A name from outside, written into a line of the log as it is.
const SHOWN_AGENT: &str = "agent = %";
/// Files that take the time as an argument if they need it.
const PURE: &[&str] = &[
    "src/types.rs",
    "src/text/",
    "src/engine/pool.rs",
    "src/engine/prefix.rs",
    "src/engine/queue.rs",
    "src/engine/pace.rs",
    "src/engine/sequence.rs",
    "src/model/sample.rs",
    "src/model/spec.rs",
    "src/model/batch.rs",
    "src/model/fake.rs",
    "src/store/block.rs",
    "src/store/budget.rs",
    "src/store/bytes.rs",
    "src/store/header.rs",
    "src/store/index.rs",
    "src/store/keys.rs",
    "src/store/layout.rs",
    "src/store/manifest.rs",
    "src/cli/bench/html/",
];
/// Where digests of keys are compared, and how.
const KEYS: &str = "src/http/keys.rs";
const KEYS_COMPARED: &str = "\
impl PartialEq for KeyDigest {
    fn eq(&self, other: &KeyDigest) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}
";
/// Where there are keys and their digests.
const KEY_FILES: &[&str] =
    &[KEYS, "src/http/guard.rs", "src/http/guesses.rs", "src/cli/serve/keys.rs"];
const LINES_MAX: usize = 700;
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "#[ignore", "FIXME"];
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "build.rs",
    "clippy.toml",
    "completions",
    "config.example.toml",
    "crates",
    "docs",
    "man",
    "rustfmt.toml",
    "src",
    "tests",
];

#[test]
fn every_file_keeps_the_rules() {
    let mut broken = Vec::new();
    let files = [rust_files("src"), rust_files("tests/it")].concat();
    assert!(files.len() > 50, "only {} files found", files.len());
    for file in files {
        let path = file.strip_prefix(root()).unwrap().to_str().unwrap();
        broken.extend(complaints(path, &fs::read_to_string(&file).unwrap()));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn nothing_else_lies_at_the_top_level() {
    let strangers = strangers(top_level().iter().map(String::as_str));
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[test]
fn the_map_shows_what_is_there() {
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let broken = map_complaints(&map);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A rule that cannot fail holds nothing.
#[test]
fn every_rule_can_be_broken() {
    let examples = [
        ("src/model/a.rs", "//! A.\nuse crate::text::Tokenizer;"),
        ("src/text/a.rs", "//! A.\nfn f() { crate::{types::TokenId, model::f()} }"),
        ("src/text/a.rs", "//! A.\nuse super::super::engine::run;"),
        ("src/config.rs", "//! A.\nuse super::types;"),
        ("src/engine/a.rs", "//! A.\nuse mlx_rs::Array;\n#[cfg(test)]\nmod tests {\n}"),
        ("src/model/a.rs", "//! A.\nfn f() { anyhow::bail!(\"x\") }"),
        ("src/engine/a.rs", "//! A.\nfn f() { println!(\"it's // no comment\"); eprint!(\"\") }"),
        (
            "src/model/a.rs",
            "//! A.\nuse std::{io::{self, Read}, path::Path};\nfn f() { io::stdout() }",
        ),
        ("src/text/a.rs", "//! A.\nuse std::{fs, time::Instant};\nfn f() { Instant::now() }"),
        ("src/model/a.rs", "//! A.\nfn f() { std::thread::spawn(f); std::sync::mpsc::channel() }"),
        ("src/engine/sequence.rs", "//! A.\nfn f() { std::time::SystemTime::now() }"),
        ("src/http/a.rs", "//! A.\nuse axum::http::StatusCode;"),
        (
            "src/store/a.rs",
            "//! A.\nfn f(agent: &AgentId) { tracing::info!(agent = %agent, \"gone\") }",
        ),
        ("src/http/keys.rs", "//! A.\nfn f() { grant.digest.0 == other }"),
        ("src/model/a.rs", "use std::io;"),
        ("src/model/a.rs", "//! A.\nfn f() { unsafe { g() } }"),
        ("tests/it/a.rs", "//! A.\n#[ignore]\nfn f() { todo!() } // FIXME"),
        ("src/attic/a.rs", "//! A."),
    ];
    let mut found: Vec<String> =
        examples.iter().flat_map(|(path, source)| complaints(path, source)).collect();
    let long = "//! A.\n".repeat(LINES_MAX + 1);
    found.extend(complaints("src/model/long.rs", &long));
    found.extend(complaints("tests/it/long.rs", &long));
    found.extend(strangers(["src", "notes.txt"]));
    found.extend(map_complaints(
        "//! | [`types`] | x | |\n//! See `model/absent.rs`.\nmod types;\nmod b;\n",
    ));
    expect_test::expect![[r#"
        src/model/a.rs: model may not import text
        src/text/a.rs: text may not import model
        src/text/a.rs: text may not import engine
        src/config.rs: config may not import types
        src/engine/a.rs: mlx_rs is named in model alone
        src/model/a.rs: anyhow is named in cli alone
        src/engine/a.rs: names println: only cli prints
        src/engine/a.rs: names eprint: only cli prints
        src/model/a.rs: names io::stdout: only cli prints
        src/text/a.rs: names std::fs: this room reads no files
        src/text/a.rs: names Instant::now: this file has no clock
        src/model/a.rs: names thread::spawn: only the engine has threads and channels
        src/model/a.rs: names mpsc: only the engine has threads and channels
        src/engine/sequence.rs: names SystemTime::now: this file has no clock
        src/http/a.rs: names StatusCode: only http/error.rs picks status codes
        src/store/a.rs: logs `agent = %`: a name may hold a new line; as_str() is escaped
        src/http/keys.rs: does not compare digests of keys by ct_eq
        src/http/keys.rs: compares what a key's digest holds: fn f() { grant.digest.0 == other }
        src/model/a.rs: does not begin with a line that says what it is for
        src/model/a.rs: is unsafe; that belongs in crates/
        tests/it/a.rs: contains todo!
        tests/it/a.rs: contains #[ignore
        tests/it/a.rs: contains FIXME
        src/attic/a.rs: is in no room that tests/it/tidy.rs knows
        src/model/long.rs: has 701 lines; at most 700
        tests/it/long.rs: has 701 lines; at most 700
        notes.txt has no place at the top level
        map: b is a module and not in the table
        map: cli is a room with rules and not in the table
        map: config is a room with rules and not in the table
        map: engine is a room with rules and not in the table
        map: http is a room with rules and not in the table
        map: metrics is a room with rules and not in the table
        map: model is a room with rules and not in the table
        map: store is a room with rules and not in the table
        map: text is a room with rules and not in the table
        map: model/absent.rs does not exist"#]]
    .assert_eq(&found.join("\n"));

    let fine = "//! A.\n// println! in unsafe std::fs\nconst C: char = '\"';\nfn f<'a>(x: &'a str) { g(r#\"toml::\"# ) }\n\
                #[cfg(test)]\nmod tests {\n use std::fs; }";
    assert_eq!(complaints("src/text/a.rs", fine), [""; 0]);
}

/// Every rule that the file breaks, as `path: what is wrong`.
fn complaints(path: &str, source: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if !source.starts_with("//! ") && path != "src/main.rs" {
        broken.push("does not begin with a line that says what it is for".to_owned());
    }
    // This file names what it forbids.
    if path != "tests/it/tidy.rs" {
        let unfinished = UNFINISHED.iter().filter(|word| source.contains(**word));
        broken.extend(unfinished.map(|word| format!("contains {word}")));
    }
    let all = paths(&code(source));
    if all.contains("unsafe") {
        broken.push("is unsafe; that belongs in crates/".to_owned());
    }
    let lines = source.lines().count();
    if lines > LINES_MAX {
        broken.push(format!("has {lines} lines; at most {LINES_MAX}"));
    }
    if let Some(inside) = path.strip_prefix("src/") {
        broken.extend(room_complaints(path, inside, source, &all));
    }
    broken.into_iter().map(|what| format!("{path}: {what}")).collect()
}

fn room_complaints(path: &str, inside: &str, source: &str, all: &BTreeSet<String>) -> Vec<String> {
    let first = inside.split('/').next().unwrap().trim_end_matches(".rs");
    if matches!(first, "lib" | "main") {
        return Vec::new();
    }
    let Some(room) = ROOMS.iter().find(|room| room.name == first) else {
        return vec![format!("is in no room that {} knows", file!())];
    };
    let mut broken = Vec::new();
    for other in ROOMS {
        let is_named = all.iter().any(|name| room_named(inside, name) == Some(other.name));
        if is_named && other.name != room.name && !room.imports.contains(&other.name) {
            broken.push(format!("{} may not import {}", room.name, other.name));
        }
    }
    // Tests may read files and watch the clock.
    let is_test = inside.contains("/tests/") || inside.ends_with("/tests.rs");
    let product = match is_test {
        true => BTreeSet::new(),
        false => paths(&code(source.split("#[cfg(test)]\nmod tests {").next().unwrap())),
    };
    for other in ROOMS.iter().filter(|other| other.name != room.name) {
        for name in other.alone {
            let inside_crate = format!("{name}::");
            if product.iter().any(|path| path.starts_with(&inside_crate)) {
                broken.push(format!("{name} is named in {} alone", other.name));
            }
        }
    }
    if source.contains(SHOWN_AGENT) {
        broken
            .push(format!("logs `{SHOWN_AGENT}`: a name may hold a new line; as_str() is escaped"));
    }
    let mut forbid = |names: &[&str], why: &str| {
        for name in names {
            let name_inside = format!("::{name}::");
            if product.iter().any(|path| format!("::{path}::").contains(&name_inside)) {
                broken.push(format!("names {name}: {why}"));
            }
        }
    };
    if room.name != "cli" {
        forbid(PRINTING, "only cli prints");
    }
    if ROOMS_WITHOUT_FILES.contains(&room.name) {
        forbid(FILES, "this room reads no files");
    }
    if room.name != "engine" && !OTHER_THREADS.contains(&path) {
        forbid(THREADS, "only the engine has threads and channels");
    }
    if path != STATUS_CODES {
        forbid(&["StatusCode"], "only http/error.rs picks status codes");
    }
    if PURE.iter().any(|pure| path.starts_with(pure)) {
        forbid(CLOCKS, "this file has no clock");
    }
    broken.extend(leaks(path, source));
    broken
}

/// Comparisons that tell by their time how much of a key's digest was right.
fn leaks(path: &str, source: &str) -> Vec<String> {
    let product = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut broken = Vec::new();
    if path == KEYS && !product.contains(KEYS_COMPARED) {
        broken.push("does not compare digests of keys by ct_eq".to_owned());
    }
    let inner = ["digest.0", "hash", "Digest(hash)", "as_bytes()"];
    let compares =
        |line: &str| ["==", "!=", ".eq(", ".ne(", ".cmp("].iter().any(|by| line.contains(by));
    let is_key_file = KEY_FILES.contains(&path);
    for line in product.lines().filter(|line| is_key_file && compares(line)) {
        if inner.iter().any(|name| line.contains(name)) {
            broken.push(format!("compares what a key's digest holds: {}", line.trim()));
        }
    }
    broken
}

/// The room that a path names from the file `inside` of `src`.
fn room_named<'a>(inside: &str, path: &'a str) -> Option<&'a str> {
    let mut parts = path.split("::").peekable();
    if parts.next_if_eq(&"crate").is_some() {
        return parts.next();
    }
    let mut ups = 0;
    while parts.next_if_eq(&"super").is_some() {
        ups += 1;
    }
    // `a/mod.rs` is one module deep like `a.rs`.
    let depth = inside.split('/').filter(|part| *part != "mod.rs").count();
    (ups == depth).then(|| parts.next()).flatten()
}

fn strangers<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names
        .into_iter()
        .filter(|name| !TOP_LEVEL.contains(name) && !["target", ".git"].contains(name))
        .map(|name| format!("{name} has no place at the top level"))
        .collect()
}

/// What `src/lib.rs` says and is not so: rooms in the table and modules, names that a room alone
/// has, and every path.
fn map_complaints(map: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let (doc, code): (Vec<&str>, Vec<&str>) = map.lines().partition(|line| line.starts_with("//!"));
    let modules: BTreeSet<&str> = code
        .iter()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    let mut in_table = BTreeSet::new();
    for row in doc.iter().filter_map(|line| line.strip_prefix("//! | [`")) {
        let (name, rest) = row.split_once("`]").expect("a link ends");
        in_table.insert(name);
        let last = rest.rsplit('|').nth(1).expect("three columns");
        let alone = ROOMS.iter().find(|room| room.name == name).map_or(&[][..], |room| room.alone);
        for word in last.split('`').skip(1).step_by(2).filter(|word| !alone.contains(word)) {
            broken.push(format!("map: {name} alone names {word}, which no rule holds"));
        }
    }
    let rooms = ROOMS.iter().map(|room| room.name).collect();
    for (left, right, what) in [
        (&in_table, &modules, "is in the table and no module"),
        (&modules, &in_table, "is a module and not in the table"),
        (&rooms, &in_table, "is a room with rules and not in the table"),
        (&in_table, &rooms, "is in the table and has no rules"),
    ] {
        broken.extend(left.difference(right).map(|name| format!("map: {name} {what}")));
    }
    for path in doc.iter().flat_map(|line| line.split('`').skip(1).step_by(2)) {
        let is_there = root().join(path).exists() || root().join("src").join(path).exists();
        if path.contains('/') && !is_there {
            broken.push(format!("map: {path} does not exist"));
        }
    }
    broken
}

/// Every path that the code names, groups spelled out: `std::{fs, io::Read}` is `std::fs` and
/// `std::io::Read`.
fn paths(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut prefixes = vec![String::new()];
    let mut path = String::new();
    for c in code.chars() {
        if c.is_alphanumeric() || c == '_' || c == ':' {
            path.push(c);
            continue;
        }
        let whole = format!("{}{path}", prefixes.last().expect("the file itself is never closed"));
        let opens_group = c == '{' && path.ends_with("::");
        if !path.is_empty() && !opens_group {
            found.insert(whole.clone());
        }
        match c {
            '{' if opens_group => prefixes.push(whole),
            // A body, in which paths begin anew.
            '{' => prefixes.push(String::new()),
            '}' if prefixes.len() > 1 => drop(prefixes.pop()),
            _ => (),
        }
        path.clear();
    }
    found
}

/// The source without comments and without what is inside strings and characters.
fn code(source: &str) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            raw_string(rest)
        } else if c == '"' {
            quoted(rest, '"')
        } else if c == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        out.push(' ');
        rest = &rest[skipped..];
    }
    out
}

/// Bytes of the raw string, or raw identifier's mark, that the text begins with.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
    let start = 1 + hashes;
    if !text[start..].starts_with('"') {
        return start;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = &text[start + 1..];
    start + 1 + body.find(&end).map_or(body.len(), |at| at + end.len())
}

/// Bytes of the string or character that the text begins with.
fn quoted(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => (),
        }
    }
    text.len()
}

/// Whether the quotation mark that the text begins with opens a character, not a lifetime.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    chars.next() == Some('\\') || chars.next() == Some('\'')
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for name in names_in(&folder) {
            let path = folder.join(name);
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => files.push(path),
                _ => (),
            }
        }
    }
    files.sort();
    files
}

/// What a clone has at the top level: not what an editor or the system left there, unless there
/// is no git to ask, and then without what is hidden.
fn top_level() -> BTreeSet<String> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let is_clone = |listed: &Output| listed.status.success() && !listed.stdout.is_empty();
    let Some(listed) = listed.ok().filter(is_clone) else {
        return names_in(root()).into_iter().filter(|name| !name.starts_with('.')).collect();
    };
    let paths = String::from_utf8(listed.stdout).unwrap();
    let first = |path: &str| path.split('/').next().unwrap().to_owned();
    paths.split_terminator('\0').map(first).collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
