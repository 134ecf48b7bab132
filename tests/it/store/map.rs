//! What a store should have, as a map: every save of every agent.

use std::collections::{BTreeMap, BTreeSet};

use semantic::store::Committed;
use semantic::types::{AgentId, Generation, Line, Namespace, TokenId};

use super::agents::{Conversations, Whose};

/// A save as the map has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Save {
    pub line: Line,
    pub generation: Generation,
    pub tokens: Vec<TokenId>,
}

/// Every agent's saves, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Map(pub BTreeMap<Whose, Vec<Save>>);

impl Map {
    /// Every agent's conversations as they count.
    pub fn live(&self) -> Conversations {
        let tokens = |whose: &Whose| {
            let mut all: Vec<_> =
                self.live_saves(whose).into_iter().map(|save| save.tokens).collect();
            all.sort();
            all
        };
        self.0.keys().map(|whose| (whose.clone(), tokens(whose))).collect()
    }

    pub fn live_saves(&self, whose: &Whose) -> Vec<Save> {
        let all = self.0.get(whose).into_iter().flatten();
        all.filter(|save| self.newer(whose, save) == 0).cloned().collect()
    }

    /// How many saves of the same line are newer.
    pub fn newer(&self, whose: &Whose, save: &Save) -> usize {
        let is_newer =
            |other: &&Save| other.line == save.line && other.generation > save.generation;
        self.0[whose].iter().filter(is_newer).count()
    }

    /// The line with this index, if the agent has so many.
    pub fn line(&self, whose: &Whose, index: usize) -> Option<Line> {
        let lines: BTreeSet<Line> = self.0.get(whose)?.iter().map(|save| save.line).collect();
        lines.into_iter().nth(index)
    }

    pub fn newest(&self, whose: &Whose, line: Line) -> &Save {
        let saves = self.0[whose].iter().filter(|save| save.line == line);
        saves.max_by_key(|save| save.generation).expect("the line is there")
    }

    pub fn next_generation(&self, whose: &Whose) -> u64 {
        self.0.get(whose).and_then(|saves| saves.last()).map_or(1, |save| save.generation.0 + 1)
    }

    /// The newest save got this generation, and these lines went for it.
    pub fn acknowledge(&mut self, whose: &Whose, committed: &Committed) {
        let saves = self.0.get_mut(whose).expect("it has a save");
        let mut save = saves.pop().expect("the one that was attempted");
        // Other lines of the agent may go as well, as long as only its blocks are written.
        self.remove(&committed.removed);
        let saves = self.0.entry(whose.clone()).or_default();
        let is_new = saves.iter().all(|other| other.generation < committed.generation);
        assert!(is_new, "{committed:?} is not new");
        save.generation = committed.generation;
        saves.push(save);
    }

    pub fn remove(&mut self, lines: &[(Namespace, AgentId, Line)]) {
        for (namespace, agent, line) in lines {
            let whose = (namespace.clone(), agent.clone());
            let Some(saves) = self.0.get_mut(&whose) else { continue };
            saves.retain(|save| save.line != *line);
            if saves.is_empty() {
                self.0.remove(&whose);
            }
        }
    }
}
