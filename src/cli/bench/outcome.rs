//! What a report comes to: what is worse than in an older one, which targets are missed, and the
//! exit code.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use serde_json::Value as Json;

use super::changes::{Change, Comparison, Mark, changes};
use super::report::{Report, SCHEMA, SuiteReport};
use crate::cli::output::{self, Failure};

/// Above any report there is; more is something else.
const REPORT_BYTES_MAX: u64 = 64 << 20;
/// More says nothing.
const TOLERANCE_PERCENT_MAX: f64 = 1000.0;

/// What makes sense of a report that is there; the other flags say how to measure.
const BESIDE_FROM: &[&str] =
    &["from", "against", "tolerance", "check", "json", "html", "plot", "quiet"];

#[derive(Debug, clap::Args)]
pub struct OutcomeFlags {
    /// Measure nothing: show, compare, check or draw the report in this file
    #[arg(long, value_name = "REPORT.json")]
    from: Option<PathBuf>,
    /// Mark what is worse than in this report, and exit with 1 if anything is
    #[arg(long, value_name = "OLD.json")]
    against: Option<PathBuf>,
    /// How much worse a figure may be, beside the old runs' noise
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0, value_parser = tolerance,
          requires = "against")]
    tolerance: f64,
    /// Exit with 1 if a target is missed; `--check=all` also if a promise is not kept
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true,
          default_missing_value = "targets")]
    check: Option<Check>,
}

/// What `--check` looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Check {
    /// What the project has set itself as targets
    Targets,
    /// Also what it promises of itself, of which some is a matter of how busy the machine is
    All,
}

