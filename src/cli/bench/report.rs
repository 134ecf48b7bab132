//! What a suite found, as a table or as JSON. A table's headings are the JSON's names.

use serde_json::{Map, Value as Json, json};

use super::figure::Figure;

/// The findings of one suite.
#[derive(Debug, Default)]
pub struct Section {
    pub rows: Vec<Row>,
    /// What the reader must know about the rows.
    pub notes: Vec<String>,
}

/// A line of the table. Rows with other fields than the one above begin a table of their own.
#[derive(Debug)]
pub struct Row {
    name: String,
    cells: Vec<(&'static str, Cell)>,
}

/// A value with the way it is shown.
#[derive(Debug)]
pub enum Cell {
    Figure(Figure),
    /// A number, and how many decimals the table shows.
    Number(f64, usize),
    Count(u64),
    /// One value after another, in the order in which they were measured; the table counts them.
    Series(Vec<f64>),
    Text(&'static str),
}

impl Row {
    pub fn new(name: impl Into<String>) -> Row {
        Row { name: name.into(), cells: Vec::new() }
    }

    pub fn with(mut self, field: &'static str, cell: Cell) -> Row {
        self.cells.push((field, cell));
        self
    }

    fn headings(&self) -> Vec<String> {
        let fields = self.cells.iter().map(|(field, _)| (*field).to_owned());
        std::iter::once(String::new()).chain(fields).collect()
    }

    fn texts(&self) -> Vec<String> {
        let cells = self.cells.iter().map(|(_, cell)| cell.text());
        std::iter::once(self.name.clone()).chain(cells).collect()
    }

    fn json(&self) -> Json {
        let mut map = Map::new();
        map.insert("name".to_owned(), json!(self.name));
        for (field, cell) in &self.cells {
            map.insert((*field).to_owned(), cell.json());
        }
        Json::Object(map)
    }
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Cell::Figure(figure) => {
                let digits = if figure.median() < 10.0 { 2 } else { 1 };
                let (median, min, max) = (figure.median(), figure.min(), figure.max());
                format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
            }
            Cell::Number(number, decimals) => format!("{number:.decimals$}"),
            Cell::Count(count) => count.to_string(),
            Cell::Series(values) => format!("{} values", values.len()),
            Cell::Text(text) => (*text).to_owned(),
        }
    }

    fn json(&self) -> Json {
        match self {
            Cell::Figure(figure) => json!({
                "median": figure.median(),
                "min": figure.min(),
                "max": figure.max(),
            }),
            Cell::Number(number, _) => json!(number),
            Cell::Count(count) => json!(count),
            Cell::Series(values) => json!(values),
            Cell::Text(text) => json!(text),
        }
    }
}

/// What became of a promise.
pub fn verdict(holds: bool) -> &'static str {
    match holds {
        true => "holds",
        false => "does not hold",
    }
}

impl Section {
    pub fn json(&self, suite: &str) -> Json {
        let rows: Vec<Json> = self.rows.iter().map(Row::json).collect();
        json!({ "suite": suite, "rows": rows, "notes": self.notes })
    }

    /// The section as text, with an empty line before it.
    pub fn table(&self, suite: &str) -> String {
        let mut text = format!("\n{suite}\n");
        for rows in self.rows.chunk_by(|a, b| a.headings() == b.headings()) {
            let mut lines = vec![rows[0].headings()];
            lines.extend(rows.iter().map(Row::texts));
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
                Row::new("other").with("count", Cell::Count(7)),
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
        .assert_eq(&section().table("prefill"));
    }

    #[test]
    fn a_series_is_counted_in_the_table_and_whole_in_json() {
        let row = Row::new("race").with("ttft_by_turn_ms", Cell::Series(vec![2.0, 1.5]));
        let section = Section { rows: vec![row], notes: Vec::new() };
        expect![[r#"

            agents
                    ttft_by_turn_ms
              race         2 values
        "#]]
        .assert_eq(&section.table("agents"));
        let json = section.json("agents");
        assert_eq!(json["rows"][0]["ttft_by_turn_ms"], json!([2.0, 1.5]));
    }

    #[test]
    fn json_has_the_same_names() {
        expect![[r#"{"suite":"prefill","rows":[{"name":"128 tokens","tokens_per_s":{"median":2.0,"min":1.0,"max":3.0},"ratio":1.234},{"name":"4096 tokens","tokens_per_s":{"median":100.0,"min":100.0,"max":100.0},"ratio":1.234},{"name":"other","count":7}],"notes":["read this"]}"#]]
        .assert_eq(&section().json("prefill").to_string());
    }
}
