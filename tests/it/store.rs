//! The store as engines and the command line have it: what is acknowledged is there after any crash,
//! and what is damaged is never used.

#![expect(
    clippy::print_stdout,
    reason = "seeds and counts, which the harness shows with a failure"
)]

mod agents;
mod map;
mod story;

mod attacks;
mod budget;
mod crash;
mod damage;
mod faults;
mod formats;
mod kill;
mod model;
mod names;
mod order;
mod power;
mod roundtrip;
mod threads;
mod transcripts;
