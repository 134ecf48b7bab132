//! Starting, draining and shutting down.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use semantic::engine::{Config, DrainError, Engine, Error, Request, Status};
use semantic::model::Model;
use semantic::model::fake::{Fake, FakeConfig, Memory};

use crate::support::engine::{
    Served, Setup, VOCABULARY, block_on, prompt, read, request, request_of, serve,
};
use crate::support::text::byte_level_tokenizer;

const HOUR: Duration = Duration::from_secs(3_600);

fn fake() -> Box<dyn Model> {
    Box::new(Fake::new(FakeConfig {
        vocabulary: VOCABULARY,
        context_tokens: 2_048,
        pool_blocks: 8,
        memory: Memory::Tokens,
    }))
}

fn long(seed: u32) -> Request {
    Request { max_tokens: Some(300), ..request(&prompt(seed, 20)) }
}

/// Returns when requests are refused, and lets go on then.
fn wait_until_refused(served: &Served) {
    while served.engine.status() != Status::Draining {
        thread::yield_now();
    }
    assert_eq!(*served.ask(request(&prompt(9, 9))).error(), Error::Draining);
}

#[test]
fn start_stop() {
    let (go, gate) = mpsc::channel();
    let load = move || {
        gate.recv().map_err(|_| "the test is over".to_owned())?;
        Ok(fake())
    };
    let engine = Engine::start(Config::default(), byte_level_tokenizer(), None, load);
    assert_eq!(engine.status(), Status::Starting);
    assert_eq!(engine.spec(), None);
    // Submissions while starting are refused, and there is nothing to wait for.
    let refused = read(&mut engine.submit(request(&prompt(1, 9))));
    assert_eq!(*refused.error(), Error::Starting);
    go.send(()).unwrap();
    engine.wait_started().unwrap();
    assert_eq!(engine.status(), Status::Serving);
    assert_eq!(engine.spec().unwrap().pool_blocks, 8);
    assert_eq!(engine.stats().blocks_free, 8);
    assert_eq!(read(&mut engine.submit(request(&prompt(1, 9)))).reply().len(), 8);
    engine.shutdown();
    assert_eq!(engine.status(), Status::Stopped);
    assert_eq!(*read(&mut engine.submit(request(&prompt(1, 9)))).error(), Error::Stopped);
    assert_eq!(engine.wait_started(), Err("the engine has stopped".to_owned()));
}

#[test]
fn a_load_failure_is_told_by_wait_started() {
    let (sender, reasons) = mpsc::channel();
    let config = Config {
        on_fatal: Box::new(move |reason| sender.send(reason.to_owned()).unwrap()),
        ..Config::default()
    };
    let load = || Err("no such file".to_owned());
    let engine = Engine::start(config, byte_level_tokenizer(), None, load);
    assert_eq!(engine.wait_started(), Err("no such file".to_owned()));
    assert_eq!(engine.status(), Status::Failed("no such file".to_owned()));
    assert_eq!(reasons.recv().unwrap(), "no such file");
    assert_eq!(*read(&mut engine.submit(request(&prompt(1, 9)))).error(), Error::Stopped);
    assert_eq!(block_on(engine.drain(HOUR)), Err(DrainError::Stopped));
    engine.shutdown();
}

#[test]
fn a_panic_while_loading_is_a_failure() {
    let load = || panic!("while loading");
    let engine = Engine::start(Config::default(), byte_level_tokenizer(), None, load);
    assert_eq!(engine.wait_started(), Err("its thread panicked".to_owned()));
}

#[test]
fn an_engine_that_is_shut_down_while_it_loads_never_serves() {
    let (go, gate) = mpsc::channel::<()>();
    let load = move || {
        gate.recv().map_err(|_| "the test is over".to_owned())?;
        Ok(fake())
    };
    let engine = Engine::start(Config::default(), byte_level_tokenizer(), None, load);
    engine.shutdown();
    go.send(()).unwrap();
    assert_eq!(engine.wait_started(), Err("the engine has stopped".to_owned()));
    assert_eq!(*read(&mut engine.submit(request(&prompt(1, 9)))).error(), Error::Stopped);
}

#[test]
fn drain_with_no_active_requests() {
    let served = serve(Setup::default());
    served.ask(request(&prompt(1, 9)));
    assert_eq!(block_on(served.engine.drain(Duration::ZERO)), Ok(0));
    assert_eq!(served.engine.status(), Status::Draining);
    assert_eq!(*served.ask(request(&prompt(1, 9))).error(), Error::Draining);
}

