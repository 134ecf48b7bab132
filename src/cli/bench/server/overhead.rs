//! What HTTP adds to the engine: the same requests asked of one engine, over the network and
//! directly, in turn.
//!
//! Server and engine are in this process. An engine of its own on each side would measure which of
//! the two has the machine's caches and cores at that moment: several times what is looked for.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::Value as Json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::client::ms;
use super::{Client, Host, chat};
use crate::cli::bench::figure::Figure;
use crate::cli::bench::live::{Live, Start, follow, request};
use crate::cli::bench::report::{Cell, Row};
use crate::cli::bench::setup::{Setup, blocks};
use crate::cli::model;
use crate::cli::output::Failure;
use crate::engine::{Event, Request};
use crate::http::{self, App, Bounds, KvShape, LogControl, Rates, Serving};
use crate::metrics::Metrics;
use crate::text::{ChatTemplate, Grammars, Message, RenderOptions, Special};
use crate::types::{AgentId, Namespace, TokenId};

/// Both short, so that what HTTP adds is seen beside what they take and how much that varies.
const WORDS: usize = 4;
const REPLY_TOKENS: usize = 32;
/// A reply of fewer tokens has no speed.
const REPLY_TOKENS_MIN: usize = 8;
/// For each of the user's rounds: a difference of 1 ms is looked for.
const REPETITIONS: usize = 20;

/// The promises.
const TTFT_ADDED_MS_MAX: f64 = 2.0;
const SPEED_RATIO_MIN: f64 = 0.98;

pub fn rows(host: &Host<'_>) -> Result<Vec<Row>, Failure> {
    let pairs = Sides::start(host)?.pairs(REPETITIONS * host.setup.sizes.runs)?;
    if pairs.is_empty() {
        // The model says too little.
        return Ok(vec![
            Row::new("HTTP over the engine").with("measured", Cell::Text("no".into())),
        ]);
    }
    let figure = |value: &dyn Fn(&Pair) -> f64| Figure::new(pairs.iter().map(value).collect());
    let added = figure(&|pair| pair.http.ttft_ms - pair.engine.ttft_ms);
    let ratio = figure(&|pair| pair.http.tokens_per_s / pair.engine.tokens_per_s);
    let holds = added.median() <= TTFT_ADDED_MS_MAX && ratio.median() >= SPEED_RATIO_MIN;
    let row = Row::new("HTTP over the engine")
        .with("ttft_ms", Cell::Figure(figure(&|pair| pair.http.ttft_ms)))
        .with("engine_ttft_ms", Cell::Figure(figure(&|pair| pair.engine.ttft_ms)))
        .with("added_ms", Cell::Figure(added))
        .with("at_most_ms", Cell::Number(TTFT_ADDED_MS_MAX, 0))
        .with("tokens_per_s", Cell::Figure(figure(&|pair| pair.http.tokens_per_s)))
        .with("engine_tokens_per_s", Cell::Figure(figure(&|pair| pair.engine.tokens_per_s)))
        .with("ratio", Cell::Figure(ratio))
        .with("at_least", Cell::Number(SPEED_RATIO_MIN, 2))
        .with("promise", Cell::Verdict(holds));
    Ok(vec![row])
}

/// The same request, asked both ways.
struct Pair {
    http: Taken,
    engine: Taken,
}

/// What a reply took.
struct Taken {
    /// To the first text.
    ttft_ms: f64,
    /// After it.
    tokens_per_s: f64,
    /// The tokens of the prompt that were not computed again.
    cached_tokens: usize,
}

/// An engine, and the server on it.
struct Sides<'a> {
    host: &'a Host<'a>,
    live: Live<'a>,
    template: ChatTemplate,
    client: Client,
    reply_tokens: usize,
    /// Of the server, as it has them in its own process.
    _runtime: Runtime,
}

