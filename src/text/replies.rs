//! Remembers which ids the replies were generated as, so that a reply sent back as text becomes the same ids.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::types::{Namespace, TokenId};

use super::tools::reply_key;

/// What all replies together may take: about four million tokens with their text, a month of
/// somebody's agents and little beside a model.
pub const REPLIES_BYTES_MAX: usize = 32 << 20;

/// What replies may grow by before it is looked which of them are still needed.
const GROWTH_BYTES: usize = 256 << 10;

/// Lists kept for one text. Short answers (`yes`) come back in several tokenisations at most, but may
/// have been thought about in as many ways as there are agents.
pub const LISTS_PER_REPLY_MAX: usize = 8;

/// What a text costs besides its bytes and ids: two table entries, a few pointers.
const ENTRY_BYTES: usize = 256;

/// Generated replies by what a client sees of them ([`reply_key`]), the least recently used of all
/// namespaces first to go. Outer white space of a text does not count: clients and templates trim
/// it.
#[derive(Debug)]
pub struct Replies {
    namespaces: HashMap<Namespace, HashMap<Arc<str>, Reply>>,
    /// Every reply by its last use, so the first is the next to go.
    by_use: BTreeMap<u64, (Namespace, Arc<str>)>,
    uses: u64,
    bytes: usize,
    bytes_max: usize,
    /// What was left at the last [`Replies::retain`].
    retained_bytes: usize,
}

#[derive(Debug)]
struct Reply {
    /// Latest first, all different, at least one.
    lists: Vec<Arc<[TokenId]>>,
    last_use: u64,
}

impl Replies {
    /// Empty, and bounded by [`REPLIES_BYTES_MAX`].
    pub fn new() -> Replies {
        Replies::bounded(REPLIES_BYTES_MAX)
    }

    fn bounded(bytes_max: usize) -> Replies {
        Replies {
            namespaces: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            bytes: 0,
            bytes_max,
            retained_bytes: 0,
        }
    }

    /// `tokens` were generated and read `text`: without the token that ended the turn, which the
    /// chat template writes, and without a stop sequence. White space alone is not remembered.
    pub fn remember(&mut self, namespace: &Namespace, text: &str, tokens: Arc<[TokenId]>) {
        let key = reply_key(text);
        if key.is_empty() || tokens.is_empty() {
            return;
        }
        let mut lists = self.remove(namespace, &key).unwrap_or_default();
        lists.retain(|list| *list != tokens);
        lists.insert(0, tokens);
        lists.truncate(LISTS_PER_REPLY_MAX);
        self.insert(namespace, (*key).into(), lists);
        while self.bytes > self.bytes_max {
            let Some((_, (namespace, key))) = self.by_use.pop_first() else { return };
            self.remove(&namespace, &key);
        }
    }

    /// The lists of ids that replies with this key were generated as, latest first.
    pub fn known(&mut self, namespace: &Namespace, key: &str) -> Vec<Arc<[TokenId]>> {
        let texts = self.namespaces.get_mut(namespace);
        let Some(reply) = texts.and_then(|texts| texts.get_mut(key.trim())) else {
            return Vec::new();
        };
        let used = self.by_use.remove(&reply.last_use).expect("every reply has its last use");
        self.uses += 1;
        reply.last_use = self.uses;
        self.by_use.insert(self.uses, used);
        reply.lists.clone()
    }

    /// Whether it is time for [`Replies::retain`]: looking at all of them each time they have
    /// doubled costs a constant for each.
    pub fn has_grown(&self) -> bool {
        self.bytes > 2 * self.retained_bytes + GROWTH_BYTES
    }

