//! Engines on a fake model that the test has in its hands: it opens and closes the gate before a
//! step, sees what every step computed, and chooses where the model fails.

use std::collections::HashMap;
use std::future::Future;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use semantic::engine::{
    Admitted, Config, Engine, Error, Event, Item, Outcome, Reply, Request, Stream,
};
use semantic::model::fake::{Fake, FakeConfig, Memory};
use semantic::model::sample::{History, Sampling, sample};
use semantic::model::{self, Batch, Logits, Model, Row, Spec, Wanted};
use semantic::store::{BUDGET_BYTES, Settings, Store};
use semantic::text::Prompt;
use semantic::types::{AgentId, BLOCK_TOKENS, BlockId, KvAxis, KvElement, Namespace, TokenId};

use super::random::Random;
use super::store::{ShakyDisk, keeping};
use super::text::byte_level_tokenizer;

/// The first tokens of the tokenizer.
pub const VOCABULARY: usize = 64;
pub const CONTEXT_TOKENS: usize = 2_048;
/// What no working engine takes: a test that waits for longer has failed.
const FOREVER: Duration = Duration::from_secs(60);

/// What an engine is started with.
pub struct Setup {
    pub memory: Memory,
    pub pool_blocks: usize,
    pub vocabulary: usize,
    pub config: Config,
    /// What its agents are kept on; nothing is if there is none.
    pub disk: Option<ShakyDisk>,
    /// Another process may write to that disk.
    pub is_read_only: bool,
    /// The disk's clock.
    pub now: fn() -> SystemTime,
    /// What its agents may have there.
    pub budget_bytes: u64,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            memory: Memory::Tokens,
            pool_blocks: 64,
            vocabulary: VOCABULARY,
            // No step is too long, so that a slow machine computes the same.
            config: Config { step: Duration::from_secs(3_600), ..Config::default() },
            disk: None,
            is_read_only: false,
            now: SystemTime::now,
            budget_bytes: BUDGET_BYTES,
        }
    }
}

/// An engine that serves.
pub struct Served {
    pub engine: Engine,
    pub model: Control,
    store: Option<Arc<Store>>,
    fatal: Receiver<String>,
}

pub fn serve(setup: Setup) -> Served {
    let Setup {
        memory,
        pool_blocks,
        vocabulary,
        mut config,
        disk,
        is_read_only,
        now,
        budget_bytes,
    } = setup;
    let (sender, fatal) = mpsc::channel();
    config.on_fatal = Box::new(move |reason| drop(sender.send(reason.to_owned())));
    let fake =
        Fake::new(FakeConfig { vocabulary, context_tokens: CONTEXT_TOKENS, pool_blocks, memory });
    let (controlled, model) = controlled(fake);
    let store = disk.map(|disk| match is_read_only {
        true => disk.open_read_only(),
        false => disk.open_with(Settings { now, budget_bytes, ..Settings::default() }),
    });
    let keeping = store.clone().map(keeping);
    let load = move || Ok(Box::new(controlled) as Box<dyn Model>);
    let engine = Engine::start(config, byte_level_tokenizer(), keeping, load);
    engine.wait_started().unwrap();
    // The warm-up.
    model.forget();
    Served { engine, model, store, fatal }
}

impl Served {
    /// The process ends; its disk is free.
    pub fn end(self) {
        self.engine.shutdown();
    }

    /// The store behind the engine.
    pub fn store(&self) -> &Store {
        self.store.as_ref().expect("it has one")
    }

    pub fn ask(&self, request: Request) -> Answer {
        read(&mut self.engine.submit(request))
    }

    /// Streams of requests that all take part in the step before which the model waits.
    pub fn ask_and_hold(&self, requests: impl IntoIterator<Item = Request>) -> Vec<Stream> {
        self.model.close();
        let streams: Vec<Stream> =
            requests.into_iter().map(|request| self.engine.submit(request)).collect();
        self.model.wait_for_step(1);
        // The first step may have begun before the last request came.
        self.model.let_through(1);
        self.model.wait_for_step(2);
        streams
    }

