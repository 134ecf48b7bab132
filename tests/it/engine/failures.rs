//! One request's failure is its own; three panics are the engine's.

use std::time::Duration;

use semantic::engine::{Config, Error, Request, Status};
use semantic::model::fake::Memory;
use semantic::model::sample::Sampling;

use crate::support::engine::{Answer, Fault, Served, Setup, alone, prompt, read, request, serve};

/// Three requests of which the middle one has this fault in its prompt; the answers.
fn three_with(fault: Fault, memory: Memory) -> (Served, Vec<Answer>) {
    let served = serve(Setup { memory, ..Setup::default() });
    let prompts = [prompt(1, 40), prompt(2, 45), prompt(3, 50)];
    served.model.fail_prompt(&prompts[1], fault);
    let requests: Vec<Request> =
        prompts.iter().map(|tokens| Request { max_tokens: Some(30), ..request(tokens) }).collect();
    let mut streams = served.ask_and_hold(requests);
    served.model.open();
    let answers: Vec<Answer> = streams.iter_mut().map(read).collect();
    for index in [0, 2] {
        let expected = alone(&prompts[index], &Sampling::GREEDY, 30);
        assert_eq!(answers[index].reply(), expected, "request {index} beside a {fault:?}");
    }
    (served, answers)
}

/// Nothing of it is kept, and the next may have the same prompt.
fn check_recovered(served: &Served) {
    assert_eq!(served.engine.status(), Status::Serving);
    let stats = served.engine.stats();
    assert_eq!(stats.blocks_used, stats.blocks_evictable);
    let tokens = [prompt(2, 44), prompt(4, 5)].concat();
    let answer = served.ask(request(&tokens));
    assert_eq!(answer.cached_tokens(), 0);
    assert_eq!(answer.reply(), alone(&tokens, &Sampling::GREEDY, 8));
}

#[test]
fn prefill_failure_rejects_request() {
    for memory in [Memory::Tokens, Memory::State] {
        let (served, answers) = three_with(Fault::Error, memory);
        let expected = Error::Model("MLX: the test wants it".to_owned());
        assert_eq!(*answers[1].error(), expected);
        check_recovered(&served);
    }
}

#[test]
fn a_panic_fails_its_request_only() {
    let (served, answers) = three_with(Fault::Panic, Memory::Tokens);
    assert_eq!(*answers[1].error(), Error::Model("it panicked".to_owned()));
    check_recovered(&served);
    assert_eq!(served.more_fatals(), 0);
}

#[test]
fn not_a_number_fails_its_request_only() {
    let (served, answers) = three_with(Fault::NotANumber, Memory::Tokens);
    assert_eq!(*answers[1].error(), Error::NotANumber { position: 45 });
    check_recovered(&served);
}

/// The prompt of several choices became a head before its logits were looked at, and failed
/// whoever went on from it.
#[test]
fn a_prompt_that_gives_no_numbers_is_not_kept() {
    for choices in [1, 3] {
        let served = serve(Setup::default());
        let tokens = prompt(1, 30);
        served.model.fail_prompt(&tokens, Fault::NotANumber);
        let failed = served.ask(Request { choices, ..request(&tokens) });
        assert_eq!(*failed.error(), Error::NotANumber { position: 30 });
        served.model.fail_no_more();
        let next = [tokens.as_slice(), &prompt(2, 9)].concat();
        let answer = served.ask(request(&next));
        assert_eq!(answer.cached_tokens(), 0);
        assert_eq!(answer.reply(), alone(&next, &Sampling::GREEDY, 8));
    }
}

/// The engine's thread died of the second choice's row, which was no longer there.
#[test]
fn a_failure_in_one_of_several_choices_fails_its_request_only() {
    for fault in [Fault::Error, Fault::Panic, Fault::NotANumber] {
        let served = serve(Setup::default());
        let (several, other) = (prompt(1, 30), prompt(2, 20));
        let sampling = Sampling { temperature: 1.0, seed: 5, ..Sampling::GREEDY };
        let first = alone(&several, &sampling, 10);
        // The sixth token of the first choice is computed at this position.
        served.model.fail_at(35, first[5], fault);
        let mut streams = served.ask_and_hold([
            Request { choices: 3, sampling, max_tokens: Some(40), ..request(&several) },
            Request { max_tokens: Some(60), ..request(&other) },
        ]);
        served.model.open();
        let failed = read(&mut streams[0]);
        assert!(matches!(failed.error(), Error::Model(_) | Error::NotANumber { .. }));
        assert_eq!(failed.reply()[..6], first[..6]);
        assert_eq!(read(&mut streams[1]).reply(), alone(&other, &Sampling::GREEDY, 60));
        assert_eq!(served.engine.status(), Status::Serving);
        assert_eq!(served.more_fatals(), 0);
    }
}

