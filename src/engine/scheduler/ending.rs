//! From the last token of a reply to its last event: the turn is to be safe before it is said to be.

use std::time::{Duration, Instant};

use super::super::agents::{Head, HeadId};
use super::super::pool::Lease;
use super::super::request::{Durability, Event, Outcome};
use super::ticket::Ticket;
use super::{GeneratedReply, Order, RequestId, Scheduler};
use crate::store::StoredLine;
use crate::types::{AgentId, BLOCK_TOKENS, Generation, Namespace, TokenId};

/// A reply that is complete is held back for so long at most until it is safe: the disk may be
/// slow, and the text has gone out already.
pub const DURABLE_WAIT_MAX: Duration = Duration::from_secs(5);

/// A request that has its replies.
pub struct Ending {
    pub(super) namespace: Namespace,
    outcome: Outcome,
    head: HeadId,
    /// Tokens of the head that are to be safe.
    tokens: usize,
    until: Instant,
}

/// A block of a running sequence that will not change any more and that the store does not have.
pub struct Filled<'a> {
    /// Whose it is.
    pub order: Order,
    pub namespace: &'a Namespace,
    pub agent: &'a AgentId,
    pub lease: &'a Lease,
    /// The block before it.
    pub parent: Option<&'a Lease>,
    pub tokens: &'a [TokenId],
}

impl Ending {
    pub(super) fn agent(&self) -> &AgentId {
        &self.outcome.admitted.agent
    }
}

impl Scheduler {
    /// All replies of a request are complete and kept as `head`.
    pub(super) fn finish(
        &mut self,
        request: RequestId,
        ticket: Ticket,
        head: Option<(HeadId, usize)>,
        now: Instant,
    ) {
        let namespace = ticket.namespace.clone();
        self.tenants.see(&namespace, now);
        let mut outcome = ticket.outcome(now);
        let kept = head.filter(|_| self.store_keeps);
        let kept = kept.and_then(|(id, tokens)| Some((id, tokens, self.agents.head(id)?)));
        match kept {
            Some((head, tokens, kept)) if kept.will_be_saved() => {
                let until = now + DURABLE_WAIT_MAX;
                let ending = Ending { namespace, outcome, head, tokens, until };
                self.endings.insert(request, ending);
            }
            // Nothing of it is new, or nothing more of it will be saved.
            Some((head, tokens, kept)) => {
                let agent = kept.agent.clone();
                let safe = self.safe(head, tokens);
                self.repeated.extend(safe.map(|_| (namespace, agent)));
                outcome.durability = safe.map_or(Durability::NotDurable, Durability::Durable);
                self.finished(request, outcome);
            }
            None => self.finished(request, outcome),
        }
    }

    /// The save that has so many tokens of a head, if there is one.
    fn safe(&self, head: HeadId, tokens: usize) -> Option<Generation> {
        let head = self.agents.head(head).filter(|head| head.is_saved())?;
        head.saved().filter(|saved| saved.tokens >= tokens).map(|saved| saved.generation)
    }

    fn finished(&mut self, request: RequestId, outcome: Outcome) {
        self.finished_requests += 1;
        self.items.push((request, Ok(Event::Finished(outcome))));
    }

    /// The store has this, and the names that lead to it are safe. `head` is what was saved; it
    /// may have gone on, or away.
    pub fn saved(&mut self, head: HeadId, stored: StoredLine) {
        let generation = stored.generation;
        self.agents.stored(stored);
        self.settle(|ending| ending.head == head, Durability::Durable(generation));
        // A head that has taken the place of another may have no more than that.
        let safe: Vec<(RequestId, Generation)> = self
            .endings
            .iter()
            .filter_map(|(request, ending)| {
                Some((*request, self.safe(ending.head, ending.tokens)?))
            })
            .collect();
        for (request, generation) in safe {
            let ending = self.endings.remove(&request).expect("it was just there");
            let durability = Durability::Durable(generation);
            self.finished(request, Outcome { durability, ..ending.outcome });
        }
    }

    /// What the store has from before.
    pub fn found(&mut self, stored: StoredLine) {
        self.read_replies(&stored);
        self.agents.stored(stored);
    }

