//! How often requests may come: per agent, per key and in all; and how many tokens they may take.
//!
//! A request is counted before anything is done for it. Its tokens are the engine's to count, which
//! knows what it computes: it takes them from the key's [`Budget`]. Here only who has none left is
//! refused, before its prompt is looked at.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;

use super::budget::Budget;
use super::error::Error;
use super::gcra::{Bucket, Buckets, Quota, Refused};
use super::guard::Caller;
use super::keys::Access;
use super::standing::{self, Limited, Name, whole_seconds};
use crate::engine::Purse;
use crate::metrics::labels::Limit;
use crate::types::{AgentId, Namespace};

/// Agents that are counted one by one: about 20 MB with names as long as they are, 40 MB with the
/// longest. Further ones share a quota with the others of their namespace until places are free.
const AGENTS_MAX: usize = 100_000;
/// Every key may have a namespace.
const NAMESPACES_MAX: usize = 10_000;

/// Requests per minute, all of which may come at once; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// For each agent that has a name.
    pub agent: u32,
    pub global: u32,
    /// For each address, of requests with a key that is none.
    pub failed_keys: u32,
    /// Tokens, of each key; of all requests together where no key is asked for.
    pub tokens: u32,
}

/// The end of "too many".
pub fn what(limit: Limit) -> &'static str {
    match limit {
        Limit::Agent => "requests of this agent",
        Limit::Key => "requests with this key",
        Limit::Tokens => "tokens a minute",
        Limit::Global => "requests to this server",
        Limit::FailedKeys => "invalid keys from this address",
    }
}

pub struct Limits {
    agent: Option<Quota>,
    /// In place of `agent`, where a key says so.
    agent_of: HashMap<Namespace, Option<Quota>>,
    agents: Buckets<(Namespace, AgentId)>,
    /// Of agents for whom there is no place.
    crowds: Buckets<Namespace>,
    /// By [`KeyId`](super::keys::KeyId).
    keys: Vec<(Option<Quota>, Bucket)>,
    /// The same.
    budgets: Vec<Option<Arc<Budget>>>,
    /// Of those who need no key.
    open_budget: Option<Arc<Budget>>,
    global: (Option<Quota>, Bucket),
}

impl Limits {
    pub fn new(rates: Rates, access: &Access) -> Limits {
        Limits::with_places(rates, access, AGENTS_MAX)
    }

    fn with_places(rates: Rates, access: &Access, agents_max: usize) -> Limits {
        let of_agents = access.grants().iter().filter_map(|grant| {
            Some((grant.namespace.clone(), Quota::per_minute(grant.rates.agent?)))
        });
        let of_key = |rate: Option<u32>| (rate.and_then(Quota::per_minute), Bucket::default());
        let budget =
            |rate: Option<u32>| Budget::per_minute(rate.unwrap_or(rates.tokens)).map(Arc::new);
        Limits {
            agent: Quota::per_minute(rates.agent),
            agent_of: of_agents.collect(),
            agents: Buckets::new(agents_max),
            crowds: Buckets::new(NAMESPACES_MAX),
            keys: access.grants().iter().map(|grant| of_key(grant.rates.key)).collect(),
            budgets: access.grants().iter().map(|grant| budget(grant.rates.tokens)).collect(),
            open_budget: budget(None),
            global: (Quota::per_minute(rates.global), Bucket::default()),
        }
    }

    /// Counts a request. Who is refused by one limit costs the others nothing: neither does an agent
    /// that is over its own limit take from its key, nor a full server from an agent.
    pub fn check(&self, caller: &Caller) -> Result<(), Error> {
        self.check_at(caller, Instant::now())
    }

    /// Counts a request of an agent whose name came after [`Limits::check`], in the body or the path.
    pub fn check_agent(&self, caller: &Caller, agent: &AgentId) -> Result<(), Error> {
        self.check_agent_at(caller, agent, Instant::now())
    }

    /// What the tokens of a request that was counted are taken from, if they are limited; refused if
    /// there are none.
    pub fn purse(&self, caller: &Caller) -> Result<Option<Arc<dyn Purse>>, Error> {
        self.purse_at(caller, Instant::now())
    }

