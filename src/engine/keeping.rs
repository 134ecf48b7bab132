//! What an engine keeps agents with beyond its pool.

use std::sync::Arc;

use crate::model::Model;
use crate::store::{KvModel, Store};
use crate::types::Fingerprint;

/// A store, and whose KV it is that goes there.
#[derive(Clone)]
pub struct Keeping {
    /// If it is read-only, agents come back from it and nothing is saved.
    pub store: Arc<Store>,
    pub fingerprint: Fingerprint,
    /// As the user calls the model.
    pub model: String,
}

impl Keeping {
    pub(super) fn model(&self, model: &dyn Model) -> Arc<KvModel> {
        Arc::new(KvModel {
            fingerprint: self.fingerprint,
            name: self.model.clone(),
            producer: format!("{}, semantic {}", model.path(), env!("CARGO_PKG_VERSION")),
            tensors: model.spec().tensors.clone(),
        })
    }
}
