//! Decides what runs in the next step. Pure: no clock, no channel, no tensor.
//!
//! A step has two halves. [`Scheduler::admit`] lets requests in, finds what they can reuse and
//! says which blocks to copy or to restore; [`Scheduler::rows`] says what is computed, and
//! [`Scheduler::complete`] takes the logits. What clients are to hear collects in the meantime and
//! is taken with [`Scheduler::take_items`].
//!
//! Age is the order of admission, and the oldest always proceeds.

mod admission;
mod ending;
mod named;
mod needed;
mod parting;
mod planning;
mod progress;
mod share;
mod tenants;
mod ticket;
mod warming;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::agents::{Agents, Forgotten, Head, HeadId};
use super::error::Error;
use super::handle::{Evicted, Stats};
use super::pace::{Pace, Shape};
use super::pool::{Exhausted, Lease, Pool};
use super::purse::{Purse, Short, Tab};
use super::queue::Queue;
use super::request::{CHOICES_MAX, Delta, Event, Item, Request, TOP_LOGPROBS_MAX, budget_tokens};
use super::sequence::{Sequence, Settings};
use crate::model::Spec;
use crate::model::sample::Bias;
use crate::store::BlockRef;
use crate::text::{Kept, Resolved, Tokenizer};
use crate::types::{AgentId, BLOCK_TOKENS, BlockId, Line, Namespace, TokenId};

use admission::{Victims, window_blocks};
use ending::Ending;
pub use ending::{DURABLE_WAIT_MAX, Filled};
pub use parting::{Parting, Place};
pub use share::{Prefilling, share};
use tenants::Tenants;
use ticket::Ticket;
use warming::Warming;

/// Tokens ahead of a sequence for which it holds blocks: two blocks, so that it can go on for a
/// while however full the pool gets.
pub const WINDOW_TOKENS: usize = 2 * BLOCK_TOKENS;

/// Nobody waits longer, and an instant a longer time from now may not exist.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A request by the order of its coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One choice of a request. The order is that of age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order {
    /// When the request was first admitted, among all. Who is let in early, because others have
    /// had their share, is not the younger for it.
    pub admission: u64,
    pub request: RequestId,
    pub choice: usize,
}

/// What the scheduler is held to.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A step's time, as far as the size of its work can hold it.
    pub step: Duration,
    /// Sequences that run or are parked.
    pub running_max: usize,
    /// Requests that wait.
    pub queue_max: usize,
    /// How long a request may wait.
    pub queue_time: Duration,
    /// Tells the automatic agents of this process from those of others.
    pub instance: u64,
}

/// Everything that is decided without a model.
pub struct Scheduler {
    limits: Limits,
    spec: Spec,
    tokenizer: Arc<Tokenizer>,
    /// Whether agents can be saved before their blocks are given up.
    store_keeps: bool,
    pool: Pool,
    agents: Agents,
    waiting: Queue<Waiting>,
    /// Admitted once, without blocks now.
    parked: BTreeMap<Order, Active>,
    running: BTreeMap<Order, Active>,
    tickets: BTreeMap<RequestId, Ticket>,
    /// Requests whose replies are complete and not yet safe.
    endings: BTreeMap<RequestId, Ending>,
    pace: Pace,
    tenants: Tenants,
    /// Whether steps are kept short, for another namespace than the one that is served.
    has_neighbours: bool,
    /// In how many steps in a row the oldest prompt had no part.
    passed: usize,
    /// To be done before the next step.
    copies: Vec<Copy>,
    items: Vec<(RequestId, Item)>,
    replies: Vec<GeneratedReply>,
    partings: Vec<(RequestId, Parting)>,
    /// Agents that had a turn of which nothing is new for the store.
    repeated: Vec<(Namespace, AgentId)>,
    /// Heads that are brought back for no request.
    warming: BTreeMap<RestoreId, Warming>,
    /// Of these, what has not begun.
    prefetches: Vec<Restore>,
    next_request: u64,
    next_restore: u64,
    admissions: u64,
    finished_requests: u64,
    parkings: u64,
    /// Heads that gave their blocks back.
    evictions: u64,
}

