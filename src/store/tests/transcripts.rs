//! What was said up to an answer: kept whole, for its namespace, as long as its agent.

use super::*;
use crate::types::TranscriptId;

const SAID: &[u8] = b"{\"items\":[]}";

fn transcript(name: &str, id: u128) -> Transcript {
    let (namespace, agent) = (Namespace::local(), agent(name));
    Transcript { namespace, agent, id: TranscriptId(id), said: SAID.into() }
}

fn found(store: &Store, id: u128) -> Option<Box<[u8]>> {
    store.transcript(&Namespace::local(), TranscriptId(id)).unwrap()
}

/// A store with an agent and its transcript.
fn one(bench: &Bench) -> Store {
    let store = bench.open();
    bench.save(&store, "a", store.new_line(), &tokens(1, 300));
    store.keep_transcript(&transcript("a", 7)).unwrap();
    store
}

#[test]
fn a_transcript_is_found_as_it_was_kept_also_by_the_next_process() {
    let bench = Bench::new();
    let store = one(&bench);
    assert_eq!(found(&store, 7).as_deref(), Some(SAID));
    assert_eq!(store.usage().unwrap().disk_bytes, bench.bytes());
    drop(store);
    for store in [bench.open(), bench.open_read_only()] {
        assert_eq!(found(&store, 7).as_deref(), Some(SAID));
        assert_eq!(found(&store, 8), None);
        let other = store.transcript(&Namespace::new("other"), TranscriptId(7)).unwrap();
        assert_eq!(other, None);
        assert_eq!(store.usage().unwrap().disk_bytes, bench.bytes());
    }
    let kept = bench.open_read_only().keep_transcript(&transcript("a", 8));
    assert!(matches!(kept, Err(StoreError::ReadOnly)), "{kept:?}");
}

#[test]
fn a_transcript_that_is_removed_leaves_nothing() {
    let bench = Bench::new();
    let store = one(&bench);
    let remove = |id| store.remove_transcript(&Namespace::local(), TranscriptId(id)).unwrap();
    assert!(!remove(8));
    assert!(remove(7));
    assert!(!remove(7));
    assert_eq!((found(&store, 7), bench.files_named(".transcript")), (None, Vec::new()));
    assert_eq!(store.usage().unwrap().disk_bytes, bench.bytes());
    // Its folder is made again.
    store.keep_transcript(&transcript("a", 8)).unwrap();
    drop(store);
    assert_eq!(found(&bench.open(), 8).as_deref(), Some(SAID));
}

#[test]
fn an_agent_takes_its_transcripts_along() {
    let bench = Bench::new();
    let store = one(&bench);
    let lost = store.keep_transcript(&transcript("b", 9));
    assert!(matches!(lost, Err(StoreError::NotFound(_))), "{lost:?}");
    let (first, second) = (Line(1), store.new_line());
    bench.save(&store, "a", second, &tokens(5000, 300));
    bench.save(&store, "b", store.new_line(), &tokens(9000, 300));
    store.keep_transcript(&transcript("b", 9)).unwrap();
    store.remove_line(&Namespace::local(), &agent("a"), first).unwrap();
    assert!(found(&store, 7).is_some(), "there is another line");
    store.remove_line(&Namespace::local(), &agent("a"), second).unwrap();
    assert_eq!(found(&store, 7), None);
    assert!(found(&store, 9).is_some());
    store.remove_agent(&Namespace::local(), &agent("b")).unwrap();
    assert_eq!((found(&store, 9), bench.files_named(".transcript")), (None, Vec::new()));
}

#[test]
fn what_makes_room_takes_its_transcripts_along() {
    let bench = Bench::new();
    let one = one(&bench);
    let budget_bytes = bench.bytes();
    drop(one);
    let bench = Bench { settings: Settings { budget_bytes, ..bench.settings.clone() }, ..bench };
    let store = bench.open();
    bench.save(&store, "b", store.new_line(), &tokens(5000, 300));
    assert_eq!((found(&store, 7), bench.files_named(".transcript")), (None, Vec::new()));
    store.keep_transcript(&transcript("b", 8)).unwrap();
    assert_eq!(bench.bytes(), budget_bytes, "to the byte");
    let full = store.keep_transcript(&transcript("b", 9));
    assert!(matches!(full, Err(StoreError::Full { .. })), "{full:?}");
    assert!(found(&store, 8).is_some());
}

#[test]
fn no_flipped_bit_and_no_other_place_passes_for_what_was_said() {
    let bench = Bench::new();
    drop(one(&bench));
    let file = bench.root().join(&bench.files_named(".transcript")[0]);
    let whole = fs::read(&file).unwrap();
    let check = |path: &Path, bytes: &[u8], id| {
        fs::write(path, bytes).unwrap();
        let store = bench.open();
        assert_eq!(found(&store, id), None);
        // It is away, and not asked again.
        assert!(!path.exists());
        assert_eq!(found(&store, id), None);
    };
    for bit in (0..whole.len() * 8).step_by(7) {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        check(&file, &flipped, 7);
    }
    check(&file, &whole[..whole.len() - 1], 7);
    check(&file, &[&whole[..], b"x"].concat(), 7);
    check(&file, b"", 7);
    let renamed = file.to_str().unwrap().replace("07.transcript", "08.transcript");
    check(Path::new(&renamed), &whole, 8);
    fs::write(&file, &whole).unwrap();
    assert_eq!(found(&bench.open(), 7).as_deref(), Some(SAID));
}

#[test]
fn the_oldest_transcripts_go_when_there_are_too_many_bytes() {
    let bench = Bench::new();
    let store = one(&bench);
    let large = |id| Transcript { said: vec![0; 15 << 20].into(), ..transcript("a", id) };
    for id in 100..117 {
        store.keep_transcript(&large(id)).unwrap();
    }
    // 17 of 15 MiB are 255; the small one was there before all of them.
    assert!(found(&store, 7).is_some());
    store.keep_transcript(&large(117)).unwrap();
    assert_eq!((found(&store, 7), found(&store, 100)), (None, None));
    assert!(found(&store, 101).is_some() && found(&store, 117).is_some());
    let most = Transcript { said: vec![0; 16 << 20].into(), ..transcript("a", 200) };
    let refused = store.keep_transcript(&most);
    assert!(matches!(refused, Err(StoreError::Quota { .. })), "{refused:?}");
}
