//! What the product promises: an agent whose process was killed after its turn answers the next
//! one exactly as if it had never left.
//!
//! Conversations take their first turn in processes that are killed as soon as a turn is said to be
//! durable, and their second in another process. Tokens and log-probabilities are compared, by
//! their bits, with those of one process that keeps nothing on disk. Each turn runs alone, so that
//! on the portable path batches and chunks are equal, too.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use semantic::engine::{
    Config, Durability, Engine, Event, Keeping, Outcome, Reply, Request, Source,
};
use semantic::model::sample::Sampling;
use semantic::model::{Device, LoadOptions, ModelFiles};
use semantic::store::{Folder, Settings, Store, StoredLine};
use semantic::types::{AgentId, Namespace, TokenId};

use crate::support::golden;
use crate::support::model::smollm2;
use crate::support::random::Random;
use crate::support::scale::scaled;
use crate::support::text::byte_level_tokenizer;

/// Conversations of each model and setting when everything is run.
const CONVERSATIONS: usize = 50;
const SETTINGS: [&str; 4] = ["16", "8", "8/4", "4"];
/// Tells a process of this test binary that it is to be killed, and what to do until then.
const CHILD: &str = "SEMANTIC_TEST_PROMISE";

/// A model, how its KV is kept and where.
struct Case {
    model: PathBuf,
    kv: &'static str,
    device: Device,
    conversations: usize,
    /// The longest prompt.
    prompt_tokens: usize,
    vocabulary: usize,
}

/// What a child is told.
struct Task<'a> {
    case: &'a Case,
    folder: &'a Path,
    /// 0 or 1.
    turn: usize,
    first: usize,
}

/// Tokens of a reply with the bits of their log-probabilities.
type Said = Vec<(TokenId, u32)>;

#[test]
fn a_killed_agent_goes_on_as_if_it_had_never_left_on_tiny_models() {
    for (name, devices) in [
        ("llama-f32", &[Device::Cpu, Device::Portable][..]),
        ("qwen3", &[Device::Cpu]),
        ("gemma3", &[Device::Cpu]),
    ] {
        for device in devices {
            for kv in SETTINGS {
                check(&Case {
                    model: golden::data(&format!("tiny/{name}")),
                    kv,
                    device: *device,
                    conversations: scaled(CONVERSATIONS),
                    prompt_tokens: 400,
                    vocabulary: 288,
                });
            }
        }
    }
}

#[test]
fn a_killed_agent_goes_on_as_if_it_had_never_left_on_the_real_model() {
    // It takes its time: unless everything is run, the settings share the conversations.
    let conversations = match scaled(CONVERSATIONS) {
        CONVERSATIONS => CONVERSATIONS,
        few => few.div_ceil(SETTINGS.len()),
    };
    for kv in SETTINGS {
        check(&Case {
            model: smollm2().to_owned(),
            kv,
            device: Device::Cpu,
            conversations,
            prompt_tokens: 300,
            vocabulary: 49_152,
        });
    }
}

fn check(case: &Case) {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::new(case.conversations as u64);
    // First turns, in processes that die one after the other.
    let mut first = Vec::new();
    while first.len() < case.conversations {
        let left = case.conversations - first.len();
        let count = random.range(1..left + 1);
        first
            .extend(run(&Task { case, folder: folder.path(), turn: 0, first: first.len() }, count));
    }
    let second = run(&Task { case, folder: folder.path(), turn: 1, first: 0 }, case.conversations);
    let engine = start(case, None);
    for conversation in 0..case.conversations {
        let prompt = prompt(case, conversation, 0);
        let expected = say(&engine, case, conversation, &prompt).0;
        let at = format!("{:?} {:?} {} #{conversation}", case.model, case.device, case.kv);
        assert_eq!(first[conversation], expected, "{at}, first turn");
        let next = next_prompt(case, conversation, &[prompt, ids(&expected)].concat());
        let (expected, outcome) = say(&engine, case, conversation, &next);
        assert_eq!(outcome.admitted.source, Source::Hot);
        assert_eq!(second[conversation], expected, "{at}, second turn");
    }
    engine.shutdown();
}

fn ids(said: &Said) -> Vec<TokenId> {
    said.iter().map(|(token, _)| *token).collect()
}

