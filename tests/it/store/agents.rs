//! Agents with made-up conversations, saved in a store and read back. The KV of a block is a hash of
//! all tokens up to its end, so bytes of another agent, another block or another time never pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use semantic::store::disk::Disk;
use semantic::store::{
    BlockRef, Committed, Draft, KvModel, OpenError, Settings, Store, StoreError, StoredLine,
};
use semantic::types::{
    AgentId, BLOCK_TOKENS, Fingerprint, Generation, KvAxis, KvElement, KvTensor, Line, Namespace,
    TokenId,
};

use crate::support::disk::{MemoryDisk, Volume};
use crate::support::random::Random;

/// An open store and the model that its agents talk to.
pub struct Agents {
    pub store: Arc<Store>,
    pub model: Arc<KvModel>,
}

pub type Whose = (Namespace, AgentId);

/// Every agent's conversations, in order.
pub type Conversations = BTreeMap<Whose, Vec<Vec<TokenId>>>;

/// A line as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub line: Line,
    pub generation: Generation,
    pub tokens: Vec<TokenId>,
    /// Tokens whose KV could be read, from the first.
    pub held: usize,
}

impl Agents {
    pub fn open(disk: impl Disk + 'static) -> Agents {
        Agents::try_open(disk).unwrap()
    }

    pub fn try_open(disk: impl Disk + 'static) -> Result<Agents, OpenError> {
        Agents::open_with(disk, Settings::default())
    }

    pub fn open_with(disk: impl Disk + 'static, settings: Settings) -> Result<Agents, OpenError> {
        let store = Arc::new(Store::open(Arc::new(disk), settings)?);
        Ok(Agents { store, model: model() })
    }

    pub fn open_read_only(disk: impl Disk + 'static) -> Result<Agents, OpenError> {
        let store = Arc::new(Store::open_read_only(Arc::new(disk), Settings::default())?);
        Ok(Agents { store, model: model() })
    }

    /// Saves a turn as an engine does: the blocks that are not there, then the manifest; once more
    /// if blocks went in between.
    pub fn save(
        &self,
        whose: &Whose,
        line: Line,
        tokens: &[TokenId],
    ) -> Result<Committed, StoreError> {
        let draft = self.draft(whose, line, tokens)?;
        match self.store.commit(&draft) {
            Err(StoreError::Missing(_)) => {
                let draft = self.draft(whose, line, tokens)?;
                self.store.commit(&draft)
            }
            done => done,
        }
    }

    /// Saves the first turn of a conversation.
    pub fn begin(&self, whose: &Whose, tokens: &[TokenId]) -> Line {
        let line = self.store.new_line();
        self.save(whose, line, tokens).unwrap();
        line
    }

    /// Writes the blocks of a turn; what is left to do is to commit it.
    pub fn draft(
        &self,
        whose: &Whose,
        line: Line,
        tokens: &[TokenId],
    ) -> Result<Draft, StoreError> {
        let (namespace, agent) = whose.clone();
        let blocks = self.write_blocks(&namespace, &agent, tokens)?;
        let (model, tokens) = (Arc::clone(&self.model), tokens.into());
        Ok(Draft { namespace, agent, line, model, tokens, replies: Vec::new(), blocks })
    }

    fn write_blocks(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        tokens: &[TokenId],
    ) -> Result<Vec<BlockRef>, StoreError> {
        let mut blocks: Vec<BlockRef> = Vec::new();
        for start in (0..tokens.len()).step_by(BLOCK_TOKENS) {
            let end = (start + BLOCK_TOKENS).min(tokens.len());
            let parent = blocks.last().map(|block| block.name);
            let kv = kv(&self.model, &tokens[..end], start);
            let sealed =
                self.store.seal(namespace, &self.model, parent.as_ref(), &tokens[start..end], kv);
            if !self.store.is_stored(namespace, &sealed.block.name) {
                self.store.write_block(agent, &sealed)?;
            }
            blocks.push(sealed.block);
        }
        Ok(blocks)
    }

    /// How many leading tokens of a line have KV that can be read. Panics if any byte that the store
    /// gives out is wrong.
    pub fn read(&self, stored: &StoredLine) -> (usize, Option<StoreError>) {
        let mut held = 0;
        let mut buffer = Vec::new();
        for block in &stored.blocks {
            let end = held + block.tokens;
            match self.store.read_block(&stored.namespace, &self.model, block, buffer) {
                Ok(bytes) => {
                    let right = kv(&self.model, &stored.tokens[..end], held);
                    assert!(*bytes == right[..], "wrong bytes in {} at {held}", stored.agent);
                    buffer = bytes.into_buffer();
                }
                Err(error) => return (held, Some(error)),
            }
            held = end;
        }
        (held, None)
    }

