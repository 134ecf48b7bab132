//! Flags, environment and configuration of `serve`, checked and put together.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::Arguments;
use super::shutdown::Times;
use crate::cli::compute::Compute;
use crate::cli::memory;
use crate::cli::output::Failure;
use crate::config;
use crate::engine;
use crate::http::{Access, AdminKey, Bounds, KEY_CHARS_MIN, KeyError, Keys, LogControl, Rates};

/// Never a flag: other users see a program's arguments.
const KEYS_VARIABLE: &str = "SEMANTIC_API_KEYS";
const ADMIN_KEY_VARIABLE: &str = "SEMANTIC_ADMIN_KEY";

const HOST: &str = "127.0.0.1";
const PORT: u16 = 8000;
const RATE_AGENT: u32 = 60;
const RATE_GLOBAL: u32 = 1000;
const RATE_FAILED_KEYS: u32 = 20;
/// What of the memory the KV pool takes if nobody says; weights and the rest need theirs.
const POOL_SHARE: u64 = 4;
/// Where the system does not tell its memory.
const POOL_BYTES_UNKNOWN: u64 = 1_000_000_000;
const LAME_DUCK_S: f64 = 0.0;
const DRAIN_TIMEOUT_S: f64 = 30.0;

/// Bounds that only a slip of the finger exceeds.
const POOL_MB_RANGE: RangeInclusive<u64> = 1..=16_000_000;
const RUNNING_RANGE: RangeInclusive<usize> = 1..=4096;
const QUEUE_RANGE: RangeInclusive<usize> = 0..=65_536;
const STEP_MS_RANGE: RangeInclusive<u64> = 1..=10_000;
const SECONDS_RANGE: RangeInclusive<f64> = 0.0..=86_400.0;

#[derive(Debug, clap::Args)]
pub struct Flags {
    /// The address to listen on [default: 127.0.0.1]
    #[arg(long, env = "SEMANTIC_HOST")]
    host: Option<String>,
    /// The port to listen on; 0 takes a free one [default: 8000]
    #[arg(long, short, env = "SEMANTIC_PORT")]
    port: Option<u16>,
    /// A further host name that requests may be addressed to; may be given several times
    #[arg(long, value_name = "HOST", env = "SEMANTIC_ALLOWED_HOSTS", value_delimiter = ',')]
    allowed_host: Vec<String>,
    /// Ask nobody for a key; only on a loopback address
    #[arg(long, env = "SEMANTIC_NO_AUTH", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    no_auth: Option<bool>,
    /// Requests per minute of one agent; 0 is no limit [default: 60]
    #[arg(long, value_name = "COUNT", env = "SEMANTIC_RATE_LIMIT_AGENT")]
    rate_limit_agent: Option<u32>,
    /// Requests per minute in all; 0 is no limit [default: 1000]
    #[arg(long, value_name = "COUNT", env = "SEMANTIC_RATE_LIMIT_GLOBAL")]
    rate_limit_global: Option<u32>,
    /// Memory for the KV of all agents, in MB [default: a quarter of the machine's]
    #[arg(long, value_name = "MB", env = "SEMANTIC_KV_POOL_MB")]
    kv_pool_mb: Option<u64>,
    /// Requests that are answered at the same time [default: 64]
    #[arg(long, value_name = "COUNT", env = "SEMANTIC_MAX_RUNNING")]
    max_running: Option<usize>,
    /// Requests that may wait; more are refused, of one key alone half as many [default: 2048]
    #[arg(long, value_name = "COUNT", env = "SEMANTIC_QUEUE_REQUESTS")]
    queue_requests: Option<usize>,
    /// How long a request may wait, in seconds [default: 120]
    #[arg(long, value_name = "SECONDS", env = "SEMANTIC_QUEUE_TIMEOUT")]
    queue_timeout: Option<f64>,
    /// The longest that running answers wait for a new prompt to be read, in ms [default: 100]
    #[arg(long, value_name = "MS", env = "SEMANTIC_STEP_MS")]
    step_ms: Option<u64>,
    /// How long to go on accepting after SIGTERM, in seconds [default: 0]
    #[arg(long, value_name = "SECONDS", env = "SEMANTIC_LAME_DUCK")]
    lame_duck: Option<f64>,
    /// How long running answers may go on at the end, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS", env = "SEMANTIC_DRAIN_TIMEOUT")]
    drain_timeout: Option<f64>,
}

/// All of it, in range.
pub struct Settings {
    pub address: SocketAddr,
    pub http: crate::http::Config,
    pub engine: EngineSettings,
    pub compute: Compute,
    pub times: Times,
}

#[derive(Clone, Copy, Debug)]
pub struct EngineSettings {
    pub kv_pool_bytes: u64,
    pub step: Duration,
    pub running_max: usize,
    pub queue_max: usize,
    pub queue_time: Duration,
}

