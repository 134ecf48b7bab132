//! How the commands' help looks: short enough for one screen, with examples; `--help-all` has the rest.
//!
//! What a flag means stands beside the flag. Here is what a page is made of: its examples, the
//! groups of its flags, and those that few need, which only `--help-all` and the man page show.

#[cfg(test)]
mod tests;

mod pages;

use clap::{Arg, Command};

use pages::{PAGES, Page};

/// Longer lines are hard to read on the widest terminal.
const COLUMNS_MAX: usize = 100;

const MORE: &str = "--help-all explains each flag and names its SEMANTIC_* variable.";
const MORE_OF_A_COMMAND: &str =
    "--help-all has every flag, also those of all commands, and its SEMANTIC_* variable.";

/// The commands as the terminal shows them.
pub fn for_terminal(command: Command) -> Command {
    let command = laid_out(command);
    let global: Vec<Arg> =
        command.get_arguments().filter(|argument| argument.is_global_set()).cloned().collect();
    each(command, "", &|command, path| {
        let examples: String =
            examples(path).iter().map(|example| format!("  {example}\n")).collect();
        let (global, more) = match path {
            "" => (&[][..], MORE),
            _ => (&global[..], MORE_OF_A_COMMAND),
        };
        command
            .args(global.iter().cloned().map(below_the_top))
            .mut_args(name_variable)
            .after_help(format!("Examples:\n{examples}\n{more}"))
    })
}

/// The commands with their flags in groups, and nothing hidden: what the man pages are made of.
pub fn laid_out(command: Command) -> Command {
    let command = command.max_term_width(COLUMNS_MAX);
    each(command, "", &|command, path| match page(path) {
        Some(page) => command.mut_args(|argument| place(argument, page)),
        None => command,
    })
}

/// What the command at this path, such as `cache show`, is asked for.
pub fn examples(path: &str) -> &'static [&'static str] {
    page(path).map_or(&[], |page| page.examples)
}

fn page(path: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.path == path)
}

/// Changes a command and all below it. The change is told the path from the top.
fn each(command: Command, path: &str, change: &dyn Fn(Command, &str) -> Command) -> Command {
    let command = change(command, path);
    command.mut_subcommands(|inner| {
        let path = format!("{path} {}", inner.get_name());
        each(inner, path.trim_start(), change)
    })
}

fn place(argument: Arg, page: &Page) -> Arg {
    let id = argument.get_id().to_string();
    let is_rare = page.rare.iter().any(|ids| ids.contains(&id.as_str()));
    let argument = match (argument.get_long_help(), argument.get_help()) {
        // What short help leaves out has to be in a long one: man pages are made of that.
        (None, Some(help)) if is_rare => {
            let help = help.clone();
            argument.hide_short_help(true).long_help(help)
        }
        _ => argument.hide_short_help(is_rare),
    };
    match page.groups.iter().find(|(_, ids)| ids.contains(&id.as_str())) {
        Some((heading, _)) => argument.help_heading(*heading),
        None => argument,
    }
}

/// The variable is for those who want to know everything of a flag; each page has a line about them.
fn name_variable(argument: Arg) -> Arg {
    let Some(variable) = argument.get_env().map(|name| name.to_string_lossy().into_owned()) else {
        return argument;
    };
    let help = argument.get_long_help().or(argument.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    argument.hide_env(true).long_help(format!("{help}\n[env: {variable}]"))
}

/// Flags of all commands are explained once, on the first page. A command that has its own copy of
/// such a flag gets none from above.
fn below_the_top(argument: Arg) -> Arg {
    let is_help = ["help", "help_all"].contains(&argument.get_id().as_str());
    argument.hide_short_help(!is_help)
}
