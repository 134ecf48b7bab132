//! Who is next among those waiting: in turn within a namespace, in fair shares between them. Pure.
//!
//! Start-time fair queuing (Goyal, Vin, Cheng, SIGCOMM 1996). Each namespace has a virtual time,
//! which moves by the cost of what it was served, and the one that is least far is next. While two
//! namespaces both wait, what they are served differs by at most the largest item of the one plus
//! the largest of the other.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::types::Namespace;

/// A bounded waiting line.
pub struct Queue<T> {
    most: usize,
    len: usize,
    /// Those with items, and those without that were served beyond [`Queue::reached`]: at most as
    /// many as there are namespaces.
    lines: BTreeMap<Namespace, Line<T>>,
    /// The virtual time of the item served last. A namespace that had nothing waiting begins
    /// here, so that it gets no credit for the time before.
    reached: u128,
    /// Items taken so far.
    arrivals: u64,
}

impl<T> Queue<T> {
    /// A line of `most` places.
    pub fn new(most: usize) -> Queue<T> {
        Queue { most, len: 0, lines: BTreeMap::new(), reached: 0, arrivals: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts an item at the end of its namespace's line, or gives it back if there is no place for
    /// it. `cost` is what serving it takes, in any unit that all items share; at least 1.
    ///
    /// A namespace may have as many places as it leaves free: alone a half of them, one of `n`
    /// that ask for all they can get at least `1 / (n + 1)` in the long run. So whoever floods the
    /// line leaves half of the rest to the next that comes, and nobody who waits is sent away for
    /// it (dynamic thresholds: Choudhury and Hahne, 1998).
    pub fn push(
        &mut self,
        namespace: &Namespace,
        cost: u64,
        deadline: Instant,
        item: T,
    ) -> Result<(), T> {
        let held = self.lines.get(namespace).map_or(0, |line| line.items.len());
        if held >= self.most.saturating_sub(self.len) {
            return Err(item);
        }
        self.put(namespace, cost, deadline, item);
        Ok(())
    }

    /// The same for an item that is to be taken at once: it has a place, also where there is none.
    pub fn put(&mut self, namespace: &Namespace, cost: u64, deadline: Instant, item: T) {
        let line = self.lines.entry(namespace.clone()).or_default();
        if line.items.is_empty() {
            line.start = line.start.max(self.reached);
        }
        let (cost, arrival) = (cost.max(1), self.arrivals);
        line.items.push_back(Waiting { arrival, cost, deadline, item });
        self.arrivals += 1;
        self.len += 1;
    }

    /// Who is next.
    pub fn peek(&self) -> Option<&T> {
        let line = self.lines.values().filter(|line| !line.items.is_empty());
        Some(&line.min_by_key(|line| line.turn())?.items.front()?.item)
    }

    /// The first of each namespace, who is next first.
    pub fn firsts(&self) -> Vec<(&Namespace, &T)> {
        let mut firsts: Vec<_> = self
            .lines
            .iter()
            .filter_map(|(namespace, line)| Some((line.turn(), namespace, line.items.front()?)))
            .collect();
        firsts.sort_by_key(|(turn, _, _)| *turn);
        firsts.into_iter().map(|(_, namespace, waiting)| (namespace, &waiting.item)).collect()
    }

    /// Takes the first of a namespace though others may be next: it pays for it, and they stay next.
    pub fn pop_of(&mut self, namespace: &Namespace) -> Option<T> {
        let line = self.lines.get_mut(namespace)?;
        let waiting = line.items.pop_front()?;
        line.start += u128::from(waiting.cost);
        self.len -= 1;
        self.forget_the_idle();
        Some(waiting.item)
    }

    pub fn peek_mut(&mut self) -> Option<&mut T> {
        let line = self.lines.values_mut().filter(|line| !line.items.is_empty());
        Some(&mut line.min_by_key(|line| line.turn())?.items.front_mut()?.item)
    }

    /// Takes what [`Queue::peek`] shows; its namespace pays for it.
    pub fn pop(&mut self) -> Option<T> {
        let line = self.lines.values_mut().filter(|line| !line.items.is_empty());
        let line = line.min_by_key(|line| line.turn())?;
        let waiting = line.items.pop_front()?;
        self.reached = line.start;
        line.start += u128::from(waiting.cost);
        self.len -= 1;
        self.forget_the_idle();
        Some(waiting.item)
    }

    /// Takes all whose deadline has come, in the order in which they were pushed.
    pub fn expire(&mut self, now: Instant) -> Vec<T> {
        self.take_where(|waiting| waiting.deadline <= now)
    }

    /// Takes all items like these, in the order in which they were pushed.
    pub fn remove_where(&mut self, mut is_removed: impl FnMut(&T) -> bool) -> Vec<T> {
        self.take_where(|waiting| is_removed(&waiting.item))
    }

    /// Takes all, in the order in which they were pushed.
    pub fn drain_all(&mut self) -> Vec<T> {
        self.take_where(|_| true)
    }

    /// All items, a namespace after the other.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.lines.values().flat_map(|line| line.items.iter().map(|waiting| &waiting.item))
    }

    /// Nobody pays for what was not served.
    fn take_where(&mut self, mut is_taken: impl FnMut(&Waiting<T>) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for line in self.lines.values_mut() {
            let mut index = 0;
            while let Some(waiting) = line.items.get(index) {
                match is_taken(waiting) {
                    true => taken.extend(line.items.remove(index)),
                    false => index += 1,
                }
            }
        }
        self.len -= taken.len();
        self.forget_the_idle();
        taken.sort_by_key(|waiting| waiting.arrival);
        taken.into_iter().map(|waiting| waiting.item).collect()
    }

    /// Keeps of namespaces without items only what they were served in advance of the others.
    fn forget_the_idle(&mut self) {
        let reached = self.reached;
        self.lines.retain(|_, line| !line.items.is_empty() || line.start > reached);
    }

    /// Nobody waits and nobody is served any more: what was served counts for nothing.
    pub fn rest(&mut self) {
        if self.is_empty() {
            self.lines.clear();
        }
    }
}

/// What one namespace has waiting, and where it stands.
struct Line<T> {
    items: VecDeque<Waiting<T>>,
    /// The virtual time at which its next item begins: the cost of all that it was served.
    start: u128,
}

struct Waiting<T> {
    arrival: u64,
    cost: u64,
    deadline: Instant,
    item: T,
}

impl<T> Line<T> {
    /// The lowest of all lines with items is served; of equal ones the first that came.
    fn turn(&self) -> (u128, Option<u64>) {
        (self.start, self.items.front().map(|waiting| waiting.arrival))
    }
}

impl<T> Default for Line<T> {
    fn default() -> Line<T> {
        Line { items: VecDeque::new(), start: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn namespace(number: usize) -> Namespace {
        Namespace::new(&format!("key {number}"))
    }

    /// Items are `(namespace, number)`; none expires.
    fn pushed(most: usize, items: &[(usize, u32, u64)]) -> Queue<(usize, u32)> {
        let mut queue = Queue::new(most);
        for (key, number, cost) in items {
            let deadline = Instant::now() + Duration::from_secs(3_600);
            queue.push(&namespace(*key), *cost, deadline, (*key, *number)).unwrap();
        }
        queue
    }

    fn popped<T>(queue: &mut Queue<T>) -> Vec<T> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn one_namespace_is_served_in_turn() {
        let mut queue = pushed(8, &[(0, 1, 900), (0, 2, 1), (0, 3, 30)]);
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.peek(), Some(&(0, 1)));
        queue.peek_mut().unwrap().1 = 7;
        assert_eq!(popped(&mut queue), [(0, 7), (0, 2), (0, 3)]);
        assert_eq!((queue.pop(), queue.peek(), queue.len()), (None, None, 0));
    }

    #[test]
    fn a_namespace_with_many_items_does_not_hold_up_the_others() {
        let mut queue = pushed(20, &[(0, 1, 10), (0, 2, 10), (0, 3, 10), (1, 1, 10), (2, 1, 10)]);
        assert_eq!(popped(&mut queue), [(0, 1), (1, 1), (2, 1), (0, 2), (0, 3)]);
    }

    #[test]
    fn a_large_item_counts_for_many_small_ones() {
        let items = [(0, 1, 30), (0, 2, 30), (1, 1, 10), (1, 2, 10), (1, 3, 10), (1, 4, 10)];
        let mut queue = pushed(20, &items);
        let order = [(0, 1), (1, 1), (1, 2), (1, 3), (0, 2), (1, 4)];
        assert_eq!(popped(&mut queue), order);
    }

    #[test]
    fn who_was_idle_gets_no_credit_for_it() {
        let mut queue = pushed(40, &[(0, 1, 10), (0, 2, 10), (0, 3, 10), (0, 4, 10), (0, 5, 10)]);
        assert_eq!((queue.pop(), queue.pop()), (Some((0, 1)), Some((0, 2))));
        let deadline = Instant::now();
        for number in 1..=3 {
            queue.push(&namespace(1), 10, deadline, (1, number)).unwrap();
        }
        assert_eq!(popped(&mut queue), [(1, 1), (0, 3), (1, 2), (0, 4), (1, 3), (0, 5)]);
    }

    #[test]
    fn who_comes_back_at_once_pays_for_what_it_was_served() {
        let mut queue = pushed(40, &[(0, 1, 1_000), (1, 1, 10), (1, 2, 10), (1, 3, 10)]);
        assert_eq!(queue.pop(), Some((0, 1)));
        queue.push(&namespace(0), 10, Instant::now(), (0, 2)).unwrap();
        assert_eq!(popped(&mut queue), [(1, 1), (1, 2), (1, 3), (0, 2)]);
    }

    #[test]
    fn nobody_pays_for_what_was_removed() {
        let mut queue = pushed(40, &[(0, 1, 1_000), (0, 2, 10), (1, 1, 10), (1, 2, 10)]);
        assert_eq!(queue.remove_where(|item| *item == (0, 1)), [(0, 1)]);
        assert_eq!(popped(&mut queue), [(0, 2), (1, 1), (1, 2)]);
    }

    #[test]
    fn a_flood_leaves_half_of_the_places() {
        let mut queue = Queue::new(8);
        let mut flood = |key| {
            let push = |_: &usize| queue.push(&namespace(key), 1, Instant::now(), key).is_ok();
            (0..100).take_while(push).count()
        };
        assert_eq!([flood(0), flood(1), flood(2), flood(3), flood(4)], [4, 2, 1, 1, 0]);
        assert_eq!(queue.len(), 8);
    }

    #[test]
    fn all_who_flood_come_to_equal_shares() {
        let mut queue = Queue::new(60);
        for _ in 0..100 {
            for key in 0..5 {
                while queue.push(&namespace(key), 1, Instant::now(), key).is_ok() {}
            }
            queue.pop();
        }
        for key in 0..5 {
            let held = queue.iter().filter(|item| **item == key).count();
            assert!((9..=11).contains(&held), "{held} of 60 places, where a sixth is 10");
        }
    }

    #[test]
    fn a_queue_without_places_takes_nothing() {
        assert_eq!(Queue::new(0).push(&namespace(0), 1, Instant::now(), 7), Err(7));
    }

    #[test]
    fn a_deadline_is_over_when_it_has_come() {
        let now = Instant::now();
        let mut queue = Queue::new(9);
        for (key, after) in [(1, 5), (0, 3), (0, 9), (1, 4)] {
            let deadline = now + Duration::from_secs(after);
            queue.push(&namespace(key), 1, deadline, after).unwrap();
        }
        assert_eq!(queue.expire(now + Duration::from_secs(2)), [0; 0]);
        assert_eq!(queue.expire(now + Duration::from_secs(5)), [5, 3, 4]);
        assert_eq!(queue.drain_all(), [9]);
        assert!(queue.is_empty());
    }

    #[test]
    fn namespaces_that_are_gone_are_forgotten_when_the_others_have_caught_up() {
        let mut queue = pushed(20, &[(0, 0, 1), (0, 0, 1)]);
        for key in 1..1_000 {
            queue.push(&namespace(key), 1, Instant::now(), (key, 0)).unwrap();
            queue.push(&namespace(0), 1, Instant::now(), (0, key as u32)).unwrap();
            assert_eq!([queue.pop().unwrap().0, queue.pop().unwrap().0].iter().min(), Some(&0));
            assert!(queue.lines.len() < 4, "{} are remembered", queue.lines.len());
        }
        queue.drain_all();
        queue.rest();
        assert!(queue.lines.is_empty());
    }

    /// It found everybody equal, whoever was being served, as soon as nobody waited.
    #[test]
    fn who_is_served_already_is_behind_who_is_not_also_when_nobody_waited() {
        let mut queue = pushed(8, &[(0, 1, 10), (0, 2, 10)]);
        assert_eq!(popped(&mut queue), [(0, 1), (0, 2)]);
        for item in [(0, 3), (1, 1)] {
            queue.push(&namespace(item.0), 10, Instant::now(), item).unwrap();
        }
        assert_eq!(popped(&mut queue), [(1, 1), (0, 3)]);
        queue.rest();
        for item in [(0, 4), (1, 2)] {
            queue.push(&namespace(item.0), 10, Instant::now(), item).unwrap();
        }
        assert_eq!(popped(&mut queue), [(0, 4), (1, 2)]);
    }

    #[test]
    fn who_passes_pays_and_the_others_stay_next() {
        let mut queue = pushed(8, &[(0, 1, 10), (0, 2, 10), (1, 1, 30), (1, 2, 10), (2, 1, 10)]);
        let firsts: Vec<_> = queue.firsts().into_iter().map(|(_, item)| *item).collect();
        assert_eq!(firsts, [(0, 1), (1, 1), (2, 1)]);
        assert_eq!(queue.pop_of(&namespace(1)), Some((1, 1)));
        assert_eq!(queue.pop_of(&namespace(9)), None);
        assert_eq!(popped(&mut queue), [(0, 1), (2, 1), (0, 2), (1, 2)]);
        assert_eq!(queue.pop_of(&namespace(1)), None);
    }

    #[test]
    fn who_is_taken_at_once_has_a_place_in_a_full_line() {
        let mut queue = pushed(2, &[(0, 1, 1)]);
        assert!(queue.push(&namespace(0), 1, Instant::now(), (0, 2)).is_err());
        queue.put(&namespace(0), 1, Instant::now(), (0, 2));
        queue.put(&namespace(0), 1, Instant::now(), (0, 3));
        assert!(queue.push(&namespace(1), 1, Instant::now(), (1, 1)).is_err());
        assert_eq!(popped(&mut queue), [(0, 1), (0, 2), (0, 3)]);
    }

    #[test]
    fn no_cost_is_too_small_or_too_large() {
        let mut queue = pushed(40, &[(0, 1, 0), (0, 2, 0), (1, 1, u64::MAX), (1, 2, u64::MAX)]);
        assert_eq!(popped(&mut queue), [(0, 1), (1, 1), (0, 2), (1, 2)]);
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Push { key: usize, cost: u64, deadline_s: u64 },
        Pop,
        Expire { now_s: u64 },
        Remove { key: usize, remainder: usize },
    }

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        let push = (0..4_usize, 0..50_u64, 0..100_u64)
            .prop_map(|(key, cost, deadline_s)| Operation::Push { key, cost, deadline_s });
        let expire = (0..100_u64).prop_map(|now_s| Operation::Expire { now_s });
        let remove = (0..4_usize, 0..3_usize)
            .prop_map(|(key, remainder)| Operation::Remove { key, remainder });
        let operation = prop_oneof![6 => push, 3 => Just(Operation::Pop), 1 => expire, 1 => remove];
        prop::collection::vec(operation, 0..150)
    }

