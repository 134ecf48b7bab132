//! One agent as one file, which another store takes in.
//!
//! ```text
//! semantic-agent 1\n   what it is
//! 8 bytes              the length of the description
//! description          JSON: whose it is, its conversations, the lengths of blocks
//! blocks               as a store has them, each a safetensors file, one after the other
//! 32 bytes             BLAKE3 of everything before
//! ```
//!
//! Nothing in it has the key of the store that it comes from: where it arrives, each block is named and
//! sealed anew. The digest tells a file that broke on its way, not one that somebody made: its KV
//! is as good as whoever it is from.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;

use blake3::Hasher;
use serde::{Deserialize, Serialize};

use super::header::{self, Header};
use super::keys::BlockIdentity;
use super::layout::FolderName;
use super::manifest::{Head, NAME_BYTES_MAX, TOKENS_MAX};
use super::save::NewSave;
use super::{BlockName, BlockRef, Committed, SealedBlock, Store, StoreError};
use crate::types::{AgentId, BLOCK_TOKENS, Fingerprint, Namespace, TokenId};

const MAGIC: &[u8; 17] = b"semantic-agent 1\n";
const LENGTH_BYTES: usize = 8;
const DIGEST_BYTES: u64 = 32;
/// Of a description: a million tokens are 7 MB.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 20;
/// Of one block: 256 tokens of 1 MB each, which no model has.
const BLOCK_BYTES_MAX: u64 = 256 << 20;
/// Of a conversation: a reply each few tokens of the longest context.
const REPLIES_MAX: usize = 1 << 16;
/// Of a conversation, and of all.
const BLOCKS_MAX: usize = 1 << 16;
/// An engine keeps four of an agent.
const CONVERSATIONS_MAX: usize = 64;
/// Read and hashed at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Why an agent was not written to a file, or not taken from one.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] io::Error),
    /// It is not a file that [`Store::export`] wrote, or no longer.
    #[error("it is not a whole file of an agent: {0}")]
    Invalid(String),
}

/// What the file says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    agent: String,
    /// The one that was used last comes last.
    conversations: Vec<Conversation>,
    blocks: Vec<Part>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Conversation {
    /// In hexadecimal digits.
    fingerprint: String,
    model: String,
    producer: String,
    tokens: Vec<u32>,
    /// Which tokens are replies.
    replies: Vec<Range<usize>>,
    /// Places in the list of all blocks.
    blocks: Vec<usize>,
}

/// A block's file in this file.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    tokens: usize,
    bytes: u64,
}

/// What went into a file, or came out of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transferred {
    pub conversations: usize,
    /// Of the conversation that was used last.
    pub tokens: usize,
    /// Of the whole file.
    pub bytes: u64,
}

/// A whole and understood file with an agent in it.
pub struct Import<F> {
    file: F,
    description: Description,
    fingerprints: Vec<Fingerprint>,
    /// Where each block begins.
    starts: Vec<u64>,
    bytes: u64,
}

impl Store {
    /// Writes what an agent can go on from. Every byte of it is verified on the way.
    pub fn export(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        out: &mut dyn Write,
    ) -> Result<Transferred, TransferError> {
        let folder = self.secrets.namespace_folder(namespace);
        let agent_folder = self.secrets.agent_folder(namespace, agent);
        let mut heads: Vec<Arc<Head>> = {
            let index = self.index();
            let live = index.agent(folder, agent_folder).map_or(Vec::new(), |state| state.live());
            live.into_iter().map(|save| save.head.clone()).collect()
        };
        if heads.is_empty() {
            return Err(StoreError::NotFound(format!("agent {:?}", agent.as_str())).into());
        }
        heads.sort_by_key(|head| head.serial);
        let mut parts = Parts::default();
        let mut conversations = Vec::new();
        for head in &heads {
            let (_, tokens) = self.read_manifest(folder, agent_folder, head.generation)?;
            let there = self.index().shelf(folder).leading(&head.blocks);
            conversations.push(Conversation {
                fingerprint: head.fingerprint.to_string(),
                model: head.model.clone(),
                producer: head.producer.clone(),
                tokens: tokens.iter().map(|token| token.0).collect(),
                replies: head.replies.clone(),
                blocks: head.blocks[..there].iter().map(|block| parts.place(block)).collect(),
            });
        }
        let tokens = conversations.last().map_or(0, |it| it.tokens.len());
        let description = Description {
            agent: agent.as_str().to_owned(),
            conversations,
            blocks: parts.blocks.iter().map(Part::of).collect(),
        };
        let description = serde_json::to_vec(&description).map_err(io::Error::from)?;
        let mut out = Hashed { out, hasher: Hasher::new(), bytes: 0 };
        out.put(MAGIC)?;
        out.put(&(description.len() as u64).to_le_bytes())?;
        out.put(&description)?;
        let mut buffer = Vec::new();
        for block in &parts.blocks {
            self.read_file(folder, block, &mut buffer)?;
            out.put(&buffer)?;
        }
        let bytes = out.end()?;
        Ok(Transferred { conversations: heads.len(), tokens, bytes })
    }

