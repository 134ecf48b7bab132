//! Asks memory for what is needed next.

use crate::lanes::Lanes;

/// Memory that is needed next, asked for line by line while the arithmetic goes on: with one row
/// the blocks come from memory, and in an order that the CPU does not foresee.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    next: *const u8,
    lines: usize,
    per_step: usize,
}

impl Ahead {
    pub(super) const NOTHING: Ahead = Ahead { next: std::ptr::null(), lines: 0, per_step: 0 };

    #[inline(always)]
    pub(super) fn new(bytes: &[u8]) -> Ahead {
        Ahead { next: bytes.as_ptr(), lines: bytes.len() / 64, per_step: 0 }
    }

    /// Spread over a number of steps.
    #[inline(always)]
    pub(super) fn over(self, steps: usize) -> Ahead {
        Ahead { per_step: self.lines.div_ceil(steps), ..self }
    }

    #[inline(always)]
    pub(super) fn step<S: Lanes>(&mut self, lanes: S) {
        for _ in 0..self.per_step {
            lanes.prefetch(self.next);
            self.next = self.next.wrapping_add(64);
        }
    }
}
