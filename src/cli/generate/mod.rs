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
    self, Admitted, Choice, Durability, Engine, Event, Finish, Keeping, Outcome, Reply, Request,
    Stream, budget_tokens,
};
use crate::model::sample::Sampling;
use crate::model::source::{CATALOGUE, DEFAULT_MODEL, ResolvedModel};
use crate::model::{KvConfig, LoadOptions, ModelFiles};
use crate::text::{
    self, ChatTemplate, Message, Piece, Prompt, RenderOptions, Special, Tokenizer, has_system,
    next_turn, text_of,
};
use crate::types::{BLOCK_TOKENS, Generation, Namespace, TokenId};
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
    #[arg(
        long,
        short = 'n',
        value_name = "TOKENS",
        env = "SEMANTIC_MAX_TOKENS",
        allow_negative_numbers = true
    )]
    max_tokens: Option<usize>,
    /// 0 always takes the likeliest token [default: 0]
    #[arg(
        long,
        short,
        value_name = "T",
        env = "SEMANTIC_TEMPERATURE",
        allow_negative_numbers = true
    )]
    temperature: Option<f32>,
    /// Keep the likeliest tokens that have this probability together [default: 1]
    #[arg(long, value_name = "P", env = "SEMANTIC_TOP_P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Keep this many of the likeliest tokens
    #[arg(long, value_name = "COUNT", env = "SEMANTIC_TOP_K", allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// Keep tokens this likely relative to the likeliest [default: 0]
    #[arg(long, value_name = "P", env = "SEMANTIC_MIN_P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Above 1, recent tokens become less likely [default: 1]
    #[arg(
        long,
        value_name = "FACTOR",
        env = "SEMANTIC_REPEAT_PENALTY",
        allow_negative_numbers = true
    )]
    repeat_penalty: Option<f32>,
    /// The same seed gives the same reply
    #[arg(long, value_name = "NUMBER", env = "SEMANTIC_SEED", allow_negative_numbers = true)]
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

/// One run of the command: what it was told, and what that stands for.
struct Turn<'a> {
    arguments: &'a Arguments,
    context: &'a Context,
    settings: Settings,
    memory: Option<Memory>,
    resolved: ResolvedModel,
}

/// What the model is to go on from.
struct Question {
    tokenizer: Tokenizer,
    prompt: Prompt,
    prompt_tokens: usize,
    reply: Reply,
}

struct Answer {
    outcome: Outcome,
    /// Or nothing of it was to be.
    is_remembered: bool,
}

pub fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let settings = settings(&arguments, &context.config.generate)?;
    let prompt = read_prompt(arguments.prompt.as_deref())?;
    let memory = Memory::open(&arguments.agent, context)?;
    let resolved = model::resolve(arguments.model.name(context), context, arguments.quiet)?;
    let turn = Turn { arguments: &arguments, context, settings, memory, resolved };

    let load_started = Instant::now();
    let files = model::open(&turn.resolved)?;
    let keeping = turn.keeping(&files)?;
    let past = turn.past(keeping.as_ref())?;
    let Question { tokenizer, prompt, prompt_tokens, reply } =
        turn.question(prompt, past.as_ref(), &files)?;
    let options = turn.load_options(&files, prompt_tokens)?;
    if let Some(memory) = &turn.memory {
        memory.fork()?;
    }
    let engine = turn.start(files, options, tokenizer, keeping)?;
    let load = load_started.elapsed();

    let answer = turn.ask(&engine, turn.request(prompt, reply), prompt_tokens);
    engine.shutdown();
    turn.say(&answer?, load)
}

