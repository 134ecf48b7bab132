//! How much a run measures: which suites when none is named, and how large their work is.

use serde::Serialize;

use super::up_to;

/// Above any context there is; more is a mistake.
pub const TOKENS_MAX: u64 = 1 << 24;
const SEQUENCES_MAX: u64 = 4096;
/// Three files each.
const AGENTS_MAX: u64 = 1_000_000;
/// More rounds than anyone waits for.
const RUNS_MAX: u64 = 1000;
/// The promises of `server` are about this many.
pub const PERCENT_ALL: u64 = 100;
/// An hour of it would be a soak, which is another test.
const LOAD_SECONDS_MAX: u64 = 86_400;

/// How much there is time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Plan {
    /// A minute: whether all is as it should be.
    Quick,
    /// As long as it takes: figures that one would publish.
    Full,
}

/// Who says which suites run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suites {
    Named,
    OfPlan,
}

/// When a suite runs that nobody named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    /// It says nothing in a few seconds.
    InFull,
    /// It takes what not everybody has: time, or other programs.
    Named,
}

impl When {
    pub fn is_in(self, plan: Plan) -> bool {
        match (self, plan) {
            (When::Always, _) | (When::InFull, Plan::Full) => true,
            (When::InFull, Plan::Quick) | (When::Named, _) => false,
        }
    }
}

/// How large the timed work is; what is not said is as the plan has it.
#[derive(Debug, Default, clap::Args)]
pub struct SizeFlags {
    /// Timed rounds, after one that is not counted [default: 5, quick: 3]
    ///
    /// In a run of all suites `restore` and `staggered` have three.
    #[arg(long, value_name = "N", value_parser = up_to(RUNS_MAX))]
    runs: Option<usize>,
    /// Prompt lengths of `prefill`, in tokens [default: 128,512,2048,4096]
    #[arg(long, value_name = "TOKENS,...", value_delimiter = ',', value_parser = up_to(TOKENS_MAX))]
    prompt_tokens: Vec<usize>,
    /// Tokens in the context before `decode` begins [default: 128,2048]
    #[arg(long, value_name = "TOKENS,...", value_delimiter = ',', value_parser = up_to(TOKENS_MAX))]
    contexts: Vec<usize>,
    /// Tokens that `decode` and `batch` generate per sequence [default: 64]
    #[arg(long, value_name = "TOKENS", value_parser = up_to(TOKENS_MAX))]
    decode_tokens: Option<usize>,
    /// Sequences that `batch` decodes together [default: 1,2,4,8,16]
    #[arg(long, value_name = "COUNT,...", value_delimiter = ',', value_parser = up_to(SEQUENCES_MAX))]
    sequences: Vec<usize>,
    /// Tokens in the context of each sequence before `batch` begins [default: 128]
    #[arg(long, value_name = "TOKENS", value_parser = up_to(TOKENS_MAX))]
    batch_context: Option<usize>,
    /// Tokens of the conversations that `restore` brings back [default: 64,512,1024,2048,4096,8000]
    #[arg(long, value_name = "TOKENS,...", value_delimiter = ',', value_parser = up_to(TOKENS_MAX))]
    restore_tokens: Vec<usize>,
    /// Agents that `store` opens and lists [default: 10000]
    #[arg(long, value_name = "COUNT", value_parser = up_to(AGENTS_MAX))]
    agents: Option<usize>,
    /// How much of their requests `server` and `baselines` send; what `server` promises is about all
    #[arg(long, value_name = "PERCENT", value_parser = up_to(PERCENT_ALL))]
    server_percent: Option<usize>,
    /// How long `server` holds the load of 80 % [default: 300, with all suites 60, quick: 3]
    ///
    /// The growth of memory is judged from 300 seconds on.
    #[arg(long, value_name = "SECONDS", value_parser = up_to(LOAD_SECONDS_MAX))]
    load_seconds: Option<usize>,
}

/// How large the work is that suites do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sizes {
    // A setting of its own in a report.
    #[serde(skip)]
    pub runs: usize,
    /// Timed rounds of the suites of which one takes half a minute.
    pub long_runs: usize,
    pub prompt_tokens: Vec<usize>,
    pub contexts: Vec<usize>,
    pub decode_tokens: usize,
    pub sequences: Vec<usize>,
    pub batch_context: usize,
    pub restore_tokens: Vec<usize>,
    pub agents: usize,
    pub server_percent: usize,
    pub load_seconds: usize,
    /// Conversations of `store` are in proportion to this, up to the longest it has.
    pub store_tokens: usize,
    /// Of the text of `kv-quality`, if there are and the user says nothing else.
    pub quality_tokens: usize,
    /// The same of `fidelity`.
    pub fidelity_tokens: usize,
}

