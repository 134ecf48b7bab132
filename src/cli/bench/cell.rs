//! One value of a report: how a table shows it, and what it is in JSON, both ways.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use super::figure::Figure;

const HOLDS: &str = "holds";
const DOES_NOT_HOLD: &str = "does not hold";
/// Digits that a number from a file is shown with, at least, and the most decimals for it.
const DIGITS: i32 = 4;
const DECIMALS_MAX: i32 = 9;

/// A value with the way it is shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Figure(Figure),
    /// A number, and how many decimals the table shows. JSON has all of them.
    Number(f64, usize),
    Count(u64),
    /// One value after another, in the order in which they were measured; the table counts them.
    Series(Vec<f64>),
    /// What became of a promise, or of a target that the project has set itself.
    Verdict(bool),
    Text(Cow<'static, str>),
}

impl Cell {
    /// As a table shows it.
    pub fn text(&self) -> String {
        match self {
            Cell::Figure(figure) => {
                let digits = if figure.median() < 10.0 { 2 } else { 1 };
                let (median, min, max) = (figure.median(), figure.min(), figure.max());
                format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
            }
            Cell::Number(number, decimals) => format!("{number:.decimals$}"),
            Cell::Count(count) => count.to_string(),
            Cell::Series(values) => format!("{} values", values.len()),
            Cell::Verdict(holds) => verdict(*holds).into_owned(),
            Cell::Text(text) => text.clone().into_owned(),
        }
    }

    /// The one number that stands for it: a figure's median.
    pub fn number(&self) -> Option<f64> {
        match self {
            Cell::Figure(figure) => Some(figure.median()),
            Cell::Number(number, _) => Some(*number),
            Cell::Count(count) => Some(*count as f64),
            Cell::Series(_) | Cell::Verdict(_) | Cell::Text(_) => None,
        }
    }

    /// Whether the promise or target holds, if it is about one.
    pub fn holds(&self) -> Option<bool> {
        match self {
            Cell::Verdict(holds) => Some(*holds),
            Cell::Text(text) => holds(text),
            Cell::Figure(_) | Cell::Number(..) | Cell::Count(_) | Cell::Series(_) => None,
        }
    }
}

/// A verdict as it is read.
pub fn verdict(holds: bool) -> Cow<'static, str> {
    Cow::Borrowed(match holds {
        true => HOLDS,
        false => DOES_NOT_HOLD,
    })
}

fn holds(text: &str) -> Option<bool> {
    match text {
        HOLDS => Some(true),
        DOES_NOT_HOLD => Some(false),
        _ => None,
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::Figure(figure) => figure.serialize(serializer),
            // What is not a number is `null`.
            Cell::Number(number, _) => serializer.serialize_f64(*number),
            Cell::Count(count) => serializer.serialize_u64(*count),
            Cell::Series(values) => values.serialize(serializer),
            Cell::Verdict(holds) => serializer.serialize_str(&verdict(*holds)),
            Cell::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cell, D::Error> {
        match Json::deserialize(deserializer)? {
            Json::Null => Ok(Cell::Number(f64::NAN, 0)),
            Json::String(text) => Ok(match holds(&text) {
                Some(holds) => Cell::Verdict(holds),
                None => Cell::Text(text.into()),
            }),
            Json::Number(number) => Ok(match (number.as_u64(), number.as_f64()) {
                (Some(count), _) => Cell::Count(count),
                (None, Some(number)) => Cell::Number(number, decimals(number)),
                (None, None) => return Err(D::Error::custom(format!("{number} is too large"))),
            }),
            json @ Json::Object(_) => {
                serde_json::from_value(json).map(Cell::Figure).map_err(D::Error::custom)
            }
            json @ Json::Array(_) => {
                serde_json::from_value(json).map(Cell::Series).map_err(D::Error::custom)
            }
            json @ Json::Bool(_) => {
                Err(D::Error::custom(format!("{json} is neither a number, a text nor a figure")))
            }
        }
    }
}

/// How many a number is shown with of which only the value is known.
fn decimals(number: f64) -> usize {
    if number == 0.0 {
        return 1;
    }
    let before_point = number.abs().log10().floor() + 1.0;
    (DIGITS - before_point as i32).clamp(0, DECIMALS_MAX) as usize
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: Json) -> Cell {
        serde_json::from_value(json).expect("it is a cell")
    }

    #[test]
    fn every_cell_comes_back_from_json() {
        let cells = [
            Cell::Figure(Figure::new(vec![3.0, 1.0, 2.5])),
            Cell::Number(1.25, 3),
            Cell::Number(-7e-7, 9),
            Cell::Count(u64::MAX),
            Cell::Series(vec![2.0, 1.5]),
            Cell::Verdict(true),
            Cell::Verdict(false),
            Cell::Text("yes".into()),
        ];
        for cell in cells {
            assert_eq!(read(serde_json::to_value(&cell).expect("JSON")), cell);
        }
        let Cell::Number(number, _) = read(json!(f64::NAN)) else { panic!("it is a number") };
        assert!(number.is_nan());
    }

    #[test]
    fn a_number_from_a_file_is_shown_with_four_digits() {
        let shown = [1234.56, 123.456, 1.23456, 0.001234567, 0.0, -2.5, 9e-7]
            .map(|number| Cell::Number(number, decimals(number)).text());
        assert_eq!(shown, ["1235", "123.5", "1.235", "0.001235", "0.0", "-2.500", "0.000000900"]);
    }

    #[test]
    fn what_is_no_value_is_named() {
        let error = |json: Json| serde_json::from_value::<Cell>(json).unwrap_err().to_string();
        assert_eq!(error(json!(true)), "true is neither a number, a text nor a figure");
        assert!(error(json!(["x"])).starts_with("invalid type: string"));
        assert_eq!(error(json!({ "median": 1 })), "missing field `runs`");
        assert_eq!(error(json!({ "runs": [] })), "a figure has no runs");
    }
}
