//! Opens a store: the lock, the format, the key; what is missing is made in an order that a crash
//! cannot turn into a store that nobody can read.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex};

use super::disk::{Disk, EntryKind, LockError};
use super::files::Files;
use super::header::Headers;
use super::keys::{self, KEY_FILE_BYTES, SECRET_BYTES, Secrets};
use super::{OpenError, Settings, Store, StoreError, layout, load};

/// What the first line of the file FORMAT says. Another first word is no store of ours, another
/// number a newer one. The second line says which KEY belongs to the store: with another one, every
/// agent would look damaged.
const FORMAT: &str = "semantic-cache 1";
const FORMAT_WORD: &str = "semantic-cache ";
const FORMAT_BYTES_MAX: usize = 64;

/// How the old program's files end.
const ANCESTOR_SUFFIX: &str = ".safetensors";

/// What a folder is, before anything in it is touched.
enum Found {
    Nothing,
    /// Made, or half made, by a process that ended: without agents.
    NoKey {
        has_format: bool,
    },
    Whole {
        has_format: bool,
        secret: [u8; SECRET_BYTES],
    },
}

impl Store {
    /// Opens a store for reading and writing, and makes what is missing.
    pub fn open(disk: Arc<dyn Disk>, settings: Settings) -> Result<Store, OpenError> {
        // A folder that is not ours is left as it is, without a lock file.
        inspect(&*disk)?;
        let lock = disk.lock(layout::LOCK).map_err(|error| match error {
            LockError::Held { pid } => OpenError::Locked { pid },
            LockError::Io(source) => error_at("lock", layout::LOCK, source),
        })?;
        let found = inspect(&*disk)?;
        let files = Files::new(disk);
        clear_temporary(&files)?;
        let secret = make_missing(&files, found)?;
        let secrets = Secrets::of(&secret);
        let mut loaded = load::load(&files, &secrets).map_err(open_error)?;
        load::quarantine_bad(&files, &mut loaded);
        load::clear_superseded(&files, &mut loaded);
        load::clear_orphans(&files, &mut loaded.index);
        Ok(Store {
            files,
            settings,
            secrets,
            headers: Headers::default(),
            index: Mutex::new(loaded.index),
            moved: Condvar::new(),
            found: loaded.damage,
            lock: Some(lock),
        })
    }

    /// Opens a store without changing anything, also beside a process that writes. Where none is,
    /// it is empty.
    pub fn open_read_only(disk: Arc<dyn Disk>, settings: Settings) -> Result<Store, OpenError> {
        let secret = match inspect(&*disk)? {
            Found::Whole { secret, .. } => secret,
            // There is nothing to read, and what is computed with this goes nowhere.
            Found::Nothing | Found::NoKey { .. } => [0; SECRET_BYTES],
        };
        let files = Files::new(disk);
        let secrets = Secrets::of(&secret);
        let loaded = load::load(&files, &secrets).map_err(open_error)?;
        Ok(Store {
            files,
            settings,
            secrets,
            headers: Headers::default(),
            index: Mutex::new(loaded.index),
            moved: Condvar::new(),
            found: loaded.damage,
            lock: None,
        })
    }
}

/// Looks and changes nothing.
fn inspect(disk: &dyn Disk) -> Result<Found, OpenError> {
    let entries = match disk.list(layout::ROOT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        other => other.map_err(|source| error_at("list", layout::ROOT, source))?,
    };
    let ancestor = |name: &str| name.ends_with(ANCESTOR_SUFFIX);
    if let Some(entry) = entries.iter().find(|entry| ancestor(&entry.name)) {
        return Err(OpenError::Ancestor { file: entry.name.clone() });
    }
    let is_there = |name: &str| entries.iter().any(|entry| entry.name == name);
    let has_format = is_there(layout::FORMAT);
    let format = match has_format {
        true => read_short(disk, layout::FORMAT, FORMAT_BYTES_MAX)?,
        false => Vec::new(),
    };
    let format = String::from_utf8_lossy(&format);
    if has_format {
        check_format(&format)?;
    }
    // FORMAT is written before the first agent.
    let has_agents = is_there(layout::NAMESPACES)
        && !disk
            .list(layout::NAMESPACES)
            .map_err(|source| error_at("list", layout::NAMESPACES, source))?
            .is_empty();
    if !has_format && has_agents {
        return Err(OpenError::UnknownFormat { found: String::new() });
    }
    if !is_there(layout::KEY) {
        return match has_agents {
            true => Err(OpenError::KeyMissing),
            false => Ok(Found::NoKey { has_format }),
        };
    }
    let file = read_short(disk, layout::KEY, KEY_FILE_BYTES + 1)?;
    let secret = keys::secret_in(&file).ok_or(OpenError::KeyDamaged)?;
    if has_format && format != format_file(&secret) {
        return Err(OpenError::KeyForeign);
    }
    Ok(Found::Whole { has_format, secret })
}

