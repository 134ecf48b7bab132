//! Where agents are kept when they are not in the pool, as the engine sees it.

use std::sync::Arc;

use crate::types::{AgentId, Namespace, TokenId};

/// Keeps heads by their number. Bytes are [`Model::export`](crate::model::Model::export)'s, one
/// per block of the head.
pub trait Store: Send {
    /// Whether anything can be kept here at all; if not, nothing is exported for it.
    fn keeps(&self) -> bool;

    /// Keeps a head. What was kept under this number stays if it fails.
    fn save(&mut self, snapshot: Snapshot) -> Result<(), StoreError>;

    /// The bytes of the head's first `blocks` blocks.
    fn load(&mut self, head: HeadId, blocks: usize) -> Result<Vec<Vec<u8>>, StoreError>;

    /// The head is gone; so may be what was kept of it.
    fn forget(&mut self, head: HeadId);
}

/// A number that no other head of this process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeadId(pub u64);

/// All there is to keep of a head.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub head: HeadId,
    pub namespace: Namespace,
    pub agent: AgentId,
    pub tokens: Arc<[TokenId]>,
    pub blocks: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Keeps nothing: an agent that leaves the pool is computed again.
pub struct Forgetful;

impl Store for Forgetful {
    fn keeps(&self) -> bool {
        false
    }

    fn save(&mut self, _: Snapshot) -> Result<(), StoreError> {
        Err(StoreError("this store keeps nothing".to_owned()))
    }

    fn load(&mut self, head: HeadId, _: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        Err(StoreError(format!("head {} was not kept", head.0)))
    }

    fn forget(&mut self, _: HeadId) {}
}
