//! That times tell nothing: which byte of a wrong key is wrong, what somebody else's agents have said.

use std::hint::black_box;
use std::time::{Duration, Instant};

use semantic::http::KeyDigest;
use serde_json::json;

use crate::support::http::{Request, Server, Setup};
use crate::support::random::Random;
use crate::support::scale::SCALE;

const SAMPLES: usize = 40_000;
/// A clock does not see one comparison.
const COMPARED_AT_ONCE: usize = 50;
/// Beyond this dudect (Reparaz et al., 2017) is sure of a leak; below it nobody knows.
const T_MAX: f64 = 10.0;

/// Welch's t of how long these comparisons take: with the digests that differ in their first byte,
/// and with those that differ in their last.
fn welch_t(is_equal: impl Fn(&KeyDigest, &KeyDigest) -> bool) -> f64 {
    let right = KeyDigest([7; 32]);
    let (mut early, mut late) = (right, right);
    early.0[0] ^= 1;
    late.0[31] ^= 1;
    let wrong = [early, late];
    let mut random = Random::new(29);
    let mut times: [Vec<f64>; 2] = Default::default();
    for _ in 0..2 * SAMPLES {
        // By lot, so that what else the machine does befalls both alike.
        let class = random.range(0..2);
        let started = Instant::now();
        for _ in 0..COMPARED_AT_ONCE {
            black_box(is_equal(black_box(&right), black_box(&wrong[class])));
        }
        times[class].push(started.elapsed().as_nanos() as f64);
    }
    let [(mean_a, error_a), (mean_b, error_b)] = times.map(|mut times| {
        // The slowest were interrupted.
        times.sort_by(f64::total_cmp);
        times.truncate(times.len() * 9 / 10);
        let count = times.len() as f64;
        let mean = times.iter().sum::<f64>() / count;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    (mean_a - mean_b) / (error_a + error_b).sqrt()
}

/// It measures, so it runs where the whole suite does: alone on its machine. `tidy` holds the same
/// by how the comparison is written.
#[test]
fn a_wrong_key_takes_as_long_whichever_byte_of_its_digest_is_wrong() {
    if is_full() {
        let t = welch_t(|a, b| a == b);
        assert!(t.abs() < T_MAX, "{t}");
        // What this test can see.
        let t = welch_t(|a, b| a.0.iter().zip(&b.0).all(|(a, b)| a == b));
        assert!(t.abs() > T_MAX, "{t}");
    }
}

fn is_full() -> bool {
    std::env::var(SCALE).is_ok_and(|scale| scale == "full")
}

const ONE: &str = "the-key-of-the-one-1";
const OTHER: &str = "the-key-of-the-other";
const KEYS: &str = "the-key-of-the-one-1,the-key-of-the-other";
/// Prompts of each kind.
const PROMPTS: usize = 250;
/// What was agreed before anything was measured: below the one they differ, above the other nobody
/// can tell.
const DIFFERENT_P: f64 = 1e-8;
const SAME_P: f64 = 0.01;

/// What a prompt costs, in seconds, and how many of its tokens were there already.
fn ask(server: &Server, key: &str, number: usize) -> (f64, u64) {
    // Nothing that the numbers have to do with each other is in how the prompts begin.
    let beginning = Random::new(number as u64).next();
    let text = format!("{beginning:016x} {}", "It was a dark and stormy night. ".repeat(20));
    let body = json!({ "prompt": text, "max_tokens": 1, "temperature": 0 });
    let request = Request::post("/v1/completions", body.to_string());
    let request = request.header("Authorization", format!("Bearer {key}"));
    let started = Instant::now();
    let answer = server.send(&request);
    let took = started.elapsed().as_secs_f64();
    assert_eq!(answer.status, 200, "{answer:?}");
    let cached = &answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"];
    (took, cached.as_u64().expect("a count"))
}

/// Kolmogorov and Smirnov's: how likely two samples of the same are to differ by so much (Numerical
/// Recipes, 14.3).
fn ks_p(mut a: Vec<f64>, mut b: Vec<f64>) -> f64 {
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let share = |sample: &[f64], value: f64| {
        sample.partition_point(|one| *one <= value) as f64 / sample.len() as f64
    };
    let distance = a.iter().chain(&b).map(|value| (share(&a, *value) - share(&b, *value)).abs());
    let distance = distance.fold(0.0, f64::max);
    let size = (a.len() * b.len()) as f64 / (a.len() + b.len()) as f64;
    let lambda = (size.sqrt() + 0.12 + 0.11 / size.sqrt()) * distance;
    // Nearer to each other than the sum can tell.
    if lambda < 0.2 {
        return 1.0;
    }
    let term = |j: i32| (-1.0_f64).powi(j - 1) * (-2.0 * f64::from(j * j) * lambda * lambda).exp();
    (2.0 * (1..=100).map(term).sum::<f64>()).clamp(0.0, 1.0)
}

#[test]
fn samples_of_the_same_are_alike_and_others_are_not() {
    let mut random = Random::new(1);
    let mut sample = |shift: usize| -> Vec<f64> {
        (0..PROMPTS).map(|_| (random.range(0..1_000) + shift) as f64).collect()
    };
    let (a, b, c) = (sample(0), sample(0), sample(400));
    assert!(ks_p(a.clone(), b) > SAME_P);
    assert!(ks_p(a, c) < DIFFERENT_P);
}

/// I have a prompt and want to know whether somebody else has sent it.
#[test]
#[expect(clippy::print_stderr, reason = "--nocapture shows it")]
fn how_long_a_prompt_takes_tells_nothing_of_what_other_keys_have_sent() {
    // Times are compared where nothing else runs; what was there already, everywhere.
    let prompts = if is_full() { PROMPTS } else { 5 };
    let server = Server::start(Setup {
        keys: Some(KEYS),
        token: Duration::from_micros(20),
        ..Setup::default()
    });
    let mut random = Random::new(4);
    let mut times: [Vec<f64>; 3] = Default::default();
    for number in 0..prompts {
        // In pairs, each in an order of its own, so that what drifts befalls both alike.
        let (sent, unsent) = (2 * number, 2 * number + 1);
        ask(&server, ONE, sent);
        let pair = if random.range(0..2) == 0 { [sent, unsent] } else { [unsent, sent] };
        for of in pair {
            let (took, cached) = ask(&server, OTHER, of);
            // What its own prompts happen to begin with alike.
            assert!(cached < 8, "{cached} tokens of prompt {of}");
            times[usize::from(of == unsent)].push(took);
        }
        // The same key's own.
        let (took, cached) = ask(&server, ONE, sent);
        assert!(cached > 100, "{cached}");
        times[2].push(took);
    }
    if is_full() {
        let [sent, unsent, own] = times;
        let (across, within) = (ks_p(sent, unsent.clone()), ks_p(own, unsent));
        eprintln!("across keys p = {across:.3}, within one p = {within:e}");
        assert!(within < DIFFERENT_P, "{within}");
        assert!(across > SAME_P, "{across}");
    }
}