    /// The store has something else of a line than before. Its head, which it had all of, goes.
    pub fn replaced(&mut self, stored: StoredLine) {
        self.read_replies(&stored);
        self.agents.replaced(stored);
    }

    /// What an agent said in it is found again in what its client sends.
    fn read_replies(&mut self, line: &StoredLine) {
        for reply in &line.replies {
            let Some(tokens) = line.tokens.get(reply.clone()) else { continue };
            let mut detokenizer = self.tokenizer.detokenizer();
            let mut text = String::new();
            for token in tokens {
                text += detokenizer.push(*token).unwrap_or_default();
            }
            // One that ends inside a character stands for no text.
            if detokenizer.finish().is_none() {
                let (namespace, tokens) = (line.namespace.clone(), tokens.into());
                self.replies.push(GeneratedReply { namespace, text, tokens });
            }
        }
    }

    /// A head could not be saved; nobody waits for it any longer.
    pub fn not_saved(&mut self, head: HeadId) {
        self.agents.not_saved(head);
        self.settle(|ending| ending.head == head, Durability::NotDurable);
    }

    /// A head cannot be saved as it is, however often it is tried.
    pub fn give_up(&mut self, head: HeadId) {
        self.agents.give_up(head);
        self.settle(|ending| ending.head == head, Durability::NotDurable);
    }

    /// The same of the blocks of a turn that is under way.
    pub fn give_up_filled(&mut self, order: Order) {
        if let Some(active) = self.running.get_mut(&order) {
            active.is_unsavable = true;
        }
    }

    /// Ends what has waited for long enough, and what nobody saves any more: `is_pending` says of
    /// which heads a save is on its way.
    pub fn end_late(&mut self, now: Instant, is_pending: impl Fn(HeadId) -> bool) {
        let is_lost = |ending: &Ending| {
            let head = self.agents.head(ending.head);
            !is_pending(ending.head) && !head.is_some_and(Head::will_be_saved)
        };
        let lost: Vec<HeadId> =
            self.endings.values().filter(|e| is_lost(e)).map(|ending| ending.head).collect();
        self.settle(
            |ending| ending.until <= now || lost.contains(&ending.head),
            Durability::NotDurable,
        );
    }

    /// Ends every request that has its replies, safe or not.
    pub fn end_all_unsaved(&mut self) {
        self.settle(|_| true, Durability::NotDurable);
    }

    /// Ends a request that has its replies, safe or not.
    pub(super) fn end_unsaved(&mut self, request: RequestId) {
        if let Some(ending) = self.endings.remove(&request) {
            self.finished(request, ending.outcome);
        }
    }

    fn settle(&mut self, is_over: impl Fn(&Ending) -> bool, durability: Durability) {
        let over = self.endings.extract_if(.., |_, ending| is_over(ending));
        let over: Vec<(RequestId, Ending)> = over.collect();
        for (request, ending) in over {
            self.finished(request, Outcome { durability, ..ending.outcome });
        }
    }

    /// The next block that can be saved before its turn ends. Those of a sequence come in order.
    pub fn filled(&mut self) -> Option<Filled<'_>> {
        let order = self.running.iter_mut().find_map(|(order, active)| {
            let ticket = &self.tickets[&order.request];
            let has_begun_as_one_of_several = ticket.choices.len() > active.choices;
            let is_unwanted = ticket.is_ephemeral || active.is_unsavable;
            if active.restoring.is_some() || is_unwanted || has_begun_as_one_of_several {
                return None;
            }
            while active.table.get(active.stored).is_some_and(|lease| lease.stored().is_some()) {
                active.stored += 1;
            }
            ((active.stored + 1) * BLOCK_TOKENS <= active.computed).then_some(*order)
        })?;
        let active = &self.running[&order];
        let index = active.stored;
        Some(Filled {
            order,
            namespace: &self.tickets[&order.request].namespace,
            agent: &self.tickets[&order.request].agent,
            lease: &active.table[index],
            parent: index.checked_sub(1).map(|before| &active.table[before]),
            tokens: &active.sequence.tokens()[index * BLOCK_TOKENS..(index + 1) * BLOCK_TOKENS],
        })
    }
}
