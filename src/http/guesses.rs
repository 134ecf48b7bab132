//! How often an address may present a key that is none.
//!
//! Who has used up its tries is told to wait. A right key is honoured all the same: keys are random
//! and of 16 characters or more, so none is ever guessed at any rate that a network carries, and
//! waiting would only let one client lock out all others behind the same proxy. The limit is there
//! for whoever has a wrong key by mistake and asks in a loop, and for who watches the numbers.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use super::error::Error;
use super::gcra::{Bucket, Buckets, Quota, Refused};
use super::limits::limited;
use crate::metrics::labels::Limit;

/// Addresses that are counted one by one; further ones share a quota. About 5 MB.
const ADDRESSES_MAX: usize = 50_000;

pub struct Guesses {
    quota: Option<Quota>,
    tries: Buckets<Network>,
    /// Of all addresses for which there is no place.
    rest: Bucket,
}

/// Those who count as one: an address of IPv4, and in IPv6 a /64, which one host has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Network(IpAddr);

impl Guesses {
    /// So many a minute from one address; 0 is no limit.
    pub fn new(rate: u32) -> Guesses {
        Guesses {
            quota: Quota::per_minute(rate),
            tries: Buckets::new(ADDRESSES_MAX),
            rest: Bucket::default(),
        }
    }

    /// Counts the keys of a request that are none.
    pub fn count(&self, address: IpAddr, keys: usize) -> Result<(), Error> {
        let now = Instant::now();
        (0..keys).try_for_each(|_| self.count_at(address, now))
    }

    fn count_at(&self, address: IpAddr, now: Instant) -> Result<(), Error> {
        let Some(quota) = self.quota else { return Ok(()) };
        let counted = match self.tries.take(Network::of(address), quota, now) {
            Ok(()) => Ok(()),
            Err(Refused::Wait(wait)) => Err(wait),
            Err(Refused::Full) => self.rest.take(quota, now),
        };
        counted.map_err(|wait| limited(Limit::FailedKeys, wait))
    }
}

impl Network {
    fn of(address: IpAddr) -> Network {
        Network(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn seconds(result: Result<(), Error>) -> Option<u64> {
        match result {
            Ok(()) => None,
            Err(Error::RateLimited { limit: Limit::FailedKeys, retry_after }) => {
                Some(retry_after.as_secs())
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn an_address_has_so_many_tries_and_each_has_its_own() {
        let (guesses, mut now) = (Guesses::new(20), Instant::now());
        for network in ["10.0.0.1", "10.0.0.2", "2001:db8:0:1::1", "2001:db8:0:2::1"] {
            for _ in 0..20 {
                assert_eq!(seconds(guesses.count_at(address(network), now)), None, "{network}");
            }
            assert_eq!(seconds(guesses.count_at(address(network), now)), Some(3), "{network}");
        }
        for same in ["::ffff:10.0.0.1", "2001:db8:0:1:ffff::2"] {
            assert_eq!(seconds(guesses.count_at(address(same), now)), Some(3), "{same}");
        }
        for _ in 0..100 {
            now += Duration::from_secs(3);
            assert_eq!(seconds(guesses.count_at(address("10.0.0.1"), now)), None);
            assert_eq!(seconds(guesses.count_at(address("10.0.0.1"), now)), Some(3));
        }
    }

    #[test]
    fn zero_is_no_limit() {
        let guesses = Guesses::new(0);
        let now = Instant::now();
        assert!((0..1000).all(|_| guesses.count_at(address("::1"), now).is_ok()));
    }
}
