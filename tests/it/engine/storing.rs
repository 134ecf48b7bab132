//! Agents that leave the pool and come back, and stores that fail.

use semantic::engine::{Durability, Evicted, Request, RetentionChange, Source, Transcript};
use semantic::model::fake::Memory;
use semantic::model::sample::Sampling;
use semantic::types::{AgentId, Generation, Namespace, TokenId, TranscriptId};

use crate::support::engine::{Answer, Served, Setup, alone, block_on, prompt, request_of, serve};
use crate::support::store::{Failing, ShakyDisk, lines};

fn with_store(memory: Memory) -> (Served, ShakyDisk) {
    let disk = ShakyDisk::default();
    (on(&disk, memory), disk)
}

/// A process that starts on this disk.
fn on(disk: &ShakyDisk, memory: Memory) -> Served {
    serve(Setup { memory, disk: Some(disk.clone()), ..Setup::default() })
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
            let (served, _disk) = with_store(memory);
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
        let (served, _disk) = with_store(memory);
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
    let (served, disk) = with_store(Memory::Tokens);
    let history = said(&served, "a", 1, 800);
    evict_all(&served);
    // Two blocks of it are hot again, under another name.
    next(&served, "b", &history[..520]);
    disk.take_reads();
    let answer = next(&served, "a", &history);
    assert_eq!((answer.admitted().source, answer.cached_tokens()), (Source::Warm, 807));
    // The third and fourth block.
    assert_eq!(disk.take_reads(), 2);
}

/// A transcript once made room without a word to the engine, which went on to say that the agent's
/// turn was safe.
#[test]
fn a_turn_whose_save_went_to_make_room_is_not_said_to_be_durable() {
    let transcript = Transcript {
        namespace: Namespace::local(),
        agent: AgentId::new("b").unwrap(),
        id: TranscriptId(1),
        said: b"what was said".as_slice().into(),
    };
    let pinned = RetentionChange { is_pinned: Some(true), ttl: None };
    let keep = |served: &Served| block_on(served.engine.keep_transcript(transcript.clone()));
    let pin = |served: &Served| {
        let (namespace, agent) = (&transcript.namespace, &transcript.agent);
        block_on(served.engine.retain(namespace, agent, pinned)).is_ok()
    };
    let ways: [&dyn Fn(&Served) -> bool; 2] = [&keep, &pin];
    for needs_room in ways {
        let (served, disk) = with_store(Memory::Tokens);
        ["a", "b"].iter().zip(1..).for_each(|(agent, seed)| drop(said(&served, agent, seed, 300)));
        served.end();
        let budget_bytes = disk.open().usage().unwrap().disk_bytes;
        let served = serve(Setup { disk: Some(disk.clone()), budget_bytes, ..Setup::default() });
        // Both turns again, of which nothing is new.
        let again =
            |agent, seed| served.ask(request_of(agent, &prompt(seed, 300))).outcome().durability;
        assert!(matches!(again("a", 1), Durability::Durable(_)));
        assert!(matches!(again("b", 2), Durability::Durable(_)));
        assert!(needs_room(&served));
        let is_stored =
            |name: &str| lines(served.store()).iter().any(|line| line.agent.as_str() == name);
        assert!(!is_stored("a"), "it made room");
        // It is saved anew if it can be, and what is said of it is so.
        let durability = again("a", 1);
        assert_eq!(matches!(durability, Durability::Durable(_)), is_stored("a"), "{durability:?}");
    }
}

#[test]
fn a_head_that_cannot_be_saved_does_not_keep_the_others_from_it() {
    let (served, _disk) = with_store(Memory::Tokens);
    // The prompt of seed 2 begins so.
    served.model.fail_exports_of(Some(TokenId(5)));
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
    served.model.fail_exports_of(None);
    assert_eq!(evict_all(&served), Evicted { saved: 3, failed: 0, forgotten: 0 });
    assert_eq!(served.engine.stats().blocks_used, 0);
}

#[test]
fn a_store_that_reads_nothing_or_wrong_bits_costs_time_and_nothing_else() {
    for failing in [Failing::Reads, Failing::Flips] {
        for memory in [Memory::Tokens, Memory::State] {
            let (served, disk) = with_store(memory);
            let history = said(&served, "a", 1, 800);
            evict_all(&served);
            disk.set_failing(failing);
            let answer = next(&served, "a", &history);
            assert_eq!(answer.admitted().source, Source::Cold, "{failing:?}");
            assert_eq!(answer.cached_tokens(), 0);
        }
    }
}

