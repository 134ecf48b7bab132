//! Speed of what the engine does around the model: `cargo bench --bench engine`.
//!
//! Microseconds, the median of rounds; each round goes through all cases, so that a time in which
//! the machine is slow is slow for all of them. A step of a small model lasts some milliseconds.
//! Without `--bench`, as `cargo test --benches` runs it, there is one round.

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use semantic::engine::agents::HeadId;
use semantic::engine::pace::{Pace, Shape};
use semantic::engine::pool::Pool;
use semantic::engine::prefix::PrefixIndex;
use semantic::engine::queue::Queue;
use semantic::engine::scheduler::{Limits, Scheduler};
use semantic::engine::{Reply, Request};
use semantic::model::sample::{BIASES_MAX, Bias, History, Sampling, sample};
use semantic::model::{Batch, LayerSpec, Logits, Spec, Wanted};
use semantic::text::{Prompt, Tokenizer};
use semantic::types::{Namespace, TextSource, TokenId};

const ROUNDS: usize = 31;
const REPEATS: usize = 200;

/// Kept heads, and the tokens of each; all have the first in common, as a system prompt.
const HEADS: u32 = 1_000;
const HEAD_TOKENS: u32 = 4_000;
const SHARED_TOKENS: u32 = 3_000;
const WAITING: usize = 1_000;

/// Sequences that decode, and blocks they share among them and the free list.
const SEQUENCES: u32 = 100;
const BLOCKS: usize = 10_000;
/// Prompt of each: seventy blocks.
const PROMPT_TOKENS: u32 = 70 * 256;
/// Few, so that choosing a token costs next to nothing: that belongs to the model's side.
const VOCABULARY: usize = 32;

/// Of SmolLM2.
const MODEL_VOCABULARY: usize = 49_152;

/// Something to measure.
struct Case {
    name: String,
    run: Box<dyn FnMut()>,
}

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let mut cases = vec![pool(32)];
    cases.extend(prefix());
    cases.extend([1, 100].map(queue));
    cases.push(pace());
    cases.extend([None, Some(1), Some(BIASES_MAX)].map(biased));
    cases.extend([Load::Decoding, Load::FullPool].map(scheduler));
    let medians = medians(if is_bench { ROUNDS } else { 1 }, &mut cases);
    for (case, median) in cases.iter().zip(medians) {
        println!("{:54} {median:9.3} us", case.name);
    }
}

/// The median microseconds of one repeat of each case.
fn medians(rounds: usize, cases: &mut [Case]) -> Vec<f64> {
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for (case, times) in cases.iter_mut().zip(&mut times) {
            let before = Instant::now();
            for _ in 0..REPEATS {
                (case.run)();
            }
            times.push(before.elapsed().as_secs_f64() * 1e6 / REPEATS as f64);
        }
    }
    times.into_iter().map(median).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn case(name: impl Into<String>, run: impl FnMut() + 'static) -> Case {
    Case { name: name.into(), run: Box::new(run) }
}

fn pool(blocks: usize) -> Case {
    let mut pool = Pool::new(4_096);
    case(format!("pool: allocate {blocks} blocks and free them"), move || {
        drop(black_box(pool.allocate(blocks).expect("all blocks are free")));
    })
}

fn prefix() -> [Case; 4] {
    let mut index = PrefixIndex::new();
    let mut changed = PrefixIndex::new();
    for number in 0..HEADS {
        index.insert(head(number), HeadId(number.into()));
        changed.insert(head(number), HeadId(number.into()));
    }
    let index = Arc::new(index);
    let (longest, tied, whole) = (Arc::clone(&index), Arc::clone(&index), index);
    let query = head(HEADS / 3);
    let (new, id) = (head(HEADS), HeadId(HEADS.into()));
    [
        case("prefix: longest match of 1,000 heads of 4,000 tokens", {
            let query = Arc::clone(&query);
            move || {
                black_box(longest.longest(&query));
            }
        }),
        case("prefix: longest match, which all 1,000 are", {
            let query = Arc::clone(&query);
            move || {
                black_box(tied.longest(&query[..SHARED_TOKENS as usize]));
            }
        }),
        case("prefix: longest whole match, which none is", move || {
            black_box(whole.longest_whole(&query[..query.len() - 1]));
        }),
        case("prefix: insert a head and remove it", move || {
            changed.insert(Arc::clone(&new), id);
            assert!(changed.remove(&new, id));
        }),
    ]
}

/// The tokens of a head: shared ones, then its own.
fn head(number: u32) -> Arc<[TokenId]> {
    let own = |position: u32| (position ^ number.wrapping_mul(2_654_435_761)) % 50_000;
    (0..HEAD_TOKENS)
        .map(|position| TokenId(if position < SHARED_TOKENS { position } else { own(position) }))
        .collect()
}

/// A thousand requests wait all the time.
fn queue(namespaces: usize) -> Case {
    let names: Vec<Namespace> =
        (0..namespaces).map(|number| Namespace::new(&format!("key {number}"))).collect();
    // A namespace alone may fill half of it.
    let mut queue = Queue::new(2 * WAITING + 2);
    let deadline = Instant::now() + Duration::from_secs(3_600);
    let mut number = 0;
    let mut push = move |queue: &mut Queue<usize>| {
        number += 1;
        let name = &names[number % names.len()];
        queue.push(name, 100, deadline, number).expect("there is a place");
    };
    for _ in 0..WAITING {
        push(&mut queue);
    }
    let now = Instant::now();
    case(format!("queue: push, expire and pop, 1,000 wait of {namespaces:3} keys"), move || {
        push(&mut queue);
        assert!(queue.expire(now).is_empty());
        black_box(queue.pop());
    })
}

