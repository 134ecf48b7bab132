//! Loading a model takes little more memory than the model: no second copy waits anywhere.
//! On Linux, which tells a process its peak.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use crate::support::golden;
use crate::support::model::smollm2;

/// What a step needs besides the weights, the program and the KV of one block: logits, buffers.
const WORK_BYTES: f64 = 8e6;

/// The most memory that the program held while it answered with one token.
fn peak(model: &Path) -> f64 {
    let data_dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_semantic"))
        .args(["generate", "--raw", "--json", "--quiet", "--max-tokens", "1", "--model"])
        .arg(model)
        .arg("--data-dir")
        .arg(data_dir.path())
        .arg("a")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    report["memory"]["peak_rss_bytes"].as_u64().unwrap() as f64
}

/// What the weights of a model take, over the size of its file: its peak less that of a model of
/// some kilobytes.
fn weights_over_file(model: &Path) -> f64 {
    let program = peak(&golden::data("tiny/llama-f16"));
    (peak(model) - program - WORK_BYTES) / model.metadata().unwrap().len() as f64
}

#[test]
fn the_default_model_takes_at_most_1_2_times_its_file() {
    let ratio = weights_over_file(smollm2());
    assert!(ratio <= 1.2, "{ratio}");
}

#[test]
fn a_q4_k_m_file_takes_at_most_1_2_times_its_size() {
    // Q4_K goes from 4.5 bits per weight to 4.6, Q6_K from 6.56 to 6.63: 1.02 times the file.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q4-k-m.gguf");
    write_q4_k_m(&path).unwrap();
    let ratio = weights_over_file(&path);
    assert!(ratio <= 1.2, "{ratio}");
}

// About 145 MB, nearly all of it in the layers and no matrix more than 2 % of it, as in real models.
const HIDDEN: usize = 1024;
const INTERMEDIATE: usize = 4096;
const KV_DIM: usize = 256;
const LAYERS: usize = 16;
const VOCABULARY: usize = 288;
const ALIGNMENT: usize = 32;

/// A GGUF type: its number, and the values and bytes of a block.
#[derive(Clone, Copy)]
struct Kind {
    id: u32,
    values: usize,
    bytes: usize,
}

const F32: Kind = Kind { id: 0, values: 1, bytes: 4 };
const Q4_K: Kind = Kind { id: 12, values: 256, bytes: 144 };
const Q6_K: Kind = Kind { id: 14, values: 256, bytes: 210 };

struct Tensor {
    name: String,
    shape: Vec<usize>,
    kind: Kind,
}

impl Tensor {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() / self.kind.values * self.kind.bytes
    }
}

