//! Helpers that the tests share, one file per room.

pub mod agents;
pub mod browser;
pub mod cli;
pub mod disk;
pub mod engine;
pub mod golden;
pub mod greedy;
pub mod http;
pub mod hub;
pub mod io;
pub mod log;
pub mod markdown;
pub mod model;
pub mod openai;
pub mod process;
pub mod python;
pub mod random;
pub mod scale;
pub mod scrape;
pub mod store;
pub mod text;
