//! Turns requests into tokens: continuous batching over one pool of KV blocks.

mod error;
mod handle;
mod pool;
mod request;
pub mod single;
mod store;

pub use crate::model::sample::{Sampling, TokenLogprob};
pub use error::{DrainError, Error};
pub use handle::{Engine, Evicted, Stats, Status, Stream};
pub use request::{
    Admitted, CHOICES_MAX, Choice, Delta, Event, Finish, Item, Outcome, Reply, Request, Source,
    TOP_LOGPROBS_MAX,
};
pub use store::{Forgetful, HeadId, Snapshot, Store, StoreError};
