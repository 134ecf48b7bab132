//! Whole-program tests, one module per room or promise.

#![allow(clippy::unwrap_used, reason = "the panic is the report")]

mod golden;
mod kv;
mod native;
mod source;
mod support;
