//! Lines over an axis of numbers: medians with the range of their runs, or steps.

use super::scale::Scale;
use super::tables::Grid;

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

impl Style {
    pub fn has_markers(self) -> bool {
        match self {
            Style::Marked | Style::Dashed => true,
            Style::Plain | Style::Steps => false,
        }
    }
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

impl Lines {
    /// What is drawn, for those who do not see it: where each line begins and ends.
    pub fn description(&self) -> String {
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
