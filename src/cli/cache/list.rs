//! `semantic cache list`: agents, with what they take on disk.

use std::process::ExitCode;

use serde::Serialize;

use super::{Context, Failure, Format, Scope, failed, open_to_read};
use crate::cli::output::{self, human_bytes, printable, utc};
use crate::cli::table::{Column, table, thousands};
use crate::store::AgentInfo;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    scope: Scope,
    /// The agents of all namespaces
    #[arg(long)]
    all_namespaces: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Report {
    agents: Vec<Line>,
}

/// An agent, as `--json` has it.
#[derive(Debug, Serialize)]
pub struct Line {
    agent: String,
    namespace: String,
    model: String,
    /// Of the conversation that was saved last.
    tokens: usize,
    /// Of all files that the agent needs, each counted once.
    bytes: u64,
    /// Of those, in blocks that others need as well.
    shared_bytes: u64,
    generation: u64,
    /// Conversations that it can go on from.
    conversations: usize,
    last_used: String,
    pinned: bool,
    ttl_seconds: Option<u64>,
    expires_at: Option<String>,
}

pub fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let store = open_to_read(context)?;
    let mut agents = store.agents().map_err(failed)?;
    let all = agents.len();
    if !arguments.all_namespaces {
        agents.retain(|it| it.namespace == arguments.scope.namespace);
    }
    if agents.is_empty() && !arguments.format.json {
        let namespace = printable(arguments.scope.namespace.as_str());
        output::talk(&match all {
            0 => "no agent is stored yet".to_owned(),
            _ => format!(
                "no agent is stored in namespace {namespace}; --all-namespaces lists the {all} of \
                 others"
            ),
        });
    }
    let report = Report { agents: agents.iter().map(Line::new).collect() };
    arguments.format.print(&report, || match arguments.all_namespaces {
        true => with_namespaces(&report.agents),
        false => without_namespaces(&report.agents),
    })
}

impl Line {
    pub fn new(info: &AgentInfo) -> Line {
        let newest = info.newest();
        Line {
            agent: info.agent.as_str().to_owned(),
            namespace: info.namespace.as_str().to_owned(),
            model: newest.model.clone(),
            tokens: newest.tokens,
            bytes: info.bytes,
            shared_bytes: info.shared_bytes,
            generation: newest.generation.0,
            conversations: info.saves.iter().filter(|save| save.is_live).count(),
            last_used: utc(newest.saved_at),
            pinned: info.retention.is_pinned,
            ttl_seconds: info.retention.ttl.map(|ttl| ttl.as_secs()),
            expires_at: info.expires_at.map(utc),
        }
    }

    fn cells(&self) -> [String; 7] {
        [
            printable(&self.agent),
            printable(&self.model),
            thousands(self.tokens),
            human_bytes(self.bytes),
            human_bytes(self.shared_bytes),
            self.generation.to_string(),
            // To the minute; `--json` has the seconds.
            self.last_used.get(..16).unwrap_or_default().replace('T', " "),
        ]
    }
}

const AGENT: Column = Column::words("AGENT", 26);
const MODEL: Column = Column::words("MODEL", 22);
const NUMBERS: [Column; 4] = [
    Column::number("TOKENS"),
    Column::number("SIZE"),
    Column::number("SHARED"),
    Column::number("GEN"),
];
const LAST_USED: Column = Column::words("LAST USED (UTC)", 16);

fn without_namespaces(lines: &[Line]) -> String {
    let rows: Vec<_> = lines.iter().map(Line::cells).collect();
    let [tokens, size, shared, generation] = NUMBERS;
    table([AGENT, MODEL, tokens, size, shared, generation, LAST_USED], &rows)
}

fn with_namespaces(lines: &[Line]) -> String {
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            let [agent, model, tokens, size, shared, generation, used] = line.cells();
            [agent, printable(&line.namespace), model, tokens, size, shared, generation, used]
        })
        .collect();
    let [tokens, size, shared, generation] = NUMBERS;
    let namespace = Column::words("NAMESPACE", 16);
    table([AGENT, namespace, MODEL, tokens, size, shared, generation, LAST_USED], &rows)
}
