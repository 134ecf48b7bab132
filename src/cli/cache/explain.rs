//! `semantic cache explain`: where a prompt parts from what an agent has, and why.

use std::io::Read;
use std::process::ExitCode;
use std::time::SystemTime;

use serde::Serialize;

use super::reader::Reader;
use super::{Context, Failure, Format, Scope, agent_id, failed, find_agent, open_to_read, quoted};
use crate::cli::output::printable;
use crate::cli::table::thousands;
use crate::model::KvConfig;
use crate::store::{AgentInfo, SaveInfo, Store};
use crate::text::{self, Cause, Difference, Message, RenderOptions, Special};
use crate::types::{AgentId, TokenId};

/// No context holds more text than this.
const PROMPT_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Whose memory
    #[arg(value_parser = agent_id)]
    agent: AgentId,
    /// The prompt to compare with, as `generate` would send it; `-` reads stdin [default: compare
    /// the agent's last conversation with the one before]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// The system message before the prompt
    #[arg(long, short, env = "SEMANTIC_SYSTEM", requires = "prompt")]
    system: Option<String>,
    /// The prompt is what a chat template made already
    #[arg(long, requires = "prompt")]
    raw: bool,
    /// The model that is to go on [default: the one it was saved with]
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// Bits of the KV cache it is to go on with [default: the model's]
    #[arg(long, value_name = "BITS", env = "SEMANTIC_KV_BITS", requires = "prompt")]
    kv_bits: Option<KvConfig>,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    format: Format,
}

/// What was found, as `--json` has it.
#[derive(Debug, Serialize)]
struct Report {
    agent: String,
    namespace: String,
    model: String,
    /// The save that was compared with.
    generation: u64,
    stored_tokens: usize,
    given_tokens: usize,
    same_tokens: usize,
    /// Null if one goes on where the other ends.
    difference: Option<Parting>,
    /// One word, null if there is nothing to explain.
    cause: Option<&'static str>,
    explanation: String,
    advice: Option<&'static str>,
}

/// The first token that differs, with the text on both sides.
#[derive(Debug, Serialize)]
struct Parting {
    token: usize,
    stored_token: u32,
    given_token: u32,
    before: String,
    stored: String,
    given: String,
}

/// Two sequences to compare.
struct Pair<'a> {
    save: &'a SaveInfo,
    stored: Vec<TokenId>,
    given: Vec<TokenId>,
    /// What the second one is called.
    given_name: &'static str,
}

pub fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let store = open_to_read(context)?;
    let info = find_agent(&store, &arguments.scope, &arguments.agent)?;
    let name = arguments.model.as_deref().unwrap_or(&info.newest().model);
    let reader = Reader::open(name, context)?;
    let report = match &arguments.prompt {
        Some(prompt) => with_prompt(arguments, context, &store, &info, &reader, prompt)?,
        None => with_itself(&store, &info, &reader)?,
    };
    arguments.format.print(&report, || report.text())
}

/// The prompt beside the conversation that has most of it.
fn with_prompt(
    arguments: &Arguments,
    context: &Context,
    store: &Store,
    info: &AgentInfo,
    reader: &Reader,
    prompt: &str,
) -> Result<Report, Failure> {
    let given = prompt_tokens(arguments, context, reader, prompt)?;
    let kv = match (arguments.kv_bits, context.config.generate.kv_bits.as_deref()) {
        (Some(kv), _) => kv,
        (None, Some(text)) => text.parse().map_err(|reason| {
            Failure::in_configuration("generate", format_args!("kv_bits: {reason}"))
        })?,
        (None, None) => reader.model.kv,
    };
    let fingerprint = reader.fingerprint(kv, context)?;
    let mut best: Option<Pair<'_>> = None;
    for save in live(info).filter(|save| save.fingerprint == fingerprint) {
        let stored = store.tokens(&info.namespace, &info.agent, save.generation).map_err(failed)?;
        let same = text::common_tokens(&stored, &given);
        let is_better =
            best.as_ref().is_none_or(|best| same > text::common_tokens(&best.stored, &best.given));
        if is_better {
            best = Some(Pair { save, stored, given: given.clone(), given_name: "the prompt" });
        }
    }
    match best {
        Some(pair) => Ok(Report::new(info, &pair, reader)),
        None => {
            let saved_with = reader.kv_of(&info.newest().fingerprint, context)?;
            Ok(Report::other_model(info, given.len(), saved_with.map(|saved| (saved, kv))))
        }
    }
}

