//! Power cuts at every moment of everything that a store does, and crashes within crashes. Each
//! state that a power cut may leave holds the old or the new, and the new once it was acknowledged.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use semantic::store::RetentionChange;
use semantic::types::{Generation, Line, TokenId};

use super::agents::{
    Agents, Conversations, Kept, Whose, branch, conversation, empty_volume, whose,
};
use super::story::{Seen, Story};
use crate::support::disk::{CrashDisk, Fault, FaultDisk, MemoryDisk, Volume};
use crate::support::random::Random;
use crate::support::scale::scaled;

/// States of one moment that are looked at; more are possible where much is pending.
const STATES_OF_MOMENT_MAX: usize = 400;
const STATES_OF_SECOND_CRASH_MAX: usize = 60;

#[test]
fn a_power_cut_at_the_first_use_leaves_no_agent_or_the_whole_agent() {
    check("first use", |story| {
        story.begin(&whose("planner"), &conversation(1, 300));
    });
}

#[test]
fn a_power_cut_while_a_line_is_saved_again_leaves_the_old_turn_or_the_new() {
    check_from(empty_volume(), "second save", |story| {
        let line = story.begin(&whose("planner"), &conversation(1, 200));
        story.save(&whose("planner"), line, &conversation(1, 260));
        story.save(&whose("planner"), line, &conversation(1, 530));
    });
}

#[test]
fn a_power_cut_while_an_agent_shares_blocks_touches_neither() {
    check_from(empty_volume(), "shared blocks", |story| {
        story.begin(&whose("planner"), &conversation(1, 520));
        story.begin(&whose("critic"), &branch(1, 256, 2, 300));
        story.begin(&whose("planner"), &branch(1, 512, 3, 530));
    });
}

#[test]
fn a_power_cut_while_old_generations_go_leaves_the_newest() {
    check_from(empty_volume(), "old generations", |story| {
        let line = story.begin(&whose("planner"), &conversation(1, 10));
        for tokens in [20, 30, 40, 50, 60, 70] {
            story.save(&whose("planner"), line, &conversation(1, tokens));
        }
    });
}

#[test]
fn a_power_cut_while_garbage_is_collected_takes_nothing_that_is_named() {
    check_from(empty_volume(), "collect", |story| {
        let line = story.begin(&whose("planner"), &conversation(1, 300));
        story.begin(&whose("critic"), &branch(1, 256, 2, 280));
        for tokens in [310, 320, 330, 340, 350] {
            story.save(&whose("planner"), line, &conversation(1, tokens));
        }
        let same = story.now.clone();
        for _ in 0..2 {
            story.tell("collect", |agents| agents.collect(), same.clone());
        }
    });
}

#[test]
fn a_power_cut_while_a_line_is_removed_leaves_it_or_not() {
    check_from(empty_volume(), "remove a line", |story| {
        let (planner, line) =
            (whose("planner"), story.begin(&whose("planner"), &conversation(1, 9)));
        story.save(&planner, line, &conversation(1, 290));
        story.begin(&planner, &conversation(2, 20));
        let after = with(&story.now, &planner, &[&conversation(2, 20)]);
        let (namespace, agent) = planner;
        let remove = |agents: &Agents| agents.store.remove_line(&namespace, &agent, line).unwrap();
        story.tell("remove a line", remove, after.clone());
        story.tell("collect", |agents| agents.collect(), after);
    });
}

#[test]
fn a_power_cut_while_an_agent_is_removed_leaves_no_part_of_a_line() {
    check_from(empty_volume(), "remove an agent", |story| {
        let (planner, critic) = (whose("planner"), whose("critic"));
        let (first, second) = (conversation(1, 270), conversation(2, 20));
        story.begin(&planner, &first);
        story.begin(&planner, &second);
        story.begin(&critic, &first);
        let steps = [vec![&first], vec![&second], vec![]];
        let steps = steps.map(|left| with(&story.now, &planner, &left)).to_vec();
        let (namespace, agent) = planner;
        let remove = |agents: &Agents| {
            assert!(agents.store.remove_agent(&namespace, &agent).unwrap());
        };
        story.tell_in_steps("remove an agent", remove, steps);
    });
}

