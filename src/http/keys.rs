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
pub struct Keys(Vec<Key>);

struct Key {
    digest: [u8; 32],
    namespace: Namespace,
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
}

/// The key of the administration, of which only the digest is kept.
pub struct AdminKey([u8; 32]);

impl AdminKey {
    pub fn new(text: &str) -> Result<AdminKey, KeyError> {
        check(text, 1).map(|()| AdminKey(digest(text.as_bytes())))
    }

    /// Whether these headers have it, as `X-Admin-Key` or as a bearer.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let own = headers.get("x-admin-key").map(|value| value.as_bytes().trim_ascii());
        let mut presented = bearer(headers).into_iter().chain(own);
        presented.any(|key| self.0.ct_eq(&digest(key)).into())
    }
}

impl Access {
    /// What the sender of these headers may see; `None` without a valid key.
    pub fn namespace(&self, headers: &HeaderMap) -> Option<Namespace> {
        match self {
            Access::Open => Some(Namespace::local()),
            Access::Keys(keys) => presented(headers).find_map(|key| keys.namespace(key)),
        }
    }
}

impl Keys {
    /// Reads `key,key,…`; white space around a key is not part of it.
    pub fn parse(list: &str) -> Result<Keys, KeyError> {
        let mut keys = Vec::new();
        let texts = list.split(',').map(str::trim).filter(|text| !text.is_empty());
        for (index, text) in texts.enumerate() {
            check(text, index + 1)?;
            keys.push(Key::new(text));
        }
        match keys.is_empty() {
            true => Err(KeyError::None),
            false => Ok(Keys(keys)),
        }
    }

    /// Takes as long for every key that is presented: all digests are compared, each whole.
    fn namespace(&self, presented: &[u8]) -> Option<Namespace> {
        let digest = digest(presented);
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.digest.ct_eq(&digest)) {
                found = Some(&key.namespace);
            }
        }
        found.cloned()
    }
}

impl Key {
    fn new(text: &str) -> Key {
        let digest = digest(text.as_bytes());
        let hex: String =
            digest[..NAMESPACE_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        Key { digest, namespace: Namespace::new(&format!("key-{hex}")) }
    }
}

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

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// The keys in a request's headers.
fn presented(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let own = headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii());
    bearer(headers).into_iter().chain(own)
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
        assert_eq!(error("0123456789abcdéf"), "key 1 has a character that no header can carry");
        let keys = Keys::parse(" 0123456789abcdef ,fedcba9876543210,").unwrap();
        assert_eq!(format!("{keys:?}"), "2 keys");
    }

    #[test]
    fn a_key_has_the_namespace_of_its_digest() {
        let keys = Keys::parse("0123456789abcdef,fedcba9876543210").unwrap();
        // sha256sum of the key.
        let namespace = Namespace::new("key-9f9f5111f7b27a78");
        assert_eq!(keys.namespace(b"0123456789abcdef"), Some(namespace));
        assert_ne!(keys.namespace(b"fedcba9876543210"), keys.namespace(b"0123456789abcdef"));
        for other in [&b""[..], b"0123456789abcdeF", b"0123456789abcde", b"0123456789abcdef "] {
            assert_eq!(keys.namespace(other), None);
        }
    }
}
