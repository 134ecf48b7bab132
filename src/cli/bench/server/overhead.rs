//! What HTTP adds to the engine: the same work asked over the network and of an engine in this
//! process, in turn.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value as Json;

use super::start::ms;
use super::{Client, Host, UNLIMITED, chat};
use crate::cli::bench::figure::Figure;
use crate::cli::bench::live::{Live, follow, request};
use crate::cli::bench::report::{Cell, Row, verdict};
use crate::cli::bench::setup::blocks;
use crate::cli::output::Failure;
use crate::engine::Event;

/// Short, so that what HTTP adds is seen beside it.
const WORDS: usize = 16;
const REPLY_TOKENS: usize = 96;
/// A reply of fewer tokens has no speed.
const REPLY_TOKENS_MIN: usize = 8;
/// For each of the user's rounds: a difference of 1 ms is looked for.
const REPETITIONS: usize = 6;

/// The promises.
const TTFT_ADDED_MS_MAX: f64 = 2.0;
const SPEED_RATIO_MIN: f64 = 0.98;

pub fn rows(host: &Host<'_>) -> Result<Vec<Row>, Failure> {
    let context = host.setup.summary.context_tokens;
    let reply_tokens = REPLY_TOKENS.min(context / 2);
    let server = host.serving("overhead", &UNLIMITED)?;
    let live = Live::start(host.setup, 64 * blocks(2 * reply_tokens), 1)?;
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for round in 0..=REPETITIONS * host.setup.arguments.runs {
        host.setup.interrupt.check()?;
        let over_http = host.block_on(over_http(&server.address, round, reply_tokens))?;
        let Some((http, prompt)) = over_http else { continue };
        let direct = direct(&live, round, prompt, reply_tokens)?;
        // The first finds what both touch for the first time, and nothing to reuse.
        if let (Some(direct), 1..) = (direct, round) {
            theirs.push(direct);
            ours.push(http);
        }
    }
    if ours.is_empty() {
        return Ok(Vec::new());
    }
    let figure =
        |taken: &[Taken], value: fn(&Taken) -> f64| Figure::new(taken.iter().map(value).collect());
    let [http_ttft, engine_ttft] = [&ours, &theirs].map(|taken| figure(taken, |it| it.ttft_ms));
    let [http_speed, engine_speed] =
        [&ours, &theirs].map(|taken| figure(taken, |it| it.tokens_per_s));
    let added = http_ttft.median() - engine_ttft.median();
    let ratio = http_speed.ratio(&engine_speed);
    let holds = added <= TTFT_ADDED_MS_MAX && ratio >= SPEED_RATIO_MIN;
    let row = Row::new("HTTP over the engine")
        .with("ttft_ms", Cell::Figure(http_ttft))
        .with("engine_ttft_ms", Cell::Figure(engine_ttft))
        .with("added_ms", Cell::Number(added, 2))
        .with("at_most_ms", Cell::Number(TTFT_ADDED_MS_MAX, 0))
        .with("tokens_per_s", Cell::Figure(http_speed))
        .with("engine_tokens_per_s", Cell::Figure(engine_speed))
        .with("ratio", Cell::Number(ratio, 3))
        .with("at_least", Cell::Number(SPEED_RATIO_MIN, 2))
        .with("promise", Cell::Text(verdict(holds)));
    Ok(vec![row])
}

/// What a reply took.
struct Taken {
    ttft_ms: f64,
    /// After the first token.
    tokens_per_s: f64,
}

/// The tokens of a prompt, and how many of them were not computed again.
#[derive(Clone, Copy)]
struct Prompt {
    tokens: usize,
    cached: usize,
}

/// And its prompt; `None` if the model had too little to say.
async fn over_http(
    address: &SocketAddr,
    round: usize,
    reply_tokens: usize,
) -> Result<Option<(Taken, Prompt)>, Failure> {
    let words: Vec<String> = (0..WORDS).map(|word| (round * WORDS + word).to_string()).collect();
    let text = format!("{} is a list. Continue it for as long as you can.", words.join(" "));
    let mut client = Client::connect(*address).await?;
    let agent = format!("agent-{round}");
    let streamed = client.stream(&agent, &chat(&text, reply_tokens), || ()).await?;
    let count = |value: &Json| value.as_u64().unwrap_or_default() as usize;
    let usage = &streamed.usage;
    let completion = count(&usage["completion_tokens"]);
    let prompt = Prompt {
        tokens: count(&usage["prompt_tokens"]),
        cached: count(&usage["prompt_tokens_details"]["cached_tokens"]),
    };
    let (Some(first), Some(last)) = (streamed.texts.first(), streamed.texts.last()) else {
        return Ok(None);
    };
    if completion < REPLY_TOKENS_MIN.min(reply_tokens) || first == last {
        return Ok(None);
    }
    let taken = Taken {
        ttft_ms: ms(streamed.asked, *first),
        tokens_per_s: (completion - 1) as f64 / (*last - *first).as_secs_f64(),
    };
    Ok(Some((taken, prompt)))
}

/// The same work of other tokens; `None` if not as many were reused.
fn direct(
    live: &Live<'_>,
    round: usize,
    prompt: Prompt,
    reply_tokens: usize,
) -> Result<Option<Taken>, Failure> {
    let mut tokens = live.prompt(0, prompt.cached);
    tokens.extend(live.prompt(1 + round as u64, prompt.tokens - prompt.cached));
    let (submitted, stream) = live.ask(request(tokens, reply_tokens));
    let mut last = Instant::now();
    let timeline = live.block_on(follow(submitted, stream, |event| {
        if matches!(event, Event::Text(_)) {
            last = Instant::now();
        }
    }))?;
    let first = submitted + timeline.ttft();
    let tokens = timeline.outcome.choices[0].completion_tokens;
    let is_same = timeline.outcome.admitted.cached_tokens == prompt.cached;
    Ok(is_same.then(|| Taken {
        ttft_ms: ms(submitted, first),
        tokens_per_s: (tokens - 1) as f64 / last.saturating_duration_since(first).as_secs_f64(),
    }))
}
