//! An engine under measurement: requests of random tokens, and when their answers came.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::runtime::Runtime;

use super::driver::random_tokens;
use super::rounds::Work;
use super::setup::Setup;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Failure;
use crate::engine::{
    Config, Engine, Error, Event, Keeping, Outcome, Reply, Request, Stats, Stream,
};
use crate::model::sample::Sampling;
use crate::model::{LoadOptions, ModelFiles, Spec};
use crate::text::Tokenizer;
use crate::types::{Namespace, TokenId};

/// The engine as a server has it, and a thread that reads its streams.
pub struct Live<'a> {
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
    runtime: Runtime,
    interrupt: &'a Interrupt,
}

/// When what came.
pub struct Timeline {
    pub submitted: Instant,
    /// Of each part of the reply.
    pub texts: Vec<Instant>,
    pub finished: Instant,
    pub outcome: Outcome,
}

impl Timeline {
    /// From submission to the first token.
    pub fn ttft(&self) -> Duration {
        self.texts.first().map_or(Duration::ZERO, |first| *first - self.submitted)
    }

    pub fn total(&self) -> Duration {
        self.finished - self.submitted
    }
}

/// What an engine is started with.
pub struct Start {
    pub model: PathBuf,
    pub options: LoadOptions,
    /// Sequences that can run.
    pub running_max: usize,
    pub keeping: Option<Keeping>,
}

impl Live<'_> {
    /// An engine in which so many sequences can run, and that keeps nothing.
    pub fn start<'a>(
        setup: &'a Setup<'_>,
        pool_blocks: usize,
        running_max: usize,
    ) -> Result<Live<'a>, Failure> {
        let (model, options) = (setup.model_path.clone(), setup.options(pool_blocks));
        let start = Start { model, options, running_max, keeping: None };
        Live::begin(start, &setup.interrupt)
    }

    pub fn begin(start: Start, interrupt: &Interrupt) -> Result<Live<'_>, Failure> {
        let Start { model, options, running_max, keeping } = start;
        let files = ModelFiles::open(&model)?;
        let tokenizer = Arc::new(Tokenizer::new(&files.text()?)?);
        let load = move || files.load(options).map_err(|error| error.to_string());
        let config = Config { running_max, ..Config::default() };
        let engine = Engine::start(config, Arc::clone(&tokenizer), keeping, load);
        engine.wait_started().map_err(anyhow::Error::msg)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(Live { engine, tokenizer, runtime, interrupt })
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    pub fn spec(&self) -> Spec {
        self.engine.spec().expect("it has started").clone()
    }

    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// A prompt that no other seed gives.
    pub fn prompt(&self, seed: u64, tokens: usize) -> Vec<TokenId> {
        random_tokens(seed, self.spec().vocabulary, tokens)
    }

    pub fn submit(&self, prompt: Vec<TokenId>, reply_tokens: usize) -> (Instant, Stream) {
        self.ask(request(prompt, reply_tokens))
    }

    pub fn ask(&self, request: Request) -> (Instant, Stream) {
        (Instant::now(), self.engine.submit(request))
    }

    /// Reads the stream of one request to its end.
    pub fn answer(&self, request: Request) -> Result<Timeline, Failure> {
        self.interrupt.check()?;
        let (submitted, stream) = self.ask(request);
        Ok(self.block_on(follow(submitted, stream, |_| ()))?)
    }

    /// Empties the pool; what is kept is in the store then, and nowhere else.
    pub fn evict_all(&self) -> Result<(), Failure> {
        let evicted = self.block_on(self.engine.evict_all_to_disk())?;
        match evicted.failed {
            0 => Ok(()),
            failed => Err(anyhow!("{failed} conversations could not be saved").into()),
        }
    }

    /// Runs what reads streams.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Reads the streams of requests of these prompts at the same time, to their ends.
    pub fn run_all(
        &self,
        prompts: Vec<Vec<TokenId>>,
        reply_tokens: usize,
    ) -> Result<Vec<Timeline>, Failure> {
        self.interrupt.check()?;
        let submitted: Vec<_> =
            prompts.into_iter().map(|prompt| self.submit(prompt, reply_tokens)).collect();
        let results: Result<Vec<Timeline>, Error> = self.block_on(async {
            let tasks: Vec<_> = submitted
                .into_iter()
                .map(|(at, stream)| tokio::spawn(follow(at, stream, |_| ())))
                .collect();
            let mut timelines = Vec::new();
            for task in tasks {
                timelines.push(task.await.expect("reading does not panic")?);
            }
            Ok(timelines)
        });
        Ok(results?)
    }

    /// Does the work of `batch` once: tokens per second of all requests together, from their
    /// submission to the last token. Their prompts have KV already.
    pub fn tokens_per_s(&self, work: &Work) -> Result<f64, Failure> {
        let Work::Batch { sequences, context, tokens } = *work else {
            unreachable!("only `batch` is measured here")
        };
        let prompts: Vec<_> =
            (0..sequences as u64).map(|seed| self.prompt(seed, context)).collect();
        self.run_all(prompts.clone(), 1)?;
        let started = Instant::now();
        let timelines = self.run_all(prompts, tokens)?;
        let seconds = started.elapsed().as_secs_f64();
        for timeline in timelines {
            assert_eq!(timeline.outcome.admitted.cached_tokens, context - 1);
            assert_eq!(timeline.outcome.choices[0].completion_tokens, tokens);
        }
        Ok((sequences * tokens) as f64 / seconds)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.engine.shutdown();
    }
}

/// A request whose reply has exactly so many tokens.
pub fn request(prompt: Vec<TokenId>, reply_tokens: usize) -> Request {
    Request {
        namespace: Namespace::local(),
        agent: None,
        prompt: prompt.into(),
        max_tokens: Some(reply_tokens),
        sampling: Sampling::GREEDY,
        stops: Vec::new(),
        reply: Reply::Turn,
        choices: 1,
        logprobs: None,
        is_end_ignored: true,
        grammar: None,
        is_ephemeral: false,
    }
}

/// Reads a stream to its end.
pub async fn follow(
    submitted: Instant,
    mut stream: Stream,
    mut on_event: impl FnMut(&Event),
) -> Result<Timeline, Error> {
    let mut texts = Vec::new();
    while let Some(item) = stream.next().await {
        let event = item?;
        on_event(&event);
        match event {
            Event::Text(_) => texts.push(Instant::now()),
            Event::Finished(outcome) => {
                return Ok(Timeline { submitted, texts, finished: Instant::now(), outcome });
            }
            Event::Admitted(_) | Event::Prefilled { .. } => (),
        }
    }
    Err(Error::Stopped)
}
