//! Brings what agents have said to the disk, a little in every turn of the engine.
//!
//! Blocks go as they fill, a turn's last block and its manifest when it ends. The engine's thread
//! copies a block's bytes out and names them; the writer has them from then on, so that nothing
//! in the pool waits for the disk.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::io::{Failed, Io, SaveId, Write};
use crate::engine::agents::{Forgotten, Head, HeadId};
use crate::engine::pool::Lease;
use crate::engine::scheduler::Scheduler;
use crate::metrics::Metrics;
use crate::metrics::labels::Tier;
use crate::model::Model;
use crate::store::{BlockName, BlockRef, Committed, Draft, KvModel, Store, StoreError, StoredLine};
use crate::types::{AgentId, BLOCK_TOKENS, Fingerprint, Generation, Line, Namespace, TokenId};

/// A head that could not be saved is tried again after this.
const SAVE_RETRY: Duration = Duration::from_secs(10);
/// The same where somebody asks for it.
const ASKED_RETRY: Duration = Duration::from_secs(1);
/// Blocks that went missing are written again at once so many times.
const RESENDS_MAX: usize = 3;
/// Bytes that are copied out between two steps, and at least one block: 3 ms of the steps' time.
const STEP_BYTES: usize = 8 << 20;
/// The same while nothing is computed: a request that comes waits no longer than for these.
const IDLE_BYTES: usize = 16 << 20;
/// Memory that is kept for the next blocks.
const SPARE_BYTES: usize = 16 << 20;

pub struct Saver {
    store: Arc<Store>,
    model: Arc<KvModel>,
    pending: BTreeMap<SaveId, Pending>,
    pending_heads: BTreeSet<HeadId>,
    retries: HashMap<HeadId, Retry>,
    /// Lines that are to go when what is under way of them has been written.
    forgotten: BTreeSet<Line>,
    /// Blocks whose writing has failed since they were sent.
    unwritten: HashSet<BlockName>,
    /// Memory of blocks that have been written, for those to come: that of a new block would be
    /// touched, and given back, at the cost of the threads that compute.
    spare: Vec<Vec<u8>>,
    next_save: u64,
    /// Everything is to be saved now.
    hurry: Option<Hurry>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Hurry {
    /// What there was when it began.
    wanted: BTreeSet<HeadId>,
    /// Heads that have failed since.
    failed: BTreeSet<HeadId>,
}

struct Pending {
    head: HeadId,
    stored: StoredLine,
    since: Instant,
}

struct Retry {
    at: Instant,
    resends: usize,
}

/// Why a block is not on its way.
enum NotSent {
    /// There is no room now.
    Later,
    Failed(String),
    /// Nor would it be the next time.
    Never(&'static str),
}

/// What may still be copied out in this turn.
struct Allowance {
    bytes: usize,
}

impl Saver {
    pub fn new(store: Arc<Store>, model: Arc<KvModel>) -> Saver {
        Saver {
            store,
            model,
            pending: BTreeMap::new(),
            pending_heads: BTreeSet::new(),
            retries: HashMap::new(),
            forgotten: BTreeSet::new(),
            unwritten: HashSet::new(),
            spare: Vec::new(),
            next_save: 0,
            hurry: None,
            metrics: Arc::default(),
        }
    }

    /// Counts there from now on.
    pub fn count_in(&mut self, metrics: &Arc<Metrics>) {
        self.metrics = Arc::clone(metrics);
    }

    /// Sends of what is due as much as the writer takes, and as the time allows: less between two
    /// steps (`is_stepping`). Returns whether anything went.
    pub fn turn(
        &mut self,
        scheduler: &mut Scheduler,
        model: &mut dyn Model,
        io: &mut dyn Io,
        now: Instant,
        is_stepping: bool,
    ) -> bool {
        io.set_busy(!scheduler.is_idle());
        let bytes = if is_stepping { STEP_BYTES } else { IDLE_BYTES };
        let mut allowance = Allowance { bytes };
        let is_busy = self.send_all(scheduler, model, io, now, &mut allowance);
        // Where all of it was used up there may be more to send, and nobody else to say so.
        is_busy || allowance.bytes < bytes
    }

