//! What can go wrong with a model: its files, its memory, or a batch that breaks the rules.

use std::path::PathBuf;

/// Failures of the model room. Messages name the file or tensor and the reason.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {reason}")]
    Read { path: PathBuf, reason: String },

    #[error("cannot write {path}: {reason}")]
    Write { path: PathBuf, reason: String },

    /// The file is not what its name or header says.
    #[error("{path} is not a usable model: {reason}")]
    Invalid { path: PathBuf, reason: String },

    #[error(
        "{path}: model type {model_type:?} is not supported; supported: {}",
        supported.join(", ")
    )]
    UnknownArchitecture { path: PathBuf, model_type: String, supported: Vec<&'static str> },

    #[error("{path}: tensor {tensor:?} is missing")]
    MissingTensor { path: PathBuf, tensor: String },

    #[error("{path}: tensor {tensor:?}: {reason}")]
    Tensor { path: PathBuf, tensor: String, reason: String },

    #[error(
        "{path}: tensor {tensor:?} has type {found}, which is not supported; supported: {supported}"
    )]
    TensorType { path: PathBuf, tensor: String, found: String, supported: String },

    /// A setting that this model cannot be run with.
    #[error("{0}")]
    Setting(String),

    /// The CPU kernels have no form for this model; plain MLX operations do.
    #[error("the CPU kernels cannot run this model: {0}; --device portable can")]
    NoKernel(String),

    /// The caller broke a rule of [`super::Batch`]; nothing was computed.
    #[error("bad batch: {0}")]
    Batch(String),

    /// MLX refused an operation.
    #[error("MLX: {0}")]
    Mlx(String),
}

impl From<mlx_rs::error::Exception> for Error {
    fn from(exception: mlx_rs::error::Exception) -> Error {
        Error::Mlx(exception.what().to_owned())
    }
}
