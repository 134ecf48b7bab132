//! Who gets blocks, and whose are taken: admission, renewal, eviction, parking.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::super::agents::{Head, HeadId};
use super::super::error::Error;
use super::super::pool::Lease;
use super::super::prefix;
use super::super::request::{Event, Source};
use super::super::sequence::Sequence;
use super::{
    Active, Copy, Order, RequestId, Restore, RestoreId, RestoredBlock, Scheduler, WINDOW_TOKENS,
    Waiting, Work, blocks, blocks_for_choices,
};
use crate::types::{BLOCK_TOKENS, Namespace, TokenId};

/// Idle agents that are safe in the store are evicted down to this much of the pool, so that a
/// server that is merely warm stays ready.
pub const POOL_USE_PERCENT: usize = 85;

/// What a new sequence can reuse.
#[derive(Default)]
struct Start {
    /// Full blocks that it shares.
    shared: Vec<Lease>,
    /// A block of which it needs the first tokens, in a block of its own.
    copy: Option<(Lease, usize)>,
    /// A head in the store that has more than the pool has.
    restore: Option<HeadId>,
    /// Tokens that need not be computed.
    reused: usize,
    /// The head whose blocks these are, if one's.
    head: Option<HeadId>,
    /// Whose idle heads may be evicted for it.
    victims: Victims,
}

/// Whose idle heads may be evicted.
#[derive(Default)]
pub(super) enum Victims {
    #[default]
    Anybodys,
    Of(BTreeSet<Namespace>),
}

impl Victims {
    fn has(&self, namespace: &Namespace) -> bool {
        match self {
            Victims::Anybodys => true,
            Victims::Of(spaces) => spaces.contains(namespace),
        }
    }
}

impl Scheduler {
    /// Gives running sequences the blocks of their next tokens, then lets in whom there is room
    /// for. Returns what has to be done before [`Scheduler::rows`] is asked.
    pub fn admit(&mut self, now: Instant) -> Vec<Work> {
        self.refuse_late(now);
        self.has_neighbours = self.sees_neighbours(now);
        self.renew();
        let mut work = Vec::new();
        while self.readmit(now, &mut work) {}
        if self.parked.is_empty() {
            while self.admit_next(now, &mut work) {}
        }
        self.evict_to_limit();
        // Those of the choices that began with the last step come first: their source must not
        // change before.
        let copies = std::mem::take(&mut self.copies);
        let prefetches = std::mem::take(&mut self.prefetches);
        let prefetches = prefetches.into_iter().map(Work::Restore);
        copies.into_iter().map(Work::Copy).chain(work).chain(prefetches).collect()
    }

    /// Whether a sequence or a head still waits for this restore. If not, its blocks may be another's.
    pub fn awaits(&self, restore: &Restore) -> bool {
        let Some(order) = restore.order else { return self.warming.contains_key(&restore.id) };
        let active = self.running.get(&order);
        active.is_some_and(|active| active.restoring == Some(restore.id))
    }

    /// What became of a [`Restore`]: its first `restored` blocks are there. What is missing costs
    /// time and nothing else: it is computed.
    pub fn restored(&mut self, restore: &Restore, restored: usize, now: Instant) {
        let Some(order) = restore.order else { return self.warmed(restore, restored) };
        if !self.awaits(restore) {
            return;
        }
        if restored < restore.blocks.len() {
            self.agents.shorten(restore.head, (restore.first + restored) * BLOCK_TOKENS);
        }
        let active = self.running.get_mut(&order).expect("it waits");
        let ticket = self.tickets.get_mut(&order.request);
        let ticket = ticket.expect("what runs has a ticket");
        let reused = match restored == restore.blocks.len() {
            true => restore.reused,
            false => (restore.first + restored) * BLOCK_TOKENS,
        };
        active.computed = reused;
        active.restoring = None;
        for (index, block) in (restore.first..).zip(&restore.blocks[..restored]) {
            if (index + 1) * BLOCK_TOKENS <= reused {
                active.table[index].set_stored(Some(block.from.clone()));
            }
        }
        if ticket.is_announced {
            return;
        }
        ticket.is_announced = true;
        ticket.cached_tokens = reused;
        ticket.restored_tokens = reused - (restore.first * BLOCK_TOKENS).min(reused);
        ticket.restore = now.saturating_duration_since(restore.started);
        ticket.source = match (restored, reused) {
            (1.., _) => Source::Warm,
            (0, 0) => Source::Cold,
            (0, _) => Source::Hot,
        };
        self.items.push((order.request, Ok(Event::Admitted(ticket.admitted()))));
    }

