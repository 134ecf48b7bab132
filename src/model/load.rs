//! From files to a model: open and check everything cheap first, load the weights last.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kernels::isa::Isa;
use serde_json::{Map, Value as Json};

use super::arch::{self, Architecture, Fields};
use super::checkpoint::{Checkpoint, Dialect, Folder, Head, Interleaved};
use super::cpu::Cpu;
use super::decoder::Config;
use super::gguf::{Gguf, names};
use super::kv::KvConfig;
use super::layers::Loader;
use super::portable::Portable;
use super::{Error, Model};
use crate::types::{BLOCK_TOKENS, TextSource, TokenId};

/// No `config.json` or tokenizer is larger (the largest tokenizers have about 35 MB).
const JSON_BYTES_MAX: u64 = 256 << 20;

/// A model's files, opened and understood; no weight is in memory yet.
pub struct ModelFiles {
    path: PathBuf,
    checkpoint: Checkpoint,
    config: Config,
    end_tokens: Vec<TokenId>,
}

/// How to run a model.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    pub kv: KvConfig,
    /// Blocks in the KV pool.
    pub pool_blocks: usize,
    pub device: Device,
    /// Threads of the CPU kernels; all physical cores if not given.
    pub threads: Option<usize>,
}

/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The kernels, where the processor has vector instructions for them and they can run the
    /// model; else plain MLX operations.
    #[default]
    Auto,
    /// This project's CPU kernels; an error where they cannot run the model.
    Cpu,
    /// Plain MLX operations, on the GPU where MLX has one.
    Portable,
}

impl fmt::Display for Device {
    /// As [`Device::from_str`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Auto => "auto",
            Device::Cpu => "cpu",
            Device::Portable => "portable",
        })
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Device, String> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "portable" => Ok(Device::Portable),
            _ => Err(format!("{text:?} is not one of auto, cpu, portable")),
        }
    }
}

/// What a user wants to know about a model before it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSummary {
    pub context_tokens: usize,
    pub vocabulary: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Layer by layer: how many tokens one sees, if not all.
    pub windows: Vec<Option<usize>>,
    /// Weights of the layers' matrices: what each token is multiplied with.
    pub layer_weights: usize,
    /// Weights of the output head: what each token whose logits are wanted is multiplied with.
    pub head_weights: usize,
    /// Bytes on disk of all weights that a step reads in full: an embedding that is not the head
    /// too is not among them, nor is what does not belong to the text model.
    pub step_bytes: usize,
}

impl ModelFiles {
    /// Opens a folder or a `.gguf` file.
    pub fn open(path: &Path) -> Result<ModelFiles, Error> {
        let metadata = std::fs::metadata(path)
            .map_err(|error| Error::Read { path: path.to_owned(), reason: error.to_string() })?;
        match (metadata.is_dir(), metadata.is_file()) {
            (true, _) => ModelFiles::open_folder(path),
            (false, true) => ModelFiles::open_gguf(path),
            // Opening a pipe would wait for ever, and a device has no end.
            (false, false) => Err(Error::Invalid {
                path: path.to_owned(),
                reason: "it is neither a file nor a folder".to_owned(),
            }),
        }
    }

    pub fn summary(&self) -> ModelSummary {
        let config = &self.config;
        let attention = 2 * (config.query_heads + config.kv_heads) * config.head_dim;
        let layer = config.hidden * (attention + 3 * config.intermediate);
        let head = match config.tied {
            true => Head::Embedding,
            false => Head::Own,
        };
        ModelSummary {
            context_tokens: config.context_tokens,
            vocabulary: config.vocabulary,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            windows: config.layers.iter().map(|layer| layer.window).collect(),
            layer_weights: config.layers.len() * layer,
            head_weights: config.vocabulary * config.hidden,
            step_bytes: self.checkpoint.step_bytes(config.layers.len(), head),
        }
    }

    /// Bytes of one block of the KV pool, all layers.
    pub fn block_bytes(&self, kv: KvConfig) -> Result<usize, Error> {
        let token_bytes = kv.token_bytes(self.config.kv_heads, self.config.head_dim)?;
        Ok(token_bytes * self.config.layers.len() * BLOCK_TOKENS)
    }

