//! The keys file: who may ask a server, with hashes in place of keys.
//!
//! Errors never show a line of the file: who writes a key where its hash belongs should not find it
//! in the log.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

/// A thousand keys take a quarter of that.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Each request is compared with every key.
const KEYS_MAX: usize = 1000;
/// For names and namespaces, which people read.
const NAME_BYTES_MAX: usize = 128;
/// Of the file's mode, what lets others in.
const OTHERS: u32 = 0o077;
const FOLDER_MODE: u32 = 0o700;
const HASH_PREFIX: &str = "sha256:";

/// A key as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    pub name: String,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// The name, if the file gives none.
    pub namespace: String,
    /// Requests per minute with this key; 0 is no limit.
    pub rate_limit: Option<u32>,
    /// And of each agent of its namespace, in place of the server's.
    pub rate_limit_agent: Option<u32>,
    /// Tokens per minute with this key, in place of the server's limit; 0 is none.
    pub tokens_per_minute: Option<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("there is no keys file {}", path.display())]
    Missing { path: PathBuf },
    #[error("cannot {action} the keys file {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the keys file {} has mode {mode:04o}: others on this machine could read or change it", path.display())]
    OpenToOthers { path: PathBuf, mode: u32 },
    #[error("the keys file {} is not valid: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error("the keys file {} has a key {name:?} already", path.display())]
    NameTaken { path: PathBuf, name: String },
    #[error("the keys file {} has a key in namespace {namespace:?} already", path.display())]
    NamespaceTaken { path: PathBuf, namespace: String },
}

/// The keys in a file that nobody else can read.
pub fn read_keys(path: &Path) -> Result<Vec<KeyEntry>, KeysError> {
    parse(&read(path)?).map_err(|reason| KeysError::Invalid { path: path.to_owned(), reason })
}

/// Adds a key to a file, which is made if it is not there: whole or not at all, and readable by
/// its owner alone.
pub fn add_key(path: &Path, entry: &KeyEntry) -> Result<(), KeysError> {
    let invalid = |reason| KeysError::Invalid { path: path.to_owned(), reason };
    let io = |action| {
        let path = path.to_owned();
        move |source| KeysError::Io { action, path, source }
    };
    // The file itself, where a link to it is named.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = match target.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(io("make"))?;
    let folder_file = File::open(folder).map_err(io("make"))?;
    // Two that add a key at once would otherwise lose one.
    folder_file.lock().map_err(io("lock"))?;
    let mut text = match read(&target) {
        Ok(text) => text,
        Err(KeysError::Missing { .. }) => String::new(),
        Err(error) => return Err(error),
    };
    let keys = parse(&text).map_err(invalid)?;
    if keys.iter().any(|key| key.name == entry.name) {
        return Err(KeysError::NameTaken { path: path.to_owned(), name: entry.name.clone() });
    }
    // Who is to share the agents of another key says so in the file.
    if keys.iter().any(|key| key.namespace == entry.namespace) {
        let namespace = entry.namespace.clone();
        return Err(KeysError::NamespaceTaken { path: path.to_owned(), namespace });
    }
    text.push_str(&entry.to_toml(if text.is_empty() { "" } else { "\n" }));
    parse(&text).map_err(invalid)?;
    // It has mode 0600 from the start.
    let mut new = tempfile::NamedTempFile::new_in(folder).map_err(io("write"))?;
    new.write_all(text.as_bytes()).map_err(io("write"))?;
    new.as_file().sync_all().map_err(io("write"))?;
    new.persist(&target).map_err(|error| io("write")(error.error))?;
    folder_file.sync_all().map_err(io("write"))
}

impl KeyEntry {
    fn to_toml(&self, before: &str) -> String {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let digits: String = self.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "{before}[[key]]\nname = {}\nhash = \"{HASH_PREFIX}{digits}\"\nnamespace = {}\n",
            quoted(&self.name),
            quoted(&self.namespace),
        )
    }
}

