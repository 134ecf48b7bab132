//! What the machine can do, as the kernels see it: instructions, threads, memory.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kernels::isa::{Isa, Level};
pub use kernels::pool::THREADS_MAX;
use kernels::pool::{Pool, physical_cores};

/// More than any cache that a read could come from by mistake.
const READ_BYTES: usize = 256 << 20;
/// Parts that the threads share a read in; several each, so that a thread that was interrupted
/// does not hold up the others.
const PARTS_PER_THREAD: usize = 16;
/// Reads of the whole array, of which the fastest counts: others on the machine only slow it down.
const READS: usize = 8;
/// Sums kept at once, so that no addition waits for the one before.
const SUMS: usize = 32;

/// The instruction set that the kernels were written for and use here.
pub fn instruction_set() -> &'static str {
    match Isa::best().level() {
        Level::Scalar => "scalar",
        Level::Avx2 => "avx2",
        Level::Avx512 => "avx512",
    }
}

/// Threads of the kernels if nobody says otherwise.
pub fn default_threads() -> usize {
    physical_cores()
}

/// Bytes per second that `threads` threads read from memory together, in order and doing nothing
/// else: what a decode step, which reads every weight once, can reach at most.
pub fn read_bytes_per_s(threads: usize) -> f64 {
    let pool = Pool::new(threads).expect("the system gives threads");
    // Written to, because untouched memory is one and the same page of zeros.
    let words: Vec<u64> = (0..READ_BYTES as u64 / 8).collect();
    let part = words.len().div_ceil(threads * PARTS_PER_THREAD);
    let parts: Vec<&[u64]> = words.chunks(part).collect();
    let total = AtomicU64::new(0);
    let read = || {
        let started = Instant::now();
        pool.run(parts.len(), &|index| {
            total.fetch_add(sum(parts[index]), Ordering::Relaxed);
        });
        started.elapsed()
    };
    let fastest = (0..READS).map(|_| read()).min().unwrap_or(Duration::MAX);
    black_box(total.into_inner());
    READ_BYTES as f64 / fastest.as_secs_f64()
}

fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; SUMS];
    let (chunks, _) = words.as_chunks::<SUMS>();
    for chunk in chunks {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}
