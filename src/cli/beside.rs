//! A file that is whole or not there: it is written beside the name that it takes in the end.

use std::fmt::Display;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

use super::output::Failure;

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// As of any program's files: the user's mask takes away what the user wants.
    AsUsual,
    OwnerAlone,
}

impl Readers {
    fn mode(self) -> u32 {
        match self {
            Readers::AsUsual => 0o666,
            Readers::OwnerAlone => 0o600,
        }
    }
}

/// A file in the same folder, gone unless it takes the other's name.
pub fn beside(path: &Path, readers: Readers) -> Result<NamedTempFile, Failure> {
    if path.is_dir() {
        return Err(cannot_write(path, "it is a folder"));
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(cannot_write(path, format!("there is no folder {}", folder.display())));
    }
    tempfile::Builder::new()
        .prefix(".semantic-")
        .permissions(Permissions::from_mode(readers.mode()))
        .tempfile_in(folder)
        // The name of the file that was tried means nothing to the user.
        .map_err(|error| cannot_write(path, io::Error::from(error.kind())))
}

pub fn cannot_write(path: &Path, reason: impl Display) -> Failure {
    let message = format!("cannot write {}: {reason}", path.display());
    Failure::CannotWrite { message, hint: "name a file in a folder that is yours".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_gone_unless_it_takes_its_name_and_then_has_its_readers() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = || std::fs::read_dir(folder.path()).expect("a folder").count();
        let path = folder.path().join("file");
        let made = beside(&path, Readers::AsUsual).ok().expect("it can be made");
        assert_eq!(files(), 1);
        drop(made);
        assert_eq!(files(), 0);
        let made = beside(&path, Readers::OwnerAlone).ok().expect("it can be made");
        made.persist(&path).expect("it is renamed");
        let mode = path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode, files()), (0o600, 1));
    }
}
