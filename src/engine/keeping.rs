//! What an engine keeps agents with beyond its pool.

use std::sync::Arc;

use crate::model::Spec;
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
    /// What computes, and which release: for people to read.
    pub producer: String,
}

impl Keeping {
    pub(super) fn model(&self, spec: &Spec) -> Arc<KvModel> {
        Arc::new(KvModel {
            fingerprint: self.fingerprint,
            name: self.model.clone(),
            producer: self.producer.clone(),
            tensors: spec.tensors.clone(),
        })
    }
}
