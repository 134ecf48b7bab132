//! `semantic serve`: the server from its first breath to its last.
//!
//! The address is taken first, so that probes are answered while the model loads; then the model's
//! files are opened, the engine loads them, and requests are served until a signal comes.

mod files;
mod keys;
mod print_config;
mod settings;
mod shutdown;
mod stages;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use super::Context;
use super::compute::{Compute, ComputeFlags};
use super::generate::random_seed;
use super::log::{self, Log};
use super::model::{self, ModelFlag, file_bytes, name_model};
use super::output::{self, Failure, human_bytes};
use super::parent::end_with_parent;
use super::store::{self, Access};
use crate::engine::{self, Engine, Keeping};
use crate::http::{self, App, KvShape, Serving};
use crate::metrics::Metrics;
use crate::model::source::ResolvedModel;
use crate::model::{LoadOptions, mlx_version};
use crate::text::{self, Grammars, Tokenizer};

use keys::{Counts, Entry};
use settings::{EngineSettings, Settings};
use shutdown::{End, Signals};
use stages::{KeyToShow, Load, Stages};

/// Threads for sockets and timers; the cores belong to the model.
const ASYNC_THREADS: usize = 2;

/// For connections to be told that the engine has failed.
const FAILURE_CLOSING: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelFlag,
    #[command(flatten)]
    flags: settings::Flags,
    #[command(flatten)]
    compute: ComputeFlags,
    /// Make an API key, print it once, keep its hash, and do not serve
    #[arg(long, value_name = "NAME")]
    new_key: Option<String>,
    /// Print the settings as a configuration file, and do not serve
    #[arg(long)]
    print_config: bool,
    /// Say nothing on stderr unless something fails
    #[arg(long, short)]
    quiet: bool,
    /// End at once when stdin does: for a program that starts it and may be killed
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

impl Arguments {
    /// Whether it serves rather than answering something about serving.
    pub fn is_server(&self) -> bool {
        self.new_key.is_none() && !self.print_config
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet
    }
}

pub fn run(arguments: &Arguments, context: &Context, log: &Log) -> Result<ExitCode, Failure> {
    if let Some(name) = &arguments.new_key {
        return new_key(name, arguments, context);
    }
    let mut settings = settings::settings(arguments, context)?;
    settings.log = log.control();
    let name = arguments.model.name(context);
    if arguments.print_config {
        return print_config::print(&settings, name, context);
    }
    let stages = match (arguments.quiet, log.reader()) {
        (true, _) => Stages::Nobody,
        (false, log::Reader::Person) => Stages::People,
        (false, log::Reader::Program) => Stages::Log,
    };
    if log.reader() == log::Reader::Program {
        // A key that is made must be shown, and never is in a log.
        settings.entrance.reader = keys::Reader::Unknown;
    }
    if arguments.end_with_stdin {
        end_with_parent()?;
    }
    let entry = settings.entrance.open()?;
    let plan = ModelPlan {
        name: name.to_owned(),
        compute: settings.compute,
        engine: settings.engine,
        stages,
    };
    let runtime = runtime()?;
    let ended = runtime.block_on(serve(settings, entry, plan, context.clone()));
    // A download or a long prompt that is still under way is not waited for.
    runtime.shutdown_background();
    ended
}

/// What the server's sockets, timers and workers run on.
pub fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASYNC_THREADS)
        .max_blocking_threads(http::WORKER_THREADS)
        .enable_all()
        .build()
}