    /// The reason that `on_fatal` hears; panics if there is none.
    pub fn fatal(&self) -> String {
        self.fatal.recv_timeout(FOREVER).expect("the engine fails")
    }

    /// The engine has been told to end and nothing more can come.
    pub fn more_fatals(self) -> usize {
        self.engine.shutdown();
        let Served { engine, fatal, .. } = self;
        drop(engine);
        fatal.try_iter().count()
    }
}

/// What of a model's failings the test chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Error,
    Panic,
    NotANumber,
}

/// The test's end of a model.
#[derive(Clone, Default)]
pub struct Control(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    /// Rows of every step that has begun.
    steps: Vec<Vec<SeenRow>>,
    /// Tokens of the steps that were computed.
    computed_tokens: usize,
    is_closed: bool,
    permits: usize,
    faults: HashMap<(usize, TokenId), Fault>,
    /// Blocks that begin with this token cannot be exported.
    unexportable: Option<TokenId>,
    /// The KV of blocks that begin with this token has a value that is no number.
    nonsense: Option<TokenId>,
    /// Copies until one fails.
    copies_until_fault: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRow {
    pub start: usize,
    pub tokens: Vec<TokenId>,
    pub blocks: Vec<BlockId>,
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panics wants its message heard, not that of the model.
        self.0.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// No further step begins until it is let through.
    pub fn close(&self) {
        self.state().is_closed = true;
    }

    pub fn open(&self) {
        self.state().is_closed = false;
        self.0.1.notify_all();
    }

    pub fn let_through(&self, steps: usize) {
        self.state().permits += steps;
        self.0.1.notify_all();
    }

    /// Waits until so many steps have begun since [`Control::forget`].
    pub fn wait_for_step(&self, number: usize) {
        let (state, result) = self
            .0
            .1
            .wait_timeout_while(self.state(), FOREVER, |state| state.steps.len() < number)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(state);
        assert!(!result.timed_out(), "step {number} never begins");
    }

    /// Lets steps through one by one until `is_there` of the rows of the one that waits.
    pub fn step_until(&self, mut is_there: impl FnMut(&[SeenRow]) -> bool) {
        for _ in 0..100_000 {
            let number = self.state().steps.len();
            if is_there(self.state().steps.last().map_or(&[], Vec::as_slice)) {
                return;
            }
            self.let_through(1);
            self.wait_for_step(number + 1);
        }
        panic!("it never comes");
    }

    /// The rows of every step since [`Control::forget`].
    pub fn steps(&self) -> Vec<Vec<SeenRow>> {
        self.state().steps.clone()
    }

    /// The sum of the rows' lengths since [`Control::forget`].
    pub fn computed_tokens(&self) -> usize {
        self.state().computed_tokens
    }

    pub fn forget(&self) {
        let mut state = self.state();
        state.steps.clear();
        state.computed_tokens = 0;
    }

    /// A row fails in which this token is at this position of its sequence.
    pub fn fail_at(&self, position: usize, token: TokenId, fault: Fault) {
        self.state().faults.insert((position, token), fault);
    }

    pub fn fail_no_more(&self) {
        self.state().faults.clear();
    }

    /// What begins with this token cannot be saved, or again can.
    pub fn fail_exports_of(&self, token: Option<TokenId>) {
        self.state().unexportable = token;
    }

    /// The KV of what begins with this token is no longer one that can be gone on from.
    pub fn spoil_exports_of(&self, token: TokenId) {
        self.state().nonsense = Some(token);
    }

    /// A row fails in which the last token of this prompt is. It is the one with logits.
    pub fn fail_prompt(&self, prompt: &[TokenId], fault: Fault) {
        self.fail_at(prompt.len() - 1, prompt[prompt.len() - 1], fault);
    }

    /// The next copy but so many fails.
    pub fn fail_copy_after(&self, copies: usize) {
        self.state().copies_until_fault = Some(copies);
    }

    fn enter(&self, batch: &Batch<'_>) -> Vec<Option<Fault>> {
        let seen = |row: &Row<'_>| SeenRow {
            start: row.start,
            tokens: row.tokens.to_vec(),
            blocks: row.blocks.to_vec(),
        };
        let mut state = self.state();
        state.steps.push(batch.rows.iter().map(seen).collect());
        self.0.1.notify_all();
        let is_held = |state: &mut State| state.is_closed && state.permits == 0;
        let mut state =
            self.0.1.wait_while(state, is_held).unwrap_or_else(std::sync::PoisonError::into_inner);
        state.permits = state.permits.saturating_sub(usize::from(state.is_closed));
        let fault = |row: &Row<'_>| {
            let mut places = (row.start..).zip(row.tokens);
            places.find_map(|(position, token)| state.faults.get(&(position, *token)).copied())
        };
        batch.rows.iter().map(fault).collect()
    }
}

