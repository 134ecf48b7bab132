//! Who may ask a server: keys from the environment and the keys file, and how new ones are made.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::cli::output::Failure;
use crate::config::{KeyEntry, KeysError, add_key, check_name, read_keys};
use crate::http::{Access, AdminKey, Grant, KEY_CHARS_MIN, KeyDigest, KeyError, KeyRates, Keys};
use crate::types::Namespace;

/// Never a flag: other users see a program's arguments.
pub const KEYS_VARIABLE: &str = "SEMANTIC_API_KEYS";
const ADMIN_KEY_VARIABLE: &str = "SEMANTIC_ADMIN_KEY";
/// Of the key that a first start makes.
const FIRST_NAME: &str = "default";
/// What our keys begin with, so that programs which look for secrets in texts find them.
const KEY_PREFIX: &str = "sk-sem-";
/// 160 bits.
const KEY_BYTES: usize = 20;

/// Where the names and hashes of keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysFile {
    Named(PathBuf),
    /// Where it is looked for if nobody says; it need not be there.
    Usual(PathBuf),
}

impl KeysFile {
    pub fn path(&self) -> &Path {
        let (KeysFile::Named(path) | KeysFile::Usual(path)) = self;
        path
    }
}

/// Everything that says who may ask.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// Of the environment.
    pub keys: Option<String>,
    pub file: KeysFile,
    pub no_auth: bool,
    pub address: IpAddr,
    pub reader: Reader,
}

/// Who would see a key that is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Somebody at a terminal, and nobody else.
    Person,
    /// A log, for instance.
    Unknown,
}

impl Reader {
    pub fn of_this_process() -> Reader {
        match io::stdin().is_terminal() && io::stderr().is_terminal() {
            true => Reader::Person,
            false => Reader::Unknown,
        }
    }
}

/// Who may ask, or that a key is to be made for whoever started the server.
pub enum Entry {
    Access(Access),
    FirstKey(PathBuf),
}

/// How many keys there are, by where they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub of_environment: usize,
    pub of_file: usize,
}

impl Entrance {
    /// The environment's, and those of the usual file if there is no other.
    pub fn new(file: KeysFile, no_auth: bool, address: IpAddr) -> Entrance {
        let keys = std::env::var(KEYS_VARIABLE).ok();
        Entrance { keys, file, no_auth, address, reader: Reader::of_this_process() }
    }

    /// Refuses what would leave the server open to others by accident.
    pub fn open(&self) -> Result<Entry, Failure> {
        let keys = self.of_environment()?;
        if self.no_auth {
            return self.without_keys(&keys);
        }
        let keys = keys.with(self.of_file()?).map_err(|index| {
            let message = format!(
                "key {} of {} is also in {KEYS_VARIABLE}",
                index + 1,
                self.file.path().display()
            );
            refused(message, "take it away in one of the two")
        })?;
        match (keys.is_empty(), &self.file, self.reader) {
            (false, _, _) => Ok(Entry::Access(Access::Keys(keys))),
            (true, KeysFile::Usual(path), Reader::Person) if self.address.is_loopback() => {
                Ok(Entry::FirstKey(path.clone()))
            }
            (true, _, _) => Err(refused(
                "there are no API keys".to_owned(),
                &format!(
                    "make one with `semantic serve --new-key NAME`, set {KEYS_VARIABLE}=KEY[,KEY…] \
                     or name a --keys-file; --no-auth lets every program on this machine in, on a \
                     loopback address"
                ),
            )),
        }
    }

    pub fn counts(&self) -> Result<Counts, Failure> {
        let (of_environment, of_file) = (self.of_environment()?.len(), self.of_file()?.len());
        Ok(Counts { of_environment, of_file })
    }

    fn without_keys(&self, keys: &Keys) -> Result<Entry, Failure> {
        let is_both = |what: &str| {
            let message = format!("{what} and --no-auth is given");
            Err(refused(message, "take one of them away"))
        };
        match &self.file {
            _ if !keys.is_empty() => is_both(&format!("{KEYS_VARIABLE} is set")),
            KeysFile::Named(_) => is_both("a keys file is named"),
            KeysFile::Usual(_) if self.address.is_loopback() => Ok(Entry::Access(Access::Open)),
            KeysFile::Usual(_) => Err(refused(
                format!("--no-auth would let everyone who reaches {} in", self.address),
                &format!("set {KEYS_VARIABLE} or name a --keys-file, or listen on 127.0.0.1"),
            )),
        }
    }

