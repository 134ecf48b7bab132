//! What the store knows of its files without looking: which saves there are, which blocks they
//! need, what everything takes. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::layout::FolderName;
use super::manifest::Head;
use super::retention::Retention;
use super::{BlockName, BlockRef};
use crate::types::{AgentId, Generation, Line, Namespace, TranscriptId};

#[derive(Default)]
pub struct Index {
    pub shelves: BTreeMap<FolderName, Shelf>,
    /// By number, so the oldest first.
    pub quarantine: BTreeMap<u64, Quarantined>,
    /// Lines that went to make room and that nobody has been told of.
    pub removed: Vec<(Namespace, AgentId, Line)>,
    /// The highest that any save has.
    pub last_serial: u64,
    /// The highest that any save has, or that was given out.
    pub last_line: u64,
    /// The highest number that any transcript has, or that was given out.
    pub last_transcript: u64,
}

/// The files of one namespace.
#[derive(Default)]
pub struct Shelf {
    pub blocks: HashMap<BlockName, Block>,
    pub agents: HashMap<FolderName, Agent>,
    /// Some manifest is there and could not be read, so any block may be needed.
    pub has_unread: bool,
    pub transcripts: HashMap<TranscriptId, TranscriptFile>,
    /// Of its blocks, manifests and transcripts.
    pub bytes: u64,
    /// How many files of blocks there ever were.
    files: u64,
}

/// A block that is there, or that a save needs, or both.
#[derive(Default)]
pub struct Block {
    /// How many saves name it, those that are being written or removed included.
    pub needed_by: usize,
    pub file: Option<BlockFile>,
    /// Its file is on the way to the quarantine.
    pub is_leaving: bool,
}

/// Tells a block's file from those that had its name before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileNumber(u64);

#[derive(Clone, Debug, Default)]
pub struct BlockFile {
    pub bytes: u64,
    /// Given by [`Shelf::put_file`].
    pub number: FileNumber,
    /// This process wrote or read every byte of it.
    pub is_verified: bool,
    /// Its folder could not be synced after it was written, so a power cut may take it, and a
    /// second sync would tell nothing.
    pub is_doubted: bool,
    /// How many times [`Store::collect`](super::Store::collect) leaves it although no save needs
    /// it: it waits for one.
    pub collects_left: u8,
    /// Known if this process wrote it.
    pub parent: Option<BlockName>,
    /// The store's last serial when it was last read.
    pub read_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranscriptFile {
    pub agent: FolderName,
    /// Each has a higher one than all before.
    pub number: u64,
    pub bytes: u64,
}

#[derive(Default)]
pub struct Agent {
    pub saves: BTreeMap<Generation, Save>,
    /// Saves that were removed but may come back by a power cut, so their blocks stay.
    pub ghosts: Vec<Ghost>,
    /// Of all files that were ever seen of it, bad ones included.
    pub highest: Option<Generation>,
    /// How long it is kept, if that was ever said.
    pub retention: Option<RetentionFile>,
    /// The highest number that any such file had.
    pub last_retention: u64,
}

/// The file that says how long an agent is kept.
#[derive(Clone, Copy, Debug)]
pub struct RetentionFile {
    /// The highest counts.
    pub number: u64,
    pub retention: Retention,
    /// A turn that left no save; since 1970.
    pub used_at_ms: i64,
    pub bytes: u64,
    /// If not, it could not be read or trusted.
    pub is_known: bool,
}

#[derive(Clone)]
pub struct Save {
    pub head: Arc<Head>,
    /// Of the manifest.
    pub bytes: u64,
}

pub struct Ghost {
    pub head: Arc<Head>,
    /// Its file could be removed, only not yet safely.
    pub is_removed: bool,
}

pub struct Quarantined {
    pub file: String,
    pub bytes: u64,
}

/// More saves than anybody makes.
const GENERATION_NAMED_MAX: Generation = Generation(1 << 62);

impl Index {
    pub fn shelf(&mut self, namespace: FolderName) -> &mut Shelf {
        self.shelves.entry(namespace).or_default()
    }

    pub fn block(&self, namespace: FolderName, name: &BlockName) -> Option<&Block> {
        self.shelves.get(&namespace)?.blocks.get(name)
    }

    pub fn agent(&self, namespace: FolderName, agent: FolderName) -> Option<&Agent> {
        self.shelves.get(&namespace)?.agents.get(&agent)
    }

    pub fn quarantine_bytes(&self) -> u64 {
        self.quarantine.values().map(|file| file.bytes).sum()
    }

    /// Of all files.
    pub fn bytes(&self) -> u64 {
        self.shelves.values().map(|shelf| shelf.bytes).sum::<u64>() + self.quarantine_bytes()
    }
}

impl Shelf {
    /// A file that is there now.
    pub fn put_file(&mut self, name: BlockName, file: BlockFile) {
        self.files += 1;
        let file = BlockFile { number: FileNumber(self.files), ..file };
        self.bytes += file.bytes;
        let before = self.blocks.entry(name).or_default().file.replace(file);
        self.bytes -= before.map_or(0, |before| before.bytes);
    }