/// The fake as a model that does what the test wants.
pub fn controlled(fake: Fake) -> (Controlled, Control) {
    let control = Control::default();
    let mut spec = fake.spec().clone();
    // Tokens and positions are so small that as floats they are finite.
    for tensor in spec.tensors.iter_mut().filter(|tensor| tensor.shape == [KvAxis::Tokens]) {
        tensor.element = KvElement::F32;
        tensor.shape = vec![KvAxis::Tokens, KvAxis::Fixed(2)];
    }
    (Controlled { fake, spec, control: control.clone() }, control)
}

/// Its blocks are made of floats.
pub struct Controlled {
    fake: Fake,
    spec: Spec,
    control: Control,
}

impl Model for Controlled {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<Vec<Logits>, model::Error> {
        let faults = self.control.enter(batch);
        if faults.contains(&Some(Fault::Error)) {
            return Err(model::Error::Mlx("the test wants it".to_owned()));
        }
        assert!(!faults.contains(&Some(Fault::Panic)), "the test wants it");
        let mut logits = self.fake.step(batch)?;
        for (logits, fault) in logits.iter_mut().zip(faults) {
            if fault == Some(Fault::NotANumber) {
                let vocabulary = self.fake.spec().vocabulary;
                *logits = Logits::new(vocabulary, vec![f32::NAN; logits.positions() * vocabulary]);
            }
        }
        let tokens: usize = batch.rows.iter().map(|row| row.tokens.len()).sum();
        self.control.state().computed_tokens += tokens;
        Ok(logits)
    }

