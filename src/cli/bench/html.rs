//! A report as one page that needs no other file.

use super::report::{Report, SuiteReport};

/// The whole page.
pub fn render(report: &Report) -> String {
    let suites: String = report.suites.iter().map(suite).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>semantic bench</title>\n\
         <p>{}</p>\n{suites}</html>\n",
        escaped(&report.began)
    )
}

fn suite(report: &SuiteReport) -> String {
    format!("<pre>{}</pre>\n", escaped(&report.section.table(&report.suite)))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