    fn refuse_late(&mut self, now: Instant) {
        for Waiting { request, .. } in self.waiting.expire(now) {
            let waited = self
                .tickets
                .get(&request)
                .map_or(self.limits.queue_time, |ticket| ticket.waited(now));
            self.fail(request, Error::WaitedTooLong(waited));
        }
    }

    /// Oldest first: the block of the next token, if need be from the youngest. When all have
    /// theirs, a new window if the pool has it: nobody is parked for another's window.
    fn renew(&mut self) {
        let orders: Vec<Order> = self.running.keys().copied().collect();
        for order in orders {
            while let Some(needed) = self.lacking(order) {
                let victims = self.victims_for(&self.tickets[&order.request].namespace, needed);
                if self.make_room(needed, &victims) || self.make_room(needed, &Victims::Anybodys) {
                    self.extend(order, needed);
                    break;
                }
                let (youngest, _) = self.running.last_key_value().expect("this one runs");
                self.park(*youngest);
            }
        }
        let orders: Vec<Order> = self.running.keys().copied().collect();
        for order in orders {
            let active = &self.running[&order];
            // The choices of a request have their own windows, which it holds for them.
            if active.choices > 1 {
                continue;
            }
            let (held, tokens) = (active.table.len(), active.sequence.tokens().len());
            let is_near_the_end = held * BLOCK_TOKENS < tokens + BLOCK_TOKENS;
            let wanted = blocks(window_end(tokens, active.sequence.budget_tokens()));
            if is_near_the_end && wanted > held && self.make_spare_room(wanted - held) {
                self.extend(order, wanted - held);
            }
        }
    }

    /// Blocks without which the sequence cannot take part in the next step.
    fn lacking(&self, order: Order) -> Option<usize> {
        let active = self.running.get(&order)?;
        let needed = blocks(active.sequence.tokens().len());
        needed.checked_sub(active.table.len()).filter(|lacking| *lacking > 0)
    }

    fn extend(&mut self, order: Order, count: usize) {
        let more = self.pool.allocate(count).expect("room was just made");
        self.running.get_mut(&order).expect("it runs").extend_table(more);
    }

    /// Takes a sequence's blocks; its tokens and the state of its sampler stay.
    fn park(&mut self, order: Order) {
        let mut active = self.running.remove(&order).expect("it runs");
        active.set_table(Vec::new());
        active.reserve = Vec::new();
        active.computed = 0;
        active.restoring = None;
        self.copies.retain(|copy| copy.order != order);
        self.parkings += 1;
        tracing::debug!(request = order.request.0, choice = order.choice, "sequence parked");
        self.parked.insert(order, active);
    }

    /// Brings back the oldest parked sequence, if it fits.
    fn readmit(&mut self, now: Instant, work: &mut Vec<Work>) -> bool {
        let Some((order, active)) = self.parked.first_key_value() else { return false };
        let Ok(start) = self.start(order.request, &active.sequence, active.choices) else {
            return false;
        };
        let (order, active) = self.parked.pop_first().expect("it was just seen");
        self.sit(order, active, start, now, work);
        true
    }

    /// Lets in the next request in line, if it fits. Nobody passes it, as it would wait for ever;
    /// but who waits for requests of its own namespace to end does not keep others waiting.
    fn admit_next(&mut self, now: Instant, work: &mut Vec<Work>) -> bool {
        let Some((start, choices, passing)) = self.next_start() else { return false };
        let next = match passing {
            Some(namespace) => self.waiting.pop_of(&namespace),
            None => self.waiting.pop(),
        };
        let Waiting { request, sequence } = next.expect("it was just seen");
        self.admissions += 1;
        let order = Order { admission: self.admissions, request, choice: 0 };
        self.sit(order, Active::new(sequence, choices), start, now, work);
        true
    }

    /// What the request that is let in next can reuse, its choices, and its namespace if it passes
    /// others.
    fn next_start(&self) -> Option<(Start, usize, Option<Namespace>)> {
        let mut is_passing = false;
        for (namespace, waiting) in self.waiting.firsts() {
            let choices = self.choices_of(waiting.request);
            if self.running_choices() + choices > self.limits.running_max {
                return None;
            }
            match self.start(waiting.request, &waiting.sequence, choices) {
                Ok(start) => return Some((start, choices, is_passing.then(|| namespace.clone()))),
                Err(Victims::Of(_)) => is_passing = true,
                Err(Victims::Anybodys) => return None,
            }
        }
        None
    }