/// A request that has no blocks yet.
struct Waiting {
    request: RequestId,
    sequence: Sequence,
}

/// A sequence with what it holds.
struct Active {
    sequence: Sequence,
    /// Replies that begin where this prompt ends, itself included; 1 once they have begun.
    choices: usize,
    /// Tokens that have KV.
    computed: usize,
    /// Block `i` holds positions `i * BLOCK_TOKENS ..`.
    table: Vec<Lease>,
    /// The table's numbers, as a row wants them.
    blocks: Vec<BlockId>,
    /// For the choices that begin when the prompt is done.
    reserve: Vec<Lease>,
    /// Its blocks are being restored, which can fail: nobody may count on them yet, and nothing
    /// is computed.
    restoring: Option<RestoreId>,
    /// The first so many blocks of the table are in the store or on their way.
    stored: usize,
    /// One of its blocks cannot be saved, and so none after it.
    is_unsavable: bool,
}

/// What has to be done to blocks before the next step.
#[derive(Debug)]
pub enum Work {
    Copy(Copy),
    Restore(Restore),
}

/// The first `tokens` tokens of a block become those of another. The lease keeps them there.
#[derive(Debug)]
pub struct Copy {
    pub order: Order,
    pub from: Lease,
    pub to: BlockId,
    pub tokens: usize,
}

/// A number that no other restore of this process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RestoreId(pub u64);

/// Blocks of a head come from the store into those of a sequence, which waits for them, or into its
/// own again.
#[derive(Debug)]
pub struct Restore {
    pub id: RestoreId,
    /// The sequence that waits.
    pub order: Option<Order>,
    pub namespace: Namespace,
    pub head: HeadId,
    /// The head's blocks from this one on.
    pub first: usize,
    pub blocks: Vec<RestoredBlock>,
    /// Tokens that have KV once it is done.
    reused: usize,
    pub started: Instant,
}

/// A block of the store and the place of the pool it goes to.
#[derive(Clone, Debug)]
pub struct RestoredBlock {
    pub from: BlockRef,
    pub to: BlockId,
}

/// What one sequence does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedRow {
    pub order: Order,
    pub start: usize,
    pub end: usize,
    /// The next token is sampled after it.
    pub is_last: bool,
}

/// A reply whose ids are worth keeping.
#[derive(Clone, Debug)]
pub struct GeneratedReply {
    pub namespace: Namespace,
    pub text: String,
    pub tokens: Arc<[TokenId]>,
}

impl Scheduler {
    pub fn new(
        limits: Limits,
        spec: Spec,
        tokenizer: Arc<Tokenizer>,
        store_keeps: bool,
    ) -> Scheduler {
        Scheduler {
            pool: Pool::new(spec.pool_blocks),
            pace: Pace::new(limits.step, spec.prefill_tokens),
            waiting: Queue::new(limits.queue_max),
            limits,
            spec,
            tokenizer,
            store_keeps,
            agents: Agents::default(),
            parked: BTreeMap::new(),
            running: BTreeMap::new(),
            tickets: BTreeMap::new(),
            endings: BTreeMap::new(),
            tenants: Tenants::default(),
            has_neighbours: false,
            passed: 0,
            copies: Vec::new(),
            items: Vec::new(),
            replies: Vec::new(),
            partings: Vec::new(),
            repeated: Vec::new(),
            warming: BTreeMap::new(),
            prefetches: Vec::new(),
            next_request: 0,
            next_restore: 0,
            admissions: 0,
            finished_requests: 0,
            parkings: 0,
            evictions: 0,
        }
    }

    /// Takes a request into the line, or refuses it.
    pub fn submit(&mut self, request: Request, now: Instant) -> Result<RequestId, Error> {
        self.submit_paid(request, None, now)
    }

