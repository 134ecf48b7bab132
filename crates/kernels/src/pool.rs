//! Runs one job at a time on kept threads.
//!
//! A job is a list of phases, a phase a function of a task index. Whoever is free takes the next
//! index, the caller too, and goes on to the next phase when all tasks of this one have returned:
//! half a microsecond, where a job of its own costs several. A thread that wakes late joins the
//! phase it finds, or finds the job closed, and is not waited for: on a busy machine the caller does
//! the work itself rather than wait for the scheduler.
//!
//! Between jobs a thread spins and then parks. Within a job, where it waits for a phase's last
//! tasks, it spins and then yields, however long it takes: to park and be woken costs 47 µs, more
//! than most phases, and once per phase. Who yields leaves the core to a thread that has a task.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The pauses between the steps of a forward pass are shorter than this, so a thread that serves a
/// running model does not go to sleep; one that waits for a client does.
const SPIN: Duration = Duration::from_micros(50);
/// Where there are more threads than cores, the one to wait for may need this core; yielding costs
/// as much as a small task.
const SPIN_ALONE: Duration = Duration::from_micros(10);

/// Phases of a job, at most.
pub const PHASES_MAX: usize = 12;

/// More threads than any machine has cores; a bound for a configured number.
pub const THREADS_MAX: usize = 1024;

/// A part of a job: `run` is called once for every index below `tasks`, in any order and on any of
/// the threads, after all calls of the phase before have returned.
#[derive(Clone, Copy)]
pub struct Phase<'a> {
    pub tasks: usize,
    pub run: &'a (dyn Fn(usize) + Sync),
}

/// Threads that wait for work. Dropping it ends them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Two callers take turns.
    turn: Mutex<()>,
}

