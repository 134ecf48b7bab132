//! What an agent's memory is worth: the time to the first token of a turn of 16 tokens, after a
//! conversation that has to be computed, is in the pool, on disk, or on disk with the process new.
//!
//! The clock runs from the request to the first token; the engine is ready. At 1 GB/s the 25 MB of
//! a conversation of 2,048 tokens are back in 25 ms. That, and 5 ms, is the most that a new process
//! may take above what the same turn takes with the conversation in the pool.

use super::child::{Answer, Answered, Found, Task, unix_s};
use super::figure::Figure;
use super::live::{Live, Start, request};
use super::peer_server::{PeerServer, SlotRestored};
use super::report::{Cell, Row, Section};
use super::rounds::load_note;
use super::scratch::{Scratch, drop_from_page_cache};
use super::setup::{Setup, blocks};
use super::text;
use crate::cli::output::Failure;
use crate::engine::{Keeping, Request};
use crate::types::{AgentId, Namespace, TokenId};

pub const NAME: &str = "restore";
/// Of the turn that is answered.
const NEW_TOKENS: usize = 16;
/// Of a long one, such as what a tool found.
const EXTEND_TOKENS: usize = 128;
/// The promise: what is stored is brought back as fast as this, and a little more.
const RESTORE_BYTES_PER_S: f64 = 1e9;
const RESTORE_SLACK_MS: f64 = 5.0;
/// The promise: of the time that llama.cpp's server takes.
const OF_PEER_MAX: f64 = 0.5;
/// The stores of the engine that goes on, and of the processes that begin.
const LIVE: &str = "live";
const RESTART: &str = "restart";

/// A conversation that is brought back.
struct Conversation {
    tokens: usize,
    stored_bytes: u64,
    rounds: Vec<Round>,
}

/// What one round gave.
struct Round {
    cold: Found,
    warm: FromPlace,
    hot: FromPlace,
    restart: Found,
    start_ms: f64,
    /// With what the page cache had of the store dropped, where that can be done.
    dropped: Option<Found>,
    peer: Option<SlotRestored>,
}

/// Turns after a conversation in the same place.
struct FromPlace {
    turn: Found,
    /// Nothing is new: the same prompt once more.
    exact: Found,
    /// [`EXTEND_TOKENS`] are new, where context and text have room for them.
    extend: Option<Found>,
}

/// Where a request's conversation is.
#[derive(Clone, Copy)]
enum Place {
    Nowhere,
    Pool,
    Disk,
}

struct Bench<'a> {
    setup: &'a Setup<'a>,
    scratch: &'a Scratch,
    live: Live<'a>,
    tokens: Vec<TokenId>,
    peer: Option<Peer>,
    pool_blocks: usize,
}

struct Peer {
    server: PeerServer,
    tokens: Vec<u32>,
}

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let tokens = text::all_tokens(setup)?;
    let (lengths, mut notes) = fitting(setup, tokens.len());
    let Some(most) = lengths.iter().max() else {
        return Ok(Section { rows: Vec::new(), notes });
    };
    let scratch = Scratch::new(setup)?;
    // A conversation and what goes on from it, and as much again to be had at once.
    let pool_blocks = 2 * blocks(most + EXTEND_TOKENS + 1) + 2;
    let stored = |name: &str| -> Result<Live<'_>, Failure> {
        let live = start(setup, scratch.keeping(setup, name)?, pool_blocks)?;
        for &length in &lengths {
            say(&live, &marked(&tokens[..length], (length, KEPT)))?;
        }
        live.evict_all()?;
        Ok(live)
    };
    let progress = setup.progress(NAME, (setup.sizes.long_runs + 1) * lengths.len() + 2);
    let stored_bytes = {
        let live = stored(RESTART)?;
        drop(live);
        progress.advance(1);
        stored_bytes(&scratch.keeping(setup, RESTART)?, &lengths)?
    };
    let live = stored(LIVE)?;
    progress.advance(1);
    let peer = Peer::start(setup, &scratch, &lengths)?;
    notes.extend(peer.as_ref().map(|peer| peer.server.about().to_owned()));
    let bench = Bench { setup, scratch: &scratch, live, tokens, peer, pool_blocks };
    let mut conversations: Vec<Conversation> = lengths
        .iter()
        .zip(stored_bytes)
        .map(|(&tokens, stored_bytes)| Conversation { tokens, stored_bytes, rounds: Vec::new() })
        .collect();
    for index in 0..=setup.sizes.long_runs {
        for conversation in &mut conversations {
            let round = bench.round(conversation.tokens, index)?;
            progress.advance(1);
            // The first touches the pool's memory and the disk's folders.
            if index > 0 {
                conversation.rounds.push(round);
            }
        }
    }
    notes.extend(load_note(setup.threads()));
    notes.push(format!(
        "after the conversation {NEW_TOKENS} tokens are new; exact: none; extend: {EXTEND_TOKENS}"
    ));
    notes.push("dropped: from the page cache; under a virtual machine the host has its own".into());
    Ok(Section { rows: rows(&conversations), notes })
}

