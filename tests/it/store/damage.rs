//! Files that are not what was written: every one is noticed before a byte of it is used, put aside
//! and not deleted, and costs no more than what depended on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use semantic::store::{Disk, KvModel, OpenError};
use semantic::types::{BLOCK_TOKENS, Fingerprint, KvAxis, KvElement, KvTensor, Namespace};

use super::agents::{Agents, Kept, Whose, branch, conversation, empty_volume, whose};
use crate::support::disk::{FaultDisk, MemoryDisk, Volume};
use crate::support::random::Random;
use crate::support::scale::scaled;

/// A small store and which files belong to what.
struct Small {
    volume: Volume,
    /// The first block of the planner and the critic, the planner's tails, and the reader's block.
    trunk: String,
    tails: [String; 2],
    critics_tail: String,
    readers: String,
    /// The planner's manifests, oldest first.
    manifests: [String; 2],
    others_manifests: [String; 2],
}

const TRUNK: usize = BLOCK_TOKENS;
const SEED: u64 = 0x5eed_0003;

impl Small {
    fn new() -> Small {
        let disk = MemoryDisk::of(&empty_volume());
        let agents = Agents::open(disk.clone());
        let mut seen = BTreeSet::new();
        let mut new_files = || {
            let volume = disk.volume();
            let mut new = volume.files("n/");
            new.retain(|path| seen.insert(path.clone()));
            let (blocks, manifests): (Vec<String>, Vec<String>) =
                new.into_iter().partition(|path| path.contains("/b/"));
            assert_eq!(manifests.len(), 1);
            (blocks, manifests.into_iter().next().unwrap())
        };
        agents.begin(&whose("trunk"), &conversation(1, TRUNK));
        let (mut trunk, trunks) = new_files();
        let line = agents.begin(&whose("planner"), &conversation(1, TRUNK + 10));
        let (mut old, first) = new_files();
        agents.save(&whose("planner"), line, &conversation(1, TRUNK + 20)).unwrap();
        let (mut new, second) = new_files();
        agents.begin(&whose("critic"), &branch(1, TRUNK, 2, TRUNK + 5));
        let (mut critics, third) = new_files();
        agents.begin(&whose("reader"), &conversation(3, 30));
        let (mut readers, fourth) = new_files();
        let (namespace, agent) = whose("trunk");
        agents.store.remove_agent(&namespace, &agent).unwrap();
        drop(agents);
        let volume = disk.volume();
        assert!(!volume.files("n/").contains(&trunks));
        Small {
            volume,
            trunk: trunk.remove(0),
            tails: [old.remove(0), new.remove(0)],
            critics_tail: critics.remove(0),
            readers: readers.remove(0),
            manifests: [first, second],
            others_manifests: [third, fourth],
        }
    }

    /// How many tokens each agent has left when this file is bad.
    fn left(&self, bad: &str) -> BTreeMap<Whose, usize> {
        let mut left = BTreeMap::from([
            (whose("planner"), TRUNK + 20),
            (whose("critic"), TRUNK + 5),
            (whose("reader"), 30),
        ]);
        let mut lose = |agent: &str, to: usize| {
            left.insert(whose(agent), to);
        };
        match bad {
            _ if bad == self.trunk => {
                lose("planner", 0);
                lose("critic", 0);
            }
            _ if bad == self.tails[1] => lose("planner", TRUNK),
            // The older save still counts.
            _ if bad == self.manifests[1] => lose("planner", TRUNK + 10),
            _ if bad == self.critics_tail => lose("critic", TRUNK),
            _ if bad == self.readers => lose("reader", 0),
            _ if bad == self.others_manifests[0] => drop(left.remove(&whose("critic"))),
            _ if bad == self.others_manifests[1] => drop(left.remove(&whose("reader"))),
            _ => (),
        }
        left
    }

    fn files(&self) -> Vec<String> {
        self.volume.files("n/")
    }

