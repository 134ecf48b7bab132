//! What was said up to an answer, word for word: a file beside the saves of its agent, so that one
//! can go on from the answer.
//!
//! ```text
//! magic, version, id, number, names, what was said, seal of everything before
//! ```
//!
//! KV is found by its tokens and may be computed again; words are all that is left of an answer
//! whose agent has gone on since. They are there as long as their agent has a save.

use std::io;

use super::budget::Need;
use super::bytes::{Reader, Writer};
use super::files::{parent, write_error};
use super::index::TranscriptFile;
use super::layout::{self, FolderName};
use super::load;
use super::manifest::{self, NAME_BYTES_MAX, SEAL_BYTES, unsealed};
use super::{Flaw, Store, StoreError};
use crate::types::{AGENT_ID_BYTES_MAX, AgentId, Namespace, TranscriptId};

/// What a namespace may have beside its other limits; the oldest go. As many as heads that an engine
/// has in mind, and less than the KV of one long conversation.
const TRANSCRIPTS_MAX: usize = 16_384;
const TRANSCRIPT_BYTES_MAX: u64 = 256 << 20;
/// Nor more than one part in so many of all that it may have on disk: the rest is for KV.
const TRANSCRIPTS_PART: u64 = 8;
/// Of one file.
const FILE_BYTES_MAX: u64 = 16 << 20;

const MAGIC: &[u8; 8] = b"semantic";
/// Manifests have the same magic and lower versions.
const VERSION: u32 = 0x7401;

/// What was said up to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    pub namespace: Namespace,
    pub agent: AgentId,
    pub id: TranscriptId,
    /// As whoever reads it again has written it.
    pub said: Box<[u8]>,
}

impl Store {
    /// Keeps a transcript of an agent that has a save. Returns when it is safe from a power cut.
    pub fn keep_transcript(&self, transcript: &Transcript) -> Result<(), StoreError> {
        self.may_write()?;
        let Transcript { namespace: name, agent: agent_name, id, said } = transcript;
        let namespace = self.secrets.namespace_folder(name);
        let agent = self.secrets.agent_folder(name, agent_name);
        if !self.is_known(namespace, agent) {
            return Err(StoreError::NotFound("the agent of a transcript".to_owned()));
        }
        let number = {
            let mut index = self.index();
            index.last_transcript += 1;
            index.last_transcript
        };
        let head = head(transcript, number);
        let mut seal = self.secrets.transcript_seal();
        seal.update(&head).update(said);
        let seal = *seal.finalize().as_bytes();
        let bytes = (head.len() + said.len() + SEAL_BYTES) as u64;
        let limit = FILE_BYTES_MAX.min(self.transcript_bytes_max());
        if bytes > limit || !manifest::can_name(name) {
            let what = format!("a transcript of {bytes} bytes; the limit is {limit}");
            return Err(StoreError::Quota { namespace: name.to_string(), what });
        }
        self.make_room_for_transcript(namespace, bytes)?;
        let need =
            Need { bytes, namespace, agents: vec![agent], family: Vec::new(), is_transcript: true };
        self.make_room(&need, name)?;
        let folder = layout::transcripts_of(namespace, agent);
        self.files.make_folder(&folder)?;
        let mut file = self.files.write(&[&head, said, &seal])?;
        let path = layout::transcript_file(namespace, agent, number, *id);
        file.rename(&path).map_err(|source| write_error("name", &path, bytes, source))?;
        self.files.changed(&folder, None);
        if let Err(error) = self.sync_path(&folder) {
            // Nobody hears of it. If it comes back after a power cut, it is what it says.
            let _ = self.files.remove(&path);
            return Err(error);
        }
        let file = TranscriptFile { agent, number, bytes };
        self.index().shelf(namespace).put_transcript(*id, file);
        Ok(())
    }

    /// How long a transcript's file is; none if there is no such transcript in the namespace. Reads
    /// nothing.
    pub fn transcript_bytes(&self, namespace: &Namespace, id: TranscriptId) -> Option<u64> {
        self.transcript_file(self.secrets.namespace_folder(namespace), id).map(|file| file.bytes)
    }

    fn transcript_file(&self, namespace: FolderName, id: TranscriptId) -> Option<TranscriptFile> {
        self.index().shelves.get(&namespace)?.transcripts.get(&id).copied()
    }

