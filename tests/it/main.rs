//! Whole-program tests, one module per room or promise.

mod bad_input;
mod cli;
mod golden;
mod native;
mod source;
mod support;
