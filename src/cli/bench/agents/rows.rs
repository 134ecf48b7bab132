//! What the race gave, as rows: each server's, and ours beside the best peer's.

use std::time::Duration;

use super::client::Answered;
use super::plan::Sizes;
use super::race::Runner;
use crate::cli::bench::figure::Figure;
use crate::cli::bench::report::{Cell, Row};

/// What most turns take at most.
const MOST: f64 = 0.95;
/// The targets: of the best peer's time.
const WALL_RATIO_MAX: f64 = 0.5;
const TTFT_RATIO_MAX: f64 = 0.25;

/// The racers, of which ours is the first, beside those that ran undisturbed.
pub fn race(runners: &[Runner<'_>], undisturbed: &[Runner<'_>]) -> Vec<Row> {
    let mut rows = each(runners, row);
    // All runs of a peer are compared with its one undisturbed run.
    for (index, runner) in runners.iter().enumerate() {
        if let Some(whole) = undisturbed.get(index.min(1)) {
            rows.push(differences(runner, whole, index));
        }
    }
    if let Some((ours, peers)) = runners.split_first() {
        rows.extend(beside_the_best(ours, peers));
    }
    rows
}

/// A row of each, ours first.
pub fn each(runners: &[Runner<'_>], row: fn(&Runner<'_>) -> Row) -> Vec<Row> {
    let Some((ours, peers)) = runners.split_first() else { return Vec::new() };
    let theirs = peers.iter().map(|runner| row(runner).of_peer());
    std::iter::once(row(ours)).chain(theirs).collect()
}

pub fn row(runner: &Runner<'_>) -> Row {
    let times = runner.times;
    let ttft = ttft(&runner.turns);
    let all = || runner.first.iter().chain(&runner.turns);
    let computed: usize = all().map(|it| it.prompt_tokens.saturating_sub(it.cached_tokens)).sum();
    let replied: usize = all().map(|it| it.reply_tokens).sum();
    Row::new(runner.name())
        .with("wall_s", seconds(times.wall()))
        .with("first_prompts_s", seconds(times.first_prompts))
        .with("turns_before_s", seconds(times.before))
        .with("restart_s", seconds(times.restart))
        .with("turns_after_s", seconds(times.after))
        .with("first_ttft_ms", Cell::Figure(self::ttft(&runner.first)))
        .with("ttft_p50_ms", Cell::Number(ttft.percentile(0.5), 1))
        .with("ttft_p95_ms", Cell::Number(ttft.percentile(MOST), 1))
        .with("ttft_ms", Cell::Figure(ttft))
        .with("computed_tokens", Cell::Count(computed as u64))
        .with("reply_tokens", Cell::Count(replied as u64))
        .with("disk_bytes", Cell::Count(runner.disk_bytes))
}

/// The answers in their order: what each agent waited for.
pub fn by_turn(runner: &Runner<'_>) -> Row {
    let ttft_ms = runner.turns.iter().map(|answered| answered.ttft.as_secs_f64() * 1e3).collect();
    Row::new(format!("{}, turns", runner.name()))
        .with("ttft_by_turn_ms", Cell::Series(ttft_ms))
        .with("killed_after_turn", Cell::Count((runner.turns.len() / 2) as u64))
}

fn differences(runner: &Runner<'_>, whole: &Runner<'_>, index: usize) -> Row {
    let pairs = runner.turns.iter().zip(&whole.turns);
    let different = pairs.filter(|(one, other)| one.text != other.text).count();
    let row = Row::new(format!("{}, answers", runner.name()))
        .with("answers", Cell::Count(runner.turns.len() as u64))
        .with("different_answers", Cell::Count(different as u64));
    match index {
        0 => row.with("target", Cell::Verdict(different == 0)),
        _ => row.of_peer(),
    }
}

fn beside_the_best(ours: &Runner<'_>, peers: &[Runner<'_>]) -> Option<Row> {
    let most = |runner: &Runner<'_>| ttft(&runner.turns).percentile(MOST);
    let wall = |runner: &Runner<'_>| runner.times.wall().as_secs_f64();
    let best_wall = peers.iter().map(wall).min_by(f64::total_cmp)?;
    let best_ttft = peers.iter().map(most).min_by(f64::total_cmp)?;
    let (wall, ttft) = (wall(ours) / best_wall, most(ours) / best_ttft);
    let holds = wall <= WALL_RATIO_MAX && ttft <= TTFT_RATIO_MAX;
    Some(
        Row::new("semantic / best peer")
            .with("wall_ratio", Cell::Number(wall, 2))
            .with("wall_at_most", Cell::Number(WALL_RATIO_MAX, 2))
            .with("ttft_p95_ratio", Cell::Number(ttft, 2))
            .with("ttft_at_most", Cell::Number(TTFT_RATIO_MAX, 2))
            .with("target", Cell::Verdict(holds)),
    )
}

pub fn mlx_note(sizes: &Sizes, runner: &Runner<'_>) -> String {
    let Sizes { agents, turns, .. } = sizes;
    format!("{agents} agents and {turns} turns of the same; {}", runner.about())
}

pub fn ttft(answers: &[Answered]) -> Figure {
    Figure::new(answers.iter().map(|answered| answered.ttft.as_secs_f64() * 1e3).collect())
}

fn seconds(time: Duration) -> Cell {
    Cell::Number(time.as_secs_f64(), 1)
}
