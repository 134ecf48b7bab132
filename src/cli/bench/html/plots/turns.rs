//! The race's turns, by how long each waited for its first token: the share of them within a time.

use super::super::lines::{Axis, Colour, Lines, Point, Series, Style};
use super::super::number::duration;
use super::super::scale::Scale;
use super::race::{SUITE, server};
use super::{Chart, Figure, Plot, Report, figure, plain, rows};

/// Fewer make no distribution.
const RUNS_MIN: usize = 3;

pub fn plot(report: &Report) -> Option<Plot> {
    let rows = rows(report, SUITE);
    // Other rows of the suite are about ours alone.
    let of_race = rows.iter().filter(|row| row.get("wall_s").is_some());
    let found = of_race.filter_map(|row| Some((server(&row.name), figure(row, "ttft_ms")?)));
    let found: Vec<(&str, &Figure)> =
        found.filter(|(_, figure)| figure.runs().len() >= RUNS_MIN).collect();
    let x = Scale::log(found.iter().flat_map(|(_, figure)| figure.runs().iter().copied()))?;
    let y = Scale::linear([100.0])?;
    let told = |(name, figure): &(&str, &Figure)| {
        format!("{name} {}", duration(figure.percentile(0.95)))
    };
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
    let told: Vec<String> = found.iter().map(told).collect();
    Some(Plot {
        finding: format!("95 of 100 turns have their first token within: {}", told.join(", ")),
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

/// After each run, ascending, the percent of them that have been.
fn shares(runs: &[f64]) -> Vec<Point> {
    let percent = |index: usize| 100.0 * index as f64 / runs.len() as f64;
    let start = runs.first().map(|first| Point::exact(*first, 0.0));
    let steps = runs.iter().enumerate().map(|(index, run)| Point::exact(*run, percent(index + 1)));
    start.into_iter().chain(steps).collect()
}
