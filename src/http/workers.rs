//! Work that takes longer than an async thread may: a line for each namespace, so that nobody waits
//! behind what another one has sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::error::Error;
use crate::engine;
use crate::types::Namespace;

/// Threads for bodies to be read and long prompts to be tokenised on. More would only take the cores
/// from the model.
pub const THREADS: usize = 4;
/// Of these, what one namespace has at a time: there is always one for another.
const THREADS_OF_ONE: usize = THREADS / 2;
/// Grammars that are compiled at a time, each on a thread of its own: a schema may keep one busy for
/// seconds, and bodies and prompts do not wait behind it.
const COMPILED_AT_ONCE: usize = 2;
/// Of these, what one namespace has: there is always one for another.
const COMPILED_OF_ONE: usize = 1;
/// Work of a namespace that waits or is done; further work is refused. A burst of requests on half
/// of all connections.
const PLACES: usize = 512;
/// And the bytes of it, with those of bodies that are still on their way.
const BYTES_MAX: usize = 128 << 20;

/// The lines of all namespaces, of which there are no more than keys.
pub struct Workers {
    lines: Mutex<HashMap<Namespace, Arc<Line>>>,
    compiled: Arc<Semaphore>,
}

/// The work of one namespace.
pub struct Line {
    threads: Arc<Semaphore>,
    compiled: Arc<Semaphore>,
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// Bytes that are in memory, until this is dropped.
pub struct Held(OwnedSemaphorePermit);

impl Workers {
    pub fn line(&self, namespace: &Namespace) -> Arc<Line> {
        let mut lines = self.lines.lock().expect("nobody panics with it");
        Arc::clone(lines.entry(namespace.clone()).or_default())
    }

    /// Compiles a grammar for a namespace when it is its turn, on a thread with so large a stack.
    pub async fn compile<T: Send + 'static>(
        &self,
        namespace: &Namespace,
        stack_bytes: usize,
        compile: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let line = self.line(namespace);
        let place = Arc::clone(&line.places).try_acquire_owned().map_err(|_| line.full())?;
        // Its own turn first, so that nobody has two places among all.
        let own = Arc::clone(&line.compiled).acquire_owned().await;
        let turn = Arc::clone(&self.compiled).acquire_owned().await;
        let (done, compiled) = oneshot::channel();
        // Only the pages of a stack that it touches become memory.
        let builder = thread::Builder::new().name("grammar".to_owned()).stack_size(stack_bytes);
        let spawned = builder.spawn(move || {
            // They are taken until it is done, even if nobody waits for it any more.
            let _taken = (place, own, turn);
            // Who asked may be gone.
            let _ = done.send(compile());
        });
        spawned.map_err(Error::NoThread)?;
        compiled.await.map_err(|_| Error::Panicked)
    }
}

impl Default for Workers {
    fn default() -> Workers {
        Workers { lines: Mutex::default(), compiled: Arc::new(Semaphore::new(COMPILED_AT_ONCE)) }
    }
}

impl Default for Line {
    fn default() -> Line {
        let most = [THREADS_OF_ONE, COMPILED_OF_ONE, PLACES, BYTES_MAX];
        let [threads, compiled, places, bytes] = most.map(|most| Arc::new(Semaphore::new(most)));
        Line { threads, compiled, places, bytes }
    }
}

impl Line {
    /// Does work on so many bytes: at once if they are no more than a quick one's, else on a thread
    /// of its own, when it is its turn.
    pub async fn work<T: Send + 'static>(
        &self,
        bytes: usize,
        quick_bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        if bytes <= quick_bytes {
            return Ok(work());
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| self.full())?;
        let held = self.hold(bytes)?;
        let thread = Arc::clone(&self.threads).acquire_owned().await;
        let mut working = AbortedIfDropped(tokio::task::spawn_blocking(move || {
            // They are taken until the work is done, even if nobody waits for it any more.
            let _taken = (place, held, thread);
            work()
        }));
        (&mut working.0).await.map_err(|_| Error::Panicked)
    }

    /// Counts bytes that a client has sent.
    pub fn hold(&self, bytes: usize) -> Result<Held, Error> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let held = Arc::clone(&self.bytes).try_acquire_many_owned(permits);
        held.map(Held).map_err(|_| self.full())
    }

    fn full(&self) -> Error {
        engine::Error::QueueFull { waiting: PLACES - self.places.available_permits() }.into()
    }
}

