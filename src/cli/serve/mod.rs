//! `semantic serve`: the server from its first breath to its last.
//!
//! The address is taken first, so that probes are answered while the model loads; then the model's
//! files are opened, the engine loads them, and requests are served until a signal comes.

mod settings;
mod shutdown;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Context;
use super::compute::{Compute, ComputeFlags};
use super::model::{self, ModelFlag, name_model};
use super::output::{self, Failure, human_bytes};
use crate::engine::{Engine, Status};
use crate::http::{self, App, Serving};
use crate::model::LoadOptions;
use crate::text::{ChatTemplate, Tokenizer};

use settings::{EngineSettings, Settings};
use shutdown::Signals;

/// Threads for sockets and timers; the cores belong to the model.
const ASYNC_THREADS: usize = 2;
/// Threads for long prompts to be tokenised on. More would only take the cores from the model.
const BLOCKING_THREADS: usize = 4;
/// How often the engine is asked whether it is ready, or dead.
const WATCH: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelFlag,
    #[command(flatten)]
    flags: settings::Flags,
    #[command(flatten)]
    compute: ComputeFlags,
    /// Say nothing on stderr unless something fails
    #[arg(long, short)]
    quiet: bool,
}

pub fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let settings = settings::settings(arguments, &context.config.serve)?;
    let plan = ModelPlan {
        name: arguments.model.name(context).to_owned(),
        compute: settings.compute,
        engine: settings.engine,
        is_quiet: arguments.quiet,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASYNC_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(settings, plan, context.clone()));
    // A download or a long prompt that is still under way is not waited for.
    runtime.shutdown_background();
    ended
}

async fn serve(settings: Settings, plan: ModelPlan, context: Context) -> Result<ExitCode, Failure> {
    let mut signals = Signals::catch()?;
    let talk = talker(plan.is_quiet);
    let listener = http::bind(settings.address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => in_use(&settings),
        _ => Failure::from(
            anyhow::Error::new(error).context(format!("cannot listen on {}", settings.address)),
        ),
    })?;
    talk(&format!("listening on http://{}", listener.local_addr()?));
    let app = App::new(settings.http);
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        // Sent or dropped, it is the same.
        let _ = stopped.await;
    };
    let server = tokio::spawn(http::serve(listener, Arc::clone(&app), stopped));

    let started = Instant::now();
    let name = plan.name.clone();
    let opening = tokio::task::spawn_blocking(move || open(&plan, &context));
    let serving = tokio::select! {
        serving = opening => serving.map_err(anyhow::Error::new)??,
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let engine = serving.engine.clone();
    app.start_serving(serving);
    let signal = tokio::select! {
        ready = ready(&engine) => {
            ready.map_err(|reason| Failure::from(anyhow::anyhow!(reason)))?;
            let seconds = started.elapsed().as_secs_f64();
            talk(&format!("{name} is ready after {seconds:.1} s"));
            tokio::select! {
                signal = signals.next() => signal,
                reason = failed(&engine) => return Err(Failure::from(anyhow::anyhow!(reason))),
            }
        }
        // There is nothing to drain and nothing to save.
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };

    let code = shutdown::shut_down(&app, &engine, signal, &mut signals, &settings.times).await;
    drop(stop);
    if code == shutdown::End::Saved || code == shutdown::End::NotAllSaved {
        server.await.map_err(anyhow::Error::new)?;
        engine.shutdown();
    }
    Ok(code.exit_code())
}

fn talker(is_quiet: bool) -> impl Fn(&str) {
    move |line| {
        if !is_quiet {
            output::talk(line);
        }
    }
}

fn in_use(settings: &Settings) -> Failure {
    Failure::with_hint(
        anyhow::anyhow!("{} is in use", settings.address),
        Some("another server runs there; stop it, or give another --port".to_owned()),
    )
}

/// What to load, and how it is to run.
struct ModelPlan {
    name: String,
    compute: Compute,
    engine: EngineSettings,
    is_quiet: bool,
}

/// Finds the model's files, fetching them if need be, and starts an engine that loads them.
fn open(plan: &ModelPlan, context: &Context) -> Result<Serving, Failure> {
    let resolved = model::resolve(&plan.name, context, plan.is_quiet)?;
    let files = model::open(&resolved)?;
    let text = files.text()?;
    let tokenizer = Tokenizer::new(&text).map_err(|error| name_model(error, &resolved.path))?;
    let template = ChatTemplate::new(&text).map_err(|error| name_model(error, &resolved.path))?;
    let tokenizer = Arc::new(tokenizer);
    let kv = plan.compute.kv.unwrap_or(resolved.kv);
    let block_bytes = files.block_bytes(kv)?;
    let options = LoadOptions {
        kv,
        pool_blocks: pool_blocks(plan.engine.kv_pool_bytes, block_bytes)?,
        device: plan.compute.device,
        threads: plan.compute.threads,
    };
    tracing::info!(model = resolved.name, blocks = options.pool_blocks, %kv, "loading the model");
    let load = move || {
        files.load(options).map_err(|error| format!("{:#}", name_model(error, &resolved.path)))
    };
    let engine = start_engine(plan.engine, Arc::clone(&tokenizer), load);
    Ok(Serving { engine, tokenizer, template, model: resolved.name })
}

fn start_engine(
    settings: EngineSettings,
    tokenizer: Arc<Tokenizer>,
    load: impl FnOnce() -> Result<Box<dyn crate::model::Model>, String> + Send + 'static,
) -> Engine {
    let _ = (settings, tokenizer, load);
    Engine {}
}

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

/// Comes when the model is loaded, or with the reason why it never will be.
async fn ready(engine: &Engine) -> Result<(), String> {
    loop {
        match engine.status() {
            Status::Starting => tokio::time::sleep(WATCH).await,
            Status::Failed(reason) => return Err(reason),
            Status::Serving | Status::Draining | Status::Stopped => return Ok(()),
        }
    }
}

/// Comes if the engine fails while it serves, with the reason.
async fn failed(engine: &Engine) -> String {
    loop {
        match engine.status() {
            Status::Failed(reason) => return reason,
            _ => tokio::time::sleep(WATCH).await,
        }
    }
}
