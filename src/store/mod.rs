//! Where agents are kept on disk: conversations as files that no crash and no flipped bit can turn
//! into somebody else's.
//!
//! A conversation is a *line*: blocks of KV, each a file that is written once and named by its
//! content, and a manifest for each save, which names the blocks and seals them. Nothing is ever
//! changed in place, so whatever happens, what was saved before is still there:
//!
//! * saving: each block is written under a temporary name, synced and renamed, the folders are
//!   synced, then the manifest goes the same way ([`Store::write_block`], [`Store::commit`]);
//! * restoring: a manifest says how long each block is and which bytes it has, and nothing that
//!   differs gets out ([`Store::lines`], [`Store::read_block`]);
//! * removing: manifests first, and blocks only when no manifest can come back that names them
//!   ([`Store::remove_line`], [`Store::collect`]).
//!
//! Beside the saves of an agent are its transcripts: what was said up to an answer, sealed like a
//! manifest and gone with the last save ([`Store::keep_transcript`]).
//!
//! One thread does all that writes; any may read. A block of 3 MB is read and verified in about a
//! millisecond: BLAKE3 takes 4 GB/s, the page cache 10.

pub mod disk;

mod block;
mod budget;
mod bytes;
mod error;
mod files;
mod fork;
mod header;
mod index;
mod info;
mod inspect;
mod keys;
mod layout;
mod load;
mod manifest;
mod open;
mod quarantine;
mod read;
mod remove;
mod retention;
mod room;
mod save;
mod settings;
#[cfg(test)]
mod tests;
mod transcripts;
mod transfer;
mod verify;

use std::sync::{Condvar, Mutex, MutexGuard};

pub use block::{BlockName, BlockRef, KvBytes, KvModel, SealedBlock};
pub use budget::kept_free;
pub use disk::{Disk, Folder, Holder, Space};
pub use error::{Flaw, FullReason, OpenError, StoreError};
pub use info::{
    AgentBrief, AgentInfo, Collected, Damage, LineBrief, NamespaceUsage, Repaired, SaveInfo,
    Shortened, Usage, Verified,
};
pub use retention::{PINNED_PART, Retention, RetentionChange, TTL_MAX};
pub use save::{Committed, Draft, StoredLine};
pub use settings::{BUDGET_BYTES, Settings};
pub use transcripts::Transcript;
pub use transfer::{Import, TransferError, Transferred};

use crate::types::{AgentId, Line, Namespace};
use disk::Lock;
use files::Files;
use header::Headers;
use index::Index;
use keys::Secrets;

/// How many saves of a line are kept beside the newest, to go back to.
pub const ROLLBACK_GENERATIONS: usize = 3;

/// The agents on one disk.
pub struct Store {
    files: Files,
    settings: Settings,
    secrets: Secrets,
    headers: Headers,
    index: Mutex<Index>,
    /// Tells that a file has arrived in the quarantine.
    moved: Condvar,
    /// Bad manifests that were found when the store was opened.
    found: Vec<Damage>,
    /// Goes last, after everything that may still write. `None` reads only.
    lock: Option<Box<dyn Lock>>,
}

impl Store {
    pub fn is_read_only(&self) -> bool {
        self.lock.is_none()
    }

    /// The bytes of all files, and how many they may be.
    pub fn occupancy(&self) -> (u64, u64) {
        (self.index().bytes(), self.settings.budget_bytes)
    }

    /// A number that no other line of this store has.
    pub fn new_line(&self) -> Line {
        let mut index = self.index();
        index.last_line = index.last_line.checked_add(1).expect("2^64 lines take for ever");
        Line(index.last_line)
    }

    /// Whether a block is there, as far as its name tells.
    pub fn is_stored(&self, namespace: &Namespace, name: &BlockName) -> bool {
        let folder = self.secrets.namespace_folder(namespace);
        let index = self.index();
        let file = index.block(folder, name).and_then(|block| block.file.as_ref());
        file.is_some_and(|file| !file.is_doubted)
    }

    /// Lines that went to make room and that no [`Committed`] has told of yet.
    pub fn take_removed(&self) -> Vec<(Namespace, AgentId, Line)> {
        std::mem::take(&mut self.index().removed)
    }

    /// Held for a moment, never while the disk works.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("nobody panics with the index")
    }

    fn may_write(&self) -> Result<(), StoreError> {
        match self.is_read_only() {
            true => Err(StoreError::ReadOnly),
            false => Ok(()),
        }
    }
}
