//! `semantic health`: whether this machine can serve, or whether a server does.
//!
//! Without a server each part is looked at here and directly; nothing is fetched and nothing stays
//! behind. With `--url` a server is asked, as a container's health check does.

mod disk;
mod machine;
mod remote;

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use super::Context;
use super::compute::ComputeFlags;
use super::model::ModelFlag;
use super::output::{self, Failure, printable};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    remote: remote::Flags,
    #[command(flatten)]
    model: ModelFlag,
    #[command(flatten)]
    compute: ComputeFlags,
    /// Memory for the KV of all agents, in MB, as `serve` would be given it
    #[arg(long, value_name = "MB", env = "SEMANTIC_KV_POOL_MB")]
    kv_pool_mb: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How one part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// It serves, but not as well as it could.
    Warn,
    Fail,
}

/// What was found out about one part.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    status: State,
    finding: String,
    /// What the user can do about it.
    hint: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, finding: String) -> Finding {
        Finding { name, status: State::Ok, finding, hint: None }
    }

    fn warn(name: &'static str, finding: String, hint: impl Into<String>) -> Finding {
        Finding { name, status: State::Warn, finding, hint: Some(hint.into()) }
    }

    fn fail(name: &'static str, finding: String, hint: impl Into<String>) -> Finding {
        Finding { name, status: State::Fail, finding, hint: Some(hint.into()) }
    }

    /// A line, and one below it for the hint.
    fn text(&self) -> String {
        let status = match self.status {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        };
        let mut text = format!("{status:4}  {:7}  {}\n", self.name, printable(&self.finding));
        if let Some(hint) = &self.hint {
            text += &format!("{:15}hint: {}\n", "", printable(hint));
        }
        text
    }
}

pub fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode, Failure> {
    if let Some(question) = arguments.remote.question()? {
        return remote::run(&question, arguments.json);
    }
    let mut findings = machine::findings(arguments, context)?;
    findings.extend(disk::findings(context));
    let worst = findings.iter().map(|finding| finding.status).max().unwrap_or(State::Ok);
    let text = match arguments.json {
        true => format!("{}\n", json!({ "status": worst, "checks": findings })),
        false => findings.iter().map(Finding::text).collect(),
    };
    output::data(text.as_bytes())?;
    Ok(exit_code(worst))
}

fn exit_code(worst: State) -> ExitCode {
    match worst {
        State::Ok | State::Warn => ExitCode::SUCCESS,
        State::Fail => ExitCode::FAILURE,
    }
}
