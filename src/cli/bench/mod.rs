//! `semantic bench`: measures a model on this machine, alone or beside other servers.
//!
//! A suite is one file here and one line in [`SUITES`]. Figures are medians of interleaved rounds
//! with their extremes, because machines are shared and drift. Nothing is stored but in folders that
//! are gone at the end.

mod setup;

mod agents;
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

mod cell;
mod changes;
mod child;
mod client;
mod crowd;
mod destination;
mod driver;
mod figure;
mod host;
mod html;
mod live;
mod machine;
mod make_model;
mod outcome;
mod peer;
mod peer_server;
mod plan;
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

use anyhow::Context as _;
use clap::builder::{PossibleValue, PossibleValuesParser, RangedU64ValueParser};

use super::Context;
use super::compute::ComputeFlags;
use super::interrupt::Interrupt;
use super::model::ModelFlag;
use super::output::{self, Failure};
use destination::Destination;
use outcome::Old;
pub use outcome::check_flags;
use plan::{Plan, Suites, When};
use report::{Report, Section, SuiteReport};
use setup::Setup;

/// A kind of measurement.
struct Suite {
    name: &'static str,
    about: &'static str,
    when: When,
    run: fn(&Setup<'_>) -> Result<Section, Failure>,
}

/// In the order in which they run. `load` is first, because it watches the process's peak memory.
const SUITES: &[Suite] = &[
    Suite {
        name: "load",
        about: "time and memory to load the model",
        when: When::Always,
        run: load::run,
    },
    Suite {
        name: "prefill",
        about: "tokens/s of prompts from an empty KV",
        when: When::Always,
        run: prefill::run,
    },
    Suite {
        name: "decode",
        about: "tokens/s of one sequence at a context",
        when: When::Always,
        run: decode::run,
    },
    Suite {
        name: "batch",
        about: "tokens/s of several requests together",
        when: When::Always,
        run: batch::run,
    },
    Suite {
        name: "staggered",
        about: "a request that comes while another runs",
        when: When::InFull,
        run: staggered::run,
    },
    Suite {
        name: "queue",
        about: "many more requests than run at a time",
        when: When::InFull,
        run: queue::run,
    },
    Suite {
        name: restore::NAME,
        about: "the first token of an agent that is back",
        when: When::Always,
        run: restore::run,
    },
    Suite {
        name: "store",
        about: "what saving agents costs, and many of them",
        when: When::Always,
        run: store::run,
    },
    Suite {
        name: "baselines",
        about: "what clients of a server wait for, beside what is aimed at",
        when: When::Always,
        run: baselines::run,
    },
    Suite {
        name: "agents",
        about: "more agents than memory holds, and a kill",
        when: When::Named,
        run: agents::run,
    },
    Suite {
        name: compare::NAME,
        about: "ours beside other servers, those of --url",
        when: When::Named,
        run: compare::run,
    },
    Suite {
        name: "server",
        about: "how the server conducts itself",
        when: When::InFull,
        run: server::run,
    },
    Suite {
        name: "kv-quality",
        about: "perplexity by bits of the KV cache",
        when: When::InFull,
        run: kv_quality::run,
    },
    Suite {
        name: "kv-speed",
        about: "tokens/s by bits of the KV cache",
        when: When::Named,
        run: kv_speed::run,
    },
    Suite {
        name: "fidelity",
        about: "the kernels against plain MLX",
        when: When::InFull,
        run: fidelity::run,
    },
];

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to measure, repeatable [default: what needs no other programs]
    #[arg(long, value_name = "SUITE", value_parser = suite_names())]
    suite: Vec<String>,
    #[command(flatten)]
    model: ModelFlag,
    #[command(flatten)]
    compute: ComputeFlags,
    /// Take a minute: fewer suites, smaller work
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    sizes: plan::SizeFlags,
    #[command(flatten)]
    agents: agents::AgentsFlags,
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
    /// Write the report as JSON; `-` prints it instead of tables
    #[arg(long, value_name = "FILE")]
    json: Option<Destination>,
    /// Write the report as a page that needs nothing else; `-` prints it
    #[arg(long, value_name = "FILE")]
    html: Option<Destination>,
    /// Draw TTFT by the length of what `restore` brings back, as SVG; `-` prints it
    #[arg(long, value_name = "FILE")]
    plot: Option<Destination>,
    #[command(flatten)]
    outcome: outcome::OutcomeFlags,
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
    arguments.check_destinations()?;
    arguments.check_plot()?;
    let old = arguments.outcome.old()?;
    let (mut report, failure) = match arguments.outcome.report()? {
        Some(report) => (report, None),
        None => measure(&Setup::new(arguments, context, interrupt)?, old.as_ref())?,
    };
    if let Some(old) = &old {
        report.against = Some(old.compare(&report));
    }
    if arguments.outcome.is_from_file() {
        arguments.show(&report.tables())?;
    }
    if let (Some(old), Some(comparison)) = (&old, &report.against) {
        arguments.show(&old.text(comparison))?;
    }
    let written = arguments.write(&report);
    // What went wrong first is what there is to say; a part of a report may have nothing to draw.
    match failure {
        Some(failure) => Err(failure),
        None => written.map(|()| arguments.outcome.judge(&report, old.as_ref())),
    }
}

