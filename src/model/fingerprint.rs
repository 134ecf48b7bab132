//! What two KV caches must have in common to mean the same, as one digest.
//!
//! In it: the weights, the tokenizer, the whole configuration, how K and V are stored, and the
//! tensors of a block. Not in it: names and folders, the path that computes, this program's release
//! and the size of the pool, so a cache outlives a change of those.

use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::checkpoint::Checkpoint;
use super::decoder::{Config, LayerConfig, LayerNorms};
use super::digests::{Digests, hex};
use super::kv::KvConfig;
use super::layers::{Activation, Bias, NormConfig};
use super::rope::{RopeConfig, RopeScaling};
use super::{Error, ModelFiles};
use crate::types::{BLOCK_TOKENS, Fingerprint, KvAxis, KvElement, KvTensor};

/// To be raised when anything below means something else than before.
const VERSION: u32 = 1;

/// Files of a folder beside its weights that decide what a token is. A chat template is not among
/// them: it decides only which tokens are asked for.
const FOLDER_FILES: [&str; 3] = ["config.json", "tokenizer.json", "tokenizer_config.json"];

impl ModelFiles {
    /// Reads the weights, unless the folder `digests` remembers what they are.
    pub fn fingerprint(&self, kv: KvConfig, digests: &Path) -> Result<Fingerprint, Error> {
        let text = self.identity(digests, SystemTime::now())? + &self.describe_kv(kv)?;
        tracing::debug!(text, "fingerprint made of");
        Ok(fingerprint_of(&text))
    }

    /// How the KV is stored with which this model has that fingerprint; none if it is another
    /// model's.
    pub fn kv_of(
        &self,
        fingerprint: &Fingerprint,
        digests: &Path,
    ) -> Result<Option<KvConfig>, Error> {
        let identity = self.identity(digests, SystemTime::now())?;
        let fits = |kv: &KvConfig| {
            // Not every model can be run with every setting.
            let described = self.describe_kv(*kv);
            described.is_ok_and(|kv| fingerprint_of(&format!("{identity}{kv}")) == *fingerprint)
        };
        Ok(KvConfig::all().find(fits))
    }

    /// The model itself, however its KV is stored.
    fn identity(&self, digests: &Path, now: SystemTime) -> Result<String, Error> {
        let mut digests = Digests::open(digests);
        let mut text = format!("semantic fingerprint {VERSION}\n");
        for (name, path, file) in self.identity_files()? {
            let digest = digests.of(&file, now).map_err(|error| read_error(&path, &error))?;
            // Quoted, so that no name can look like the next line.
            line(&mut text, &format!("file {name:?} {}", hex(&digest)));
        }
        digests.save();
        describe_config(&mut text, self.config());
        Ok(text)
    }

    fn describe_kv(&self, kv: KvConfig) -> Result<String, Error> {
        let mut text = String::new();
        line(&mut text, &format!("kv {kv}"));
        line(&mut text, &format!("block_tokens {BLOCK_TOKENS}"));
        for tensor in self.config().kv_tensors(kv)? {
            describe_tensor(&mut text, &tensor);
        }
        Ok(text)
    }

    /// What the model's files are called within it, where they lie, and their contents. The weights
    /// are the very files that were opened, whatever has their names by now.
    fn identity_files(&self) -> Result<Vec<(String, PathBuf, File)>, Error> {
        let reopened =
            |path: &Path, file: &File| file.try_clone().map_err(|error| read_error(path, &error));
        match self.checkpoint() {
            // Its metadata has the configuration and the tokenizer.
            Checkpoint::Gguf { gguf, .. } => {
                let file = reopened(gguf.path(), gguf.file())?;
                Ok(vec![("gguf".to_owned(), gguf.path().to_owned(), file)])
            }
            Checkpoint::Folder(folder) => {
                let mut all = Vec::new();
                for (path, file) in folder.files() {
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    all.push((name, path.clone(), reopened(path, file)?));
                }
                for name in FOLDER_FILES {
                    let path = self.path().join(name);
                    match File::open(&path) {
                        Ok(file) => all.push((name.to_owned(), path, file)),
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
                        Err(error) => return Err(read_error(&path, &error)),
                    }
                }
                Ok(all)
            }
        }
    }
}

