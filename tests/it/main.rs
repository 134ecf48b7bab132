//! Whole-program tests, one module per room or promise.

mod golden;
mod native;
mod source;
mod support;
