//! The engine on the real model: whoever else runs, whatever is evicted, parked or restored, a
//! request gets the tokens and the probabilities that it gets alone, to the bit.

use std::sync::Arc;
use std::thread;

use semantic::engine::{Config, Engine, Event, Keeping, Outcome, Reply, Request, Source, Stream};
use semantic::model::sample::Sampling;
use semantic::model::{Device, LoadOptions, ModelFiles};
use semantic::text::{Special, Tokenizer};
use semantic::types::{AgentId, Namespace, TokenId};

use crate::support::model::smollm2;
use crate::support::store::{ShakyDisk, keeping};

/// Prompts of real text, short and long, that begin alike in pairs.
const PROMPT_CHARS: [usize; 8] = [90, 2_000, 350, 1_200, 40, 3_000, 700, 1_201];
const TEXT: &str = include_str!("../../README.md");
const REPLY_TOKENS: usize = 16;
/// Room for everything at once.
const ROOMY: usize = 64;

/// A token with the bits of its log-probability.
type Token = (TokenId, u32);

struct Real {
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
}

impl Real {
    fn start(pool_blocks: usize, keeping: Option<Keeping>) -> Real {
        let files = ModelFiles::open(smollm2()).unwrap();
        let tokenizer = Arc::new(Tokenizer::new(&files.text().unwrap()).unwrap());
        let options = LoadOptions {
            kv: "8".parse().unwrap(),
            pool_blocks,
            device: Device::Cpu,
            threads: None,
        };
        let load = move || files.load(options).map_err(|error| error.to_string());
        let engine = Engine::start(Config::default(), Arc::clone(&tokenizer), keeping, load);
        engine.wait_started().unwrap();
        Real { engine, tokenizer }
    }

    fn prompt(&self, index: usize) -> Vec<TokenId> {
        let text: String = TEXT.chars().skip(index / 2 * 500).take(PROMPT_CHARS[index]).collect();
        self.tokenizer.encode(&text, Special::Ignore).unwrap()
    }

    fn submit(&self, namespace: &str, agent: Option<usize>, prompt: &[TokenId]) -> Stream {
        self.submit_long(namespace, agent, prompt, REPLY_TOKENS)
    }

    fn submit_long(
        &self,
        namespace: &str,
        agent: Option<usize>,
        prompt: &[TokenId],
        reply_tokens: usize,
    ) -> Stream {
        self.engine.submit(Request {
            namespace: Namespace::new(namespace),
            agent: agent.map(|agent| AgentId::new(&format!("agent {agent}")).unwrap()),
            prompt: prompt.to_vec().into(),
            max_tokens: Some(reply_tokens),
            sampling: Sampling::GREEDY,
            stops: Vec::new(),
            reply: Reply::Turn,
            choices: 1,
            logprobs: Some(0),
            is_end_ignored: true,
            grammar: None,
            is_ephemeral: false,
        })
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.engine.shutdown();
    }
}

struct Answer {
    tokens: Vec<Token>,
    source: Source,
    outcome: Outcome,
}

impl Answer {
    fn ids(&self) -> Vec<TokenId> {
        self.tokens.iter().map(|(token, _)| *token).collect()
    }
}

/// Reads a stream to its end.
fn follow(mut stream: Stream) -> Answer {
    let mut tokens = Vec::new();
    let mut source = None;
    while let Some(item) = stream.blocking_next() {
        match item.unwrap() {
            Event::Admitted(admitted) => source = Some(admitted.source),
            Event::Text(delta) => tokens.extend(
                delta.logprobs.iter().map(|logprob| (logprob.token, logprob.logprob.to_bits())),
            ),
            Event::Finished(outcome) => {
                return Answer { tokens, source: source.unwrap(), outcome };
            }
            Event::Prefilled { .. } => (),
        }
    }
    panic!("the stream ended early");
}

/// Reads a stream until so many tokens have come.
fn wait_for_tokens(stream: &mut Stream, count: usize) {
    let mut seen = 0;
    while seen < count {
        if let Event::Text(delta) = stream.blocking_next().unwrap().unwrap() {
            seen += delta.tokens;
        }
    }
}

/// What each of the prompts gets alone, with nothing to reuse.
fn alone(real: &Real, prompts: &[Vec<TokenId>]) -> Vec<Vec<Token>> {
    let one = |(index, prompt): (usize, &Vec<TokenId>)| {
        let answer = follow(real.submit(&format!("alone {index}"), None, prompt));
        assert_eq!(answer.outcome.admitted.cached_tokens, 0);
        answer.tokens
    };
    prompts.iter().enumerate().map(one).collect()
}