/// Runs the suites that are wanted. Each one's table is shown when it has run. If one fails, or the
/// user has had enough, there is a report of those before it.
fn measure(setup: &Setup<'_>, old: Option<&Old>) -> Result<(Report, Option<Failure>), Failure> {
    let arguments = setup.arguments;
    arguments.show(&setup.headline())?;
    let wanted: Vec<&Suite> = arguments.suites_wanted().collect();
    let mut suites = Vec::new();
    for (index, suite) in wanted.iter().enumerate() {
        setup.turn.begin(index, wanted.len());
        let section = match (suite.run)(setup) {
            Ok(section) => section,
            Err(failure) if suites.is_empty() => return Err(failure),
            Err(failure) => return Ok((setup.report(suites), Some(failure))),
        };
        let report = SuiteReport { suite: suite.name.to_owned(), section };
        let changes = old.map_or(Vec::new(), |old| old.changes(&report));
        arguments.show(&report.section.table(suite.name, &changes))?;
        setup.turn.end(suite.name, setup.talk());
        suites.push(report);
    }
    Ok((setup.report(suites), None))
}

impl Arguments {
    fn destinations(&self) -> impl Iterator<Item = &Destination> {
        [&self.json, &self.html, &self.plot].into_iter().flatten()
    }

    fn check_destinations(&self) -> Result<(), Failure> {
        let named = [("--json", &self.json), ("--html", &self.html), ("--plot", &self.plot)];
        for (index, (flag, place)) in named.iter().enumerate() {
            let same = |(_, other): &&(_, &Option<_>)| place.is_some() && *other == *place;
            if let Some((other, _)) = named[..index].iter().find(same) {
                return Err(Failure::Usage(format!(
                    "{other} and {flag} cannot go to the same place"
                )));
            }
        }
        self.destinations().try_for_each(Destination::check)
    }

    /// Fails now if there will be nothing to draw, rather than after minutes of measuring.
    fn check_plot(&self) -> Result<(), Failure> {
        let is_measured = self.outcome.is_from_file()
            || self.suites_wanted().any(|suite| suite.name == restore::NAME);
        match (&self.plot, is_measured) {
            (Some(_), false) => Err(Failure::Usage(format!(
                "--plot draws the suite `{}`, which does not run",
                restore::NAME
            ))),
            (Some(_), true) | (None, _) => Ok(()),
        }
    }

    /// Those that are named; else those of the plan, but where servers are named, it is they who are
    /// asked about.
    fn suites_wanted(&self) -> impl Iterator<Item = &'static Suite> {
        SUITES.iter().filter(|suite| match (self.suite.is_empty(), self.urls.is_given()) {
            (true, true) => suite.name == compare::NAME,
            (true, false) => suite.when.is_in(self.plan()),
            (false, _) => self.suite.iter().any(|name| name == suite.name),
        })
    }

    fn suites_said(&self) -> Suites {
        match self.suite.is_empty() {
            true => Suites::OfPlan,
            false => Suites::Named,
        }
    }

    fn plan(&self) -> Plan {
        match self.quick {
            true => Plan::Quick,
            false => Plan::Full,
        }
    }

    /// Tables, unless the report itself is to be printed.
    fn show(&self, text: &str) -> Result<(), Failure> {
        match self.destinations().any(|it| *it == Destination::Stdout) {
            true => Ok(()),
            false => output::data(text.as_bytes()),
        }
    }

    fn write(&self, report: &Report) -> Result<(), Failure> {
        if let Some(json) = &self.json {
            json.write(&format!("{}\n", serde_json::to_string(report)?))?;
        }
        if let Some(html) = &self.html {
            html.write(&html::render(report))?;
        }
        if let Some(plot) = &self.plot {
            let picture = html::ttft(report).with_context(|| {
                format!("the report has no times of suite `{}`, which --plot draws", restore::NAME)
            })?;
            plot.write(&picture)?;
        }
        Ok(())
    }
}
