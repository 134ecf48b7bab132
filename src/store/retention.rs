//! How long an agent is kept: pinned, so that it never goes to make room, and until when without a
//! turn. A small sealed file beside its saves, replaced as a whole.
//!
//! ```text
//! magic, version, number, flags, seconds, last turn, names
//! seal
//! ```

use std::time::{Duration, SystemTime};

use blake3::Hasher;

use super::budget::{self, Need};
use super::bytes::{Reader, Writer};
use super::files::write_error;
use super::index::{Agent, RetentionFile};
use super::layout::{self, FolderName};
use super::manifest::NAME_BYTES_MAX;
use super::save::unix_ms;
use super::{Flaw, Store, StoreError};
use crate::types::{AGENT_ID_BYTES_MAX, AgentId, Namespace};

/// What an agent is kept by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// It does not go to make room for others.
    pub is_pinned: bool,
    /// It goes so long after its last turn; in whole seconds.
    pub ttl: Option<Duration>,
}

/// What is to be different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionChange {
    pub is_pinned: Option<bool>,
    /// `Some(None)`: for ever.
    pub ttl: Option<Option<Duration>>,
}

/// The longest time to live, ten years.
pub const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Of all that there may be on disk, and of what a namespace may have, one part in so many may be
/// pinned: the rest is for those who come and go.
pub const PINNED_PART: u64 = 2;

const MAGIC: &[u8; 8] = b"semantic";
const VERSION: u32 = 1;
const PINNED: u32 = 1;
const SEAL_BYTES: usize = 32;
/// Of any such file.
pub const FILE_BYTES_MAX: usize =
    8 + 4 + 8 + 4 + 8 + 8 + 2 + NAME_BYTES_MAX + 2 + AGENT_ID_BYTES_MAX + SEAL_BYTES;

/// Of whom and which, as the file says itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed {
    pub namespace: Namespace,
    pub agent: AgentId,
    pub number: u64,
    pub retention: Retention,
    /// A turn that left no save; since 1970.
    pub used_at_ms: i64,
}

/// A turn that leaves no save is noted if so much of an agent's time is over: one part of it.
const TOUCHED_PART: u32 = 64;

impl Retention {
    /// Of a file that says nothing that can be trusted: nothing is lost for it.
    pub const UNKNOWN: Retention = Retention { is_pinned: true, ttl: None };

    fn with(self, change: RetentionChange) -> Retention {
        Retention {
            is_pinned: change.is_pinned.unwrap_or(self.is_pinned),
            ttl: change.ttl.unwrap_or(self.ttl),
        }
    }
}

impl Sealed {
    pub fn encode(&self, seal: &Hasher) -> Vec<u8> {
        let mut writer = Writer::with_capacity(FILE_BYTES_MAX);
        writer.bytes(MAGIC);
        writer.u32(VERSION);
        writer.u64(self.number);
        writer.u32(if self.retention.is_pinned { PINNED } else { 0 });
        writer.u64(self.retention.ttl.map_or(0, |ttl| ttl.as_secs()));
        writer.u64(self.used_at_ms.cast_unsigned());
        writer.text(self.namespace.as_str());
        writer.text(self.agent.as_str());
        let digest = *seal.clone().update(writer.written()).finalize().as_bytes();
        writer.bytes(&digest);
        writer.into_bytes()
    }

    pub fn decode(file: &[u8], seal: &Hasher) -> Result<Sealed, Flaw> {
        let (bytes, found) = file.split_last_chunk::<SEAL_BYTES>().ok_or(Flaw::Length)?;
        // Compared in constant time by its type.
        if seal.clone().update(bytes).finalize() != *found {
            return Err(Flaw::Seal);
        }
        let mut reader = Reader::new(bytes);
        if reader.array::<8>()? != *MAGIC || reader.u32()? != VERSION {
            return Err(Flaw::Header);
        }
        let number = reader.u64()?;
        let is_pinned = reader.u32()? & PINNED != 0;
        let ttl = Some(reader.u64()?).filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let used_at_ms = reader.u64()?.cast_signed();
        let namespace = Namespace::new(reader.text(NAME_BYTES_MAX)?);
        let agent = AgentId::new(reader.text(AGENT_ID_BYTES_MAX)?).map_err(|_| Flaw::Header)?;
        match reader.is_at_end() {
            true => {
                let retention = Retention { is_pinned, ttl };
                Ok(Sealed { namespace, agent, number, retention, used_at_ms })
            }
            false => Err(Flaw::Length),
        }
    }
}

