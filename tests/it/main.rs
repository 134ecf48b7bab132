//! Whole-program tests, one module per room or promise.

mod source;
mod support;
