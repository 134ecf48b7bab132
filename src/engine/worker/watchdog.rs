//! Ends a process whose engine hangs in a step: an engine that hangs must not look alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Watch;

/// A step may take so many times what it was predicted to.
const PATIENCE: u32 = 10;
/// And at least this: a machine that sleeps or swaps is no reason to end.
pub const PATIENCE_MIN: Duration = Duration::from_secs(30);
/// How often it looks.
const PERIOD: Duration = Duration::from_millis(500);

/// Shared by the engine's thread, which says when a step begins and ends, and the one that looks.
pub struct Watchdog {
    started: Instant,
    patience_min: Duration,
    /// Milliseconds from `started` at which the step in progress is hung; 0 between steps.
    deadline_ms: AtomicU64,
    is_done: AtomicBool,
}

impl Watchdog {
    /// `on_hang` is called once, from a thread of its own.
    pub fn start(
        patience_min: Duration,
        on_hang: impl FnOnce(String) + Send + 'static,
    ) -> std::io::Result<Arc<Watchdog>> {
        let watchdog = Arc::new(Watchdog {
            started: Instant::now(),
            patience_min,
            deadline_ms: AtomicU64::new(0),
            is_done: AtomicBool::new(false),
        });
        let watched = Arc::clone(&watchdog);
        let period = PERIOD.min(patience_min / 4).max(Duration::from_millis(1));
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            while !watched.is_done.load(Ordering::Relaxed) {
                thread::sleep(period);
                if watched.is_hung() {
                    let most = watched.patience_min.as_secs();
                    return on_hang(format!(
                        "a step has not ended (the limit is {most} s or more)"
                    ));
                }
            }
        })?;
        Ok(watchdog)
    }

    pub fn stop(&self) {
        self.is_done.store(true, Ordering::Relaxed);
    }

    fn is_hung(&self) -> bool {
        let deadline = self.deadline_ms.load(Ordering::Relaxed);
        deadline > 0 && self.started.elapsed().as_millis() as u64 > deadline
    }
}

impl Watch for Watchdog {
    fn begin(&self, predicted: Duration) {
        let patience = (predicted.saturating_mul(PATIENCE)).max(self.patience_min);
        let deadline = self.started.elapsed().saturating_add(patience).as_millis();
        self.deadline_ms.store((deadline as u64).max(1), Ordering::Relaxed);
    }

    fn end(&self) {
        self.deadline_ms.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_step_that_does_not_end_is_reported_once() {
        let (sender, receiver) = mpsc::channel();
        let on_hang = move |reason| sender.send(reason).expect("the test listens");
        let watchdog = Watchdog::start(Duration::from_millis(5), on_hang).expect("a thread");
        watchdog.begin(Duration::ZERO);
        assert!(receiver.recv().expect("it is reported").contains("has not ended"));
        // Its thread is gone, and the sender with it.
        assert!(receiver.recv().is_err());
    }

    #[test]
    fn a_step_that_ends_is_not() {
        let (sender, receiver) = mpsc::channel::<String>();
        let on_hang = move |reason| sender.send(reason).expect("the test listens");
        let watchdog = Watchdog::start(Duration::from_secs(3_600), on_hang).expect("a thread");
        watchdog.begin(Duration::from_secs(1));
        assert!(!watchdog.is_hung());
        watchdog.end();
        assert!(!watchdog.is_hung());
        watchdog.stop();
        assert!(receiver.recv().is_err());
    }
}