/// The lengths that context and text have room for, and a note for each of the others.
fn fitting(setup: &Setup<'_>, text_tokens: usize) -> (Vec<usize>, Vec<String>) {
    let context = setup.summary.context_tokens;
    let fits = |length: &usize| {
        let all = length + NEW_TOKENS;
        all < context && all <= text_tokens
    };
    let wanted = &setup.sizes.restore_tokens;
    let (fitting, others): (Vec<usize>, Vec<usize>) = wanted.iter().copied().partition(fits);
    let left_out = |length: &usize| {
        format!(
            "{length} tokens: left out, the model's context is {context} and the text has \
             {text_tokens}"
        )
    };
    (fitting, others.iter().map(left_out).collect())
}

fn start<'a>(
    setup: &'a Setup<'_>,
    keeping: Keeping,
    pool_blocks: usize,
) -> Result<Live<'a>, Failure> {
    let start = Start {
        model: setup.model_path.clone(),
        options: setup.options(pool_blocks),
        running_max: 1,
        keeping: Some(keeping),
    };
    Live::begin(start, &setup.interrupt)
}

/// What tells conversations of the same text apart: its length, and the round that begins it, or
/// [`KEPT`].
type Mark = (usize, usize);

/// Of the conversations that are stored.
const KEPT: usize = 0;
/// Ids that every vocabulary has.
const IDS: usize = 64;

/// The same with its first tokens replaced, so that it does not find what others have of the same
/// text, and none that is kept finds a part of what is not. All are of one namespace: where there
/// are several, steps are short.
fn marked(tokens: &[TokenId], (length, round): Mark) -> Vec<TokenId> {
    let first = if round == KEPT { 0 } else { 1 + round % (IDS - 1) };
    let ids = [first, length / IDS % IDS, length % IDS].map(|id| TokenId(id as u32));
    let mut tokens = tokens.to_vec();
    for (token, id) in tokens.iter_mut().zip(ids) {
        *token = id;
    }
    tokens
}

fn agent(length: usize) -> Result<AgentId, Failure> {
    Ok(AgentId::new(&format!("bench-{length}"))?)
}

/// Has the conversation, which is in the pool and in the store then.
fn say(live: &Live<'_>, tokens: &[TokenId]) -> Result<(), Failure> {
    let request = Request { agent: Some(agent(tokens.len())?), ..request(tokens.to_vec(), 1) };
    live.answer(request)?;
    Ok(())
}

/// Of each conversation, manifest and blocks.
fn stored_bytes(keeping: &Keeping, lengths: &[usize]) -> Result<Vec<u64>, Failure> {
    let agents = keeping.store.agents()?;
    let bytes = |&length: &usize| {
        let id = agent(length)?;
        let agent = agents.iter().find(|agent| agent.agent == id);
        Ok(agent.map_or(0, |agent| agent.newest().bytes))
    };
    lengths.iter().map(bytes).collect()
}