    /// A block's file as it is known now. What reading it shows is true of this one only.
    pub fn file_number(&self, name: &BlockName) -> Option<FileNumber> {
        Some(self.blocks.get(name)?.file.as_ref()?.number)
    }

    /// A file that is not there any more.
    pub fn take_file(&mut self, name: &BlockName) -> Option<BlockFile> {
        let file = self.blocks.get_mut(name)?.file.take()?;
        self.bytes -= file.bytes;
        self.forget_if_nothing(name);
        Some(file)
    }

    /// Keeps these blocks for a save.
    pub fn hold(&mut self, blocks: &[BlockRef]) {
        for block in blocks {
            self.blocks.entry(block.name).or_default().needed_by += 1;
        }
    }

    /// The inverse of [`Shelf::hold`].
    pub fn release(&mut self, blocks: &[BlockRef]) {
        for block in blocks {
            let state = self.blocks.get_mut(&block.name).expect("what is released was held");
            assert!(state.needed_by > 0);
            state.needed_by -= 1;
            self.forget_if_nothing(&block.name);
        }
    }

    pub fn forget_if_nothing(&mut self, name: &BlockName) {
        let is_nothing =
            |block: &Block| block.needed_by == 0 && block.file.is_none() && !block.is_leaving;
        if self.blocks.get(name).is_some_and(is_nothing) {
            self.blocks.remove(name);
        }
    }

    /// Whether a block's file is there and as long as it should be.
    pub fn has(&self, block: &BlockRef) -> bool {
        let file = self.blocks.get(&block.name).and_then(|state| state.file.as_ref());
        file.is_some_and(|file| file.bytes == block.file_bytes)
    }

    /// How many of the blocks, from the first, are there.
    pub fn leading(&self, blocks: &[BlockRef]) -> usize {
        blocks.iter().take_while(|block| self.has(block)).count()
    }

    /// Blocks that a save cannot name yet: not there, or not surely.
    pub fn missing(&self, blocks: &[BlockRef]) -> Vec<BlockName> {
        let is_doubted = |block: &BlockRef| {
            let file = self.blocks.get(&block.name).and_then(|state| state.file.as_ref());
            file.is_some_and(|file| file.is_doubted)
        };
        let missing = blocks.iter().filter(|block| !self.has(block) || is_doubted(block));
        missing.map(|block| block.name).collect()
    }

    /// Whether a block's file is there, no save needs it, and it waits for none. Never if one
    /// cannot know.
    pub fn is_unneeded(&self, name: &BlockName) -> bool {
        self.blocks.get(name).is_some_and(|block| self.is_file_unneeded(block))
    }

    pub fn unneeded(&self) -> Vec<BlockName> {
        let unneeded = self.blocks.iter().filter(|(_, block)| self.is_file_unneeded(block));
        unneeded.map(|(name, _)| *name).collect()
    }

    fn is_file_unneeded(&self, block: &Block) -> bool {
        let waits = |file: &BlockFile| file.collects_left > 0;
        !self.has_unread
            && block.needed_by == 0
            && block.file.as_ref().is_some_and(|file| !waits(file))
    }

    pub fn put_save(&mut self, agent: FolderName, save: Save) {
        self.bytes += save.bytes;
        self.hold(&save.head.blocks);
        let agent = self.agents.entry(agent).or_default();
        agent.see(save.head.generation);
        let before = agent.saves.insert(save.head.generation, save);
        assert!(before.is_none(), "a generation is saved once");
    }

    /// Forgets a save, whose blocks stay held.
    pub fn take_save(&mut self, agent: FolderName, generation: Generation) -> Option<Save> {
        let save = self.agents.get_mut(&agent)?.saves.remove(&generation)?;
        self.bytes -= save.bytes;
        Some(save)
    }

    /// How long an agent is kept; returns what said so before.
    pub fn put_retention(
        &mut self,
        agent: FolderName,
        file: RetentionFile,
    ) -> Option<RetentionFile> {
        self.bytes += file.bytes;
        let state = self.agents.entry(agent).or_default();
        state.last_retention = state.last_retention.max(file.number);
        let before = state.retention.replace(file);
        self.bytes -= before.map_or(0, |before| before.bytes);
        before
    }

    /// Nothing says any more how long an agent is kept.
    pub fn take_retention(&mut self, agent: FolderName) -> Option<RetentionFile> {
        let file = self.agents.get_mut(&agent)?.retention.take()?;
        self.bytes -= file.bytes;
        Some(file)
    }

    /// Lets go of what the removed saves of an agent needed, and of the agent if that was all.
    pub fn release_ghosts(&mut self, agent: FolderName) {
        let Some(state) = self.agents.get_mut(&agent) else { return };
        let gone: Vec<Ghost> = state.ghosts.extract_if(.., |ghost| ghost.is_removed).collect();
        for ghost in gone {
            self.release(&ghost.head.blocks);
        }
    }

