//! Which kept head has the longest prefix in common with a prompt. Pure.
//!
//! Sequences are sorted by their tokens, so those with the longest common prefix are neighbours of
//! the place where the query would be. Token ids are compared, never hashes of them.
//!
//! A lookup reads the query about once and a few tokens of each sequence on the way: 4 bytes per
//! token, 32 kB for 8,000 tokens, which is a few microseconds.

use std::cmp::Ordering;
use std::iter;
use std::sync::Arc;

use super::agents::HeadId;
use crate::types::TokenId;

/// A set of token sequences with the heads that have their KV. Several heads may have the same
/// sequence.
#[derive(Default)]
pub struct PrefixIndex {
    /// Sorted by tokens, then head.
    entries: Vec<Entry>,
}

/// A head, and how many of its first tokens are those of the query; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    pub head: HeadId,
    pub tokens: usize,
}

impl PrefixIndex {
    pub fn new() -> PrefixIndex {
        PrefixIndex::default()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is there already stays as it is.
    pub fn insert(&mut self, tokens: Arc<[TokenId]>, head: HeadId) {
        let place = self.place(&tokens, head);
        if self.is_at(place, &tokens, head) {
            return;
        }
        if let Some(next) = self.entries.get_mut(place.index) {
            next.shared = place.after;
        }
        self.entries.insert(place.index, Entry { tokens, head, shared: place.before });
    }

    /// Whether it was there.
    pub fn remove(&mut self, tokens: &[TokenId], head: HeadId) -> bool {
        let place = self.place(tokens, head);
        if !self.is_at(place, tokens, head) {
            return false;
        }
        let removed = self.entries.remove(place.index);
        if let Some(next) = self.entries.get_mut(place.index) {
            next.shared = next.shared.min(removed.shared);
        }
        true
    }

    /// The head that shares most tokens with the query; of several the one with the highest number,
    /// as the latest is most likely in memory.
    pub fn longest(&self, query: &[TokenId]) -> Option<Match> {
        let most = self.matches(query).next()?.tokens;
        let best = self.matches(query).take_while(|found| found.tokens == most);
        best.max_by_key(|found| found.head)
    }

    /// Every head that shares a token with the query, longest match first; for who would take a
    /// little less that is in memory rather than a little more that is not.
    pub fn matches(&self, query: &[TokenId]) -> impl Iterator<Item = Match> {
        let Place { index, mut before, mut after } = self.place(query, HeadId(u64::MAX));
        let (mut left, mut right) = (index, index);
        iter::from_fn(move || {
            let tokens = before.max(after);
            if tokens == 0 {
                return None;
            }
            // Away from the query a prefix in common only gets shorter: it is what all between
            // have in common.
            let entry = if before >= after {
                left -= 1;
                before = before.min(self.entries[left].shared);
                &self.entries[left]
            } else {
                right += 1;
                after = self.entries.get(right).map_or(0, |next| after.min(next.shared));
                &self.entries[right - 1]
            };
            Some(Match { head: entry.head, tokens })
        })
    }

    /// The longest sequence that the query begins with, whole: where a model with recurrent state
    /// can go on. Of several heads the one with the highest number.
    pub fn longest_whole(&self, query: &[TokenId]) -> Option<Match> {
        // What the query begins with sorts before it, and the longest comes last.
        let Place { index, before: mut tokens, .. } = self.place(query, HeadId(u64::MAX));
        for entry in self.entries[..index].iter().rev() {
            if tokens == 0 {
                return None;
            }
            if entry.tokens.len() == tokens {
                return Some(Match { head: entry.head, tokens });
            }
            tokens = tokens.min(entry.shared);
        }
        None
    }

    fn place(&self, tokens: &[TokenId], head: HeadId) -> Place {
        let (mut low, mut high) = (0, self.entries.len());
        let (mut before, mut after) = (0, 0);
        while low < high {
            let middle = low.midpoint(high);
            let entry = &self.entries[middle];
            // All between two sequences have what these two have in common.
            let known = before.min(after);
            let shared = known + common(&entry.tokens[known..], &tokens[known..]);
            // `None`, the end of a sequence, sorts before any token.
            let order = entry.tokens.get(shared).cmp(&tokens.get(shared));
            match order.then(entry.head.cmp(&head)) {
                Ordering::Less => (low, before) = (middle + 1, shared),
                Ordering::Equal | Ordering::Greater => (high, after) = (middle, shared),
            }
        }
        Place { index: low, before, after }
    }

    fn is_at(&self, place: Place, tokens: &[TokenId], head: HeadId) -> bool {
        self.entries.get(place.index).is_some_and(|entry| {
            entry.head == head && entry.tokens.len() == tokens.len() && place.after == tokens.len()
        })
    }
}

struct Entry {
    tokens: Arc<[TokenId]>,
    head: HeadId,
    /// Tokens in common with the entry before this one.
    shared: usize,
}

/// Where a sequence is, or would be inserted.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    /// Tokens in common with the entry before that place; 0 if there is none.
    before: usize,
    /// Tokens in common with the entry at that place; 0 if there is none.
    after: usize,
}