    /// The same if this purse, where there is one, has enough for it.
    pub fn submit_paid(
        &mut self,
        request: Request,
        purse: Option<Arc<dyn Purse>>,
        now: Instant,
    ) -> Result<RequestId, Error> {
        let (sequence, choices) = self.check(&request)?;
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let automatic = || AgentId::automatic(self.limits.instance, id.0);
        let agent = request.agent.unwrap_or_else(automatic);
        // What is there already takes no time.
        let known = self.agents.matched(&request.namespace, sequence.tokens());
        let cost = (sequence.budget_tokens() - known) * choices;
        let mut ticket =
            Ticket::new(request.namespace, agent, sequence.prompt_tokens(), choices, now);
        ticket.is_ephemeral = request.is_ephemeral;
        ticket.tab = purse.map(|purse| open_tab(purse, &sequence, known, now)).transpose()?;
        self.tenants.see(&ticket.namespace, now);
        let has_place = self.has_place_for(&sequence, choices);
        let waiting = Waiting { request: id, sequence };
        if self.is_idle() {
            self.waiting.rest();
        }
        let deadline = now + self.limits.queue_time.min(QUEUE_TIME_MAX);
        let cost = cost as u64;
        match has_place {
            true => self.waiting.put(&ticket.namespace, cost, deadline, waiting),
            false => self
                .waiting
                .push(&ticket.namespace, cost, deadline, waiting)
                .map_err(|_| Error::QueueFull { waiting: self.waiting.len() })?,
        }
        self.tickets.insert(id, ticket);
        Ok(id)
    }

    /// Whether a request can begin with the next step, after all that wait: there are places for all
    /// of them, and room in the pool whatever they share.
    fn has_place_for(&self, sequence: &Sequence, choices: usize) -> bool {
        let free = self.limits.running_max - self.running_choices() - self.parked.len();
        // Each of the line takes a place at least.
        if self.waiting.len() >= free {
            return false;
        }
        let (mut places, mut room) = (choices, window_blocks(sequence, choices));
        for Waiting { request, sequence } in self.waiting.iter() {
            let choices = self.choices_of(*request);
            places += choices;
            room += window_blocks(sequence, choices);
        }
        places <= free && self.can_make_room(room, &Victims::Anybodys)
    }

    /// The sequence that a request asks for, if it can be served at all.
    fn check(&self, request: &Request) -> Result<(Sequence, usize), Error> {
        let choices = request.choices;
        if !(1..=CHOICES_MAX.min(self.limits.running_max)).contains(&choices) {
            let most = CHOICES_MAX.min(self.limits.running_max);
            return Err(Error::Choices { choices, most });
        }
        if let Some(top) = request.logprobs.filter(|top| *top > TOP_LOGPROBS_MAX) {
            return Err(Error::Logprobs { top, most: TOP_LOGPROBS_MAX });
        }
        request.sampling.check().map_err(Error::Sampling)?;
        check_biases(request.sampling.biases(), self.spec.vocabulary)?;
        let Request { namespace, agent, .. } = request;
        let kept = Kept {
            by_anybody: &|tokens| self.agents.matched(namespace, tokens),
            by_itself: &|tokens, least| {
                self.agents.matched_by(namespace, agent.as_ref(), tokens, least)
            },
        };
        let Resolved { tokens: prompt, replies } = request.prompt.resolve(&kept);
        let vocabulary = self.spec.vocabulary;
        if let Some(token) = prompt.iter().find(|token| token.0 as usize >= vocabulary) {
            return Err(Error::OutsideVocabulary { token: *token, vocabulary });
        }
        let budget_tokens = self.budget(prompt.len(), request.max_tokens, choices)?;
        let settings = Settings {
            budget_tokens,
            sampling: request.sampling.clone(),
            stops: request.stops.clone(),
            reply: request.reply,
            logprobs: request.logprobs,
            is_end_ignored: request.is_end_ignored,
            grammar: request.grammar.clone(),
        };
        Ok((Sequence::new(prompt, replies, settings, &self.tokenizer), choices))
    }

