//! How many requests at once are all answered, and how many are too many.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::json;

use super::{Bench, percentiles};
use crate::cli::bench::client::{complete_once, ms};
use crate::cli::bench::figure::Figure;
use crate::cli::bench::host::UNLIMITED;
use crate::cli::bench::report::{Cell, Row};
use crate::cli::output::Failure;

/// The first and the last that are tried, and what was found before.
const TOGETHER_MIN: usize = 8;
const TOGETHER_MAX: usize = 2_048;
const BEFORE: usize = 30;
/// The border is found to within this share of itself.
const PRECISION: f64 = 0.06;

pub fn rows(bench: &Bench<'_>) -> Result<Vec<Row>, Failure> {
    let host = &bench.host;
    let server = host.serving("baseline-capacity", &UNLIMITED)?;
    let most = host.share(TOGETHER_MAX).max(TOGETHER_MIN);
    let mut asked = 0;
    let found = border(TOGETHER_MIN, most, |together| {
        host.setup.interrupt.check()?;
        let crowd = host.block_on(ask(server.address, together, asked));
        asked += together;
        Ok::<_, Failure>(crowd)
    })?;
    let mut rows = Vec::new();
    let holds = found.answered.as_ref().is_some_and(|crowd| crowd.together >= BEFORE);
    for (name, crowd) in [("all answered", found.answered), ("too many", found.refused)] {
        let Some(crowd) = crowd else { continue };
        rows.push(crowd.row(&format!("capacity, {name}")));
    }
    let tried = Row::new("capacity")
        .with("together_max", Cell::Count(most as u64))
        .with("before", Cell::Count(BEFORE as u64))
        .with("target_at_least", Cell::Count(BEFORE as u64));
    // Fewer than the target were not tried in vain, but say nothing of it.
    rows.push(match most < BEFORE {
        true => tried,
        false => tried.with("target", Cell::Verdict(holds)),
    });
    Ok(rows)
}

/// Requests that were sent at once.
struct Crowd {
    together: usize,
    /// Those that were answered with 200, the time of each.
    took_ms: Vec<f64>,
    /// With another status, or not at all.
    unavailable: usize,
    other: usize,
}

impl Crowd {
    fn is_answered(&self) -> bool {
        self.took_ms.len() == self.together
    }

    fn row(self, name: &str) -> Row {
        let row = Row::new(name)
            .with("together", Cell::Count(self.together as u64))
            .with("ok", Cell::Count(self.took_ms.len() as u64))
            .with("http_503", Cell::Count(self.unavailable as u64))
            .with("other", Cell::Count(self.other as u64));
        match self.took_ms.is_empty() {
            true => row,
            false => percentiles(row, &Figure::new(self.took_ms)),
        }
    }
}

/// Small ones, nobody's and none like another: what is asked is how many are let in.
async fn ask(address: SocketAddr, together: usize, from: usize) -> Crowd {
    let requests = (from..from + together).map(|number| async move {
        let body = json!({ "prompt": number.to_string(), "max_tokens": 1, "temperature": 0 });
        let asked = Instant::now();
        let answer = complete_once(address, &body).await;
        (answer.ok().map(|answer| answer.status), ms(asked, Instant::now()))
    });
    let mut crowd = Crowd { together, took_ms: Vec::new(), unavailable: 0, other: 0 };
    for (status, took_ms) in futures_util::future::join_all(requests).await {
        match status {
            Some(200) => crowd.took_ms.push(took_ms),
            Some(503) => crowd.unavailable += 1,
            _ => crowd.other += 1,
        }
    }
    crowd
}

/// The largest crowd that was answered and the smallest that was not, of those that were tried.
#[derive(Default)]
struct Border {
    answered: Option<Crowd>,
    refused: Option<Crowd>,
}

/// Doubles from `least` to `most` while all are answered, and then halves what is left between.
fn border<E>(
    least: usize,
    most: usize,
    mut ask: impl FnMut(usize) -> Result<Crowd, E>,
) -> Result<Border, E> {
    let mut border = Border::default();
    let mut next = Some(least);
    while let Some(together) = next {
        let crowd = ask(together)?;
        match crowd.is_answered() {
            true => border.answered = Some(crowd),
            false => border.refused = Some(crowd),
        }
        next = border.next(least, most);
    }
    Ok(border)
}

impl Border {
    /// How many to try next; `None` if it is known closely enough.
    fn next(&self, least: usize, most: usize) -> Option<usize> {
        let answered = self.answered.as_ref().map(|crowd| crowd.together);
        let refused = self.refused.as_ref().map(|crowd| crowd.together);
        match (answered, refused) {
            (None, None) => Some(least),
            (Some(answered), None) => (answered < most).then(|| (2 * answered).min(most)),
            (answered, Some(refused)) => {
                let answered = answered.unwrap_or_default();
                let between = refused - answered;
                let is_close = between <= 1 || between as f64 <= PRECISION * answered as f64;
                (!is_close).then(|| answered + between / 2)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The crowds that are tried where more than `capacity` are too many, and what is found.
    fn tried(capacity: usize, most: usize) -> (Vec<usize>, Option<usize>, Option<usize>) {
        let mut tried = Vec::new();
        let border = border(8, most, |together| {
            tried.push(together);
            let ok = together.min(capacity);
            let (unavailable, other) = (together - ok, 0);
            Ok::<_, ()>(Crowd { together, took_ms: vec![1.0; ok], unavailable, other })
        })
        .expect("nothing fails");
        let together = |crowd: Option<Crowd>| crowd.map(|crowd| crowd.together);
        (tried, together(border.answered), together(border.refused))
    }

    #[test]
    fn the_border_is_found_from_both_sides() {
        assert_eq!(tried(45, 100), (vec![8, 16, 32, 64, 48, 40, 44, 46], Some(44), Some(46)));
        // Nobody is let in, all are, and more than may be tried.
        assert_eq!(tried(0, 100), (vec![8, 4, 2, 1], None, Some(1)));
        assert_eq!(tried(1000, 100), (vec![8, 16, 32, 64, 100], Some(100), None));
        assert_eq!(tried(8, 8), (vec![8], Some(8), None));
    }
}