impl Pool {
    /// A pool in which `threads` work: the caller of [`Pool::run`] and `threads - 1` of its own.
    /// An error is the system's, which gives no more threads.
    pub fn new(threads: usize) -> Result<Pool, io::Error> {
        assert!((1..=THREADS_MAX).contains(&threads), "{threads} threads");
        let shared = Arc::new(Shared::new());
        // Dropped on an error, it ends those that have started.
        let mut pool = Pool { shared, workers: Vec::new(), turn: Mutex::new(()) };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = std::thread::Builder::new().name(format!("kernel-{index}"));
            pool.workers.push(builder.spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    /// How many threads work on a job, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs a job of one phase, see [`Pool::run_phases`].
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.run_phases(&[Phase { tasks, run: task }]);
    }

    /// Runs the phases one after another and returns when all calls have returned. If a task
    /// panics, tasks not yet begun are skipped and the panic goes on in the caller. A task must not
    /// run another job itself.
    pub fn run_phases(&self, phases: &[Phase<'_>]) {
        assert!(phases.len() <= PHASES_MAX, "{} phases", phases.len());
        assert!(!IN_TASK.get(), "a task of a pool cannot run another job");
        let _turn = lock(&self.turn);
        if self.workers.is_empty() || phases.iter().all(|phase| phase.tasks <= 1) {
            let _in_task = InTask::enter();
            for phase in phases {
                (0..phase.tasks).for_each(phase.run);
            }
        } else {
            self.shared.run(phases);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake();
        for worker in self.workers.drain(..) {
            worker.join().expect("a worker catches the panics of its tasks");
        }
    }
}

/// The number of cores this process may use, without the second threads of a core: those add no
/// vector units.
pub fn physical_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    let mut cores = std::collections::BTreeSet::new();
    for cpu in 0..THREADS_MAX {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let Ok(siblings) = std::fs::read_to_string(path) else { break };
        cores.insert(siblings);
    }
    match cores.len() {
        0 => allowed,
        count => count.min(allowed),
    }
}

thread_local! {
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as inside a task for as long as it lives.
struct InTask;

impl InTask {
    fn enter() -> InTask {
        IN_TASK.set(true);
        InTask
    }
}

impl Drop for InTask {
    fn drop(&mut self) {
        IN_TASK.set(false);
    }
}

/// What the threads share. `state` says who may touch `job`: the caller while the job is closed
/// and no worker is in it, the workers that have joined while they are in it.
struct Shared {
    state: AtomicU64,
    job: UnsafeCell<Job>,
    /// Of each phase of the job.
    counts: [Counts; PHASES_MAX],
    failed: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    caller_sleeps: AtomicBool,
    bed: Mutex<()>,
    job_opened: Condvar,
    job_left: Condvar,
}

/// How far a phase is. On lines of their own: threads that wait read `done` all the time.
#[derive(Default)]
struct Counts {
    next: OwnLine,
    done: OwnLine,
}

#[derive(Default)]
#[repr(align(64))]
struct OwnLine(AtomicUsize);

/// The phases of a job, as long as its caller waits.
#[derive(Clone, Copy)]
struct Job {
    phases: *const [Phase<'static>],
}

// SAFETY: `job` is the only part that is not `Sync`. It is written by `Shared::run` (callers take
// turns) while `state` is closed and empty, and read by workers only after they have joined through
// `state`, which synchronises with the write.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is to `Sync` functions and is only followed while its owner waits.
unsafe impl Send for Shared {}

/// A state is an epoch, odd while a job is open, and the number of workers in the job.
const ONE_WORKER: u64 = 1;
const ONE_EPOCH: u64 = 1 << 16;

fn workers_in(state: u64) -> u64 {
    state % ONE_EPOCH
}

fn epoch(state: u64) -> u64 {
    state / ONE_EPOCH
}

fn is_open(state: u64) -> bool {
    epoch(state) % 2 == 1
}

impl Shared {
    fn new() -> Shared {
        Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(Job { phases: &[] }),
            counts: Default::default(),
            failed: AtomicBool::new(false),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            caller_sleeps: AtomicBool::new(false),
            bed: Mutex::new(()),
            job_opened: Condvar::new(),
            job_left: Condvar::new(),
        }
    }

    /// The caller's side of one job.
    fn run(&self, phases: &[Phase<'_>]) {
        let state = self.state.load(Ordering::Acquire);
        assert!(!is_open(state));
        assert!(workers_in(state) == 0);
        // SAFETY: only the lifetime changes. The functions are called by threads in the job, and
        // this function does not return before the job is closed and all have left it.
        let phases: *const [Phase<'static>] =
            unsafe { std::mem::transmute::<&[Phase<'_>], &'static [Phase<'static>]>(phases) };
        let job = Job { phases };
        // SAFETY: the job is closed and empty, as just asserted, and callers take turns.
        unsafe { *self.job.get() = job };
        for counts in &self.counts[..phases.len()] {
            counts.next.0.store(0, Ordering::Relaxed);
            counts.done.0.store(0, Ordering::Relaxed);
        }
        self.failed.store(false, Ordering::Relaxed);
        // Sequentially consistent, as is the sleeper's count: either this thread sees the sleeper
        // or the sleeper sees the job.
        self.state.fetch_add(ONE_EPOCH, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
        self.take_part(job);
        self.state.fetch_add(ONE_EPOCH, Ordering::SeqCst);
        self.wait_until_left();
        let panic = lock(&self.panic).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn take_part(&self, job: Job) {
        let _in_task = InTask::enter();
        // SAFETY: this thread is in the job (or is its caller), so the phases are alive.
        let phases = unsafe { &*job.phases };
        let result = catch_unwind(AssertUnwindSafe(|| {
            for (phase, counts) in phases.iter().zip(&self.counts) {
                self.take_tasks(phase, counts);
                if self.failed.load(Ordering::Acquire) {
                    break;
                }
            }
        }));
        if let Err(panic) = result {
            self.failed.store(true, Ordering::Release);
            lock(&self.panic).get_or_insert(panic);
        }
    }

    /// Returns when all tasks of the phase have returned, on whatever thread, or one has failed.
    fn take_tasks(&self, phase: &Phase<'_>, counts: &Counts) {
        let mut mine = 0;
        while !self.failed.load(Ordering::Relaxed) {
            let index = counts.next.0.fetch_add(1, Ordering::Relaxed);
            if index >= phase.tasks {
                break;
            }
            (phase.run)(index);
            mine += 1;
        }
        // Each addition releases what its thread's tasks wrote; who sees the sum sees all of it.
        let mut done = counts.done.0.fetch_add(mine, Ordering::AcqRel) + mine;
        let mut waiting = Waiting::new();
        while done < phase.tasks && !self.failed.load(Ordering::Relaxed) {
            waiting.pause();
            done = counts.done.0.load(Ordering::Acquire);
        }
    }

    /// A worker's life.
    fn work(&self) {
        let mut done = 0;
        while let Some(epoch) = self.join_job_after(done) {
            // SAFETY: this worker has joined, so nobody writes the job before it leaves.
            self.take_part(unsafe { *self.job.get() });
            done = epoch;
            let before = self.state.fetch_sub(ONE_WORKER, Ordering::SeqCst);
            let was_last = workers_in(before) == 1 && !is_open(before);
            if was_last && self.caller_sleeps.load(Ordering::SeqCst) {
                let _bed = lock(&self.bed);
                self.job_left.notify_all();
            }
        }
    }

    /// Joins the first job whose epoch is not `done` and returns its epoch; `None` when the pool
    /// is being dropped.
    fn join_job_after(&self, done: u64) -> Option<u64> {
        loop {
            self.spin_or_sleep(&self.job_opened, &Sleeper::Worker, || {
                self.stop.load(Ordering::SeqCst) || self.is_new(done)
            });
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
            let state = self.state.load(Ordering::Acquire);
            let can_join = is_open(state) && epoch(state) != done;
            if can_join
                && self
                    .state
                    .compare_exchange(
                        state,
                        state + ONE_WORKER,
                        Ordering::AcqRel,
                        Ordering::Relaxed,
                    )
                    .is_ok()
            {
                return Some(epoch(state));
            }
        }
    }

    fn is_new(&self, done: u64) -> bool {
        let state = self.state.load(Ordering::SeqCst);
        is_open(state) && epoch(state) != done
    }

    fn wait_until_left(&self) {
        self.spin_or_sleep(&self.job_left, &Sleeper::Caller, || {
            workers_in(self.state.load(Ordering::SeqCst)) == 0
        });
    }

    /// Returns once `ready` was seen true: spins at first, then sleeps on `signal`.
    fn spin_or_sleep(&self, signal: &Condvar, sleeper: &Sleeper, ready: impl Fn() -> bool) {
        let mut waiting = Waiting::new();
        while waiting.so_far() < SPIN {
            if ready() {
                return;
            }
            waiting.pause();
        }
        let mut bed = lock(&self.bed);
        self.announce(sleeper, true);
        while !ready() {
            bed = signal.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.announce(sleeper, false);
    }

    fn announce(&self, sleeper: &Sleeper, sleeps: bool) {
        match (sleeper, sleeps) {
            (Sleeper::Worker, true) => {
                self.sleepers.fetch_add(1, Ordering::SeqCst);
            }
            (Sleeper::Worker, false) => {
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
            (Sleeper::Caller, _) => self.caller_sleeps.store(sleeps, Ordering::SeqCst),
        }
    }

    fn wake(&self) {
        // Held so that no sleeper is between its last look and its sleep.
        let _bed = lock(&self.bed);
        self.job_opened.notify_all();
    }
}

/// A wait that is expected to be short.
struct Waiting {
    since: Option<Instant>,
    pauses: u32,
    so_far: Duration,
}

impl Waiting {
    /// The clock costs as much as some pauses.
    const PAUSES_PER_LOOK: u32 = 32;

    fn new() -> Waiting {
        Waiting { since: None, pauses: 0, so_far: Duration::ZERO }
    }

    /// Of a little while ago.
    fn so_far(&self) -> Duration {
        self.so_far
    }

    fn pause(&mut self) {
        std::hint::spin_loop();
        self.pauses += 1;
        if !self.pauses.is_multiple_of(Waiting::PAUSES_PER_LOOK) {
            return;
        }
        self.so_far = self.since.get_or_insert_with(Instant::now).elapsed();
        if self.so_far > SPIN_ALONE {
            std::thread::yield_now();
        }
    }
}

enum Sleeper {
    Worker,
    Caller,
}

/// No lock here is held while a task runs, so a poisoned one holds nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A slice whose parts are written by different tasks of one job.
pub(crate) struct SharedSlice<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: as for `Sync` below.
unsafe impl<T: Send + Sync> Send for SharedSlice<'_, T> {}
// SAFETY: it gives out nothing but `&mut [T]` on disjoint ranges and `&[T]` where nobody writes (see
// `part` and `read`), and those may go to other threads when `T` may.
unsafe impl<T: Send + Sync> Sync for SharedSlice<'_, T> {}

impl<T> Clone for SharedSlice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> SharedSlice<'a, T> {
        SharedSlice { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// # Safety
    /// Nobody writes to the range meanwhile.
    pub(crate) unsafe fn read(&self, range: Range<usize>) -> &[T] {
        assert!(range.start <= range.end);
        assert!(range.end <= self.len);
        // SAFETY: as in `part`; the caller vouches that nobody writes to it.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }

    /// # Safety
    /// No two parts that live at the same time overlap, and nobody reads this one meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end);
        assert!(range.end <= self.len);
        // SAFETY: the range lies in the slice borrowed for `'a`, as just asserted, and the caller
        // vouches that nobody else has any of it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_number_of_threads() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|index| {
                    counts[index].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn thousands_of_tiny_jobs_lose_nothing() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            let total = AtomicUsize::new(0);
            for job in 0..5000 {
                pool.run(3, &|index| {
                    total.fetch_add(job * 3 + index, Ordering::Relaxed);
                });
            }
            assert_eq!(total.into_inner(), (0..15000).sum());
        }
    }

    #[test]
    fn a_phase_begins_when_all_tasks_of_the_one_before_have_returned() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads).unwrap();
            for tasks in [[4, 0, 7], [1, 1, 1], [100, 1, 3], [0, 0, 0]] {
                let done: Vec<AtomicUsize> = tasks.iter().map(|_| AtomicUsize::new(0)).collect();
                let run = |phase: usize| {
                    for before in 0..phase {
                        assert_eq!(done[before].load(Ordering::Relaxed), tasks[before]);
                    }
                    done[phase].fetch_add(1, Ordering::Relaxed);
                };
                let runs: [&(dyn Fn(usize) + Sync); 3] = [&|_| run(0), &|_| run(1), &|_| run(2)];
                let phases: Vec<Phase<'_>> =
                    tasks.iter().zip(runs).map(|(&tasks, run)| Phase { tasks, run }).collect();
                for _ in 0..200 {
                    pool.run_phases(&phases);
                    for (done, tasks) in done.iter().zip(tasks) {
                        assert_eq!(done.swap(0, Ordering::Relaxed), tasks);
                    }
                }
            }
        }
    }

    #[test]
    fn a_job_after_a_pause_wakes_the_sleepers() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..50 {
            // Until all of them have gone to sleep.
            while pool.shared.sleepers.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            let started = AtomicUsize::new(0);
            // Both tasks must be running before either ends, so a second thread has to come.
            pool.run(2, &|_| {
                started.fetch_add(1, Ordering::SeqCst);
                while started.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3).unwrap();
        for bad in [0, 1, 99] {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, &|index| assert!(index != bad, "task {index} fails"));
            }));
            let message = outcome.expect_err("the task's panic").downcast::<String>();
            assert_eq!(*message.expect("a formatted message"), format!("task {bad} fails"));
            let count = AtomicUsize::new(0);
            pool.run(100, &|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 100);
        }
    }

    #[test]
    fn a_panic_in_a_phase_reaches_the_caller_and_no_later_phase_begins() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads).unwrap();
            for (bad, task) in [(0, 0), (0, 57), (0, 99), (1, 0), (1, 99), (2, 3)] {
                let counts = [0; 3].map(AtomicUsize::new);
                let run = |phase: usize, index: usize| {
                    assert!((phase, index) != (bad, task), "task {index} of {phase} fails");
                    counts[phase].fetch_add(1, Ordering::Relaxed);
                };
                let runs: [&(dyn Fn(usize) + Sync); 3] =
                    [&|index| run(0, index), &|index| run(1, index), &|index| run(2, index)];
                let phases = runs.map(|run| Phase { tasks: 100, run });
                let outcome = catch_unwind(AssertUnwindSafe(|| pool.run_phases(&phases)));
                let message = outcome.expect_err("the task's panic").downcast::<String>();
                let expected = format!("task {task} of {bad} fails");
                assert_eq!(*message.expect("a formatted message"), expected);
                let counts = counts.map(AtomicUsize::into_inner);
                assert!(counts[..bad].iter().all(|&count| count == 100), "{counts:?}");
                assert!(counts[bad] < 100, "{counts:?}");
                assert!(counts[bad + 1..].iter().all(|&count| count == 0), "{counts:?}");
                // The pool goes on.
                let count = AtomicUsize::new(0);
                let count_one = |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                };
                pool.run_phases(&[Phase { tasks: 100, run: &count_one }; 3]);
                assert_eq!(count.into_inner(), 300);
            }
        }
    }

    #[test]
    #[should_panic(expected = "a task of a pool cannot run another job")]
    fn a_task_that_runs_a_job_is_told_so() {
        let pool = Pool::new(2).unwrap();
        pool.run(2, &|_| pool.run(2, &|_| ()));
    }

    #[test]
    fn callers_on_several_threads_take_turns() {
        let pool = Pool::new(2).unwrap();
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        pool.run(4, &|_| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 3 * 500 * 4);
    }

    #[test]
    fn there_is_at_least_one_core() {
        assert!(physical_cores() >= 1);
    }
}
