//! Takes damaged files out of the way without destroying them.

use std::io;

use super::files::Files;
use super::index::{BlockFile, FileNumber, Index, Quarantined};
use super::layout::{self, FolderName};
use super::manifest::Head;
use super::{BlockName, Flaw, Store, StoreError};
use crate::types::Generation;

/// How many numbers are tried for a name that nothing else has.
const TRIES_MAX: u64 = 100;

/// Moves a file into the quarantine under this number, or a higher one that is free.
pub fn take_away(
    files: &Files,
    path: &str,
    flaw: Flaw,
    first: u64,
) -> Result<(u64, Quarantined), StoreError> {
    // Of links and the like this says nothing, and they take nothing.
    let bytes = files.disk.open(path).map_or(0, |file| file.bytes());
    for number in first..first + TRIES_MAX {
        let file = layout::quarantine_file(path, number, flaw);
        match files.rename(path, &file) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            }
            Err(error) => return Err(error),
            Ok(()) => {
                tracing::warn!(path, %flaw, file, "a damaged file went to the quarantine");
                return Ok((number, Quarantined { file, bytes }));
            }
        }
    }
    Err(StoreError::Exists(format!("a quarantined file of {path:?}")))
}

impl Store {
    /// A block was read and is bad: it goes, unless it is not there any more, or there is another
    /// by now than the one that was read.
    pub(super) fn give_up_block(
        &self,
        namespace: FolderName,
        name: &BlockName,
        read: Option<FileNumber>,
        flaw: Flaw,
    ) {
        let is_file_away = flaw == Flaw::Missing;
        if self.is_read_only() && !is_file_away {
            return;
        }
        let file = {
            let mut index = self.index();
            let shelf = index.shelf(namespace);
            if read.is_none() || shelf.file_number(name) != read {
                return;
            }
            let block = shelf.blocks.get_mut(name).expect("its file has a number");
            // Until it is away, nobody may write another under its name.
            block.is_leaving = !is_file_away;
            shelf.take_file(name).expect("its file has a number")
        };
        if !is_file_away {
            self.quarantine_block(namespace, name, file, flaw);
        }
    }

    fn quarantine_block(
        &self,
        namespace: FolderName,
        name: &BlockName,
        file: BlockFile,
        flaw: Flaw,
    ) {
        let is_away = self.move_to_quarantine(&layout::block_file(namespace, name), flaw);
        let mut index = self.index();
        let shelf = index.shelf(namespace);
        if !is_away {
            // It takes room as before; nothing that reads it believes it.
            shelf.put_file(*name, file);
        }
        if let Some(block) = shelf.blocks.get_mut(name) {
            block.is_leaving = false;
        }
        shelf.forget_if_nothing(name);
        drop(index);
        self.moved.notify_all();
    }

    /// Takes a bad manifest away, unless another thread has. Its blocks are not needed any more
    /// for its sake.
    pub(super) fn quarantine_save(
        &self,
        namespace: FolderName,
        agent: FolderName,
        generation: Generation,
        flaw: Flaw,
    ) {
        if self.is_read_only() {
            return;
        }
        let taken = self.index().shelf(namespace).take_save(agent, generation);
        let Some(save) = taken else { return };
        let path = layout::manifest_file(namespace, agent, generation);
        if self.move_to_quarantine(&path, flaw) {
            self.release(namespace, &save.head);
        }
        self.forget_retention(namespace, agent);
    }

    /// Waits until no file is on the way out under this name.
    pub(super) fn wait_until_moved(&self, namespace: FolderName, name: &BlockName) {
        let is_leaving =
            |index: &mut Index| index.block(namespace, name).is_some_and(|block| block.is_leaving);
        drop(self.moved.wait_while(self.index(), is_leaving));
    }

    pub(super) fn release(&self, namespace: FolderName, head: &Head) {
        self.index().shelf(namespace).release(&head.blocks);
    }

    /// Says whether the file is away.
    pub(super) fn move_to_quarantine(&self, path: &str, flaw: Flaw) -> bool {
        let first = self.index().quarantine.keys().last().map_or(1, |last| last + 1);
        match take_away(&self.files, path, flaw, first) {
            Ok((number, quarantined)) => {
                self.index().quarantine.insert(number, quarantined);
                true
            }
            // Gone is away as well.
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                tracing::warn!(path, %flaw, %error, "a damaged file stays");
                false
            }
        }
    }
}
