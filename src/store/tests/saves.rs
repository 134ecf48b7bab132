//! What is saved comes back: over processes, generations, lines, forks.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn what_one_process_saved_another_restores() {
    let bench = Bench::new();
    let conversation = tokens(1, 600);
    let (line, generation) = {
        let store = bench.open();
        let line = store.new_line();
        (line, bench.save(&store, "planner", line, &conversation))
    };
    let store = bench.open();
    assert_eq!(bench.restored(&store, "planner"), [(line, generation, 600)]);
    let [stored] = &store.lines(&bench.model.fingerprint)[..] else { panic!("one line") };
    assert_eq!(&stored.tokens[..], &conversation[..]);
    assert_eq!(stored.replies, vec![300..600]);
    assert_eq!(stored.blocks.iter().map(|block| block.tokens).sum::<usize>(), 600);
    assert_eq!(store.lines(&Fingerprint([2; 32])), [], "another model has no use for it");
    assert!(store.new_line() > line);
}

#[test]
fn a_turn_writes_what_is_new_and_nothing_else() {
    let bench = Bench::new();
    let store = bench.open();
    let line = store.new_line();
    bench.save(&store, "planner", line, &tokens(1, 600));
    let before = bench.files();
    bench.save(&store, "planner", line, &tokens(1, 700));
    let new: Vec<String> =
        bench.files().into_iter().filter(|file| !before.contains(file)).collect();
    let count = |suffix: &str| new.iter().filter(|file| file.ends_with(suffix)).count();
    assert_eq!((count(".safetensors"), count(".manifest")), (1, 1), "{new:?}");
    assert_eq!(bench.restored(&store, "planner"), [(line, Generation(2), 700)]);
}

/// Each turn's last block is its own, and stays for the save that may be gone back to.
#[test]
fn an_agent_that_is_removed_leaves_no_block_behind() {
    let bench = Bench::new();
    let store = bench.open();
    let line = store.new_line();
    for length in [300, 400, 530, 600] {
        bench.save(&store, "planner", line, &tokens(1, length));
    }
    bench.save(&store, "other", store.new_line(), &tokens(1, 256));
    assert_eq!(bench.files_named(".safetensors").len(), 6);
    assert!(store.remove_agent(&Namespace::local(), &agent("planner")).unwrap());
    // The other one's.
    assert_eq!(bench.files_named(".safetensors").len(), 1);
    assert_eq!(bench.files_named(".manifest").len(), 1);
}

#[test]
fn agents_with_one_beginning_share_its_blocks_and_namespaces_share_nothing() {
    let bench = Bench::new();
    let store = bench.open();
    for name in ["a", "b"] {
        bench.save(&store, name, store.new_line(), &tokens(1, 512));
    }
    assert_eq!(bench.files_named(".safetensors").len(), 2);
    let other = Namespace::new("other");
    for sealed in bench.sealed(&store, &other, &tokens(1, 512)) {
        assert!(!store.is_stored(&other, &sealed.block.name));
        store.write_block(&agent("a"), &sealed).unwrap();
        assert!(store.is_stored(&other, &sealed.block.name));
        assert!(!store.is_stored(&Namespace::local(), &sealed.block.name));
    }
    assert_eq!(bench.files_named(".safetensors").len(), 4);
    let agents = store.agents().unwrap();
    assert_eq!(agents.len(), 2);
    assert!(agents.iter().all(|info| info.shared_bytes > 2 * 24 * 256));
}

#[test]
fn a_save_names_no_block_that_is_not_there() {
    let bench = Bench::new();
    let store = bench.open();
    let draft = bench.draft(&store, "planner", store.new_line(), &tokens(1, 600));
    let Err(StoreError::Missing(missing)) = store.commit(&draft) else { panic!("none is there") };
    assert_eq!(missing, draft.blocks.iter().map(|block| block.name).collect::<Vec<_>>());
    assert_eq!(bench.files_named(".manifest"), [""; 0]);
    assert_eq!(bench.save(&store, "planner", draft.line, &tokens(1, 600)), Generation(1));
}

