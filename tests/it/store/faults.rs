//! Disks that fail at any operation: nothing panics, nothing that was acknowledged is lost, no wrong
//! byte is given out, and all is well again when the disk is.

use std::sync::Arc;

use semantic::store::{OpenError, StoreError, StoredLine, Transcript};
use semantic::types::{Generation, Line, TranscriptId};

use super::agents::{
    Agents, Conversations, after_restart, branch, conversation, empty_volume, whose,
};
use super::story::{assert_allowed, assert_same, opens_as};
use crate::support::disk::{CrashDisk, Fault, FaultDisk, MemoryDisk, Moment, Node, Volume};
use crate::support::random::Random;
use crate::support::scale::scaled;

/// States that a power cut after the fault may leave and that are looked at, per point.
const STATES_MAX: usize = 40;

const SEED: u64 = 0x5eed_0002;

/// Something that is done with a store while its disk fails.
struct Act {
    title: &'static str,
    /// On the planner's line.
    run: fn(&Agents, Line) -> Result<(), StoreError>,
    /// Changes what was there before into what is there after.
    change: fn(&mut Conversations),
}

const ACTS: &[Act] = &[
    Act {
        title: "save the next turn",
        run: |agents, line| agents.save(&whose("planner"), line, &conversation(1, 530)).map(drop),
        change: |all| drop(all.insert(whose("planner"), vec![conversation(1, 530)])),
    },
    Act {
        title: "save a new agent that shares a block",
        run: |agents, Line(planners)| {
            let line = Line(planners + 1_000);
            agents.save(&whose("writer"), line, &branch(1, 256, 5, 270)).map(drop)
        },
        change: |all| drop(all.insert(whose("writer"), vec![branch(1, 256, 5, 270)])),
    },
    Act {
        title: "keep an answer and remove it",
        run: |agents, _| {
            let ((namespace, agent), id) = (whose("planner"), TranscriptId(7));
            let said = vec![7; 100].into();
            let space = namespace.clone();
            agents.store.keep_transcript(&Transcript { namespace, agent, id, said })?;
            agents.store.remove_transcript(&space, id).map(drop)
        },
        change: |_| (),
    },
    Act { title: "collect", run: |agents, _| agents.store.collect().map(drop), change: |_| () },
    Act {
        title: "remove a line",
        run: |agents, line| {
            let (namespace, agent) = whose("planner");
            agents.store.remove_line(&namespace, &agent, line)
        },
        change: |all| drop(all.remove(&whose("planner"))),
    },
    Act {
        title: "remove an agent",
        run: |agents, _| {
            let (namespace, agent) = whose("critic");
            agents.store.remove_agent(&namespace, &agent).map(drop)
        },
        change: |all| drop(all.remove(&whose("critic"))),
    },
    Act {
        title: "fork",
        run: |agents, _| {
            let (namespace, from) = whose("planner");
            agents.store.fork(&namespace, &from, &whose("copy").1).map(drop)
        },
        change: |all| drop(all.insert(whose("copy"), vec![conversation(1, 320)])),
    },
    Act {
        title: "roll back",
        run: |agents, _| {
            let (namespace, agent) = whose("planner");
            agents.store.rollback(&namespace, &agent, Some(Generation(1))).map(drop)
        },
        change: |all| drop(all.insert(whose("planner"), vec![conversation(1, 300)])),
    },
    Act {
        title: "look at everything",
        run: |agents, _| {
            let (namespace, agent) = whose("planner");
            agents.store.agents()?;
            agents.store.agent(&namespace, &agent)?;
            agents.store.tokens(&namespace, &agent, Generation(2))?;
            agents.store.usage()?;
            agents.store.verify().map(drop)
        },
        change: |_| (),
    },
    Act {
        title: "read everything",
        run: |agents, _| {
            for line in agents.store.lines(&agents.model.fingerprint) {
                if let (_, Some(error)) = agents.read(&line) {
                    return Err(error);
                }
            }
            Ok(())
        },
        change: |_| (),
    },
    Act {
        title: "repair what is whole",
        run: |agents, _| agents.store.repair().map(drop),
        change: |_| (),
    },
];

