//! Blocks outside the pool: what names one, what a save says of one, and its bytes.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::header::Header;
use crate::types::{Fingerprint, KvTensor, Namespace};

/// Names a block by everything it depends on: namespace, tokens from the conversation's begin on,
/// model, settings and bytes. Equal names are equal bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockName(pub(super) [u8; 32]);

/// A block as a save names it: enough to find the file and to know that it is the one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockRef {
    pub name: BlockName,
    /// Of the whole file, under a key of the namespace.
    pub digest: [u8; 32],
    pub tokens: usize,
    pub file_bytes: u64,
}

/// What the store has to know of a model: which blocks fit it, and what they are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvModel {
    pub fingerprint: Fingerprint,
    pub name: String,
    /// Path and release that computes the KV. For people to read; decides nothing.
    pub producer: String,
    /// In the order of a block's bytes.
    pub tensors: Vec<KvTensor>,
}

/// A block that is ready to be written.
pub struct SealedBlock {
    pub block: BlockRef,
    pub(super) namespace: Namespace,
    pub(super) parent: Option<BlockName>,
    pub(super) header: Arc<Header>,
    pub(super) kv: Vec<u8>,
}

/// The verified KV of a block, in the buffer that its whole file was read into.
pub struct KvBytes {
    pub(super) buffer: Vec<u8>,
    pub(super) kv: Range<usize>,
}

impl BlockName {
    pub fn new(bytes: [u8; 32]) -> BlockName {
        BlockName(bytes)
    }
}

impl KvModel {
    /// Bytes of the KV of a block of so many tokens.
    pub fn kv_bytes(&self, tokens: usize) -> usize {
        self.tensors.iter().map(|tensor| tensor.bytes(tokens)).sum()
    }
}

impl SealedBlock {
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub fn kv(&self) -> &[u8] {
        &self.kv
    }

    /// Gives the KV back.
    pub fn into_kv(self) -> Vec<u8> {
        self.kv
    }
}

impl KvBytes {
    /// The memory, for the next block.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

impl Deref for KvBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.kv.clone()]
    }
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
