//! Weights in an MLX or Hugging Face folder: one or more `*.safetensors`, dense or affine.
//!
//! The header is parsed and checked by the `safetensors` crate; MLX never opens a file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::{Map, Value as Json};

use super::{Affine, Dense, Matrix, Plain, Scales};
use crate::model::Error;

/// The `safetensors` format's own bound on its header.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// All tensors of all files of a folder.
pub struct Folder {
    path: PathBuf,
    /// Before the name of every tensor, where a model is a part of a larger one.
    prefix: &'static str,
    files: Vec<(PathBuf, File)>,
    tensors: HashMap<String, Place>,
    quantization: Quantization,
}

/// Where a tensor lies.
struct Place {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    offset: u64,
    bytes: usize,
}

/// The `quantization` entry of an MLX `config.json`: defaults, and modules that differ.
#[derive(Default)]
struct Quantization {
    default: Option<(usize, usize)>,
    modules: HashMap<String, (usize, usize)>,
}

impl Folder {
    /// Reads the headers of all `*.safetensors` files in `path`; `config` is its `config.json`.
    pub fn open(
        path: &Path,
        config: &Map<String, Json>,
        prefix: &'static str,
    ) -> Result<Folder, Error> {
        let mut folder = Folder {
            path: path.to_owned(),
            prefix,
            files: Vec::new(),
            tensors: HashMap::new(),
            quantization: Quantization::parse(config)
                .map_err(|reason| Error::Invalid { path: path.join("config.json"), reason })?,
        };
        for file in safetensors_files(path)? {
            folder.add(file)?;
        }
        Ok(folder)
    }

    /// Bytes on disk of the tensors whose name, after the folder's prefix, `is_counted`.
    pub fn stored_bytes(&self, is_counted: impl Fn(&str) -> bool) -> usize {
        let is_counted = |name: &str| name.strip_prefix(self.prefix).is_some_and(&is_counted);
        let counted = self.tensors.iter().filter(|(name, _)| is_counted(name));
        counted.map(|(_, place)| place.bytes).sum()
    }

    /// The weight files, by name.
    pub fn files(&self) -> &[(PathBuf, File)] {
        &self.files
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// An unquantised tensor of the given shape.
    pub fn dense(&self, name: &str, shape: &[usize]) -> Result<Dense, Error> {
        self.dense_named(&format!("{}{name}", self.prefix), shape)
    }

    fn dense_named(&self, name: &str, shape: &[usize]) -> Result<Dense, Error> {
        let place = self.place(name, shape)?;
        let raw = self.read(name, place)?;
        dense(place.dtype, &raw).ok_or_else(|| {
            self.tensor_error(name, format!("has type {:?}; wanted F32, F16 or BF16", place.dtype))
        })
    }

    /// The weight of `module`: quantised if it has scales beside it, else dense.
    pub fn matrix(&self, module: &str, rows: usize, columns: usize) -> Result<Matrix, Error> {
        let module = format!("{}{module}", self.prefix);
        let weight = format!("{module}.weight");
        let scales = format!("{module}.scales");
        if !self.contains(&scales) {
            return self.dense_named(&weight, &[rows, columns]).map(Matrix::Dense);
        }
        let (bits, group) = self.quantization.of(&module).ok_or_else(|| {
            self.tensor_error(&scales, "config.json has no quantization entry".to_owned())
        })?;
        if !matches!(bits, 2 | 3 | 4 | 5 | 6 | 8) || !matches!(group, 32 | 64 | 128) {
            let reason = format!("{bits} bits in groups of {group} are not supported");
            return Err(self.tensor_error(&weight, reason));
        }
        if !columns.is_multiple_of(group) || !(columns * bits).is_multiple_of(32) {
            let reason = format!("rows of {columns} do not divide into groups of {group}");
            return Err(self.tensor_error(&weight, reason));
        }
        let place = self.place(&weight, &[rows, columns * bits / 32])?;
        if place.dtype != Dtype::U32 {
            let reason = format!("has type {:?}; codes are U32", place.dtype);
            return Err(self.tensor_error(&weight, reason));
        }
        let groups = [rows, columns / group];
        Ok(Matrix::Affine(Affine {
            columns,
            bits,
            codes: self.read(&weight, place)?,
            scales: Scales::Plain(Plain {
                group,
                scales: self.dense_named(&scales, &groups)?.into_f32(),
                biases: self.dense_named(&format!("{module}.biases"), &groups)?.into_f32(),
            }),
        }))
    }

    fn add(&mut self, path: PathBuf) -> Result<(), Error> {
        let invalid = |reason: String| Error::Invalid { path: path.clone(), reason };
        let read_error =
            |error: std::io::Error| Error::Read { path: path.clone(), reason: error.to_string() };
        let mut file = File::open(&path).map_err(read_error)?;
        let file_bytes = file.metadata().map_err(read_error)?.len();
        if file_bytes < 8 {
            return Err(invalid(format!("it has {file_bytes} bytes, too few for a header")));
        }
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(read_error)?;
        let header_bytes = u64::from_le_bytes(length);
        if header_bytes > HEADER_BYTES_MAX || header_bytes > file_bytes - 8 {
            return Err(invalid(format!(
                "its header claims {header_bytes} bytes; the file has {file_bytes}"
            )));
        }
        let mut header = vec![0; header_bytes as usize];
        file.seek(SeekFrom::Start(8)).map_err(read_error)?;
        file.read_exact(&mut header).map_err(read_error)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| invalid(format!("its header cannot be read: {error}")))?;
        let data_start = 8 + header_bytes;
        let wanted = metadata.data_len() as u64;
        if wanted != file_bytes - data_start {
            return Err(invalid(format!(
                "its header describes {wanted} bytes of tensors, the file has {}; \
                 it is truncated or damaged",
                file_bytes - data_start
            )));
        }
        let index = self.files.len();
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let place = Place {
                file: index,
                dtype: info.dtype,
                shape: info.shape.clone(),
                offset: data_start + start as u64,
                bytes: end - start,
            };
            if self.tensors.insert(name.clone(), place).is_some() {
                return Err(invalid(format!("tensor {name:?} is also in another file")));
            }
        }
        self.files.push((path, file));
        Ok(())
    }

    fn place(&self, name: &str, shape: &[usize]) -> Result<&Place, Error> {
        let place = self.tensors.get(name).ok_or_else(|| Error::MissingTensor {
            path: self.path.clone(),
            tensor: name.to_owned(),
        })?;
        if place.shape != shape {
            let reason = format!("has shape {:?}, the configuration says {shape:?}", place.shape);
            return Err(self.tensor_error(name, reason));
        }
        Ok(place)
    }

    fn read(&self, name: &str, place: &Place) -> Result<Vec<u8>, Error> {
        let mut buffer = vec![0; place.bytes];
        self.files[place.file]
            .1
            .read_exact_at(&mut buffer, place.offset)
            .map_err(|error| self.tensor_error(name, format!("cannot be read: {error}")))?;
        Ok(buffer)
    }

    fn tensor_error(&self, name: &str, reason: String) -> Error {
        let file = self.tensors.get(name).map_or(&self.path, |place| &self.files[place.file].0);
        Error::Tensor { path: file.clone(), tensor: name.to_owned(), reason }
    }
}

