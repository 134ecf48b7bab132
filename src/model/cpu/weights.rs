//! Weights in the form the kernels want, read from a checkpoint.

use kernels::decoder::{Linear, Norm};
use kernels::matmul::{self, Weights};

use crate::model::Error;
use crate::model::checkpoint::{Affine, Checkpoint, Dense, Matrix, Plain, Scales};
use crate::model::layers::{Bias, NormConfig};

/// Reads weights and packs them.
pub struct Loader<'a> {
    pub checkpoint: &'a Checkpoint,
}

impl Loader<'_> {
    pub fn norm(&self, module: &str, length: usize, config: NormConfig) -> Result<Norm, Error> {
        let stored = self.checkpoint.vector(&format!("{module}.weight"), length)?;
        Ok(Norm { weight: config.weight(stored), epsilon: config.epsilon })
    }

    pub fn embedding(&self, module: &str, rows: usize, columns: usize) -> Result<Linear, Error> {
        self.linear(module, rows, columns, Bias::None)
    }

    pub fn linear(
        &self,
        module: &str,
        rows: usize,
        columns: usize,
        bias: Bias,
    ) -> Result<Linear, Error> {
        let bias = match bias {
            Bias::None => None,
            Bias::Added => Some(self.checkpoint.vector(&format!("{module}.bias"), rows)?),
        };
        let packed = match self.checkpoint.matrix(module, rows, columns)? {
            Matrix::Dense(Dense::F32(values)) => Weights::dense_f32(rows, columns, &values),
            Matrix::Dense(Dense::F16(values)) => Weights::dense_f16(rows, columns, &values),
            Matrix::Dense(Dense::Bf16(values)) => Weights::dense_bf16(rows, columns, &values),
            Matrix::Affine(Affine { columns, bits, codes, scales }) => {
                let scales = borrowed(&scales);
                Weights::affine(matmul::Affine { rows, columns, bits, codes: &codes, scales })
            }
        };
        let weights = packed.map_err(|error| match error {
            matmul::Error::OutOfMemory(error) => Error::Setting(format!("{module}: {error}")),
            error => Error::NoKernel(format!("{module} has {error}")),
        })?;
        Ok(Linear { weights, bias })
    }
}

/// The kernels take every form that a file has as it is.
fn borrowed(scales: &Scales) -> matmul::Scales<'_> {
    match scales {
        Scales::Plain(Plain { group, scales, biases }) => {
            matmul::Scales::Plain { group: *group, scales, biases }
        }
        Scales::TwoLevel { d, dmin, scales, minimums } => {
            matmul::Scales::TwoLevel { d, dmin, scales, minimums }
        }
        Scales::TwoLevelHalves { d, scales } => matmul::Scales::TwoLevelHalves { d, scales },
    }
}
