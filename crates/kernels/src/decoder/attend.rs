//! Attention of a step's tokens, each over its own sequence's blocks.

use super::step::{Merge, Piece, Tile};
use super::{LOCAL, Local, Run, Shape};
use crate::attention::{self, Attention, Blocks};
use crate::matmul::CHUNK;
use crate::rows;
use crate::strided::{Rows, RowsMut};

/// The f32 that a piece leaves.
pub(super) fn partial_len(shape: &Shape) -> usize {
    attention::partial_len(shape.layout, shape.group_heads)
}

impl Run<'_> {
    pub(super) fn attend_tasks(&self) -> usize {
        self.step.tiles.len() + self.step.pieces.len()
    }

    pub(super) fn attend(&self, task: usize) {
        match task.checked_sub(self.step.tiles.len()) {
            None => self.attend_tile(&self.step.tiles[task]),
            Some(piece) => self.attend_piece(&self.step.pieces[piece], piece),
        }
    }

    fn attend_tile(&self, tile: &Tile) {
        let (width, stride) = (self.shape.group_width(), self.shape.query_width());
        let from = tile.token * stride + tile.kv_head * width;
        let to = from + (tile.tokens - 1) * stride + width;
        // SAFETY: the phase before wrote the queries.
        let queries = Rows::new(unsafe { self.queries.read(from..to) }, stride, width);
        let positions = &self.step.positions[tile.token..tile.token + tile.tokens];
        LOCAL.with_borrow_mut(|Local { attention: scratch, rows }| {
            rows.resize(tile.tokens * width, 0.0);
            let attention = self.attention(tile.sequence, tile.kv_head);
            let out = RowsMut::new(rows, width);
            attention::attend(self.isa, &attention, positions, queries, out, scratch);
            for (token, row) in (tile.token..).zip(rows.chunks_exact_mut(width)) {
                self.finish(token, tile.kv_head, row);
            }
        });
    }

    fn attend_piece(&self, piece: &Piece, index: usize) {
        let width = self.shape.group_width();
        let token = self.step.firsts[piece.sequence];
        let position = self.step.positions[token];
        let attention = self.attention(piece.sequence, piece.kv_head);
        // The merge leaves out what this layer's window hides.
        if !attention.blocks_seen(position).contains(&piece.block) {
            return;
        }
        let from = token * self.shape.query_width() + piece.kv_head * width;
        // SAFETY: the phase before wrote the queries.
        let query = unsafe { self.queries.read(from..from + width) };
        let len = partial_len(self.shape);
        // SAFETY: no other task has this piece.
        let partial = unsafe { self.partials.part(index * len..(index + 1) * len) };
        LOCAL.with_borrow_mut(|local| {
            attention::attend_blocks(
                self.isa,
                &attention,
                position,
                query,
                piece.block..piece.block + 1,
                partial,
                &mut local.attention,
            );
        });
    }

    pub(super) fn merge_tasks(&self) -> usize {
        self.step.merges.len().div_ceil(self.merges_per_task())
    }

    fn merges_per_task(&self) -> usize {
        self.shape.layout.kv_heads()
    }

    /// Merges of one sequence: they are too small to be shared.
    pub(super) fn merge(&self, task: usize) {
        let first = task * self.merges_per_task();
        for merge in self.step.merges[first..].iter().take(self.merges_per_task()) {
            self.merge_pieces(merge);
        }
    }

    fn merge_pieces(&self, merge: &Merge) {
        let len = partial_len(self.shape);
        let token = self.step.firsts[merge.sequence];
        let attention = self.attention(merge.sequence, merge.kv_head);
        let seen = attention.blocks_seen(self.step.positions[token]);
        assert_eq!(seen.end, merge.pieces);
        let [from, to] = [seen.start, seen.end].map(|block| (merge.first_piece + block) * len);
        // SAFETY: the phase before wrote them.
        let partials = unsafe { self.partials.read(from..to) };
        LOCAL.with_borrow_mut(|Local { rows, .. }| {
            rows.resize(self.shape.group_width(), 0.0);
            attention::merge(self.isa, &attention, partials, rows);
            self.finish(token, merge.kv_head, rows);
        });
    }

    /// Makes the output matrix's input of what the heads of a KV head have found.
    fn finish(&self, token: usize, kv_head: usize, row: &mut [f32]) {
        if self.shape.rotates_values {
            for head in row.chunks_exact_mut(self.shape.head_dim()) {
                rows::hadamard(self.isa, head);
            }
        }
        let chunk = kv_head * self.shape.group_width() / CHUNK;
        // SAFETY: no other task of the phase has this token and KV head.
        unsafe { self.for_output.set(self.isa, token, chunk, row) };
    }

    /// For the phases after the one that writes K and V.
    fn attention(&self, sequence: usize, kv_head: usize) -> Attention<'_> {
        // SAFETY: the phase before was the last to write to the KV cache.
        let cache = unsafe { self.blocks.read(0..self.blocks.len()) };
        let starts = &self.step.sequences[sequence].blocks;
        Attention {
            layout: self.shape.layout,
            kv_head,
            group_heads: self.shape.group_heads,
            scale: self.shape.scale,
            window: self.layer.window,
            softcap: self.layer.softcap,
            blocks: Blocks { cache, starts, part: self.part },
        }
    }
}
