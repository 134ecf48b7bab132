//! Digests of large files that are computed once: a file that has not changed is not read again.
//!
//! What is known lies in one small file, by (device, inode, size, time of change of the contents
//! and of the file itself). It is a memo only: one that is damaged, is another user's or cannot be
//! written costs time and nothing else.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

/// SHA-256.
pub type Digest = [u8; 32];

const READ_BYTES: usize = 1 << 20;
/// The name of the file, and its first line.
const MEMO: &str = "sha256";
const FORMAT: &str = "semantic-digests 1";
/// Several large models in many parts; the oldest go first.
const ENTRIES_MAX: usize = 512;
/// An entry's line is shorter.
const MEMO_BYTES_MAX: u64 = 256 * (ENTRIES_MAX as u64 + 2);
/// A file that changed so shortly before it was read may change again in the same tick of its file
/// system's clock, and nothing would show it. The coarsest clocks tick every two seconds.
const SETTLED: Duration = Duration::from_secs(3);

/// What is known of files, and where that is kept.
pub struct Digests {
    memo: PathBuf,
    /// Oldest first.
    entries: Vec<(Stat, Digest)>,
    has_news: bool,
}

/// What tells a file from another, and from itself when it was something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Digests {
    /// What the memo in this folder knows: nothing if there is none.
    pub fn open(folder: &Path) -> Digests {
        let memo = folder.join(MEMO);
        let entries = match read_memo(&memo) {
            Ok(text) => parse(&text).unwrap_or_else(|| {
                tracing::warn!(path = %memo.display(), "file of digests is damaged, made anew");
                Vec::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(path = %memo.display(), %error, "file of digests is not used");
                Vec::new()
            }
        };
        Digests { memo, entries, has_news: false }
    }

    /// The digest of an open file's contents.
    pub fn of(&mut self, file: &File, now: SystemTime) -> io::Result<Digest> {
        let stat = Stat::of(file)?;
        if let Some((_, digest)) = self.entries.iter().find(|(known, _)| *known == stat) {
            return Ok(*digest);
        }
        let digest = hash(file)?;
        if stat == Stat::of(file)? && stat.is_settled(now) {
            self.remember(stat, digest);
        }
        Ok(digest)
    }

    /// Writes down what is new.
    pub fn save(&self) {
        if !self.has_news {
            return;
        }
        if let Err(error) = self.write() {
            tracing::info!(path = %self.memo.display(), %error, "digests cannot be kept");
        }
    }

    fn remember(&mut self, stat: Stat, digest: Digest) {
        // What the file was before is of no use any more.
        self.entries.retain(|(old, _)| (old.device, old.inode) != (stat.device, stat.inode));
        if self.entries.len() == ENTRIES_MAX {
            self.entries.remove(0);
        }
        self.entries.push((stat, digest));
        self.has_news = true;
    }

    fn write(&self) -> io::Result<()> {
        let folder = self.memo.parent().expect("it was joined to a folder");
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // For this user alone, as every temporary file is.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(render(&self.entries).as_bytes())?;
        file.persist(&self.memo)?;
        Ok(())
    }
}

