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
}

/// The store of a process that may have no more than is there.
fn full(bench: Bench) -> (Bench, Store) {
    let budget_bytes = bench.bytes();
    let bench = Bench { settings: Settings { budget_bytes, ..bench.settings.clone() }, ..bench };
    let store = bench.open();
    (bench, store)
}

fn is_there(store: &Store, name: &str) -> bool {
    store.agents().unwrap().iter().any(|info| info.agent == agent(name))
}

#[test]
fn words_make_room_among_words_and_an_agent_goes_only_where_there_are_too_few() {
    let bench = Bench::new();
    let store = one(&bench);
    bench.save(&store, "b", store.new_line(), &tokens(5000, 300));
    drop(store);
    let (bench, store) = full(bench);
    store.keep_transcript(&transcript("b", 8)).unwrap();
    assert_eq!((found(&store, 7), is_there(&store, "a")), (None, true));
    assert_eq!(bench.bytes(), bench.settings.budget_bytes, "to the byte");
    let longer = Transcript { said: vec![b'x'; 500].into(), ..transcript("b", 9) };
    store.keep_transcript(&longer).unwrap();
    assert_eq!(store.take_removed(), [(Namespace::local(), agent("a"), Line(1))]);
    assert!(found(&store, 8).is_some() && found(&store, 9).is_some());
}

/// What an agent that stays has said is not what its neighbour's going would bring.
#[test]
fn nobody_goes_in_vain_for_the_words_of_those_who_stay() {
    let bench = Bench::new();
    let store = bench.open();
    bench.save(&store, "b", store.new_line(), &tokens(5000, 30));
    bench.save(&store, "a", store.new_line(), &tokens(1, 300));
    let long = Transcript { said: vec![b'x'; 30_000].into(), ..transcript("a", 7) };
    store.keep_transcript(&long).unwrap();
    let change = RetentionChange { is_pinned: Some(true), ttl: None };
    store.retain(&Namespace::local(), &agent("a"), change).unwrap();
    drop(store);
    let (bench, store) = full(bench);
    // A block is more than all of "b".
    let [block, ..] = &bench.sealed(&store, &Namespace::new("other"), &tokens(9000, 256))[..]
    else {
        panic!("no block")
    };
    let refused = store.write_block(&agent("c"), block);
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    assert!(is_there(&store, "b") && found(&store, 7).is_some());
}

#[test]
fn words_go_before_a_turn_is_refused() {
    let bench = Bench::new();
    let store = one(&bench);
    let long = Transcript { said: vec![b'x'; 20_000].into(), ..transcript("a", 8) };
    store.keep_transcript(&long).unwrap();
    drop(store);
    let (bench, store) = full(bench);
    // Nobody else is there, and the agent that grows does not go for itself.
    bench.save(&store, "a", Line(1), &tokens(1, 600));
    assert_eq!((found(&store, 7), found(&store, 8)), (None, None));
    assert_eq!(bench.restored(&store, "a"), [(Line(1), Generation(2), 600)]);
    assert_eq!(store.usage().unwrap().disk_bytes, bench.bytes());
}

#[test]
fn words_have_an_eighth_of_what_a_namespace_may_have() {
    let bench = Bench::with(Settings { namespace_bytes: Some(80_000), ..Settings::default() });
    let store = one(&bench);
    let of = |id, bytes| Transcript { said: vec![b'x'; bytes].into(), ..transcript("a", id) };
    store.keep_transcript(&of(8, 4_900)).unwrap();
    assert!(found(&store, 7).is_some());
    store.keep_transcript(&of(9, 4_900)).unwrap();
    assert_eq!(found(&store, 7), None);
    assert!(found(&store, 8).is_some() && found(&store, 9).is_some());
    let refused = store.keep_transcript(&of(10, 10_000)).unwrap_err().to_string();
    assert!(refused.contains("the limit is 10000"), "{refused}");
    assert!(found(&store, 8).is_some() && found(&store, 9).is_some());
}

/// A crash between the last save of an agent and its words leaves them to nobody.
#[test]
fn what_an_agent_said_goes_at_the_next_start_if_it_has_no_save() {
    let bench = Bench::new();
    let store = one(&bench);
    bench.save(&store, "b", store.new_line(), &tokens(5000, 300));
    store.keep_transcript(&transcript("b", 8)).unwrap();
    drop(store);
    let of_a = folder_of(&bench.files_named("07.transcript")[0]).to_owned();
    let manifests = bench.files_named(".manifest");
    let manifest = manifests.iter().find(|file| folder_of(file) == of_a).unwrap();
    fs::remove_file(bench.root().join(manifest)).unwrap();
    assert!(found(&bench.open_read_only(), 7).is_some(), "who only reads removes nothing");
    let store = bench.open();
    assert_eq!(found(&store, 7), None);
    assert!(found(&store, 8).is_some());
    assert_eq!(bench.files_named(".transcript").len(), 1);
    // Also what the index does not know of any more.
    store.collect().unwrap();
    store.collect().unwrap();
    assert_eq!(store.usage().unwrap().disk_bytes, bench.bytes());
}

/// The folder that a file lies in.
fn folder_of(file: &str) -> &str {
    file.rsplit('/').nth(1).unwrap()
}

#[test]
fn a_transcript_in_another_agents_folder_is_not_what_it_said() {
    let bench = Bench::new();
    let store = one(&bench);
    bench.save(&store, "b", store.new_line(), &tokens(5000, 300));
    store.keep_transcript(&transcript("b", 8)).unwrap();
    drop(store);
    let files = bench.files_named(".transcript");
    let file = |id| files.iter().find(|file| file.ends_with(&format!("{id}.transcript"))).unwrap();
    let (of_a, of_b) = (file(7), file(8));
    let name = of_a.rsplit('/').next().unwrap();
    let moved = format!("{}/{name}", of_b.rsplit_once('/').unwrap().0);
    fs::rename(bench.root().join(of_a), bench.root().join(&moved)).unwrap();
    let store = bench.open();
    assert_eq!(found(&store, 7), None);
    assert!(found(&store, 8).is_some());
    assert_eq!(bench.quarantined().len(), 1);
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