fn format_file(secret: &[u8; SECRET_BYTES]) -> String {
    format!("{FORMAT}\nkey {}\n", keys::id(secret))
}

fn check_format(found: &str) -> Result<(), OpenError> {
    let (first, rest) = found.split_once('\n').unwrap_or((found, ""));
    let id = rest.strip_prefix("key ").and_then(|rest| rest.strip_suffix('\n'));
    let is_id = |id: &str| id.len() == keys::ID_DIGITS && id.bytes().all(|c| c.is_ascii_hexdigit());
    if first == FORMAT && id.is_some_and(is_id) {
        return Ok(());
    }
    let number = first.strip_prefix(FORMAT_WORD);
    let found = first.trim_end().to_owned();
    match number.map(str::parse::<u64>) {
        Some(Ok(number)) if number > 1 => Err(OpenError::NewerFormat { found }),
        _ => Err(OpenError::UnknownFormat { found }),
    }
}

/// KEY before FORMAT, and each safe before the next: with FORMAT there may be agents, and agents
/// need the key that they were saved with.
fn make_missing(files: &Files, found: Found) -> Result<[u8; SECRET_BYTES], OpenError> {
    let (secret, has_format) = match found {
        Found::Whole { secret, has_format } => (secret, has_format),
        Found::Nothing | Found::NoKey { .. } => {
            let secret = random_secret().map_err(|source| error_at("make", layout::KEY, source))?;
            // It names a KEY that is gone, and must be gone for sure before there is another.
            if matches!(found, Found::NoKey { has_format: true }) {
                files.remove(layout::FORMAT).map_err(open_error)?;
                files.changed(layout::ROOT, None);
                files.sync_path(layout::ROOT, |_| ()).map_err(open_error)?;
            }
            write_named(files, layout::KEY, &keys::key_file(&secret))?;
            (secret, false)
        }
    };
    // What is there may be of a process that ended before it was safe.
    files.changed(layout::ROOT, None);
    files.sync_path(layout::ROOT, |_| ()).map_err(open_error)?;
    if !has_format {
        write_named(files, layout::FORMAT, format_file(&secret).as_bytes())?;
    }
    files.make_folder(layout::NAMESPACES).map_err(open_error)?;
    files.make_folder(layout::QUARANTINE).map_err(open_error)?;
    Ok(secret)
}

fn write_named(files: &Files, name: &'static str, bytes: &[u8]) -> Result<(), OpenError> {
    let mut file = files.write(&[bytes]).map_err(open_error)?;
    file.rename(name).map_err(|source| error_at("name", name, source))?;
    files.changed(layout::ROOT, None);
    files.sync_path(layout::ROOT, |_| ()).map_err(open_error)
}

/// What a process left that ended while it wrote. The lock is ours, so nobody is writing.
fn clear_temporary(files: &Files) -> Result<(), OpenError> {
    files.make_folder(layout::TEMPORARY).map_err(open_error)?;
    for entry in files.list(layout::TEMPORARY).map_err(open_error)? {
        let path = format!("{}/{}", layout::TEMPORARY, entry.name);
        match entry.kind {
            EntryKind::File => files.remove(&path).map_err(open_error)?,
            EntryKind::Folder | EntryKind::Other => {
                tracing::warn!(path, "nothing of the cache has this name; it stays");
            }
        }
    }
    Ok(())
}

fn random_secret() -> io::Result<[u8; SECRET_BYTES]> {
    let mut secret = [0; SECRET_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    Ok(secret)
}

fn read_short(disk: &dyn Disk, name: &'static str, bytes: usize) -> Result<Vec<u8>, OpenError> {
    let failed = |source| error_at("read", name, source);
    let mut buffer = vec![0; bytes];
    let read = disk.open(name).map_err(failed)?.read_at(0, &mut buffer).map_err(failed)?;
    buffer.truncate(read);
    Ok(buffer)
}

fn error_at(operation: &'static str, path: &str, source: io::Error) -> OpenError {
    let is_reading = matches!(operation, "list" | "read");
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if !is_reading => {
            OpenError::NotWritable { source }
        }
        _ => OpenError::Io { operation, path: path.to_owned(), source },
    }
}

fn open_error(error: StoreError) -> OpenError {
    match error {
        StoreError::Io { operation, path, source } => error_at(operation, &path, source),
        StoreError::Full { .. } => OpenError::NotWritable {
            source: io::Error::new(io::ErrorKind::StorageFull, "the disk is full"),
        },
        other => OpenError::Io {
            operation: "open",
            path: String::new(),
            source: io::Error::other(other.to_string()),
        },
    }
}
