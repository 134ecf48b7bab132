//! A load that the server can bear, for minutes: memory does not grow, nothing gets slower.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::client::chat_once;
use super::process::Server;
use super::{Client, Host, UNLIMITED, chat};
use crate::cli::bench::figure::Figure;
use crate::cli::bench::report::{Cell, Row};
use crate::cli::output::Failure;

/// Of what it does at most.
const LOAD: f64 = 0.8;
/// Who asks as soon as they are answered, until it is known what it does at most.
const CLIENTS: usize = 8;
/// Of the time; the first share is not counted, either.
const CAPACITY_SHARE: f64 = 0.1;
const WINDOW_SHARE: f64 = 0.2;
/// Longer windows say nothing more.
const WINDOW_MAX: Duration = Duration::from_secs(60);
const REPLY_TOKENS: usize = 24;
const AGENTS: u64 = 16;
/// In MB. It is full within the first minute, as otherwise its filling would look like a leak.
const POOL: &str = "--kv-pool-mb=200";
/// The waits for what comes next are so long at most.
const SAMPLE: Duration = Duration::from_secs(1);

/// The promises.
const SLOPE_MB_MAX: f64 = 1.0;
const SLOWER_PERCENT_MAX: f64 = 20.0;
/// In less time what the allocator keeps looks like growth, and a machine that others use too looks
/// like a server that gets slower.
const JUDGED_TIME_MIN: Duration = Duration::from_secs(300);
/// Over which the slope is given.
const SLOPE_SECONDS: f64 = 600.0;

pub fn rows(host: &Host<'_>) -> Result<Vec<Row>, Failure> {
    let server = host.serving("sustained", &[&UNLIMITED[..], &[POOL]].concat())?;
    let total = Duration::from_secs(host.setup.sizes.load_seconds as u64);
    let before = host.block_on(busy_percent(server.address))?;
    let capacity = host.block_on(capacity(server.address, total.mul_f64(CAPACITY_SHARE)));
    host.setup.interrupt.check()?;
    let load = Load { rate: (capacity * LOAD).max(0.1), total, served: RefCell::default() };
    let memory = host.block_on(load.hold(&server));
    host.setup.interrupt.check()?;
    let after = host.block_on(busy_percent(server.address))?;
    Ok(vec![load.row(capacity, &memory, after <= before)])
}

/// Requests per second of clients that never wait.
async fn capacity(address: SocketAddr, time: Duration) -> f64 {
    let started = Instant::now();
    let clients = (0..CLIENTS as u64).map(|client| async move {
        let mut answered = 0;
        while started.elapsed() < time {
            let number = client + CLIENTS as u64 * answered;
            if chat_once(address, &agent(number), &body(number)).await.is_err() {
                break;
            }
            answered += 1;
        }
        answered
    });
    let answered: u64 = futures_util::future::join_all(clients).await.into_iter().sum();
    answered as f64 / started.elapsed().as_secs_f64()
}

/// Blocks that nobody could have.
async fn busy_percent(address: SocketAddr) -> std::io::Result<f64> {
    let answer = Client::connect(address).await?.get("/health/ready").await?;
    Ok(answer.json()["pool_utilization"].as_f64().unwrap_or_default())
}

struct Load {
    /// Requests per second.
    rate: f64,
    total: Duration,
    served: RefCell<Vec<Served>>,
}

struct Served {
    /// After the beginning.
    asked: Duration,
    took: Duration,
    is_ok: bool,
}

/// Resident memory: after how many seconds how many bytes.
type Memory = Vec<(f64, f64)>;

