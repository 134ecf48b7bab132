//! The page of a report that has every suite: whole, safe, readable.

use expect_test::expect;
use serde_json::Value as Json;

use super::super::changes::Comparison;
use super::super::figure::Figure;
use super::super::report::{Cell, Report};
use super::number::tick;
use super::{STYLE, render, ttft};

/// What `semantic bench --json` writes, with a name that would like to be a program.
const REPORT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/report.json"));
/// What the Web Content Accessibility Guidelines ask of text (level AA).
const CONTRAST_MIN: f64 = 4.5;

fn report() -> Report {
    serde_json::from_str(REPORT).expect("it is a report")
}

/// The names of the elements in a page or a picture, each closed by what closes it.
fn elements(page: &str) -> Vec<&str> {
    let mut open = Vec::new();
    let mut all = Vec::new();
    // Style sheets have signs of their own.
    let (before, rest) = page.split_once("<style>").expect("a style sheet begins");
    let (_, after) = rest.split_once("</style>").expect("a style sheet ends");
    for tag in before.split('<').chain(after.split('<')).filter(|tag| !tag.trim().is_empty()) {
        let (tag, rest) = tag.split_once('>').expect("a tag ends");
        assert!(!rest.contains('>'), "{tag}: {rest}");
        if tag.starts_with('!') {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
            continue;
        }
        assert!(tag.matches('"').count() % 2 == 0, "{tag}");
        let name = tag.split([' ', '/']).next().expect("a tag has a name");
        all.push(name);
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, [""; 0]);
    all
}

#[test]
fn the_picture_is_well_formed_and_needs_nothing_else() {
    let picture = ttft(&report()).expect("the report has restore");
    let elements = elements(&picture);
    let known = ["svg", "title", "desc", "rect", "line", "text", "g", "path", "circle"];
    assert!(elements.iter().all(|name| known.contains(name)), "{elements:?}");
    assert_eq!(elements[..3], ["svg", "title", "desc"], "what a screen reader says comes first");
    // A name, not a place; no file is an SVG without it.
    let picture = picture.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1);
    for part in ["http:", "https:", "//", "url(", "@import", "src=", "href=", "onload", "&#"] {
        assert!(!picture.contains(part), "{part}");
    }
    for scheme in ["color-scheme: light dark", "@media (prefers-color-scheme: dark)"] {
        assert!(picture.contains(scheme), "{scheme}");
    }
}

#[test]
fn the_picture_has_the_figures_of_the_report() {
    let report = report();
    let picture = words(&ttft(&report).expect("the report has restore")).replace('\u{a0}', " ");
    assert!(picture.contains("answers in 135 ms: 169 × sooner than when"), "{picture}");
    let restore = report.suites.iter().find(|suite| suite.suite == "restore").expect("restore");
    let drawn = ["cold", "hot", "warm", "restart"];
    for place in drawn {
        let rows =
            restore.section.rows.iter().filter(|row| row.name.ends_with(&format!(", {place}")));
        let shown: Vec<String> = rows
            .map(|row| {
                let tokens =
                    row.name.split(' ').next().expect("a number").parse().expect("a number");
                let ms = row.get("ttft_ms").and_then(Cell::number).expect("a figure");
                format!("{} at {}", tick(ms), tick(tokens))
            })
            .collect();
        let [first, .., last] = &shown[..] else { panic!("{place}: {shown:?}") };
        assert!(
            picture.contains(&format!(" {place}: from {first} to {last}.")),
            "{place}: {picture}"
        );
    }
    assert!(!picture.contains("extend"), "what the picture does not explain: {picture}");
    assert!(picture.contains("AMD EPYC 7B13, 2026-11-22."), "{picture}");
}

#[test]
fn there_is_no_picture_of_a_report_without_the_suite() {
    assert_eq!(ttft(&Report { suites: Vec::new(), ..report() }), None);
}

/// What is read of a page.
fn words(page: &str) -> String {
    let texts = page.split('<').filter_map(|tag| tag.split_once('>')).map(|(_, text)| text);
    let text: String = texts.collect();
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text, |text, (escaped, plain)| text.replace(escaped, plain))
}

