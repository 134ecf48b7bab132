//! What an agent's first turn costs and its second one, by the length of the first prompt.

use super::super::lines::{Axis, Colour};
use super::super::number::{duration, times};
use super::super::scale::Scale;
use super::super::strips::{Placed, Sign, Strip, Strips};
use super::{Chart, Figure, Plot, Report, Row, extremes, figure, plain, rows, spread};

const FIRST: &str = "first_ttft_ms";
const SECOND: &str = "second_ttft_ms";

pub fn plot(report: &Report) -> Option<Plot> {
    let rows = rows(report, "baselines");
    let pairs: Vec<(&Row, &Figure, &Figure)> = rows
        .iter()
        .filter_map(|row| Some((row, figure(row, FIRST)?, figure(row, SECOND)?)))
        .collect();
    let (_, first, second) = pairs.last()?;
    let scale =
        Scale::linear(pairs.iter().flat_map(|(_, first, second)| [first.max(), second.max()]))?;
    let mut finding = format!(
        "An agent's second turn begins after {}, its first after {}",
        duration(second.median()),
        duration(first.median())
    );
    if first.median() > second.median() {
        finding += &format!(": {} sooner", times(first.ratio(second)));
    }
    Some(Plot {
        finding,
        about: "The time to the first token over HTTP, by the tokens of the first prompt. Median \
                of the conversations, and their range.",
        chart: Chart::Strips(strips("ms to the first token", scale, &pairs)),
    })
}

/// The first and the second turn of each row, over one axis.
pub fn strips(name: &str, scale: Scale, pairs: &[(&Row, &Figure, &Figure)]) -> Strips {
    Strips {
        axis: Axis { name: name.to_owned(), scale, write: plain },
        key: vec![
            (Sign::Square, Colour::Second, "first turn".to_owned()),
            (Sign::Dot, Colour::Ours, "second turn".to_owned()),
        ],
        rows: pairs.iter().map(|(row, first, second)| strip(row, first, second)).collect(),
    }
}

fn strip(row: &Row, first: &Figure, second: &Figure) -> Strip {
    let placed = |sign, colour, figure: &Figure| Placed {
        sign,
        colour,
        value: figure.median(),
        range: extremes(figure),
    };
    Strip {
        name: row.name.clone(),
        values: vec![format!("first {}", spread(first)), format!("second {} ms", spread(second))],
        signs: vec![
            placed(Sign::Square, Colour::Second, first),
            placed(Sign::Dot, Colour::Ours, second),
        ],
    }
}