/// Its text, if it is nobody else's.
fn read(path: &Path) -> Result<String, KeysError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeysError::Missing { path: path.to_owned() },
        _ => KeysError::Io { action: "read", path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    // Not a pipe from a shell's `<(…)`, which no one else can open.
    if metadata.is_file() && metadata.mode() & OTHERS != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(KeysError::OpenToOthers { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(io)?;
    match text.len() as u64 > FILE_BYTES_MAX {
        true => {
            let reason = format!("it has more than {FILE_BYTES_MAX} bytes");
            Err(KeysError::Invalid { path: path.to_owned(), reason })
        }
        false => Ok(text),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    key: Vec<RawKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    name: Spanned<String>,
    hash: Spanned<String>,
    namespace: Option<Spanned<String>>,
    rate_limit: Option<u32>,
    rate_limit_agent: Option<u32>,
    tokens_per_minute: Option<u32>,
}

fn parse(text: &str) -> Result<Vec<KeyEntry>, String> {
    let line = |offset: usize| 1 + text[..offset].matches('\n').count();
    let file: RawFile = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(String::new(), |span| format!("line {}: ", line(span.start)));
        format!("{at}{}", without_values(error.message()))
    })?;
    if file.key.len() > KEYS_MAX {
        return Err(format!("it has {} keys; at most {KEYS_MAX}", file.key.len()));
    }
    let mut keys = Vec::new();
    let mut lines_of_names = BTreeMap::new();
    let mut lines_of_hashes = BTreeMap::new();
    let mut agent_rates = BTreeMap::new();
    for raw in file.key {
        let name_line = line(raw.name.span().start);
        let hash_line = line(raw.hash.span().start);
        let namespace_line = raw.namespace.as_ref().map_or(name_line, |it| line(it.span().start));
        let name = raw.name.into_inner();
        let namespace = raw.namespace.map_or_else(|| name.clone(), Spanned::into_inner);
        let hash = parse_hash(raw.hash.get_ref()).ok_or_else(|| {
            format!("line {hash_line}: hash is not \"{HASH_PREFIX}\" and 64 hexadecimal digits")
        })?;
        check_name("name", &name).map_err(|reason| format!("line {name_line}: {reason}"))?;
        check_name("namespace", &namespace)
            .map_err(|reason| format!("line {namespace_line}: {reason}"))?;
        if let Some(first) = lines_of_names.insert(name.clone(), name_line) {
            return Err(format!(
                "line {name_line}: the name {name:?} is that of line {first}, too"
            ));
        }
        if let Some(first) = lines_of_hashes.insert(hash, hash_line) {
            return Err(format!("line {hash_line}: the hash is that of line {first}, too"));
        }
        // Agents have their limit by namespace, which several keys may share.
        let rate = raw.rate_limit_agent;
        let (first_rate, first) =
            *agent_rates.entry(namespace.clone()).or_insert((rate, name_line));
        if first_rate != rate {
            return Err(format!(
                "line {name_line}: rate_limit_agent of namespace {namespace:?} is another one at \
                 line {first}"
            ));
        }
        keys.push(KeyEntry {
            name,
            hash,
            namespace,
            rate_limit: raw.rate_limit,
            rate_limit_agent: rate,
            tokens_per_minute: raw.tokens_per_minute,
        });
    }
    Ok(keys)
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(HASH_PREFIX)?;
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(hash)
}

/// What may be the name of a key, or of the namespace of one.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err(format!("the {what} is empty")),
        bytes if bytes > NAME_BYTES_MAX => {
            Err(format!("the {what} has {bytes} bytes; at most {NAME_BYTES_MAX}"))
        }
        _ if name.chars().any(char::is_control) => {
            Err(format!("the {what} has a control character"))
        }
        _ => Ok(()),
    }
}

