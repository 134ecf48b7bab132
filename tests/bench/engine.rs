//! Speed of what the engine does around the model: `cargo bench --bench engine`.
//!
//! Microseconds, the median of rounds; each round goes through all cases, so that a time in which
//! the machine is slow is slow for all of them. A step of a small model lasts some milliseconds.
//! Without `--bench`, as `cargo test --benches` runs it, there is one round.

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use semantic::engine::HeadId;
use semantic::engine::pace::{Pace, Shape};
use semantic::engine::pool::Pool;
use semantic::engine::prefix::PrefixIndex;
use semantic::engine::queue::Queue;
use semantic::types::{Namespace, TokenId};

const ROUNDS: usize = 31;
const REPEATS: usize = 200;

/// Kept heads, and the tokens of each; all have the first in common, as a system prompt.
const HEADS: u32 = 1_000;
const HEAD_TOKENS: u32 = 4_000;
const SHARED_TOKENS: u32 = 3_000;
const WAITING: usize = 1_000;

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
