//! How much may still be written, and which line goes first when it is too much. Pure.

use std::collections::HashMap;

use super::disk::Space;
use super::index::{Agent, Index, Save, Shelf, TranscriptFile};
use super::layout::FolderName;
use super::{BlockName, BlockRef, FullReason, PINNED_PART, Settings};
use crate::types::{Line, TranscriptId};

/// Of a disk, one part in so many stays free: other programs need some, and file systems slow down
/// when they are full.
const DISK_PART_KEPT_FREE: u64 = 20;
/// But no more than this: of a large disk 5 % are more than anybody misses.
const DISK_BYTES_KEPT_FREE_MAX: u64 = 5 << 30;

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Need {
    pub bytes: u64,
    pub namespace: FolderName,
    /// Whose lines stay, whatever happens: who is being saved, and whose copy it is.
    pub agents: Vec<FolderName>,
    /// The blocks before the one that is being written, which is to extend one of the lines with
    /// such a block: they go last.
    pub family: Vec<BlockName>,
    /// Words make room among words, if that will do: a line is worth more.
    pub is_transcript: bool,
}

/// What is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Victim {
    Line(Place),
    /// The oldest of the namespace that needs the room.
    Transcripts(Vec<(TranscriptId, TranscriptFile)>),
}

/// What there is too little of, and by how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub of: Scarce,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scarce {
    All(FullReason),
    /// What this namespace may have.
    Namespace,
}

/// A line in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub namespace: FolderName,
    pub agent: FolderName,
    pub line: Line,
}

/// What is too little if so much is written.
pub fn shortage(index: &Index, need: &Need, settings: &Settings, space: Space) -> Option<Shortage> {
    let shortage = |of, used: u64, limit: u64| {
        let bytes = used.saturating_add(need.bytes).saturating_sub(limit);
        (bytes > 0).then_some(Shortage { of, bytes })
    };
    let in_namespace = index.shelves.get(&need.namespace).map_or(0, |shelf| shelf.bytes);
    let quota = settings.namespace_bytes.unwrap_or(u64::MAX);
    let free = need.bytes.saturating_add(kept_free(space));
    shortage(Scarce::Namespace, in_namespace, quota)
        .or_else(|| shortage(Scarce::All(FullReason::Budget), index.bytes(), settings.budget_bytes))
        .or_else(|| {
            let bytes = free.saturating_sub(space.free_bytes);
            (bytes > 0).then_some(Shortage { of: Scarce::All(FullReason::Disk), bytes })
        })
}

/// Bytes of a disk that the store leaves to others.
pub fn kept_free(space: Space) -> u64 {
    (space.total_bytes / DISK_PART_KEPT_FREE).min(DISK_BYTES_KEPT_FREE_MAX)
}

/// What goes next, if there can be enough room at all. If not, nothing need go in vain.
///
/// Lines go before words that are not theirs: in a store that is always full, where a line goes
/// every now and then, no response could be gone on from otherwise.
pub fn victim(
    index: &Index,
    need: &Need,
    shortage: Shortage,
    settings: &Settings,
) -> Option<Victim> {
    let in_lines = bytes_in_lines(index, need, shortage.of, settings);
    let shelf = index.shelves.get(&need.namespace);
    let oldest = |bytes| shelf.map(|shelf| Victim::Transcripts(oldest(shelf, bytes)));
    let words = shelf.map_or(0, Shelf::transcript_bytes);
    if need.is_transcript && words >= shortage.bytes {
        return oldest(shortage.bytes);
    }
    if in_lines >= shortage.bytes {
        return coldest(index, need, shortage.of, settings).map(Victim::Line);
    }
    let may_unpin = is_overpinned(index, need, shortage.of, settings);
    let staying = shelf.map_or(0, |shelf| words_kept(need.namespace, shelf, need, may_unpin));
    match in_lines + staying >= shortage.bytes {
        true => oldest(shortage.bytes - in_lines),
        false => None,
    }
}

/// What would be gone if every line were that may go, with the words of its agent.
fn bytes_in_lines(index: &Index, need: &Need, of: Scarce, settings: &Settings) -> u64 {
    let may_unpin = is_overpinned(index, need, of, settings);
    let shelves = index.shelves.iter().filter(|(name, _)| is_in_scope(need, of, **name));
    let free = |(name, shelf): (&FolderName, &Shelf)| {
        let own = if *name == need.namespace { bytes_kept(shelf, need) } else { 0 };
        // Both may be of the same blocks.
        let kept = match may_unpin {
            true => own,
            false => own.max(pinned_bytes(shelf, None)),
        };
        shelf.bytes.saturating_sub(kept + words_kept(*name, shelf, need, may_unpin))
    };
    shelves.map(free).sum()
}

