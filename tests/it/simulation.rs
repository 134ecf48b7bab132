//! The engine without time: random agents, prompts, cancels, evictions and failures of model and store on the
//! fake model, whose text tells when a block was swapped, stale or leaked.
//!
//! After each step blocks and their holders are counted; at the end of each request its tokens are
//! compared with what the same request gives alone. The oldest admitted request never waits: from
//! then on every step brings it a token nearer to its end.

mod operating;
mod totals;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use semantic::engine::scheduler::{Limits, RequestId, Scheduler};
use semantic::engine::worker::{Clock, Keeper, Watch, Worker};
use semantic::engine::{Error, Event, Finish, Reply, Request, Terms};
use semantic::model::fake::{Fake, FakeConfig, Memory};
use semantic::model::sample::{Bias, History, Sampling, sample};
use semantic::model::{Batch, Model, Row, Spec, Wanted};
use semantic::store::KvModel;
use semantic::text::{Prompt, Tokenizer};
use semantic::types::{AgentId, BLOCK_TOKENS, BlockId, Fingerprint, Namespace, TokenId};

use crate::support::engine::{Control, Fault, controlled};
use crate::support::io::SlowIo;
use crate::support::random::Random;
use crate::support::scale::scaled;
use crate::support::store::{Failing, ShakyDisk, lines};
use crate::support::text::byte_level_tokenizer;
use operating::{Answer, Operating};
use totals::Totals;

/// Steps in all when everything is run.
const STEPS: usize = 1_000_000;
/// Steps of one simulation; then another world begins.
const STEPS_PER_WORLD: usize = 2_000;
/// Well beyond the window that is reserved at first, so that sequences outgrow the pool.
const CONTEXT_TOKENS: usize = 1_800;
/// The first tokens of the tokenizer, those that end a turn among them.
const VOCABULARY: usize = 64;
const QUEUE_TIME: Duration = Duration::from_secs(5);
const STEP_TIME: Duration = Duration::from_millis(20);
/// An oldest request that takes so many more steps than it has tokens is starving. Its memory may
/// have to come from the disk first, and be saved last.
const SLACK_STEPS: usize = 200;

/// One world alone.
const SEED: &str = "SEMANTIC_TEST_SEED";

