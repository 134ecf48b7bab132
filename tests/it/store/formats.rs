//! Which stores are opened, which caches a model may use, and what names a block.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use semantic::store::{BlockName, KvModel, OpenError, Settings, Store, StoreError};
use semantic::types::{
    BLOCK_TOKENS, Fingerprint, KvAxis, KvElement, KvTensor, Line, Namespace, TokenId,
};

use super::agents::{Agents, after_restart, branch, conversation, empty_volume, kv, model, whose};
use crate::support::disk::{MemoryDisk, Node, Volume};

/// Set to write the fixture of the format that this release writes, for a format that has none.
const WRITE_FIXTURE: &str = "SEMANTIC_WRITE_STORE_FIXTURE";

#[test]
fn the_first_format_is_read_for_ever() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store/v1");
    if std::env::var_os(WRITE_FIXTURE).is_some() && !folder.exists() {
        write_files(&folder, &fixture());
    }
    let volume = read_files(&folder);
    let disk = MemoryDisk::of(&volume);
    let agents = Agents::open(disk.clone());
    let all: Vec<_> = agents.conversations().into_iter().collect();
    let critics = vec![branch(1, 256, 2, 280)];
    let planners = vec![conversation(1, 530), conversation(3, 7)];
    let sorted = |mut all: Vec<Vec<TokenId>>| {
        all.sort();
        all
    };
    assert_eq!(all, [(whose("critic"), critics), (whose("planner"), sorted(planners))]);
    let (namespace, agent) = whose("planner");
    let info = agents.store.agent(&namespace, &agent).unwrap().unwrap();
    let saves: Vec<_> =
        info.saves.iter().map(|save| (save.generation.0, save.tokens, save.is_live)).collect();
    assert_eq!(saves, [(3, 7, true), (2, 530, true), (1, 300, false)]);
    assert_eq!(info.saves[0].replies, vec![3..7]);
    assert_eq!((&*info.saves[0].model, &*info.saves[0].producer), ("tests/tiny", "portable 0.1.0"));
    let verified = agents.store.verify().unwrap();
    assert_eq!((verified.damage, verified.manifests, verified.blocks), (vec![], 4, 6));
    agents.begin(&whose("late"), &branch(1, 512, 4, 520));
    assert_eq!(after_restart(&disk.volume()).len(), 3);
}

fn fixture() -> Volume {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    let line = agents.begin(&whose("planner"), &conversation(1, 300));
    agents.save(&whose("planner"), line, &conversation(1, 530)).unwrap();
    let other = agents.store.new_line();
    let mut draft = agents.draft(&whose("planner"), other, &conversation(3, 7)).unwrap();
    draft.replies.push(3..7);
    agents.store.commit(&draft).unwrap();
    agents.begin(&whose("critic"), &branch(1, 256, 2, 280));
    drop(agents);
    disk.volume()
}

#[test]
fn a_newer_or_unknown_format_is_refused_and_untouched() {
    let volume = fixture();
    for (format, is_newer) in [
        ("semantic-cache 2\n", true),
        ("semantic-cache 10\n", true),
        ("semantic-cache 4294967296\n", true),
        ("semantic-cache 0\n", false),
        ("semantic-cache -1\n", false),
        ("semantic-cache 1", false),
        ("semantic-cache 1\n", false),
        ("semantic-cache 1\nkey 123\n", false),
        ("semantic-cache 1 \n", false),
        ("semantic-cache 01\n", false),
        ("semantic-cache\n", false),
        ("another program's 1\n", false),
        ("\u{fffd}\0", false),
        ("", false),
    ] {
        let other = volume.with("FORMAT", format.as_bytes().to_vec());
        let error = refuses(&other);
        match (is_newer, &error) {
            (true, OpenError::NewerFormat { found }) => assert_eq!(found, format.trim_end()),
            (false, OpenError::UnknownFormat { .. }) => (),
            _ => panic!("{format:?}: {error}"),
        }
    }
    refuses(&volume.with("FORMAT", vec![0xff; 100_000]));
}

/// Every agent would look damaged, and be cleared away.
#[test]
fn the_key_of_another_cache_is_refused_and_everything_untouched() {
    let other = MemoryDisk::default();
    drop(Store::open(Arc::new(other.clone()), Settings::default()).unwrap());
    let key = other.volume().bytes("KEY").to_vec();
    let error = refuses(&fixture().with("KEY", key));
    assert!(matches!(error, OpenError::KeyForeign), "{error}");
}