/// How the sweep's operation fails, once and from then on.
const FAULTS: &[Fault] = &[
    Fault::Full,
    Fault::Broken,
    Fault::OverQuota,
    Fault::ReadOnly,
    Fault::TooManyFiles,
    Fault::Interrupted,
    Fault::ShortWrite,
    Fault::LyingSync,
];

#[test]
fn no_fault_at_any_operation_loses_or_changes_anything() {
    println!("seed {SEED:#x}");
    let mut random = Random::new(SEED);
    let before = some_agents();
    let mut points = 0;
    for act in ACTS {
        for fault in FAULTS {
            for is_sticky in [false, true] {
                points += sweep(&before, act, *fault, is_sticky, &mut random);
            }
        }
    }
    println!("{points} faults");
    assert!(points > 500, "only {points} operations failed");
}

/// Fails operation 1, 2, … until the act ends before its turn comes.
fn sweep(before: &Volume, act: &Act, fault: Fault, is_sticky: bool, random: &mut Random) -> usize {
    let old = after_restart(before);
    let mut new = old.clone();
    (act.change)(&mut new);
    let mut points = 0;
    for at in 1.. {
        let place = format!("{}, {fault:?} at {at}, sticky {is_sticky}", act.title);
        let memory = MemoryDisk::of(before);
        let disk = FaultDisk::on(Arc::new(memory.clone()));
        let agents = Agents::open(disk.clone());
        let line = agents.kept()[&whose("planner")][0].line;
        match is_sticky {
            true => disk.fail_from(at, fault),
            false => disk.fail_once(at, fault),
        }
        let done = (act.run)(&agents, line);
        let (operations, struck) = disk.heal();
        if operations < at {
            done.unwrap();
            return points;
        }
        if struck == 0 {
            continue;
        }
        points += 1;
        let allowed = match done {
            Ok(()) => vec![new.clone()],
            Err(_) => vec![old.clone(), new.clone()],
        };
        for state in Moment::of(&memory).states(scaled(STATES_MAX), random) {
            opens_as(&state, &allowed, &place);
        }
        assert_allowed(&agents.conversations(), &allowed, &place);
        // What half happened may be done already when it is tried again.
        match done.or_else(|_| (act.run)(&agents, line)) {
            Ok(()) | Err(StoreError::Exists(_)) => (),
            Err(error) => panic!("{place}: does not heal: {error}"),
        }
        assert_same(&agents.conversations(), &new, format_args!("{place}: healed"));
        let kept = after_restart(&Moment::of(&memory).safe());
        assert_same(&kept, &new, format_args!("{place}: healed, restarted"));
        assert_eq!(disk.wrongs(), [""; 0], "{place}");
    }
    points
}

/// Also: garbage collection after a manifest could not be read must not take what it names.
#[test]
fn no_fault_while_a_store_is_opened_costs_an_agent() {
    let before = some_agents();
    let old = after_restart(&before);
    let mut points = 0;
    for fault in FAULTS {
        for is_sticky in [false, true] {
            for at in 1.. {
                let place = format!("open, {fault:?} at {at}, sticky {is_sticky}");
                let memory = MemoryDisk::of(&before);
                let disk = FaultDisk::on(Arc::new(memory.clone()));
                match is_sticky {
                    true => disk.fail_from(at, *fault),
                    false => disk.fail_once(at, *fault),
                }
                let opened = Agents::try_open(disk.clone());
                let (operations, struck) = disk.heal();
                if operations < at {
                    break;
                }
                points += usize::from(struck > 0);
                let mut new = old.clone();
                if let Ok(agents) = opened {
                    agents.begin(&whose("late"), &branch(2, 30, 6, 50));
                    new.insert(whose("late"), vec![branch(2, 30, 6, 50)]);
                    agents.store.collect().unwrap();
                    agents.store.collect().unwrap();
                }
                assert_same(&after_restart(&Moment::of(&memory).safe()), &new, place);
            }
        }
    }
    println!("{points} faults");
    assert!(points > 100, "only {points} operations failed");
}

