//! Lines over an axis of numbers: medians with the range of their runs, or steps.
//!
//! Drawn twice, for a wide and for a narrow screen: scaled down, the writing of one drawing would
//! be too small on a telephone.

use super::markup::Markup;
use super::scale::Scale;
use super::tables::Grid;

/// Pixels of a drawing. A character of its writing is at most so wide, on average.
const WIDE: Frame = Frame { width: 560.0, height: 350.0, class: "wide" };
const NARROW: Frame = Frame { width: 350.0, height: 320.0, class: "narrow" };
const CHARACTER: f64 = 7.0;
/// Between two lines of writing.
const LINE: f64 = 15.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 46.0;
/// Labels beside the lines take no more than this of the width.
const LABELS_MAX: f64 = 0.4;
/// Room for half of the last tick's writing.
const EDGE: f64 = 24.0;
/// A label that had to move further than this from its line is led to it.
const NEAR: f64 = 5.0;

pub struct Lines {
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    pub marks: Vec<Mark>,
}

pub struct Axis {
    /// With the unit.
    pub name: String,
    pub scale: Scale,
    /// How its values are written.
    pub write: fn(f64) -> String,
}

pub struct Series {
    pub name: String,
    pub colour: Colour,
    pub style: Style,
    /// Ascending along the axis.
    pub points: Vec<Point>,
}

/// The colours that can be told apart; each has its own mark too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Ours,
    Second,
    Third,
    Fourth,
    Fifth,
    Sixth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A mark at each point, with the range of its runs.
    Marked,
    Dashed,
    /// Straight lines without marks, for many points.
    Plain,
    /// Level until the next point, as shares of runs are.
    Steps,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    /// The lowest and the highest run.
    pub range: (f64, f64),
}

/// A line across, where something happened.
pub struct Mark {
    pub x: f64,
    pub text: String,
}

impl Colour {
    /// In turn.
    pub fn nth(index: usize) -> Colour {
        use Colour::*;
        [Ours, Second, Third, Fourth, Fifth, Sixth][index % 6]
    }

    pub fn class(self) -> &'static str {
        match self {
            Colour::Ours => "s1",
            Colour::Second => "s2",
            Colour::Third => "s3",
            Colour::Fourth => "s4",
            Colour::Fifth => "s5",
            Colour::Sixth => "s6",
        }
    }
}

impl Point {
    pub fn exact(x: f64, y: f64) -> Point {
        Point { x, y, range: (y, y) }
    }
}

struct Frame {
    width: f64,
    height: f64,
    class: &'static str,
}

