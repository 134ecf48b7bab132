//! What a start says, a line per stage: to people on stderr, or as events where the log is JSON.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::keys::{Counts, KEYS_VARIABLE};
use crate::cli::output::{Downloads, human_bytes, talk};
use crate::model::source::{Progress, ResolvedModel};

/// Who hears how far the start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stages {
    /// Somebody who reads, at a terminal or later in a file.
    People,
    /// A program that reads JSON and nothing else.
    Log,
    Nobody,
}

/// What a request has to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyToShow {
    /// The first start's, which is on this screen already.
    Made(String),
    /// The environment has one and no other.
    Variable,
    /// One of several, or one whose hash alone is known.
    Yours,
    /// Nobody is asked for one.
    None,
}

/// What there is to load.
#[derive(Clone, Debug)]
pub struct Load {
    pub weights_bytes: u64,
    pub pool_bytes: u64,
    pub kv_bits: String,
}

impl Stages {
    pub fn listening(self, address: SocketAddr) {
        let url = url(address);
        match self {
            Stages::People => talk(&format!("listening on {url}")),
            Stages::Log => tracing::info!(url, "listening"),
            Stages::Nobody => (),
        }
    }

    pub fn keys(self, counts: Counts, file: &Path) {
        let Counts { of_environment, of_file } = counts;
        match self {
            Stages::People => talk(&keys_line(counts, file)),
            Stages::Log => {
                tracing::info!(of_environment, of_file, file = %file.display(), "API keys");
            }
            Stages::Nobody => (),
        }
    }

    pub fn agents(self, agents: usize, folder: &Path) {
        match self {
            Stages::People => talk(&format!("agents on disk: {agents} in {}", folder.display())),
            Stages::Log => {
                tracing::info!(agents, folder = %folder.display(), "agents found on disk");
            }
            Stages::Nobody => (),
        }
    }

    pub fn model(self, model: &ResolvedModel) {
        let (name, path) = (&model.name, model.path.display());
        match self {
            // A model that is given by its path has no other name.
            Stages::People if Path::new(name) == model.path => {
                talk(&format!("the model is {path}"))
            }
            Stages::People => talk(&format!("the model {name} is {path}")),
            Stages::Log => tracing::info!(model = name, %path, "model found"),
            Stages::Nobody => (),
        }
    }

    pub fn loading(self, load: &Load) {
        let Load { weights_bytes, pool_bytes, kv_bits } = load;
        match self {
            Stages::People => {
                let [weights, pool] = [*weights_bytes, *pool_bytes].map(human_bytes);
                talk(&format!("loading {weights}, with a KV pool of {pool} at {kv_bits} bits"));
            }
            Stages::Log => {
                tracing::info!(weights_bytes, pool_bytes, kv_bits, "loading the model");
            }
            Stages::Nobody => (),
        }
    }

    pub fn warming_up(self) {
        match self {
            Stages::People => talk("warming up"),
            Stages::Log => tracing::info!("warming up"),
            Stages::Nobody => (),
        }
    }

    /// With something to try, for people.
    pub fn ready(self, name: &str, after: Duration, address: SocketAddr, key: &KeyToShow) {
        let seconds = after.as_secs_f64();
        match self {
            Stages::People => {
                talk(&format!("{name} is ready after {seconds:.1} s"));
                talk(&invitation(address, key));
            }
            Stages::Log => tracing::info!(model = name, seconds, "the model is ready"),
            Stages::Nobody => (),
        }
    }

    /// Who hears how the model is fetched, if it is not here.
    pub fn downloads(self) -> Box<dyn Progress> {
        match self {
            Stages::People => Box::new(Downloads::new(false)),
            Stages::Log => Box::new(Logged),
            Stages::Nobody => Box::new(()),
        }
    }
}

/// A download as events: its beginning, not each of its bytes.
struct Logged;

impl Progress for Logged {
    fn note(&mut self, message: &str) {
        tracing::info!(note = message, "looking for the model");
    }

