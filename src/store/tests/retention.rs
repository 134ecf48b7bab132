//! How long agents are kept: pins, times to live, and files that say neither.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn pin() -> RetentionChange {
    RetentionChange { is_pinned: Some(true), ttl: None }
}

fn ttl(ttl: Option<Duration>) -> RetentionChange {
    RetentionChange { is_pinned: None, ttl: Some(ttl) }
}

fn retain(store: &Store, name: &str, change: RetentionChange) -> Result<Retention, StoreError> {
    store.retain(&Namespace::local(), &agent(name), change)
}

fn retention(store: &Store, name: &str) -> Retention {
    store.agent(&Namespace::local(), &agent(name)).unwrap().unwrap().retention
}

fn names(store: &Store) -> Vec<String> {
    store.agents().unwrap().iter().map(|info| info.agent.to_string()).collect()
}

fn retention_files(bench: &Bench) -> Vec<PathBuf> {
    bench.files_named(".retention").iter().map(|file| bench.root().join(file)).collect()
}

#[test]
fn what_is_pinned_stays_and_another_goes() {
    let one = {
        let bench = Bench::new();
        bench.save(&bench.open(), "a", Line(1), &tokens(1, 300));
        bench.bytes()
    };
    // Room for three agents, and the files that say how long they are kept.
    let bench = Bench::with(Settings { budget_bytes: 3 * one + 500, ..Settings::default() });
    let store = bench.open();
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        bench.save(&store, name, store.new_line(), &tokens(1000 * index as u32, 300));
    }
    let pinned = Retention { is_pinned: true, ttl: None };
    assert_eq!(retain(&store, "a", pin()).unwrap(), pinned);
    assert_eq!(store.usage().unwrap().disk_bytes, bench.bytes());
    bench.save(&store, "d", store.new_line(), &tokens(9000, 300));
    assert_eq!(names(&store), ["a", "c", "d"]);
    // Half of the room is for who is not pinned.
    let refused = retain(&store, "c", pin()).unwrap_err();
    assert!(matches!(&refused, StoreError::Quota { .. }), "{refused}");
    drop(store);
    let store = bench.open();
    assert_eq!(retention(&store, "a"), pinned);
    assert_eq!(store.usage().unwrap().disk_bytes, bench.bytes());
    let off = RetentionChange { is_pinned: Some(false), ttl: None };
    assert_eq!(retain(&store, "a", off).unwrap(), Retention::default());
    bench.save(&store, "e", store.new_line(), &tokens(19000, 300));
    assert_eq!(names(&store), ["c", "d", "e"]);
    assert_eq!(retention_files(&bench), [] as [PathBuf; 0]);
}

#[test]
fn an_agents_time_begins_anew_with_each_turn() {
    static NOW: AtomicU64 = AtomicU64::new(1_000_000);
    let mut bench = Bench::new();
    bench.settings.now =
        || SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.load(Ordering::Relaxed));
    let store = bench.open();
    let line = store.new_line();
    bench.save(&store, "a", line, &tokens(1, 300));
    bench.save(&store, "b", store.new_line(), &tokens(1, 300));
    assert!(!store.has_expiring());
    retain(&store, "a", ttl(Some(DAY))).unwrap();
    assert!(store.has_expiring());
    let whose = (Namespace::local(), agent("a"));
    let later = |seconds: u64| NOW.fetch_add(seconds, Ordering::Relaxed);
    later(86_399);
    assert_eq!(store.expired(16), []);
    bench.save(&store, "a", line, &tokens(1, 310));
    later(86_399);
    assert!(!store.is_expired(&whose.0, &whose.1));
    later(1);
    assert_eq!(store.expired(16), std::slice::from_ref(&whose));
    assert!(store.is_expired(&whose.0, &whose.1));
    // Whoever prolongs it keeps it.
    drop(store);
    let store = bench.open();
    assert_eq!(store.expired(16), [whose]);
    retain(&store, "a", ttl(Some(2 * DAY))).unwrap();
    assert_eq!(store.expired(16), []);
    retain(&store, "a", ttl(None)).unwrap();
    later(1 << 40);
    assert_eq!(store.expired(16), []);
    let nobody = retain(&store, "nobody", ttl(None)).unwrap_err();
    assert!(matches!(nobody, StoreError::NotFound(_)));
}