#[test]
fn eight_at_once_get_what_eight_in_sequence_get() {
    let real = Real::start(ROOMY, None);
    let prompts: Vec<_> = (0..8).map(|index| real.prompt(index)).collect();
    let expected = alone(&real, &prompts);
    let streams: Vec<_> =
        prompts.iter().map(|prompt| real.submit("together", None, prompt)).collect();
    for (index, (stream, expected)) in streams.into_iter().zip(&expected).enumerate() {
        assert_eq!(follow(stream).tokens, *expected, "request {index}");
    }
    // And again, now that all of them have been kept.
    for (index, (prompt, expected)) in prompts.iter().zip(&expected).enumerate() {
        let answer = follow(real.submit("together", None, prompt));
        assert_eq!(answer.tokens, *expected, "request {index} again");
        assert_eq!(answer.outcome.admitted.cached_tokens, prompt.len() - 1);
    }
}

#[test]
fn arrivals_and_cancels_in_between_change_no_answer() {
    let real = Real::start(ROOMY, None);
    let prompts: Vec<_> = (0..8).map(|index| real.prompt(index)).collect();
    let expected = alone(&real, &prompts);
    let mut running = Vec::new();
    for prompt in &prompts {
        let mut stream = real.submit("staggered", None, prompt);
        // Some arrive while it prefills, some while it decodes, some go away in between.
        let stays = real.submit("staggered", None, prompt);
        if prompt.len() % 2 == 0 {
            wait_for_tokens(&mut stream, prompt.len() % 7);
        }
        drop(stream);
        // Whoever lets a stream lie for long is cut off, and a busy machine is slow.
        running.push(thread::spawn(move || follow(stays)));
    }
    for (index, (reader, expected)) in running.into_iter().zip(&expected).enumerate() {
        assert_eq!(reader.join().unwrap().tokens, *expected, "request {index}");
    }
}

/// Two turns of six agents, in a pool that holds the memory of two or three.
fn two_turns(real: &Real) -> Vec<[Answer; 2]> {
    let prompts: Vec<_> = (0..6).map(|agent| real.prompt([1, 3, 5, 6, 7, 2][agent])).collect();
    let first: Vec<_> = prompts
        .iter()
        .enumerate()
        .map(|(agent, prompt)| follow(real.submit("n", Some(agent), prompt)))
        .collect();
    let turns = first.into_iter().zip(&prompts).enumerate().map(|(agent, (answer, prompt))| {
        let next = real.tokenizer.encode("\nAnd then?", Special::Ignore).unwrap();
        let prompt = [prompt.as_slice(), &answer.ids(), &next].concat();
        [answer, follow(real.submit("n", Some(agent), &prompt))]
    });
    turns.collect()
}

fn check_evicted_agents(keeping: Option<Keeping>, expected_source: Source) {
    let roomy = Real::start(ROOMY, None);
    let expected = two_turns(&roomy);
    drop(roomy);
    let tight = Real::start(8, keeping);
    let found = two_turns(&tight);
    let mut came_back = 0;
    for (agent, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(expected[1].source, Source::Hot);
        for turn in 0..2 {
            assert_eq!(found[turn].tokens, expected[turn].tokens, "agent {agent}, turn {turn}");
        }
        came_back += usize::from(found[1].source == expected_source);
        if expected_source == Source::Warm && found[1].source == Source::Warm {
            let cached = expected[1].outcome.admitted.cached_tokens;
            assert_eq!(found[1].outcome.admitted.cached_tokens, cached, "agent {agent}");
        }
    }
    assert!(came_back >= 3, "{came_back} agents were evicted");
}

#[test]
fn evicted_agents_come_back_from_the_store_as_if_they_had_never_left() {
    check_evicted_agents(Some(keeping(ShakyDisk::default().open())), Source::Warm);
}

#[test]
fn evicted_agents_that_nobody_keeps_are_computed_again_to_the_bit() {
    check_evicted_agents(None, Source::Cold);
}

/// Two replies that outgrow their window in a pool that has room for one of them.
#[test]
fn parked_requests_resume_with_the_same_bits() {
    let prompts = |real: &Real| [3, 6].map(|index| real.prompt(index));
    let reply_tokens = 800;
    let roomy = Real::start(ROOMY, None);
    let one = |prompt: &Vec<TokenId>| {
        follow(roomy.submit_long("alone", None, prompt, reply_tokens)).tokens
    };
    let expected: Vec<_> = prompts(&roomy).iter().map(one).collect();
    drop(roomy);
    // Both are let in, and need nine blocks in the end.
    let tight = Real::start(8, None);
    let streams: Vec<_> = prompts(&tight)
        .iter()
        .map(|prompt| tight.submit_long("together", None, prompt, reply_tokens))
        .collect();
    // At the same time: nobody waits for a reader who lets a stream lie.
    let readers: Vec<_> =
        streams.into_iter().map(|stream| thread::spawn(|| follow(stream).tokens)).collect();
    for (reader, expected) in readers.into_iter().zip(&expected) {
        assert_eq!(reader.join().unwrap(), *expected);
    }
    assert!(tight.engine.stats().parkings > 0);
}
