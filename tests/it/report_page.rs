//! The page of a report that is there: made without measuring, without a model, without a network.

use crate::support::cli::Machine;
use crate::support::golden::data;

/// What the page has to have; more of it is tested where it is made.
const PARTS: &[&str] = &[
    "<!DOCTYPE html>",
    "12 of 13 targets and 23 of 25 promises hold.",
    "After a restart, an agent of 8,000 tokens answers in",
    "sequential_<wbr/>requests_<wbr/>same_<wbr/>agent, 256 tokens",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "</html>",
];

#[test]
fn a_report_from_a_file_is_a_page() {
    let machine = Machine::new();
    let report = data("report.json").display().to_string();
    let ran = machine.run(&["bench", "--from", &report, "--html", "page.html"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let page = std::fs::read_to_string(machine.path("page.html")).expect("a page");
    for part in PARTS {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<script"), "nothing on it runs");
    let printed = machine.run(&["bench", "--from", &report, "--html", "-", "--quiet"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    assert_eq!(printed.stdout, page);
}
