//! The header of a block's file, which makes it a safetensors file. Pure.

/// The bytes before a block's KV.
pub struct Header;
