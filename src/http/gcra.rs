//! GCRA: whether a request may come now, and if not, when. Pure: the time is an argument.
//!
//! A request may weigh more than one unit, as tokens do, and what it turns out to weigh may be taken
//! although it is not there: then nobody is let through until that is made up for.
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

/// Requests in a time, or other units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    count: u32,
    interval: Duration,
    /// How far ahead of even requests one may be.
    tolerance: Duration,
}

/// How much of a quota is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Units that would be let through now.
    pub remaining: u32,
    /// When it will be one more, unless all are there.
    pub more_after: Option<Duration>,
}

impl Quota {
    /// So many a minute, all of which may come at once. 0 is no quota.
    pub fn per_minute(count: u32) -> Option<Quota> {
        let interval = MINUTE.checked_div(count)?;
        Some(Quota { count, interval, tolerance: interval * (count - 1) })
    }

    /// Units a minute.
    pub fn count(self) -> u32 {
        self.count
    }

    /// How long so many units have to wait, if they have to; no more than there are of the quota.
    fn wait(self, arrival: Option<Instant>, units: u32, now: Instant) -> Option<Duration> {
        assert!((1..=self.count).contains(&units));
        let ahead = arrival?.saturating_duration_since(now) + self.interval * (units - 1);
        ahead.checked_sub(self.tolerance).filter(|wait| !wait.is_zero())
    }

    /// The arrival time after so many units at this moment, or how long they have to wait.
    fn take(self, arrival: Option<Instant>, units: u32, now: Instant) -> Result<Instant, Duration> {
        match self.wait(arrival, units, now) {
            Some(wait) => Err(wait),
            None => Ok(self.owe(arrival, units, now)),
        }
    }

    /// The arrival time after so many units, whether or not they are there.
    fn owe(self, arrival: Option<Instant>, units: u32, now: Instant) -> Instant {
        arrival.map_or(now, |arrival| arrival.max(now)) + self.interval * units
    }

    /// The arrival time without some of the units that led to it. In time a quota is full again
    /// and cannot become fuller, so no more is let through for what was given back.
    fn give_back(self, arrival: Instant, units: u32) -> Option<Instant> {
        arrival.checked_sub(self.interval * units)
    }

    fn standing(self, arrival: Option<Instant>, now: Instant) -> Standing {
        let ahead =
            arrival.map_or(Duration::ZERO, |arrival| arrival.saturating_duration_since(now));
        let full = self.tolerance + self.interval;
        let room = full.saturating_sub(ahead);
        // No more than the count, which is a u32.
        let remaining = (room.as_nanos() / self.interval.as_nanos()) as u32;
        let more_after = (remaining < self.count)
            .then(|| (ahead + self.interval * remaining).saturating_sub(self.tolerance));
        Standing { remaining, more_after }
    }
}

/// What one quota counts.
#[derive(Debug, Default)]
pub struct Bucket(Mutex<Option<Instant>>);

impl Bucket {
    /// Counts a request, or tells how long it has to wait.
    pub fn take(&self, quota: Quota, now: Instant) -> Result<(), Duration> {
        self.take_many(quota, 1, now)
    }

    /// Takes so many units, no more than there are of the quota; or tells how long they have to wait.
    pub fn take_many(&self, quota: Quota, units: u32, now: Instant) -> Result<(), Duration> {
        let mut arrival = self.0.lock().expect("nobody panics with it");
        *arrival = Some(quota.take(*arrival, units, now)?);
        Ok(())
    }

    /// Takes units that may not be there.
    pub fn owe(&self, quota: Quota, units: u32, now: Instant) {
        let mut arrival = self.0.lock().expect("nobody panics with it");
        *arrival = Some(quota.owe(*arrival, units, now));
    }

    /// Uncounts what was counted.
    pub fn give_back(&self, quota: Quota, units: u32) {
        let mut arrival = self.0.lock().expect("nobody panics with it");
        *arrival = arrival.and_then(|arrival| quota.give_back(arrival, units));
    }

