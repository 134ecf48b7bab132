//! What a step's logits come to: tokens, text, new choices, endings.

use std::time::Instant;

use super::super::agents::{HeadId, Kept};
use super::super::error::Error;
use super::super::request::{Choice, Event, Finish};
use super::super::sequence::NoToken;
use super::{Active, Copy, GeneratedReply, Order, PlannedRow, Scheduler, blocks};
use crate::model::Logits;
use crate::types::BLOCK_TOKENS;

impl Scheduler {
    /// Takes what the step gave for these rows.
    pub fn complete(&mut self, rows: &[PlannedRow], logits: &[Logits], now: Instant) {
        assert_eq!(rows.len(), logits.len());
        self.count_pass(rows);
        for (row, logits) in rows.iter().zip(logits) {
            // It may have failed with another choice of its request.
            let Some(active) = self.running.get_mut(&row.order) else { continue };
            assert_eq!(active.computed, row.start);
            active.computed = row.end;
            let prompt_tokens = active.sequence.prompt_tokens();
            if row.start < prompt_tokens && active.sequence.completion_tokens() == 0 {
                let tokens = row.end.min(prompt_tokens);
                if let Some(ticket) = self.tickets.get_mut(&row.order.request) {
                    ticket.prefilled(tokens, now);
                }
                self.items.push((row.order.request, Ok(Event::Prefilled { tokens })));
            }
            if !row.is_last {
                continue;
            }
            // Looked at before the prompt becomes a head: it would fail whoever goes on from it.
            if logits.last().iter().any(|logit| logit.is_nan()) {
                self.fail(row.order.request, Error::NotANumber { position: row.end });
            } else {
                for order in self.fork(row.order) {
                    self.sample(order, logits.last(), now);
                }
            }
        }
    }

    /// Whether the oldest prompt has had no part in this step.
    fn count_pass(&mut self, rows: &[PlannedRow]) {
        let is_read = |active: &Active| active.restoring.is_none() && active.left() > 1;
        let oldest = self.running.iter().find(|(_, active)| is_read(active));
        let is_in = |order: &Order| rows.iter().any(|row| row.order == *order);
        self.passed = match oldest.is_some_and(|(order, _)| !is_in(order)) {
            true => self.passed + 1,
            false => 0,
        };
    }

    /// The choices that go on from here: a sequence whose prompt is done, and as many more as its
    /// request wants. The prompt becomes a head and each choice has its own last block.
    fn fork(&mut self, leader: Order) -> Vec<Order> {
        let active = self.running.get_mut(&leader).expect("it was just in a step");
        let choices = std::mem::replace(&mut active.choices, 1);
        if choices == 1 {
            return vec![leader];
        }
        let Active { sequence, table, mut reserve, computed, .. } =
            self.running.remove(&leader).expect("it was just in a step");
        let first = computed / BLOCK_TOKENS;
        let rest = computed % BLOCK_TOKENS;
        let per_choice = reserve.len() / choices;
        let mut orders = Vec::new();
        for choice in 0..choices {
            let order = Order { choice, ..leader };
            let own = reserve.split_off(reserve.len() - per_choice);
            if rest > 0 {
                let (from, to) = (table[first].clone(), own[0].id());
                self.copies.push(Copy { order, from, to, tokens: rest });
            }
            let mut active = Active::new(sequence.fork(choice), 1);
            active.set_table(table[..first].iter().cloned().chain(own).collect());
            active.computed = computed;
            self.running.insert(order, active);
            orders.push(order);
        }
        let mut prompt = Active::new(sequence, choices);
        prompt.set_table(table);
        prompt.computed = computed;
        self.keep(leader, prompt);
        orders
    }

    fn sample(&mut self, order: Order, logits: &[f32], now: Instant) {
        // Gone if another choice of its request has just failed.
        let Some(active) = self.running.get_mut(&order) else { return };
        let position = active.computed;
        match active.sequence.sample(logits) {
            Err(NoToken::NotANumber) => self.fail(order.request, Error::NotANumber { position }),
            Err(NoToken::Grammar(reason)) => self.fail(order.request, Error::Grammar(reason)),
            Ok(delta) => {
                let is_finished = active.sequence.finish().is_some();
                if let Some(ticket) = self.tickets.get_mut(&order.request) {
                    ticket.token(now);
                }
                self.items.push((order.request, Ok(Event::Text(delta))));
                if is_finished {
                    let active = self.running.remove(&order).expect("it is there");
                    self.end(order, active, now);
                }
            }
        }
    }

    /// A choice is complete. Its KV is kept, and with the last choice the request ends.
    pub(super) fn end(&mut self, order: Order, active: Active, now: Instant) {
        let sequence = &active.sequence;
        let choice = Choice {
            finish: sequence.finish().cloned().unwrap_or(Finish::Cancelled),
            text: sequence.text().to_owned(),
            completion_tokens: sequence.completion_tokens(),
        };
        self.copies.retain(|copy| copy.order != order);
        let Some(ticket) = self.tickets.get_mut(&order.request) else { return };
        if let Some(tokens) = sequence.reply_tokens() {
            let namespace = ticket.namespace.clone();
            self.replies.push(GeneratedReply { namespace, text: choice.text.clone(), tokens });
        }
        // One that ends before its prompt was done ends for all its choices.
        for later in &mut ticket.choices[order.choice + 1..][..active.choices - 1] {
            *later = Some(choice.clone());
        }
        ticket.choices[order.choice] = Some(choice);
        let is_complete = ticket.is_complete();
        let head = self.keep(order, active);
        if let Some((head, _)) = head {
            self.agents.set_ended(head, now);
        }
        if is_complete {
            let ticket = self.tickets.remove(&order.request).expect("it was just seen");
            self.finish(order.request, ticket, head, now);
        }
    }

    /// Keeps what a sequence has computed as a head of its agent. Of several choices only the
    /// prompt becomes one: which of them the client goes on with is not known, and the last block
    /// of one that has just begun may not be copied yet.
    pub(super) fn keep(&mut self, order: Order, active: Active) -> Option<(HeadId, usize)> {
        let Active { sequence, computed, mut table, choices, .. } = active;
        let ticket = self.tickets.get_mut(&order.request)?;
        let has_begun_as_one_of_several = ticket.choices.len() > choices;
        if computed == 0 || has_begun_as_one_of_several || ticket.is_ephemeral {
            return ticket.head;
        }
        table.truncate(blocks(computed));
        let (tokens, rest) = sequence.tokens().split_at(computed);
        // What a prompt that was cut short lacks is the client's to send again.
        let rest = if rest.len() == 1 { rest.to_vec() } else { Vec::new() };
        let mut replies = sequence.replies();
        replies.retain(|reply| reply.end <= computed + rest.len());
        let head = self.agents.keep(Kept {
            namespace: ticket.namespace.clone(),
            agent: ticket.agent.clone(),
            tokens: tokens.into(),
            rest,
            replies,
            is_cut: computed < sequence.prompt_tokens(),
            blocks: table,
        });
        if let Some(head) = head {
            ticket.head = Some((head, computed));
        }
        ticket.head
    }
}
