//! `semantic cache pin`, `unpin` and `ttl`: how long an agent stays on disk.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::evict::duration;
use super::{Context, Failure, Format, Scope, agent_id, failed, find_agent, open_to_write, quoted};
use crate::cli::output::utc;
use crate::store::{RetentionChange, StoreError, TTL_MAX};
use crate::types::AgentId;

#[derive(Debug, clap::Args)]
pub struct PinArguments {
    /// The agent
    #[arg(value_parser = agent_id)]
    agent: AgentId,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub struct TtlArguments {
    /// The agent
    #[arg(value_parser = agent_id)]
    agent: AgentId,
    /// How long after its last turn it goes: 90m, 12h, 30d, 8w; `never` if it stays
    #[arg(value_parser = ttl)]
    ttl: Ttl,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    format: Format,
}

/// A time to live, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ttl(Option<Duration>);

/// An agent, as `--json` has it.
#[derive(Debug, Serialize)]
struct Kept {
    agent: String,
    namespace: String,
    pinned: bool,
    ttl_seconds: Option<u64>,
    expires_at: Option<String>,
}

pub fn pin(arguments: &PinArguments, context: &Context) -> Result<ExitCode, Failure> {
    let change = RetentionChange { is_pinned: Some(true), ttl: None };
    change_pinning(arguments, context, change)
}

pub fn unpin(arguments: &PinArguments, context: &Context) -> Result<ExitCode, Failure> {
    let change = RetentionChange { is_pinned: Some(false), ttl: None };
    change_pinning(arguments, context, change)
}

fn change_pinning(
    arguments: &PinArguments,
    context: &Context,
    change: RetentionChange,
) -> Result<ExitCode, Failure> {
    let PinArguments { agent, scope, format } = arguments;
    let kept = change_retention(agent, scope, context, change)?;
    let agent = quoted(agent.as_str());
    format.print(&kept, || match kept.pinned {
        true => {
            format!("{agent} stays when others need room, while at most half of it is pinned\n")
        }
        false => format!("{agent} may go to make room for others\n"),
    })
}

pub fn ttl_of(arguments: &TtlArguments, context: &Context) -> Result<ExitCode, Failure> {
    let TtlArguments { agent, ttl: Ttl(ttl), scope, format } = arguments;
    let change = RetentionChange { is_pinned: None, ttl: Some(*ttl) };
    let kept = change_retention(agent, scope, context, change)?;
    let agent = quoted(agent.as_str());
    format.print(&kept, || match &kept.expires_at {
        Some(end) => format!("{agent} goes at {end}, unless it has a turn before\n"),
        None => format!("{agent} stays however long it has no turn\n"),
    })
}

fn change_retention(
    agent: &AgentId,
    scope: &Scope,
    context: &Context,
    change: RetentionChange,
) -> Result<Kept, Failure> {
    let store = open_to_write(context)?;
    find_agent(&store, scope, agent)?;
    store.retain(&scope.namespace, agent, change).map_err(|error| match error {
        StoreError::Quota { .. } => {
            let hint = "unpin another agent first, or give the cache more room".to_owned();
            Failure::with_hint(anyhow::Error::new(error), Some(hint))
        }
        other => failed(other),
    })?;
    let info = find_agent(&store, scope, agent)?;
    Ok(Kept {
        agent: agent.as_str().to_owned(),
        namespace: scope.namespace.as_str().to_owned(),
        pinned: info.retention.is_pinned,
        ttl_seconds: info.retention.ttl.map(|ttl| ttl.as_secs()),
        expires_at: info.expires_at.map(utc),
    })
}

fn ttl(text: &str) -> Result<Ttl, String> {
    if text == "never" {
        return Ok(Ttl(None));
    }
    let ttl = duration(text)?;
    let (least, most) = (Duration::from_secs(1), TTL_MAX);
    match (least..=most).contains(&ttl) {
        true => Ok(Ttl(Some(ttl))),
        false => Err(format!("{text:?} is not between 1s and {}d", most.as_secs() / 86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_a_duration_or_never() {
        assert_eq!(ttl("never"), Ok(Ttl(None)));
        assert_eq!(ttl("2w"), Ok(Ttl(Some(Duration::from_secs(14 * 86_400)))));
        assert_eq!(ttl("3650d"), Ok(Ttl(Some(TTL_MAX))));
        for bad in ["0s", "3651d", "", "30", "-1d", "Never"] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
    }
}