impl Stat {
    fn of(file: &File) -> io::Result<Stat> {
        let metadata = file.metadata()?;
        Ok(Stat {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether any further change would show in the times. `changed` alone says it: it is set
    /// whenever the file is, and to no time but the present.
    fn is_settled(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed = Duration::new(seconds.max(0) as u64, nanoseconds as u32);
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(changed) > SETTLED
    }
}

fn hash(file: &File) -> io::Result<Digest> {
    let mut buffer = vec![0; READ_BYTES];
    let mut hasher = Sha256::new();
    let mut offset = 0;
    loop {
        // The handle's own position stays where its owner has it.
        match file.read_at(&mut buffer, offset) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
}

/// The memo's text, if it is a file of this user that nobody else may write.
fn read_memo(path: &Path) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_file() || !is_ours || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("somebody else could have written it"));
    }
    if metadata.len() > MEMO_BYTES_MAX {
        return Err(io::Error::other(format!("it has {} bytes", metadata.len())));
    }
    let mut text = String::new();
    file.take(MEMO_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// A line for the format, one for each entry, and a digest of all that.
fn render(entries: &[(Stat, Digest)]) -> String {
    let mut text = format!("{FORMAT}\n");
    for (Stat { device, inode, bytes, modified, changed }, digest) in entries {
        text += &format!(
            "{device} {inode} {bytes} {} {} {} {} {}\n",
            modified.0,
            modified.1,
            changed.0,
            changed.1,
            hex(digest)
        );
    }
    let digest: Digest = Sha256::digest(&text).into();
    text + &hex(&digest) + "\n"
}

/// `None` unless it is to the byte what [`render`] writes.
fn parse(text: &str) -> Option<Vec<(Stat, Digest)>> {
    let entries: Vec<(Stat, Digest)> =
        text.lines().filter(|line| line.contains(' ')).skip(1).map_while(parse_entry).collect();
    (entries.len() <= ENTRIES_MAX && render(&entries) == text).then_some(entries)
}

fn parse_entry(line: &str) -> Option<(Stat, Digest)> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [device, inode, bytes, modified, modified_ns, changed, changed_ns, digest] = fields[..]
    else {
        return None;
    };
    let time =
        |seconds: &str, nanoseconds: &str| Some((seconds.parse().ok()?, nanoseconds.parse().ok()?));
    let stat = Stat {
        device: device.parse().ok()?,
        inode: inode.parse().ok()?,
        bytes: bytes.parse().ok()?,
        modified: time(modified, modified_ns)?,
        changed: time(changed, changed_ns)?,
    };
    Some((stat, unhex(digest)?))
}

/// As everybody writes a SHA-256.
pub fn hex(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    fn digest_of(folder: &Path, path: &Path, now: SystemTime) -> Digest {
        let mut digests = Digests::open(folder);
        let digest = digests.of(&File::open(path).expect("a file"), now).expect("it can be read");
        digests.save();
        digest
    }

    fn memo(folder: &Path) -> String {
        fs::read_to_string(folder.join(MEMO)).expect("a memo")
    }

    /// A memo that says something else of a file, so that its use shows.
    fn write_lie(folder: &Path, stat: Stat) {
        fs::write(folder.join(MEMO), render(&[(stat, [7; 32])])).expect("written");
    }

    #[test]
    fn a_file_is_read_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (kept, path) = (folder.path().join("a/b"), folder.path().join("weights"));
        fs::write(&path, b"abc").expect("written");
        let digest = digest_of(&kept, &path, later());
        assert_eq!(
            hex(&digest),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(fs::metadata(kept.join(MEMO)).expect("a file").mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&kept).expect("a folder").mode() & 0o777, 0o700);
        // Most file systems count a new name as a change of the file, so the lie is told after it.
        let moved = folder.path().join("moved");
        fs::rename(&path, &moved).expect("renamed");
        assert_eq!(digest_of(&kept, &moved, later()), digest);
        write_lie(&kept, Stat::of(&File::open(&moved).expect("a file")).expect("a stat"));
        assert_eq!(digest_of(&kept, &moved, later()), [7; 32], "the memo was not used");
    }

    #[test]
    fn a_memo_of_anything_else_is_not_trusted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights");
        fs::write(&path, b"abc").expect("written");
        let stat = Stat::of(&File::open(&path).expect("a file")).expect("a stat");
        let truth = Digest::from(Sha256::digest(b"abc"));
        let others = [
            Stat { device: stat.device + 1, ..stat },
            Stat { inode: stat.inode + 1, ..stat },
            Stat { bytes: stat.bytes + 1, ..stat },
            Stat { modified: (stat.modified.0 + 1, stat.modified.1), ..stat },
            Stat { modified: (stat.modified.0, stat.modified.1 ^ 1), ..stat },
            Stat { changed: (stat.changed.0 - 1, stat.changed.1), ..stat },
            Stat { changed: (stat.changed.0, stat.changed.1 ^ 1), ..stat },
        ];
        for other in others {
            write_lie(folder.path(), other);
            assert_eq!(digest_of(folder.path(), &path, later()), truth, "{other:?}");
        }
    }

    #[test]
    fn a_file_that_may_still_be_changing_is_not_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights");
        fs::write(&path, b"abc").expect("written");
        digest_of(folder.path(), &path, SystemTime::now());
        assert!(!folder.path().join(MEMO).exists());
        digest_of(folder.path(), &path, later());
        assert_eq!(memo(folder.path()).lines().count(), 3);
        // A change replaces what was known of the file.
        fs::write(&path, b"abcd").expect("written");
        digest_of(folder.path(), &path, later());
        assert_eq!(memo(folder.path()).lines().count(), 3);
    }

    #[test]
    fn a_damaged_or_foreign_memo_is_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, kept) = (folder.path().join("weights"), folder.path().join(MEMO));
        fs::write(&path, b"abc").expect("written");
        let truth = digest_of(folder.path(), &path, later());
        let good = memo(folder.path());
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1;
            fs::write(&kept, &bytes).expect("written");
            assert_eq!(digest_of(folder.path(), &path, later()), truth);
            assert_eq!(memo(folder.path()), good, "byte {at} is not protected");
        }
        for text in ["", "semantic-digests 2\n", &good[..good.len() / 2], "\u{0}"] {
            assert_eq!(parse(text), None);
        }
        // Anybody could have written this one, and a folder or a link is none.
        let stat = Stat::of(&File::open(&path).expect("a file")).expect("a stat");
        write_lie(folder.path(), stat);
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o666)).expect("ours");
        assert_eq!(digest_of(folder.path(), &path, later()), truth);
        fs::rename(&kept, folder.path().join("elsewhere")).expect("renamed");
        write_lie(folder.path(), stat);
        fs::rename(&kept, folder.path().join("elsewhere")).expect("renamed");
        std::os::unix::fs::symlink("elsewhere", &kept).expect("a link");
        assert_eq!(digest_of(folder.path(), &path, later()), truth);
    }

    #[test]
    fn the_oldest_entries_make_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut digests = Digests::open(folder.path());
        let stat = |inode| Stat { device: 1, inode, bytes: 2, modified: (3, 4), changed: (5, 6) };
        for inode in 0..ENTRIES_MAX as u64 + 5 {
            digests.remember(Stat { ..stat(u64::MAX - inode) }, [0xff; 32]);
        }
        digests.save();
        assert!(memo(folder.path()).len() as u64 <= MEMO_BYTES_MAX);
        let read = Digests::open(folder.path());
        assert_eq!(read.entries.len(), ENTRIES_MAX);
        assert_eq!(read.entries, digests.entries);
        assert_eq!(read.entries[0].0, stat(u64::MAX - 5));
    }
}