#[test]
#[expect(clippy::print_stderr, reason = "the seed of a failure, and what was covered")]
fn simulated_engines_mix_nothing_up_and_starve_nobody() {
    if let Ok(seed) = std::env::var(SEED) {
        let world = World::new(seed.parse().expect("the seed is a number"));
        eprintln!("seed {seed}: {:?}", world.run(STEPS_PER_WORLD));
        return;
    }
    let worlds = scaled(STEPS).div_ceil(STEPS_PER_WORLD);
    let mut totals = Totals::default();
    for seed in 0..worlds as u64 {
        let result = catch_unwind(AssertUnwindSafe(|| World::new(seed).run(STEPS_PER_WORLD)));
        match result {
            Ok(world) => totals.add(&world),
            Err(panic) => {
                eprintln!("simulation failed: run it again with {SEED}={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    eprintln!("{} worlds: {totals:?}", worlds);
    // A simulation in which nothing happens proves nothing.
    assert!(totals.finished > worlds);
    assert!(totals.parkings > 0);
    assert!(totals.restored > 0);
    assert!(totals.hits > totals.finished / 10);
    assert!(totals.cancelled > 0);
    assert!(totals.late > 0);
    assert!(totals.failed > 0);
    assert!(totals.failed_saves > 0);
    assert!(totals.restarts > 0);
    assert!(totals.forgotten > 0);
    assert!(totals.forked > 0);
    assert!(totals.rolled_back > 0);
    assert!(totals.warmed > 0);
    assert!(totals.retained > 0);
    assert!(totals.evicted > 0);
}

/// Time that goes on when a step is made and at no other moment.
struct FakeTime {
    now: Cell<Instant>,
    /// How many times [`STEP_TIME`] a step takes.
    slowness: Cell<f64>,
}

impl Clock for FakeTime {
    fn now(&self) -> Instant {
        self.now.get()
    }
}

impl Watch for FakeTime {
    fn begin(&self, _: Duration) {
        self.now.set(self.now.get() + STEP_TIME.mul_f64(self.slowness.get()));
    }

    fn end(&self) {}
}

/// One request, with what has come of it.
struct Asked {
    namespace: usize,
    agent: Option<usize>,
    prompt: Vec<TokenId>,
    max_tokens: usize,
    sampling: Sampling,
    is_end_ignored: bool,
    /// Tokens of each choice so far.
    replies: Vec<Vec<TokenId>>,
    is_admitted: bool,
    /// Steps since it has been the oldest of those admitted.
    steps_as_oldest: usize,
}

/// A namespace and an agent of it.
type Agent = (usize, usize);

struct World {
    random: Random,
    time: Rc<FakeTime>,
    worker: Worker,
    control: Control,
    /// If agents are kept.
    disk: Option<ShakyDisk>,
    io: Option<SlowIo>,
    is_evicting: bool,
    /// What has been asked for single agents and is not answered yet.
    operations: Vec<Operating>,
    /// Agents that are gone for good, until somebody asks for one again.
    forgotten: BTreeSet<Agent>,
    limits: Limits,
    pool_blocks: usize,
    memory: Memory,
    /// Requests whose replies may be longer than the window.
    long_percent: usize,
    tokenizer: Arc<Tokenizer>,
    /// Alone, for what a request should give.
    oracle: Fake,
    in_flight: BTreeMap<RequestId, Asked>,
    /// What each agent has said and heard, by namespace and agent.
    histories: Vec<Vec<Vec<TokenId>>>,
    totals: Totals,
}

/// What a process that starts on this disk saves and restores with.
fn start(
    disk: &ShakyDisk,
    scheduler: &mut Scheduler,
    spec: &Spec,
    random: &mut Random,
) -> (Keeper, SlowIo) {
    let store = disk.open();
    for line in lines(&store) {
        scheduler.found(line);
    }
    let model = Arc::new(KvModel {
        fingerprint: Fingerprint([7; 32]),
        name: "fake".to_owned(),
        producer: "fake".to_owned(),
        tensors: spec.tensors.clone(),
    });
    let io = SlowIo::new(Arc::clone(&store), Arc::clone(&model), Random::new(random.next()));
    (Keeper::new(store, model, Box::new(io.clone())), io)
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let tokenizer = byte_level_tokenizer();
        let memory = random.pick(&[Memory::Tokens, Memory::Tokens, Memory::State]);
        let fake = |pool_blocks| {
            Fake::new(FakeConfig {
                vocabulary: VOCABULARY,
                context_tokens: CONTEXT_TOKENS,
                pool_blocks,
                memory,
            })
        };
        // The longest request needs eight blocks alone: some are refused.
        let pool_blocks = match random.range(0..3) {
            0 => random.range(5..12),
            _ => random.range(6..40),
        };
        // In some worlds most replies may outgrow the window.
        let long_percent = random.pick(&[5, 10, 60]);
        let (model, control) = controlled(fake(pool_blocks));
        let limits = Limits {
            step: Duration::from_millis(100),
            running_max: random.range(2..16),
            queue_max: random.range(4..40),
            queue_time: QUEUE_TIME,
            instance: seed,
        };
        let disk = (random.range(0..4) > 0).then(ShakyDisk::default);
        let mut scheduler =
            Scheduler::new(limits.clone(), model.spec().clone(), tokenizer.clone(), disk.is_some());
        let io = disk.as_ref().map(|disk| start(disk, &mut scheduler, model.spec(), &mut random));
        let (keeper, io) = io.unzip();
        let histories = vec![vec![Vec::new(); random.range(2..8)]; 2];
        World {
            time: Rc::new(FakeTime { now: Cell::new(Instant::now()), slowness: Cell::new(1.0) }),
            worker: Worker::new(scheduler, Box::new(model), keeper),
            control,
            disk,
            io,
            is_evicting: false,
            operations: Vec::new(),
            forgotten: BTreeSet::new(),
            limits,
            pool_blocks,
            memory,
            long_percent,
            oracle: fake(CONTEXT_TOKENS.div_ceil(BLOCK_TOKENS)),
            tokenizer,
            in_flight: BTreeMap::new(),
            histories,
            totals: Totals::default(),
            random,
        }
    }

    fn run(mut self, steps: usize) -> Totals {
        // Phases of much and of little, so that the pool is full and empty in turn.
        let mut eagerness = 5;
        for step in 0..steps {
            if step % 200 == 0 {
                eagerness = self.random.range(1..40);
            }
            if self.random.range(0..100) < eagerness {
                self.submit();
            }
            self.disturb();
            self.step();
        }
        self.control.fail_no_more();
        // A drain: nothing new, and everything that is there ends.
        let left: usize = self.in_flight.values().map(Asked::tokens_at_most).sum();
        let accepted = self.in_flight.len() as u64;
        let before = self.worker.scheduler.finished_requests();
        let mut drained_in = 0;
        while self.worker.scheduler.in_flight() > 0 {
            self.step();
            drained_in += 1;
            assert!(drained_in <= left + SLACK_STEPS, "{drained_in} steps for {left} tokens");
        }
        assert_eq!(self.worker.scheduler.finished_requests() - before, accepted);
        assert!(self.in_flight.is_empty());
        self.set_failing(Failing::Nothing);
        // One may have failed to save in a hurry that is not over.
        for _ in 0..2 {
            self.worker.evict_all();
            self.is_evicting = true;
            while self.is_evicting {
                self.step();
            }
        }
        self.worker.scheduler.assert_consistent();
        assert_eq!(self.worker.scheduler.stats().blocks_used, 0);
        self.count_io();
        self.totals
    }

    fn submit(&mut self) {
        let namespace = self.random.range(0..self.histories.len());
        let agents = self.histories[namespace].len();
        let named = self.random.range(0..5) > 0;
        let agent = named.then(|| self.random.range(0..agents));
        // An agent's own history, another's (a fork, or a common system prompt), a part of one,
        // or nothing.
        let from = match self.random.range(0..8) {
            0 => self.random.range(0..agents),
            _ => agent.unwrap_or(0),
        };
        let mut prompt = match self.random.range(0..6) {
            0 => Vec::new(),
            1 => {
                let history = &self.histories[namespace][from];
                let keep = self.random.range(0..history.len() + 1);
                history[..keep].to_vec()
            }
            _ => self.histories[namespace][from].clone(),
        };
        let more = match self.random.range(0..4) {
            0 => 1,
            1 => self.random.range(1..500),
            _ => self.random.range(1..60),
        };
        // Few different tokens, so that prompts agree for a while.
        prompt.extend((0..more).map(|_| TokenId(self.random.range(3..6) as u32)));
        if prompt.len() > 600 {
            prompt.truncate(self.random.range(1..300));
        }
        // In some worlds many replies are longer than the window that is reserved for them.
        let max_tokens = match self.random.range(0..100) < self.long_percent {
            true => self.random.range(500..1_700),
            false => self.random.range(1..120),
        };
        let choices = if self.random.range(0..10) == 0 { self.random.range(1..4) } else { 1 };
        let temperature = self.random.pick(&[0.0, 1.0, 2.0]);
        let biases = (self.random.range(0..4) == 0).then(|| {
            let bias =
                |id| Bias { token: TokenId(id), bias: self.random.pick(&[-100.0, -3.0, 2.0]) };
            (3..6).map(bias).collect()
        });
        let seed = self.random.next();
        let sampling = Sampling { temperature, biases, seed, ..Sampling::GREEDY };
        let is_end_ignored = max_tokens >= 500 || self.random.range(0..2) == 0;
        let request = Request {
            namespace: space(namespace),
            agent: agent.map(id),
            prompt: Prompt::from(prompt.clone()),
            max_tokens: Some(max_tokens),
            sampling: sampling.clone(),
            stops: Vec::new(),
            reply: Reply::Turn,
            choices,
            logprobs: Some(0),
            is_end_ignored,
            grammar: None,
            is_ephemeral: self.random.range(0..20) == 0,
        };
        let asked = Asked {
            namespace,
            agent,
            prompt,
            max_tokens,
            sampling,
            is_end_ignored,
            replies: vec![Vec::new(); choices],
            is_admitted: false,
            steps_as_oldest: 0,
        };
        match self.worker.submit(request, Terms::default(), self.time.now()) {
            Ok(id) => {
                self.in_flight.insert(id, asked);
                agent.into_iter().for_each(|agent| self.is_there_again((namespace, agent)));
            }
            Err(Error::QueueFull { .. } | Error::LargerThanPool(_) | Error::Choices { .. }) => {
                self.totals.refused += 1;
            }
            // It is on the way to an older save.
            Err(Error::AgentBusy(_)) if !self.operations.is_empty() => self.totals.refused += 1,
            Err(error) => panic!("{error}"),
        }
    }

    /// What happens to an engine besides requests.
    fn disturb(&mut self) {
        match self.random.range(0..1_000) {
            // In worlds of long replies fewer, or none would come to its end.
            chance if chance < 150 / self.long_percent && !self.in_flight.is_empty() => {
                let index = self.random.range(0..self.in_flight.len());
                let id = *self.in_flight.keys().nth(index).unwrap();
                self.worker.scheduler.cancel(id, self.time.now());
            }
            30..33 => {
                self.worker.evict_all();
                self.is_evicting = true;
            }
            33..38 => self.set_failing(Failing::Writes),
            38 => self.set_failing(Failing::Reads),
            39 => self.set_failing(Failing::Flips),
            40..60 => self.set_failing(Failing::Nothing),
            60 => self.worker.scheduler.cut(),
            61..70 => {
                self.time.slowness.set(self.random.range(1..1_000) as f64 / 10.0);
            }
            70..90 => self.control.fail_no_more(),
            90..110 => {
                // Whoever has this token at this place.
                let (position, token) = (self.random.range(0..300), self.random.range(3..6));
                let fault = self.random.pick(&[Fault::Error, Fault::NotANumber]);
                self.control.fail_at(position, TokenId(token as u32), fault);
            }
            110..170 => self.time.slowness.set(1.0),
            170 => self.restart(),
            171..201 => self.operate(),
            _ => (),
        }
        self.hear();
    }

    fn set_failing(&mut self, failing: Failing) {
        if let Some(disk) = &self.disk {
            disk.set_failing(failing);
        }
    }

    /// The process dies, with everything that is on its way, and another starts on its disk.
    fn restart(&mut self) {
        let Some(disk) = self.disk.clone() else { return };
        self.count_io();
        let fake = Fake::new(FakeConfig {
            vocabulary: VOCABULARY,
            context_tokens: CONTEXT_TOKENS,
            pool_blocks: self.pool_blocks,
            memory: self.memory,
        });
        let (model, control) = controlled(fake);
        let mut scheduler = Scheduler::new(
            self.limits.clone(),
            model.spec().clone(),
            Arc::clone(&self.tokenizer),
            true,
        );
        // The lock of the old process is free once it is gone.
        self.io = None;
        self.worker = Worker::new(
            Scheduler::new(
                self.limits.clone(),
                model.spec().clone(),
                Arc::clone(&self.tokenizer),
                false,
            ),
            Box::new(Fake::new(FakeConfig {
                vocabulary: VOCABULARY,
                context_tokens: CONTEXT_TOKENS,
                pool_blocks: 1,
                memory: self.memory,
            })),
            None,
        );
        disk.set_failing(Failing::Nothing);
        let (keeper, io) = start(&disk, &mut scheduler, model.spec(), &mut self.random);
        self.worker = Worker::new(scheduler, Box::new(model), Some(keeper));
        (self.control, self.io) = (control, Some(io));
        self.in_flight.clear();
        // A copy may have been made though nobody has heard of it.
        for operating in std::mem::take(&mut self.operations) {
            if let Answer::Forked { to, .. } = operating.answer {
                self.forgotten.remove(&to);
            }
        }
        self.is_evicting = false;
        self.totals.restarts += 1;
    }

    fn count_io(&mut self) {
        if let Some(io) = &self.io {
            self.totals.failed_saves += io.failed_saves();
            self.totals.restored += io.restored_blocks();
        }
        self.totals.parkings += self.worker.scheduler.stats().parkings as usize;
    }

    fn step(&mut self) {
        if let Some(id) = self.worker.scheduler.oldest() {
            let asked = self.in_flight.get_mut(&id).expect("what runs has not ended");
            asked.steps_as_oldest += 1;
            let most = asked.tokens_at_most() + SLACK_STEPS;
            assert!(asked.steps_as_oldest <= most, "{id:?} starves");
        }
        let time = Rc::clone(&self.time);
        self.worker.turn(&*time, &*time).expect("the fake does not panic");
        self.control.forget();
        self.totals.steps += 1;
        if self.is_evicting && self.worker.evicted().is_some() {
            self.is_evicting = false;
        }
        self.worker.scheduler.assert_consistent();
        self.hear();
        self.worker.take_answers().into_iter().for_each(|answer| answer.tell(|_, _| ()));
        self.check_operations();
    }

    /// Takes what clients would hear.
    fn hear(&mut self) {
        for (id, item) in self.worker.scheduler.take_items() {
            let asked = self.in_flight.get_mut(&id).expect("nothing comes after the end");
            match item {
                Ok(Event::Admitted(admitted)) => {
                    assert!(!asked.is_admitted, "admitted twice");
                    asked.is_admitted = true;
                    assert_eq!(admitted.prompt_tokens, asked.prompt.len());
                    assert!(admitted.cached_tokens < asked.prompt.len());
                    self.totals.hits += usize::from(admitted.cached_tokens > 0);
                }
                Ok(Event::Prefilled { tokens }) => assert!(tokens <= asked.prompt.len()),
                Ok(Event::Text(delta)) => {
                    assert_eq!(delta.tokens, delta.logprobs.len());
                    let tokens = delta.logprobs.iter().map(|logprob| logprob.token);
                    asked.replies[delta.choice].extend(tokens);
                }
                Ok(Event::Finished(outcome)) => {
                    let asked = self.in_flight.remove(&id).unwrap();
                    self.check(&asked, &outcome.choices);
                }
                Err(error) => {
                    let asked = self.in_flight.remove(&id).unwrap();
                    match error {
                        Error::WaitedTooLong(waited) => {
                            assert!(!asked.is_admitted);
                            assert!(waited >= QUEUE_TIME);
                            self.totals.late += 1;
                        }
                        Error::Cut => self.totals.cut += 1,
                        Error::Model(_) | Error::NotANumber { .. } => self.totals.failed += 1,
                        error => panic!("{error}"),
                    }
                    self.check_prefixes(&asked);
                }
            }
        }
        self.worker.scheduler.take_replies();
    }

    fn check(&mut self, asked: &Asked, choices: &[semantic::engine::Choice]) {
        assert_eq!(choices.len(), asked.replies.len());
        self.check_prefixes(asked);
        let is_cancelled = choices.iter().any(|choice| choice.finish == Finish::Cancelled);
        self.totals.cancelled += usize::from(is_cancelled);
        self.totals.finished += usize::from(!is_cancelled);
        for (index, choice) in choices.iter().enumerate() {
            let reply = &asked.replies[index];
            assert_eq!(choice.completion_tokens, reply.len());
            self.totals.tokens += reply.len();
            if choice.finish == Finish::Cancelled {
                continue;
            }
            let is_end = |token: &TokenId| {
                !asked.is_end_ignored && self.tokenizer.end_tokens().contains(token)
            };
            let expected = match reply.last().is_some_and(is_end) {
                true => Finish::Stop,
                false => Finish::Length,
            };
            assert_eq!(choice.finish, expected);
            assert!(reply[..reply.len() - 1].iter().all(|token| !is_end(token)));
            if expected == Finish::Length {
                assert_eq!(reply.len(), asked.max_tokens.min(CONTEXT_TOKENS - asked.prompt.len()));
            }
        }
        // The agent goes on from here, or not.
        if let Some(agent) = asked.agent
            && !is_cancelled
        {
            let history = [asked.prompt.as_slice(), &asked.replies[0]].concat();
            self.histories[asked.namespace][agent] = history;
        }
    }

    /// Every token is what the request gives alone.
    fn check_prefixes(&mut self, asked: &Asked) {
        for (choice, reply) in asked.replies.iter().enumerate() {
            let seed = asked.sampling.seed.wrapping_add(choice as u64);
            let sampling = Sampling { seed, ..asked.sampling.clone() };
            let expected = self.alone(&asked.prompt, &sampling, reply.len());
            assert_eq!(*reply, expected, "{:?} with {:?}", asked.prompt.len(), self.memory);
        }
    }

    fn alone(&mut self, prompt: &[TokenId], sampling: &Sampling, count: usize) -> Vec<TokenId> {
        let blocks: Vec<BlockId> =
            (0..CONTEXT_TOKENS.div_ceil(BLOCK_TOKENS) as u32).map(BlockId).collect();
        let mut tokens = prompt.to_vec();
        let mut start = 0;
        while tokens.len() < prompt.len() + count {
            let row =
                Row { tokens: &tokens[start..], start, blocks: &blocks, logits: Wanted::Last };
            let logits = self.oracle.step(&Batch { rows: vec![row] }).unwrap();
            start = tokens.len();
            let history = History { tokens: &tokens, prompt_tokens: prompt.len(), allowed: None };
            let draw = (tokens.len() - prompt.len()) as u64;
            tokens.push(sample(logits[0].last(), sampling, history, draw).unwrap());
        }
        tokens.split_off(prompt.len())
    }
}

fn space(namespace: usize) -> Namespace {
    Namespace::new(&format!("n{namespace}"))
}

fn id(agent: usize) -> AgentId {
    AgentId::new(&format!("a{agent}")).unwrap()
}

impl Asked {
    /// Tokens that are computed for it, each choice's twice if it is parked once.
    fn tokens_at_most(&self) -> usize {
        (self.prompt.len() + self.max_tokens) * self.replies.len()
    }
}
