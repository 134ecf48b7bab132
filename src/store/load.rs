//! Finds out what a store's folder contains: names and lengths of blocks, heads of manifests.
//!
//! Contents of blocks are verified when they are read. 10,000 agents of two blocks are 40,000
//! files, of which half are opened.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::disk::{Entry, EntryKind};
use super::files::{self, Files, read_error};
use super::index::{BlockFile, Index, Quarantined, RetentionFile, Save, TranscriptFile};
use super::keys::Secrets;
use super::layout::{self, FolderName};
use super::manifest::{Head, LENGTHS_BYTES, Lengths};
use super::retention::{FILE_BYTES_MAX, Retention, Sealed};
use super::{Damage, Flaw, StoreError, quarantine};
use crate::types::Generation;

pub struct Loaded {
    pub index: Index,
    /// Bad manifests.
    pub damage: Vec<Damage>,
    /// Files of how long an agent is kept that do not count any more.
    pub superseded: Vec<String>,
}

/// Read at once of each manifest: the whole head of a conversation of some 50 blocks.
const FIRST_BYTES: usize = 4096;

/// What is wrong with a manifest, or that one cannot know.
pub enum HeadError {
    Flaw(Flaw),
    /// It went since it was listed.
    Gone,
    Unread(io::Error),
}

pub fn load(files: &Files, secrets: &Secrets) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded { index: Index::default(), damage: Vec::new(), superseded: Vec::new() };
    for entry in files.list(layout::QUARANTINE)? {
        load_quarantined(&mut loaded.index, entry);
    }
    for entry in files.list(layout::NAMESPACES)? {
        match folder_name(&entry) {
            Some(namespace) => load_namespace(&mut loaded, files, secrets, namespace)?,
            None => stays(layout::NAMESPACES, &entry),
        }
    }
    Ok(loaded)
}

/// Takes bad manifests out of the way. Good ones of the same line count again.
pub fn quarantine_bad(files: &Files, loaded: &mut Loaded) {
    for damage in &loaded.damage {
        let number = loaded.index.quarantine.keys().last().map_or(1, |last| last + 1);
        match quarantine::take_away(files, &damage.path, damage.flaw, number) {
            Ok((number, quarantined)) => drop(loaded.index.quarantine.insert(number, quarantined)),
            Err(error) => tracing::warn!(path = damage.path, %error, "a damaged file stays"),
        }
    }
}

fn load_quarantined(index: &mut Index, entry: Entry) {
    let Some(name) = layout::parse_quarantine_file(&entry.name) else {
        return stays(layout::QUARANTINE, &entry);
    };
    if let Some((namespace, agent, generation)) = name.manifest {
        index.shelf(namespace).agents.entry(agent).or_default().see_name(generation);
    }
    let file = format!("{}/{}", layout::QUARANTINE, entry.name);
    index.quarantine.insert(name.number, Quarantined { file, bytes: entry.bytes });
}

fn load_namespace(
    loaded: &mut Loaded,
    files: &Files,
    secrets: &Secrets,
    namespace: FolderName,
) -> Result<(), StoreError> {
    let blocks = layout::blocks_folder(namespace);
    for entry in files.list(&blocks)? {
        match layout::parse_block_folder(&entry.name).filter(|_| entry.kind == EntryKind::Folder) {
            Some(first) => load_blocks(&mut loaded.index, files, namespace, first)?,
            None => stays(&blocks, &entry),
        }
    }
    let agents = layout::agents_folder(namespace);
    for entry in files.list(&agents)? {
        match folder_name(&entry) {
            Some(agent) => load_agent(loaded, files, secrets, namespace, agent)?,
            None => stays(&agents, &entry),
        }
    }
    let transcripts = layout::transcripts_folder(namespace);
    for entry in files.list(&transcripts)? {
        match folder_name(&entry) {
            Some(agent) => load_transcripts(&mut loaded.index, files, namespace, agent)?,
            None => stays(&transcripts, &entry),
        }
    }
    Ok(())
}

/// By their names: what is in them is read when it is asked for.
fn load_transcripts(
    index: &mut Index,
    files: &Files,
    namespace: FolderName,
    agent: FolderName,
) -> Result<(), StoreError> {
    let folder = layout::transcripts_of(namespace, agent);
    for entry in files.list(&folder)? {
        match layout::parse_transcript_file(&entry.name) {
            Some((number, id)) if entry.kind == EntryKind::File => {
                let file = TranscriptFile { agent, number, bytes: entry.bytes };
                index.shelf(namespace).put_transcript(id, file);
                index.last_transcript = index.last_transcript.max(number);
            }
            _ => stays(&folder, &entry),
        }
    }
    Ok(())
}