#[test]
fn a_power_cut_during_a_fork_leaves_the_new_agent_or_none() {
    check_from(empty_volume(), "fork", |story| {
        let (planner, copy) = (whose("planner"), whose("copy"));
        story.begin(&planner, &conversation(1, 300));
        let after = with(&story.now, &copy, &[&conversation(1, 300)]);
        let fork = |agents: &Agents| {
            drop(agents.store.fork(&planner.0, &planner.1, &copy.1).unwrap());
        };
        story.tell("fork", fork, after);
    });
}

#[test]
fn a_power_cut_during_a_rollback_leaves_the_old_turn_or_the_new() {
    check_from(empty_volume(), "rollback", |story| {
        let planner = whose("planner");
        let line = story.begin(&planner, &conversation(1, 250));
        story.save(&planner, line, &conversation(1, 270));
        story.save(&planner, line, &conversation(1, 290));
        for (to, tokens) in [(None, 270), (Some(Generation(1)), 250)] {
            let after = with(&story.now, &planner, &[&conversation(1, tokens)]);
            let back = |agents: &Agents| {
                drop(agents.store.rollback(&planner.0, &planner.1, to).unwrap());
            };
            story.tell("rollback", back, after);
        }
    });
}

#[test]
fn a_power_cut_while_it_is_said_how_long_an_agent_is_kept_touches_no_turn() {
    check_from(empty_volume(), "retention", |story| {
        let planner = whose("planner");
        let line = story.begin(&planner, &conversation(1, 250));
        let day = Some(Duration::from_secs(86_400));
        let changes = [
            RetentionChange { is_pinned: Some(true), ttl: None },
            RetentionChange { is_pinned: None, ttl: Some(day) },
            RetentionChange { is_pinned: Some(false), ttl: Some(None) },
        ];
        for (turn, change) in changes.into_iter().enumerate() {
            let same = story.now.clone();
            let retain = |agents: &Agents| {
                agents.store.retain(&planner.0, &planner.1, change).unwrap();
            };
            story.tell("retain", retain, same);
            story.save(&planner, line, &conversation(1, 270 + turn * 20));
        }
        let gone = with(&story.now, &planner, &[]);
        let remove = |agents: &Agents| {
            assert!(agents.store.remove_agent(&planner.0, &planner.1).unwrap());
        };
        story.tell("remove", remove, gone);
        story.begin(&planner, &conversation(2, 30));
    });
}

#[test]
fn a_power_cut_during_a_repair_leaves_the_good_prefix() {
    let mut story = Story::on(&empty_volume());
    let (planner, critic) = (whose("planner"), whose("critic"));
    story.begin(&planner, &conversation(1, 600));
    story.begin(&critic, &conversation(2, 40));
    let damaged = with_a_damaged_block(&story.disk.volume());
    let mut random = seeded();
    let disk = CrashDisk::on(&MemoryDisk::of(&damaged));
    let agents = Agents::open(disk.clone());
    agents.store.repair().unwrap();
    let repaired = held(&agents);
    assert_eq!(repaired[&critic], (conversation(2, 40), 40));
    // Its tokens are all kept.
    assert_eq!(repaired[&planner].0, conversation(1, 600));
    assert!(repaired[&planner].1 < 600);
    drop(agents);
    let mut states = 0;
    for moment in disk.moments() {
        for state in moment.states(scaled(STATES_OF_MOMENT_MAX), &mut random) {
            states += 1;
            let agents = Agents::open(MemoryDisk::of(&state));
            assert_eq!(held(&agents)[&critic], repaired[&critic], "{}", moment.operation);
            agents.store.repair().unwrap();
            assert_eq!(held(&agents), repaired, "{}\n{state:?}", moment.operation);
        }
    }
    println!("repair: {states} states");
}

#[test]
fn a_power_cut_during_the_recovery_from_a_power_cut_takes_nothing() {
    let mut random = seeded();
    let mut states = Vec::new();
    let story = long_story();
    story.each_state(STATES_OF_SECOND_CRASH_MAX, &mut random, |place, state, allowed| {
        states.push((place.to_owned(), state.clone(), allowed.to_vec()));
    });
    let mut seen = Seen::default();
    for _ in 0..scaled(600).min(states.len()) {
        let (place, state, allowed) = states.swap_remove(random.range(0..states.len()));
        let mut second = Story::on(&state);
        assert!(allowed.contains(&second.now), "{place}");
        second.begin(&whose("late"), &branch(1, 256, 4, 260));
        seen += second.survives(8, &mut random);
    }
    println!("crash during recovery: {seen:?}");
}

