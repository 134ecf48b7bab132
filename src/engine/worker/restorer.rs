//! Brings blocks of agents back from the disk while other agents go on.

use std::collections::BTreeMap;
use std::iter;
use std::time::Instant;

use super::io::{Failed, Io, Read};
use super::observer::Observer;
use crate::engine::scheduler::{Restore, RestoreId, Scheduler};
use crate::model::Model;
use crate::store::KvBytes;

/// Bytes that are being read or wait to be put into the pool. One block at least is. Few, so that
/// what was read is still in a cache when it is hashed and copied.
const READ_BYTES_MAX: u64 = 16 << 20;
/// The same for what nobody waits for yet: a request's reads come behind it.
const HINT_BYTES_MAX: u64 = 4 << 20;
/// Of these, what is kept ready: memory that nobody has touched costs as much as reading into it.
const SPARE_BYTES: usize = 13 << 20;
/// A block's file is so much longer than its KV at most.
const HEADER_BYTES: usize = 256 << 10;

/// What came of one [`Read`].
pub struct Arrived {
    pub restore: RestoreId,
    pub index: usize,
    pub result: Result<KvBytes, Failed>,
}

pub struct Restorer {
    active: BTreeMap<RestoreId, Active>,
    read_bytes: u64,
    /// Memory for blocks to come.
    spare: Vec<Vec<u8>>,
    spare_max: usize,
}

struct Active {
    restore: Restore,
    /// The next block to ask for.
    next: usize,
    /// Blocks that have been asked for and have not come.
    awaited: usize,
    /// The first block that did not come well; those after it are of no use.
    end: usize,
}

impl Restorer {
    /// For blocks of so many bytes.
    pub fn new(block_bytes: usize) -> Restorer {
        let bytes = block_bytes + HEADER_BYTES;
        // Written to, so that it is there.
        let spare: Vec<Vec<u8>> = (0..SPARE_BYTES / bytes).map(|_| vec![1; bytes]).collect();
        Restorer { active: BTreeMap::new(), read_bytes: 0, spare_max: spare.len(), spare }
    }

    pub fn begin(&mut self, restore: Restore, io: &mut dyn Io) {
        let end = restore.blocks.len();
        self.active.insert(restore.id, Active { restore, next: 0, awaited: 0, end });
        self.ask(io);
    }

    /// What somebody waits for first, and of that the oldest, so that one is done before all are.
    fn ask(&mut self, io: &mut dyn Io) {
        let (awaited, hints): (Vec<_>, Vec<_>) =
            self.active.values_mut().partition(|active| active.restore.order.is_some());
        let awaited = awaited.into_iter().zip(iter::repeat(READ_BYTES_MAX));
        let hints = hints.into_iter().zip(iter::repeat(HINT_BYTES_MAX));
        for (active, bytes_max) in awaited.chain(hints) {
            while active.next < active.end {
                let from = &active.restore.blocks[active.next].from;
                if self.read_bytes > 0 && self.read_bytes + from.file_bytes > bytes_max {
                    return;
                }
                self.read_bytes += from.file_bytes;
                io.read(Read {
                    restore: active.restore.id,
                    index: active.next,
                    namespace: active.restore.namespace.clone(),
                    block: from.clone(),
                    buffer: self.spare.pop().unwrap_or_default(),
                });
                active.next += 1;
                active.awaited += 1;
            }
        }
    }

    /// A block has come, or cannot come.
    pub fn arrived(
        &mut self,
        arrived: Arrived,
        scheduler: &mut Scheduler,
        model: &mut dyn Model,
        io: &mut dyn Io,
        observer: &Observer,
        now: Instant,
    ) {
        let Arrived { restore: id, index, result } = arrived;
        let active = self.active.get_mut(&id).expect("it stays until all it asked for has come");
        let block = &active.restore.blocks[index];
        active.awaited -= 1;
        self.read_bytes -= block.from.file_bytes;
        if result.is_ok() {
            observer.read(block.from.file_bytes);
        }
        // Its request may have gone, and its blocks be another's.
        let is_awaited = scheduler.awaits(&active.restore);
        if !is_awaited {
            active.end = 0;
        }
        let result = result.map_err(|error| error.to_string()).and_then(|kv| {
            let imported = match is_awaited && index < active.end {
                true => model.import(block.to, block.from.tokens, &kv),
                false => Ok(()),
            };
            self.spare.push(kv.into_buffer());
            imported.map_err(|error| error.to_string())
        });
        if let Err(reason) = result {
            let warn = || {
                tracing::warn!(
                    index,
                    reason,
                    "a saved block is of no use; computing from there on"
                );
            };
            match active.restore.order {
                Some(order) => observer.in_scope(order.request, warn),
                None => warn(),
            }
            active.end = active.end.min(index);
        }
        if active.awaited == 0 && active.next >= active.end {
            let Active { restore, end, .. } = self.active.remove(&id).expect("it was just there");
            observer.restored(&restore, end, now);
            scheduler.restored(&restore, end, now);
        }
        self.ask(io);
        if self.active.is_empty() {
            self.spare.truncate(self.spare_max);
        }
    }
}