    fn send_all(
        &mut self,
        scheduler: &mut Scheduler,
        model: &mut dyn Model,
        io: &mut dyn Io,
        now: Instant,
        allowance: &mut Allowance,
    ) -> bool {
        let mut is_busy = false;
        let due: Vec<HeadId> = scheduler.unsaved().filter(|head| self.is_due(*head, now)).collect();
        // The latest first: somebody waits for it, and what is left of an old one may be much.
        for head in due.into_iter().rev() {
            match self.save(head, scheduler, model, io, now, allowance) {
                Ok(()) => is_busy = true,
                Err(NotSent::Later) => return is_busy,
                Err(NotSent::Failed(reason)) => self.failed(head, &reason, scheduler, now),
                Err(NotSent::Never(reason)) => {
                    tracing::error!(head = head.0, reason, "agent not saved, and not tried again");
                    self.metrics.cache.not_saved();
                    scheduler.give_up(head);
                }
            }
        }
        while let Some(filled) = scheduler.filled() {
            let order = filled.order;
            let parent = filled.parent.and_then(Lease::stored).map(|block| block.name);
            let block = Block { lease: filled.lease, tokens: filled.tokens };
            let whose = (filled.namespace, filled.agent);
            match self.send(whose, parent, block, model, io, allowance) {
                Ok(_) => is_busy = true,
                Err(NotSent::Later) => return is_busy,
                Err(NotSent::Failed(reason)) => {
                    tracing::warn!(reason, "a block was not saved");
                    return is_busy;
                }
                // Told when the turn ends.
                Err(NotSent::Never(_)) => scheduler.give_up_filled(order),
            }
        }
        is_busy
    }

    /// Whether a save of it is on its way.
    pub fn is_pending(&self, head: HeadId) -> bool {
        self.pending_heads.contains(&head)
    }

    /// Whether a save of one of its conversations is on its way, whatever has become of the head.
    pub fn is_saving(&self, namespace: &Namespace, agent: &AgentId) -> bool {
        self.saving(namespace, agent).next().is_some()
    }

    fn saving<'a>(
        &'a self,
        namespace: &'a Namespace,
        agent: &'a AgentId,
    ) -> impl Iterator<Item = Line> + 'a {
        let stored = self.pending.values().map(|pending| &pending.stored);
        let of_agent =
            move |line: &&StoredLine| line.namespace == *namespace && line.agent == *agent;
        stored.filter(of_agent).map(|stored| stored.line)
    }

    /// What is on its way of an agent comes back to nobody. Its files are for the caller to remove.
    pub fn forget_agent(&mut self, namespace: &Namespace, agent: &AgentId) {
        let lines: Vec<Line> = self.saving(namespace, agent).collect();
        self.forgotten.extend(lines);
    }

    /// Somebody waits for these: what has failed is tried again at once, unless it has just failed.
    pub fn try_again(&mut self, heads: &[HeadId], now: Instant) -> bool {
        let failed =
            |head| self.retries.get(head).and_then(|retry| retry.at.checked_sub(SAVE_RETRY));
        let has_just = |at: Instant| now.saturating_duration_since(at) < ASKED_RETRY;
        if heads.iter().filter_map(failed).any(has_just) {
            return false;
        }
        for head in heads {
            self.retries.remove(head);
            if let Some(hurry) = &mut self.hurry {
                hurry.failed.remove(head);
            }
        }
        true
    }

    /// Whose KV it saves.
    pub fn fingerprint(&self) -> Fingerprint {
        self.model.fingerprint
    }

    fn is_due(&self, head: HeadId, now: Instant) -> bool {
        let may_be_tried = match &self.hurry {
            Some(hurry) => !hurry.failed.contains(&head),
            None => self.retries.get(&head).is_none_or(|retry| retry.at <= now),
        };
        may_be_tried && !self.pending_heads.contains(&head)
    }

    /// When the next head that failed is to be tried again. What is due and was not sent waits for
    /// the writer, which wakes the engine.
    pub fn next_retry(&self, scheduler: &Scheduler, now: Instant) -> Option<Instant> {
        let waiting = self.retries.iter().filter(|(head, _)| scheduler.head(**head).is_some());
        waiting.map(|(_, retry)| retry.at).filter(|at| *at > now).min()
    }

    /// From here on everything that there is now is saved as fast as it goes.
    pub fn hurry(&mut self, scheduler: &Scheduler) {
        let hurry = self.hurry.get_or_insert_default();
        hurry.wanted.extend(scheduler.unsaved());
        hurry.wanted.extend(&self.pending_heads);
        // Who asks anew wants another try.
        hurry.failed.clear();
    }

