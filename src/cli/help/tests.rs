//! What the help of every command keeps to, and that `completions` and `man` have what clap says.
//!
//! `UPDATE_EXPECT=1 cargo test --lib cli::help` writes those two folders anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use expect_test::expect_file;

use super::*;
use crate::cli::{Arguments, command};

const LINES_MAX: usize = 45;
const SHELLS: [Shell; 4] = [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell];

/// Every command that is shown, with what is typed for it after the program's name.
fn all(command: &Command) -> Vec<(String, Command)> {
    fn add(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
        found.push((path.to_owned(), command.clone()));
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            add(inner, format!("{path} {}", inner.get_name()).trim_start(), found);
        }
    }
    let mut found = Vec::new();
    add(command, "", &mut found);
    found
}

fn built() -> Command {
    let mut command = command().term_width(COLUMNS_MAX);
    command.build();
    command
}

/// What the user reads who asks for it.
fn help(path: &str, flag: &str) -> String {
    let arguments = ["semantic"].into_iter().chain(path.split_whitespace()).chain([flag]);
    let answer = command().term_width(COLUMNS_MAX).try_get_matches_from(arguments);
    answer.expect_err("help is an error to clap").to_string()
}

#[test]
fn the_help_of_every_command_fits_on_a_screen() {
    let mut broken = Vec::new();
    for (path, _) in all(&built()) {
        let help_text = help(&path, "--help");
        assert_eq!(help_text, help(&path, "-h"), "{path}");
        let lines = help_text.lines().count();
        let columns = help_text.lines().map(|line| line.chars().count()).max();
        if lines > LINES_MAX || columns > Some(COLUMNS_MAX) {
            broken.push(format!("semantic {path}: {lines} lines, {columns:?} columns"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn help_all_has_every_flag_and_its_variable() {
    for (path, command) in all(&built()) {
        let all = help(&path, "--help-all");
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let about = format!("semantic {path}: {}", argument.get_id());
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "{about} says nothing of itself");
            if let Some(long) = argument.get_long() {
                assert!(all.contains(&format!("--{long}")), "{about}");
            }
            if let Some(variable) = argument.get_env() {
                assert!(all.contains(&format!("[env: {}]", variable.display())), "{about}");
            }
        }
    }
}

#[test]
fn a_man_page_says_something_of_every_flag() {
    for (path, command) in all(&built()) {
        let mut page = Vec::new();
        Man::new(command).render(&mut page).expect("memory takes it");
        let page = String::from_utf8(page).expect("it is text");
        let lines: Vec<&str> = page.lines().collect();
        for (index, _) in lines.iter().enumerate().filter(|(_, line)| **line == ".TP") {
            let said = lines.get(index + 2).is_some_and(|line| !line.trim().is_empty());
            assert!(said, "semantic {path}: {:?}", lines.get(index + 1));
        }
    }
}

#[test]
fn every_command_has_examples_that_it_would_take() {
    for (path, _) in all(&built()) {
        let help = help(&path, "--help");
        let examples = examples(&path);
        assert!((2..=4).contains(&examples.len()), "semantic {path}: {}", examples.len());
        for example in examples {
            assert!(help.contains(example), "semantic {path}: {example}");
            let words = words(example);
            let typed = format!("semantic {path}");
            assert!(words.join(" ").starts_with(typed.trim_end()), "{example}");
            let parsed = command().try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
        }
    }
}

/// The lines of code and the words in backticks that begin with the program's name.
fn commands_of(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in document.lines() {
        let code = line.strip_prefix("    ").map(str::trim_start);
        match code.filter(|code| code.starts_with("semantic ")) {
            Some(code) => found.push(code.split(" #").next().unwrap_or(code).trim_end().to_owned()),
            None => {
                let quoted = line.split('`').skip(1).step_by(2);
                found.extend(quoted.filter(|it| it.starts_with("semantic ")).map(str::to_owned));
            }
        }
    }
    found
}

#[test]
fn the_program_would_take_every_command_of_the_documents() {
    let documents = [
        include_str!("../../../README.md"),
        include_str!("../../../CHANGELOG.md"),
        include_str!("../../../docs/benchmarks.md"),
        include_str!("../../../docs/benchmarks/agents.md"),
        include_str!("../../../docs/figures.md"),
        include_str!("../../../docs/http-api.md"),
        include_str!("../../../docs/operating.md"),
    ];
    let all: Vec<String> = documents.iter().flat_map(|it| commands_of(it)).collect();
    assert!(all.len() > 30, "{all:?}");
    const NAMED_ONLY: [ErrorKind; 3] = [
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
        ErrorKind::MissingRequiredArgument,
        ErrorKind::MissingSubcommand,
    ];
    // `COMMAND` is any; the shell's lines go on after these two.
    let is_whole = |line: &&String| !line.contains("COMMAND") && !line.ends_with(['\\', '|']);
    for line in all.iter().filter(is_whole) {
        match command().try_get_matches_from(words(line)) {
            // It asks for help, or names a command and no more of it.
            Err(error) if error.exit_code() == 0 || NAMED_ONLY.contains(&error.kind()) => (),
            Err(error) => panic!("{line}: {error}"),
            Ok(_) => (),
        }
    }
}

#[test]
fn every_page_is_of_a_command_and_every_group_of_its_flags() {
    let commands = all(&Arguments::command());
    for page in PAGES {
        let (_, command) =
            commands.iter().find(|(path, _)| path == page.path).expect("the command is there");
        let ids: BTreeSet<&str> =
            command.get_arguments().map(|argument| argument.get_id().as_str()).collect();
        let named = page.groups.iter().map(|(_, ids)| ids).chain(page.rare).copied().flatten();
        for name in named {
            assert!(ids.contains(name), "semantic {}: no flag {name}", page.path);
        }
    }
}

/// A command line's words, of which the first is the program's name. What comes before it is another
/// program's, what follows `>` the shell's.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            c => words.last_mut().expect("it begins with one").push(c),
        }
    }
    assert!(!is_quoted, "{line}");
    let ours = words.iter().skip_while(|word| *word != "semantic");
    ours.take_while(|word| *word != ">").cloned().collect()
}

