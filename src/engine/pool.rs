//! Which blocks of the KV pool are in use. Pure.
//!
//! Who needs a block holds a [`Lease`]; sequences and kept heads that share a block hold clones of
//! one. Nothing is ever freed by id: what was never leased, or is leased no more, has no lease to
//! drop, so a double free, a free of another's block or of an unknown one cannot be written.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::BlockRef;
use crate::types::BlockId;

/// The blocks `0..total` of a model's pool, each free or leased.
pub struct Pool {
    total: usize,
    free: Arc<FreeList>,
}

/// The right to use one block. The block is free again when the last clone is dropped, on
/// whichever thread, also if the pool is gone.
#[derive(Clone)]
pub struct Lease(Arc<Held>);

/// There are not that many blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{requested} blocks requested, {available} of {total} available")]
pub struct Exhausted {
    pub requested: usize,
    pub available: usize,
    pub total: usize,
}

impl Pool {
    /// `total` is [`Spec::pool_blocks`](crate::model::Spec::pool_blocks).
    pub fn new(total: usize) -> Pool {
        let end = u32::try_from(total).expect("a block's id is 32 bits wide");
        // The end of the list goes first, so a fresh pool gives the lowest ids.
        let free = (0..end).rev().map(BlockId).collect();
        Pool { total, free: Arc::new(FreeList(Mutex::new(free))) }
    }

    pub fn total(&self) -> usize {
        self.total
    }

    pub fn free(&self) -> usize {
        self.free.lock().len()
    }

    /// Always `total - free`: a shared block counts once.
    pub fn used(&self) -> usize {
        self.total - self.free()
    }

    /// All of `count` blocks or none; 0 is no error, as a prompt may be wholly shared.
    ///
    /// The blocks freed last go first: they may still be in a cache, and memory that was never
    /// touched need never be backed by the system.
    pub fn allocate(&mut self, count: usize) -> Result<Vec<Lease>, Exhausted> {
        let mut free = self.free.lock();
        let Some(kept) = free.len().checked_sub(count) else {
            let (available, total) = (free.len(), self.total);
            return Err(Exhausted { requested: count, available, total });
        };
        let lease = |block| {
            let free = Arc::clone(&self.free);
            Lease(Arc::new(Held { block, stored: Mutex::new(None), free }))
        };
        Ok(free.drain(kept..).rev().map(lease).collect())
    }
}

impl Lease {
    pub fn id(&self) -> BlockId {
        self.0.block
    }

    /// What the block is in the store, if it is there or on its way: all of its tokens have KV and
    /// nobody writes to it any more.
    pub fn stored(&self) -> Option<BlockRef> {
        self.0.stored().clone()
    }

    /// What the block is in the store. `None` if it turns out not to be there.
    pub fn set_stored(&self, stored: Option<BlockRef>) {
        *self.0.stored() = stored;
    }

    /// Whether another lease of this block exists; if so, nobody may write to it.
    pub fn is_shared(&self) -> bool {
        self.holders() > 1
    }

    /// Leases of this block, this one included. Another thread may drop one meanwhile; where the
    /// answer is 1 it stays so until this lease is cloned.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} x{}", self.id(), self.holders())
    }
}

/// What all leases of a block share.
struct Held {
    block: BlockId,
    stored: Mutex<Option<BlockRef>>,
    free: Arc<FreeList>,
}

impl Held {
    fn stored(&self) -> MutexGuard<'_, Option<BlockRef>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.free.lock().push(self.block);
    }
}

/// The last one is leased next. It never grows beyond the capacity that it begins with.
struct FreeList(Mutex<Vec<BlockId>>);

