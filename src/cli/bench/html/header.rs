//! What was measured, on what, with which settings; and at the end of the page, how to read it.

use serde_json::Value as Json;

use super::super::report::{Facts, Report};
use super::markup::Markup;
use super::number::{Heading, heading, number, size, words};
use super::verdicts;

/// How the figures came to be; a reader judges them by it.
const METHOD: &[&str] = &[
    "A figure is the median of its runs, with the lowest and the highest beside it. What is \
     compared alternates within one run: ours, theirs, ours, theirs. Where there are rounds, a first one \
     is not counted; the race of the agents is one run.",
    "p50, p95 and p99 are runs that were: the smallest that 50, 95 or 99 of 100 runs do not \
     exceed.",
    "Everything was kept in folders of its own, which are gone.",
];

pub fn title(report: &Report) -> String {
    format!("semantic bench: {}", model(report))
}

fn model(report: &Report) -> String {
    let named = |name: &str| report.model.get(name).and_then(Json::as_str);
    named("name").or_else(|| named("file")).unwrap_or("a model").to_owned()
}

pub fn draw(report: &Report, body: &mut Markup) {
    body.element("header", &[], |header| {
        header.element("p", &[("class", &"eyebrow")], |line| {
            for part in eyebrow(report) {
                line.words("span", &[], &part);
                line.raw(" ");
            }
        });
        header.words("h1", &[], &model(report));
        header.words("p", &[("class", &"lead")], &verdicts::summary(report));
        header.element("div", &[("class", &"facts")], |facts| {
            let began = Json::from(moment(&report.began));
            let began = Facts::from_iter([("began".to_owned(), began)]);
            let groups = [
                ("Run", Some(&began), Some(&report.settings)),
                ("Machine", Some(&report.machine), None),
                ("Model", Some(&report.model), None),
                ("Peer", report.peer.as_ref(), None),
            ];
            for (name, first, second) in groups {
                let all: Vec<_> = [first, second].into_iter().flatten().flatten().collect();
                if !all.is_empty() {
                    facts.element("section", &[], |group| draw_facts(name, &all, group));
                }
            }
        });
    });
}

/// The program and the day: what tells this page from another about the same model.
fn eyebrow(report: &Report) -> Vec<String> {
    let fact = |name: &str| report.machine.get(name).and_then(Json::as_str);
    let version = fact("semantic").map(|version| format!("semantic bench {version}"));
    let day = report.began.split('T').next().unwrap_or_default().to_owned();
    let all = [version, fact("cpu").map(str::to_owned), Some(day)];
    all.into_iter().flatten().filter(|part| !part.is_empty()).collect()
}

/// Which model was measured, by what, where and when, as a sentence.
pub fn origin(report: &Report) -> String {
    format!("{}; {}.", model(report), eyebrow(report).join(", "))
}

/// `2026-01-02T03:04:05Z` as it is read; anything else stays as it is.
fn moment(began: &str) -> String {
    match began.strip_suffix('Z').and_then(|it| it.split_once('T')) {
        Some((day, time)) => format!("{day} {time} UTC"),
        None => began.to_owned(),
    }
}

fn draw_facts(name: &str, facts: &[(&String, &Json)], group: &mut Markup) {
    group.words("h2", &[], name);
    group.element("dl", &[], |list| {
        for (name, value) in facts {
            let Some((name, value)) = fact(name, value) else { continue };
            list.element("div", &[], |pair| {
                pair.words("dt", &[], &name);
                pair.words("dd", &[], &value);
            });
        }
    });
}

/// A fact as it is read; `None` if there is nothing to read.
fn fact(name: &str, value: &Json) -> Option<(String, String)> {
    let Heading { words: name, unit } = match (value, name.strip_suffix("_bytes")) {
        (Json::Number(bytes), Some(stem)) => {
            return Some((format!("{} size", words(stem)), size(bytes.as_f64()?)));
        }
        (Json::Number(_), None) => heading(name),
        _ => Heading { words: words(name), unit: None },
    };
    let value = match value {
        Json::Null => return None,
        Json::String(text) => text.clone(),
        Json::Number(it) => number(it.as_f64()?),
        Json::Bool(true) => "yes".to_owned(),
        Json::Bool(false) => "no".to_owned(),
        Json::Array(items) => {
            let told = |item: &Json| fact("", item).map(|(_, value)| value);
            items.iter().filter_map(told).collect::<Vec<_>>().join(", ")
        }
        Json::Object(map) => {
            let told = |(name, value): (&String, &Json)| {
                fact(name, value).map(|(name, value)| format!("{name} {value}"))
            };
            let told: Vec<String> = map.iter().filter_map(told).collect();
            (!told.is_empty()).then(|| told.join(", "))?
        }
    };
    let unit = unit.map(|unit| format!(" {unit}")).unwrap_or_default();
    Some((name, format!("{value}{unit}")))
}

pub fn draw_method(report: &Report, body: &mut Markup) {
    body.element("footer", &[], |footer| {
        footer.words("h2", &[], "How it was measured");
        for paragraph in METHOD {
            footer.words("p", &[], paragraph);
        }
        let version = report.machine.get("semantic").and_then(Json::as_str).unwrap_or_default();
        footer.words("p", &[], &format!("Made by semantic bench {version}."));
    });
}