impl Bench<'_> {
    fn round(&self, length: usize, index: usize) -> Result<Round, Failure> {
        let cold = self.answer((length, 1 + index), NEW_TOKENS, Place::Nowhere)?;
        let warm = self.turns(length, Place::Disk)?;
        // Of what nothing is kept, nothing stays in the pool either.
        say(&self.live, &marked(&self.tokens[..length], (length, KEPT)))?;
        let hot = self.turns(length, Place::Pool)?;
        self.live.evict_all()?;
        let (restart, start_ms) = self.restart(length)?;
        let dropped = match drop_from_page_cache(&self.scratch.path(RESTART))? {
            true => Some(self.restart(length)?.0),
            false => None,
        };
        let peer = self.peer.as_ref().map(|peer| peer.restore(length)).transpose()?;
        Ok(Round { cold, warm, hot, restart, start_ms, dropped, peer })
    }

    fn turns(&self, length: usize, place: Place) -> Result<FromPlace, Failure> {
        let turn = |new_tokens| self.answer((length, KEPT), new_tokens, place);
        let all = length + EXTEND_TOKENS;
        let fits = all < self.setup.summary.context_tokens && all <= self.tokens.len();
        Ok(FromPlace {
            turn: turn(NEW_TOKENS)?,
            exact: turn(0)?,
            extend: if fits { Some(turn(EXTEND_TOKENS)?) } else { None },
        })
    }

    /// A turn of so many tokens, of which nothing is kept, so that what follows finds what this one
    /// did. Until the first token that makes no difference: a block that is filled is shared later.
    fn answer(&self, mark: Mark, new_tokens: usize, place: Place) -> Result<Found, Failure> {
        let (length, _) = mark;
        let prompt = marked(&self.tokens[..length + new_tokens], mark);
        let request = Request { is_ephemeral: true, ..request(prompt, 1) };
        // Somebody has to compute the logits of the last token.
        let reusable = length.min(length + new_tokens - 1);
        check(Found::of(&self.live.answer(request)?), reusable, place)
    }

    /// The next turn in a new process, and how long that took to be ready.
    fn restart(&self, length: usize) -> Result<(Found, f64), Failure> {
        let setup = self.setup;
        let prompt = marked(&self.tokens[..length + NEW_TOKENS], (length, KEPT));
        let task = Task::Answer(Answer {
            model: setup.model_path.clone(),
            kv: setup.kv.to_string(),
            device: setup.compute.device.to_string(),
            threads: setup.compute.threads,
            pool_blocks: self.pool_blocks,
            store: self.scratch.path(RESTART),
            digests: self.scratch.path("digests"),
            namespace: Namespace::local().as_str().to_owned(),
            prompt: prompt.iter().map(|token| token.0).collect(),
        });
        let started_unix_s = unix_s();
        let answered: Answered = task.run(self.scratch, &setup.interrupt)?;
        let found = check(answered.found, length, Place::Disk)?;
        Ok((found, (answered.ready_unix_s - started_unix_s) * 1e3))
    }
}

/// A figure counts only if the conversation was where it should be.
fn check(found: Found, length: usize, place: Place) -> Result<Found, Failure> {
    let expected = match place {
        Place::Nowhere => (0, 0),
        Place::Pool => (length, 0),
        Place::Disk => (length, length),
    };
    match (found.cached_tokens, found.restored_tokens) == expected {
        true => Ok(found),
        false => Err(anyhow::anyhow!(
            "of {length} tokens {} were there and {} came from the store; expected were {} and {}",
            found.cached_tokens,
            found.restored_tokens,
            expected.0,
            expected.1
        )
        .into()),
    }
}

impl Peer {
    /// Its slots are saved once.
    fn start(
        setup: &Setup<'_>,
        scratch: &Scratch,
        lengths: &[usize],
    ) -> Result<Option<Peer>, Failure> {
        let Some(program) = &setup.peer_server else { return Ok(None) };
        let most = lengths.iter().max().expect("there is one") + NEW_TOKENS;
        let slots = scratch.path("slots");
        let server = program.start(most, setup.threads(), &slots, &setup.interrupt)?;
        let tokens = server.tokens(&text::text(setup)?)?;
        if tokens.len() < most {
            let error = anyhow::anyhow!("the peer makes {} tokens of the text", tokens.len());
            return Err(error.into());
        }
        for &length in lengths {
            setup.interrupt.check()?;
            server.save(&tokens[..length], &slot_file(length))?;
        }
        Ok(Some(Peer { server, tokens }))
    }

    fn restore(&self, length: usize) -> anyhow::Result<SlotRestored> {
        let prompt = &self.tokens[..length + NEW_TOKENS];
        self.server.restore(&slot_file(length), prompt, length)
    }
}