#[test]
fn saved_agents_without_their_key_are_refused_and_untouched() {
    let error = refuses(&fixture().without("KEY"));
    assert!(matches!(error, OpenError::KeyMissing), "{error}");
}

#[test]
fn caches_of_the_old_program_are_refused_and_untouched() {
    let old = Volume::default().with("planner.safetensors", vec![1, 2, 3]);
    let beside = fixture().with("planner.safetensors", vec![1, 2, 3]);
    for volume in [old, beside] {
        match refuses(&volume) {
            OpenError::Ancestor { file } => assert_eq!(file, "planner.safetensors"),
            error => panic!("{error}"),
        }
    }
}

#[test]
fn what_is_not_understood_is_never_removed() {
    let mut volume = fixture();
    let folders: Vec<String> =
        volume.0.keys().filter(|path| is_folder(&volume, path)).cloned().collect();
    let mut strangers = Vec::new();
    for folder in folders.iter().filter(|folder| *folder != "tmp") {
        strangers.push(format!("{folder}/notes.txt"));
        strangers.push(format!("{folder}/.DS_Store"));
    }
    strangers.push("notes.txt".to_owned());
    for path in &strangers {
        volume = volume.with(path, path.clone().into_bytes());
    }
    let whole = after_restart(&fixture());
    let disk = MemoryDisk::of(&volume);
    let agents = Agents::open(disk.clone());
    assert_eq!(agents.conversations(), whole);
    agents.store.collect().unwrap();
    agents.store.repair().unwrap();
    for (namespace, agent) in whole.keys() {
        assert!(agents.store.remove_agent(namespace, agent).unwrap());
    }
    agents.store.collect().unwrap();
    agents.store.collect().unwrap();
    for path in &strangers {
        let after = disk.volume();
        let is_kept = after.files("").iter().any(|kept| after.bytes(kept) == path.as_bytes());
        assert!(is_kept, "{path} was removed");
    }
}

/// Weights, tokenizer, RoPE, quantisation and adapter all change the fingerprint; here is each of its
/// bits.
#[test]
fn a_cache_of_another_model_is_never_loaded_and_kept() {
    let disk = MemoryDisk::of(&fixture());
    let agents = Agents::open(disk.clone());
    let lines = agents.store.lines(&agents.model.fingerprint);
    let before = disk.volume();
    for bit in 0..256 {
        let mut other = (*model()).clone();
        other.fingerprint.0[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(agents.store.lines(&other.fingerprint), []);
        for line in &lines {
            refuses_block(&agents, &other, line);
        }
    }
    assert_eq!(disk.volume(), before, "a file was put aside");
    assert_eq!(agents.conversations().len(), 2);
}

#[test]
fn a_cache_of_another_shape_is_never_loaded_and_kept() {
    let disk = MemoryDisk::of(&fixture());
    let agents = Agents::open(disk.clone());
    let lines = agents.store.lines(&agents.model.fingerprint);
    let before = disk.volume();
    let changes: [fn(&mut KvModel); 9] = [
        // Another number of layers, of heads, of dimensions; other bits.
        |model| drop(model.tensors.pop()),
        |model| {
            let name = "layer.1.key.codes".to_owned();
            model.tensors.push(KvTensor { name, ..model.tensors[0].clone() });
        },
        |model| model.tensors[0].shape[0] = KvAxis::Fixed(2),
        |model| model.tensors[1].shape = vec![KvAxis::Fixed(3), KvAxis::Fixed(1)],
        |model| model.tensors[1].shape = vec![KvAxis::Tokens],
        |model| model.tensors[1].element = KvElement::F32,
        |model| model.tensors[2].name.push('s'),
        |model| model.tensors.swap(1, 2),
        |model| model.tensors.clear(),
    ];
    for change in changes {
        let mut other = (*model()).clone();
        change(&mut other);
        for line in &lines {
            refuses_block(&agents, &other, line);
        }
    }
    assert_eq!(disk.volume(), before, "a file was put aside");
    assert_eq!(agents.conversations().len(), 2);
}

fn refuses_block(agents: &Agents, model: &KvModel, line: &semantic::store::StoredLine) {
    for block in &line.blocks {
        let read = agents.store.read_block(&line.namespace, model, block, Vec::new());
        assert!(read.is_err(), "read a block with another model");
    }
}

#[test]
fn whatever_a_block_depends_on_is_in_its_name() {
    let agents = Agents::open(MemoryDisk::of(&empty_volume()));
    // A store that is new has a key of its own.
    let strangers = Agents::open(MemoryDisk::default());
    let tokens = conversation(1, 20);
    let name =
        |agents: &Agents, namespace: &str, model: &KvModel, parent, tokens: &[TokenId], kv| {
            let namespace = Namespace::new(namespace);
            agents.store.seal(&namespace, model, parent, tokens, kv).block.name
        };
    let plain = model();
    let bytes = kv(&plain, &tokens, 0);
    let mut flipped = bytes.clone();
    flipped[0] ^= 1;
    let mut retrained = (*plain).clone();
    retrained.fingerprint = Fingerprint([8; 32]);
    let mut swapped = tokens.clone();
    swapped.swap(3, 4);
    let first = name(&agents, "local", &plain, None, &tokens, bytes.clone());
    let all: Vec<BlockName> = vec![
        first,
        name(&strangers, "local", &plain, None, &tokens, bytes.clone()),
        name(&agents, "Local", &plain, None, &tokens, bytes.clone()),
        name(&agents, "", &plain, None, &tokens, bytes.clone()),
        name(&agents, "local", &retrained, None, &tokens, bytes.clone()),
        name(&agents, "local", &plain, Some(&first), &tokens, bytes.clone()),
        name(&agents, "local", &plain, None, &swapped, bytes.clone()),
        name(&agents, "local", &plain, None, &tokens[1..], kv(&plain, &tokens[1..], 0)),
        name(&agents, "local", &plain, None, &tokens, flipped),
    ];
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    let again = name(&agents, "local", &plain, None, &tokens, bytes.clone());
    assert_eq!(first, again);
    // Who computed it is told, and decides nothing.
    let mut other_release = (*plain).clone();
    other_release.producer = "kernels 0.2.0".to_owned();
    assert_eq!(first, name(&agents, "local", &other_release, None, &tokens, bytes));
}

#[test]
fn a_block_is_a_safetensors_file_that_others_can_read() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    let tokens = conversation(1, 300);
    agents.begin(&whose("planner"), &tokens);
    let volume = disk.volume();
    let mut found = Vec::new();
    for path in volume.files("/b/") {
        let bytes = volume.bytes(&path);
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let mut names = file.names();
        names.sort_unstable();
        assert_eq!(names, ["layer.0.key.codes", "layer.0.key.scales", "layer.1.state"]);
        let codes = file.tensor("layer.0.key.codes").unwrap();
        assert_eq!(codes.dtype(), safetensors::Dtype::U8);
        let end = if codes.shape()[1] == BLOCK_TOKENS { BLOCK_TOKENS } else { tokens.len() };
        let right = kv(&agents.model, &tokens[..end], end - codes.shape()[1]);
        assert_eq!(codes.data(), &right[..codes.data().len()]);
        found.push(codes.shape().to_vec());
    }
    found.sort();
    assert_eq!(found, [vec![1, 44], vec![1, 256]]);
}

