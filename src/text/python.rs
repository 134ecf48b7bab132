//! What chat templates expect of Python: `json.dumps`, `strftime`, and the tag that Hugging Face
//! adds to Jinja.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use minijinja::value::{Kwargs, Rest, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters};
use serde_json::Value;

/// The largest width, precision, indent or count that a template may ask for.
const WIDTH_MAX: u64 = 10_000;

/// minijinja's own filters, with [`WIDTH_MAX`]: they take any number, and allocate as much as it
/// says or panic.
pub(super) fn add_bounded_filters(environment: &mut Environment<'static>) {
    let indent = minijinja::Value::from_function(filters::indent);
    let slice = minijinja::Value::from_function(filters::slice);
    let batch = minijinja::Value::from_function(filters::batch);
    for (name, filter) in [("indent", indent), ("slice", slice), ("batch", batch)] {
        let bounded = move |state: &mut State, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            let count = args.get(1).map(|count| count.get_attr("width").unwrap_or(count.clone()));
            check_width(count.filter(|count| !count.is_undefined()).or(args.get(1).cloned()))?;
            filter.call(state, &args)
        };
        environment.add_filter(name, bounded);
    }
    let format = minijinja::Value::from_function(filters::format);
    let bounded = move |state: &mut State, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        let text = args.first().and_then(|text| text.as_str()).unwrap_or_default();
        check_printf_widths(text)?;
        // `*` takes the width from an argument.
        if text.contains('*') {
            args.iter().skip(1).try_for_each(|arg| check_width(Some(arg.clone())))?;
        }
        format.call(state, &args)
    };
    environment.add_filter("format", bounded);
}

/// Python's methods, with [`WIDTH_MAX`] for `str.format`.
pub(super) fn unknown_method(
    state: &mut State,
    value: &minijinja::Value,
    method: &str,
    args: &[minijinja::Value],
) -> Result<minijinja::Value, Error> {
    if let ("format", Some(text)) = (method, value.as_str()) {
        check_field_widths(text)?;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn check_width(width: Option<minijinja::Value>) -> Result<(), Error> {
    match width.map(u64::try_from) {
        Some(Ok(width)) if width > WIDTH_MAX => Err(too_wide()),
        _ => Ok(()),
    }
}

/// The numbers between `%` and its conversion: `%-10.3f`, `%(key)5s`.
fn check_printf_widths(text: &str) -> Result<(), Error> {
    let is_spec = |c: char| c.is_ascii_digit() || "#- +.*".contains(c);
    for part in text.split('%').skip(1) {
        let spec = match part.strip_prefix('(') {
            Some(key) => key.split_once(')').map_or("", |(_, spec)| spec),
            None => part,
        };
        check_numbers(spec.split(|c| !is_spec(c)).next().unwrap_or_default())?;
    }
    Ok(())
}

/// The numbers between `{` and `}`: `{:>10}`, `{name:.3}`. The text of an escaped `{{` is looked
/// at, too, which at worst refuses a large number in it.
fn check_field_widths(text: &str) -> Result<(), Error> {
    for part in text.split('{').skip(1) {
        check_numbers(part.split('}').next().unwrap_or_default())?;
    }
    // A width that is itself a field cannot be seen here.
    match text.split('}').any(|part| part.matches('{').count() > 1 && part.contains(":{")) {
        true => Err(invalid("a width in a format cannot be a field")),
        false => Ok(()),
    }
}

fn check_numbers(spec: &str) -> Result<(), Error> {
    let mut numbers = spec.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    match numbers.all(|number| number.parse().is_ok_and(|width: u64| width <= WIDTH_MAX)) {
        true => Ok(()),
        false => Err(too_wide()),
    }
}

fn too_wide() -> Error {
    invalid(format!("a width, indent or count is above {WIDTH_MAX}"))
}

/// Hugging Face's `tojson`: `json.dumps(x, ensure_ascii=False, indent=None, separators=None,
/// sort_keys=False)`. Nothing is escaped for HTML and keys keep their order.
pub(super) fn tojson(value: &minijinja::Value, options: Kwargs) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(invalid("an undefined value cannot be written as JSON"));
    }
    let indent: Option<usize> = options.get("indent")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    if indent.is_some_and(|indent| indent as u64 > WIDTH_MAX) {
        return Err(too_wide());
    }

    let value = serde_json::to_value(value)
        .map_err(|error| invalid(format!("cannot be written as JSON: {error}")))?;
    let (item, key) = match separators.as_deref() {
        None if indent.is_some() => (",", ": "),
        None => (", ", ": "),
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(_) => return Err(invalid("tojson needs two separators")),
    };
    let mut writer = JsonWriter {
        out: String::new(),
        item,
        key,
        indent,
        ensure_ascii: ensure_ascii.unwrap_or(false),
        sort_keys: sort_keys.unwrap_or(false),
    };
    writer.write(&value, 0);
    Ok(writer.out)
}

