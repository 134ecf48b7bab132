//! Random lives of a store, beside a map that does the same: they never differ, whatever was saved,
//! forked, rolled back, removed or collected, through restarts, power cuts, kills and full disks.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::Config;
use semantic::store::{ROLLBACK_GENERATIONS, Settings, StoreError};
use semantic::types::{AgentId, Generation, Line, Namespace, TokenId};

use super::agents::{Agents, Conversations, Whose, branch, empty_volume};
use super::map::{Map, Save};
use super::story::assert_same;
use crate::support::disk::{Fault, FaultDisk, MemoryDisk, Moment, Volume};
use crate::support::random::Random;
use crate::support::scale::scaled;

const CASES: usize = 10_000;
const ACTS_MAX: usize = 24;

#[derive(Clone, Debug)]
enum Act {
    /// A turn more for a line, which may be new, of this agent.
    Save {
        who: usize,
        line: usize,
        more: usize,
    },
    /// Another conversation on a line that is there: shorter, with a prefix in common.
    Edit {
        who: usize,
        line: usize,
        shared: usize,
    },
    RemoveLine {
        who: usize,
        line: usize,
    },
    RemoveAgent {
        who: usize,
    },
    Fork {
        from: usize,
        to: usize,
    },
    /// To so many saves before the newest of the same line; 0 names none.
    RollBack {
        who: usize,
        back: usize,
    },
    Collect,
    Repair,
    Restart,
    PowerCut {
        seed: u64,
    },
    /// The next act is cut short after so many operations of the disk, by death or by power.
    Interrupted {
        after: usize,
        seed: Option<u64>,
    },
    /// The disk has no room for more until the next time.
    Full,
}

/// Two namespaces with the same two names each.
const AGENTS: usize = 4;
const LINES: usize = 2;

fn act() -> impl Strategy<Value = Act> {
    let who = || 0..AGENTS;
    prop_oneof![
        8 => (who(), 0..LINES, prop_oneof![1..8usize, 200..300usize])
            .prop_map(|(who, line, more)| Act::Save { who, line, more }),
        2 => (who(), 0..LINES, prop_oneof![0..8usize, 250..260usize])
            .prop_map(|(who, line, shared)| Act::Edit { who, line, shared }),
        1 => (who(), 0..LINES).prop_map(|(who, line)| Act::RemoveLine { who, line }),
        1 => who().prop_map(|who| Act::RemoveAgent { who }),
        2 => (who(), who()).prop_map(|(from, to)| Act::Fork { from, to }),
        2 => (who(), 0..4usize).prop_map(|(who, back)| Act::RollBack { who, back }),
        2 => Just(Act::Collect),
        1 => Just(Act::Repair),
        1 => Just(Act::Restart),
        2 => any::<u64>().prop_map(|seed| Act::PowerCut { seed }),
        3 => (1..30usize, proptest::option::of(any::<u64>()))
            .prop_map(|(after, seed)| Act::Interrupted { after, seed }),
        1 => Just(Act::Full),
    ]
}

struct World {
    memory: MemoryDisk,
    disk: FaultDisk,
    /// None only between two processes.
    agents: Option<Agents>,
    settings: Settings,
    map: Map,
    next_seed: u64,
    interruption: Option<(usize, Option<u64>)>,
    has_room: bool,
}

proptest! {
    #![proptest_config(Config {
        cases: scaled(CASES) as u32,
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn a_store_never_differs_from_a_map(
        acts in proptest::collection::vec(act(), 1..ACTS_MAX),
        budget in prop_oneof![Just(1u64 << 30), 8_000..20_000u64],
    ) {
        let mut world = World::new(&empty_volume(), budget);
        for act in &acts {
            world.step(act);
        }
        world.restart();
    }
}

impl World {
    fn new(volume: &Volume, budget_bytes: u64) -> World {
        let memory = MemoryDisk::of(volume);
        let settings = Settings { budget_bytes, ..Settings::default() };
        let mut world = World {
            disk: FaultDisk::on(Arc::new(memory.clone())),
            memory,
            agents: None,
            settings,
            map: Map::default(),
            next_seed: 1,
            interruption: None,
            has_room: true,
        };
        world.open();
        world
    }

    fn step(&mut self, act: &Act) {
        match act {
            Act::Interrupted { after, seed } => self.interruption = Some((*after, *seed)),
            Act::Full => {
                self.has_room = !self.has_room;
                self.set_room();
            }
            Act::Restart => self.restart(),
            Act::PowerCut { seed } => {
                self.power_cut(*seed);
                self.compare("a power cut");
            }
            act => self.act(act),
        }
    }

    fn store(&self) -> &Agents {
        self.agents.as_ref().expect("it is open")
    }

    fn open(&mut self) {
        self.agents = None;
        let opened = Agents::open_with(self.disk.clone(), self.settings.clone());
        self.agents = Some(opened.unwrap());
    }

    fn compare(&self, after: impl std::fmt::Display) {
        assert_same(&self.store().conversations(), &self.map.live(), after);
    }

