//! What a request's tools have to keep to, whoever's words they come in.

use std::collections::HashSet;

use super::error::Error;
use super::fields::shown;
use crate::text::{Tool, ToolCallParser};

/// As OpenAI has it; the model reads all of them before anything else.
const TOOLS_MAX: usize = 128;

/// Whether calls are looked for. The model reads of its tools either way, so that a conversation
/// keeps its beginning when the choice changes; asked for none, it may write a call nevertheless,
/// which is text then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model's choice.
    Auto(CallCount),
    None,
    /// The reply is calls.
    Required(CallCount),
    /// The reply is one call of this tool.
    Named(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallCount {
    One,
    OneOrMore,
}

impl ToolChoice {
    /// What looks for calls of these tools, if anything does.
    pub fn parser(&self, tools: &[Tool]) -> Option<ToolCallParser> {
        let names: Vec<String> = match self {
            ToolChoice::Auto(_) | ToolChoice::Required(_) | ToolChoice::Named(_) => {
                tools.iter().map(|tool| tool.name.clone()).collect()
            }
            ToolChoice::None => Vec::new(),
        };
        (!names.is_empty()).then(|| ToolCallParser::new(names))
    }

    /// Refuses a choice that these tools do not leave. `field` is where the name of a tool is.
    pub fn check(&self, tools: &[Tool], field: &str) -> Result<(), Error> {
        let problem = match self {
            ToolChoice::Required(_) if tools.is_empty() => {
                "tool_choice asks for a call, and there are no tools".to_owned()
            }
            ToolChoice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => {
                format!("{field} is {}, which is none of the tools", shown(name))
            }
            _ => return Ok(()),
        };
        Err(Error::field(field, problem))
    }
}

pub fn check_count(tools: usize) -> Result<(), Error> {
    match tools > TOOLS_MAX {
        true => Err(Error::field("tools", format!("tools has {tools} items; at most {TOOLS_MAX}"))),
        false => Ok(()),
    }
}

/// A name that models can write and parsers find again.
pub fn check_name(field: &str, name: &str, chars_max: usize) -> Result<(), Error> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match (1..=chars_max).contains(&name.len()) && name.chars().all(is_plain) {
        true => Ok(()),
        false => {
            let name = shown(name);
            let message =
                format!("{field} is {name}; it is 1 to {chars_max} letters, digits, _, - and .");
            Err(Error::field(field, message))
        }
    }
}

/// Refuses a tool that has the name of one before it. `name` is where tools have it.
pub fn check_twins(tools: &[Tool], name: &str) -> Result<(), Error> {
    let mut names = HashSet::new();
    match tools.iter().position(|tool| !names.insert(tool.name.as_str())) {
        Some(index) => {
            let field = format!("tools[{index}].{name}");
            let message = format!("{field} is {:?}, which another tool has", tools[index].name);
            Err(Error::field(field, message))
        }
        None => Ok(()),
    }
}