    /// How many heads could not be saved, once all others are. Ends the hurry.
    pub fn hurried(&mut self, scheduler: &Scheduler) -> Option<usize> {
        let Hurry { wanted, failed } = self.hurry.as_ref()?;
        let unsaved: BTreeSet<HeadId> = scheduler.unsaved().collect();
        let is_left = |head: &HeadId| {
            self.is_pending(*head) || (unsaved.contains(head) && !failed.contains(head))
        };
        if wanted.iter().any(is_left) {
            return None;
        }
        let count = wanted.intersection(&unsaved).count();
        self.hurry = None;
        Some(count)
    }

    /// Sends what the store does not have of a head, and last the manifest.
    fn save(
        &mut self,
        id: HeadId,
        scheduler: &mut Scheduler,
        model: &mut dyn Model,
        io: &mut dyn Io,
        now: Instant,
        allowance: &mut Allowance,
    ) -> Result<(), NotSent> {
        let head = scheduler.head(id).expect("it was just listed").clone();
        let mut blocks: Vec<BlockRef> = Vec::new();
        for (lease, tokens) in head.blocks().iter().zip(head.tokens.chunks(BLOCK_TOKENS)) {
            let parent = blocks.last().map(|block| block.name);
            let block = Block { lease, tokens };
            let whose = (&head.namespace, &head.agent);
            blocks.push(self.send(whose, parent, block, model, io, allowance)?);
        }
        if !io.has_room() {
            return Err(NotSent::Later);
        }
        let line = head.line().unwrap_or_else(|| {
            let line = self.store.new_line();
            scheduler.set_line(id, line);
            line
        });
        self.commit(id, &head, line, blocks, io, now);
        Ok(())
    }

    fn commit(
        &mut self,
        id: HeadId,
        head: &Head,
        line: Line,
        blocks: Vec<BlockRef>,
        io: &mut dyn Io,
        now: Instant,
    ) {
        let tokens: Arc<[TokenId]> = match head.rest.is_empty() {
            true => Arc::clone(&head.tokens),
            false => head.tokens.iter().chain(&head.rest).copied().collect(),
        };
        let draft = Draft {
            namespace: head.namespace.clone(),
            agent: head.agent.clone(),
            line,
            model: Arc::clone(&self.model),
            tokens,
            replies: head.spoken().to_vec(),
            blocks,
        };
        self.next_save += 1;
        let save = SaveId(self.next_save);
        // Its generation is the store's to say.
        let stored = StoredLine {
            namespace: draft.namespace.clone(),
            agent: draft.agent.clone(),
            line,
            generation: Generation(0),
            tokens: Arc::clone(&draft.tokens),
            replies: draft.replies.clone(),
            blocks: draft.blocks.clone(),
        };
        self.pending.insert(save, Pending { head: id, stored, since: now });
        self.pending_heads.insert(id);
        io.write(Write::Commit { save, draft: Box::new(draft) });
    }

    /// Puts a block on its way to the disk, unless it is there.
    fn send(
        &mut self,
        (namespace, agent): (&Namespace, &AgentId),
        parent: Option<BlockName>,
        block: Block<'_>,
        model: &mut dyn Model,
        io: &mut dyn Io,
        allowance: &mut Allowance,
    ) -> Result<BlockRef, NotSent> {
        let Block { lease, tokens } = block;
        if let Some(stored) = lease.stored() {
            assert_eq!(stored.tokens, tokens.len());
            return Ok(stored);
        }
        if allowance.bytes == 0 || !io.has_room() {
            return Err(NotSent::Later);
        }
        let mut kv = self.spare.pop().unwrap_or_default();
        model
            .export_into(lease.id(), tokens.len(), &mut kv)
            .map_err(|error| NotSent::Failed(error.to_string()))?;
        // Restored, it would give nonsense for ever.
        if !self.model.is_finite(tokens.len(), &kv) {
            self.spare.push(kv);
            return Err(NotSent::Never("its KV has values that are not finite"));
        }
        allowance.bytes = allowance.bytes.saturating_sub(kv.len());
        let sealed = self.store.seal(namespace, &self.model, parent.as_ref(), tokens, kv);
        let stored = sealed.block.clone();
        match self.store.is_stored(namespace, &stored.name) {
            true => self.spare.push(sealed.into_kv()),
            false => {
                self.metrics.cache.written(sealed.block.file_bytes);
                io.write(Write::Block { agent: agent.clone(), block: Box::new(sealed) });
            }
        }
        lease.set_stored(Some(stored.clone()));
        Ok(stored)
    }

