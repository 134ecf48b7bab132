//! Reads the GGUF container: metadata and the table of tensors, every length checked first.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3,
//! little-endian. What the tensors' bytes mean is in [`quant`], what the names mean in [`names`].

pub mod names;
pub mod quant;
pub mod write;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Error;
use quant::QuantType;

/// More metadata entries or tensors than any model has: a larger count is a broken file.
const ENTRIES_MAX: u64 = 1 << 20;
/// Longest metadata key or tensor name; the format allows 65,535.
const NAME_BYTES_MAX: u64 = 65_535;
/// Dimensions a tensor may have.
const DIMENSIONS_MAX: u32 = 4;
/// Arrays of arrays are legal in the format and used by nobody; the bound stops recursion.
const ARRAY_DEPTH_MAX: u32 = 4;

/// An opened GGUF file whose header holds what it promises: every tensor lies inside the file.
pub struct Gguf {
    path: PathBuf,
    file: File,
    metadata: HashMap<String, Value>,
    /// By name, so that of several bad tensors the same one is always named.
    tensors: BTreeMap<String, GgufTensor>,
}

/// A tensor's place in the file.
#[derive(Clone, Debug)]
pub struct GgufTensor {
    /// Outermost first, as everywhere else; the file has them innermost first.
    pub shape: Vec<usize>,
    /// The type's number in the file, which may be one we cannot read.
    pub type_id: u32,
    /// From the start of the file.
    offset: u64,
}

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Integer(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Integers(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<String>),
    /// An array of a kind that no key we read has.
    Other,
}

impl Gguf {
    /// Reads and checks the header. No tensor is read.
    pub fn open(path: &Path) -> Result<Gguf, Error> {
        let read_error = |error: std::io::Error| Error::Read {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let file = File::open(path).map_err(read_error)?;
        let file_bytes = file.metadata().map_err(read_error)?.len();
        let invalid = |reason| Error::Invalid { path: path.to_owned(), reason };
        let reader = file.try_clone().map_err(read_error)?;
        let mut header = Header { reader: BufReader::new(reader), position: 0, file_bytes };
        let (metadata, mut tensors) = header.parse().map_err(invalid)?;
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Integer(n @ 1..=65_536)) => *n as u64,
            Some(other) => return Err(invalid(format!("alignment is {other:?}"))),
        };
        let data_start = header.position.next_multiple_of(alignment);
        for (name, tensor) in &mut tensors {
            tensor.place(data_start, file_bytes).map_err(|reason| Error::Tensor {
                path: path.to_owned(),
                tensor: name.clone(),
                reason,
            })?;
        }
        Ok(Gguf { path: path.to_owned(), file, metadata, tensors })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that was opened under that path.
    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    pub fn string(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn integer(&self, key: &str) -> Option<i64> {
        match self.metadata.get(key)? {
            Value::Integer(n) => Some(*n),
            _ => None,
        }
    }

    pub fn float(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key)? {
            Value::Float(x) => Some(*x),
            Value::Integer(n) => Some(*n as f64),
            _ => None,
        }
    }

    pub fn boolean(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key)? {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub fn strings(&self, key: &str) -> Option<&[String]> {
        match self.metadata.get(key)? {
            Value::Strings(texts) => Some(texts),
            _ => None,
        }
    }

    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.get(name)
    }

    /// Every tensor in the file, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &GgufTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The type of a tensor, or an error that names it and the types we can read.
    pub fn quant_type(&self, name: &str, tensor: &GgufTensor) -> Result<QuantType, Error> {
        QuantType::from_id(tensor.type_id).ok_or_else(|| Error::TensorType {
            path: self.path.clone(),
            tensor: name.to_owned(),
            found: quant::type_name(tensor.type_id),
            supported: QuantType::names().join(", "),
        })
    }

    /// Bytes of a tensor in the file; none if its type is unknown.
    pub fn stored_bytes(tensor: &GgufTensor) -> usize {
        let kind = QuantType::from_id(tensor.type_id);
        kind.and_then(|kind| kind.bytes(tensor.shape.iter().product())).unwrap_or(0)
    }

    /// The raw bytes of a tensor.
    pub fn read(&self, name: &str, tensor: &GgufTensor) -> Result<Vec<u8>, Error> {
        let kind = self.quant_type(name, tensor)?;
        let bytes = kind.bytes(tensor.shape.iter().product()).expect("checked when opened");
        let mut buffer = vec![0; bytes];
        self.file.read_exact_at(&mut buffer, tensor.offset).map_err(|error| Error::Tensor {
            path: self.path.clone(),
            tensor: name.to_owned(),
            reason: format!("cannot be read: {error}"),
        })?;
        Ok(buffer)
    }
}