    /// Tokens that prompt and reply may have: within the context, and within the pool if nothing
    /// else ran.
    fn budget(
        &self,
        prompt_tokens: usize,
        max_tokens: Option<usize>,
        choices: usize,
    ) -> Result<usize, Error> {
        let context = self.spec.context_tokens;
        let total = self.pool.total();
        let needed = |budget: usize| blocks_for_choices(prompt_tokens, budget, choices);
        let most = budget_tokens(prompt_tokens, max_tokens.unwrap_or(context), context)?;
        let wanted = match max_tokens {
            Some(_) => most,
            None => std::iter::once(context)
                .chain((1..=blocks(context)).rev().map(|blocks| blocks * BLOCK_TOKENS))
                .find(|end| *end > prompt_tokens && *end <= context && needed(*end) <= total)
                .unwrap_or(prompt_tokens + 1),
        };
        match needed(wanted) {
            requested if requested > total => Err(Error::LargerThanPool(Exhausted {
                requested,
                available: self.pool.free(),
                total,
            })),
            _ => Ok(wanted),
        }
    }

    /// What the caller has is all it gets; what was computed is kept.
    pub fn cancel(&mut self, request: RequestId, now: Instant) {
        self.end_unsaved(request);
        for (order, mut active) in self.take_all(request) {
            let text = active.sequence.cancel();
            let delta = Delta { choice: order.choice, text, ..Delta::default() };
            if !delta.text.is_empty() {
                self.items.push((request, Ok(Event::Text(delta))));
            }
            self.end(order, active, now);
        }
    }

    /// Ends every request with an error; what was computed is kept.
    pub fn cut(&mut self) {
        let all: Vec<RequestId> = self.tickets.keys().copied().collect();
        for request in all {
            self.fail(request, Error::Cut);
        }
    }

    /// Ends a request with an error. What was computed is kept unless the model is to blame.
    pub fn fail(&mut self, request: RequestId, error: Error) {
        self.end_unsaved(request);
        let is_trusted = !matches!(error, Error::Model(_) | Error::NotANumber { .. });
        for (order, active) in self.take_all(request) {
            if is_trusted {
                self.keep(order, active);
            }
        }
        if self.tickets.remove(&request).is_some() {
            self.finished_requests += 1;
            self.items.push((request, Err(error)));
        }
    }

    /// Takes everything that there is of a request, wherever it is.
    fn take_all(&mut self, request: RequestId) -> Vec<(Order, Active)> {
        let choices = self.choices_of(request);
        let waiting = self.waiting.remove_where(|waiting| waiting.request == request);
        let waiting = waiting.into_iter().map(|waiting| {
            let order = Order { admission: self.admissions, request, choice: 0 };
            (order, Active::new(waiting.sequence, choices))
        });
        let mut all: Vec<(Order, Active)> = waiting.collect();
        for set in [&mut self.running, &mut self.parked] {
            all.extend(set.extract_if(.., |order, _| order.request == request));
        }
        self.copies.retain(|copy| copy.order.request != request);
        all
    }

    fn choices_of(&self, request: RequestId) -> usize {
        self.tickets.get(&request).map_or(1, |ticket| ticket.choices.len())
    }

    /// Positions that a sequence may have.
    pub fn context_tokens(&self) -> usize {
        self.spec.context_tokens
    }

    pub fn predict(&self, shape: &Shape) -> Duration {
        self.pace.predict(shape)
    }

    pub fn observe(&mut self, shape: &Shape, took: Duration) {
        self.pace.observe(shape, took);
    }

    /// What clients are to hear, in order.
    pub fn take_items(&mut self) -> Vec<(RequestId, Item)> {
        std::mem::take(&mut self.items)
    }

    /// Replies that ended since the last call.
    pub fn take_replies(&mut self) -> Vec<GeneratedReply> {
        std::mem::take(&mut self.replies)
    }

    /// Agents that had a turn since the last call of which the store hears nothing by a save.
    pub fn take_repeated(&mut self) -> Vec<(Namespace, AgentId)> {
        std::mem::take(&mut self.repeated)
    }

    /// Who the next request belongs to that names nobody.
    pub fn next_automatic(&self) -> AgentId {
        AgentId::automatic(self.limits.instance, self.next_request + 1)
    }

