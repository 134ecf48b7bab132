//! What can go wrong with the store, with what one needs to act on it.

use std::io;

use super::BlockName;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another process uses this cache{}", in_process(pid))]
    Locked { pid: Option<u32> },

    #[error(
        "the cache has format {found:?}, which a newer release made; it was left untouched\n\
         hint: use that release, or another data folder"
    )]
    NewerFormat { found: String },

    #[error(
        "the cache has no format that semantic knows ({found:?}); it was left untouched\n\
         hint: use another data folder"
    )]
    UnknownFormat { found: String },

    #[error(
        "the file KEY is missing beside saved agents, which nobody can read without it\n\
         hint: bring KEY back from a backup, or move the folder away to begin anew"
    )]
    KeyMissing,

    #[error(
        "the file KEY is damaged, and nobody can read the saved agents without it\n\
         hint: bring KEY back from a backup, or move the folder away to begin anew"
    )]
    KeyDamaged,

    #[error(
        "the file KEY is not the one that this cache was made with\n\
         hint: bring its own KEY back from a backup, or move the folder away to begin anew"
    )]
    KeyForeign,

    #[error(
        "{file} is a cache of the old program, which says neither what model it is of nor whether \
         it is whole, so it cannot be used\n\
         hint: move such files away, or use another data folder"
    )]
    Ancestor { file: String },

    /// Everything is there or could be made, but this process may not write.
    #[error("cannot write to the cache: {source}")]
    NotWritable { source: io::Error },

    #[error("cannot {operation} {path:?} of the cache: {source}")]
    Io { operation: &'static str, path: String, source: io::Error },
}

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// These blocks of a save are not there; once they are written again, it can be tried again.
    #[error("{} of the save's blocks are not stored", .0.len())]
    Missing(Vec<BlockName>),

    /// There is no room, and nothing that may go to make some.
    #[error("no room for {needed_bytes} bytes: {reason}")]
    Full { needed_bytes: u64, reason: FullReason },

    /// A namespace has all it may have, and nothing of it may go.
    #[error("namespace {namespace:?} may not have {what}")]
    Quota { namespace: String, what: String },

    #[error("the cache is open for reading only")]
    ReadOnly,

    /// A file is not what was written. It is in the quarantine, unless the store is read-only.
    #[error("{path} is damaged: {flaw}")]
    Damaged { path: String, flaw: Flaw },

    /// The file is whole, but of no use for the model that is to read it.
    #[error("block {0} was made for another model")]
    OtherModel(BlockName),

    #[error("cannot {operation} {path:?} of the cache: {source}")]
    Io { operation: &'static str, path: String, source: io::Error },

    #[error("{0} is not stored")]
    NotFound(String),

    #[error("{0} is stored already")]
    Exists(String),
}

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FullReason {
    #[error("the cache's budget is used up")]
    Budget,
    #[error("the disk is full")]
    Disk,
}

/// What is wrong with a damaged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Flaw {
    #[error("it is not there")]
    Missing,
    #[error("it is not a regular file of this user with one name")]
    Kind,
    #[error("it is too short or too long")]
    Length,
    #[error("its header is not the one that its model's blocks have")]
    Header,
    #[error("its bytes are not those that were saved")]
    Digest,
    #[error("it was not written with this cache's key, or changed since")]
    Seal,
    #[error("it belongs in another place")]
    Place,
}

impl Flaw {
    /// A word for a file's name.
    pub fn word(self) -> &'static str {
        match self {
            Flaw::Missing => "missing",
            Flaw::Kind => "kind",
            Flaw::Length => "length",
            Flaw::Header => "header",
            Flaw::Digest => "digest",
            Flaw::Seal => "seal",
            Flaw::Place => "place",
        }
    }
}

fn in_process(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}