    /// Checks what becomes of a store in which this file, and no other, is bad.
    fn check(&self, bad: &str, damaged: &Volume, how: &str) {
        let place = format!("{bad}: {how}");
        let disk = MemoryDisk::of(damaged);
        let agents = Agents::open(disk.clone());
        let kept = agents.kept();
        assert_eq!(held(&kept), self.left(bad), "{place}");
        let after = disk.volume();
        for path in self.files() {
            if path != bad {
                assert_eq!(after.bytes(&path), self.volume.bytes(&path), "{place}: {path}");
            }
        }
        if damaged.0.contains_key(bad) {
            let bytes = damaged.bytes(bad);
            let is_kept = after.files("").iter().any(|path| after.bytes(path) == bytes);
            assert!(is_kept, "{place}: the bad file was deleted");
        }
    }

    /// The same, and that it is found before it is used, and mended.
    fn check_and_repair(&self, bad: &str, damaged: &Volume, how: &str) {
        self.check(bad, damaged, how);
        let disk = MemoryDisk::of(damaged);
        let agents = Agents::open_read_only(disk.clone()).unwrap();
        let verified = agents.store.verify().unwrap();
        let is_named = verified.damage.iter().any(|damage| damage.path == bad);
        assert!(is_named, "{bad}: {how}: verify names {:?}", verified.damage);
        assert_eq!(disk.volume(), *damaged, "verify changed something");
        let agents = Agents::open(disk.clone());
        let repaired = agents.store.repair().unwrap();
        assert!(!repaired.damage.is_empty(), "{bad}: {how}: repair saw nothing");
        let agents = (drop(agents), Agents::open(disk)).1;
        let verified = agents.store.verify().unwrap();
        assert_eq!(verified.damage, [], "{bad}: {how}: repaired");
        assert_eq!(held(&agents.kept()), self.left(bad), "{bad}: {how}: repaired");
    }
}

#[test]
fn every_flipped_bit_is_noticed_and_costs_only_what_depends_on_it() {
    println!("seed {SEED:#x}");
    let small = Small::new();
    let mut random = Random::new(SEED);
    let mut flips = 0;
    for path in small.files() {
        let bytes = small.volume.bytes(&path);
        for bit in scaled_sample(bytes.len() * 8, &mut random) {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flips += 1;
            small.check(&path, &small.volume.with(&path, flipped), &format!("bit {bit}"));
        }
    }
    println!("{flips} bits of {}", small.volume.size() * 8);
}

#[test]
fn a_flipped_bit_of_the_key_or_the_format_opens_nothing_and_touches_nothing() {
    let small = Small::new();
    for path in ["KEY", "FORMAT"] {
        let bytes = small.volume.bytes(path);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            refuses_and_leaves(&small.volume.with(path, flipped), &format!("{path} bit {bit}"));
        }
        for length in 0..bytes.len() {
            let cut = bytes[..length].to_vec();
            refuses_and_leaves(&small.volume.with(path, cut), &format!("{path} of {length}"));
        }
    }
}

#[test]
fn every_truncation_is_noticed_and_costs_only_what_depends_on_it() {
    println!("seed {SEED:#x}");
    let small = Small::new();
    let mut random = Random::new(SEED);
    for path in small.files() {
        let bytes = small.volume.bytes(&path);
        for length in scaled_sample(bytes.len(), &mut random) {
            let cut = bytes[..length].to_vec();
            small.check(&path, &small.volume.with(&path, cut), &format!("length {length}"));
        }
    }
}

#[test]
fn bytes_too_many_zeros_and_holes_are_noticed_and_repaired() {
    println!("seed {SEED:#x}");
    let small = Small::new();
    let mut random = Random::new(SEED);
    for path in small.files() {
        // Neither is what any live save needs.
        if path == small.tails[0] || path == small.manifests[0] {
            continue;
        }
        let bytes = small.volume.bytes(&path).to_vec();
        let tail: Vec<u8> = (0..1 + random.range(0..5_000)).map(|_| random.next() as u8).collect();
        let middle = random.range(0..bytes.len() - 16);
        let mut hole = bytes.clone();
        hole[middle..middle + 16].fill(0);
        let mut flipped = bytes.clone();
        flipped[middle] ^= 0x80;
        let bad = [
            ("a byte more", [&bytes[..], &[0]].concat()),
            ("a random tail", [&bytes[..], &tail].concat()),
            ("twice", [&bytes[..], &bytes].concat()),
            ("empty", Vec::new()),
            ("zeros", vec![0; bytes.len()]),
            ("a hole", hole),
            ("a flipped bit", flipped),
            ("a byte less", bytes[..bytes.len() - 1].to_vec()),
            ("a header of 2^63", [&(1u64 << 63).to_le_bytes()[..], &bytes[8..]].concat()),
        ];
        for (how, bad) in bad {
            small.check_and_repair(&path, &small.volume.with(&path, bad), how);
        }
    }
}

