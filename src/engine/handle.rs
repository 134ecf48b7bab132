//! The engine as others hold it: cheap to clone, usable from any thread.

use std::sync::Arc;
use std::time::Duration;

use super::{DrainError, Error, Event, Item, Request};
use crate::types::{Namespace, TokenId};

/// A handle on the engine's thread. Clones share it; it stops with [`Engine::shutdown`].
#[derive(Clone)]
pub struct Engine {
    // filled in with the worker
}

/// How far the engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The model is being loaded, or its first token is not out yet.
    Starting,
    Serving,
    /// New requests are refused; what runs goes on.
    Draining,
    /// It cannot go on: loading failed, or the thread died.
    Failed(String),
    /// Shut down.
    Stopped,
}

/// What the engine is doing, as of the last step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub blocks_total: usize,
    pub blocks_free: usize,
    pub blocks_used: usize,
    /// Of those used, what idle agents hold and could be had at once.
    pub blocks_evictable: usize,
    pub running: usize,
    pub waiting: usize,
    pub parked: usize,
    pub agents: usize,
}

/// The answer to one request, as it comes. Dropping it cancels the request.
pub struct Stream {
    receiver: tokio::sync::mpsc::Receiver<Item>,
}

/// What [`Engine::evict_all_to_disk`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Heads that are safe in the store.
    pub saved: usize,
    /// Heads that could not be saved.
    pub failed: usize,
}

impl Engine {
    /// Never waits. A refusal is the stream's first item.
    pub fn submit(&self, request: Request) -> Stream {
        unreachable!("{request:?}")
    }

    pub fn status(&self) -> Status {
        Status::Starting
    }

    pub fn stats(&self) -> Stats {
        Stats::default()
    }

    /// The ids that replies with this text (outer white space aside) were generated as, latest
    /// first: what `text::chat_prompt` asks for.
    pub fn known_replies(&self, _namespace: &Namespace, _text: &str) -> Vec<Arc<[TokenId]>> {
        Vec::new()
    }

    /// From the instant of the call new requests are refused. Waits until everything accepted
    /// before has finished and returns how much that was. May be called again.
    pub async fn drain(&self, timeout: Duration) -> Result<usize, DrainError> {
        let _ = timeout;
        Ok(0)
    }

    /// Ends every request with [`Error::Cut`]; their KV is kept.
    pub fn cut(&self) {}

    /// Saves every idle agent and gives its blocks back.
    pub async fn evict_all_to_disk(&self) -> Result<Evicted, Error> {
        Ok(Evicted::default())
    }

    /// Ends the thread, and every request with [`Error::Cut`]. May be called again.
    pub fn shutdown(&self) {}
}

impl Stream {
    /// The next item; `None` after [`Event::Finished`] or an error.
    pub async fn next(&mut self) -> Option<Item> {
        self.receiver.recv().await
    }

    /// As [`Stream::next`], for callers without a runtime.
    pub fn blocking_next(&mut self) -> Option<Item> {
        self.receiver.blocking_recv()
    }
}
