//! Ends this process with the one that started it, however that one ended.
//!
//! The parent holds the other end of stdin and writes nothing to it. The system closes it when the
//! parent is gone, also by SIGKILL, which leaves it no time to end anybody. A death signal of
//! Linux would come when the parent's thread ends that started this process, and only on Linux.

use std::io::{self, Read as _};
use std::thread;

use rustix::process::{Signal, getpid, kill_process};

/// From now on this process is killed when stdin ends.
pub fn end_with_parent() -> io::Result<()> {
    thread::Builder::new().name("parent".into()).spawn(wait_and_end)?;
    Ok(())
}

fn wait_and_end() {
    let mut nothing = [0; 1];
    // What cannot be read has no parent at its other end, either.
    while matches!(io::stdin().lock().read(&mut nothing), Ok(1)) {}
    // As the parent would have ended it: nobody is left to wait for an orderly end.
    let _ = kill_process(getpid(), Signal::KILL);
}
