//! The rules of a batch, checked once, before anything is computed.

use std::collections::{HashMap, HashSet};

use super::{Batch, Error, Logits, Row, Spec, Wanted};
use crate::types::{BLOCK_TOKENS, BlockId};

impl Batch<'_> {
    /// Refuses a batch that would read or write outside the pool, the vocabulary or the context,
    /// or in which one row's blocks are written by another.
    pub fn check(&self, spec: &Spec) -> Result<(), Error> {
        if self.rows.is_empty() {
            return Err(Error::Batch("it has no rows".to_owned()));
        }
        let mut writers = HashMap::new();
        for (index, row) in self.rows.iter().enumerate() {
            row.check(spec).map_err(|reason| Error::Batch(format!("row {index}: {reason}")))?;
            writers.extend(row.written_blocks().iter().map(|block| (*block, index)));
        }
        for (index, row) in self.rows.iter().enumerate() {
            for block in row.blocks {
                // What a row reads must not depend on which row of the step is computed first.
                match writers.get(block) {
                    Some(writer) if *writer != index => {
                        return Err(Error::Batch(format!(
                            "row {index} uses block {block:?}, which row {writer} writes"
                        )));
                    }
                    _ => (),
                }
            }
        }
        Ok(())
    }

    /// Deals out the logits of all rows, `[wanted position, vocabulary]`, to their rows.
    pub fn split_logits(&self, vocabulary: usize, values: &[f32]) -> Vec<Logits> {
        let mut rest = values;
        self.rows
            .iter()
            .map(|row| {
                let positions = match row.logits {
                    Wanted::None => 0,
                    Wanted::Last => 1,
                    Wanted::All => row.tokens.len(),
                };
                let (mine, others) = rest.split_at(positions * vocabulary);
                rest = others;
                Logits::new(vocabulary, mine.to_vec())
            })
            .collect()
    }
}

impl Row<'_> {
    /// The blocks that the new tokens go to.
    fn written_blocks(&self) -> &[BlockId] {
        &self.blocks[self.start / BLOCK_TOKENS..self.end().div_ceil(BLOCK_TOKENS)]
    }

    fn check(&self, spec: &Spec) -> Result<(), String> {
        if self.tokens.is_empty() {
            return Err("it has no tokens".to_owned());
        }
        if self.end() > spec.context_tokens {
            return Err(format!("it ends at {} of {} positions", self.end(), spec.context_tokens));
        }
        if self.end() > self.blocks.len() * BLOCK_TOKENS {
            return Err(format!("{} positions in {} blocks", self.end(), self.blocks.len()));
        }
        if let Some(id) = self.tokens.iter().find(|id| id.0 as usize >= spec.vocabulary) {
            return Err(format!("token {id} in a vocabulary of {}", spec.vocabulary));
        }
        if let Some(block) = self.blocks.iter().find(|id| id.0 as usize >= spec.pool_blocks) {
            return Err(format!("block {block:?} in a pool of {} blocks", spec.pool_blocks));
        }
        let distinct: HashSet<_> = self.blocks.iter().collect();
        if distinct.len() != self.blocks.len() {
            return Err("a block is twice in its table".to_owned());
        }
        Ok(())
    }
}

/// Refuses a block outside the pool, or more tokens than a block has.
pub fn check_block(spec: &Spec, block: BlockId, tokens: usize) -> Result<(), Error> {
    if block.0 as usize >= spec.pool_blocks || tokens > BLOCK_TOKENS {
        return Err(Error::Batch(format!(
            "{tokens} tokens of block {block:?} in a pool of {} blocks",
            spec.pool_blocks
        )));
    }
    Ok(())
}

/// Refuses bytes that are not an export of so many tokens.
pub fn check_length(spec: &Spec, tokens: usize, bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() != spec.block_bytes(tokens) {
        return Err(Error::Batch(format!(
            "{} bytes for {tokens} tokens; wanted {}",
            bytes.len(),
            spec.block_bytes(tokens)
        )));
    }
    Ok(())
}
