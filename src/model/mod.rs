//! Models: where their files come from.

pub mod source;
