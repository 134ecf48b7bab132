//! Rust functions as operations of MLX graphs, on the CPU.
//!
//! ```ignore
//! struct Scale(f32);
//!
//! impl CpuKernel for Scale {
//!     fn name(&self) -> &'static str {
//!         "scale"
//!     }
//!     fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
//!         for (y, x) in outputs[0].f32_mut().iter_mut().zip(inputs[0].f32()) {
//!             *y = x * self.0;
//!         }
//!     }
//! }
//!
//! let input = Input { name: "x", array: &x, shape: &[2, 3], dtype: Dtype::Float32 };
//! let output = OutputSpec { shape: &[2, 3], dtype: Dtype::Float32 };
//! let y = Kernel::new(Scale(2.0)).apply_one(&[input], output, &cpu_stream())?;
//! ```
//!
//! Nothing runs until the array is evaluated. MLX then calls the kernel once, on the thread of the
//! stream: after everything its inputs are computed from, and before anything that uses its
//! outputs. Kernels on one stream run one after another; what the thread that evaluates wrote
//! before is visible to them, and what they wrote is visible to it once the evaluation returns.
//!
//! An operation costs 2 to 4 µs on two busy cores of x86-64, building the graph included; `cargo
//! run --release -p mlx-custom --example cost` measures it beside an addition of MLX's own.

mod error;
mod kernel;
mod view;

pub use error::Error;
pub use kernel::{CpuKernel, Input, Kernel, OUTPUTS_MAX, OutputSpec, cpu_stream};
pub use view::{Element, View, ViewMut};
