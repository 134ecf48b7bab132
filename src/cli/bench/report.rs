//! What a run found, as tables and as JSON. A table's headings are the JSON's names.
//!
//! The JSON is what other runs are compared with and what the page is made of, so a report that
//! was read from a file is the one that was written.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

pub use super::cell::{Cell, verdict};
use super::changes::{Change, Comparison};

/// Grows when a reader of older reports would misread a new one.
pub const SCHEMA: u32 = 1;

/// What a row of another program's is marked with in JSON.
const PEERS: &str = "of_peer";

/// Facts by name, as they are shown.
pub type Facts = Map<String, Json>;

pub fn facts<const N: usize>(facts: [(&str, Json); N]) -> Facts {
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Everything that a run found, and on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub schema: u32,
    /// When it was begun, in UTC.
    pub began: String,
    pub machine: Facts,
    pub model: Facts,
    pub settings: Facts,
    /// Programs that were measured beside ours.
    pub peer: Option<Facts>,
    pub suites: Vec<SuiteReport>,
    /// How it compares with an older one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<Comparison>,
}

/// The findings of a suite, with its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteReport {
    pub suite: String,
    #[serde(flatten)]
    pub section: Section,
}

/// The findings of one suite.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    pub rows: Vec<Row>,
    /// What the reader must know about the rows.
    pub notes: Vec<String>,
}

/// A line of the table. Rows with other fields than the one above begin a table of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Map<String, Json>", try_from = "Map<String, Json>")]
pub struct Row {
    pub name: String,
    /// What another program did: how fast it is is no merit or fault of ours.
    pub is_peers: bool,
    pub cells: Vec<(Cow<'static, str>, Cell)>,
}

impl Report {
    /// All tables, with what was measured above them.
    pub fn tables(&self) -> String {
        let text = |facts: &Facts, name: &str| match facts.get(name) {
            Some(Json::String(text)) => text.clone(),
            Some(json) => json.to_string(),
            None => "?".to_owned(),
        };
        let (machine, model, settings) = (&self.machine, &self.model, &self.settings);
        let mut all = format!(
            "semantic {}, MLX {}, measured {}\n\
             model   {}, KV bits {}\n\
             machine {}, {} threads, {}, device {}\n",
            text(machine, "semantic"),
            text(machine, "mlx"),
            self.began,
            text(model, "file"),
            text(settings, "kv_bits"),
            text(machine, "cpu"),
            text(machine, "threads"),
            text(machine, "instruction_set"),
            text(settings, "device"),
        );
        for SuiteReport { suite, section } in &self.suites {
            let changes: Vec<Change> = match &self.against {
                Some(against) => against.of_suite(suite),
                None => Vec::new(),
            };
            all += &section.table(suite, &changes);
        }
        all
    }
}

impl Row {
    pub fn new(name: impl Into<String>) -> Row {
        Row { name: name.into(), is_peers: false, cells: Vec::new() }
    }

    /// Another program's.
    pub fn of_peer(self) -> Row {
        Row { is_peers: true, ..self }
    }

    pub fn with(mut self, field: impl Into<Cow<'static, str>>, cell: Cell) -> Row {
        self.cells.push((field.into(), cell));
        self
    }

    pub fn get(&self, field: &str) -> Option<&Cell> {
        self.cells.iter().find(|(name, _)| name == field).map(|(_, cell)| cell)
    }

    fn headings(&self) -> Vec<String> {
        let fields = self.cells.iter().map(|(field, _)| field.clone().into_owned());
        std::iter::once(String::new()).chain(fields).collect()
    }

    /// With a mark where a change is worth one.
    fn texts(&self, changes: &[Change]) -> Vec<String> {
        let cells = self.cells.iter().map(|(field, cell)| {
            let is_it = |change: &&Change| change.row == self.name && change.field == *field;
            let suffix = changes.iter().find(is_it).and_then(Change::suffix);
            cell.text() + &suffix.unwrap_or_default()
        });
        std::iter::once(self.name.clone()).chain(cells).collect()
    }
}

impl From<Row> for Map<String, Json> {
    fn from(row: Row) -> Map<String, Json> {
        let mut map = Map::new();
        map.insert("name".to_owned(), Json::String(row.name));
        if row.is_peers {
            map.insert(PEERS.to_owned(), Json::Bool(true));
        }
        for (field, cell) in row.cells {
            let json = serde_json::to_value(cell).expect("numbers and texts are JSON");
            map.insert(field.into_owned(), json);
        }
        map
    }
}

impl TryFrom<Map<String, Json>> for Row {
    type Error = String;

