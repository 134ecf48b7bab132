//! API keys: which are valid, and what each may see.

use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::types::Namespace;

/// Shorter keys can be guessed: 16 random letters and digits have 95 bits.
pub const KEY_CHARS_MIN: usize = 16;
/// A namespace is told from others by this many bytes of its key's digest.
const NAMESPACE_BYTES: usize = 8;

/// Who may ask.
pub enum Access {
    /// Whoever reaches the server, all in one namespace.
    Open,
    Keys(Keys),
}

/// The valid keys, of which only digests are kept.
#[derive(Default)]
pub struct Keys(Vec<Grant>);

/// What a key opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub digest: KeyDigest,
    pub namespace: Namespace,
    pub rates: KeyRates,
}

/// Limits of a key's own, per minute; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyRates {
    /// With this key, whichever agent they are for.
    pub key: Option<u32>,
    /// In place of the server's limit, for each agent of the namespace.
    pub agent: Option<u32>,
    /// In place of the server's limit.
    pub tokens: Option<u32>,
}

/// A key's SHA-256. A key is random and long, so its digest needs no salt and tells nothing of it.
#[derive(Clone, Copy, Debug)]
pub struct KeyDigest(pub [u8; 32]);

/// A key by its place among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub usize);

/// What came of the keys in a request's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented<T> {
    Nothing,
    /// So many keys that are none.
    Wrong(usize),
    Right(T),
}

impl<T> Presented<T> {
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Presented<U> {
        match self {
            Presented::Nothing => Presented::Nothing,
            Presented::Wrong(keys) => Presented::Wrong(keys),
            Presented::Right(found) => Presented::Right(change(found)),
        }
    }
}

/// Why a list of keys cannot be used. Names a key by its place, never by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("there is no key")]
    None,
    #[error("key {place} has {chars} characters; at least {KEY_CHARS_MIN}")]
    TooShort { place: usize, chars: usize },
    #[error("key {place} has a character that no header can carry")]
    Unprintable { place: usize },
    #[error("key {place} is there twice")]
    Twice { place: usize },
}

/// The key of the administration, of which only the digest is kept.
pub struct AdminKey(KeyDigest);

impl AdminKey {
    pub fn new(text: &str) -> Result<AdminKey, KeyError> {
        check(text, 1).map(|()| AdminKey(KeyDigest::of(text)))
    }

    /// Whether these headers have it, as `X-Admin-Key` or as a bearer.
    pub fn look_up(&self, headers: &HeaderMap) -> Presented<()> {
        let own = headers.get("x-admin-key").map(|value| value.as_bytes().trim_ascii());
        let is_right = |digest: KeyDigest| (self.0 == digest).then_some(());
        first_right(bearer(headers).into_iter().chain(own), is_right)
    }
}

impl Access {
    /// Which key these headers have, and what it may see.
    pub fn look_up(&self, headers: &HeaderMap) -> Presented<(Option<KeyId>, Namespace)> {
        let own = headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii());
        let presented = bearer(headers).into_iter().chain(own);
        match self {
            Access::Open => Presented::Right((None, Namespace::local())),
            Access::Keys(keys) => first_right(presented, |digest| {
                keys.find(digest).map(|(id, grant)| (Some(id), grant.namespace.clone()))
            }),
        }
    }

    pub fn grants(&self) -> &[Grant] {
        match self {
            Access::Open => &[],
            Access::Keys(keys) => &keys.0,
        }
    }
}

impl Keys {
    /// Reads `key,key,…`; white space around a key is not part of it. Each has the namespace of its
    /// digest.
    pub fn parse(list: &str) -> Result<Keys, KeyError> {
        let mut keys = Keys::default();
        let texts = list.split(',').map(str::trim).filter(|text| !text.is_empty());
        for (index, text) in texts.enumerate() {
            let place = index + 1;
            check(text, place)?;
            let digest = KeyDigest::of(text);
            let namespace = digest.namespace();
            let grant = Grant { digest, namespace, rates: KeyRates::default() };
            keys = keys.with(vec![grant]).map_err(|_| KeyError::Twice { place })?;
        }
        match keys.0.is_empty() {
            true => Err(KeyError::None),
            false => Ok(keys),
        }
    }