#[test]
fn who_comes_after_an_agent_of_its_name_is_not_kept_as_that_was() {
    let bench = Bench::new();
    let store = bench.open();
    bench.save(&store, "a", store.new_line(), &tokens(1, 300));
    retain(&store, "a", pin()).unwrap();
    let [file] = &retention_files(&bench)[..] else { panic!("one file says it") };
    let (file, bytes) = (file.clone(), fs::read(file).unwrap());
    store.remove_agent(&Namespace::local(), &agent("a")).unwrap();
    assert_eq!(retention_files(&bench), [] as [PathBuf; 0]);
    bench.save(&store, "a", store.new_line(), &tokens(1, 300));
    assert_eq!(retention(&store, "a"), Retention::default());
    // A crash may have left it.
    store.remove_agent(&Namespace::local(), &agent("a")).unwrap();
    drop(store);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, bytes).unwrap();
    let store = bench.open();
    assert_eq!(retention_files(&bench), [] as [PathBuf; 0]);
    bench.save(&store, "a", store.new_line(), &tokens(1, 300));
    drop(store);
    assert_eq!(retention(&bench.open(), "a"), Retention::default());
}

#[test]
fn the_newest_file_counts_and_older_ones_go() {
    let bench = Bench::new();
    let store = bench.open();
    bench.save(&store, "a", store.new_line(), &tokens(1, 300));
    retain(&store, "a", pin()).unwrap();
    let first = retention_files(&bench).remove(0);
    let bytes = fs::read(&first).unwrap();
    retain(&store, "a", ttl(Some(DAY))).unwrap();
    assert_eq!(retention_files(&bench).len(), 1);
    drop(store);
    // As after a crash between the new one's name and the old one's end.
    fs::write(&first, bytes).unwrap();
    let both = Retention { is_pinned: true, ttl: Some(DAY) };
    assert_eq!(retention(&bench.open_read_only(), "a"), both);
    assert_eq!(retention_files(&bench).len(), 2);
    let store = bench.open();
    assert_eq!(retention(&store, "a"), both);
    assert_eq!(retention_files(&bench).len(), 1);
}

#[test]
fn a_file_that_cannot_be_trusted_keeps_its_agent() {
    let bench = Bench::new();
    let store = bench.open();
    for name in ["a", "b"] {
        bench.save(&store, name, store.new_line(), &tokens(1, 300));
        retain(&store, name, ttl(Some(Duration::from_secs(1)))).unwrap();
    }
    drop(store);
    let files = retention_files(&bench);
    let whole = fs::read(&files[0]).unwrap();
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    let long = [whole.clone(), vec![0; 1 << 20]].concat();
    let others = fs::read(&files[1]).unwrap();
    for bad in [&flipped[..], &whole[..40], &[], &long, &others] {
        fs::write(&files[0], bad).unwrap();
        let store = bench.open();
        let kept = ["a", "b"].map(|name| retention(&store, name));
        assert!(kept.contains(&Retention::UNKNOWN), "{kept:?}");
        assert_eq!(store.expired(16).len(), 0);
    }
    // Saying it anew mends it.
    let store = bench.open();
    let name = ["a", "b"].into_iter().find(|it| retention(&store, it) == Retention::UNKNOWN);
    let change = RetentionChange { is_pinned: Some(false), ttl: Some(Some(DAY)) };
    retain(&store, name.unwrap(), change).unwrap();
    drop(store);
    assert_eq!(retention(&bench.open(), name.unwrap()).ttl, Some(DAY));
}

