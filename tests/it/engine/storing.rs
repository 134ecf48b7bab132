//! Agents that leave the pool and come back, and stores that fail.

use semantic::engine::{Evicted, Request, Source};
use semantic::model::fake::Memory;
use semantic::model::sample::Sampling;
use semantic::types::{AgentId, TokenId};

use crate::support::engine::{
    Answer, Failing, FakeStore, Served, Setup, alone, block_on, prompt, request_of, serve,
};

fn with_store(memory: Memory) -> (Served, FakeStore) {
    let store = FakeStore::default();
    (serve(Setup { memory, store: Some(store.clone()), ..Setup::default() }), store)
}

/// An agent's conversation after one turn.
fn said(served: &Served, agent: &str, seed: u32, tokens: usize) -> Vec<TokenId> {
    let tokens = prompt(seed, tokens);
    let answer = served.ask(request_of(agent, &tokens));
    [tokens.as_slice(), answer.reply()].concat()
}

/// The agent's next turn.
fn next(served: &Served, agent: &str, history: &[TokenId]) -> Answer {
    let tokens = [history, &prompt(40, 30)].concat();
    served.model.forget();
    let answer = served.ask(request_of(agent, &tokens));
    let computed = tokens.len() - answer.cached_tokens() + answer.reply().len() - 1;
    assert_eq!(served.model.computed_tokens(), computed);
    assert_eq!(answer.reply(), alone(&tokens, &Sampling::GREEDY, 8));
    answer
}

fn evict_all(served: &Served) -> Evicted {
    block_on(served.engine.evict_all_to_disk()).unwrap()
}

#[test]
fn an_evicted_agent_comes_back_as_if_it_had_never_left() {
    for memory in [Memory::Tokens, Memory::State] {
        for tokens in [1, 200, 248, 249, 250, 800] {
            let (served, _store) = with_store(memory);
            let history = said(&served, "a", 1, tokens);
            let evicted = evict_all(&served);
            assert_eq!(evicted, Evicted { saved: 1, failed: 0, forgotten: 0 });
            assert_eq!(served.engine.stats().blocks_used, 0);
            let answer = next(&served, "a", &history);
            assert_eq!(answer.admitted().source, Source::Warm);
            assert_eq!(answer.cached_tokens(), history.len() - 1);
            // What came back is hot, and goes on from there.
            let history = [&history, &prompt(40, 30)[..], answer.reply()].concat();
            assert_eq!(next(&served, "a", &history).admitted().source, Source::Hot);
        }
    }
}

#[test]
fn a_part_of_what_is_in_the_store_is_enough() {
    for (memory, cached) in [(Memory::Tokens, 600), (Memory::State, 512)] {
        let (served, _store) = with_store(memory);
        let history = said(&served, "a", 1, 800);
        evict_all(&served);
        let answer = next(&served, "b", &history[..600]);
        assert_eq!((answer.admitted().source, answer.cached_tokens()), (Source::Warm, cached));
        // The agent itself still has all of it.
        assert_eq!(next(&served, "a", &history).cached_tokens(), history.len() - 1);
    }
}

#[test]
fn blocks_that_are_still_in_the_pool_are_not_loaded_again() {
    let (served, store) = with_store(Memory::Tokens);
    let history = said(&served, "a", 1, 800);
    evict_all(&served);
    // Two blocks of it are hot again, under another name.
    next(&served, "b", &history[..520]);
    store.kept().loads = 0;
    let answer = next(&served, "a", &history);
    assert_eq!((answer.admitted().source, answer.cached_tokens()), (Source::Warm, 807));
    assert_eq!(store.kept().loads, 1);
}

