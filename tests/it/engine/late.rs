//! What comes from the disk when nobody waits for it any more: the blocks that it was for are
//! somebody else's by then.

use semantic::engine::{AgentError, Request, Source, Tier, Warmth};
use semantic::model::sample::Sampling;
use semantic::types::{AgentId, Namespace};

use crate::support::engine::{
    Served, Setup, alone, block_on, prompt, read, request, request_of, serve,
};
use crate::support::http::wait_until;
use crate::support::store::{Failing, ShakyDisk};

/// Of the pool: one conversation of 1,000 tokens and a reply, and no second one.
const BLOCKS: usize = 6;

#[test]
fn blocks_that_are_read_for_who_has_left_do_no_harm_to_who_has_them_now() {
    let disk = ShakyDisk::default();
    let served = serve(Setup { disk: Some(disk.clone()), pool_blocks: BLOCKS, ..Setup::default() });
    let first = prompt(1, 1_000);
    let said = [first.as_slice(), served.ask(request_of("a", &first)).reply()].concat();
    for round in 0..3 {
        // Another's conversation pushes it out of the pool.
        served.ask(request(&prompt(20 + round, 1_000)));
        disk.set_failing(Failing::ReadsHang);
        let before = disk.take_reads();
        let next = [said.as_slice(), &prompt(9, 20)].concat();
        let leaving = served.engine.submit(request_of("a", &next));
        wait_until("its memory is read", || disk.take_reads() > 0);
        drop(leaving);
        let whose = prompt(40 + round, 1_000);
        let mut after = served.engine.submit(Request { max_tokens: Some(30), ..request(&whose) });
        disk.set_failing(Failing::Nothing);
        let answer = read(&mut after);
        let expected = alone(&whose, &Sampling::GREEDY, 30);
        assert_eq!(answer.reply(), expected, "round {round}, after {before} reads");
    }
    // Nor is what it left on the disk another's.
    let next = [said.as_slice(), &prompt(9, 20)].concat();
    let answer = served.ask(request_of("a", &next));
    assert_eq!(answer.admitted().source, Source::Warm);
    assert_eq!(answer.cached_tokens(), said.len() - 1);
    assert_eq!(answer.reply(), alone(&next, &Sampling::GREEDY, 8));
}

fn warm(served: &Served, agent: &str) -> Result<Warmth, AgentError> {
    block_on(served.engine.warm(&Namespace::local(), &AgentId::new(agent).unwrap()))
}

fn is_hot(served: &Served, agent: &str) -> bool {
    let (namespace, agent) = (Namespace::local(), AgentId::new(agent).unwrap());
    let state = block_on(served.engine.agent(&namespace, &agent)).unwrap().unwrap();
    state.heads[0].tier == Tier::Hot
}

#[test]
fn what_was_brought_back_early_answers_as_if_it_had_never_left() {
    let disk = ShakyDisk::default();
    let served = serve(Setup { disk: Some(disk.clone()), ..Setup::default() });
    let first = prompt(1, 1_000);
    let said = [first.as_slice(), served.ask(request_of("a", &first)).reply()].concat();
    assert_eq!(warm(&served, "a"), Ok(Warmth::Hot));
    assert_eq!(warm(&served, "b"), Err(AgentError::NotFound(AgentId::new("b").unwrap())));
    served.end();
    let served = serve(Setup { disk: Some(disk.clone()), ..Setup::default() });
    disk.set_failing(Failing::ReadsHang);
    assert_eq!(warm(&served, "a"), Ok(Warmth::Warming));
    assert_eq!(warm(&served, "a"), Ok(Warmth::Warming));
    disk.set_failing(Failing::Nothing);
    wait_until("it is in memory", || is_hot(&served, "a"));
    let next = [said.as_slice(), &prompt(9, 20)].concat();
    let answer = served.ask(request_of("a", &next));
    assert_eq!(answer.admitted().source, Source::Hot);
    assert_eq!(answer.cached_tokens(), said.len() - 1);
    assert_eq!(answer.reply(), alone(&next, &Sampling::GREEDY, 8));
}

#[test]
fn a_damaged_block_that_is_brought_back_early_is_computed() {
    let disk = ShakyDisk::default();
    let served = serve(Setup { disk: Some(disk.clone()), ..Setup::default() });
    let first = prompt(1, 1_000);
    let said = [first.as_slice(), served.ask(request_of("a", &first)).reply()].concat();
    served.end();
    let served = serve(Setup { disk: Some(disk.clone()), ..Setup::default() });
    disk.set_failing(Failing::Flips);
    disk.take_reads();
    assert_eq!(warm(&served, "a"), Ok(Warmth::Warming));
    wait_until("it is read", || disk.take_reads() > 0);
    wait_until("it is given up", || warm(&served, "a") == Ok(Warmth::Warming));
    // Nothing of what was said is forgotten for it.
    let past = block_on(served.engine.recall(&Namespace::local(), &AgentId::new("a").unwrap()));
    assert_eq!(&*past.unwrap().past.unwrap().tokens, &said[..]);
    let next = [said.as_slice(), &prompt(9, 20)].concat();
    let answer = served.ask(request_of("a", &next));
    assert_eq!(answer.reply(), alone(&next, &Sampling::GREEDY, 8));
    disk.set_failing(Failing::Nothing);
}

#[test]
fn what_is_brought_back_early_gives_way_to_whoever_is_there() {
    let disk = ShakyDisk::default();
    let setup = || Setup { disk: Some(disk.clone()), pool_blocks: BLOCKS, ..Setup::default() };
    let served = serve(setup());
    let first = prompt(1, 1_000);
    let said = [first.as_slice(), served.ask(request_of("a", &first)).reply()].concat();
    served.end();
    let served = serve(setup());
    for round in 0..3 {
        disk.set_failing(Failing::ReadsHang);
        disk.take_reads();
        assert_eq!(warm(&served, "a"), Ok(Warmth::Warming), "round {round}");
        wait_until("its memory is read", || disk.take_reads() > 0);
        // Its blocks are another's before they have come.
        let whose = prompt(40 + round, 1_000);
        let mut stream = served.engine.submit(Request { max_tokens: Some(30), ..request(&whose) });
        block_on(stream.next()).expect("it is let in").unwrap();
        disk.set_failing(Failing::Nothing);
        let answer = read(&mut stream);
        assert_eq!(answer.reply(), alone(&whose, &Sampling::GREEDY, 30), "round {round}");
        assert!(!is_hot(&served, "a"));
    }
    let next = [said.as_slice(), &prompt(9, 20)].concat();
    let answer = served.ask(request_of("a", &next));
    assert_eq!(answer.admitted().source, Source::Warm);
    assert_eq!(answer.reply(), alone(&next, &Sampling::GREEDY, 8));
}