    fn of_environment(&self) -> Result<Keys, Failure> {
        match self.keys.as_deref().map(Keys::parse) {
            None | Some(Err(KeyError::None)) => Ok(Keys::default()),
            Some(Ok(keys)) => Ok(keys),
            Some(Err(error)) => Err(refused(
                format!("{KEYS_VARIABLE}: {error}"),
                &format!(
                    "give random keys of {KEY_CHARS_MIN} or more letters and digits, separated by \
                     commas: `openssl rand -hex 16` makes one"
                ),
            )),
        }
    }

    fn of_file(&self) -> Result<Vec<Grant>, Failure> {
        let entries = match (&self.file, read_keys(self.file.path())) {
            (_, Ok(entries)) => entries,
            (KeysFile::Usual(_), Err(KeysError::Missing { .. })) => Vec::new(),
            (_, Err(error)) => return Err(file_failure(error)),
        };
        Ok(entries.into_iter().map(grant).collect())
    }
}

/// The administrator's key; an empty variable is none.
pub fn admin_key() -> Result<Option<AdminKey>, Failure> {
    let text = std::env::var(ADMIN_KEY_VARIABLE).unwrap_or_default();
    match text.trim() {
        "" => Ok(None),
        key => AdminKey::new(key).map(Some).map_err(|error| {
            let hint = format!("give {KEY_CHARS_MIN} or more random letters and digits");
            refused(format!("{ADMIN_KEY_VARIABLE}: {error}"), &hint)
        }),
    }
}

/// Makes a key and keeps its hash. Nobody can find out the key later.
pub fn make(name: &str, path: &Path) -> Result<String, Failure> {
    check_name("name of the key", name).map_err(Failure::Usage)?;
    if Namespace::new(name) == Namespace::local() {
        let message = format!("the name {name:?} is that of the agents without a key");
        return Err(Failure::Usage(message));
    }
    let key = random_key().map_err(|error| {
        Failure::from(anyhow::Error::new(error).context("no random numbers to make a key of"))
    })?;
    let entry = KeyEntry {
        name: name.to_owned(),
        hash: KeyDigest::of(&key).0,
        namespace: name.to_owned(),
        rate_limit: None,
        rate_limit_agent: None,
        tokens_per_minute: None,
    };
    add_key(path, &entry).map_err(file_failure)?;
    Ok(key)
}

/// The key of a first start, and who may ask from now on.
pub fn make_first(path: &Path) -> Result<(String, Access), Failure> {
    let key = make(FIRST_NAME, path)?;
    let entries = read_keys(path).map_err(file_failure)?;
    let grants = entries.into_iter().map(grant).collect();
    let keys = Keys::default().with(grants).expect("the file has each key once");
    Ok((key, Access::Keys(keys)))
}

/// What to tell whoever has started a server for the first time.
pub fn introduction(key: &str, path: &Path) -> String {
    let path = path.display();
    format!(
        "this is your API key, which no later start shows; its hash is in {path}\n\n    {key}\n"
    )
}

fn grant(entry: KeyEntry) -> Grant {
    Grant {
        digest: KeyDigest(entry.hash),
        namespace: Namespace::new(&entry.namespace),
        rates: KeyRates {
            key: entry.rate_limit,
            agent: entry.rate_limit_agent,
            tokens: entry.tokens_per_minute,
        },
    }
}

fn random_key() -> io::Result<String> {
    let mut bytes = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{KEY_PREFIX}{digits}"))
}

fn refused(message: String, hint: &str) -> Failure {
    Failure::Misconfigured { message, hint: hint.to_owned() }
}