/// The flags and the environment over the configuration. Looked at alone first, so that a value
/// out of range is blamed on whoever set it.
pub fn settings(arguments: &Arguments, defaults: &config::Serve) -> Result<Settings, Failure> {
    numbers(arguments, &config::Serve::default()).map_err(Failure::Usage)?;
    let Numbers { engine, compute, times } = numbers(arguments, defaults)
        .map_err(|reason| anyhow::anyhow!("the configuration's [serve] is not valid: {reason}"))?;
    let flags = &arguments.flags;
    let host = flags.host.as_deref().or(defaults.host.as_deref()).unwrap_or(HOST);
    let address = resolve(host, flags.port.or(defaults.port).unwrap_or(PORT))?;
    let keys = std::env::var(KEYS_VARIABLE).ok();
    let no_auth = flags.no_auth.or(defaults.no_auth).unwrap_or(false);
    let access = access(keys.as_deref(), no_auth, address.ip())?;
    let further = match flags.allowed_host.is_empty() {
        true => &defaults.allowed_hosts,
        false => &flags.allowed_host,
    };
    let http = crate::http::Config {
        access,
        admin: admin_key(std::env::var(ADMIN_KEY_VARIABLE).ok().as_deref())?,
        allowed_hosts: allowed_hosts(host, address.ip(), further),
        cors_origins: Vec::new(),
        rates: Rates {
            failed_keys: RATE_FAILED_KEYS,
            agent: flags.rate_limit_agent.or(defaults.rate_limit_agent).unwrap_or(RATE_AGENT),
            global: flags.rate_limit_global.or(defaults.rate_limit_global).unwrap_or(RATE_GLOBAL),
        },
        bounds: Bounds::default(),
        metrics: Arc::default(),
        log: LogControl::default(),
    };
    Ok(Settings { address, http, engine, compute, times })
}

/// What has a range.
struct Numbers {
    engine: EngineSettings,
    compute: Compute,
    times: Times,
}

fn numbers(arguments: &Arguments, defaults: &config::Serve) -> Result<Numbers, String> {
    let flags = &arguments.flags;
    let pool_mb = flags.kv_pool_mb.or(defaults.kv_pool_mb);
    let pool_mb = pool_mb.map(|mb| in_range("kv_pool_mb", mb, POOL_MB_RANGE)).transpose()?;
    let engine = engine::Config::default();
    let running = flags.max_running.or(defaults.max_running).unwrap_or(engine.running_max);
    let queue = flags.queue_requests.or(defaults.queue_requests).unwrap_or(engine.queue_max);
    let queue_s = flags.queue_timeout.or(defaults.queue_timeout_s);
    let step_ms = flags.step_ms.or(defaults.step_ms);
    let lame_duck_s = flags.lame_duck.or(defaults.lame_duck_s).unwrap_or(LAME_DUCK_S);
    let drain_s = flags.drain_timeout.or(defaults.drain_timeout_s).unwrap_or(DRAIN_TIMEOUT_S);
    let seconds =
        |name, seconds| in_range(name, seconds, SECONDS_RANGE).map(Duration::from_secs_f64);
    Ok(Numbers {
        engine: EngineSettings {
            kv_pool_bytes: pool_mb.map_or_else(default_pool_bytes, |mb| mb * 1_000_000),
            step: match step_ms {
                Some(ms) => Duration::from_millis(in_range("step_ms", ms, STEP_MS_RANGE)?),
                None => engine.step,
            },
            running_max: in_range("max_running", running, RUNNING_RANGE)?,
            queue_max: in_range("queue_requests", queue, QUEUE_RANGE)?,
            queue_time: match queue_s {
                Some(given) => seconds("queue_timeout", given)?,
                None => engine.queue_time,
            },
        },
        compute: arguments.compute.merge(defaults.compute())?,
        times: Times {
            lame_duck: seconds("lame_duck", lame_duck_s)?,
            drain: seconds("drain_timeout", drain_s)?,
        },
    })
}

