//! A model's weights on disk, under Hugging Face's names, whatever the container.
//!
//! A tensor is read when it is asked for, checked against the shape that the architecture
//! expects, and handed over as host memory; only then does MLX see it.

mod affine;
mod folder;

use half::{bf16, f16};

use super::Error;
use super::gguf::quant::Unpacked;
use super::gguf::{Gguf, names, quant};
pub use affine::{Affine, GROUP, Plain, SUPERBLOCK, Scales};
pub use folder::Folder;

/// Where the weights come from.
pub enum Checkpoint {
    Folder(Folder),
    Gguf { gguf: Gguf, dialect: Dialect },
}

/// How the GGUF files of an architecture differ from those of others.
#[derive(Clone, Copy, Default)]
pub struct Dialect {
    /// llama.cpp's converter interleaves the two halves of each head's q and k rows for
    /// Llama models; the number of heads is needed to undo it.
    pub interleaved: Option<Interleaved>,
    /// Modules of a layer with another name than usual: Hugging Face's and the file's.
    pub modules: &'static [(&'static str, &'static str)],
}

/// Which matrix turns hidden states into logits.
#[derive(Clone, Copy)]
pub enum Head {
    /// The embedding, which is then read in full and not only looked up in.
    Embedding,
    Own,
}

/// How a container calls what a step reads.
struct StepNames {
    /// Before a layer's index.
    layers: &'static str,
    norm: &'static str,
    embedding: &'static str,
    head: &'static str,
}

/// The head counts of a model whose q and k rows are interleaved.
#[derive(Clone, Copy)]
pub struct Interleaved {
    pub query_heads: usize,
    pub kv_heads: usize,
}

/// A matrix in host memory: `[rows, columns]`, i.e. `[out, in]` of a linear layer.
pub enum Matrix {
    Dense(Dense),
    Affine(Affine),
}

/// Values as the file has them.
#[derive(Clone, Debug)]
pub enum Dense {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Checkpoint {
    /// Bytes on disk of what a step reads in full: `layers` layers, the last norm and the head.
    /// Whatever else lies beside them, a vision model or further layers, is not counted.
    pub fn step_bytes(&self, layers: usize, head: Head) -> usize {
        match self {
            Checkpoint::Folder(folder) => {
                folder.stored_bytes(|name| StepNames::FOLDER.have(name, layers, head))
            }
            Checkpoint::Gguf { gguf, .. } => gguf
                .tensors()
                .filter(|(name, _)| StepNames::GGUF.have(name, layers, head))
                .map(|(_, tensor)| Gguf::stored_bytes(tensor))
                .sum(),
        }
    }

    /// A norm's weight or a bias: `[length]`, as f32.
    pub fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, Error> {
        match self {
            Checkpoint::Folder(folder) => folder.dense(name, &[length]).map(Dense::into_f32),
            Checkpoint::Gguf { gguf, dialect } => {
                let matrix = gguf_tensor(gguf, dialect, name, &[length])?;
                let mut values = match matrix {
                    Matrix::Dense(dense) => dense.into_f32(),
                    Matrix::Affine(affine) => affine.dequantised(),
                };
                if let Some(heads) = heads_of(name, dialect.interleaved) {
                    values = uninterleave(&values, 1, heads);
                }
                Ok(values)
            }
        }
    }

    /// The weight of the linear layer or embedding `module`: `[rows, columns]`.
    pub fn matrix(&self, module: &str, rows: usize, columns: usize) -> Result<Matrix, Error> {
        match self {
            Checkpoint::Folder(folder) => folder.matrix(module, rows, columns),
            Checkpoint::Gguf { gguf, dialect } => {
                let name = format!("{module}.weight");
                let matrix = gguf_tensor(gguf, dialect, &name, &[rows, columns])?;
                Ok(match heads_of(&name, dialect.interleaved) {
                    None => matrix,
                    Some(heads) => matrix.uninterleave(rows, heads),
                })
            }
        }
    }
}

impl StepNames {
    const FOLDER: StepNames = StepNames {
        layers: "model.layers.",
        norm: "model.norm.",
        embedding: "model.embed_tokens.",
        head: "lm_head.",
    };
    const GGUF: StepNames = StepNames {
        layers: "blk.",
        norm: "output_norm.",
        embedding: "token_embd.",
        head: "output.",
    };

