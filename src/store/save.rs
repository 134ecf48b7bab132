//! Takes a conversation to disk: blocks first, then the manifest that names them.
//!
//! Each file is written under a temporary name, synced, and only then gets its own; the folders of
//! the blocks are synced before the manifest has its name, and its folder before anybody hears of
//! it. So at every moment the disk has the old save or the new one, whole.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::budget::Need;
use super::files::{Lost, write_error};
use super::index::{BlockFile, Ghost, Save};
use super::keys::BlockIdentity;
use super::layout::{self, FolderName};
use super::manifest::{self, Head};
use super::{BlockName, BlockRef, Flaw, KvModel, SealedBlock, Store, StoreError};
use crate::types::{AgentId, BLOCK_TOKENS, Fingerprint, Generation, Line, Namespace, TokenId};

/// A conversation that is to be saved, its blocks being written.
#[derive(Clone, Debug)]
pub struct Draft {
    pub namespace: Namespace,
    pub agent: AgentId,
    pub line: Line,
    pub model: Arc<KvModel>,
    /// May be more than the blocks hold: the last token of a reply has no KV yet.
    pub tokens: Arc<[TokenId]>,
    /// Which tokens are replies.
    pub replies: Vec<Range<usize>>,
    /// All full but the last.
    pub blocks: Vec<BlockRef>,
}

/// A save that is safe from a power cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub generation: Generation,
    /// Lines that went to make room, for this save or for its blocks.
    pub removed: Vec<(Namespace, AgentId, Line)>,
}

/// The save of a line that counts, as an engine takes it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLine {
    pub namespace: Namespace,
    pub agent: AgentId,
    pub line: Line,
    pub generation: Generation,
    pub tokens: Arc<[TokenId]>,
    pub replies: Vec<Range<usize>>,
    /// The leading ones that are there with the right length.
    pub blocks: Vec<BlockRef>,
}

/// A block that no save names yet waits for one through so many collections.
const COLLECTS_WAITED: u8 = 1;

/// A save before it has its numbers.
pub(super) struct NewSave<'a> {
    pub namespace: &'a Namespace,
    pub agent: &'a AgentId,
    /// Whose conversation this is a copy of, and who does not go to make room for it.
    pub source: Option<&'a AgentId>,
    pub line: Line,
    pub fingerprint: Fingerprint,
    pub model: &'a str,
    pub producer: &'a str,
    pub tokens: &'a [TokenId],
    pub replies: &'a [Range<usize>],
    pub blocks: &'a [BlockRef],
}

impl Store {
    /// Gives a block its name, and the header that makes it a file. `tokens` are the block's own,
    /// `kv` is what `model.tensors` say. Computes only.
    pub fn seal(
        &self,
        namespace: &Namespace,
        model: &KvModel,
        parent: Option<&BlockName>,
        tokens: &[TokenId],
        kv: Vec<u8>,
    ) -> SealedBlock {
        assert!((1..=BLOCK_TOKENS).contains(&tokens.len()), "a block of {} tokens", tokens.len());
        let header = self.headers.of(model, tokens.len());
        assert_eq!(kv.len(), header.kv_bytes, "the KV is what the model's tensors say");
        let folder = self.secrets.namespace_folder(namespace);
        let mut hasher = self.secrets.digest(folder);
        hasher.update(&header.bytes).update(&kv);
        let digest = *hasher.finalize().as_bytes();
        let fingerprint = &model.fingerprint;
        let identity = BlockIdentity { namespace, parent, fingerprint, tokens, digest: &digest };
        let block = BlockRef {
            name: self.secrets.block_name(&identity),
            digest,
            tokens: tokens.len(),
            file_bytes: header.file_bytes() as u64,
        };
        SealedBlock { block, namespace: namespace.clone(), parent: parent.copied(), header, kv }
    }

