//! Four times what the server can do, by clients that do not wait for each other: it goes on doing
//! what it can, and tells the others at once to come back. The server has no line: whoever is accepted
//! begins at once.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::burst::Said;
use super::client::Client;
use super::client::ms;
use super::{Host, UNLIMITED, chat};
use crate::cli::bench::figure::Figure;
use crate::cli::bench::report::{Cell, Row};
use crate::cli::output::Failure;

/// Of what it does at most.
const LOAD: f64 = 4.0;
const SECONDS: usize = 60;
/// To find what it does at most, of the time of the load: with requests of the same kind, of as many
/// clients as there are places, each of which asks as soon as it is answered.
const CAPACITY_SHARE: f64 = 0.25;
/// Who asks alone, before, to see how soon an answer begins then.
const ALONE: usize = 20;
const REPLY_TOKENS: usize = 24;
/// Answered at a time: each further one makes the steps longer in which new prompts are read. Two
/// cores answer three fifths of what they could eight at a time, and each three times as soon.
const PLACES: usize = 2;
/// Nobody asks what another has asked: from here on those who find out what it does at most, and
/// from there on the load.
const CAPACITY_NUMBERS: usize = 1 << 20;
const LOAD_NUMBERS: usize = 1 << 21;
/// Requests under way at a time: beyond these a client would run out of sockets, not the server.
const OPEN_MAX: f64 = 50_000.0;

/// The promises.
const GOODPUT_MIN: f64 = 0.9;
const REFUSAL_MS_MAX: f64 = 100.0;
const TTFT_RATIO_MAX: f64 = 3.0;

pub fn rows(host: &Host<'_>) -> Result<Vec<Row>, Failure> {
    let places = format!("--max-running={PLACES}");
    let flags = [&UNLIMITED[..], &[&places, "--queue-requests=0"]].concat();
    let server = host.serving("overload", &flags)?;
    let address = server.address;
    let time = Duration::from_secs(host.share(SECONDS) as u64);
    let alone = host.block_on(async {
        let mut times = Vec::new();
        for number in 0..host.share(ALONE) {
            times.extend(ask(address, number).await.ttft_ms);
        }
        times
    });
    host.setup.interrupt.check()?;
    let capacity = host.block_on(capacity(address, time.mul_f64(CAPACITY_SHARE)));
    host.setup.interrupt.check()?;
    let rate = (capacity * LOAD).clamp(0.1, OPEN_MAX / time.as_secs_f64());
    let asked = host.block_on(hold(address, rate, time));
    host.setup.interrupt.check()?;
    Ok(vec![Load { capacity, time, alone, asked }.row()])
}

/// Requests per second of clients that never wait.
async fn capacity(address: SocketAddr, time: Duration) -> f64 {
    let started = Instant::now();
    let clients = (0..PLACES).map(|client| async move {
        let mut answered = 0;
        while started.elapsed() < time {
            // Others than those that asked alone.
            let number = CAPACITY_NUMBERS + client + PLACES * answered;
            if ask(address, number).await.said != Said::Ok {
                break;
            }
            answered += 1;
        }
        answered
    });
    let answered: usize = futures_util::future::join_all(clients).await.into_iter().sum();
    answered as f64 / started.elapsed().as_secs_f64()
}

/// What became of a request.
struct Asked {
    said: Said,
    /// Until the first text, if there was any.
    ttft_ms: Option<f64>,
    took_ms: f64,
    /// When it was over.
    ended: Instant,
}

async fn ask(address: SocketAddr, number: usize) -> Asked {
    let body = chat(&format!("Report {number}: what is the state of the pumps?"), REPLY_TOKENS);
    let agent = format!("overload-{number}");
    let started = Instant::now();
    let streamed =
        async { Client::connect(address).await?.stream(&agent, &body, || ()).await }.await;
    let ended = Instant::now();
    let (said, ttft_ms) = match streamed {
        Err(_) => (Said::Wrong, None),
        Ok(streamed) => {
            let ttft_ms = streamed.texts.first().map(|first| ms(started, *first));
            match Said::of(&Ok(streamed.answer)) {
                Said::Ok if !streamed.is_done => (Said::Wrong, None),
                said => (said, ttft_ms),
            }
        }
    };
    Asked { said, ttft_ms, took_ms: ms(started, ended), ended }
}

