//! `semantic bench`: measures a model on this machine, alone or beside llama.cpp.
//!
//! A suite is one file here and one line in [`SUITES`]. Figures are medians of interleaved rounds
//! with their extremes, because machines are shared and drift. Nothing is stored but in folders that
//! are gone at the end.

mod setup;

mod baselines;
mod batch;
mod compare;
mod decode;
mod fidelity;
mod kv_quality;
mod kv_speed;
mod load;
mod prefill;
mod queue;
mod restore;
mod server;
mod staggered;
mod store;

mod child;
mod client;
mod crowd;
mod driver;
mod figure;
mod host;
mod live;
mod machine;
mod make_model;
mod peer;
mod peer_server;
mod process;
mod progress;
mod report;
mod rounds;
mod score;
mod scratch;
mod server_process;
mod talk;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValue, PossibleValuesParser, RangedU64ValueParser};
use serde_json::json;

use super::Context;
use super::compute::ComputeFlags;
use super::interrupt::Interrupt;
use super::model::ModelFlag;
use super::output::{self, Failure};
use report::Section;
use setup::Setup;

/// A kind of measurement.
struct Suite {
    name: &'static str,
    about: &'static str,
    run: fn(&Setup<'_>) -> Result<Section, Failure>,
}

/// In the order in which they run. `load` is first, because it watches the process's peak memory.
const SUITES: &[Suite] = &[
    Suite { name: "load", about: "time and memory to load the model", run: load::run },
    Suite { name: "prefill", about: "tokens/s of prompts from an empty KV", run: prefill::run },
    Suite { name: "decode", about: "tokens/s of one sequence at a context", run: decode::run },
    Suite { name: "batch", about: "tokens/s of several requests together", run: batch::run },
    Suite {
        name: "staggered",
        about: "a request that comes while another runs",
        run: staggered::run,
    },
    Suite { name: "queue", about: "many more requests than run at a time", run: queue::run },
    Suite { name: "restore", about: "the first token of an agent that is back", run: restore::run },
    Suite { name: "store", about: "what saving agents costs, and many of them", run: store::run },
    Suite { name: "server", about: "how the server conducts itself", run: server::run },
    Suite {
        name: "baselines",
        about: "what clients of a server wait for, beside what is aimed at",
        run: baselines::run,
    },
    Suite {
        name: compare::NAME,
        about: "ours beside other servers, those of --url",
        run: compare::run,
    },
    Suite { name: "kv-quality", about: "perplexity by bits of the KV cache", run: kv_quality::run },
    Suite { name: "kv-speed", about: "tokens/s by bits of the KV cache", run: kv_speed::run },
    Suite { name: "fidelity", about: "the kernels against plain MLX", run: fidelity::run },
];

/// More rounds than anyone waits for.
const RUNS_MAX: u64 = 1000;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to measure; may be given several times [default: all but `compare`]
    #[arg(long, value_name = "SUITE", value_parser = suite_names())]
    suite: Vec<String>,
    #[command(flatten)]
    model: ModelFlag,
    #[command(flatten)]
    compute: ComputeFlags,
    /// Timed rounds, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = up_to(RUNS_MAX))]
    runs: usize,
    #[command(flatten)]
    sizes: setup::SizeFlags,
    #[command(flatten)]
    server: server::ServerFlags,
    #[command(flatten)]
    text: text::TextFlags,
    #[command(flatten)]
    peer: peer::PeerFlags,
    #[command(flatten)]
    urls: compare::UrlFlags,
    #[command(flatten)]
    make_model: make_model::MakeModelFlags,
    /// Do the part of a suite that this file describes, in a process of its own
    #[arg(long, value_name = "FILE", hide = true)]
    child: Option<PathBuf>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Say nothing on stderr unless something fails
    #[arg(long, short)]
    quiet: bool,
}

fn suite_names() -> PossibleValuesParser {
    PossibleValuesParser::new(
        SUITES.iter().map(|suite| PossibleValue::new(suite.name).help(suite.about)),
    )
}

/// Numbers from 1 to `most`.
fn up_to(most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most)
}

pub fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::catch()?;
    if let Some(task) = &arguments.child {
        child::run(task, &interrupt)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(shape) = arguments.make_model.shape() {
        make_model::run(shape, &arguments.make_model, &interrupt, arguments.quiet)?;
        return Ok(ExitCode::SUCCESS);
    }
    let setup = Setup::new(arguments, context, interrupt)?;
    if !arguments.json {
        output::data(setup.headline().as_bytes())?;
    }
    let mut sections = Vec::new();
    for suite in SUITES.iter().filter(|suite| is_wanted(suite, arguments)) {
        let section = (suite.run)(&setup)?;
        if !arguments.json {
            output::data(section.table(suite.name).as_bytes())?;
        }
        sections.push(section.json(suite.name));
    }
    if arguments.json {
        let report = json!({
            "machine": setup.machine_json(),
            "model": setup.model_json(),
            "settings": setup.settings_json(),
            "peer": setup.peer.as_ref().map(peer::Peer::json),
            "suites": sections,
        });
        output::data(format!("{report}\n").as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Those that are named, else all; where servers are named, it is they who are asked about.
fn is_wanted(suite: &Suite, arguments: &Arguments) -> bool {
    match arguments.suite.is_empty() {
        true => (suite.name == compare::NAME) == arguments.urls.is_given(),
        false => arguments.suite.iter().any(|name| name == suite.name),
    }
}
