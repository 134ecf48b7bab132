//! Whole-program tests, one module per room or promise.

mod native;