#[test]
fn three_panics_within_a_minute_end_the_engine() {
    let served = serve(Setup::default());
    let prompts: Vec<_> = (1..=5).map(|seed| prompt(seed, 30 + seed as usize)).collect();
    for tokens in &prompts[..3] {
        served.model.fail_prompt(tokens, Fault::Panic);
    }
    let long = |tokens: &Vec<_>| Request { max_tokens: Some(1_000), ..request(tokens) };
    let mut streams = served.ask_and_hold(prompts[3..].iter().map(long));
    let mut failing: Vec<_> =
        prompts[..3].iter().map(|tokens| served.engine.submit(request(tokens))).collect();
    served.model.open();
    assert_eq!(served.fatal(), "the model panicked 3 times within a minute");
    // Every stream ends, and none as if it were complete.
    for stream in streams.iter_mut().chain(&mut failing) {
        let answer = read(stream);
        assert!(!matches!(answer.end, Some(Ok(_))), "{answer:?}");
    }
    let expected = Status::Failed("the model panicked 3 times within a minute".to_owned());
    assert_eq!(served.engine.status(), expected);
    assert_eq!(*served.ask(request(&prompt(6, 9))).error(), Error::Stopped);
    assert_eq!(served.more_fatals(), 0);
}

#[test]
fn two_panics_do_not() {
    let served = serve(Setup::default());
    for seed in 1..=2 {
        let tokens = prompt(seed, 30);
        served.model.fail_prompt(&tokens, Fault::Panic);
        let answer = served.ask(request(&tokens));
        assert_eq!(*answer.error(), Error::Model("it panicked".to_owned()));
    }
    let tokens = prompt(3, 31);
    assert_eq!(served.ask(request(&tokens)).reply(), alone(&tokens, &Sampling::GREEDY, 8));
    assert_eq!(served.more_fatals(), 0);
}

#[test]
fn a_copy_that_fails_fails_its_request_only() {
    let served = serve(Setup::default());
    let tokens = prompt(1, 100);
    served.ask(request(&tokens));
    served.model.fail_copy_after(0);
    let mut streams = served.ask_and_hold([request(&prompt(2, 30)), request(&tokens)]);
    served.model.open();
    let answers: Vec<Answer> = streams.iter_mut().map(read).collect();
    assert_eq!(answers[0].reply(), alone(&prompt(2, 30), &Sampling::GREEDY, 8));
    assert!(matches!(answers[1].error(), Error::Model(_)));
    assert_eq!(served.ask(request(&tokens)).reply(), alone(&tokens, &Sampling::GREEDY, 8));
}

/// A request that was let in with it copied from a block into which nothing had been copied.
#[test]
fn a_copy_of_a_failed_copy_fails_too() {
    let served = serve(Setup { pool_blocks: 6, ..Setup::default() });
    let history = prompt(1, 700);
    served.ask(request(&history));
    // Both are let in before the same step. The first takes blocks that only the history had, so
    // that the second finds what they begin with nowhere but in the first.
    let mut streams =
        served.ask_and_hold([Request { max_tokens: Some(40), ..request(&[history[1]]) }]);
    let first = [&history[..50], &prompt(2, 10)].concat();
    let second = [&history[..50], &prompt(3, 10)].concat();
    served.model.fail_copy_after(0);
    streams.push(served.engine.submit(Request { max_tokens: Some(600), ..request(&first) }));
    streams.push(served.engine.submit(request(&second)));
    served.model.open();
    assert_eq!(read(&mut streams[0]).reply().len(), 40);
    for stream in &mut streams[1..] {
        let answer = read(stream);
        assert_eq!(answer.cached_tokens(), 50);
        assert!(matches!(answer.error(), Error::Model(_)), "{answer:?}");
    }
    assert_eq!(served.ask(request(&second)).reply(), alone(&second, &Sampling::GREEDY, 8));
}

#[test]
fn a_step_that_hangs_is_reported() {
    let config = Config {
        step: Duration::from_millis(1),
        step_patience: Duration::from_millis(1),
        ..Config::default()
    };
    let served = serve(Setup { config, ..Setup::default() });
    served.model.close();
    let _stream = served.engine.submit(request(&prompt(1, 30)));
    let reason = served.fatal();
    assert!(reason.contains("a step has not ended"), "{reason}");
    assert_eq!(served.engine.status(), Status::Failed(reason));
    assert_eq!(*served.ask(request(&prompt(2, 9))).error(), Error::Stopped);
    served.model.open();
    assert_eq!(served.more_fatals(), 0);
}
