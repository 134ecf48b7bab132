//! Block files made to harm who reads them. None is used, and none makes the reader work: the length
//! is compared before anything is allocated, and the digest before anything is believed.

use semantic::store::{Flaw, StoreError};

use super::agents::{Agents, conversation, empty_volume, whose};
use crate::support::disk::{MemoryDisk, Volume};

const U8: &str = r#""dtype":"U8","shape":[44],"data_offsets":[0,44]"#;

/// Headers that parsers have fallen for.
fn headers() -> Vec<(&'static str, Vec<u8>)> {
    let of = |json: &str| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    let tensor = |body: &str| of(&format!(r#"{{"a":{{{body}}}}}"#));
    let deep = "[".repeat(100_000);
    vec![
        ("a length of 2^63", (1u64 << 63).to_le_bytes().to_vec()),
        ("a length of 2^64 - 1", u64::MAX.to_le_bytes().to_vec()),
        ("a length of 2^64 - 8, which wraps", (u64::MAX - 7).to_le_bytes().to_vec()),
        ("a length of 100 MB", 100_000_000u64.to_le_bytes().to_vec()),
        ("a length of zero", 0u64.to_le_bytes().to_vec()),
        ("half a length", vec![1, 0, 0]),
        ("nothing", Vec::new()),
        ("no JSON", of("not json at all")),
        ("an array", of("[]")),
        ("an open brace", of("{")),
        ("no UTF-8", of("{\"\u{1}\":1}")),
        ("depth", of(&deep)),
        ("no tensors", of("{}")),
        ("an offset before the data", tensor(r#""dtype":"U8","shape":[4],"data_offsets":[-4,0]"#)),
        (
            "an offset past the end",
            tensor(r#""dtype":"U8","shape":[4],"data_offsets":[0,4000000]"#),
        ),
        ("offsets the wrong way", tensor(r#""dtype":"U8","shape":[4],"data_offsets":[8,4]"#)),
        (
            "offsets of 2^64",
            tensor(r#""dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551615]"#),
        ),
        (
            "a shape that overflows",
            tensor(
                r#""dtype":"F32","shape":[4194305,4194305,211106198978564],"data_offsets":[0,44]"#,
            ),
        ),
        (
            "a shape of zeros and more",
            tensor(r#""dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]"#),
        ),
        ("a negative shape", tensor(r#""dtype":"U8","shape":[-44],"data_offsets":[0,44]"#)),
        ("a fraction", tensor(r#""dtype":"U8","shape":[4.5],"data_offsets":[0,44]"#)),
        ("1e309", tensor(r#""dtype":"U8","shape":[1e309],"data_offsets":[0,44]"#)),
        ("an unknown type", tensor(r#""dtype":"X9","shape":[44],"data_offsets":[0,44]"#)),
        ("a shape of another size", tensor(r#""dtype":"U8","shape":[45],"data_offsets":[0,44]"#)),
        ("two tensors in one place", of(&format!(r#"{{"a":{{{U8}}},"b":{{{U8}}}}}"#))),
        ("the same name twice", of(&format!(r#"{{"a":{{{U8}}},"a":{{{U8}}}}}"#))),
        (
            "a hole",
            of(&format!(
                r#"{{"a":{{{U8}}},"b":{{"dtype":"U8","shape":[1],"data_offsets":[60,61]}}}}"#,
            )),
        ),
        ("metadata that is no text", of(&format!(r#"{{"__metadata__":{{"a":1}},"a":{{{U8}}}}}"#))),
        ("metadata twice", of(r#"{"__metadata__":{},"__metadata__":{}}"#)),
        ("a name with a path", of(&format!(r#"{{"../../etc/passwd":{{{U8}}}}}"#))),
    ]
}

#[test]
fn a_block_with_a_header_made_to_harm_is_refused_and_put_aside() {
    let (volume, tail) = two_blocks();
    let whole = volume.bytes(&tail).to_vec();
    for (what, header) in headers() {
        let short = [&header[..], &[7; 44]].concat();
        // As long as the manifest says, so that its length betrays nothing.
        let mut same = header.clone();
        same.resize(whole.len(), 7);
        let mut in_place = whole.clone();
        let end = header.len().min(whole.len());
        in_place[..end].copy_from_slice(&header[..end]);
        for (bad, is_same_length) in [(short, false), (same, true), (in_place, true)] {
            if bad != whole {
                refuses(&volume.with(&tail, bad), &tail, is_same_length, what);
            }
        }
    }
}

fn refuses(volume: &Volume, tail: &str, is_same_length: bool, what: &str) {
    let disk = MemoryDisk::of(volume);
    let agents = Agents::open(disk.clone());
    let line = agents.store.lines(&agents.model.fingerprint).remove(0);
    let (held, error) = agents.read(&line);
    assert_eq!(held, 256, "{what}");
    if is_same_length {
        match error {
            Some(StoreError::Damaged { path, flaw }) => {
                assert_eq!(path, tail, "{what}");
                assert!(matches!(flaw, Flaw::Header | Flaw::Digest), "{what}: {flaw:?}");
            }
            error => panic!("{what}: {error:?}"),
        }
        let again = agents.store.lines(&agents.model.fingerprint).remove(0);
        assert_eq!(again.blocks.len(), 1, "{what}: it is offered again");
    } else {
        assert_eq!(line.blocks.len(), 1, "{what}: its length says that it is bad");
        agents.store.repair().unwrap();
    }
    let after = disk.volume();
    assert_eq!(after.files("quarantine/").len(), 1, "{what}\n{after:?}");
    assert_eq!(after.bytes(&after.files("quarantine/")[0]), volume.bytes(tail), "{what}");
}

/// What is in the place of a file that is to be written is verified, not trusted.
#[test]
fn a_bad_file_in_the_place_of_a_block_is_replaced_when_the_block_is_saved() {
    let (volume, tail) = two_blocks();
    let whole = volume.bytes(&tail).to_vec();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for bad in [flipped, vec![0; whole.len()], whole[..40].to_vec()] {
        let disk = MemoryDisk::of(&volume.with(&tail, bad));
        let agents = Agents::open(disk.clone());
        agents.begin(&whose("critic"), &conversation(1, 300));
        assert_eq!(agents.conversation_of(&whose("critic")), Some(conversation(1, 300)));
        assert_eq!(agents.conversation_of(&whose("planner")), Some(conversation(1, 300)));
        assert_eq!(disk.volume().bytes(&tail), whole);
        assert_eq!(disk.volume().files("quarantine/").len(), 1);
    }
}

/// A store with one agent of two blocks, and the file of the second.
fn two_blocks() -> (Volume, String) {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    agents.begin(&whose("planner"), &conversation(1, 256));
    let first = disk.volume().files("/b/");
    let line = agents.kept()[&whose("planner")][0].line;
    agents.save(&whose("planner"), line, &conversation(1, 300)).unwrap();
    drop(agents);
    let volume = disk.volume();
    let tail = volume.files("/b/").into_iter().find(|path| !first.contains(path)).unwrap();
    (volume, tail)
}
