//! `semantic cache evict`: removes agents from disk, after asking.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::ArgGroup;
use serde::Serialize;

use super::room::Room;
use super::{Context, Failure, Format, Scope, agent_id, failed, not_found, open_to_write, quoted};
use crate::cli::output::{self, human_bytes};
use crate::store::{AgentInfo, Store};
use crate::types::AgentId;

/// No yes is longer.
const ANSWER_BYTES_MAX: u64 = 64;

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("which").required(true)))]
pub struct Arguments {
    /// The agents to remove
    #[arg(group = "which", value_name = "AGENT", value_parser = agent_id)]
    agents: Vec<AgentId>,
    /// All agents of the namespace
    #[arg(long, group = "which")]
    all: bool,
    /// Those that were not used for so long and are not pinned: 90m, 12h, 30d, 8w
    #[arg(long, group = "which", value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,
    /// Those that were not used for the longest time and are not pinned, until the rest needs at
    /// most so much: 500MB, 10GB
    #[arg(long, group = "which", value_name = "BYTES", value_parser = bytes)]
    to_size: Option<u64>,
    /// Do not ask; needed where there is no terminal
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Report {
    namespace: String,
    removed: Vec<String>,
    /// That the disk has more than before.
    freed_bytes: u64,
}

pub fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let store = open_to_write(context)?;
    let namespace = &arguments.scope.namespace;
    let mut all = store.agents().map_err(failed)?;
    all.retain(|it| it.namespace == *namespace);
    let chosen = chosen(arguments, &store, &all)?;
    if !chosen.is_empty() {
        let mut room = Room::new(&all);
        let bytes = chosen.iter().map(|it| room.remove(it)).sum();
        confirm(arguments, chosen.len(), bytes)?;
    }
    let report = Report {
        namespace: namespace.as_str().to_owned(),
        removed: chosen.iter().map(|it| it.agent.as_str().to_owned()).collect(),
        freed_bytes: remove(&store, &chosen)?,
    };
    arguments.format.print(&report, || match &report.removed[..] {
        [] => "nothing to remove\n".to_owned(),
        [one] => format!("removed {}: {}\n", quoted(one), human_bytes(report.freed_bytes)),
        many => format!("removed {} agents: {}\n", many.len(), human_bytes(report.freed_bytes)),
    })
}

/// Whom the flags mean, of the namespace's agents.
fn chosen<'a>(
    arguments: &Arguments,
    store: &Store,
    all: &'a [AgentInfo],
) -> Result<Vec<&'a AgentInfo>, Failure> {
    if let Some(age) = arguments.older_than {
        let since = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let is_old = |it: &&AgentInfo| it.newest().saved_at < since && !it.retention.is_pinned;
        return Ok(all.iter().filter(is_old).collect());
    }
    if let Some(bytes) = arguments.to_size {
        return Ok(Room::new(all).least_used_above(all, bytes));
    }
    if arguments.all {
        return Ok(all.iter().collect());
    }
    let mut chosen: Vec<&AgentInfo> = Vec::new();
    for agent in &arguments.agents {
        let found = all.iter().find(|it| it.agent == *agent);
        let found = found.ok_or_else(|| not_found(store, &arguments.scope.namespace, agent))?;
        if chosen.iter().all(|it| it.agent != *agent) {
            chosen.push(found);
        }
    }
    Ok(chosen)
}

/// Removes them with what only they need; says how much more space there is.
fn remove(store: &Store, agents: &[&AgentInfo]) -> Result<u64, Failure> {
    if agents.is_empty() {
        return Ok(0);
    }
    let before = store.usage().map_err(failed)?.disk_bytes;
    let bar = output::bar(Some(agents.len() as u64), "{pos}/{len} agents");
    for (index, it) in agents.iter().enumerate() {
        if let Some(bar) = &bar {
            bar.set_position(index as u64);
        }
        if let Err(error) = store.remove_agent(&it.namespace, &it.agent) {
            output::talk(&format!("removed {index} of {} agents", agents.len()));
            return Err(failed(error));
        }
    }
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    store.collect().map_err(failed)?;
    let after = store.usage().map_err(failed)?.disk_bytes;
    Ok(before.saturating_sub(after))
}

fn confirm(arguments: &Arguments, agents: usize, bytes: u64) -> Result<(), Failure> {
    if arguments.yes {
        return Ok(());
    }
    let what = match agents {
        1 => "1 agent".to_owned(),
        count => format!("{count} agents"),
    };
    let what = format!("{what} ({}) from disk", human_bytes(bytes));
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Usage(format!("this removes {what}; --yes says that it is meant")));
    }
    let is_meant =
        ask(&format!("Remove {what}, for good?"), &mut io::stdin().lock(), &mut io::stderr())
            .map_err(|error| anyhow::Error::new(error).context("cannot ask"))?;
    match is_meant {
        true => Ok(()),
        false => Err(Failure::from(anyhow::anyhow!("nothing was removed"))),
    }
}

/// Anything but a plain yes is a no.
fn ask(question: &str, from: &mut dyn BufRead, to: &mut dyn Write) -> io::Result<bool> {
    write!(to, "{question} [y/N] ")?;
    to.flush()?;
    let mut answer = String::new();
    from.take(ANSWER_BYTES_MAX).read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// `90m`, `12h`, `30d`, `8w`, `45s`
pub fn duration(text: &str) -> Result<Duration, String> {
    let wanted = || format!("{text:?} is not a number with s, m, h, d or w, as in 30d");
    let (number, unit) = split_unit(text);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wanted()),
    };
    let number: u64 = number.parse().map_err(|_| wanted())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wanted)
}

/// `1000`, `500MB`, `1.5 GiB`
fn bytes(text: &str) -> Result<u64, String> {
    let wanted = || format!("{text:?} is not a number of bytes, as in 500MB or 10GB");
    let (number, unit) = split_unit(text);
    let factor: f64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wanted()),
    };
    let number: f64 = number.parse().map_err(|_| wanted())?;
    match number.is_finite() && number >= 0.0 {
        true => Ok((number * factor) as u64),
        false => Err(wanted()),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    (text[..at].trim_end(), &text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, is_yes) in [
            ("y\n", true),
            (" YES \n", true),
            ("yes", true),
            ("n\n", false),
            ("\n", false),
            ("", false),
            ("yes please\n", false),
            ("maybe\ny\n", false),
        ] {
            let mut asked = Vec::new();
            let found = ask("Sure?", &mut answer.as_bytes(), &mut asked).expect("it reads");
            assert_eq!((found, &asked[..]), (is_yes, &b"Sure? [y/N] "[..]), "{answer:?}");
        }
    }

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        let seconds = |text| duration(text).map(|it| it.as_secs()).ok();
        let all = ["45s", "90m", "12h", "30d", "8w", " 1 d "].map(seconds);
        assert_eq!(all, [45, 5_400, 43_200, 2_592_000, 4_838_400, 86_400].map(Some));
        assert_eq!(
            ["", "30", "d", "-1d", "1.5d", "1y", "9999999999999999w"].map(seconds),
            [None; 7]
        );
        let sizes = ["0", "1000", "500MB", "1.5 GiB", "2k", "10GB"].map(|text| bytes(text).ok());
        assert_eq!(sizes, [0, 1_000, 500_000_000, 1_610_612_736, 2_000, 10_000_000_000].map(Some));
        assert_eq!(
            ["", "GB", "-1", "1.2.3", "1XB", "nan", "inf"].map(|it| bytes(it).ok()),
            [None; 7]
        );
    }
}