impl Load {
    /// Asks at the rate, whatever the answers take. Returns when all are answered.
    async fn hold(&self, server: &Server) -> Memory {
        let started = Instant::now();
        let count = (self.rate * self.total.as_secs_f64()) as u64;
        let requests = (0..count).map(|number| async move {
            let asked = Duration::from_secs_f64(number as f64 / self.rate);
            tokio::time::sleep_until((started + asked).into()).await;
            // Others than those by which the capacity was found.
            let number = number + (1 << 32);
            let sent = Instant::now();
            let answer = chat_once(server.address, &agent(number), &body(number)).await;
            let is_ok = answer.is_ok_and(|answer| answer.status == 200);
            self.served.borrow_mut().push(Served { asked, took: sent.elapsed(), is_ok });
        });
        let sampling = async {
            let mut memory = Vec::new();
            while started.elapsed() < self.total {
                tokio::time::sleep(SAMPLE.min(self.total / 10)).await;
                if let Some(bytes) = server.rss_bytes() {
                    memory.push((started.elapsed().as_secs_f64(), bytes as f64));
                }
            }
            memory
        };
        tokio::join!(futures_util::future::join_all(requests), sampling).1
    }

    fn window(&self) -> Duration {
        self.total.mul_f64(WINDOW_SHARE).min(WINDOW_MAX)
    }

    /// The median time of answers to who asked then, in ms.
    fn median_ms(&self, from: Duration, to: Duration) -> Option<f64> {
        let served = self.served.borrow();
        let then = served.iter().filter(|served| (from..to).contains(&served.asked));
        let times: Vec<f64> = then.map(|served| served.took.as_secs_f64() * 1e3).collect();
        (!times.is_empty()).then(|| Figure::new(times).median())
    }

    fn row(&self, capacity: f64, memory: &Memory, blocks_back: bool) -> Row {
        let window = self.window();
        let settled: Memory = memory
            .iter()
            .copied()
            .filter(|(seconds, _)| *seconds >= window.as_secs_f64())
            .collect();
        let is_long = self.total >= JUDGED_TIME_MIN;
        let slope = match is_long {
            true => slope(&settled).map(|bytes_per_s| bytes_per_s * SLOPE_SECONDS / 1e6),
            false => None,
        };
        let first = self.median_ms(window, 2 * window);
        let last = self.median_ms(self.total.saturating_sub(window), self.total);
        let slower = match (first, last) {
            (Some(first), Some(last)) => Some((last / first - 1.0) * 100.0),
            _ => None,
        };
        let (ok, all) = {
            let served = self.served.borrow();
            (served.iter().filter(|served| served.is_ok).count(), served.len())
        };
        let holds = ok == all
            && blocks_back
            && slope.is_none_or(|mb| mb < SLOPE_MB_MAX)
            && slower.is_none_or(|percent| !is_long || percent <= SLOWER_PERCENT_MAX);
        let name = format!("{} s at {:.0} % load", self.total.as_secs(), LOAD * 100.0);
        let mut row = Row::new(name)
            .with("capacity_per_s", Cell::Number(capacity, 1))
            .with("requests", Cell::Count(all as u64))
            .with("ok", Cell::Count(ok as u64));
        if let (Some(first), Some(last), Some(slower)) = (first, last, slower) {
            row = row
                .with("first_ms", Cell::Number(first, 0))
                .with("last_ms", Cell::Number(last, 0))
                .with("slower_percent", Cell::Number(slower, 1));
        }
        if let Some(slope) = slope {
            row = row.with("rss_mb_per_10_min", Cell::Number(slope, 2));
        }
        row.with("blocks_back", Cell::Text(if blocks_back { "yes" } else { "no" }.into()))
            .with("promise", Cell::Verdict(holds))
    }
}

fn agent(number: u64) -> String {
    format!("agent-{}", number % AGENTS)
}

/// What nobody has asked yet.
fn body(number: u64) -> serde_json::Value {
    let text = format!(
        "Here is report {number}. The pumps ran for {number} hours and the tank held {} litres. \
         Write the summary for the log.",
        number * 7 % 1000
    );
    chat(&text, REPLY_TOKENS)
}

/// By least squares; `None` for fewer than two points.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let together: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    (points.len() > 1).then(|| together / spread)
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn a_line_has_its_slope() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), Some(2.0));
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 1.0)]), Some(0.0));
        assert_eq!(slope(&[(5.0, 1.0)]), None);
    }
}
