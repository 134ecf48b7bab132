//! `semantic generate`: answers one prompt on the terminal, as an agent that remembers or as nobody.

mod agent;

use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::Context;
use super::compute::{Compute, ComputeFlags};
use super::interrupt::Interrupt;
use super::memory::peak_rss_bytes;
use super::model::{self, ModelFlag, name_model};
use super::output::{self, EXIT_INTERRUPTED, Failure, human_bytes};
use crate::config;
use crate::engine::{
    self, Admitted, Choice, Durability, Engine, Event, Finish, Outcome, Reply, Request, Source,
    Stream, budget_tokens,
};
use crate::model::LoadOptions;
use crate::model::sample::Sampling;
use crate::model::source::{CATALOGUE, DEFAULT_MODEL};
use crate::text::{
    self, ChatTemplate, Message, Piece, Prompt, RenderOptions, Special, Tokenizer, next_turn,
};
use crate::types::{BLOCK_TOKENS, Namespace, TokenId};
use agent::{AgentFlags, Memory, Past};

/// The longest reply if nobody says otherwise.
const MAX_TOKENS_DEFAULT: usize = 512;
/// No context holds more text than this; more on stdin is a mistake.
const PROMPT_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The prompt; `-`, or nothing when stdin is a file or a pipe, reads stdin
    prompt: Option<String>,
    #[command(flatten)]
    model: ModelFlag,
    /// The system message
    #[arg(long, short, env = "SEMANTIC_SYSTEM")]
    system: Option<String>,
    /// The longest reply, in tokens [default: 512]
    #[arg(long, short = 'n', env = "SEMANTIC_MAX_TOKENS", allow_negative_numbers = true)]
    max_tokens: Option<usize>,
    /// 0 always takes the likeliest token [default: 0]
    #[arg(long, short, env = "SEMANTIC_TEMPERATURE", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Keep the likeliest tokens that together have this probability [default: 1]
    #[arg(long, env = "SEMANTIC_TOP_P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Keep this many of the likeliest tokens
    #[arg(long, env = "SEMANTIC_TOP_K", allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// Keep tokens at least this likely relative to the likeliest [default: 0]
    #[arg(long, env = "SEMANTIC_MIN_P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Above 1, recent tokens become less likely [default: 1]
    #[arg(long, env = "SEMANTIC_REPEAT_PENALTY", allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// The same seed gives the same reply
    #[arg(long, env = "SEMANTIC_SEED", allow_negative_numbers = true)]
    seed: Option<u64>,
    /// A text that ends the reply; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    #[command(flatten)]
    agent: AgentFlags,
    #[command(flatten)]
    compute: ComputeFlags,
    /// Continue the prompt as it is, without the model's chat template
    #[arg(long)]
    raw: bool,
    /// Print one JSON object instead of the text
    #[arg(long)]
    json: bool,
    /// Say nothing on stderr unless something fails
    #[arg(long, short)]
    quiet: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    text: String,
    finish_reason: &'static str,
    usage: Usage,
    timings: Timings,
    memory: MemoryUse,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    semantic: Option<Semantic>,
}

#[derive(Debug, Serialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Debug, Serialize)]
struct PromptTokensDetails {
    cached_tokens: usize,
}

#[derive(Debug, Serialize)]
struct Timings {
    load_ms: f64,
    ttft_ms: f64,
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
}

/// As the server says it: whose memory this became and where it was.
#[derive(Debug, Serialize)]
struct Semantic {
    agent: String,
    generation: Option<u64>,
    durable: bool,
    source: &'static str,
    restored_tokens: usize,
    restore_ms: f64,
}

#[derive(Debug, Serialize)]
struct MemoryUse {
    /// Null where the system does not say.
    peak_rss_bytes: Option<u64>,
}