/// serde's "invalid type: string "…", expected …" quotes what stands there.
fn without_values(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}…{}", &message[..=first], &message[last..])
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use expect_test::expect;

    use super::*;

    fn entry(name: &str) -> KeyEntry {
        KeyEntry {
            name: name.to_owned(),
            hash: [name.len() as u8; 32],
            namespace: name.to_owned(),
            rate_limit: None,
            rate_limit_agent: None,
            tokens_per_minute: None,
        }
    }

    #[test]
    fn keys_that_were_added_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/keys.toml");
        let names = ["a", "bé", "c \"quoted\" \\"];
        for name in names {
            add_key(&path, &entry(name)).unwrap();
        }
        assert_eq!(read_keys(&path).unwrap(), names.map(entry));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(matches!(add_key(&path, &entry("a")), Err(KeysError::NameTaken { .. })));
        let again = KeyEntry { hash: entry("a").hash, ..entry("d") };
        assert!(matches!(add_key(&path, &again), Err(KeysError::Invalid { .. })));
        let joins = KeyEntry { namespace: "a".to_owned(), ..entry("four") };
        assert!(matches!(add_key(&path, &joins), Err(KeysError::NamespaceTaken { .. })));
        // Nothing else is left there, and what a person wrote stays.
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        let text = format!("# mine\n{}", fs::read_to_string(&path).unwrap());
        fs::write(&path, text).unwrap();
        add_key(&path, &entry("four")).unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with("# mine\n"));
    }

    #[test]
    fn a_file_that_others_can_read_or_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        add_key(&path, &entry("a")).unwrap();
        for mode in [0o644, 0o640, 0o620, 0o602, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            for error in [read_keys(&path).map(|_| ()), add_key(&path, &entry("b"))] {
                assert!(matches!(error, Err(KeysError::OpenToOthers { .. })), "{mode:o}");
            }
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(read_keys(&path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn mistakes_are_named_by_their_line_and_never_shown() {
        let hash = format!("hash = \"sha256:{}\"", "0a".repeat(32));
        let other = hash.replace("0a", "0b");
        let mut found = String::new();
        for text in [
            "name = 1".to_owned(),
            "key = \"secret\"".to_owned(),
            "[[key]]\nname = \"a\"".to_owned(),
            format!("[[key]]\nname = \"a\"\n{hash}\nkey = \"secret\""),
            format!("[[key]]\nname = \"a\"\n{hash}\nrate_limit = \"secret\""),
            format!("[[key]]\nname = \"a\"\n{hash}\nrate_limit = -1"),
            "[[key]]\nname = \"a\"\nhash = \"secret\"".to_owned(),
            "[[key]]\nname = \"a\"\nhash = \"secret".to_owned(),
            format!("[[key]]\nname = \"\"\n{hash}"),
            format!("[[key]]\nname = \"a\"\n{hash}\nnamespace = \"a\\u0007\""),
            format!("[[key]]\nname = \"a\"\n{hash}\n[[key]]\nname = \"a\"\n{other}"),
            format!("[[key]]\nname = \"a\"\n{hash}\n[[key]]\nname = \"b\"\n{hash}"),
            format!(
                "[[key]]\nname = \"a\"\n{hash}\nrate_limit_agent = 1\n[[key]]\nname = \"b\"\n{other}\nnamespace = \"a\""
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
            found.push_str(&format!("{error}\n"));
        }
        expect![[r#"
            line 1: unknown field `name`, expected `key`
            line 1: invalid type: string "…", expected a sequence
            line 1: missing field `hash`
            line 4: unknown field `key`, expected one of `name`, `hash`, `namespace`, `rate_limit`, `rate_limit_agent`, `tokens_per_minute`
            line 4: invalid type: string "…", expected u32
            line 4: invalid value: integer `-1`, expected u32
            line 3: hash is not "sha256:" and 64 hexadecimal digits
            line 3: invalid basic string, expected `"`
            line 2: the name is empty
            line 4: the namespace has a control character
            line 5: the name "a" is that of line 2, too
            line 6: the hash is that of line 3, too
            line 6: rate_limit_agent of namespace "a" is another one at line 2
        "#]].assert_eq(&found);
        assert_eq!(parse("").unwrap(), []);
    }
}
