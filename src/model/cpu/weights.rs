//! Weights in the form the kernels want, read from a checkpoint.

use kernels::isa::Isa;
use kernels::matmul::{self, Activations, Weights};
use kernels::pool::Pool;
use kernels::rows;

use crate::model::Error;
use crate::model::checkpoint::{Affine, Checkpoint, Dense, Matrix, Plain, Scales};
use crate::model::layers::Bias;

/// Reads weights and packs them.
pub struct Loader<'a> {
    pub checkpoint: &'a Checkpoint,
}

/// Root mean square normalisation of a row.
pub struct Norm {
    weight: Vec<f32>,
    epsilon: f32,
}

/// `[columns] → [rows]`
pub struct Linear {
    pub weights: Weights,
    bias: Option<Vec<f32>>,
}

/// One set of rows, prepared at most once for each kind of weights that they are multiplied with.
#[derive(Default)]
pub struct Inputs {
    quantised: Option<Activations>,
    floats: Option<Activations>,
    quantised_is_set: bool,
    floats_is_set: bool,
}

impl Loader<'_> {
    pub fn norm(&self, module: &str, length: usize, epsilon: f32) -> Result<Norm, Error> {
        let weight = self.checkpoint.vector(&format!("{module}.weight"), length)?;
        Ok(Norm { weight, epsilon })
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
        let weights = packed.map_err(|error| {
            Error::Setting(format!(
                "the CPU kernels cannot take {module}: {error}; use --device portable"
            ))
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

impl Norm {
    pub fn apply(&self, isa: Isa, x: &[f32], out: &mut [f32]) {
        rows::rms_norm(isa, x, &self.weight, self.epsilon, out);
    }
}

impl Inputs {
    /// What was prepared is of rows that have changed.
    pub fn set(&mut self) {
        self.quantised_is_set = false;
        self.floats_is_set = false;
    }
}

impl Linear {
    /// `x [token, columns] → out [token, rows]`; every element is written.
    pub fn apply(&self, isa: Isa, pool: &Pool, inputs: &mut Inputs, x: &[f32], out: &mut [f32]) {
        let input = self.weights.input();
        let (slot, is_set) = match input {
            matmul::Input::Quantised => (&mut inputs.quantised, &mut inputs.quantised_is_set),
            matmul::Input::Floats => (&mut inputs.floats, &mut inputs.floats_is_set),
        };
        let activations = slot.get_or_insert_with(Activations::new);
        if !*is_set {
            let columns = self.weights.columns();
            activations.prepare(isa, pool, input, x, (x.len() / columns, columns));
            *is_set = true;
        }
        matmul::multiply(isa, pool, &self.weights, activations, out);
        if let Some(bias) = &self.bias {
            for row in out.chunks_exact_mut(bias.len()) {
                rows::add(isa, row, bias);
            }
        }
    }
}