impl GgufTensor {
    /// Turns the offset into one from the start of the file, and holds it against the file's size.
    /// The size of a tensor of unknown type is unknown; it is refused when someone asks for it.
    fn place(&mut self, data_start: u64, file_bytes: u64) -> Result<(), String> {
        let count = self
            .shape
            .iter()
            .try_fold(1usize, |product, &n| product.checked_mul(n))
            .filter(|&n| n > 0 && n < usize::MAX / 8)
            .ok_or_else(|| format!("absurd shape {:?}", self.shape))?;
        let bytes = match QuantType::from_id(self.type_id) {
            None => 0,
            Some(kind) => {
                let row = *self.shape.last().unwrap_or(&1);
                let per_block = kind.block_values();
                if !row.is_multiple_of(per_block) {
                    return Err(format!(
                        "rows of {row} values are no multiple of {per_block}, the block of {}",
                        quant::type_name(self.type_id)
                    ));
                }
                kind.bytes(count).ok_or_else(|| format!("absurd shape {:?}", self.shape))? as u64
            }
        };
        let start = data_start.checked_add(self.offset);
        let end = start.and_then(|start| start.checked_add(bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_bytes => {
                self.offset = start;
                Ok(())
            }
            _ => Err(format!(
                "lies outside the file of {file_bytes} bytes; the file is truncated or damaged"
            )),
        }
    }
}

/// Reads the header front to back and never asks for more bytes than the file has left.
struct Header {
    reader: BufReader<File>,
    position: u64,
    file_bytes: u64,
}

type Tables = (HashMap<String, Value>, BTreeMap<String, GgufTensor>);

impl Header {
    fn parse(&mut self) -> Result<Tables, String> {
        if self.file_bytes == 0 {
            return Err("the file is empty".to_owned());
        }
        if self.bytes::<4>()? != *b"GGUF" {
            return Err("it does not begin with the letters GGUF".to_owned());
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("GGUF version {version} is not supported; supported: 2, 3"));
        }
        let tensor_count = self.count("tensors")?;
        let entry_count = self.count("metadata entries")?;
        let mut metadata = HashMap::new();
        for _ in 0..entry_count {
            let key = self.string(NAME_BYTES_MAX)?;
            let kind = self.u32()?;
            let value = self.value(kind, 0).map_err(|reason| format!("{key}: {reason}"))?;
            metadata.insert(key, value);
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let name = self.string(NAME_BYTES_MAX)?;
            let tensor = self.tensor().map_err(|reason| format!("tensor {name:?}: {reason}"))?;
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(format!("tensor {name:?} is there twice"));
            }
        }
        Ok((metadata, tensors))
    }

    fn tensor(&mut self) -> Result<GgufTensor, String> {
        let dimensions = self.u32()?;
        if dimensions > DIMENSIONS_MAX {
            return Err(format!("has {dimensions} dimensions; at most {DIMENSIONS_MAX}"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let n = self.u64()?;
            shape.push(usize::try_from(n).map_err(|_| format!("a dimension of {n}"))?);
        }
        shape.reverse();
        Ok(GgufTensor { shape, type_id: self.u32()?, offset: self.u64()? })
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Integer(self.bytes::<1>()?[0].into()),
            1 => Value::Integer(i8::from_le_bytes(self.bytes()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.bytes()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.bytes()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.bytes()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.bytes()?).into()),
            7 => Value::Bool(self.bytes::<1>()?[0] != 0),
            8 => Value::String(self.string(self.file_bytes)?),
            9 => self.array(depth)?,
            // A u64 above i64::MAX is no count of anything; saturating keeps it absurd.
            10 => Value::Integer(i64::try_from(self.u64()?).unwrap_or(i64::MAX)),
            11 => Value::Integer(i64::from_le_bytes(self.bytes()?)),
            12 => Value::Float(f64::from_le_bytes(self.bytes()?)),
            other => return Err(format!("unknown value type {other}")),
        })
    }

    fn array(&mut self, depth: u32) -> Result<Value, String> {
        if depth == ARRAY_DEPTH_MAX {
            return Err("arrays nested too deeply".to_owned());
        }
        let kind = self.u32()?;
        let count = self.u64()?;
        // Every element takes at least a byte, so a larger count cannot be true.
        if count > self.file_bytes - self.position {
            return Err(format!("an array of {count} elements does not fit the file"));
        }
        let mut array = match kind {
            0..=5 | 10 | 11 => Value::Integers(Vec::new()),
            6 => Value::Floats(Vec::new()),
            8 => Value::Strings(Vec::new()),
            _ => Value::Other,
        };
        for _ in 0..count {
            match (&mut array, self.value(kind, depth + 1)?) {
                (Value::Integers(all), Value::Integer(n)) => all.push(n),
                (Value::Floats(all), Value::Float(x)) => all.push(x as f32),
                (Value::Strings(all), Value::String(text)) => all.push(text),
                _ => (),
            }
        }
        Ok(array)
    }

    fn count(&mut self, what: &str) -> Result<u64, String> {
        match self.u64()? {
            n if n <= ENTRIES_MAX => Ok(n),
            n => Err(format!("claims {n} {what}; at most {ENTRIES_MAX}")),
        }
    }

    fn string(&mut self, bytes_max: u64) -> Result<String, String> {
        let length = self.u64()?;
        let left = self.file_bytes - self.position;
        if length > bytes_max.min(left) {
            return Err(format!("a string of {length} bytes with {left} bytes of file left"));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| "a string is not UTF-8".to_owned())
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        let end = self.position + bytes.len() as u64;
        if end > self.file_bytes {
            return Err(format!("the file ends at byte {}, inside its header", self.file_bytes));
        }
        self.reader.read_exact(bytes).map_err(|error| error.to_string())?;
        self.position = end;
        Ok(())
    }
}
