//! The real disk: a folder of this user, in which no path leads anywhere else.

use std::io;
use std::path::Path;

use super::{Disk, Entry, Lock, LockError, NewFile, Space, StoredFile};

/// A folder on a real disk.
pub struct Folder;

#[allow(clippy::unimplemented, unused_variables)]
impl Folder {
    /// The folder, made if it is missing, for this user alone.
    pub fn make(path: &Path) -> io::Result<Folder> {
        unimplemented!()
    }

    /// The folder if it is there; if not, everything in it is not found.
    pub fn at(path: &Path) -> io::Result<Folder> {
        unimplemented!()
    }
}

#[allow(clippy::unimplemented, unused_variables)]
impl Disk for Folder {
    fn make_folder(&self, folder: &str) -> io::Result<()> {
        unimplemented!()
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        unimplemented!()
    }

    fn open(&self, file: &str) -> io::Result<Box<dyn StoredFile>> {
        unimplemented!()
    }

    fn create(&self, file: &str) -> io::Result<Box<dyn NewFile>> {
        unimplemented!()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        unimplemented!()
    }

    fn remove_file(&self, file: &str) -> io::Result<()> {
        unimplemented!()
    }

    fn remove_folder(&self, folder: &str) -> io::Result<()> {
        unimplemented!()
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        unimplemented!()
    }

    fn space(&self) -> io::Result<Space> {
        unimplemented!()
    }

    fn lock(&self, file: &str) -> Result<Box<dyn Lock>, LockError> {
        unimplemented!()
    }
}
