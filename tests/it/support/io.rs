//! What reads and writes the store in a simulation: on the same thread, at a time the test chooses.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use semantic::engine::worker::io::{Done, Io, Read, Write, do_read, do_write};
use semantic::store::{KvModel, Store};

use super::random::Random;

/// Clones are the same. Writes are done in order, reads in any.
#[derive(Clone)]
pub struct SlowIo(Rc<RefCell<State>>);

struct State {
    store: Arc<Store>,
    model: Arc<KvModel>,
    random: Random,
    writes: VecDeque<Write>,
    reads: Vec<Read>,
    /// Jobs that wait before there is no room for more.
    writes_max: usize,
    restored_blocks: usize,
    failed_saves: usize,
}

impl SlowIo {
    pub fn new(store: Arc<Store>, model: Arc<KvModel>, mut random: Random) -> SlowIo {
        let writes_max = random.range(1..12);
        SlowIo(Rc::new(RefCell::new(State {
            store,
            model,
            random,
            writes: VecDeque::new(),
            reads: Vec::new(),
            writes_max,
            restored_blocks: 0,
            failed_saves: 0,
        })))
    }

    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.0.borrow().store)
    }

    pub fn restored_blocks(&self) -> usize {
        self.0.borrow().restored_blocks
    }

    pub fn failed_saves(&self) -> usize {
        self.0.borrow().failed_saves
    }
}

impl Io for SlowIo {
    fn has_room(&self) -> bool {
        let state = self.0.borrow();
        state.writes.len() < state.writes_max
    }

    fn set_busy(&mut self, _: bool) {}

    fn write(&mut self, job: Write) {
        self.0.borrow_mut().writes.push_back(job);
    }

    fn read(&mut self, job: Read) {
        self.0.borrow_mut().reads.push(job);
    }

    fn take_done(&mut self) -> Vec<Done> {
        let mut state = self.0.borrow_mut();
        let mut done = Vec::new();
        for _ in 0..state.random.range(0..4) {
            let Some(job) = state.writes.pop_front() else { break };
            done.extend(do_write(&state.store, job));
        }
        if state.writes.is_empty() && state.random.range(0..20) == 0 {
            // The disk may fail at this, too.
            let _ = state.store.collect();
        }
        for _ in 0..state.random.range(0..4) {
            if state.reads.is_empty() {
                break;
            }
            let count = state.reads.len();
            let index = state.random.range(0..count);
            let job = state.reads.swap_remove(index);
            done.push(do_read(&state.store, &state.model, job));
        }
        for one in &done {
            match one {
                Done::Read { result: Ok(_), .. } => state.restored_blocks += 1,
                Done::Committed { result: Err(_), .. } => state.failed_saves += 1,
                Done::Read { .. }
                | Done::Committed { .. }
                | Done::Written { .. }
                | Done::Removed { .. }
                | Done::Forked { .. }
                | Done::RolledBack { .. }
                | Done::Retained { .. }
                | Done::Expired { .. }
                | Done::MadeRoom { .. }
                | Done::Kept { .. }
                | Done::NotWritten { .. } => (),
            }
        }
        done
    }
}