/// Where the lines are drawn.
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Lines {
    /// Both drawings; a style sheet shows the one that fits.
    pub fn draw(&self, title: &str) -> Markup {
        let mut page = Markup::new();
        if self.has_key() {
            page.element("p", &[("class", &"key")], |key| self.draw_key(key));
        }
        for frame in [WIDE, NARROW] {
            self.draw_in(&frame, title, &mut page);
        }
        page
    }

    /// Steps all end at the top: their names would lie over each other there.
    fn has_key(&self) -> bool {
        self.series.iter().any(|series| series.style == Style::Steps)
    }

    fn draw_key(&self, key: &mut Markup) {
        for series in &self.series {
            key.element("span", &[("class", &series.colour.class())], |entry| {
                let attributes: [(_, &dyn std::fmt::Display); 4] =
                    [("class", &"sign"), ("width", &24), ("height", &14), ("aria-hidden", &"true")];
                entry.element("svg", &attributes, |svg| {
                    svg.empty("path", &[("class", &line_class(series)), ("d", &"M1 8H23")]);
                });
                entry.text(" ");
                entry.text(&series.name);
            });
            key.raw(" ");
        }
    }

    fn draw_in(&self, frame: &Frame, title: &str, page: &mut Markup) {
        let area = self.area(frame);
        let view = format!("0 0 {} {}", frame.width, frame.height);
        let class = format!("plot {}", frame.class);
        page.element("svg", &[("class", &class), ("viewBox", &view), ("role", &"img")], |svg| {
            svg.words("title", &[], title);
            svg.words("desc", &[], &self.description());
            self.draw_axes(&area, frame, svg);
            for mark in &self.marks {
                self.draw_mark(mark, &area, svg);
            }
            for series in &self.series {
                svg.element("g", &[("class", &series.colour.class())], |group| {
                    self.draw_series(series, &area, group);
                });
            }
            if !self.has_key() {
                self.draw_labels(&area, frame, svg);
            }
        });
    }

    fn area(&self, frame: &Frame) -> Area {
        let widest = |texts: &mut dyn Iterator<Item = usize>| {
            CHARACTER * texts.max().unwrap_or(0) as f64
        };
        let ticks = self.y.scale.ticks().iter().map(|&tick| (self.y.write)(tick));
        let left = 8.0 + widest(&mut ticks.map(|text| text.chars().count()));
        let labels = widest(&mut self.series.iter().map(|series| series.name.chars().count()));
        let labels = match self.has_key() {
            true => EDGE,
            false => (22.0 + labels).min(LABELS_MAX * frame.width),
        };
        Area { left, right: frame.width - labels, top: TOP, bottom: frame.height - BOTTOM }
    }

    fn draw_axes(&self, area: &Area, frame: &Frame, svg: &mut Markup) {
        svg.words("text", &[("class", &"axis"), ("x", &0), ("y", &12)], &self.y.name);
        for &tick in self.y.scale.ticks() {
            let y = area.y(&self.y, tick);
            svg.empty(
                "line",
                &[
                    ("class", &"grid"),
                    ("x1", &px(area.left)),
                    ("x2", &px(area.right)),
                    ("y1", &y),
                    ("y2", &y),
                ],
            );
            let x = px(area.left - 6.0);
            let attributes: [(_, &dyn std::fmt::Display); 4] =
                [("class", &"tick"), ("x", &x), ("y", &px(y + 4.0)), ("text-anchor", &"end")];
            svg.words("text", &attributes, &(self.y.write)(tick));
        }
        let below = area.bottom + 18.0;
        for (x, text) in self.fitting_ticks(area) {
            let attributes: [(_, &dyn std::fmt::Display); 4] =
                [("class", &"tick"), ("x", &x), ("y", &px(below)), ("text-anchor", &"middle")];
            svg.words("text", &attributes, &text);
            let (top, bottom) = (px(area.bottom), px(area.bottom + 5.0));
            svg.empty(
                "line",
                &[("class", &"base"), ("x1", &x), ("x2", &x), ("y1", &top), ("y2", &bottom)],
            );
        }
        let bottom = px(area.bottom);
        svg.empty(
            "line",
            &[
                ("class", &"base"),
                ("x1", &px(area.left)),
                ("x2", &px(area.right)),
                ("y1", &bottom),
                ("y2", &bottom),
            ],
        );
        svg.words(
            "text",
            &[
                ("class", &"axis"),
                ("x", &px(area.right)),
                ("y", &px(frame.height - 6.0)),
                ("text-anchor", &"end"),
            ],
            &self.x.name,
        );
    }

    /// The ticks below that have room, the last ones first: they are what is read.
    fn fitting_ticks(&self, area: &Area) -> Vec<(f64, String)> {
        let mut fitting: Vec<(f64, String)> = Vec::new();
        let mut free_until = f64::INFINITY;
        for &tick in self.x.scale.ticks().iter().rev() {
            let (x, text) = (area.x(&self.x, tick), (self.x.write)(tick));
            let half = CHARACTER * text.chars().count() as f64 / 2.0;
            if x + half < free_until {
                free_until = x - half - CHARACTER;
                fitting.push((x, text));
            }
        }
        fitting
    }

    fn draw_mark(&self, mark: &Mark, area: &Area, svg: &mut Markup) {
        let x = area.x(&self.x, mark.x);
        let (top, bottom) = (px(area.top - 6.0), px(area.bottom));
        svg.empty(
            "line",
            &[("class", &"mark"), ("x1", &x), ("x2", &x), ("y1", &top), ("y2", &bottom)],
        );
        let attributes: [(_, &dyn std::fmt::Display); 4] = [
            ("class", &"mark-name"),
            ("x", &px(x - 6.0)),
            ("y", &px(area.top + 6.0)),
            ("text-anchor", &"end"),
        ];
        svg.words("text", &attributes, &mark.text);
    }

    fn draw_series(&self, series: &Series, area: &Area, group: &mut Markup) {
        let place = |point: &Point| (area.x(&self.x, point.x), area.y(&self.y, point.y));
        let mut path = String::new();
        for (index, point) in series.points.iter().enumerate() {
            let (x, y) = place(point);
            path += &match (index, series.style) {
                (0, _) => format!("M{x} {y}"),
                (_, Style::Steps) => format!("H{x}V{y}"),
                (_, Style::Marked | Style::Dashed | Style::Plain) => format!("L{x} {y}"),
            };
        }
        group.empty("path", &[("class", &line_class(series)), ("d", &path)]);
        if !matches!(series.style, Style::Marked | Style::Dashed) {
            return;
        }
        for point in &series.points {
            let (x, y) = place(point);
            let (low, high) =
                (area.y(&self.y, point.range.0), area.y(&self.y, point.range.1));
            group.empty(
                "line",
                &[("class", &"range"), ("x1", &x), ("x2", &x), ("y1", &low), ("y2", &high)],
            );
            marker(series.colour, x, y, group);
        }
    }

    /// The name of each series beside its end, none over another.
    fn draw_labels(&self, area: &Area, frame: &Frame, svg: &mut Markup) {
        let end = |series: &Series| {
            let last = series.points.last()?;
            Some((area.x(&self.x, last.x), area.y(&self.y, last.y)))
        };
        let ends = self.series.iter().filter_map(|series| Some((series, end(series)?)));
        // What ends before the others has its name there.
        let (late, early): (Vec<_>, Vec<_>) =
            ends.partition(|(_, (x, _))| area.right - x <= NEAR);
        for (series, (x, y)) in early {
            svg.element("g", &[("class", &series.colour.class())], |group| {
                draw_name(&series.name, x + 7.0, y, group);
            });
        }
        let heights: Vec<f64> = late.iter().map(|(_, (_, y))| *y).collect();
        let places = spread(&heights, LINE, (area.top, area.bottom));
        let room = ((frame.width - area.right - 18.0) / CHARACTER) as usize;
        for ((series, (x, y)), place) in late.into_iter().zip(places) {
            svg.element("g", &[("class", &series.colour.class())], |group| {
                if (place - y).abs() > NEAR {
                    let (from, to) = (px(x + 5.0), px(area.right + 11.0));
                    let (start, end) = (y, px(place));
                    group.empty(
                        "line",
                        &[
                            ("class", &"lead"),
                            ("x1", &from),
                            ("x2", &to),
                            ("y1", &start),
                            ("y2", &end),
                        ],
                    );
                }
                draw_name(&cut(&series.name, room), area.right + 14.0, place, group);
            });
        }
    }

    /// What is drawn, for those who do not see it: where each line begins and ends.
    fn description(&self) -> String {
        let mut text = format!("{} over {}.", self.y.name, self.x.name);
        for series in &self.series {
            let told = |point: &Point| {
                format!("{} at {}", (self.y.write)(point.y), (self.x.write)(point.x))
            };
            if let (Some(first), Some(last)) = (series.points.first(), series.points.last()) {
                text += &format!(" {}: from {} to {}.", series.name, told(first), told(last));
            }
        }
        for mark in &self.marks {
            text += &format!(" {} at {}.", mark.text, (self.x.write)(mark.x));
        }
        text
    }
}

