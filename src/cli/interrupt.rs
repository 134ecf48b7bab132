//! Ctrl-C, SIGTERM and SIGHUP: the first one asks the work to stop, a second one does not wait for
//! it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::output::{EXIT_INTERRUPTED, Failure};

/// Whether the user has pressed Ctrl-C, or somebody has asked the process to end.
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on they are caught. Once per process.
    pub fn catch() -> Result<Interrupt, Failure> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(EXIT_INTERRUPTED));
            }
        })?;
        Ok(Interrupt(interrupted))
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A failure once the user has pressed it, for work that ends with `?`.
    pub fn check(&self) -> Result<(), Failure> {
        match self.is_set() {
            true => Err(Failure::Interrupted),
            false => Ok(()),
        }
    }
}
