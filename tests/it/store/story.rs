//! A store's life on a disk that remembers every moment, and what each moment allows a power cut to
//! leave: while something is done the old state or the new one, from its end on the new one.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;

use semantic::types::{Line, TokenId};

use super::agents::{Agents, Conversations, Whose, after_restart, conversation, whose};
use crate::support::disk::{CrashDisk, MemoryDisk, Moment, Volume};
use crate::support::random::Random;

pub struct Story {
    pub disk: CrashDisk,
    pub agents: Agents,
    /// What must be there now.
    pub now: Conversations,
    lines: BTreeMap<(Whose, Line), Vec<TokenId>>,
    chapters: Vec<Chapter>,
    began: usize,
    /// Whose conversation is there and was never acknowledged, so a power cut may take it.
    doubted: Option<Whose>,
}

/// One thing that was done, or what is the same after nothing was.
struct Chapter {
    title: String,
    moments: Range<usize>,
    allowed: Vec<Conversations>,
    /// After the last moment.
    acknowledged: Vec<Conversations>,
}

/// What a check of many states saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub moments: usize,
    pub states: usize,
}

impl Story {
    pub fn on(volume: &Volume) -> Story {
        Story::going_on(CrashDisk::on(&MemoryDisk::of(volume)), None)
    }

    /// The store is opened on what lies there, synced or not, of this agent perhaps not.
    pub fn going_on(disk: CrashDisk, doubted: Option<Whose>) -> Story {
        let began = disk.now() - 1;
        let agents = Agents::open(disk.clone());
        let now = agents.conversations();
        let (lines, chapters) = (BTreeMap::new(), Vec::new());
        let mut story = Story { disk, agents, now, lines, chapters, began, doubted };
        for (whose, kept) in story.agents.kept() {
            for kept in kept {
                story.lines.insert((whose.clone(), kept.line), kept.tokens);
            }
        }
        story.end_chapter("open", vec![story.now.clone()]);
        story
    }

    /// Does something that is acknowledged when it returns, after which this is what is there.
    pub fn tell(&mut self, title: &str, act: impl FnOnce(&Agents), after: Conversations) {
        self.tell_in_steps(title, act, vec![after]);
    }

    /// The same for what may also stop at any of the states between.
    pub fn tell_in_steps(
        &mut self,
        title: &str,
        act: impl FnOnce(&Agents),
        steps: Vec<Conversations>,
    ) {
        act(&self.agents);
        let mut allowed = vec![self.now.clone()];
        allowed.extend(steps);
        self.now = allowed.last().expect("there is the old state").clone();
        assert_same(&self.agents.conversations(), &self.now, title);
        self.end_chapter(title, allowed);
    }

    pub fn begin(&mut self, whose: &Whose, tokens: &[TokenId]) -> Line {
        let line = self.agents.store.new_line();
        self.save(whose, line, tokens);
        line
    }

    pub fn save(&mut self, whose: &Whose, line: Line, tokens: &[TokenId]) {
        let old = self.lines.insert((whose.clone(), line), tokens.to_vec());
        let mut after = self.now.clone();
        let all = after.entry(whose.clone()).or_default();
        all.retain(|tokens| Some(tokens) != old.as_ref());
        all.push(tokens.to_vec());
        all.sort();
        let title = format!("save {} tokens of {}", tokens.len(), whose.1);
        let is_doubted = self.doubted.as_ref() == Some(whose);
        self.tell(&title, |agents| drop(agents.save(whose, line, tokens).unwrap()), after.clone());
        if is_doubted {
            self.doubted = None;
            self.chapters.last_mut().expect("it was told").acknowledged = vec![after];
        }
    }

    fn end_chapter(&mut self, title: &str, allowed: Vec<Conversations>) {
        let moments = self.began..self.disk.now();
        self.began = moments.end;
        let mut allowed = allowed;
        let mut acknowledged = vec![self.now.clone()];
        if let Some(doubted) = &self.doubted {
            for all in [&mut allowed, &mut acknowledged] {
                let mut without = all.clone();
                without.iter_mut().for_each(|all| drop(all.remove(doubted)));
                all.extend(without);
            }
        }
        let title = title.to_owned();
        self.chapters.push(Chapter { title, moments, allowed, acknowledged });
    }

    /// Every state that a power cut may leave at any moment, with what is allowed in it.
    pub fn each_state(
        &self,
        limit: usize,
        random: &mut Random,
        mut check: impl FnMut(&str, &Volume, &[Conversations]),
    ) -> Seen {
        let moments = self.disk.moments();
        let mut seen = Seen { moments: moments.len(), states: 0 };
        for chapter in &self.chapters {
            // Neighbours have most of their states in common.
            let mut checked = HashSet::new();
            for at in chapter.moments.clone() {
                let is_acknowledged = at + 1 == chapter.moments.end;
                let allowed = match is_acknowledged {
                    true => &chapter.acknowledged,
                    false => &chapter.allowed,
                };
                for state in moments[at].states(limit, random) {
                    if checked.insert((state.clone(), is_acknowledged)) {
                        seen.states += 1;
                        let place =
                            format!("{}, operation {at}: {}", chapter.title, moments[at].operation);
                        check(&place, &state, allowed);
                    }
                }
            }
        }
        seen
    }

    /// Checks them all.
    pub fn survives(&self, limit: usize, random: &mut Random) -> Seen {
        self.each_state(limit, random, |place, state, allowed| {
            opens_as(state, allowed, place);
        })
    }
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Seen) {
        self.moments += other.moments;
        self.states += other.states;
    }
}

/// Checks that a store opens on this, has what is allowed and all of its bytes, has the same when it
/// is opened again, and that a turn can be saved in it that is there after the next restart.
pub fn opens_as(state: &Volume, allowed: &[Conversations], place: &str) {
    let disk = MemoryDisk::of(state);
    let agents = match Agents::try_open(disk.clone()) {
        Ok(agents) => agents,
        Err(error) => panic!("{place}: does not open: {error}\n{state:?}"),
    };
    let found = agents.conversations();
    assert_allowed(&found, allowed, format_args!("{place}\n{state:?}"));
    let probe = whose("made after the crash");
    let tokens = conversation(99, 5);
    agents.begin(&probe, &tokens);
    drop(agents);
    let mut after = after_restart(&Moment::of(&disk).safe());
    assert_eq!(after.remove(&probe), Some(vec![tokens]), "{place}: a new turn is lost");
    assert_allowed(&after, &[found], format_args!("{place}: opened again"));
}

/// Fails with what is different rather than with every token.
pub fn assert_allowed(found: &Conversations, allowed: &[Conversations], place: impl fmt::Display) {
    let all = || allowed.iter().map(summary).collect::<Vec<_>>().join(" or ");
    assert!(allowed.contains(found), "{place}: found {}, allowed {}", summary(found), all());
}

pub fn assert_same(found: &Conversations, right: &Conversations, place: impl fmt::Display) {
    assert_allowed(found, std::slice::from_ref(right), place);
}

/// Agents, the lengths of their conversations and how they end: enough to see which save is which.
fn summary(conversations: &Conversations) -> String {
    let brief = |tokens: &Vec<TokenId>| (tokens.len(), tokens.last().copied());
    let all = |all: &Vec<Vec<TokenId>>| all.iter().map(brief).collect::<Vec<_>>();
    let each = conversations.iter().map(|((namespace, agent), conversations)| {
        format!("{namespace}/{agent} {:?}", all(conversations))
    });
    format!("{{{}}}", each.collect::<Vec<_>>().join(", "))
}
