//! A real process on a real disk, killed at any moment: what it acknowledged is there, and every byte
//! is right. And two processes with one store.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use semantic::store::{Folder, KvModel, OpenError};
use semantic::types::{BLOCK_TOKENS, Fingerprint, KvAxis, KvElement, KvTensor, Line, TokenId};

use super::agents::{Agents, Whose, branch, conversation, kv, whose};
use crate::support::random::Random;
use crate::support::scale::scaled;

/// Names the folder that a child works in; without it the child's test has nothing to do.
const FOLDER: &str = "SEMANTIC_TEST_STORE";
/// The seed of what a child does there.
const SEED_OF_CHILD: &str = "SEMANTIC_TEST_STORE_SEED";

const AGENTS: usize = 16;
const KILLS: usize = 200;
/// The longest conversation, in tokens: three blocks.
const TOKENS_MAX: usize = 700;
const SEED: u64 = 0x5eed_0004;

/// What a child says that it is about to do. `done` follows when it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// The agent's conversation with this seed grows to so many tokens.
    Save {
        agent: usize,
        seed: u64,
        tokens: usize,
    },
    Remove {
        agent: usize,
    },
    Collect,
    Repair,
}

/// What a killed child had said.
struct Told {
    done: Vec<Act>,
    in_flight: Option<Act>,
}

#[test]
fn a_process_that_is_killed_loses_nothing_that_it_acknowledged() {
    println!("seed {SEED:#x}");
    let mut random = Random::new(SEED);
    let kills = scaled(KILLS);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    let mut expected: BTreeMap<Whose, Vec<TokenId>> = BTreeMap::new();
    let (mut in_the_middle, mut done) = (0, 0);
    for round in 0..kills {
        let told = run_and_kill(&root, &mut random);
        done += told.done.len();
        for act in told.done {
            act.apply(&mut expected);
        }
        let was_writing = is_writing(&root);
        let agents = open(&root);
        let found: BTreeMap<Whose, Vec<TokenId>> = agents
            .conversations()
            .into_iter()
            .map(|(whose, all)| (whose, all.into_iter().max_by_key(Vec::len).unwrap()))
            .collect();
        let mut new = expected.clone();
        if let Some(act) = told.in_flight {
            act.apply(&mut new);
        }
        assert!(found == expected || found == new, "round {round}: {:?}", told.in_flight);
        let has_begun = told.in_flight.is_some_and(|act| act.has_begun(&agents, found != expected));
        in_the_middle += usize::from(was_writing || has_begun);
        assert_eq!(agents.store.verify().unwrap().damage, [], "round {round}");
        expected = found;
    }
    println!("{done} acknowledged, {in_the_middle} of {kills} kills in the middle of a write");
    assert!(done > kills, "only {done} in {kills} rounds");
    assert!(in_the_middle * 4 >= kills, "only {in_the_middle} of {kills} kills hit a write");
}

impl Act {
    /// Something after what is expected now.
    fn random(random: &mut Random, now: &BTreeMap<Whose, Vec<TokenId>>) -> Act {
        let agent = random.range(0..AGENTS);
        let tokens = now.get(&name(agent)).map_or(0, Vec::len);
        match random.range(0..20) {
            0 => Act::Collect,
            1 => Act::Repair,
            2 => Act::Remove { agent },
            _ if tokens + 300 > TOKENS_MAX => Act::Remove { agent },
            _ => {
                Act::Save { agent, seed: 100 + agent as u64, tokens: tokens + random.range(1..300) }
            }
        }
    }

    fn apply(self, now: &mut BTreeMap<Whose, Vec<TokenId>>) {
        match self {
            Act::Save { agent, seed, tokens } => {
                now.insert(name(agent), turns(seed, tokens));
            }
            Act::Remove { agent } => drop(now.remove(&name(agent))),
            Act::Collect | Act::Repair => (),
        }
    }

    fn run(self, agents: &Agents, lines: &mut BTreeMap<Whose, Line>) {
        match self {
            Act::Save { agent, seed, tokens } => {
                let whose = name(agent);
                let line = lines.entry(whose.clone()).or_insert_with(|| agents.store.new_line());
                agents.save(&whose, *line, &turns(seed, tokens)).unwrap();
            }
            Act::Remove { agent } => {
                let whose = name(agent);
                lines.remove(&whose);
                agents.store.remove_agent(&whose.0, &whose.1).unwrap();
            }
            Act::Collect => agents.collect(),
            Act::Repair => drop(agents.store.repair().unwrap()),
        }
    }

    /// Whether some of what was in flight had reached the disk.
    fn has_begun(self, agents: &Agents, is_done: bool) -> bool {
        let Act::Save { agent, seed, tokens } = self else { return is_done };
        let (namespace, _) = name(agent);
        let tokens = turns(seed, tokens);
        let mut parent = None;
        let mut stored = false;
        for start in (0..tokens.len()).step_by(BLOCK_TOKENS) {
            let end = (start + BLOCK_TOKENS).min(tokens.len());
            let kv = kv(&agents.model, &tokens[..end], start);
            let own = &tokens[start..end];
            let sealed = agents.store.seal(&namespace, &agents.model, parent.as_ref(), own, kv);
            stored = agents.store.is_stored(&namespace, &sealed.block.name);
            parent = Some(sealed.block.name);
        }
        is_done || stored
    }

    fn to_line(self) -> String {
        match self {
            Act::Save { agent, seed, tokens } => format!("save {agent} {seed} {tokens}\n"),
            Act::Remove { agent } => format!("remove {agent}\n"),
            Act::Collect => "collect\n".to_owned(),
            Act::Repair => "repair\n".to_owned(),
        }
    }

