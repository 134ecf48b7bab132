//! Agents that ask in quick succession, at the same time: each gets its own answers, those that it
//! gets alone.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value as Json;

use super::burst::Said;
use super::client::{Client, chat_once};
use super::{Host, UNLIMITED, chat};
use crate::cli::bench::report::{Cell, Row};
use crate::cli::output::Failure;

const AGENTS: usize = 10;
const REQUESTS: usize = 50;
const REPLY_TOKENS: usize = 12;

pub fn rows(host: &Host<'_>) -> Result<Vec<Row>, Failure> {
    let unlimited = ask_all(host, "agents", &UNLIMITED)?;
    let limited = ask_all(host, "limited-agents", &[])?;
    // Without limits nobody is refused; with them nobody for another reason.
    let all = unlimited.ok == unlimited.requests && unlimited.wrong_text == 0;
    let others = limited.unavailable + limited.wrong + limited.wrong_text == 0;
    Ok(vec![unlimited.row("no limits", all), limited.row("default limits", others)])
}

#[derive(Default)]
struct Counts {
    requests: usize,
    ok: usize,
    too_many: usize,
    unavailable: usize,
    wrong: usize,
    /// Of those that are ok.
    wrong_text: usize,
    seconds: f64,
}

fn ask_all(host: &Host<'_>, name: &str, flags: &[&str]) -> Result<Counts, Failure> {
    let server = host.serving(name, flags)?;
    let address = server.address;
    let requests = host.share(REQUESTS);
    host.block_on(async {
        let mut expected = Vec::new();
        for number in 0..AGENTS {
            // Alone, and as somebody else, so that no limit counts it.
            let answer = chat_once(address, &format!("alone-{number}"), &question(number)).await?;
            expected.push(text(&answer.json()));
        }
        let started = Instant::now();
        let agents = expected
            .iter()
            .enumerate()
            .map(|(number, expected)| ask(address, number, requests, expected));
        let mut counts = Counts::default();
        for agent in futures_util::future::join_all(agents).await {
            counts.add(&agent);
        }
        counts.seconds = started.elapsed().as_secs_f64();
        Ok(counts)
    })
}

/// What no other agent asks.
fn question(number: usize) -> Json {
    let words = ["heron", "amber", "cello", "delta", "ember", "fjord", "gecko", "hazel"];
    let canary = words[number % words.len()];
    chat(
        &format!("Agent {number} keeps the word {canary}{number}. Tell a tale of it."),
        REPLY_TOKENS,
    )
}

fn text(answer: &Json) -> Option<String> {
    answer["choices"][0]["message"]["content"].as_str().map(str::to_owned)
}

async fn ask(
    address: SocketAddr,
    number: usize,
    requests: usize,
    expected: &Option<String>,
) -> Counts {
    let agent = format!("agent-{number}");
    let body = question(number);
    let mut counts = Counts { requests, ..Counts::default() };
    let mut connection = Client::connect(address).await;
    for _ in 0..requests {
        let answer = match &mut connection {
            Ok(client) => client.chat(&agent, &body).await,
            Err(error) => Err(error.kind().into()),
        };
        match Said::of(&answer) {
            Said::Ok => counts.ok += 1,
            Said::TooMany => counts.too_many += 1,
            Said::Unavailable => counts.unavailable += 1,
            Said::Wrong => counts.wrong += 1,
        }
        let is_last = answer.as_ref().map_or(true, |answer| answer.is_last);
        if let Ok(answer) = answer
            && answer.status == 200
        {
            let json = answer.json();
            let is_right = text(&json) == *expected && json["semantic"]["agent"] == *agent;
            counts.wrong_text += usize::from(!is_right);
        }
        if is_last {
            connection = Client::connect(address).await;
        }
    }
    counts
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.requests += other.requests;
        self.ok += other.ok;
        self.too_many += other.too_many;
        self.unavailable += other.unavailable;
        self.wrong += other.wrong;
        self.wrong_text += other.wrong_text;
    }

    fn row(&self, name: &str, holds: bool) -> Row {
        let each = self.requests / AGENTS;
        Row::new(format!("{AGENTS} agents × {each} requests, {name}"))
            .with("ok", Cell::Count(self.ok as u64))
            .with("http_429", Cell::Count(self.too_many as u64))
            .with("http_503", Cell::Count(self.unavailable as u64))
            .with("other", Cell::Count(self.wrong as u64))
            .with("wrong_text", Cell::Count(self.wrong_text as u64))
            .with("seconds", Cell::Number(self.seconds, 1))
            .with("promise", Cell::Verdict(holds))
    }
}