#[test]
fn a_block_without_its_file_is_missing_and_names_which() {
    let agents = Agents::open(MemoryDisk::of(&empty_volume()));
    let mut draft = agents.draft(&whose("planner"), Line(77), &conversation(1, 300)).unwrap();
    let mut other = agents.draft(&whose("planner"), Line(77), &conversation(2, 10)).unwrap();
    draft.namespace = Namespace::new("another");
    other.blocks.truncate(0);
    match agents.store.commit(&draft) {
        Err(StoreError::Missing(missing)) => {
            let names: Vec<BlockName> = draft.blocks.iter().map(|block| block.name).collect();
            assert_eq!(missing, names);
        }
        done => panic!("{done:?}"),
    }
    assert!(agents.conversations().is_empty());
}

fn refuses(volume: &Volume) -> OpenError {
    let disk = MemoryDisk::of(volume);
    let Err(error) = Agents::try_open(disk.clone()) else { panic!("opened\n{volume:?}") };
    let mut after = disk.volume();
    // The lock is taken to look, and the file that it needs stays.
    if !volume.0.contains_key("LOCK") {
        after.0.remove("LOCK");
    }
    assert_eq!(after, *volume, "{error}");
    error
}

fn is_folder(volume: &Volume, path: &str) -> bool {
    volume.0.get(path) == Some(&Node::Folder)
}

fn write_files(folder: &Path, volume: &Volume) {
    for path in volume.files("") {
        let file = folder.join(&path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, volume.bytes(&path)).unwrap();
    }
}

fn read_files(folder: &Path) -> Volume {
    let mut volume = Volume::default();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            let node = match path.is_dir() {
                true => Node::Folder,
                false => Node::File(Arc::new(fs::read(&path).unwrap())),
            };
            if path.is_dir() {
                folders.push(path);
            }
            volume.0.insert(name, node);
        }
    }
    volume
}
