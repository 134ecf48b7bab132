//! How often requests may come: GCRA, per agent and in all.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};

use super::error::Error;
use super::guard::Caller;
use crate::types::{AgentId, Namespace};

/// Agents that could ask at full rate again are forgotten after so many checks, so that the map
/// holds no more than these and those of the last minute.
const CHECKS_BETWEEN_CLEANINGS: u64 = 1024;

/// Requests per minute, all of which may come at once; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// For each agent that has a name.
    pub agent: u32,
    pub global: u32,
}

pub struct Limits<C: Clock = DefaultClock> {
    agent: Option<PerAgent<C>>,
    global: Option<RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>>,
    checks: AtomicU64,
    clock: C,
}

type Key = (Namespace, AgentId);
type PerAgent<C> =
    RateLimiter<Key, HashMapStateStore<Key>, C, NoOpMiddleware<<C as Clock>::Instant>>;

impl Limits {
    pub fn new(rates: Rates) -> Limits {
        Limits::with_clock(rates, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Limits<C> {
    fn with_clock(rates: Rates, clock: C) -> Limits<C> {
        let quota = |rate| NonZeroU32::new(rate).map(Quota::per_minute);
        let agent = |quota| RateLimiter::hashmap_with_clock(quota, clock.clone());
        let global = |quota| RateLimiter::direct_with_clock(quota, clock.clone());
        Limits {
            agent: quota(rates.agent).map(agent),
            global: quota(rates.global).map(global),
            checks: AtomicU64::new(0),
            clock,
        }
    }

    /// Counts a request. An agent that is over its own limit costs the others nothing.
    pub fn check(&self, caller: &Caller) -> Result<(), Error> {
        if let Some(agent) = &caller.agent {
            self.check_agent(&caller.namespace, agent)?;
        }
        let Some(global) = &self.global else { return Ok(()) };
        global.check().map_err(|until| self.limited("to this server", &until))
    }

    /// Counts a request of an agent whose name came in the body, and so after [`Limits::check`].
    pub fn check_agent(&self, namespace: &Namespace, agent: &AgentId) -> Result<(), Error> {
        let Some(limiter) = &self.agent else { return Ok(()) };
        let checks = self.checks.fetch_add(1, Ordering::Relaxed);
        if checks % CHECKS_BETWEEN_CLEANINGS == CHECKS_BETWEEN_CLEANINGS - 1 {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
        limiter
            .check_key(&(namespace.clone(), agent.clone()))
            .map_err(|until| self.limited("of this agent", &until))
    }

    fn limited(&self, scope: &'static str, until: &NotUntil<C::Instant>) -> Error {
        // `Retry-After` has whole seconds: rounded up, so that who waits that long is served.
        let wait = until.wait_time_from(self.clock.now());
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Error::RateLimited { scope, retry_after: Duration::from_secs(seconds.max(1)) }
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn caller(agent: &str) -> Caller {
        Caller { namespace: Namespace::local(), agent: AgentId::new(agent).ok() }
    }

    fn limits(agent: u32, global: u32) -> (FakeRelativeClock, Limits<FakeRelativeClock>) {
        let clock = FakeRelativeClock::default();
        (clock.clone(), Limits::with_clock(Rates { agent, global }, clock))
    }

    /// How many of `tries` are let through, and the first refusal's seconds.
    fn burst(limits: &Limits<FakeRelativeClock>, agent: &str, tries: u32) -> (u32, Option<u64>) {
        let mut admitted = 0;
        let mut wait = None;
        for _ in 0..tries {
            match limits.check(&caller(agent)) {
                Ok(()) => admitted += 1,
                Err(Error::RateLimited { retry_after, .. }) => {
                    wait.get_or_insert(retry_after.as_secs());
                }
                Err(other) => panic!("{other}"),
            }
        }
        (admitted, wait)
    }

    #[test]
    fn exactly_the_quota_passes_and_who_waits_as_told_is_served() {
        let (clock, limits) = limits(60, 1000);
        assert_eq!(burst(&limits, "a", 100), (60, Some(1)));
        for _ in 0..100 {
            clock.advance(Duration::from_secs(1));
            assert_eq!(burst(&limits, "a", 3), (1, Some(1)));
        }
        clock.advance(Duration::from_secs(60));
        assert_eq!(burst(&limits, "a", 61), (60, Some(1)));
    }

    #[test]
    fn agents_have_their_own_quota_in_their_own_namespace() {
        let (_, limits) = limits(2, 0);
        assert_eq!(burst(&limits, "a", 3), (2, Some(30)));
        assert_eq!(burst(&limits, "b", 3), (2, Some(30)));
        let other = Caller { namespace: Namespace::new("key-1"), ..caller("a") };
        assert!(limits.check(&other).is_ok());
        // The nameless have no quota of their own.
        assert_eq!(burst(&limits, "", 100), (100, None));
    }

    #[test]
    fn a_refused_agent_takes_nothing_from_the_global_quota() {
        let (_, limits) = limits(1, 3);
        assert_eq!(burst(&limits, "a", 50), (1, Some(60)));
        assert_eq!(burst(&limits, "", 50), (2, Some(20)));
    }

    #[test]
    fn zero_is_no_limit() {
        let (_, limits) = limits(0, 0);
        assert_eq!(burst(&limits, "a", 10_000), (10_000, None));
    }

    #[test]
    fn agents_that_went_quiet_are_forgotten() {
        let (clock, limits) = limits(60, 0);
        for agent in 0..100_000 {
            clock.advance(Duration::from_millis(10));
            limits.check(&caller(&agent.to_string())).expect("its first request");
        }
        let kept = limits.agent.as_ref().expect("a limit").len();
        assert!(kept < 2 * CHECKS_BETWEEN_CLEANINGS as usize, "{kept}");
    }
}
