//! The real disk: a folder of this user, in which no path leads anywhere else.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::super::layout;
use super::{Disk, Entry, EntryKind, Lock, LockError, NewFile, Space, StoredFile};

/// A folder on a real disk.
pub struct Folder {
    /// `None` if it is not there.
    root: Option<OwnedFd>,
}

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// More digits than any process number has.
const PID_BYTES_MAX: u64 = 32;

/// Who has a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Nobody,
    /// With its number, if the lock file says it.
    Process(Option<u32>),
}

impl Folder {
    /// The folder, made if it is missing, for this user alone.
    pub fn make(path: &Path) -> io::Result<Folder> {
        let path = std::path::absolute(path)?;
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&path)?;
        let root = open_root(&path)?;
        sync_above(&path, &root)?;
        Ok(Folder { root: Some(root) })
    }

    /// The folder if it is there; if not, everything in it is not found.
    pub fn at(path: &Path) -> io::Result<Folder> {
        match open_root(path) {
            Ok(root) => Ok(Folder { root: Some(root) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Folder { root: None }),
            Err(error) => Err(error),
        }
    }

    /// Who has the lock of the store in this folder. Looks for as long as it takes to let go again,
    /// and changes nothing.
    pub fn holder(&self) -> io::Result<Holder> {
        let flags = OFlags::RDONLY;
        let file = match self.open_path(layout::LOCK, flags) {
            Ok(fd) => File::from(fd),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Holder::Nobody),
            Err(TryLockError::WouldBlock) => Ok(Holder::Process(pid_in(&file))),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn root(&self) -> io::Result<&OwnedFd> {
        self.root.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Opens what is at a path, where no component is a symbolic link.
    fn open_path(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let root = self.root()?;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if path.is_empty() {
            return Ok(rustix::fs::openat(root, ".", flags, Mode::empty())?);
        }
        check(path)?;
        open_beneath(root, path, flags).map_err(|errno| match errno {
            Errno::LOOP => wrong_kind("a symbolic link is in its path"),
            errno => errno.into(),
        })
    }

    fn open_folder(&self, path: &str) -> io::Result<OwnedFd> {
        self.open_path(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// The folder that a path's last component is in, and that component.
    fn parent<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        check(path)?;
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.open_folder(folder)?, name))
    }
}

impl Disk for Folder {
    fn make_folder(&self, folder: &str) -> io::Result<()> {
        let (parent, name) = self.parent(folder)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(FOLDER_MODE)) {
            // It may be a link to a folder elsewhere.
            Err(Errno::EXIST) => self.open_folder(folder).map(drop),
            other => Ok(other?),
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        let folder = self.open_folder(folder)?;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let mut file_type = entry.file_type();
            let mut bytes = 0;
            if matches!(file_type, FileType::RegularFile | FileType::Unknown) {
                let stat = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                    // It went since.
                    Err(Errno::NOENT) => continue,
                    stat => stat?,
                };
                file_type = FileType::from_raw_mode(stat.st_mode);
                bytes = u64::try_from(stat.st_size).unwrap_or(0);
            }
            let kind = match file_type {
                FileType::RegularFile => EntryKind::File,
                FileType::Directory => EntryKind::Folder,
                _ => EntryKind::Other,
            };
            found.push(Entry { name: name.to_string_lossy().into_owned(), kind, bytes });
        }
        Ok(found)
    }

    fn open(&self, file: &str) -> io::Result<Box<dyn StoredFile>> {
        // Opening a pipe would wait for its writer.
        let file = self.open_path(file, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let bytes = bytes_of_own_file(&file)?;
        Ok(Box::new(OpenFile { file: file.into(), bytes }))
    }

    fn create(&self, file: &str) -> io::Result<Box<dyn NewFile>> {
        let file = self.open_path(file, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
        Ok(Box::new(File::from(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_parent, from) = self.parent(from)?;
        let (to_parent, to) = self.parent(to)?;
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&from_parent, from, &to_parent, to, flags) {
            // A file system that cannot do it in one step, but whose second names never replace.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                rustix::fs::linkat(&from_parent, from, &to_parent, to, AtFlags::empty())?;
                Ok(rustix::fs::unlinkat(&from_parent, from, AtFlags::empty())?)
            }
            other => Ok(other?),
        }
    }

    fn remove_file(&self, file: &str) -> io::Result<()> {
        let (parent, name) = self.parent(file)?;
        Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
    }

    fn remove_folder(&self, folder: &str) -> io::Result<()> {
        let (parent, name) = self.parent(folder)?;
        Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        File::from(self.open_folder(folder)?).sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::fstatvfs(self.root()?)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { total_bytes: bytes(stat.f_blocks), free_bytes: bytes(stat.f_bavail) })
    }

    fn lock(&self, file: &str) -> Result<Box<dyn Lock>, LockError> {
        let fd = self.open_path(file, OFlags::RDWR | OFlags::CREATE).map_err(LockError::Io)?;
        bytes_of_own_file(&fd).map_err(LockError::Io)?;
        let mut file = File::from(fd);
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => return Err(LockError::Held { pid: pid_in(&file) }),
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let leave_number = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        // Without the number the lock is as good; the disk may be full.
        if let Err(error) = leave_number(&mut file) {
            tracing::warn!(%error, "the lock file does not say which process has it");
        }
        Ok(Box::new(HeldLock(file)))
    }
}

