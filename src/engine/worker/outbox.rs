//! What one client has not taken yet. The engine never waits for a reader.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Sender, error::TrySendError};

use crate::engine::{Event, Item};

/// Items in a stream's channel: more than a reader that keeps up ever leaves there.
pub const STREAM_ITEMS_MAX: usize = 64;
/// A reader that has taken nothing for so long is gone.
pub const READER_PATIENCE: Duration = Duration::from_secs(30);

/// One stream's end in the engine.
pub struct Outbox {
    sender: Sender<Item>,
    is_cancelled: Arc<AtomicBool>,
    /// What the channel has no room for. Text of one choice joins, so it is no longer than the
    /// reply.
    pending: VecDeque<Item>,
    full_since: Option<Instant>,
}

impl Outbox {
    pub fn new(sender: Sender<Item>, is_cancelled: Arc<AtomicBool>) -> Outbox {
        Outbox { sender, is_cancelled, pending: VecDeque::new(), full_since: None }
    }

    /// The caller wants no more, or is gone.
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed) || self.is_gone()
    }

    pub fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether everything has reached the channel.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether the reader has let the channel be full for too long.
    pub fn is_stuck(&self, now: Instant) -> bool {
        self.full_since.is_some_and(|since| now.saturating_duration_since(since) >= READER_PATIENCE)
    }

    pub fn push(&mut self, item: Item, now: Instant) {
        self.join(item);
        self.flush(now);
    }

    /// Moves what there is room for.
    pub fn flush(&mut self, now: Instant) {
        while let Some(item) = self.pending.pop_front() {
            match self.sender.try_send(item) {
                Ok(()) => self.full_since = None,
                Err(TrySendError::Full(item)) => {
                    self.pending.push_front(item);
                    self.full_since.get_or_insert(now);
                    return;
                }
                Err(TrySendError::Closed(_)) => {
                    self.pending.clear();
                    return;
                }
            }
        }
    }

    fn join(&mut self, item: Item) {
        match (self.pending.back_mut(), item) {
            (Some(Ok(Event::Prefilled { tokens })), Ok(Event::Prefilled { tokens: newer })) => {
                *tokens = newer;
            }
            (Some(Ok(Event::Text(last))), Ok(Event::Text(next))) if last.choice == next.choice => {
                last.text += &next.text;
                last.tokens += next.tokens;
                last.logprobs.extend(next.logprobs);
            }
            (_, item) => self.pending.push_back(item),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::engine::Delta;

    fn text(choice: usize, text: &str) -> Item {
        Ok(Event::Text(Delta { choice, text: text.to_owned(), tokens: 1, ..Delta::default() }))
    }

    fn outbox(room: usize) -> (Outbox, mpsc::Receiver<Item>) {
        let (sender, receiver) = mpsc::channel(room);
        (Outbox::new(sender, Arc::default()), receiver)
    }

    #[test]
    fn what_a_slow_reader_has_missed_comes_joined_and_in_order() {
        let now = Instant::now();
        let (mut outbox, mut receiver) = outbox(1);
        for part in ["a", "b", "c"] {
            outbox.push(text(0, part), now);
        }
        outbox.push(text(1, "x"), now);
        assert_eq!(outbox.pending.len(), 2);
        let mut seen = String::new();
        while let Ok(item) = receiver.try_recv() {
            let Ok(Event::Text(delta)) = item else { panic!("{item:?}") };
            seen += &format!("{}{}:{} ", delta.choice, delta.text, delta.tokens);
            outbox.flush(now);
        }
        assert_eq!(seen, "0a:1 0bc:2 1x:1 ");
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_reader_is_stuck_when_it_has_taken_nothing_for_long() {
        let start = Instant::now();
        let (mut outbox, mut receiver) = outbox(1);
        outbox.push(text(0, "a"), start);
        assert!(!outbox.is_stuck(start + READER_PATIENCE));
        outbox.push(text(0, "b"), start);
        assert!(!outbox.is_stuck(start + READER_PATIENCE / 2));
        assert!(outbox.is_stuck(start + READER_PATIENCE));
        assert!(receiver.try_recv().is_ok());
        outbox.flush(start + READER_PATIENCE);
        assert!(!outbox.is_stuck(start + READER_PATIENCE * 2));
    }

    #[test]
    fn a_dropped_reader_cancels_and_keeps_nothing() {
        let now = Instant::now();
        let (mut outbox, receiver) = outbox(1);
        outbox.push(text(0, "a"), now);
        outbox.push(text(1, "b"), now);
        drop(receiver);
        assert!(outbox.is_cancelled());
        outbox.flush(now);
        assert!(outbox.is_empty());
    }
}