    /// Takes in what is in a file as an agent that is not there yet. All of it is safe from a power
    /// cut afterwards; after an error nothing of it is there. Who is killed meanwhile may leave the
    /// conversations that came first, each of them whole.
    pub fn import<F: Read + Seek>(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        import: &mut Import<F>,
    ) -> Result<Transferred, TransferError> {
        self.may_write()?;
        let folder = self.secrets.namespace_folder(namespace);
        if self.is_known(folder, self.secrets.agent_folder(namespace, agent)) {
            return Err(StoreError::Exists(format!("agent {:?}", agent.as_str())).into());
        }
        let mut made = Vec::new();
        for number in 0..import.description.conversations.len() {
            match self.take_in(namespace, folder, agent, import, number) {
                Ok(committed) => made.push(committed),
                Err(error) => {
                    self.undo_copies(namespace, agent, made);
                    return Err(error);
                }
            }
        }
        self.index().removed.extend(made.into_iter().flat_map(|it| it.removed));
        Ok(import.transferred())
    }

    fn take_in<F: Read + Seek>(
        &self,
        namespace: &Namespace,
        folder: FolderName,
        agent: &AgentId,
        import: &mut Import<F>,
        number: usize,
    ) -> Result<Committed, TransferError> {
        let conversation = import.description.conversations[number].clone();
        let fingerprint = import.fingerprints[number];
        let tokens: Vec<TokenId> = conversation.tokens.iter().copied().map(TokenId).collect();
        let mut blocks: Vec<BlockRef> = Vec::new();
        for (&place, own) in conversation.blocks.iter().zip(tokens.chunks(BLOCK_TOKENS)) {
            let Part { tokens: held, .. } = import.description.blocks[place];
            let file = import.read(place)?;
            let parent = blocks.last().map(|block| block.name);
            let sealed = self
                .seal_file(namespace, folder, &fingerprint, parent, &own[..held], file)
                .map_err(TransferError::Invalid)?;
            self.write_block(agent, &sealed)?;
            blocks.push(sealed.block);
        }
        Ok(self.save(&NewSave {
            namespace,
            agent,
            source: None,
            line: self.new_line(),
            fingerprint,
            model: &conversation.model,
            producer: &conversation.producer,
            tokens: &tokens,
            replies: &conversation.replies,
            blocks: &blocks,
        })?)
    }

    /// A block's file under the name and the digest that it has in this store.
    fn seal_file(
        &self,
        namespace: &Namespace,
        folder: FolderName,
        fingerprint: &Fingerprint,
        parent: Option<BlockName>,
        tokens: &[TokenId],
        file: Vec<u8>,
    ) -> Result<SealedBlock, String> {
        let header_bytes = header::check(&file, fingerprint)?;
        let digest = *self.secrets.digest(folder).update(&file).finalize().as_bytes();
        let parent_name = parent.as_ref();
        let identity =
            BlockIdentity { namespace, parent: parent_name, fingerprint, tokens, digest: &digest };
        let block = BlockRef {
            name: self.secrets.block_name(&identity),
            digest,
            tokens: tokens.len(),
            file_bytes: file.len() as u64,
        };
        let mut bytes = file;
        let kv = bytes.split_off(header_bytes);
        let header = Arc::new(Header { bytes, kv_bytes: kv.len() });
        Ok(SealedBlock { block, namespace: namespace.clone(), parent, header, kv })
    }
}

impl<F: Read + Seek> Import<F> {
    /// Reads all of the file once, and believes nothing before its digest has been compared.
    pub fn open(mut file: F) -> Result<Import<F>, TransferError> {
        let bytes = file.seek(SeekFrom::End(0))?;
        let begin = (MAGIC.len() + LENGTH_BYTES) as u64;
        file.rewind()?;
        let mut magic = [0; MAGIC.len()];
        if bytes < begin + DIGEST_BYTES || file.read_exact(&mut magic).is_err() || magic != *MAGIC {
            return Err(invalid("it does not begin as one"));
        }
        check_digest(&mut file, bytes - DIGEST_BYTES)?;
        file.seek(SeekFrom::Start(MAGIC.len() as u64))?;
        let mut length = [0; LENGTH_BYTES];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > DESCRIPTION_BYTES_MAX.min(bytes - begin - DIGEST_BYTES) {
            return Err(invalid("its description is too long"));
        }
        let mut description = vec![0; length as usize];
        file.read_exact(&mut description)?;
        let description: Description = serde_json::from_slice(&description)
            .map_err(|error| invalid(&format!("its description: {error}")))?;
        let mut starts = Vec::new();
        let mut next = begin + length;
        if description.blocks.len() > BLOCKS_MAX {
            return Err(invalid("it has too many blocks"));
        }
        for part in &description.blocks {
            if part.bytes > BLOCK_BYTES_MAX {
                return Err(invalid("a block is too long"));
            }
            starts.push(next);
            next =
                next.checked_add(part.bytes).ok_or_else(|| invalid("its blocks are too long"))?;
        }
        if next != bytes - DIGEST_BYTES {
            return Err(invalid("its blocks are not as long as it says"));
        }
        let fingerprints = description.check().map_err(|reason| invalid(&reason))?;
        Ok(Import { file, description, fingerprints, starts, bytes })
    }

