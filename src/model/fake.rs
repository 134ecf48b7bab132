//! A model without weights that is faithful about its KV: for tests of everything above it.
//!
//! Its KV *is* token and position, and its next token is a hash of all it can reach through the
//! block table. A swapped, stale, leaked or missing block therefore changes the text. In its
//! stateful mode it has recurrent state as well, which exists only after the last token written to
//! a block, so it can go on only from there.

use super::batch::{check_block, check_length};
use super::{Batch, Error, LayerSpec, Logits, Model, Row, Spec, Wanted};
use crate::types::{BLOCK_TOKENS, BlockId, KvAxis, KvElement, KvTensor, TokenId};

/// Token and position, four bytes each.
const TOKEN_BYTES: usize = 8;
/// Tokens seen and running hash.
const STATE_BYTES: usize = 16;

/// What a [`Fake`] pretends to be.
#[derive(Clone, Copy, Debug)]
pub struct FakeConfig {
    pub vocabulary: usize,
    pub context_tokens: usize,
    pub pool_blocks: usize,
    pub memory: Memory,
}

/// What the fake remembers of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// KV per token, like attention: it can go on from any length.
    Tokens,
    /// Also a state per block, like a recurrent layer: it can go on only from where a block's
    /// last written token was.
    State,
}

pub struct Fake {
    spec: Spec,
    memory: Memory,
    blocks: Vec<Block>,
}

#[derive(Clone)]
struct Block {
    /// What was written at each slot; stale content stays until it is overwritten, as in a pool.
    entries: Vec<Option<Entry>>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    token: TokenId,
    position: u32,
}

/// The recurrent state after `seen` tokens of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    seen: u64,
    hash: u64,
}

impl Fake {
    pub fn new(config: FakeConfig) -> Fake {
        let snapshot_bytes = match config.memory {
            Memory::Tokens => 0,
            Memory::State => STATE_BYTES,
        };
        let layer = LayerSpec { key_bytes: TOKEN_BYTES, value_bytes: 0, snapshot_bytes };
        let block = Block { entries: vec![None; BLOCK_TOKENS], state: State::default() };
        Fake {
            spec: Spec {
                vocabulary: config.vocabulary,
                context_tokens: config.context_tokens,
                pool_blocks: config.pool_blocks,
                prefill_tokens: BLOCK_TOKENS,
                layers: vec![layer],
                tensors: tensors(config.memory),
            },
            memory: config.memory,
            blocks: vec![block; config.pool_blocks],
        }
    }

    fn entry(&self, row: &Row<'_>, position: usize) -> Option<Entry> {
        let block = row.blocks[position / BLOCK_TOKENS];
        self.blocks[block.0 as usize].entries[position % BLOCK_TOKENS]
    }

    /// The state to go on from: that of the block which holds the token before `row.start`.
    fn state_before(&self, row: &Row<'_>) -> Result<State, Error> {
        if row.start == 0 {
            return Ok(State::default());
        }
        let block = row.blocks[(row.start - 1) / BLOCK_TOKENS];
        let state = self.blocks[block.0 as usize].state;
        if state.seen != row.start as u64 {
            return Err(Error::Batch(format!(
                "no state at position {}; the block has one at {}",
                row.start, state.seen
            )));
        }
        Ok(state)
    }

    fn write(&mut self, row: &Row<'_>, mut state: State) {
        for (index, &token) in row.tokens.iter().enumerate() {
            let position = row.start + index;
            let block = &mut self.blocks[row.blocks[position / BLOCK_TOKENS].0 as usize];
            let entry = Entry { token, position: position as u32 };
            block.entries[position % BLOCK_TOKENS] = Some(entry);
            state = State { seen: position as u64 + 1, hash: mix(state.hash, entry.bits()) };
            block.state = state;
        }
    }

    /// A hash of all that position `last` can reach.
    fn reach(&self, row: &Row<'_>, last: usize) -> u64 {
        (0..=last).fold(0, |hash, position| {
            // Nothing written there reads as garbage, as it would in a real pool.
            let bits = self.entry(row, position).map_or(u64::MAX, Entry::bits);
            mix(hash, bits)
        })
    }