impl FreeList {
    fn lock(&self) -> MutexGuard<'_, Vec<BlockId>> {
        // Nothing panics between two states of the list, so a poisoned one is still right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn ids(leases: &[Lease]) -> Vec<u32> {
        leases.iter().map(|lease| lease.id().0).collect()
    }

    #[test]
    fn a_fresh_pool_gives_the_lowest_ids_first() {
        let mut pool = Pool::new(5);
        assert_eq!(ids(&pool.allocate(2).unwrap()), [0, 1]);
        assert_eq!(pool.allocate(0).unwrap().len(), 0);
    }

    #[test]
    fn the_block_freed_last_is_leased_first() {
        let mut pool = Pool::new(5);
        let mut leases = pool.allocate(4).unwrap();
        drop(leases.remove(2));
        drop(leases.remove(0));
        assert_eq!(ids(&pool.allocate(3).unwrap()), [0, 2, 4]);
    }

    #[test]
    fn a_block_is_used_until_its_last_lease_is_dropped() {
        let mut pool = Pool::new(2);
        let first = pool.allocate(1).unwrap().remove(0);
        assert!(!first.is_shared());
        let second = first.clone();
        assert!(first.is_shared());
        assert_eq!((second.id(), second.holders()), (first.id(), 2));
        assert_eq!(format!("{second:?}"), "b0 x2");
        drop(first);
        assert!(!second.is_shared());
        assert_eq!(pool.used(), 1);
        drop(second);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn leases_may_outlive_their_pool() {
        let leases = Pool::new(3).allocate(2).unwrap();
        assert_eq!(ids(&leases), [0, 1]);
    }

    #[test]
    fn raise_pool_exhausted_error() {
        let mut pool = Pool::new(3);
        let held = pool.allocate(2).unwrap();
        assert!(pool.allocate(2).is_err());
        assert_eq!(pool.free(), 1, "a refused allocation takes nothing");
        drop(held);
        assert_eq!(pool.allocate(3).unwrap().len(), 3);
        assert!(Pool::new(0).allocate(1).is_err());
        assert!(pool.allocate(usize::MAX).is_err());
    }

    #[test]
    fn pool_exhausted_provides_details() {
        let mut pool = Pool::new(3);
        let _held = pool.allocate(1).unwrap();
        let exhausted = pool.allocate(7).unwrap_err();
        assert_eq!(exhausted, Exhausted { requested: 7, available: 2, total: 3 });
        assert_eq!(exhausted.to_string(), "7 blocks requested, 2 of 3 available");
    }

    #[test]
    fn growth_crossing_block_boundary() {
        let mut pool = Pool::new(8);
        let mut sequence = pool.allocate(1).unwrap();
        let mut other = pool.allocate(1).unwrap();
        sequence.extend(pool.allocate(1).unwrap());
        other.extend(pool.allocate(1).unwrap());
        assert_eq!((ids(&sequence), ids(&other)), (vec![0, 2], vec![1, 3]));
    }

    #[test]
    fn no_orphans_after_partial_free() {
        let mut pool = Pool::new(10);
        let mut leases = pool.allocate(10).unwrap();
        leases.truncate(4);
        assert_eq!((pool.free(), pool.used()), (6, 4));
        drop(leases);
        assert_eq!(unique(&pool.allocate(10).unwrap()), 10);
    }

    #[test]
    fn allocate_free_cycle_no_growth() {
        let mut pool = Pool::new(10);
        let capacity = pool.free.lock().capacity();
        for _ in 0..1_000 {
            drop(pool.allocate(10).unwrap());
        }
        assert_eq!(pool.free(), 10);
        assert_eq!(pool.free.lock().capacity(), capacity);
    }

    #[test]
    fn invariant_after_10k_operations() {
        let mut pool = Pool::new(64);
        let mut held = Vec::new();
        for i in 0..10_000_usize {
            match i % 7 {
                0..4 => held.extend(pool.allocate(i % 5).unwrap_or_default()),
                _ if held.is_empty() => (),
                _ => drop(held.swap_remove(i * 31 % held.len())),
            }
            assert_eq!((pool.used(), pool.free()), (held.len(), 64 - held.len()));
        }
        assert_eq!(unique(&held), held.len());
    }

    #[test]
    fn a_panic_while_the_list_is_locked_does_not_lose_the_pool() {
        let mut pool = Pool::new(4);
        let leases = pool.allocate(3).unwrap();
        let free = Arc::clone(&pool.free);
        thread::spawn(move || {
            let _locked = free.0.lock().unwrap();
            panic!("while the list is locked");
        })
        .join()
        .unwrap_err();
        drop(leases);
        assert_eq!(pool.allocate(4).unwrap().len(), 4);
    }

    const THREADS: usize = 10;

    #[test]
    fn concurrent_allocation_10_threads() {
        let pool = Mutex::new(Pool::new(100));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for round in 0..500 {
                        // Ten times ten blocks: there is always room.
                        let leases = pool.lock().unwrap().allocate(round % 10 + 1).unwrap();
                        assert_eq!(unique(&leases), leases.len());
                        assert!(leases.iter().all(|lease| !lease.is_shared()));
                    }
                });
            }
        });
        assert_eq!(pool.lock().unwrap().free(), 100);
    }

    #[test]
    fn concurrent_free_no_double_free() {
        let mut pool = Pool::new(50);
        for _ in 0..50 {
            let leases = pool.allocate(50).unwrap();
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    let leases = leases.clone();
                    scope.spawn(move || drop(leases));
                }
                drop(leases);
            });
            assert_eq!(pool.free(), 50);
            assert_eq!(unique(&pool.allocate(50).unwrap()), 50);
        }
    }

    #[test]
    fn pool_exhaustion_concurrent() {
        let pool = Mutex::new(Pool::new(25));
        let held = thread::scope(|scope| {
            let threads = [(); THREADS].map(|()| scope.spawn(|| pool.lock().unwrap().allocate(5)));
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(held.iter().filter(|leases| leases.is_ok()).count(), 5);
        assert_eq!(pool.lock().unwrap().used(), 25);
    }

    fn unique(leases: &[Lease]) -> usize {
        leases.iter().map(Lease::id).collect::<BTreeSet<_>>().len()
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Allocate(usize),
        Share(prop::sample::Index),
        Drop(prop::sample::Index),
    }

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        let operation = prop_oneof![
            (0..6_usize).prop_map(Operation::Allocate),
            any::<prop::sample::Index>().prop_map(Operation::Share),
            any::<prop::sample::Index>().prop_map(Operation::Drop),
        ];
        prop::collection::vec(operation, 0..100)
    }

    proptest! {
        #[test]
        fn property_used_plus_available_equals_total(
            total in 0..24_usize,
            operations in operations(),
        ) {
            let mut pool = Pool::new(total);
            let mut held: Vec<Lease> = Vec::new();
            for operation in operations {
                let available = pool.free();
                match operation {
                    Operation::Allocate(count) => match pool.allocate(count) {
                        Ok(leases) => {
                            prop_assert_eq!(leases.len(), count);
                            prop_assert!(leases.iter().all(|lease| !lease.is_shared()));
                            held.extend(leases);
                        }
                        Err(error) => {
                            prop_assert!(count > available);
                            let expected = Exhausted { requested: count, available, total };
                            prop_assert_eq!(error, expected);
                        }
                    },
                    Operation::Share(index) if !held.is_empty() => {
                        held.push(index.get(&held).clone());
                    }
                    Operation::Drop(index) if !held.is_empty() => {
                        held.swap_remove(index.index(held.len()));
                    }
                    Operation::Share(_) | Operation::Drop(_) => (),
                }
                prop_assert_eq!(pool.used(), unique(&held));
                prop_assert_eq!(pool.used() + pool.free(), pool.total());
                for lease in &held {
                    let holders = held.iter().filter(|other| other.id() == lease.id()).count();
                    prop_assert_eq!(lease.holders(), holders);
                }
            }
            drop(held);
            prop_assert_eq!(unique(&pool.allocate(total).unwrap()), total);
        }

        #[test]
        fn property_allocate_then_free_restores_state(before in 0..8_usize, count in 0..8_usize) {
            let mut pool = Pool::new(16);
            let _held = pool.allocate(before).unwrap();
            let mut free = pool.free.lock().clone();
            drop(pool.allocate(count).unwrap());
            let mut after = pool.free.lock().clone();
            free.sort();
            after.sort();
            prop_assert_eq!(after, free);
        }

        #[test]
        fn property_multi_agent_isolation(
            counts in prop::collection::vec(0..6_usize, 1..8),
            gone in any::<prop::sample::Index>(),
        ) {
            let mut pool = Pool::new(48);
            let mut agents: Vec<Vec<Lease>> =
                counts.iter().map(|count| pool.allocate(*count).unwrap()).collect();
            let gone = agents.swap_remove(gone.index(agents.len()));
            let kept: Vec<Vec<u32>> = agents.iter().map(|leases| ids(leases)).collect();
            drop(gone);
            let newcomer = pool.allocate(pool.free()).unwrap();
            let all = [agents.concat(), newcomer].concat();
            prop_assert_eq!(unique(&all), 48);
            prop_assert_eq!(agents.iter().map(|leases| ids(leases)).collect::<Vec<_>>(), kept);
        }
    }
}
