//! Flags, environment and configuration of `serve`, checked and put together.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Arguments;
use super::files;
use super::keys::{self, Entrance, KeysFile};
use super::shutdown::Times;
use crate::cli::compute::Compute;
use crate::cli::output::Failure;
use crate::cli::{Context, memory};
use crate::config;
use crate::engine;
use crate::http::{Access, AdminKey, Bounds, LogControl, Origin, Rates};
use crate::metrics::Metrics;

const HOST: &str = "127.0.0.1";
const PORT: u16 = 8000;
const RATE_AGENT: u32 = 60;
const RATE_GLOBAL: u32 = 1000;
const RATE_FAILED_KEYS: u32 = 20;
/// None: what a minute of one key may cost is not for us to guess.
const TOKENS_PER_MINUTE: u32 = 0;
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
    /// A further host name that requests may be addressed to
    ///
    /// May be given several times.
    #[arg(long, value_name = "HOST", env = "SEMANTIC_ALLOWED_HOSTS", value_delimiter = ',')]
    allowed_host: Vec<String>,
    /// The origin of web pages that may use this server
    ///
    /// May be given several times.
    #[arg(long, value_name = "ORIGIN", env = "SEMANTIC_CORS_ORIGINS", value_delimiter = ',')]
    cors_origin: Vec<String>,
    /// The file with hashes of API keys [default: keys.toml in the data folder]
    #[arg(long, value_name = "FILE", env = "SEMANTIC_KEYS_FILE")]
    keys_file: Option<PathBuf>,
    /// Ask nobody for a key; only on a loopback address
    ///
    /// `--no-auth=false` asks for one where the configuration does not.
    #[arg(long, value_name = "BOOL", env = "SEMANTIC_NO_AUTH", num_args = 0..=1, default_missing_value = "true", require_equals = true, hide_possible_values = true)]
    no_auth: Option<bool>,
    /// Requests per minute of an agent; 0: no limit [default: 60]
    #[arg(long, value_name = "COUNT", env = "SEMANTIC_RATE_LIMIT_AGENT")]
    rate_limit_agent: Option<u32>,
    /// Requests per minute in all; 0: no limit [default: 1000]
    #[arg(long, value_name = "COUNT", env = "SEMANTIC_RATE_LIMIT_GLOBAL")]
    rate_limit_global: Option<u32>,
    /// Wrong keys per minute of an address; 0: no limit [default: 20]
    #[arg(long, value_name = "COUNT", env = "SEMANTIC_RATE_LIMIT_FAILED_KEYS")]
    rate_limit_failed_keys: Option<u32>,
    /// Tokens per minute of a key; 0: no limit [default: 0]
    ///
    /// Counted are those of prompts that are not in memory, and those that are generated. A key of the
    /// keys file may have a limit of its own.
    #[arg(long, value_name = "COUNT", env = "SEMANTIC_TOKENS_PER_MINUTE")]
    tokens_per_minute: Option<u32>,
    /// Memory for the KV of all agents, in MB [default: a quarter of all]
    #[arg(long, value_name = "MB", env = "SEMANTIC_KV_POOL_MB")]
    kv_pool_mb: Option<u64>,
    /// Requests that are answered at the same time [default: 64]
    #[arg(long, value_name = "COUNT", env = "SEMANTIC_MAX_RUNNING")]
    max_running: Option<usize>,
    /// Requests that may wait [default: 2048]
    ///
    /// More are refused, of one key alone half as many; with 0 whoever finds no place to run.
    #[arg(long, value_name = "COUNT", env = "SEMANTIC_QUEUE_REQUESTS")]
    queue_requests: Option<usize>,
    /// How long one may wait, in seconds [default: 120]
    #[arg(long, value_name = "SECONDS", env = "SEMANTIC_QUEUE_TIMEOUT")]
    queue_timeout: Option<f64>,
    /// A new prompt may hold up answers, in ms [default: 100]
    ///
    /// The longest that running answers wait for a part of a new prompt to be read. While keys of
    /// several namespaces are there it is 12 at most.
    #[arg(long, value_name = "MS", env = "SEMANTIC_STEP_MS")]
    step_ms: Option<u64>,
    /// Go on accepting after SIGTERM, in seconds [default: 0]
    #[arg(long, value_name = "SECONDS", env = "SEMANTIC_LAME_DUCK")]
    lame_duck: Option<f64>,
    /// Then finish running answers, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS", env = "SEMANTIC_DRAIN_TIMEOUT")]
    drain_timeout: Option<f64>,
}