/// Tokens compared at once: no early exit inside, so that the compiler uses wide registers.
const CHUNK_TOKENS: usize = 32;

/// How many tokens both begin with.
pub fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    let (a_chunks, _) = a.as_chunks::<CHUNK_TOKENS>();
    let (b_chunks, _) = b.as_chunks::<CHUNK_TOKENS>();
    let is_same = |(a, b): &(&[TokenId; CHUNK_TOKENS], &[TokenId; CHUNK_TOKENS])| {
        iter::zip(*a, *b).fold(true, |is_same, (a, b)| is_same & (a == b))
    };
    let whole = CHUNK_TOKENS * iter::zip(a_chunks, b_chunks).take_while(is_same).count();
    whole + iter::zip(&a[whole..], &b[whole..]).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn tokens(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().copied().map(TokenId).collect()
    }

    /// Heads 0, 1, … with these sequences.
    fn index(sequences: &[&[u32]]) -> PrefixIndex {
        let mut index = PrefixIndex::new();
        for (head, sequence) in sequences.iter().enumerate() {
            index.insert(tokens(sequence).into(), HeadId(head as u64));
        }
        index
    }

    /// Head and tokens of [`PrefixIndex::longest`] and of [`PrefixIndex::longest_whole`].
    #[track_caller]
    fn check(
        sequences: &[&[u32]],
        query: &[u32],
        longest: Option<(u64, usize)>,
        whole: Option<(u64, usize)>,
    ) {
        let (index, query) = (index(sequences), tokens(query));
        let plain = |found: Match| (found.head.0, found.tokens);
        assert_eq!(index.longest(&query).map(plain), longest);
        assert_eq!(index.longest_whole(&query).map(plain), whole);
    }

    #[test]
    fn full_match() {
        check(&[&[1, 2, 3]], &[1, 2, 3], Some((0, 3)), Some((0, 3)));
    }

    #[test]
    fn partial_match() {
        check(&[&[1, 2, 3], &[1, 5], &[2]], &[1, 2, 9], Some((0, 2)), None);
    }

    #[test]
    fn no_match() {
        check(&[&[1, 2, 3], &[3]], &[2, 2], None, None);
        check(&[], &[1], None, None);
    }

    #[test]
    fn empty_either_side() {
        check(&[&[]], &[1, 2], None, None);
        check(&[&[1, 2]], &[], None, None);
        check(&[&[]], &[], None, None);
    }

    #[test]
    fn cached_shorter_than_query() {
        check(&[&[1, 2]], &[1, 2, 3], Some((0, 2)), Some((0, 2)));
    }

    #[test]
    fn query_shorter_than_cached() {
        check(&[&[1, 2, 3]], &[1, 2], Some((0, 2)), None);
    }

    #[test]
    fn diverges_at_first_token() {
        check(&[&[1, 2, 3], &[2, 2, 3]], &[3, 2, 3], None, None);
    }

    #[test]
    fn the_longest_whole_sequence_may_lie_behind_longer_ones_that_diverge() {
        let sequences: [&[u32]; 6] = [&[1], &[1, 2], &[1, 2, 1], &[1, 2, 2, 8], &[1, 2, 2], &[0]];
        check(&sequences, &[1, 2, 2, 9], Some((4, 3)), Some((4, 3)));
        check(&sequences, &[1, 2, 3], Some((4, 2)), Some((1, 2)));
    }

    #[test]
    fn of_equal_matches_the_latest_head_is_found() {
        check(&[&[1, 2], &[1, 2], &[0]], &[1, 2], Some((1, 2)), Some((1, 2)));
        check(&[&[1, 9], &[1, 1], &[1, 8]], &[1, 5], Some((2, 1)), None);
    }

    #[test]
    fn inserting_twice_changes_nothing_and_only_what_is_there_can_be_removed() {
        let mut index = index(&[&[1, 2]]);
        index.insert(tokens(&[1, 2]).into(), HeadId(0));
        assert_eq!(index.len(), 1);
        assert!(!index.remove(&tokens(&[1, 2]), HeadId(1)));
        assert!(!index.remove(&tokens(&[1]), HeadId(0)));
        assert!(!index.remove(&tokens(&[1, 2, 3]), HeadId(0)));
        assert!(index.remove(&tokens(&[1, 2]), HeadId(0)));
        assert!(!index.remove(&tokens(&[1, 2]), HeadId(0)));
        assert!(index.is_empty());
    }

    #[test]
    fn long_sequences() {
        // Around whole chunks of the comparison.
        for shared in [31, 32, 33, 64, 8_000] {
            let cached: Vec<u32> = (0..8_001).collect();
            let mut query = cached.clone();
            query[shared] = u32::MAX;
            check(&[&cached], &query, Some((0, shared)), None);
            check(&[&cached[..shared]], &query, Some((0, shared)), Some((0, shared)));
        }
    }

    type Naive = BTreeSet<(Vec<TokenId>, HeadId)>;

    fn naive_matches(naive: &Naive, query: &[TokenId]) -> Vec<Match> {
        let shared =
            |tokens: &Vec<TokenId>| iter::zip(tokens, query).take_while(|(a, b)| a == b).count();
        naive
            .iter()
            .map(|(tokens, head)| Match { head: *head, tokens: shared(tokens) })
            .filter(|found| found.tokens > 0)
            .collect()
    }

    fn naive_whole(naive: &Naive, query: &[TokenId]) -> Option<Match> {
        let whole = naive.iter().filter(|(tokens, _)| query.starts_with(tokens));
        let found = whole.map(|(tokens, head)| Match { head: *head, tokens: tokens.len() });
        found.filter(|found| found.tokens > 0).max_by_key(|found| (found.tokens, found.head))
    }

    fn sequence() -> impl Strategy<Value = Vec<TokenId>> {
        prop::collection::vec((0..3_u32).prop_map(TokenId), 0..7)
    }

    proptest! {
        /// Few tokens and few heads, so that sequences collide, repeat and extend each other.
        #[test]
        fn property_every_lookup_finds_what_a_scan_finds(
            changes in prop::collection::vec((any::<bool>(), sequence(), 0..4_u64), 0..60),
            queries in prop::collection::vec(sequence(), 1..20),
        ) {
            let mut index = PrefixIndex::new();
            let mut naive = Naive::new();
            for (is_removal, tokens, head) in changes {
                let head = HeadId(head);
                if is_removal {
                    let was_there = index.remove(&tokens, head);
                    prop_assert_eq!(was_there, naive.remove(&(tokens, head)));
                } else {
                    index.insert(tokens.as_slice().into(), head);
                    naive.insert((tokens, head));
                }
                prop_assert_eq!(index.len(), naive.len());
            }
            for query in queries {
                let mut expected = naive_matches(&naive, &query);
                let longest = expected.iter().max_by_key(|found| (found.tokens, found.head));
                prop_assert_eq!(index.longest(&query), longest.copied());
                prop_assert_eq!(index.longest_whole(&query), naive_whole(&naive, &query));

                let mut found: Vec<Match> = index.matches(&query).collect();
                prop_assert!(found.is_sorted_by(|a, b| a.tokens >= b.tokens));
                found.sort_by_key(|found| (found.tokens, found.head));
                expected.sort_by_key(|found| (found.tokens, found.head));
                prop_assert_eq!(found, expected);
            }
        }

        #[test]
        fn property_common_prefix_is_that_of_single_tokens(
            a in prop::collection::vec((0..2_u32).prop_map(TokenId), 0..100),
            shared in 0..100_usize,
            rest in prop::collection::vec((0..2_u32).prop_map(TokenId), 0..100),
        ) {
            let b = [&a[..shared.min(a.len())], &rest].concat();
            let expected = iter::zip(&a, &b).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(common(&a, &b), expected);
        }
    }
}