#[test]
fn completions_are_those_of_the_commands() {
    for shell in SHELLS {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command(), "semantic", &mut script);
        let script = String::from_utf8(script).expect("text");
        let name = clap_complete::Generator::file_name(&shell, "semantic");
        expect_file![root().join("completions").join(name)].assert_eq(&script);
    }
    let names = SHELLS.map(|shell| clap_complete::Generator::file_name(&shell, "semantic"));
    assert_eq!(names_in("completions"), names.into_iter().collect());
}

#[test]
fn the_man_pages_are_those_of_the_commands() {
    let mut names = BTreeSet::new();
    let mut command = laid_out(Arguments::command()).version(env!("CARGO_PKG_VERSION"));
    command.build();
    for (path, command) in all(&command) {
        let variables: Vec<String> = command
            .get_arguments()
            .filter_map(|argument| Some(argument.get_env()?.display().to_string()))
            .collect();
        let page = Man::new(command).manual("semantic");
        let mut text = Vec::new();
        page.render(&mut text).expect("memory takes it");
        let mut text = String::from_utf8(text).expect("text");
        text += ".SH EXAMPLES\n.nf\n";
        for example in examples(&path) {
            text += &format!("{}\n", example.replace('\\', "\\e").replace('-', "\\-"));
        }
        text += ".fi\n";
        for variable in variables {
            assert!(text.contains(&variable), "semantic {path}: {variable}");
        }
        expect_file![root().join("man").join(page.get_filename())].assert_eq(&text);
        names.insert(page.get_filename());
    }
    assert_eq!(names_in("man"), names);
}

fn names_in(folder: &str) -> BTreeSet<String> {
    let entries = root().join(folder).read_dir().expect("the folder is there");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
    entries.map(name).map(|name| name.into_string().expect("text")).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
