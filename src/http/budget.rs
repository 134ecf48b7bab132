//! Tokens per minute: what the engine takes a request's tokens from.

use std::time::Instant;

use super::gcra::{Bucket, Quota, Standing};
use crate::engine::{Purse, Short};

/// The tokens of one key.
#[derive(Debug)]
pub struct Budget {
    quota: Quota,
    bucket: Bucket,
}

impl Budget {
    /// So many a minute, all of which may go to one request; none if it is 0, which is no limit.
    pub fn per_minute(tokens: u32) -> Option<Budget> {
        Some(Budget { quota: Quota::per_minute(tokens)?, bucket: Bucket::default() })
    }

    pub fn quota(&self) -> Quota {
        self.quota
    }

    pub fn standing(&self, now: Instant) -> Standing {
        self.bucket.standing(self.quota, now)
    }
}

impl Purse for Budget {
    fn set_aside(&self, tokens: usize, now: Instant) -> Result<(), Short> {
        let most = self.quota.count();
        match u32::try_from(tokens) {
            Ok(0) => Ok(()),
            Ok(units) if units <= most => {
                self.bucket.take_many(self.quota, units, now).map_err(Short::For)
            }
            Ok(_) | Err(_) => Err(Short::Always { most: most as usize }),
        }
    }

    fn pay(&self, tokens: usize, now: Instant) {
        self.bucket.owe(self.quota, units(tokens), now);
    }

    fn give_back(&self, tokens: usize) {
        self.bucket.give_back(self.quota, units(tokens));
    }
}

/// No context has more.
fn units(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_budget_holds_back_who_has_used_it_and_never_promises_what_cannot_be() {
        let (budget, now) = (Budget::per_minute(600).expect("a limit"), Instant::now());
        assert!(Budget::per_minute(0).is_none());
        assert_eq!(budget.set_aside(601, now), Err(Short::Always { most: 600 }));
        assert_eq!(budget.set_aside(600, now), Ok(()));
        assert_eq!(budget.set_aside(10, now), Err(Short::For(Duration::from_secs(1))));
        budget.give_back(300);
        assert_eq!(budget.standing(now).remaining, 300);
        // A reply that was longer than what is left of the minute.
        budget.pay(1_500, now);
        let minutes = Duration::from_secs(120);
        assert_eq!(budget.set_aside(1, now), Err(Short::For(minutes + Duration::from_millis(100))));
        assert_eq!(budget.set_aside(10, now + minutes + Duration::from_secs(1)), Ok(()));
    }
}
