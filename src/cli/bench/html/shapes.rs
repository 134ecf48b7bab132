//! Lines and words of a drawing. Places are in pixels, or in percent as text.

use std::fmt::Display;

use super::markup::Markup;

/// A straight line; the class says what it stands for.
pub fn line<X: Display, Y: Display>(
    svg: &mut Markup,
    class: &'static str,
    (x1, y1): (X, Y),
    (x2, y2): (X, Y),
) {
    svg.empty("line", &[("class", &class), ("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2)]);
}

/// Which part of the words stands at their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// Words on one line, above the place that they are at.
pub fn words<X: Display>(
    svg: &mut Markup,
    class: &'static str,
    anchor: Anchor,
    (x, y): (X, f64),
    text: &str,
) {
    let anchor = match anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    svg.words("text", &[("class", &class), ("x", &x), ("y", &y), ("text-anchor", &anchor)], text);
}

/// A tenth of a pixel is as exact as a drawing needs to be.
pub fn px(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

pub fn percent(value: f64) -> String {
    format!("{}%", (value * 100.0).round() / 100.0)
}