impl Store {
    /// Changes how long an agent is kept. Safe from a power cut when this returns; an agent without
    /// saves is not there.
    pub fn retain(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        change: RetentionChange,
    ) -> Result<Retention, StoreError> {
        self.may_write()?;
        let folder = self.secrets.agent_folder(namespace, agent);
        let shelf = self.secrets.namespace_folder(namespace);
        let (before, known, number) = {
            let mut index = self.index();
            let state = index.shelf(shelf).agents.get_mut(&folder);
            let state = state.filter(|state| !state.saves.is_empty());
            let state =
                state.ok_or_else(|| StoreError::NotFound(format!("agent {:?}", agent.as_str())))?;
            state.last_retention += 1;
            (state.retention(), state.retention, state.last_retention)
        };
        let retention = before.with(change);
        // What is only supposed is said anew.
        if retention == before && known.is_none_or(|file| file.is_known) {
            return Ok(retention);
        }
        if retention.is_pinned && !before.is_pinned {
            self.may_pin(shelf, folder, namespace)?;
        }
        let used_at_ms = known.map_or(0, |file| file.used_at_ms);
        let (namespace, agent) = (namespace.clone(), agent.clone());
        let sealed = Sealed { namespace, agent, number, retention, used_at_ms };
        self.write_retention(shelf, folder, &sealed)?;
        Ok(retention)
    }

    /// An agent had a turn that leaves no save, as nothing of it is new: its time begins anew.
    pub fn touch(&self, namespace: &Namespace, agent: &AgentId) -> Result<(), StoreError> {
        self.may_write()?;
        let folder = self.secrets.agent_folder(namespace, agent);
        let shelf = self.secrets.namespace_folder(namespace);
        let now = (self.settings.now)();
        let (retention, number) = {
            let mut index = self.index();
            let Some(state) = index.shelf(shelf).agents.get_mut(&folder) else { return Ok(()) };
            let retention = state.retention();
            let (Some(ttl), Some(end)) = (retention.ttl, state.expires_at()) else { return Ok(()) };
            let left = end.duration_since(now).unwrap_or_default();
            if left > ttl - ttl / TOUCHED_PART {
                return Ok(());
            }
            state.last_retention += 1;
            (retention, state.last_retention)
        };
        let used_at_ms = unix_ms(now);
        let (namespace, agent) = (namespace.clone(), agent.clone());
        let sealed = Sealed { namespace, agent, number, retention, used_at_ms };
        self.write_retention(shelf, folder, &sealed)
    }

    fn write_retention(
        &self,
        namespace: FolderName,
        agent: FolderName,
        sealed: &Sealed,
    ) -> Result<(), StoreError> {
        let file = sealed.encode(&self.secrets.retention_seal());
        let bytes = file.len() as u64;
        // Whatever else it says helps when there is no room, and takes the place of such a file.
        if sealed.retention.is_pinned {
            let need = Need {
                bytes,
                namespace,
                agents: vec![agent],
                family: Vec::new(),
                is_transcript: false,
            };
            self.make_room(&need, &sealed.namespace)?;
        }
        let folder = layout::agent_folder(namespace, agent);
        let path = layout::retention_file(namespace, agent, sealed.number);
        let mut temporary = self.files.write(&[&file])?;
        temporary.rename(&path).map_err(|source| write_error("name", &path, bytes, source))?;
        self.files.changed(&folder, None);
        if let Err(error) = self.sync_path(&folder) {
            // A power cut may take it or leave it; nobody hears of it.
            drop(self.files.remove(&path));
            return Err(error);
        }
        let RetentionFile { number, .. } = {
            let Sealed { number, retention, used_at_ms, .. } = *sealed;
            let mut index = self.index();
            let file = RetentionFile { number, retention, used_at_ms, bytes, is_known: true };
            match index.shelf(namespace).put_retention(agent, file) {
                Some(before) => before,
                None => return Ok(()),
            }
        };
        // A higher number counts; what stays is cleared by the next start.
        self.files.remove(&layout::retention_file(namespace, agent, number)).or_else(|error| {
            tracing::warn!(%error, "an older file of how long an agent is kept stays");
            Ok(())
        })
    }