fn fingerprint_of(text: &str) -> Fingerprint {
    Fingerprint(Sha256::digest(text).into())
}

fn read_error(path: &Path, error: &std::io::Error) -> Error {
    Error::Read { path: path.to_owned(), reason: error.to_string() }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// Spelled out and without `..`, so that a new field is thought about, and so that renaming one
/// changes no fingerprint.
fn describe_config(text: &mut String, config: &Config) {
    let Config {
        hidden,
        layers,
        intermediate,
        query_heads,
        kv_heads,
        head_dim,
        vocabulary,
        context_tokens,
        norm: NormConfig { epsilon, offset },
        layer_norms: LayerNorms { attention, attention_output, mlp, mlp_output },
        ropes,
        attention_scale,
        embedding_scale,
        activation,
        tied,
        qkv_bias,
        output_bias,
        mlp_bias,
        qk_norm,
    } = config;
    for (name, number) in [
        ("hidden", *hidden),
        ("intermediate", *intermediate),
        ("query_heads", *query_heads),
        ("kv_heads", *kv_heads),
        ("head_dim", *head_dim),
        ("vocabulary", *vocabulary),
        ("context_tokens", *context_tokens),
    ] {
        line(text, &format!("{name} {number}"));
    }
    for (name, value) in [
        ("norm_epsilon", Some(*epsilon)),
        ("norm_offset", Some(*offset)),
        ("attention_scale", Some(*attention_scale)),
        ("embedding_scale", *embedding_scale),
    ] {
        line(text, &format!("{name} {}", value.map_or("none".to_owned(), bits)));
    }
    for (name, module) in [
        ("attention_norm", Some(*attention)),
        ("attention_output_norm", *attention_output),
        ("mlp_norm", Some(*mlp)),
        ("mlp_output_norm", *mlp_output),
    ] {
        line(text, &format!("{name} {}", module.unwrap_or("none")));
    }
    let activation = match activation {
        Activation::Silu => "silu",
        Activation::GeluTanh => "gelu_tanh",
    };
    line(text, &format!("activation {activation}"));
    let has_bias = |bias: &Bias| *bias == Bias::Added;
    for (name, is_so) in [
        ("tied", *tied),
        ("qkv_bias", has_bias(qkv_bias)),
        ("output_bias", has_bias(output_bias)),
        ("mlp_bias", has_bias(mlp_bias)),
        ("qk_norm", *qk_norm),
    ] {
        line(text, &format!("{name} {is_so}"));
    }
    for rope in ropes {
        describe_rope(text, rope);
    }
    for LayerConfig { window, rope } in layers {
        let window = window.map_or("none".to_owned(), |tokens| tokens.to_string());
        line(text, &format!("layer window {window} rope {rope}"));
    }
}

fn describe_rope(text: &mut String, rope: &RopeConfig) {
    let RopeConfig { theta, scaling } = rope;
    let scaling = match scaling {
        RopeScaling::None => "none".to_owned(),
        RopeScaling::Linear { factor } => format!("linear {}", bits(*factor)),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let all = [*factor, *low_freq_factor, *high_freq_factor, *original_context];
            format!("llama3 {}", all.map(bits).join(" "))
        }
        RopeScaling::Factors(factors) => {
            let all: Vec<String> = factors.iter().copied().map(bits).collect();
            format!("factors {}", all.join(" "))
        }
    };
    line(text, &format!("rope theta {} scaling {scaling}", bits(*theta)));
}

fn describe_tensor(text: &mut String, tensor: &KvTensor) {
    let KvTensor { name, element, shape } = tensor;
    let element = match element {
        KvElement::U8 => "u8",
        KvElement::F16 => "f16",
        KvElement::F32 => "f32",
        KvElement::U64 => "u64",
    };
    let mut described = format!("tensor {name} {element}");
    for axis in shape {
        match axis {
            KvAxis::Tokens => described.push_str(" tokens"),
            KvAxis::Fixed(length) => {
                write!(described, " {length}").expect("a string takes everything");
            }
        }
    }
    line(text, &described);
}

