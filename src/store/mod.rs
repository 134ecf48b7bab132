//! Where agents are kept on disk: conversations as files that no crash and no flipped bit can turn
//! into somebody else's.

pub mod disk;

mod block;
mod error;
mod header;
mod info;
mod save;
mod settings;

use std::sync::Arc;

pub use block::{BlockName, BlockRef, KvBytes, KvModel, SealedBlock};
pub use disk::{Disk, Folder};
pub use error::{Flaw, FullReason, OpenError, StoreError};
pub use info::{
    AgentInfo, Collected, Damage, NamespaceUsage, Repaired, SaveInfo, Shortened, Usage, Verified,
};
pub use save::{Committed, Draft, StoredLine};
pub use settings::{BUDGET_BYTES, Settings};

use crate::types::{AgentId, Fingerprint, Generation, Line, Namespace, TokenId};

/// How many saves of a line are kept beside the newest, to go back to.
pub const ROLLBACK_GENERATIONS: usize = 3;

/// The agents on one disk.
pub struct Store;

#[allow(clippy::unimplemented, unused_variables)]
impl Store {
    /// Opens a store for reading and writing, and makes what is missing.
    pub fn open(disk: Arc<dyn Disk>, settings: Settings) -> Result<Store, OpenError> {
        unimplemented!()
    }

    /// Opens a store without changing anything, also beside a process that writes. Where none is,
    /// it is empty.
    pub fn open_read_only(disk: Arc<dyn Disk>, settings: Settings) -> Result<Store, OpenError> {
        unimplemented!()
    }

    pub fn is_read_only(&self) -> bool {
        unimplemented!()
    }

    /// The live saves that a model can go on from, least recently used first.
    pub fn lines(&self, fingerprint: &Fingerprint) -> Vec<StoredLine> {
        unimplemented!()
    }

    /// A number that no other line of this store has.
    pub fn new_line(&self) -> Line {
        unimplemented!()
    }

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
        unimplemented!()
    }

    /// Whether a block is there, as far as its name and length tell.
    pub fn is_stored(&self, namespace: &Namespace, name: &BlockName) -> bool {
        unimplemented!()
    }

    /// Writes a block, unless it is there. It is kept for the [`commit`](Store::commit) to come,
    /// through one [`collect`](Store::collect).
    pub fn write_block(&self, block: &SealedBlock) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Saves a conversation whose blocks are written. Returns when it is safe from a power cut.
    pub fn commit(&self, draft: &Draft) -> Result<Committed, StoreError> {
        unimplemented!()
    }

    /// Lines that went to make room and that no [`Committed`] has told of yet.
    pub fn take_removed(&self) -> Vec<(Namespace, AgentId, Line)> {
        unimplemented!()
    }

    /// Reads a block into the buffer and verifies every byte.
    pub fn read_block(
        &self,
        namespace: &Namespace,
        model: &KvModel,
        block: &BlockRef,
        buffer: Vec<u8>,
    ) -> Result<KvBytes, StoreError> {
        unimplemented!()
    }

    /// Removes a line's saves for good. No error if there are none.
    pub fn remove_line(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        line: Line,
    ) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Removes what no save needs any more.
    pub fn collect(&self) -> Result<Collected, StoreError> {
        unimplemented!()
    }

    /// All agents, by namespace and name.
    pub fn agents(&self) -> Result<Vec<AgentInfo>, StoreError> {
        unimplemented!()
    }

    pub fn agent(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
    ) -> Result<Option<AgentInfo>, StoreError> {
        unimplemented!()
    }

    /// The token ids of a save.
    pub fn tokens(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        generation: Generation,
    ) -> Result<Vec<TokenId>, StoreError> {
        unimplemented!()
    }

    /// Removes all saves of an agent; says whether there were any.
    pub fn remove_agent(&self, namespace: &Namespace, agent: &AgentId) -> Result<bool, StoreError> {
        unimplemented!()
    }

    /// Gives another agent, which must not be there yet, the live saves of this one.
    pub fn fork(
        &self,
        namespace: &Namespace,
        from: &AgentId,
        to: &AgentId,
    ) -> Result<Committed, StoreError> {
        unimplemented!()
    }

    /// Makes an older save the newest again, as a new generation: the given one, or the one before
    /// the newest of the same line.
    pub fn rollback(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        generation: Option<Generation>,
    ) -> Result<Committed, StoreError> {
        unimplemented!()
    }

    /// Reads every byte that some save needs and says what is damaged. Changes nothing.
    pub fn verify(&self) -> Result<Verified, StoreError> {
        unimplemented!()
    }

    /// Puts bad files into the quarantine, and saves the longest good prefix of each line that
    /// loses some.
    pub fn repair(&self) -> Result<Repaired, StoreError> {
        unimplemented!()
    }

    pub fn usage(&self) -> Result<Usage, StoreError> {
        unimplemented!()
    }
}