#[test]
fn every_suite_row_and_note_is_on_the_page() {
    let report = report();
    let text = words(&render(&report));
    for suite in &report.suites {
        assert!(text.contains(&suite.suite), "{}", suite.suite);
        for row in &suite.section.rows {
            assert!(text.contains(&row.name), "{}", row.name);
        }
        for note in &suite.section.notes {
            assert!(text.contains(note), "{note}");
        }
    }
    for fact in ["AMD EPYC 7B13", "73d7c75", "2026-11-22 12:00:00 UTC", "llama-bench", "98.1"] {
        assert!(text.contains(fact), "{fact}");
    }
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_else() {
    let page = render(&report());
    let elements = elements(&page);
    for name in ["script", "link", "img", "iframe", "object", "a", "form"] {
        assert!(!elements.contains(&name), "{name}");
    }
    for part in ["http:", "https:", "//", "url(", "@import", "src=", "href=", "onload"] {
        assert!(!page.contains(part), "{part}");
    }
    assert!(page.contains("content=\"default-src &#39;none&#39;; style-src"), "no policy");
    assert!(words(&page).contains("<script>alert(1)</script> & \"quotes\""));
}

#[test]
fn what_does_not_hold_comes_first() {
    let page = words(&render(&report()));
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is not there"));
    assert!(place("12 of 13 targets") < place("3 do not hold"), "{page}");
    assert!(place("3 do not hold") < place("semantic / best peer"));
    assert!(place("semantic / best peer") < place("35 hold"));
    assert!(place("35 hold") < place("What was found"));
    assert!(place("What was found") < place("Every figure"));
}

#[test]
fn each_drawing_says_what_it_shows() {
    let page = render(&report());
    let titles: Vec<String> = page
        .split("<figcaption>")
        .skip(1)
        .filter_map(|figure| Some(words(&format!("<{}", figure.split_once("</h3>")?.0))))
        .collect();
    expect![[r#"
        After a restart, an agent of 8,000 tokens answers in 135 ms: 169 × sooner than when its conversation is computed anew
        Over 60 turns and a kill, semantic lets its agents wait for 19.3 s; the best peer takes 2.6 × as long
        95 of 100 turns at semantic begin within 405 ms, at the best peer within 1.22 s
        16 requests together: 351 tokens/s, 4.1 × as many as one alone and 1.5 × as many as llama.cpp
        An agent's second turn begins after 37.2 ms, its first after 419 ms: 11 × sooner
        The second turn of 2048 tokens begins after 68.5 ms here, after 97.0 ms at llama
        semantic reads up to 659 tokens/s, writes up to 93 tokens/s alone and is 1.1 × to 1.3 × as fast as llama.cpp
        A short request that arrives while a long prompt is read begins after 882 ms (alone 395 ms); a running stream pauses for 117 ms at most
        While requests generate, 95 of 100 health checks are answered within 78.1 ms
        KV bits 8/8: 53 % of the memory of 16 bits, perplexity +0.02 %"#]].assert_eq(&titles.join("\n").replace('\u{a0}', " "));
    let drawings = page.matches("role=\"img\"").count();
    assert_eq!(drawings, 8, "four drawings, for wide and for narrow screens");
    assert_eq!(page.matches("<desc>").count(), drawings);
    assert_eq!(page.matches("<title>").count(), drawings + 1);
}

/// The same report, of which one figure was half and another twice as large.
#[test]
fn what_changed_since_an_older_report_is_marked() {
    let mut old = report();
    let batch = old.suites.iter_mut().find(|suite| suite.suite == "batch").expect("batch");
    let halved = |cell: &Cell| Cell::Figure(Figure::new(vec![cell.number().unwrap_or(0.0) / 2.0]));
    let doubled = |cell: &Cell| Cell::Figure(Figure::new(vec![cell.number().unwrap_or(0.0) * 2.0]));
    let rows = &mut batch.section.rows;
    rows[0].cells[0].1 = halved(&rows[0].cells[0].1);
    rows[4].cells[0].1 = doubled(&rows[4].cells[0].1);
    rows.remove(2);
    let new = Report { against: Some(Comparison::of(&old, &report(), 10.0)), ..report() };
    let page = render(&new);
    elements(&page);
    let text = words(&page);
    for part in [
        "1 worse, 1 better,",
        "batch 16 sequences  702.5 → 351.2 tokens/s",
        "batch 1 sequence  43.13 → 86.27 tokens/s",
        "only in this one: batch: 4 sequences",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert_eq!(
        page.matches("<b class=\"bad\">−50\u{a0}%</b>").count(),
        2,
        "in the list and the table"
    );
}

#[test]
fn a_report_without_suites_is_a_page_too() {
    let page = render(&Report { suites: Vec::new(), ..report() });
    elements(&page);
    assert!(!page.contains("<figure"), "{page}");
    assert!(words(&page).contains("Nothing was promised of what was measured."));
}

/// Every number of the report, changed.
fn with_numbers(json: &mut Json, change: &dyn Fn(f64) -> Json) {
    match json {
        Json::Number(number) => *json = change(number.as_f64().expect("a number")),
        Json::Array(items) => items.iter_mut().for_each(|item| with_numbers(item, change)),
        Json::Object(map) => map.values_mut().for_each(|value| with_numbers(value, change)),
        Json::Null | Json::Bool(_) | Json::String(_) => (),
    }
}

#[test]
fn no_number_breaks_a_drawing() {
    for value in [0.0, 1.0, -5.0, 1e-9, 1e300, -1e300] {
        let mut json: Json = serde_json::from_str(REPORT).expect("it is JSON");
        for suite in json["suites"].as_array_mut().expect("suites") {
            with_numbers(&mut suite["rows"], &|_| value.into());
        }
        let report = serde_json::from_value(json).expect("it is a report");
        let page = render(&report) + &ttft(&report).unwrap_or_default();
        elements(&render(&report));
        for word in ["NaN", "inf"] {
            assert!(!words(&page).contains(&format!(" {word} ")), "{value}: {word}");
            assert!(!page.contains(&format!("\"{word}")), "{value}: {word}");
        }
    }
}

/// The variables of a block that are colours, as red, green and blue.
fn colours(block: &str) -> Vec<(&str, [f64; 3])> {
    let colour = |line| -> Option<(&str, [f64; 3])> {
        let (name, value) = str::trim(line).strip_prefix("--")?.split_once(": #")?;
        let value = value.strip_suffix(';')?;
        assert_eq!(value.len(), 6, "{name}");
        let part = |at: usize| u8::from_str_radix(&value[at..at + 2], 16).expect("hexadecimal");
        Some((name, [0, 2, 4].map(|at| f64::from(part(at)))))
    };
    block.lines().filter_map(colour).collect()
}

/// As the Web Content Accessibility Guidelines 2.1 define it.
fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let luminance = |colour: [f64; 3]| {
        let [red, green, blue] = colour.map(|part| match part / 255.0 {
            part if part <= 0.04045 => part / 12.92,
            part => ((part + 0.055) / 1.055).powf(2.4),
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn text_of_every_colour_can_be_read_on_every_ground() {
    assert_eq!(contrast([0.0; 3], [255.0; 3]), 21.0);
    let blocks: Vec<&str> = STYLE.split(":root {").skip(1).collect();
    let [light, dark, ..] = blocks[..] else { panic!("light and dark") };
    for (scheme, block) in [("light", light), ("dark", dark)] {
        let colours = colours(block.split('}').next().expect("a block ends"));
        let named = |start: &'static str| {
            colours.iter().copied().filter(move |(name, _)| name.starts_with(start))
        };
        assert_eq!((named("text").count(), named("ground").count()), (10, 2), "{scheme}");
        for (text, ink) in named("text") {
            for (ground, paper) in named("ground") {
                let contrast = contrast(ink, paper);
                let pair = format!("{scheme}: {text} on {ground} is {contrast:.2}");
                assert!(contrast >= CONTRAST_MIN, "{pair}");
            }
        }
    }
    // Whatever is text has one of them.
    let mut lines = STYLE.lines();
    let own = lines.find(|line| line.contains(" color: ") && !line.contains("--"));
    assert_eq!(own, None);
}