    /// Lines that the store need not keep any longer.
    pub fn take_forgotten(&mut self) -> Vec<Forgotten> {
        self.agents.take_forgotten()
    }

    /// Sequences that run or will once their prompt is done.
    fn running_choices(&self) -> usize {
        self.running.values().map(|active| active.choices).sum()
    }

    /// Requests that have been accepted and have not ended.
    pub fn in_flight(&self) -> usize {
        self.tickets.len() + self.endings.len()
    }

    /// The request that was admitted first of those that run or are parked: each step brings it
    /// nearer to its end.
    pub fn oldest(&self) -> Option<RequestId> {
        let first = |set: &BTreeMap<Order, Active>| set.keys().next().copied();
        let oldest = first(&self.running).into_iter().chain(first(&self.parked)).min();
        oldest.map(|order| order.request)
    }

    /// Whether a request has been accepted and has not ended.
    pub fn knows(&self, request: RequestId) -> bool {
        self.tickets.contains_key(&request) || self.endings.contains_key(&request)
    }

    /// Requests that have ended, however they did.
    pub fn finished_requests(&self) -> u64 {
        self.finished_requests
    }

    /// Whether there is anything to compute.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.parked.is_empty() && self.waiting.is_empty()
    }

    pub fn head(&self, head: HeadId) -> Option<&Head> {
        self.agents.head(head)
    }

    /// Idle heads that the store does not have all of, least recently used first.
    pub fn unsaved(&self) -> impl Iterator<Item = HeadId> {
        self.agents.unsaved()
    }

    /// The line that a head is to be saved as.
    pub fn set_line(&mut self, head: HeadId, line: Line) {
        self.agents.set_line(head, line);
    }

    /// The store gave a line up to make room.
    pub fn dropped(&mut self, line: Line) {
        self.agents.dropped(line);
    }

    /// Gives a head's blocks back.
    fn evict(&mut self, head: HeadId) {
        self.agents.evict(head);
        self.evictions += 1;
    }

    /// Heads that gave their blocks back, ever.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Gives back the blocks of every head that nothing is to be saved of, or of all where the store
    /// keeps none. Who is not in the store is forgotten.
    pub fn evict_idle(&mut self) -> Evicted {
        let mut evicted = Evicted::default();
        while let Some(head) = self.idle_victim() {
            match self.head(head).is_some_and(Head::is_saved) {
                true => evicted.saved += 1,
                false => evicted.forgotten += 1,
            }
            self.evict(head);
        }
        evicted
    }

    /// Agents at work that have no blocks in the pool but those of their turn.
    fn newcomers(&self) -> usize {
        let at_work = self.running.keys().chain(self.parked.keys());
        let tickets = at_work.filter_map(|order| self.tickets.get(&order.request));
        let agents: BTreeSet<(&Namespace, &AgentId)> = tickets
            .map(|ticket| (&ticket.namespace, &ticket.agent))
            .filter(|(namespace, agent)| !self.agents.is_hot(namespace, agent))
            .collect();
        agents.len()
    }

    pub fn stats(&self) -> Stats {
        Stats {
            blocks_total: self.pool.total(),
            blocks_free: self.pool.free(),
            blocks_used: self.pool.used(),
            blocks_evictable: self.evictable_blocks(),
            running: self.running.len(),
            waiting: self.waiting.len(),
            parked: self.parked.len(),
            parkings: self.parkings,
            agents: self.agents.count(),
            agents_hot: self.agents.count_hot(),
            agents_active: self.agents.count_hot() + self.newcomers(),
        }
    }

    /// Panics if a block is held by nobody, or a count is wrong. For tests.
    pub fn assert_consistent(&self) {
        assert_eq!(self.pool.free() + self.pool.used(), self.pool.total());
        let mut holds = vec![0; self.pool.total()];
        let heads = self.agents.hot().filter_map(|id| self.agents.head(id)).flat_map(Head::blocks);
        let active = self.running.values().chain(self.parked.values());
        let active = active.flat_map(|active| active.table.iter().chain(&active.reserve));
        let copies = self.copies.iter().map(|copy| &copy.from);
        let mut leases: Vec<Option<&Lease>> = vec![None; self.pool.total()];
        let warming = self.warming.values().flat_map(Warming::leases);
        for lease in heads.chain(active).chain(copies).chain(warming) {
            holds[lease.id().0 as usize] += 1;
            leases[lease.id().0 as usize] = Some(lease);
        }
        let held = leases.iter().flatten().count();
        assert_eq!(held, self.pool.used(), "blocks in use and blocks held");
        for (index, lease) in leases.iter().enumerate() {
            assert_eq!(lease.map_or(0, Lease::holders), holds[index], "holders of block {index}");
        }
        for (order, active) in &self.running {
            assert!(active.computed <= active.table.len() * BLOCK_TOKENS, "{order:?}");
            assert!(active.table.iter().map(Lease::id).eq(active.blocks.iter().copied()));
            assert!(self.tickets.contains_key(&order.request));
        }
        for active in self.parked.values() {
            assert!(active.table.is_empty());
            assert!(active.reserve.is_empty());
            assert_eq!(active.computed, 0);
        }
        assert!(self.running_choices() + self.parked.len() <= self.limits.running_max);
    }
}

