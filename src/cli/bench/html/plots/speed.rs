//! How fast prompts are read and replies written, beside the peer where there is one.

use super::super::lines::{Axis, Colour};
use super::super::number::{number, times};
use super::super::scale::Scale;
use super::super::strips::{Placed, Sign, Strip, Strips};
use super::{Chart, Figure, Plot, Report, Row, extremes, figure, plain, rows, spread};

const OURS: &str = "tokens_per_s";
const THEIRS: &str = "peer_tokens_per_s";

pub fn plot(report: &Report) -> Option<Plot> {
    let read = rows(report, "prefill").iter().map(|row| (row, format!("read {}", row.name)));
    let written =
        rows(report, "decode").iter().map(|row| (row, format!("write after {}", row.name)));
    let all: Vec<(&Row, String)> = read.chain(written).collect();
    let figures = all.iter().flat_map(|(row, _)| [figure(row, OURS), figure(row, THEIRS)]);
    let scale = Scale::linear(figures.flatten().map(|figure| figure.max()))?;
    let has_peer = all.iter().any(|(row, _)| figure(row, THEIRS).is_some());
    let key = [(Colour::Ours, "semantic"), (Colour::Second, "llama.cpp")];
    let key = key.into_iter().take(if has_peer { 2 } else { 0 });
    Some(Plot {
        finding: finding(rows(report, "prefill"), rows(report, "decode")),
        about: "Prompts from an empty KV cache, and one reply after a context. Median of the runs, \
                and their range.",
        chart: Chart::Strips(Strips {
            axis: Axis { name: "tokens/s".into(), scale, write: plain },
            key: key.map(|(colour, name)| (sign(colour), colour, name.to_owned())).collect(),
            rows: all.iter().filter_map(|(row, name)| strip(row, name)).collect(),
        }),
    })
}

fn sign(colour: Colour) -> Sign {
    if colour == Colour::Ours { Sign::Dot } else { Sign::Square }
}

fn strip(row: &Row, name: &str) -> Option<Strip> {
    let ours = figure(row, OURS)?;
    let theirs = figure(row, THEIRS);
    let placed = |figure, colour| Placed {
        sign: sign(colour),
        colour,
        value: Figure::median(figure),
        range: extremes(figure),
    };
    let mut values = vec![spread(ours)];
    values.extend(theirs.map(|theirs| format!("llama.cpp {}", spread(theirs))));
    let theirs = theirs.map(|figure| placed(figure, Colour::Second));
    let signs = theirs.into_iter().chain([placed(ours, Colour::Ours)]).collect();
    Some(Strip { name: name.to_owned(), values, signs })
}

fn finding(prefill: &[Row], decode: &[Row]) -> String {
    let fastest = |rows: &[Row]| {
        let medians = rows.iter().filter_map(|row| Some(figure(row, OURS)?.median()));
        medians.max_by(f64::total_cmp)
    };
    let ratios: Vec<f64> = prefill
        .iter()
        .chain(decode)
        .filter_map(|row| Some(figure(row, OURS)?.ratio(figure(row, THEIRS)?)))
        .collect();
    let mut parts = Vec::new();
    if let Some(speed) = fastest(prefill) {
        parts.push(format!("reads up to {} tokens/s", number(speed.round())));
    }
    if let Some(speed) = fastest(decode) {
        parts.push(format!("writes up to {} tokens/s alone", number(speed.round())));
    }
    let least = ratios.iter().copied().min_by(f64::total_cmp);
    let most = ratios.iter().copied().max_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (least, most) {
        parts.push(format!("is {} to {} as fast as llama.cpp", times(least), times(most)));
    }
    match &parts[..] {
        [] => "How fast prompts are read and replies written".to_owned(),
        [part] => format!("semantic {part}"),
        [first @ .., last] => format!("semantic {} and {last}", first.join(", ")),
    }
}
