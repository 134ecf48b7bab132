//! The way of a server's log out of the process: a bounded buffer and a thread that writes it, so
//! that nobody waits for whoever reads stderr, or does not.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Thousands of lines: more than a terminal or a log driver is ever behind if it reads at all.
const BYTES_MAX: usize = 1 << 20;
/// For the last lines, when the process ends. Whoever has not read them by then reads nothing.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines on their way. Those for which there is no room are left out and counted.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// There are lines.
    some: Condvar,
    /// All are written.
    none: Condvar,
    /// The line that stands for so many that were left out.
    left_out: fn(u64) -> String,
}

#[derive(Default)]
struct State {
    text: Vec<u8>,
    left_out: u64,
    is_writing: bool,
}

impl Queue {
    pub fn start(
        mut out: impl Write + Send + 'static,
        left_out: fn(u64) -> String,
    ) -> io::Result<Queue> {
        let (some, none) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state: Mutex::default(), some, none, left_out });
        let queue = Queue(Arc::clone(&shared));
        let write = move || {
            loop {
                let text = shared.take();
                // If it cannot be written, there is nobody to tell.
                let _ = out.write_all(&text).and_then(|()| out.flush());
            }
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(write)?;
        Ok(queue)
    }

    /// Waits until all is written, but not for ever.
    pub fn flush(&self) {
        let Shared { state, none, .. } = &*self.0;
        let state = state.lock().expect("nobody panics with it");
        let is_under_way = |state: &mut State| !state.text.is_empty() || state.is_writing;
        // In time or not, the process ends.
        let _ = none.wait_timeout_while(state, FLUSH_TIMEOUT, is_under_way);
    }
}

impl Shared {
    fn put(&self, line: &[u8]) {
        let mut state = self.state.lock().expect("nobody panics with it");
        if state.text.len() + line.len() > BYTES_MAX {
            state.left_out += 1;
            return;
        }
        state.text.extend_from_slice(line);
        self.some.notify_one();
    }

    /// What is there now; waits until there is something. What was taken before has been written.
    fn take(&self) -> Vec<u8> {
        let mut state = self.state.lock().expect("nobody panics with it");
        state.is_writing = false;
        if state.text.is_empty() {
            self.none.notify_all();
        }
        let wait = self.some.wait_while(state, |state| state.text.is_empty());
        let mut state = wait.expect("nobody panics with it");
        state.is_writing = true;
        let mut text = std::mem::take(&mut state.text);
        let left_out = std::mem::take(&mut state.left_out);
        drop(state);
        if left_out > 0 {
            text.extend_from_slice((self.left_out)(left_out).as_bytes());
            text.push(b'\n');
        }
        text
    }
}

/// A line is written at once, so none is cut in two.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Queue;

    fn make_writer(&'a self) -> &'a Queue {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Whoever reads: one write for each word it is given, then all that come.
    struct Reader {
        gate: Receiver<()>,
        read: Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Given or gone, it is the same.
            let _ = self.gate.recv();
            let _ = self.read.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_never_waits_and_what_is_left_out_is_counted() {
        let ((gate, gated), (read, reader)) = (channel(), channel());
        let left_out = |lines| format!("{lines} left out");
        let queue = Queue::start(Reader { gate: gated, read }, left_out).expect("a thread");
        let line = [&b"x".repeat(1023)[..], b"\n"].concat();
        for _ in 0..4096 {
            (&queue).write_all(&line).expect("it takes everything");
        }
        // Nobody reads, and it comes back.
        queue.flush();
        drop(gate);
        queue.flush();
        let text: Vec<u8> = reader.try_iter().flatten().collect();
        let text = String::from_utf8(text).expect("text");
        let (lines, told): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with('x'));
        assert!(lines.iter().all(|line| line.len() == 1023), "no line is cut");
        assert_eq!(told, [format!("{} left out", 4096 - lines.len())]);
        assert!(lines.len() >= BYTES_MAX / 1024, "{}", lines.len());
        (&queue).write_all(b"and on\n").expect("it takes everything");
        queue.flush();
        assert_eq!(reader.try_iter().flatten().collect::<Vec<u8>>(), b"and on\n");
    }
}
