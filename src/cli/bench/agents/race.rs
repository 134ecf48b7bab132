//! The race itself: many agents, memory for three of them, a kill in the middle.
//!
//! All servers run from beginning to end and take turns in blocks, one at work while the others
//! idle, so that a machine that gets slower gets slower for all.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::client::Answered;
use super::plan::{Plan, Sizes};
use crate::cli::bench::progress::Progress;
use crate::cli::output::Failure;

/// Agents whose KV there is memory for.
const ROOM_AGENTS: usize = 3;
/// Turns that a server has before the next one's.
const BLOCK_TURNS: usize = 5;
/// Of the first prompt: the race is about what comes after.
const FIRST_REPLY_TOKENS: usize = 1;

/// A server, and what its client must know of it.
pub trait Contender {
    fn name(&self) -> String;

    /// How it was started.
    fn about(&self) -> String;

    /// Starts it and waits until it is ready.
    fn start(&mut self) -> Result<(), Failure>;

    /// Asks the agent's next, and does what its client does before and after.
    fn ask(
        &mut self,
        agent: usize,
        messages: &[Json],
        reply_tokens: usize,
    ) -> Result<Answered, Failure>;

    /// What it has only in memory is gone.
    fn kill(&mut self) -> Result<(), Failure>;

    fn disk_bytes(&self) -> Result<u64, Failure>;
}

/// How many agents' KV there is memory for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Capped,
    Everybody,
}

impl Room {
    pub fn agents(self, sizes: &Sizes) -> usize {
        match self {
            Room::Capped => ROOM_AGENTS.min(sizes.agents),
            Room::Everybody => sizes.agents,
        }
    }
}

/// A server on its way, and what it gave.
pub struct Runner<'a> {
    contender: Box<dyn Contender + 'a>,
    plan: &'a Plan,
    /// Of each agent.
    conversations: Vec<Vec<Json>>,
    pub times: Times,
    pub first: Vec<Answered>,
    pub turns: Vec<Answered>,
    pub disk_bytes: u64,
}

/// What the parts of the race took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    pub first_prompts: Duration,
    pub before: Duration,
    /// From the kill until it is ready again.
    pub restart: Duration,
    pub after: Duration,
}

impl Times {
    pub fn wall(&self) -> Duration {
        self.first_prompts + self.before + self.restart + self.after
    }
}

/// All of them from beginning to end, killed after half of the turns.
pub fn run<'a>(runners: &mut [Runner<'a>], progress: &Progress) -> Result<(), Failure> {
    let Some(turns) = runners.first().map(|runner| runner.plan.turns.len()) else {
        return Ok(());
    };
    let each = |runners: &mut [Runner<'a>], part: fn(&mut Runner<'a>) -> Result<(), Failure>| {
        runners.iter_mut().try_for_each(|runner| {
            part(runner)?;
            progress.advance(1);
            Ok(())
        })
    };
    each(runners, Runner::begin)?;
    let kill_after = turns / 2;
    for turn in 0..turns {
        if turn == kill_after {
            each(runners, Runner::restart)?;
        }
        let is_last = turn + 1 == turns || turn + 1 == kill_after;
        if is_last || (turn + 1) % BLOCK_TURNS == 0 {
            for runner in &mut *runners {
                runner.turns_until(turn + 1)?;
                progress.advance(1);
            }
        }
    }
    each(runners, Runner::end)
}

/// The steps of [`run`] for each server, at most.
pub fn steps(turns: usize) -> usize {
    turns.div_ceil(BLOCK_TURNS) + 4
}

impl<'a> Runner<'a> {
    pub fn new(contender: Box<dyn Contender + 'a>, plan: &'a Plan) -> Runner<'a> {
        let message = |text: &String| vec![said("system", &plan.system), said("user", text)];
        Runner {
            contender,
            plan,
            conversations: plan.first.iter().map(message).collect(),
            times: Times::default(),
            first: Vec::new(),
            turns: Vec::new(),
            disk_bytes: 0,
        }
    }

    pub fn name(&self) -> String {
        self.contender.name()
    }

    pub fn about(&self) -> String {
        self.contender.about()
    }

    /// From beginning to end without a kill.
    pub fn run_undisturbed(&mut self) -> Result<(), Failure> {
        self.begin()?;
        self.turns_until(self.plan.turns.len())?;
        self.end()
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.contender.start()?;
        let started = Instant::now();
        for agent in 0..self.conversations.len() {
            let answered = self.ask(agent, FIRST_REPLY_TOKENS)?;
            self.first.push(answered);
        }
        self.times.first_prompts = started.elapsed();
        Ok(())
    }

    fn turns_until(&mut self, end: usize) -> Result<(), Failure> {
        let started = Instant::now();
        for index in self.turns.len()..end {
            let turn = &self.plan.turns[index];
            self.conversations[turn.agent].push(said("user", &turn.text));
            let answered = self.ask(turn.agent, self.plan.sizes.reply)?;
            self.turns.push(answered);
        }
        let is_after = self.times.restart > Duration::ZERO;
        let part = if is_after { &mut self.times.after } else { &mut self.times.before };
        *part += started.elapsed();
        Ok(())
    }

    fn ask(&mut self, agent: usize, reply_tokens: usize) -> Result<Answered, Failure> {
        let answered = self.contender.ask(agent, &self.conversations[agent], reply_tokens)?;
        self.conversations[agent].push(said("assistant", &answered.text));
        Ok(answered)
    }

    fn restart(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        self.contender.kill()?;
        self.contender.start()?;
        self.times.restart = started.elapsed();
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.contender.kill()?;
        self.disk_bytes = self.contender.disk_bytes()?;
        Ok(())
    }
}

fn said(role: &str, text: &str) -> Json {
    json!({ "role": role, "content": text })
}
