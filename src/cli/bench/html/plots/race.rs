//! The race of the servers: the time that the agents have waited for first tokens, turn by turn.

use super::super::lines::{Axis, Colour, Lines, Mark, Point, Series, Style};
use super::super::number::{duration, times};
use super::super::scale::Scale;
use super::{Cell, Chart, Plot, Report, number_in, plain, rows};

pub const SUITE: &str = "agents";
/// What the name of such a row ends in, after the server's.
const TURNS: &str = ", turns";
const BY_TURN: &str = "ttft_by_turn_ms";
const KILLED_AFTER: &str = "killed_after_turn";

pub fn plot(report: &Report) -> Option<Plot> {
    let rows = rows(report, SUITE);
    let mut series = Vec::new();
    let mut killed = None;
    for row in rows {
        let Some(Cell::Series(ttfts)) = row.get(BY_TURN) else { continue };
        killed = killed.or_else(|| number_in(row, KILLED_AFTER));
        series.push(Series {
            name: row.name.strip_suffix(TURNS).unwrap_or(&row.name).to_owned(),
            colour: Colour::nth(series.len()),
            style: Style::Plain,
            points: waited(ttfts),
        });
    }
    // Of what takes many times as long, there is a part only: it would hide the others.
    let turns = series.first().map_or(0, |ours: &Series| ours.points.len());
    series.retain(|series| series.points.len() == turns);
    let points = || series.iter().flat_map(|series| &series.points);
    let x = Scale::linear(points().map(|point| point.x))?;
    let y = Scale::linear(points().map(|point| point.y))?;
    Some(Plot {
        finding: finding(&series),
        about: "Agents take turns in random order, with memory for a few of them, and the server \
                is killed on the way. All that was waited for first tokens up to a turn; servers \
                that took fewer turns are not drawn.",
        chart: Chart::Lines(Lines {
            x: Axis { name: "turn".into(), scale: x, write: plain },
            y: Axis { name: "s waited for first tokens".into(), scale: y, write: plain },
            series,
            marks: killed.map(|x| Mark { x, text: "kill -9".to_owned() }).into_iter().collect(),
        }),
    })
}

/// In seconds, after each turn; nothing before the first.
fn waited(ttfts_ms: &[f64]) -> Vec<Point> {
    let mut sum = 0.0;
    let after = |(index, ms): (usize, &f64)| {
        sum += ms / 1e3;
        Point::exact(index as f64 + 1.0, sum)
    };
    [Point::exact(0.0, 0.0)].into_iter().chain(ttfts_ms.iter().enumerate().map(after)).collect()
}

/// Ours against the best of those that went as far.
fn finding(series: &[Series]) -> String {
    let [ours, others @ ..] = series else { return String::new() };
    let end = |series: &Series| series.points.last().copied();
    let Some(mine) = end(ours) else { return String::new() };
    let best = others.iter().filter_map(end).min_by(|a, b| a.y.total_cmp(&b.y));
    let waited = duration(mine.y * 1e3);
    match best {
        Some(best) if best.y > mine.y => format!(
            "Over {} turns and a kill, {} lets its agents wait for {waited}; the best peer takes \
             {} as long",
            plain(mine.x),
            ours.name,
            times(best.y / mine.y)
        ),
        Some(best) => format!(
            "Over {} turns and a kill, {} lets its agents wait for {waited}, the best peer for {}",
            plain(mine.x),
            ours.name,
            duration(best.y * 1e3)
        ),
        None => format!("{} turns and a kill: agents wait for {waited}", plain(mine.x)),
    }
}
