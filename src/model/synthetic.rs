//! Writes models with random weights in the shape of known ones: as fast as the real ones, and
//! nonsense. For measurements where the real ones cannot be had.

mod shapes;

use std::fs::{File, Permissions};
use std::io::{self, BufWriter};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::str::FromStr;

use half::f16;
use tempfile::NamedTempFile;

use super::Error;
use super::gguf::quant::QuantType;
use super::gguf::write::{Field, Header, TensorPlan, Writer};
use super::rope::{RopeScaling, reciprocal_frequencies};
pub use shapes::Shape;

/// Bytes made between two calls of `progress`; about a millisecond's work.
const CHUNK_BYTES: usize = 1 << 20;
/// Left free on the disk.
const SPARE_BYTES: u64 = 64 << 20;

/// How the layers' matrices are stored. Embedding and head are always Q8_0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantisation {
    Q4_0,
    Q4_1,
}

impl FromStr for Quantisation {
    type Err = String;

    fn from_str(text: &str) -> Result<Quantisation, String> {
        match text {
            "q4_0" => Ok(Quantisation::Q4_0),
            "q4_1" => Ok(Quantisation::Q4_1),
            _ => Err(format!("{text:?} is not one of q4_0, q4_1")),
        }
    }
}

/// A model that is to be written.
pub struct Synthetic {
    shape: &'static Shape,
    header: Header,
    seed: u64,
}

/// What to do with a file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Kept,
    Replaced,
}

impl Synthetic {
    /// The same arguments give the same file.
    pub fn new(shape: &'static Shape, quantisation: Quantisation, seed: u64) -> Synthetic {
        let metadata = metadata(shape, quantisation);
        Synthetic {
            shape,
            header: Header { metadata, tensors: tensors(shape, quantisation) },
            seed,
        }
    }

    pub fn file_bytes(&self) -> u64 {
        self.header.file_bytes()
    }

    /// Writes the file under a temporary name and renames it when it is whole. `progress` hears of
    /// the bytes since its last call and may end it; then nothing is left, and the answer is `Break`.
    pub fn write(
        &self,
        path: &Path,
        existing: Existing,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let failed = |reason: String| Error::Write { path: path.to_owned(), reason };
        let io_failed = |error: io::Error| failed(error.to_string());
        if existing == Existing::Kept && path.exists() {
            return Err(failed("the file exists".to_owned()));
        }
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        self.check_space(folder).map_err(failed)?;
        let mut file = tempfile::Builder::new()
            .prefix(".semantic-")
            .suffix(".gguf.part")
            // A temporary file is its owner's alone; a model is as readable as the user's umask
            // lets any other file be.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(io_failed)?;
        let done = self.write_to(file.as_file_mut(), progress).map_err(io_failed)?;
        if done.is_continue() {
            place(file, path, existing).map_err(io_failed)?;
        }
        Ok(done)
    }

    fn check_space(&self, folder: &Path) -> Result<(), String> {
        // A file system that does not tell is found out by writing.
        let Ok(space) = rustix::fs::statvfs(folder) else { return Ok(()) };
        let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
        let needed_bytes = self.file_bytes() + SPARE_BYTES;
        match free_bytes >= needed_bytes {
            true => Ok(()),
            false => Err(format!("it needs {needed_bytes} bytes, {free_bytes} are free")),
        }
    }

