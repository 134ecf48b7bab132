//! Shows on stderr how far a run is: a bar for the suite that runs, on a terminal only, and a line
//! for each that has ended.

use std::cell::Cell;
use std::time::Instant;

use indicatif::ProgressBar;

use crate::cli::output;

/// Which of the suites it is the turn of.
#[derive(Debug, Default)]
pub struct Turn(Cell<Option<Begun>>);

#[derive(Clone, Copy, Debug)]
struct Begun {
    /// From 1.
    number: usize,
    count: usize,
    at: Instant,
}

impl Turn {
    pub fn begin(&self, index: usize, count: usize) {
        self.0.set(Some(Begun { number: index + 1, count, at: Instant::now() }));
    }

    /// Says that the suite has ended and how long it took.
    pub fn end(&self, suite: &str, talk: Talk) {
        let (Some(begun), Talk::All) = (self.0.take(), talk) else { return };
        let seconds = begun.at.elapsed().as_secs_f64();
        output::talk(&format!("{} {suite}: {seconds:.1} s", begun.place()));
    }

    /// A bar for the suite; it takes `steps` steps.
    pub fn bar(&self, suite: &str, steps: usize, talk: Talk) -> Progress {
        let place = self.0.get().map_or(String::new(), |begun| begun.place());
        let numbers = format!("{place} {suite} {{pos}}/{{len}} {{elapsed}}, {{eta}} left");
        let bar = match talk {
            Talk::Failures => None,
            Talk::All => output::bar(Some(steps as u64), &numbers),
        };
        Progress { bar }
    }
}

impl Begun {
    fn place(&self) -> String {
        format!("{}/{}", self.number, self.count)
    }
}

/// What is said on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    All,
    Failures,
}

pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn advance(&self, steps: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(steps as u64);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
