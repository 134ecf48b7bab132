//! Puts bytes under a name: hashed while they are written, on disk before they are named.

use super::{Error, Progress};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// One read from the network or an archive.
const CHUNK_BYTES: usize = 256 * 1024;

/// Left free beside a download, so that a full disk does not stop the rest of the machine.
const SPARE_BYTES: u64 = 64 * 1024 * 1024;

/// Which side of a copy failed: the network's errors are tried again, the disk's are not.
#[derive(Debug)]
pub(super) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies to the end, hashing. Returns the bytes copied.
pub(super) fn copy_hashed(
    reader: &mut dyn Read,
    writer: &mut dyn Write,
    hasher: &mut Sha256,
    progress: &mut dyn Progress,
) -> Result<u64, CopyError> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut copied = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        writer.write_all(&buffer[..count]).map_err(CopyError::Write)?;
        hasher.update(&buffer[..count]);
        copied += count as u64;
        progress.advance(count as u64);
    }
    writer.flush().map_err(CopyError::Write)?;
    Ok(copied)
}

/// The digest as the hub and our catalogue write it.
pub(super) fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn hash_file(path: &Path, progress: &mut dyn Progress) -> Result<String, Error> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let mut hasher = Sha256::new();
    match copy_hashed(&mut file, &mut io::sink(), &mut hasher, progress) {
        Ok(_) => Ok(hex(hasher)),
        Err(CopyError::Read(error) | CopyError::Write(error)) => Err(io_error("read", path)(error)),
    }
}

pub(super) fn check(file: &str, expected: &str, actual: String) -> Result<(), Error> {
    if expected.eq_ignore_ascii_case(&actual) {
        return Ok(());
    }
    Err(Error::Checksum { file: file.to_string(), expected: expected.to_string(), actual })
}

/// Refuses a download that cannot fit before it begins.
pub(super) fn require_space(what: &str, folder: &Path, bytes: u64) -> Result<(), Error> {
    // A file system that does not tell is found out by writing.
    let Ok(space) = rustix::fs::statvfs(folder) else {
        return Ok(());
    };
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    let needed_bytes = bytes.saturating_add(SPARE_BYTES);
    if bytes == 0 || free_bytes >= needed_bytes {
        return Ok(());
    }
    let (what, folder) = (what.to_string(), folder.to_path_buf());
    Err(Error::NoSpace { what, folder, needed_bytes, free_bytes })
}

/// A failed write, told as what it is for the user.
pub(super) fn write_error(what: &str, path: &Path, needed_bytes: u64, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull {
            what: what.to_string(),
            folder: path.parent().unwrap_or(path).to_path_buf(),
            needed_bytes,
        },
        _ => io_error("write", path)(error),
    }
}

/// The last steps of every download: on disk, then under its name, then the name on disk.
pub(super) fn place(file: &File, from: &Path, to: &Path) -> Result<(), Error> {
    file.sync_all().map_err(io_error("write", from))?;
    std::fs::rename(from, to).map_err(io_error("rename", from))?;
    sync_folder(to)
}

pub(super) fn sync_folder(file: &Path) -> Result<(), Error> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let handle = File::open(folder).map_err(io_error("open", folder))?;
    handle.sync_all().map_err(io_error("write", folder))
}

pub(super) fn make_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(io_error("make the folder", path))
}

/// Waits for our turn on this lock file. The lock goes with the file that is returned.
pub(super) fn lock(path: &Path, what: &str, progress: &mut dyn Progress) -> Result<File, Error> {
    let options = File::options().create(true).write(true).truncate(false).open(path);
    let file = options.map_err(io_error("open", path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            progress.note(&format!("waiting for another process that is fetching {what}"));
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(io_error("lock", path)(error)),
    }
    file.lock().map_err(io_error("lock", path))?;
    Ok(file)
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FullDisk {
        room_bytes: usize,
    }

    impl Write for FullDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room_bytes);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room_bytes -= count;
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_network() {
        let bytes = vec![7; 3 * CHUNK_BYTES];
        let mut disk = FullDisk { room_bytes: CHUNK_BYTES + 1 };
        let copied = copy_hashed(&mut bytes.as_slice(), &mut disk, &mut Sha256::new(), &mut ());
        let Err(CopyError::Write(error)) = copied else { panic!("{copied:?}") };
        let error = write_error("model", Path::new("/models/x"), 42, error);
        assert_eq!(error.to_string(), "the disk is full: model needs 42 bytes in /models");
    }

    #[test]
    fn what_cannot_fit_is_refused_with_both_numbers() {
        let folder = tempfile::tempdir().expect("a folder");
        require_space("model", folder.path(), 1).expect("room for one byte");
        match require_space("model", folder.path(), u64::MAX / 2) {
            Err(Error::NoSpace { needed_bytes, free_bytes, .. }) => {
                assert!(needed_bytes > free_bytes);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_copy_is_hashed_as_sha256_hashes() {
        let mut written = Vec::new();
        let mut hasher = Sha256::new();
        let copied = copy_hashed(&mut b"abc".as_slice(), &mut written, &mut hasher, &mut ());
        assert_eq!(copied.expect("a copy"), 3);
        assert_eq!(written, b"abc");
        assert_eq!(hex(hasher), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
