//! The rows of the comparison: a work and a server each, and how ours stands to it.

use super::endpoint::Endpoint;
use super::measure::{Found, Measured, Turn, Work};
use crate::cli::bench::figure::Figure;
use crate::cli::bench::report::{Cell, Row};

type All = [(Work, Vec<Measured>)];

/// Ours is the first of the servers.
pub fn rows(servers: &[&Endpoint], all: &All) -> Vec<Row> {
    let mut rows = Vec::new();
    for (work, measured) in all {
        for (number, (server, theirs)) in servers.iter().zip(measured).enumerate() {
            let row = Row::new(format!("{}, {}", work.name(), server.name));
            let row = if number == 0 { row } else { row.of_peer() };
            rows.extend(match work {
                Work::Turns { .. } => turns(row, &measured[0], theirs),
                Work::Streams { .. } => speed(row, &measured[0], theirs),
            });
        }
    }
    rows
}

/// What is missing, and why.
pub fn notes(servers: &[&Endpoint], all: &All) -> Vec<String> {
    let mut notes = vec!["ratios: ours to theirs".to_owned()];
    for (number, server) in servers.iter().enumerate() {
        let name = &server.name;
        for (work, measured) in all {
            if let Some(failure) = &measured[number].failure {
                notes.push(format!("{name}, {}: {failure}", work.name()));
            }
        }
        let found = all.iter().flat_map(|(_, measured)| &measured[number].found);
        let mut turns = found.filter_map(Found::turns);
        if turns.any(|(first, _)| first.prompt_tokens.is_none()) {
            notes.push(format!("{name} counts no tokens: an event with text is taken for one"));
        }
    }
    notes
}

fn turns(row: Row, ours: &Measured, theirs: &Measured) -> Option<Row> {
    let first = |found: &Found| found.turns().map(|(first, _)| first.ttft_ms);
    let second = |found: &Found| found.turns().map(|(_, second)| second.ttft_ms);
    let count = |value: fn((&Turn, &Turn)) -> Option<u64>| {
        let counted = theirs.figure(|found| value(found.turns()?).map(|count| count as f64));
        counted.map_or(Cell::Text("not said".into()), |it| Cell::Count(it.median() as u64))
    };
    let (ttft, second_ttft) = (theirs.figure(first)?, theirs.figure(second)?);
    let ratio = ratio(ours.figure(first), &ttft);
    let second_ratio = self::ratio(ours.figure(second), &second_ttft);
    Some(
        row.with("prompt_tokens", count(|(first, _)| first.prompt_tokens))
            .with("ttft_ms", Cell::Figure(ttft))
            .with("ttft_ratio", ratio)
            .with("second_prompt_tokens", count(|(_, second)| second.prompt_tokens))
            .with("second_reused_tokens", count(|(_, second)| second.cached_tokens))
            .with("second_ttft_ms", Cell::Figure(second_ttft))
            .with("second_ttft_ratio", second_ratio),
    )
}

fn speed(row: Row, ours: &Measured, theirs: &Measured) -> Option<Row> {
    let tokens_per_s = theirs.figure(Found::tokens_per_s)?;
    let ratio = ratio(ours.figure(Found::tokens_per_s), &tokens_per_s);
    Some(row.with("tokens_per_s", Cell::Figure(tokens_per_s)).with("ratio", ratio))
}

fn ratio(ours: Option<Figure>, theirs: &Figure) -> Cell {
    ours.map_or(Cell::Text("none of ours".into()), |ours| Cell::Number(ours.ratio(theirs), 2))
}