    fn start(&mut self, what: &str, bytes: Option<u64>) {
        tracing::info!(what, bytes, "fetching");
    }

    fn advance(&mut self, _: u64) {}

    fn finish(&mut self) {}
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn keys_line(counts: Counts, file: &Path) -> String {
    let file = file.display();
    match counts {
        Counts { of_environment: 0, of_file: 0 } => {
            "no key is asked for: every program on this machine may ask".to_owned()
        }
        Counts { of_environment: 0, of_file } => format!("API keys: {of_file} in {file}"),
        Counts { of_environment, of_file: 0 } => {
            format!("API keys: {of_environment} in {KEYS_VARIABLE}")
        }
        Counts { of_environment, of_file } => {
            format!("API keys: {of_environment} in {KEYS_VARIABLE}, {of_file} in {file}")
        }
    }
}

/// A command to copy into another terminal.
fn invitation(address: SocketAddr, key: &KeyToShow) -> String {
    let url = reachable(address);
    let mut text = format!("\ntry it:\n\n    curl {url}/v1/chat/completions \\\n      ");
    let key = match key {
        KeyToShow::Made(key) => Some(key.clone()),
        KeyToShow::Variable => Some(format!("${KEYS_VARIABLE}")),
        KeyToShow::Yours => Some("YOUR_KEY".to_owned()),
        KeyToShow::None => None,
    };
    if let Some(key) = key {
        let _ = write!(text, "-H \"Authorization: Bearer {key}\" ");
    }
    text.push_str("-H \"Content-Type: application/json\" \\\n      -d '");
    text.push_str(r#"{"messages": [{"role": "user", "content": "Why is the sky blue?"}]}'"#);
    text.push('\n');
    text
}

/// Where this machine reaches a server that may listen everywhere. Shells and curl would read an
/// IPv6 address's brackets as patterns.
fn reachable(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let url = url(SocketAddr::new(ip, address.port()));
    match ip {
        IpAddr::V4(_) => url,
        IpAddr::V6(_) => format!("--globoff '{url}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_command_to_try_is_one_that_a_shell_takes() {
        let at =
            |address: &str, key: &KeyToShow| invitation(address.parse().expect("an address"), key);
        expect![[r#"

            try it:

                curl http://127.0.0.1:8000/v1/chat/completions \
                  -H "Authorization: Bearer sk-sem-1" -H "Content-Type: application/json" \
                  -d '{"messages": [{"role": "user", "content": "Why is the sky blue?"}]}'
        "#]]
        .assert_eq(&at("0.0.0.0:8000", &KeyToShow::Made("sk-sem-1".to_owned())));
        expect![[r#"

            try it:

                curl --globoff 'http://[::1]:8000'/v1/chat/completions \
                  -H "Content-Type: application/json" \
                  -d '{"messages": [{"role": "user", "content": "Why is the sky blue?"}]}'
        "#]]
        .assert_eq(&at("[::]:8000", &KeyToShow::None));
        let bearer = |key| {
            let text = at("127.0.0.1:1", &key);
            text.lines().find(|line| line.contains("Bearer")).map(str::to_owned).unwrap_or_default()
        };
        assert!(
            bearer(KeyToShow::Variable).contains("\"Authorization: Bearer $SEMANTIC_API_KEYS\"")
        );
        assert!(bearer(KeyToShow::Yours).contains("\"Authorization: Bearer YOUR_KEY\""));
    }

    #[test]
    fn where_the_keys_are_is_said_in_a_line() {
        let line = |of_environment, of_file| {
            keys_line(Counts { of_environment, of_file }, Path::new("/data/keys.toml"))
        };
        expect![[r#"
            no key is asked for: every program on this machine may ask
            API keys: 2 in /data/keys.toml
            API keys: 1 in SEMANTIC_API_KEYS
            API keys: 1 in SEMANTIC_API_KEYS, 2 in /data/keys.toml"#]]
        .assert_eq(&[line(0, 0), line(0, 2), line(1, 0), line(1, 2)].join("\n"));
    }
}
