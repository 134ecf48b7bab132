//! Takes a conversation from disk. Nothing gets out that differs from what was saved in one bit.

use std::io;

use blake3::Hasher;

use super::disk::StoredFile;
use super::files::read_error;
use super::index::{FileNumber, Save};
use super::layout::{self, FolderName};
use super::load::{self, HeadError};
use super::manifest::{Head, LENGTHS_BYTES, Lengths};
use super::{BlockRef, Flaw, KvBytes, KvModel, Store, StoreError, StoredLine};
use crate::types::{AgentId, Fingerprint, Generation, Line, Namespace, TokenId};

/// Read at once and hashed while it is in the cache of the core.
const CHUNK_BYTES: usize = 256 << 10;

impl Store {
    /// The live saves that a model can go on from, least recently used first.
    pub fn lines(&self, fingerprint: &Fingerprint) -> Vec<StoredLine> {
        let mut lines: Vec<(u64, StoredLine)> = Vec::new();
        for (namespace, agent) in self.all_agents() {
            lines.extend(self.lines_below(namespace, agent, fingerprint));
        }
        oldest_first(lines)
    }

    /// The same of one agent. No other's files are opened.
    pub fn lines_of(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        fingerprint: &Fingerprint,
    ) -> Vec<StoredLine> {
        let agent = self.secrets.agent_folder(namespace, agent);
        let namespace = self.secrets.namespace_folder(namespace);
        oldest_first(self.lines_below(namespace, agent, fingerprint))
    }

    /// With their serials. A damaged save goes to the quarantine, and the one before it counts; of
    /// one that cannot be read now nothing is known, and its line is left out.
    fn lines_below(
        &self,
        namespace: FolderName,
        agent: FolderName,
        fingerprint: &Fingerprint,
    ) -> Vec<(u64, StoredLine)> {
        let mut lines: Vec<(u64, StoredLine)> = Vec::new();
        let mut bad: Vec<Generation> = Vec::new();
        let mut done: Vec<Line> = Vec::new();
        loop {
            let is_next = |save: &&Save| {
                !done.contains(&save.head.line) && save.head.fingerprint == *fingerprint
            };
            let next = {
                let index = self.index();
                let state = index.agent(namespace, agent);
                let live = state.map_or(Vec::new(), |state| state.live_without(&bad));
                live.into_iter().find(is_next).map(|save| save.head.clone())
            };
            let Some(head) = next else { return lines };
            match self.read_manifest(namespace, agent, head.generation) {
                Ok((_, tokens)) => {
                    done.push(head.line);
                    lines.push((head.serial, self.stored_line(namespace, &head, tokens)));
                }
                Err(StoreError::Damaged { flaw, .. }) => {
                    bad.push(head.generation);
                    self.quarantine_save(namespace, agent, head.generation, flaw);
                }
                Err(StoreError::NotFound(_)) => bad.push(head.generation),
                Err(error) => {
                    tracing::warn!(agent = head.agent.as_str(), %error, "a save cannot be read");
                    done.push(head.line);
                }
            }
        }
    }

    pub(super) fn stored_line(
        &self,
        namespace: FolderName,
        head: &Head,
        tokens: Vec<TokenId>,
    ) -> StoredLine {
        let there = self.index().shelf(namespace).leading(&head.blocks);
        StoredLine {
            namespace: head.namespace.clone(),
            agent: head.agent.clone(),
            line: head.line,
            generation: head.generation,
            tokens: tokens.into(),
            replies: head.replies.clone(),
            blocks: head.blocks[..there].to_vec(),
        }
    }

    /// The token ids of a save.
    pub fn tokens(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        generation: Generation,
    ) -> Result<Vec<TokenId>, StoreError> {
        let namespace_folder = self.secrets.namespace_folder(namespace);
        let agent_folder = self.secrets.agent_folder(namespace, agent);
        let read = self.read_manifest(namespace_folder, agent_folder, generation);
        match read {
            Ok((_, tokens)) => Ok(tokens),
            Err(StoreError::NotFound(_)) => {
                let Generation(number) = generation;
                Err(StoreError::NotFound(format!(
                    "generation {number} of agent {:?}",
                    agent.as_str()
                )))
            }
            Err(other) => Err(other),
        }
    }

