//! Measures products at SmolLM2-135M's shapes: `cargo run --release -p kernels --example matmul`.
//!
//! Prints giga-operations (two per weight and row) and gigabytes of weights per second: the best of
//! some tries. With one thread time is what this thread got of a core, so that other programs
//! disturb it less. An argument chooses the instruction set: scalar, avx2 or avx512.

use std::time::{Duration, Instant};

use kernels::isa::Isa;
use kernels::matmul::{Activations, Affine, Weights, multiply};
use kernels::pool::Pool;
use rustix::time::{ClockId, clock_gettime};

/// `(rows, columns, bits, copies)`, 16 bits being bfloat16: as many copies as a model's layers have, so that the weights of
/// small matrices come from memory as they do in a model.
const SHAPES: [(usize, usize, usize, usize); 6] = [
    (576, 576, 4, 60),
    (1536, 576, 4, 60),
    (576, 1536, 4, 60),
    (1536, 576, 5, 30),
    (49152, 576, 8, 1),
    (1536, 576, 16, 20),
];

fn main() {
    let isa = match std::env::args().nth(1).as_deref() {
        None => Isa::best(),
        Some(name) => *Isa::available()
            .iter()
            .find(|isa| format!("{:?}", isa.level()).eq_ignore_ascii_case(name))
            .expect("an instruction set this CPU has"),
    };
    println!("{:?}", isa.level());
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        for (rows, columns, bits, copies) in SHAPES {
            let weights: Vec<Weights> = (0..copies).map(|_| random(rows, columns, bits)).collect();
            for m in [1, 2, 4, 8, 512] {
                measure(isa, &pool, &weights, bits, m);
            }
        }
    }
}

fn measure(isa: Isa, pool: &Pool, weights: &[Weights], bits: usize, m: usize) {
    let (rows, columns) = (weights[0].rows(), weights[0].columns());
    let x: Vec<f32> = (0..m * columns).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut out = vec![0.0; m * rows];
    let mut activations = Activations::new();
    let mut best = Duration::MAX;
    let mut prepare_best = Duration::MAX;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(400) {
        // The first few for 512 rows: those do not depend on where the weights come from.
        let weights = if m > 8 { &weights[..weights.len().min(3)] } else { weights };
        let before = now(pool);
        activations.prepare(isa, pool, weights[0].input(), &x, (m, columns));
        prepare_best = prepare_best.min(now(pool) - before);
        let before = now(pool);
        for weights in weights {
            multiply(isa, pool, weights, &activations, &mut out);
        }
        best = best.min((now(pool) - before) / weights.len() as u32);
    }
    let operations = 2.0 * (m * rows * columns) as f64;
    println!(
        "{} threads {rows:5}x{columns:4} {bits:2} bits m={m:3} {:9.1} us {:7.1} GOP/s {:6.1} GB/s; prepare {:.1} us",
        pool.threads(),
        best.as_secs_f64() * 1e6,
        operations / best.as_secs_f64() / 1e9,
        weights[0].bytes() as f64 / best.as_secs_f64() / 1e9,
        prepare_best.as_secs_f64() * 1e6,
    );
}

fn now(pool: &Pool) -> Duration {
    let clock = if pool.threads() == 1 { ClockId::ThreadCPUTime } else { ClockId::Monotonic };
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn random(rows: usize, columns: usize, bits: usize) -> Weights {
    if bits == 16 {
        let values = vec![half::bf16::from_f32(0.5); rows * columns];
        return Weights::dense_bf16(rows, columns, &values).expect("a right shape");
    }
    let mut state = 1_u32;
    let codes: Vec<u8> = (0..rows * columns * bits / 8)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let scales = vec![0.015625; rows * columns / 32];
    let biases = vec![-0.125; rows * columns / 32];
    Weights::affine(Affine {
        rows,
        columns,
        bits,
        group: 32,
        codes: &codes,
        scales: &scales,
        biases: &biases,
    })
    .expect("a right shape")
}