#[test]
fn no_fault_at_the_first_use_leaves_a_store_that_does_not_open() {
    for fault in FAULTS {
        for at in 1.. {
            let memory = MemoryDisk::default();
            let disk = FaultDisk::on(Arc::new(memory.clone()));
            disk.fail_from(at, *fault);
            let opened = Agents::try_open(disk.clone());
            let saved = opened.map(|agents| {
                let line = agents.store.new_line();
                agents.save(&whose("planner"), line, &conversation(1, 300)).is_ok()
            });
            if disk.heal().0 < at {
                assert!(saved.unwrap());
                break;
            }
            let whole = Conversations::from([(whose("planner"), vec![conversation(1, 300)])]);
            let allowed = match saved {
                Ok(true) => vec![whole],
                _ => vec![Conversations::new(), whole],
            };
            let place = format!("first use, {fault:?} from {at}");
            opens_as(&memory.volume(), &allowed, &place);
            opens_as(&Moment::of(&memory).safe(), &allowed, &place);
        }
    }
}

/// After a sync that failed, Linux marks the pages clean: the next sync tells nothing.
#[test]
fn a_generation_whose_sync_failed_is_never_acknowledged_and_its_file_never_synced_again() {
    let before = some_agents();
    let planner = whose("planner");
    let mut failures = 0;
    for at in 1.. {
        let crash = CrashDisk::on(&MemoryDisk::of(&before));
        let disk = FaultDisk::on(Arc::new(crash.clone()));
        let agents = Agents::open(disk.clone());
        let line = agents.kept()[&planner][0].line;
        disk.fail_once(at, Fault::LyingSync);
        let saved = agents.save(&planner, line, &conversation(1, 530));
        let (operations, struck) = disk.heal();
        if operations < at {
            break;
        }
        if struck == 0 {
            continue;
        }
        failures += 1;
        assert!(saved.is_err(), "acknowledged although sync {at} failed");
        let failed_at = crash.now();
        let again = agents.save(&planner, line, &conversation(1, 530)).unwrap();
        let created = crash.moments()[failed_at..]
            .iter()
            .filter(|moment| moment.operation.starts_with("create"))
            .count();
        assert!(created > 0, "no fresh file was written after sync {at} failed");
        assert_eq!(disk.wrongs(), [""; 0]);
        drop(agents);
        let safe = crash.moments().last().unwrap().safe();
        let restarted = Agents::open(MemoryDisk::of(&safe));
        let kept = &restarted.kept()[&planner][0];
        assert_eq!((kept.generation, kept.held), (again.generation, 530));
    }
    assert!(failures >= 4, "only {failures} syncs");
}