    /// Writes a block, unless it is there. It is kept for the [`commit`](Store::commit) to come,
    /// through one [`collect`](Store::collect). Nothing of the agent it is for goes to make room.
    pub fn write_block(&self, agent: &AgentId, sealed: &SealedBlock) -> Result<(), StoreError> {
        self.may_write()?;
        let namespace = self.secrets.namespace_folder(&sealed.namespace);
        let block = &sealed.block;
        self.wait_until_moved(namespace, &block.name);
        match self.trust(namespace, block)? {
            Trust::Whole => {
                self.keep_for_a_commit(namespace, &block.name);
                Ok(())
            }
            Trust::Absent => self.write_new(agent, sealed, false),
            Trust::Doubted => self.write_new(agent, sealed, true),
        }
    }

    /// Saves a conversation whose blocks are written. Returns when it is safe from a power cut.
    pub fn commit(&self, draft: &Draft) -> Result<Committed, StoreError> {
        self.may_write()?;
        let held: usize = draft.blocks.iter().map(|block| block.tokens).sum();
        assert!(held <= draft.tokens.len(), "blocks of {held} tokens");
        let is_within = |reply: &Range<usize>| reply.end <= draft.tokens.len();
        // The next start would take it for damaged.
        assert!(draft.replies.iter().all(is_within), "replies of {} tokens", draft.tokens.len());
        let full = draft.blocks.split_last().map_or(&[][..], |(_, full)| full);
        assert!(full.iter().all(|block| block.tokens == BLOCK_TOKENS), "only the last is a part");
        let namespace = self.secrets.namespace_folder(&draft.namespace);
        let mut missing = Vec::new();
        for block in &draft.blocks {
            self.wait_until_moved(namespace, &block.name);
            if self.trust(namespace, block)? != Trust::Whole {
                missing.push(block.name);
            }
        }
        if !missing.is_empty() {
            return Err(StoreError::Missing(missing));
        }
        self.save(&NewSave {
            namespace: &draft.namespace,
            agent: &draft.agent,
            source: None,
            line: draft.line,
            fingerprint: draft.model.fingerprint,
            model: &draft.model.name,
            producer: &draft.model.producer,
            tokens: &draft.tokens,
            replies: &draft.replies,
            blocks: &draft.blocks,
        })
    }

    /// Writes the manifest of blocks that are there.
    pub(super) fn save(&self, save: &NewSave<'_>) -> Result<Committed, StoreError> {
        if !manifest::can_name(save.namespace) || save.tokens.len() > manifest::TOKENS_MAX {
            let what = "a name or a conversation as long as this".to_owned();
            return Err(StoreError::Quota { namespace: save.namespace.to_string(), what });
        }
        let namespace = self.secrets.namespace_folder(save.namespace);
        let agent = self.secrets.agent_folder(save.namespace, save.agent);
        let head = {
            let mut index = self.index();
            let shelf = index.shelf(namespace);
            let missing = shelf.missing(save.blocks);
            if !missing.is_empty() {
                return Err(StoreError::Missing(missing));
            }
            // From here on they cannot go to make room for their own manifest.
            shelf.hold(save.blocks);
            let generation = shelf.agents.entry(agent).or_default().next_generation();
            index.last_serial += 1;
            index.last_line = index.last_line.max(save.line.0);
            Arc::new(save.head(generation, index.last_serial, (self.settings.now)()))
        };
        match self.write_manifest(namespace, agent, &head, save) {
            Ok(()) => Ok(self.committed(namespace, agent, head)),
            Err(error) => {
                self.undo(namespace, agent, head);
                Err(error)
            }
        }
    }

