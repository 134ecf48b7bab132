//! Names from outside never become names of files, and nothing that others put into the folder leads
//! out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use semantic::store::{Folder, OpenError};
use semantic::types::{AGENT_ID_BYTES_MAX, AgentId, Namespace};

use super::agents::{Agents, Whose, conversation, empty_volume, whose};
use crate::support::disk::{Fault, FaultDisk, MemoryDisk, Node};

/// What people, programs and attackers call agents.
fn odd_ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        ".",
        "..",
        "...",
        "/",
        "//",
        "\\",
        "a/b",
        "a\\b",
        "/etc/passwd",
        "../../etc/passwd",
        "..\\..\\windows",
        "%2e%2e%2f",
        "%00",
        "%",
        "~",
        "~root",
        "C:",
        "C:\\x",
        "con",
        "NUL",
        "aux.txt",
        "Bob",
        "bob",
        "BOB",
        "bob ",
        " bob",
        "bob\n",
        "\nbob",
        "bob\r\n",
        "bob\t",
        " ",
        "\t",
        "\n",
        "\0",
        "a\0b",
        "bob\0",
        "\u{7f}",
        "\u{1b}[31m",
        "x.tmp",
        "x.manifest",
        "x.safetensors",
        "LOCK",
        "KEY",
        "FORMAT",
        "n",
        "a",
        "b",
        "tmp",
        "quarantine",
        "00000000000000000001.manifest",
        "-",
        "--help",
        "-rf *",
        "*",
        "?",
        "[a-z]",
        "$(id)",
        "`id`",
        "$HOME",
        "${x}",
        "a;b",
        "a|b",
        "a&b",
        "a>b",
        "'",
        "\"",
        "''",
        "\"\"",
        "' or 1=1 --",
        "<script>",
        "{}",
        "{{7*7}}",
        "null",
        "None",
        "undefined",
        "true",
        "0",
        "-1",
        "1e309",
        "NaN",
        "é",
        "e\u{301}",
        "ﬁ",
        "fi",
        "ß",
        "ss",
        "İ",
        "i̇",
        "ı",
        "Ａ",
        "A",
        "Å",
        "Å",
        "\u{202e}txt.exe",
        "\u{200b}",
        "a\u{200b}",
        "\u{feff}",
        "\u{feff}a",
        "\u{a0}",
        "\u{2028}",
        "\u{fffd}",
        "\u{10ffff}",
        "👩‍👩‍👧‍👦",
        "👩👩👧👦",
        "日本語",
        "العربية",
        "עברית",
        "ไทย",
        "नमस्ते",
        "local",
        "a:b",
        "a@b",
        "a#b",
        "a?b=c",
        "http://x",
        "file:///etc/passwd",
        "\\\\host\\share",
        "agent=1&x=2",
        "a,b",
        "a b",
        "a+b",
        "ab",
        "ba",
        ".hidden",
        "name.",
        "name ",
        "a..b",
        "..a",
        "a..",
    ]
    .map(str::to_owned)
    .to_vec();
    ids.extend((1..32u8).map(|control| format!("c{}", control as char)));
    ids.extend((1..32u8).map(|control| (control as char).to_string()));
    ids.extend((0x80..0xa0u32).map(|c| char::from_u32(c).unwrap().to_string()));
    ids.extend((0x300..0x340u32).map(|c| format!("o{}", char::from_u32(c).unwrap())));
    ids.extend([1, 2, 63, 64, 65, 127, 128, 254, 255, 256].map(|bytes| "x".repeat(bytes)));
    ids.extend([2, 127, 128].map(|characters| "é".repeat(characters)));
    ids.extend([2, 64].map(|characters| "🦀".repeat(characters)));
    ids.extend(["../".repeat(80), "/".repeat(256), "\0".repeat(256), "\n".repeat(3)]);
    let ids: BTreeSet<String> = ids.into_iter().collect();
    ids.into_iter().collect()
}

#[test]
fn every_odd_name_is_an_agent_of_its_own_and_never_the_name_of_a_file() {
    let ids = odd_ids();
    assert!(ids.len() >= 300, "only {}", ids.len());
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    for (number, id) in ids.iter().enumerate() {
        agents.begin(&whose(id), &conversation(number as u64, 5));
    }
    drop(agents);
    let volume = disk.volume();
    // Not only what was left: nothing else was ever looked for.
    for path in volume.0.keys().chain(&disk.asked()) {
        assert!(is_ours(path), "{path:?}");
    }
    let kept = Agents::open(MemoryDisk::of(&volume)).conversations();
    assert_eq!(kept.len(), ids.len());
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(kept[&whose(id)], [conversation(number as u64, 5)], "{id:?}");
    }
}

