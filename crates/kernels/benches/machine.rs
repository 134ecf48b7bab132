//! The limits of this machine: `cargo bench -p kernels --bench machine`.
//!
//! How fast memory is read, and the peak of the instructions that the kernels are made of, in loops
//! that have nothing else. The other benches give their results as a share of these.

mod common;

use common::{Machine, isas, thread_counts};

fn main() {
    for isa in isas() {
        for threads in thread_counts() {
            let machine = Machine::measure(isa, threads);
            let int8 = machine.int8_op_per_s.map_or_else(
                || "no vpdpbusd".to_owned(),
                |peak| format!("{:.0} GOP/s with vpdpbusd", peak / 1e9),
            );
            println!(
                "{:?} x{threads}: {:.1} GB/s read, {:.0} GFLOP/s with fma, {int8}",
                isa.level(),
                machine.bytes_per_s / 1e9,
                machine.flop_per_s / 1e9,
            );
        }
    }
}