    fn write_to(
        &self,
        file: &mut File,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let mut random = Random(self.seed);
        let mut chunk = Vec::new();
        let mut writer = Writer::new(BufWriter::new(file), &self.header)?;
        for tensor in &self.header.tensors {
            let mut filler = Filler::new(tensor, self.shape);
            while filler.fill(&mut chunk, &mut random) {
                writer.write(&chunk)?;
                if progress(chunk.len() as u64).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            writer.end_tensor()?;
        }
        writer.finish()?;
        Ok(ControlFlow::Continue(()))
    }
}

/// On disk, then under its name.
fn place(file: NamedTempFile, path: &Path, existing: Existing) -> io::Result<()> {
    file.as_file().sync_all()?;
    match existing {
        Existing::Replaced => file.persist(path),
        Existing::Kept => file.persist_noclobber(path),
    }
    .map(drop)
    .map_err(|error| error.error)
}

fn tensors(shape: &Shape, quantisation: Quantisation) -> Vec<TensorPlan> {
    let matrix = match quantisation {
        Quantisation::Q4_0 => QuantType::Q4_0,
        Quantisation::Q4_1 => QuantType::Q4_1,
    };
    let plan =
        |name: String, shape: &[usize], kind| TensorPlan { name, shape: shape.to_vec(), kind };
    let (hidden, intermediate) = (shape.hidden, shape.intermediate);
    let queries = shape.query_heads * shape.head_dim;
    let keys = shape.kv_heads * shape.head_dim;
    let mut all = Vec::new();
    if shape.rope_factor.is_some() {
        all.push(plan(ROPE_FACTORS.to_owned(), &[shape.head_dim / 2], QuantType::F32));
    }
    let vocabulary = [shape.vocabulary, hidden];
    all.push(plan("token_embd.weight".to_owned(), &vocabulary, QuantType::Q8_0));
    if !shape.tied {
        all.push(plan("output.weight".to_owned(), &vocabulary, QuantType::Q8_0));
    }
    all.push(plan("output_norm.weight".to_owned(), &[hidden], QuantType::F32));
    for layer in 0..shape.layers {
        let name = |module: &str| format!("blk.{layer}.{module}.weight");
        all.push(plan(name("attn_norm"), &[hidden], QuantType::F32));
        all.push(plan(name("attn_q"), &[queries, hidden], matrix));
        all.push(plan(name("attn_k"), &[keys, hidden], matrix));
        all.push(plan(name("attn_v"), &[keys, hidden], matrix));
        all.push(plan(name("attn_output"), &[hidden, queries], matrix));
        all.push(plan(name("ffn_norm"), &[hidden], QuantType::F32));
        all.push(plan(name("ffn_gate"), &[intermediate, hidden], matrix));
        all.push(plan(name("ffn_up"), &[intermediate, hidden], matrix));
        all.push(plan(name("ffn_down"), &[hidden, intermediate], matrix));
    }
    all
}

const ROPE_FACTORS: &str = "rope_freqs.weight";

fn metadata(shape: &Shape, quantisation: Quantisation) -> Vec<(String, Field)> {
    // llama.cpp's numbers for "mostly Q4_0" and "mostly Q4_1" (`llama_ftype`).
    let file_type = match quantisation {
        Quantisation::Q4_0 => 2,
        Quantisation::Q4_1 => 3,
    };
    let mut all = vec![
        ("general.architecture".to_owned(), Field::String("llama".to_owned())),
        ("general.name".to_owned(), Field::String(format!("random weights, {}", shape.name))),
        ("general.file_type".to_owned(), Field::U32(file_type)),
        ("general.quantization_version".to_owned(), Field::U32(2)),
    ];
    for (key, value) in [
        ("context_length", shape.context_tokens),
        ("embedding_length", shape.hidden),
        ("block_count", shape.layers),
        ("feed_forward_length", shape.intermediate),
        ("attention.head_count", shape.query_heads),
        ("attention.head_count_kv", shape.kv_heads),
        ("attention.key_length", shape.head_dim),
        ("attention.value_length", shape.head_dim),
        ("rope.dimension_count", shape.head_dim),
        ("vocab_size", shape.vocabulary),
    ] {
        all.push((format!("llama.{key}"), Field::U32(value as u32)));
    }
    all.push(("llama.attention.layer_norm_rms_epsilon".to_owned(), Field::F32(1e-5)));
    all.push(("llama.rope.freq_base".to_owned(), Field::F32(shape.rope_theta)));
    all.extend(vocabulary(shape));
    all
}

/// A byte-level BPE that can encode any text and joins next to nothing: a token per byte, a few
/// merges, and fillers up to the shape's vocabulary, the last two of which begin and end a text.
fn vocabulary(shape: &Shape) -> Vec<(String, Field)> {
    const MERGES: &[(&str, &str)] = &[("Ġ", "t"), ("h", "e"), ("Ġt", "he")];
    const NORMAL: i32 = 1;
    const CONTROL: i32 = 3;
    let (begin, end) = (shape.vocabulary - 2, shape.vocabulary - 1);
    let mut tokens: Vec<String> = byte_alphabet().iter().map(char::to_string).collect();
    tokens.extend(MERGES.iter().map(|(left, right)| format!("{left}{right}")));
    assert!(tokens.len() <= begin);
    tokens.extend((tokens.len()..begin).map(|index| format!("<filler {index}>")));
    tokens.extend(["<|begin_of_text|>".to_owned(), "<|end_of_text|>".to_owned()]);
    let mut types = vec![NORMAL; begin];
    types.resize(shape.vocabulary, CONTROL);
    let merges = MERGES.iter().map(|(left, right)| format!("{left} {right}")).collect();
    let entry = |key: &str, field| (format!("tokenizer.ggml.{key}"), field);
    vec![
        entry("model", Field::String("gpt2".to_owned())),
        entry("pre", Field::String(shape.pre_tokenizer.to_owned())),
        entry("tokens", Field::Strings(tokens)),
        entry("token_type", Field::I32s(types)),
        entry("merges", Field::Strings(merges)),
        entry("bos_token_id", Field::U32(begin as u32)),
        entry("eos_token_id", Field::U32(end as u32)),
        entry("add_bos_token", Field::Bool(true)),
    ]
}

/// GPT-2's character for each byte: itself where it can be seen, else one from 256 on
/// (`bytes_to_unicode` of OpenAI's `encoder.py`).
fn byte_alphabet() -> [char; 256] {
    let mut unseen = 256u32;
    std::array::from_fn(|byte| match byte as u8 {
        seen @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => char::from(seen),
        _ => {
            unseen += 1;
            char::from_u32(unseen - 1).expect("256 to 323 are characters")
        }
    })
}

/// Makes the bytes of one tensor, chunk by chunk.
struct Filler {
    kind: QuantType,
    columns: usize,
    left: usize,
    /// What it holds if it is not random: `None` for a matrix.
    values: Option<Vec<f32>>,
}

impl Filler {
    fn new(tensor: &TensorPlan, shape: &Shape) -> Filler {
        let columns = *tensor.shape.last().expect("every tensor has a dimension");
        let values = match tensor.kind {
            QuantType::F32 if tensor.name == ROPE_FACTORS => Some(rope_factors(shape)),
            QuantType::F32 => Some(vec![1.0; columns]),
            _ => None,
        };
        Filler { kind: tensor.kind, columns, left: tensor.bytes() as usize, values }
    }

