//! Heads before attention: norm, RoPE and rotation; K and V go into their blocks.

use super::step::Write;
use super::{Norm, Run};
use crate::kv::{self, HEAD_DIM_MAX, HeadMut, Tensors};
use crate::rows;

/// Tokens whose queries are placed in one go.
const QUERY_TOKENS: usize = 8;
/// New tokens per block below which a unit is too small to be a task.
const FEW_TOKENS: usize = 8;
/// The units of a task when they are small.
const SMALL_UNITS: usize = 8;

/// A unit of this phase is either the K or the V of one head in one block, or the queries of some
/// tokens.
impl Run<'_> {
    fn kv_units(&self) -> usize {
        self.step.writes.len() * self.shape.layout.kv_heads() * 2
    }

    fn units(&self) -> usize {
        self.kv_units() + self.step.tokens().div_ceil(QUERY_TOKENS)
    }

    fn units_per_task(&self) -> usize {
        match self.step.tokens() < self.step.writes.len() * FEW_TOKENS {
            true => SMALL_UNITS,
            false => 1,
        }
    }

    pub(super) fn place_tasks(&self) -> usize {
        self.units().div_ceil(self.units_per_task())
    }

    pub(super) fn place(&self, task: usize) {
        let first = task * self.units_per_task();
        for unit in first..self.units().min(first + self.units_per_task()) {
            match unit.checked_sub(self.kv_units()) {
                Some(unit) => self.place_queries(unit * QUERY_TOKENS),
                None => {
                    let heads = self.shape.layout.kv_heads();
                    let write = &self.step.writes[unit / (2 * heads)];
                    match unit % 2 {
                        0 => self.place_keys(write, unit / 2 % heads),
                        _ => self.place_values(write, unit / 2 % heads),
                    }
                }
            }
        }
    }

    fn place_queries(&self, first: usize) {
        let width = self.shape.query_width();
        for token in first..self.step.tokens().min(first + QUERY_TOKENS) {
            // SAFETY: no other unit has the queries of this token.
            let queries = unsafe { self.queries.part(token * width..(token + 1) * width) };
            for head in queries.chunks_exact_mut(self.shape.head_dim()) {
                self.turn(head, &self.layer.query_norm, token);
            }
        }
    }

    fn place_keys(&self, write: &Write, head: usize) {
        let layout = self.shape.layout;
        for (token, slot) in (write.token..write.token + write.tokens).zip(write.slot..) {
            let start = token * self.shape.kv_width() + head * layout.head_dim();
            // SAFETY: no other unit has this head's key of this token.
            let key = unsafe { self.keys.part(start..start + layout.head_dim()) };
            self.turn(key, &self.layer.key_norm, token);
            // SAFETY: no other unit has this head's K of this block; nobody reads in this phase.
            let part = unsafe { self.head_mut(write.block, layout.key_head(head)) };
            kv::append_key(self.isa, layout, part, slot, key);
        }
    }

    fn place_values(&self, write: &Write, head: usize) {
        let layout = self.shape.layout;
        for (token, slot) in (write.token..write.token + write.tokens).zip(write.slot..) {
            let start = token * self.shape.kv_width() + head * layout.head_dim();
            // SAFETY: no other unit has this head's value of this token.
            let value = unsafe { self.values.part(start..start + layout.head_dim()) };
            if self.shape.rotates_values {
                rows::hadamard(self.isa, value);
            }
            // SAFETY: no other unit has this head's V of this block; nobody reads in this phase.
            let part = unsafe { self.head_mut(write.block, layout.value_head(head)) };
            kv::append_value(self.isa, layout, part, slot, value);
        }
    }

    /// Puts a query or a key where its position wants it.
    fn turn(&self, head: &mut [f32], norm: &Option<Norm>, token: usize) {
        if let Some(norm) = norm {
            let mut normed = [0.0; HEAD_DIM_MAX];
            norm.apply(self.isa, head, &mut normed[..head.len()]);
            head.copy_from_slice(&normed[..head.len()]);
        }
        let half = head.len() / 2;
        let angles = &self.step.angles[self.layer.angles];
        let range = token * half..(token + 1) * half;
        rows::rope(self.isa, head, &angles.cos[range.clone()], &angles.sin[range]);
        if self.shape.rotates_keys {
            rows::hadamard(self.isa, head);
        }
    }

    /// # Safety
    /// Nobody else reads or writes these ranges of the layer's part of the block meanwhile.
    unsafe fn head_mut(&self, block: usize, tensors: Tensors) -> HeadMut<'_> {
        let part = block + self.part;
        let Tensors { codes, scales, biases } = tensors;
        // SAFETY: the caller's promise; the three do not overlap.
        unsafe {
            HeadMut {
                codes: self.blocks.part(part + codes.start..part + codes.end),
                scales: self.blocks.part(part + scales.start..part + scales.end),
                biases: self.blocks.part(part + biases.start..part + biases.end),
            }
        }
    }
}