    fn path(&self) -> &'static str {
        self.fake.path()
    }

    fn export(&mut self, block: BlockId, tokens: usize) -> Result<Vec<u8>, model::Error> {
        let mut bytes = self.fake.export(block, tokens)?;
        let first = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        let is_first = |token: TokenId| first == u64::from(token.0) << 32;
        let state = self.control.state();
        if state.unexportable.is_some_and(is_first) {
            return Err(model::Error::Mlx("the test wants it".to_owned()));
        }
        if state.nonsense.is_some_and(is_first) {
            let last = bytes.len() - 4;
            bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        Ok(bytes)
    }

    fn import(&mut self, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<(), model::Error> {
        self.fake.import(block, tokens, bytes)
    }

    fn copy(&mut self, from: BlockId, to: BlockId, tokens: usize) -> Result<(), model::Error> {
        let mut state = self.control.state();
        match state.copies_until_fault {
            Some(0) => {
                state.copies_until_fault = None;
                return Err(model::Error::Mlx("the test wants it".to_owned()));
            }
            Some(copies) => state.copies_until_fault = Some(copies - 1),
            None => (),
        }
        drop(state);
        self.fake.copy(from, to, tokens)
    }
}

/// So many random tokens; none of another seed begins with the same.
pub fn prompt(seed: u32, tokens: usize) -> Vec<TokenId> {
    let mut random = Random::new(u64::from(seed));
    let rest = (1..tokens).map(|_| TokenId(random.range(3..VOCABULARY) as u32));
    std::iter::once(TokenId(3 + seed)).chain(rest).collect()
}

/// A nameless greedy request for a reply of exactly eight tokens.
pub fn request(prompt: &[TokenId]) -> Request {
    Request {
        namespace: Namespace::local(),
        agent: None,
        prompt: Prompt::from(prompt.to_vec()),
        max_tokens: Some(8),
        sampling: Sampling::GREEDY,
        stops: Vec::new(),
        reply: Reply::Turn,
        choices: 1,
        logprobs: Some(0),
        is_end_ignored: true,
        grammar: None,
        is_ephemeral: false,
    }
}

/// The same of a named agent.
pub fn request_of(agent: &str, prompt: &[TokenId]) -> Request {
    Request { agent: Some(AgentId::new(agent).unwrap()), ..request(prompt) }
}

/// All that a stream brought.
#[derive(Debug, Default)]
pub struct Answer {
    pub admitted: Option<Admitted>,
    pub prefilled: Vec<usize>,
    /// By choice.
    pub texts: Vec<String>,
    pub tokens: Vec<Vec<TokenId>>,
    /// None if the engine died.
    pub end: Option<Result<Outcome, Error>>,
}

impl Answer {
    pub fn outcome(&self) -> &Outcome {
        self.end.as_ref().expect("it has an end").as_ref().expect("it is complete")
    }

    pub fn error(&self) -> &Error {
        self.end.as_ref().expect("it has an end").as_ref().expect_err("it failed")
    }

    pub fn admitted(&self) -> &Admitted {
        self.admitted.as_ref().expect("it was admitted")
    }

    pub fn cached_tokens(&self) -> usize {
        self.admitted().cached_tokens
    }

    /// Of choice 0.
    pub fn reply(&self) -> &[TokenId] {
        &self.tokens[0]
    }

    fn take(&mut self, item: Item) {
        assert!(self.end.is_none(), "nothing comes after the end");
        match item {
            Ok(Event::Admitted(admitted)) => {
                assert!(self.prefilled.is_empty());
                assert!(self.tokens.is_empty());
                assert_eq!(self.admitted.replace(admitted), None);
            }
            Ok(Event::Prefilled { tokens }) => self.prefilled.push(tokens),
            Ok(Event::Text(delta)) => {
                let choices = self.tokens.len().max(delta.choice + 1);
                self.tokens.resize(choices, Vec::new());
                self.texts.resize(choices, String::new());
                self.texts[delta.choice] += &delta.text;
                self.tokens[delta.choice].extend(delta.logprobs.iter().map(|one| one.token));
            }
            Ok(Event::Finished(outcome)) => {
                for (index, choice) in outcome.choices.iter().enumerate() {
                    let text = self.texts.get(index).map_or("", String::as_str);
                    assert_eq!(choice.text, text, "of choice {index}");
                }
                self.end = Some(Ok(outcome));
            }
            Err(error) => self.end = Some(Err(error)),
        }
    }
}

/// Reads a stream to its end.
pub fn read(stream: &mut Stream) -> Answer {
    let mut answer = Answer::default();
    while let Some(item) = stream.blocking_next() {
        answer.take(item);
    }
    answer
}

/// What a request gives that has a model for itself.
pub fn alone(prompt: &[TokenId], sampling: &Sampling, count: usize) -> Vec<TokenId> {
    let blocks: Vec<BlockId> =
        (0..CONTEXT_TOKENS.div_ceil(BLOCK_TOKENS) as u32).map(BlockId).collect();
    let mut fake = Fake::new(FakeConfig {
        vocabulary: VOCABULARY,
        context_tokens: CONTEXT_TOKENS,
        pool_blocks: blocks.len(),
        memory: Memory::Tokens,
    });
    let mut tokens = prompt.to_vec();
    let mut start = 0;
    while tokens.len() < prompt.len() + count {
        let row = Row { tokens: &tokens[start..], start, blocks: &blocks, logits: Wanted::Last };
        let logits = fake.step(&Batch { rows: vec![row] }).unwrap();
        start = tokens.len();
        let history = History { tokens: &tokens, prompt_tokens: prompt.len(), allowed: None };
        let draw = (tokens.len() - prompt.len()) as u64;
        tokens.push(sample(logits[0].last(), sampling, history, draw).unwrap());
    }
    tokens.split_off(prompt.len())
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}
