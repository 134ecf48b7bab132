//! A play: a warden and two prisoners who meet in five phases, and an analyst who
//! comes at the end. Once with all caches cleared before each phase, once with what was kept.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::client::Answered;
use super::kinds::Kinds;
use super::ours::Ours;
use super::plan::{Pieces, Sizes};
use super::race::{Contender, Room};
use super::rows::ttft;
use crate::cli::bench::report::{Cell, Row};
use crate::cli::bench::scratch::Scratch;
use crate::cli::bench::setup::Setup;
use crate::cli::output::Failure;

const AGENTS: [&str; 4] = ["bench-warden", "bench-marco", "bench-danny", "bench-analyst"];

struct Phase {
    name: &'static str,
    rounds: usize,
    /// Of [`AGENTS`].
    present: &'static [usize],
}

/// 25 turns.
const PHASES: [Phase; 5] = [
    Phase { name: "Interrogation A", rounds: 3, present: &[0, 1] },
    Phase { name: "Interrogation B", rounds: 3, present: &[0, 2] },
    Phase { name: "The Yard", rounds: 2, present: &[1, 2] },
    Phase { name: "Final Reckoning", rounds: 2, present: &[0, 1, 2] },
    Phase { name: "Verdict", rounds: 1, present: &[1, 2, 3] },
];
/// What an agent is told of itself: so much of a racer's beginning.
const PERSONA_PART: usize = 8;
/// What a turn may add, for the size of the pool: what all others said, and around it.
const TURN_REPLIES: usize = 4;

/// A server, and what its agents have said and heard.
struct Side<'a> {
    server: Ours<'a>,
    agents: Vec<Agent>,
    answers: Vec<Answered>,
    kinds: Kinds,
    /// At work.
    time: Duration,
}

struct Agent {
    id: &'static str,
    messages: Vec<Json>,
    /// What others said since it spoke.
    heard: String,
    tokens: usize,
}

pub fn rows(
    setup: &Setup<'_>,
    scratch: &Scratch,
    sizes: &Sizes,
    pieces: &Pieces<'_>,
) -> Result<Vec<Row>, Failure> {
    let reply = sizes.reply;
    let persona = (sizes.context / PERSONA_PART).max(1);
    let turns: usize = PHASES.iter().map(|phase| phase.rounds).sum();
    if persona + turns * TURN_REPLIES * reply > setup.summary.context_tokens {
        return Ok(Vec::new());
    }
    let room = Sizes { agents: AGENTS.len(), ..*sizes };
    let pool_mb = Ours::pool_mb(setup, &room, Room::Everybody)?;
    let side = |name| Side::start(Ours::new(setup, scratch, name, pool_mb), pieces, persona);
    let (mut cold, mut kept) = (side("phases-cold")?, side("phases-kept")?);
    let progress = setup.progress("agents, five phases", PHASES.len());
    let mut rows = Vec::new();
    for (index, phase) in PHASES.iter().enumerate() {
        cold.forget()?;
        let first = kept.answers.len();
        kept.kinds = Kinds::default();
        for _ in 0..phase.rounds {
            for &agent in phase.present {
                cold.turn(phase, agent, reply)?;
                kept.turn(phase, agent, reply)?;
            }
        }
        let (cold, persistent) = (ttft(&cold.answers[first..]), ttft(&kept.answers[first..]));
        let row = Row::new(format!("phase {}, {}", index + 1, phase.name))
            .with("ratio", Cell::Number(cold.ratio(&persistent), 2))
            .with("cold_ttft_ms", Cell::Figure(cold))
            .with("persistent_ttft_ms", Cell::Figure(persistent));
        rows.push(kept.kinds.on(row));
        progress.advance(1);
    }
    rows.push(both(&cold, &kept));
    Ok(rows)
}

fn both(cold: &Side<'_>, kept: &Side<'_>) -> Row {
    let (cold_s, persistent_s) = (cold.time.as_secs_f64(), kept.time.as_secs_f64());
    let pairs = cold.answers.iter().zip(&kept.answers);
    let different = pairs.filter(|(cold, kept)| cold.text != kept.text).count();
    Row::new(format!("{} phases, {} turns", PHASES.len(), kept.answers.len()))
        .with("cold_wall_s", Cell::Number(cold_s, 1))
        .with("persistent_wall_s", Cell::Number(persistent_s, 1))
        .with("wall_ratio", Cell::Number(cold_s / persistent_s, 2))
        .with("different_answers", Cell::Count(different as u64))
        .with("target", Cell::Verdict(different == 0))
}

impl<'a> Side<'a> {
    fn start(
        mut server: Ours<'a>,
        pieces: &Pieces<'_>,
        persona: usize,
    ) -> Result<Side<'a>, Failure> {
        server.start()?;
        let agents = AGENTS.iter().enumerate().map(|(index, &id)| Agent {
            id,
            messages: vec![json!({ "role": "system", "content": pieces.piece(index, persona) })],
            heard: String::new(),
            tokens: 0,
        });
        Ok(Side {
            server,
            agents: agents.collect(),
            answers: Vec::new(),
            kinds: Kinds::default(),
            time: Duration::ZERO,
        })
    }

    /// Of all agents, what the server keeps.
    fn forget(&mut self) -> Result<(), Failure> {
        for agent in self.agents.iter_mut().filter(|agent| agent.tokens > 0) {
            self.server.forget(agent.id)?;
            agent.tokens = 0;
        }
        Ok(())
    }

    fn turn(&mut self, phase: &Phase, index: usize, reply: usize) -> Result<(), Failure> {
        let started = Instant::now();
        let agent = &mut self.agents[index];
        let heard = format!("{}. {}What do you say?", phase.name, agent.heard);
        agent.heard.clear();
        agent.messages.push(json!({ "role": "user", "content": heard }));
        let answered = self.server.chat(agent.id, &agent.messages, reply)?;
        self.kinds.count(&answered, agent.tokens);
        agent.messages.push(json!({ "role": "assistant", "content": answered.text }));
        agent.tokens = answered.prompt_tokens + answered.reply_tokens;
        let said = format!("{}: {}\n", agent.id, answered.text);
        for &other in phase.present.iter().filter(|other| **other != index) {
            self.agents[other].heard += &said;
        }
        self.answers.push(answered);
        self.time += started.elapsed();
        Ok(())
    }
}
