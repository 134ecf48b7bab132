//! The layers that every architecture is made of, as plain MLX operations.

use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, fast, ops};

use super::Error;
use super::checkpoint::{Affine, Checkpoint, Dense, Matrix, Plain};

/// Reads weights from a checkpoint into MLX arrays.
///
/// Scales, biases and dense weights become f32, whatever they are stored as, and so activations
/// are f32 everywhere: on a CPU, MLX has fast code for nothing else.
pub struct Loader<'a> {
    pub checkpoint: &'a Checkpoint,
}

impl Loader<'_> {
    pub fn norm(&self, module: &str, length: usize, config: NormConfig) -> Result<RmsNorm, Error> {
        let weight = config.weight(self.checkpoint.vector(&format!("{module}.weight"), length)?);
        let weight = self.array(Dense::F32(weight), &[length])?;
        Ok(RmsNorm { weight, epsilon: config.epsilon })
    }

    /// `[columns] → [rows]`
    pub fn linear(
        &self,
        module: &str,
        rows: usize,
        columns: usize,
        bias: Bias,
    ) -> Result<Linear, Error> {
        let bias = match bias {
            Bias::None => None,
            Bias::Added => {
                let values = self.checkpoint.vector(&format!("{module}.bias"), rows)?;
                Some(self.array(Dense::F32(values), &[rows])?)
            }
        };
        Ok(Linear { weight: self.weight(module, rows, columns)?, bias })
    }

    pub fn embedding(&self, module: &str, rows: usize, columns: usize) -> Result<Embedding, Error> {
        Ok(Embedding { weight: self.weight(module, rows, columns)? })
    }

    fn weight(&self, module: &str, rows: usize, columns: usize) -> Result<Weight, Error> {
        Ok(match self.checkpoint.matrix(module, rows, columns)? {
            Matrix::Dense(dense) => Weight::Dense(self.array(dense, &[rows, columns])?),
            Matrix::Affine(affine) => self.affine(affine, rows)?,
        })
    }

    fn affine(&self, affine: Affine, rows: usize) -> Result<Weight, Error> {
        let columns = affine.columns;
        let (bits, codes, Plain { group, scales, biases }) = affine.into_plain();
        let words: Vec<u32> =
            codes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        drop(codes);
        let groups = [rows, columns / group];
        Ok(Weight::Affine {
            codes: Array::from_slice(&words, &dimensions(&[rows, columns * bits / 32])?),
            scales: self.array(Dense::F32(scales), &groups)?,
            biases: self.array(Dense::F32(biases), &groups)?,
            group: group as i32,
            bits: bits as i32,
        })
    }

    fn array(&self, dense: Dense, shape: &[usize]) -> Result<Array, Error> {
        let shape = dimensions(shape)?;
        // Widening happens here and not in MLX, so that no second copy waits for an evaluation.
        Ok(Array::from_slice(&dense.into_f32(), &shape))
    }
}

/// MLX counts in `i32`.
pub fn dimensions(shape: &[usize]) -> Result<Vec<i32>, Error> {
    let count = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    if count.is_none_or(|count| i32::try_from(count).is_err()) {
        return Err(Error::Setting(format!("an array of shape {shape:?} is too large for MLX")));
    }
    Ok(shape.iter().map(|&n| n as i32).collect())
}

/// Whether a linear layer adds a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    None,
    Added,
}

/// What the norms of a model have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormConfig {
    pub epsilon: f32,
    /// Added to the weights of the file: Gemma's have been trained around 0 instead of 1.
    pub offset: f32,
}

impl NormConfig {
    /// What to multiply with, given what the file has.
    pub fn weight(self, stored: Vec<f32>) -> Vec<f32> {
        match self.offset {
            0.0 => stored,
            offset => stored.into_iter().map(|weight| offset + weight).collect(),
        }
    }
}

/// Root mean square normalisation over the last axis (Zhang and Sennrich, 2019).
pub struct RmsNorm {
    weight: Array,
    epsilon: f32,
}

impl RmsNorm {
    pub fn apply(&self, x: &Array) -> Result<Array, Error> {
        Ok(fast::rms_norm(x, Some(&self.weight), self.epsilon)?)
    }
}

/// `[out, in]`
enum Weight {
    Dense(Array),
    Affine { codes: Array, scales: Array, biases: Array, group: i32, bits: i32 },
}

impl Weight {
    /// `x @ weight.T`: `[tokens, in] → [tokens, out]`.
    fn multiply(&self, x: &Array) -> Result<Array, Error> {
        Ok(match self {
            Weight::Dense(weight) => ops::matmul(x, weight.t())?,
            Weight::Affine { codes, scales, biases, group, bits } => {
                ops::quantized_matmul(x, codes, scales, biases, true, *group, *bits)?
            }
        })
    }

