//! The secrets of a store, and the names and seals that are computed with them. Pure.

use blake3::Hasher;

use super::BlockName;
use super::layout::FolderName;
use crate::types::{AgentId, Fingerprint, Namespace, TokenId};

/// What is in the file KEY, one key for each thing it is for: what is learnt of one tells nothing
/// about another.
pub struct Secrets {
    folders: [u8; 32],
    names: [u8; 32],
    digests: [u8; 32],
    manifests: [u8; 32],
    retentions: [u8; 32],
    transcripts: [u8; 32],
}

/// Everything a block's name depends on.
pub struct BlockIdentity<'a> {
    pub namespace: &'a Namespace,
    /// The block before it; `None` for the first of a conversation.
    pub parent: Option<&'a BlockName>,
    pub fingerprint: &'a Fingerprint,
    pub tokens: &'a [TokenId],
    pub digest: &'a [u8; 32],
}

/// The secret itself, and what tells that none of its bits has flipped.
pub const KEY_FILE_BYTES: usize = SECRET_BYTES + CHECK_BYTES;
pub const SECRET_BYTES: usize = 32;
const CHECK_BYTES: usize = 32;

const NO_PARENT: [u8; 32] = [0; 32];

/// What the file KEY is to contain.
pub fn key_file(secret: &[u8; SECRET_BYTES]) -> [u8; KEY_FILE_BYTES] {
    let mut file = [0; KEY_FILE_BYTES];
    file[..SECRET_BYTES].copy_from_slice(secret);
    file[SECRET_BYTES..].copy_from_slice(&check_of(secret));
    file
}

/// The secret in the file KEY, if it is whole.
pub fn secret_in(file: &[u8]) -> Option<[u8; SECRET_BYTES]> {
    let file: &[u8; KEY_FILE_BYTES] = file.try_into().ok()?;
    let (secret, check) = file.split_first_chunk::<SECRET_BYTES>()?;
    (check == check_of(secret)).then_some(*secret)
}

/// Hexadecimal digits of [`id`].
pub const ID_DIGITS: usize = 16;

/// Tells one KEY from another, and nothing else of it.
pub fn id(secret: &[u8; SECRET_BYTES]) -> String {
    let id = blake3::derive_key("semantic-cache 1: id of KEY", secret);
    id[..ID_DIGITS / 2].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_of(secret: &[u8]) -> [u8; CHECK_BYTES] {
    blake3::derive_key("semantic-cache 1: check of KEY", secret)
}

impl Secrets {
    pub fn of(secret: &[u8; SECRET_BYTES]) -> Secrets {
        Secrets {
            folders: blake3::derive_key("semantic-cache 1: names of folders", secret),
            names: blake3::derive_key("semantic-cache 1: names of blocks", secret),
            digests: blake3::derive_key("semantic-cache 1: digests of blocks", secret),
            manifests: blake3::derive_key("semantic-cache 1: seals of manifests", secret),
            retentions: blake3::derive_key("semantic-cache 1: seals of retentions", secret),
            transcripts: blake3::derive_key("semantic-cache 1: seals of transcripts", secret),
        }
    }

    pub fn namespace_folder(&self, namespace: &Namespace) -> FolderName {
        let mut hasher = Hasher::new_keyed(&self.folders);
        text(&mut hasher, namespace.as_str());
        FolderName::of(hasher.finalize().as_bytes())
    }

    pub fn agent_folder(&self, namespace: &Namespace, agent: &AgentId) -> FolderName {
        let mut hasher = Hasher::new_keyed(&self.folders);
        text(&mut hasher, namespace.as_str());
        text(&mut hasher, agent.as_str());
        FolderName::of(hasher.finalize().as_bytes())
    }

    pub fn block_name(&self, block: &BlockIdentity<'_>) -> BlockName {
        let key = blake3::keyed_hash(&self.names, block.namespace.as_str().as_bytes());
        let mut hasher = Hasher::new_keyed(key.as_bytes());
        hasher.update(block.parent.map_or(&NO_PARENT, |parent| &parent.0));
        hasher.update(&block.fingerprint.0);
        hasher.update(&(block.tokens.len() as u64).to_le_bytes());
        for token in block.tokens {
            hasher.update(&token.0.to_le_bytes());
        }
        hasher.update(block.digest);
        BlockName(*hasher.finalize().as_bytes())
    }

    /// For the digest of a block's file.
    pub fn digest(&self, namespace: FolderName) -> Hasher {
        let key = blake3::keyed_hash(&self.digests, namespace.bytes());
        Hasher::new_keyed(key.as_bytes())
    }

    /// For the seals of a manifest, which names its namespace itself.
    pub fn seal(&self) -> Hasher {
        Hasher::new_keyed(&self.manifests)
    }

    /// For the seal of how long an agent is kept, which names its agent itself.
    pub fn retention_seal(&self) -> Hasher {
        Hasher::new_keyed(&self.retentions)
    }

    /// For the seal of a transcript, which names what it is of as well.
    pub fn transcript_seal(&self) -> Hasher {
        Hasher::new_keyed(&self.transcripts)
    }
}

/// With its length, so that two texts in a row have one reading.
fn text(hasher: &mut Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_block_is_named_by_everything_that_it_depends_on() {
        let secrets = Secrets::of(&[7; SECRET_BYTES]);
        let (local, other) = (Namespace::local(), Namespace::new("other"));
        let tokens: Vec<TokenId> = (1..=4).map(TokenId).collect();
        let parent = BlockName([1; 32]);
        let base = BlockIdentity {
            namespace: &local,
            parent: None,
            fingerprint: &Fingerprint([0; 32]),
            tokens: &tokens,
            digest: &[0; 32],
        };
        let names = BTreeSet::from([
            secrets.block_name(&base),
            secrets.block_name(&BlockIdentity { namespace: &other, ..base }),
            secrets.block_name(&BlockIdentity { parent: Some(&parent), ..base }),
            secrets.block_name(&BlockIdentity { fingerprint: &Fingerprint([1; 32]), ..base }),
            secrets.block_name(&BlockIdentity { tokens: &tokens[1..], ..base }),
            secrets.block_name(&BlockIdentity { tokens: &tokens[..3], ..base }),
            secrets.block_name(&BlockIdentity { digest: &[1; 32], ..base }),
            Secrets::of(&[8; SECRET_BYTES]).block_name(&base),
        ]);
        assert_eq!(names.len(), 8);
        assert!(names.contains(&secrets.block_name(&base)), "the same again has the same name");
    }

    #[test]
    fn one_namespace_cannot_spell_the_folder_of_another() {
        let secrets = Secrets::of(&[7; SECRET_BYTES]);
        let folder = |namespace: &str, agent: &str| {
            secrets.agent_folder(&Namespace::new(namespace), &AgentId::new(agent).unwrap())
        };
        assert_ne!(folder("a", "bc"), folder("ab", "c"));
        assert_ne!(folder("a", "Bob"), folder("a", "bob"));
        assert_ne!(folder("a", "x"), folder("b", "x"));
    }

    #[test]
    fn every_flipped_bit_of_the_key_file_is_seen() {
        let file = key_file(&[42; SECRET_BYTES]);
        assert_eq!(secret_in(&file), Some([42; SECRET_BYTES]));
        for bit in 0..file.len() * 8 {
            let mut flipped = file;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(secret_in(&flipped), None, "bit {bit}");
        }
        assert_eq!(secret_in(&file[..file.len() - 1]), None);
        assert_eq!(secret_in(&[]), None);
    }
}