/// What so many conversations say in a process that is killed when the last of them is safe.
fn run(task: &Task<'_>, count: usize) -> Vec<Said> {
    let case = task.case;
    let device = match case.device {
        Device::Portable => "portable",
        Device::Cpu | Device::Auto => "cpu",
    };
    let words = [
        case.model.to_str().unwrap().to_owned(),
        task.folder.to_str().unwrap().to_owned(),
        case.kv.to_owned(),
        device.to_owned(),
        case.conversations.to_string(),
        case.prompt_tokens.to_string(),
        case.vocabulary.to_string(),
        task.turn.to_string(),
        task.first.to_string(),
    ];
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "promise::child", "--nocapture"])
        .env(CHILD, words.join("\t"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let said = lines.map_while(Result::ok).filter_map(|line| parse(&line)).take(count).collect();
    drop(child);
    let said: Vec<Said> = said;
    assert_eq!(said.len(), count, "the process ended by itself");
    said
}

/// A process that dies with SIGKILL.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A line of [`child`]: tokens and bits.
fn parse(line: &str) -> Option<Said> {
    let words = line.strip_prefix("said ")?.split(' ');
    let pair = |word: &str| {
        let (token, bits) = word.split_once(':')?;
        Some((TokenId(token.parse().ok()?), bits.parse().ok()?))
    };
    words.map(pair).collect()
}

/// The process that is killed. As a test of its own it has nothing to do.
#[test]
#[expect(clippy::print_stdout, reason = "its parent reads it")]
fn child() {
    let Ok(words) = std::env::var(CHILD) else { return };
    let words: Vec<&str> = words.split('\t').collect();
    let [model, folder, kv, device, conversations, prompt_tokens, vocabulary, turn, first] =
        words[..]
    else {
        panic!("{words:?}")
    };
    let number = |word: &str| word.parse::<usize>().unwrap();
    let case = Case {
        model: model.into(),
        kv: SETTINGS.into_iter().find(|setting| *setting == kv).unwrap(),
        device: if device == "cpu" { Device::Cpu } else { Device::Portable },
        conversations: number(conversations),
        prompt_tokens: number(prompt_tokens),
        vocabulary: number(vocabulary),
    };
    let disk = Arc::new(Folder::make(Path::new(folder)).unwrap());
    let store = Arc::new(Store::open(disk, Settings::default()).unwrap());
    let digests = Path::new(folder).join("digests");
    let files = ModelFiles::open(&case.model).unwrap();
    let fingerprint = files.fingerprint(case.kv.parse().unwrap(), &digests).unwrap();
    let lines = store.lines(&fingerprint);
    let engine = start(&case, Some(Keeping { store, fingerprint, model: "test".to_owned() }));
    for conversation in number(first)..case.conversations {
        let agent = agent(conversation);
        let is_own = |line: &&StoredLine| line.agent == agent;
        let past = lines.iter().find(is_own).map(|line| line.tokens.to_vec());
        let prompt = match (number(turn), past) {
            (0, None) => prompt(&case, conversation, 0),
            (1, Some(past)) => next_prompt(&case, conversation, &past),
            (turn, past) => panic!("turn {turn} after {past:?}"),
        };
        let (said, outcome) = say(&engine, &case, conversation, &prompt);
        assert!(matches!(outcome.durability, Durability::Durable(_)), "{:?}", outcome.durability);
        if turn == "1" {
            assert_eq!(outcome.admitted.source, Source::Warm);
        }
        let said: Vec<String> =
            said.iter().map(|(token, bits)| format!("{token}:{bits}")).collect();
        // The harness has begun this line.
        println!("\nsaid {}", said.join(" "));
        std::io::stdout().flush().unwrap();
    }
    // Until it is killed.
    loop {
        std::thread::park();
    }
}

fn agent(conversation: usize) -> AgentId {
    AgentId::new(&format!("agent {conversation}")).unwrap()
}

fn start(case: &Case, keeping: Option<Keeping>) -> Engine {
    let files = ModelFiles::open(&case.model).unwrap();
    let options = LoadOptions {
        kv: case.kv.parse().unwrap(),
        pool_blocks: 300,
        device: case.device,
        threads: None,
    };
    let load = move || files.load(options).map_err(|error| error.to_string());
    // No step is too long, so that a slow machine cuts the same chunks.
    let config = Config { step: Duration::from_secs(3_600), ..Config::default() };
    // The text does not matter here.
    let engine = Engine::start(config, byte_level_tokenizer(), keeping, load);
    engine.wait_started().unwrap();
    engine
}

/// What the user says in a turn, its length random.
fn prompt(case: &Case, conversation: usize, turn: usize) -> Vec<TokenId> {
    let mut random = Random::new((conversation * 2 + turn) as u64);
    let count = match turn {
        0 => random.range(1..case.prompt_tokens),
        _ => random.range(1..40),
    };
    (0..count).map(|_| TokenId(random.range(0..case.vocabulary) as u32)).collect()
}

fn next_prompt(case: &Case, conversation: usize, history: &[TokenId]) -> Vec<TokenId> {
    [history, &prompt(case, conversation, 1)].concat()
}

/// One turn: every other conversation is greedy, the others draw with a seed.
fn say(engine: &Engine, case: &Case, conversation: usize, prompt: &[TokenId]) -> (Said, Outcome) {
    let temperature = [0.0, 0.9][conversation % 2];
    let mut stream = engine.submit(Request {
        namespace: Namespace::local(),
        agent: Some(agent(conversation)),
        prompt: prompt.to_vec().into(),
        max_tokens: Some(4 + conversation % 13),
        sampling: Sampling { temperature, seed: conversation as u64, ..Sampling::GREEDY },
        stops: Vec::new(),
        reply: Reply::Turn,
        choices: 1,
        logprobs: Some(0),
        is_end_ignored: true,
        grammar: None,
        is_ephemeral: false,
    });
    let mut said = Said::new();
    while let Some(item) = stream.blocking_next() {
        match item.unwrap() {
            Event::Text(delta) => {
                said.extend(delta.logprobs.iter().map(|one| (one.token, one.logprob.to_bits())));
            }
            Event::Finished(outcome) => return (said, outcome),
            Event::Admitted(_) | Event::Prefilled { .. } => (),
        }
    }
    panic!("{:?} ended", case.model);
}