    /// What a sequence can reuse, if the blocks of its window can be had without taking anybody's;
    /// else whose would not do.
    fn start(
        &self,
        request: RequestId,
        sequence: &Sequence,
        choices: usize,
    ) -> Result<Start, Victims> {
        let tokens = sequence.tokens();
        let whole = window_blocks(sequence, choices);
        let namespace = &self.tickets[&request].namespace;
        let mut start = self.find_start(namespace, tokens);
        start.victims = self.victims_for(namespace, whole - start.shared.len());
        if self.can_make_room(whole - start.shared.len(), &start.victims) {
            return Ok(start);
        }
        // What is copied from keeps a block that may be just the one.
        start.copy = None;
        if start.restore.is_none() {
            start.reused = start.shared.len() * BLOCK_TOKENS;
        }
        match self.can_make_room(whole - start.shared.len(), &start.victims) {
            true => Ok(start),
            false => Err(start.victims),
        }
    }

    /// Gives a sequence its blocks; that there is room has been checked.
    fn sit(
        &mut self,
        order: Order,
        mut active: Active,
        start: Start,
        now: Instant,
        work: &mut Vec<Work>,
    ) {
        let tokens = active.sequence.tokens().len();
        let end = window_end(tokens, active.sequence.budget_tokens());
        let whole = blocks_for_choices(tokens, end, active.choices);
        let own_table = match active.choices {
            1 => blocks(end),
            _ => blocks(tokens),
        } - start.shared.len();
        if let Some(head) = start.head {
            self.agents.touch(head);
        }
        let room = self.make_room(whole - start.shared.len(), &start.victims);
        assert!(room, "room was promised");
        let mut own = self.pool.allocate(whole - start.shared.len()).expect("room was made");
        active.reserve = own.split_off(own_table);
        let first = start.shared.len();
        if let Some((from, tokens)) = start.copy {
            work.push(Work::Copy(Copy { order, from, to: own[0].id(), tokens }));
        }
        let restore = start.restore.map(|head| {
            // Making room evicts hot heads only.
            let saved = self.agents.head(head).and_then(Head::saved);
            let saved = saved.expect("a warm head stays until it is restored from");
            let from = saved.blocks.iter().skip(first).cloned();
            let to = own[..blocks(start.reused) - first].iter().map(Lease::id);
            self.next_restore += 1;
            Restore {
                id: RestoreId(self.next_restore),
                order: Some(order),
                namespace: self.tickets[&order.request].namespace.clone(),
                head,
                first,
                blocks: from.zip(to).map(|(from, to)| RestoredBlock { from, to }).collect(),
                reused: start.reused,
                started: now,
            }
        });
        if !self.tickets[&order.request].is_announced {
            self.note_parting(order.request, active.sequence.tokens(), start.reused);
        }
        active.set_table(start.shared.into_iter().chain(own).collect());
        active.computed = if restore.is_some() { 0 } else { start.reused };
        active.restoring = restore.as_ref().map(|restore| restore.id);
        self.running.insert(order, active);
        let ticket = self.tickets.get_mut(&order.request).expect("what runs has a ticket");
        ticket.admit(now);
        match restore {
            Some(restore) => work.push(Work::Restore(restore)),
            None if ticket.is_announced => (),
            None => {
                ticket.is_announced = true;
                ticket.cached_tokens = start.reused;
                ticket.source = if start.reused > 0 { Source::Hot } else { Source::Cold };
                self.items.push((order.request, Ok(Event::Admitted(ticket.admitted()))));
            }
        }
    }

    /// The longest common prefix with anything the namespace has: idle heads, running sequences,
    /// and what is in the store.
    fn find_start(&self, namespace: &Namespace, tokens: &[TokenId]) -> Start {
        let mut start = Start::default();
        if let Some(found) = self.agents.find_hot(namespace, tokens, &self.spec) {
            let head = self.agents.head(found.head).expect("the index names heads that exist");
            start = Start::of_blocks(head.blocks(), found.tokens);
            start.head = Some(found.head);
        }
        for (order, active) in &self.running {
            let is_visible = self.tickets[&order.request].namespace == *namespace;
            if !is_visible || active.restoring.is_some() {
                continue;
            }
            let written = &active.sequence.tokens()[..active.computed];
            let common = prefix::common(written, &tokens[..tokens.len() - 1]);
            let reused = self.spec.resume_point(common);
            if reused > start.reused {
                start = Start::of_blocks(&active.table, reused);
            }
        }
        if let Some(found) = self.agents.find_warm(namespace, tokens, &self.spec)
            && found.tokens > start.reused
        {
            start.copy = None;
            start.restore = Some(found.head);
            start.head = Some(found.head);
            start.reused = found.tokens;
        }
        start
    }

