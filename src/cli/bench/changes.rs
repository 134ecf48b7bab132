//! What changed between two reports, and which of it is a regression. Pure.
//!
//! A figure is worse if its median moved the wrong way by more than the tolerance and lies outside
//! of what the old runs covered: what they covered is noise. Which way is wrong, the unit at the
//! end of its name says; a name without one says how large something was, not how good.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::cell::Cell;
use super::report::{Facts, Report, Row, SuiteReport};

/// Units of what there should be more of, and of what there should be less of.
const MORE: &[&str] = &["_per_s"];
const LESS: &[&str] =
    &["_ms", "_s", "ms_per_token", "_bytes", "_bytes_per_token", "_mb", "_mib", "perplexity"];
/// Also good in the other direction, but not by their unit.
const MORE_BY_NAME: &[&str] =
    &["top1_agreement_percent", "agents_per_gib_of_memory", "agents_per_gib_of_disk"];
/// Bounds, and what is so because the model or another program is: how such names begin, what is
/// in them, and all of them.
const SAID_FIRST: &[&str] = &["peer_", "reference_", "before_", "target_"];
const SAID: &[&str] = &["at_most", "at_least", "file_bytes"];
const SAID_EXACTLY: &[&str] = &["kv_bytes", "kv_bytes_per_token", "bytes_per_token", "serial_ms"];
/// Facts that every run measures anew, or that say which two versions are compared.
const MEASURED_FACTS: &[&str] = &["memory_read_gb_per_s", "semantic", "mlx", "commit"];

/// All that can be said of two reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub tolerance_percent: f64,
    pub changes: Vec<Change>,
    /// Machine, model and settings that are not the same: `settings runs: 5, now 3`.
    pub differing: Vec<String>,
    /// Rows that only one of the two has, as `suite: row`.
    pub only_old: Vec<String>,
    pub only_new: Vec<String>,
}

/// One field of one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub suite: String,
    pub row: String,
    pub field: String,
    /// Medians; of a verdict 1 if it held.
    pub old: f64,
    pub new: f64,
    pub mark: Mark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    Regression,
    Improvement,
    /// Within the tolerance or the noise, or neither good nor bad.
    Same,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
    Neither,
}

impl Change {
    /// Above zero if there is more now; `None` if there was nothing.
    pub fn percent(&self) -> Option<f64> {
        let percent = (self.new / self.old - 1.0) * 100.0;
        percent.is_finite().then_some(percent)
    }

    /// As a cell of a table ends: `! -12 %`.
    pub fn suffix(&self) -> Option<String> {
        let percent = self.percent().map_or(String::new(), |percent| format!(" {percent:+.0} %"));
        match self.mark {
            Mark::Regression => Some(format!(" !{percent}")),
            Mark::Improvement => Some(percent).filter(|text| !text.is_empty()),
            Mark::Same => None,
        }
    }
}

impl Comparison {
    pub fn of(old: &Report, new: &Report, tolerance_percent: f64) -> Comparison {
        let mut comparison = Comparison { tolerance_percent, ..Comparison::default() };
        for (what, old, new) in [
            ("machine", &old.machine, &new.machine),
            ("model", &old.model, &new.model),
            ("settings", &old.settings, &new.settings),
        ] {
            comparison.differing.extend(differing(what, old, new));
        }
        for suite in &new.suites {
            let before = old.suites.iter().find(|other| other.suite == suite.suite);
            comparison.only_new.extend(absent(suite, before));
            let Some(before) = before else { continue };
            comparison.changes.extend(changes(before, suite, tolerance_percent));
        }
        // A suite that did not run now says nothing of the old one.
        for suite in &new.suites {
            let before = old.suites.iter().filter(|other| other.suite == suite.suite);
            comparison.only_old.extend(before.flat_map(|before| absent(before, Some(suite))));
        }
        comparison
    }

    pub fn regressions(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.mark == Mark::Regression)
    }

    pub fn of_suite(&self, suite: &str) -> Vec<Change> {
        self.changes.iter().filter(|change| change.suite == suite).cloned().collect()
    }

    /// Of one field, as the page shows it.
    pub fn change(&self, suite: &str, row: &str, field: &str) -> Option<&Change> {
        let is_it = |change: &&Change| {
            (change.suite.as_str(), change.row.as_str(), change.field.as_str())
                == (suite, row, field)
        };
        self.changes.iter().find(is_it)
    }
}

