//! Takes a conversation to disk: blocks first, then the manifest that names them.

use std::ops::Range;
use std::sync::Arc;

use super::{BlockRef, KvModel};
use crate::types::{AgentId, Generation, Line, Namespace, TokenId};

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
