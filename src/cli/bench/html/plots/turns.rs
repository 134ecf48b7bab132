//! The race's turns, by how long each waited for its first token: the share of them within a time.

use super::super::lines::{Axis, Colour, Lines, Point, Series, Style};
use super::super::number::duration;
use super::super::scale::Scale;
use super::race::SUITE;
use super::{Chart, Figure, Plot, Report, figure, plain, rows};

/// Fewer make no distribution.
const RUNS_MIN: usize = 3;

pub fn plot(report: &Report) -> Option<Plot> {
    let rows = rows(report, SUITE);
    // Other rows of the suite are about ours alone.
    let of_race = rows.iter().filter(|row| row.get("wall_s").is_some());
    let found = of_race.filter_map(|row| Some((row.name.as_str(), figure(row, "ttft_ms")?)));
    let found: Vec<(&str, &Figure)> =
        found.filter(|(_, figure)| figure.runs().len() >= RUNS_MIN).collect();
    let x = Scale::log(found.iter().flat_map(|(_, figure)| figure.runs().iter().copied()))?;
    let y = Scale::linear([100.0])?;
    let series = found
        .iter()
        .enumerate()
        .map(|(index, (name, figure))| Series {
            name: (*name).to_owned(),
            colour: Colour::nth(index),
            style: Style::Steps,
            points: shares(figure.runs()),
        })
        .collect();
    Some(Plot {
        finding: finding(&found),
        about: "The share of a server's turns whose first token came within a time; the further \
                to the left, the better.",
        chart: Chart::Lines(Lines {
            x: Axis { name: "ms to the first token, log".into(), scale: x, write: plain },
            y: Axis { name: "% of the turns".into(), scale: y, write: plain },
            series,
            marks: Vec::new(),
        }),
    })
}

/// Ours against the best of the others.
fn finding(found: &[(&str, &Figure)]) -> String {
    let within = |figure: &Figure| figure.percentile(0.95);
    let [(name, ours), others @ ..] = found else { return String::new() };
    let mut text = format!("95 of 100 turns at {name} begin within {}", duration(within(ours)));
    let best = others.iter().map(|(_, figure)| within(figure)).min_by(f64::total_cmp);
    if let Some(best) = best {
        text += &format!(", at the best peer within {}", duration(best));
    }
    text
}

/// After each run, ascending, the percent of them that have been.
fn shares(runs: &[f64]) -> Vec<Point> {
    let percent = |index: usize| 100.0 * index as f64 / runs.len() as f64;
    let start = runs.first().map(|first| Point::exact(*first, 0.0));
    let steps = runs.iter().enumerate().map(|(index, run)| Point::exact(*run, percent(index + 1)));
    start.into_iter().chain(steps).collect()
}