    /// And these; or the index of one that is there already.
    pub fn with(mut self, grants: Vec<Grant>) -> Result<Keys, usize> {
        for (index, grant) in grants.into_iter().enumerate() {
            match self.find(grant.digest) {
                Some(_) => return Err(index),
                None => self.0.push(grant),
            }
        }
        Ok(self)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes as long for every key that is presented: all digests are compared, each whole.
    fn find(&self, digest: KeyDigest) -> Option<(KeyId, &Grant)> {
        let mut found = None;
        for (index, grant) in self.0.iter().enumerate() {
            if grant.digest == digest {
                found = Some((KeyId(index), grant));
            }
        }
        found
    }
}

impl KeyDigest {
    pub fn of(key: &str) -> KeyDigest {
        KeyDigest::of_bytes(key.as_bytes())
    }

    fn of_bytes(key: &[u8]) -> KeyDigest {
        KeyDigest(Sha256::digest(key).into())
    }

    fn namespace(&self) -> Namespace {
        let digits = self.0[..NAMESPACE_BYTES].iter().map(|byte| format!("{byte:02x}"));
        Namespace::new(&format!("key-{}", digits.collect::<String>()))
    }
}

/// In a time that tells nothing about either.
impl PartialEq for KeyDigest {
    fn eq(&self, other: &KeyDigest) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyDigest {}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// The key at this place of a list, from 1.
fn check(text: &str, place: usize) -> Result<(), KeyError> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(KeyError::Unprintable { place });
    }
    match text.len() < KEY_CHARS_MIN {
        true => Err(KeyError::TooShort { place, chars: text.len() }),
        false => Ok(()),
    }
}

/// A proxy may add a key of its own, so one that is right is enough.
fn first_right<'a, T>(
    presented: impl Iterator<Item = &'a [u8]>,
    find: impl Fn(KeyDigest) -> Option<T>,
) -> Presented<T> {
    let mut wrong = 0;
    for key in presented {
        match find(KeyDigest::of_bytes(key)) {
            Some(found) => return Presented::Right(found),
            None => wrong += 1,
        }
    }
    match wrong {
        0 => Presented::Nothing,
        _ => Presented::Wrong(wrong),
    }
}

/// An `Authorization` of another scheme is a proxy's business.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    // RFC 9110, 11.1: the name of a scheme is case-insensitive.
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_keys_is_read_and_bad_ones_are_named_by_place() {
        let error = |list: &str| Keys::parse(list).unwrap_err().to_string();
        assert_eq!(error(""), "there is no key");
        assert_eq!(error(" , "), "there is no key");
        assert_eq!(error("0123456789abcdef,short"), "key 2 has 5 characters; at least 16");
        let twice = "0123456789abcdef,fedcba9876543210,0123456789abcdef";
        assert_eq!(error(twice), "key 3 is there twice");
        assert_eq!(error("0123456789abcdéf"), "key 1 has a character that no header can carry");
        let keys = Keys::parse(" 0123456789abcdef ,fedcba9876543210,").unwrap();
        assert_eq!(format!("{keys:?}"), "2 keys");
    }

    #[test]
    fn a_key_has_the_namespace_of_its_digest() {
        let keys = Keys::parse("0123456789abcdef,fedcba9876543210").unwrap();
        let namespace = |key: &[u8]| {
            keys.find(KeyDigest::of_bytes(key)).map(|(_, grant)| grant.namespace.clone())
        };
        // sha256sum of the key.
        assert_eq!(namespace(b"0123456789abcdef"), Some(Namespace::new("key-9f9f5111f7b27a78")));
        assert_ne!(namespace(b"fedcba9876543210"), namespace(b"0123456789abcdef"));
        for other in [&b""[..], b"0123456789abcdeF", b"0123456789abcde", b"0123456789abcdef "] {
            assert_eq!(namespace(other), None);
        }
    }
}