impl Lines {
    /// What is drawn, as figures: a line for each place on the axis below.
    pub fn table(&self) -> Grid {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let mut places: Vec<f64> = points().map(|point| point.x).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let told = |series: &Series, x: f64| {
            // The last: a step begins where the one before it ends.
            let point = series.points.iter().rfind(|point| point.x == x);
            point.map_or_else(String::new, |point| self.told(point))
        };
        let line = |&x: &f64| {
            let cells = self.series.iter().map(|series| told(series, x));
            [(self.x.write)(x)].into_iter().chain(cells).collect()
        };
        let names = self.series.iter().map(|series| series.name.clone());
        Grid {
            headings: [self.x.name.clone()].into_iter().chain(names).collect(),
            lines: places.iter().map(line).collect(),
        }
    }

    fn told(&self, point: &Point) -> String {
        let write = self.y.write;
        let (low, high) = point.range;
        match low == high {
            true => write(point.y),
            false => format!("{} ({}–{})", write(point.y), write(low), write(high)),
        }
    }
}

impl Area {
    fn x(&self, axis: &Axis, value: f64) -> f64 {
        px(self.left + axis.scale.share(value) * (self.right - self.left))
    }

    fn y(&self, axis: &Axis, value: f64) -> f64 {
        px(self.bottom - axis.scale.share(value) * (self.bottom - self.top))
    }
}

/// Lines without marks are told apart by their dashes too.
fn line_class(series: &Series) -> &'static str {
    match (series.style, series.colour) {
        (Style::Marked, _) | (_, Colour::Ours) => "line",
        (Style::Plain | Style::Steps, Colour::Third) => "line dotted",
        (Style::Dashed | Style::Plain | Style::Steps, _) => "line dashed",
    }
}

fn draw_name(name: &str, x: f64, middle: f64, group: &mut Markup) {
    let (x, y) = (px(x), px(middle + 4.0));
    group.words("text", &[("class", &"name"), ("x", &x), ("y", &y)], name);
}

