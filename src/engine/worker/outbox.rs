//! What one client has not taken yet. The engine never waits for a reader.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Sender, error::TrySendError};

use crate::engine::{Error, Event, Item};

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
    is_cut: bool,
}

impl Outbox {
    pub fn new(sender: Sender<Item>, is_cancelled: Arc<AtomicBool>) -> Outbox {
        Outbox { sender, is_cancelled, pending: VecDeque::new(), full_since: None, is_cut: false }
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
        if self.is_cut {
            return;
        }
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

    /// The reader has been too slow: nothing but that is still to come.
    pub fn cut(&mut self) {
        self.is_cut = true;
        self.pending = VecDeque::from([Err(Error::SlowReader)]);
    }

    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    fn join(&mut self, item: Item) {
        match item {
            Ok(Event::Prefilled { tokens: newer }) => {
                if let Some(Ok(Event::Prefilled { tokens })) = self.pending.back_mut() {
                    *tokens = newer;
                    return;
                }
            }
            Ok(Event::Text(next)) => {
                // Those of several choices come in turn.
                let last = self.pending.iter_mut().rev().find_map(|item| match item {
                    Ok(Event::Text(delta)) if delta.choice == next.choice => Some(delta),
                    _ => None,
                });
                match last {
                    None => self.pending.push_back(Ok(Event::Text(next))),
                    Some(last) => {
                        last.text += &next.text;
                        last.tokens += next.tokens;
                        last.logprobs.extend(next.logprobs);
                    }
                }
                return;
            }
            Ok(Event::Admitted(_) | Event::Finished(_)) | Err(_) => (),
        }
        self.pending.push_back(item);
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
        outbox.push(text(0, "d"), now);
        outbox.push(text(1, "y"), now);
        assert_eq!(outbox.pending.len(), 2);
        let mut seen = String::new();
        while let Ok(item) = receiver.try_recv() {
            let Ok(Event::Text(delta)) = item else { panic!("{item:?}") };
            seen += &format!("{}{}:{} ", delta.choice, delta.text, delta.tokens);
            outbox.flush(now);
        }
        assert_eq!(seen, "0a:1 0bcd:3 1xy:2 ");
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
    fn a_reader_that_was_too_slow_hears_it_after_what_it_had_before() {
        let start = Instant::now();
        let (mut outbox, mut receiver) = outbox(1);
        outbox.push(text(0, "a"), start);
        outbox.push(text(0, "b"), start);
        assert!(outbox.is_stuck(start + READER_PATIENCE));
        outbox.cut();
        outbox.push(text(0, "c"), start);
        assert!(matches!(receiver.try_recv(), Ok(Ok(Event::Text(_)))));
        outbox.flush(start);
        assert_eq!(receiver.try_recv().unwrap().unwrap_err(), Error::SlowReader);
        assert!(outbox.is_empty());
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