    /// What became of a save.
    pub fn committed(
        &mut self,
        save: SaveId,
        result: Result<Committed, Failed>,
        scheduler: &mut Scheduler,
        now: Instant,
    ) {
        let Some(Pending { head, mut stored, since }) = self.pending.remove(&save) else { return };
        self.pending_heads.remove(&head);
        let line = stored.line;
        match result {
            Ok(Committed { generation, removed }) => {
                self.metrics.cache.saved(now.saturating_duration_since(since));
                self.retries.remove(&head);
                self.unwritten.clear();
                stored.generation = generation;
                made_room(removed, scheduler, &self.metrics);
                match self.forgotten.contains(&line) {
                    // It is removed next.
                    true => scheduler.not_saved(head),
                    false => scheduler.saved(head, stored),
                }
            }
            Err(Failed::Store(StoreError::Missing(names))) => {
                self.resend(head, &names, scheduler, now)
            }
            Err(error) => self.failed(head, &error.to_string(), scheduler, now),
        }
        if !self.pending.values().any(|pending| pending.stored.line == line) {
            self.forgotten.remove(&line);
        }
    }

    /// A block is there, and its memory is free.
    pub fn written(&mut self, buffer: Vec<u8>) {
        let bytes: usize = self.spare.iter().map(Vec::capacity).sum();
        if bytes + buffer.capacity() <= SPARE_BYTES {
            self.spare.push(buffer);
        }
    }

    /// A block that was sent is not there.
    pub fn not_written(&mut self, block: BlockName) {
        self.unwritten.insert(block);
    }

    /// Blocks that were to be in the store are not: they are written again.
    fn resend(&mut self, id: HeadId, names: &[BlockName], scheduler: &mut Scheduler, now: Instant) {
        let resends = self.retries.get(&id).map_or(0, |retry| retry.resends);
        if let Some(head) = scheduler.head(id) {
            for lease in head.blocks() {
                if lease.stored().is_some_and(|block| names.contains(&block.name)) {
                    lease.set_stored(None);
                }
            }
        }
        // What the disk has just refused it refuses again, and each try costs all of the copying.
        let refused = names.iter().filter(|name| self.unwritten.remove(name)).count();
        if refused > 0 || resends >= RESENDS_MAX {
            return self.failed(id, "blocks of it do not reach the disk", scheduler, now);
        }
        self.retries.insert(id, Retry { at: now, resends: resends + 1 });
    }

    fn failed(&mut self, head: HeadId, reason: &str, scheduler: &mut Scheduler, now: Instant) {
        self.metrics.cache.not_saved();
        tracing::warn!(head = head.0, reason, "agent not saved");
        scheduler.not_saved(head);
        // Of those that have gone unsaved, nothing else tells.
        self.retries.retain(|head, _| scheduler.head(*head).is_some());
        self.retries.insert(head, Retry { at: now + SAVE_RETRY, resends: 0 });
        if let Some(hurry) = &mut self.hurry {
            hurry.failed.insert(head);
        }
    }

    /// The store need not keep these any longer.
    pub fn forget(&mut self, forgotten: Vec<Forgotten>, io: &mut dyn Io) {
        for Forgotten { namespace, agent, line } in forgotten {
            self.metrics.cache.evicted(Tier::Warm, 1);
            tracing::info!(%namespace, agent = agent.as_str(), line = line.0, "an agent's oldest conversation goes");
            if self.pending.values().any(|pending| pending.stored.line == line) {
                self.forgotten.insert(line);
            }
            io.write(Write::Remove { namespace, agent, line });
        }
    }
}

/// The store gave these lines up for something else: what an agent said is not safe any more.
pub fn made_room(
    removed: Vec<(Namespace, AgentId, Line)>,
    scheduler: &mut Scheduler,
    metrics: &Metrics,
) {
    metrics.cache.evicted(Tier::Warm, removed.len() as u64);
    for (_, agent, line) in removed {
        tracing::info!(
            agent = agent.as_str(),
            "an agent's memory went to make room for something else"
        );
        scheduler.dropped(line);
    }
}

/// A block of the pool and what it holds.
struct Block<'a> {
    lease: &'a Lease,
    tokens: &'a [TokenId],
}
