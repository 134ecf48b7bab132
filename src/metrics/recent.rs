//! How fast it went in the last minutes: a short memory beside the counters, for who looks only now.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is counted together.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Five minutes of them: as much as a small chart shows.
pub const INTERVALS_MAX: usize = 60;

/// The last intervals. Whoever counts says when.
pub struct Recent {
    began: Instant,
    ring: Mutex<Ring>,
}

struct Ring {
    /// The number of the last interval, from the beginning.
    newest: u64,
    /// The oldest first; at least one.
    intervals: VecDeque<Interval>,
}

/// What happened in one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interval {
    /// Generated.
    pub tokens: u64,
    /// Replies that began.
    pub first_tokens: u64,
    /// Of all of these together, from the request to the first token.
    pub first_token_s: f64,
}

/// How things went until now.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// The oldest first; none is from before the server's start.
    pub intervals: Vec<Interval>,
    /// So much of the last one is over.
    pub elapsed: Duration,
}

impl Recent {
    pub fn new(began: Instant) -> Recent {
        let mut intervals = VecDeque::with_capacity(INTERVALS_MAX + 1);
        intervals.push_back(Interval::default());
        Recent { began, ring: Mutex::new(Ring { newest: 0, intervals }) }
    }

    pub fn tokens(&self, count: usize, now: Instant) {
        self.at(now).last().tokens += count as u64;
    }

    pub fn first_token(&self, since_submitted: Duration, now: Instant) {
        let mut ring = self.at(now);
        let interval = ring.last();
        interval.first_tokens += 1;
        interval.first_token_s += since_submitted.as_secs_f64();
    }

    pub fn until(&self, now: Instant) -> Past {
        let ring = self.at(now);
        let since = now.saturating_duration_since(self.began);
        let elapsed = since.saturating_sub(INTERVAL * u32::try_from(ring.newest).unwrap_or(0));
        Past { intervals: ring.intervals.iter().copied().collect(), elapsed: elapsed.min(INTERVAL) }
    }

    fn at(&self, now: Instant) -> MutexGuard<'_, Ring> {
        // Numbers that are added leave nothing half done.
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(self.began);
        ring.advance(since.as_secs() / INTERVAL.as_secs());
        ring
    }
}

impl Ring {
    /// What is told late belongs to the newest interval.
    fn advance(&mut self, to: u64) {
        let steps = to.saturating_sub(self.newest).min(INTERVALS_MAX as u64);
        for _ in 0..steps {
            if self.intervals.len() == INTERVALS_MAX {
                self.intervals.pop_front();
            }
            self.intervals.push_back(Interval::default());
        }
        self.newest = self.newest.max(to);
    }

    fn last(&mut self) -> &mut Interval {
        self.intervals.back_mut().expect("there is always one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn what_happens_is_counted_in_its_interval_and_none_is_from_before_the_start() {
        let began = Instant::now();
        let recent = Recent::new(began);
        recent.first_token(Duration::from_millis(250), began + seconds(1));
        recent.tokens(3, began + seconds(4));
        recent.tokens(5, began + seconds(16));
        let past = recent.until(began + seconds(17));
        let tokens: Vec<u64> = past.intervals.iter().map(|interval| interval.tokens).collect();
        assert_eq!((tokens, past.elapsed), (vec![3, 0, 0, 5], seconds(2)));
        assert_eq!((past.intervals[0].first_tokens, past.intervals[0].first_token_s), (1, 0.25));
    }

    #[test]
    fn a_late_word_is_counted_and_a_long_pause_forgets_all() {
        let began = Instant::now();
        let recent = Recent::new(began);
        recent.tokens(1, began + seconds(12));
        // Two threads need not agree on what comes first.
        recent.tokens(2, began + seconds(3));
        assert_eq!(recent.until(began + seconds(12)).intervals[2].tokens, 3);
        let past = recent.until(began + seconds(100_000_000));
        assert_eq!(past.intervals, [Interval::default(); INTERVALS_MAX]);
        assert_eq!(past.elapsed, Duration::ZERO);
    }
}
