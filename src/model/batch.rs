//! The rules of a batch, checked once, before anything is computed.

use std::collections::{HashMap, HashSet};

use super::{Batch, Error, Row, Spec};
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
