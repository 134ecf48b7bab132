//! All access to the store's files, through one trait: the real disk, and in tests one that fails
//! or that remembers what a power cut may leave.

mod folder;

use std::io;

pub use folder::{Folder, Holder};

/// A folder of files. Paths are relative to it, of plain components joined by `/`, and never leave
/// it: a component that is a symbolic link is an error. The empty path is the folder itself.
pub trait Disk: Send + Sync {
    /// Makes a folder in one that is there, for this user alone. One that is there is no error.
    fn make_folder(&self, folder: &str) -> io::Result<()>;

    /// What is in a folder, in any order.
    fn list(&self, folder: &str) -> io::Result<Vec<Entry>>;

    /// Opens a regular file of this user that has no second name; anything else is an error of
    /// kind `InvalidData`.
    fn open(&self, file: &str) -> io::Result<Box<dyn StoredFile>>;

    /// Makes a file that was not there, for this user alone.
    fn create(&self, file: &str) -> io::Result<Box<dyn NewFile>>;

    /// Gives a file another name; an error of kind `AlreadyExists` if something has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    fn remove_file(&self, file: &str) -> io::Result<()>;

    /// Removes an empty folder.
    fn remove_folder(&self, folder: &str) -> io::Result<()>;

    /// Returns when the names in a folder are safe from a power cut.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;

    fn space(&self) -> io::Result<Space>;

    /// Takes the lock that one process at a time may have, for the life of what is returned, and
    /// leaves the number of this process in the file.
    fn lock(&self, file: &str) -> Result<Box<dyn Lock>, LockError>;
}

/// A file that is being read. Nobody writes to it any more.
pub trait StoredFile {
    /// Bytes when it was opened.
    fn bytes(&self) -> u64;

    /// Reads from a position; fewer bytes than asked for only at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A file that is being written.
pub trait NewFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Returns when its bytes are safe from a power cut. After an error nothing is known of them,
    /// and another try tells nothing.
    fn sync(&mut self) -> io::Result<()>;
}

/// Held until it is dropped.
pub trait Lock: Send + Sync {}

#[derive(Debug)]
pub enum LockError {
    /// Another process has it.
    Held {
        pid: Option<u32>,
    },
    Io(io::Error),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
    /// Of a file.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Folder,
    /// A link, a pipe, a device.
    Other,
}

/// Of the file system that the store is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    pub free_bytes: u64,
}