impl Turn<'_> {
    fn kv(&self) -> KvConfig {
        self.settings.compute.kv.unwrap_or(self.resolved.kv)
    }

    /// The memory, if the turn goes on from one or becomes one.
    fn remembering(&self) -> Option<&Memory> {
        self.memory.as_ref().filter(|memory| !memory.is_ephemeral)
    }

    fn keeping(&self, files: &ModelFiles) -> Result<Option<Keeping>, Failure> {
        let Some(memory) = &self.memory else { return Ok(None) };
        memory.keeping(files, self.kv(), &self.resolved.name, self.context).map(Some)
    }

    fn past(&self, keeping: Option<&Keeping>) -> Result<Option<Past>, Failure> {
        match (&self.memory, keeping) {
            (Some(memory), Some(keeping)) => {
                memory.past(keeping, self.arguments.raw, self.arguments.quiet)
            }
            _ => Ok(None),
        }
    }

    fn question(
        &self,
        prompt: String,
        past: Option<&Past>,
        files: &ModelFiles,
    ) -> Result<Question, Failure> {
        let text = files.text()?;
        // The text room knows no paths.
        let of_model = |error: text::Error| name_model(error, &self.resolved.path);
        let tokenizer = Tokenizer::new(&text).map_err(of_model)?;
        let (prompt, reply) = match self.arguments.raw {
            true => (continued(&tokenizer, past, &prompt)?.into(), Reply::Continuation),
            false => {
                let raw = Some("send the text as it is with --raw");
                let template = model::chat_template(&text, &self.resolved.path, raw)?;
                let prompt = match past.and_then(|past| Some((past, past.turns()?))) {
                    Some((past, turns)) => {
                        self.note_another_system(past, &template, &tokenizer).map_err(of_model)?;
                        following(turns, &template, &tokenizer, &prompt).map_err(of_model)?
                    }
                    None => {
                        let rendered =
                            render(&template, self.system(), prompt).map_err(of_model)?;
                        tokenizer.encode(&rendered, Special::Parse)?.into()
                    }
                };
                (prompt, Reply::Turn)
            }
        };
        // There is one list of ids for each reply.
        let tokens = prompt.resolve_anew().tokens;
        check_vocabulary(&tokens, files.summary().vocabulary)
            .map_err(|error| error.context(self.resolved.path.display().to_string()))?;
        Ok(Question { tokenizer, prompt, prompt_tokens: tokens.len(), reply })
    }

    fn system(&self) -> Option<String> {
        let default = &self.context.config.generate.system;
        self.arguments.system.clone().or_else(|| default.clone())
    }

    /// What an agent was told at the beginning is a part of its memory.
    fn note_another_system(
        &self,
        past: &Past,
        template: &ChatTemplate,
        tokenizer: &Tokenizer,
    ) -> Result<(), text::Error> {
        let (Some(system), false) = (&self.arguments.system, self.arguments.quiet) else {
            return Ok(());
        };
        let options = RenderOptions::new(SystemTime::now());
        if !has_system(&text_of(tokenizer, past.beginning()), system, template, &options)? {
            output::talk(
                "the agent keeps the system message that it began with\n\
                 hint: begin another --agent with this one",
            );
        }
        Ok(())
    }

    fn load_options(
        &self,
        files: &ModelFiles,
        prompt_tokens: usize,
    ) -> Result<LoadOptions, Failure> {
        let Compute { device, threads, .. } = self.settings.compute;
        let context_tokens = files.summary().context_tokens;
        let budget = budget_tokens(prompt_tokens, self.settings.max_tokens, context_tokens)?;
        let pool_blocks = budget.div_ceil(BLOCK_TOKENS);
        Ok(LoadOptions { kv: self.kv(), pool_blocks, device, threads })
    }

    /// Returns when the model is loaded.
    fn start(
        &self,
        files: ModelFiles,
        options: LoadOptions,
        tokenizer: Tokenizer,
        keeping: Option<Keeping>,
    ) -> Result<Engine, Failure> {
        let load = move || files.load(options).map_err(|error| error.to_string());
        // Nobody else waits, so that a step may be as long as serves the prompt best.
        let config = engine::Config { step: Duration::MAX, ..engine::Config::default() };
        let engine = Engine::start(config, Arc::new(tokenizer), keeping, load);
        let started = engine.wait_started();
        started.map_err(|reason| name_model(Reason(reason), &self.resolved.path))?;
        Ok(engine)
    }

    fn request(&self, prompt: Prompt, reply: Reply) -> Request {
        let memory = self.memory.as_ref();
        Request {
            namespace: memory.map_or_else(Namespace::local, |memory| memory.namespace.clone()),
            agent: memory.map(|memory| memory.agent.clone()),
            prompt,
            max_tokens: Some(self.settings.max_tokens),
            sampling: self.settings.sampling.clone(),
            stops: self.settings.stops.clone(),
            reply,
            choices: 1,
            logprobs: None,
            is_end_ignored: false,
            grammar: None,
            is_ephemeral: self.remembering().is_none(),
        }
    }

    /// Shows the answer while it comes, and returns when it is on disk if it is to be.
    fn ask(
        &self,
        engine: &Engine,
        request: Request,
        prompt_tokens: usize,
    ) -> Result<Answer, Failure> {
        let generation = || self.remembering().map_or(Ok(None), Memory::generation);
        let before = generation()?;
        let interrupt = Interrupt::catch()?;
        let mut screen = Screen::new(self.arguments, prompt_tokens);
        let outcome = follow(engine.submit(request), &mut screen, &interrupt);
        screen.clear();
        let is_remembered = self.remembering().is_none() || save(engine);
        let mut outcome = outcome?.map_err(|error| name_model(error, &self.resolved.path))?;
        if is_remembered {
            outcome.durability = in_the_end(outcome.durability, before, generation()?);
        }
        Ok(Answer { outcome, is_remembered })
    }

    fn say(&self, answer: &Answer, load: Duration) -> Result<ExitCode, Failure> {
        let Choice { text, finish, .. } = &answer.outcome.choices[0];
        match self.arguments.json {
            true => {
                let name = self.resolved.name.clone();
                let report = Report::new(&answer.outcome, load, name, self.memory.is_some());
                output::data(format!("{}\n", serde_json::to_string(&report)?).as_bytes())?;
            }
            // The reply ends where the model ended it; a terminal wants a new line after it.
            false if !text.ends_with('\n') => output::data(b"\n")?,
            false => (),
        }
        if !answer.is_remembered {
            let error = anyhow::anyhow!("the agent's memory of this turn could not be saved");
            let hint = "see the warnings above; what it knew before is unchanged".to_owned();
            return Err(Failure::with_hint(error, Some(hint)));
        }
        if *finish == Finish::Cancelled {
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
        if self.resolved.name == DEFAULT_MODEL && !self.arguments.quiet {
            hint_at_better_models(&self.context.data_dir);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// An answer ends before its save if the disk takes its time; the agent's last save, before the
/// turn and at the very end, then tells what became of it.
fn in_the_end(
    said: Durability,
    before: Option<Generation>,
    after: Option<Generation>,
) -> Durability {
    match (said, after) {
        (Durability::NotDurable, Some(generation)) if after > before => {
            Durability::Durable(generation)
        }
        _ => said,
    }
}

/// Waits until what the agent has said is on disk. A turn that was interrupted is, too.
fn save(engine: &Engine) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let saved = runtime.map(|runtime| runtime.block_on(engine.evict_all_to_disk()));
    matches!(saved, Ok(Ok(engine::Evicted { failed: 0, .. })))
}

/// One more turn after those that the agent has.
fn following(
    mut turns: Vec<Piece>,
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    prompt: &str,
) -> Result<Prompt, text::Error> {
    let options = RenderOptions::new(SystemTime::now());
    turns.push(Piece::Tokens(next_turn(template, tokenizer, prompt, &options)?));
    Ok(Prompt::new(turns))
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
    merge(arguments, defaults).map_err(|reason| Failure::in_configuration("generate", reason))
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
        biases: None,
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
        let error = anyhow::anyhow!("stdin is not UTF-8: byte {position} begins no character");
        let hint = "`iconv -f latin1 -t utf-8` makes UTF-8 of Latin-1, for instance".to_owned();
        Failure::with_hint(error, Some(hint))
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
        Semantic {
            agent: agent.to_string(),
            generation: outcome.durability.generation().map(|generation| generation.0),
            durable: outcome.durability.is_durable(),
            source: source.word(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_save_that_takes_longer_than_the_answer_counts() {
        let durable = |generation| Durability::Durable(Generation(generation));
        let at = |generation| Some(Generation(generation));
        assert_eq!(in_the_end(Durability::NotDurable, None, at(1)), durable(1));
        assert_eq!(in_the_end(Durability::NotDurable, at(4), at(5)), durable(5));
        assert_eq!(in_the_end(durable(5), at(4), at(5)), durable(5));
        // Only older turns are there.
        assert_eq!(in_the_end(Durability::NotDurable, at(4), at(4)), Durability::NotDurable);
        assert_eq!(in_the_end(Durability::NotDurable, None, None), Durability::NotDurable);
    }
}