fn new_key(name: &str, arguments: &Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let file = settings::keys_file(arguments, context);
    let key = keys::make(name, file.path())?;
    output::data(format!("{key}\n").as_bytes())?;
    if !arguments.quiet {
        let path = file.path().display();
        output::talk(&format!("its hash is in {path}, which a server reads when it starts"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    settings: Settings,
    entry: Entry,
    plan: ModelPlan,
    context: Context,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::catch()?;
    let stages = plan.stages;
    let listener = http::bind(settings.address).map_err(|error| cannot_listen(&settings, error))?;
    let address = listener.local_addr()?;
    stages.listening(address);
    let (access, key) = match entry {
        Entry::Access(access) => (access, announce_keys(&settings, stages)?),
        Entry::FirstKey(path) => {
            let (key, access) = keys::make_first(&path)?;
            // Quiet or not: nobody can find it out later.
            output::talk(&keys::introduction(&key, &path));
            (access, KeyToShow::Made(key))
        }
    };
    let times = settings.times;
    let metrics = Arc::new(Metrics::default());
    let app = App::new(settings.http(access, Arc::clone(&metrics)));
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        // Sent or dropped, it is the same.
        let _ = stopped.await;
    };
    let server = tokio::spawn(http::serve(listener, Arc::clone(&app), stopped));

    let started = Instant::now();
    let name = plan.name.clone();
    let (fatal, mut failure) = watch::channel(None);
    let starting = tokio::task::spawn_blocking({
        let app = Arc::clone(&app);
        move || start(&plan, &context, Watching { fatal, metrics }, &app)
    });
    let engine = tokio::select! {
        engine = starting => engine.map_err(anyhow::Error::new)??,
        // There is nothing to drain and nothing to save.
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    stages.ready(&name, started.elapsed(), address, &key);

    let served = async {
        let asked = signals.next().await;
        shutdown::shut_down(&app, &engine, asked, &mut signals, &times).await
    };
    let end = tokio::select! {
        end = served => end,
        reason = failed(&mut failure) => {
            drop(stop);
            // Streams have an event to tell it by.
            let _ = tokio::time::timeout(FAILURE_CLOSING, server).await;
            return Err(Failure::from(anyhow::anyhow!("the engine failed: {reason}")));
        }
    };
    if end == End::LeftAtOnce {
        return Ok(end.exit_code());
    }
    drop(stop);
    let closing = async {
        server.await?;
        match end {
            // It waits for the engine's last step, as there is nothing else left to wait for.
            End::Saved => tokio::task::spawn_blocking(move || engine.shutdown()).await,
            // A disk that has not taken everything in its time may never take it.
            End::NotAllSaved | End::LeftAtOnce => Ok(()),
        }
    };
    tokio::select! {
        closed = closing => closed.map_err(anyhow::Error::new)?,
        _ = signals.next() => tracing::warn!("another signal: nothing is waited for any more"),
    }
    Ok(end.exit_code())
}

/// Comes if the engine cannot go on, with the reason.
async fn failed(failure: &mut watch::Receiver<Option<String>>) -> String {
    match failure.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or_default(),
        // The engine is gone, and what waits for it hears so.
        Err(_) => std::future::pending().await,
    }
}

/// Where the keys are, and which of them a first request can show.
fn announce_keys(settings: &Settings, stages: Stages) -> Result<KeyToShow, Failure> {
    let entrance = &settings.entrance;
    let counts = match entrance.no_auth {
        true => Counts { of_environment: 0, of_file: 0 },
        false => entrance.counts()?,
    };
    stages.keys(counts, entrance.file.path());
    Ok(match counts {
        Counts { of_environment: 0, of_file: 0 } => KeyToShow::None,
        Counts { of_environment: 1, .. } => KeyToShow::Variable,
        Counts { .. } => KeyToShow::Yours,
    })
}

fn cannot_listen(settings: &Settings, error: io::Error) -> Failure {
    let address = settings.address;
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "another server runs there; stop it, or give another --port",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege; give a higher --port"
        }
        _ => "give an address of this machine, such as --host 127.0.0.1",
    };
    let error = match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!("{address} is in use"),
        _ => anyhow::Error::new(error).context(format!("cannot listen on {address}")),
    };
    Failure::Unavailable { error, hint: Some(hint.to_owned()) }
}

/// What to load, and how it is to run.
struct ModelPlan {
    name: String,
    compute: Compute,
    engine: EngineSettings,
    stages: Stages,
}

/// Who sees what becomes of the engine.
struct Watching {
    fatal: watch::Sender<Option<String>>,
    metrics: Arc<Metrics>,
}

