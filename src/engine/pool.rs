//! Which blocks of the KV pool are in use. Pure.

/// There are not that many blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{requested} blocks requested, {available} of {total} available")]
pub struct Exhausted {
    pub requested: usize,
    pub available: usize,
    pub total: usize,
}
