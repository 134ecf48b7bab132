//! Draws lines over an axis, twice: for a wide and for a narrow screen. Scaled down, the writing of
//! one drawing would be too small on a telephone.

use super::lines::{Axis, Colour, Lines, Mark, Point, Series, Style};
use super::markup::{Attributes, Markup};
use super::shapes::{Anchor, line, px, words};

/// Pixels of a drawing; a character of its writing is at most so wide, on average.
const WIDE: Frame = Frame { width: 560.0, height: 350.0, class: "wide" };
const NARROW: Frame = Frame { width: 350.0, height: 320.0, class: "narrow" };
const CHARACTER: f64 = 7.0;
/// How much larger a drawing is in a file: as wide as the column of text of a README.
const ALONE_SCALE: f64 = 1.5;
/// Of its ground, around all that is drawn, in the pixels of the drawing.
const ALONE_MARGIN: f64 = 12.0;
/// Between two lines of writing.
const LINE: f64 = 15.0;
/// Free above the lines, for the axis' name, and below, for the other's and its ticks.
const TOP: f64 = 30.0;
const BOTTOM: f64 = 46.0;
/// Longer names stand above.
const NAME_CHARACTERS_MAX: usize = 16;
/// Room for half of the last tick's writing.
const EDGE: f64 = 24.0;
/// A label that had to move further than this from its line is led to it.
const NEAR: f64 = 5.0;

struct Frame {
    width: f64,
    height: f64,
    class: &'static str,
}

