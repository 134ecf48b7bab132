//! CPU kernels: slices in, slices out. No MLX, no files; all the SIMD of the project is here.
//!
//! Every kernel has a scalar twin that defines its result to the bit: the order of every sum
//! depends on nothing but the length of the row it belongs to. The vector versions are compared
//! with it by `==`.

#[cfg(target_endian = "big")]
compile_error!("packed weights and caches are little-endian");

pub mod isa;
pub mod memory;
pub mod pool;

pub mod decoder;
pub mod matmul;

pub mod attention;
pub mod kv;
pub mod rows;
pub mod strided;

mod lanes;
mod math;