    fn set_room(&self) {
        let total = if self.has_room { 1 << 40 } else { self.memory.used_bytes() };
        self.memory.set_total_bytes(total);
    }

    fn restart(&mut self) {
        self.open();
        self.compare("a restart");
        let stored = self.stored_saves();
        for (whose, saves) in &self.map.0 {
            for save in
                saves.iter().filter(|save| self.map.newer(whose, save) <= ROLLBACK_GENERATIONS)
            {
                let is_there = stored.0.get(whose).is_some_and(|stored| stored.contains(save));
                assert!(is_there, "{} {:?} {:?} is gone", whose.1, save.line, save.generation);
            }
        }
    }

    fn power_cut(&mut self, seed: u64) {
        let states = Moment::of(&self.memory).states(16, &mut Random::new(seed));
        self.go_on_with(&states[seed as usize % states.len()]);
    }

    /// The process died. What it wrote reaches the disk in time.
    fn killed(&mut self) {
        self.go_on_with(&self.memory.volume());
    }

    fn go_on_with(&mut self, volume: &Volume) {
        self.agents = None;
        self.memory = MemoryDisk::of(volume);
        self.set_room();
        self.disk = FaultDisk::on(Arc::new(self.memory.clone()));
        self.open();
    }

    fn act(&mut self, act: &Act) {
        let interruption = self.interruption.take();
        if let Some((after, _)) = interruption {
            self.disk.fail_from(after, Fault::Broken);
        }
        let mut after = self.map.clone();
        let before = self.map.live();
        let done = self.apply(act, &mut after);
        let whole = after.live();
        let (_, struck) = self.disk.heal();
        let removed = self.store().store.take_removed();
        self.map.remove(&removed);
        after.remove(&removed);
        let forked = match act {
            Act::Fork { from, to } => Some(forked(*from, *to)),
            _ => None,
        };
        if struck == 0 {
            match done {
                Ok(()) => {
                    self.map = after;
                    // The lines of a fork are new; their conversations are compared.
                    if let Some(whose) = forked {
                        let saves = self.stored_saves().0.remove(&whose).expect("it was forked");
                        self.map.0.insert(whose, saves);
                    }
                }
                Err(StoreError::NotFound(_) | StoreError::Exists(_)) => (),
                Err(StoreError::Full { .. }) => assert!(self.may_be_full(), "{act:?}"),
                Err(error) => panic!("{act:?}: {error}"),
            }
            self.compare(format_args!("{act:?}"));
            return;
        }
        match interruption.and_then(|(_, seed)| seed) {
            Some(seed) => self.power_cut(seed),
            None => self.killed(),
        }
        let found = self.store().conversations();
        match done {
            Ok(()) => {
                assert_same(&found, &after.live(), format_args!("acknowledged {act:?}"));
                self.map = after.clone();
            }
            Err(_) => self.check_cut_short(act, &found, [&before, &whole]),
        }
        let stored = self.stored_saves();
        for (whose, saves) in stored.0.iter().filter(|(whose, _)| Some(*whose) != forked.as_ref()) {
            let known = self.map.0.get(whose).into_iter().chain(after.0.get(whose)).flatten();
            for known in known {
                let same = saves.iter().find(|save| save.generation == known.generation);
                let (agent, generation) = (&whose.1, known.generation);
                assert!(same.is_none_or(|save| save == known), "{act:?}: {agent} {generation:?}");
            }
        }
        self.map = stored;
    }

    fn may_be_full(&self) -> bool {
        !self.has_room || self.settings.budget_bytes < 1 << 30
    }

    /// The old or the new; of what has several lines, some of them.
    fn check_cut_short(&self, act: &Act, found: &Conversations, [old, new]: [&Conversations; 2]) {
        let all: BTreeSet<&Whose> = old.keys().chain(new.keys()).chain(found.keys()).collect();
        for whose in all {
            let of = |all: &Conversations| all.get(whose).cloned().unwrap_or_default();
            let [found, old, new] = [found, old, new].map(of);
            let is_part = |whole: &[Vec<TokenId>]| found.iter().all(|one| whole.contains(one));
            let may_be_part = match act {
                Act::RemoveAgent { .. } | Act::Fork { .. } => true,
                // Lines that went to make room.
                _ => self.may_be_full(),
            };
            let is_right =
                found == old || found == new || (may_be_part && (is_part(&old) || is_part(&new)));
            let brief = |all: &[Vec<TokenId>]| {
                all.iter().map(|tokens| (tokens.len(), tokens.last().copied())).collect::<Vec<_>>()
            };
            let [found, old, new] = [&found, &old, &new].map(|all| brief(all));
            assert!(is_right, "{act:?} cut short: {whose:?} {found:?}, was {old:?}, to be {new:?}");
        }
    }