/// All of it, in range.
pub struct Settings {
    pub address: SocketAddr,
    pub entrance: Entrance,
    pub admin: Option<AdminKey>,
    pub allowed_hosts: Vec<String>,
    pub cors_origins: Vec<Origin>,
    pub rates: Rates,
    pub engine: EngineSettings,
    pub compute: Compute,
    pub times: Times,
    pub log: LogControl,
    /// The same as a file would say it.
    pub effective: config::Serve,
}

impl Settings {
    /// The server's part.
    pub fn http(self, access: Access, metrics: Arc<Metrics>) -> crate::http::Config {
        let bounds = Bounds::default();
        crate::http::Config {
            access,
            admin: self.admin,
            allowed_hosts: self.allowed_hosts,
            cors_origins: self.cors_origins,
            rates: self.rates,
            bounds: Bounds { connections: files::connections(bounds.connections), ..bounds },
            metrics,
            log: self.log,
        }
    }
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
pub fn settings(arguments: &Arguments, context: &Context) -> Result<Settings, Failure> {
    checked(arguments, &config::Serve::default()).map_err(Failure::Usage)?;
    let Checked { effective, cors_origins, engine, compute, times } =
        checked(arguments, &context.config.serve)
            .map_err(|reason| Failure::in_configuration("serve", reason).of_settings())?;
    let host = effective.host.as_deref().unwrap_or(HOST);
    let address = resolve(host, effective.port.unwrap_or(PORT))?;
    let no_auth = effective.no_auth.unwrap_or(false);
    let rate = |rate: Option<u32>, default| rate.unwrap_or(default);
    Ok(Settings {
        address,
        entrance: Entrance::new(keys_file(arguments, context), no_auth, address.ip()),
        admin: keys::admin_key()?,
        allowed_hosts: allowed_hosts(host, address.ip(), &effective.allowed_hosts),
        cors_origins,
        rates: Rates {
            agent: rate(effective.rate_limit_agent, RATE_AGENT),
            global: rate(effective.rate_limit_global, RATE_GLOBAL),
            failed_keys: rate(effective.rate_limit_failed_keys, RATE_FAILED_KEYS),
            tokens: rate(effective.tokens_per_minute, TOKENS_PER_MINUTE),
        },
        engine,
        compute,
        times,
        log: LogControl::default(),
        effective,
    })
}

/// The one that is named, or the usual one.
pub fn keys_file(arguments: &Arguments, context: &Context) -> KeysFile {
    let configured = &context.config.serve.keys_file;
    match arguments.flags.keys_file.as_ref().or(configured.as_ref()) {
        // An empty variable is none.
        Some(path) if !path.as_os_str().is_empty() => KeysFile::Named(path.clone()),
        Some(_) | None => KeysFile::Usual(context.data_dir.join("keys.toml")),
    }
}

/// What has a range or a form.
struct Checked {
    effective: config::Serve,
    cors_origins: Vec<Origin>,
    engine: EngineSettings,
    compute: Compute,
    times: Times,
}

fn checked(arguments: &Arguments, defaults: &config::Serve) -> Result<Checked, String> {
    let compute = arguments.compute.merge(defaults.compute())?;
    let flags = &arguments.flags;
    let engine = engine::Config::default();
    // An empty variable is none.
    let list = |given: &[String], configured: &[String]| {
        let there = |texts: &[String]| -> Vec<String> {
            texts.iter().filter(|text| !text.is_empty()).cloned().collect()
        };
        let given = there(given);
        if given.is_empty() { there(configured) } else { given }
    };
    let cors_origins = origins(&list(&flags.cors_origin, &defaults.cors_origins))?;
    let rate = |flag: Option<u32>, configured: Option<u32>, default| {
        Some(flag.or(configured).unwrap_or(default))
    };
    let pool_mb = flags.kv_pool_mb.or(defaults.kv_pool_mb).unwrap_or_else(default_pool_mb);
    let running = flags.max_running.or(defaults.max_running).unwrap_or(engine.running_max);
    let queue = flags.queue_requests.or(defaults.queue_requests).unwrap_or(engine.queue_max);
    let queue_s = flags.queue_timeout.or(defaults.queue_timeout_s);
    let queue_s = queue_s.unwrap_or(engine.queue_time.as_secs_f64());
    let step_ms = flags.step_ms.or(defaults.step_ms);
    let step_ms = step_ms.unwrap_or(engine.step.as_millis() as u64);
    let lame_duck_s = flags.lame_duck.or(defaults.lame_duck_s).unwrap_or(LAME_DUCK_S);
    let drain_s = flags.drain_timeout.or(defaults.drain_timeout_s).unwrap_or(DRAIN_TIMEOUT_S);
    let seconds =
        |name, seconds| in_range(name, seconds, SECONDS_RANGE).map(Duration::from_secs_f64);
    let engine = EngineSettings {
        kv_pool_bytes: in_range("kv_pool_mb", pool_mb, POOL_MB_RANGE)? * 1_000_000,
        step: Duration::from_millis(in_range("step_ms", step_ms, STEP_MS_RANGE)?),
        running_max: in_range("max_running", running, RUNNING_RANGE)?,
        queue_max: in_range("queue_requests", queue, QUEUE_RANGE)?,
        queue_time: seconds("queue_timeout", queue_s)?,
    };
    let times = Times {
        lame_duck: seconds("lame_duck", lame_duck_s)?,
        drain: seconds("drain_timeout", drain_s)?,
    };
    let effective = config::Serve {
        host: Some(flags.host.clone().or(defaults.host.clone()).unwrap_or(HOST.to_owned())),
        port: Some(flags.port.or(defaults.port).unwrap_or(PORT)),
        allowed_hosts: list(&flags.allowed_host, &defaults.allowed_hosts),
        cors_origins: cors_origins.iter().map(Origin::to_string).collect(),
        no_auth: Some(flags.no_auth.or(defaults.no_auth).unwrap_or(false)),
        keys_file: flags.keys_file.clone().or(defaults.keys_file.clone()),
        rate_limit_agent: rate(flags.rate_limit_agent, defaults.rate_limit_agent, RATE_AGENT),
        rate_limit_global: rate(flags.rate_limit_global, defaults.rate_limit_global, RATE_GLOBAL),
        rate_limit_failed_keys: rate(
            flags.rate_limit_failed_keys,
            defaults.rate_limit_failed_keys,
            RATE_FAILED_KEYS,
        ),
        tokens_per_minute: rate(
            flags.tokens_per_minute,
            defaults.tokens_per_minute,
            TOKENS_PER_MINUTE,
        ),
        kv_pool_mb: Some(pool_mb),
        max_running: Some(running),
        queue_requests: Some(queue),
        queue_timeout_s: Some(queue_s),
        step_ms: Some(step_ms),
        lame_duck_s: Some(lame_duck_s),
        drain_timeout_s: Some(drain_s),
        kv_bits: compute.kv.map(|kv| kv.to_string()),
        device: Some(compute.device.to_string()),
        threads: compute.threads,
    };
    Ok(Checked { effective, cors_origins, engine, compute, times })
}

fn origins(texts: &[String]) -> Result<Vec<Origin>, String> {
    let parse = |text: &String| text.parse().map_err(|error| format!("cors_origins: {error}"));
    texts.iter().map(parse).collect()
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

fn default_pool_mb() -> u64 {
    (memory::default_pool_bytes() / 1_000_000).max(1)
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let nowhere = || anyhow::anyhow!("no address for {host:?}");
    let found = match (bare, port).to_socket_addrs() {
        Ok(mut found) => found.next().ok_or_else(nowhere),
        Err(error) => Err(anyhow::Error::new(error).context(nowhere())),
    };
    found.map_err(|error| {
        let hint = "give an address of this machine, such as --host 127.0.0.1".to_owned();
        Failure::Unavailable { error, hint: Some(hint) }
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
            ("rate_limit_failed_keys", "--rate-limit-failed-keys", RATE_FAILED_KEYS.to_string()),
            ("tokens_per_minute", "--tokens-per-minute", TOKENS_PER_MINUTE.to_string()),
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