/// A shape of its own for each colour, for those who do not tell colours apart.
fn marker(colour: Colour, x: f64, y: f64, group: &mut Markup) {
    let shape = match colour {
        Colour::Ours => {
            group.empty("circle", &[("class", &"marker"), ("cx", &x), ("cy", &y), ("r", &4.5)]);
            return;
        }
        Colour::Second => "m-4-4h8v8h-8z",
        Colour::Third => "m0-5.5l5.5 5.5l-5.5 5.5l-5.5-5.5z",
        Colour::Fourth => "m0-5.5l5 9h-10z",
        Colour::Fifth => "m0 5.5l5-9h-10z",
        Colour::Sixth => "m-5-1.5h10v3h-10z",
    };
    group.empty("path", &[("class", &"marker"), ("d", &format!("M{x} {y}{shape}"))]);
}

/// The text, or its beginning with a sign that there was more.
fn cut(text: &str, characters: usize) -> String {
    match text.chars().count() {
        count if count <= characters => text.to_owned(),
        _ => text.chars().take(characters.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Moves places apart until none is nearer to another than `gap`, as little as that takes, in the
/// order in which they lie, between the bounds as long as there is room.
fn spread(places: &[f64], gap: f64, (low, high): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));
    // Runs of labels that touch, each with the place that its members would like it to begin at.
    let mut groups: Vec<(f64, Vec<usize>)> = Vec::new();
    for index in order {
        groups.push((places[index], vec![index]));
        while let [.., (above, upper), (below, _)] = &groups[..] {
            if above + gap * upper.len() as f64 <= *below {
                break;
            }
            let members = groups.pop().map(|(_, members)| members).unwrap_or_default();
            if let Some((start, upper)) = groups.last_mut() {
                upper.extend(members);
                let wish = |(at, &index): (usize, &usize)| places[index] - gap * at as f64;
                let wishes: f64 = upper.iter().enumerate().map(wish).sum();
                let last = high - gap * (upper.len() - 1) as f64;
                *start = (wishes / upper.len() as f64).min(last).max(low);
            }
        }
    }
    let mut spread = vec![0.0; places.len()];
    for (start, members) in groups {
        for (at, index) in members.into_iter().enumerate() {
            spread[index] = start + gap * at as f64;
        }
    }
    spread
}

/// A tenth of a pixel is as exact as a drawing needs to be.
fn px(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_would_lie_over_each_other_move_apart_and_stay_inside() {
        assert_eq!(spread(&[10.0, 100.0], 15.0, (0.0, 200.0)), [10.0, 100.0]);
        assert_eq!(spread(&[100.0, 98.0], 16.0, (0.0, 200.0)), [107.0, 91.0]);
        assert_eq!(spread(&[199.0, 200.0, 198.0], 15.0, (0.0, 200.0)), [185.0, 200.0, 170.0]);
        assert_eq!(spread(&[0.0, 1.0], 15.0, (0.0, 200.0)), [0.0, 15.0]);
        assert_eq!(spread(&[], 15.0, (0.0, 200.0)), [0.0; 0]);
    }

    fn lines() -> Lines {
        let axis = |values: Vec<f64>| Axis {
            name: "tokens".to_owned(),
            scale: Scale::chosen(values).expect("values"),
            write: |value| format!("{value}"),
        };
        let points = vec![Point::exact(512.0, 10.0), Point::exact(1024.0, 100.0)];
        let series = Series {
            name: "<cold> and quite a long name, longer than there is room".to_owned(),
            colour: Colour::Second,
            style: Style::Marked,
            points,
        };
        Lines {
            x: axis(vec![512.0, 1000.0, 1024.0]),
            y: axis(vec![10.0, 100.0]),
            series: vec![series],
            marks: vec![Mark { x: 1000.0, text: "kill".to_owned() }],
        }
    }

    #[test]
    fn a_drawing_tells_what_is_in_it_and_cuts_what_has_no_room() {
        let svg = lines().draw("a title").finish();
        assert_eq!(svg.matches("<title>a title</title>").count(), 2, "{svg}");
        assert!(svg.contains("from 10 at 512 to 100 at 1024. kill at 1000.</desc>"), "{svg}");
        assert!(svg.contains("&lt;cold&gt; and quite"), "{svg}");
        assert!(svg.contains("…</text>"), "{svg}");
    }

    #[test]
    fn a_tick_without_room_is_left_out() {
        let lines = lines();
        let area = lines.area(&WIDE);
        let texts: Vec<String> =
            lines.fitting_ticks(&area).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["1024", "512"]);
    }
}