    fn write_manifest(
        &self,
        namespace: FolderName,
        agent: FolderName,
        head: &Arc<Head>,
        save: &NewSave<'_>,
    ) -> Result<(), StoreError> {
        let bytes = head.file_bytes();
        // A save that failed may still have its name.
        self.remove_ghosts(namespace, agent)?;
        let source = save.source.map(|source| self.secrets.agent_folder(save.namespace, source));
        let agents = std::iter::once(agent).chain(source).collect();
        let need = Need { bytes, namespace, agents, family: Vec::new(), is_transcript: false };
        self.make_room_for_agent(&need, agent, save.namespace)?;
        self.make_room(&need, save.namespace)?;
        // Those of a copy were made safe before the manifest that it is a copy of was written.
        let own = if save.source.is_some() { &[][..] } else { &head.blocks[..] };
        let mut folders: Vec<u8> = own.iter().map(|block| block.name.0[0]).collect();
        folders.sort_unstable();
        folders.dedup();
        for first in folders {
            self.sync_path(&layout::block_folder(namespace, first))?;
        }
        let folder = layout::agent_folder(namespace, agent);
        self.files.make_folder(&folder)?;
        let mut file = self.files.write(&[&head.encode(save.tokens, &self.secrets.seal())])?;
        let path = layout::manifest_file(namespace, agent, head.generation);
        file.rename(&path).map_err(|source| write_error("name", &path, bytes, source))?;
        self.files.changed(&folder, None);
        let synced = self.sync_path(&folder);
        if synced.is_err() {
            self.withdraw(namespace, agent, head, &path);
        }
        synced
    }

    /// A manifest has its name, but a power cut may take it or leave it: nobody hears of it, and
    /// what it names stays until its folder tells for sure that it is gone.
    fn withdraw(&self, namespace: FolderName, agent: FolderName, head: &Arc<Head>, path: &str) {
        let is_removed = self.files.remove(path).is_ok();
        let mut index = self.index();
        let shelf = index.shelf(namespace);
        shelf.hold(&head.blocks);
        let ghost = Ghost { head: head.clone(), is_removed };
        shelf.agents.entry(agent).or_default().ghosts.push(ghost);
    }

    /// The save is safe: now it counts.
    fn committed(&self, namespace: FolderName, agent: FolderName, head: Arc<Head>) -> Committed {
        let generation = head.generation;
        let mut index = self.index();
        let shelf = index.shelf(namespace);
        for block in &head.blocks {
            let state = shelf.blocks.get_mut(&block.name).expect("it is held");
            if let Some(file) = &mut state.file {
                file.collects_left = 0;
            }
        }
        let bytes = head.file_bytes();
        shelf.put_save(agent, Save { head: head.clone(), bytes });
        // The save holds them now.
        shelf.release(&head.blocks);
        shelf.release_ghosts(agent);
        Committed { generation, removed: std::mem::take(&mut index.removed) }
    }

    fn undo(&self, namespace: FolderName, agent: FolderName, head: Arc<Head>) {
        let mut index = self.index();
        let shelf = index.shelf(namespace);
        shelf.release(&head.blocks);
        shelf.agents.entry(agent).or_default().see(head.generation);
    }

