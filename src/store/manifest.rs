//! One save of a line as a file: which tokens it has and which blocks hold their KV, sealed. Pure.
//!
//! ```text
//! head   magic, version, lengths, numbers, names, replies, blocks
//!        seal of the head
//! tail   token ids
//!        seal of everything before
//! ```
//!
//! All numbers are little-endian. The head tells all but the token ids, and stands at the
//! beginning, so that listing agents reads a page of each. A seal is a keyed BLAKE3: whoever has
//! not KEY cannot make one, and a manifest is of the one agent and generation that it names.

use std::ops::Range;

use blake3::Hasher;

use super::bytes::{Reader, Writer};
use super::{BlockName, BlockRef, Flaw};
use crate::types::{
    AGENT_ID_BYTES_MAX, AgentId, Fingerprint, Generation, Line, Namespace, TokenId,
};

/// Everything but the token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub namespace: Namespace,
    pub agent: AgentId,
    pub line: Line,
    pub generation: Generation,
    /// Grows with every save of the store: says which line was used last, whatever the clock did.
    pub serial: u64,
    /// Since 1970; negative before.
    pub saved_at_ms: i64,
    pub fingerprint: Fingerprint,
    pub model: String,
    pub producer: String,
    pub tokens: usize,
    pub replies: Vec<Range<usize>>,
    pub blocks: Vec<BlockRef>,
}

/// How long a manifest and its head are, which its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    pub head_bytes: usize,
    pub file_bytes: usize,
}

/// Enough of a file for [`Lengths::of`].
pub const LENGTHS_BYTES: usize = 8 + 4 + 4 + 8;

const MAGIC: &[u8; 8] = b"semantic";
const VERSION: u32 = 1;
pub const SEAL_BYTES: usize = 32;
const TOKEN_BYTES: usize = 4;
const BLOCK_BYTES: usize = 32 + 32 + 2 + 8;
const REPLY_BYTES: usize = 4 + 4;

/// 16 times the longest context that any model has today.
pub const TOKENS_MAX: usize = 16 << 20;
/// 226,000 blocks.
const HEAD_BYTES_MAX: usize = 16 << 20;
/// Of a name that people read.
pub const NAME_BYTES_MAX: usize = 1024;

impl Lengths {
    /// From the beginning of a file of so many bytes.
    pub fn of(beginning: &[u8], bytes: u64) -> Result<Lengths, Flaw> {
        let mut reader = Reader::new(beginning);
        if reader.array::<8>()? != *MAGIC || reader.u32()? != VERSION {
            return Err(Flaw::Header);
        }
        let head_bytes = reader.u32()? as usize;
        let file_bytes = reader.u64()?;
        let least = (head_bytes + SEAL_BYTES) as u64;
        let most = least + (TOKENS_MAX * TOKEN_BYTES) as u64;
        if !(LENGTHS_BYTES + SEAL_BYTES..=HEAD_BYTES_MAX).contains(&head_bytes)
            || !(least..=most).contains(&file_bytes)
            || file_bytes != bytes
        {
            return Err(Flaw::Length);
        }
        Ok(Lengths { head_bytes, file_bytes: file_bytes as usize })
    }
}

impl Head {
    /// The whole file. `seal` is the keyed hasher for seals.
    pub fn encode(&self, tokens: &[TokenId], seal: &Hasher) -> Vec<u8> {
        assert_eq!(tokens.len(), self.tokens);
        let lengths = self.lengths();
        let mut writer = Writer::with_capacity(lengths.file_bytes);
        writer.bytes(MAGIC);
        writer.u32(VERSION);
        writer.u32(u32::try_from(lengths.head_bytes).expect("a head has a limit"));
        writer.u64(lengths.file_bytes as u64);
        self.write(&mut writer);
        writer.bytes(&seal_of(seal, writer.written()));
        assert_eq!(writer.written().len(), lengths.head_bytes);
        for token in tokens {
            writer.u32(token.0);
        }
        writer.bytes(&seal_of(seal, writer.written()));
        assert_eq!(writer.written().len(), lengths.file_bytes);
        writer.into_bytes()
    }

    /// From the first `head_bytes` of a file.
    pub fn decode(head: &[u8], seal: &Hasher) -> Result<Head, Flaw> {
        let mut reader = Reader::new(unsealed(head, seal)?);
        reader.skip(LENGTHS_BYTES)?;
        let head = Head::read(&mut reader)?;
        match reader.is_at_end() {
            true => Ok(head),
            false => Err(Flaw::Length),
        }
    }