    /// Tells how much is left of the limits of whoever asks.
    pub fn mark(&self, caller: &Caller, headers: &mut HeaderMap) {
        standing::mark(headers, &self.standings(caller, Instant::now()));
    }

    fn standings(&self, caller: &Caller, now: Instant) -> Vec<Limited> {
        let requests = caller.key.and_then(|key| {
            let (quota, bucket) = &self.keys[key.0];
            let quota = (*quota)?;
            Some(Limited { name: Name::Requests, quota, standing: bucket.standing(quota, now) })
        });
        let tokens = self.budget(caller).map(|budget| Limited {
            name: Name::Tokens,
            quota: budget.quota(),
            standing: budget.standing(now),
        });
        requests.into_iter().chain(tokens).collect()
    }

    fn budget(&self, caller: &Caller) -> Option<&Arc<Budget>> {
        match caller.key {
            Some(key) => self.budgets[key.0].as_ref(),
            None => self.open_budget.as_ref(),
        }
    }

    fn purse_at(&self, caller: &Caller, now: Instant) -> Result<Option<Arc<dyn Purse>>, Error> {
        let Some(budget) = self.budget(caller) else { return Ok(None) };
        let standing = budget.standing(now);
        match standing.more_after.filter(|_| standing.remaining == 0) {
            None => Ok(Some(Arc::clone(budget) as Arc<dyn Purse>)),
            Some(wait) => {
                // The key has counted it, as its body was read; others are to have no less for that.
                give_back(&self.global);
                let refusal = limited(Limit::Tokens, wait);
                Err(self.patient(refusal, caller, now))
            }
        }
    }

    fn check_at(&self, caller: &Caller, now: Instant) -> Result<(), Error> {
        self.count_at(caller, now).map_err(|refusal| self.patient(refusal, caller, now))
    }

    fn count_at(&self, caller: &Caller, now: Instant) -> Result<(), Error> {
        let agent = caller.agent.as_ref();
        if let Some(agent) = agent {
            self.take_agent(&caller.namespace, agent, now)?;
        }
        let counted = self.take_shared(caller, now);
        if let (Err(_), Some(agent)) = (&counted, agent) {
            self.give_back_agent(&caller.namespace, agent);
        }
        counted
    }

    fn check_agent_at(&self, caller: &Caller, agent: &AgentId, now: Instant) -> Result<(), Error> {
        let counted = self.take_agent(&caller.namespace, agent, now);
        if counted.is_err() {
            self.give_back_shared(caller);
        }
        counted.map_err(|refusal| self.patient(refusal, caller, now))
    }

    /// Who has no tokens left either need not come back before there are some: `Retry-After` is not to be
    /// sooner than what `RateLimit` says.
    fn patient(&self, refusal: Error, caller: &Caller, now: Instant) -> Error {
        let spent = |limited: &Limited| limited.standing.remaining == 0;
        let waits = self.standings(caller, now).into_iter().filter(spent);
        let longest = waits.filter_map(|limited| limited.standing.more_after).max();
        match (refusal, longest) {
            (Error::RateLimited { limit, retry_after }, Some(wait)) => {
                limited(limit, wait.max(retry_after))
            }
            (other, _) => other,
        }
    }

    fn give_back_shared(&self, caller: &Caller) {
        let shared = caller.key.map(|key| &self.keys[key.0]).into_iter().chain([&self.global]);
        shared.for_each(give_back);
    }

    /// Of the key and of the server, both or neither.
    fn take_shared(&self, caller: &Caller, now: Instant) -> Result<(), Error> {
        let take = |limit, (quota, bucket): &(Option<Quota>, Bucket)| match quota {
            Some(quota) => bucket.take(*quota, now).map_err(|wait| limited(limit, wait)),
            None => Ok(()),
        };
        let key = caller.key.map(|key| &self.keys[key.0]);
        if let Some(key) = key {
            take(Limit::Key, key)?;
        }
        let counted = take(Limit::Global, &self.global);
        if let (Err(_), Some(key)) = (&counted, key) {
            give_back(key);
        }
        counted
    }