/// The same of each folder on the way: a name that was new in it is made again.
#[test]
fn a_save_whose_folders_sync_failed_is_acknowledged_only_with_every_folder_on_the_way_safe() {
    let first = Conversations::from([(whose("planner"), vec![conversation(1, 530)])]);
    let mut both = first.clone();
    both.insert(whose("writer"), vec![branch(1, 256, 5, 600)]);
    let save = |agents: &Agents, name: &str, line| {
        let whose = whose(name);
        agents.save(&whose, line, &both[&whose][0])
    };
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    save(&agents, "planner", Line(1)).unwrap();
    save(&agents, "writer", Line(2)).unwrap();
    let volume = disk.volume();
    let is_folder = |path: &&String| volume.0[*path] == Node::Folder && path.starts_with('n');
    let folders: Vec<&str> = volume.0.keys().filter(is_folder).map(String::as_str).collect();
    let mut failures = 0;
    for folder in [&folders[..], &[""]].concat() {
        let disk = MemoryDisk::of(&empty_volume());
        let agents = Agents::open(disk.clone());
        let safe = || after_restart(&Moment::of(&disk).safe());
        for (name, line, expected) in [("planner", Line(1), &first), ("writer", Line(2), &both)] {
            disk.lose_next_sync(folder);
            failures += usize::from(save(&agents, name, line).is_err());
            save(&agents, name, line).unwrap();
            assert_same(&safe(), expected, format_args!("{name} after {folder:?}"));
            agents.collect();
            assert_same(&safe(), expected, format_args!("{name} after {folder:?}, collected"));
        }
    }
    assert!(failures > folders.len(), "only {failures} syncs");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_damage_and_shows_no_other_bytes() {
    let before = some_agents();
    for at in 1.. {
        let disk = FaultDisk::on(Arc::new(MemoryDisk::of(&before)));
        let agents = Agents::open(disk.clone());
        disk.fail_from(at, Fault::Shrunk);
        for line in agents.store.lines(&agents.model.fingerprint) {
            let (held, error) = agents.read(&line);
            if held < line.tokens.len() {
                // It went to the quarantine when another line read it.
                let is_known =
                    matches!(error, Some(StoreError::Damaged { .. } | StoreError::Missing(_)));
                assert!(is_known || held == block_tokens(&line), "{error:?}");
            }
        }
        if disk.heal().0 < at {
            return;
        }
    }
}

fn block_tokens(line: &StoredLine) -> usize {
    line.blocks.iter().map(|block| block.tokens).sum()
}

/// The shutdown of a server with 100 agents whose disk fails once.
#[test]
fn of_a_hundred_agents_one_whose_save_fails_is_the_only_one_that_is_not_kept() {
    let memory = MemoryDisk::of(&empty_volume());
    let disk = FaultDisk::on(Arc::new(memory.clone()));
    let agents = Agents::open(disk.clone());
    let mut failed = Vec::new();
    for number in 0..100 {
        if number == 36 {
            disk.fail_once(3, Fault::Broken);
        }
        let line = agents.store.new_line();
        let name = whose(&format!("agent {number}"));
        if agents.save(&name, line, &conversation(number, 20)).is_err() {
            failed.push(number);
        }
    }
    assert_eq!(failed, [36]);
    let kept = after_restart(&Moment::of(&memory).safe());
    assert_eq!(kept.len(), 99);
    for ((_, agent), all) in kept {
        let number: u64 = agent.as_str()["agent ".len()..].parse().unwrap();
        assert_eq!(all, [conversation(number, 20)]);
    }
}

#[test]
fn a_disk_that_cannot_be_written_opens_for_reading_only() {
    let disk = FaultDisk::on(Arc::new(MemoryDisk::of(&some_agents())));
    disk.fail_from(1, Fault::ReadOnly);
    match Agents::try_open(disk.clone()) {
        Err(OpenError::NotWritable { .. }) => (),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("opened"),
    }
    let agents = Agents::open_read_only(disk).unwrap();
    assert!(agents.store.is_read_only());
    assert_eq!(agents.conversations(), after_restart(&some_agents()));
    let saved = agents.save(&whose("late"), agents.store.new_line(), &conversation(9, 9));
    assert!(matches!(saved, Err(StoreError::ReadOnly)), "{saved:?}");
}

#[test]
fn a_disk_that_becomes_read_only_still_gives_what_it_has() {
    let memory = MemoryDisk::of(&some_agents());
    let disk = FaultDisk::on(Arc::new(memory.clone()));
    let agents = Agents::open(disk.clone());
    let old = agents.conversations();
    disk.fail_from(1, Fault::ReadOnly);
    for _ in 0..3 {
        let saved = agents.save(&whose("late"), agents.store.new_line(), &conversation(9, 9));
        assert!(saved.is_err(), "{saved:?}");
        assert_eq!(agents.conversations(), old);
    }
    disk.heal();
    agents.begin(&whose("late"), &conversation(9, 9));
    assert_eq!(after_restart(&Moment::of(&memory).safe()).len(), old.len() + 1);
}

/// One agent with three saves, one that shares its first block, one of its own, and a block that no
/// save names.
fn some_agents() -> Volume {
    let disk = MemoryDisk::of(&empty_volume());
    let agents = Agents::open(disk.clone());
    let line = agents.begin(&whose("planner"), &conversation(1, 300));
    agents.save(&whose("planner"), line, &conversation(1, 310)).unwrap();
    agents.save(&whose("planner"), line, &conversation(1, 320)).unwrap();
    agents.begin(&whose("critic"), &branch(1, 256, 2, 280));
    agents.begin(&whose("reader"), &conversation(3, 20));
    let draft = agents.draft(&whose("reader"), agents.store.new_line(), &conversation(4, 10));
    drop(draft.unwrap());
    drop(agents);
    disk.volume()
}