/// The agent's last conversation beside the one before.
fn with_itself(store: &Store, info: &AgentInfo, reader: &Reader) -> Result<Report, Failure> {
    let mut lives = live(info);
    let (Some(newest), Some(before)) = (lives.next(), lives.next()) else {
        let agent = quoted(info.agent.as_str());
        let error = anyhow::anyhow!("{agent} has one conversation, and nothing to compare it with");
        return Err(Failure::with_hint(error, Some("--prompt gives a text".to_owned())));
    };
    let tokens = |save: &SaveInfo| {
        store.tokens(&info.namespace, &info.agent, save.generation).map_err(failed)
    };
    if newest.fingerprint != before.fingerprint {
        return Ok(Report::other_model(info, newest.tokens, None));
    }
    let (stored, given) = (tokens(before)?, tokens(newest)?);
    let pair = Pair { save: before, stored, given, given_name: "the last conversation" };
    Ok(Report::new(info, &pair, reader))
}

/// The saves that the agent can go on from, newest first.
fn live(info: &AgentInfo) -> impl Iterator<Item = &SaveInfo> {
    info.saves.iter().filter(|save| save.is_live)
}

fn prompt_tokens(
    arguments: &Arguments,
    context: &Context,
    reader: &Reader,
    prompt: &str,
) -> Result<Vec<TokenId>, Failure> {
    let prompt = match prompt {
        "-" => read_stdin()?,
        text => text.to_owned(),
    };
    if arguments.raw {
        return Ok(reader.tokenizer.encode_raw(&prompt)?);
    }
    let system = arguments.system.clone().or_else(|| context.config.generate.system.clone());
    let mut messages: Vec<Message> = Vec::new();
    messages.extend(system.map(|system| Message::new("system", system)));
    messages.push(Message::new("user", prompt));
    let rendered = reader.template()?.render(&messages, &RenderOptions::new(SystemTime::now()))?;
    Ok(reader.tokenizer.encode(&rendered, Special::Parse)?)
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let mut stdin = std::io::stdin().lock().take(PROMPT_BYTES_MAX);
    stdin
        .read_to_string(&mut text)
        .map_err(|error| anyhow::Error::new(error).context("cannot read stdin"))?;
    Ok(text)
}

impl Report {
    fn new(info: &AgentInfo, pair: &Pair<'_>, reader: &Reader) -> Report {
        let Pair { save, stored, given, given_name } = pair;
        let found = text::explain(&reader.tokenizer, stored, given, given_name);
        let cause = found.cause();
        Report {
            agent: info.agent.as_str().to_owned(),
            namespace: info.namespace.as_str().to_owned(),
            model: save.model.clone(),
            generation: save.generation.0,
            stored_tokens: stored.len(),
            given_tokens: given.len(),
            same_tokens: found.same_tokens,
            difference: found.difference.map(Parting::from),
            cause: cause.map(Cause::code),
            explanation: found.text,
            advice: cause.and_then(Cause::advice),
        }
    }

    /// `bits`: those that were saved and those that are asked for, where it is the same model.
    fn other_model(
        info: &AgentInfo,
        given_tokens: usize,
        bits: Option<(KvConfig, KvConfig)>,
    ) -> Report {
        let newest = info.newest();
        let explanation = match bits {
            Some((saved, asked)) => {
                format!("its KV was saved with {saved} bits, and {asked} are asked for")
            }
            None => Cause::OtherModel.explanation().to_owned(),
        };
        Report {
            agent: info.agent.as_str().to_owned(),
            namespace: info.namespace.as_str().to_owned(),
            model: newest.model.clone(),
            generation: newest.generation.0,
            stored_tokens: newest.tokens,
            given_tokens,
            same_tokens: 0,
            difference: None,
            cause: Some(Cause::OtherModel.code()),
            explanation,
            advice: Cause::OtherModel.advice(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{} of {} tokens can be used (generation {} of {} has {})\n",
            thousands(self.same_tokens),
            thousands(self.given_tokens),
            self.generation,
            quoted(&self.agent),
            thousands(self.stored_tokens),
        );
        if let Some(parting) = &self.difference {
            text += &parting.text();
        }
        text += &match self.cause {
            Some(_) => format!("cause: {}\n", self.explanation),
            None => format!("{}\n", self.explanation),
        };
        text.extend(self.advice.map(|advice| format!("advice: {advice}\n")));
        text
    }
}

impl Parting {
    fn text(&self) -> String {
        let before = printable(&self.before);
        let mark = " ".repeat(before.chars().count());
        let [stored, given] = [&self.stored, &self.given].map(|text| printable(text));
        format!(
            "token {} is the first that differs:\n  stored  {before}{stored}\n  given   \
             {before}{given}\n          {mark}^\n",
            thousands(self.token)
        )
    }
}

impl From<Difference> for Parting {
    fn from(difference: Difference) -> Parting {
        Parting {
            token: difference.same_tokens,
            stored_token: difference.stored.0,
            given_token: difference.given.0,
            before: difference.before,
            stored: difference.stored_text,
            given: difference.given_text,
        }
    }
}