    /// Whether so many blocks are free or would be if these idle heads were evicted.
    pub(super) fn can_make_room(&self, count: usize, victims: &Victims) -> bool {
        let free = self.pool.free() + self.warming_blocks();
        free >= count || free + self.idle_blocks(victims) >= count
    }

    /// Evicts idle heads until so many blocks are free.
    fn make_room(&mut self, count: usize, victims: &Victims) -> bool {
        while self.pool.free() < count {
            if self.cancel_warming() {
                continue;
            }
            let Some(victim) = self.needed_victim(victims) else { return false };
            self.evict(victim);
        }
        true
    }

    /// Makes room for what could also be done without: only if there is enough, and nothing is
    /// lost for it.
    fn make_spare_room(&mut self, count: usize) -> bool {
        if self.pool.free() < count && self.pool.free() + self.evictable_blocks() < count {
            return false;
        }
        while self.pool.free() < count {
            if self.cancel_warming() {
                continue;
            }
            let Some(victim) = self.spare_victim() else { return false };
            self.evict(victim);
        }
        true
    }

    fn evict_to_limit(&mut self) {
        let most = self.pool.total() * POOL_USE_PERCENT / 100;
        while self.pool.used() > most {
            if self.cancel_warming() {
                continue;
            }
            let Some(victim) = self.spare_victim() else { return };
            self.evict(victim);
        }
    }

    /// The hot head to evict next while nobody is in need: only if it is safe in the store, unless
    /// the store keeps nothing anyway.
    pub(super) fn idle_victim(&self) -> Option<HeadId> {
        match self.store_keeps {
            true => {
                let of_crowders = self.agents.saved_victim_of(&self.crowders());
                of_crowders.or_else(|| self.agents.saved_victim())
            }
            false => self.needed_victim(&Victims::Anybodys),
        }
    }

    /// The same where the room is nobody's need: who has less than its share keeps what it has, as
    /// long as somebody has more.
    fn spare_victim(&self) -> Option<HeadId> {
        let crowders = self.crowders();
        match self.store_keeps && !crowders.is_empty() {
            true => self.agents.saved_victim_of(&crowders),
            false => self.idle_victim(),
        }
    }

    /// Whose heads may be evicted for a request of this namespace that needs so many blocks. With
    /// them it would have more than its share: then only its own and those of others who have. If
    /// these are not enough it waits for something of its namespace to end; anybody's are taken where
    /// nothing of it runs, and for what was parked, which had its place already.
    fn victims_for(&self, namespace: &Namespace, needed: usize) -> Victims {
        let of_running = |order: &Order| &self.tickets[&order.request].namespace;
        let mut running = self.running.keys().map(of_running);
        if self.agents.has_no_space_but(namespace) && running.clone().all(|it| it == namespace) {
            return Victims::Anybodys;
        }
        let held = self.held();
        let share = self.share(&held);
        let own = held.get(namespace).copied().unwrap_or_default();
        if own + needed <= share {
            return Victims::Anybodys;
        }
        let crowders = held.into_iter().filter(|(_, blocks)| *blocks > share);
        let spaces = crowders.map(|(crowder, _)| crowder.clone());
        let victims = Victims::Of(spaces.chain([namespace.clone()]).collect());
        let waits = self.parked.is_empty() && running.any(|it| it == namespace);
        match waits || self.can_make_room(needed, &victims) {
            true => victims,
            false => Victims::Anybodys,
        }
    }

    /// The hot head to evict next for somebody in need.
    fn needed_victim(&self, victims: &Victims) -> Option<HeadId> {
        if let Victims::Of(spaces) = victims {
            let saved = self.agents.saved_victim_of(spaces);
            return saved.or_else(|| self.agents.unsaved_victim_of(spaces));
        }
        let crowders = self.crowders();
        let saved = self.agents.saved_victim_of(&crowders);
        // What the store could still save of anybody is the last to go.
        let unsaved = || match self.store_keeps {
            true => None,
            false => self.agents.unsaved_victim_of(&crowders),
        };
        saved.or_else(unsaved).or_else(|| self.agents.victim())
    }

