//! The drawings of a report. Each is made if the rows that it shows are there.

mod batch;
mod compare;
mod kv;
mod latency;
mod race;
pub mod restore;
mod second;
mod speed;
mod staggered;
mod turns;

use super::super::figure::Figure;
use super::super::report::{Cell, Report, Row, Section};
use super::lines::{Lines, Point};
use super::number;
use super::strips::Strips;

pub struct Plot {
    /// What it shows, in a sentence with the figures that count.
    pub finding: String,
    /// What was done, and how to read it.
    pub about: &'static str,
    pub chart: Chart,
}

pub enum Chart {
    Lines(Lines),
    Strips(Strips),
}

/// In the order in which they are shown.
const PLOTS: &[fn(&Report) -> Option<Plot>] = &[
    restore::plot,
    race::plot,
    turns::plot,
    batch::plot,
    second::plot,
    compare::plot,
    speed::plot,
    staggered::plot,
    latency::plot,
    kv::plot,
];

pub fn plots(report: &Report) -> Vec<Plot> {
    PLOTS.iter().filter_map(|plot| plot(report)).collect()
}

/// The rows of a suite; none if it did not run.
fn rows<'a>(report: &'a Report, suite: &str) -> &'a [Row] {
    section(report, suite).map_or(&[], |section| &section.rows)
}

fn section<'a>(report: &'a Report, suite: &str) -> Option<&'a Section> {
    let found = report.suites.iter().find(|found| found.suite == suite)?;
    Some(&found.section)
}

fn figure<'a>(row: &'a Row, field: &str) -> Option<&'a Figure> {
    match row.get(field)? {
        Cell::Figure(figure) => Some(figure),
        _ => None,
    }
}

fn number_in(row: &Row, field: &str) -> Option<f64> {
    row.get(field)?.number().filter(|number| number.is_finite())
}

/// A figure over what it was measured at.
fn point(x: f64, figure: &Figure) -> Point {
    Point { x, y: figure.median(), range: (figure.min(), figure.max()) }
}

fn extremes(figure: &Figure) -> Option<(f64, f64)> {
    Some((figure.min(), figure.max()))
}

/// The number that a row's name begins with: `4096 tokens`, `1 sequence`.
fn leading_number(name: &str) -> Option<f64> {
    name.split_once(' ')?.0.parse().ok()
}

/// A value on an axis.
fn plain(value: f64) -> String {
    number::tick(value)
}

/// A figure as text: `41.2 (39.8–44.1)`.
pub fn spread(figure: &Figure) -> String {
    let [median, min, max] = [figure.median(), figure.min(), figure.max()].map(number::number);
    format!("{median} ({min}–{max})")
}