    fn of_line(line: &str) -> Option<Act> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse().unwrap();
        match words[..] {
            ["save", ..] => {
                let (agent, seed) = (number(1) as usize, number(2));
                Some(Act::Save { agent, seed, tokens: number(3) as usize })
            }
            ["remove", _] => Some(Act::Remove { agent: number(1) as usize }),
            ["collect"] => Some(Act::Collect),
            ["repair"] => Some(Act::Repair),
            _ => None,
        }
    }
}

/// Lets a child do a random number of things; then waits until a file is being written, three times
/// of four, and a moment longer; then kills it.
fn run_and_kill(root: &Path, random: &mut Random) -> Told {
    let mut child = start(root, random.next());
    let mut told = Told { done: Vec::new(), in_flight: None };
    let mut lines = lines(&mut child);
    let wanted = random.range(1..20);
    let began = Instant::now();
    while told.done.len() < wanted {
        told.hear(&lines.next().unwrap().unwrap());
    }
    let longest = began.elapsed() / wanted as u32;
    if random.range(0..4) > 0 {
        wait_for_write(root);
    }
    let longer = longest * random.range(0..250) as u32 / 1000;
    let now = Instant::now();
    while now.elapsed() < longer {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines.map_while(Result::ok) {
        told.hear(&line);
    }
    told
}

/// Or until it seems that none will be.
fn wait_for_write(root: &Path) {
    let now = Instant::now();
    while !is_writing(root) && now.elapsed() < Duration::from_secs(1) {
        std::hint::spin_loop();
    }
}

/// Whether there is a file that has no name of its own yet.
fn is_writing(root: &Path) -> bool {
    fs::read_dir(root.join("tmp")).is_ok_and(|mut left| left.next().is_some())
}

impl Told {
    /// Lines of the test harness say nothing.
    fn hear(&mut self, line: &str) {
        match Act::of_line(line) {
            Some(act) => self.in_flight = Some(act),
            None if line == "done" => self.done.extend(self.in_flight.take()),
            None => (),
        }
    }
}

fn start(root: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::kill::child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, root)
        .env(SEED_OF_CHILD, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn lines(child: &mut Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(child.stdout.take().unwrap()).lines()
}

/// Works until it is killed. Run by the other tests, in a process of its own.
#[test]
fn child() {
    let Some(root) = std::env::var_os(FOLDER) else { return };
    let seed = std::env::var(SEED_OF_CHILD).unwrap().parse().unwrap();
    let mut random = Random::new(seed);
    let agents = open(Path::new(&root));
    let mut now: BTreeMap<Whose, Vec<TokenId>> = BTreeMap::new();
    let mut lines: BTreeMap<Whose, Line> = BTreeMap::new();
    for (whose, kept) in agents.kept() {
        lines.insert(whose.clone(), kept[0].line);
        now.insert(whose, kept[0].tokens.clone());
    }
    let mut stdout = std::io::stdout();
    // The harness has begun a line.
    stdout.write_all(b"\n").unwrap();
    loop {
        let act = Act::random(&mut random, &now);
        stdout.write_all(act.to_line().as_bytes()).unwrap();
        stdout.flush().unwrap();
        act.run(&agents, &mut lines);
        stdout.write_all(b"done\n").unwrap();
        stdout.flush().unwrap();
        act.apply(&mut now);
    }
}

#[test]
fn a_second_process_is_told_who_has_the_store_and_gets_it_when_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    let mut child = start(&root, SEED);
    let mut told = Told { done: Vec::new(), in_flight: None };
    let mut lines = lines(&mut child);
    while told.done.is_empty() {
        told.hear(&lines.next().unwrap().unwrap());
    }
    match Agents::try_open(Folder::make(&root).unwrap()) {
        Err(OpenError::Locked { pid }) => assert_eq!(pid, Some(child.id())),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("two processes have the store"),
    }
    // Whoever only looks is not in the way, and nobody is in theirs.
    let mut reader = Agents::open_read_only(Folder::at(&root).unwrap()).unwrap();
    reader.model = model();
    reader.store.agents().unwrap();
    reader.kept();
    child.kill().unwrap();
    child.wait().unwrap();
    let agents = open(&root);
    agents.conversations();
    assert!(matches!(
        Agents::try_open(Folder::make(&root).unwrap()),
        Err(OpenError::Locked { .. })
    ));
    drop(agents);
    open(&root);
}

#[test]
fn who_only_looks_changes_nothing_and_finds_an_empty_store_where_none_is() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    let agents = Agents::open_read_only(Folder::at(&root).unwrap()).unwrap();
    assert!(agents.conversations().is_empty());
    assert!(agents.store.agents().unwrap().is_empty());
    assert!(!root.exists());
}

fn open(root: &Path) -> Agents {
    let mut agents = Agents::open(Folder::make(root).unwrap());
    agents.model = model();
    agents
}

/// Its blocks have 32 KiB, so that writing one takes a while.
fn model() -> Arc<KvModel> {
    let tensor = KvTensor {
        name: "layer.0.key.codes".to_owned(),
        element: KvElement::U8,
        shape: vec![KvAxis::Tokens, KvAxis::Fixed(128)],
    };
    let (name, producer) = ("tests/killed".to_owned(), "portable 0.1.0".to_owned());
    Arc::new(KvModel { fingerprint: Fingerprint([5; 32]), name, producer, tensors: vec![tensor] })
}

fn name(agent: usize) -> Whose {
    whose(&format!("agent {agent}"))
}

/// A conversation that begins with the system prompt that all agents have.
fn turns(seed: u64, tokens: usize) -> Vec<TokenId> {
    match tokens <= BLOCK_TOKENS {
        true => conversation(1, tokens),
        false => branch(1, BLOCK_TOKENS, seed, tokens),
    }
}
