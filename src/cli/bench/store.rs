//! What it costs to keep agents: bytes, time until a turn is safe, others' speed meanwhile, and
//! the start of a store with many of them.
//!
//! Conversations are of real text, as many tokens as the model's context has room for up to the
//! numbers below.

use std::time::Instant;

use super::crowd;
use super::figure::Figure;
use super::live::{Live, Start, Timeline, follow, request};
use super::report::{Cell, Row, Section};
use super::rounds::load_note;
use super::scratch::{self, Scratch};
use super::setup::{Setup, blocks};
use super::text;
use crate::cli::output::Failure;
use crate::engine::{Durability, Error, Event, Keeping, Request};
use crate::store::Store;
use crate::types::{AgentId, BLOCK_TOKENS, Namespace, TokenId};

/// The longest conversation, which is weighed and forked.
const LONG_TOKENS: usize = 8_000;
/// What many agents begin with, and what a turn goes on from.
const PREFIX_TOKENS: usize = 4_000;
/// Agents with the same beginning, and what each has of its own.
const SIBLINGS: usize = 20;
const OWN_TOKENS: usize = 40;
/// A turn: what comes and what is answered.
const TURN_TOKENS: usize = 200;
const NEW_TOKENS: usize = 16;
/// The sequence that others' turns are saved beside.
const BESIDE_PROMPT_TOKENS: usize = 128;
const BESIDE_TOKENS: usize = 320;
/// Another's turn comes each time that it has so many tokens more.
const BESIDE_EVERY: usize = 20;
/// What the others' turns go on from: their last block is nearly full, so that each turn saves as
/// much as a turn can that fills no block.
const OTHERS_TOKENS: usize = 3 * BLOCK_TOKENS + 220;
const OTHERS_REPLY_TOKENS: usize = 8;

/// The promises.
const SIBLINGS_RATIO_MAX: f64 = 1.02;
const SLOWDOWN_PERCENT_MAX: f64 = 5.0;
const FORK_MS_MAX: f64 = 10.0;

/// The engine's store.
const AGENTS: &str = "agents";

/// How long the conversations are, in tokens.
#[derive(Clone, Copy)]
struct Sizes {
    long: usize,
    prefix: usize,
    own: usize,
    new: usize,
    turn: usize,
    beside_prompt: usize,
    beside: usize,
    others: usize,
    others_reply: usize,
}

struct Bench<'a> {
    setup: &'a Setup<'a>,
    scratch: &'a Scratch,
    sizes: Sizes,
    tokens: Vec<TokenId>,
    token_bytes: usize,
}

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let tokens = text::all_tokens(setup)?;
    let available = setup.summary.context_tokens.min(tokens.len()).min(setup.sizes.store_tokens);
    let Some(sizes) = Sizes::within(available) else {
        let note = "left out, the model's context or the text is too short".to_owned();
        return Ok(Section { rows: Vec::new(), notes: vec![note] });
    };
    let scratch = Scratch::new(setup)?;
    let runs = setup.sizes.runs;
    let progress = setup.progress("store", 4 + 3 * runs);
    let keeping = scratch.keeping(setup, AGENTS)?;
    let live = start(setup, &sizes, keeping.clone())?;
    let token_bytes = live.spec().token_bytes();
    let bench = Bench { setup, scratch: &scratch, sizes, tokens, token_bytes };
    // First, while nothing else is in the folder.
    let siblings = bench.siblings(&live)?;
    progress.advance(1);
    let weight = bench.weight(&live, &keeping.store)?;
    progress.advance(1);
    let mut rows = vec![weight, siblings];
    rows.push(bench.durable(&live, &keeping.store, &|| progress.advance(1))?);
    rows.push(bench.slowdown(&live, &|| progress.advance(1))?);
    // The store is to be closed before another opens it.
    drop((live, keeping));
    rows.extend(bench.forks()?);
    progress.advance(1);
    rows.extend(crowd::rows(setup, &scratch, &|| progress.advance(1))?);
    let siblings =
        format!("{SIBLINGS} agents: kv_bytes are the shared full blocks and a part block of each");
    let mut notes = vec![siblings, crowd::note()];
    notes.extend(load_note(setup.threads()));
    Ok(Section { rows, notes })
}

impl Sizes {
    /// As long as there is room for; `None` if that is nothing worth measuring.
    fn within(tokens: usize) -> Option<Sizes> {
        // In a small context all is in proportion to it.
        let full = LONG_TOKENS + NEW_TOKENS;
        let scaled = |size: usize| match tokens > full {
            true => size,
            false => (size * tokens / (full + full / 16)).max(1),
        };
        let sizes = Sizes {
            long: scaled(LONG_TOKENS),
            prefix: scaled(PREFIX_TOKENS),
            own: scaled(OWN_TOKENS),
            new: scaled(NEW_TOKENS),
            turn: scaled(TURN_TOKENS),
            beside_prompt: scaled(BESIDE_PROMPT_TOKENS),
            beside: scaled(BESIDE_TOKENS),
            others: scaled(OTHERS_TOKENS),
            others_reply: scaled(OTHERS_REPLY_TOKENS),
        };
        (sizes.turn > sizes.new).then_some(sizes)
    }
}

