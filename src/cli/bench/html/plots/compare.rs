//! Ours beside other servers: the first token of a first and of a second turn.

use super::super::number::duration;
use super::super::scale::Scale;
use super::second::strips;
use super::{Chart, Figure, Plot, Report, Row, figure, rows};

/// How rows of ours end; a row is of a work and a server.
const OURS: &str = ", semantic";

pub fn plot(report: &Report) -> Option<Plot> {
    let rows = rows(report, "compare");
    let pairs: Vec<(&Row, &Figure, &Figure)> = rows
        .iter()
        .filter_map(|row| Some((row, figure(row, "ttft_ms")?, figure(row, "second_ttft_ms")?)))
        .collect();
    let runs = pairs.iter().flat_map(|(_, first, second)| [first.runs(), second.runs()]);
    let scale = Scale::log(runs.flatten().copied())?;
    Some(Plot {
        finding: finding(&pairs)
            .unwrap_or_else(|| "First and second turns, beside other servers".to_owned()),
        about: "The time to the first token of a conversation that begins, and of its second turn, \
                asked of each server in turn. Median of the runs, and their range.",
        chart: Chart::Strips(strips("ms to the first token, log", scale, &pairs)),
    })
}

/// About the longest conversation.
fn finding(pairs: &[(&Row, &Figure, &Figure)]) -> Option<String> {
    let (ours, _, second) = pairs.iter().rfind(|(row, _, _)| row.name.ends_with(OURS))?;
    let work = ours.name.strip_suffix(OURS)?;
    let others = pairs.iter().filter_map(|(row, _, second)| {
        let (other, server) = row.name.split_once(", ")?;
        (other == work && row.name != ours.name).then_some((server, second.median()))
    });
    let (server, best) = others.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
    Some(format!(
        "The second turn of {work} begins after {} here, after {} at {server}",
        duration(second.median()),
        duration(best)
    ))
}
