//! What is asked of every server, and what each found.

use serde_json::{Value as Json, json};

use super::endpoint::{Endpoint, Speaker, Streamed};
use crate::cli::bench::client::ms;
use crate::cli::bench::figure::Figure;
use crate::cli::bench::host::Host;
use crate::cli::bench::setup::Setup;
use crate::cli::bench::talk::Talk;

/// Of the first prompt, as our template and tokenizer count.
const LENGTHS: [usize; 3] = [64, 512, 2_048];
/// Of what is said and asked after the prompt.
const REPLY_TOKENS: usize = 16;
const NEXT: &str = "Go on.";
/// Of the second turn that are not reply: what templates put around messages, and the question.
const NEXT_TOKENS: usize = 32;
/// Of streams whose speed counts, after a short prompt.
const SPEED_TOKENS: usize = 128;
const SPEED_PROMPT_TOKENS: usize = 64;
/// Streams at once.
const STREAMS: usize = 4;
/// A reply of fewer tokens has no speed.
const SPEED_TOKENS_MIN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A prompt of so many tokens, and the conversation's second turn.
    Turns { tokens: usize },
    /// So many streams at once.
    Streams { count: usize },
}

/// What a work gave.
pub enum Found {
    Turns(Turn, Turn),
    Speed { tokens_per_s: f64 },
}

impl Found {
    pub fn turns(&self) -> Option<(&Turn, &Turn)> {
        match self {
            Found::Turns(first, second) => Some((first, second)),
            Found::Speed { .. } => None,
        }
    }

    pub fn tokens_per_s(&self) -> Option<f64> {
        match self {
            Found::Turns(..) => None,
            Found::Speed { tokens_per_s } => Some(*tokens_per_s),
        }
    }
}

/// A request's time to the first token, and what the server counted.
pub struct Turn {
    pub ttft_ms: f64,
    pub prompt_tokens: Option<u64>,
    pub cached_tokens: Option<u64>,
}

/// The works for which the context of our model has room.
pub fn works(setup: &Setup<'_>) -> Vec<Work> {
    let fits =
        |tokens: &usize| tokens + 2 * REPLY_TOKENS + NEXT_TOKENS <= setup.summary.context_tokens;
    let turns = LENGTHS.into_iter().filter(fits).map(|tokens| Work::Turns { tokens });
    turns.chain([1, STREAMS].map(|count| Work::Streams { count })).collect()
}

impl Work {
    pub fn name(self) -> String {
        match self {
            Work::Turns { tokens } => format!("{tokens} tokens"),
            Work::Streams { count: 1 } => "1 stream".to_owned(),
            Work::Streams { count } => format!("{count} streams"),
        }
    }

    pub fn run(
        self,
        host: &Host<'_>,
        talk: &Talk,
        server: &Endpoint,
        round: usize,
    ) -> anyhow::Result<Found> {
        match self {
            Work::Turns { tokens } => turns(talk, server, round, tokens),
            Work::Streams { count } => streams(host, talk, server, round, count),
        }
    }
}

fn turns(talk: &Talk, server: &Endpoint, round: usize, tokens: usize) -> anyhow::Result<Found> {
    let mut messages = talk.question(&format!("Case {round} of {tokens}."), tokens)?;
    let speaker = server.speaker();
    let first = server.stream(&speaker, &messages, REPLY_TOKENS)?;
    messages.push(json!({ "role": "assistant", "content": first.reply }));
    messages.push(json!({ "role": "user", "content": NEXT }));
    let second = server.stream(&speaker, &messages, REPLY_TOKENS)?;
    Ok(Found::Turns(Turn::of(&first), Turn::of(&second)))
}

/// Tokens of all streams, from the first text of any of them to the last of any.
fn streams(
    host: &Host<'_>,
    talk: &Talk,
    server: &Endpoint,
    round: usize,
    count: usize,
) -> anyhow::Result<Found> {
    let mut asked = Vec::new();
    for number in 0..count {
        let mark = format!("Tale {round} of {count}, number {number}.");
        asked.push((server.speaker(), talk.question(&mark, SPEED_PROMPT_TOKENS)?));
    }
    let streams = asked.into_iter().map(|(speaker, messages)| stream(server, speaker, messages));
    let streamed = host.block_on(futures_util::future::join_all(streams));
    let streamed = streamed.into_iter().collect::<anyhow::Result<Vec<Streamed>>>()?;
    let tokens: u64 = streamed.iter().map(Streamed::tokens).sum();
    let first = streamed.iter().map(|it| it.first).min().expect("at least one");
    let last = streamed.iter().map(|it| it.last).max().expect("at least one");
    let seconds = ms(first, last) / 1e3;
    anyhow::ensure!(
        tokens >= (SPEED_TOKENS_MIN * count) as u64 && seconds > 0.0,
        "too little was said to have a speed"
    );
    // The first token's time is not in it.
    Ok(Found::Speed { tokens_per_s: (tokens - 1) as f64 / seconds })
}

/// On a thread of its own, as reading blocks.
async fn stream(
    server: &Endpoint,
    speaker: Speaker,
    messages: Vec<Json>,
) -> anyhow::Result<Streamed> {
    let server = server.clone();
    let work = move || server.stream(&speaker, &messages, SPEED_TOKENS);
    tokio::task::spawn_blocking(work).await?
}

impl Turn {
    fn of(streamed: &Streamed) -> Turn {
        Turn {
            ttft_ms: ms(streamed.asked, streamed.first),
            prompt_tokens: streamed.counts.map(|counts| counts.prompt_tokens),
            cached_tokens: streamed.counts.and_then(|counts| counts.cached_tokens),
        }
    }
}

/// What the rounds of one work gave on one server.
#[derive(Default)]
pub struct Measured {
    pub found: Vec<Found>,
    /// The first that failed, in whichever round.
    pub failure: Option<String>,
}

impl Measured {
    /// Of the round that is not counted only the failure is.
    pub fn add(&mut self, found: anyhow::Result<Found>, round: usize) {
        match found {
            Ok(found) if round > 0 => self.found.push(found),
            Ok(_) => (),
            Err(error) => {
                self.failure.get_or_insert(format!("{error:#}"));
            }
        }
    }

    /// `None` if no round has it.
    pub fn figure(&self, value: impl Fn(&Found) -> Option<f64>) -> Option<Figure> {
        let values: Vec<f64> = self.found.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| Figure::new(values))
    }
}
