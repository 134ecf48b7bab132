//! Room: what goes when there is too little, who is told, and what a full disk means.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use semantic::store::{Committed, FullReason, Settings, StoreError, StoredLine};
use semantic::types::{AgentId, Namespace};

use super::agents::{Agents, Whose, after_restart, branch, conversation, empty_volume, whose};
use crate::support::disk::{MemoryDisk, Moment};

/// The names of the agents whose lines went.
fn names(committed: &Committed) -> Vec<&str> {
    committed.removed.iter().map(|(_, agent, _)| agent.as_str()).collect()
}

fn save_new(agents: &Agents, name: &str, tokens: usize) -> Result<Committed, StoreError> {
    let seed = name.bytes().map(u64::from).sum();
    agents.save(&whose(name), agents.store.new_line(), &conversation(seed, tokens))
}

/// By name. Reads nothing, for that would be a use.
fn who_is_there(agents: &Agents) -> Vec<String> {
    let lines = agents.store.lines(&agents.model.fingerprint);
    let mut names: Vec<String> = lines.iter().map(|line| line.agent.as_str().to_owned()).collect();
    names.sort();
    names
}

fn line_of(agents: &Agents, name: &str) -> StoredLine {
    let lines = agents.store.lines(&agents.model.fingerprint);
    lines.into_iter().find(|line| line.agent.as_str() == name).unwrap()
}

/// What a store takes with these agents of 100 tokens each.
fn bytes_of(names: &[&str]) -> u64 {
    let agents = Agents::open(MemoryDisk::of(&empty_volume()));
    for name in names {
        save_new(&agents, name, 100).unwrap();
    }
    agents.store.usage().unwrap().disk_bytes
}

/// Of LOCK, FORMAT and KEY, which are in no budget.
const FIXED_BYTES: u64 = 128;

fn open(disk: &MemoryDisk, settings: Settings) -> Agents {
    Agents::open_with(disk.clone(), settings).unwrap()
}

fn with_budget(budget_bytes: u64) -> Settings {
    Settings { budget_bytes, ..Settings::default() }
}

/// The old program's tests called it access: a, b, c, then a again, then d; b goes.
#[test]
fn who_was_saved_longest_ago_goes_when_the_budget_is_full() {
    let disk = MemoryDisk::of(&empty_volume());
    // Four agents do not fit, three and a second save of one do.
    let agents = open(&disk, with_budget(bytes_of(&["a", "b", "c", "d"]) - 1));
    for name in ["a", "b", "c"] {
        assert_eq!(names(&save_new(&agents, name, 100).unwrap()), [""; 0]);
    }
    let line = line_of(&agents, "a").line;
    let (namespace, agent) = whose("a");
    agents.store.remove_line(&namespace, &agent, line).unwrap();
    save_new(&agents, "a", 100).unwrap();
    let committed = save_new(&agents, "d", 100).unwrap();
    assert_eq!(names(&committed), ["b"]);
    assert_eq!(who_is_there(&agents), ["a", "c", "d"]);
    // Reading is using.
    assert_eq!(agents.read(&line_of(&agents, "c")).0, 100);
    assert_eq!(names(&save_new(&agents, "e", 100).unwrap()), ["a"]);
    assert_eq!(agents.store.take_removed(), []);
    drop(agents);
    let kept = after_restart(&Moment::of(&disk).safe());
    assert_eq!(kept.len(), 3);
}

#[test]
fn the_store_never_has_more_bytes_than_its_budget() {
    let disk = MemoryDisk::of(&empty_volume());
    let budget = bytes_of(&["a", "b", "c", "d"]);
    let agents = open(&disk, with_budget(budget));
    for number in 0..40 {
        save_new(&agents, &format!("agent {number}"), 1 + number * 7).unwrap();
        let used = disk.used_bytes();
        assert!(used <= budget + FIXED_BYTES, "{used} bytes of {budget} after {number}");
        let told = agents.store.usage().unwrap().disk_bytes;
        assert!(told <= budget && told <= used, "{told} told, {used} used");
        assert!(who_is_there(&agents).contains(&format!("agent {number}")));
    }
}

