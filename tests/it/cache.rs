//! `semantic cache` as its users see it, on a store that was made without a model.

mod evicting;
mod explaining;
mod keeping;
mod listing;
mod moving;
mod opening;
mod repairing;

use crate::support::agents::{
    Agents, ODD, files, ids_of, machine_with_agents, model, model_of, tiny,
};
use crate::support::cli::{Machine, Ran, copy_folder};
use expect_test::{Expect, expect};
use semantic::types::Fingerprint;
use serde_json::Value as Json;
use std::path::PathBuf;

fn cache(machine: &Machine, arguments: &[&str]) -> Ran {
    machine.run(&[&["cache"], arguments].concat())
}

/// What a command printed, and its exit code if it is not 0.
fn shown(machine: &Machine, arguments: &[&str]) -> String {
    let Ran { code, stdout, stderr } = cache(machine, arguments);
    let mut text = stdout;
    for line in stderr.lines() {
        text += format!("! {line}").trim_end();
        text.push('\n');
    }
    if code != Some(0) {
        text += &format!("exit code {code:?}\n");
    }
    without_names(&machine.anonymous(&text).replace(&tiny().display().to_string(), "$TINY"))
}

/// Names and digests of blocks are others in every store.
fn without_names(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_hexdigit();
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_hex) {
        let end = rest[start..].find(|c| !is_hex(c)).map_or(rest.len(), |end| start + end);
        out += &rest[..start];
        let word = &rest[start..end];
        let is_repeated = word.bytes().all(|byte| byte == b'0' || byte == b'7');
        match word.len() {
            20 | 32 | 64 if !is_repeated => out += &format!("#{}", word.len()),
            2 if out.ends_with("/b/") => out += "#2",
            _ => out += word,
        }
        rest = &rest[end..];
    }
    out + rest
}

fn check(machine: &Machine, arguments: &[&str], expected: Expect) {
    expected.assert_eq(&shown(machine, arguments));
}

fn json(machine: &Machine, arguments: &[&str]) -> Json {
    let ran = cache(machine, &[arguments, &["--json"]].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    serde_json::from_str(&ran.stdout).expect("one JSON object")
}

fn agents(machine: &Machine) -> Vec<String> {
    let list = json(machine, &["list", "--all-namespaces"]);
    let all = list["agents"].as_array().expect("a list").iter();
    all.map(|it| it["agent"].as_str().expect("a name").to_owned()).collect()
}

/// The file that ends so and has so many bytes.
fn file(machine: &Machine, ends: &str, bytes: u64) -> PathBuf {
    let paths = machine.stored().into_iter().filter(|path| path.ends_with(ends));
    let mut found = paths
        .map(|path| machine.path(&path))
        .filter(|path| std::fs::metadata(path).unwrap().len() == bytes);
    let path = found.next().expect("such a file");
    assert_eq!(found.next(), None, "only one is so");
    path
}

fn damage(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().expect("it has some") ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// A machine with one agent of the tiny model, whose conversation is this prompt and a reply.
fn machine_with_a_conversation(texts: &[&str]) -> Machine {
    let machine = Machine::new();
    let agents = Agents::open(&machine, model_of(&tiny(), "8"));
    for text in texts {
        agents.save("local", "poet", agents.store.new_line(), &ids_of(text));
    }
    machine
}