impl Held {
    /// These and further ones.
    pub fn and(&mut self, further: Held) {
        self.0.merge(further.0);
    }
}

/// If the client leaves while its work waits for a thread, nobody does it.
struct AbortedIfDropped<T>(JoinHandle<T>);

impl<T> Drop for AbortedIfDropped<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// As the server has it.
    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).max_blocking_threads(THREADS).build().expect("a runtime")
    }

    #[test]
    fn nobody_waits_for_another_ones_work_and_too_much_of_it_is_refused() {
        let runtime = runtime();
        let workers = Workers::default();
        let [greedy, other] = ["greedy", "other"].map(|name| workers.line(&Namespace::new(name)));
        let (gate, gated) = mpsc::channel::<()>();
        let gated = Arc::new(Mutex::new(gated));
        let wait = |line: &Arc<Line>| {
            let (line, gated) = (Arc::clone(line), Arc::clone(&gated));
            let wait = move || {
                // Until the gate is gone.
                let _ = gated.lock().expect("the gate").recv();
            };
            runtime.spawn(async move { line.work(1, 0, wait).await.is_ok() })
        };
        let waiting: Vec<_> = (0..PLACES).map(|_| wait(&greedy)).collect();
        while greedy.places.available_permits() > 0 {
            thread::yield_now();
        }
        let refused = runtime.block_on(greedy.work(1, 0, || ()));
        let Err(Error::Engine(engine::Error::QueueFull { waiting: PLACES })) = refused else {
            panic!("it is not refused: {refused:?}");
        };
        // What is quick needs no place.
        assert!(runtime.block_on(greedy.work(1, 1, || ())).is_ok());
        assert!(runtime.block_on(other.work(1, 0, || ())).is_ok());
        drop(gate);
        for waiting in waiting {
            assert!(runtime.block_on(waiting).expect("it ends"));
        }
        assert!(runtime.block_on(greedy.work(1, 0, || ())).is_ok());
    }

    #[test]
    fn bodies_and_other_keys_do_not_wait_behind_grammars_that_are_compiled() {
        let runtime = runtime();
        let workers = Arc::new(Workers::default());
        let namespaces = ["greedy", "other"].map(Namespace::new);
        let (gate, gated) = mpsc::channel::<()>();
        let gated = Arc::new(Mutex::new(gated));
        let running = Arc::new(Mutex::new(Vec::new()));
        let compile = |namespace: &Namespace| {
            let (workers, namespace) = (Arc::clone(&workers), namespace.clone());
            let (gated, running) = (Arc::clone(&gated), Arc::clone(&running));
            runtime.spawn(async move {
                let whose = namespace.clone();
                let compile = move || {
                    running.lock().expect("nobody panics").push(whose);
                    // Until the gate is gone.
                    let _ = gated.lock().expect("the gate").recv();
                };
                workers.compile(&namespace, 1 << 20, compile).await.is_ok()
            })
        };
        let compiling: Vec<_> = (0..THREADS).map(|_| compile(&namespaces[0])).collect();
        while workers.line(&namespaces[0]).places.available_permits() > PLACES - THREADS {
            thread::yield_now();
        }
        let other = compile(&namespaces[1]);
        while running.lock().expect("nobody panics").len() < 2 {
            thread::yield_now();
        }
        // One of each, and the rest waits without a thread.
        let mut ran = running.lock().expect("nobody panics").clone();
        ran.sort();
        assert_eq!(ran, namespaces);
        assert_eq!(workers.compiled.available_permits(), 0);
        for namespace in &namespaces {
            let line = workers.line(namespace);
            assert_eq!(line.threads.available_permits(), THREADS_OF_ONE);
            assert!(runtime.block_on(line.work(1, 0, || ())).is_ok());
        }
        drop(gate);
        for compiling in compiling.into_iter().chain([other]) {
            assert!(runtime.block_on(compiling).expect("it ends"));
        }
        let panics = workers.compile(&namespaces[0], 1 << 20, || panic!("a bug"));
        assert!(matches!(runtime.block_on(panics), Err::<(), _>(Error::Panicked)));
    }

    #[test]
    fn bytes_are_held_until_they_are_dropped() {
        let line = Line::default();
        let mut held = line.hold(BYTES_MAX - 1).expect("there is room");
        assert!(line.hold(2).is_err());
        held.and(line.hold(1).expect("there is room"));
        assert!(line.hold(1).is_err());
        drop(held);
        assert!(line.hold(BYTES_MAX).is_ok());
    }
}