    fn write_new(
        &self,
        agent: &AgentId,
        sealed: &SealedBlock,
        replaces: bool,
    ) -> Result<(), StoreError> {
        let namespace = self.secrets.namespace_folder(&sealed.namespace);
        let block = &sealed.block;
        let bytes = block.file_bytes;
        let family = self.family(namespace, sealed.parent);
        let agents = vec![self.secrets.agent_folder(&sealed.namespace, agent)];
        let need = Need { bytes, namespace, agents, family, is_transcript: false };
        self.make_room(&need, &sealed.namespace)?;
        let folder = layout::block_folder(namespace, block.name.0[0]);
        self.files.make_folder(&folder)?;
        let mut file = self.files.write(&[&sealed.header.bytes, &sealed.kv])?;
        let path = layout::block_file(namespace, &block.name);
        if replaces {
            self.files.remove(&path)?;
            self.index().shelf(namespace).take_file(&block.name);
        }
        let renamed = match file.rename(&path) {
            // A file that the index does not know: it came since the store was opened.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.move_to_quarantine(&path, Flaw::Place);
                file.rename(&path)
            }
            other => other,
        };
        renamed.map_err(|source| write_error("name", &path, bytes, source))?;
        self.files.changed(&folder, Some(block.name));
        let file = BlockFile {
            bytes,
            is_verified: true,
            collects_left: COLLECTS_WAITED,
            parent: sealed.parent,
            ..BlockFile::default()
        };
        self.index().shelf(namespace).put_file(block.name, file);
        Ok(())
    }

    /// Whether a save may name a block as it lies there. What this process neither wrote nor read
    /// is read now; what is damaged goes to the quarantine.
    fn trust(&self, namespace: FolderName, block: &BlockRef) -> Result<Trust, StoreError> {
        let file = {
            let index = self.index();
            index.block(namespace, &block.name).and_then(|state| state.file.clone())
        };
        match file {
            None => Ok(Trust::Absent),
            Some(file) if file.is_doubted => Ok(Trust::Doubted),
            Some(file) if file.is_verified && file.bytes == block.file_bytes => Ok(Trust::Whole),
            Some(_) => self.trust_after_reading(namespace, block),
        }
    }

    fn trust_after_reading(
        &self,
        namespace: FolderName,
        block: &BlockRef,
    ) -> Result<Trust, StoreError> {
        match self.verify_block(namespace, block) {
            Ok(()) => Ok(Trust::Whole),
            Err(StoreError::Damaged { .. } | StoreError::Missing(_)) => Ok(Trust::Absent),
            Err(other) => Err(other),
        }
    }

    fn keep_for_a_commit(&self, namespace: FolderName, name: &BlockName) {
        let mut index = self.index();
        let Some(state) = index.shelf(namespace).blocks.get_mut(name) else { return };
        if let Some(file) = state.file.as_mut().filter(|_| state.needed_by == 0) {
            file.collects_left = COLLECTS_WAITED;
        }
    }

    /// The blocks before one, back to the last that a save names.
    fn family(&self, namespace: FolderName, parent: Option<BlockName>) -> Vec<BlockName> {
        let index = self.index();
        let mut family = Vec::new();
        let mut next = parent;
        while let Some(name) = next {
            family.push(name);
            let state = index.block(namespace, &name).filter(|state| state.needed_by == 0);
            next = state.and_then(|state| state.file.as_ref()?.parent);
        }
        family
    }

    /// Blocks whose folder failed to be synced, or was new in one that did, are written again
    /// before a save names them.
    pub(super) fn sync_path(&self, folder: &str) -> Result<(), StoreError> {
        self.files.sync_path(folder, |lost| {
            let mut index = self.index();
            for (namespace, shelf) in &mut index.shelves {
                for (name, state) in &mut shelf.blocks {
                    if let Some(file) = &mut state.file {
                        file.is_doubted |= lost.has_block(*namespace, name);
                    }
                }
            }
        })
    }
}

impl Lost {
    fn has_block(&self, namespace: FolderName, name: &BlockName) -> bool {
        let path = layout::block_file(namespace, name);
        let is_below = |folder: &String| {
            path.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        self.blocks.contains(name) || self.folders.iter().any(is_below)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    Absent,
    Doubted,
    Whole,
}

impl NewSave<'_> {
    fn head(&self, generation: Generation, serial: u64, now: SystemTime) -> Head {
        Head {
            namespace: self.namespace.clone(),
            agent: self.agent.clone(),
            line: self.line,
            generation,
            serial,
            saved_at_ms: unix_ms(now),
            fingerprint: self.fingerprint,
            model: manifest::cut_name(self.model).to_owned(),
            producer: manifest::cut_name(self.producer).to_owned(),
            tokens: self.tokens.len(),
            replies: self.replies.to_vec(),
            blocks: self.blocks.to_vec(),
        }
    }
}

/// Any clock will do, also one before 1970.
pub(super) fn unix_ms(time: SystemTime) -> i64 {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => ms(after),
        Err(before) => -ms(before.duration()),
    }
}
