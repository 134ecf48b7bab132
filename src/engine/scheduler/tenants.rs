//! Whether one namespace has the engine to itself, or another may come back at any moment. Pure.

use std::time::{Duration, Instant};

use crate::types::Namespace;

/// Who was there within this time may be back for its next turn: a person reads and types, an agent
/// runs a tool.
pub const TENANT_TIME: Duration = Duration::from_secs(60);

/// The two namespaces that were seen last.
#[derive(Default)]
pub struct Tenants {
    latest: Option<Seen>,
    other: Option<Seen>,
}

struct Seen {
    namespace: Namespace,
    at: Instant,
}

impl Tenants {
    /// It asked for something, or has just had it.
    pub fn see(&mut self, namespace: &Namespace, now: Instant) {
        match &mut self.latest {
            Some(latest) if latest.namespace == *namespace => latest.at = now,
            latest => {
                let seen = Seen { namespace: namespace.clone(), at: now };
                self.other = latest.replace(seen);
            }
        }
    }

    /// Whether two were seen within [`TENANT_TIME`].
    pub fn are_several(&self, now: Instant) -> bool {
        let other = self.other.as_ref();
        other.is_some_and(|other| now.saturating_duration_since(other.at) < TENANT_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seen: &[(&str, u64)], now: u64, are_several: bool) {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut tenants = Tenants::default();
        for (namespace, seconds) in seen {
            tenants.see(&Namespace::new(namespace), at(*seconds));
        }
        assert_eq!(tenants.are_several(at(now)), are_several, "{seen:?} at {now}");
    }

    #[test]
    fn two_are_several_until_one_has_been_away_for_a_minute() {
        check(&[], 0, false);
        check(&[("a", 0), ("a", 1)], 1, false);
        check(&[("a", 0), ("b", 1)], 59, true);
        check(&[("a", 0), ("b", 1)], 60, false);
        check(&[("a", 0), ("b", 1), ("a", 2)], 60, true);
        check(&[("a", 0), ("b", 1), ("a", 2)], 61, false);
        check(&[("a", 0), ("b", 1), ("b", 2), ("c", 50), ("b", 100)], 109, true);
        check(&[("a", 0), ("b", 1), ("b", 2), ("c", 50), ("b", 100)], 110, false);
    }
}