    /// Puts the next bytes into `chunk`; false if there are none left.
    fn fill(&mut self, chunk: &mut Vec<u8>, random: &mut Random) -> bool {
        chunk.clear();
        if self.left == 0 {
            return false;
        }
        if let Some(values) = &self.values {
            values.iter().for_each(|value| chunk.extend_from_slice(&value.to_le_bytes()));
        } else {
            let block = self.kind.bytes(self.kind.block_values()).expect("a block is small");
            let blocks = (CHUNK_BYTES / block).min(self.left / block);
            for _ in 0..blocks {
                self.block(chunk, random);
            }
        }
        self.left -= chunk.len();
        true
    }

    /// One block of 32 weights. Their spread is about `1 / sqrt(columns)`, so that a row times
    /// normalised activations is of the order of 1, and no layer drowns the others.
    fn block(&self, chunk: &mut Vec<u8>, random: &mut Random) {
        // Up to a quarter more or less, so that no two neighbouring blocks share a scale.
        let jitter = 0.75 + (random.next() >> 48) as f32 / 131_072.0;
        let spread = jitter / (self.columns as f32).sqrt();
        let half = |chunk: &mut Vec<u8>, value: f32| {
            chunk.extend_from_slice(&f16::from_f32(value).to_le_bytes());
        };
        let words = match self.kind {
            QuantType::Q4_0 => {
                half(chunk, spread / 5.0);
                2
            }
            QuantType::Q4_1 => {
                half(chunk, spread / 5.0);
                half(chunk, spread / 5.0 * -7.5);
                2
            }
            QuantType::Q8_0 => {
                half(chunk, spread / 75.0);
                4
            }
            other => unreachable!("no matrix is planned as {other:?}"),
        };
        for _ in 0..words {
            chunk.extend_from_slice(&random.next().to_le_bytes());
        }
    }
}

/// What Llama 3.1's rule multiplies each wavelength with, as llama.cpp's converter stores it.
fn rope_factors(shape: &Shape) -> Vec<f32> {
    let frequencies = |scaling: &RopeScaling| {
        reciprocal_frequencies(shape.rope_theta, scaling, shape.head_dim)
            .expect("neither rule can fail")
    };
    let scaling = RopeScaling::Llama3 {
        factor: shape.rope_factor.expect("only then there is such a tensor"),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192.0,
    };
    let plain = frequencies(&RopeScaling::None);
    frequencies(&scaling).iter().zip(plain).map(|(scaled, plain)| scaled / plain).collect()
}

/// SplitMix64 (Steele, Lea and Flood, 2014): a gigabyte in half a second, and good enough.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Batch, Device, KvBits, KvConfig, LoadOptions, ModelFiles, Row, Wanted};
    use crate::types::{BlockId, TextSource, TokenId};