    /// What the text room needs of these files.
    pub fn text(&self) -> Result<TextSource, Error> {
        match &self.checkpoint {
            Checkpoint::Gguf { gguf, .. } => names::vocabulary(gguf).map(TextSource::Gguf),
            Checkpoint::Folder(_) => Ok(TextSource::Folder {
                tokenizer_json: read_json(&self.path.join("tokenizer.json"))?,
                tokenizer_config_json: read_optional(&self.path.join("tokenizer_config.json"))?,
                chat_template_jinja: read_template(&self.path.join("chat_template.jinja"))?,
                end_tokens: self.end_tokens.clone(),
            }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the weights.
    pub fn load(&self, options: LoadOptions) -> Result<Box<dyn Model>, Error> {
        match options.device {
            Device::Cpu => self.load_cpu(options),
            Device::Portable => self.load_portable(options),
            Device::Auto if Isa::best() == Isa::SCALAR => {
                tracing::warn!(
                    "this processor has neither AVX2 nor AVX-512: plain MLX runs the model"
                );
                self.load_portable(options)
            }
            Device::Auto => match self.load_cpu(options) {
                Err(Error::NoKernel(reason)) => {
                    let model = self.load_portable(options)?;
                    tracing::warn!("plain MLX runs the model, as the CPU kernels cannot: {reason}");
                    Ok(model)
                }
                result => result,
            },
        }
    }

    fn load_cpu(&self, options: LoadOptions) -> Result<Box<dyn Model>, Error> {
        let LoadOptions { kv, pool_blocks, threads, .. } = options;
        Ok(Box::new(Cpu::load(&self.config, &self.checkpoint, kv, pool_blocks, threads)?))
    }

    fn load_portable(&self, options: LoadOptions) -> Result<Box<dyn Model>, Error> {
        let LoadOptions { kv, pool_blocks, .. } = options;
        let loader = Loader { checkpoint: &self.checkpoint };
        Ok(Box::new(Portable::load(&self.config, &loader, kv, pool_blocks)?))
    }

    fn open_folder(path: &Path) -> Result<ModelFiles, Error> {
        let config_path = path.join("config.json");
        let map = parse_object(&config_path, &read_json(&config_path)?)?;
        let architecture = architecture(&config_path, &map)?;
        let config = (architecture.config)(&Fields { path: &config_path, map: &map })?;
        let mut end_tokens = end_tokens(&map);
        let generation_path = path.join("generation_config.json");
        if let Some(bytes) = read_optional(&generation_path)? {
            end_tokens.extend(self::end_tokens(&parse_object(&generation_path, &bytes)?));
        }
        let checkpoint = Checkpoint::Folder(Folder::open(path, &map, architecture.folder_prefix)?);
        Ok(ModelFiles { path: path.to_owned(), checkpoint, config, end_tokens })
    }

    fn open_gguf(path: &Path) -> Result<ModelFiles, Error> {
        let gguf = Gguf::open(path)?;
        // All types are checked now, so that an unsupported file fails before a long load.
        for (name, tensor) in gguf.tensors() {
            gguf.quant_type(name, tensor)?;
        }
        let map = names::config(&gguf)?;
        let architecture = architecture(path, &map)?;
        let config = (architecture.config)(&Fields { path, map: &map })?;
        let interleaved = architecture
            .interleaved_in_gguf
            .then_some(Interleaved { query_heads: config.query_heads, kv_heads: config.kv_heads });
        let dialect = Dialect { interleaved, modules: architecture.gguf_modules };
        let checkpoint = Checkpoint::Gguf { gguf, dialect };
        Ok(ModelFiles { path: path.to_owned(), checkpoint, config, end_tokens: Vec::new() })
    }
}

fn architecture(path: &Path, map: &Map<String, Json>) -> Result<&'static Architecture, Error> {
    let model_type = map.get("model_type").and_then(Json::as_str).unwrap_or_default();
    arch::find(model_type).map_err(|supported| Error::UnknownArchitecture {
        path: path.to_owned(),
        model_type: model_type.to_owned(),
        supported,
    })
}

/// `eos_token_id` is a number or a list of numbers.
fn end_tokens(map: &Map<String, Json>) -> Vec<TokenId> {
    let id = |value: &Json| value.as_u64().and_then(|id| u32::try_from(id).ok()).map(TokenId);
    match map.get("eos_token_id") {
        Some(Json::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn parse_object(path: &Path, bytes: &[u8]) -> Result<Map<String, Json>, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Invalid { path: path.to_owned(), reason: error.to_string() })
}

fn read_json(path: &Path) -> Result<Vec<u8>, Error> {
    read_optional(path)?.ok_or_else(|| Error::Read {
        path: path.to_owned(),
        reason: "the file is missing".to_owned(),
    })
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let read_error =
        |error: std::io::Error| Error::Read { path: path.to_owned(), reason: error.to_string() };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read_error(error)),
        Ok(metadata) if !metadata.is_file() => {
            return Err(Error::Invalid {
                path: path.to_owned(),
                reason: "it is not a file".to_owned(),
            });
        }
        Ok(metadata) if metadata.len() > JSON_BYTES_MAX => {
            return Err(Error::Invalid {
                path: path.to_owned(),
                reason: format!("it has {} bytes; at most {JSON_BYTES_MAX}", metadata.len()),
            });
        }
        Ok(_) => (),
    }
    std::fs::read(path).map(Some).map_err(read_error)
}

fn read_template(path: &Path) -> Result<Option<String>, Error> {
    let Some(bytes) = read_optional(path)? else { return Ok(None) };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| Error::Invalid { path: path.to_owned(), reason: "it is not UTF-8".to_owned() })
}
