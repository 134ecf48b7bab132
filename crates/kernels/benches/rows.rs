//! Speed of the kernels that go through rows once: `cargo bench -p kernels --bench rows`; with
//! `-- scalar` and so on on another instruction set than the best.
//!
//! One thread, on rows that are in the cache, as they are in a model; bytes are those read and
//! written. Operations are counted as the formula has them, with an exponential as one.

mod common;

use std::hint::black_box;

use common::{Case, isas, medians};
use kernels::isa::Isa;
use kernels::kv::{self, BLOCK_TOKENS, Bits, Layout};
use kernels::rows;

const ROUNDS: usize = 15;
const REPEATS: usize = 200;
/// Rows of a step: what a band of prefill has.
const ROWS: usize = 64;

/// What one kernel did in one run.
struct Work<'a> {
    name: String,
    operations: usize,
    bytes: usize,
    run: Box<dyn FnMut() + 'a>,
}

fn main() {
    for isa in isas() {
        // Hidden and intermediate sizes of SmolLM2-135M and Llama-3.2-1B, and their heads.
        for (hidden, intermediate, heads, head_dim) in [(576, 1536, 9, 64), (2048, 8192, 32, 64)] {
            let mut works = vec![
                rms_norm(isa, hidden),
                add(isa, hidden),
                gated(isa, "swiglu", rows::swiglu, intermediate, 5),
                gated(isa, "geglu_tanh", rows::geglu_tanh, intermediate, 10),
                rope(isa, heads, head_dim),
                hadamard(isa, heads, head_dim),
            ];
            for bits in [Bits::Four, Bits::Eight, Bits::Sixteen] {
                works.push(append(isa, bits, head_dim));
            }
            report(isa, works);
        }
    }
}

fn report(isa: Isa, works: Vec<Work>) {
    let mut lines = Vec::new();
    let mut cases = Vec::new();
    for Work { name, operations, bytes, run } in works {
        lines.push((name, operations, bytes));
        cases.push(Case { threads: 1, repeats: REPEATS, run });
    }
    for ((name, operations, bytes), seconds) in lines.into_iter().zip(medians(ROUNDS, &mut cases)) {
        println!(
            "{:?} {name:28} {:8.2} us {:6.1} GFLOP/s {:6.1} GB/s",
            isa.level(),
            seconds * 1e6,
            operations as f64 / seconds / 1e9,
            bytes as f64 / seconds / 1e9,
        );
    }
}

/// Between -1 and 1.
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn rms_norm(isa: Isa, width: usize) -> Work<'static> {
    let (x, weight, mut out) = (values(ROWS * width), values(width), vec![0.0; ROWS * width]);
    let run = move || {
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            rows::rms_norm(isa, black_box(x), &weight, 1e-5, out);
        }
        black_box(&mut out);
    };
    Work {
        name: format!("rms_norm {ROWS} x {width}"),
        operations: 4 * ROWS * width,
        bytes: 8 * ROWS * width,
        run: Box::new(run),
    }
}

fn add(isa: Isa, width: usize) -> Work<'static> {
    let (mut x, y) = (values(ROWS * width), vec![1e-3; ROWS * width]);
    let run = move || rows::add(isa, black_box(&mut x), &y);
    Work {
        name: format!("add {ROWS} x {width}"),
        operations: ROWS * width,
        bytes: 12 * ROWS * width,
        run: Box::new(run),
    }
}

type Gated = fn(Isa, &[f32], &[f32], &mut [f32]);

fn gated(isa: Isa, name: &str, kernel: Gated, width: usize, operations: usize) -> Work<'static> {
    let len = ROWS * width;
    let (gate, up, mut out) = (values(len), values(len), vec![0.0; len]);
    let run = move || {
        kernel(isa, black_box(&gate), &up, &mut out);
        black_box(&mut out);
    };
    Work {
        name: format!("{name} {ROWS} x {width}"),
        operations: operations * len,
        bytes: 12 * len,
        run: Box::new(run),
    }
}

fn rope(isa: Isa, heads: usize, head_dim: usize) -> Work<'static> {
    let mut x = values(ROWS * heads * head_dim);
    let angles = values(head_dim / 2);
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|x| (x.cos(), x.sin())).unzip();
    let len = x.len();
    let run = move || {
        for head in black_box(&mut x).chunks_exact_mut(head_dim) {
            rows::rope(isa, head, &cos, &sin);
        }
    };
    Work {
        name: format!("rope {} x {head_dim}", ROWS * heads),
        operations: 3 * len,
        bytes: 8 * len,
        run: Box::new(run),
    }
}

fn hadamard(isa: Isa, heads: usize, head_dim: usize) -> Work<'static> {
    let mut x = values(ROWS * heads * head_dim);
    let len = x.len();
    let run = move || {
        for head in black_box(&mut x).chunks_exact_mut(head_dim) {
            rows::hadamard(isa, head);
        }
    };
    Work {
        name: format!("hadamard {} x {head_dim}", ROWS * heads),
        operations: len * (head_dim.ilog2() as usize + 1),
        bytes: 8 * len,
        run: Box::new(run),
    }
}

/// One block of tokens with 3 KV heads.
fn append(isa: Isa, bits: Bits, head_dim: usize) -> Work<'static> {
    let layout = Layout::new(3, head_dim, bits, bits);
    let x = values(3 * head_dim);
    let mut block = vec![0; layout.bytes()];
    let run = move || {
        for token in 0..BLOCK_TOKENS {
            kv::append(isa, layout, black_box(&mut block), token, &x, &x);
        }
    };
    let len = 2 * BLOCK_TOKENS * 3 * head_dim;
    Work {
        name: format!("kv append {BLOCK_TOKENS} tokens, {} bits", bits.count()),
        // The least and the greatest, the difference and the product, rounding and packing.
        operations: 6 * len,
        bytes: 4 * len + layout.bytes(),
        run: Box::new(run),
    }
}
