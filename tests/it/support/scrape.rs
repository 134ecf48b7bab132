//! Reads `/metrics` as a scraper does, strictly.

use std::collections::BTreeMap;

use super::http::{Answer, Server};

/// The series of one look.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrape {
    series: BTreeMap<String, f64>,
    /// By name, with their types.
    families: BTreeMap<String, &'static str>,
}

impl Scrape {
    pub fn of(server: &Server) -> Scrape {
        Scrape::read(&server.get("/metrics"))
    }

    /// Every line is a comment that belongs to its family or a sample of it, and histograms add up.
    pub fn read(answer: &Answer) -> Scrape {
        assert_eq!(answer.status, 200, "{answer:?}");
        let content_type = Some("text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(answer.header("content-type"), content_type);
        let mut series = BTreeMap::new();
        let mut families = BTreeMap::new();
        for line in answer.body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a text");
                assert!(families.insert(name.to_owned(), "").is_none(), "{name} comes twice");
                assert!(help.ends_with('.'), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                let kinds = ["counter", "gauge", "histogram"];
                let kind = kinds.into_iter().find(|known| *known == kind).expect("a known type");
                assert_eq!(families.insert(name.to_owned(), kind), Some(""), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            } else {
                let (sample, value) = line.rsplit_once(' ').expect("a value");
                let name = sample.split('{').next().expect("a name");
                let of_histogram = ["_bucket", "_sum", "_count"];
                let family = of_histogram.iter().find_map(|end| {
                    let family = name.strip_suffix(end)?;
                    (families.get(family) == Some(&"histogram")).then_some(family)
                });
                assert!(families.contains_key(family.unwrap_or(name)), "{line}");
                let value: f64 = value.parse().expect("a number");
                assert!(value.is_finite(), "{line}");
                assert!(series.insert(sample.to_owned(), value).is_none(), "{sample} comes twice");
            }
        }
        let scrape = Scrape { series, families };
        scrape.check_histograms();
        scrape
    }

    fn check_histograms(&self) {
        let counts = self.series.iter().filter_map(|(name, value)| {
            let (family, labels) = name
                .split_once("_count")
                .filter(|(_, rest)| rest.is_empty() || rest.starts_with('{'))?;
            Some((family, labels.trim_matches(['{', '}']), *value))
        });
        for (family, labels, count) in counts {
            let comma = if labels.is_empty() { "" } else { "," };
            let infinite = format!("{family}_bucket{{{labels}{comma}le=\"+Inf\"}}");
            assert_eq!(self.series.get(&infinite), Some(&count), "{infinite}");
            let start = format!("{family}_bucket{{{labels}{comma}le=");
            let buckets = self.series.iter().filter(|(name, _)| name.starts_with(&start));
            assert!(buckets.clone().all(|(_, value)| *value <= count), "{start}");
        }
    }

    /// Of a series that is there.
    pub fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} is not there"))
    }

    /// Zero if it is not there.
    pub fn count(&self, series: &str) -> f64 {
        self.series.get(series).copied().unwrap_or_default()
    }

    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.families.keys().map(String::as_str)
    }

    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.series.keys().map(String::as_str)
    }

    /// Whether there is a series of this name, whatever its labels.
    pub fn has(&self, name: &str) -> bool {
        self.series.keys().any(|series| series.split('{').next() == Some(name))
    }
}
