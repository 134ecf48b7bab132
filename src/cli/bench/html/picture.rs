//! One drawing of a report as a file, for a README: SVG without script and without anything from
//! elsewhere, in the colours that the reader's screen has, light or dark.

use super::super::report::Report;
use super::drawing::Words;
use super::header;
use super::plots::{Chart, Plot, restore};

const STYLE: &str =
    concat!(include_str!("colours.css"), include_str!("drawing.css"), include_str!("picture.css"));

/// TTFT by the length of the conversation, for each place that it may be in; `None` where the
/// report has no such rows.
pub fn ttft(report: &Report) -> Option<String> {
    let Plot { finding, chart, .. } = restore::plot_places(report)?;
    let lines = match chart {
        Chart::Lines(lines) => lines,
        Chart::Strips(_) => return None,
    };
    let words = Words { title: &finding, about: &header::origin(report) };
    Some(lines.draw_alone(&words, STYLE).finish())
}