/// What a suite found against what it found before.
pub fn changes(old: &SuiteReport, new: &SuiteReport, tolerance_percent: f64) -> Vec<Change> {
    let mut changes = Vec::new();
    for row in &new.section.rows {
        let Some(before) = find(old, row) else { continue };
        for (field, cell) in &row.cells {
            let Some(was) = before.get(field) else { continue };
            let Some((old, now)) = number(was).zip(number(cell)) else { continue };
            changes.push(Change {
                suite: new.suite.clone(),
                row: row.name.clone(),
                field: field.clone().into_owned(),
                old,
                new: now,
                mark: match row.is_peers && cell.holds().is_none() {
                    true => Mark::Same,
                    false => mark(field, was, cell, tolerance_percent),
                },
            });
        }
    }
    changes
}

fn find<'a>(suite: &'a SuiteReport, row: &Row) -> Option<&'a Row> {
    suite.section.rows.iter().find(|other| other.name == row.name)
}

fn number(cell: &Cell) -> Option<f64> {
    cell.holds().map(|holds| f64::from(u8::from(holds))).or_else(|| cell.number())
}

fn mark(field: &str, old: &Cell, new: &Cell, tolerance_percent: f64) -> Mark {
    match (old.holds(), new.holds()) {
        (Some(true), Some(false)) => return Mark::Regression,
        (Some(false), Some(true)) => return Mark::Improvement,
        _ => (),
    }
    let (Some(was), Some(is)) = (old.number(), new.number()) else { return Mark::Same };
    let range = match old {
        Cell::Figure(figure) => figure.min()..=figure.max(),
        _ => was..=was,
    };
    let tolerated = was.abs() * tolerance_percent / 100.0;
    // What is no number was a number before, and is worse.
    let is_noise = (is - was).abs() <= tolerated || range.contains(&is) || was.is_nan();
    match (better(field), is > was) {
        (Better::Neither, _) => Mark::Same,
        _ if is_noise => Mark::Same,
        (Better::More, true) | (Better::Less, false) if !is.is_nan() => Mark::Improvement,
        _ => Mark::Regression,
    }
}

fn better(field: &str) -> Better {
    let is_said = SAID_FIRST.iter().any(|part| field.starts_with(part))
        || SAID.iter().any(|part| field.contains(part))
        || SAID_EXACTLY.contains(&field);
    let ends = |units: &[&str]| units.iter().any(|unit| field.ends_with(unit));
    match () {
        () if is_said => Better::Neither,
        () if MORE_BY_NAME.contains(&field) || ends(MORE) => Better::More,
        () if ends(LESS) => Better::Less,
        () => Better::Neither,
    }
}

/// The rows of a suite that the other does not have.
fn absent(suite: &SuiteReport, other: Option<&SuiteReport>) -> Vec<String> {
    let is_absent = |row: &&Row| other.is_none_or(|other| find(other, row).is_none());
    let rows = suite.section.rows.iter().filter(is_absent);
    rows.map(|row| format!("{}: {}", suite.suite, row.name)).collect()
}

fn differing(what: &str, old: &Facts, new: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    for name in names.filter(|name| !MEASURED_FACTS.contains(&name.as_str())) {
        match (old.get(name), new.get(name)) {
            (old, new) if old == new => (),
            (Some(Json::Object(old)), Some(Json::Object(new))) => {
                found.extend(differing(what, old, new));
            }
            (old, new) => found.push(format!("{what} {name}: {}, now {}", said(old), said(new))),
        }
    }
    found
}

