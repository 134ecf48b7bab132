//! Whole-program tests, one module per room or promise.

mod golden;
mod source;
mod support;