    /// Nobody may pin so much that there is no room for the others.
    fn may_pin(
        &self,
        namespace: FolderName,
        agent: FolderName,
        name: &Namespace,
    ) -> Result<(), StoreError> {
        let index = self.index();
        let with = |shelf: &FolderName| (*shelf == namespace).then_some(agent);
        let pinned = |shelf: &FolderName| budget::pinned_bytes(&index.shelves[shelf], with(shelf));
        let all: u64 = index.shelves.keys().map(pinned).sum();
        let own = pinned(&namespace);
        let quota = self.settings.namespace_bytes.unwrap_or(u64::MAX);
        let limits = [(all, self.settings.budget_bytes), (own, quota)];
        let refused = |what| Err(StoreError::Quota { namespace: name.to_string(), what });
        if let Some((bytes, limit)) = limits.iter().find(|(bytes, of)| *bytes > of / PINNED_PART) {
            let limit = limit / PINNED_PART;
            return refused(format!("{bytes} bytes that are pinned; the limit is {limit}"));
        }
        let agents = index.shelves[&namespace].agents.values();
        let pinned_agents = 1 + agents.filter(|agent| agent.retention().is_pinned).count();
        match self.settings.namespace_agents.map(|limit| limit / PINNED_PART as usize) {
            Some(limit) if pinned_agents > limit => {
                refused(format!("{pinned_agents} agents that are pinned; the limit is {limit}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Nothing says any more how long an agent is kept that has no saves: another of its name is not
    /// kept as it was. Safe from a power cut, as far as the disk does what it is asked.
    pub(super) fn forget_retention(&self, namespace: FolderName, agent: FolderName) {
        let has_saves = |state: &Agent| !state.saves.is_empty();
        if self.index().agent(namespace, agent).is_some_and(has_saves) {
            return;
        }
        let retention = self.index().shelf(namespace).take_retention(agent);
        let Some(RetentionFile { number, .. }) = retention else { return };
        let path = layout::retention_file(namespace, agent, number);
        let folder = layout::agent_folder(namespace, agent);
        let removed = self.files.remove(&path).and_then(|()| {
            self.files.changed(&folder, None);
            self.sync_path(&folder)
        });
        if let Err(error) = removed {
            tracing::warn!(path, %error, "what said how long an agent was kept may stay");
        }
    }

    /// Some agents whose time is over.
    pub fn expired(&self, at_most: usize) -> Vec<(Namespace, AgentId)> {
        let now = (self.settings.now)();
        let index = self.index();
        let agents = index.shelves.values().flat_map(|shelf| shelf.agents.values());
        let expired = agents.filter(|agent| agent.is_expired(now));
        let newest = expired.filter_map(|agent| agent.saves.values().next_back());
        let names = newest.map(|save| (save.head.namespace.clone(), save.head.agent.clone()));
        names.take(at_most).collect()
    }

    /// Whether an agent's time is over.
    pub fn is_expired(&self, namespace: &Namespace, agent: &AgentId) -> bool {
        let agent = self.secrets.agent_folder(namespace, agent);
        let namespace = self.secrets.namespace_folder(namespace);
        let now: SystemTime = (self.settings.now)();
        self.index().agent(namespace, agent).is_some_and(|agent| agent.is_expired(now))
    }

    /// Whether any agent will go when its time is over.
    pub fn has_expiring(&self) -> bool {
        let index = self.index();
        let mut agents = index.shelves.values().flat_map(|shelf| shelf.agents.values());
        agents.any(|agent| agent.retention().ttl.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_read_back_and_every_flipped_bit_is_seen() {
        let seal = Hasher::new_keyed(&[7; 32]);
        let retentions = [
            Retention::default(),
            Retention::UNKNOWN,
            Retention { is_pinned: true, ttl: Some(TTL_MAX) },
        ];
        for retention in retentions {
            let agent = AgentId::new("planner").expect("a short name");
            let sealed = Sealed {
                namespace: Namespace::local(),
                agent,
                number: 3,
                retention,
                used_at_ms: -5,
            };
            let file = sealed.encode(&seal);
            assert!(file.len() <= FILE_BYTES_MAX);
            assert_eq!(Sealed::decode(&file, &seal), Ok(sealed));
            for bit in 0..file.len() * 8 {
                let mut flipped = file.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Sealed::decode(&flipped, &seal).is_err(), "bit {bit}");
            }
            for end in 0..file.len() {
                assert!(Sealed::decode(&file[..end], &seal).is_err(), "{end} bytes");
            }
        }
    }
}
