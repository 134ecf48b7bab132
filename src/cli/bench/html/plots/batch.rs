//! Tokens per second by how many requests go on together.

use super::super::lines::{Axis, Colour, Lines, Series, Style};
use super::super::number::{number, times};
use super::super::scale::Scale;
use super::{Chart, Plot, Report, figure, leading_number, plain, point, rows};

pub fn plot(report: &Report) -> Option<Plot> {
    let rows = rows(report, "batch");
    let line = |name: &str, field: &str, colour: Colour| {
        let points: Vec<_> = rows
            .iter()
            .filter_map(|row| Some(point(leading_number(&row.name)?, figure(row, field)?)))
            .collect();
        let style = Style::Marked;
        (!points.is_empty()).then(|| Series { name: name.to_owned(), colour, style, points })
    };
    let ours = line("semantic", "tokens_per_s", Colour::Ours)?;
    let theirs = line("llama.cpp", "peer_tokens_per_s", Colour::Second);
    let (first, last) = (*ours.points.first()?, *ours.points.last()?);
    let mut finding =
        format!("{} requests together: {} tokens/s", number(last.x), number(last.y.round()));
    if first.x == 1.0 && last.x > 1.0 {
        finding += &format!(", {} as many as one alone", times(last.y / first.y));
    }
    let beside = theirs.as_ref().and_then(|theirs| theirs.points.last().copied());
    if let Some(beside) = beside.filter(|beside| beside.x == last.x) {
        finding += &format!(" and {} as many as llama.cpp", times(last.y / beside.y));
    }
    let series: Vec<Series> = [Some(ours), theirs].into_iter().flatten().collect();
    let points = || series.iter().flat_map(|series| &series.points);
    let x = Scale::chosen(points().map(|point| point.x).collect())?;
    let y = Scale::linear(points().map(|point| point.range.1))?;
    Some(Plot {
        finding,
        about: "All of them decode in the same steps. Median of the runs, and their range.",
        chart: Chart::Lines(Lines {
            x: Axis { name: "requests together, log".into(), scale: x, write: plain },
            y: Axis { name: "tokens/s of all together".into(), scale: y, write: plain },
            series,
            marks: Vec::new(),
        }),
    })
}