#[test]
fn three_older_saves_of_a_line_are_kept_to_go_back_to() {
    let bench = Bench::new();
    let store = bench.open();
    let line = store.new_line();
    for turn in 1..=6 {
        bench.save(&store, "planner", line, &tokens(1, 100 * turn));
    }
    let collected = store.collect().unwrap();
    assert_eq!((collected.manifests, collected.blocks), (2, 2));
    let info = store.agent(&Namespace::local(), &agent("planner")).unwrap().unwrap();
    let generations: Vec<u64> = info.saves.iter().map(|save| save.generation.0).collect();
    assert_eq!(generations, [6, 5, 4, 3]);
    assert_eq!(info.newest().tokens, 600);

    let back = store.rollback(&info.namespace, &info.agent, None).unwrap();
    assert_eq!(bench.restored(&store, "planner"), [(line, back.generation, 500)]);
    let back = store.rollback(&info.namespace, &info.agent, Some(Generation(3))).unwrap();
    assert_eq!(back.generation, Generation(8));
    drop(store);
    let store = bench.open();
    assert_eq!(bench.restored(&store, "planner"), [(line, Generation(8), 300)]);
    assert_eq!(store.tokens(&info.namespace, &info.agent, Generation(8)).unwrap(), tokens(1, 300));
    let absent = store.rollback(&info.namespace, &info.agent, Some(Generation(1)));
    assert!(matches!(absent, Err(StoreError::NotFound(_))), "{absent:?}");
}

#[test]
fn a_fork_goes_its_own_way() {
    let bench = Bench::new();
    let store = bench.open();
    let lines = [store.new_line(), store.new_line()];
    bench.save(&store, "a", lines[0], &tokens(1, 600));
    bench.save(&store, "a", lines[1], &tokens(5000, 300));
    let blocks = bench.files_named(".safetensors");
    store.fork(&Namespace::local(), &agent("a"), &agent("b")).unwrap();
    assert_eq!(bench.files_named(".safetensors"), blocks, "a fork copies no block");
    let forked = bench.restored(&store, "b");
    assert_eq!(forked.iter().map(|line| line.2).collect::<Vec<_>>(), [600, 300]);
    assert!(forked.iter().all(|line| !lines.contains(&line.0)));
    let again = store.fork(&Namespace::local(), &agent("a"), &agent("b"));
    assert!(matches!(again, Err(StoreError::Exists(_))), "{again:?}");
    let absent = store.fork(&Namespace::local(), &agent("x"), &agent("y"));
    assert!(matches!(absent, Err(StoreError::NotFound(_))), "{absent:?}");

    assert!(store.remove_agent(&Namespace::local(), &agent("a")).unwrap());
    assert!(!store.remove_agent(&Namespace::local(), &agent("a")).unwrap());
    assert_eq!(bench.restored(&store, "b"), forked, "the blocks are still needed");
    assert_eq!(bench.restored(&store, "a"), []);
    assert!(store.remove_agent(&Namespace::local(), &agent("b")).unwrap());
    assert_eq!(bench.files_named(".safetensors"), [""; 0]);
    assert_eq!(bench.files_named(".manifest"), [""; 0]);
}

#[test]
fn a_line_that_is_removed_stays_away_and_the_other_stays() {
    let bench = Bench::new();
    let lines = {
        let store = bench.open();
        let lines = [store.new_line(), store.new_line()];
        for turn in 1..=3 {
            bench.save(&store, "a", lines[0], &tokens(1, 300 * turn));
            bench.save(&store, "a", lines[1], &tokens(9000, 300 * turn));
        }
        store.remove_line(&Namespace::local(), &agent("a"), lines[0]).unwrap();
        store.remove_line(&Namespace::local(), &agent("a"), lines[0]).unwrap();
        lines
    };
    let store = bench.open();
    assert_eq!(bench.restored(&store, "a"), [(lines[1], Generation(6), 900)]);
}

