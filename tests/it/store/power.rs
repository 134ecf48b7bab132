//! The instruments themselves: a disk that loses power must show what careless programs lose, or it
//! shows nothing about careful ones.

use semantic::store::disk::Disk;

use crate::support::disk::{CrashDisk, MemoryDisk, Node, Volume};
use crate::support::random::Random;

const OLD: &[u8] = b"old";
const NEW: &[u8] = b"the new bytes";

/// How a program may write a file.
#[derive(Clone, Copy, Debug)]
struct Care {
    syncs_file: bool,
    syncs_folder: bool,
}

/// What the states after the acknowledgement hold: the new bytes, none, or others.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    new: usize,
    none: usize,
    torn: usize,
}

fn after_acknowledgement(care: Care) -> Outcome {
    let volume = Volume::default().with("old", OLD.to_vec());
    let volume =
        Volume([volume.0, [folder("tmp"), folder("kept")].into()].into_iter().flatten().collect());
    let disk = CrashDisk::on(&MemoryDisk::of(&volume));
    let mut file = disk.create("tmp/1").unwrap();
    let (first, second) = NEW.split_at(5);
    file.write_all(first).unwrap();
    file.write_all(second).unwrap();
    if care.syncs_file {
        file.sync().unwrap();
    }
    disk.rename("tmp/1", "kept/1").unwrap();
    if care.syncs_folder {
        disk.sync_folder("kept").unwrap();
    }
    let mut outcome = Outcome::default();
    for state in disk.moments().last().unwrap().states(1_000, &mut Random::new(1)) {
        assert_eq!(state.bytes("old"), OLD);
        match state.0.get("kept/1") {
            None => outcome.none += 1,
            Some(Node::File(bytes)) if ***bytes == *NEW => outcome.new += 1,
            Some(_) => outcome.torn += 1,
        }
    }
    outcome
}

fn folder(name: &str) -> (String, Node) {
    (name.to_owned(), Node::Folder)
}

#[test]
fn only_who_syncs_the_file_and_the_folder_keeps_what_was_acknowledged() {
    let outcome =
        |syncs_file, syncs_folder| after_acknowledgement(Care { syncs_file, syncs_folder });
    assert_eq!(outcome(true, true), Outcome { new: 1, none: 0, torn: 0 });
    let forgot_folder = outcome(true, false);
    assert!(forgot_folder.none > 0, "{forgot_folder:?}");
    assert_eq!(forgot_folder.torn, 0);
    let forgot_file = outcome(false, true);
    assert_eq!(forgot_file.none, 0);
    assert!(forgot_file.torn >= 4, "{forgot_file:?}");
    let forgot_both = outcome(false, false);
    assert!(forgot_both.none > 0, "{forgot_both:?}");
    assert!(forgot_both.torn >= 4, "{forgot_both:?}");
}

#[test]
fn what_is_in_a_folder_whose_name_is_lost_is_lost() {
    let disk = CrashDisk::on(&MemoryDisk::default());
    disk.make_folder("a").unwrap();
    drop(disk.create("a/1").unwrap());
    disk.sync_folder("a").unwrap();
    let moment = disk.moments().pop().unwrap();
    assert_eq!(moment.safe(), Volume::default());
    disk.sync_folder("").unwrap();
    let safe = disk.moments().pop().unwrap().safe();
    assert_eq!(safe.files(""), ["a/1"]);
}

#[test]
fn names_are_kept_apart_and_a_name_that_is_taken_is_not_taken_again() {
    let disk = MemoryDisk::default();
    disk.make_folder("a").unwrap();
    disk.make_folder("a").unwrap();
    disk.create("a/1").unwrap().write_all(NEW).unwrap();
    drop(disk.create("a/2").unwrap());
    assert!(disk.create("a/1").is_err());
    assert!(disk.rename("a/1", "a/2").is_err());
    assert!(disk.rename("a/3", "a/4").is_err());
    assert!(disk.create("b/1").is_err());
    assert!(disk.remove_folder("a").is_err());
    assert_eq!(disk.open("a/1").unwrap().bytes(), NEW.len() as u64);
    let mut names: Vec<String> =
        disk.list("a").unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    assert_eq!(names, ["1", "2"]);
    let held = disk.lock("LOCK").ok();
    assert!(disk.lock("LOCK").is_err());
    drop(held);
    assert!(disk.lock("LOCK").is_ok());
}