    /// What was said; none if there is no such transcript in the namespace, or not a good one.
    pub fn transcript(
        &self,
        namespace: &Namespace,
        id: TranscriptId,
    ) -> Result<Option<Box<[u8]>>, StoreError> {
        let folder = self.secrets.namespace_folder(namespace);
        let Some(file) = self.transcript_file(folder, id) else { return Ok(None) };
        let path = layout::transcript_file(folder, file.agent, file.number, id);
        match self.read_transcript(namespace, file, id, &path) {
            Ok(said) => Ok(Some(said)),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(StoreError::Damaged { flaw, .. }) => {
                tracing::warn!(path, %flaw, "a transcript is damaged");
                let is_away = !self.is_read_only() && self.move_to_quarantine(&path, flaw);
                if is_away {
                    self.index().shelf(folder).take_transcript(id);
                }
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// Removes one for good; says whether it was there.
    pub fn remove_transcript(
        &self,
        namespace: &Namespace,
        id: TranscriptId,
    ) -> Result<bool, StoreError> {
        self.may_write()?;
        let namespace = self.secrets.namespace_folder(namespace);
        let Some(file) = self.transcript_file(namespace, id) else { return Ok(false) };
        self.remove_files(namespace, &[(id, file)])?;
        Ok(true)
    }

    /// Removes all of an agent for good.
    pub(super) fn remove_transcripts(
        &self,
        namespace: FolderName,
        agent: FolderName,
    ) -> Result<(), StoreError> {
        let all = {
            let index = self.index();
            let shelf = index.shelves.get(&namespace);
            shelf.map_or(Vec::new(), |shelf| shelf.transcripts_of(agent))
        };
        self.remove_files(namespace, &all)
    }

    /// Returns when no power cut brings them back.
    pub(super) fn remove_files(
        &self,
        namespace: FolderName,
        files: &[(TranscriptId, TranscriptFile)],
    ) -> Result<(), StoreError> {
        let mut folders = Vec::new();
        for (id, file) in files {
            let path = layout::transcript_file(namespace, file.agent, file.number, *id);
            self.files.remove(&path)?;
            let folder = parent(&path).to_owned();
            self.files.changed(&folder, None);
            if !folders.contains(&(file.agent, folder.clone())) {
                folders.push((file.agent, folder));
            }
        }
        for (agent, folder) in folders {
            self.sync_path(&folder)?;
            let mut index = self.index();
            let shelf = index.shelf(namespace);
            for (id, _) in files.iter().filter(|(_, file)| file.agent == agent) {
                shelf.take_transcript(*id);
            }
            let is_empty = shelf.transcripts_of(agent).is_empty();
            drop(index);
            // One that does not go has something else in it.
            if is_empty && self.files.disk.remove_folder(&folder).is_ok() {
                self.files.forget_folder(&folder);
            }
        }
        Ok(())
    }

    /// Of all transcripts of a namespace.
    fn transcript_bytes_max(&self) -> u64 {
        let quota = self.settings.namespace_bytes.unwrap_or(u64::MAX);
        let most = quota.min(self.settings.budget_bytes);
        TRANSCRIPT_BYTES_MAX.min(most / TRANSCRIPTS_PART)
    }

    /// Returns when the namespace may have one more of so many bytes.
    fn make_room_for_transcript(
        &self,
        namespace: FolderName,
        bytes: u64,
    ) -> Result<(), StoreError> {
        let bytes_max = self.transcript_bytes_max();
        let all = {
            let index = self.index();
            let Some(shelf) = index.shelves.get(&namespace) else { return Ok(()) };
            let there = shelf.transcript_bytes();
            if shelf.transcripts.len() < TRANSCRIPTS_MAX && there + bytes <= bytes_max {
                return Ok(());
            }
            shelf.transcripts_by_age()
        };
        let mut left: u64 = all.iter().map(|(_, file)| file.bytes).sum();
        let mut count = all.len();
        let is_over = |(_, file): &&(TranscriptId, TranscriptFile)| {
            let is_over = count >= TRANSCRIPTS_MAX || left + bytes > bytes_max;
            count -= 1;
            left -= file.bytes;
            is_over
        };
        let oldest: Vec<_> = all.iter().take_while(is_over).copied().collect();
        self.remove_files(namespace, &oldest)
    }

    fn read_transcript(
        &self,
        namespace: &Namespace,
        file: TranscriptFile,
        id: TranscriptId,
        path: &str,
    ) -> Result<Box<[u8]>, StoreError> {
        let damaged = |flaw| StoreError::Damaged { path: path.to_owned(), flaw };
        let read = |error: io::Error| load::head_error(error).into_store_error(path);
        let stored = self.files.disk.open(path).map_err(read)?;
        if stored.bytes() != file.bytes || file.bytes > FILE_BYTES_MAX {
            return Err(damaged(Flaw::Length));
        }
        let mut bytes = vec![0; file.bytes as usize];
        if stored.read_at(0, &mut bytes).map_err(read)? != bytes.len() {
            return Err(damaged(Flaw::Length));
        }
        let sealed = unsealed(&bytes, &self.secrets.transcript_seal()).map_err(damaged)?;
        let (whose, start) = said_from(sealed, namespace, file.number, id).map_err(damaged)?;
        if self.secrets.agent_folder(namespace, &whose) != file.agent {
            return Err(damaged(Flaw::Place));
        }
        let end = sealed.len();
        bytes.truncate(end);
        Ok(bytes.split_off(start).into())
    }
}

/// What comes before what was said.
fn head(transcript: &Transcript, number: u64) -> Vec<u8> {
    let Transcript { namespace, agent, id, .. } = transcript;
    let mut writer = Writer::with_capacity(128);
    writer.bytes(MAGIC);
    writer.u32(VERSION);
    writer.bytes(&id.0.to_le_bytes());
    writer.u64(number);
    writer.text(manifest::cut_name(namespace.as_str()));
    writer.text(agent.as_str());
    writer.into_bytes()
}

/// By whom and from where on, if all before it is as it should be.
fn said_from(
    sealed: &[u8],
    namespace: &Namespace,
    number: u64,
    id: TranscriptId,
) -> Result<(AgentId, usize), Flaw> {
    let mut reader = Reader::new(sealed);
    if reader.array::<8>()? != *MAGIC || reader.u32()? != VERSION {
        return Err(Flaw::Header);
    }
    let is_its_own = reader.array()? == id.0.to_le_bytes()
        && reader.u64()? == number
        && reader.text(NAME_BYTES_MAX)? == namespace.as_str();
    if !is_its_own {
        return Err(Flaw::Place);
    }
    let agent = AgentId::new(reader.text(AGENT_ID_BYTES_MAX)?).map_err(|_| Flaw::Header)?;
    Ok((agent, sealed.len() - reader.left()))
}