    /// From a whole file, with the token ids.
    pub fn decode_all(file: &[u8], seal: &Hasher) -> Result<(Head, Vec<TokenId>), Flaw> {
        let lengths = Lengths::of(file, file.len() as u64)?;
        let everything = unsealed(file, seal)?;
        let head = Head::decode(&file[..lengths.head_bytes], seal)?;
        let (tokens, rest) = everything[lengths.head_bytes..].as_chunks::<TOKEN_BYTES>();
        if tokens.len() != head.tokens || !rest.is_empty() {
            return Err(Flaw::Length);
        }
        let tokens = tokens.iter().map(|bytes| TokenId(u32::from_le_bytes(*bytes))).collect();
        Ok((head, tokens))
    }

    /// Of the file that [`encode`](Head::encode) makes.
    pub fn file_bytes(&self) -> u64 {
        self.lengths().file_bytes as u64
    }

    fn lengths(&self) -> Lengths {
        let numbers = 8 + 8 + 8 + 8 + 32 + 4 + 4 + 4;
        let texts = [self.namespace.as_str(), self.agent.as_str(), &self.model, &self.producer];
        let names: usize = texts.iter().map(|text| 2 + text.len()).sum();
        let lists = REPLY_BYTES * self.replies.len() + BLOCK_BYTES * self.blocks.len();
        let head_bytes = LENGTHS_BYTES + numbers + names + lists + SEAL_BYTES;
        assert!(head_bytes <= HEAD_BYTES_MAX);
        assert!(self.tokens <= TOKENS_MAX);
        Lengths { head_bytes, file_bytes: head_bytes + TOKEN_BYTES * self.tokens + SEAL_BYTES }
    }

    fn write(&self, writer: &mut Writer) {
        writer.u64(self.line.0);
        writer.u64(self.generation.0);
        writer.u64(self.serial);
        writer.u64(self.saved_at_ms.cast_unsigned());
        writer.bytes(&self.fingerprint.0);
        writer.count(self.tokens);
        writer.count(self.replies.len());
        writer.count(self.blocks.len());
        writer.text(self.namespace.as_str());
        writer.text(self.agent.as_str());
        writer.text(&self.model);
        writer.text(&self.producer);
        for reply in &self.replies {
            writer.count(reply.start);
            writer.count(reply.end);
        }
        for block in &self.blocks {
            writer.bytes(&block.name.0);
            writer.bytes(&block.digest);
            writer.u16(u16::try_from(block.tokens).expect("a block has few tokens"));
            writer.u64(block.file_bytes);
        }
    }

    /// The seal held, so a value that is out of bounds is a fault of the program that wrote it;
    /// nothing is built on it all the same.
    fn read(reader: &mut Reader<'_>) -> Result<Head, Flaw> {
        let line = Line(reader.u64()?);
        let generation = Generation(reader.u64()?);
        let serial = reader.u64()?;
        let saved_at_ms = reader.u64()?.cast_signed();
        let fingerprint = Fingerprint(reader.array()?);
        let (tokens, replies, blocks) = (reader.count()?, reader.count()?, reader.count()?);
        let namespace = Namespace::new(reader.text(NAME_BYTES_MAX)?);
        let agent = AgentId::new(reader.text(AGENT_ID_BYTES_MAX)?).map_err(|_| Flaw::Header)?;
        let model = reader.text(NAME_BYTES_MAX)?.to_owned();
        let producer = reader.text(NAME_BYTES_MAX)?.to_owned();
        reader.expect(replies, REPLY_BYTES)?;
        let replies = (0..replies).map(|_| read_reply(reader, tokens)).collect::<Result<_, _>>()?;
        reader.expect(blocks, BLOCK_BYTES)?;
        let blocks: Vec<BlockRef> =
            (0..blocks).map(|_| read_block(reader)).collect::<Result<_, _>>()?;
        let held: usize = blocks.iter().map(|block| block.tokens).sum();
        if held > tokens || tokens > TOKENS_MAX {
            return Err(Flaw::Header);
        }
        Ok(Head {
            namespace,
            agent,
            line,
            generation,
            serial,
            saved_at_ms,
            fingerprint,
            model,
            producer,
            tokens,
            replies,
            blocks,
        })
    }
}