#[test]
fn a_restart_with_a_smaller_budget_makes_room_at_the_next_save() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = open(&disk, Settings::default());
    for name in ["a", "b", "c", "d", "e"] {
        save_new(&agents, name, 100).unwrap();
    }
    drop(agents);
    let budget = bytes_of(&["a", "b"]);
    let agents = open(&disk, with_budget(budget));
    assert_eq!(names(&save_new(&agents, "f", 100).unwrap()), ["a", "b", "c", "d"]);
    assert_eq!(who_is_there(&agents), ["e", "f"]);
    assert!(disk.used_bytes() <= budget + FIXED_BYTES);
}

#[test]
fn a_save_that_can_never_fit_is_refused_and_takes_nothing_of_its_own() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = open(&disk, with_budget(bytes_of(&["a", "b", "c", "d", "e", "f"])));
    let line = agents.begin(&whose("a"), &conversation(1, 260));
    match agents.save(&whose("a"), line, &conversation(1, 5_000)) {
        Err(StoreError::Full { reason: FullReason::Budget, .. }) => (),
        saved => panic!("{saved:?}"),
    }
    assert_eq!(agents.conversation_of(&whose("a")), Some(conversation(1, 260)));
    // What was written of it waits no longer than for the second collection.
    agents.store.collect().unwrap();
    agents.store.collect().unwrap();
    agents.save(&whose("a"), line, &conversation(1, 261)).unwrap();
    assert_eq!(after_restart(&Moment::of(&disk).safe()).len(), 1);
}

#[test]
fn a_block_that_another_agent_needs_stays_when_one_that_shares_it_goes() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = open(&disk, Settings::default());
    agents.begin(&whose("a"), &branch(1, 256, 2, 300));
    agents.begin(&whose("b"), &branch(1, 256, 3, 300));
    let (namespace, agent) = whose("a");
    assert!(agents.store.remove_agent(&namespace, &agent).unwrap());
    for _ in 0..3 {
        agents.store.collect().unwrap();
    }
    assert_eq!(agents.conversation_of(&whose("b")), Some(branch(1, 256, 3, 300)));
    assert_eq!(after_restart(&Moment::of(&disk).safe()).len(), 1);
}

#[test]
fn of_two_agents_per_namespace_the_last_two_stay() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = open(&disk, Settings { namespace_agents: Some(2), ..Settings::default() });
    let others = (Namespace::new("others"), AgentId::new("planner").unwrap());
    agents.begin(&others, &conversation(1, 10));
    for number in 0..10 {
        save_new(&agents, &format!("agent {number}"), 10).unwrap();
    }
    assert_eq!(who_is_there(&agents), ["agent 8", "agent 9", "planner"]);
}

#[test]
fn a_namespace_that_is_full_takes_nothing_of_another() {
    let disk = MemoryDisk::of(&empty_volume());
    let quota = bytes_of(&["a", "b", "c"]);
    let settings = Settings { namespace_bytes: Some(quota), ..Settings::default() };
    let agents = open(&disk, settings);
    let others: Vec<Whose> = (0..5)
        .map(|number| {
            let name = AgentId::new(&format!("quiet {number}")).unwrap();
            (Namespace::new(&format!("others {number}")), name)
        })
        .collect();
    for (number, other) in others.iter().enumerate() {
        agents.begin(other, &conversation(number as u64, 100));
    }
    for number in 0..30 {
        save_new(&agents, &format!("loud {number}"), 100).unwrap();
        let usage = agents.store.usage().unwrap();
        let loud = usage.namespaces.iter().find(|of| of.namespace == Namespace::local()).unwrap();
        assert!(loud.disk_bytes <= quota);
    }
    let kept = agents.conversations();
    assert!(others.iter().all(|other| kept.contains_key(other)));
    assert!(kept.contains_key(&whose("loud 29")));
}