pub fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let defaults = &context.config.generate;
    let Settings { sampling, max_tokens, stops, compute } = settings(&arguments, defaults)?;
    let prompt = read_prompt(arguments.prompt.as_deref())?;
    let memory = Memory::open(&arguments.agent, context)?;
    let name = arguments.model.name(context).to_owned();
    let resolved = model::resolve(&name, context, arguments.quiet)?;
    let Compute { kv, device, threads } = compute;
    let kv = kv.unwrap_or(resolved.kv);

    let load_started = Instant::now();
    let files = model::open(&resolved)?;
    let text = files.text()?;
    // The text room knows no paths.
    let of_model = |error: text::Error| name_model(error, &resolved.path);
    let tokenizer = Tokenizer::new(&text).map_err(of_model)?;
    let keeping = match &memory {
        Some(memory) => Some(memory.keeping(&files, kv, &resolved.name, context)?),
        None => None,
    };
    let past = match (&memory, &keeping) {
        (Some(memory), Some(keeping)) => memory.past(keeping)?,
        _ => None,
    };
    let (prompt, reply) = match arguments.raw {
        true => (continued(&tokenizer, past.as_ref(), &prompt)?.into(), Reply::Continuation),
        false => {
            let system = arguments.system.clone().or_else(|| defaults.system.clone());
            let template = ChatTemplate::new(&text).map_err(of_model)?;
            let prompt: Prompt = match past.as_ref().and_then(Past::turns) {
                // What it was told at the beginning is a part of its memory.
                Some(mut turns) => {
                    let options = RenderOptions::new(SystemTime::now());
                    let next = next_turn(&template, &tokenizer, &prompt, &options);
                    turns.push(Piece::Tokens(next.map_err(of_model)?));
                    Prompt::new(turns)
                }
                None => {
                    let rendered = render(&template, system, prompt).map_err(of_model)?;
                    tokenizer.encode(&rendered, Special::Parse)?.into()
                }
            };
            (prompt, Reply::Turn)
        }
    };
    // There is one list of ids for each reply.
    let tokens = prompt.resolve(&|_| 0).tokens;
    check_vocabulary(&tokens, files.summary().vocabulary)
        .map_err(|error| error.context(resolved.path.display().to_string()))?;
    let prompt_tokens = tokens.len();
    let budget = budget_tokens(prompt_tokens, max_tokens, files.summary().context_tokens)?;
    let pool_blocks = budget.div_ceil(BLOCK_TOKENS);
    let options = LoadOptions { kv, pool_blocks, device, threads };
    if let Some(memory) = &memory {
        memory.fork()?;
    }
    let load = move || files.load(options).map_err(|error| error.to_string());
    // Nobody else waits, so that a step may be as long as serves the prompt best.
    let config = engine::Config { step: Duration::MAX, ..engine::Config::default() };
    let engine = Engine::start(config, Arc::new(tokenizer), keeping, load);
    let started = engine.wait_started();
    started.map_err(|reason| name_model(Reason(reason), &resolved.path))?;
    let load = load_started.elapsed();

    let interrupt = Interrupt::catch()?;
    let mut screen = Screen::new(&arguments, prompt_tokens);
    let stream = engine.submit(Request {
        namespace: memory.as_ref().map_or_else(Namespace::local, |memory| memory.namespace.clone()),
        agent: memory.as_ref().map(|memory| memory.agent.clone()),
        prompt,
        max_tokens: Some(max_tokens),
        sampling,
        stops,
        reply,
        choices: 1,
        logprobs: None,
        is_end_ignored: false,
        is_ephemeral: memory.as_ref().is_none_or(|memory| memory.is_ephemeral),
    });
    let outcome = follow(stream, &mut screen, &interrupt);
    screen.clear();
    let is_remembered = memory.as_ref().is_none_or(|memory| memory.is_ephemeral) || save(&engine);
    engine.shutdown();
    let outcome = outcome?.map_err(|error| name_model(error, &resolved.path))?;
    let Outcome { choices, .. } = &outcome;
    let Choice { text, finish, .. } = &choices[0];
    match arguments.json {
        true => {
            let is_agent = memory.is_some();
            let report = Report::new(&outcome, load, resolved.name.clone(), is_agent);
            output::data(format!("{}\n", serde_json::to_string(&report)?).as_bytes())?;
        }
        // The reply ends where the model ended it; a terminal wants a new line after it.
        false if !text.ends_with('\n') => output::data(b"\n")?,
        false => (),
    }
    if !is_remembered {
        let error = anyhow::anyhow!("the agent's memory of this turn could not be saved");
        let hint = "see the warnings above; what it knew before is unchanged".to_owned();
        return Err(Failure::with_hint(error, Some(hint)));
    }
    if *finish == Finish::Cancelled {
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    if resolved.name == DEFAULT_MODEL && !arguments.quiet {
        hint_at_better_models(&context.data_dir);
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until what the agent has said is on disk. A turn that was interrupted is, too.
fn save(engine: &Engine) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let saved = runtime.map(|runtime| runtime.block_on(engine.evict_all_to_disk()));
    matches!(saved, Ok(Ok(engine::Evicted { failed: 0, .. })))
}

/// The prompt as it is, after all that the agent has.
fn continued(
    tokenizer: &Tokenizer,
    past: Option<&Past>,
    prompt: &str,
) -> Result<Vec<TokenId>, text::Error> {
    match past {
        Some(past) => Ok([past.tokens(), &tokenizer.encode(prompt, Special::Parse)?].concat()),
        None => tokenizer.encode_raw(prompt),
    }
}

/// Shows what comes until the reply is complete or the user has had enough.
fn follow(
    mut stream: Stream,
    screen: &mut Screen,
    interrupt: &Interrupt,
) -> Result<Result<Outcome, engine::Error>, Failure> {
    while let Some(item) = stream.blocking_next() {
        match item {
            Ok(Event::Finished(outcome)) => return Ok(Ok(outcome)),
            Ok(event) => screen.show(&event)?,
            Err(error) => return Ok(Err(error)),
        }
        if interrupt.is_set() {
            stream.cancel();
        }
    }
    Ok(Err(engine::Error::Stopped))
}

/// Why the engine did not start, as it says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(String);

/// A tokenizer may know tokens that the model has no row for, as long as nobody uses them.
fn check_vocabulary(prompt: &[TokenId], rows: usize) -> anyhow::Result<()> {
    match prompt.iter().find(|token| token.0 as usize >= rows) {
        None => Ok(()),
        Some(token) => Err(anyhow::anyhow!(
            "the tokenizer gives token {token}, the model's vocabulary is {rows}"
        )),
    }
}

/// What a request is made of besides its prompt, in range.
struct Settings {
    sampling: Sampling,
    max_tokens: usize,
    stops: Vec<String>,
    compute: Compute,
}

/// The flags and the environment over the configuration. Looked at alone first, so that a value
/// out of range is blamed on whoever set it.
fn settings(arguments: &Arguments, defaults: &config::Generate) -> Result<Settings, Failure> {
    merge(arguments, &config::Generate::default()).map_err(Failure::Usage)?;
    merge(arguments, defaults).map_err(|reason| {
        Failure::from(anyhow::anyhow!("the configuration's [generate] is not valid: {reason}"))
    })
}

fn merge(arguments: &Arguments, defaults: &config::Generate) -> Result<Settings, String> {
    let sampling = Sampling {
        temperature: arguments.temperature.or(defaults.temperature).unwrap_or(0.0),
        top_k: arguments.top_k.or(defaults.top_k),
        top_p: arguments.top_p.or(defaults.top_p).unwrap_or(1.0),
        min_p: arguments.min_p.or(defaults.min_p).unwrap_or(0.0),
        repeat_penalty: arguments.repeat_penalty.or(defaults.repeat_penalty).unwrap_or(1.0),
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        seed: arguments.seed.or(defaults.seed).unwrap_or_else(random_seed),
    };
    sampling.check()?;
    let max_tokens = arguments.max_tokens.or(defaults.max_tokens).unwrap_or(MAX_TOKENS_DEFAULT);
    if max_tokens == 0 {
        return Err("max_tokens is 0; it is at least 1".to_owned());
    }
    let stops = if arguments.stop.is_empty() { &defaults.stop } else { &arguments.stop };
    if stops.iter().any(String::is_empty) {
        return Err("a stop text is empty".to_owned());
    }
    let compute = arguments.compute.merge(defaults.compute())?;
    Ok(Settings { sampling, max_tokens, stops: stops.clone(), compute })
}

/// Differs from run to run, which is all that is asked of it.
pub fn random_seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_nanos() as u64)
}