/// The weight files of a folder. With an index, exactly the files it names.
fn safetensors_files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let index_path = path.join("model.safetensors.index.json");
    if let Ok(bytes) = std::fs::read(&index_path) {
        let invalid = |reason: String| Error::Invalid { path: index_path.clone(), reason };
        let index: Json =
            serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        let map = index["weight_map"]
            .as_object()
            .ok_or_else(|| invalid("it has no weight_map".to_owned()))?;
        let mut names: Vec<&str> = map.values().filter_map(Json::as_str).collect();
        names.sort_unstable();
        names.dedup();
        for name in &names {
            if name.contains('/') || !name.ends_with(".safetensors") {
                return Err(invalid(format!("it names a file {name:?}")));
            }
        }
        return Ok(names.into_iter().map(|name| path.join(name)).collect());
    }
    let read_error =
        |error: std::io::Error| Error::Read { path: path.to_owned(), reason: error.to_string() };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read_error)? {
        let file = entry.map_err(read_error)?.path();
        if file.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(file);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(Error::Invalid {
            path: path.to_owned(),
            reason: "the folder has no *.safetensors file".to_owned(),
        }),
        false => Ok(files),
    }
}

fn dense(dtype: Dtype, raw: &[u8]) -> Option<Dense> {
    Some(match dtype {
        Dtype::F32 => {
            Dense::F32(raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        }
        Dtype::F16 => {
            Dense::F16(raw.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect())
        }
        Dtype::BF16 => {
            Dense::Bf16(raw.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes)).collect())
        }
        _ => return None,
    })
}

impl Quantization {
    fn parse(config: &Map<String, Json>) -> Result<Quantization, String> {
        let mut quantization = Quantization::default();
        let Some(entry) = config.get("quantization") else {
            if let Some(foreign) = config.get("quantization_config") {
                let method = foreign["quant_method"].as_str().unwrap_or("unknown");
                return Err(format!(
                    "quantization method {method:?} is not supported; supported: MLX affine, GGUF"
                ));
            }
            return Ok(quantization);
        };
        let object = entry.as_object().ok_or("quantization is not an object")?;
        let mode = |entry: &Json| match entry["mode"].as_str() {
            None | Some("affine") => Ok(()),
            Some(mode) => Err(format!("quantization mode {mode:?} is not supported")),
        };
        mode(entry)?;
        quantization.default = bits_and_group(entry);
        for (module, entry) in object {
            if entry.is_object() {
                mode(entry)?;
                if let Some(pair) = bits_and_group(entry) {
                    quantization.modules.insert(module.clone(), pair);
                }
            }
        }
        Ok(quantization)
    }

    /// Bits and group of a module.
    fn of(&self, module: &str) -> Option<(usize, usize)> {
        self.modules.get(module).copied().or(self.default)
    }
}

fn bits_and_group(entry: &Json) -> Option<(usize, usize)> {
    let number = |key: &str| entry[key].as_u64().map(|n| n as usize);
    Some((number("bits")?, number("group_size")?))
}