fn slot_file(length: usize) -> String {
    format!("{length}.slot")
}

fn rows(conversations: &[Conversation]) -> Vec<Row> {
    let mut rows: Vec<Row> = conversations.iter().flat_map(ways).collect();
    rows.extend(conversations.iter().map(promise));
    rows.extend(conversations.iter().filter_map(beside_the_peer));
    let starts = conversations.iter().flat_map(|conversation| &conversation.rounds);
    let starts = Figure::new(starts.map(|round| round.start_ms).collect());
    rows.push(Row::new("process start to ready").with("ready_ms", Cell::Figure(starts)));
    rows
}

impl Conversation {
    fn ttft(&self, way: impl Fn(&Round) -> Found) -> Figure {
        self.figure(|round| Some(way(round).ttft_ms)).expect("every round has it")
    }

    /// `None` if no round has it.
    fn figure(&self, value: impl Fn(&Round) -> Option<f64>) -> Option<Figure> {
        let values: Vec<f64> = self.rounds.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| Figure::new(values))
    }
}

/// A row for each place that the conversation may be in.
fn ways(conversation: &Conversation) -> Vec<Row> {
    type Way = fn(&Round) -> Option<Found>;
    let ways: [(&str, Way); 9] = [
        ("cold", |round| Some(round.cold)),
        ("hot", |round| Some(round.hot.turn)),
        ("hot exact", |round| Some(round.hot.exact)),
        ("hot extend", |round| round.hot.extend),
        ("warm", |round| Some(round.warm.turn)),
        ("warm exact", |round| Some(round.warm.exact)),
        ("warm extend", |round| round.warm.extend),
        ("restart", |round| Some(round.restart)),
        ("restart, dropped", |round| round.dropped),
    ];
    let mut rows = Vec::new();
    for (name, way) in ways {
        let ttft = conversation.figure(|round| way(round).map(|found| found.ttft_ms));
        let restore = conversation.figure(|round| way(round).map(|found| found.restore_ms));
        let (Some(ttft), Some(restore)) = (ttft, restore) else { continue };
        let Some(found) = way(&conversation.rounds[0]) else { continue };
        rows.push(
            Row::new(format!("{} tokens, {name}", conversation.tokens))
                .with("ttft_ms", Cell::Figure(ttft))
                .with("reused_tokens", Cell::Count(found.cached_tokens as u64))
                .with("restored_tokens", Cell::Count(found.restored_tokens as u64))
                .with("restore_ms", Cell::Figure(restore)),
        );
    }
    rows
}

fn promise(conversation: &Conversation) -> Row {
    let cold = conversation.ttft(|round| round.cold);
    let hot = conversation.ttft(|round| round.hot.turn);
    let restart = conversation.ttft(|round| round.restart);
    let bytes = conversation.stored_bytes as f64;
    let bound = hot.median() + bytes / RESTORE_BYTES_PER_S * 1e3 + RESTORE_SLACK_MS;
    Row::new(format!("{} tokens", conversation.tokens))
        .with("stored_bytes", Cell::Count(conversation.stored_bytes))
        .with("gb_per_s", Cell::Number(bytes / restart.median() / 1e6, 2))
        .with("restart_ms", Cell::Number(restart.median(), 1))
        .with("at_most_ms", Cell::Number(bound, 1))
        .with("promise", Cell::Verdict(restart.median() <= bound))
        .with("cold_per_restart", Cell::Number(cold.ratio(&restart), 1))
}

fn beside_the_peer(conversation: &Conversation) -> Option<Row> {
    let ttft = conversation.figure(|round| Some(round.peer?.ttft_ms))?;
    let restore = conversation.figure(|round| Some(round.peer?.restore_ms))?;
    let ratio = conversation.ttft(|round| round.restart).ratio(&ttft);
    Some(
        Row::new(format!("{} tokens, llama-server", conversation.tokens))
            .of_peer()
            .with("ttft_ms", Cell::Figure(ttft))
            .with("restore_ms", Cell::Figure(restore))
            .with("restart_ratio", Cell::Number(ratio, 2))
            .with("at_most", Cell::Number(OF_PEER_MAX, 2))
            .with("promise", Cell::Verdict(ratio <= OF_PEER_MAX)),
    )
}