    /// Forgets the lists that nobody needs any more.
    pub fn retain(&mut self, is_needed: impl Fn(&Namespace, &[TokenId]) -> bool) {
        for (namespace, texts) in &mut self.namespaces {
            texts.retain(|text, reply| {
                self.bytes -= bytes(text, &reply.lists);
                reply.lists.retain(|list| is_needed(namespace, list));
                match reply.lists.is_empty() {
                    true => {
                        self.by_use.remove(&reply.last_use);
                    }
                    false => self.bytes += bytes(text, &reply.lists),
                }
                !reply.lists.is_empty()
            });
            texts.shrink_to_fit();
        }
        self.namespaces.retain(|_, texts| !texts.is_empty());
        self.retained_bytes = self.bytes;
    }

    fn insert(&mut self, namespace: &Namespace, text: Arc<str>, lists: Vec<Arc<[TokenId]>>) {
        self.bytes += bytes(&text, &lists);
        self.uses += 1;
        self.by_use.insert(self.uses, (namespace.clone(), Arc::clone(&text)));
        let texts = self.namespaces.entry(namespace.clone()).or_default();
        texts.insert(text, Reply { lists, last_use: self.uses });
    }

    fn remove(&mut self, namespace: &Namespace, text: &str) -> Option<Vec<Arc<[TokenId]>>> {
        let texts = self.namespaces.get_mut(namespace)?;
        let reply = texts.remove(text)?;
        if texts.is_empty() {
            self.namespaces.remove(namespace);
        }
        self.by_use.remove(&reply.last_use);
        self.bytes -= bytes(text, &reply.lists);
        Some(reply.lists)
    }
}

impl Default for Replies {
    fn default() -> Replies {
        Replies::new()
    }
}