    /// A whole manifest, every byte of it verified.
    pub(super) fn read_manifest(
        &self,
        namespace: FolderName,
        agent: FolderName,
        generation: Generation,
    ) -> Result<(Head, Vec<TokenId>), StoreError> {
        let path = layout::manifest_file(namespace, agent, generation);
        let read = || {
            let file = self.files.disk.open(&path).map_err(load::head_error)?;
            let bytes = read_manifest_file(&*file)?;
            let (head, tokens) =
                Head::decode_all(&bytes, &self.secrets.seal()).map_err(HeadError::Flaw)?;
            load::at_its_place(&self.secrets, head, namespace, agent, generation)
                .map(|head| (head, tokens))
        };
        read().map_err(|error| error.into_store_error(&path))
    }

    /// Reads a block into the buffer and verifies every byte.
    pub fn read_block(
        &self,
        namespace: &Namespace,
        model: &KvModel,
        block: &BlockRef,
        buffer: Vec<u8>,
    ) -> Result<KvBytes, StoreError> {
        let header = self.headers.of(model, block.tokens);
        let folder = self.secrets.namespace_folder(namespace);
        let number = self.index().shelf(folder).file_number(&block.name);
        let read = || {
            // Before a byte is allocated: no file decides how much memory it gets.
            if block.file_bytes != header.file_bytes() as u64 {
                return Err(ReadError::OtherModel);
            }
            let path = layout::block_file(folder, &block.name);
            let file = self.files.disk.open(&path).map_err(ReadError::Io)?;
            let mut buffer = buffer;
            read_and_verify(&*file, block, &mut buffer, self.secrets.digest(folder))?;
            match buffer.starts_with(&header.bytes) {
                true => Ok(KvBytes { buffer, kv: header.bytes.len()..header.file_bytes() }),
                false => Err(ReadError::OtherModel),
            }
        };
        let read = read().map_err(|error| block_error(folder, block, error));
        self.note_reading(folder, block, number, read.as_ref().err());
        read
    }

    /// Reads a block's whole file into the buffer and verifies every byte, whatever model it is of.
    pub(super) fn read_file(
        &self,
        namespace: FolderName,
        block: &BlockRef,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let number = self.index().shelf(namespace).file_number(&block.name);
        let mut read = || {
            let path = layout::block_file(namespace, &block.name);
            let file = self.files.disk.open(&path).map_err(ReadError::Io)?;
            read_and_verify(&*file, block, buffer, self.secrets.digest(namespace))
        };
        let read = read().map_err(|error| block_error(namespace, block, error));
        self.note_reading(namespace, block, number, read.as_ref().err());
        read
    }

    /// Reads a block and keeps nothing.
    pub(super) fn verify_block(
        &self,
        namespace: FolderName,
        block: &BlockRef,
    ) -> Result<(), StoreError> {
        let number = self.index().shelf(namespace).file_number(&block.name);
        let read = self.check_block(namespace, block);
        self.note_reading(namespace, block, number, read.as_ref().err());
        read
    }

    /// The same, and the index learns nothing.
    pub(super) fn check_block(
        &self,
        namespace: FolderName,
        block: &BlockRef,
    ) -> Result<(), StoreError> {
        let read = || {
            let path = layout::block_file(namespace, &block.name);
            let file = self.files.disk.open(&path).map_err(ReadError::Io)?;
            verify(&*file, block, self.secrets.digest(namespace))
        };
        read().map_err(|error| block_error(namespace, block, error))
    }

    /// The index learns what reading a block has shown of the file with this number. A block may
    /// have been taken away and written again meanwhile; of that one the reading tells nothing.
    fn note_reading(
        &self,
        namespace: FolderName,
        block: &BlockRef,
        number: Option<FileNumber>,
        error: Option<&StoreError>,
    ) {
        let bad = |flaw| self.give_up_block(namespace, &block.name, number, flaw);
        match error {
            None => self.note_good(namespace, block, number),
            Some(StoreError::Missing(_)) => bad(Flaw::Missing),
            Some(StoreError::Damaged { flaw, .. }) => bad(*flaw),
            Some(_) => (),
        }
    }

