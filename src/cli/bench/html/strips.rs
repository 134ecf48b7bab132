//! One line per thing that was measured, all over the same axis: marks, ranges, bars, bounds.
//!
//! Places are shares of the width, so one drawing fits every screen, and names and values are
//! text of the page, which breaks where it has to.

use super::lines::{Axis, Colour};
use super::markup::Markup;
use super::shapes::{Anchor, line, percent, words};

/// Pixels of one line; the style sheet has it too.
const HEIGHT: f64 = 20.0;
/// Percent left free at both ends, for the marks that lie there.
const EDGE: f64 = 2.0;

/// Percent from an end within which what is written is kept inside.
const EDGES: f64 = 5.0;
/// Percent that a character takes of a narrow screen.
const CHARACTER: f64 = 2.0;

pub struct Strips {
    pub axis: Axis,
    /// What each kind of mark is.
    pub key: Vec<(Sign, Colour, String)>,
    pub rows: Vec<Strip>,
}

pub struct Strip {
    pub name: String,
    /// What is drawn, in words; each of them stays on one line.
    pub values: Vec<String>,
    pub signs: Vec<Placed>,
}

/// Something drawn at a value.
pub struct Placed {
    pub sign: Sign,
    pub colour: Colour,
    pub value: f64,
    /// Where the line to it begins and ends: the extremes of the runs.
    pub range: Option<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Dot,
    Ring,
    Square,
    /// From the axis' beginning, or from zero, to the value.
    Bar,
    /// What must not be exceeded.
    Bound,
}

impl Strips {
    pub fn draw(&self) -> Markup {
        let mut page = Markup::new();
        if !self.key.is_empty() {
            page.element("p", &[("class", &"key")], |key| self.draw_key(key));
        }
        page.element("div", &[("class", &"strips")], |strips| {
            for row in &self.rows {
                strips.element("div", &[("class", &"strip")], |strip| {
                    strip.element("span", &[("class", &"strip-name")], |name| name.name(&row.name));
                    strip.raw(" ");
                    strip.element("span", &[("class", &"strip-values")], |values| {
                        for (index, value) in row.values.iter().enumerate() {
                            values.raw(if index > 0 { ", " } else { "" });
                            values.words("span", &[], value);
                        }
                    });
                    self.draw_row(row, strip);
                });
            }
            self.draw_axis(strips);
        });
        page
    }

    fn draw_key(&self, key: &mut Markup) {
        for (sign, colour, text) in &self.key {
            key.element("span", &[], |entry| {
                entry.element("svg", &[("class", &"sign"), ("aria-hidden", &"true")], |svg| {
                    svg.element("g", &[("class", &colour.class())], |group| match sign {
                        Sign::Bar => bar(0.0, 90.0, 7.0, group),
                        sign => draw_sign(*sign, 50.0, 7.0, group),
                    });
                });
                entry.text(" ");
                entry.text(text);
            });
            key.raw(" ");
        }
    }

    fn draw_row(&self, row: &Strip, page: &mut Markup) {
        let middle = HEIGHT / 2.0;
        page.element("svg", &[("class", &"band"), ("aria-hidden", &"true")], |svg| {
            for &tick in self.axis.scale.ticks() {
                let x = percent(self.place(tick));
                line(svg, "grid", (&x, 0.0), (&x, HEIGHT));
            }
            line(svg, "grid", (percent(EDGE), middle), (percent(100.0 - EDGE), middle));
            for placed in &row.signs {
                svg.element("g", &[("class", &placed.colour.class())], |group| {
                    let at = self.place(placed.value);
                    if let Some((low, high)) = placed.range {
                        let (low, high) = (percent(self.place(low)), percent(self.place(high)));
                        line(group, "range", (low, middle), (high, middle));
                    }
                    match placed.sign {
                        Sign::Bar => {
                            let zero = self.place(0.0);
                            bar(zero.min(at), (at - zero).abs(), middle, group);
                        }
                        sign => draw_sign(sign, at, middle, group),
                    }
                });
            }
        });
    }

    fn draw_axis(&self, page: &mut Markup) {
        page.element("svg", &[("class", &"band"), ("aria-hidden", &"true")], |svg| {
            for (at, text) in self.fitting_ticks() {
                let anchor = match at {
                    _ if at < EDGES => Anchor::Start,
                    _ if at > 100.0 - EDGES => Anchor::End,
                    _ => Anchor::Middle,
                };
                words(svg, "tick", anchor, (percent(at), 13.0), &text);
            }
        });
        page.words("p", &[("class", &"axis-name")], &self.axis.name);
    }

    /// The ticks that have room on a narrow screen too, the last ones first.
    fn fitting_ticks(&self) -> Vec<(f64, String)> {
        let mut fitting = Vec::new();
        let mut free_until = f64::INFINITY;
        for &tick in self.axis.scale.ticks().iter().rev() {
            let (at, text) = (self.place(tick), (self.axis.write)(tick));
            let width = CHARACTER * text.chars().count() as f64;
            let (left, right) = match at {
                _ if at < EDGES => (at, at + width),
                _ if at > 100.0 - EDGES => (at - width, at),
                _ => (at - width / 2.0, at + width / 2.0),
            };
            if right < free_until {
                free_until = left - CHARACTER;
                fitting.push((at, text));
            }
        }
        fitting
    }

    /// In percent of the width.
    fn place(&self, value: f64) -> f64 {
        EDGE + self.axis.scale.share(value) * (100.0 - 2.0 * EDGE)
    }
}

fn draw_sign(sign: Sign, at: f64, middle: f64, group: &mut Markup) {
    let x = percent(at);
    match sign {
        Sign::Dot => {
            group
                .empty("circle", &[("class", &"marker"), ("cx", &x), ("cy", &middle), ("r", &4.5)]);
        }
        Sign::Ring => {
            group.empty("circle", &[("class", &"ring"), ("cx", &x), ("cy", &middle), ("r", &4)]);
        }
        Sign::Square => {
            let (top, size) = (middle - 4.0, 8);
            let moved = "translate(-4 0)";
            group.empty(
                "rect",
                &[
                    ("class", &"marker"),
                    ("x", &x),
                    ("y", &top),
                    ("width", &size),
                    ("height", &size),
                    ("transform", &moved),
                ],
            );
        }
        Sign::Bound => {
            line(group, "bound", (&x, middle - 7.0), (&x, middle + 7.0));
        }
        Sign::Bar => (),
    }
}

fn bar(from: f64, length: f64, middle: f64, group: &mut Markup) {
    let (x, width) = (percent(from), percent(length.max(0.4)));
    group.empty(
        "rect",
        &[("class", &"bar"), ("x", &x), ("y", &(middle - 5.0)), ("width", &width), ("height", &10)],
    );
}