    /// What the model of a queue knows of an item; all items in the order of arrival.
    #[derive(Clone, Debug, PartialEq)]
    struct Item {
        key: usize,
        number: usize,
        deadline_s: u64,
    }

    fn extract(model: &mut Vec<Item>, is_taken: impl Fn(&Item) -> bool) -> Vec<Item> {
        let (taken, kept) = model.drain(..).partition(is_taken);
        *model = kept;
        taken
    }

    proptest! {
        #[test]
        fn property_it_is_bounded_and_in_turn_and_loses_nothing(
            most in 0..20_usize,
            operations in operations(),
        ) {
            let begin = Instant::now();
            let mut queue = Queue::new(most);
            let mut model: Vec<Item> = Vec::new();
            for (number, operation) in operations.into_iter().enumerate() {
                match operation {
                    Operation::Push { key, cost, deadline_s } => {
                        let item = Item { key, number, deadline_s };
                        let deadline = begin + Duration::from_secs(deadline_s);
                        let held = model.iter().filter(|item| item.key == key).count();
                        let has_place = held < most - model.len();
                        let result = queue.push(&namespace(key), cost, deadline, item.clone());
                        if has_place {
                            model.push(item);
                            prop_assert_eq!(result, Ok(()));
                        } else {
                            prop_assert_eq!(result, Err(item));
                        }
                    }
                    Operation::Pop => {
                        let shown = queue.peek().cloned();
                        prop_assert_eq!(queue.peek_mut().cloned(), shown.clone());
                        let popped = queue.pop();
                        prop_assert_eq!(&popped, &shown);
                        prop_assert_eq!(popped.is_none(), model.is_empty());
                        if let Some(popped) = popped {
                            let first = model.iter().position(|item| item.key == popped.key);
                            prop_assert_eq!(model.remove(first.unwrap()), popped);
                        }
                    }
                    Operation::Expire { now_s } => {
                        let expired = queue.expire(begin + Duration::from_secs(now_s));
                        let expected = extract(&mut model, |item| item.deadline_s <= now_s);
                        prop_assert_eq!(expired, expected);
                    }
                    Operation::Remove { key, remainder } => {
                        let is_removed =
                            |item: &Item| item.key == key && item.number % 3 == remainder;
                        let removed = queue.remove_where(is_removed);
                        prop_assert_eq!(removed, extract(&mut model, is_removed));
                    }
                }
                prop_assert!(queue.len() <= most);
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.is_empty(), model.is_empty());
                prop_assert_eq!(queue.iter().count(), model.len());
            }
            prop_assert_eq!(queue.drain_all(), model);
        }

