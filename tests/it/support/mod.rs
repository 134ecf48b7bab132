//! What several tests need.

pub mod hub;
pub mod model;