    pub fn collect(&self) {
        self.store.collect().unwrap();
    }

    /// Every live line, read to its end or its first damage.
    pub fn kept(&self) -> BTreeMap<Whose, Vec<Kept>> {
        let mut kept: BTreeMap<Whose, Vec<Kept>> = BTreeMap::new();
        for stored in self.store.lines(&self.model.fingerprint) {
            let (held, _) = self.read(&stored);
            let whose = (stored.namespace, stored.agent);
            let tokens = stored.tokens.to_vec();
            let (line, generation) = (stored.line, stored.generation);
            kept.entry(whose).or_default().push(Kept { line, generation, tokens, held });
        }
        kept
    }

    /// Every conversation, all of whose KV must be there.
    pub fn conversations(&self) -> Conversations {
        let whole = |kept: Kept| {
            assert_eq!(kept.held, kept.tokens.len(), "a part of {:?} is lost", kept.line);
            kept.tokens
        };
        let sorted = |(whose, kept): (Whose, Vec<Kept>)| {
            let mut all: Vec<Vec<TokenId>> = kept.into_iter().map(whole).collect();
            all.sort();
            (whose, all)
        };
        self.kept().into_iter().map(sorted).collect()
    }

    /// The one conversation of an agent, or nothing.
    pub fn conversation_of(&self, whose: &Whose) -> Option<Vec<TokenId>> {
        let mut all = self.conversations().remove(whose)?;
        assert_eq!(all.len(), 1, "{} has more than one line", whose.1);
        all.pop()
    }
}

/// The store that is on this volume, opened and read as after a restart.
pub fn after_restart(volume: &Volume) -> Conversations {
    Agents::open(MemoryDisk::of(volume)).conversations()
}

/// A store with nothing in it whose secret is always the same, so that a test's files have the same
/// names in each run.
pub fn empty_volume() -> Volume {
    let key = include_bytes!("../../data/store/KEY").to_vec();
    let disk = MemoryDisk::of(&Volume::default().with("KEY", key));
    drop(Agents::open(disk.clone()));
    disk.volume()
}

pub fn whose(agent: &str) -> Whose {
    (Namespace::local(), AgentId::new(agent).unwrap())
}

/// A conversation: so many tokens of which a shorter one with the same seed has the first.
pub fn conversation(seed: u64, tokens: usize) -> Vec<TokenId> {
    let mut random = Random::new(seed);
    (0..tokens).map(|_| TokenId(random.next() as u32 % 50_000)).collect()
}

/// The first `shared` tokens of one conversation, then those of another.
pub fn branch(trunk: u64, shared: usize, seed: u64, tokens: usize) -> Vec<TokenId> {
    [conversation(trunk, shared), conversation(seed, tokens - shared)].concat()
}

/// A model whose tokens leave a byte each, and whose blocks a few more.
pub fn model() -> Arc<KvModel> {
    let tensor = |name: &str, element, shape: &[KvAxis]| KvTensor {
        name: name.to_owned(),
        element,
        shape: shape.to_vec(),
    };
    let tensors = vec![
        tensor("layer.0.key.codes", KvElement::U8, &[KvAxis::Fixed(1), KvAxis::Tokens]),
        tensor("layer.0.key.scales", KvElement::F16, &[KvAxis::Fixed(3)]),
        tensor("layer.1.state", KvElement::U64, &[KvAxis::Fixed(2), KvAxis::Fixed(1)]),
    ];
    let fingerprint = Fingerprint([7; 32]);
    let (name, producer) = ("tests/tiny".to_owned(), "portable 0.1.0".to_owned());
    Arc::new(KvModel { fingerprint, name, producer, tensors })
}

/// The KV of the tokens from `start` on, given all tokens.
pub fn kv(model: &KvModel, tokens: &[TokenId], start: usize) -> Vec<u8> {
    let mut state = u64::from_le_bytes(model.fingerprint.0[..8].try_into().unwrap());
    for token in tokens {
        state = Random::new(state ^ u64::from(token.0)).next();
    }
    let mut random = Random::new(state);
    let bytes: usize = model.tensors.iter().map(|tensor| tensor.bytes(tokens.len() - start)).sum();
    (0..bytes).map(|_| random.next() as u8).collect()
}