#[test]
fn a_turn_that_leaves_no_save_prolongs_as_well() {
    static NOW: AtomicU64 = AtomicU64::new(1_000_000);
    let mut bench = Bench::new();
    bench.settings.now =
        || SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.load(Ordering::Relaxed));
    let store = bench.open();
    bench.save(&store, "a", store.new_line(), &tokens(1, 300));
    let touch = |store: &Store| store.touch(&Namespace::local(), &agent("a")).unwrap();
    touch(&store);
    assert_eq!(retention_files(&bench), [] as [PathBuf; 0], "for ever is long enough");
    retain(&store, "a", ttl(Some(DAY))).unwrap();
    let first = retention_files(&bench);
    touch(&store);
    assert_eq!(retention_files(&bench), first, "just saved");
    NOW.fetch_add(86_399, Ordering::Relaxed);
    touch(&store);
    NOW.fetch_add(86_399, Ordering::Relaxed);
    assert_eq!(store.expired(16), []);
    drop(store);
    let store = bench.open();
    assert_eq!(store.expired(16), []);
    assert_eq!(retention(&store, "a").ttl, Some(DAY));
    // What else is said of it leaves that as it is.
    retain(&store, "a", pin()).unwrap();
    assert_eq!(store.expired(16), []);
    NOW.fetch_add(1, Ordering::Relaxed);
    assert_eq!(store.expired(16).len(), 1);
}

#[test]
fn what_is_only_supposed_is_written_when_it_is_said() {
    let bench = Bench::new();
    let store = bench.open();
    bench.save(&store, "a", store.new_line(), &tokens(1, 300));
    retain(&store, "a", ttl(Some(DAY))).unwrap();
    drop(store);
    let file = retention_files(&bench).remove(0);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[1..]).unwrap();
    let store = bench.open();
    assert_eq!(retention(&store, "a"), Retention::UNKNOWN);
    assert_eq!(retain(&store, "a", pin()).unwrap(), Retention::UNKNOWN);
    drop(store);
    // What could not be read then counts no more.
    fs::write(&file, whole).unwrap();
    assert_eq!(retention(&bench.open(), "a"), Retention { is_pinned: true, ttl: None });
}

#[test]
fn what_is_pinned_and_grows_beyond_its_part_goes_last() {
    let one = {
        let bench = Bench::new();
        bench.save(&bench.open(), "a", Line(1), &tokens(1, 300));
        bench.bytes()
    };
    let budget_bytes = 6 * one;
    let bench = Bench::with(Settings { budget_bytes, ..Settings::default() });
    let store = bench.open();
    let line = store.new_line();
    bench.save(&store, "a", line, &tokens(1, 300));
    retain(&store, "a", pin()).unwrap();
    bench.save(&store, "b", store.new_line(), &tokens(5000, 300));
    // More than half of the room.
    bench.save(&store, "a", line, &tokens(1, 1200));
    assert_eq!(names(&store), ["a", "b"]);
    bench.save(&store, "c", store.new_line(), &tokens(9000, 400));
    assert_eq!(names(&store), ["a", "c"]);
    // Others can still be saved.
    bench.save(&store, "d", store.new_line(), &tokens(19000, 1000));
    assert_eq!(names(&store), ["d"]);
    assert!(bench.bytes() <= budget_bytes);
}

#[test]
fn half_of_a_namespaces_agents_can_be_pinned() {
    let settings = Settings { namespace_agents: Some(4), ..Settings::default() };
    let bench = Bench::with(settings);
    let store = bench.open();
    for (index, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        bench.save(&store, name, store.new_line(), &tokens(1000 * index as u32, 30));
    }
    retain(&store, "a", pin()).unwrap();
    retain(&store, "b", pin()).unwrap();
    let refused = retain(&store, "c", pin()).unwrap_err();
    assert!(matches!(&refused, StoreError::Quota { .. }), "{refused}");
    for name in ["e", "f", "g"] {
        bench.save(&store, name, store.new_line(), &tokens(9000, 30));
    }
    assert_eq!(names(&store), ["a", "b", "f", "g"]);
}
