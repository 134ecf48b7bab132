//! `semantic cache fork` and `rollback`: an agent's memory under another name, or as it was.

use std::process::ExitCode;

use serde::Serialize;

use super::{
    Context, Failure, Format, Scope, agent_id, failed, find_agent, open_to_write, quoted, store,
};
use crate::store::{AgentInfo, StoreError};
use crate::types::{AgentId, Generation};

#[derive(Debug, clap::Args)]
pub struct ForkArguments {
    /// The agent to copy
    #[arg(value_name = "AGENT", value_parser = agent_id)]
    from: AgentId,
    /// The copy, which must not be there yet
    #[arg(value_name = "COPY", value_parser = agent_id)]
    to: AgentId,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub struct RollbackArguments {
    /// Whose memory
    #[arg(value_parser = agent_id)]
    agent: AgentId,
    /// The save to go back to, as `semantic cache show` numbers them [default: the one before]
    generation: Option<u64>,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Forked {
    namespace: String,
    from: String,
    to: String,
    generation: u64,
    tokens: usize,
}

#[derive(Debug, Serialize)]
struct RolledBack {
    namespace: String,
    agent: String,
    /// The new save, equal to the older one.
    generation: u64,
    tokens_before: usize,
    tokens: usize,
}

pub fn fork(arguments: &ForkArguments, context: &Context) -> Result<ExitCode, Failure> {
    let ForkArguments { from, to, scope, format } = arguments;
    let store = open_to_write(context)?;
    let source = find_agent(&store, scope, from)?;
    let committed = store::fork(&store, &scope.namespace, from, to)?;
    let tokens = source.newest().tokens;
    let forked = Forked {
        namespace: scope.namespace.as_str().to_owned(),
        from: from.as_str().to_owned(),
        to: to.as_str().to_owned(),
        generation: committed.generation.0,
        tokens,
    };
    format.print(&forked, || {
        format!(
            "{} has the memory of {}: {tokens} tokens, generation {}\n",
            quoted(to.as_str()),
            quoted(from.as_str()),
            forked.generation
        )
    })
}

pub fn rollback(arguments: &RollbackArguments, context: &Context) -> Result<ExitCode, Failure> {
    let RollbackArguments { agent, generation, scope, format } = arguments;
    let store = open_to_write(context)?;
    let before = find_agent(&store, scope, agent)?;
    let wanted = generation.map(Generation);
    let committed =
        store.rollback(&scope.namespace, agent, wanted).map_err(|error| match error {
            StoreError::NotFound(_) => no_such_save(&before, wanted),
            other => failed(other),
        })?;
    let after = find_agent(&store, scope, agent)?;
    let rolled_back = RolledBack {
        namespace: scope.namespace.as_str().to_owned(),
        agent: agent.as_str().to_owned(),
        generation: committed.generation.0,
        tokens_before: before.newest().tokens,
        tokens: after.newest().tokens,
    };
    let RolledBack { tokens, tokens_before, generation, .. } = rolled_back;
    format.print(&rolled_back, || {
        format!(
            "{} goes on from {tokens} tokens instead of {tokens_before}, as generation {generation}\n",
            quoted(agent.as_str()),
        )
    })
}

fn no_such_save(info: &AgentInfo, wanted: Option<Generation>) -> Failure {
    let agent = quoted(info.agent.as_str());
    let error = match wanted {
        Some(generation) => anyhow::anyhow!("{agent} has no save with generation {}", generation.0),
        None => anyhow::anyhow!("{agent} has no older save to go back to"),
    };
    let all: Vec<String> = info.saves.iter().map(|it| it.generation.0.to_string()).collect();
    Failure::with_hint(error, Some(format!("there are generations {}", all.join(", "))))
}