#[test]
fn every_odd_namespace_is_one_of_its_own_and_never_the_name_of_a_file() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    let mut all: BTreeMap<Whose, u64> = BTreeMap::new();
    for (number, name) in odd_ids().iter().chain([&String::new()]).enumerate() {
        let theirs = (Namespace::new(name), AgentId::new("planner").unwrap());
        agents.begin(&theirs, &conversation(number as u64, 5));
        all.insert(theirs, number as u64);
    }
    drop(agents);
    assert!(disk.volume().0.keys().chain(&disk.asked()).all(|path| is_ours(path)));
    let kept = Agents::open(disk).conversations();
    assert_eq!(kept.len(), all.len());
    for (theirs, number) in all {
        assert_eq!(kept[&theirs], [conversation(number, 5)], "{theirs:?}");
    }
}

/// Two lists of names must not read the same when they are written one after the other.
#[test]
fn namespace_and_name_do_not_run_into_each_other() {
    let agents = Agents::open(MemoryDisk::of(&empty_volume()));
    for (number, (namespace, agent)) in
        [("ab", "c"), ("a", "bc"), ("a", "b/c"), ("a/b", "c")].into_iter().enumerate()
    {
        let theirs = (Namespace::new(namespace), AgentId::new(agent).unwrap());
        agents.begin(&theirs, &conversation(number as u64, 5));
    }
    assert_eq!(agents.conversations().len(), 4);
}

#[test]
fn an_empty_name_and_one_that_is_too_long_are_refused() {
    assert!(AgentId::new("").is_err());
    assert!(AgentId::new(&"x".repeat(AGENT_ID_BYTES_MAX + 1)).is_err());
    assert!(AgentId::new(&"x".repeat(4096)).is_err());
}

/// The folders and names of the layout, hashes in hexadecimal, numbers in decimal.
fn is_ours(path: &str) -> bool {
    let is_hex = |part: &str| part.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    let is_plain = |part: &str| {
        let stem = part.strip_suffix(".safetensors").or(part.strip_suffix(".manifest"));
        is_hex(stem.unwrap_or(part)) || ["n", "a", "b", "tmp", "quarantine"].contains(&part)
    };
    ["LOCK", "KEY", "FORMAT"].contains(&path) || path.split('/').all(is_plain)
}

/// Puts a link into each place that the store uses, to a file or folder outside; whatever the store
/// then does, what is outside stays as it is.
#[test]
fn a_link_in_any_place_leads_nowhere() {
    let places = {
        let (_keep, root) = real_store();
        paths_in(&root)
    };
    assert!(places.len() > 10, "{places:?}");
    let mut opened = 0;
    for number in 0..places.len() {
        for hard in [false, true] {
            let (_keep, root) = real_store();
            // Names of files differ from store to store, their order less.
            let places = paths_in(&root);
            let Some(place) = places.get(number) else { continue };
            let outside = tempfile::tempdir().unwrap();
            if !plant(&root.join(place), outside.path(), hard) {
                continue;
            }
            let before = contents(outside.path());
            opened += usize::from(use_it(&root));
            assert_eq!(contents(outside.path()), before, "{place}, hard {hard}");
        }
    }
    println!("{opened} of {} opened", places.len() * 2);
}

/// Moves what is at a place outside and puts a link to it there. Hard links are for files.
fn plant(place: &Path, outside: &Path, hard: bool) -> bool {
    let target = outside.join("target");
    let is_folder = place.is_dir();
    if hard && is_folder {
        return false;
    }
    fs::rename(place, &target).unwrap();
    match hard {
        true => fs::hard_link(&target, place).unwrap(),
        false => symlink(&target, place).unwrap(),
    }
    true
}

