//! Requests of one agent, one after another, each with the conversation so far: what the server
//! has of it need not be computed again.

use std::time::Instant;

use serde_json::{Value as Json, json};

use super::{Aim, Bench, Times};
use crate::cli::bench::client::{Client, ms};
use crate::cli::bench::figure::Figure;
use crate::cli::bench::host::UNLIMITED;
use crate::cli::bench::report::{Cell, Row};
use crate::cli::bench::server_process::Server;
use crate::cli::output::Failure;

const NAME: &str = "sequential_requests_same_agent";
/// Of the first prompt, with all that the template puts around it.
const LENGTHS: [usize; 4] = [32, 64, 128, 256];
/// Requests of an agent whose whole answers are timed, and how long those are.
const TURNS: usize = 3;
const TURNS_PROMPT_TOKENS: usize = 64;
const TURNS_REPLY_TOKENS: usize = 16;
/// Where only the first token counts.
const REPLY_TOKENS: usize = 8;
const NEXT: &str = "Go on.";

const AIM: Aim = Aim { before_ms: 1_456.0, target_ms: 2_000.0 };
/// Of the time that the first turn's first token takes: that memory shows.
const RATIO_MAX: f64 = 1.0;
/// A second turn of a shorter conversation is as long as the first: only that something was reused
/// can be asked for.
const RATIO_TOKENS_MIN: usize = 64;

pub fn rows(bench: &Bench<'_>) -> Result<Vec<Row>, Failure> {
    let host = &bench.host;
    let server = host.serving("baseline-sequence", &UNLIMITED)?;
    let mut whole = Times::default();
    let mut pairs: Vec<Pairs> = LENGTHS.into_iter().map(Pairs::new).collect();
    for round in 0..=host.setup.sizes.runs {
        let mut conversation =
            Conversation::new(bench, &server, &format!("Steps {round}."), TURNS_PROMPT_TOKENS)?;
        for _ in 0..TURNS {
            let turn = conversation.turn(TURNS_REPLY_TOKENS)?;
            if round > 0 {
                whole.add(turn.map(|turn| turn.took_ms));
            }
        }
        for pairs in &mut pairs {
            let mark = format!("Pair {round} of {}.", pairs.tokens);
            let mut conversation = Conversation::new(bench, &server, &mark, pairs.tokens)?;
            let first = conversation.turn(REPLY_TOKENS)?;
            let second = conversation.turn(REPLY_TOKENS)?;
            if let (1.., Some(first), Some(second)) = (round, first, second) {
                pairs.turns.push((first, second));
            }
        }
    }
    let mut rows = vec![whole.row(NAME, &AIM)];
    rows.extend(pairs.iter().map(Pairs::row));
    Ok(rows)
}

/// One agent's, of which each request has all before it.
struct Conversation<'a> {
    bench: &'a Bench<'a>,
    server: &'a Server,
    agent: String,
    messages: Vec<Json>,
}

/// What a request found and took.
struct Turn {
    ttft_ms: f64,
    took_ms: f64,
    prompt_tokens: u64,
    /// Of the prompt, those that were not computed again.
    reused_tokens: u64,
}

impl<'a> Conversation<'a> {
    fn new(
        bench: &'a Bench<'a>,
        server: &'a Server,
        mark: &str,
        tokens: usize,
    ) -> Result<Conversation<'a>, Failure> {
        let agent = format!("bench-{}", mark.to_lowercase().replace([' ', '.'], "-"));
        Ok(Conversation { bench, server, agent, messages: bench.talk.opening(mark, tokens)? })
    }

    /// `None` if it was not answered, or the model had nothing to say.
    fn turn(&mut self, reply_tokens: usize) -> Result<Option<Turn>, Failure> {
        let host = &self.bench.host;
        host.setup.interrupt.check()?;
        let body = json!({
            "messages": self.messages,
            "max_tokens": reply_tokens,
            "temperature": 0,
        });
        let address = self.server.address;
        let streamed = host.block_on(async {
            Client::connect(address).await?.stream(&self.agent, &body, || ()).await
        })?;
        let answered = Instant::now();
        self.messages.push(json!({ "role": "assistant", "content": streamed.reply }));
        self.messages.push(json!({ "role": "user", "content": NEXT }));
        let Some(first) = streamed.texts.first() else { return Ok(None) };
        let count = |value: &Json| value.as_u64().unwrap_or_default();
        Ok(Some(Turn {
            ttft_ms: ms(streamed.asked, *first),
            took_ms: ms(streamed.asked, answered),
            prompt_tokens: count(&streamed.usage["prompt_tokens"]),
            reused_tokens: count(&streamed.usage["prompt_tokens_details"]["cached_tokens"]),
        }))
    }
}

/// First and second turns of conversations that begin with a prompt of so many tokens.
struct Pairs {
    tokens: usize,
    turns: Vec<(Turn, Turn)>,
}

impl Pairs {
    fn new(tokens: usize) -> Pairs {
        Pairs { tokens, turns: Vec::new() }
    }

    /// Without figures if the model never had anything to say.
    fn row(&self) -> Row {
        let row = Row::new(format!("{NAME}, {} tokens", self.tokens));
        if self.turns.is_empty() {
            return row.with("target", Cell::Verdict(false));
        }
        let figure = |value: &dyn Fn(&(Turn, Turn)) -> f64| {
            Figure::new(self.turns.iter().map(value).collect())
        };
        let first = figure(&|(first, _)| first.ttft_ms);
        let second = figure(&|(_, second)| second.ttft_ms);
        let count = |value: &dyn Fn(&(Turn, Turn)) -> u64| {
            Cell::Count(figure(&|turns| value(turns) as f64).median() as u64)
        };
        let reused = figure(&|(_, second)| second.reused_tokens as f64);
        let ratio = second.ratio(&first);
        let is_reused = reused.min() > 0.0;
        let row = row
            .with("prompt_tokens", count(&|(first, _)| first.prompt_tokens))
            .with("first_ttft_ms", Cell::Figure(first))
            .with("second_prompt_tokens", count(&|(_, second)| second.prompt_tokens))
            .with("reused_tokens", count(&|(_, second)| second.reused_tokens))
            .with("second_ttft_ms", Cell::Figure(second))
            .with("ratio", Cell::Number(ratio, 2));
        if self.tokens < RATIO_TOKENS_MIN {
            return row.with("target", Cell::Verdict(is_reused));
        }
        row.with("target_below", Cell::Number(RATIO_MAX, 2))
            .with("target", Cell::Verdict(is_reused && ratio < RATIO_MAX))
    }
}