    /// Does it, and tells the map what is so if it was done.
    fn apply(&mut self, act: &Act, map: &mut Map) -> Result<(), StoreError> {
        match act {
            Act::Save { who, line, more } => {
                let whose = agent(*who);
                let line = map.line(&whose, *line);
                let mut tokens =
                    line.map_or(Vec::new(), |line| map.newest(&whose, line).tokens.clone());
                if tokens.len() + more > 600 {
                    tokens.truncate(3);
                }
                let shared = if tokens.is_empty() { *more.min(&256) } else { 0 };
                tokens.extend(branch(1, shared, self.seed(), *more));
                let line = line.unwrap_or_else(|| self.store().store.new_line());
                self.save(map, &whose, line, tokens)
            }
            Act::Edit { who, line, shared } => {
                let whose = agent(*who);
                let Some(line) = map.line(&whose, *line) else { return Ok(()) };
                let mut tokens = map.newest(&whose, line).tokens.clone();
                tokens.truncate(*shared);
                tokens.extend(branch(1, 0, self.seed(), 3));
                self.save(map, &whose, line, tokens)
            }
            Act::RemoveLine { who, line } => {
                let whose = agent(*who);
                let Some(line) = map.line(&whose, *line) else { return Ok(()) };
                map.remove(&[(whose.0.clone(), whose.1.clone(), line)]);
                self.store().store.remove_line(&whose.0, &whose.1, line)
            }
            Act::RemoveAgent { who } => {
                let whose = agent(*who);
                let was_there = map.0.remove(&whose).is_some();
                let removed = self.store().store.remove_agent(&whose.0, &whose.1)?;
                assert_eq!(removed, was_there);
                Ok(())
            }
            Act::Fork { from, to } => self.fork(map, &agent(*from), &forked(*from, *to)),
            Act::RollBack { who, back } => self.roll_back(map, &agent(*who), *back),
            Act::Collect => self.store().store.collect().map(drop),
            Act::Repair => self.store().store.repair().map(drop),
            Act::Restart | Act::PowerCut { .. } | Act::Interrupted { .. } | Act::Full => {
                unreachable!("not done by the store")
            }
        }
    }

    fn save(
        &self,
        map: &mut Map,
        whose: &Whose,
        line: Line,
        tokens: Vec<TokenId>,
    ) -> Result<(), StoreError> {
        let generation = Generation(map.next_generation(whose));
        let attempt = Save { line, generation, tokens: tokens.clone() };
        map.0.entry(whose.clone()).or_default().push(attempt);
        let committed = self.store().save(whose, line, &tokens)?;
        map.acknowledge(whose, &committed);
        Ok(())
    }

    fn fork(&self, map: &mut Map, from: &Whose, to: &Whose) -> Result<(), StoreError> {
        let live: Vec<Save> = map.live_saves(from);
        let is_possible = !live.is_empty() && !map.0.contains_key(to);
        if is_possible {
            map.0.insert(to.clone(), live);
        }
        let committed = self.store().store.fork(&from.0, &from.1, &to.1)?;
        assert!(is_possible);
        map.remove(&committed.removed);
        Ok(())
    }

    fn roll_back(&self, map: &mut Map, whose: &Whose, back: usize) -> Result<(), StoreError> {
        let store = &self.store().store;
        let newest = map.0.get(whose).and_then(|saves| saves.last().cloned());
        let target = newest.and_then(|newest| {
            let saves = map.0[whose].iter().rev().filter(|save| save.line == newest.line);
            saves.into_iter().nth(back.max(1)).cloned()
        });
        let Some(target) = target else {
            if back == 0 {
                assert!(matches!(
                    store.rollback(&whose.0, &whose.1, None),
                    Err(StoreError::NotFound(_))
                ));
            }
            return Ok(());
        };
        let generation = (back > 0).then_some(target.generation);
        let attempt = Save { generation: Generation(map.next_generation(whose)), ..target };
        map.0.get_mut(whose).expect("it has saves").push(attempt);
        let committed = store.rollback(&whose.0, &whose.1, generation)?;
        map.acknowledge(whose, &committed);
        Ok(())
    }

    fn seed(&mut self) -> u64 {
        self.next_seed += 1;
        self.next_seed
    }

    /// Every save that the store can go back to.
    fn stored_saves(&self) -> Map {
        let store = &self.store().store;
        let mut map = Map::default();
        for info in store.agents().unwrap() {
            let save = |save: &semantic::store::SaveInfo| Save {
                line: save.line,
                generation: save.generation,
                tokens: store.tokens(&info.namespace, &info.agent, save.generation).unwrap(),
            };
            let saves = info.saves.iter().rev().map(save).collect();
            map.0.insert((info.namespace.clone(), info.agent.clone()), saves);
        }
        map
    }
}

/// A fork is in the same namespace.
fn forked(from: usize, to: usize) -> Whose {
    (agent(from).0, agent(to).1)
}

fn agent(number: usize) -> Whose {
    let namespace = Namespace::new(["local", "theirs"][number / 2]);
    (namespace, AgentId::new(["planner", "critic"][number % 2]).unwrap())
}
