//! Turns requests into tokens: continuous batching over one pool of KV blocks.
//!
//! [`Engine`] is the door: a handle on the one thread that owns model, pool and store. The thread
//! and its clock are in [`worker`]; what is decided, and by what rules, is pure:
//!
//! | file | what it decides |
//! | --- | --- |
//! | [`scheduler`] | who is admitted, parked and evicted, what runs in the next step |
//! | [`queue`] | who is next in line |
//! | [`pace`] | how much fits a step's time |
//! | [`agents`], [`prefix`] | what is kept after a request, and where a prompt finds itself again |
//! | [`pool`] | which blocks are free |
//! | [`purse`] | what a request costs whoever asks |
//! | [`sequence`] | the tokens and the text of one reply |

mod about;
pub mod agents;
mod error;
mod handle;
mod keeping;
pub mod pace;
pub mod pool;
pub mod prefix;
pub mod purse;
pub mod queue;
mod request;
pub mod scheduler;
pub mod sequence;
pub mod worker;

pub use crate::model::Spec;
pub use crate::model::sample::{BIAS_MAX, BIASES_MAX, Bias, Sampling, TokenLogprob};
pub use crate::store::{Retention, RetentionChange, TTL_MAX, Transcript, Usage as StoreUsage};
pub use about::{
    AgentError, AgentPage, AgentState, HeadState, Mark, Page, Past, Recalled, StoredState, Tier,
    Tiers, Warmth,
};
pub use error::{DrainError, Error};
pub use handle::{Config, Engine, Evicted, Stats, Status, StoredTranscript, Stream, Terms};
pub use keeping::Keeping;
pub use purse::{Purse, Short};
pub use request::{
    Admitted, CHOICES_MAX, Choice, Delta, Durability, Event, Finish, Item, Outcome, Reply, Request,
    Source, TOP_LOGPROBS_MAX, budget_tokens,
};
