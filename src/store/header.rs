//! The header of a block's file, which makes it a safetensors file. Pure.
//!
//! It follows from the model's tensors, the fingerprint and the block's tokens, to the byte: a
//! file's header is compared with the one it should have, so nothing in a file is ever parsed that
//! this program would not have written.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use super::{KvModel, block};
use crate::types::{Fingerprint, KvElement, KvTensor};

/// The bytes before a block's KV, and how many follow.
pub struct Header {
    pub bytes: Vec<u8>,
    pub kv_bytes: usize,
}

/// Headers made so far: all full blocks of a model have the same.
#[derive(Default)]
pub struct Headers(Mutex<HashMap<(Fingerprint, usize), Known>>);

struct Known {
    tensors: Vec<KvTensor>,
    header: Arc<Header>,
}

/// What a block's file says it is.
const FORMAT: &str = "semantic-kv 1";

/// Where the KV begins is a multiple of this: of a cache line, and of every element's size.
const ALIGNMENT: usize = 64;

/// The length that a safetensors file begins with.
const LENGTH_BYTES: usize = 8;

/// Enough for a block of every length that tails have in a while; 20 KiB each.
const HEADERS_MAX: usize = 64;

impl Headers {
    /// The header of a block of so many tokens.
    pub fn of(&self, model: &KvModel, tokens: usize) -> Arc<Header> {
        let key = (model.fingerprint, tokens);
        let mut known = self.0.lock().expect("nobody panics with the headers");
        if let Some(known) = known.get(&key).filter(|known| known.tensors == model.tensors) {
            return known.header.clone();
        }
        if known.len() >= HEADERS_MAX {
            known.clear();
        }
        let header = Arc::new(Header::new(model, tokens));
        known.insert(key, Known { tensors: model.tensors.clone(), header: header.clone() });
        header
    }
}

impl Header {
    fn new(model: &KvModel, tokens: usize) -> Header {
        let fingerprint = model.fingerprint;
        let mut json = format!(
            "{{\"__metadata__\":{{\"format\":\"{FORMAT}\",\"fingerprint\":\"{fingerprint}\"}}"
        );
        let mut start = 0;
        for tensor in &model.tensors {
            let end = start + tensor.bytes(tokens);
            let name = serde_json::Value::from(tensor.name.as_str());
            let (dtype, shape) = (dtype_name(tensor.element), tensor.shape(tokens));
            write!(
                json,
                ",{name}:{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\
                 \"data_offsets\":[{start},{end}]}}"
            )
            .expect("a text can grow");
            start = end;
        }
        json.push('}');
        let file_bytes = LENGTH_BYTES + json.len();
        let padding = file_bytes.next_multiple_of(ALIGNMENT) - file_bytes;
        json.extend(std::iter::repeat_n(' ', padding));
        assert_is_of(&json, model, tokens, start);

        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        Header { bytes, kv_bytes: start }
    }

    /// Of the whole file.
    pub fn file_bytes(&self) -> usize {
        self.bytes.len() + self.kv_bytes
    }
}

/// Whether a file that came from elsewhere has the form of a block of this model's, with numbers that
/// are finite. Gives the bytes before its KV. What the model would write is compared when the block is
/// read, as only then the model is there.
pub fn check(file: &[u8], fingerprint: &Fingerprint) -> Result<usize, String> {
    let (json_bytes, metadata) =
        SafeTensors::read_metadata(file).map_err(|error| format!("a block's header: {error}"))?;
    let said = metadata.metadata().as_ref();
    let says = |name: &str| said.and_then(|said| said.get(name)).map(String::as_str);
    if says("format") != Some(FORMAT) || says("fingerprint") != Some(&fingerprint.to_string()) {
        return Err("a block is of another model than its conversation".to_owned());
    }
    let header_bytes = LENGTH_BYTES + json_bytes;
    let kv = &file[header_bytes..];
    for (name, tensor) in metadata.tensors() {
        let (start, end) = tensor.data_offsets;
        let bytes = kv.get(start..end).ok_or("a block's header: a tensor ends after the file")?;
        if !block::is_finite(element(tensor.dtype), bytes) {
            return Err(format!("{name} of a block has a number that is not finite"));
        }
    }
    Ok(header_bytes)
}

