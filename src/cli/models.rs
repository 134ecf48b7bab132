//! `semantic models`: what is on this machine, and what the catalogue can fetch.

use std::process::ExitCode;

use serde::Serialize;

use super::Context;
use super::model::{settings, source_failure};
use super::output::{self, Failure, human_bytes};
use crate::model::source::{CATALOGUE, LocalModel, local_models};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Also list the catalogue's models that are not here
    #[arg(long, short)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A line of the list, as `--json` has it.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    size_bytes: u64,
    quantisation: Option<String>,
    /// `null` if the model is not on this machine.
    path: Option<String>,
    /// What it is good for; `null` if it is not one of the catalogue's.
    about: Option<&'static str>,
}

pub fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let local = local_models(&settings(&context.data_dir)).map_err(source_failure)?;
    let mut lines: Vec<Line> = local.into_iter().map(Line::from).collect();
    if arguments.all {
        let missing = CATALOGUE
            .iter()
            .filter(|entry| lines.iter().all(|line| line.name != entry.name))
            .map(|entry| Line {
                name: entry.name.to_owned(),
                size_bytes: entry.size_bytes,
                quantisation: Some(entry.quantisation.to_owned()),
                path: None,
                about: Some(entry.about),
            })
            .collect::<Vec<_>>();
        lines.extend(missing);
    }
    if arguments.json {
        let json = serde_json::to_string_pretty(&lines)?;
        output::data(format!("{json}\n").as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if lines.is_empty() {
        output::talk("no model is on this machine yet; `semantic models --all` lists some to pull");
    }
    output::data(table(&lines).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

impl From<LocalModel> for Line {
    fn from(model: LocalModel) -> Line {
        Line {
            about: CATALOGUE.iter().find(|it| it.name == model.name).map(|entry| entry.about),
            name: model.name,
            size_bytes: model.size_bytes,
            quantisation: model.quantisation,
            path: Some(model.path.display().to_string()),
        }
    }
}

/// The path, or how to get the model and why.
fn place(line: &Line) -> String {
    match &line.path {
        Some(path) => path.clone(),
        None => format!("(semantic pull {}) {}", line.name, line.about.unwrap_or_default()),
    }
}

fn table(lines: &[Line]) -> String {
    let rows: Vec<[String; 4]> = lines
        .iter()
        .map(|line| {
            [
                line.name.clone(),
                human_bytes(line.size_bytes),
                line.quantisation.clone().unwrap_or_else(|| "?".to_owned()),
                place(line),
            ]
        })
        .collect();
    let head = ["NAME", "SIZE", "QUANTISATION", "PATH"].map(str::to_owned);
    let rows: Vec<[String; 4]> =
        if rows.is_empty() { rows } else { std::iter::once(head).chain(rows).collect() };
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (name, size, kind) = (width(0), width(1), width(2));
    rows.iter().map(|[a, b, c, d]| format!("{a:name$}  {b:>size$}  {c:kind$}  {d}\n")).collect()
}