/// A number to the bit.
fn bits(value: f32) -> String {
    format!("{:08x}", value.to_bits())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn data(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
    }

    /// A copy of a tiny model that a test may change.
    fn copy(name: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for entry in fs::read_dir(data("tiny").join(name)).expect("the fixture") {
            let from = entry.expect("an entry").path();
            let to = folder.path().join(from.file_name().expect("a name"));
            fs::copy(&from, to).expect("copied");
        }
        if !folder.path().join("tokenizer.json").exists() {
            let tokenizer = data("text/byte_level.tokenizer.json");
            fs::copy(tokenizer, folder.path().join("tokenizer.json")).expect("copied");
        }
        folder
    }

    /// After the time in which a change of a file could go unseen.
    fn text(path: &Path, kv: &str, digests: &Path) -> String {
        let files = ModelFiles::open(path).expect("a model");
        let now = SystemTime::now() + Duration::from_secs(60);
        let kv = files.describe_kv(kv.parse().expect("bits")).expect("it can be run so");
        files.identity(digests, now).expect("it can be read") + &kv
    }

    fn change(path: &Path, at: usize) {
        let mut bytes = fs::read(path).expect("a file");
        bytes[at] ^= 1;
        fs::write(path, bytes).expect("written");
    }

    #[test]
    fn whatever_changes_the_kv_changes_the_fingerprint() {
        let (model, digests) = (copy("gemma3"), tempfile::tempdir().expect("a folder"));
        let (path, digests) = (model.path(), digests.path());
        let text = |kv| text(path, kv, digests);
        let mut seen = HashSet::from([text("8")]);
        assert!(!seen.insert(text("8")));
        assert!(!seen.insert(text("8/8")));
        for kv in ["8/4", "8/4r", "8r/4", "4", "4r", "16", "16/8", "32"] {
            assert!(seen.insert(text(kv)), "{kv}");
        }
        let weights = path.join("model.safetensors");
        change(&weights, fs::metadata(&weights).expect("a file").len() as usize - 1);
        assert!(seen.insert(text("8")), "the weights");
        let tokenizer = fs::read_to_string(path.join("tokenizer.json")).expect("text");
        fs::write(path.join("tokenizer.json"), tokenizer + "\n").expect("written");
        assert!(seen.insert(text("8")), "the tokenizer");
        fs::write(path.join("tokenizer_config.json"), "{}").expect("written");
        assert!(seen.insert(text("8")), "the tokenizer's configuration");
        let config = fs::read_to_string(path.join("config.json")).expect("text");
        fs::write(path.join("config.json"), config + "\n").expect("written");
        assert!(seen.insert(text("8")), "the configuration");
        fs::write(path.join("chat_template.jinja"), "{{ messages }}").expect("written");
        assert!(!seen.insert(text("8")), "a chat template changes no KV");
    }

    #[test]
    fn a_fingerprint_tells_how_its_kv_is_stored() {
        let digests = tempfile::tempdir().expect("a folder");
        let files = ModelFiles::open(&data("gguf/llama-f16.gguf")).expect("a model");
        let other = ModelFiles::open(&data("gguf/qwen2.gguf")).expect("a model");
        for kv in ["8", "16/4r", "32"].map(|kv| kv.parse::<KvConfig>().expect("bits")) {
            let fingerprint = files.fingerprint(kv, digests.path()).expect("it can be read");
            let kv_of = |files: &ModelFiles| files.kv_of(&fingerprint, digests.path());
            assert_eq!(kv_of(&files).expect("it can be read"), Some(kv));
            assert_eq!(kv_of(&other).expect("it can be read"), None);
        }
    }

    /// Each on its own, as two programs may read the same `config.json` in two ways.
    #[test]
    fn the_configuration_counts_as_it_was_understood() {
        let files = ModelFiles::open(&data("tiny/gemma3")).expect("a model");
        let config = files.config().clone();
        let mut seen = HashSet::new();
        let mut is_new = |change: &dyn Fn(&mut Config)| {
            let (mut config, mut text) = (config.clone(), String::new());
            change(&mut config);
            describe_config(&mut text, &config);
            seen.insert(text)
        };
        assert!(is_new(&|_| ()));
        assert!(is_new(&|config| config.ropes[0].theta += 1.0));
        assert!(is_new(&|config| config.ropes[1].theta += 1.0));
        assert!(is_new(&|config| {
            config.ropes[0].scaling = RopeScaling::Linear { factor: 2.0 };
        }));
        assert!(is_new(&|config| config.ropes[0].scaling = RopeScaling::Factors(vec![2.0])));
        assert!(is_new(&|config| config.ropes.swap(0, 1)));
        assert!(is_new(&|config| config.layers[0].window = Some(3)));
        assert!(is_new(&|config| config.layers[0].window = None));
        assert!(is_new(&|config| config.layers[0].rope ^= 1));
        assert!(is_new(&|config| config.attention_scale *= 2.0));
        assert!(is_new(&|config| config.embedding_scale = None));
        assert!(is_new(&|config| config.norm.epsilon *= 2.0));
        assert!(is_new(&|config| config.qk_norm = !config.qk_norm));
        assert!(is_new(&|config| config.activation = Activation::Silu));
        assert!(!is_new(&|config| config.attention_scale *= 1.0));
    }

    #[test]
    fn names_and_places_change_nothing() {
        let digests = tempfile::tempdir().expect("a folder");
        let folder = copy("qwen3");
        let before = text(folder.path(), "8", digests.path());
        let elsewhere = tempfile::tempdir().expect("a folder");
        let moved = elsewhere.path().join("other name");
        fs::rename(folder.keep(), &moved).expect("renamed");
        assert_eq!(text(&moved, "8", digests.path()), before);
        let (one, other) = (elsewhere.path().join("a.gguf"), elsewhere.path().join("b.gguf"));
        fs::copy(data("gguf/llama-f16.gguf"), &one).expect("copied");
        let before = text(&one, "8", digests.path());
        fs::rename(&one, &other).expect("renamed");
        assert_eq!(text(&other, "8", digests.path()), before);
        fs::copy(&other, &one).expect("copied");
        assert_eq!(text(&one, "8", digests.path()), before, "a copy is the same model");
        change(&one, fs::metadata(&one).expect("a file").len() as usize - 1);
        assert_ne!(text(&one, "8", digests.path()), before);
    }

    /// Caches on disk would all be lost if it changed by accident.
    #[test]
    fn the_text_is_as_it_always_was() {
        let digests = tempfile::tempdir().expect("a folder");
        let text = text(&data("gguf/llama-f16.gguf"), "8/4r", digests.path());
        expect_test::expect![[r#"
            semantic fingerprint 1
            file "gguf" 6329359a4ea392d33baa9fd6d5be7336c892633c18354ec9b6b80419c44be369
            hidden 64
            intermediate 96
            query_heads 4
            kv_heads 2
            head_dim 32
            vocabulary 288
            context_tokens 512
            norm_epsilon 3727c5ac
            norm_offset 00000000
            attention_scale 3e3504f3
            embedding_scale none
            attention_norm input_layernorm
            attention_output_norm none
            mlp_norm post_attention_layernorm
            mlp_output_norm none
            activation silu
            tied false
            qkv_bias false
            output_bias false
            mlp_bias false
            qk_norm false
            rope theta 461c4000 scaling none
            layer window none rope 0
            layer window none rope 0
            kv 8/4r
            block_tokens 256
            tensor layer.0.key.codes u8 2 32 tokens
            tensor layer.0.key.scales f16 2 1 tokens
            tensor layer.0.key.biases f16 2 1 tokens
            tensor layer.0.value.codes u8 2 tokens 16
            tensor layer.0.value.scales f16 2 tokens 1
            tensor layer.0.value.biases f16 2 tokens 1
            tensor layer.1.key.codes u8 2 32 tokens
            tensor layer.1.key.scales f16 2 1 tokens
            tensor layer.1.key.biases f16 2 1 tokens
            tensor layer.1.value.codes u8 2 tokens 16
            tensor layer.1.value.scales f16 2 tokens 1
            tensor layer.1.value.biases f16 2 tokens 1
        "#]]
        .assert_eq(&text);
    }
}