fn read_prompt(argument: Option<&str>) -> Result<String, Failure> {
    let prompt = match argument {
        Some("-") => read_stdin()?,
        Some(prompt) => prompt.to_owned(),
        None if io::stdin().is_terminal() => {
            let message = "there is no prompt; give one, or `-` to read it from stdin";
            return Err(Failure::Usage(message.to_owned()));
        }
        None => read_stdin()?,
    };
    if prompt.trim().is_empty() {
        return Err(Failure::Usage("the prompt is empty".to_owned()));
    }
    Ok(prompt)
}

fn read_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(PROMPT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| anyhow::Error::new(error).context("cannot read stdin"))?;
    if bytes.len() as u64 > PROMPT_BYTES_MAX {
        let most = human_bytes(PROMPT_BYTES_MAX);
        return Err(anyhow::anyhow!("stdin has more than {most}").into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        anyhow::anyhow!("stdin is not UTF-8: byte {position} begins no character").into()
    })
}

fn render(
    template: &ChatTemplate,
    system: Option<String>,
    prompt: String,
) -> Result<String, text::Error> {
    let mut messages: Vec<Message> = Vec::new();
    if let Some(system) = system {
        messages.push(Message::new("system", system));
    }
    messages.push(Message::new("user", prompt));
    template.render(&messages, &RenderOptions::new(SystemTime::now()))
}

