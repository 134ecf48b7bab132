//! A store that keeps agents in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use semantic::engine::{HeadId, Snapshot, Store, StoreError};

/// Clones share what is kept.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<HashMap<HeadId, Snapshot>>>);

impl Store for MemoryStore {
    fn keeps(&self) -> bool {
        true
    }

    fn save(&mut self, snapshot: Snapshot) -> Result<(), StoreError> {
        self.0.lock().unwrap().insert(snapshot.head, snapshot);
        Ok(())
    }

    fn load(&mut self, head: HeadId, blocks: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let kept = self.0.lock().unwrap();
        let snapshot = kept.get(&head).ok_or_else(|| StoreError("it is not there".to_owned()))?;
        Ok(snapshot.blocks[..blocks].to_vec())
    }

    fn forget(&mut self, head: HeadId) {
        self.0.lock().unwrap().remove(&head);
    }
}