    fn have(&self, name: &str, layers: usize, head: Head) -> bool {
        let layer = name.strip_prefix(self.layers).and_then(|rest| rest.split_once('.'));
        if let Some((index, _)) = layer {
            return index.parse::<usize>().is_ok_and(|index| index < layers);
        }
        let head = match head {
            Head::Embedding => self.embedding,
            Head::Own => self.head,
        };
        name.starts_with(self.norm) || name.starts_with(head)
    }
}

fn gguf_tensor(
    gguf: &Gguf,
    dialect: &Dialect,
    name: &str,
    shape: &[usize],
) -> Result<Matrix, Error> {
    let path = || gguf.path().to_owned();
    let missing = || Error::MissingTensor { path: path(), tensor: name.to_owned() };
    let gguf_name = names::tensor_name(name, dialect.modules).ok_or_else(missing)?;
    let tensor = gguf
        .tensor(&gguf_name)
        .ok_or_else(|| Error::MissingTensor { path: path(), tensor: gguf_name.clone() })?;
    if tensor.shape != shape {
        return Err(Error::Tensor {
            path: path(),
            tensor: gguf_name,
            reason: format!("has shape {:?}, the configuration says {shape:?}", tensor.shape),
        });
    }
    let kind = gguf.quant_type(&gguf_name, tensor)?;
    let raw = gguf.read(&gguf_name, tensor)?;
    let columns = *shape.last().expect("a vector or a matrix");
    Ok(match quant::unpack(kind, &raw, columns) {
        Unpacked::Dense(dense) => Matrix::Dense(dense),
        Unpacked::Affine(affine) => Matrix::Affine(affine),
    })
}

/// The number of heads in a q or k projection of an interleaved model.
fn heads_of(name: &str, interleaved: Option<Interleaved>) -> Option<usize> {
    let interleaved = interleaved?;
    if name.contains(".q_proj.") {
        Some(interleaved.query_heads)
    } else if name.contains(".k_proj.") {
        Some(interleaved.kv_heads)
    } else {
        None
    }
}

/// Undoes the interleaving: within each head, row `2i + j` goes back to row `j * half + i`.
fn uninterleave<T: Copy>(values: &[T], rows_len: usize, heads: usize) -> Vec<T> {
    let rows = values.len() / rows_len;
    let head_rows = rows / heads;
    let half = head_rows / 2;
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for row in 0..head_rows {
            let (j, i) = (row / half, row % half);
            let from = (head * head_rows + 2 * i + j) * rows_len;
            out.extend_from_slice(&values[from..][..rows_len]);
        }
    }
    out
}

impl Matrix {
    fn uninterleave(self, rows: usize, heads: usize) -> Matrix {
        fn all<T: Copy>(values: &[T], rows: usize, heads: usize) -> Vec<T> {
            uninterleave(values, values.len() / rows, heads)
        }
        match self {
            Matrix::Dense(Dense::F32(v)) => Matrix::Dense(Dense::F32(all(&v, rows, heads))),
            Matrix::Dense(Dense::F16(v)) => Matrix::Dense(Dense::F16(all(&v, rows, heads))),
            Matrix::Dense(Dense::Bf16(v)) => Matrix::Dense(Dense::Bf16(all(&v, rows, heads))),
            Matrix::Affine(affine) => Matrix::Affine(Affine {
                codes: all(&affine.codes, rows, heads),
                scales: match affine.scales {
                    Scales::Plain(Plain { group, scales, biases }) => Scales::Plain(Plain {
                        group,
                        scales: all(&scales, rows, heads),
                        biases: all(&biases, rows, heads),
                    }),
                    Scales::TwoLevel { d, dmin, scales, minimums } => Scales::TwoLevel {
                        d: all(&d, rows, heads),
                        dmin: all(&dmin, rows, heads),
                        scales: all(&scales, rows, heads),
                        minimums: all(&minimums, rows, heads),
                    },
                    Scales::TwoLevelHalves { d, scales } => Scales::TwoLevelHalves {
                        d: all(&d, rows, heads),
                        scales: all(&scales, rows, heads),
                    },
                },
                ..affine
            }),
        }
    }
}