/// What the user sees while it runs.
struct Screen {
    prints_text: bool,
    bar: Option<indicatif::ProgressBar>,
}

impl Screen {
    fn new(arguments: &Arguments, prompt_tokens: usize) -> Screen {
        let numbers = "reading the prompt: {pos}/{len} tokens";
        let bar = match arguments.quiet {
            true => None,
            false => output::bar(Some(prompt_tokens as u64), numbers),
        };
        Screen { prints_text: !arguments.json, bar }
    }

    fn show(&mut self, event: &Event) -> Result<(), Failure> {
        match event {
            Event::Admitted(_) | Event::Finished(_) => Ok(()),
            Event::Prefilled { tokens } => {
                if let Some(bar) = &self.bar {
                    bar.set_position(*tokens as u64);
                }
                Ok(())
            }
            Event::Text(delta) => {
                self.clear();
                match self.prints_text && !delta.text.is_empty() {
                    true => output::data(delta.text.as_bytes()),
                    false => Ok(()),
                }
            }
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Report {
    fn new(outcome: &Outcome, load: Duration, model: String, is_agent: bool) -> Report {
        let per_second = |tokens: usize, time: Duration| match time.as_secs_f64() {
            0.0 => 0.0,
            seconds => tokens as f64 / seconds,
        };
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let choice = &outcome.choices[0];
        Report {
            text: choice.text.clone(),
            finish_reason: match choice.finish {
                Finish::Stop | Finish::StopSequence(_) => "stop",
                Finish::Length => "length",
                Finish::Cancelled => "cancelled",
            },
            usage: Usage {
                prompt_tokens: outcome.admitted.prompt_tokens,
                completion_tokens: choice.completion_tokens,
                prompt_tokens_details: PromptTokensDetails {
                    cached_tokens: outcome.admitted.cached_tokens,
                },
            },
            timings: Timings {
                load_ms: milliseconds(load),
                ttft_ms: milliseconds(outcome.prefill),
                prefill_tokens_per_s: per_second(outcome.admitted.prompt_tokens, outcome.prefill),
                // The first token belongs to the prefill.
                decode_tokens_per_s: per_second(
                    choice.completion_tokens.saturating_sub(1),
                    outcome.decode,
                ),
            },
            memory: MemoryUse { peak_rss_bytes: peak_rss_bytes() },
            model,
            semantic: is_agent.then(|| Semantic::new(outcome)),
        }
    }
}

impl Semantic {
    fn new(outcome: &Outcome) -> Semantic {
        let Admitted { agent, source, restored_tokens, restore, .. } = &outcome.admitted;
        let (durable, generation) = match outcome.durability {
            Durability::Durable(generation) => (true, Some(generation.0)),
            Durability::NotDurable => (false, None),
        };
        Semantic {
            agent: agent.to_string(),
            generation,
            durable,
            source: match source {
                Source::Hot => "hot",
                Source::Warm => "warm",
                Source::Cold => "cold",
            },
            restored_tokens: *restored_tokens,
            restore_ms: restore.as_secs_f64() * 1e3,
        }
    }
}

/// Once per data folder: what the default model is, and one that is better.
fn hint_at_better_models(data_dir: &Path) {
    let marker = data_dir.join("first-answer");
    // Nothing was stored yet if the model lies elsewhere; what fails here fails below, too.
    let _ = std::fs::create_dir_all(data_dir);
    match std::fs::File::create_new(marker) {
        // Then the user has read it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return,
        // Said once too often is better than never.
        Ok(_) | Err(_) => (),
    }
    let Some(better) = CATALOGUE.iter().find(|entry| entry.name == "qwen3-4b") else { return };
    output::talk(&format!(
        "hint: {DEFAULT_MODEL} is a demonstration model of 135M parameters and often wrong; \
         for real work try --model {} ({} to fetch, needs about {} of memory)",
        better.name,
        human_bytes(better.size_bytes),
        human_bytes(better.memory_bytes),
    ));
}
