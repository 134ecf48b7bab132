//! Where each file of the store lies. Pure.
//!
//! ```text
//! LOCK  FORMAT  KEY  tmp/  quarantine/
//! n/<namespace>/b/<xx>/<block>.safetensors
//! n/<namespace>/a/<agent>/<generation>.manifest
//! n/<namespace>/a/<agent>/<number>.retention
//! n/<namespace>/t/<agent>/<number>-<id>.transcript
//! ```
//!
//! Namespaces and agents are keyed hashes of their names: no name from outside ever becomes a
//! file's, and two that differ in case only differ on every file system.

use std::fmt;

use super::{BlockName, Flaw};
use crate::types::{Generation, TranscriptId};

pub const LOCK: &str = "LOCK";
pub const FORMAT: &str = "FORMAT";
pub const KEY: &str = "KEY";
pub const NAMESPACES: &str = "n";
pub const TEMPORARY: &str = "tmp";
pub const QUARANTINE: &str = "quarantine";
/// The folder of all of them.
pub const ROOT: &str = "";

/// 128 bits of a keyed hash, which stand for a name from outside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FolderName([u8; 16]);

/// A generation's digits, and those of a transcript's number; the highest has as many.
const GENERATION_DIGITS: usize = 20;
const BLOCK_SUFFIX: &str = ".safetensors";
const MANIFEST_SUFFIX: &str = ".manifest";
const RETENTION_SUFFIX: &str = ".retention";
const TRANSCRIPT_SUFFIX: &str = ".transcript";

/// A file in the quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedName {
    /// Given in order.
    pub number: u64,
    /// If it was a manifest: whose, and which.
    pub manifest: Option<(FolderName, FolderName, Generation)>,
}

