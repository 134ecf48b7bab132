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

#[test]
fn a_report_from_a_file_is_a_picture() {
    let machine = Machine::new();
    let report = data("report.json").display().to_string();
    let ran = machine.run(&["bench", "--from", &report, "--plot", "ttft.svg"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let picture = std::fs::read_to_string(machine.path("ttft.svg")).expect("a picture");
    assert!(picture.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""), "{picture}");
    assert!(picture.contains("an agent of 8,000 tokens answers in"), "{picture}");
    let printed = machine.run(&["bench", "--from", &report, "--plot", "-", "--quiet"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    assert_eq!(printed.stdout, picture);
}

/// A report that has all but what is drawn, and a run that would not measure it.
#[test]
fn a_picture_of_what_is_not_measured_is_refused_before_anything_is_written() {
    let machine = Machine::new();
    let text = std::fs::read_to_string(data("report.json")).expect("a file");
    let text = text.replace("\"suite\": \"restore\"", "\"suite\": \"other\"");
    std::fs::write(machine.path("other.json"), text).expect("a file");
    let ran = machine.run(&["bench", "--from", "other.json", "--plot", "ttft.svg", "--quiet"]);
    let message = "the report has no times of suite `restore`, which --plot draws";
    assert!(ran.stderr.contains(message), "{ran:?}");
    assert_eq!((ran.code, machine.path("ttft.svg").exists()), (Some(1), false));
    let ran = machine.run(&["bench", "--suite", "decode", "--plot", "ttft.svg"]);
    let message = "--plot draws the suite `restore`, which does not run";
    assert!(ran.stderr.contains(message), "{ran:?}");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(64), ""));
    let ran = machine.run(&["bench", "--json", "a", "--html", "b", "--plot", "a"]);
    assert!(ran.stderr.contains("--json and --plot cannot go to the same place"), "{ran:?}");
    assert_eq!(ran.code, Some(64));
}