/// As much of a text as a manifest takes.
pub fn cut_name(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

/// Whether a manifest can name this namespace, which unlike a model's name must be whole.
pub fn can_name(namespace: &Namespace) -> bool {
    namespace.as_str().len() <= NAME_BYTES_MAX
}

fn read_reply(reader: &mut Reader<'_>, tokens: usize) -> Result<Range<usize>, Flaw> {
    let reply = reader.count()?..reader.count()?;
    match reply.start <= reply.end && reply.end <= tokens {
        true => Ok(reply),
        false => Err(Flaw::Header),
    }
}

fn read_block(reader: &mut Reader<'_>) -> Result<BlockRef, Flaw> {
    Ok(BlockRef {
        name: BlockName(reader.array()?),
        digest: reader.array()?,
        tokens: usize::from(reader.u16()?),
        file_bytes: reader.u64()?,
    })
}

/// What is before the seal, if the seal is of it.
pub fn unsealed<'a>(bytes: &'a [u8], seal: &Hasher) -> Result<&'a [u8], Flaw> {
    let (sealed, found) = bytes.split_last_chunk::<SEAL_BYTES>().ok_or(Flaw::Length)?;
    // Compared as BLAKE3's hash, in a time that tells nothing.
    match blake3::Hash::from_bytes(seal_of(seal, sealed)) == blake3::Hash::from_bytes(*found) {
        true => Ok(sealed),
        false => Err(Flaw::Seal),
    }
}

fn seal_of(seal: &Hasher, bytes: &[u8]) -> [u8; SEAL_BYTES] {
    *seal.clone().update(bytes).finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seal() -> Hasher {
        Hasher::new_keyed(&[9; 32])
    }

    fn example() -> (Head, Vec<TokenId>) {
        let block = |index: u8, tokens| BlockRef {
            name: BlockName([index; 32]),
            digest: [!index; 32],
            tokens,
            file_bytes: 1_000_000 + u64::from(index),
        };
        let head = Head {
            namespace: Namespace::local(),
            agent: AgentId::new("../\u{202e}\0").unwrap(),
            line: Line(3),
            generation: Generation(7),
            serial: 12,
            saved_at_ms: -5,
            fingerprint: Fingerprint([0xfe; 32]),
            model: "smollm".to_owned(),
            producer: String::new(),
            tokens: 300,
            replies: vec![10..20, 250..300],
            blocks: vec![block(1, 256), block(2, 43)],
        };
        (head, (0..300).map(TokenId).collect())
    }

    #[test]
    fn what_is_written_is_read() {
        let (head, tokens) = example();
        let file = head.encode(&tokens, &seal());
        assert_eq!(file.len() as u64, head.file_bytes());
        assert_eq!(Head::decode_all(&file, &seal()), Ok((head.clone(), tokens)));
        let lengths = Lengths::of(&file[..LENGTHS_BYTES], file.len() as u64).unwrap();
        assert!(lengths.head_bytes < 1000);
        assert_eq!(Head::decode(&file[..lengths.head_bytes], &seal()), Ok(head));
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_refused() {
        let (head, tokens) = example();
        let file = head.encode(&tokens, &seal());
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::decode_all(&flipped, &seal()).is_err(), "bit {bit}");
        }
        for length in 0..file.len() {
            assert!(Head::decode_all(&file[..length], &seal()).is_err(), "length {length}");
        }
        let longer = [file.clone(), vec![0]].concat();
        assert!(Head::decode_all(&longer, &seal()).is_err());
        let other_key = Hasher::new_keyed(&[8; 32]);
        assert_eq!(Head::decode_all(&file, &other_key), Err(Flaw::Seal));
    }

    #[test]
    fn lengths_that_nobody_could_hold_are_refused_before_anything_is_read() {
        let (head, tokens) = example();
        let file = head.encode(&tokens, &seal());
        for (at, bytes) in [(12, &[0xff; 4][..]), (16, &[0xff; 8]), (16, &[0, 0, 0, 0, 1, 0, 0, 0])]
        {
            let mut forged = file.clone();
            forged[at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(Lengths::of(&forged, forged.len() as u64), Err(Flaw::Length));
            let claimed = u64::from_le_bytes(forged[16..24].try_into().unwrap());
            assert_eq!(Lengths::of(&forged, claimed), Err(Flaw::Length));
        }
    }

    #[test]
    fn a_name_is_cut_between_characters() {
        let long = "ä".repeat(NAME_BYTES_MAX);
        assert_eq!(cut_name(&long).len(), NAME_BYTES_MAX);
        assert_eq!(cut_name(&format!("x{long}")).len(), NAME_BYTES_MAX - 1);
        assert_eq!(cut_name("short"), "short");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut file = MAGIC.to_vec();
            file.extend(VERSION.to_le_bytes());
            file.extend(&bytes);
            prop_assert!(Head::decode_all(&file, &seal()).is_err());
            // With a seal, as a faulty program may have made it.
            let sealed = [file.clone(), seal_of(&seal(), &file).to_vec()].concat();
            let _ = Head::decode(&sealed, &seal());
        }
    }
}