fn load_blocks(
    index: &mut Index,
    files: &Files,
    namespace: FolderName,
    first: u8,
) -> Result<(), StoreError> {
    let folder = layout::block_folder(namespace, first);
    let shelf = index.shelf(namespace);
    for entry in files.list(&folder)? {
        match layout::parse_block_file(first, &entry.name) {
            Some(name) if entry.kind == EntryKind::File => {
                shelf.put_file(name, BlockFile { bytes: entry.bytes, ..BlockFile::default() });
            }
            _ => stays(&folder, &entry),
        }
    }
    Ok(())
}

fn load_agent(
    loaded: &mut Loaded,
    files: &Files,
    secrets: &Secrets,
    namespace: FolderName,
    agent: FolderName,
) -> Result<(), StoreError> {
    let folder = layout::agent_folder(namespace, agent);
    let mut retentions: Vec<(u64, Entry)> = Vec::new();
    let mut has_unread = false;
    for entry in files.list(&folder)? {
        if let Some(number) = layout::parse_retention_file(&entry.name) {
            retentions.push((number, entry));
            continue;
        }
        let Some(generation) = layout::parse_manifest_file(&entry.name) else {
            stays(&folder, &entry);
            continue;
        };
        // Whatever it is, it has the name.
        loaded.index.shelf(namespace).agents.entry(agent).or_default().see_name(generation);
        if entry.kind != EntryKind::File {
            stays(&folder, &entry);
            continue;
        }
        let path = format!("{folder}/{}", entry.name);
        let head = read_head(files, secrets, &path)
            .and_then(|head| at_its_place(secrets, head, namespace, agent, generation));
        let shelf = loaded.index.shelf(namespace);
        match head {
            Ok(head) => {
                let serial = head.serial;
                let line = head.line.0;
                shelf.put_save(agent, Save { head: Arc::new(head), bytes: entry.bytes });
                loaded.index.last_serial = loaded.index.last_serial.max(serial);
                loaded.index.last_line = loaded.index.last_line.max(line);
            }
            Err(HeadError::Flaw(flaw)) => {
                tracing::warn!(path, %flaw, "a save is damaged; the one before it counts");
                loaded.damage.push(Damage { path, flaw, agents: Vec::new() });
            }
            Err(HeadError::Unread(error)) => {
                shelf.has_unread = true;
                has_unread = true;
                tracing::warn!(path, %error, "a save cannot be read; nothing that it may need goes");
            }
            Err(HeadError::Gone) => (),
        }
    }
    retentions.sort_by_key(|(number, _)| *number);
    let shelf = loaded.index.shelf(namespace);
    let has_saves = shelf.agents.get(&agent).is_some_and(|state| !state.saves.is_empty());
    let highest = retentions.last().map(|(number, _)| *number);
    let newest = retentions.pop_if(|_| has_saves || has_unread);
    let path = |entry: &Entry| format!("{folder}/{}", entry.name);
    if let Some((number, entry)) = newest {
        let found = read_retention(files, secrets, &path(&entry), namespace, agent, number);
        let (retention, used_at_ms) = found.unwrap_or((Retention::UNKNOWN, i64::MIN));
        let (bytes, is_known) = (entry.bytes, found.is_some());
        let file = RetentionFile { number, retention, used_at_ms, bytes, is_known };
        shelf.put_retention(agent, file);
    }
    // Those that stay must not count before a new one.
    if let Some(highest) = highest {
        shelf.agents.entry(agent).or_default().last_retention = highest;
    }
    // What a crash has left.
    loaded.superseded.extend(retentions.iter().map(|(_, entry)| path(entry)));
    Ok(())
}