fn file_failure(error: KeysError) -> Failure {
    let message = error.to_string();
    match error {
        KeysError::OpenToOthers { path, .. } => {
            refused(message, &format!("chmod 600 {}", path.display()))
        }
        KeysError::Missing { .. } => {
            refused(message, "`semantic serve --keys-file FILE --new-key NAME` makes it")
        }
        KeysError::Invalid { .. } => refused(
            message,
            "each [[key]] has name, hash and, if you like, namespace, rate_limit, rate_limit_agent and \
             tokens_per_minute",
        ),
        KeysError::Io { action: "read", .. } => {
            refused(message, "make it readable for this user, or name another --keys-file")
        }
        KeysError::Io { .. } => Failure::CannotWrite {
            message,
            hint: "make its folder writable for this user, or name another --keys-file".to_owned(),
        },
        KeysError::NamespaceTaken { .. } => Failure::with_hint(
            error,
            Some("choose another name; who is to share its agents says so in the file".to_owned()),
        ),
        KeysError::NameTaken { .. } => Failure::with_hint(
            error,
            Some("take another name, or take that key out of the file".to_owned()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef";

    fn entrance(keys: Option<&str>, file: KeysFile, address: &str) -> Entrance {
        let address = address.parse().expect("an address");
        let keys = keys.map(str::to_owned);
        Entrance { keys, file, no_auth: false, address, reader: Reader::Unknown }
    }

    fn outcome(entrance: &Entrance) -> Result<&'static str, String> {
        match entrance.open() {
            Ok(Entry::Access(Access::Keys(_))) => Ok("keys"),
            Ok(Entry::Access(Access::Open)) => Ok("open"),
            Ok(Entry::FirstKey(_)) => Ok("first key"),
            Err(Failure::Misconfigured { message, .. }) => Err(message),
            Err(_) => panic!("another failure"),
        }
    }

    #[test]
    fn nobody_is_let_in_by_accident() {
        let nowhere = || KeysFile::Usual(PathBuf::from("/nonexistent/keys.toml"));
        let check = |keys, no_auth, address: &str, expected: Result<&str, &str>| {
            let entrance = Entrance { no_auth, ..entrance(keys, nowhere(), address) };
            assert_eq!(outcome(&entrance), expected.map_err(str::to_owned), "{entrance:?}");
        };
        check(Some(KEY), false, "127.0.0.1", Ok("keys"));
        check(Some(KEY), false, "0.0.0.0", Ok("keys"));
        check(None, true, "127.0.0.1", Ok("open"));
        check(None, true, "::1", Ok("open"));
        check(Some(" "), true, "127.8.8.8", Ok("open"));
        check(None, false, "127.0.0.1", Err("there are no API keys"));
        check(Some(""), false, "127.0.0.1", Err("there are no API keys"));
        let everyone = "--no-auth would let everyone who reaches 0.0.0.0 in";
        check(None, true, "0.0.0.0", Err(everyone));
        let both = "SEMANTIC_API_KEYS is set and --no-auth is given";
        check(Some(KEY), true, "127.0.0.1", Err(both));
        let short = "SEMANTIC_API_KEYS: key 1 has 5 characters; at least 16";
        check(Some("short"), false, "127.0.0.1", Err(short));
    }

    #[test]
    fn a_key_is_made_for_a_person_on_this_machine_who_has_named_no_keys_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.toml");
        let person = |keys, file, address| {
            outcome(&Entrance { reader: Reader::Person, ..entrance(keys, file, address) })
        };
        let usual = || KeysFile::Usual(path.clone());
        assert_eq!(person(None, usual(), "127.0.0.1"), Ok("first key"));
        assert_eq!(person(Some(KEY), usual(), "127.0.0.1"), Ok("keys"));
        let none = Err("there are no API keys".to_owned());
        assert_eq!(person(None, usual(), "0.0.0.0"), none);
        let named = KeysFile::Named(path.clone());
        let missing = Err(format!("there is no keys file {}", path.display()));
        assert_eq!(person(None, named.clone(), "127.0.0.1"), missing);
        let Ok((key, access)) = make_first(&path) else { panic!("a key") };
        assert!(key.starts_with("sk-sem-") && key.len() == 7 + 40, "{key}");
        assert_eq!(access.grants().len(), 1);
        assert_eq!(access.grants()[0].digest, KeyDigest::of(&key));
        // The next start finds it, whoever starts.
        assert_eq!(outcome(&entrance(None, usual(), "0.0.0.0")), Ok("keys"));
        assert_eq!(outcome(&entrance(Some(KEY), named.clone(), "0.0.0.0")), Ok("keys"));
        let twice = Err(format!("key 1 of {} is also in SEMANTIC_API_KEYS", path.display()));
        assert_eq!(outcome(&entrance(Some(&key), usual(), "::1")), twice);
        // Asking for no keys hides the usual file and not one that was named.
        let open = |file| outcome(&Entrance { no_auth: true, ..entrance(None, file, "::1") });
        assert_eq!(open(usual()), Ok("open"));
        assert_eq!(open(named), Err("a keys file is named and --no-auth is given".to_owned()));
    }
}