    fn logits(&self, row: &Row<'_>) -> Logits {
        let positions = match row.logits {
            Wanted::None => row.end()..row.end(),
            Wanted::Last => row.end() - 1..row.end(),
            Wanted::All => row.start..row.end(),
        };
        let vocabulary = self.spec.vocabulary;
        let mut values = Vec::with_capacity(positions.len() * vocabulary);
        for position in positions {
            let hash = self.reach(row, position);
            values.extend((0..vocabulary as u64).map(|token| {
                // 24 bits are exact in an f32: between -8 and 8.
                (mix(hash, token) >> 40) as f32 / (1 << 20) as f32 - 8.0
            }));
        }
        Logits::new(vocabulary, values)
    }
}

impl Model for Fake {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn path(&self) -> &'static str {
        "fake"
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<Vec<Logits>, Error> {
        batch.check(&self.spec)?;
        let states = match self.memory {
            Memory::Tokens => vec![State::default(); batch.rows.len()],
            Memory::State => {
                batch.rows.iter().map(|row| self.state_before(row)).collect::<Result<_, _>>()?
            }
        };
        for (row, state) in batch.rows.iter().zip(states) {
            self.write(row, state);
        }
        Ok(batch.rows.iter().map(|row| self.logits(row)).collect())
    }

    fn export(&mut self, block: BlockId, tokens: usize) -> Result<Vec<u8>, Error> {
        check_block(&self.spec, block, tokens)?;
        let block = &self.blocks[block.0 as usize];
        let mut bytes = Vec::new();
        for entry in &block.entries[..tokens] {
            bytes.extend(entry.map_or(u64::MAX, Entry::bits).to_le_bytes());
        }
        if self.memory == Memory::State {
            bytes.extend(block.state.seen.to_le_bytes());
            bytes.extend(block.state.hash.to_le_bytes());
        }
        Ok(bytes)
    }

    fn import(&mut self, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<(), Error> {
        check_block(&self.spec, block, tokens)?;
        check_length(&self.spec, tokens, bytes)?;
        let block = &mut self.blocks[block.0 as usize];
        let words: Vec<u64> =
            bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        for (entry, bits) in block.entries.iter_mut().zip(&words[..tokens]) {
            *entry = Entry::from_bits(*bits);
        }
        if self.memory == Memory::State {
            block.state = State { seen: words[tokens], hash: words[tokens + 1] };
        }
        Ok(())
    }
}

/// Of an exported block, in the order of its bytes.
fn tensors(memory: Memory) -> Vec<KvTensor> {
    let tensor = |name: &str, axis| KvTensor {
        name: format!("layer.0.{name}"),
        element: KvElement::U64,
        shape: vec![axis],
    };
    let entries = tensor("key", KvAxis::Tokens);
    let state = tensor("state", KvAxis::Fixed(STATE_BYTES / KvElement::U64.bytes()));
    match memory {
        Memory::Tokens => vec![entries],
        Memory::State => vec![entries, state],
    }
}

impl Entry {
    fn bits(self) -> u64 {
        u64::from(self.token.0) << 32 | u64::from(self.position)
    }

