//! What a user sets once: `config.toml`, the folders, and the order in which settings win.
//!
//! Defaults < config file < `SEMANTIC_*` environment < flags. The command line's parser reads the
//! last two; this room reads the file and the folders, and the file of API keys beside them.

mod keys;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use keys::{KeyEntry, KeysError, add_key, check_name, read_keys};

/// No configuration is larger; a larger file is another file.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// How alike two names must be for one to be a slip of the other.
const SIMILARITY_MIN: f64 = 0.7;

/// The file, as written. Every key is optional and unknown keys are refused.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where models and caches are kept.
    pub data_dir: Option<PathBuf>,
    /// The model to use when none is named.
    pub model: Option<String>,
    #[serde(default, skip_serializing)]
    pub generate: Generate,
    #[serde(default)]
    pub serve: Serve,
    #[serde(default)]
    pub cache: Cache,
}

/// Defaults of `semantic generate`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    pub system: Option<String>,
    pub max_tokens: Option<usize>,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<usize>,
    pub min_p: Option<f32>,
    pub repeat_penalty: Option<f32>,
    pub seed: Option<u64>,
    /// As the flag has it: `8`, `8/4`, `8/4r`.
    pub kv_bits: Option<String>,
    /// As the flag has it: `cpu` or `portable`.
    pub device: Option<String>,
    pub threads: Option<usize>,
    #[serde(default)]
    pub stop: Vec<String>,
}

/// Defaults of `semantic serve`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Serve {
    pub host: Option<String>,
    pub port: Option<u16>,
    #[serde(default)]
    pub allowed_hosts: Vec<String>,
    #[serde(default)]
    pub cors_origins: Vec<String>,
    pub no_auth: Option<bool>,
    pub keys_file: Option<PathBuf>,
    pub rate_limit_agent: Option<u32>,
    pub rate_limit_global: Option<u32>,
    pub rate_limit_failed_keys: Option<u32>,
    pub tokens_per_minute: Option<u32>,
    pub kv_pool_mb: Option<u64>,
    pub max_running: Option<usize>,
    pub queue_requests: Option<usize>,
    pub queue_timeout_s: Option<f64>,
    pub step_ms: Option<u64>,
    pub lame_duck_s: Option<f64>,
    pub drain_timeout_s: Option<f64>,
    /// As the flag has it: `8`, `8/4`, `8/4r`.
    pub kv_bits: Option<String>,
    /// As the flag has it: `cpu` or `portable`.
    pub device: Option<String>,
    pub threads: Option<usize>,
}

/// What agents may take on disk, whichever command saves them. A GB is 10^9 bytes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    pub budget_gb: Option<f64>,
    pub namespace_gb: Option<f64>,
    pub namespace_agents: Option<usize>,
}

/// How a model computes, as one of the commands has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compute<'a> {
    pub kv_bits: Option<&'a str>,
    pub device: Option<&'a str>,
    pub threads: Option<usize>,
}

impl Generate {
    pub fn compute(&self) -> Compute<'_> {
        let Generate { kv_bits, device, threads, .. } = self;
        Compute { kv_bits: kv_bits.as_deref(), device: device.as_deref(), threads: *threads }
    }
}

impl Serve {
    pub fn compute(&self) -> Compute<'_> {
        let Serve { kv_bits, device, threads, .. } = self;
        Compute { kv_bits: kv_bits.as_deref(), device: device.as_deref(), threads: *threads }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the configuration {path}: {reason}")]
    Read { path: PathBuf, reason: String },
    #[error("the configuration {path} is not valid: {reason}")]
    Invalid { path: PathBuf, reason: String },
    #[error("the configuration cannot be written as TOML: {reason}")]
    Unprintable { reason: String },
    #[error("this system names no home folder; set SEMANTIC_DATA_DIR")]
    NoHome,
}

impl Config {
    /// Reads the file the user named, or else the one in the usual place if it is there.
    pub fn load(named: Option<&Path>) -> Result<Config, Error> {
        match named {
            Some(path) => Config::read(path),
            None => match default_path() {
                Some(path) if path.exists() => Config::read(&path),
                _ => Ok(Config::default()),
            },
        }
    }