/// The report that this one is compared with.
pub struct Old {
    path: PathBuf,
    report: Report,
    tolerance_percent: f64,
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=TOLERANCE_PERCENT_MAX).contains(&percent) => Ok(percent),
        Ok(_) => Err(format!("it is not from 0 to {TOLERANCE_PERCENT_MAX}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Refuses flags that `--from` would leave without effect. What variables of the environment say is
/// meant for all commands, so it is no mistake.
pub fn check_flags(bench: &mut Command, flags: &ArgMatches) -> Result<(), clap::Error> {
    let is_typed = |id: &str| flags.value_source(id) == Some(ValueSource::CommandLine);
    if !is_typed("from") {
        return Ok(());
    }
    let is_other = |argument: &&Arg| {
        let id = argument.get_id().as_str();
        !argument.is_global_set() && !BESIDE_FROM.contains(&id) && is_typed(id)
    };
    let other = bench.get_arguments().find(is_other).map(Arg::to_string);
    let Some(flag) = other else { return Ok(()) };
    let message = format!("--from measures nothing, so it cannot be used with '{flag}'");
    Err(bench.error(ErrorKind::ArgumentConflict, message))
}

impl OutcomeFlags {
    pub fn is_from_file(&self) -> bool {
        self.from.is_some()
    }

    /// The report that is there, if nothing is to be measured.
    pub fn report(&self) -> Result<Option<Report>, Failure> {
        self.from.as_deref().map(read).transpose()
    }

    pub fn old(&self) -> Result<Option<Old>, Failure> {
        let Some(path) = &self.against else { return Ok(None) };
        let (path, report) = (path.clone(), read(path)?);
        Ok(Some(Old { path, report, tolerance_percent: self.tolerance }))
    }

    /// 1 if something is worse than it was or not as it should be, each of which is named on stderr.
    pub fn judge(&self, report: &Report, old: Option<&Old>) -> ExitCode {
        let mut problems = Vec::new();
        if let (Some(old), Some(comparison)) = (old, &report.against) {
            problems.extend(old.problem(comparison));
        }
        problems.extend(self.check.and_then(|check| check.problem(report)));
        for problem in &problems {
            output::talk(&format!("error: {problem}"));
        }
        match problems.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }
}

fn read(path: &Path) -> Result<Report, Failure> {
    let read = || -> anyhow::Result<Report> {
        let mut text = String::new();
        File::open(path)?.take(REPORT_BYTES_MAX + 1).read_to_string(&mut text)?;
        ensure!(
            text.len() as u64 <= REPORT_BYTES_MAX,
            "it is larger than {REPORT_BYTES_MAX} bytes"
        );
        // Another schema may look like anything beside this one field.
        let json: Json = serde_json::from_str(&text).context("it is no JSON")?;
        match json.get("schema").and_then(Json::as_u64) {
            Some(schema) if schema == u64::from(SCHEMA) => Ok(serde_json::from_value(json)?),
            Some(schema) => bail!("it has schema {schema}; this program reads {SCHEMA}"),
            None => bail!("it does not say which schema it has"),
        }
    };
    read().map_err(|error| {
        let error = error.context(format!("cannot read the report {}", path.display()));
        Failure::with_hint(error, Some("`semantic bench --json FILE` writes one".to_owned()))
    })
}

impl Old {
    /// Of a suite that has just run.
    pub fn changes(&self, new: &SuiteReport) -> Vec<Change> {
        let old = self.report.suites.iter().find(|old| old.suite == new.suite);
        old.map_or(Vec::new(), |old| changes(old, new, self.tolerance_percent))
    }

    pub fn compare(&self, new: &Report) -> Comparison {
        Comparison::of(&self.report, new, self.tolerance_percent)
    }

    /// What there is to say of a comparison, with an empty line before it.
    pub fn text(&self, comparison: &Comparison) -> String {
        let marked = |mark| comparison.changes.iter().filter(move |change| change.mark == mark);
        let mut text = format!(
            "\nagainst {}, tolerance {} %\n  {} worse, {} better, {} the same\n",
            self.path.display(),
            self.tolerance_percent,
            marked(Mark::Regression).count(),
            marked(Mark::Improvement).count(),
            marked(Mark::Same).count(),
        );
        for (word, mark) in [("worse ", Mark::Regression), ("better", Mark::Improvement)] {
            text +=
                &marked(mark).map(|it| format!("  {word}  {}\n", named(it))).collect::<String>();
        }
        for (what, all) in [
            ("not the same", &comparison.differing),
            ("only in the old report", &comparison.only_old),
            ("only in the new one", &comparison.only_new),
        ] {
            if !all.is_empty() {
                text += &format!("  ({what}: {})\n", all.join("; "));
            }
        }
        text
    }

    fn problem(&self, comparison: &Comparison) -> Option<String> {
        let worse: Vec<String> = comparison.regressions().map(named).collect();
        (!worse.is_empty()).then(|| {
            let (count, path) = (worse.len(), self.path.display());
            format!("{count} worse than in {path}:\n  {}", worse.join("\n  "))
        })
    }
}

fn named(change: &Change) -> String {
    let Change { suite, row, field, old, new, .. } = change;
    let percent = change.percent().map(|percent| format!(" ({percent:+.1} %)"));
    format!("{suite}: {row}: {field} {old:.2}, now {new:.2}{}", percent.unwrap_or_default())
}

impl Check {
    /// A check that found nothing to check has not passed.
    fn problem(self, report: &Report) -> Option<String> {
        let (mut checked, mut missed) = (0, Vec::new());
        for suite in &report.suites {
            for row in &suite.section.rows {
                for (field, cell) in row.cells.iter().filter(|(field, _)| self.covers(field)) {
                    let Some(holds) = cell.holds() else { continue };
                    checked += 1;
                    if !holds {
                        missed.push(format!("{}: {}: {field}", suite.suite, row.name));
                    }
                }
            }
        }
        match (checked, missed.len()) {
            (0, _) => Some("nothing that was measured has a target".to_owned()),
            (_, 0) => None,
            (_, count) => Some(format!("{count} of {checked} missed:\n  {}", missed.join("\n  "))),
        }
    }

    fn covers(self, field: &str) -> bool {
        match self {
            Check::Targets => field == "target",
            Check::All => true,
        }
    }
}
