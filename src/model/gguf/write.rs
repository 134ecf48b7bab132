//! Writes the GGUF container front to back: metadata, the table of tensors, then their bytes.
//!
//! The counterpart of the reader in the parent module, version 3, little-endian. Nothing but the
//! header is held in memory, so a file may be larger than that.

use std::io::{self, Write};

use super::quant::QuantType;

/// The format's default, which a file need not state.
const ALIGNMENT: u64 = 32;
const VERSION: u32 = 3;

/// What a file says before its tensors begin.
pub struct Header {
    pub metadata: Vec<(String, Field)>,
    /// In the order in which their bytes follow.
    pub tensors: Vec<TensorPlan>,
}

/// A metadata value to write; llama.cpp is particular about the types.
pub enum Field {
    U32(u32),
    F32(f32),
    Bool(bool),
    String(String),
    I32s(Vec<i32>),
    Strings(Vec<String>),
}

/// A tensor that will be written.
pub struct TensorPlan {
    pub name: String,
    /// Outermost first; a row is a whole number of blocks of `kind`.
    pub shape: Vec<usize>,
    pub kind: QuantType,
}

impl TensorPlan {
    pub fn bytes(&self) -> u64 {
        let values = self.shape.iter().product();
        self.kind.bytes(values).expect("no tensor we plan is larger than the address space") as u64
    }
}

impl Header {
    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        let tensors: u64 =
            self.tensors.iter().map(|tensor| tensor.bytes().next_multiple_of(ALIGNMENT)).sum();
        self.encoded().len() as u64 + tensors
    }

    /// The header as it is written, with the padding up to the first tensor.
    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(b"GGUF");
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.metadata.len() as u64).to_le_bytes());
        for (key, field) in &self.metadata {
            string(&mut out, key);
            out.extend_from_slice(&field.type_id().to_le_bytes());
            field.encode(&mut out);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            string(&mut out, &tensor.name);
            out.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            for &dimension in tensor.shape.iter().rev() {
                out.extend_from_slice(&(dimension as u64).to_le_bytes());
            }
            out.extend_from_slice(&tensor.kind.id().to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
            offset += tensor.bytes().next_multiple_of(ALIGNMENT);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
        out
    }
}

impl Field {
    fn type_id(&self) -> u32 {
        match self {
            Field::U32(_) => 4,
            Field::F32(_) => 6,
            Field::Bool(_) => 7,
            Field::String(_) => 8,
            Field::I32s(_) | Field::Strings(_) => 9,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        const I32: u32 = 5;
        const STRING: u32 = 8;
        let array = |out: &mut Vec<u8>, kind: u32, count: usize| {
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&(count as u64).to_le_bytes());
        };
        match self {
            Field::U32(value) => out.extend_from_slice(&value.to_le_bytes()),
            Field::F32(value) => out.extend_from_slice(&value.to_le_bytes()),
            Field::Bool(value) => out.push(u8::from(*value)),
            Field::String(text) => string(out, text),
            Field::I32s(values) => {
                array(out, I32, values.len());
                values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
            }
            Field::Strings(texts) => {
                array(out, STRING, texts.len());
                texts.iter().for_each(|text| string(out, text));
            }
        }
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A file under way: the header is written, the tensors follow one after another.
pub struct Writer<W> {
    out: W,
    /// Bytes of each tensor that is not finished yet, the next one last.
    planned: Vec<u64>,
    /// Bytes of the tensor under way.
    written: u64,
}

impl<W: Write> Writer<W> {
    pub fn new(mut out: W, header: &Header) -> io::Result<Writer<W>> {
        out.write_all(&header.encoded())?;
        let planned = header.tensors.iter().rev().map(TensorPlan::bytes).collect();
        Ok(Writer { out, planned, written: 0 })
    }

    /// More bytes of the tensor under way.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Ends the tensor under way, which has all its bytes now.
    pub fn end_tensor(&mut self) -> io::Result<()> {
        let planned = self.planned.pop().expect("no more tensors end than were planned");
        assert_eq!(self.written, planned);
        let padding = planned.next_multiple_of(ALIGNMENT) - planned;
        self.written = 0;
        self.out.write_all(&[0; ALIGNMENT as usize][..padding as usize])
    }

    /// Ends the file.
    pub fn finish(mut self) -> io::Result<W> {
        assert!(self.planned.is_empty());
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Gguf, Value};
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let field = |key: &str, field| (key.to_owned(), field);
        let tensor = |name: &str, shape: &[usize], kind| TensorPlan {
            name: name.to_owned(),
            shape: shape.to_vec(),
            kind,
        };
        let header = Header {
            metadata: vec![
                field("u32", Field::U32(7)),
                field("f32", Field::F32(0.5)),
                field("bool", Field::Bool(true)),
                field("string", Field::String("é".to_owned())),
                field("i32s", Field::I32s(vec![-1, 2])),
                field("strings", Field::Strings(vec!["a".to_owned(), String::new()])),
            ],
            // Neither is a multiple of the alignment.
            tensors: vec![
                tensor("a", &[3, 32], QuantType::Q4_0),
                tensor("b", &[5], QuantType::F32),
            ],
        };
        let mut writer = Writer::new(Vec::new(), &header).expect("memory takes it");
        let (a, b) = ([1; 3 * 18], [2; 5 * 4]);
        writer.write(&a[..10]).expect("memory takes it");
        writer.write(&a[10..]).expect("memory takes it");
        writer.end_tensor().expect("memory takes it");
        writer.write(&b).expect("memory takes it");
        writer.end_tensor().expect("memory takes it");
        let bytes = writer.finish().expect("memory takes it");
        assert_eq!(bytes.len() as u64, header.file_bytes());

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.gguf");
        std::fs::write(&path, bytes).expect("a file");
        let gguf = Gguf::open(&path).expect("a GGUF file");
        assert_eq!(gguf.integer("u32"), Some(7));
        assert_eq!(gguf.float("f32"), Some(0.5));
        assert_eq!(gguf.boolean("bool"), Some(true));
        assert_eq!(gguf.string("string"), Some("é"));
        assert_eq!(gguf.value("i32s"), Some(&Value::Integers(vec![-1, 2])));
        assert_eq!(gguf.strings("strings"), Some(&["a".to_owned(), String::new()][..]));
        for (name, shape, raw) in [("a", &[3, 32][..], &a[..]), ("b", &[5], &b)] {
            let tensor = gguf.tensor(name).expect("it is in the table");
            assert_eq!(tensor.shape, shape);
            assert_eq!(gguf.read(name, tensor).expect("it reads"), raw);
        }
    }
}
