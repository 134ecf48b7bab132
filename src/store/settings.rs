//! What a store may use, and how it learns the time.

use std::time::SystemTime;

/// How a store is to behave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For all of the store's files.
    pub budget_bytes: u64,
    /// For all files of one namespace.
    pub namespace_bytes: Option<u64>,
    pub namespace_agents: Option<usize>,
    /// For the times in manifests, which people read and which say when an agent's time is over.
    pub now: fn() -> SystemTime,
}

/// About 1,000 conversations of 4,000 tokens with a model of 1 billion parameters, and little
/// enough for a laptop's disk.
pub const BUDGET_BYTES: u64 = 32 << 30;

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            budget_bytes: BUDGET_BYTES,
            namespace_bytes: None,
            namespace_agents: None,
            now: SystemTime::now,
        }
    }
}
