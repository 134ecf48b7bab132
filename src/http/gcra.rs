//! GCRA: whether a request may come now, and if not, when. Pure: the time is an argument.
//!
//! Of everyone who asks one instant is kept, the *theoretical arrival time* of ITU-T I.371: when
//! the next request would come if all came evenly. Who has always waited that long has a full
//! quota, as has who never asked, so nothing need be kept of either.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
/// Fewer entries are not worth a cleaning.
const CLEANING_MIN: usize = 1024;
/// A map that is full is cleaned this often, so that nobody waits for it on every request.
const FULL_CLEANING_INTERVAL: Duration = Duration::from_secs(1);

/// Requests in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    interval: Duration,
    /// How far ahead of even requests one may be.
    tolerance: Duration,
}

impl Quota {
    /// So many a minute, all of which may come at once. 0 is no quota.
    pub fn per_minute(count: u32) -> Option<Quota> {
        let interval = MINUTE.checked_div(count)?;
        Some(Quota { interval, tolerance: interval * (count - 1) })
    }

    /// How long the next request has to wait, if it has to.
    fn wait(self, arrival: Option<Instant>, now: Instant) -> Option<Duration> {
        let ahead = arrival?.saturating_duration_since(now);
        ahead.checked_sub(self.tolerance).filter(|wait| !wait.is_zero())
    }

    /// The arrival time after a request at this moment, or how long it has to wait.
    fn take(self, arrival: Option<Instant>, now: Instant) -> Result<Instant, Duration> {
        match self.wait(arrival, now) {
            Some(wait) => Err(wait),
            None => Ok(arrival.map_or(now, |arrival| arrival.max(now)) + self.interval),
        }
    }

    /// The arrival time without one of the requests that led to it. In time a quota is full again
    /// and cannot become fuller, so no more is let through for what was given back.
    fn give_back(self, arrival: Instant) -> Option<Instant> {
        arrival.checked_sub(self.interval)
    }
}

/// What one quota counts.
#[derive(Debug, Default)]
pub struct Bucket(Mutex<Option<Instant>>);

impl Bucket {
    /// Counts a request, or tells how long it has to wait.
    pub fn take(&self, quota: Quota, now: Instant) -> Result<(), Duration> {
        let mut arrival = self.0.lock().expect("nobody panics with it");
        *arrival = Some(quota.take(*arrival, now)?);
        Ok(())
    }

    /// Uncounts a request that was counted.
    pub fn give_back(&self, quota: Quota) {
        let mut arrival = self.0.lock().expect("nobody panics with it");
        *arrival = arrival.and_then(|arrival| quota.give_back(arrival));
    }
}

/// What is counted of many, at most so many at once.
#[derive(Debug)]
pub struct Buckets<K> {
    max: usize,
    map: Mutex<Map<K>>,
}

#[derive(Debug)]
struct Map<K> {
    arrivals: HashMap<K, Instant>,
    /// The number of entries at which those with a full quota are forgotten.
    clean_at: usize,
    cleaned: Option<Instant>,
}

/// Why a request was not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Wait(Duration),
    /// There is no place for another.
    Full,
}

impl<K: Eq + Hash> Buckets<K> {
    pub fn new(max: usize) -> Buckets<K> {
        let clean_at = CLEANING_MIN.min(max);
        Buckets { max, map: Mutex::new(Map { arrivals: HashMap::new(), clean_at, cleaned: None }) }
    }

    /// Counts a request.
    pub fn take(&self, key: K, quota: Quota, now: Instant) -> Result<(), Refused> {
        let mut map = self.map.lock().expect("nobody panics with it");
        if let Some(arrival) = map.arrivals.get_mut(&key) {
            *arrival = quota.take(Some(*arrival), now).map_err(Refused::Wait)?;
            return Ok(());
        }
        map.make_room(self.max, now);
        if map.arrivals.len() >= self.max {
            return Err(Refused::Full);
        }
        let arrival = quota.take(None, now).map_err(Refused::Wait)?;
        map.arrivals.insert(key, arrival);
        Ok(())
    }

    /// Uncounts a request that was counted; whether there is anything of its key.
    pub fn give_back(&self, key: &K, quota: Quota) -> bool {
        let mut map = self.map.lock().expect("nobody panics with it");
        let Some(arrival) = map.arrivals.get_mut(key) else { return false };
        *arrival = quota.give_back(*arrival).unwrap_or(*arrival);
        true
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.map.lock().expect("nobody panics with it").arrivals.len()
    }
}

impl<K: Eq + Hash> Map<K> {
    /// Forgets those with a full quota when they have become many. Each cleaning is paid for by as
    /// many entries that came since the last, until the map is full.
    fn make_room(&mut self, max: usize, now: Instant) {
        let is_soon = self.cleaned.is_some_and(|at| now < at + FULL_CLEANING_INTERVAL);
        if self.arrivals.len() < self.clean_at || (self.clean_at == max && is_soon) {
            return;
        }
        self.arrivals.retain(|_, arrival| *arrival > now);
        self.clean_at = (2 * self.arrivals.len()).max(CLEANING_MIN).min(max);
        self.arrivals.shrink_to(self.clean_at);
        self.cleaned = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(count: u32) -> Quota {
        Quota::per_minute(count).expect("a quota")
    }

    #[test]
    fn zero_is_no_quota() {
        assert_eq!(Quota::per_minute(0), None);
    }

    proptest! {
        /// In units of an interval: a bucket with room for `count`, that leaks one per interval.
        #[test]
        fn exactly_what_a_leaking_bucket_has_room_for_is_admitted(
            count in 1..100u32,
            steps in proptest::collection::vec((0..30_000u64, 1..5usize), 1..200),
        ) {
            let (quota, bucket, start) = (quota(count), Bucket::default(), Instant::now());
            let interval = 60_000_000_000 / u128::from(count);
            // Nanoseconds until the bucket is empty, and the time of the last step.
            let (mut filled, mut at) = (0u128, 0u128);
            for (pause_ms, requests) in steps {
                let pause = u128::from(pause_ms) * 1_000_000;
                at += pause;
                filled = filled.saturating_sub(pause);
                for _ in 0..requests {
                    let now = start + Duration::from_nanos(at as u64);
                    let has_room = filled <= interval * u128::from(count - 1);
                    match bucket.take(quota, now) {
                        Ok(()) => {
                            prop_assert!(has_room);
                            filled += interval;
                        }
                        Err(wait) => {
                            prop_assert!(!has_room);
                            let until = filled - interval * u128::from(count - 1);
                            prop_assert_eq!(wait.as_nanos(), until);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn who_has_a_full_quota_again_is_forgotten() {
        let buckets = Buckets::new(100_000);
        let start = Instant::now();
        for id in 0..100_000u64 {
            let now = start + Duration::from_millis(10 * id);
            buckets.take(id, quota(60), now).expect("its first request");
        }
        assert!(buckets.len() <= 2 * CLEANING_MIN, "{}", buckets.len());
    }

    #[test]
    fn a_full_map_takes_nobody_new_until_somebody_is_forgotten() {
        let buckets = Buckets::new(2000);
        let start = Instant::now();
        for id in 0..2000 {
            assert_eq!(buckets.take(id, quota(1), start), Ok(()));
        }
        assert_eq!(buckets.take(2000, quota(1), start), Err(Refused::Full));
        // Those who are known have their own quota still.
        let minute = Duration::from_secs(60);
        assert_eq!(buckets.take(7, quota(1), start), Err(Refused::Wait(minute)));
        assert_eq!(buckets.take(2000, quota(1), start + minute), Ok(()));
        assert_eq!(buckets.len(), 1);
    }
}