#[test]
fn blocks_wait_for_their_save_through_one_collection() {
    let bench = Bench::new();
    let store = bench.open();
    let line = store.new_line();
    for sealed in bench.sealed(&store, &Namespace::local(), &tokens(1, 600)) {
        store.write_block(&agent("a"), &sealed).unwrap();
    }
    assert_eq!(store.collect().unwrap(), Collected::default());
    store.commit(&bench.draft(&store, "a", line, &tokens(1, 600))).unwrap();
    for sealed in bench.sealed(&store, &Namespace::local(), &tokens(7000, 600)) {
        store.write_block(&agent("a"), &sealed).unwrap();
    }
    store.collect().unwrap();
    assert_eq!(store.collect().unwrap().blocks, 3);
    assert_eq!(store.collect().unwrap(), Collected::default());
    assert_eq!(bench.restored(&store, "a"), [(line, Generation(1), 600)]);
}

#[test]
fn a_second_process_is_told_who_has_the_store_and_may_read_beside_it() {
    let bench = Bench::new();
    let store = bench.open();
    bench.save(&store, "a", store.new_line(), &tokens(1, 300));
    let pid = std::process::id();
    let second = bench.try_open().err();
    assert!(matches!(second, Some(OpenError::Locked { pid: Some(held) }) if held == pid));
    let before = bench.files();
    let reader = bench.open_read_only();
    assert!(reader.is_read_only());
    assert_eq!(bench.restored(&reader, "a"), [(Line(1), Generation(1), 300)]);
    assert_eq!(reader.agents().unwrap().len(), 1);
    let denied = [
        reader.collect().err(),
        reader.remove_agent(&Namespace::local(), &agent("a")).err(),
        bench.try_save(&reader, "b", Line(9), &tokens(1, 3)).err(),
        reader.repair().err(),
    ];
    assert!(denied.iter().all(|error| matches!(error, Some(StoreError::ReadOnly))), "{denied:?}");
    assert_eq!(bench.files(), before);
    drop(store);
    bench.open();
}

#[test]
fn reading_where_no_store_is_makes_none() {
    let bench = Bench::new();
    let store = bench.open_read_only();
    assert_eq!(store.agents().unwrap().len(), 0);
    assert_eq!(store.usage().unwrap().disk_bytes, 0);
    assert!(!bench.root().exists());
}

#[test]
fn only_this_user_can_read_what_is_saved() {
    let bench = Bench::new();
    bench.save(&bench.open(), "a", Line(1), &tokens(1, 300));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for file in bench.files() {
        let path = bench.root().join(&file);
        assert_eq!(mode(&path), 0o600, "{file}");
        assert_eq!(mode(path.parent().unwrap()), 0o700, "{file}");
    }
}

#[test]
fn whatever_an_agent_is_called_its_files_have_names_of_ours() {
    let bench = Bench::new();
    let long = "x".repeat(256);
    let names = [
        "..",
        "../../etc/passwd",
        "a\0b",
        "\u{202e}evil",
        "Bob",
        "bob",
        "x.tmp",
        "trailing\n",
        " ",
        "%2e%2e%2f",
        "e\u{301}",
        "\u{e9}",
        &long,
    ];
    let store = bench.open();
    for (index, name) in names.iter().enumerate() {
        bench.save(&store, name, store.new_line(), &tokens(1000 * index as u32, 3 + index));
    }
    let is_ours = |file: &String| {
        file.bytes().all(|byte| b"/._".contains(&byte) || byte.is_ascii_alphanumeric())
    };
    assert!(bench.files().iter().all(is_ours), "{:?}", bench.files());
    assert_eq!(fs::read_dir(bench.folder.path()).unwrap().count(), 1);
    drop(store);
    let store = bench.open();
    for (index, name) in names.iter().enumerate() {
        let restored = bench.restored(&store, name);
        assert_eq!(restored.iter().map(|line| line.2).collect::<Vec<_>>(), [3 + index], "{name:?}");
    }
    assert_eq!(store.agents().unwrap().len(), names.len());
}