#[test]
fn a_missing_block_costs_its_suffix_and_a_missing_manifest_its_save() {
    let small = Small::new();
    for path in small.files() {
        if path != small.tails[0] && path != small.manifests[0] {
            small.check(&path, &small.volume.without(&path), "missing");
        }
    }
}

/// Copies every file over every other of its kind, and puts manifests under names that are not
/// theirs.
/// Two readers find the same bad block, and before the second one says so it is written again.
#[test]
fn a_read_that_ends_late_takes_away_nothing_that_was_written_since() {
    let small = Small::new();
    let reader = whose("reader");
    let tokens = conversation(3, 30);
    for is_missing in [false, true] {
        let length = small.volume.bytes(&small.readers).len();
        let memory = MemoryDisk::of(&match is_missing {
            true => small.volume.clone(),
            false => small.volume.with(&small.readers, vec![7; length]),
        });
        let disk = FaultDisk::on(Arc::new(memory.clone()));
        let agents = Arc::new(Agents::open(disk.clone()));
        if is_missing {
            memory.remove_file(&small.readers).unwrap();
        }
        let lines = agents.store.lines(&agents.model.fingerprint);
        let stored = lines.into_iter().find(|line| line.agent == reader.1).unwrap();
        let (first, line, again) = (Arc::clone(&agents), stored.clone(), tokens.clone());
        disk.after_next_open(move || {
            assert!(first.read(&line).1.is_some());
            first.save(&whose("reader"), line.line, &again).unwrap();
        });
        let (held, error) = agents.read(&stored);
        assert!(held == 0 && error.is_some(), "{held} {error:?}");
        assert_eq!(agents.read(&stored).0, 30, "it is not there any more: {is_missing}");
        let quarantined = memory.volume().files("quarantine/").len();
        assert_eq!(quarantined, usize::from(!is_missing));
        assert_eq!(agents.store.repair().unwrap().damage, []);
        assert_eq!(agents.conversation_of(&reader), Some(tokens.clone()));
    }
}

#[test]
fn a_file_in_the_place_of_another_is_never_used() {
    let small = Small::new();
    for from in small.files() {
        for to in small.files() {
            if from == to || to == small.tails[0] || to == small.manifests[0] {
                continue;
            }
            let bytes = small.volume.bytes(&from).to_vec();
            small.check_and_repair(&to, &small.volume.with(&to, bytes), &from);
        }
    }
}

#[test]
fn a_manifest_under_another_name_changes_nothing() {
    let small = Small::new();
    let folder = |path: &str| path.rsplit_once('/').unwrap().0.to_owned();
    for from in small.manifests.iter().chain(&small.others_manifests) {
        for folder in [folder(&small.manifests[0]), folder(&small.others_manifests[0])] {
            for generation in [0, 3, 4, 1 << 40, u64::MAX] {
                let forged = format!("{folder}/{generation:020}.manifest");
                let bytes = small.volume.bytes(from).to_vec();
                let volume = small.volume.with(&forged, bytes);
                small.check(&forged, &volume, from);
                let agents = Agents::open(MemoryDisk::of(&volume));
                agents.begin(&whose("planner"), &conversation(5, 5));
                agents.begin(&whose("critic"), &conversation(6, 5));
            }
        }
    }
}

