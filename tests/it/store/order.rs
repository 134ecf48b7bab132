//! The order in which a save reaches the disk, from which all else follows: a file's bytes before its
//! name, both before the manifest, the manifest before the acknowledgement.

use std::collections::BTreeSet;

use super::agents::{Agents, branch, conversation, empty_volume, whose};
use crate::support::disk::{CrashDisk, MemoryDisk};

#[test]
fn every_file_is_synced_before_it_is_renamed_and_its_folder_before_the_acknowledgement() {
    let disk = CrashDisk::on(&MemoryDisk::of(&empty_volume()));
    let agents = Agents::open(disk.clone());
    let planner = whose("planner");
    let line = agents.store.new_line();
    let mut from = disk.now();
    for tokens in [conversation(1, 300), conversation(1, 530), branch(1, 512, 2, 600)] {
        agents.save(&planner, line, &tokens).unwrap();
        let operations: Vec<String> =
            disk.moments()[from..].iter().map(|moment| moment.operation.clone()).collect();
        check_order(&operations);
        from = disk.now();
    }
}

/// Walks through the operations of one acknowledged save.
fn check_order(operations: &[String]) {
    let mut synced: BTreeSet<&str> = BTreeSet::new();
    let mut unsafe_folders: BTreeSet<&str> = BTreeSet::new();
    let mut manifests = 0;
    for operation in operations {
        let words: Vec<&str> = operation.split(' ').collect();
        match words[..] {
            ["sync", file] => drop(synced.insert(file)),
            ["write", file] => assert!(!synced.contains(file), "{file} was written after its sync"),
            ["sync_folder", folder] => drop(unsafe_folders.remove(folder)),
            ["make", folder] => drop(unsafe_folders.insert(parent(folder))),
            ["rename", from, to] => {
                assert!(synced.contains(from), "{from} has a name before it is safe");
                if to.ends_with(".manifest") {
                    // Its own folder follows.
                    let are_safe = unsafe_folders.iter().all(|folder| !is_of_blocks(folder));
                    assert!(are_safe, "{unsafe_folders:?} before {to}\n{operations:#?}");
                    manifests += 1;
                }
                unsafe_folders.insert(parent(to));
            }
            _ => (),
        }
    }
    assert_eq!(manifests, 1, "{operations:#?}");
    assert_eq!(unsafe_folders, BTreeSet::new(), "acknowledged too early\n{operations:#?}");
}

fn is_of_blocks(folder: &str) -> bool {
    folder.ends_with("/b") || folder.contains("/b/")
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