/// Everything a store can do; says whether it opened.
fn use_it(root: &Path) -> bool {
    let Ok(folder) = Folder::make(root) else { return false };
    let Ok(agents) = Agents::try_open(folder) else { return false };
    for line in agents.store.lines(&agents.model.fingerprint) {
        agents.read(&line);
    }
    let line = agents.store.new_line();
    for tokens in [10, 300] {
        drop(agents.save(&whose("late"), line, &conversation(8, tokens)));
        drop(agents.save(&whose("planner"), line, &conversation(1, tokens)));
    }
    let (namespace, agent) = whose("planner");
    drop(agents.store.verify());
    drop(agents.store.repair());
    drop(agents.store.remove_agent(&namespace, &agent));
    drop(agents.store.collect());
    drop(agents.store.collect());
    true
}

#[test]
fn the_cache_folder_itself_may_not_be_a_link() {
    let outside = tempfile::tempdir().unwrap();
    let inside = tempfile::tempdir().unwrap();
    let root = inside.path().join("cache");
    symlink(outside.path(), &root).unwrap();
    assert!(!use_it(&root));
    assert_eq!(contents(outside.path()), BTreeMap::new());
}

#[test]
fn files_and_folders_are_for_this_user_alone() {
    let (_keep, root) = real_store();
    for path in paths_in(&root).iter().chain([&String::new()]) {
        let path = root.join(path);
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let right = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, right, "{path:?}");
    }
}

#[test]
fn what_is_no_file_where_a_file_belongs_is_put_aside_or_refused() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    agents.begin(&whose("planner"), &conversation(1, 300));
    agents.begin(&whose("critic"), &conversation(2, 20));
    drop(agents);
    let volume = disk.volume();
    for path in volume.files("") {
        for node in [Node::Other, Node::Folder] {
            let mut planted = volume.clone();
            planted.0.insert(path.clone(), node);
            match Agents::try_open(MemoryDisk::of(&planted)) {
                Ok(agents) => {
                    let kept = agents.kept();
                    let whole = kept.values().filter(|kept| kept[0].held == kept[0].tokens.len());
                    assert!(whole.count() >= 1, "{path}");
                    agents.store.repair().unwrap();
                    assert_eq!(agents.store.verify().unwrap().damage, [], "{path}");
                }
                Err(OpenError::Locked { .. }) => panic!("{path} is locked"),
                Err(_) => assert!(["LOCK", "KEY", "FORMAT"].contains(&&*path), "{path}"),
            }
        }
    }
}

/// A store on the real disk with two agents and something in the quarantine.
fn real_store() -> (tempfile::TempDir, std::path::PathBuf) {
    let keep = tempfile::tempdir().unwrap();
    let root = keep.path().join("cache");
    let agents = Agents::open(Folder::make(&root).unwrap());
    agents.begin(&whose("planner"), &conversation(1, 300));
    agents.begin(&whose("critic"), &conversation(2, 20));
    (keep, root)
}

/// Every path below, without what is above it.
fn paths_in(root: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            paths.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    paths.sort_by_key(|path| (path.matches('/').count(), path.clone()));
    paths
}

/// Every file with its bytes, and every folder.
fn contents(root: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let bytes = |path: &String| fs::read(root.join(path)).ok();
    paths_in(root).into_iter().map(|path| (path.clone(), bytes(&path))).collect()
}

#[test]
fn the_lines_of_one_agent_are_told_without_a_look_at_the_others() {
    let memory = MemoryDisk::of(&empty_volume());
    let disk = FaultDisk::on(Arc::new(memory.clone()));
    let agents = Agents::open(disk.clone());
    let fingerprint = agents.model.fingerprint;
    let (namespace, planner) = whose("planner");
    agents.begin(&whose("planner"), &conversation(1, 300));
    agents.begin(&whose("planner"), &conversation(2, 20));
    let opened = || {
        disk.fail_once(usize::MAX, Fault::Broken);
        let lines = agents.store.lines_of(&namespace, &planner, &fingerprint);
        (lines, disk.heal().0)
    };
    let alone = opened();
    assert_eq!(alone.0, agents.store.lines(&fingerprint));
    assert_eq!(alone.0.len(), 2);
    for other in ["critic", "Planner"] {
        agents.begin(&whose(other), &conversation(1, 300));
    }
    agents.begin(&(Namespace::new("team"), planner.clone()), &conversation(1, 300));
    assert_eq!(opened(), alone);
    assert_eq!(agents.store.lines_of(&namespace, &whose("nobody").1, &fingerprint), []);
}