#[test]
fn drain_waits_for_active_requests_to_complete() {
    let served = serve(Setup::default());
    let mut streams = served.ask_and_hold([long(1), long(2), long(3)]);
    thread::scope(|scope| {
        let drain = scope.spawn(|| block_on(served.engine.drain(HOUR)));
        while served.engine.status() != Status::Draining {
            thread::yield_now();
        }
        let mut refused = served.engine.submit(request(&prompt(9, 9)));
        served.model.open();
        assert_eq!(drain.join().unwrap(), Ok(3));
        assert_eq!(*read(&mut refused).error(), Error::Draining);
    });
    let stats = served.engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.parked), (0, 0, 0));
    for stream in &mut streams {
        assert_eq!(read(stream).reply().len(), 300);
    }
}

/// What ended between the call and the moment at which the thread heard of it was not counted.
#[test]
fn drain_completes_within_timeout() {
    let served = serve(Setup::default());
    // The step that waits is its last.
    let mut stream =
        served.ask_and_hold([Request { max_tokens: Some(2), ..request(&prompt(1, 1)) }]).remove(0);
    thread::scope(|scope| {
        let drain = scope.spawn(|| block_on(served.engine.drain(HOUR)));
        while served.engine.status() != Status::Draining {
            thread::yield_now();
        }
        served.model.open();
        assert_eq!(drain.join().unwrap(), Ok(1));
    });
    assert_eq!(read(&mut stream).reply().len(), 2);
}

#[test]
fn drain_raises_on_timeout() {
    let served = serve(Setup::default());
    let mut streams = served.ask_and_hold([long(1), long(2)]);
    thread::scope(|scope| {
        let drain = scope.spawn(|| block_on(served.engine.drain(Duration::ZERO)));
        while served.engine.status() != Status::Draining {
            thread::yield_now();
        }
        while !drain.is_finished() {
            let steps = served.model.steps().len();
            assert!(steps < 290, "nobody has noticed that the time is over");
            served.model.let_through(1);
            served.model.wait_for_step(steps + 1);
        }
        let expected = DrainError::Timeout { running: 2, drained: 0, timeout: Duration::ZERO };
        assert_eq!(drain.join().unwrap(), Err(expected));
    });
    // What runs goes on, and a second drain waits for it.
    served.model.open();
    assert!(block_on(served.engine.drain(HOUR)).unwrap() <= 2);
    assert_eq!(block_on(served.engine.drain(HOUR)), Ok(0));
    for stream in &mut streams {
        assert_eq!(read(stream).reply().len(), 300);
    }
}

#[test]
fn a_drain_may_wait_for_ever() {
    let served = serve(Setup::default());
    let mut stream = served.ask_and_hold([long(1)]).remove(0);
    served.model.open();
    block_on(served.engine.drain(Duration::MAX)).unwrap();
    assert_eq!(read(&mut stream).reply().len(), 300);
}

/// The thread looks as well: a submission may be sent by one that saw no drain yet.
#[test]
fn a_submission_that_has_not_reached_the_thread_is_refused_by_a_drain() {
    let served = serve(Setup::default());
    let mut stream = served.ask_and_hold([long(1)]).remove(0);
    let mut late = served.engine.submit(long(2));
    thread::scope(|scope| {
        let drain = scope.spawn(|| block_on(served.engine.drain(HOUR)));
        while served.engine.status() != Status::Draining {
            thread::yield_now();
        }
        served.model.open();
        assert_eq!(drain.join().unwrap(), Ok(1));
    });
    assert_eq!(*read(&mut late).error(), Error::Draining);
    assert_eq!(read(&mut stream).reply().len(), 300);
}