fn pace() -> Case {
    let mut pace = Pace::new(Duration::from_millis(100), 512);
    case("pace: plan a step of 8 sequences and learn from it", move || {
        let mut step = Shape::default();
        for sequence in 0..8 {
            step.add_decode(1_000 * sequence);
        }
        let tokens = pace.prefill_tokens(&step, 4_096);
        step.add_prefill(4_096, tokens);
        pace.observe(black_box(&step), Duration::from_millis(90));
    })
}

/// The likeliest token, without biases or with so many.
fn biased(count: Option<usize>) -> Case {
    let logits: Vec<f32> =
        (0..MODEL_VOCABULARY).map(|id| (id * 7_919 % MODEL_VOCABULARY) as f32 / 1e3).collect();
    let bias = |id| Bias { token: TokenId(id as u32 * 17), bias: 1.0 };
    let biases = count.map(|count| (0..count).map(bias).collect());
    let sampling = Sampling { biases, ..Sampling::GREEDY };
    let history = History { tokens: &[], prompt_tokens: 0, allowed: None };
    case(format!("a token of {MODEL_VOCABULARY}, {} biases", count.unwrap_or(0)), move || {
        black_box(sample(black_box(&logits), &sampling, history, 0));
    })
}

/// All of a step but the model: who is admitted, what runs, the batch, its cost, and what becomes
/// of the logits, with the events for a hundred clients.
fn scheduler(load: Load) -> Case {
    let limits = Limits {
        // Long, so that the prompts are done soon.
        step: Duration::from_secs(1_000),
        running_max: SEQUENCES as usize,
        queue_max: 2 * SEQUENCES as usize,
        queue_time: Duration::MAX / 4,
        instance: 0,
    };
    let spec = Spec {
        vocabulary: VOCABULARY,
        context_tokens: 1 << 20,
        pool_blocks: BLOCKS,
        prefill_tokens: 512,
        layers: vec![LayerSpec { key_bytes: 1, value_bytes: 1, snapshot_bytes: 0 }],
        tensors: Vec::new(),
    };
    let source = TextSource::Folder {
        tokenizer_json: include_bytes!("../data/text/byte_level.tokenizer.json").to_vec(),
        tokenizer_config_json: None,
        chat_template_jinja: None,
        end_tokens: Vec::new(),
    };
    let tokenizer = Tokenizer::new(&source).expect("the fixture is a tokenizer");
    let mut scheduler = Scheduler::new(limits, spec, Arc::new(tokenizer), false);
    let now = Instant::now();
    let request = |sequence: u32, prompt_tokens: u32, reply_tokens: usize| {
        let token = |index: u32| {
            // Its digits first, so that all differ.
            let value = if index < 4 { sequence >> (index * 5) } else { index * (sequence + 1) };
            TokenId(value % VOCABULARY as u32)
        };
        let prompt: Vec<TokenId> = (0..prompt_tokens).map(token).collect();
        Request {
            namespace: Namespace::local(),
            agent: None,
            prompt: Prompt::from(prompt),
            max_tokens: Some(reply_tokens),
            sampling: Sampling::GREEDY,
            stops: Vec::new(),
            reply: Reply::Turn,
            choices: 1,
            logprobs: None,
            is_end_ignored: true,
            grammar: None,
            is_ephemeral: false,
        }
    };
    let mut first = Vec::new();
    let mut last = None;
    if let Load::FullPool = load {
        first.extend((0..HEADS).map(|head| request(SEQUENCES + head, 300, 1)));
        // More than there is room for: it is looked at in every step, with all idle heads.
        last = Some(request(SEQUENCES + HEADS, 1_000_000, 1));
    }
    for request in first {
        scheduler.submit(request, now).expect("there is room");
        while !scheduler.is_idle() {
            step(&mut scheduler, now);
        }
    }
    for sequence in 0..SEQUENCES {
        let request = request(sequence, PROMPT_TOKENS, 1 << 15);
        scheduler.submit(request, now).expect("there is room");
    }
    // Until all of them decode.
    while step(&mut scheduler, now) < SEQUENCES as usize {}
    if let Some(request) = last {
        scheduler.submit(request, now).expect("it fits alone");
        step(&mut scheduler, now);
        assert_eq!(scheduler.stats().waiting, 1);
        assert!(scheduler.stats().blocks_evictable > 0);
    }
    let name = match load {
        Load::Decoding => format!("step of {SEQUENCES} sequences in {BLOCKS} blocks, no model"),
        Load::FullPool => "the same with idle heads, and one that waits for room".to_owned(),
    };
    case(&name, move || {
        black_box(step(&mut scheduler, now));
    })
}

/// What the scheduler has to do.
#[derive(Clone, Copy)]
enum Load {
    Decoding,
    FullPool,
}

/// One step without a model: how many sequences decode.
fn step(scheduler: &mut Scheduler, now: Instant) -> usize {
    black_box(scheduler.admit(now));
    let rows = scheduler.rows();
    let shape = scheduler.shape(&rows);
    black_box(scheduler.predict(&shape));
    let logits = logits(&scheduler.batch(&rows));
    scheduler.observe(&shape, Duration::from_millis(100));
    scheduler.complete(&rows, &logits, now);
    black_box(scheduler.take_items());
    black_box(scheduler.stats());
    rows.iter().filter(|row| row.is_last && row.end > PROMPT_TOKENS as usize).count()
}

/// What a model would answer, without one.
fn logits(batch: &Batch<'_>) -> Vec<Logits> {
    let one = |wanted| match wanted {
        Wanted::Last => Logits::new(VOCABULARY, vec![0.0; VOCABULARY]),
        Wanted::None | Wanted::All => Logits::new(VOCABULARY, Vec::new()),
    };
    batch.rows.iter().map(|row| one(row.logits)).collect()
}