impl Dense {
    pub fn into_f32(self) -> Vec<f32> {
        match self {
            Dense::F32(values) => values,
            Dense::F16(values) => values.into_iter().map(f16::to_f32).collect(),
            Dense::Bf16(values) => values.into_iter().map(bf16::to_f32).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use safetensors::Dtype;
    use safetensors::tensor::TensorView;
    use serde_json::Map;

    use super::*;

    /// A folder's weights: a byte per element, so that a tensor's length is what it adds.
    fn write_tensors(path: &Path, tensors: &[(&str, usize)]) {
        let zeros = [0; 128];
        let tensors = tensors.iter().map(|&(name, len)| {
            let view = TensorView::new(Dtype::U8, vec![len], &zeros[..len]);
            (name, view.expect("the length is that of the bytes"))
        });
        let bytes = safetensors::serialize(tensors, None).expect("valid tensors");
        std::fs::write(path.join("model.safetensors"), bytes).expect("a file");
    }

    /// A vision model beside the text and names with a prefix, as Gemma 3 has them, were counted
    /// as weights that each token is multiplied with.
    #[test]
    fn only_what_a_step_of_the_text_model_reads_is_counted() {
        let check = |prefix: &'static str, tensors: &[(&str, usize)]| {
            let folder = tempfile::tempdir().expect("a folder");
            write_tensors(folder.path(), tensors);
            let open = Folder::open(folder.path(), &Map::new(), prefix);
            let checkpoint = Checkpoint::Folder(open.expect("it is whole"));
            (checkpoint.step_bytes(11, Head::Embedding), checkpoint.step_bytes(11, Head::Own))
        };
        let text = [
            ("model.embed_tokens.weight", 1),
            ("model.embed_tokens.scales", 2),
            ("model.layers.0.mlp.up_proj.weight", 4),
            ("model.layers.10.input_layernorm.weight", 8),
            ("model.norm.weight", 16),
            ("lm_head.weight", 32),
            ("model.layers.11.mlp.up_proj.weight", 64),
            ("vision_tower.weight", 128),
        ];
        assert_eq!(check("", &text), (1 + 2 + 4 + 8 + 16, 4 + 8 + 16 + 32));
        let nested = [
            ("language_model.model.embed_tokens.weight", 1),
            ("language_model.model.layers.0.mlp.up_proj.weight", 4),
            ("language_model.model.norm.weight", 16),
            ("language_model.lm_head.weight", 32),
            ("model.layers.0.mlp.up_proj.weight", 64),
            ("vision_tower.model.norm.weight", 128),
        ];
        assert_eq!(check("language_model.", &nested), (1 + 4 + 16, 4 + 16 + 32));
    }

    #[test]
    fn a_gguf_file_names_them_otherwise() {
        let names = [
            "token_embd.weight",
            "blk.1.ffn_up.weight",
            "blk.2.ffn_up.weight",
            "output_norm.weight",
            "output.weight",
            "rope_freqs.weight",
        ];
        let have = |head| names.map(|name| StepNames::GGUF.have(name, 2, head));
        assert_eq!(have(Head::Embedding), [true, true, false, true, false, false]);
        assert_eq!(have(Head::Own), [false, true, false, true, true, false]);
    }

    #[test]
    fn interleaved_rows_go_back_to_halves() {
        // Two heads of four rows each; llama.cpp stores row j*2+i of a head at 2i+j.
        let stored = [0, 2, 1, 3, 4, 6, 5, 7];
        assert_eq!(uninterleave(&stored, 1, 2), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
