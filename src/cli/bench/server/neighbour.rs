//! A noisy neighbour: while one key floods the server with long prompts that nobody has sent before,
//! how soon does an agent of another key have its next answer?

use std::cell::Cell as Shared;
use std::net::SocketAddr;
use std::time::Instant;

use super::client::Client;
use super::client::ms;
use super::process::Server;
use super::{Host, UNLIMITED, chat};
use crate::cli::bench::figure::Figure;
use crate::cli::bench::report::{Cell, Row};
use crate::cli::output::Failure;
use crate::text::Tokenizer;

const KEYS: &str = "neighbour-who-floods-1,neighbour-who-talks-2";
const NOISY: &str = "neighbour-who-floods-1";
const QUIET: &str = "neighbour-who-talks-2";
/// Who floods, each with one prompt after the other.
const FLOODERS: usize = 4;
/// Of a prompt, but no more than this share of the context.
const FLOOD_PROMPT_TOKENS: usize = 3_000;
const FLOOD_REPLY_TOKENS: usize = 8;
/// The conversation whose turns are timed is about as long as a chat of some turns.
const TALK_PROMPT_TOKENS: usize = 1_000;
const TALK_REPLY_TOKENS: usize = 4;
const CONTEXT_SHARE: usize = 3;
/// Turns alone, and as many beside the flood.
const TURNS: usize = 30;
/// In MB. A few prompts of the flood fill it, so that each next one needs what somebody had.
const POOL: &str = "--kv-pool-mb=100";

/// The promise.
const RATIO_MAX: f64 = 2.0;

pub fn rows(host: &Host<'_>) -> Result<Vec<Row>, Failure> {
    let flags = [&UNLIMITED[..], &[POOL]].concat();
    let server = host.ready(Server::start_for(host, "neighbour", &flags, Some(KEYS))?)?;
    let turns = host.share(TURNS);
    let flooded = Shared::new(0);
    let (talk_sentences, flood_sentences) = sizes(host)?;
    let talk = |number| talk(server.address, talk_sentences, number);
    let talked = host.block_on(async {
        // The turn that reads all of it is not counted.
        talk(0).await?;
        let mut alone = Vec::new();
        for number in 0..turns {
            alone.push(talk(1 + number).await?);
        }
        let beside = async {
            let mut beside = Vec::new();
            // The flood is there when as many prompts as there are of them have been read.
            while flooded.get() < FLOODERS {
                talk(1 + turns).await?;
            }
            for number in 0..turns {
                beside.push(talk(2 + turns + number).await?);
            }
            std::io::Result::Ok(beside)
        };
        let floods = (0..FLOODERS).map(|it| flood(server.address, flood_sentences, it, &flooded));
        tokio::select! {
            beside = beside => Ok((alone, beside?)),
            () = async { drop(futures_util::future::join_all(floods).await) } => {
                Err(std::io::Error::other("the flood was refused"))
            }
        }
    });
    host.setup.interrupt.check()?;
    let (alone, beside) = talked?;
    Ok(vec![row(&alone, &beside, flooded.get())])
}

struct Turn {
    ttft_ms: f64,
    cached_tokens: u64,
}

/// One turn of the agent: what it has always said, and a question of its own.
async fn talk(address: SocketAddr, count: usize, number: usize) -> std::io::Result<Turn> {
    let text = format!("{} Question {number}?", sentences(0, count));
    let body = chat(&text, TALK_REPLY_TOKENS);
    let mut client = Client::connect(address).await?.with_key(QUIET);
    let streamed = client.stream("quiet", &body, || ()).await?;
    if streamed.answer.status != 200 {
        return Err(std::io::Error::other("the quiet agent was refused"));
    }
    // Of a reply without a text the end is all there is to see.
    let first = streamed.texts.first().copied().unwrap_or_else(Instant::now);
    let cached = &streamed.usage["prompt_tokens_details"]["cached_tokens"];
    let cached_tokens = cached.as_u64().unwrap_or_default();
    Ok(Turn { ttft_ms: ms(streamed.asked, first), cached_tokens })
}

/// Sends prompts until it is dropped, or refused.
async fn flood(address: SocketAddr, count: usize, flooder: usize, flooded: &Shared<usize>) {
    let mut number = flooder;
    let Ok(client) = Client::connect(address).await else { return };
    let mut client = client.with_key(NOISY);
    loop {
        number += FLOODERS;
        let body = chat(&sentences(number, count), FLOOD_REPLY_TOKENS);
        let answer = client.chat(&format!("noisy-{number}"), &body).await;
        if !answer.is_ok_and(|answer| answer.status == 200 && !answer.is_last) {
            return;
        }
        flooded.set(flooded.get() + 1);
    }
}

/// In sentences, what a turn and a prompt of the flood have.
fn sizes(host: &Host<'_>) -> Result<(usize, usize), Failure> {
    let tokenizer = Tokenizer::new(&host.setup.files.text()?)?;
    let each = tokenizer.encode_raw(&sentences(9_999, 1))?.len() + 1;
    let most = host.setup.summary.context_tokens / CONTEXT_SHARE;
    let count = |tokens: usize| (tokens.min(most) / each).max(1);
    Ok((count(TALK_PROMPT_TOKENS), count(FLOOD_PROMPT_TOKENS)))
}

/// A text that differs from others from its first words on.
fn sentences(seed: usize, count: usize) -> String {
    let sentence = |number: usize| {
        let litres = (seed * 7919 + number * 131) % 9973;
        format!("In tank {seed} at noon of day {number} there were {litres} litres.")
    };
    (0..count).map(sentence).collect::<Vec<_>>().join(" ")
}

fn row(alone: &[Turn], beside: &[Turn], flooded: usize) -> Row {
    let times = |turns: &[Turn]| Figure::new(turns.iter().map(|turn| turn.ttft_ms).collect());
    let least = |turns: &[Turn]| turns.iter().map(|turn| turn.cached_tokens).min().unwrap_or(0);
    let (quiet, noisy) = (times(alone), times(beside));
    let ratio = noisy.median() / quiet.median();
    let is_kept = least(beside) >= least(alone);
    Row::new(format!("{} turns beside {FLOODERS} who flood", beside.len()))
        .with("flood_prompts", Cell::Count(flooded as u64))
        .with("alone_ms", Cell::Figure(quiet))
        .with("beside_ms", Cell::Figure(noisy))
        .with("ratio", Cell::Number(ratio, 2))
        .with("cached_alone", Cell::Count(least(alone)))
        .with("cached_beside", Cell::Count(least(beside)))
        .with("promise", Cell::Verdict(ratio <= RATIO_MAX && is_kept))
}
