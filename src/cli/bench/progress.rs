//! Shows on stderr how far a suite is: a bar on a terminal, one line off it.

use indicatif::ProgressBar;

use crate::cli::output;

pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn new(what: &str, steps: usize, is_quiet: bool) -> Progress {
        if is_quiet {
            return Progress { bar: None };
        }
        let bar = output::bar(Some(steps as u64), &format!("{what} {{pos}}/{{len}} {{elapsed}}"));
        if bar.is_none() {
            output::talk(what);
        }
        Progress { bar }
    }

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