impl FolderName {
    pub fn of(hash: &[u8; 32]) -> FolderName {
        let mut short = [0; 16];
        short.copy_from_slice(&hash[..16]);
        FolderName(short)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn parse(name: &str) -> Option<FolderName> {
        bytes_of_hex(name).map(FolderName)
    }
}

impl fmt::Display for FolderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FolderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Of all blocks of a namespace.
pub fn blocks_folder(namespace: FolderName) -> String {
    format!("{NAMESPACES}/{namespace}/b")
}

/// Of the blocks whose names begin with a byte, so that no folder has too many.
pub fn block_folder(namespace: FolderName, first: u8) -> String {
    format!("{NAMESPACES}/{namespace}/b/{first:02x}")
}

pub fn block_file(namespace: FolderName, block: &BlockName) -> String {
    format!("{}/{block}{BLOCK_SUFFIX}", block_folder(namespace, block.0[0]))
}

/// Of all agents of a namespace.
pub fn agents_folder(namespace: FolderName) -> String {
    format!("{NAMESPACES}/{namespace}/a")
}

pub fn agent_folder(namespace: FolderName, agent: FolderName) -> String {
    format!("{NAMESPACES}/{namespace}/a/{agent}")
}

pub fn manifest_file(namespace: FolderName, agent: FolderName, generation: Generation) -> String {
    let Generation(number) = generation;
    let folder = agent_folder(namespace, agent);
    format!("{folder}/{number:0GENERATION_DIGITS$}{MANIFEST_SUFFIX}")
}

/// How long an agent is kept.
pub fn retention_file(namespace: FolderName, agent: FolderName, number: u64) -> String {
    let folder = agent_folder(namespace, agent);
    format!("{folder}/{number:0GENERATION_DIGITS$}{RETENTION_SUFFIX}")
}

/// Of the transcripts of all agents of a namespace.
pub fn transcripts_folder(namespace: FolderName) -> String {
    format!("{NAMESPACES}/{namespace}/t")
}

/// Of those of one agent.
pub fn transcripts_of(namespace: FolderName, agent: FolderName) -> String {
    format!("{NAMESPACES}/{namespace}/t/{agent}")
}

pub fn transcript_file(
    namespace: FolderName,
    agent: FolderName,
    number: u64,
    id: TranscriptId,
) -> String {
    let folder = transcripts_of(namespace, agent);
    format!("{folder}/{number:0GENERATION_DIGITS$}-{id}{TRANSCRIPT_SUFFIX}")
}

pub fn temporary_file(number: u64) -> String {
    format!("{TEMPORARY}/{number}")
}

/// The path flattened, so that one sees where the file was, a number and what is wrong with it.
pub fn quarantine_file(path: &str, number: u64, flaw: Flaw) -> String {
    format!("{QUARANTINE}/{}.{number}.{}", path.replace('/', "."), flaw.word())
}

/// Whether a file in a folder of blocks or of an agent is the store's, as far as its name tells.
pub fn is_saved_file(name: &str) -> bool {
    [BLOCK_SUFFIX, MANIFEST_SUFFIX, RETENTION_SUFFIX, TRANSCRIPT_SUFFIX]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}

/// The block that a file in the folder of a first byte is.
pub fn parse_block_file(first: u8, name: &str) -> Option<BlockName> {
    let name = BlockName(bytes_of_hex(name.strip_suffix(BLOCK_SUFFIX)?)?);
    (name.0[0] == first).then_some(name)
}

pub fn parse_block_folder(name: &str) -> Option<u8> {
    bytes_of_hex::<1>(name).map(|[first]| first)
}

pub fn parse_manifest_file(name: &str) -> Option<Generation> {
    number(name.strip_suffix(MANIFEST_SUFFIX)?).map(Generation)
}

pub fn parse_retention_file(name: &str) -> Option<u64> {
    number(name.strip_suffix(RETENTION_SUFFIX)?)
}

/// The number and the id of a transcript.
pub fn parse_transcript_file(name: &str) -> Option<(u64, TranscriptId)> {
    let (digits, id) = name.strip_suffix(TRANSCRIPT_SUFFIX)?.split_once('-')?;
    Some((number(digits)?, TranscriptId::parse(id)?))
}

fn number(digits: &str) -> Option<u64> {
    let are_digits = digits.bytes().all(|digit| digit.is_ascii_digit());
    (digits.len() == GENERATION_DIGITS && are_digits).then_some(())?;
    digits.parse().ok()
}

pub fn parse_quarantine_file(name: &str) -> Option<QuarantinedName> {
    let (rest, _flaw) = name.rsplit_once('.')?;
    let (path, number) = rest.rsplit_once('.')?;
    let manifest = || {
        let mut parts = path.splitn(5, '.');
        (parts.next()? == NAMESPACES).then_some(())?;
        let namespace = FolderName::parse(parts.next()?)?;
        (parts.next()? == "a").then_some(())?;
        let agent = FolderName::parse(parts.next()?)?;
        Some((namespace, agent, parse_manifest_file(parts.next()?)?))
    };
    Some(QuarantinedName { number: number.parse().ok()?, manifest: manifest() })
}

/// Of lower-case hexadecimal digits, two to a byte.
fn bytes_of_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (hex.len() == 2 * N && hex.bytes().all(is_digit)).then_some(())?;
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_no_other() {
        let (namespace, agent) = (FolderName([0xab; 16]), FolderName([1; 16]));
        let block = BlockName([0xcd; 32]);
        let file = block_file(namespace, &block);
        let (folder, name) = file.rsplit_once('/').unwrap();
        assert_eq!(folder, block_folder(namespace, 0xcd));
        assert_eq!(parse_block_file(0xcd, name), Some(block));
        assert_eq!(parse_block_file(0xce, name), None);
        assert_eq!(parse_block_file(0xcd, &name.to_uppercase()), None);
        assert_eq!(parse_block_folder("cd"), Some(0xcd));
        assert_eq!(parse_block_folder("c"), None);
        assert_eq!(FolderName::parse(&namespace.to_string()), Some(namespace));
        assert_eq!(FolderName::parse(".."), None);

        for number in [1, u64::MAX] {
            let file = manifest_file(namespace, agent, Generation(number));
            let name = file.rsplit('/').next().unwrap();
            assert_eq!(parse_manifest_file(name), Some(Generation(number)));
            let quarantined = quarantine_file(&file, 17, Flaw::Seal);
            let name = quarantined.rsplit('/').next().unwrap();
            assert!(name.len() <= 255, "a file's name has at most 255 bytes");
            let expected = QuarantinedName {
                number: 17,
                manifest: Some((namespace, agent, Generation(number))),
            };
            assert_eq!(parse_quarantine_file(name), Some(expected));
        }
        let file = transcript_file(namespace, agent, 7, TranscriptId(0xab));
        let (folder, name) = file.rsplit_once('/').unwrap();
        assert_eq!(folder, transcripts_of(namespace, agent));
        assert_eq!(folder.rsplit_once('/').unwrap().0, transcripts_folder(namespace));
        assert_eq!(parse_transcript_file(name), Some((7, TranscriptId(0xab))));
        assert_eq!(parse_transcript_file(&name[1..]), None);
        assert_eq!(parse_transcript_file(&name.replace('-', "")), None);
        let quarantined = quarantine_file(&file, 17, Flaw::Seal);
        let name = quarantined.rsplit('/').next().unwrap();
        let expected = QuarantinedName { number: 17, manifest: None };
        assert_eq!(parse_quarantine_file(name), Some(expected));
        for other in ["1.manifest", "+0000000000000000001.manifest", "00000000000000000001.tmp"] {
            assert_eq!(parse_manifest_file(other), None, "{other}");
        }
        let quarantined = quarantine_file(&block_file(namespace, &block), 3, Flaw::Digest);
        let name = quarantined.rsplit('/').next().unwrap();
        let expected = QuarantinedName { number: 3, manifest: None };
        assert_eq!(parse_quarantine_file(name), Some(expected));
    }
}