    fn read(path: &Path) -> Result<Config, Error> {
        let read_error = |reason: String| Error::Read { path: path.to_owned(), reason };
        let file = File::open(path).map_err(|error| read_error(error.to_string()))?;
        let mut text = String::new();
        // A device or a pipe tells no length, so the reading itself is bounded.
        file.take(CONFIG_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(|error| read_error(error.to_string()))?;
        if text.len() as u64 > CONFIG_BYTES_MAX {
            return Err(read_error(format!("it has more than {CONFIG_BYTES_MAX} bytes")));
        }
        Config::parse(&text).map_err(|reason| Error::Invalid { path: path.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|error| {
            // toml's messages have the line and column in them.
            let reason = error.to_string().trim_end().to_owned();
            match nearest(error.message()) {
                Some(near) => format!("{reason}\ndid you mean `{near}`?"),
                None => reason,
            }
        })
    }

    /// What a file would say that sets all of this but the defaults of `generate`.
    pub fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(self).map_err(|error| Error::Unprintable { reason: error.to_string() })
    }

    /// The folder for everything the program stores: the one given, the file's, the system's.
    pub fn data_dir(&self, given: Option<PathBuf>) -> Result<PathBuf, Error> {
        given
            .or_else(|| self.data_dir.clone())
            .or_else(|| project().map(|dirs| dirs.data_dir().to_owned()))
            .ok_or(Error::NoHome)
    }
}

/// The setting that was meant, if toml's message is that one is unknown and another is like it.
fn nearest(message: &str) -> Option<&str> {
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next().filter(|_| message.starts_with("unknown field "))?;
    names
        .map(|known| (strsim::jaro_winkler(unknown, known), known))
        .filter(|(likeness, _)| *likeness >= SIMILARITY_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// Where the configuration is looked for: `config.toml` in the system's folder for such files.
pub fn default_path() -> Option<PathBuf> {
    project().map(|dirs| dirs.config_dir().join("config.toml"))
}

fn project() -> Option<directories::ProjectDirs> {
    directories::ProjectDirs::from("", "", "semantic")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_example_is_the_default() {
        let example = include_str!("../config.example.toml");
        assert_eq!(Config::parse(example), Ok(Config::default()));
        // Every line that is commented out is a setting that exists.
        let uncommented: String = example
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line))
            .map(|line| format!("{line}\n"))
            .collect();
        let config = Config::parse(&uncommented).expect("every example is valid");
        // Without `..`, so that a setting which the example forgets does not compile or fails.
        let Config { data_dir, model, generate, serve, cache } = config;
        assert!(data_dir.is_some() && model.is_some());
        let Generate {
            system,
            max_tokens,
            temperature,
            top_p,
            top_k,
            min_p,
            repeat_penalty,
            seed,
            kv_bits,
            device,
            threads,
            stop,
        } = generate;
        assert!(system.is_some() && max_tokens.is_some() && temperature.is_some());
        assert!(top_p.is_some() && top_k.is_some() && min_p.is_some());
        assert!(repeat_penalty.is_some() && seed.is_some() && kv_bits.is_some());
        assert!(device.is_some() && threads.is_some());
        assert!(!stop.is_empty());
        let Serve {
            host,
            port,
            allowed_hosts,
            cors_origins,
            no_auth,
            keys_file,
            rate_limit_agent,
            rate_limit_global,
            rate_limit_failed_keys,
            tokens_per_minute,
            kv_pool_mb,
            max_running,
            queue_requests,
            queue_timeout_s,
            step_ms,
            lame_duck_s,
            drain_timeout_s,
            kv_bits,
            device,
            threads,
        } = serve;
        assert!(host.is_some() && port.is_some() && no_auth.is_some());
        assert!(!allowed_hosts.is_empty() && !cors_origins.is_empty() && keys_file.is_some());
        assert!(rate_limit_failed_keys.is_some() && tokens_per_minute.is_some());
        assert!(rate_limit_agent.is_some() && rate_limit_global.is_some());
        assert!(kv_pool_mb.is_some() && max_running.is_some() && queue_requests.is_some());
        assert!(queue_timeout_s.is_some() && step_ms.is_some());
        assert!(lame_duck_s.is_some() && drain_timeout_s.is_some());
        assert!(kv_bits.is_some() && device.is_some() && threads.is_some());
        let Cache { budget_gb, namespace_gb, namespace_agents } = cache;
        assert!(budget_gb.is_some() && namespace_gb.is_some() && namespace_agents.is_some());
    }

    #[test]
    fn a_mistake_is_shown_with_its_line() {
        expect![[r#"
            TOML parse error at line 2, column 1
              |
            2 | temprature = 0.5
              | ^^^^^^^^^^
            unknown field `temprature`, expected one of `system`, `max_tokens`, `temperature`, `top_p`, `top_k`, `min_p`, `repeat_penalty`, `seed`, `kv_bits`, `device`, `threads`, `stop`
            did you mean `temperature`?"#]]
        .assert_eq(&Config::parse("[generate]\ntemprature = 0.5\n").unwrap_err());
        assert!(Config::parse("model = 3").is_err());
        let nearest = |key: &str| {
            let error = Config::parse(&format!("[serve]\n{key} = 1")).unwrap_err();
            error.lines().last().unwrap_or_default().to_owned()
        };
        assert_eq!(nearest("rate_limit_agents"), "did you mean `rate_limit_agent`?");
        assert_eq!(nearest("keyfile"), "did you mean `keys_file`?");
        assert!(nearest("zzz").starts_with("unknown field `zzz`"));
    }

    #[test]
    fn a_configuration_is_written_as_it_is_read() {
        let text = "data_dir = \"/d\"\n\n[serve]\nport = 1\nallowed_hosts = [\"a\"]\n\
                    lame_duck_s = 5.0\n\n[cache]\nbudget_gb = 1.5\n";
        let config = Config::parse(text).unwrap();
        let written = config.to_toml().unwrap();
        assert_eq!(Config::parse(&written), Ok(config), "{written}");
    }

    #[test]
    fn the_data_folder_given_wins_over_the_files() {
        let config = Config { data_dir: Some("/from/file".into()), ..Config::default() };
        assert_eq!(config.data_dir(Some("/given".into())).unwrap(), Path::new("/given"));
        assert_eq!(config.data_dir(None).unwrap(), Path::new("/from/file"));
    }
}
