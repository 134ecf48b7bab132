//! Speed of products: `cargo bench -p kernels --bench matmul`. Arguments after `--` choose: an
//! instruction set (`scalar`, `avx2`, `avx512`), kinds of weights (`q4_1`, `q6_k`, `bf16`, …),
//! shapes (`1536x576`).
//!
//! Giga-operations are two per weight and row; bytes are those of the weights. Percentages are of
//! what this machine can do, measured first: the bandwidth of memory, and the peak of the
//! instructions used, which for quantised weights is a half of that of `vpdpbusd`, as activations
//! have two terms.

mod common;

use std::cell::RefCell;

use common::{Case, Machine, isas, medians, thread_counts};
use half::{bf16, f16};
use kernels::isa::Isa;
use kernels::matmul::{Activations, Affine, Input, SUPERBLOCK, Scales, Weights, multiply};
use kernels::pool::Pool;

/// `(rows, columns)` of SmolLM2-135M's layers and head and of the layers of Llama-3.2-1B.
const SHAPES: [(usize, usize); 7] =
    [(576, 576), (1536, 576), (576, 1536), (49152, 576), (2048, 2048), (8192, 2048), (2048, 8192)];

/// GGUF's names for what has its bits and scales; `mlx4` has groups of 64, `q6_32` a scale and a
/// bias for 32.
const KINDS: [&str; 12] =
    ["q4_0", "q4_1", "q5_1", "q6_32", "q8_0", "mlx4", "q4_k", "q5_k", "q6_k", "f16", "bf16", "f32"];

/// Rows of activations.
const ROWS: [usize; 4] = [1, 8, 64, 512];

/// The weights of a few rows are read from memory, as in a model: twice what a cache holds.
const FEW_ROWS: usize = 8;
const MEMORY_BYTES: usize = 64 << 20;
const ROUNDS: usize = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let chosen = |all: &[String]| -> Vec<String> {
        let some: Vec<String> =
            all.iter().filter(|name| arguments.contains(name)).cloned().collect();
        if some.is_empty() { all.to_vec() } else { some }
    };
    let kinds = chosen(&KINDS.map(str::to_owned));
    let shapes = chosen(&SHAPES.map(|(rows, columns)| format!("{rows}x{columns}")));
    for isa in isas() {
        for threads in thread_counts() {
            let machine = Machine::measure(isa, threads);
            for shape in SHAPES {
                if shapes.contains(&format!("{}x{}", shape.0, shape.1)) {
                    measure(isa, threads, machine, shape, &kinds);
                }
            }
        }
    }
}

fn measure(isa: Isa, threads: usize, machine: Machine, shape: (usize, usize), kinds: &[String]) {
    let (rows, columns) = shape;
    let kinds = kinds.iter().filter(|kind| !kind.ends_with("_k") || columns % SUPERBLOCK == 0);
    let weights: Vec<(&String, Vec<Weights>)> =
        kinds.map(|kind| (kind, copies(kind, rows, columns))).collect();
    let pool = Pool::new(threads).expect("the system gives threads");
    let how = format!("{:?} x{threads}", isa.level());
    for m in ROWS {
        let x: Vec<f32> = (0..m * columns).map(|i| (i as f32 * 0.37).sin()).collect();
        let out = RefCell::new(vec![0.0; m * rows]);
        let mut inputs = Inputs::new(isa, &pool, &x, (m, columns));
        let mut cases: Vec<Case> =
            weights.iter().map(|(_, weights)| inputs.product(isa, &pool, weights, &out)).collect();
        let seconds = medians(ROUNDS, &mut cases);
        drop(cases);
        for ((kind, weights), seconds) in weights.iter().zip(seconds) {
            report(machine, &how, kind, &weights[0], m, seconds);
        }
        let prepare = || {
            inputs.quantised.prepare(isa, &pool, Input::Quantised, &x, (m, columns));
        };
        let case = Case { threads, repeats: 10, run: Box::new(prepare) };
        let us = medians(ROUNDS, &mut [case])[0] * 1e6;
        println!("{how} quantising {m} rows of {columns}: {us:.1} us");
    }
}

/// One set of rows, for each kind of weights.
struct Inputs {
    quantised: Activations,
    floats: Activations,
}

impl Inputs {
    fn new(isa: Isa, pool: &Pool, x: &[f32], shape: (usize, usize)) -> Inputs {
        let prepared = |input| {
            let mut activations = Activations::new();
            activations.prepare(isa, pool, input, x, shape);
            activations
        };
        Inputs { quantised: prepared(Input::Quantised), floats: prepared(Input::Floats) }
    }