/// Bytes of transcripts that no line takes along: of agents that stay, and of those that have none.
fn words_kept(namespace: FolderName, shelf: &Shelf, need: &Need, may_unpin: bool) -> u64 {
    let is_own = namespace == need.namespace;
    let stays = |name: &FolderName| match shelf.agents.get(name) {
        None => true,
        Some(agent) => {
            agent.saves.is_empty()
                || (is_own && need.agents.contains(name))
                || (agent.retention().is_pinned && !may_unpin)
                // The one of them that grows stays, whichever it is.
                || (is_own && agent.live().into_iter().any(|save| need.is_family(save)))
        }
    };
    let mut stay: HashMap<FolderName, bool> = HashMap::new();
    let mut is_staying = |name| *stay.entry(name).or_insert_with(|| stays(&name));
    let files = shelf.transcripts.values().filter(|file| is_staying(file.agent));
    files.map(|file| file.bytes).sum()
}

/// The oldest transcripts that have so many bytes.
fn oldest(shelf: &Shelf, bytes: u64) -> Vec<(TranscriptId, TranscriptFile)> {
    let mut gone = 0;
    let is_needed = |(_, file): &(TranscriptId, TranscriptFile)| {
        let is_needed = gone < bytes;
        gone += file.bytes;
        is_needed
    };
    shelf.transcripts_by_age().into_iter().take_while(is_needed).collect()
}

/// The line to go: the least recently used of those that may, first of agents that nobody named.
///
/// What is pinned goes only where it has more than its part, and last.
fn coldest(index: &Index, need: &Need, of: Scarce, settings: &Settings) -> Option<Place> {
    let may_unpin = is_overpinned(index, need, of, settings);
    let mut others = Vec::new();
    let mut family = Vec::new();
    for (namespace, shelf) in index.shelves.iter().filter(|(name, _)| is_in_scope(need, of, **name))
    {
        for (agent, state) in &shelf.agents {
            let is_pinned = state.retention().is_pinned;
            if (is_pinned && !may_unpin)
                || (*namespace == need.namespace && need.agents.contains(agent))
            {
                continue;
            }
            for save in state.live() {
                let place = Place { namespace: *namespace, agent: *agent, line: save.head.line };
                let warmth = (is_pinned, !save.head.agent.is_automatic(), last_use(shelf, save));
                match need.is_family(save) {
                    true => family.push((warmth, place)),
                    false => others.push((warmth, place)),
                }
            }
        }
    }
    // Of the family the last that was used is most probably the one that grows: it stays.
    let parent = family.iter().max().copied();
    let cousins = family.into_iter().filter(|cousin| Some(*cousin) != parent);
    others.into_iter().min().or_else(|| cousins.min()).map(|(_, place)| place)
}

/// The agent of a namespace to go: the one whose lines were all used least recently, first of those
/// that nobody named.
pub fn coldest_agent(index: &Index, need: &Need) -> Option<FolderName> {
    let shelf = index.shelves.get(&need.namespace)?;
    let others = shelf
        .agents
        .iter()
        .filter(|(agent, state)| !need.agents.contains(agent) && !state.saves.is_empty())
        .filter(|(_, state)| !state.retention().is_pinned);
    let warmth = |agent: &Agent| {
        let live = agent.live();
        let saves = live.iter();
        saves.map(|save| (!save.head.agent.is_automatic(), last_use(shelf, save))).max()
    };
    others.min_by_key(|(agent, state)| (warmth(state), **agent)).map(|(agent, _)| *agent)
}

/// When a line was last saved or read, by the store's serial. Its last block tells of the reading:
/// those before it others may have as well.
pub fn last_use(shelf: &Shelf, save: &Save) -> u64 {
    let last = save.head.blocks.last().and_then(|block| shelf.blocks.get(&block.name));
    let read_at = last.and_then(|block| block.file.as_ref()).map_or(0, |file| file.read_at);
    save.head.serial.max(read_at)
}

/// Whether more is pinned than may be: who is pinned goes on to grow.
fn is_overpinned(index: &Index, need: &Need, of: Scarce, settings: &Settings) -> bool {
    let shelves = index.shelves.iter().filter(|(name, _)| is_in_scope(need, of, **name));
    let pinned: u64 = shelves.map(|(_, shelf)| pinned_bytes(shelf, None)).sum();
    let limit = match of {
        Scarce::Namespace => settings.namespace_bytes.unwrap_or(u64::MAX),
        Scarce::All(_) => settings.budget_bytes,
    };
    pinned > limit / PINNED_PART
}