        /// Two namespaces always have items, others come and go, and some items are removed.
        #[test]
        fn property_shares_differ_by_two_items_at_most(
            costs in prop::collection::vec((0..4_usize, 1..100_u64, 0..20_u32), 1..200),
            waiting in 1..4_usize,
        ) {
            let mut queue = Queue::new(1_000);
            let push = |queue: &mut Queue<(usize, u64)>, key: usize, cost| {
                queue.push(&namespace(key), cost, Instant::now(), (key, cost)).unwrap();
            };
            for key in [0, 1] {
                for _ in 0..waiting {
                    push(&mut queue, key, 50);
                }
            }
            let mut largest = [50, 50];
            let mut ahead = 0_i64;
            let (mut least, mut most) = (0, 0);
            for (key, cost, chance) in costs {
                push(&mut queue, key, cost);
                if key < 2 {
                    largest[key] = largest[key].max(cost);
                }
                let both_wait_without = |queue: &Queue<(usize, u64)>, key: usize| {
                    key > 1 || queue.iter().filter(|item| item.0 == key).count() > 1
                };
                if chance == 0 && both_wait_without(&queue, key) {
                    let mut is_first = true;
                    queue.remove_where(|item| item.0 == key && std::mem::take(&mut is_first));
                }
                let next = queue.peek().unwrap().0;
                if !both_wait_without(&queue, next) {
                    push(&mut queue, next, cost);
                    largest[next] = largest[next].max(cost);
                }
                match queue.pop().unwrap() {
                    (0, cost) => ahead += cost as i64,
                    (1, cost) => ahead -= cost as i64,
                    _ => (),
                }
                (least, most) = (least.min(ahead), most.max(ahead));
            }
            // Between any two moments, not only since the first.
            prop_assert!(most - least <= (largest[0] + largest[1]) as i64);
        }

        /// Who had nothing waiting and owes nothing waits for one item of each other at most.
        #[test]
        fn property_nobody_starves(
            costs in prop::collection::vec(0..100_u64, 1..100),
            others in 1..8_usize,
            cost in 0..10_000_u64,
        ) {
            let mut queue = Queue::new(1_000);
            let push = |queue: &mut Queue<usize>, key: usize, cost| {
                queue.push(&namespace(key), cost, Instant::now(), key).unwrap();
            };
            for key in 0..others {
                push(&mut queue, key, 10);
                push(&mut queue, key, 10);
            }
            for cost in costs {
                let key = queue.pop().unwrap();
                push(&mut queue, key, cost);
            }
            push(&mut queue, others, cost);
            let served: Vec<usize> = (0..=others)
                .map(|_| {
                    let key = queue.pop().unwrap();
                    push(&mut queue, key, 1);
                    key
                })
                .collect();
            prop_assert!(served.contains(&others), "{served:?}");
        }
    }
}
