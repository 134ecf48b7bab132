//! Many agents, more than memory holds: what their turns take, ours beside the peers' servers, and
//! what an agent's memory is worth in a play of five phases and to ten experts who are asked in turn.

mod plan;
mod race;

mod client;
mod process;

mod llama;
mod mlx;
mod ours;

mod kinds;
mod phases;
mod routing;
mod rows;
mod weight;

use super::plan::{Plan as Effort, TOKENS_MAX};
use super::report::Section;
use super::rounds::load_note;
use super::scratch::Scratch;
use super::setup::Setup;
use super::{text, up_to};
use crate::cli::output::Failure;
use crate::text::Tokenizer;
use llama::{Llama, Saving, Terms};
use mlx::Mlx;
pub use mlx::MlxProgram;
use ours::Ours;
use plan::{Pieces, Plan, Sizes};
use race::{Room, Runner};

/// Each is a process's worth of files and memory on the peer's side.
const AGENTS_MAX: u64 = 1_000;
const TURNS_MAX: u64 = 100_000;
/// Of an agent's beginning, what all agents share: one in so many tokens.
const SHARED_PART: usize = 4;
/// What comes with a turn, and what is answered, in tokens.
const NEW_TOKENS: usize = 100;
const REPLY_TOKENS: usize = 64;
/// mlx-lm takes ten times as long on a CPU.
const MLX_AGENTS_MAX: usize = 2;
const MLX_TURNS_MAX: usize = 4;

#[derive(Debug, clap::Args)]
pub struct AgentsFlags {
    /// Agents in the race of `agents`; there is memory for three [default: 10, quick: 4]
    #[arg(long, value_name = "COUNT", value_parser = up_to(AGENTS_MAX))]
    race_agents: Option<usize>,
    /// What each begins with, in tokens; a quarter is the same for all [default: 4000, quick: 500]
    #[arg(long, value_name = "TOKENS", value_parser = up_to(TOKENS_MAX))]
    race_context: Option<usize>,
    /// Turns of the race; after half of them the server is killed [default: 60, quick: 8]
    #[arg(long, value_name = "COUNT", value_parser = up_to(TURNS_MAX))]
    race_turns: Option<usize>,
}

impl AgentsFlags {
    /// Before the model's context makes them smaller.
    pub fn sizes(&self, effort: Effort) -> Sizes {
        let (agents, context, turns) = match effort {
            Effort::Full => (10, 4_000, 60),
            Effort::Quick => (4, 500, 8),
        };
        let context = self.race_context.unwrap_or(context);
        Sizes {
            agents: self.race_agents.unwrap_or(agents),
            context,
            shared: context / SHARED_PART,
            turns: self.race_turns.unwrap_or(turns),
            new: NEW_TOKENS,
            reply: REPLY_TOKENS,
        }
    }
}

/// What all parts need.
struct Bench<'a> {
    setup: &'a Setup<'a>,
    scratch: Scratch,
    sizes: Sizes,
    plan: Plan,
}

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let wanted = setup.arguments.agents.sizes(setup.plan);
    let Some(sizes) = wanted.within(setup.summary.context_tokens) else {
        let note = format!("left out, the model's context is {}", setup.summary.context_tokens);
        return Ok(Section { rows: Vec::new(), notes: vec![note] });
    };
    let tokenizer = Tokenizer::new(&setup.files.text()?)?;
    let pieces = Pieces { text: &text::all_tokens(setup)?, tokenizer: &tokenizer };
    let plan = Plan::new(sizes, &pieces);
    let bench = Bench { setup, scratch: Scratch::new(setup)?, sizes, plan };
    let mut section = bench.race()?;
    section.rows.extend(weight::rows(setup, &bench.scratch, sizes.context)?);
    section.rows.extend(phases::rows(setup, &bench.scratch, &sizes, &pieces)?);
    section.rows.extend(routing::rows(setup, &bench.scratch, &sizes, &pieces)?);
    section.notes.extend(load_note(setup.threads()));
    Ok(section)
}

impl Bench<'_> {
    fn race(&self) -> Result<Section, Failure> {
        let mut runners = vec![self.ours(Room::Capped)?];
        for saving in [Saving::Turn, Saving::Switch] {
            runners.extend(self.llama(Room::Capped, saving)?);
        }
        let mut again = vec![self.ours(Room::Everybody)?];
        again.extend(self.llama(Room::Everybody, Saving::Turn)?);
        let steps = race::steps(self.sizes.turns) * runners.len() + again.len() + 1;
        let progress = self.setup.progress("agents", steps);
        race::run(&mut runners, &progress)?;
        for runner in &mut again {
            runner.run_undisturbed()?;
            progress.advance(1);
        }
        let mut notes = self.notes(&runners);
        let mut rows = rows::race(&runners, &again);
        let mut by_turn = rows::each(&runners, rows::by_turn);
        if let Some(mlx) = &self.setup.peer_mlx {
            let plan = self.plan.first(MLX_AGENTS_MAX, MLX_TURNS_MAX);
            let mlx = Mlx::new(self.setup, &self.scratch, mlx, &plan.sizes)?;
            let mut runners = [Runner::new(Box::new(mlx), &plan)];
            race::run(&mut runners, &progress)?;
            notes.push(rows::mlx_note(&plan.sizes, &runners[0]));
            rows.extend(runners.iter().map(|runner| rows::row(runner).of_peer()));
            by_turn.extend(runners.iter().map(|runner| rows::by_turn(runner).of_peer()));
        }
        rows.extend(by_turn);
        Ok(Section { rows, notes })
    }

    fn ours(&self, room: Room) -> Result<Runner<'_>, Failure> {
        let pool_mb = Ours::pool_mb(self.setup, &self.sizes, room)?;
        let ours = Ours::new(self.setup, &self.scratch, &format!("ours-{room:?}"), pool_mb);
        Ok(Runner::new(Box::new(ours), &self.plan))
    }

    /// `None` if there is no such peer.
    fn llama(&self, room: Room, saving: Saving) -> Result<Option<Runner<'_>>, Failure> {
        let Some(program) = &self.setup.peer_server else { return Ok(None) };
        let terms = Terms { sizes: &self.sizes, room, saving };
        let llama = Llama::new(self.setup, &self.scratch, program, terms)?;
        Ok(Some(Runner::new(Box::new(llama), &self.plan)))
    }

    fn notes(&self, runners: &[Runner<'_>]) -> Vec<String> {
        let Sizes { agents, context, shared, turns, new, reply } = self.sizes;
        let mut notes = vec![
            format!(
                "{agents} agents of {context} tokens, {shared} of them shared; {turns} turns of \
                 {new} new tokens and {reply} of reply in random order; KV memory for {} agents; \
                 kill -9 after turn {}",
                Room::Capped.agents(&self.sizes),
                turns / 2
            ),
            "one server at work while the others idle, in blocks of turns; the wall time is the \
             time at work, restart included; times are the client's"
                .to_owned(),
            "different_answers: than the same server without a kill, with memory for all agents"
                .to_owned(),
        ];
        notes.extend(runners.iter().map(Runner::about));
        notes
    }
}
