//! An agent that goes to another store in a file.

use std::io::Cursor;

use super::*;

/// What an agent of this store is as a file.
fn exported(store: &Store, name: &str) -> Vec<u8> {
    let mut file = Vec::new();
    let told = store.export(&Namespace::local(), &agent(name), &mut file).unwrap();
    assert_eq!(told.bytes, file.len() as u64);
    file
}

fn import(store: &Store, name: &str, file: &[u8]) -> Result<Transferred, TransferError> {
    let mut import = Import::open(Cursor::new(file))?;
    store.import(&Namespace::local(), &agent(name), &mut import)
}

/// A file whose description was changed, with a digest that fits.
fn forged(file: &[u8], from: &str, to: &str) -> Vec<u8> {
    let begin = "semantic-agent 1\n".len();
    let length = u64::from_le_bytes(file[begin..begin + 8].try_into().unwrap()) as usize;
    let (description, rest) = file[begin + 8..file.len() - 32].split_at(length);
    let description = std::str::from_utf8(description).unwrap();
    assert!(description.contains(from), "{description}");
    let description = description.replacen(from, to, 1);
    let length = (description.len() as u64).to_le_bytes();
    let parts = [&file[..begin], &length, description.as_bytes(), rest].concat();
    let digest = *blake3::hash(&parts).as_bytes();
    [&parts[..], &digest].concat()
}

#[test]
fn an_agent_is_the_same_in_another_store() {
    let (here, there) = (Bench::new(), Bench::new());
    let store = here.open();
    let conversation = tokens(1, 600);
    // The one before shares two blocks with it.
    here.save(&store, "planner", store.new_line(), &tokens(1, 520));
    here.save(&store, "planner", store.new_line(), &conversation);
    let file = exported(&store, "planner");
    // 24 bytes of KV per token; the shared blocks once.
    assert!(file.len() < 24 * (600 + 8) + 10_000, "{}", file.len());

    let other = there.open();
    let told = import(&other, "../planner", &file).unwrap();
    assert_eq!((told.conversations, told.tokens), (2, 600));
    let restored = |store: &Store| {
        let lines = there.restored(store, "../planner");
        lines.into_iter().map(|(_, _, tokens)| tokens).collect::<Vec<_>>()
    };
    // The one that was used last comes last, here as there.
    assert_eq!(restored(&other), [520, 600]);
    let lines = other.lines(&there.model.fingerprint);
    assert_eq!((&lines[1].tokens[..], &lines[1].replies[..]), (&conversation[..], &[300..600][..]));
    // A name is no path.
    assert!(there.files().iter().all(|file| !file.contains("planner")), "{:?}", there.files());
    drop(other);
    assert_eq!(restored(&there.open()), [520, 600]);
}

#[test]
fn a_file_that_is_not_as_it_was_written_is_refused() {
    let (here, there) = (Bench::new(), Bench::new());
    let store = here.open();
    here.save(&store, "planner", store.new_line(), &tokens(1, 300));
    let file = exported(&store, "planner");
    let other = there.open();
    let before = there.files();
    let refused = |file: &[u8]| match import(&other, "planner", file) {
        Err(TransferError::Invalid(_)) => (),
        other => panic!("{other:?}"),
    };
    for at in (0..file.len()).step_by(97).chain([file.len() - 1]) {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        refused(&flipped);
        refused(&file[..at]);
    }
    refused(&[&file[..], b"x"].concat());
    assert_eq!(there.files(), before);
    import(&other, "planner", &file).unwrap();
}

