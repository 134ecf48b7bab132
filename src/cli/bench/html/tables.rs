//! Every row of every suite, and the notes.

use super::super::changes::Comparison;
use super::super::report::{Cell, Report, Row, SuiteReport};
use super::against::draw_mark;
use super::markup::Markup;
use super::number::{Heading, SPACE, exact, heading, number};

/// A table that is not of rows: headings, and lines of as many texts.
pub struct Grid {
    pub headings: Vec<String>,
    pub lines: Vec<Vec<String>>,
}

pub fn draw(report: &Report, main: &mut Markup) {
    main.element("section", &[("aria-labelledby", &"tables")], |section| {
        section.words("h2", &[("id", &"tables")], "Every figure");
        section.words(
            "p",
            &[("class", &"about")],
            "Medians, with the lowest and the highest run in small figures.",
        );
        for suite in &report.suites {
            draw_suite(suite, report.against.as_ref(), section);
        }
    });
}

fn draw_suite(suite: &SuiteReport, against: Option<&Comparison>, section: &mut Markup) {
    section.element("section", &[("class", &"suite")], |part| {
        part.words("h3", &[], &suite.suite);
        let rows = &suite.section.rows;
        for rows in rows.chunk_by(|a, b| fields(a).eq(fields(b))) {
            draw_table(&suite.suite, rows, against, part);
        }
        if !suite.section.notes.is_empty() {
            part.element("ul", &[("class", &"notes")], |list| {
                for note in &suite.section.notes {
                    list.words("li", &[], note);
                }
            });
        }
    });
}

fn fields(row: &Row) -> impl Iterator<Item = &str> {
    row.cells.iter().map(|(field, _)| &**field)
}

/// A box that scrolls when the table is wider than the screen, also by keyboard.
fn boxed(label: &str, page: &mut Markup, content: impl FnOnce(&mut Markup)) {
    page.element(
        "div",
        &[("class", &"box"), ("role", &"region"), ("aria-label", &label), ("tabindex", &0)],
        |inside| inside.element("table", &[], content),
    );
}

fn draw_table(suite: &str, rows: &[Row], against: Option<&Comparison>, part: &mut Markup) {
    let label = format!("{suite}: {}", rows[0].name);
    boxed(&label, part, |table| {
        table.element("thead", &[], |head| {
            head.element("tr", &[], |line| {
                line.element("td", &[], |_| ());
                for field in fields(&rows[0]) {
                    line.element("th", &[("scope", &"col")], |cell| draw_heading(field, cell));
                }
            });
        });
        table.element("tbody", &[], |body| {
            for row in rows {
                body.element("tr", &[], |line| {
                    line.element("th", &[("scope", &"row")], |cell| cell.name(&row.name));
                    for (field, cell) in &row.cells {
                        let change = against.and_then(|it| it.change(suite, &row.name, field));
                        line.element("td", &[], |inside| {
                            draw_cell(cell, inside);
                            if let Some(change) = change {
                                inside.text(" ");
                                draw_mark(change, inside);
                            }
                        });
                    }
                });
            }
        });
    });
}

fn draw_heading(field: &str, page: &mut Markup) {
    let Heading { words, unit } = heading(field);
    page.text(&words);
    if let Some(unit) = unit {
        if !words.is_empty() {
            page.text(SPACE);
        }
        page.words("span", &[("class", &"unit")], unit);
    }
}

pub fn draw_cell(cell: &Cell, page: &mut Markup) {
    match cell {
        Cell::Figure(figure) => {
            page.text(&number(figure.median()));
            // One run has no range.
            if figure.runs().len() > 1 {
                let range = format!("{}–{}", number(figure.min()), number(figure.max()));
                page.text(" ");
                page.words("small", &[], &range);
            }
        }
        Cell::Number(value, _) => page.text(&exact(*value)),
        Cell::Count(count) => page.text(&number(*count as f64)),
        Cell::Series(values) => {
            page.text(&format!("{} values", number(values.len() as f64)));
        }
        Cell::Verdict(_) | Cell::Text(_) => match cell.holds() {
            Some(true) => page.words("span", &[("class", &"good")], "✓ holds"),
            Some(false) => page.words("b", &[("class", &"bad")], "✕ does not hold"),
            None => page.text(&cell.text()),
        },
    }
}

pub fn draw_grid(label: &str, grid: &Grid, page: &mut Markup) {
    boxed(label, page, |table| {
        table.element("thead", &[], |head| {
            head.element("tr", &[], |line| {
                for heading in &grid.headings {
                    line.words("th", &[("scope", &"col")], heading);
                }
            });
        });
        table.element("tbody", &[], |body| {
            for texts in &grid.lines {
                body.element("tr", &[], |line| {
                    for (index, text) in texts.iter().enumerate() {
                        match index {
                            0 => line.words("th", &[("scope", &"row")], text),
                            _ => line.words("td", &[], text),
                        }
                    }
                });
            }
        });
    });
}
