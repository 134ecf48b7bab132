//! How numbers and the names of fields are read: three digits that count, thousands apart, units.

/// Units that a field's name may end in, the longest first, and how each is written.
const UNITS: &[(&str, &str)] = &[
    ("_gb_per_s", "GB/s"),
    ("_tokens_per_s", "tokens/s"),
    ("_mb_per_10_min", "MB/10 min"),
    ("_bytes_per_token", "bytes/token"),
    ("_per_s", "/s"),
    ("_bytes", "bytes"),
    ("_mb", "MB"),
    ("_mib", "MiB"),
    ("_gib", "GiB"),
    ("_percent", "%"),
    ("_nats", "nats"),
    ("_ms", "ms"),
    ("_s", "s"),
];
/// Words of names that are not written as they are spelled there.
const WORDS: &[(&str, &str)] = &[
    ("ttft", "TTFT"),
    ("kv", "KV"),
    ("gb", "GB"),
    ("gop", "Gop"),
    ("http", "HTTP"),
    ("rss", "RSS"),
    ("kl", "KL"),
    ("cpu", "CPU"),
    ("mlx", "MLX"),
    ("top1", "top-1"),
];

/// A field's name as words, and the unit that it ends in.
#[derive(Debug, PartialEq, Eq)]
pub struct Heading {
    pub words: String,
    pub unit: Option<&'static str>,
}

pub fn heading(field: &str) -> Heading {
    // A field may be nothing but its unit.
    let underscored = format!("_{field}");
    let unit = UNITS.iter().find(|(end, _)| underscored.ends_with(end));
    let (stem, unit) = match unit {
        Some((end, unit)) => (&underscored[..underscored.len() - end.len()], Some(*unit)),
        None => (underscored.as_str(), None),
    };
    Heading { words: words(stem), unit }
}

/// A field's name as words, all of it.
pub fn words(name: &str) -> String {
    let written = |word: &str| {
        let known = WORDS.iter().find(|(spelled, _)| *spelled == word);
        known.map_or(word, |(_, written)| written).to_owned()
    };
    let words: Vec<String> = name.split('_').filter(|word| !word.is_empty()).map(written).collect();
    words.join(" ").replace(" per s", "/s")
}

/// Three digits, or all that stand before the point; fewer if there are no more.
pub fn number(value: f64) -> String {
    digits(value, 3)
}

/// Four of them, for what differs little.
pub fn exact(value: f64) -> String {
    digits(value, 4)
}

fn digits(value: f64, count: i32) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    if size > 0.0 && size < SMALL {
        return format!("{value:.1e}");
    }
    // How many stand before the point, below zero the zeros behind it, once it is rounded.
    let before = |size: f64| if size > 0.0 { size.log10().floor() as i32 + 1 } else { 1 };
    let unit = 10_f64.powi(before(size) - count);
    let decimals = (count - before((size / unit).round() * unit)).max(0) as usize;
    let text = format!("{value:.decimals$}");
    let short = shortened(&text);
    let text = if short.parse() == Ok(value) { short } else { &text };
    match text.split_once('.') {
        Some((whole, rest)) => format!("{}.{rest}", thousands(whole)),
        None => thousands(text),
    }
}

/// Without zeros at the end that say nothing.
fn shortened(text: &str) -> &str {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    }
}

/// `1234567` as `1,234,567`.
fn thousands(digits: &str) -> String {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => ("−", rest),
        None => ("", digits),
    };
    let mut out = sign.to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Below this, zeros after the point are harder to count than to name.
const SMALL: f64 = 1e-4;
/// Between a number and its unit, which belong on one line.
pub const SPACE: &str = "\u{a0}";

/// A time in the unit in which it is short.
pub fn duration(ms: f64) -> String {
    let (value, unit) = match ms {
        _ if ms >= 120_000.0 => (ms / 60_000.0, "min"),
        _ if ms >= 1_000.0 => (ms / 1_000.0, "s"),
        _ => (ms, "ms"),
    };
    format!("{}{SPACE}{unit}", number(value))
}

/// What a file or a cache takes, in thousands of thousands.
pub fn size(bytes: f64) -> String {
    let (value, unit) = match bytes {
        _ if bytes >= 1e9 => (bytes / 1e9, "GB"),
        _ if bytes >= 1e6 => (bytes / 1e6, "MB"),
        _ if bytes >= 1e3 => (bytes / 1e3, "kB"),
        _ => (bytes, "bytes"),
    };
    format!("{}{SPACE}{unit}", number(value))
}

/// A number as it is written on an axis, which may have been added up of parts.
pub fn tick(value: f64) -> String {
    let text = number(value);
    if text.contains('e') { text } else { shortened(&text).to_owned() }
}

/// How many times, in two or three digits.
pub fn times(ratio: f64) -> String {
    match ratio {
        _ if ratio >= 9.95 => format!("{}{SPACE}×", number(ratio.round())),
        _ => format!("{ratio:.1}{SPACE}×"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [0.0, 7.0, 1_234_567.0, 1234.5, 123.4, 12.34, 1.234, 0.1234].map(number);
        assert_eq!(shown, ["0", "7", "1,234,567", "1,234", "123", "12.3", "1.23", "0.123"]);
        let shown = [0.01234, 2e-7, -1.5, -1e4, f64::NAN, 0.21, 99.96, 1.999].map(number);
        assert_eq!(shown, ["0.0123", "2.0e-7", "−1.5", "−10,000", "–", "0.21", "100", "2.00"]);
        assert_eq!([12.3101, 99.876, 0.5].map(exact), ["12.31", "99.88", "0.5"]);
    }

    #[test]
    fn a_field_is_its_words_and_its_unit() {
        let told = |field: &str| {
            let Heading { words, unit } = heading(field);
            (words, unit.unwrap_or("").to_owned())
        };
        assert_eq!(told("ttft_ms"), ("TTFT".into(), "ms".into()));
        assert_eq!(told("tokens_per_s"), ("".into(), "tokens/s".into()));
        assert_eq!(told("peer_tokens_per_s"), ("peer".into(), "tokens/s".into()));
        assert_eq!(told("kv_bytes_per_token"), ("KV".into(), "bytes/token".into()));
        assert_eq!(told("tokens_per_s_at_16"), ("tokens/s at 16".into(), "".into()));
        assert_eq!(told("promise"), ("promise".into(), "".into()));
        assert_eq!(told("seconds"), ("seconds".into(), "".into()));
    }

    #[test]
    fn times_are_in_the_unit_that_keeps_them_short() {
        let broken = |text: String| text.replace(SPACE, " ");
        let shown = [0.456, 41.23, 999.0, 2345.0, 90_000.0, 1_200_000.0].map(duration);
        let expected = ["0.456 ms", "41.2 ms", "999 ms", "2.35 s", "90 s", "20 min"];
        assert_eq!(shown.map(broken), expected);
        assert_eq!([1.94, 9.96, 56.3].map(times).map(broken), ["1.9 ×", "10 ×", "56 ×"]);
        let shown = [12.0, 98_123_456.0, 2.5e9].map(size).map(broken);
        assert_eq!(shown, ["12 bytes", "98.1 MB", "2.5 GB"]);
        assert_eq!([0.5, 1.5, 100.0, 20_000.0].map(tick), ["0.5", "1.5", "100", "20,000"]);
    }
}