    /// A block's file.
    fn read(&mut self, place: usize) -> Result<Vec<u8>, TransferError> {
        self.file.seek(SeekFrom::Start(self.starts[place]))?;
        // No longer than this file, which was read.
        let mut file = vec![0; self.description.blocks[place].bytes as usize];
        self.file.read_exact(&mut file)?;
        Ok(file)
    }
}

impl<F> Import<F> {
    /// The name that the agent had.
    pub fn agent(&self) -> &str {
        &self.description.agent
    }

    /// The models that its conversations are of, by the names they had there; the one that was used
    /// last comes last.
    pub fn models(&self) -> impl DoubleEndedIterator<Item = (&str, &Fingerprint)> {
        let names = self.description.conversations.iter().map(|it| it.model.as_str());
        names.zip(&self.fingerprints)
    }

    fn transferred(&self) -> Transferred {
        let all = &self.description.conversations;
        Transferred {
            conversations: all.len(),
            tokens: all.last().map_or(0, |it| it.tokens.len()),
            bytes: self.bytes,
        }
    }
}

impl Description {
    /// Everything that the store takes for granted of a save. Gives the fingerprints.
    fn check(&self) -> Result<Vec<Fingerprint>, String> {
        let all = &self.conversations;
        if all.is_empty() || all.len() > CONVERSATIONS_MAX {
            return Err(format!("it has {} conversations", all.len()));
        }
        all.iter().map(|conversation| conversation.check(&self.blocks)).collect()
    }
}

impl Conversation {
    fn check(&self, parts: &[Part]) -> Result<Fingerprint, String> {
        let count = self.tokens.len();
        if count > TOKENS_MAX {
            return Err(format!("a conversation has {count} tokens"));
        }
        if self.model.len().max(self.producer.len()) > NAME_BYTES_MAX {
            return Err("a model's name is too long".to_owned());
        }
        if self.replies.len() > REPLIES_MAX || self.blocks.len() > BLOCKS_MAX {
            return Err("a conversation has too many replies or blocks".to_owned());
        }
        let mut end = 0;
        for reply in &self.replies {
            if reply.start < end || reply.start >= reply.end || reply.end > count {
                return Err(format!("tokens {} to {} are no reply", reply.start, reply.end));
            }
            end = reply.end;
        }
        let mut held = 0;
        for (number, place) in self.blocks.iter().enumerate() {
            let tokens = parts.get(*place).map_or(0, |part| part.tokens);
            let is_last = number + 1 == self.blocks.len();
            if !(1..=BLOCK_TOKENS).contains(&tokens) || (!is_last && tokens < BLOCK_TOKENS) {
                return Err(format!("block {number} of a conversation has {tokens} tokens"));
            }
            held += tokens;
        }
        if held > count {
            return Err(format!("blocks of {held} tokens are of a conversation of {count}"));
        }
        fingerprint(&self.fingerprint).ok_or_else(|| "a fingerprint is none".to_owned())
    }
}

impl Part {
    fn of(block: &BlockRef) -> Part {
        Part { tokens: block.tokens, bytes: block.file_bytes }
    }
}

/// The blocks of several conversations, each once.
#[derive(Default)]
struct Parts {
    blocks: Vec<BlockRef>,
    places: HashMap<BlockName, usize>,
}

impl Parts {
    fn place(&mut self, block: &BlockRef) -> usize {
        *self.places.entry(block.name).or_insert_with(|| {
            self.blocks.push(block.clone());
            self.blocks.len() - 1
        })
    }
}

/// What is written, with its digest at the end.
struct Hashed<'a> {
    out: &'a mut dyn Write,
    hasher: Hasher,
    bytes: u64,
}

impl Hashed<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn end(self) -> io::Result<u64> {
        self.out.write_all(self.hasher.finalize().as_bytes())?;
        Ok(self.bytes + DIGEST_BYTES)
    }
}

fn check_digest(file: &mut (impl Read + Seek), bytes: u64) -> Result<(), TransferError> {
    file.rewind()?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let chunk = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.read_exact(&mut buffer[..chunk])?;
        hasher.update(&buffer[..chunk]);
        left -= chunk as u64;
    }
    let mut digest = [0; DIGEST_BYTES as usize];
    file.read_exact(&mut digest)?;
    match hasher.finalize() == blake3::Hash::from_bytes(digest) {
        true => Ok(()),
        false => Err(invalid("its bytes are not those that were written")),
    }
}

fn fingerprint(digits: &str) -> Option<Fingerprint> {
    Some(Fingerprint(*blake3::Hash::from_hex(digits).ok()?.as_bytes()))
}

fn invalid(reason: &str) -> TransferError {
    TransferError::Invalid(reason.to_owned())
}