#[test]
fn blocks_in_the_pool_are_used_even_if_the_rest_cannot_be_loaded() {
    let (served, disk) = with_store(Memory::Tokens);
    let history = said(&served, "a", 1, 800);
    evict_all(&served);
    next(&served, "b", &history[..520]);
    disk.set_failing(Failing::Reads);
    let answer = next(&served, "a", &history);
    assert_eq!((answer.admitted().source, answer.cached_tokens()), (Source::Hot, 512));
}

#[test]
fn a_warm_agent_makes_room_when_the_pool_is_full() {
    let disk = Some(ShakyDisk::default());
    let setup = Setup { pool_blocks: 6, disk, ..Setup::default() };
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
fn the_fifth_conversation_of_an_agent_takes_the_place_of_its_oldest_on_disk_too() {
    let (served, disk) = with_store(Memory::Tokens);
    let mut history = said(&served, "a", 1, 100);
    for _ in 0..4 {
        evict_all(&served);
        let answer = next(&served, "a", &history);
        history = [&history, &prompt(40, 30)[..], answer.reply()].concat();
    }
    for seed in 2..=5 {
        said(&served, "a", seed, 100);
    }
    served.end();
    assert_eq!(lines(&disk.open()).len(), 4);
    let served = on(&disk, Memory::Tokens);
    assert_eq!(served.ask(request_of("b", &history)).cached_tokens(), 0);
}

#[test]
fn a_new_process_goes_on_where_the_last_one_was() {
    for memory in [Memory::Tokens, Memory::State] {
        let disk = ShakyDisk::default();
        let mut histories = Vec::new();
        for (seed, (agent, tokens)) in
            (1..).zip([("a", 1), ("b", 250), ("c", 255), ("d", 256), ("e", 800)])
        {
            let served = on(&disk, memory);
            histories.push((agent, said(&served, agent, seed, tokens)));
            served.end();
        }
        let served = on(&disk, memory);
        assert_eq!(served.engine.stats().agents, 5);
        for (agent, history) in histories {
            let answer = next(&served, agent, &history);
            assert_eq!(answer.cached_tokens(), history.len() - 1, "{agent}");
            assert_eq!(answer.admitted().source, Source::Warm);
            assert_eq!(answer.admitted().restored_tokens, history.len() - 1);
        }
    }
}

#[test]
fn a_turn_that_is_said_to_be_durable_is_there_when_the_process_dies_at_once() {
    let disk = ShakyDisk::default();
    let mut history = prompt(1, 300);
    for generation in 1..=5 {
        let served = on(&disk, Memory::Tokens);
        let answer = served.ask(request_of("a", &history));
        assert_eq!(answer.outcome().durability, Durability::Durable(Generation(generation)));
        history.extend_from_slice(answer.reply());
        let stored = lines(served.store()).pop().expect("it is there");
        assert_eq!((&*stored.tokens, stored.generation), (&history[..], Generation(generation)));
        history.extend_from_slice(&prompt(40 + generation as u32, 200));
        served.end();
    }
}

#[test]
fn a_disk_that_takes_nothing_costs_no_answer_and_heals() {
    let (served, disk) = with_store(Memory::Tokens);
    let history = said(&served, "a", 1, 300);
    disk.set_failing(Failing::Writes);
    let tokens = [history.as_slice(), &prompt(40, 300)].concat();
    let answer = served.ask(request_of("a", &tokens));
    assert_eq!(answer.outcome().durability, Durability::NotDurable);
    assert_eq!(answer.reply(), alone(&tokens, &Sampling::GREEDY, 8));
    // What was safe before still is.
    let stored = lines(served.store());
    assert_eq!(stored.len(), 1);
    assert_eq!(*stored[0].tokens, *history);
    disk.set_failing(Failing::Nothing);
    assert_eq!(evict_all(&served), Evicted { saved: 1, failed: 0, forgotten: 0 });
    assert_eq!(lines(served.store())[0].tokens.len(), tokens.len() + 8);
}

#[test]
fn what_is_ephemeral_is_answered_from_memory_and_leaves_none() {
    let (served, disk) = with_store(Memory::Tokens);
    let history = said(&served, "a", 1, 300);
    evict_all(&served);
    let request = Request { is_ephemeral: true, ..request_of("a", &history) };
    let answer = served.ask(request.clone());
    assert_eq!(answer.cached_tokens(), history.len() - 1);
    assert_eq!(answer.outcome().durability, Durability::NotDurable);
    assert_eq!(served.engine.stats().blocks_used, 0);
    served.end();
    let stored = lines(&disk.open());
    assert_eq!((stored.len(), &*stored[0].tokens), (1, &history[..]));
}

/// A save that was not finished must not cost what was saved before.
#[test]
fn an_agent_that_leaves_the_pool_unsaved_falls_back_to_its_last_save() {
    let disk = ShakyDisk::default();
    let served = serve(Setup { pool_blocks: 6, disk: Some(disk.clone()), ..Setup::default() });
    let history = said(&served, "a", 1, 300);
    disk.set_failing(Failing::Writes);
    let tokens = [history.as_slice(), &prompt(40, 300)].concat();
    served.ask(request_of("a", &tokens));
    // Another one needs the whole pool.
    served.ask(request_of("b", &prompt(2, 1_400)));
    disk.set_failing(Failing::Nothing);
    let answer = next(&served, "a", &history);
    assert_eq!((answer.admitted().source, answer.cached_tokens()), (Source::Warm, 307));
}

#[test]
fn a_store_that_is_only_read_gives_agents_back_and_takes_none() {
    let disk = ShakyDisk::default();
    let served = on(&disk, Memory::Tokens);
    let history = said(&served, "a", 1, 300);
    // Beside the process that writes.
    let reading = serve(Setup { disk: Some(disk.clone()), is_read_only: true, ..Setup::default() });
    let answer = next(&reading, "a", &history);
    assert_eq!(answer.admitted().source, Source::Warm);
    assert_eq!(answer.outcome().durability, Durability::NotDurable);
    reading.engine.shutdown();
    assert_eq!(lines(served.store())[0].tokens.len(), history.len());
}

#[test]
fn of_a_hundred_agents_one_cannot_be_saved_and_the_others_come_back() {
    let disk = ShakyDisk::default();
    let on = |disk: &ShakyDisk| {
        let disk = Some(disk.clone());
        serve(Setup { vocabulary: 200, pool_blocks: 220, disk, ..Setup::default() })
    };
    let served = on(&disk);
    // The prompt of seed 37 begins so.
    served.model.fail_exports_of(Some(TokenId(40)));
    let name = |seed: u32| format!("agent {seed}");
    let history = |served: &Served, seed| said(served, &name(seed), seed, 20 + 3 * seed as usize);
    let histories: Vec<_> = (1..=100).map(|seed| history(&served, seed)).collect();
    assert_eq!(evict_all(&served), Evicted { saved: 99, failed: 1, forgotten: 0 });
    served.end();
    let served = on(&disk);
    assert_eq!(served.engine.stats().agents, 99);
    for (seed, history) in (1..).zip(&histories) {
        let answer = served.ask(request_of(&name(seed), history));
        let expected = if seed == 37 { 0 } else { history.len() - 1 };
        assert_eq!(answer.cached_tokens(), expected, "agent {seed}");
    }
}

/// Restored, such a block would give nonsense for ever.
#[test]
fn kv_that_is_not_finite_never_reaches_the_disk() {
    let (served, disk) = with_store(Memory::Tokens);
    let other = said(&served, "b", 2, 300);
    let tokens = prompt(1, 600);
    served.model.spoil_exports_of(tokens[0]);
    let answer = served.ask(request_of("a", &tokens));
    assert_eq!(answer.outcome().durability, Durability::NotDurable);
    assert_eq!(answer.reply(), alone(&tokens, &Sampling::GREEDY, 8));
    // It is not tried again, and nobody waits for it.
    assert_eq!(evict_all(&served), Evicted { saved: 1, failed: 0, forgotten: 1 });
    assert_eq!(lines(served.store()).len(), 1);
    served.end();
    let served = on(&disk, Memory::Tokens);
    assert_eq!(served.engine.stats().agents, 1);
    assert_eq!(next(&served, "b", &other).admitted().source, Source::Warm);
}

/// What a client sends back as text are the ids that were generated, also by a process that is
/// no more.
#[test]
fn replies_of_an_earlier_process_are_known_by_their_text() {
    let disk = ShakyDisk::default();
    let setup =
        |disk: &ShakyDisk| Setup { vocabulary: 902, disk: Some(disk.clone()), ..Setup::default() };
    let local = Namespace::local();
    let served = serve(setup(&disk));
    let mut replies = Vec::new();
    for seed in 1..=5 {
        let sampling = Sampling { temperature: 1.0, seed: seed.into(), ..Sampling::GREEDY };
        let request = request_of(&format!("agent {seed}"), &prompt(seed, 30));
        let answer = served.ask(Request { sampling, ..request });
        let known = served.engine.known_replies(&local, &answer.texts[0]);
        replies.push((answer.texts[0].clone(), known));
    }
    // One that ends inside a character stands for no text.
    assert!(replies.iter().filter(|(_, known)| known.len() == 1).count() >= 3);
    served.end();
    let served = serve(setup(&disk));
    for (text, known) in replies {
        assert_eq!(served.engine.known_replies(&local, &text), known, "{text:?}");
        assert!(served.engine.known_replies(&Namespace::new("other"), &text).is_empty());
    }
}