/// What a file says, and when the last turn was that left no save. What cannot be trusted says nothing,
/// and keeps its agent.
fn read_retention(
    files: &Files,
    secrets: &Secrets,
    path: &str,
    namespace: FolderName,
    agent: FolderName,
    number: u64,
) -> Option<(Retention, i64)> {
    let read = || {
        let file = files.disk.open(path)?;
        let bytes = usize::try_from(file.bytes()).unwrap_or(usize::MAX).min(FILE_BYTES_MAX + 1);
        let mut buffer = vec![0; bytes];
        let read = file.read_at(0, &mut buffer)?;
        buffer.truncate(read);
        Ok::<_, io::Error>(buffer)
    };
    let is_at_its_place = |sealed: &Sealed| {
        sealed.number == number
            && secrets.namespace_folder(&sealed.namespace) == namespace
            && secrets.agent_folder(&sealed.namespace, &sealed.agent) == agent
    };
    let reason = match read().map(|file| Sealed::decode(&file, &secrets.retention_seal())) {
        Ok(Ok(sealed)) if is_at_its_place(&sealed) => {
            return Some((sealed.retention, sealed.used_at_ms));
        }
        Ok(Ok(_)) => Flaw::Place.to_string(),
        Ok(Err(flaw)) => flaw.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(path, reason, "how long an agent is kept cannot be told; it is kept");
    None
}

/// Removes what does not count any more, for good: an agent that comes to have the name would be kept as
/// it says.
pub fn clear_superseded(files: &Files, loaded: &mut Loaded) {
    for path in std::mem::take(&mut loaded.superseded) {
        let folder = files::parent(&path);
        let removed = files.remove(&path).and_then(|()| {
            files.changed(folder, None);
            files.sync_path(folder, |_| ())
        });
        if let Err(error) = removed {
            tracing::warn!(path, %error, "an older file of how long an agent is kept stays");
        }
    }
}

/// Removes transcripts of agents that have no save, as a crash may leave them: no list has such an
/// agent, so nobody would delete what it has said. Not where a save could not be read.
pub fn clear_orphans(files: &Files, index: &mut Index) {
    for (namespace, shelf) in index.shelves.iter_mut().filter(|(_, shelf)| !shelf.has_unread) {
        let is_orphan = |file: &TranscriptFile| {
            shelf.agents.get(&file.agent).is_none_or(|state| state.saves.is_empty())
        };
        let orphans = shelf.transcripts.iter().filter(|(_, file)| is_orphan(file));
        let orphans: Vec<_> = orphans.map(|(id, file)| (*id, *file)).collect();
        let mut folders = BTreeSet::new();
        for (id, file) in orphans {
            let path = layout::transcript_file(*namespace, file.agent, file.number, id);
            match files.remove(&path) {
                Ok(()) => drop(shelf.take_transcript(id)),
                Err(error) => tracing::warn!(path, %error, "what an agent said that is gone stays"),
            }
            folders.insert(files::parent(&path).to_owned());
        }
        for folder in folders {
            files.changed(&folder, None);
            // What a power cut brings back goes at the next start. A folder that does not go has
            // something else in it.
            if let Err(error) = files.sync_path(&folder, |_| ()) {
                tracing::warn!(folder, %error, "what an agent said that is gone may come back");
            } else if files.disk.remove_folder(&folder).is_ok() {
                files.forget_folder(&folder);
            }
        }
    }
}

/// Reads no more than the head, whose seal must hold.
fn read_head(files: &Files, secrets: &Secrets, path: &str) -> Result<Head, HeadError> {
    let file = files.disk.open(path).map_err(head_error)?;
    let mut bytes = vec![0; FIRST_BYTES.min(usize::try_from(file.bytes()).unwrap_or(FIRST_BYTES))];
    let read = file.read_at(0, &mut bytes).map_err(head_error)?;
    bytes.truncate(read);
    let beginning = &bytes[..read.min(LENGTHS_BYTES)];
    let lengths = Lengths::of(beginning, file.bytes()).map_err(HeadError::Flaw)?;
    if bytes.len() < lengths.head_bytes {
        bytes.resize(lengths.head_bytes, 0);
        let rest = &mut bytes[read..];
        if file.read_at(read as u64, rest).map_err(head_error)? != rest.len() {
            return Err(HeadError::Flaw(Flaw::Length));
        }
    }
    Head::decode(&bytes[..lengths.head_bytes], &secrets.seal()).map_err(HeadError::Flaw)
}

/// A manifest under another agent's name, or under another generation's, is not what was saved
/// there.
pub fn at_its_place(
    secrets: &Secrets,
    head: Head,
    namespace: FolderName,
    agent: FolderName,
    generation: Generation,
) -> Result<Head, HeadError> {
    let is_at_its_place = secrets.namespace_folder(&head.namespace) == namespace
        && secrets.agent_folder(&head.namespace, &head.agent) == agent
        && head.generation == generation;
    match is_at_its_place {
        true => Ok(head),
        false => Err(HeadError::Flaw(Flaw::Place)),
    }
}

pub fn head_error(error: io::Error) -> HeadError {
    match error.kind() {
        io::ErrorKind::NotFound => HeadError::Gone,
        io::ErrorKind::InvalidData => HeadError::Flaw(Flaw::Kind),
        _ => HeadError::Unread(error),
    }
}

impl HeadError {
    pub fn into_store_error(self, path: &str) -> StoreError {
        match self {
            HeadError::Flaw(flaw) => StoreError::Damaged { path: path.to_owned(), flaw },
            HeadError::Gone => StoreError::NotFound(path.to_owned()),
            HeadError::Unread(source) => read_error("read", path, source),
        }
    }
}

fn folder_name(entry: &Entry) -> Option<FolderName> {
    FolderName::parse(&entry.name).filter(|_| entry.kind == EntryKind::Folder)
}

/// What the store does not understand it leaves alone.
fn stays(folder: &str, entry: &Entry) {
    tracing::warn!(folder, name = entry.name, "nothing of the cache has this name; it stays");
}
