//! What became of the targets and promises: how many hold, and first those that do not.

use super::super::report::{Cell, Report, Row};
use super::markup::Markup;
use super::number::{Heading, heading};
use super::tables::draw_cell;

/// A row that says whether something holds.
struct Verdict<'a> {
    suite: &'a str,
    row: &'a Row,
    holds: bool,
}

/// What the project aims at as a whole; anything else is a promise of one of its parts.
const TARGET: &str = "target";

fn verdicts(report: &Report) -> Vec<Verdict<'_>> {
    let mut found = Vec::new();
    for suite in &report.suites {
        for row in &suite.section.rows {
            let held: Vec<bool> = row.cells.iter().filter_map(|(_, cell)| cell.holds()).collect();
            if !held.is_empty() {
                let holds = held.iter().all(|holds| *holds);
                found.push(Verdict { suite: &suite.suite, row, holds });
            }
        }
    }
    found
}

impl Verdict<'_> {
    fn is_target(&self) -> bool {
        self.row.get(TARGET).is_some()
    }
}

/// In a sentence.
pub fn summary(report: &Report) -> String {
    let verdicts = verdicts(report);
    let (targets, promises): (Vec<_>, Vec<_>) =
        verdicts.iter().partition(|verdict| verdict.is_target());
    let told = |name: &str, verdicts: &[&Verdict<'_>]| {
        let held = verdicts.iter().filter(|verdict| verdict.holds).count();
        match verdicts.len() {
            0 => None,
            all if held == all => Some(format!("all {all} {name}")),
            all => Some(format!("{held} of {all} {name}")),
        }
    };
    let parts: Vec<String> =
        [told("targets", &targets), told("promises", &promises)].into_iter().flatten().collect();
    match parts.is_empty() {
        true => "Nothing was promised of what was measured.".to_owned(),
        false => {
            let text = format!("{} hold.", parts.join(" and "));
            text[..1].to_uppercase() + &text[1..]
        }
    }
}

pub fn draw(report: &Report, main: &mut Markup) {
    let verdicts = verdicts(report);
    let (held, broken): (Vec<_>, Vec<_>) = verdicts.iter().partition(|verdict| verdict.holds);
    if verdicts.is_empty() {
        return;
    }
    main.element("section", &[("aria-labelledby", &"verdicts")], |section| {
        section.words("h2", &[("id", &"verdicts")], "Targets and promises");
        if !broken.is_empty() {
            let count = format!(
                "{} {}",
                broken.len(),
                if broken.len() == 1 { "does not hold" } else { "do not hold" }
            );
            section.words("h3", &[("class", &"bad")], &count);
            section.element("ul", &[("class", &"broken")], |list| {
                for verdict in &broken {
                    list.element("li", &[], |item| draw_broken(verdict, item));
                }
            });
        }
        if !held.is_empty() {
            section.element("details", &[("class", &"held"), ("open", &"open")], |details| {
                let count = match held.len() {
                    1 => "1 holds".to_owned(),
                    count => format!("{count} hold"),
                };
                details.words("summary", &[], &count);
                draw_held(&held, details);
            });
        }
    });
}

/// With its figures: what holds is in the tables, what does not is the first thing to see.
fn draw_broken(verdict: &Verdict<'_>, item: &mut Markup) {
    item.words("b", &[("class", &"bad"), ("aria-hidden", &"true")], "✕");
    item.text(" ");
    item.element("strong", &[], |strong| strong.name(&verdict.row.name));
    item.text(" ");
    item.words("span", &[("class", &"quiet")], verdict.suite);
    item.element("span", &[("class", &"evidence")], |evidence| {
        for (field, cell) in &verdict.row.cells {
            if cell.holds().is_none() && !matches!(cell, Cell::Series(_)) {
                evidence.element("span", &[], |pair| {
                    let Heading { words, unit } = heading(field);
                    pair.words("span", &[("class", &"quiet")], &words);
                    pair.text(" ");
                    draw_cell(cell, pair);
                    pair.text(&unit.map(|unit| format!(" {unit}")).unwrap_or_default());
                });
                evidence.raw(" ");
            }
        }
    });
}

fn draw_held(held: &[&Verdict<'_>], page: &mut Markup) {
    page.element("dl", &[("class", &"held-list")], |list| {
        for of_suite in held.chunk_by(|a, b| a.suite == b.suite) {
            list.element("div", &[], |group| {
                group.words("dt", &[], of_suite[0].suite);
                for verdict in of_suite {
                    group.element("dd", &[], |item| {
                        item.words("span", &[("class", &"good"), ("aria-hidden", &"true")], "✓");
                        item.text(" ");
                        item.name(&verdict.row.name);
                    });
                }
            });
        }
    });
}
