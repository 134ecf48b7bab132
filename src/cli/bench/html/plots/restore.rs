//! The time to the first token by the length of the conversation, for each place that it may be in.

use super::super::lines::{Axis, Colour, Lines, Series, Style};
use super::super::number::{duration, number, times};
use super::super::scale::Scale;
use super::{Chart, Plot, Report, Row, figure, leading_number, plain, point, rows};

type Place = (&'static str, Colour, Style);

/// Where the conversation is, and how each is drawn.
const PLACES: &[Place] = &[
    ("cold", Colour::Second, Style::Marked),
    ("restart", Colour::Ours, Style::Marked),
    ("warm", Colour::Fourth, Style::Marked),
    ("hot", Colour::Third, Style::Marked),
];
/// What else was measured beside them.
const OTHERS: &[Place] = &[
    ("warm extend", Colour::Sixth, Style::Dashed),
    ("llama-server", Colour::Fifth, Style::Dashed),
];

/// With a text beside it that explains all of them.
pub fn plot(report: &Report) -> Option<Plot> {
    plot_of(report, &[PLACES, OTHERS].concat())
}

/// The places alone, which a sentence explains.
pub fn plot_places(report: &Report) -> Option<Plot> {
    plot_of(report, PLACES)
}

fn plot_of(report: &Report, places: &[Place]) -> Option<Plot> {
    let rows = rows(report, "restore");
    let series: Vec<Series> = places
        .iter()
        .filter_map(|(name, colour, style)| line(rows, name, *colour, *style))
        .collect();
    let points = || series.iter().flat_map(|series| &series.points);
    let x = Scale::chosen(points().map(|point| point.x).collect())?;
    let y = Scale::log(points().flat_map(|point| [point.range.0, point.y, point.range.1]))?;
    let last = |name: &str| {
        let series = series.iter().find(|series| series.name == name)?;
        series.points.last().copied()
    };
    let (cold, restart) = (last("cold"), last("restart"));
    let finding = match (cold, restart) {
        (Some(cold), Some(restart)) if cold.x == restart.x && cold.y > restart.y => format!(
            "After a restart, an agent of {} tokens answers in {}: {} sooner than when its \
             conversation is computed anew",
            number(restart.x),
            duration(restart.y),
            times(cold.y / restart.y)
        ),
        _ => "The time to the first token by the length of the conversation".to_owned(),
    };
    Some(Plot {
        finding,
        about: "A turn of 16 tokens after a conversation that has to be computed (cold), is in the \
                pool of the running server (hot), on disk (warm), or on disk with the process new \
                (restart); extend is a turn of 128 tokens. Median of the runs, and their range.",
        chart: Chart::Lines(Lines {
            x: Axis { name: "tokens of the conversation, log".into(), scale: x, write: plain },
            y: Axis { name: "ms to the first token, log".into(), scale: y, write: plain },
            series,
            marks: Vec::new(),
        }),
    })
}

fn line(rows: &[Row], place: &str, colour: Colour, style: Style) -> Option<Series> {
    let at = |row: &Row| {
        let (_, found) = row.name.split_once(" tokens, ")?;
        (found == place).then_some(())?;
        Some(point(leading_number(&row.name)?, figure(row, "ttft_ms")?))
    };
    let points: Vec<_> = rows.iter().filter_map(at).collect();
    (!points.is_empty()).then(|| Series { name: place.to_owned(), colour, style, points })
}
