//! `semantic`: a local LLM server and command line whose agents keep their memory.
//!
//! # The map
//!
//! Data flows from the command line to the engine, and from there to the model.
//! A room imports only rooms below it; `tests/it/tidy.rs` holds that table.

pub mod model;
pub mod text;
pub mod types;