    pub fn standing(&self, quota: Quota, now: Instant) -> Standing {
        quota.standing(*self.0.lock().expect("nobody panics with it"), now)
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
            *arrival = quota.take(Some(*arrival), 1, now).map_err(Refused::Wait)?;
            return Ok(());
        }
        map.make_room(self.max, now);
        if map.arrivals.len() >= self.max {
            return Err(Refused::Full);
        }
        let arrival = quota.take(None, 1, now).map_err(Refused::Wait)?;
        map.arrivals.insert(key, arrival);
        Ok(())
    }

    /// Uncounts a request that was counted; whether there is anything of its key.
    pub fn give_back(&self, key: &K, quota: Quota) -> bool {
        let mut map = self.map.lock().expect("nobody panics with it");
        let Some(arrival) = map.arrivals.get_mut(key) else { return false };
        *arrival = quota.give_back(*arrival, 1).unwrap_or(*arrival);
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
                    let Standing { remaining, more_after } = bucket.standing(quota, now);
                    prop_assert_eq!(u128::from(remaining), (interval * u128::from(count) - filled) / interval);
                    prop_assert_eq!(remaining > 0, has_room);
                    prop_assert_eq!(more_after.is_none(), filled == 0);
                    match bucket.take(quota, now) {
                        Ok(()) => {
                            prop_assert!(has_room);
                            filled += interval;
                        }
                        Err(wait) => {
                            prop_assert!(!has_room);
                            let until = filled - interval * u128::from(count - 1);
                            prop_assert_eq!(wait.as_nanos(), until);
                            prop_assert_eq!(more_after, Some(wait));
                        }
                    }
                }
            }
        }
    }

    proptest! {
        /// As many as are said to remain are let through, and one more when it is said to come.
        #[test]
        fn a_standing_is_what_is_let_through(
            count in 1..100_000u32,
            steps in proptest::collection::vec((0..20_000u64, 0..50_000u32, any::<bool>()), 1..50),
        ) {
            let (quota, bucket) = (quota(count), Bucket::default());
            let mut now = Instant::now();
            for (pause_ms, units, is_owed) in steps {
                now += Duration::from_millis(pause_ms);
                match is_owed {
                    true => bucket.owe(quota, units, now),
                    false => drop(bucket.take_many(quota, units.clamp(1, count), now)),
                }
                let Standing { remaining, more_after } = bucket.standing(quota, now);
                prop_assert!(remaining <= count);
                let takes = |units: u32, at: Instant| {
                    (1..=count).contains(&units) && {
                        let took = bucket.take_many(quota, units, at).is_ok();
                        if took {
                            bucket.give_back(quota, units);
                        }
                        took
                    }
                };
                prop_assert!(remaining == 0 || takes(remaining, now));
                prop_assert!(!takes(remaining + 1, now));
                prop_assert_eq!(more_after.is_none(), remaining == count);
                if let Some(wait) = more_after {
                    prop_assert!(!takes(remaining + 1, now + wait - Duration::from_nanos(1)));
                    prop_assert!(takes(remaining + 1, now + wait));
                }
            }
        }
    }

    #[test]
    fn what_is_owed_is_made_up_for_before_anybody_is_let_through() {
        let (quota, bucket, start) = (quota(60), Bucket::default(), Instant::now());
        let seconds = Duration::from_secs;
        bucket.take_many(quota, 50, start).expect("there are 60");
        assert_eq!(bucket.take_many(quota, 11, start), Err(seconds(1)));
        bucket.owe(quota, 30, start);
        let standing = bucket.standing(quota, start);
        assert_eq!(standing, Standing { remaining: 0, more_after: Some(seconds(21)) });
        assert_eq!(bucket.take(quota, start + seconds(20)), Err(seconds(1)));
        assert_eq!(bucket.take(quota, start + seconds(21)), Ok(()));
        // Half of what was owed was not used after all.
        bucket.give_back(quota, 15);
        let standing = bucket.standing(quota, start + seconds(21));
        assert_eq!(standing, Standing { remaining: 15, more_after: Some(seconds(1)) });
        let later = bucket.standing(quota, start + seconds(66));
        assert_eq!(later, Standing { remaining: 60, more_after: None });
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
