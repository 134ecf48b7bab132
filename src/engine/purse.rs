//! Who pays for a request's tokens, and how much: what it is sure to cost is set aside before it is
//! taken, what it came to is paid as it comes, and what was not used goes back.
//!
//! Counted are tokens that the model reads or writes for the request: those of the prompt that are not in
//! memory, and all of the replies. What is remembered is free, and so is what is computed a second time
//! because another request took the blocks.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What tokens are paid from. Several requests share it.
pub trait Purse: fmt::Debug + Send + Sync {
    /// Takes so many tokens if they are there.
    fn set_aside(&self, tokens: usize, now: Instant) -> Result<(), Short>;

    /// Takes them also if they are not: then nothing can be set aside for a while.
    fn pay(&self, tokens: usize, now: Instant);

    /// What was taken and is not used.
    fn give_back(&self, tokens: usize);
}

/// Why nothing was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// It will be there in this time, if nobody else takes it.
    For(Duration),
    /// There are never more than these.
    Always { most: usize },
}

/// What one request pays. What it has set aside and not used goes back when this is dropped.
pub struct Tab {
    purse: Arc<dyn Purse>,
    /// Taken so far.
    taken: usize,
    /// Of the prompt, and of the replies.
    computed: usize,
    generated: usize,
}

impl Tab {
    pub fn open(purse: Arc<dyn Purse>, sure: usize, now: Instant) -> Result<Tab, Short> {
        purse.set_aside(sure, now)?;
        Ok(Tab { purse, taken: sure, computed: 0, generated: 0 })
    }

    /// So many tokens of the prompt are computed by now. It may be told less later, of a sequence that
    /// had to begin again.
    pub fn computed(&mut self, tokens: usize, now: Instant) {
        self.computed = self.computed.max(tokens);
        self.settle(now);
    }

    pub fn generated(&mut self, tokens: usize, now: Instant) {
        self.generated += tokens;
        self.settle(now);
    }

    fn used(&self) -> usize {
        self.computed + self.generated
    }

    fn settle(&mut self, now: Instant) {
        if let Some(more) = self.used().checked_sub(self.taken).filter(|more| *more > 0) {
            self.purse.pay(more, now);
            self.taken = self.used();
        }
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        let unused = self.taken - self.used();
        if unused > 0 {
            self.purse.give_back(unused);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// What is left, which may be less than nothing.
    #[derive(Debug)]
    struct Coins(Mutex<i64>);

    impl Purse for Coins {
        fn set_aside(&self, tokens: usize, _: Instant) -> Result<(), Short> {
            let mut left = self.0.lock().unwrap();
            if *left < tokens as i64 {
                return Err(Short::For(Duration::from_secs(1)));
            }
            *left -= tokens as i64;
            Ok(())
        }

        fn pay(&self, tokens: usize, _: Instant) {
            *self.0.lock().unwrap() -= tokens as i64;
        }

        fn give_back(&self, tokens: usize) {
            *self.0.lock().unwrap() += tokens as i64;
        }
    }

    #[track_caller]
    fn check(sure: usize, left: &[i64], mut pay: impl FnMut(&mut Tab, usize)) {
        let coins = Arc::new(Coins(Mutex::new(100)));
        let purse: Arc<dyn Purse> = Arc::clone(&coins) as _;
        let mut tab = Tab::open(purse, sure, Instant::now()).unwrap();
        let (last, steps) = left.split_last().unwrap();
        for (step, left) in steps.iter().enumerate() {
            pay(&mut tab, step);
            assert_eq!(*coins.0.lock().unwrap(), *left, "step {step}");
        }
        drop(tab);
        assert_eq!(*coins.0.lock().unwrap(), *last);
    }

    #[test]
    fn what_was_set_aside_is_used_first_and_the_rest_goes_back() {
        let now = Instant::now();
        check(31, &[69, 69, 68, 67, 67], |tab, step| match step {
            0 => tab.computed(30, now),
            _ => tab.generated(1, now),
        });
        // Less was computed than had to be expected, or nothing at all.
        check(31, &[69, 69, 88], |tab, step| match step {
            0 => tab.computed(11, now),
            _ => tab.generated(1, now),
        });
        check(31, &[100], |_, _| ());
    }

    #[test]
    fn a_reply_may_cost_more_than_there_is() {
        let now = Instant::now();
        check(10, &[90, -15, -15], |tab, step| match step {
            0 => tab.computed(9, now),
            _ => tab.generated(106, now),
        });
    }

    #[test]
    fn what_is_computed_twice_is_paid_once() {
        let now = Instant::now();
        check(10, &[80, 80, 80, 79, 79], |tab, step| match step {
            0 => tab.computed(20, now),
            1 => tab.computed(5, now),
            2 => tab.computed(20, now),
            _ => tab.generated(1, now),
        });
    }
}