/// What a drawing that stands alone says of itself to who does not see it.
pub struct Words<'a> {
    pub title: &'a str,
    /// Beside where its lines begin and end.
    pub about: &'a str,
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

    /// Whether names stand above the drawing, not beside their lines: steps all end at the top,
    /// where their names would lie over each other, and long names have no room.
    fn has_key(&self) -> bool {
        self.series.iter().any(|series| {
            series.style == Style::Steps || series.name.chars().count() > NAME_CHARACTERS_MAX
        })
    }

    fn draw_key(&self, key: &mut Markup) {
        for series in &self.series {
            key.element("span", &[("class", &series.colour.class())], |entry| {
                entry.element("svg", &[("class", &"sign long"), ("aria-hidden", &"true")], |svg| {
                    svg.empty("path", &[("class", &line_class(series)), ("d", &"M1 8H23")]);
                    if series.style.has_markers() {
                        marker(series.colour, 12.0, 8.0, svg);
                    }
                });
                entry.text(" ");
                entry.text(&series.name);
            });
            key.raw(" ");
        }
    }

    fn draw_in(&self, frame: &Frame, title: &str, page: &mut Markup) {
        let view = format!("0 0 {} {}", frame.width, frame.height);
        let class = format!("plot {}", frame.class);
        page.element("svg", &[("class", &class), ("viewBox", &view), ("role", &"img")], |svg| {
            svg.words("title", &[], title);
            svg.words("desc", &[], &self.description());
            self.draw_content(frame, svg);
        });
    }

    /// One drawing as a file: it brings along its style, and a ground to be read on, whatever the
    /// colour of the page that shows it. Names stand beside their lines; there is no key.
    pub fn draw_alone(&self, words: &Words<'_>, style: &'static str) -> Markup {
        let corner = -ALONE_MARGIN;
        let [width, height] = [WIDE.width, WIDE.height].map(|it| it + 2.0 * ALONE_MARGIN);
        let view = format!("{corner} {corner} {width} {height}");
        let attributes: Attributes<'_> = &[
            ("xmlns", &"http://www.w3.org/2000/svg"),
            ("width", &(width * ALONE_SCALE)),
            ("height", &(height * ALONE_SCALE)),
            ("viewBox", &view),
            ("role", &"img"),
        ];
        let ground: Attributes<'_> = &[
            ("class", &"ground"),
            ("x", &corner),
            ("y", &corner),
            ("width", &width),
            ("height", &height),
            ("rx", &ALONE_MARGIN),
        ];
        let mut file = Markup::new();
        file.element("svg", attributes, |svg| {
            svg.words("title", &[], words.title);
            svg.words("desc", &[], &format!("{} {}", self.description(), words.about));
            svg.element("style", &[], |inside| inside.raw(style));
            svg.empty("rect", ground);
            self.draw_content(&WIDE, svg);
        });
        file
    }

    fn draw_content(&self, frame: &Frame, svg: &mut Markup) {
        let area = self.area(frame);
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
            self.draw_labels(&area, svg);
        }
    }

    fn area(&self, frame: &Frame) -> Area {
        let widest =
            |texts: &mut dyn Iterator<Item = usize>| CHARACTER * texts.max().unwrap_or(0) as f64;
        let ticks = self.y.scale.ticks().iter().map(|&tick| (self.y.write)(tick));
        let left = 8.0 + widest(&mut ticks.map(|text| text.chars().count()));
        let labels = widest(&mut self.series.iter().map(|series| series.name.chars().count()));
        let labels = match self.has_key() {
            true => EDGE,
            false => 22.0 + labels,
        };
        Area {
            left: px(left),
            right: px(frame.width - labels),
            top: TOP,
            bottom: frame.height - BOTTOM,
        }
    }

    fn draw_axes(&self, area: &Area, frame: &Frame, svg: &mut Markup) {
        let Area { left, right, bottom, .. } = *area;
        words(svg, "axis", Anchor::Start, (0.0, 12.0), &self.y.name);
        for &tick in self.y.scale.ticks() {
            let y = area.y(&self.y, tick);
            line(svg, "grid", (left, y), (right, y));
            words(svg, "tick", Anchor::End, (left - 6.0, px(y + 4.0)), &(self.y.write)(tick));
        }
        for (x, text) in self.fitting_ticks(area) {
            line(svg, "base", (x, bottom), (x, bottom + 5.0));
            words(svg, "tick", Anchor::Middle, (x, bottom + 18.0), &text);
        }
        line(svg, "base", (left, bottom), (right, bottom));
        words(svg, "axis", Anchor::End, (right, frame.height - 6.0), &self.x.name);
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
        line(svg, "mark", (x, area.top - 6.0), (x, area.bottom));
        words(svg, "mark-name", Anchor::End, (px(x - 6.0), area.top + 6.0), &mark.text);
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
        if !series.style.has_markers() {
            return;
        }
        for point in &series.points {
            let (x, y) = place(point);
            let (low, high) = point.range;
            line(group, "range", (x, area.y(&self.y, low)), (x, area.y(&self.y, high)));
            marker(series.colour, x, y, group);
        }
    }

    /// The name of each series beside its end, none over another.
    fn draw_labels(&self, area: &Area, svg: &mut Markup) {
        let end = |series: &Series| {
            let last = series.points.last()?;
            Some((area.x(&self.x, last.x), area.y(&self.y, last.y)))
        };
        let ends = self.series.iter().filter_map(|series| Some((series, end(series)?)));
        // What ends before the others has its name there.
        let (late, early): (Vec<_>, Vec<_>) = ends.partition(|(_, (x, _))| area.right - x <= NEAR);
        for (series, (x, y)) in early {
            svg.element("g", &[("class", &series.colour.class())], |group| {
                draw_name(&series.name, x + 7.0, y, group);
            });
        }
        let heights: Vec<f64> = late.iter().map(|(_, (_, y))| *y).collect();
        let places = spread(&heights, LINE, (area.top, area.bottom));
        for ((series, (x, y)), place) in late.into_iter().zip(places) {
            svg.element("g", &[("class", &series.colour.class())], |group| {
                if (place - y).abs() > NEAR {
                    line(group, "lead", (px(x + 5.0), y), (area.right + 11.0, px(place)));
                }
                draw_name(&series.name, area.right + 14.0, place, group);
            });
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
        (Style::Plain | Style::Steps, Colour::Fourth) => "line broken-line",
        (Style::Dashed | Style::Plain | Style::Steps, _) => "line dashed",
    }
}

fn draw_name(name: &str, x: f64, middle: f64, group: &mut Markup) {
    words(group, "name", Anchor::Start, (px(x), px(middle + 4.0)), name);
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

#[cfg(test)]
mod tests {
    use super::super::scale::Scale;
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
            name: "<cold> & restart".to_owned(),
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
    fn a_drawing_tells_what_is_in_it() {
        let svg = lines().draw("a title").finish();
        assert_eq!(svg.matches("<title>a title</title>").count(), 2, "{svg}");
        assert!(svg.contains("from 10 at 512 to 100 at 1024. kill at 1000.</desc>"), "{svg}");
        assert!(svg.contains("&lt;cold&gt; &amp; restart</text>"), "{svg}");
    }

    #[test]
    fn a_name_without_room_beside_its_line_stands_above() {
        let mut lines = lines();
        assert!(!lines.draw("a title").finish().contains("class=\"key\""));
        lines.series[0].name += ", and a little more";
        let svg = lines.draw("a title").finish();
        assert_eq!(svg.matches("restart, and a little more</span>").count(), 1, "{svg}");
        assert!(!svg.contains("little more</text>"), "{svg}");
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
