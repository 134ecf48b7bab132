//! What the benches share: clocks, medians of interleaved rounds, and the limits of the machine.

// Each bench is a program of its own and uses a part.
#![allow(dead_code)]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kernels::isa::{Isa, Level};
use kernels::pool::{Pool, physical_cores};
use rustix::time::{ClockId, clock_gettime};

/// The instruction sets named in the arguments, or the best one.
pub fn isas() -> Vec<Isa> {
    let arguments: Vec<String> = std::env::args().collect();
    let is_named =
        |isa: &&Isa| arguments.contains(&format!("{:?}", isa.level()).to_ascii_lowercase());
    let named: Vec<Isa> = Isa::available().iter().filter(is_named).copied().collect();
    if named.is_empty() { vec![Isa::best()] } else { named }
}

/// One, and all cores.
pub fn thread_counts() -> Vec<usize> {
    let mut counts = vec![1, physical_cores()];
    counts.dedup();
    counts
}

/// With one thread, time is what it got of a core, so that other programs disturb it less.
pub fn now(threads: usize) -> Duration {
    let clock = if threads == 1 { ClockId::ThreadCPUTime } else { ClockId::Monotonic };
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Something to measure: its name, the threads it uses, and how often it does its work in one run.
pub struct Case<'a> {
    pub threads: usize,
    pub repeats: usize,
    pub run: Box<dyn FnMut() + 'a>,
}

/// The median seconds of one repeat of each case. Rounds go through all cases, so that a time in
/// which the machine is slow is slow for all of them.
pub fn medians(rounds: usize, cases: &mut [Case]) -> Vec<f64> {
    let mut seconds = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for (case, seconds) in cases.iter_mut().zip(&mut seconds) {
            let before = now(case.threads);
            for _ in 0..case.repeats {
                (case.run)();
            }
            let elapsed = now(case.threads) - before;
            seconds.push(elapsed.as_secs_f64() / case.repeats as f64);
        }
    }
    seconds.into_iter().map(median).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What a machine can do at most with so many threads, as measured.
#[derive(Clone, Copy)]
pub struct Machine {
    /// Bytes read from memory.
    pub bytes_per_s: f64,
    /// Floating-point operations: two for a lane of an `fma`.
    pub flop_per_s: f64,
    /// Integer operations: two for a byte of a `vpdpbusd`. `None` where there is no such
    /// instruction.
    pub int8_op_per_s: Option<f64>,
}

const BUFFER_BYTES: usize = 256 << 20;
const ROUNDS: usize = 9;

impl Machine {
    pub fn measure(isa: Isa, threads: usize) -> Machine {
        let pool = Pool::new(threads).expect("the system gives threads");
        let buffer = vec![1_u64; BUFFER_BYTES / 8];
        let part = buffer.len() / threads;
        let total = AtomicU64::new(0);
        let read = || {
            pool.run(threads, &|index| {
                total.fetch_add(sum(isa, &buffer[index * part..][..part]), Ordering::Relaxed);
            });
        };
        let loops = |peak: fn(Isa) -> f64| {
            let pool = &pool;
            move || {
                pool.run(threads, &|_| {
                    black_box(peak(isa));
                })
            }
        };
        let mut cases = [
            Case { threads, repeats: 1, run: Box::new(read) },
            Case { threads, repeats: 1, run: Box::new(loops(fma_loop)) },
            Case { threads, repeats: 1, run: Box::new(loops(int8_loop)) },
        ];
        let seconds = medians(ROUNDS, &mut cases);
        black_box(total.load(Ordering::Relaxed));
        let count = threads as f64;
        Machine {
            bytes_per_s: BUFFER_BYTES as f64 / seconds[0],
            flop_per_s: count * fma_loop(isa) / seconds[1],
            int8_op_per_s: match isa.level() {
                Level::Avx512 => Some(count * int8_loop(isa) / seconds[2]),
                Level::Scalar | Level::Avx2 => None,
            },
        }
    }
}

/// Reads all of it.
fn sum(isa: Isa, values: &[u64]) -> u64 {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` of this level exists on CPUs that have it only.
        Level::Avx512 => unsafe { x86::sum_avx512(values) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => unsafe { x86::sum_avx2(values) },
        _ => values.iter().fold(0, |sum, value| sum.wrapping_add(*value)),
    }
}

/// Enough to take milliseconds.
const LOOPS: usize = 1 << 20;
/// Independent sums: more than the latency of an instruction times those begun in a cycle.
const CHAINS: usize = 12;

/// Does nothing but `fma` in registers and returns the number of operations.
fn fma_loop(isa: Isa) -> f64 {
    let lanes = match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: an `Isa` of this level exists on CPUs that have it only.
            unsafe { x86::fma_avx512() };
            16
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            // SAFETY: as above.
            unsafe { x86::fma_avx2() };
            8
        }
        _ => {
            let mut sums = [1.0_f32; CHAINS];
            let x = black_box(0.5_f32);
            for _ in 0..LOOPS {
                sums = sums.map(|sum| sum.mul_add(x, x));
            }
            black_box(sums);
            1
        }
    };
    (2 * lanes * CHAINS * LOOPS) as f64
}

/// Likewise with `vpdpbusd`; nothing where there is none.
fn int8_loop(isa: Isa) -> f64 {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` of this level exists on CPUs that have it only.
        Level::Avx512 => unsafe { x86::int8_avx512() },
        _ => return 0.0,
    }
    (2 * 64 * CHAINS * LOOPS) as f64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{CHAINS, LOOPS};

    #[target_feature(enable = "avx512f")]
    pub fn sum_avx512(values: &[u64]) -> u64 {
        let mut sums = [_mm512_setzero_si512(); 4];
        for lines in values.as_chunks::<32>().0 {
            for (sum, line) in sums.iter_mut().zip(lines.as_chunks::<8>().0) {
                // SAFETY: a line is 64 bytes; no alignment is asked for.
                let line = unsafe { _mm512_loadu_si512(line.as_ptr().cast()) };
                *sum = _mm512_add_epi64(*sum, line);
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_epi64(sum) as u64).sum()
    }

    #[target_feature(enable = "avx2")]
    pub fn sum_avx2(values: &[u64]) -> u64 {
        let mut sums = [_mm256_setzero_si256(); 4];
        for lines in values.as_chunks::<16>().0 {
            for (sum, line) in sums.iter_mut().zip(lines.as_chunks::<4>().0) {
                // SAFETY: a half line is 32 bytes; no alignment is asked for.
                let line = unsafe { _mm256_loadu_si256(line.as_ptr().cast()) };
                *sum = _mm256_add_epi64(*sum, line);
            }
        }
        let sum = sums.into_iter().fold(_mm256_setzero_si256(), |a, b| _mm256_add_epi64(a, b));
        _mm256_extract_epi64::<0>(sum) as u64
    }

    #[target_feature(enable = "avx512f")]
    pub fn fma_avx512() {
        let x = _mm512_set1_ps(black_box(0.5));
        let mut sums = [x; CHAINS];
        for _ in 0..LOOPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, x);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn fma_avx2() {
        let x = _mm256_set1_ps(black_box(0.5));
        let mut sums = [x; CHAINS];
        for _ in 0..LOOPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, x);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn int8_avx512() {
        let x = _mm512_set1_epi8(black_box(3));
        let mut sums = [x; CHAINS];
        for _ in 0..LOOPS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, x, x);
            }
        }
        black_box(sums);
    }
}