struct JsonWriter<'a> {
    out: String,
    item: &'a str,
    key: &'a str,
    indent: Option<usize>,
    ensure_ascii: bool,
    sort_keys: bool,
}

impl JsonWriter<'_> {
    fn write(&mut self, value: &Value, depth: usize) {
        match value {
            Value::Null => self.out.push_str("null"),
            Value::Bool(true) => self.out.push_str("true"),
            Value::Bool(false) => self.out.push_str("false"),
            Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(float) => self.out.push_str(&python_float(float)),
                None => self.out.push_str(&number.to_string()),
            },
            Value::String(text) => self.write_string(text),
            Value::Array(items) if items.is_empty() => self.out.push_str("[]"),
            Value::Array(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.start_item(index, depth + 1);
                    self.write(item, depth + 1);
                }
                self.new_line(depth);
                self.out.push(']');
            }
            Value::Object(map) if map.is_empty() => self.out.push_str("{}"),
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.sort_keys {
                    entries.sort_by_key(|(key, _)| *key);
                }
                self.out.push('{');
                for (index, (key, item)) in entries.into_iter().enumerate() {
                    self.start_item(index, depth + 1);
                    self.write_string(key);
                    self.out.push_str(self.key);
                    self.write(item, depth + 1);
                }
                self.new_line(depth);
                self.out.push('}');
            }
        }
    }

    fn start_item(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.out.push_str(self.item);
        }
        self.new_line(depth);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn write_string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                character if character < ' ' => self.write_escape(character),
                character if self.ensure_ascii && character > '~' => self.write_escape(character),
                character => self.out.push(character),
            }
        }
        self.out.push('"');
    }

    fn write_escape(&mut self, character: char) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            self.out.push_str(&format!("\\u{unit:04x}"));
        }
    }
}

/// Jinja2's test: what `iter()` takes. To minijinja `none` is iterable, too, and a template that
/// asks whether a content is a list of parts would go wrong on a turn without content.
pub(super) fn is_iterable(value: &minijinja::Value) -> bool {
    value.is_undefined() || (!value.is_none() && value.try_iter().is_ok())
}

/// Jinja2's test: what has a length and can be indexed, strings and mappings included.
pub(super) fn is_sequence(value: &minijinja::Value) -> bool {
    is_iterable(value) && (value.is_undefined() || value.len().is_some())
}

/// `repr(float)`: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
fn python_float(float: f64) -> String {
    let scientific = format!("{float:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let is_plain = (-4..16).contains(&exponent);
    match exponent {
        _ if is_plain && float.fract() == 0.0 => format!("{float:.1}"),
        _ if is_plain => float.to_string(),
        ..0 => format!("{digits}e-{:02}", -exponent),
        0.. => format!("{digits}e+{exponent:02}"),
    }
}

/// `strftime` of a moment, in UTC: the machine's time zone would make a prompt depend on where it
/// was rendered. A directive that is not in the list is an error, not a guess.
pub(super) fn strftime(now: SystemTime, format: &str) -> Result<String, Error> {
    const DAYS: [&str; 7] =
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let date = Date::of(now);
    let weekday = DAYS[date.weekday];
    let month = MONTHS[date.month - 1];
    let hour_12 = (date.hour + 11) % 12 + 1;
    let half_day = if date.hour < 12 { "AM" } else { "PM" };

    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut directive = rest.next();
        let is_padded = directive != Some('-');
        if !is_padded {
            directive = rest.next();
        }
        let number = |value: usize, width: usize| match is_padded {
            true => format!("{value:0width$}"),
            false => value.to_string(),
        };
        let text = match directive {
            Some('Y') => number(date.year, 4),
            Some('y') => number(date.year % 100, 2),
            Some('m') => number(date.month, 2),
            Some('d') => number(date.day, 2),
            Some('e') => format!("{:2}", date.day),
            Some('j') => number(date.day_of_year, 3),
            Some('H') => number(date.hour, 2),
            Some('I') => number(hour_12, 2),
            Some('M') => number(date.minute, 2),
            Some('S') => number(date.second, 2),
            Some('p') => half_day.to_owned(),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('B') => month.to_owned(),
            Some('b' | 'h') => month[..3].to_owned(),
            Some('F') => strftime(now, "%Y-%m-%d")?,
            Some('T') => strftime(now, "%H:%M:%S")?,
            Some('Z') => "UTC".to_owned(),
            Some('z') => "+0000".to_owned(),
            Some('%') => "%".to_owned(),
            other => {
                let other = other.map_or("nothing".to_owned(), String::from);
                return Err(invalid(format!("strftime does not know %{other}")));
            }
        };
        out.push_str(&text);
    }
    Ok(out)
}