/// What every reader of safetensors files finds in the header is what the model has.
fn assert_is_of(json: &str, model: &KvModel, tokens: usize, kv_bytes: usize) {
    let metadata: Metadata = serde_json::from_str(json).expect("our own header can be parsed");
    assert_eq!(metadata.tensors().len(), model.tensors.len(), "two tensors have one name");
    assert_eq!(metadata.data_len(), kv_bytes);
    for tensor in &model.tensors {
        let info = metadata.info(&tensor.name).expect("every tensor is in the header");
        assert_eq!(info.shape, tensor.shape(tokens));
        assert_eq!(info.dtype, dtype(tensor.element));
    }
}

fn dtype(element: KvElement) -> Dtype {
    match element {
        KvElement::U8 => Dtype::U8,
        KvElement::F16 => Dtype::F16,
        KvElement::F32 => Dtype::F32,
        KvElement::U64 => Dtype::U64,
    }
}

/// `None` for what no block of ours has.
fn element(dtype: Dtype) -> Option<KvElement> {
    [KvElement::U8, KvElement::F16, KvElement::F32, KvElement::U64]
        .into_iter()
        .find(|element| self::dtype(*element) == dtype)
}

fn dtype_name(element: KvElement) -> &'static str {
    match element {
        KvElement::U8 => "U8",
        KvElement::F16 => "F16",
        KvElement::F32 => "F32",
        KvElement::U64 => "U64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::KvAxis;

    fn model() -> KvModel {
        let tensor = |name: &str, element, shape: &[KvAxis]| KvTensor {
            name: name.to_owned(),
            element,
            shape: shape.to_vec(),
        };
        KvModel {
            fingerprint: Fingerprint([0xab; 32]),
            name: "tiny".to_owned(),
            producer: "test".to_owned(),
            tensors: vec![
                tensor(
                    "layer.0.key.codes",
                    KvElement::U8,
                    &[KvAxis::Fixed(2), KvAxis::Fixed(4), KvAxis::Tokens],
                ),
                tensor("layer.0.key.scales", KvElement::F16, &[KvAxis::Fixed(2), KvAxis::Tokens]),
                tensor("a \"quoted\" name", KvElement::F32, &[KvAxis::Tokens, KvAxis::Fixed(1)]),
                tensor("state", KvElement::U64, &[KvAxis::Fixed(3)]),
            ],
        }
    }

    #[test]
    fn a_block_is_a_file_that_every_reader_of_safetensors_knows() {
        let headers = Headers::default();
        let header = headers.of(&model(), 5);
        assert_eq!(header.kv_bytes, 40 + 20 + 20 + 24);
        assert_eq!(header.kv_bytes, model().kv_bytes(5));
        assert_eq!(header.bytes.len() % ALIGNMENT, 0);

        let kv: Vec<u8> = (0..header.kv_bytes as u8).collect();
        let file = [header.bytes.clone(), kv.clone()].concat();
        assert_eq!(file.len(), header.file_bytes());
        let parsed = SafeTensors::deserialize(&file).unwrap();
        let scales = parsed.tensor("layer.0.key.scales").unwrap();
        assert_eq!((scales.dtype(), scales.shape()), (Dtype::F16, &[2, 5][..]));
        assert_eq!(scales.data(), &kv[40..60]);
        assert_eq!(parsed.tensor("a \"quoted\" name").unwrap().data(), &kv[60..80]);
    }

    #[test]
    fn a_header_depends_on_model_and_tokens_and_on_nothing_else() {
        let headers = Headers::default();
        let five = headers.of(&model(), 5);
        assert_eq!(five.bytes, Header::new(&model(), 5).bytes);
        assert!(Arc::ptr_eq(&five, &headers.of(&model(), 5)), "it is made once");
        assert_ne!(five.bytes, headers.of(&model(), 6).bytes);
        let other = KvModel { fingerprint: Fingerprint([0; 32]), ..model() };
        assert_ne!(five.bytes, headers.of(&other, 5).bytes);
        let mut other = model();
        other.tensors[0].name.push('s');
        assert_ne!(five.bytes, headers.of(&other, 5).bytes);
        for tokens in 1..200 {
            headers.of(&model(), tokens);
        }
        assert!(headers.0.lock().unwrap().len() <= HEADERS_MAX);
    }
}