/// Asks at the rate, whatever the answers take. Returns when all are answered.
async fn hold(address: SocketAddr, rate: f64, time: Duration) -> Vec<(Asked, Duration)> {
    let started = Instant::now();
    let all = RefCell::new(Vec::new());
    let count = (rate * time.as_secs_f64()) as usize;
    let requests = (0..count).map(|number| {
        let all = &all;
        async move {
            let due = started + Duration::from_secs_f64(number as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
            let asked = ask(address, number + LOAD_NUMBERS).await;
            let ended = asked.ended.saturating_duration_since(started);
            all.borrow_mut().push((asked, ended));
        }
    });
    futures_util::future::join_all(requests).await;
    all.into_inner()
}

struct Load {
    /// Requests per second that it does at most.
    capacity: f64,
    time: Duration,
    /// The times to the first text of who asked alone.
    alone: Vec<f64>,
    /// And how long after the beginning each was over.
    asked: Vec<(Asked, Duration)>,
}

impl Load {
    fn row(&self) -> Row {
        let count = |said| self.asked.iter().filter(|(asked, _)| asked.said == said).count();
        let refused = |asked: &Asked| matches!(asked.said, Said::TooMany | Said::Unavailable);
        let refusals: Vec<f64> =
            self.asked.iter().filter(|it| refused(&it.0)).map(|it| it.0.took_ms).collect();
        let ttfts: Vec<f64> = self.asked.iter().filter_map(|(asked, _)| asked.ttft_ms).collect();
        // What is finished after the load was no load's doing.
        let served = |it: &&(Asked, Duration)| it.0.said == Said::Ok && it.1 <= self.time;
        let served = self.asked.iter().filter(served).count();
        let goodput = served as f64 / self.time.as_secs_f64() / self.capacity;
        let (refusals, ttfts, alone) =
            (figure(refusals), figure(ttfts), figure(self.alone.clone()));
        let refusal_ms = refusals.map(|refusals| refusals.percentile(0.99));
        let ratio = match (ttfts, alone) {
            (Some(loaded), Some(alone)) => Some(loaded.percentile(0.99) / alone.median()),
            _ => None,
        };
        let holds = goodput >= GOODPUT_MIN
            && count(Said::Wrong) == 0
            && refusal_ms.is_some_and(|ms| ms <= REFUSAL_MS_MAX);
        let seconds = self.time.as_secs();
        let name =
            format!("{seconds} s of {LOAD:.0} times what it can do, {PLACES} at a time, no line");
        let mut row = Row::new(name)
            .with("capacity_per_s", Cell::Number(self.capacity, 1))
            .with("ok", Cell::Count(count(Said::Ok) as u64))
            .with("http_503", Cell::Count(count(Said::Unavailable) as u64))
            .with("other", Cell::Count((count(Said::Wrong) + count(Said::TooMany)) as u64))
            .with("goodput_percent", Cell::Number(goodput * 100.0, 0));
        if let Some(ms) = refusal_ms {
            row = row.with("refusal_p99_ms", Cell::Number(ms, 1));
        }
        row = row.with("promise", Cell::Verdict(holds));
        if let Some(ratio) = ratio {
            row = row
                .with("ttft_p99_ratio", Cell::Number(ratio, 2))
                .with("target", Cell::Verdict(ratio <= TTFT_RATIO_MAX));
        }
        row
    }
}

/// `None` of nothing.
fn figure(times: Vec<f64>) -> Option<Figure> {
    (!times.is_empty()).then(|| Figure::new(times))
}