fn bytes(text: &str, lists: &[Arc<[TokenId]>]) -> usize {
    let tokens: usize = lists.iter().map(|list| list.len()).sum();
    ENTRY_BYTES + text.len() + tokens * size_of::<TokenId>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(ids: &[u32]) -> Arc<[TokenId]> {
        ids.iter().copied().map(TokenId).collect()
    }

    #[test]
    fn a_reply_is_known_by_its_text_whatever_the_white_space_around_it() {
        let local = Namespace::local();
        let mut replies = Replies::new();
        replies.remember(&local, " Hello\n", list(&[1, 2]));
        assert_eq!(replies.known(&local, "Hello"), [list(&[1, 2])]);
        assert_eq!(replies.known(&local, "\n\nHello "), [list(&[1, 2])]);
        assert!(replies.known(&local, "Hel lo").is_empty());
    }

    #[test]
    fn of_several_lists_the_latest_comes_first_and_the_oldest_goes() {
        let local = Namespace::local();
        let mut replies = Replies::new();
        for id in [1, 2, 3, 1] {
            replies.remember(&local, "Hello", list(&[id]));
        }
        assert_eq!(replies.known(&local, "Hello"), [list(&[1]), list(&[3]), list(&[2])]);
        for id in [4, 5] {
            replies.remember(&local, "Hello", list(&[id]));
        }
        let expected = [5, 4, 1, 3, 2].map(|id| list(&[id]));
        assert_eq!(replies.known(&local, "Hello"), expected);
        for id in 6..=9 {
            replies.remember(&local, "Hello", list(&[id]));
        }
        let expected = [9, 8, 7, 6, 5, 4, 1, 3].map(|id| list(&[id]));
        assert_eq!(replies.known(&local, "Hello"), expected);
    }

    #[test]
    fn a_namespace_never_sees_the_replies_of_another() {
        let (one, other) = (Namespace::new("one"), Namespace::new("other"));
        let mut replies = Replies::new();
        replies.remember(&one, "Hello", list(&[1]));
        assert!(replies.known(&other, "Hello").is_empty());
        replies.remember(&other, "Hello", list(&[2]));
        assert_eq!(replies.known(&one, "Hello"), [list(&[1])]);
    }

    #[test]
    fn white_space_and_no_tokens_are_not_remembered() {
        let local = Namespace::local();
        let mut replies = Replies::new();
        replies.remember(&local, " \n\t", list(&[1]));
        replies.remember(&local, "Hello", list(&[]));
        assert!(replies.known(&local, "").is_empty());
        assert!(replies.known(&local, "Hello").is_empty());
        assert_eq!(replies.bytes, 0);
    }

    #[test]
    fn only_what_is_needed_is_retained() {
        let [one, other] = ["one", "other"].map(Namespace::new);
        let mut replies = Replies::new();
        replies.remember(&one, "Hello", list(&[1, 2]));
        replies.remember(&one, "Hello", list(&[3]));
        let only = replies.bytes - size_of::<TokenId>() * 2;
        replies.remember(&one, "Bye", list(&[4]));
        replies.remember(&other, "Hello", list(&[3]));
        replies.retain(|namespace, tokens| *namespace == one && tokens == [TokenId(3)]);
        assert_eq!(replies.known(&one, "Hello"), [list(&[3])]);
        assert!(replies.known(&one, "Bye").is_empty());
        assert!(replies.known(&other, "Hello").is_empty());
        assert_eq!((replies.bytes, replies.by_use.len(), replies.namespaces.len()), (only, 1, 1));
        assert!(!replies.has_grown());
    }

    #[test]
    fn a_reply_larger_than_the_bound_is_forgotten_at_once() {
        let local = Namespace::local();
        let mut replies = Replies::bounded(ENTRY_BYTES + 100);
        replies.remember(&local, "long", list(&[7; 100]));
        assert!(replies.known(&local, "long").is_empty());
        assert!(replies.namespaces.is_empty());
        assert_eq!(replies.bytes, 0);
    }

    type Kept = (Namespace, String, Vec<Arc<[TokenId]>>);

    /// The same in a vector, the least recently used first.
    #[derive(Default)]
    struct Naive(Vec<Kept>);

    impl Naive {
        fn take(&mut self, namespace: &Namespace, text: &str) -> Option<Vec<Arc<[TokenId]>>> {
            let is_it = |(n, t, _): &Kept| n == namespace && t == text;
            self.0.iter().position(is_it).map(|index| self.0.remove(index).2)
        }

        fn bytes(&self) -> usize {
            self.0.iter().map(|(_, text, lists)| bytes(text, lists)).sum()
        }
    }

    proptest! {
        #[test]
        fn the_bound_always_holds_and_the_least_recently_used_goes_first(
            steps in prop::collection::vec(
                (any::<bool>(), "[ab]", "[xyz]{1,2}", prop::collection::vec(0u32..3, 1..20)),
                0..60,
            ),
        ) {
            let bytes_max = 3 * ENTRY_BYTES + 100;
            let mut replies = Replies::bounded(bytes_max);
            let mut naive = Naive::default();
            for (is_remembered, namespace, text, ids) in steps {
                let namespace = Namespace::new(&namespace);
                let before = naive.take(&namespace, &text);
                let mut lists = before.clone().unwrap_or_default();
                if is_remembered {
                    let tokens = list(&ids);
                    lists.retain(|list| *list != tokens);
                    lists.insert(0, Arc::clone(&tokens));
                    lists.truncate(LISTS_PER_REPLY_MAX);
                    replies.remember(&namespace, &text, tokens);
                } else {
                    prop_assert_eq!(replies.known(&namespace, &text), lists.clone());
                }
                if !lists.is_empty() {
                    naive.0.push((namespace, text, lists));
                }
                while naive.bytes() > bytes_max {
                    naive.0.remove(0);
                }
                prop_assert!(replies.bytes <= bytes_max);
                prop_assert_eq!(replies.bytes, naive.bytes());
                let kept: Vec<_> = replies.by_use.values().collect();
                let expected: Vec<_> =
                    naive.0.iter().map(|(n, t, _)| (n.clone(), Arc::from(t.as_str()))).collect();
                prop_assert_eq!(kept, expected.iter().collect::<Vec<_>>());
            }
        }
    }
}