#[test]
fn every_submission_that_races_with_a_drain_is_counted_or_refused() {
    const THREADS: u32 = 8;
    const EACH: u32 = 20;
    let served = serve(Setup::default());
    served.model.close();
    let (finished, drained) = thread::scope(|scope| {
        let submit = |thread: u32| {
            let engine = &served.engine;
            move || {
                let ask = |number| engine.submit(long((thread + number) % 50));
                let mut streams: Vec<_> = (0..EACH).map(ask).collect();
                let answers: Vec<_> = streams.iter_mut().map(read).collect();
                let mut finished = 0;
                for answer in answers {
                    match answer.end.expect("it ends with an answer") {
                        Ok(outcome) => {
                            assert_eq!(outcome.choices[0].completion_tokens, 300);
                            finished += 1;
                        }
                        Err(error) => assert_eq!(error, Error::Draining),
                    }
                }
                finished
            }
        };
        let submitters: Vec<_> = (0..THREADS).map(|thread| scope.spawn(submit(thread))).collect();
        // So few steps that no reply can end before the drain.
        for step in 1..20 {
            served.model.wait_for_step(step);
            served.model.let_through(1);
        }
        let drain = scope.spawn(|| block_on(served.engine.drain(HOUR)));
        while served.engine.status() != Status::Draining {
            thread::yield_now();
        }
        served.model.open();
        let drained = drain.join().unwrap().unwrap();
        let finished: usize = submitters.into_iter().map(|thread| thread.join().unwrap()).sum();
        (finished, drained)
    });
    assert_eq!(finished, drained);
    assert!(finished > 0);
}

#[test]
fn shutdown_clears_all_state() {
    let served = serve(Setup::default());
    let mut streams = served.ask_and_hold([long(1), long(2)]);
    thread::scope(|scope| {
        let shutdown = scope.spawn(|| served.engine.shutdown());
        while served.engine.status() != Status::Draining {
            thread::yield_now();
        }
        served.model.open();
        shutdown.join().unwrap();
    });
    assert_eq!(served.engine.status(), Status::Stopped);
    for stream in &mut streams {
        let answer = read(stream);
        assert_eq!(*answer.error(), Error::Cut);
        assert!(answer.reply().len() < 300);
    }
    assert_eq!(block_on(served.engine.evict_all_to_disk()), Err(Error::Stopped));
    assert_eq!(block_on(served.engine.drain(HOUR)), Err(DrainError::Stopped));
    assert_eq!(served.more_fatals(), 0);
}

#[test]
fn shutdown_is_idempotent() {
    let served = serve(Setup::default());
    let other = served.engine.clone();
    served.engine.shutdown();
    other.shutdown();
    served.engine.shutdown();
    assert_eq!(other.status(), Status::Stopped);
}

#[test]
fn drain_then_shutdown_clears_all_state() {
    let served = serve(Setup::default());
    served.ask(request_of("a", &prompt(1, 600)));
    assert_eq!(block_on(served.engine.drain(HOUR)), Ok(0));
    let evicted = block_on(served.engine.evict_all_to_disk()).unwrap();
    // The store keeps nothing.
    assert_eq!((evicted.saved, evicted.failed, evicted.forgotten), (0, 0, 1));
    let stats = served.engine.stats();
    assert_eq!((stats.blocks_used, stats.agents), (0, 0));
    served.engine.shutdown();
    assert_eq!(served.engine.status(), Status::Stopped);
}

#[test]
fn a_cut_ends_everything_and_keeps_what_was_computed() {
    let served = serve(Setup::default());
    let tokens = prompt(1, 50);
    let mut streams =
        served.ask_and_hold([Request { max_tokens: Some(300), ..request(&tokens) }, long(2)]);
    served.model.step_until(|rows| rows.iter().any(|row| row.start > 60));
    served.engine.cut();
    served.model.open();
    for stream in &mut streams {
        assert_eq!(*read(stream).error(), Error::Cut);
    }
    assert_eq!(served.engine.status(), Status::Serving);
    assert_eq!(served.ask(request(&tokens)).cached_tokens(), 49);
}

#[test]
fn the_engine_ends_with_its_last_handle() {
    let served = serve(Setup::default());
    let mut stream = served.ask_and_hold([long(1)]).remove(0);
    let Served { engine, model, .. } = served;
    drop(engine);
    model.open();
    assert_eq!(*read(&mut stream).error(), Error::Cut);
}

#[test]
fn what_a_drain_refuses_stays_refused() {
    let served = serve(Setup::default());
    let mut streams = served.ask_and_hold([long(1)]);
    thread::scope(|scope| {
        let drains = [(); 2].map(|()| scope.spawn(|| block_on(served.engine.drain(HOUR))));
        served.model.open();
        wait_until_refused(&served);
        for drain in drains {
            assert!(drain.join().unwrap().unwrap() <= 1);
        }
    });
    assert_eq!(read(&mut streams[0]).reply().len(), 300);
    wait_until_refused(&served);
}
