//! Bad input of every kind: a message that names the file and the reason, the right exit code, no
//! panic, nothing left behind.

mod folders;
mod gguf;
mod settings;
mod spoilt;
mod texts;

use crate::support::cli::{Machine, Ran, copy_folder};
use crate::support::golden::data;
use crate::support::hub::{Fault, Hub};
use crate::support::scale::scaled;
use expect_test::{Expect, expect};
use semantic::model::{Batch, Device, LoadOptions, ModelFiles, Row, Wanted};
use semantic::text::{ChatTemplate, Message, RenderOptions, Special, Tokenizer};
use semantic::types::{BlockId, TokenId};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::time::SystemTime;

const OTHER_MODEL: &str = "hint: fetch it again if its files may be damaged, or take another model: \
                           `semantic models --all` lists some\n";

/// One refusal: the program ended with `code`, said `message` and did nothing else.
fn refused(machine: &Machine, ran: &Ran, code: i32, message: &Expect) {
    // The hint is one for all that is wrong with a model.
    message.assert_eq(&machine.anonymous(&ran.stderr).replace(OTHER_MODEL, ""));
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    assert!(ran.stderr.starts_with("error: "), "{ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    assert_eq!(machine.stored(), Vec::<String>::new(), "{ran:?}");
}

/// A folder model with this damage.
fn check_folder(damage: impl FnOnce(&Path), message: Expect) {
    let machine = Machine::new();
    let folder = machine.path("model");
    copy_folder(&data("tiny/llama-f16"), &folder);
    damage(&folder);
    let ran = machine.run(&["generate", "--model", "./model", "hi", "-n2"]);
    refused(&machine, &ran, 1, &message);
}

/// A folder model whose JSON file is this one.
fn check_json(file: &str, change: impl FnOnce(&mut Json), message: Expect) {
    let damage = |folder: &Path| {
        let path = folder.join(file);
        let mut json = serde_json::from_slice(&read(&path)).expect("JSON");
        change(&mut json);
        write(&path, json.to_string());
    };
    check_folder(damage, message);
}

/// A GGUF model with this damage.
fn check_gguf(damage: impl FnOnce(&mut Vec<u8>), message: Expect) {
    let machine = Machine::new();
    let mut bytes = read(&data("gguf/llama-f16.gguf"));
    damage(&mut bytes);
    write(&machine.path("model.gguf"), bytes);
    let ran = machine.run(&["generate", "--model", "model.gguf", "hi", "-n2"]);
    refused(&machine, &ran, 1, &message);
}

/// Arguments that a sound model is not started with.
fn check_usage(arguments: &[&str], message: Expect) {
    let machine = Machine::new();
    let model = data("tiny/llama-f16").display().to_string();
    let ran = machine.run(&[&["generate", "--model", &model], arguments].concat());
    refused(&machine, &ran, 64, &message);
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("the file is there")
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).expect("written");
}

/// Where the first `text` in `bytes` ends.
fn after(bytes: &[u8], text: &str) -> usize {
    let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
    found.expect("the text is there") + text.len()
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

/// Writes `new` over the first `old`, which is as long.
fn replace(bytes: &mut [u8], old: &str, new: &str) {
    assert_eq!(old.len(), new.len());
    let at = after(bytes, old) - old.len();
    put(bytes, at, new.as_bytes());
}
