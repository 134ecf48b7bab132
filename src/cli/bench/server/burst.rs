//! Many requests at once: each is answered or told when to come back, and who does so is answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::client::{Answer, chat_once};
use super::{ANSWER_TIMEOUT, Host, chat};
use crate::cli::bench::report::{Cell, Row};
use crate::cli::output::Failure;

const REQUESTS: usize = 150;
const REPLY_TOKENS: usize = 16;
/// Of those that run and wait together, with room for more than half of the requests: of a line's
/// places one namespace has half.
const SHORT_LINE: [&str; 2] = ["--max-running=8", "--queue-requests=160"];
/// Of the first answers.
const OK_PERCENT_MIN: usize = 50;

pub fn rows(host: &Host<'_>) -> Result<Vec<Row>, Failure> {
    let rows = [
        ("defaults", burst(host, "burst", &[])?),
        ("8 at a time, 80 wait", burst(host, "short-line", &SHORT_LINE)?),
    ];
    Ok(rows.into_iter().map(|(name, asked)| row(name, &asked)).collect())
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Ok,
    /// 429, with the time to wait.
    TooMany,
    /// 503, with the time to wait.
    Unavailable,
    /// Anything else, also no answer within the time.
    Wrong,
}

impl Said {
    pub fn of(answer: &std::io::Result<Answer>) -> Said {
        let Ok(answer) = answer else { return Said::Wrong };
        match (answer.status, answer.retry_after) {
            (200, _) => Said::Ok,
            (429, Some(_)) => Said::TooMany,
            (503, Some(_)) => Said::Unavailable,
            _ => Said::Wrong,
        }
    }
}

/// A request with its repetitions.
struct Asked {
    first: Said,
    /// Until the first answer.
    took: Duration,
    last: Said,
}

fn burst(host: &Host<'_>, name: &str, flags: &[&str]) -> Result<Vec<Asked>, Failure> {
    let server = host.serving(name, flags)?;
    let requests = (0..host.share(REQUESTS)).map(|number| ask(server.address, number));
    let asked = host.block_on(futures_util::future::join_all(requests));
    host.setup.interrupt.check()?;
    Ok(asked)
}

/// Asks, and again as often as it is told to come back and nobody would have given up.
async fn ask(address: SocketAddr, number: usize) -> Asked {
    let body = chat(&format!("Say something about the number {number}."), REPLY_TOKENS);
    let started = Instant::now();
    let mut first = None;
    loop {
        let answer = chat_once(address, &format!("agent-{number}"), &body).await;
        let said = Said::of(&answer);
        let (first, took) = *first.get_or_insert((said, started.elapsed()));
        let wait = answer.ok().and_then(|answer| answer.retry_after).unwrap_or_default();
        let is_refused = matches!(said, Said::TooMany | Said::Unavailable);
        if !is_refused || started.elapsed() + wait > 2 * ANSWER_TIMEOUT {
            return Asked { first, took, last: said };
        }
        tokio::time::sleep(wait).await;
    }
}

fn row(name: &str, asked: &[Asked]) -> Row {
    let first = |said| asked.iter().filter(|asked| asked.first == said).count();
    let in_the_end = asked.iter().filter(|asked| asked.last == Said::Ok).count();
    let slowest = asked.iter().map(|asked| asked.took).max().unwrap_or_default();
    let holds = first(Said::Wrong) == 0
        && 100 * first(Said::Ok) > OK_PERCENT_MIN * asked.len()
        && in_the_end == asked.len()
        && slowest <= ANSWER_TIMEOUT;
    Row::new(format!("{} requests at once, {name}", asked.len()))
        .with("ok", Cell::Count(first(Said::Ok) as u64))
        .with("http_429", Cell::Count(first(Said::TooMany) as u64))
        .with("http_503", Cell::Count(first(Said::Unavailable) as u64))
        .with("other", Cell::Count(first(Said::Wrong) as u64))
        .with("slowest_s", Cell::Number(slowest.as_secs_f64(), 1))
        .with("ok_in_the_end", Cell::Count(in_the_end as u64))
        .with("promise", Cell::Verdict(holds))
}
