//! Reads what the tests need of Markdown: blocks of code, headings, links, rows of tables.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A block of code, fenced or indented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Of its first line, from 1.
    pub line: usize,
    /// What a fence says it is; empty without a fence.
    pub language: String,
    pub text: String,
}

/// A link to somewhere in this repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub line: usize,
    /// Empty if it is a place in the same file.
    pub path: String,
    pub anchor: Option<String>,
}

impl Block {
    pub fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }
}

/// Every block, without the blanks that indent it.
pub fn blocks(markdown: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut fenced: Option<Block> = None;
    let mut indented: Option<Block> = None;
    let mut is_after_blank = true;
    for (index, line) in markdown.lines().enumerate() {
        let new = |language: &str, text: &str| Block {
            line: index + 1,
            language: language.to_owned(),
            text: text.to_owned(),
        };
        if let Some(fence) = line.strip_prefix("```") {
            match fenced.take() {
                Some(block) => found.push(block),
                None => fenced = Some(Block { line: index + 2, ..new(fence, "") }),
            }
        } else if let Some(block) = &mut fenced {
            block.text.push_str(&format!("{line}\n"));
        } else if let Some(text) = line.strip_prefix("    ") {
            match &mut indented {
                Some(block) => block.text.push_str(&format!("{text}\n")),
                // Further lines of a paragraph or of a list may be indented, too.
                None if is_after_blank => indented = Some(new("", &format!("{text}\n"))),
                None => (),
            }
        } else {
            found.extend(indented.take());
        }
        is_after_blank = line.trim().is_empty();
    }
    found.extend(indented);
    found
}

/// The places that links may name, as GitHub makes them of headings.
pub fn anchors(markdown: &str) -> BTreeSet<String> {
    let headings = without_fences(markdown).filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Every link but those to other sites.
pub fn links(markdown: &str) -> Vec<Link> {
    let mut found = Vec::new();
    for (line, text) in without_fences(markdown) {
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (path, anchor) = match target.split_once('#') {
                Some((path, anchor)) => (path, Some(anchor.to_owned())),
                None => (target, None),
            };
            found.push(Link { line, path: path.to_owned(), anchor });
        }
    }
    found
}

fn without_fences(markdown: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_inside = false;
    markdown.lines().enumerate().filter_map(move |(index, line)| {
        if line.starts_with("```") {
            is_inside = !is_inside;
        }
        (!is_inside).then_some((index + 1, line))
    })
}

/// The rows under a heading, each with its first cell, and without the head.
pub fn first_cells<'a>(markdown: &'a str, heading: &str) -> Vec<&'a str> {
    let (_, section) = markdown.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")).skip(2);
    rows.filter_map(|row| row.split(" |").next()).collect()
}

/// Every Markdown file of the project, relative to its root.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).expect("a folder") {
            let path = item.expect("an item").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if name.ends_with(".md") {
                files.push(path.strip_prefix(root).expect("it is below").to_owned());
            }
        }
    }
    files.sort();
    files
}