impl<'a> Sides<'a> {
    fn start(host: &'a Host<'a>) -> Result<Sides<'a>, Failure> {
        let setup = host.setup;
        let reply_tokens = REPLY_TOKENS.min(setup.summary.context_tokens / 2);
        let start = Start {
            model: setup.model_path.clone(),
            options: setup.options(64 * blocks(2 * reply_tokens)),
            running_max: 1,
            keeping: Some(host.scratch.keeping(setup, "overhead")?),
        };
        let live = Live::begin(start, &setup.interrupt)?;
        let runtime = crate::cli::serve::runtime()?;
        let listener = {
            let _inside = runtime.enter();
            http::bind(([127, 0, 0, 1], 0).into())?
        };
        let address = listener.local_addr()?;
        runtime.spawn(serve(listener, serving(setup, &live)?));
        let client = host.block_on(Client::connect(address))?;
        let template = chat_template(setup)?;
        Ok(Sides { host, live, template, client, reply_tokens, _runtime: runtime })
    }

    /// So many, and one before that is not counted.
    fn pairs(&mut self, count: usize) -> Result<Vec<Pair>, Failure> {
        let mut pairs = Vec::new();
        for round in 0..=count {
            self.host.setup.interrupt.check()?;
            // What the first of two leaves in caches is not always the same one's to find.
            let (http, engine) = if round % 2 == 0 {
                let http = self.over_http(round)?;
                (http, self.direct(round)?)
            } else {
                let engine = self.direct(round)?;
                (self.over_http(round)?, engine)
            };
            let (Some(http), Some(engine)) = (http, engine) else { continue };
            if http.cached_tokens != engine.cached_tokens {
                let (theirs, ours) = (http.cached_tokens, engine.cached_tokens);
                let message = format!("{theirs} tokens were reused over HTTP, {ours} without");
                return Err(anyhow::anyhow!(message).into());
            }
            if round > 0 {
                pairs.push(Pair { http, engine });
            }
        }
        Ok(pairs)
    }

    /// `None` if the model had too little to say.
    fn over_http(&mut self, round: usize) -> Result<Option<Taken>, Failure> {
        let (agent, body) = (agent(round), chat(&question(round), self.reply_tokens));
        let asked = self.client.stream(&agent, &body, || ());
        let streamed = self.host.block_on(asked)?;
        let count = |value: &Json| value.as_u64().unwrap_or_default() as usize;
        let cached = count(&streamed.usage["prompt_tokens_details"]["cached_tokens"]);
        let tokens = count(&streamed.usage["completion_tokens"]);
        Ok(taken(streamed.asked, &streamed.texts, tokens, cached))
    }

    fn direct(&self, round: usize) -> Result<Option<Taken>, Failure> {
        let prompt = self.prompt(&question(round))?;
        let asked = Request {
            // Of the same texts, that this one does not find what the other kept.
            namespace: Namespace::new("direct"),
            agent: Some(AgentId::new(&agent(round))?),
            is_end_ignored: false,
            grammar: None,
            ..request(prompt, self.reply_tokens)
        };
        let (submitted, stream) = self.live.ask(asked);
        let mut texts = Vec::new();
        let timeline = self.live.block_on(follow(submitted, stream, |event| {
            if matches!(event, Event::Text(_)) {
                texts.push(Instant::now());
            }
        }))?;
        let outcome = &timeline.outcome;
        let tokens = outcome.choices[0].completion_tokens;
        Ok(taken(submitted, &texts, tokens, outcome.admitted.cached_tokens))
    }

    fn prompt(&self, text: &str) -> Result<Vec<TokenId>, Failure> {
        let messages = [Message::new("user", text)];
        let rendered = self.template.render(&messages, &RenderOptions::new(SystemTime::now()));
        let encoded = rendered.and_then(|it| self.live.tokenizer().encode(&it, Special::Parse));
        encoded.map_err(|error| anyhow::Error::new(error).into())
    }
}

/// Another one each time from its first word on.
fn question(round: usize) -> String {
    let words: Vec<String> = (0..WORDS).map(|word| (round * WORDS + word).to_string()).collect();
    format!("{} is a list. Continue it for as long as you can.", words.join(" "))
}

fn agent(round: usize) -> String {
    format!("bench-{round}")
}

fn taken(
    asked: Instant,
    texts: &[Instant],
    completion_tokens: usize,
    cached_tokens: usize,
) -> Option<Taken> {
    let (first, last) = (*texts.first()?, *texts.last()?);
    let enough = completion_tokens >= REPLY_TOKENS_MIN && last > first;
    enough.then(|| Taken {
        ttft_ms: ms(asked, first),
        tokens_per_s: (completion_tokens - 1) as f64 / (last - first).as_secs_f64(),
        cached_tokens,
    })
}

/// As `semantic serve` has it, without keys and limits.
async fn serve(listener: TcpListener, serving: Serving) {
    let app = App::new(http::Config {
        access: http::Access::Open,
        admin: None,
        allowed_hosts: vec!["localhost".to_owned()],
        cors_origins: Vec::new(),
        rates: Rates { agent: 0, global: 0, failed_keys: 0, tokens: 0 },
        bounds: Bounds::default(),
        metrics: Arc::new(Metrics::default()),
        log: LogControl::new(|_| Ok(())),
    });
    app.start_serving(serving);
    http::serve(listener, app, std::future::pending()).await;
}

fn serving(setup: &Setup<'_>, live: &Live<'_>) -> Result<Serving, Failure> {
    Ok(Serving {
        engine: live.engine().clone(),
        tokenizer: Arc::clone(live.tokenizer()),
        template: chat_template(setup)?,
        grammars: Grammars::new(Arc::clone(live.tokenizer())),
        model: setup.model_name.clone(),
        kv: KvShape::default(),
    })
}

fn chat_template(setup: &Setup<'_>) -> Result<ChatTemplate, Failure> {
    model::chat_template(&setup.files.text()?, &setup.model_path, None)
}
