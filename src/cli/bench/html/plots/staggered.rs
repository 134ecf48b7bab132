//! What a request that comes while another runs has to wait for.

use super::super::lines::{Axis, Colour};
use super::super::number::{duration, number};
use super::super::scale::Scale;
use super::super::strips::{Placed, Sign, Strip, Strips};
use super::{Chart, Figure, Plot, Report, Row, extremes, figure, number_in, plain, rows, spread};

/// What a row measured, and what it is measured against.
const PAIRS: &[(&str, Option<&str>, &str)] = &[
    ("ttft_ms", Some("alone_ttft_ms"), "to its first token"),
    ("total_ms", Some("serial_ms"), "in all"),
    ("longest_gap_ms", None, "between two tokens at most"),
];

pub fn plot(report: &Report) -> Option<Plot> {
    let rows = rows(report, "staggered");
    let strips: Vec<Strip> = rows.iter().filter_map(strip).collect();
    let values = strips.iter().flat_map(|strip| &strip.signs).flat_map(|placed| {
        let (low, high) = placed.range.unwrap_or((placed.value, placed.value));
        [low, high]
    });
    let scale = Scale::log(values)?;
    Some(Plot {
        finding: finding(rows),
        about: "A short request arrives while a long prompt is read, its clock runs from its own \
                arrival; and a stream is running when a long prompt arrives. Median of the runs, \
                and their range.",
        chart: Chart::Strips(Strips {
            axis: Axis { name: "ms, log".into(), scale, write: plain },
            key: vec![
                (Sign::Dot, Colour::Ours, "together".to_owned()),
                (Sign::Ring, Colour::Second, "alone, or one after the other".to_owned()),
            ],
            rows: strips,
        }),
    })
}

fn strip(row: &Row) -> Option<Strip> {
    let (together, other, what) = PAIRS.iter().find_map(|(field, other, what)| {
        Some((figure(row, field)?, other.and_then(|other| figure(row, other)), what))
    })?;
    let placed = |figure: &Figure, sign, colour| Placed {
        sign,
        colour,
        value: figure.median(),
        range: extremes(figure),
    };
    let mut values = vec![format!("{} ms {what}", spread(together))];
    let mut signs = Vec::new();
    if let (Some(half), Some(most)) = (number_in(row, "p50_ms"), number_in(row, "p99_ms")) {
        values.push(format!("p50 {}, p99 {}", number(half), number(most)));
    }
    if let Some(other) = other {
        values.push(format!("otherwise {}", spread(other)));
        signs.push(placed(other, Sign::Ring, Colour::Second));
    }
    signs.push(placed(together, Sign::Dot, Colour::Ours));
    Some(Strip { name: row.name.clone(), values, signs })
}

fn finding(rows: &[Row]) -> String {
    let beside =
        rows.iter().find_map(|row| Some((figure(row, "ttft_ms")?, figure(row, "alone_ttft_ms")?)));
    let gap = rows.iter().find_map(|row| figure(row, "longest_gap_ms"));
    let mut parts = Vec::new();
    if let Some((beside, alone)) = beside {
        parts.push(format!(
            "A short request that arrives while a long prompt is read begins after {} (alone {})",
            duration(beside.median()),
            duration(alone.median())
        ));
    }
    if let Some(gap) = gap {
        let pause = duration(gap.median());
        parts.push(match parts.is_empty() {
            true => format!("A running stream pauses for {pause} at most"),
            false => format!("a running stream pauses for {pause} at most"),
        });
    }
    match parts.is_empty() {
        true => format!("{} mixed arrivals", number(rows.len() as f64)),
        false => parts.join("; "),
    }
}
