//! Budgets and quotas: who goes when it is too much.

use super::*;

/// Bytes of a save of 300 tokens with its blocks.
fn bytes_of_a_save() -> u64 {
    let bench = Bench::new();
    bench.save(&bench.open(), "a", Line(1), &tokens(1, 300));
    bench.bytes()
}

fn names(store: &Store) -> Vec<String> {
    store.agents().unwrap().iter().map(|info| info.agent.to_string()).collect()
}

#[test]
fn who_was_used_least_recently_goes_first() {
    let budget_bytes = 3 * bytes_of_a_save();
    let bench = Bench::with(Settings { budget_bytes, ..Settings::default() });
    let store = bench.open();
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        bench.save(&store, name, store.new_line(), &tokens(1000 * index as u32, 300));
    }
    assert_eq!(bench.bytes(), budget_bytes, "to the byte");
    // Reading is a use as well.
    bench.restored(&store, "a");
    let line = store.new_line();
    for sealed in bench.sealed(&store, &Namespace::local(), &tokens(9000, 300)) {
        store.write_block(&agent("d"), &sealed).unwrap();
        assert!(bench.bytes() <= budget_bytes);
    }
    let draft = bench.draft(&store, "d", line, &tokens(9000, 300));
    let removed = store.commit(&draft).unwrap().removed;
    assert_eq!(removed, [(Namespace::local(), agent("b"), Line(2))]);
    assert_eq!(names(&store), ["a", "c", "d"]);
    assert_eq!(bench.bytes(), budget_bytes);
    assert_eq!(store.usage().unwrap().disk_bytes, budget_bytes);
    drop(store);
    assert_eq!(names(&bench.open()), ["a", "c", "d"]);
}

#[test]
fn an_agent_does_not_make_room_for_itself() {
    let one = bytes_of_a_save();
    let bench = Bench::with(Settings { budget_bytes: 2 * one, ..Settings::default() });
    let store = bench.open();
    let line = store.new_line();
    bench.save(&store, "a", line, &tokens(1, 300));
    bench.save(&store, "b", store.new_line(), &tokens(5000, 300));
    // The new tail belongs to "a", who was used longest ago: "b" goes.
    bench.save(&store, "a", line, &tokens(1, 310));
    assert_eq!(names(&store), ["a"]);
    assert_eq!(bench.restored(&store, "a"), [(line, Generation(2), 310)]);
    assert_eq!(store.take_removed(), []);
}

#[test]
fn what_can_never_fit_removes_nobody() {
    let one = bytes_of_a_save();
    let bench = Bench::with(Settings { budget_bytes: one, ..Settings::default() });
    let store = bench.open();
    bench.save(&store, "a", store.new_line(), &tokens(1, 300));
    let second = bench.try_save(&store, "b", store.new_line(), &tokens(9000, 3000));
    let full = StoreError::Full { needed_bytes: 0, reason: FullReason::Budget }.to_string();
    let message = second.unwrap_err().to_string();
    assert_eq!(message.split_once(": ").unwrap().1, full.split_once(": ").unwrap().1);
    assert!(bench.bytes() <= one);
    // What was written for it in vain goes by and by, and then there is room again.
    store.collect().unwrap();
    store.collect().unwrap();
    bench.save(&store, "c", store.new_line(), &tokens(7000, 300));
    assert_eq!(names(&store), ["c"]);
}

#[test]
fn a_namespace_makes_room_in_itself() {
    let one = bytes_of_a_save();
    let bench = Bench::with(Settings { namespace_bytes: Some(2 * one), ..Settings::default() });
    let store = bench.open();
    let other = Namespace::new("local2");
    let write = |name: &str, first: u32| {
        let blocks = bench.sealed(&store, &other, &tokens(first, 300));
        blocks.iter().for_each(|sealed| store.write_block(&agent(name), sealed).unwrap());
        let draft = bench.draft(&store, name, store.new_line(), &tokens(first, 300));
        let blocks = blocks.into_iter().map(|sealed| sealed.block).collect();
        store.commit(&Draft { namespace: other.clone(), blocks, ..draft })
    };
    write("x", 0).unwrap();
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        bench.save(&store, name, store.new_line(), &tokens(1000 * index as u32, 300));
    }
    assert_eq!(names(&store), ["b", "c", "x"], "the other namespace is as it was");
    assert_eq!(store.usage().unwrap().namespaces[0].disk_bytes, 2 * one);
    let too_much = bench.try_save(&store, "d", store.new_line(), &tokens(9000, 3000));
    let expected = format!("namespace \"local\" may not have more than {} bytes", 2 * one);
    assert_eq!(too_much.unwrap_err().to_string(), expected);
}

#[test]
fn a_namespace_has_so_many_agents_and_no_more() {
    let bench = Bench::with(Settings { namespace_agents: Some(2), ..Settings::default() });
    let store = bench.open();
    let lines: Vec<Line> = (0..4).map(|_| store.new_line()).collect();
    bench.save(&store, "a", lines[0], &tokens(1, 30));
    bench.save(&store, "b", lines[1], &tokens(1, 40));
    bench.save(&store, "a", lines[2], &tokens(1, 50));
    let third = bench.try_save(&store, "c", lines[3], &tokens(1, 60)).unwrap();
    assert_eq!(third.removed, [(Namespace::local(), agent("b"), lines[1])]);
    assert_eq!(names(&store), ["a", "c"]);

    let none = Bench::with(Settings { namespace_agents: Some(0), ..Settings::default() });
    let refused = none.try_save(&none.open(), "a", Line(1), &tokens(1, 30));
    expect_test::expect![[r#"namespace "local" may not have more than 0 agents"#]]
        .assert_eq(&refused.unwrap_err().to_string());
}

#[test]
fn damaged_files_go_before_agents_do() {
    let one = bytes_of_a_save();
    let bench = Bench::with(Settings { budget_bytes: 3 * one, ..Settings::default() });
    let store = bench.open();
    bench.save(&store, "a", store.new_line(), &tokens(1, 300));
    bench.save(&store, "b", store.new_line(), &tokens(1000, 300));
    let full = |file: &String| fs::metadata(bench.root().join(file)).unwrap().len() > 24 * 256;
    let file = bench.files_named(".safetensors").into_iter().find(full).unwrap();
    let mut bytes = fs::read(bench.root().join(&file)).unwrap();
    bytes[600] ^= 1;
    fs::write(bench.root().join(file), bytes).unwrap();
    store.repair().unwrap();
    assert_eq!(bench.quarantined().len(), 1);
    assert_eq!(store.usage().unwrap().disk_bytes, bench.bytes(), "it is counted");
    bench.save(&store, "c", store.new_line(), &tokens(5000, 400));
    assert_eq!(bench.quarantined(), [""; 0]);
    assert_eq!(names(&store), ["a", "b", "c"]);
}
