//! How long a server takes to start, to answer and to say that it is well. Half, 95 and 99 of 100
//! answers are there by the three marks.

use super::super::lines::{Axis, Colour};
use super::super::number::{duration, number};
use super::super::scale::Scale;
use super::super::strips::{Placed, Sign, Strip, Strips};
use super::{Chart, Plot, Report, Row, number_in, plain, rows};

const PERCENTILES: &[(&str, Sign)] =
    &[("p50_ms", Sign::Dot), ("p95_ms", Sign::Square), ("p99_ms", Sign::Ring)];
/// Where a row says what its latency must not exceed, and how that is called.
const BOUNDS: &[(&str, &str)] =
    &[("target_ms", "target"), ("p99_at_most", "p99 at most"), ("p95_at_most", "p95 at most")];

pub fn plot(report: &Report) -> Option<Plot> {
    let all = rows(report, "baselines").iter().chain(rows(report, "server"));
    let rows: Vec<&Row> = all.filter(|row| number_in(row, "p99_ms").is_some()).collect();
    let strips: Vec<Strip> = rows.iter().filter_map(|row| strip(row)).collect();
    let values = strips.iter().flat_map(|strip| &strip.signs).map(|placed| placed.value);
    let scale = Scale::log(values)?;
    let key = |sign, colour, text: &str| (sign, colour, text.to_owned());
    Some(Plot {
        finding: finding(&rows),
        about: "The percentiles are of all requests of a row; the bar is what must not be exceeded.",
        chart: Chart::Strips(Strips {
            axis: Axis { name: "ms, log".into(), scale, write: plain },
            key: vec![
                key(Sign::Dot, Colour::Ours, "p50"),
                key(Sign::Square, Colour::Ours, "p95"),
                key(Sign::Ring, Colour::Ours, "p99"),
                key(Sign::Bound, Colour::Second, "allowed"),
            ],
            rows: strips,
        }),
    })
}

fn bound(row: &Row) -> Option<(f64, &'static str)> {
    BOUNDS.iter().find_map(|(field, name)| Some((number_in(row, field)?, *name)))
}

fn strip(row: &Row) -> Option<Strip> {
    let values: Vec<(Sign, f64)> = PERCENTILES
        .iter()
        .filter_map(|(field, sign)| Some((*sign, number_in(row, field)?)))
        .collect();
    let shown: Vec<String> = values.iter().map(|(_, value)| number(*value)).collect();
    let mut texts = vec![format!("{} ms", shown.join(" · "))];
    let (_, first) = *values.first()?;
    let placed = |(sign, value): (Sign, f64)| Placed {
        sign,
        colour: Colour::Ours,
        value,
        range: (sign == Sign::Ring).then_some((first, value)),
    };
    // The last is drawn first: it has the line to the others.
    let mut signs: Vec<Placed> = values.into_iter().rev().map(placed).collect();
    if let Some((bound, name)) = bound(row) {
        texts.push(format!("{name} {}", number(bound)));
        signs.push(Placed { sign: Sign::Bound, colour: Colour::Second, value: bound, range: None });
    }
    Some(Strip { name: row.name.clone(), values: texts, signs })
}

/// About the row that says most: probes while requests generate.
fn finding(rows: &[&Row]) -> String {
    let busy = rows.iter().find(|row| row.name.contains("generate"));
    let health = || rows.iter().find(|row| row.name.contains("health"));
    match (busy, health().and_then(|row| Some((row, number_in(row, "p95_ms")?)))) {
        (Some(row), _) if number_in(row, "p95_ms").is_some() => format!(
            "While requests generate, 95 of 100 health checks are answered within {}",
            duration(number_in(row, "p95_ms").unwrap_or_default())
        ),
        (_, Some((_, p95))) => {
            format!("95 of 100 health checks are answered within {}", duration(p95))
        }
        _ => "How long the server takes to answer".to_owned(),
    }
}
