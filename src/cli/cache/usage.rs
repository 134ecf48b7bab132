//! `semantic cache du` and `gc`: what agents take on disk, and what nobody needs.

use std::process::ExitCode;

use serde::Serialize;

use super::{Context, Failure, Format, failed, open_to_read, open_to_write};
use crate::cli::output::{human_bytes, printable};
use crate::cli::table::{Column, table, thousands};
use crate::store::{Collected, Usage};

#[derive(Debug, clap::Args)]
pub struct DuArguments {
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub struct GcArguments {
    #[command(flatten)]
    format: Format,
}

/// What the store takes, as `--json` has it.
#[derive(Debug, Serialize)]
struct Report {
    budget_bytes: u64,
    /// If each agent had its own copy of what it needs.
    logical_bytes: u64,
    /// Each block counted once.
    unique_bytes: u64,
    /// Of all files, older saves, what nobody needs and the quarantine included.
    disk_bytes: u64,
    quarantine_bytes: u64,
    quarantine_files: usize,
    namespaces: Vec<Share>,
}

#[derive(Debug, Serialize)]
struct Share {
    namespace: String,
    agents: usize,
    logical_bytes: u64,
    unique_bytes: u64,
    disk_bytes: u64,
}

pub fn du(arguments: &DuArguments, context: &Context) -> Result<ExitCode, Failure> {
    let report = Report::from(open_to_read(context)?.usage().map_err(failed)?);
    arguments.format.print(&report, || report.text())
}

impl From<Usage> for Report {
    fn from(usage: Usage) -> Report {
        Report {
            budget_bytes: usage.budget_bytes,
            logical_bytes: usage.logical_bytes,
            unique_bytes: usage.unique_bytes,
            disk_bytes: usage.disk_bytes,
            quarantine_bytes: usage.quarantine_bytes,
            quarantine_files: usage.quarantine_files,
            namespaces: usage
                .namespaces
                .into_iter()
                .map(|share| Share {
                    namespace: share.namespace.as_str().to_owned(),
                    agents: share.agents,
                    logical_bytes: share.logical_bytes,
                    unique_bytes: share.unique_bytes,
                    disk_bytes: share.disk_bytes,
                })
                .collect(),
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let row = |name: &str, agents: usize, bytes: [u64; 3]| {
            let [logical, unique, disk] = bytes.map(human_bytes);
            [printable(name), thousands(agents), logical, unique, disk]
        };
        let mut rows: Vec<_> = self
            .namespaces
            .iter()
            .map(|it| {
                row(&it.namespace, it.agents, [it.logical_bytes, it.unique_bytes, it.disk_bytes])
            })
            .collect();
        let agents = self.namespaces.iter().map(|it| it.agents).sum();
        let all = [self.logical_bytes, self.unique_bytes, self.disk_bytes];
        rows.push(row("(all)", agents, all));
        let columns = [
            Column::words("NAMESPACE", 30),
            Column::number("AGENTS"),
            Column::number("LOGICAL"),
            Column::number("SHARED ONCE"),
            Column::number("ON DISK"),
        ];
        let mut text = table(columns, &rows);
        text += &format!(
            "\n{} of a budget of {} are used\n",
            human_bytes(self.disk_bytes),
            human_bytes(self.budget_bytes)
        );
        if self.quarantine_files > 0 {
            text += &format!(
                "{} in {} damaged files are in quarantine\n",
                human_bytes(self.quarantine_bytes),
                thousands(self.quarantine_files)
            );
        }
        text
    }
}

/// What `gc --json` prints.
#[derive(Debug, Serialize)]
struct Freed {
    /// Saves that others have taken the place of.
    manifests: usize,
    blocks: usize,
    bytes: u64,
}

pub fn gc(arguments: &GcArguments, context: &Context) -> Result<ExitCode, Failure> {
    let store = open_to_write(context)?;
    let Collected { manifests, blocks, bytes } = match store.is_read_only() {
        true => Collected::default(),
        false => store.collect().map_err(failed)?,
    };
    let freed = Freed { manifests, blocks, bytes };
    arguments.format.print(&freed, || {
        format!(
            "removed {} old saves and {} blocks: {}\n",
            thousands(manifests),
            thousands(blocks),
            human_bytes(bytes)
        )
    })
}
