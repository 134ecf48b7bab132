//! Numbers that differ: for ids and seeds, not for secrets.

use std::hash::{BuildHasher, RandomState};

/// SipHash under a key that the standard library draws from the system once per thread, and that
/// it changes each time.
pub fn number() -> u64 {
    RandomState::new().hash_one(0)
}

/// 16 hexadecimal digits.
pub fn hex() -> String {
    format!("{:016x}", number())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn numbers_differ() {
        let numbers: BTreeSet<u64> = (0..1000).map(|_| super::number()).collect();
        assert_eq!(numbers.len(), 1000);
    }
}