fn said(fact: Option<&Json>) -> String {
    match fact {
        Some(Json::String(text)) => text.clone(),
        Some(json) => json.to_string(),
        None => "not said".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::figure::Figure;
    use super::super::report::{SCHEMA, Section};
    use super::*;

    fn report(rows: Vec<Row>) -> Report {
        Report {
            schema: SCHEMA,
            began: String::new(),
            machine: Facts::new(),
            model: Facts::new(),
            settings: Facts::new(),
            peer: None,
            suites: vec![SuiteReport {
                suite: "decode".to_owned(),
                section: Section { rows, notes: Vec::new() },
            }],
            against: None,
        }
    }

    fn marked(field: &'static str, old: Cell, new: Cell) -> Mark {
        let one = |cell| report(vec![Row::new("row").with(field, cell)]);
        let comparison = Comparison::of(&one(old), &one(new), 10.0);
        comparison.changes[0].mark
    }

    fn runs(runs: &[f64]) -> Cell {
        Cell::Figure(Figure::new(runs.to_vec()))
    }

    #[test]
    fn the_unit_says_which_way_is_worse() {
        let (few, many) = (Cell::Number(50.0, 0), Cell::Number(100.0, 0));
        let up = |field| marked(field, few.clone(), many.clone());
        let down = |field| marked(field, many.clone(), few.clone());
        let more = ["tokens_per_s", "top1_agreement_percent", "agents_per_gib_of_disk"];
        for field in more {
            assert_eq!((up(field), down(field)), (Mark::Improvement, Mark::Regression), "{field}");
        }
        let less = ["ttft_ms", "turns_before_s", "rss_growth_bytes", "written_mb", "perplexity"];
        for field in less {
            assert_eq!((up(field), down(field)), (Mark::Regression, Mark::Improvement), "{field}");
        }
        let neither = [
            "peer_tokens_per_s",
            "at_most_ms",
            "target_ms",
            "before_ms",
            "file_bytes",
            "ratio",
            "ok",
            "requests",
        ];
        for field in neither {
            assert_eq!((up(field), down(field)), (Mark::Same, Mark::Same), "{field}");
        }
    }

    #[test]
    fn another_program_is_not_our_fault_but_what_we_promise_beside_it_is() {
        let theirs = |ms: f64, holds| {
            let row = Row::new("llama-server").of_peer();
            report(vec![
                row.with("ttft_ms", Cell::Number(ms, 1)).with("promise", Cell::Verdict(holds)),
            ])
        };
        let comparison = Comparison::of(&theirs(100.0, true), &theirs(200.0, false), 10.0);
        let marks: Vec<Mark> = comparison.changes.iter().map(|change| change.mark).collect();
        assert_eq!(marks, [Mark::Same, Mark::Regression]);
    }

    #[test]
    fn what_the_tolerance_or_the_old_runs_cover_is_the_same() {
        let check = |old: &[f64], new: f64| marked("ttft_ms", runs(old), runs(&[new]));
        assert_eq!(check(&[99.0, 100.0, 101.0], 110.0), Mark::Same);
        assert_eq!(check(&[99.0, 100.0, 101.0], 110.1), Mark::Regression);
        assert_eq!(check(&[99.0, 100.0, 150.0], 149.0), Mark::Same);
        assert_eq!(check(&[99.0, 100.0, 150.0], 151.0), Mark::Regression);
        assert_eq!(check(&[50.0, 100.0, 150.0], 51.0), Mark::Same);
        assert_eq!(check(&[100.0], 80.0), Mark::Improvement);
        assert_eq!(marked("ttft_ms", Cell::Count(0), Cell::Count(1)), Mark::Regression);
        assert_eq!(check(&[100.0], f64::NAN), Mark::Regression);
    }

    #[test]
    fn a_verdict_that_no_longer_holds_is_a_regression() {
        let check = |old, new| marked("target", Cell::Verdict(old), Cell::Verdict(new));
        assert_eq!(check(true, false), Mark::Regression);
        assert_eq!(check(false, true), Mark::Improvement);
        assert_eq!(check(false, false), Mark::Same);
    }

    #[test]
    fn rows_of_one_report_and_facts_that_differ_are_named() {
        let mut old = report(vec![Row::new("both"), Row::new("old")]);
        let mut new = report(vec![Row::new("both"), Row::new("new")]);
        let other = |name: &str| SuiteReport {
            suite: name.to_owned(),
            section: Section { rows: vec![Row::new("row")], notes: Vec::new() },
        };
        old.suites.push(other("not asked for"));
        new.suites.push(other("load"));
        old.settings.insert("runs".to_owned(), 5.into());
        new.settings.insert("runs".to_owned(), 3.into());
        let sizes = |agents: u64| serde_json::json!({ "agents": agents, "contexts": [1] });
        old.settings.insert("sizes".to_owned(), sizes(10));
        new.settings.insert("sizes".to_owned(), sizes(20));
        new.model.insert("file".to_owned(), "x.gguf".into());
        old.machine.insert("memory_read_gb_per_s".to_owned(), 20.into());
        let comparison = Comparison::of(&old, &new, 10.0);
        assert_eq!(comparison.only_old, ["decode: old"]);
        assert_eq!(comparison.only_new, ["decode: new", "load: row"]);
        assert_eq!(
            comparison.differing,
            [
                "model file: not said, now x.gguf",
                "settings runs: 5, now 3",
                "settings agents: 10, now 20"
            ]
        );
    }

    #[test]
    fn a_mark_says_how_much() {
        let change = |old, new, mark| Change {
            suite: String::new(),
            row: String::new(),
            field: String::new(),
            old,
            new,
            mark,
        };
        assert_eq!(change(100.0, 88.0, Mark::Regression).suffix().as_deref(), Some(" ! -12 %"));
        assert_eq!(change(100.0, 125.0, Mark::Improvement).suffix().as_deref(), Some(" +25 %"));
        assert_eq!(change(0.0, 1.0, Mark::Regression).suffix().as_deref(), Some(" !"));
        assert_eq!(change(100.0, 101.0, Mark::Same).suffix(), None);
    }
}