    /// The namespaces that have more of the pool than their equal share. They make room first, so
    /// that whoever floods the pool does not take the memory of those who share it.
    pub(super) fn crowders(&self) -> BTreeSet<Namespace> {
        if self.has_one_space() {
            return BTreeSet::new();
        }
        let held = self.held();
        let share = self.share(&held);
        let crowders = held.into_iter().filter(|(_, blocks)| *blocks > share);
        crowders.map(|(namespace, _)| namespace.clone()).collect()
    }

    /// Whether all that is there, idle or running, is of one namespace.
    fn has_one_space(&self) -> bool {
        let mut running = self.running.keys().map(|order| &self.tickets[&order.request].namespace);
        match running.next() {
            Some(first) => running.all(|it| it == first) && self.agents.has_no_space_but(first),
            None => self.agents.has_one_space(),
        }
    }

    /// The blocks of each namespace, those of idle heads and of running sequences.
    fn held(&self) -> BTreeMap<&Namespace, usize> {
        let heads = self.agents.hot().filter_map(|id| self.agents.head(id));
        let heads = heads.map(|head| (&head.namespace, head.blocks()));
        let active = self.running.iter().filter_map(|(order, active)| {
            Some((&self.tickets.get(&order.request)?.namespace, &active.table[..]))
        });
        let mut is_counted = vec![false; self.pool.total()];
        let mut held: BTreeMap<&Namespace, usize> = BTreeMap::new();
        for (namespace, blocks) in heads.chain(active) {
            let held = held.entry(namespace).or_default();
            for lease in blocks {
                let is_known = &mut is_counted[lease.id().0 as usize];
                *held += usize::from(!std::mem::replace(is_known, true));
            }
        }
        held
    }

    /// An equal one of the pool for each of these.
    fn share(&self, held: &BTreeMap<&Namespace, usize>) -> usize {
        self.pool.total() / held.len().max(1)
    }

    /// Blocks that nobody but idle heads holds.
    fn idle_blocks(&self, victims: &Victims) -> usize {
        let heads = self.agents.hot().filter_map(|id| self.agents.head(id));
        self.blocks_of_heads_only(heads.filter(|head| victims.has(&head.namespace)))
    }

    /// Blocks in use that could be had at once and nothing lost.
    pub(super) fn evictable_blocks(&self) -> usize {
        let idle = match self.store_keeps {
            true => {
                let heads = self.agents.hot().filter_map(|id| self.agents.head(id));
                // What the disk does not take is given up when somebody needs the room.
                self.blocks_of_heads_only(heads.filter(|head| !head.will_be_saved()))
            }
            false => self.idle_blocks(&Victims::Anybodys),
        };
        idle + self.warming_blocks()
    }

    /// Blocks that nobody but idle heads of these namespaces holds which the store has all of.
    pub(super) fn safe_blocks_of(&self, spaces: &BTreeSet<Namespace>) -> usize {
        let heads = self.agents.hot_saved().filter_map(|id| self.agents.head(id));
        let safe = heads.filter(|head| head.is_saved() && spaces.contains(&head.namespace));
        self.blocks_of_heads_only(safe)
    }

    fn blocks_of_heads_only<'a>(&self, heads: impl Iterator<Item = &'a Head>) -> usize {
        let mut holds = vec![0; self.pool.total()];
        let mut count = 0;
        for lease in heads.flat_map(Head::blocks) {
            let holds = &mut holds[lease.id().0 as usize];
            *holds += 1;
            if *holds == lease.holders() {
                count += 1;
            }
        }
        count
    }
}

impl Start {
    /// The first `reused` tokens of a sequence in these blocks.
    fn of_blocks(blocks: &[Lease], reused: usize) -> Start {
        let full = reused / BLOCK_TOKENS;
        let rest = reused % BLOCK_TOKENS;
        Start {
            shared: blocks[..full].to_vec(),
            copy: (rest > 0).then(|| (blocks[full].clone(), rest)),
            reused,
            ..Start::default()
        }
    }
}

/// The blocks with which a sequence begins, or comes back.
pub(super) fn window_blocks(sequence: &Sequence, choices: usize) -> usize {
    let tokens = sequence.tokens().len();
    blocks_for_choices(tokens, window_end(tokens, sequence.budget_tokens()), choices)
}

/// Where the blocks of a sequence that has so many tokens now should end.
fn window_end(tokens: usize, budget_tokens: usize) -> usize {
    (tokens + WINDOW_TOKENS).min(budget_tokens)
}