/// Of a run of all suites, which would take too long otherwise: it is to end within 20 minutes on
/// two cores, with the default model.
const ALL_LOAD_SECONDS: usize = 60;
const ALL_LONG_RUNS: usize = 3;

impl Sizes {
    fn of(plan: Plan) -> Sizes {
        let full = Sizes {
            runs: 5,
            long_runs: 5,
            prompt_tokens: vec![128, 512, 2048, 4096],
            contexts: vec![128, 2048],
            decode_tokens: 64,
            sequences: vec![1, 2, 4, 8, 16],
            batch_context: 128,
            restore_tokens: vec![64, 512, 1024, 2048, 4096, 8000],
            agents: 10_000,
            server_percent: PERCENT_ALL as usize,
            load_seconds: 300,
            store_tokens: 16_384,
            // Text that all models we know have the context for.
            quality_tokens: 2048,
            // About half a minute of plain MLX on a CPU, with a model of 135M weights. Too few for
            // what is promised, whose tokens would take minutes.
            fidelity_tokens: 256,
        };
        match plan {
            Plan::Full => full,
            Plan::Quick => Sizes {
                runs: 3,
                long_runs: 3,
                prompt_tokens: vec![128, 512],
                contexts: vec![128],
                decode_tokens: 32,
                sequences: vec![1, 4, 8],
                restore_tokens: vec![512],
                agents: 500,
                server_percent: 5,
                load_seconds: 3,
                store_tokens: 1024,
                quality_tokens: 256,
                fidelity_tokens: 32,
                ..full
            },
        }
    }

    /// Who names suites has the time for them.
    fn of_all(plan: Plan) -> Sizes {
        let named = Sizes::of(plan);
        match plan {
            Plan::Full => {
                Sizes { load_seconds: ALL_LOAD_SECONDS, long_runs: ALL_LONG_RUNS, ..named }
            }
            Plan::Quick => named,
        }
    }

    pub fn new(plan: Plan, suites: Suites, flags: &SizeFlags) -> Sizes {
        let of_plan = match suites {
            Suites::Named => Sizes::of(plan),
            Suites::OfPlan => Sizes::of_all(plan),
        };
        let list = |flag: &[usize], of_plan: Vec<usize>| match flag.is_empty() {
            true => of_plan,
            false => flag.to_vec(),
        };
        Sizes {
            runs: flags.runs.unwrap_or(of_plan.runs),
            long_runs: flags.runs.unwrap_or(of_plan.long_runs),
            prompt_tokens: list(&flags.prompt_tokens, of_plan.prompt_tokens),
            contexts: list(&flags.contexts, of_plan.contexts),
            decode_tokens: flags.decode_tokens.unwrap_or(of_plan.decode_tokens),
            sequences: list(&flags.sequences, of_plan.sequences),
            batch_context: flags.batch_context.unwrap_or(of_plan.batch_context),
            restore_tokens: list(&flags.restore_tokens, of_plan.restore_tokens),
            agents: flags.agents.unwrap_or(of_plan.agents),
            server_percent: flags.server_percent.unwrap_or(of_plan.server_percent),
            load_seconds: flags.load_seconds.unwrap_or(of_plan.load_seconds),
            ..of_plan
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_all_suites_the_long_ones_do_less_unless_a_flag_says_otherwise() {
        let said = |suites, flags: &SizeFlags| {
            let Sizes { runs, long_runs, load_seconds, .. } = Sizes::new(Plan::Full, suites, flags);
            (runs, long_runs, load_seconds)
        };
        let none = SizeFlags::default();
        assert_eq!(said(Suites::OfPlan, &none), (5, 3, 60));
        assert_eq!(said(Suites::Named, &none), (5, 5, 300));
        let flags = SizeFlags { runs: Some(7), load_seconds: Some(9), ..none };
        assert_eq!(said(Suites::OfPlan, &flags), (7, 7, 9));
    }
}