/// Finds the model's files, fetching them if need be, and returns when an engine has loaded them.
fn start(
    plan: &ModelPlan,
    context: &Context,
    watching: Watching,
    app: &App,
) -> Result<Engine, Failure> {
    // First, so that a second server on this folder ends before it fetches or loads anything.
    let store = store::open(context, Access::Write)?;
    let stages = plan.stages;
    let agents = store.agents().map_err(store::failed)?;
    stages.agents(agents.len(), &store::folder(context));
    let resolved = model::resolve_heard(&plan.name, context, &mut *stages.downloads())?;
    stages.model(&resolved);
    let files = model::open(&resolved)?;
    let text = files.text()?;
    let of_model = |error: text::Error| name_model(error, &resolved.path);
    let tokenizer = Arc::new(Tokenizer::new(&text).map_err(of_model)?);
    let template = model::chat_template(&text, &resolved.path, None)?;
    let kv = plan.compute.kv.unwrap_or(resolved.kv);
    let keeping = Keeping {
        store,
        fingerprint: files.fingerprint(kv, &store::digests(context))?,
        model: resolved.name.clone(),
    };
    let block_bytes = files.block_bytes(kv)?;
    let options = LoadOptions {
        kv,
        pool_blocks: pool_blocks(plan.engine.kv_pool_bytes, block_bytes)?,
        device: plan.compute.device,
        threads: plan.compute.threads,
    };
    stages.loading(&Load {
        weights_bytes: file_bytes(&resolved.path)?,
        pool_bytes: (options.pool_blocks * block_bytes) as u64,
        kv_bits: kv.to_string(),
    });
    let Watching { fatal, metrics } = watching;
    metrics.set_build(env!("CARGO_PKG_VERSION"), &mlx_version(), &public_name(&resolved));
    let config = engine::Config {
        step: plan.engine.step,
        running_max: plan.engine.running_max,
        queue_max: plan.engine.queue_max,
        queue_time: plan.engine.queue_time,
        instance: random_seed(),
        metrics,
        on_fatal: Box::new(move |reason| {
            fatal.send_replace(Some(reason.to_owned()));
        }),
        ..engine::Config::default()
    };
    let summary = files.summary();
    let (heads, head_dim) = (summary.kv_heads, summary.head_dim);
    let shape = KvShape { heads, head_dim, bits: kv.to_string() };
    let path = resolved.path.clone();
    let load = move || {
        let loaded = files.load(options);
        if loaded.is_ok() {
            stages.warming_up();
        }
        loaded.map_err(|error| format!("{:#}", name_model(error, &path)))
    };
    let engine = Engine::start(config, Arc::clone(&tokenizer), Some(keeping), load);
    let model = public_name(&resolved);
    let grammars = Grammars::new(Arc::clone(&tokenizer));
    app.start_serving(Serving {
        engine: engine.clone(),
        tokenizer,
        template,
        grammars,
        model,
        kv: shape,
    });
    engine.wait_started().map_err(|reason| anyhow::anyhow!(reason))?;
    Ok(engine)
}

/// What clients are told. Where a file lies is not for them.
fn public_name(model: &ResolvedModel) -> String {
    let is_path = Path::new(&model.name) == model.path;
    let last = match model.path.is_file() {
        true => model.path.file_stem(),
        false => model.path.file_name(),
    };
    match last {
        Some(last) if is_path => last.to_string_lossy().into_owned(),
        _ => model.name.clone(),
    }
}

/// As many as there is room for, at least one.
fn pool_blocks(pool_bytes: u64, block_bytes: usize) -> Result<usize, Failure> {
    match usize::try_from(pool_bytes / block_bytes as u64) {
        Ok(blocks @ 1..) => Ok(blocks.min(u32::MAX as usize)),
        _ => {
            let [pool, block] = [pool_bytes, block_bytes as u64].map(human_bytes);
            let message = format!("a KV pool of {pool} has no room for a block of {block}");
            Err(Failure::with_hint(
                anyhow::anyhow!(message),
                Some("give a larger --kv-pool-mb, or fewer --kv-bits".to_owned()),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_whole_blocks_and_at_least_one() {
        assert!(matches!(pool_blocks(1_000_000, 300_000), Ok(3)));
        let Err(Failure::Failed { error, .. }) = pool_blocks(1_000_000, 1_000_001) else {
            panic!("no block fits");
        };
        let message = "a KV pool of 1.0 MB has no room for a block of 1.0 MB";
        assert_eq!(error.to_string(), message);
    }
}