/// What the pinned agents of a namespace need, and one more.
pub fn pinned_bytes(shelf: &Shelf, one_more: Option<FolderName>) -> u64 {
    let is_it = |agent: &FolderName| Some(*agent) == one_more;
    let agents = shelf.agents.iter();
    let pinned = agents.filter(|(name, state)| state.retention().is_pinned || is_it(name));
    let saves: Vec<&Save> = pinned.flat_map(|(_, state)| state.saves.values()).collect();
    let blocks: HashMap<BlockName, u64> = saves
        .iter()
        .flat_map(|save| &save.head.blocks)
        .filter(|block| shelf.has(block))
        .map(|block| (block.name, block.file_bytes))
        .collect();
    saves.iter().map(|save| save.bytes).sum::<u64>() + blocks.values().sum::<u64>()
}

impl Need {
    fn is_family(&self, save: &Save) -> bool {
        let is_before = |block: &BlockRef| self.family.contains(&block.name);
        !self.family.is_empty() && save.head.blocks.iter().any(is_before)
    }
}

fn is_in_scope(need: &Need, of: Scarce, namespace: FolderName) -> bool {
    of != Scarce::Namespace || namespace == need.namespace
}

/// Bytes that stay: of blocks that wait for their save, of the agent that is being saved, and of the
/// line that grows.
fn bytes_kept(shelf: &Shelf, need: &Need) -> u64 {
    let files = || shelf.blocks.values().filter_map(|block| block.file.as_ref());
    let waiting = files().filter(|file| file.collects_left > 0).map(|file| file.bytes).sum::<u64>();
    let own = |save: &Save| {
        let blocks = save.head.blocks.iter().filter(|block| shelf.has(block));
        save.bytes + blocks.map(|block| block.file_bytes).sum::<u64>()
    };
    // Blocks of several saves would be counted too often, so the largest save stands for all.
    let agents = need.agents.iter().filter_map(|agent| shelf.agents.get(agent));
    let agent = agents.filter_map(|agent| agent.saves.values().map(own).max()).max();
    let live = || shelf.agents.values().flat_map(|agent| agent.live());
    let family = live().filter(|save| need.is_family(save)).map(own).max();
    waiting + agent.or(family).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::{BlockFile, Quarantined};

    fn need(bytes: u64) -> Need {
        let namespace = FolderName::of(&[1; 32]);
        Need { bytes, namespace, agents: Vec::new(), family: Vec::new(), is_transcript: false }
    }

    fn settings(budget_bytes: u64, namespace_bytes: Option<u64>) -> Settings {
        Settings { budget_bytes, namespace_bytes, ..Settings::default() }
    }

    #[test]
    fn every_limit_is_held_to_the_byte() {
        let mut index = Index::default();
        let file = BlockFile { bytes: 70, ..BlockFile::default() };
        index.shelf(need(0).namespace).put_file(BlockName([0; 32]), file.clone());
        index.shelf(FolderName::of(&[2; 32])).put_file(BlockName([0; 32]), file);
        index.quarantine.insert(1, Quarantined { file: String::new(), bytes: 10 });
        let space = Space { total_bytes: 1000, free_bytes: 90 };
        let check = |bytes, settings: &Settings| shortage(&index, &need(bytes), settings, space);

        let budget = settings(180, None);
        assert_eq!(check(30, &budget), None);
        let of = Scarce::All(FullReason::Budget);
        assert_eq!(check(31, &budget), Some(Shortage { of, bytes: 1 }));

        let quota = settings(1000, Some(75));
        assert_eq!(check(5, &quota), None);
        assert_eq!(check(7, &quota), Some(Shortage { of: Scarce::Namespace, bytes: 2 }));

        let much = settings(u64::MAX, None);
        assert_eq!(check(40, &much), None);
        let of = Scarce::All(FullReason::Disk);
        assert_eq!(check(43, &much), Some(Shortage { of, bytes: 3 }));
        assert_eq!(check(u64::MAX, &much).map(|shortage| shortage.of), Some(of));
    }

    #[test]
    fn a_twentieth_of_the_disk_stays_free_but_not_more_than_anybody_misses() {
        let kept = |total_bytes| kept_free(Space { total_bytes, free_bytes: 0 });
        assert_eq!(kept(64 << 20), (64 << 20) / 20);
        assert_eq!(kept(100 << 30), 5 << 30);
        assert_eq!(kept(8 << 40), 5 << 30);
    }
}