    fn quota(&self, namespace: &Namespace) -> Option<Quota> {
        self.agent_of.get(namespace).copied().unwrap_or(self.agent)
    }

    fn take_agent(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        now: Instant,
    ) -> Result<(), Error> {
        let Some(quota) = self.quota(namespace) else { return Ok(()) };
        let alone = self.agents.take((namespace.clone(), agent.clone()), quota, now);
        let counted = match alone {
            Err(Refused::Full) => self.crowds.take(namespace.clone(), quota, now),
            other => other,
        };
        counted.map_err(|refused| match refused {
            Refused::Wait(wait) => limited(Limit::Agent, wait),
            Refused::Full => limited(Limit::Agent, Duration::ZERO),
        })
    }

    fn give_back_agent(&self, namespace: &Namespace, agent: &AgentId) {
        let Some(quota) = self.quota(namespace) else { return };
        if !self.agents.give_back(&(namespace.clone(), agent.clone()), quota) {
            self.crowds.give_back(namespace, quota);
        }
    }
}

fn give_back((quota, bucket): &(Option<Quota>, Bucket)) {
    if let Some(quota) = quota {
        bucket.give_back(*quota, 1);
    }
}

/// In whole seconds, one at least.
pub fn limited(limit: Limit, wait: Duration) -> Error {
    Error::RateLimited { limit, retry_after: Duration::from_secs(whole_seconds(wait).max(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::keys::{Grant, KeyDigest, KeyId, KeyRates, Keys};

    fn rates(agent: u32, global: u32) -> Rates {
        Rates { agent, global, failed_keys: 0, tokens: 0 }
    }

    fn limits(agent: u32, global: u32) -> Limits {
        Limits::new(rates(agent, global), &Access::Open)
    }

    fn caller(agent: &str) -> Caller {
        Caller { namespace: Namespace::local(), agent: AgentId::new(agent).ok(), key: None }
    }

    /// How many of `tries` are let through, and the first refusal's limit and seconds.
    fn burst(
        limits: &Limits,
        caller: &Caller,
        now: Instant,
        tries: u32,
    ) -> (u32, Option<(Limit, u64)>) {
        let mut admitted = 0;
        let mut refusal = None;
        for _ in 0..tries {
            match limits.check_at(caller, now) {
                Ok(()) => admitted += 1,
                Err(Error::RateLimited { limit, retry_after }) => {
                    refusal.get_or_insert((limit, retry_after.as_secs()));
                }
                Err(other) => panic!("{other}"),
            }
        }
        (admitted, refusal)
    }

    #[test]
    fn exactly_the_quota_passes_and_who_waits_as_told_is_served() {
        let limits = limits(60, 1000);
        let mut now = Instant::now();
        assert_eq!(burst(&limits, &caller("a"), now, 100), (60, Some((Limit::Agent, 1))));
        for _ in 0..100 {
            now += Duration::from_secs(1);
            assert_eq!(burst(&limits, &caller("a"), now, 3), (1, Some((Limit::Agent, 1))));
        }
        now += Duration::from_secs(60);
        assert_eq!(burst(&limits, &caller("a"), now, 61), (60, Some((Limit::Agent, 1))));
    }

    #[test]
    fn agents_have_their_own_quota_in_their_own_namespace() {
        let (limits, now) = (limits(2, 0), Instant::now());
        assert_eq!(burst(&limits, &caller("a"), now, 3), (2, Some((Limit::Agent, 30))));
        assert_eq!(burst(&limits, &caller("b"), now, 3), (2, Some((Limit::Agent, 30))));
        let other = Caller { namespace: Namespace::new("key-1"), ..caller("a") };
        assert_eq!(burst(&limits, &other, now, 1), (1, None));
        // The nameless have no quota of their own.
        assert_eq!(burst(&limits, &caller(""), now, 100), (100, None));
    }

    #[test]
    fn a_refused_agent_takes_nothing_from_the_global_quota() {
        let (limits, now) = (limits(1, 3), Instant::now());
        assert_eq!(burst(&limits, &caller("a"), now, 50), (1, Some((Limit::Agent, 60))));
        assert_eq!(burst(&limits, &caller(""), now, 50), (2, Some((Limit::Global, 20))));
    }

    #[test]
    fn what_the_server_refuses_costs_neither_agent_nor_key() {
        let (limits, mut now) = (limits(2, 1), Instant::now());
        assert_eq!(burst(&limits, &caller(""), now, 1), (1, None));
        assert_eq!(burst(&limits, &caller("a"), now, 50), (0, Some((Limit::Global, 60))));
        for _ in 0..2 {
            now += Duration::from_secs(60);
            assert_eq!(burst(&limits, &caller("a"), now, 50), (1, Some((Limit::Global, 60))));
        }
        let keys = Keys::parse("0123456789abcdef,fedcba9876543210").expect("keys");
        let limits = Limits::new(rates(0, 3), &Access::Keys(keys));
        let caller = |key| Caller { key: Some(KeyId(key)), ..caller("") };
        assert_eq!(burst(&limits, &caller(0), now, 50).0, 3);
        assert_eq!(burst(&limits, &caller(1), now, 50).0, 0);
    }

    #[test]
    fn an_agent_that_is_named_late_and_refused_costs_the_server_nothing() {
        let (limits, now) = (limits(1, 3), Instant::now());
        let agent = AgentId::new("a").expect("a name");
        let mut admitted = 0;
        for _ in 0..50 {
            limits.check_at(&caller(""), now).expect("the server has room");
            admitted += u32::from(limits.check_agent_at(&caller(""), &agent, now).is_ok());
        }
        assert_eq!(admitted, 1);
        assert_eq!(burst(&limits, &caller(""), now, 50).0, 2);
    }

    #[test]
    fn zero_is_no_limit() {
        let (limits, now) = (limits(0, 0), Instant::now());
        assert_eq!(burst(&limits, &caller("a"), now, 10_000), (10_000, None));
    }

    #[test]
    fn a_key_may_have_limits_of_its_own() {
        let grant = |key, agent| Grant {
            digest: KeyDigest::of(&format!("{key:?} {agent:?}")),
            namespace: Namespace::new(&format!("{key:?} {agent:?}")),
            rates: KeyRates { key, agent, tokens: None },
        };
        let grants = vec![grant(Some(3), None), grant(None, Some(4)), grant(Some(0), Some(0))];
        let caller = |index: usize| Caller {
            namespace: grants[index].namespace.clone(),
            key: Some(KeyId(index)),
            ..caller("a")
        };
        let callers = [caller(0), caller(1), caller(2)];
        let keys = Keys::default().with(grants).expect("keys");
        let limits = Limits::new(rates(2, 0), &Access::Keys(keys));
        let now = Instant::now();
        assert_eq!(burst(&limits, &callers[0], now, 9), (2, Some((Limit::Agent, 30))));
        let nameless = Caller { agent: None, ..callers[0].clone() };
        assert_eq!(burst(&limits, &nameless, now, 9), (1, Some((Limit::Key, 20))));
        assert_eq!(burst(&limits, &callers[1], now, 9), (4, Some((Limit::Agent, 15))));
        assert_eq!(burst(&limits, &callers[2], now, 9), (9, None));
    }

    /// Two keys, each with so many requests and tokens a minute.
    fn with_tokens(requests: u32, tokens: u32) -> (Limits, [Caller; 2]) {
        let grant = |name: &str| Grant {
            digest: KeyDigest::of(name),
            namespace: Namespace::new(name),
            rates: KeyRates { key: Some(requests), agent: None, tokens: Some(tokens) },
        };
        let keys = Keys::default().with(vec![grant("a"), grant("b")]).expect("keys");
        let callers = [0, 1].map(|key| Caller { key: Some(KeyId(key)), ..caller("") });
        (Limits::new(rates(0, 0), &Access::Keys(keys)), callers)
    }

    /// The names of the limits, with `r` and `t`.
    fn left(limits: &Limits, caller: &Caller, now: Instant) -> String {
        let mut headers = HeaderMap::new();
        standing::mark(&mut headers, &limits.standings(caller, now));
        headers[standing::LIMIT].to_str().expect("ASCII").to_owned()
    }

    #[test]
    fn what_is_told_to_be_left_is_what_is_let_through() {
        let (limits, [caller, other]) = with_tokens(60, 6_000);
        let mut now = Instant::now();
        assert_eq!(left(&limits, &caller, now), "\"requests\";r=60, \"tokens\";r=6000");
        assert_eq!(burst(&limits, &caller, now, 1), (1, None));
        assert_eq!(left(&limits, &caller, now), "\"requests\";r=59;t=1, \"tokens\";r=6000");
        now += Duration::from_millis(500);
        assert_eq!(burst(&limits, &caller, now, 60), (59, Some((Limit::Key, 1))));
        // In half a second it is one more, and a second has no parts.
        assert_eq!(left(&limits, &caller, now), "\"requests\";r=0;t=1, \"tokens\";r=6000");
        now += Duration::from_secs(30);
        assert_eq!(left(&limits, &caller, now), "\"requests\";r=30;t=1, \"tokens\";r=6000");
        let purse = limits.purse_at(&caller, now).expect("there are some").expect("a limit");
        purse.set_aside(5_990, now).expect("there are so many");
        assert_eq!(left(&limits, &caller, now), "\"requests\";r=30;t=1, \"tokens\";r=10;t=1");
        purse.pay(3_010, now);
        // 3,000 too many, of 100 a second.
        assert_eq!(left(&limits, &caller, now), "\"requests\";r=30;t=1, \"tokens\";r=0;t=31");
        let full = "\"requests\";r=60, \"tokens\";r=6000";
        assert_eq!(left(&limits, &other, now), full);
        assert_eq!(left(&limits, &caller, now + Duration::from_secs(90)), full);
    }

    #[test]
    fn who_has_no_tokens_left_is_refused_and_counted() {
        let (limits, [caller, _]) = with_tokens(2, 60);
        let mut now = Instant::now();
        let purse = limits.purse_at(&caller, now).expect("there are some").expect("a limit");
        purse.pay(89, now);
        // Its body was read for that, so that it cannot go on for ever.
        for _ in 0..2 {
            assert_eq!(burst(&limits, &caller, now, 1), (1, None));
            let refused = limits.purse_at(&caller, now);
            let Err(Error::RateLimited { limit: Limit::Tokens, retry_after }) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!(retry_after, Duration::from_secs(30));
        }
        // Who is over both limits waits for both.
        assert_eq!(burst(&limits, &caller, now, 3), (0, Some((Limit::Key, 30))));
        now += Duration::from_secs(30);
        assert!(limits.purse_at(&caller, now).is_ok());
    }

    #[test]
    fn a_flood_of_names_takes_no_more_places_than_there_are() {
        let (limits, now) = (limits(60, 0), Instant::now());
        for agent in 0..3 * AGENTS_MAX / 2 {
            let _ = limits.check_at(&caller(&format!("agent-{agent}")), now);
        }
        assert_eq!((limits.agents.len(), limits.crowds.len()), (AGENTS_MAX, 1));
    }

    #[test]
    fn agents_without_a_place_share_a_quota_and_the_others_keep_theirs() {
        let limits = Limits::with_places(rates(2, 0), &Access::Open, 1000);
        let now = Instant::now();
        for agent in 0..1000 {
            assert_eq!(burst(&limits, &caller(&agent.to_string()), now, 1), (1, None));
        }
        assert_eq!(burst(&limits, &caller("x"), now, 1), (1, None));
        assert_eq!(burst(&limits, &caller("y"), now, 9), (1, Some((Limit::Agent, 30))));
        assert_eq!(burst(&limits, &caller("7"), now, 9), (1, Some((Limit::Agent, 30))));
        let other = Caller { namespace: Namespace::new("key-1"), ..caller("x") };
        assert_eq!(burst(&limits, &other, now, 9), (2, Some((Limit::Agent, 30))));
        // In a minute there are places again.
        let later = now + Duration::from_secs(60);
        assert_eq!(burst(&limits, &caller("y"), later, 9), (2, Some((Limit::Agent, 30))));
    }
}