    fn product<'a>(
        &'a self,
        isa: Isa,
        pool: &'a Pool,
        weights: &'a [Weights],
        out: &'a RefCell<Vec<f32>>,
    ) -> Case<'a> {
        let x = match weights[0].input() {
            Input::Quantised => &self.quantised,
            Input::Floats => &self.floats,
        };
        let mut next = weights.iter().cycle();
        let run = move || {
            let weights = next.next().expect("there is one");
            multiply(isa, pool, weights, x, &mut out.borrow_mut());
        };
        let repeats = if x.rows() <= FEW_ROWS { weights.len() } else { 1 };
        Case { threads: pool.threads(), repeats, run: Box::new(run) }
    }
}

fn report(machine: Machine, how: &str, kind: &str, weights: &Weights, m: usize, seconds: f64) {
    let operations = 2.0 * (m * weights.rows() * weights.columns()) as f64 / seconds;
    let bytes = weights.bytes() as f64 / seconds;
    let peak = match weights.input() {
        Input::Quantised => machine.int8_op_per_s.map(|peak| peak / 2.0),
        Input::Floats => Some(machine.flop_per_s),
    };
    let share =
        peak.map_or_else(String::new, |peak| format!(" ({:3.0} %)", operations / peak * 100.0));
    // More rows have their weights from the cache.
    let of_memory = match m <= FEW_ROWS {
        true => format!(" ({:3.0} %)", bytes / machine.bytes_per_s * 100.0),
        false => String::new(),
    };
    println!(
        "{how} {:5}x{:4} {kind:5} m={m:3} {:9.1} us {:6.1} GOP/s{share} {:6.2} GB/s{of_memory}",
        weights.rows(),
        weights.columns(),
        seconds * 1e6,
        operations / 1e9,
        bytes / 1e9,
    );
}

fn copies(kind: &str, rows: usize, columns: usize) -> Vec<Weights> {
    let first = weights(kind, rows, columns);
    let count = MEMORY_BYTES.div_ceil(first.bytes());
    let others = (1..count).map(|_| weights(kind, rows, columns));
    std::iter::once(first).chain(others).collect()
}

fn weights(kind: &str, rows: usize, columns: usize) -> Weights {
    let len = rows * columns;
    let packed = match kind {
        "f16" => Weights::dense_f16(rows, columns, &vec![f16::from_f32(0.5); len]),
        "bf16" => Weights::dense_bf16(rows, columns, &vec![bf16::from_f32(0.5); len]),
        "f32" => Weights::dense_f32(rows, columns, &vec![0.5; len]),
        "q4_0" => plain(rows, columns, 4, 32, -0.125),
        "q4_1" => plain(rows, columns, 4, 32, -0.25),
        "mlx4" => plain(rows, columns, 4, 64, -0.25),
        "q5_1" => plain(rows, columns, 5, 32, -0.25),
        "q6_32" => plain(rows, columns, 6, 32, -0.25),
        "q8_0" => plain(rows, columns, 8, 32, -2.0),
        "q4_k" => two_level(rows, columns, 4),
        "q5_k" => two_level(rows, columns, 5),
        "q6_k" => two_level_halves(rows, columns),
        kind => unreachable!("{kind} is not in the list"),
    };
    packed.expect("a right shape")
}

const SCALE: f32 = 0.015625;

fn plain(
    rows: usize,
    columns: usize,
    bits: usize,
    group: usize,
    bias: f32,
) -> Result<Weights, kernels::matmul::Error> {
    let scales = vec![SCALE; rows * columns / group];
    let biases = vec![bias; rows * columns / group];
    let scales = Scales::Plain { group, scales: &scales, biases: &biases };
    let codes = random_bytes(rows * columns * bits / 8);
    Weights::affine(Affine { rows, columns, bits, codes: &codes, scales })
}

fn two_level(rows: usize, columns: usize, bits: usize) -> Result<Weights, kernels::matmul::Error> {
    let d = vec![f16::from_f32(SCALE / 32.0); rows * columns / SUPERBLOCK];
    let second: Vec<u8> = random_bytes(rows * columns / 32).iter().map(|byte| byte & 63).collect();
    let scales = Scales::TwoLevel { d: &d, dmin: &d, scales: &second, minimums: &second };
    let codes = random_bytes(rows * columns * bits / 8);
    Weights::affine(Affine { rows, columns, bits, codes: &codes, scales })
}

fn two_level_halves(rows: usize, columns: usize) -> Result<Weights, kernels::matmul::Error> {
    let d = vec![f16::from_f32(SCALE / 32.0); rows * columns / SUPERBLOCK];
    let bytes = random_bytes(rows * columns / 16);
    let second: Vec<i8> = bytes.into_iter().map(u8::cast_signed).collect();
    let codes = random_bytes(rows * columns * 6 / 8);
    let scales = Scales::TwoLevelHalves { d: &d, scales: &second };
    Weights::affine(Affine { rows, columns, bits: 6, codes: &codes, scales })
}

fn random_bytes(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(&mut next).collect()
}
