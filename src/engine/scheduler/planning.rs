//! What runs in the next step, and what that costs.

use std::time::Instant;

use super::share::{NEIGHBOURS_STEP, turn};
use super::{Order, PlannedRow, Prefilling, Scheduler, share};
use crate::engine::pace::Shape;
use crate::model::{Batch, Row, Wanted};
use crate::types::BLOCK_TOKENS;

impl Scheduler {
    /// What runs in the next step: every sequence that generates brings its token, and what is
    /// left of the step's time is shared among prompts. The step is short while there are others
    /// who may come, and longer if it ends a prompt that is alone.
    pub fn rows(&self) -> Vec<PlannedRow> {
        let mut rows = Vec::new();
        let mut decoding = Shape::default();
        let mut prefilling = Vec::new();
        let computing = self.running.iter().filter(|(_, active)| active.restoring.is_none());
        for (order, active) in computing {
            let (order, context) = (*order, active.computed);
            match active.left() {
                0 => unreachable!("a sequence without a token to compute has ended"),
                1 => {
                    decoding.add_decode(context);
                    rows.push(active.row(order, 1));
                }
                left => prefilling.push(Prefilling { order, context, left }),
            }
        }
        if let [Prefilling { order, context, left }] = prefilling[..]
            && self.is_alone(order)
            && left <= self.pace.prefill_tokens_at_last(context)
        {
            return vec![self.running[&order].row(order, left)];
        }
        let whole = |context: usize| self.pace.prefill_tokens(&decoding, context);
        let short =
            |context: usize| self.pace.prefill_tokens_within(NEIGHBOURS_STEP, &decoding, context);
        let shares = match self.has_neighbours {
            true => share(&turn(prefilling, self.passed, &whole), &short),
            false => share(&prefilling, &whole),
        };
        for (order, tokens) in shares {
            rows.push(self.running[&order].row(order, tokens));
        }
        rows
    }

    /// Whether nothing else runs or waits, and nobody else's next turn may come.
    fn is_alone(&self, order: Order) -> bool {
        let others = self.running.keys().any(|other| *other != order);
        !others && self.parked.is_empty() && self.waiting.is_empty() && !self.has_neighbours
    }

    /// Whether more than one namespace runs, or was there a moment ago.
    pub(super) fn sees_neighbours(&self, now: Instant) -> bool {
        let mut running = self.running.keys().map(|order| &self.tickets[&order.request].namespace);
        let first = running.next();
        self.tenants.are_several(now) || running.any(|namespace| Some(namespace) != first)
    }

    /// The step for these rows.
    pub fn batch(&self, rows: &[PlannedRow]) -> Batch<'_> {
        Batch { rows: rows.iter().map(|row| self.row(row)).collect() }
    }

    fn row(&self, row: &PlannedRow) -> Row<'_> {
        let active = &self.running[&row.order];
        let written = row.start / BLOCK_TOKENS..row.end.div_ceil(BLOCK_TOKENS);
        // What another sequence, a head or a writer can read is never written to.
        assert!(active.table[written].iter().all(|lease| !lease.is_shared()));
        Row {
            tokens: &active.sequence.tokens()[row.start..row.end],
            start: row.start,
            blocks: &active.blocks,
            logits: if row.is_last { Wanted::Last } else { Wanted::None },
        }
    }

    /// What these rows cost a step, for [`Scheduler::predict`] and [`Scheduler::observe`].
    pub fn shape(&self, rows: &[PlannedRow]) -> Shape {
        let mut shape = Shape::default();
        for row in rows {
            match row.end - row.start {
                1 => shape.add_decode(row.start),
                tokens => shape.add_prefill(row.start, tokens),
            }
        }
        shape
    }
}