    /// The rows of the given ids: `[tokens] → [tokens, in]`.
    fn rows(&self, ids: &Array) -> Result<Array, Error> {
        Ok(match self {
            Weight::Dense(weight) => weight.take_axis(ids, 0)?,
            Weight::Affine { codes, scales, biases, group, bits } => {
                let biases = biases.take_axis(ids, 0)?;
                let scales = scales.take_axis(ids, 0)?;
                ops::dequantize(codes.take_axis(ids, 0)?, scales, &biases, *group, *bits)?
            }
        })
    }
}

pub struct Linear {
    weight: Weight,
    bias: Option<Array>,
}

impl Linear {
    /// `[tokens, in] → [tokens, out]`
    pub fn apply(&self, x: &Array) -> Result<Array, Error> {
        let y = self.weight.multiply(x)?;
        Ok(match &self.bias {
            None => y,
            Some(bias) => ops::add(y, bias)?,
        })
    }
}

/// A row per token id; tied models use it as their output head too.
pub struct Embedding {
    weight: Weight,
}

impl Embedding {
    /// `[tokens] → [tokens, hidden]`
    pub fn lookup(&self, ids: &Array) -> Result<Array, Error> {
        self.weight.rows(ids)
    }

    /// `[tokens, hidden] → [tokens, vocabulary]`
    pub fn as_head(&self, hidden: &Array) -> Result<Array, Error> {
        self.weight.multiply(hidden)
    }
}

/// What a gated MLP applies to its gate (Shazeer, 2020).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// GELU by its approximation with tanh.
    GeluTanh,
}

/// `activation(gate) * up`: SwiGLU or GeGLU.
pub fn gated(activation: Activation, gate: &Array, up: &Array) -> Result<Array, Error> {
    let activated = match activation {
        Activation::Silu => ops::multiply(gate, ops::sigmoid(gate)?)?,
        Activation::GeluTanh => gelu_tanh(gate)?,
    };
    Ok(ops::multiply(activated, up)?)
}

/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`, in operations that MLX need not
/// compile at run time.
fn gelu_tanh(x: &Array) -> Result<Array, Error> {
    const FACTOR: f32 = 0.797_884_6;
    let cubic = ops::multiply(ops::square(x)?, Array::from_f32(0.044715 * FACTOR))?;
    let inner = ops::multiply(x, ops::add(cubic, Array::from_f32(FACTOR))?)?;
    let gate = ops::add(ops::tanh(inner)?, Array::from_f32(1.0))?;
    Ok(ops::multiply(ops::multiply(x, Array::from_f32(0.5))?, gate)?)
}

/// Rows `from .. to` of the first axis.
pub fn rows(x: &Array, from: usize, to: usize) -> Result<Array, Error> {
    if from == 0 && to == x.dim(0) as usize {
        return Ok(x.clone());
    }
    Ok(x.try_index(from as i32..to as i32)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::checkpoint::{Dialect, Scales};
    use crate::model::gguf::Gguf;

    /// Scales and biases for which `scale * code + bias` is exact, so that fused or separate
    /// rounding makes no difference; codes of any bytes, for every stream of bits is valid.
    fn affine(bits: usize) -> Affine {
        let (rows, columns, group) = (4, 128, 32);
        let groups = rows * columns / group;
        Affine {
            columns,
            bits,
            codes: (0..rows * columns * bits / 8).map(|i| (i * 167 + i / 7 * 59) as u8).collect(),
            scales: Scales::Plain(Plain {
                group,
                scales: (0..groups).map(|i| [0.25, -2.0, 0.5, 8.0][i % 4]).collect(),
                biases: (0..groups).map(|i| i as f32 - 7.5).collect(),
            }),
        }
    }

    #[test]
    fn mlx_unpacks_codes_of_any_width_as_we_do() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gguf/types.gguf");
        let gguf = Gguf::open(&path).expect("the file is fine");
        let checkpoint = Checkpoint::Gguf { gguf, dialect: Dialect::default() };
        let loader = Loader { checkpoint: &checkpoint };
        for bits in [2, 3, 4, 5, 6, 8] {
            let affine = affine(bits);
            let expected = affine.dequantised();
            let weight = loader.affine(affine, 4).expect("MLX takes it");
            let ids = Array::from_slice(&[0u32, 1, 2, 3], &[4]);
            let found = weight.rows(&ids).expect("MLX unpacks it");
            assert_eq!(found.shape(), [4, 128]);
            assert_eq!(found.as_slice::<f32>(), expected, "{bits} bits");
        }
    }
}
