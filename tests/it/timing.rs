//! That the time which a wrong key takes tells nothing of a right one.

use std::hint::black_box;
use std::time::Instant;

use semantic::http::KeyDigest;

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
    if std::env::var(SCALE).is_ok_and(|scale| scale == "full") {
        let t = welch_t(|a, b| a == b);
        assert!(t.abs() < T_MAX, "{t}");
        // What this test can see.
        let t = welch_t(|a, b| a.0.iter().zip(&b.0).all(|(a, b)| a == b));
        assert!(t.abs() > T_MAX, "{t}");
    }
}