#[test]
fn a_full_disk_keeps_what_is_there_and_takes_more_when_it_has_room() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = open(&disk, Settings::default());
    let line = agents.begin(&whose("a"), &conversation(1, 300));
    disk.set_total_bytes(disk.used_bytes() + 100);
    for _ in 0..3 {
        match agents.save(&whose("a"), line, &conversation(1, 530)) {
            Err(StoreError::Full { reason: FullReason::Disk, .. }) => (),
            saved => panic!("{saved:?}"),
        }
        assert_eq!(agents.conversation_of(&whose("a")), Some(conversation(1, 300)));
        let kept = after_restart(&Moment::of(&disk).safe());
        assert_eq!(kept[&whose("a")], [conversation(1, 300)]);
    }
    disk.set_total_bytes(1 << 40);
    agents.save(&whose("a"), line, &conversation(1, 530)).unwrap();
    let kept = after_restart(&Moment::of(&disk).safe());
    assert_eq!(kept[&whose("a")], [conversation(1, 530)]);
}

/// A fork on a full disk once took the lines of its own source to make room, and of a fork that failed
/// half way nobody heard what had gone for the first half.
#[test]
fn a_fork_without_room_leaves_its_source_and_tells_what_went_for_it() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = open(&disk, Settings::default());
    let (planner, cold) = (whose("planner"), whose("cold"));
    agents.begin(&cold, &conversation(9, 20));
    agents.begin(&planner, &conversation(1, 1));
    agents.begin(&planner, &conversation(2, 300));
    disk.set_total_bytes(disk.used_bytes());
    let forked = agents.store.fork(&planner.0, &planner.1, &whose("copy").1);
    assert!(matches!(forked, Err(StoreError::Full { .. })), "{forked:?}");
    let mut gone = agents.store.take_removed();
    gone.retain(|(_, agent, _)| *agent == cold.1);
    let left = agents.conversations();
    assert_eq!(left.get(&planner).map(Vec::len), Some(2), "{:?}", left.keys());
    assert_eq!(left.len() + gone.len(), 2, "{:?} went, {:?} are left", gone, left.keys());
}

/// Its first full block has no block before it that tells whose it is, and once the agent's own save
/// went to make room for it.
#[test]
fn a_short_conversation_that_outgrows_its_block_does_not_go_to_make_room_for_itself() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = open(&disk, Settings::default());
    let line = agents.begin(&whose("a"), &conversation(1, 100));
    disk.set_total_bytes(disk.used_bytes() + 100);
    let saved = agents.save(&whose("a"), line, &conversation(1, 300));
    assert!(matches!(saved, Err(StoreError::Full { .. })), "{saved:?}");
    assert_eq!(agents.conversation_of(&whose("a")), Some(conversation(1, 100)));
    assert_eq!(agents.store.take_removed(), []);
}

#[test]
fn a_twentieth_of_the_disk_stays_free() {
    let disk = MemoryDisk::of(&empty_volume());
    let total = 200_000;
    disk.set_total_bytes(total);
    let agents = open(&disk, Settings::default());
    for number in 0..400 {
        drop(save_new(&agents, &format!("agent {number}"), 100));
        let free = total - disk.used_bytes();
        assert!(free >= total / 20, "{free} of {total} free after {number}");
    }
    assert!(disk.used_bytes() > total / 2, "it stopped too early: {}", disk.used_bytes());
    assert!(who_is_there(&agents).contains(&"agent 399".to_owned()), "the newest has no room");
}

