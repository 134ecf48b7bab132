//! `semantic cache verify` and `repair`: what is damaged, and what of it is left.

use std::process::ExitCode;

use serde::Serialize;

use super::{Context, Failure, Format, failed, open_to_read, open_to_write, quoted};
use crate::cli::output::{self, human_bytes, printable};
use crate::cli::table::{Column, table, thousands};
use crate::store::{self, Repaired};

#[derive(Debug, clap::Args)]
pub struct VerifyArguments {
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub struct RepairArguments {
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct VerifyReport {
    manifests: usize,
    blocks: usize,
    bytes: u64,
    damage: Vec<Damage>,
}

#[derive(Debug, Serialize)]
struct RepairReport {
    damage: Vec<Damage>,
    shortened: Vec<Shortened>,
}

/// A damaged file, as `--json` has it.
#[derive(Debug, Serialize)]
struct Damage {
    /// In the cache's folder.
    path: String,
    /// One word.
    flaw: &'static str,
    reason: String,
    agents: Vec<Agent>,
}

#[derive(Debug, Serialize)]
struct Agent {
    namespace: String,
    agent: String,
}

#[derive(Debug, Serialize)]
struct Shortened {
    namespace: String,
    agent: String,
    generation: u64,
    /// Whose KV was saved.
    tokens_before: usize,
    /// Whose KV is left.
    tokens: usize,
}

pub fn verify(arguments: &VerifyArguments, context: &Context) -> Result<ExitCode, Failure> {
    let verified = open_to_read(context)?.verify().map_err(failed)?;
    let report = VerifyReport {
        manifests: verified.manifests,
        blocks: verified.blocks,
        bytes: verified.bytes,
        damage: verified.damage.iter().map(Damage::from).collect(),
    };
    arguments.format.print(&report, || {
        let mut text = damage_table(&report.damage);
        text += &format!(
            "{} saves and {} blocks were read, {}: {}\n",
            thousands(report.manifests),
            thousands(report.blocks),
            human_bytes(report.bytes),
            match report.damage.len() {
                0 => "all are whole".to_owned(),
                1 => "1 file is damaged".to_owned(),
                count => format!("{} files are damaged", thousands(count)),
            }
        );
        text
    })?;
    if report.damage.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    output::talk("hint: `semantic cache repair` keeps the longest good part of each conversation");
    Ok(ExitCode::FAILURE)
}

pub fn repair(arguments: &RepairArguments, context: &Context) -> Result<ExitCode, Failure> {
    let store = open_to_write(context)?;
    let Repaired { damage, shortened } = match store.is_read_only() {
        true => Repaired::default(),
        false => store.repair().map_err(failed)?,
    };
    let report = RepairReport {
        damage: damage.iter().map(Damage::from).collect(),
        shortened: shortened.iter().map(Shortened::from).collect(),
    };
    arguments.format.print(&report, || report.text())
}

impl From<&store::Damage> for Damage {
    fn from(damage: &store::Damage) -> Damage {
        Damage {
            path: damage.path.clone(),
            flaw: damage.flaw.word(),
            reason: damage.flaw.to_string(),
            agents: damage
                .agents
                .iter()
                .map(|(namespace, agent)| Agent {
                    namespace: namespace.as_str().to_owned(),
                    agent: agent.as_str().to_owned(),
                })
                .collect(),
        }
    }
}

impl From<&store::Shortened> for Shortened {
    fn from(shortened: &store::Shortened) -> Shortened {
        Shortened {
            namespace: shortened.namespace.as_str().to_owned(),
            agent: shortened.agent.as_str().to_owned(),
            generation: shortened.generation.0,
            tokens_before: shortened.tokens_before,
            tokens: shortened.tokens,
        }
    }
}

impl RepairReport {
    fn text(&self) -> String {
        if self.damage.is_empty() && self.shortened.is_empty() {
            return "nothing is damaged\n".to_owned();
        }
        let mut text = damage_table(&self.damage);
        for it in &self.shortened {
            text += &format!(
                "{} keeps the KV of {} of {} tokens, as generation {}; the rest is computed again\n",
                quoted(&it.agent),
                thousands(it.tokens),
                thousands(it.tokens_before),
                it.generation
            );
        }
        text
    }
}

fn damage_table(damage: &[Damage]) -> String {
    let rows: Vec<_> = damage
        .iter()
        .map(|it| {
            let agents: Vec<String> =
                it.agents.iter().map(|agent| printable(&agent.agent)).collect();
            let agents = if agents.is_empty() { "?".to_owned() } else { agents.join(", ") };
            [it.flaw.to_owned(), agents, printable(&it.path)]
        })
        .collect();
    let columns = [
        Column::words("FLAW", 8),
        Column::words("AGENTS", 30),
        // A path is for copying, so it is shown whole.
        Column::words("FILE", usize::MAX),
    ];
    let mut text = table(columns, &rows);
    if !text.is_empty() {
        text.push('\n');
    }
    text
}