    fn tiny(seed: u64) -> Synthetic {
        let shape = "tiny".parse().expect("a shape for tests");
        Synthetic::new(shape, Quantisation::Q4_1, seed)
    }

    fn go_on(_: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn a_synthetic_model_loads_and_computes_finite_numbers() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tiny.gguf");
        let synthetic = tiny(1);
        let done = synthetic.write(&path, Existing::Kept, &mut go_on).expect("it is written");
        assert!(done.is_continue());
        assert_eq!(path.metadata().expect("a file").len(), synthetic.file_bytes());
        let files = ModelFiles::open(&path).expect("our own loader takes it");
        assert_eq!(files.summary().layer_weights, 2 * 64 * (2 * 6 * 32 + 3 * 128));
        let TextSource::Gguf(vocabulary) = files.text().expect("a tokenizer") else {
            panic!("it is a GGUF file");
        };
        assert_eq!(vocabulary.tokens.len(), 320);
        let options = LoadOptions {
            kv: KvConfig::plain(KvBits::Eight),
            pool_blocks: 1,
            device: Device::Cpu,
            threads: Some(1),
        };
        let mut model = files.load(options).expect("the kernels take it");
        let tokens: Vec<TokenId> = (0..8).map(TokenId).collect();
        let blocks = [BlockId(0)];
        let row = Row { tokens: &tokens, start: 0, blocks: &blocks, logits: Wanted::Last };
        let logits = model.step(&Batch { rows: vec![row] }).expect("a step");
        let logits = logits[0].last();
        assert!(logits.iter().all(|logit| logit.is_finite() && logit.abs() < 50.0), "{logits:?}");
        assert!(logits.iter().any(|logit| logit.abs() > 0.01), "{logits:?}");
    }

    #[test]
    fn a_seed_repeats_a_file_and_nothing_is_replaced_unasked() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, seed| {
            let path = folder.path().join(name);
            let done = tiny(seed).write(&path, Existing::Kept, &mut go_on);
            assert!(done.expect("it is written").is_continue());
            std::fs::read(path).expect("a file")
        };
        let first = file("a", 1);
        assert_eq!(first, file("b", 1));
        assert_ne!(first, file("c", 2));
        let path = folder.path().join("a");
        let refused = tiny(2).write(&path, Existing::Kept, &mut go_on).expect_err("it exists");
        assert!(refused.to_string().contains("the file exists"), "{refused}");
        assert_eq!(std::fs::read(&path).expect("a file"), first);
        let done = tiny(2).write(&path, Existing::Replaced, &mut go_on);
        assert!(done.expect("it may be replaced").is_continue());
        assert_ne!(std::fs::read(&path).expect("a file"), first);
    }

    /// It was 0644, whatever the umask.
    #[test]
    fn a_model_is_as_readable_as_any_other_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (other, model) = (folder.path().join("other"), folder.path().join("model"));
        std::fs::write(&other, "").expect("a file");
        let done = tiny(1).write(&model, Existing::Kept, &mut go_on);
        assert!(done.expect("it is written").is_continue());
        let mode = |path: &Path| path.metadata().expect("a file").permissions().mode();
        assert_eq!(mode(&model), mode(&other));
    }

    #[test]
    fn a_cancelled_file_is_not_left_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let done = tiny(1)
            .write(&path, Existing::Kept, &mut |_| ControlFlow::Break(()))
            .expect("it ends without an error");
        assert!(done.is_break());
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }

    #[test]
    fn the_sizes_are_those_of_the_models() {
        let gigabytes = |name: &str| {
            let shape = name.parse().expect("a shape");
            Synthetic::new(shape, Quantisation::Q4_0, 0).file_bytes() as f64 / 1e9
        };
        assert!((0.08..0.1).contains(&gigabytes("smollm2-135m")));
        assert!((0.8..0.9).contains(&gigabytes("llama-3.2-1b")));
        assert!((4.9..5.1).contains(&gigabytes("llama-3.1-8b")));
    }
}
