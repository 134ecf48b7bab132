//! The engine as its callers have it, on a fake model that the tests hold: no test sleeps, and
//! none depends on how long anything takes.

mod failures;
mod late;
mod lifecycle;
mod named;
mod paying;
mod reuse;
mod serving;
mod storing;