    fn from_bits(bits: u64) -> Option<Entry> {
        match bits {
            u64::MAX => None,
            _ => Some(Entry { token: TokenId((bits >> 32) as u32), position: bits as u32 }),
        }
    }
}

/// The finaliser of SplitMix64 over both words: a change of either changes about half the bits.
fn mix(hash: u64, bits: u64) -> u64 {
    let mut z = hash.rotate_left(5) ^ bits.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::argmax;

    fn fake(memory: Memory) -> Fake {
        Fake::new(FakeConfig { vocabulary: 97, context_tokens: 2048, pool_blocks: 8, memory })
    }

    fn ids(range: std::ops::Range<u32>) -> Vec<TokenId> {
        range.map(|id| TokenId(id % 97)).collect()
    }

    fn blocks(ids: &[u32]) -> Vec<BlockId> {
        ids.iter().copied().map(BlockId).collect()
    }

    fn step(fake: &mut Fake, tokens: &[TokenId], start: usize, table: &[BlockId]) -> TokenId {
        let row = Row { tokens, start, blocks: table, logits: Wanted::Last };
        let logits = fake.step(&Batch { rows: vec![row] }).unwrap();
        argmax(logits[0].last())
    }

    #[test]
    fn chunking_and_block_numbers_change_nothing() {
        for memory in [Memory::Tokens, Memory::State] {
            let tokens = ids(0..300);
            let whole = step(&mut fake(memory), &tokens, 0, &blocks(&[0, 1]));
            let mut other = fake(memory);
            step(&mut other, &tokens[..100], 0, &blocks(&[5, 2]));
            let chunked = step(&mut other, &tokens[100..], 100, &blocks(&[5, 2]));
            assert_eq!(whole, chunked);
        }
    }

    #[test]
    fn a_block_of_another_sequence_changes_the_text() {
        let mut fake = fake(Memory::Tokens);
        let tokens = ids(0..300);
        step(&mut fake, &tokens, 0, &blocks(&[0, 1]));
        step(&mut fake, &ids(7..307), 0, &blocks(&[2, 3]));
        let right = step(&mut fake, &[TokenId(5)], 300, &blocks(&[0, 1]));
        step(&mut fake, &tokens[256..], 256, &blocks(&[0, 4]));
        assert_eq!(step(&mut fake, &[TokenId(5)], 300, &blocks(&[0, 4])), right);
        let wrong = step(&mut fake, &[TokenId(5)], 300, &blocks(&[2, 1]));
        assert_ne!(right, wrong);
    }

    #[test]
    fn exported_blocks_come_back_to_the_bit() {
        for memory in [Memory::Tokens, Memory::State] {
            let mut first = fake(memory);
            step(&mut first, &ids(0..300), 0, &blocks(&[0, 1]));
            let full = first.export(BlockId(0), BLOCK_TOKENS).unwrap();
            let tail = first.export(BlockId(1), 44).unwrap();
            let expected = step(&mut first, &[TokenId(9)], 300, &blocks(&[0, 1]));
            let mut second = fake(memory);
            second.import(BlockId(6), BLOCK_TOKENS, &full).unwrap();
            second.import(BlockId(3), 44, &tail).unwrap();
            assert_eq!(second.export(BlockId(3), 44).unwrap(), tail);
            assert_eq!(step(&mut second, &[TokenId(9)], 300, &blocks(&[6, 3])), expected);
            assert!(second.import(BlockId(3), 43, &tail).is_err());
        }
    }

    #[test]
    fn a_stateful_model_goes_on_only_where_its_state_is() {
        let mut fake = fake(Memory::State);
        let table = blocks(&[0, 1]);
        step(&mut fake, &ids(0..300), 0, &table);
        assert_eq!(fake.spec().resume_point(300), 256);
        let tokens = [TokenId(1)];
        let middle = Row { tokens: &tokens, start: 270, blocks: &table, logits: Wanted::Last };
        assert!(fake.step(&Batch { rows: vec![middle] }).is_err());
        step(&mut fake, &tokens, 256, &table);
    }

    #[test]
    fn batches_that_break_the_rules_are_refused() {
        let mut fake = fake(Memory::Tokens);
        let (table, tokens) = (blocks(&[0]), ids(0..4));
        let row = Row { tokens: &tokens, start: 0, blocks: &table, logits: Wanted::None };
        let mut refused = |rows: Vec<Row<'_>>| fake.step(&Batch { rows }).unwrap_err().to_string();
        expect_test::expect![[r"
            bad batch: it has no rows
            bad batch: row 0: it has no tokens
            bad batch: row 0: 259 positions in 1 blocks
            bad batch: row 0: it ends at 3004 of 2048 positions
            bad batch: row 0: token 97 in a vocabulary of 97
            bad batch: row 0: block b8 in a pool of 8 blocks
            bad batch: row 0: a block is twice in its table
            bad batch: row 0 uses block b0, which row 1 writes"]]
        .assert_eq(
            &[
                refused(vec![]),
                refused(vec![Row { tokens: &[], ..row }]),
                refused(vec![Row { start: 255, ..row }]),
                refused(vec![Row { start: 3000, ..row }]),
                refused(vec![Row { tokens: &[TokenId(97)], ..row }]),
                refused(vec![Row { blocks: &blocks(&[8]), ..row }]),
                refused(vec![Row { blocks: &blocks(&[1, 1]), ..row }]),
                refused(vec![row, row]),
            ]
            .join("\n"),
        );
    }
}