impl Active {
    fn new(sequence: Sequence, choices: usize) -> Active {
        Active {
            sequence,
            choices,
            computed: 0,
            table: Vec::new(),
            blocks: Vec::new(),
            reserve: Vec::new(),
            restoring: None,
            stored: 0,
            is_unsavable: false,
        }
    }

    /// Tokens that have no KV yet.
    fn left(&self) -> usize {
        self.sequence.tokens().len() - self.computed
    }

    fn row(&self, order: Order, tokens: usize) -> PlannedRow {
        let end = self.computed + tokens;
        let is_last = end == self.sequence.tokens().len();
        PlannedRow { order, start: self.computed, end, is_last }
    }

    fn set_table(&mut self, table: Vec<Lease>) {
        self.stored = 0;
        self.blocks = table.iter().map(Lease::id).collect();
        self.table = table;
    }

    fn extend_table(&mut self, more: Vec<Lease>) {
        self.blocks.extend(more.iter().map(Lease::id));
        self.table.extend(more);
    }
}

/// What is sure to be computed is set aside: what is not in memory of the prompt, the last token in any
/// case, and one of a reply.
fn open_tab(
    purse: Arc<dyn Purse>,
    sequence: &Sequence,
    known: usize,
    now: Instant,
) -> Result<Tab, Error> {
    let prompt = sequence.prompt_tokens();
    let tokens = prompt - known.min(prompt - 1) + 1;
    Tab::open(purse, tokens, now).map_err(|short| match short {
        Short::For(wait) => Error::TokensSpent { wait },
        Short::Always { most } => Error::LargerThanPurse { tokens, most },
    })
}

/// The vocabulary is the model's, and something of it must be left to choose from.
fn check_biases(biases: &[Bias], vocabulary: usize) -> Result<(), Error> {
    if let Some(Bias { token, .. }) = biases.iter().find(|it| it.token.0 as usize >= vocabulary) {
        return Err(Error::BiasOutsideVocabulary { token: *token, vocabulary });
    }
    match biases.iter().filter(|bias| bias.is_ban()).count() {
        banned if banned >= vocabulary => Err(Error::AllBanned { vocabulary }),
        _ => Ok(()),
    }
}

/// Blocks that so many tokens fill.
fn blocks(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK_TOKENS)
}

/// Blocks of a request whose replies each end within `end` tokens: of several, each has its own
/// from the block on in which the prompt ends, and the prompt keeps its own.
fn blocks_for_choices(prompt_tokens: usize, end: usize, choices: usize) -> usize {
    match choices {
        1 => blocks(end),
        _ => blocks(prompt_tokens) + choices * (blocks(end) - prompt_tokens / BLOCK_TOKENS),
    }
}

#[cfg(test)]
mod tests;