#[test]
fn what_was_removed_leaves_no_bytes_behind() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = open(&disk, Settings::default());
    let empty = agents.store.usage().unwrap().disk_bytes;
    for round in 0..3 {
        let line = agents.begin(&whose("a"), &conversation(round, 300));
        for tokens in [310, 320, 330, 340, 350] {
            agents.save(&whose("a"), line, &conversation(round, tokens)).unwrap();
        }
        let (namespace, agent) = whose("a");
        agents.store.fork(&namespace, &agent, &whose("b").1).unwrap();
        for name in ["a", "b"] {
            assert!(agents.store.remove_agent(&namespace, &whose(name).1).unwrap());
        }
        agents.store.collect().unwrap();
        agents.store.collect().unwrap();
        let usage = agents.store.usage().unwrap();
        assert_eq!((usage.disk_bytes, usage.unique_bytes), (empty, 0), "round {round}");
        assert_eq!(disk.volume().files("n/"), [""; 0], "round {round}");
    }
}

#[test]
fn shared_blocks_count_once_on_disk_and_for_each_agent_otherwise() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = open(&disk, Settings::default());
    agents.begin(&whose("a"), &conversation(1, 512));
    let alone = agents.store.usage().unwrap();
    assert_eq!(alone.logical_bytes, alone.unique_bytes);
    let (namespace, agent) = whose("a");
    agents.store.fork(&namespace, &agent, &whose("b").1).unwrap();
    let both = agents.store.usage().unwrap();
    let blocks: u64 = {
        let volume = disk.volume();
        volume.files("/b/").iter().map(|path| volume.bytes(path).len() as u64).sum()
    };
    assert_eq!(both.unique_bytes, both.logical_bytes - blocks);
    for info in agents.store.agents().unwrap() {
        assert_eq!(info.shared_bytes, blocks, "{}", info.agent);
        assert!(info.bytes > blocks);
    }
}

#[test]
fn a_block_that_waits_for_its_manifest_outlives_one_collection() {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = open(&disk, Settings::default());
    let draft = agents.draft(&whose("a"), agents.store.new_line(), &conversation(1, 300)).unwrap();
    agents.store.collect().unwrap();
    agents.store.commit(&draft).unwrap();
    drop(agents.draft(&whose("a"), agents.store.new_line(), &conversation(2, 300)).unwrap());
    agents.store.collect().unwrap();
    agents.store.collect().unwrap();
    assert_eq!(disk.volume().files("/b/").len(), 2);
    assert_eq!(after_restart(&disk.volume())[&whose("a")], [conversation(1, 300)]);
}

static CLOCK: AtomicU64 = AtomicU64::new(0);

/// Jumps by hours and by decades, both ways, and before 1970.
fn broken_clock() -> SystemTime {
    const HOUR: u64 = 3_600;
    const YEARS: u64 = 10 * 365 * 24 * HOUR;
    let now = SystemTime::UNIX_EPOCH;
    match CLOCK.fetch_add(1, Ordering::Relaxed) % 5 {
        0 => now + Duration::from_secs(5 * YEARS),
        1 => now - Duration::from_secs(HOUR),
        2 => now + Duration::from_secs(5 * YEARS + HOUR),
        3 => now - Duration::from_secs(10 * YEARS),
        _ => now,
    }
}

#[test]
fn a_clock_that_jumps_changes_neither_order_nor_room() {
    let disk = MemoryDisk::of(&empty_volume());
    let budget_bytes = bytes_of(&["a", "b", "c", "d"]) - 1;
    let settings = Settings { budget_bytes, now: broken_clock, ..Settings::default() };
    let mut agents = open(&disk, settings.clone());
    for number in 0..20u32 {
        save_new(&agents, &format!("{number:02}"), 100).unwrap();
        if number % 3 == 0 {
            drop(agents);
            agents = open(&disk, settings.clone());
        }
        let newest: Vec<String> =
            (number.saturating_sub(2)..=number).map(|number| format!("{number:02}")).collect();
        assert_eq!(who_is_there(&agents), newest);
        agents.store.agents().unwrap();
    }
}
