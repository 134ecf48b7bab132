//! Why a kernel could not be put into a graph. What goes wrong later is the evaluation's error.

use mlx_rs::Dtype;

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("{kernel}: {input} must have shape {expected:?}, found {found:?}")]
    Shape { kernel: &'static str, input: String, expected: Vec<i32>, found: Vec<i32> },
    #[error("{kernel}: {input} must be {expected:?}, found {found:?}")]
    Dtype { kernel: &'static str, input: String, expected: Dtype, found: Dtype },
    #[error("{kernel}: output {index} cannot have shape {shape:?}")]
    OutputShape { kernel: &'static str, index: usize, shape: Vec<i32> },
    /// None, or more than [`OUTPUTS_MAX`](crate::OUTPUTS_MAX).
    #[error("{kernel}: {count} outputs are not possible")]
    OutputCount { kernel: &'static str, count: usize },
    #[error("{kernel}: {message}")]
    Mlx { kernel: &'static str, message: String },
}