    fn note_good(&self, namespace: FolderName, block: &BlockRef, number: Option<FileNumber>) {
        let mut index = self.index();
        let last_serial = index.last_serial;
        let shelf = index.shelf(namespace);
        let is_same = shelf.file_number(&block.name) == number;
        let state = shelf.blocks.get_mut(&block.name).filter(|_| is_same);
        if let Some(file) = state.and_then(|state| state.file.as_mut()) {
            file.is_verified = true;
            file.read_at = last_serial;
        }
    }

    /// Folders of namespaces and agents.
    pub(super) fn all_agents(&self) -> Vec<(FolderName, FolderName)> {
        let mut all = Vec::new();
        for (namespace, shelf) in &self.index().shelves {
            all.extend(shelf.agents.keys().map(|agent| (*namespace, *agent)));
        }
        all
    }
}

fn oldest_first(mut lines: Vec<(u64, StoredLine)>) -> Vec<StoredLine> {
    lines.sort_by_key(|(serial, line)| (*serial, line.line));
    lines.into_iter().map(|(_, line)| line).collect()
}

enum ReadError {
    Io(io::Error),
    Flaw(Flaw),
    OtherModel,
}

fn block_error(namespace: FolderName, block: &BlockRef, error: ReadError) -> StoreError {
    let path = layout::block_file(namespace, &block.name);
    match error {
        ReadError::Io(error) => match error.kind() {
            io::ErrorKind::NotFound => StoreError::Missing(vec![block.name]),
            io::ErrorKind::InvalidData => StoreError::Damaged { path, flaw: Flaw::Kind },
            _ => read_error("read", &path, error),
        },
        ReadError::Flaw(flaw) => StoreError::Damaged { path, flaw },
        ReadError::OtherModel => StoreError::OtherModel(block.name),
    }
}

/// The whole file into the buffer.
fn read_and_verify(
    file: &dyn StoredFile,
    block: &BlockRef,
    buffer: &mut Vec<u8>,
    mut hasher: Hasher,
) -> Result<(), ReadError> {
    if file.bytes() != block.file_bytes {
        return Err(ReadError::Flaw(Flaw::Length));
    }
    // What a buffer had before is read over, not cleared.
    buffer.resize(block.file_bytes as usize, 0);
    let mut offset = 0;
    for chunk in buffer.chunks_mut(CHUNK_BYTES) {
        read_chunk(file, offset, chunk)?;
        hasher.update(chunk);
        offset += chunk.len() as u64;
    }
    compare(block, &hasher)
}

/// The same without keeping the file.
fn verify(file: &dyn StoredFile, block: &BlockRef, mut hasher: Hasher) -> Result<(), ReadError> {
    if file.bytes() != block.file_bytes {
        return Err(ReadError::Flaw(Flaw::Length));
    }
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    while offset < block.file_bytes {
        let left = usize::try_from(block.file_bytes - offset).unwrap_or(CHUNK_BYTES);
        let chunk = &mut buffer[..left.min(CHUNK_BYTES)];
        read_chunk(file, offset, chunk)?;
        hasher.update(chunk);
        offset += chunk.len() as u64;
    }
    compare(block, &hasher)
}

/// A file that got shorter since it was opened is damaged.
fn read_chunk(file: &dyn StoredFile, offset: u64, chunk: &mut [u8]) -> Result<(), ReadError> {
    match file.read_at(offset, chunk).map_err(ReadError::Io)? {
        read if read == chunk.len() => Ok(()),
        _ => Err(ReadError::Flaw(Flaw::Length)),
    }
}

fn compare(block: &BlockRef, hasher: &Hasher) -> Result<(), ReadError> {
    match hasher.finalize().as_bytes() == &block.digest {
        true => Ok(()),
        false => Err(ReadError::Flaw(Flaw::Digest)),
    }
}

fn read_manifest_file(file: &dyn StoredFile) -> Result<Vec<u8>, HeadError> {
    let bytes = file.bytes();
    let mut beginning = [0; LENGTHS_BYTES];
    let read = file.read_at(0, &mut beginning).map_err(load::head_error)?;
    let lengths = Lengths::of(&beginning[..read], bytes).map_err(HeadError::Flaw)?;
    let mut whole = vec![0; lengths.file_bytes];
    match file.read_at(0, &mut whole).map_err(load::head_error)? {
        read if read == whole.len() => Ok(whole),
        _ => Err(HeadError::Flaw(Flaw::Length)),
    }
}