/// A moment of the Gregorian calendar in UTC. A clock before 1970 reads as 1970.
struct Date {
    year: usize,
    month: usize,
    day: usize,
    day_of_year: usize,
    /// 0 is Monday.
    weekday: usize,
    hour: usize,
    minute: usize,
    second: usize,
}

impl Date {
    fn of(now: SystemTime) -> Date {
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let seconds = since_1970.as_secs() as usize;
        let days = seconds / 86_400;
        let second_of_day = seconds % 86_400;

        // Days are counted in years that begin in March, so that the leap day comes last; 719,468
        // days lie between 0000-03-01 and 1970-01-01 (Howard Hinnant, "chrono-compatible low-level
        // date algorithms", `civil_from_days`).
        let days_since_0 = days + 719_468;
        let era = days_since_0 / 146_097;
        let day_of_era = days_since_0 % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = (month_from_march + 2) % 12 + 1;
        let year = year_of_era + era * 400 + usize::from(month <= 2);

        let is_leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let day_of_year = match month {
            1 | 2 => day_from_march - 305,
            _ => day_from_march + 60 + usize::from(is_leap),
        };
        Date {
            year,
            month,
            day,
            day_of_year,
            weekday: (days + 3) % 7,
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }
}

/// `{% generation %}` marks the model's own words for training; for rendering it means nothing.
/// Hugging Face adds the tag with a Jinja extension, minijinja cannot: it becomes an `if`.
pub(super) fn without_generation_tags(template: &str) -> Cow<'_, str> {
    if !template.contains("generation") {
        return Cow::Borrowed(template);
    }
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (inside, after) = tag.split_at(end);
        out.push_str(&match inside.trim_matches(['-', '+']).trim() {
            "generation" => inside.replace("generation", "if true"),
            "endgeneration" => inside.replace("endgeneration", "endif"),
            _ => inside.to_owned(),
        });
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn invalid(reason: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let written =
            [1.0, 0.7, 1e16, 123456789012345680.0, 1e-5, 0.0001, -2.5e-7, 1e300].map(python_float);
        let python = [
            "1.0",
            "0.7",
            "1e+16",
            "1.2345678901234568e+17",
            "1e-05",
            "0.0001",
            "-2.5e-07",
            "1e+300",
        ];
        assert_eq!(written, python);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let written = |seconds| {
            strftime(at(seconds), "%Y-%m-%d %a %j %H:%M:%S %I %p %-d").expect("all known")
        };
        assert_eq!(written(0), "1970-01-01 Thu 001 00:00:00 12 AM 1");
        assert_eq!(written(951_782_400), "2000-02-29 Tue 060 00:00:00 12 AM 29");
        assert_eq!(written(1_735_689_599), "2024-12-31 Tue 366 23:59:59 11 PM 31");
        assert_eq!(written(4_107_542_399), "2100-02-28 Sun 059 23:59:59 11 PM 28");
        let error = strftime(at(0), "%Q").expect_err("no such directive");
        assert_eq!(error.detail(), Some("strftime does not know %Q"));
    }

    #[test]
    fn generation_tags_become_plain_ifs() {
        assert_eq!(
            without_generation_tags(
                "{%- generation -%}a{% endgeneration %}{% set generation = 1 %}"
            ),
            "{%- if true -%}a{% endif %}{% set generation = 1 %}"
        );
    }
}
