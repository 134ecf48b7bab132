//! What is worse and what is better than in an older report, if there is one to compare with.

use super::super::changes::{Change, Comparison, Mark};
use super::markup::Markup;
use super::number::{Heading, SPACE, exact, heading, number};

pub fn draw(against: &Comparison, main: &mut Markup) {
    let marked = |mark| -> Vec<&Change> {
        against.changes.iter().filter(|change| change.mark == mark).collect()
    };
    let (worse, better, same) =
        (marked(Mark::Regression), marked(Mark::Improvement), marked(Mark::Same));
    main.element("section", &[("aria-labelledby", &"against")], |section| {
        section.words("h2", &[("id", &"against")], "Against an older report");
        let counts = format!(
            "{} worse, {} better, {} the same, within {} % or the noise of the older runs.",
            worse.len(),
            better.len(),
            same.len(),
            number(against.tolerance_percent)
        );
        section.words("p", &[("class", &"about")], &counts);
        draw_changes("worse", &worse, section);
        draw_changes("better", &better, section);
        let others = [
            ("not the same", &against.differing),
            ("only in the older report", &against.only_old),
            ("only in this one", &against.only_new),
        ];
        section.element("ul", &[("class", &"notes")], |notes| {
            for (what, all) in others.into_iter().filter(|(_, all)| !all.is_empty()) {
                notes.words("li", &[], &format!("{what}: {}", all.join("; ")));
            }
        });
    });
}

fn draw_changes(what: &str, changes: &[&Change], section: &mut Markup) {
    if changes.is_empty() {
        return;
    }
    section.element("details", &[("class", &"held"), ("open", &"open")], |details| {
        details.words("summary", &[], &format!("{} {what}", changes.len()));
        details.element("ul", &[("class", &"changes")], |list| {
            for change in changes {
                list.element("li", &[], |item| draw_change(change, item));
            }
        });
    });
}

fn draw_change(change: &Change, item: &mut Markup) {
    let Heading { words, unit } = heading(&change.field);
    let unit = unit.map(|unit| format!(" {unit}")).unwrap_or_default();
    item.element("span", &[], |what| {
        what.words("span", &[("class", &"quiet")], &change.suite);
        what.text(" ");
        what.name(&change.row);
        what.text(" ");
        what.words("span", &[("class", &"quiet")], &words);
    });
    item.raw(" ");
    item.element("span", &[("class", &"change")], |figures| {
        figures.text(&format!("{} → {}{unit} ", exact(change.old), exact(change.new)));
        draw_mark(change, figures);
    });
}

/// How much there is more or less of it, if that is good or bad.
pub fn draw_mark(change: &Change, page: &mut Markup) {
    let class = match change.mark {
        Mark::Regression => "bad",
        Mark::Improvement => "good",
        Mark::Same => return,
    };
    let percent = change.percent().map_or("changed".to_owned(), |percent| {
        let sign = if percent > 0.0 { "+" } else { "" };
        format!("{sign}{}{SPACE}%", number(percent.round()))
    });
    page.words("b", &[("class", &class)], &percent);
}