    pub fn put_transcript(&mut self, id: TranscriptId, file: TranscriptFile) {
        self.bytes += file.bytes;
        let before = self.transcripts.insert(id, file);
        self.bytes -= before.map_or(0, |before| before.bytes);
    }

    /// One whose file is not there any more.
    pub fn take_transcript(&mut self, id: TranscriptId) -> Option<TranscriptFile> {
        let file = self.transcripts.remove(&id)?;
        self.bytes -= file.bytes;
        Some(file)
    }

    /// Those of an agent.
    pub fn transcripts_of(&self, agent: FolderName) -> Vec<(TranscriptId, TranscriptFile)> {
        let of_agent = self.transcripts.iter().filter(|(_, file)| file.agent == agent);
        of_agent.map(|(id, file)| (*id, *file)).collect()
    }

    /// The oldest first.
    pub fn transcripts_by_age(&self) -> Vec<(TranscriptId, TranscriptFile)> {
        let mut all: Vec<(TranscriptId, TranscriptFile)> =
            self.transcripts.iter().map(|(id, file)| (*id, *file)).collect();
        all.sort_unstable_by_key(|(_, file)| file.number);
        all
    }

    pub fn transcript_bytes(&self) -> u64 {
        self.transcripts.values().map(|file| file.bytes).sum()
    }

    /// Agents with at least one save.
    pub fn agent_count(&self) -> usize {
        self.agents.values().filter(|agent| !agent.saves.is_empty()).count()
    }
}

impl Agent {
    /// No save gets this generation, or a lower one, again.
    pub fn see(&mut self, generation: Generation) {
        self.highest = self.highest.max(Some(generation));
    }

    /// The same of a file that only has the name of a save. A name with which the generations
    /// would end is none of ours.
    pub fn see_name(&mut self, generation: Generation) {
        if generation < GENERATION_NAMED_MAX {
            self.see(generation);
        }
    }

    /// The next generation, which nobody else gets.
    pub fn next_generation(&mut self) -> Generation {
        let Generation(highest) = self.highest.unwrap_or(Generation(0));
        let next = Generation(highest.checked_add(1).expect("2^64 saves take for ever"));
        self.highest = Some(next);
        next
    }

    pub fn retention(&self) -> Retention {
        self.retention.map(|file| file.retention).unwrap_or_default()
    }

    /// When its time is over, if it ever is.
    pub fn expires_at(&self) -> Option<SystemTime> {
        let ttl = self.retention().ttl?;
        let saved = self.saves.values().map(|save| save.head.saved_at_ms).max()?;
        let last = saved.max(self.retention.map_or(i64::MIN, |file| file.used_at_ms));
        time(last).checked_add(ttl)
    }

    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires_at().is_some_and(|end| end <= now)
    }

    /// The newest save of each line, the newest of all first.
    pub fn live(&self) -> Vec<&Save> {
        self.live_without(&[])
    }

    /// As if these were not there.
    pub fn live_without(&self, bad: &[Generation]) -> Vec<&Save> {
        let mut live: Vec<&Save> = Vec::new();
        let good = |save: &&Save| !bad.contains(&save.head.generation);
        for save in self.saves.values().rev().filter(good) {
            if live.iter().all(|newer| newer.head.line != save.head.line) {
                live.push(save);
            }
        }
        live
    }

    /// The save of the newest one's line that came before it, of those that fit.
    pub fn before_newest(&self, fits: impl Fn(&&Save) -> bool) -> Option<&Save> {
        let mut newest_first = self.saves.values().rev().filter(fits);
        let line = newest_first.next()?.head.line;
        newest_first.find(|save| save.head.line == line)
    }

    /// The saves of a line, oldest first.
    pub fn line(&self, line: Line) -> Vec<Generation> {
        let of_line = self.saves.values().filter(|save| save.head.line == line);
        of_line.map(|save| save.head.generation).collect()
    }

    /// Saves of all lines with more than so many newer ones of the same line.
    pub fn superseded(&self, kept: usize) -> Vec<Generation> {
        if self.saves.len() <= 1 + kept {
            return Vec::new();
        }
        let lines = self.live().into_iter().map(|save| save.head.line);
        let of_line = |line| {
            let generations = self.line(line);
            let superseded = generations.len().saturating_sub(1 + kept);
            generations.into_iter().take(superseded)
        };
        lines.flat_map(of_line).collect()
    }
}

/// A time that the system cannot say is the beginning of its count.
pub fn time(unix_ms: i64) -> SystemTime {
    let distance = Duration::from_millis(unix_ms.unsigned_abs());
    let time = match unix_ms < 0 {
        true => UNIX_EPOCH.checked_sub(distance),
        false => UNIX_EPOCH.checked_add(distance),
    };
    time.unwrap_or(UNIX_EPOCH)
}