fn in_range<T: PartialOrd + std::fmt::Display>(
    name: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<T, String> {
    match range.contains(&value) {
        true => Ok(value),
        false => {
            Err(format!("{name} is {value}; it goes from {} to {}", range.start(), range.end()))
        }
    }
}

fn default_pool_bytes() -> u64 {
    memory::total_bytes().map_or(POOL_BYTES_UNKNOWN, |bytes| bytes / POOL_SHARE)
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let mut found = (bare, port)
        .to_socket_addrs()
        .map_err(|error| anyhow::Error::new(error).context(format!("no address for {host:?}")))?;
    found.next().ok_or_else(|| anyhow::anyhow!("no address for {host:?}").into())
}

/// Who may ask. Refuses what would leave the server open to others by accident.
fn access(keys: Option<&str>, no_auth: bool, address: IpAddr) -> Result<Access, Failure> {
    let refused =
        |message: String, hint: &str| Failure::Misconfigured { message, hint: hint.to_owned() };
    let keys = match keys.map(Keys::parse) {
        None | Some(Err(KeyError::None)) => None,
        Some(Ok(keys)) => Some(keys),
        Some(Err(error)) => {
            let hint = format!(
                "give random keys of {KEY_CHARS_MIN} or more letters and digits, separated by \
                 commas: `openssl rand -hex 16` makes one"
            );
            return Err(refused(format!("{KEYS_VARIABLE}: {error}"), &hint));
        }
    };
    match (keys, no_auth) {
        (Some(keys), false) => Ok(Access::Keys(keys)),
        (None, true) if address.is_loopback() => Ok(Access::Open),
        (None, true) => Err(refused(
            format!("--no-auth would let everyone who reaches {address} in"),
            &format!("set {KEYS_VARIABLE}, or listen on 127.0.0.1"),
        )),
        (None, false) => Err(refused(
            "there are no API keys".to_owned(),
            &format!(
                "set {KEYS_VARIABLE}=KEY[,KEY…], or give --no-auth to let every program on this \
                 machine in"
            ),
        )),
        (Some(_), true) => Err(refused(
            format!("{KEYS_VARIABLE} is set and --no-auth is given"),
            "take one of them away",
        )),
    }
}

/// An empty variable is none.
fn admin_key(text: Option<&str>) -> Result<Option<AdminKey>, Failure> {
    let key = text.map(str::trim).filter(|text| !text.is_empty()).map(AdminKey::new);
    key.transpose().map_err(|error| Failure::Misconfigured {
        message: format!("{ADMIN_KEY_VARIABLE}: {error}"),
        hint: format!("give {KEY_CHARS_MIN} or more random letters and digits"),
    })
}

/// The names that a server at this address has, and those that the user adds.
fn allowed_hosts(host: &str, address: IpAddr, further: &[String]) -> Vec<String> {
    let bound = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let names = ["localhost", "127.0.0.1", "[::1]", &bound, host];
    names.into_iter().map(str::to_owned).chain(further.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;

    fn check(keys: Option<&str>, no_auth: bool, address: &str, expected: Result<(), &str>) {
        let address = address.parse().expect("an address");
        let found = access(keys, no_auth, address).map(|_| ()).map_err(|failure| match failure {
            Failure::Misconfigured { message, .. } => message,
            _ => panic!("another failure"),
        });
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn nobody_is_let_in_by_accident() {
        let key = "0123456789abcdef";
        check(Some(key), false, "127.0.0.1", Ok(()));
        check(Some(key), false, "0.0.0.0", Ok(()));
        check(None, true, "127.0.0.1", Ok(()));
        check(None, true, "::1", Ok(()));
        check(Some(" "), true, "127.8.8.8", Ok(()));
        check(None, false, "127.0.0.1", Err("there are no API keys"));
        check(Some(""), false, "127.0.0.1", Err("there are no API keys"));
        let everyone = "--no-auth would let everyone who reaches 0.0.0.0 in";
        check(None, true, "0.0.0.0", Err(everyone));
        let both = "SEMANTIC_API_KEYS is set and --no-auth is given";
        check(Some(key), true, "127.0.0.1", Err(both));
        let short = "SEMANTIC_API_KEYS: key 1 has 5 characters; at least 16";
        check(Some("short"), false, "127.0.0.1", Err(short));
    }

    /// What the help and the example say is what happens.
    #[test]
    fn the_defaults_are_documented() {
        let engine = engine::Config::default();
        let help = Flags::augment_args(clap::Command::new("serve")).render_long_help().to_string();
        let example = include_str!("../../../config.example.toml");
        for (key, flag, value) in [
            ("host", "--host", format!("{HOST:?}")),
            ("port", "--port", PORT.to_string()),
            ("rate_limit_agent", "--rate-limit-agent", RATE_AGENT.to_string()),
            ("rate_limit_global", "--rate-limit-global", RATE_GLOBAL.to_string()),
            ("max_running", "--max-running", engine.running_max.to_string()),
            ("queue_requests", "--queue-requests", engine.queue_max.to_string()),
            (
                "queue_timeout_s",
                "--queue-timeout",
                format!("{:?}", engine.queue_time.as_secs_f64()),
            ),
            ("step_ms", "--step-ms", engine.step.as_millis().to_string()),
            ("lame_duck_s", "--lame-duck", format!("{LAME_DUCK_S:?}")),
            ("drain_timeout_s", "--drain-timeout", format!("{DRAIN_TIMEOUT_S:?}")),
        ] {
            let line = format!("\n# {key} = {value}\n");
            assert!(example.contains(&line), "{line}");
            let of_flag = help.split(flag).nth(1).expect("the flag is there");
            let default =
                of_flag.split("[default: ").nth(1).and_then(|rest| rest.split(']').next());
            let shown = value.trim_matches('"').trim_end_matches(".0");
            assert_eq!(default, Some(shown), "{flag}");
        }
    }

    #[test]
    fn the_names_of_a_server() {
        let further = ["box.local".to_owned()];
        let names = allowed_hosts("::1", "::1".parse().expect("an address"), &further);
        assert_eq!(names, ["localhost", "127.0.0.1", "[::1]", "[::1]", "::1", "box.local"]);
    }
}