#[test]
fn a_head_that_cannot_be_saved_does_not_keep_the_others_from_it() {
    let (served, store) = with_store(Memory::Tokens);
    let bad = AgentId::new("b").unwrap();
    store.kept().failing = Failing::SavesOf(bad.clone());
    let histories: Vec<_> = ["a", "b", "c"]
        .iter()
        .zip(1..)
        .map(|(agent, seed)| said(&served, agent, seed, 300))
        .collect();
    assert_eq!(evict_all(&served), Evicted { saved: 2, failed: 1, forgotten: 0 });
    // It is safe nowhere else, so it stays where it is.
    assert_eq!(served.engine.stats().blocks_used, 2);
    let sources: Vec<Source> = ["a", "b", "c"]
        .iter()
        .zip(&histories)
        .map(|(agent, history)| {
            let answer = next(&served, agent, history);
            assert_eq!(answer.cached_tokens(), history.len() - 1);
            answer.admitted().source
        })
        .collect();
    assert_eq!(sources, [Source::Warm, Source::Hot, Source::Warm]);
    store.kept().failing = Failing::Nothing;
    assert_eq!(evict_all(&served), Evicted { saved: 3, failed: 0, forgotten: 0 });
    assert_eq!(served.engine.stats().blocks_used, 0);
    let kept: Vec<AgentId> =
        store.kept().heads.values().map(|snapshot| snapshot.agent.clone()).collect();
    assert!(kept.contains(&bad));
}

#[test]
fn a_store_that_loads_nothing_or_wrong_lengths_costs_time_and_nothing_else() {
    for failing in [Failing::Loads, Failing::BlocksLost, Failing::BlocksAdded, Failing::BytesLost] {
        for memory in [Memory::Tokens, Memory::State] {
            let (served, store) = with_store(memory);
            let history = said(&served, "a", 1, 800);
            evict_all(&served);
            store.kept().failing = failing.clone();
            let answer = next(&served, "a", &history);
            assert_eq!(answer.admitted().source, Source::Cold, "{failing:?}");
            assert_eq!(answer.cached_tokens(), 0);
            // What could not be read is not tried again.
            store.kept().failing = Failing::Nothing;
            evict_all(&served);
            assert_eq!(store.kept().heads.len(), 1);
        }
    }
}

#[test]
fn blocks_in_the_pool_are_used_even_if_the_rest_cannot_be_loaded() {
    let (served, store) = with_store(Memory::Tokens);
    let history = said(&served, "a", 1, 800);
    evict_all(&served);
    next(&served, "b", &history[..520]);
    store.kept().failing = Failing::Loads;
    let answer = next(&served, "a", &history);
    assert_eq!((answer.admitted().source, answer.cached_tokens()), (Source::Hot, 512));
}

#[test]
fn a_warm_agent_makes_room_when_the_pool_is_full() {
    let store = FakeStore::default();
    let setup = Setup { pool_blocks: 6, store: Some(store.clone()), ..Setup::default() };
    let served = serve(setup);
    let histories: Vec<_> =
        (1..=6).map(|seed| said(&served, &format!("a{seed}"), seed, 500)).collect();
    for (seed, history) in (1..).zip(&histories) {
        let answer = next(&served, &format!("a{seed}"), history);
        assert_eq!(answer.cached_tokens(), history.len() - 1);
    }
    assert_eq!(served.engine.stats().agents, 6);
}

#[test]
fn what_an_agent_has_gone_on_from_leaves_the_store() {
    let (served, store) = with_store(Memory::Tokens);
    let mut history = said(&served, "a", 1, 100);
    for _ in 0..4 {
        evict_all(&served);
        assert_eq!(store.kept().heads.len(), 1);
        let answer = next(&served, "a", &history);
        history = [&history, &prompt(40, 30)[..], answer.reply()].concat();
    }
    // Of five conversations under one name the oldest goes.
    for seed in 2..=5 {
        said(&served, "a", seed, 100);
        evict_all(&served);
    }
    assert_eq!(store.kept().heads.len(), 4);
    let left: Request = request_of("b", &history);
    assert_eq!(served.ask(left).cached_tokens(), 0);
}