#[test]
fn a_description_that_makes_no_sense_is_refused() {
    let (here, there) = (Bench::new(), Bench::new());
    let store = here.open();
    here.save(&store, "planner", store.new_line(), &tokens(1, 300));
    let file = exported(&store, "planner");
    let other = there.open();
    let fingerprint = "01".repeat(32);
    for (from, to, reason) in [
        ("\"tokens\":256", "\"tokens\":0", "block 0 of a conversation has 0 tokens"),
        ("\"tokens\":256", "\"tokens\":257", "block 0 of a conversation has 257 tokens"),
        ("\"tokens\":44", "\"tokens\":45", "blocks of 301 tokens are of a conversation of 300"),
        ("\"blocks\":[0,1]", "\"blocks\":[1,0]", "block 0 of a conversation has 44 tokens"),
        ("\"blocks\":[0,1]", "\"blocks\":[0,2]", "block 1 of a conversation has 0 tokens"),
        ("\"start\":150", "\"start\":300", "tokens 300 to 300 are no reply"),
        ("\"end\":300", "\"end\":301", "tokens 150 to 301 are no reply"),
        (&fingerprint, "01", "a fingerprint is none"),
        ("\"conversations\":[{", "\"conversations\":[],\"x\":[{", "its description: "),
        ("\"bytes\":", "\"bytes\":1", "its blocks are not as long as it says"),
        (
            "\"replies\":[",
            &format!("\"replies\":[{}", "{\"start\":0,\"end\":1},".repeat(1 << 16)),
            "too many replies",
        ),
        ("\"model\":\"tiny\"", &format!("\"model\":\"{}\"", "x".repeat(1025)), "a model's name"),
    ] {
        let reason_found = match import(&other, "planner", &forged(&file, from, to)) {
            Err(TransferError::Invalid(reason)) => reason,
            other => panic!("{from} as {to}: {other:?}"),
        };
        assert!(reason_found.contains(reason), "{from} as {to}: {reason_found}");
    }
    // Known only when its blocks are read: what was written before it goes again.
    match import(&other, "planner", &forged(&file, &fingerprint, &"02".repeat(32))) {
        Err(TransferError::Invalid(reason)) => {
            assert!(reason.contains("another model"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    // Fewer tokens than the block has: of no use for the model, which finds out.
    import(&other, "planner", &forged(&file, "\"tokens\":44", "\"tokens\":43")).unwrap();
    let restored = there.restored(&other, "planner");
    assert_eq!(restored.iter().map(|(_, _, tokens)| *tokens).collect::<Vec<_>>(), [256]);
}

#[test]
fn nothing_is_left_of_an_agent_that_could_not_be_taken_in() {
    let (here, there) = (Bench::new(), Bench::new());
    let store = here.open();
    here.save(&store, "planner", store.new_line(), &tokens(1, 300));
    here.save(&store, "planner", store.new_line(), &tokens(9, 20));
    let mut file = exported(&store, "planner");
    // The last number of the last block: infinity, with a digest that fits.
    let end = file.len() - 32;
    file[end - 2..end].copy_from_slice(&0x7c00_u16.to_le_bytes());
    let digest = *blake3::hash(&file[..end]).as_bytes();
    file[end..].copy_from_slice(&digest);
    let other = there.open();
    match import(&other, "planner", &file) {
        Err(TransferError::Invalid(reason)) => assert!(reason.contains("not finite"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(!other.has_agent(&Namespace::local(), &agent("planner")));
    assert_eq!(there.files_named(".manifest"), Vec::<String>::new());
}

#[test]
fn an_agent_that_is_there_stays_as_it_is() {
    let bench = Bench::new();
    let store = bench.open();
    let line = store.new_line();
    let generation = bench.save(&store, "planner", line, &tokens(1, 300));
    let file = exported(&store, "planner");
    let refused = import(&store, "planner", &file);
    assert!(matches!(refused, Err(TransferError::Store(StoreError::Exists(_)))), "{refused:?}");
    assert_eq!(bench.restored(&store, "planner"), [(line, generation, 300)]);
    // Beside it, with the blocks that are there.
    let blocks = bench.files_named(".safetensors");
    import(&store, "planner2", &file).unwrap();
    assert_eq!(bench.files_named(".safetensors"), blocks);
    let read_only = bench.open_read_only();
    let refused = import(&read_only, "planner3", &file);
    assert!(matches!(refused, Err(TransferError::Store(StoreError::ReadOnly))), "{refused:?}");
    assert_eq!(exported(&read_only, "planner"), file);
}

#[test]
fn damage_is_found_before_it_leaves() {
    let bench = Bench::new();
    let store = bench.open();
    bench.save(&store, "planner", store.new_line(), &tokens(1, 300));
    let path = bench.root().join(&bench.files_named(".safetensors")[0]);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let result = store.export(&Namespace::local(), &agent("planner"), &mut Vec::new());
    let is_damage = |error: &TransferError| {
        matches!(error, TransferError::Store(StoreError::Damaged { flaw: Flaw::Digest, .. }))
    };
    assert!(result.as_ref().is_err_and(is_damage), "{result:?}");
    let nobody = store.export(&Namespace::local(), &agent("nobody"), &mut Vec::new());
    assert!(matches!(nobody, Err(TransferError::Store(StoreError::NotFound(_)))), "{nobody:?}");
}