/// A Llama whose types are those llama.cpp chooses for Q4_K_M, with codes of no meaning and the
/// tokenizer of `llama-f16.gguf`.
fn write_q4_k_m(path: &Path) -> std::io::Result<()> {
    let tensors = tensors();
    let mut out = BufWriter::new(File::create(path)?);
    let (tokenizer_count, tokenizer) = tokenizer_metadata();
    let numbers = [
        ("block_count", LAYERS),
        ("context_length", 512),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", INTERMEDIATE),
        ("attention.head_count", HIDDEN / 64),
        ("attention.head_count_kv", KV_DIM / 64),
    ];
    let mut header = b"GGUF".to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((tokenizer_count + 2 + numbers.len() as u64).to_le_bytes());
    put_string(&mut header, "general.architecture");
    header.extend(8u32.to_le_bytes());
    put_string(&mut header, "llama");
    put_string(&mut header, "llama.attention.layer_norm_rms_epsilon");
    header.extend(6u32.to_le_bytes());
    header.extend(1e-5f32.to_le_bytes());
    for (key, number) in numbers {
        put_string(&mut header, &format!("llama.{key}"));
        header.extend(4u32.to_le_bytes());
        header.extend((number as u32).to_le_bytes());
    }
    header.extend(tokenizer);
    let mut offset = 0;
    for tensor in &tensors {
        put_string(&mut header, &tensor.name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        for n in tensor.shape.iter().rev() {
            header.extend((*n as u64).to_le_bytes());
        }
        header.extend(tensor.kind.id.to_le_bytes());
        header.extend((offset as u64).to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    out.write_all(&header)?;
    for tensor in &tensors {
        let mut bytes = content(tensor);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        out.write_all(&bytes)?;
    }
    out.flush()
}

fn tensors() -> Vec<Tensor> {
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[usize], kind| {
        tensors.push(Tensor { name, shape: shape.to_vec(), kind });
    };
    add("token_embd.weight".to_owned(), &[VOCABULARY, HIDDEN], Q4_K);
    add("output_norm.weight".to_owned(), &[HIDDEN], F32);
    add("output.weight".to_owned(), &[VOCABULARY, HIDDEN], Q6_K);
    for layer in 0..LAYERS {
        // llama.cpp gives the more precise type to V and down in half of the layers.
        let precise = if layer % 2 == 0 { Q6_K } else { Q4_K };
        let mut add = |name: &str, shape: &[usize], kind| {
            add(format!("blk.{layer}.{name}.weight"), shape, kind)
        };
        add("attn_norm", &[HIDDEN], F32);
        add("attn_q", &[HIDDEN, HIDDEN], Q4_K);
        add("attn_k", &[KV_DIM, HIDDEN], Q4_K);
        add("attn_v", &[KV_DIM, HIDDEN], precise);
        add("attn_output", &[HIDDEN, HIDDEN], Q4_K);
        add("ffn_norm", &[HIDDEN], F32);
        add("ffn_gate", &[INTERMEDIATE, HIDDEN], Q4_K);
        add("ffn_up", &[INTERMEDIATE, HIDDEN], Q4_K);
        add("ffn_down", &[HIDDEN, INTERMEDIATE], precise);
    }
    tensors
}

/// Norms of one, and blocks of pseudo-random codes whose scales are small enough to stay finite.
fn content(tensor: &Tensor) -> Vec<u8> {
    let scale = half::f16::from_f32(1e-4).to_le_bytes();
    match tensor.kind.id {
        0 => 1f32.to_le_bytes().repeat(tensor.shape[0]),
        kind => {
            // 64 different blocks, over and over: writing them costs nothing.
            let mut state = 1u32;
            let mut blocks: Vec<u8> = (0..64 * tensor.kind.bytes)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            for block in blocks.chunks_exact_mut(tensor.kind.bytes) {
                match kind {
                    12 => block[..4].copy_from_slice(&[scale, scale].concat()),
                    _ => block[208..].copy_from_slice(&scale),
                }
            }
            let mut bytes = blocks.repeat(tensor.bytes().div_ceil(blocks.len()));
            bytes.truncate(tensor.bytes());
            bytes
        }
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The entries `tokenizer.*` of `llama-f16.gguf` as they lie in the file, and their number.
fn tokenizer_metadata() -> (u64, Vec<u8>) {
    let file = std::fs::read(golden::data("gguf/llama-f16.gguf")).unwrap();
    let mut at = 24;
    let (mut count, mut entries) = (0, Vec::new());
    for _ in 0..number(&file, 16, 8) {
        let start = at;
        let name = at + 8..at + 8 + number(&file, at, 8);
        at = name.end;
        let kind = number(&file, at, 4);
        at = value_end(&file, at + 4, kind);
        if file[name].starts_with(b"tokenizer.") {
            count += 1;
            entries.extend(&file[start..at]);
        }
    }
    (count, entries)
}

/// Where a metadata value of that kind ends.
fn value_end(file: &[u8], at: usize, kind: usize) -> usize {
    match kind {
        0 | 1 | 7 => at + 1,
        2 | 3 => at + 2,
        4..=6 => at + 4,
        8 => at + 8 + number(file, at, 8),
        9 => {
            let element = number(file, at, 4);
            (0..number(file, at + 4, 8)).fold(at + 12, |at, _| value_end(file, at, element))
        }
        _ => at + 8,
    }
}

/// A little-endian number of `len` bytes.
fn number(file: &[u8], at: usize, len: usize) -> usize {
    file[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}