struct OpenFile {
    file: File,
    bytes: u64,
}

impl StoredFile for OpenFile {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
}

impl NewFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// The system lets go of the lock when the file is closed.
struct HeldLock(#[expect(dead_code, reason = "held, not used")] File);

impl Lock for HeldLock {}

fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::LOOP | Errno::NOTDIR => {
            wrong_kind(&format!("{} is a symbolic link or no folder", path.display()))
        }
        errno => errno.into(),
    })
}

/// Makes the folders safe that lead to the root, as far as this process, or one that ended before
/// it got here, may have made them: what another user owns, and where another disk begins, was
/// there before.
fn sync_above(path: &Path, root: &OwnedFd) -> io::Result<()> {
    let device = rustix::fs::fstat(root)?.st_dev;
    for above in path.ancestors().skip(1) {
        let above = match File::open(above) {
            // Who may not look into it did not make it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            above => above?,
        };
        let stat = rustix::fs::fstat(&above)?;
        if stat.st_uid != own_user() || stat.st_dev != device {
            break;
        }
        above.sync_all()?;
    }
    Ok(())
}

/// The kernel walks the path and refuses links in every component, in one call.
#[cfg(target_os = "linux")]
fn open_beneath(root: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::ResolveFlags;

    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, flags, mode_for(flags), resolve) {
        // An old kernel, or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => walk_beneath(root, path, flags),
        other => other,
    }
}

#[cfg(not(target_os = "linux"))]
fn open_beneath(root: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    walk_beneath(root, path, flags)
}

/// Component by component, each relative to the one before: none of them is a link, and `..` is
/// none of them.
fn walk_beneath(root: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let as_folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut folder = rustix::fs::openat(root, ".", as_folder, Mode::empty())?;
    for component in folders.split('/').filter(|component| !component.is_empty()) {
        folder = rustix::fs::openat(&folder, component, as_folder, Mode::empty())?;
    }
    rustix::fs::openat(&folder, name, flags, mode_for(flags))
}

/// `openat2` takes a mode only for a file that it may make.
fn mode_for(flags: OFlags) -> Mode {
    match flags.contains(OFlags::CREATE) {
        true => Mode::from_raw_mode(FILE_MODE),
        false => Mode::empty(),
    }
}

/// Plain components only: our own paths are, whatever agents are called.
fn check(path: &str) -> io::Result<()> {
    let is_plain = |component: &str| !matches!(component, "" | "." | "..");
    match path.split('/').all(is_plain) && !path.contains('\0') {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not a plain one")),
    }
}

/// A file with a second name can be changed from where we do not look, and another user's file
/// from where we cannot.
fn bytes_of_own_file(file: impl AsFd) -> io::Result<u64> {
    let stat = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(wrong_kind("it is not a regular file"));
    }
    if stat.st_nlink != 1 {
        return Err(wrong_kind("it has a second name"));
    }
    if stat.st_uid != own_user() {
        return Err(wrong_kind("it belongs to another user"));
    }
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn wrong_kind(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn pid_in(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