fn start<'a>(setup: &'a Setup<'_>, sizes: &Sizes, keeping: Keeping) -> Result<Live<'a>, Failure> {
    // The longest conversation, and what the siblings share and have of their own. What has to go
    // is safe by then.
    let pool_blocks = blocks(sizes.long + sizes.turn) + blocks(sizes.prefix) + 3 * SIBLINGS;
    let start = Start {
        model: setup.model_path.clone(),
        options: setup.options(pool_blocks),
        running_max: 2 + BESIDE_TOKENS / BESIDE_EVERY,
        keeping: Some(keeping),
    };
    Live::begin(start, &setup.interrupt)
}

impl Bench<'_> {
    /// Of a long conversation, what a token takes on disk beside what its KV is.
    fn weight(&self, live: &Live<'_>, store: &Store) -> Result<Row, Failure> {
        let tokens = self.sizes.long;
        let agent = AgentId::new("long")?;
        self.turn(live, &agent, self.tokens[..tokens].to_vec(), 1)?;
        let stored = store.agent(&Namespace::local(), &agent)?;
        let bytes = stored.map_or(0, |agent| agent.bytes) as f64 / tokens as f64;
        Ok(Row::new(format!("an agent of {tokens} tokens"))
            .with("bytes_per_token", Cell::Number(bytes, 1))
            .with("kv_bytes_per_token", Cell::Count(self.token_bytes as u64))
            .with("ratio", Cell::Number(bytes / self.token_bytes as f64, 4)))
    }

    /// What agents with the same beginning take on disk.
    fn siblings(&self, live: &Live<'_>) -> Result<Row, Failure> {
        let Sizes { prefix, own, .. } = self.sizes;
        let folder = self.scratch.path(AGENTS);
        let before = scratch::bytes(&folder)?;
        for index in 0..SIBLINGS {
            let agent = AgentId::new(&format!("sibling {index}"))?;
            self.turn(live, &agent, self.branch(prefix, own, index), 1)?;
        }
        live.evict_all()?;
        let bytes = scratch::bytes(&folder)? - before;
        let shared = prefix / BLOCK_TOKENS * BLOCK_TOKENS;
        let least = (shared + SIBLINGS * (prefix - shared + own)) * self.token_bytes;
        let ratio = bytes as f64 / least as f64;
        Ok(Row::new(format!("{SIBLINGS} agents, {prefix} shared tokens, {own} own"))
            .with("disk_bytes", Cell::Count(bytes))
            .with("kv_bytes", Cell::Count(least as u64))
            .with("ratio", Cell::Number(ratio, 4))
            .with("at_most", Cell::Number(SIBLINGS_RATIO_MAX, 2))
            .with("promise", Cell::Verdict(ratio <= SIBLINGS_RATIO_MAX)))
    }

    /// How long after its last token a turn is safe.
    fn durable(&self, live: &Live<'_>, store: &Store, advance: &dyn Fn()) -> Result<Row, Failure> {
        let Sizes { prefix, new, turn, .. } = self.sizes;
        let (mut waits, mut written) = (Vec::new(), Vec::new());
        for index in 0..=self.setup.sizes.runs {
            let agent = AgentId::new(&format!("turn {index}"))?;
            self.turn(live, &agent, self.tokens[..prefix].to_vec(), 1)?;
            // What comes differs, so that what is written has not been written before.
            let prompt = self.branch(prefix, new, SIBLINGS + index);
            let timeline = self.turn(live, &agent, prompt, turn - new)?;
            if index > 0 {
                let last = timeline.texts.last().copied().unwrap_or(timeline.submitted);
                waits.push((timeline.finished - last).as_secs_f64() * 1e3);
                written.push(bytes_of_last_save(store, &agent)? as f64 / 1e6);
                advance();
            }
        }
        Ok(Row::new(format!("a turn of {turn} tokens after {prefix}"))
            .with("durable_after_ms", Cell::Figure(Figure::new(waits)))
            .with("written_mb", Cell::Figure(Figure::new(written))))
    }

    /// What saving others' turns costs a sequence that decodes. The same turns come at the same
    /// tokens of it in both halves of a round; in one of them nothing of them is kept.
    fn slowdown(&self, live: &Live<'_>, advance: &dyn Fn()) -> Result<Row, Failure> {
        let (mut with, mut without, mut slowdowns) = (Vec::new(), Vec::new(), Vec::new());
        // What the turns go on from.
        self.turn(live, &AgentId::new("others")?, self.tokens[..self.sizes.others].to_vec(), 1)?;
        for index in 0..=self.setup.sizes.runs {
            self.setup.interrupt.check()?;
            let measure = |is_saved| live.block_on(self.beside(live, index, is_saved));
            // Neither has the better place in all rounds.
            let (saved, unsaved) = match index % 2 {
                0 => {
                    let saved = measure(true)?;
                    (saved, measure(false)?)
                }
                _ => {
                    let unsaved = measure(false)?;
                    (measure(true)?, unsaved)
                }
            };
            if index > 0 {
                slowdowns.push(100.0 * (saved / unsaved - 1.0));
                with.push(saved);
                without.push(unsaved);
                advance();
            }
        }
        let slowdown = Figure::new(slowdowns);
        let holds = slowdown.median() < SLOWDOWN_PERCENT_MAX;
        Ok(Row::new(format!("decode beside others' turns, one each {BESIDE_EVERY} tokens"))
            .with("ms_per_token", Cell::Figure(Figure::new(with)))
            .with("unsaved_ms_per_token", Cell::Figure(Figure::new(without)))
            .with("slowdown_percent", Cell::Figure(slowdown))
            .with("below", Cell::Number(SLOWDOWN_PERCENT_MAX, 1))
            .with("promise", Cell::Verdict(holds)))
    }

    /// Milliseconds per token of a sequence beside which others take their turns.
    async fn beside(&self, live: &Live<'_>, round: usize, is_saved: bool) -> Result<f64, Error> {
        let Sizes { beside_prompt, beside, others, new, others_reply, .. } = self.sizes;
        let prompt = self.tokens[..beside_prompt].to_vec();
        let (_, mut stream) = live.ask(Request { is_ephemeral: true, ..request(prompt, beside) });
        let mut times: Vec<Instant> = Vec::new();
        let mut turns = Vec::new();
        while let Some(item) = stream.next().await {
            let Event::Text(_) = item? else { continue };
            times.push(Instant::now());
            if times.len().is_multiple_of(BESIDE_EVERY) {
                // No turn is like another, or nothing would have to be written.
                let number = BESIDE_TOKENS * (2 * round + usize::from(is_saved)) + times.len();
                let prompt = self.branch(others, new, number);
                let turn = Request { is_ephemeral: !is_saved, ..request(prompt, others_reply) };
                let (submitted, stream) = live.ask(turn);
                turns.push(tokio::spawn(follow(submitted, stream, |_| ())));
            }
        }
        for turn in turns {
            turn.await.expect("reading does not panic")?;
        }
        let (Some(first), Some(last)) = (times.first(), times.last()) else {
            return Err(Error::Stopped);
        };
        Ok((*last - *first).as_secs_f64() * 1e3 / (times.len() - 1).max(1) as f64)
    }

    /// How long a copy of the long agent takes, in a store that has just been opened and in one
    /// that has made one before.
    fn forks(&self) -> Result<Vec<Row>, Failure> {
        let (mut first, mut next) = (Vec::new(), Vec::new());
        for index in 0..self.setup.sizes.runs {
            self.setup.interrupt.check()?;
            let store = scratch::open(&self.scratch.path(AGENTS))?;
            let fork = |to: String| -> Result<f64, Failure> {
                let (from, to) = (AgentId::new("long")?, AgentId::new(&to)?);
                let started = Instant::now();
                store.fork(&Namespace::local(), &from, &to)?;
                Ok(started.elapsed().as_secs_f64() * 1e3)
            };
            first.push(fork(format!("first {index}"))?);
            next.push(fork(format!("next {index}"))?);
        }
        let row = |name: &str, runs: Vec<f64>| {
            let figure = Figure::new(runs);
            let holds = figure.median() <= FORK_MS_MAX;
            Row::new(format!("fork of {} tokens, {name}", self.sizes.long))
                .with("fork_ms", Cell::Figure(figure))
                .with("at_most_ms", Cell::Number(FORK_MS_MAX, 0))
                .with("promise", Cell::Verdict(holds))
        };
        Ok(vec![row("store just opened", first), row("the next", next)])
    }

    /// The beginning of the text, and then other text for every number.
    fn branch(&self, prefix: usize, tokens: usize, number: usize) -> Vec<TokenId> {
        let (beginning, rest) = self.tokens.split_at(prefix);
        let own = rest.iter().cycle().skip(number % rest.len()).take(tokens);
        beginning.iter().chain(own).copied().collect()
    }

    /// An agent's turn, which is safe at the end.
    fn turn(
        &self,
        live: &Live<'_>,
        agent: &AgentId,
        prompt: Vec<TokenId>,
        reply_tokens: usize,
    ) -> Result<Timeline, Failure> {
        let request = Request { agent: Some(agent.clone()), ..request(prompt, reply_tokens) };
        let timeline = live.answer(request)?;
        match timeline.outcome.durability {
            Durability::Durable(_) => Ok(timeline),
            Durability::NotDurable => Err(anyhow::anyhow!("a turn could not be saved").into()),
        }
    }
}

/// Of the manifest and of the blocks that the save before did not have.
fn bytes_of_last_save(store: &Store, agent: &AgentId) -> Result<u64, Failure> {
    let stored = store.agent(&Namespace::local(), agent)?;
    let saves = stored.map_or(Vec::new(), |agent| agent.saves);
    let Some((last, before)) = saves.split_first() else { return Ok(0) };
    let had = |name| before.iter().flat_map(|save| &save.blocks).any(|block| block.name == name);
    let known = last.blocks.iter().filter(|block| had(block.name));
    Ok(last.bytes - known.map(|block| block.file_bytes).sum::<u64>())
}