#[test]
fn what_another_namespace_has_under_the_same_names_is_refused() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    let theirs = (Namespace::new("theirs"), whose("planner").1);
    let mine = (Namespace::new("mine"), whose("planner").1);
    agents.begin(&theirs, &conversation(1, 300));
    let their_files = disk.volume().files("n/");
    agents.begin(&mine, &conversation(2, 20));
    drop(agents);
    let volume = disk.volume();
    let my_files: Vec<String> =
        volume.files("n/").into_iter().filter(|path| !their_files.contains(path)).collect();
    let root = |path: &str| path.split('/').take(2).collect::<Vec<_>>().join("/");
    let (my_root, their_root) = (root(&my_files[0]), root(&their_files[0]));
    assert_ne!(my_root, their_root);
    // The whole tree of the other, in the place of this one.
    let mut forged = volume.clone();
    for path in &my_files {
        forged = forged.without(path);
    }
    let their_tree = volume.0.iter().filter(|(path, _)| path.starts_with(&their_root));
    for (path, node) in their_tree {
        forged.0.insert(path.replace(&their_root, &my_root), node.clone());
    }
    let kept = Agents::open(MemoryDisk::of(&forged)).conversations();
    assert_eq!(kept.into_keys().collect::<Vec<_>>(), [theirs]);
}

/// Blocks as large as real ones: pages of zeros, and flips anywhere.
#[test]
fn damage_to_a_large_block_is_noticed_wherever_it_is() {
    println!("seed {SEED:#x}");
    let mut random = Random::new(SEED);
    let disk = MemoryDisk::of(&empty_volume());
    let mut agents = Agents::open(disk.clone());
    agents.model = wide_model();
    agents.begin(&whose("planner"), &conversation(1, BLOCK_TOKENS));
    let volume = disk.volume();
    let path = volume.files("/b/").remove(0);
    let bytes = volume.bytes(&path);
    assert!(bytes.len() > 1 << 20);
    for case in 0..scaled(2_000) {
        let mut bad = bytes.to_vec();
        match case % 3 {
            0 => bad[random.range(0..bytes.len() / 4096) * 4096..][..4096].fill(0),
            1 => bad[random.range(0..2_000)] ^= 1 << random.range(0..8),
            _ => bad[random.range(0..bytes.len())] ^= 1 << random.range(0..8),
        }
        let disk = MemoryDisk::of(&volume.with(&path, bad));
        let mut agents = Agents::open(disk.clone());
        agents.model = wide_model();
        assert_eq!(held(&agents.kept())[&whose("planner")], 0, "case {case}");
        assert_eq!(disk.volume().files("quarantine/").len(), 1, "case {case}");
    }
}

fn held(kept: &BTreeMap<Whose, Vec<Kept>>) -> BTreeMap<Whose, usize> {
    let only = |kept: &Vec<Kept>| {
        assert_eq!(kept.len(), 1);
        kept[0].held
    };
    kept.iter().map(|(whose, kept)| (whose.clone(), only(kept))).collect()
}

fn refuses_and_leaves(volume: &Volume, place: &str) {
    let disk = MemoryDisk::of(volume);
    match Agents::try_open(disk.clone()) {
        Ok(_) => panic!("{place}: opened"),
        Err(OpenError::Io { .. }) => panic!("{place}: no error of the disk"),
        Err(_) => (),
    }
    let untouched = |volume: &Volume| -> Volume {
        let mut files = volume.clone();
        files.0.remove("LOCK");
        files
    };
    assert_eq!(untouched(&disk.volume()), untouched(volume), "{place}");
}

/// All of so many at full scale, otherwise a part of them, anywhere.
fn scaled_sample(count: usize, random: &mut Random) -> Vec<usize> {
    let wanted = scaled(count);
    let mut from = 0;
    (1..=wanted)
        .map(|part| {
            let end = count * part / wanted;
            let picked = random.range(from..end);
            from = end;
            picked
        })
        .collect()
}

/// A model whose blocks have 2 MiB.
fn wide_model() -> Arc<KvModel> {
    let tensor = KvTensor {
        name: "layer.0.key.codes".to_owned(),
        element: KvElement::U8,
        shape: vec![KvAxis::Tokens, KvAxis::Fixed(8 << 10)],
    };
    let (name, producer) = ("tests/wide".to_owned(), "portable 0.1.0".to_owned());
    Arc::new(KvModel { fingerprint: Fingerprint([9; 32]), name, producer, tensors: vec![tensor] })
}