/// A process dies between a rename and the folder's sync. The next one finds the file, need not write
/// it, and acknowledges a turn that names it; then the power goes.
#[test]
fn what_a_dead_process_left_unsynced_is_synced_before_it_is_built_upon() {
    let mut random = seeded();
    let mut seen = Seen::default();
    let (planner, tokens) = (whose("planner"), conversation(1, 300));
    for first_use in [true, false] {
        let volume = if first_use { Volume::default() } else { empty_volume() };
        for at in 1.. {
            let disk = CrashDisk::on(&MemoryDisk::of(&volume));
            let dying = FaultDisk::on(Arc::new(disk.clone()));
            dying.fail_from(at, Fault::Broken);
            if let Ok(agents) = Agents::try_open(dying.clone()) {
                drop(agents.save(&planner, Line(7), &tokens));
            }
            if dying.heal().1 == 0 {
                break;
            }
            let mut next = Story::going_on(disk, Some(planner.clone()));
            next.begin(&whose("critic"), &branch(1, 256, 2, 280));
            next.save(&planner, Line(7), &tokens);
            seen += next.survives(scaled(STATES_OF_SECOND_CRASH_MAX), &mut random);
        }
    }
    println!("killed, then without power: {seen:?}");
}

/// Each agent's tokens, and how many of them have KV.
fn held(agents: &Agents) -> BTreeMap<Whose, (Vec<TokenId>, usize)> {
    let only = |kept: Vec<Kept>| {
        let [kept] = <[Kept; 1]>::try_from(kept).unwrap();
        (kept.tokens, kept.held)
    };
    agents.kept().into_iter().map(|(whose, kept)| (whose, only(kept))).collect()
}

fn check(title: &str, tell: impl FnOnce(&mut Story)) {
    check_from(Volume::default(), title, tell);
}

fn check_from(volume: Volume, title: &str, tell: impl FnOnce(&mut Story)) {
    let mut random = seeded();
    let mut story = Story::on(&volume);
    tell(&mut story);
    let seen = story.survives(scaled(STATES_OF_MOMENT_MAX), &mut random);
    assert!(seen.states > seen.moments / 2, "{title}: only {seen:?}");
    println!("{title}: {seen:?}");
}

/// A little of everything.
fn long_story() -> Story {
    let mut story = Story::on(&empty_volume());
    let planner = whose("planner");
    let line = story.begin(&planner, &conversation(1, 300));
    for tokens in [310, 320, 330, 340] {
        story.save(&planner, line, &conversation(1, tokens));
    }
    let same = story.now.clone();
    story.tell("collect", |agents| agents.collect(), same);
    let after = with(&story.now, &whose("copy"), &[&conversation(1, 340)]);
    let copy = whose("copy").1;
    let fork = |agents: &Agents| drop(agents.store.fork(&planner.0, &planner.1, &copy).unwrap());
    story.tell("fork", fork, after);
    let after = with(&story.now, &planner, &[]);
    let remove = |agents: &Agents| {
        agents.store.remove_agent(&planner.0, &planner.1).unwrap();
    };
    story.tell("remove", remove, after);
    story
}

/// The same, with these conversations of one agent.
fn with(now: &Conversations, whose: &Whose, all: &[&Vec<TokenId>]) -> Conversations {
    let mut after = now.clone();
    after.remove(whose);
    if !all.is_empty() {
        after.insert(whose.clone(), all.iter().map(|tokens| tokens.to_vec()).collect());
    }
    after
}

/// The last byte of the KV of one of the largest blocks is wrong.
fn with_a_damaged_block(volume: &Volume) -> Volume {
    let mut full = volume.files("/b/");
    full.sort_by_key(|path| Reverse(volume.bytes(path).len()));
    let mut bytes = volume.bytes(&full[0]).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    volume.with(&full[0], bytes)
}

fn seeded() -> Random {
    const SEED: u64 = 0x5eed_0001;
    println!("seed {SEED:#x}");
    Random::new(SEED)
}