    fn try_from(mut map: Map<String, Json>) -> Result<Row, String> {
        let Some(Json::String(name)) = map.shift_remove("name") else {
            return Err("a row has no name".to_owned());
        };
        let mut row = Row::new(name);
        row.is_peers = map.shift_remove(PEERS) == Some(Json::Bool(true));
        for (field, json) in map {
            let cell = serde_json::from_value(json)
                .map_err(|error| format!("row {:?}, {field}: {error}", row.name))?;
            row = row.with(field, cell);
        }
        Ok(row)
    }
}

impl Section {
    /// The section as text, with an empty line before it, and with marks where these changes, which
    /// are the suite's, are worth one.
    pub fn table(&self, suite: &str, changes: &[Change]) -> String {
        let mut text = format!("\n{suite}\n");
        for rows in self.rows.chunk_by(|a, b| a.headings() == b.headings()) {
            let mut lines = vec![rows[0].headings()];
            lines.extend(rows.iter().map(|row| row.texts(changes)));
            text += &aligned(&lines);
        }
        for note in &self.notes {
            text += &format!("  ({note})\n");
        }
        text
    }
}

/// The first column to the left, the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut cells = line.iter().zip(&widths);
        if let Some((name, width)) = cells.next() {
            text += &format!("  {name:width$}");
        }
        for (cell, width) in cells {
            text += &format!("  {cell:>width$}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::figure::Figure;
    use super::*;

    fn section() -> Section {
        let row = |name: &str, runs: &[f64]| {
            Row::new(name)
                .with("tokens_per_s", Cell::Figure(Figure::new(runs.to_vec())))
                .with("ratio", Cell::Number(1.234, 2))
        };
        Section {
            rows: vec![
                row("128 tokens", &[1.0, 2.0, 3.0]),
                row("4096 tokens", &[100.0]),
                Row::new("other").of_peer().with("count", Cell::Count(7)),
            ],
            notes: vec!["read this".to_owned()],
        }
    }

    #[test]
    fn a_table_is_aligned_and_other_fields_begin_another() {
        expect![[r#"

            prefill
                                  tokens_per_s  ratio
              128 tokens      2.00 (1.00–3.00)   1.23
              4096 tokens  100.0 (100.0–100.0)   1.23
                     count
              other      7
              (read this)
        "#]]
        .assert_eq(&section().table("prefill", &[]));
    }

    #[test]
    fn a_series_is_counted_in_the_table() {
        let row = Row::new("race").with("ttft_by_turn_ms", Cell::Series(vec![2.0, 1.5]));
        let section = Section { rows: vec![row], notes: Vec::new() };
        expect![[r#"

            agents
                    ttft_by_turn_ms
              race         2 values
        "#]]
        .assert_eq(&section.table("agents", &[]));
    }

    #[test]
    fn json_has_the_same_names() {
        let report = SuiteReport { suite: "prefill".to_owned(), section: section() };
        let json = serde_json::to_string(&report).expect("it is JSON");
        expect![[r#"{"suite":"prefill","rows":[{"name":"128 tokens","tokens_per_s":{"median":2.0,"min":1.0,"max":3.0,"p50":2.0,"p95":3.0,"p99":3.0,"runs":[1.0,2.0,3.0]},"ratio":1.234},{"name":"4096 tokens","tokens_per_s":{"median":100.0,"min":100.0,"max":100.0,"p50":100.0,"p95":100.0,"p99":100.0,"runs":[100.0]},"ratio":1.234},{"name":"other","of_peer":true,"count":7}],"notes":["read this"]}"#]].assert_eq(&json);
    }

    #[test]
    fn a_report_that_was_written_is_read_as_it_was() {
        let suites = vec![SuiteReport { suite: "prefill".to_owned(), section: section() }];
        let facts = |name: &str| Facts::from_iter([(name.to_owned(), "x".into())]);
        let report = Report {
            schema: SCHEMA,
            began: "2026-01-02T03:04:05Z".to_owned(),
            machine: facts("cpu"),
            model: facts("file"),
            settings: facts("runs"),
            peer: None,
            suites,
            against: None,
        };
        let json = serde_json::to_string(&report).expect("it is JSON");
        let mut read: Report = serde_json::from_str(&json).expect("it is a report");
        // How many decimals a table shows is not in the JSON.
        for row in &mut read.suites[0].section.rows {
            for (_, cell) in &mut row.cells {
                if let Cell::Number(_, decimals) = cell {
                    *decimals = 2;
                }
            }
        }
        assert_eq!(read, report);
        let broken = json.replace("\"name\":\"other\",", "");
        let error = serde_json::from_str::<Report>(&broken).unwrap_err().to_string();
        assert!(error.starts_with("a row has no name"), "{error}");
    }
}
