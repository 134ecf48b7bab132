//! Helpers that the tests share, one file per room.

pub mod cli;
pub mod disk;
pub mod engine;
pub mod golden;
pub mod greedy;
pub mod http;
pub mod hub;
pub mod model;
pub mod random;
pub mod scale;
pub mod store;
pub mod text;
