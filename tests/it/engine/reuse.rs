//! `cached_tokens` is true to the token: what is not cached is computed, and nothing else is.

use std::time::SystemTime;

use semantic::engine::{Request, Source};
use semantic::model::fake::Memory;
use semantic::model::sample::Sampling;
use semantic::text::{ChatTemplate, Conversation, Message, Prompt, RenderOptions, chat_prompt};
use semantic::types::{BLOCK_TOKENS, Namespace, TokenId};

use crate::support::engine::{Answer, Served, Setup, alone, prompt, request, request_of, serve};
use crate::support::text::{byte_level_source, byte_level_tokenizer};

/// Asks, and checks that so many tokens were there, that all others were computed once, and that
/// the reply is the one that the prompt gets alone.
#[track_caller]
fn check(served: &Served, request: Request, tokens: &[TokenId], cached: usize) -> Answer {
    served.model.forget();
    let (choices, sampling) = (request.choices, request.sampling.clone());
    let answer = served.ask(request);
    assert_eq!(answer.cached_tokens(), cached);
    assert_eq!(answer.outcome().admitted.cached_tokens, cached);
    assert_eq!(answer.admitted().prompt_tokens, tokens.len());
    // The last token of a reply is sampled and never computed.
    let replies: usize = answer.tokens.iter().map(|reply| reply.len() - 1).sum();
    assert_eq!(served.model.computed_tokens(), tokens.len() - cached + replies);
    assert_eq!(answer.tokens.len(), choices);
    for (choice, reply) in answer.tokens.iter().enumerate() {
        let seed = sampling.seed.wrapping_add(choice as u64);
        let sampling = Sampling { seed, ..sampling.clone() };
        assert_eq!(*reply, alone(tokens, &sampling, reply.len()), "choice {choice}");
    }
    answer
}

/// As [`check`], of a named agent; returns the conversation so far.
#[track_caller]
fn turn(served: &Served, agent: &str, tokens: &[TokenId], cached: usize) -> Vec<TokenId> {
    let answer = check(served, request_of(agent, tokens), tokens, cached);
    [tokens, answer.reply()].concat()
}

fn stateful() -> Setup {
    Setup { memory: Memory::State, ..Setup::default() }
}

#[test]
fn a_cold_prompt_is_computed_once() {
    for tokens in [1, 2, BLOCK_TOKENS - 1, BLOCK_TOKENS, BLOCK_TOKENS + 1, 3 * BLOCK_TOKENS + 7] {
        let served = serve(Setup::default());
        let tokens = prompt(1, tokens);
        let answer = check(&served, request(&tokens), &tokens, 0);
        assert_eq!(answer.admitted().source, Source::Cold);
        assert_eq!(answer.prefilled.last(), Some(&tokens.len()));
        assert!(answer.prefilled.is_sorted());
    }
}

#[test]
fn the_next_turn_computes_only_what_is_new() {
    let served = serve(Setup::default());
    let mut tokens = prompt(1, 300);
    let mut cached = 0;
    for turn_number in 0..5 {
        let history = turn(&served, "a", &tokens, cached);
        // The reply's last token has no KV.
        cached = history.len() - 1;
        tokens = [history, prompt(turn_number, 40)].concat();
    }
    assert_eq!(served.engine.stats().agents, 1);
}

#[test]
fn an_agent_forks_from_the_history_of_another() {
    let served = serve(Setup::default());
    let history = turn(&served, "a", &prompt(1, 400), 0);
    let forked = [&history[..350], &prompt(2, 30)].concat();
    turn(&served, "b", &forked, 350);
    let next = [history.as_slice(), &prompt(3, 30)].concat();
    turn(&served, "a", &next, history.len() - 1);
}

#[test]
fn a_side_request_under_the_same_id_keeps_both_heads() {
    let served = serve(Setup::default());
    let main = turn(&served, "a", &prompt(1, 100), 0);
    let side = turn(&served, "a", &prompt(2, 100), 0);
    let main = turn(&served, "a", &[main, prompt(3, 10)].concat(), 107);
    let side = turn(&served, "a", &[side, prompt(3, 10)].concat(), 107);
    turn(&served, "a", &[main, prompt(4, 10)].concat(), 125);
    turn(&served, "a", &[side, prompt(4, 10)].concat(), 125);
}

#[test]
fn the_fifth_head_of_an_agent_drops_the_oldest() {
    let served = serve(Setup::default());
    let histories: Vec<_> = (1..=5).map(|seed| turn(&served, "a", &prompt(seed, 60), 0)).collect();
    let used = served.engine.stats().blocks_used;
    for history in &histories[1..] {
        check(&served, request(history), history, 67);
    }
    assert!(used <= 5, "{used} blocks for four heads and what was just there");
    check(&served, request(&histories[0]), &histories[0], 0);
}

#[test]
fn nameless_requests_share_what_they_begin_with() {
    let served = serve(Setup::default());
    let system = prompt(1, 300);
    let one = [system.as_slice(), &prompt(2, 50)].concat();
    check(&served, request(&one), &one, 0);
    let other = [system.as_slice(), &prompt(3, 50)].concat();
    check(&served, request(&other), &other, 300);
}

#[test]
fn the_identical_prompt_again_computes_one_token() {
    for memory in [Memory::Tokens, Memory::State] {
        for tokens in [1, 2, 200, BLOCK_TOKENS, BLOCK_TOKENS + 1, 2 * BLOCK_TOKENS + 1] {
            let served = serve(Setup { memory, ..Setup::default() });
            let tokens = prompt(1, tokens);
            let first = check(&served, request(&tokens), &tokens, 0);
            let query = tokens.len() - 1;
            let cached = match memory {
                Memory::Tokens => query,
                Memory::State => query - query % BLOCK_TOKENS,
            };
            let again = check(&served, request(&tokens), &tokens, cached);
            assert_eq!(first.texts, again.texts);
        }
    }
}

#[test]
fn a_match_ends_anywhere_inside_at_and_across_a_block_border() {
    for matched in [1, 255, 256, 257, 400, 511, 512, 513, 700] {
        let served = serve(Setup::default());
        let history = turn(&served, "a", &prompt(1, 800), 0);
        // The first new token is another one.
        let new = (3..9).map(TokenId).find(|token| *token != history[matched]).unwrap();
        let other = [&history[..matched], &[new], &prompt(2, 20)].concat();
        check(&served, request(&other), &other, matched);
        // What was copied was not written to.
        check(&served, request(&history), &history, history.len() - 1);
    }
}

#[test]
fn a_request_goes_on_from_one_that_still_runs() {
    let served = serve(Setup::default());
    let tokens = prompt(1, 600);
    let long = Request { max_tokens: Some(500), ..request(&tokens) };
    let mut streams = served.ask_and_hold([long]);
    // It generates: the whole prompt has KV.
    served.model.step_until(|rows| rows.iter().any(|row| row.start > tokens.len()));
    let other = [&tokens[..590], &prompt(2, 20)].concat();
    let mut stream = served.engine.submit(request(&other));
    served.model.open();
    let answer = crate::support::engine::read(&mut stream);
    assert_eq!(answer.cached_tokens(), 590);
    assert_eq!(answer.reply(), alone(&other, &Sampling::GREEDY, 8));
    let long = crate::support::engine::read(&mut streams[0]);
    assert_eq!(long.reply(), alone(&tokens, &Sampling::GREEDY, 500));
}

#[test]
fn a_stateful_model_goes_on_from_whole_heads_and_block_borders_only() {
    let served = serve(stateful());
    let history = turn(&served, "a", &prompt(1, 700), 0);
    let head = history.len() - 1;
    // Whole.
    let next = turn(&served, "a", &[history.as_slice(), &prompt(2, 30)].concat(), head);
    // Cut inside a block, and at a border.
    let inside = [&next[..600], &prompt(3, 30)].concat();
    check(&served, request(&inside), &inside, 512);
    let border = [&next[..513], &prompt(4, 30)].concat();
    check(&served, request(&border), &border, 512);
    // The turn before ended there, but that head has gone on.
    let before = [&history[..head], &prompt(5, 30)].concat();
    check(&served, request(&before), &before, 512);
}

#[test]
fn of_several_choices_the_prompt_is_computed_once() {
    for memory in [Memory::Tokens, Memory::State] {
        for tokens in [1, 100, BLOCK_TOKENS, 2 * BLOCK_TOKENS + 40] {
            let served = serve(Setup { memory, ..Setup::default() });
            let tokens = prompt(1, tokens);
            let sampling = Sampling { temperature: 1.0, seed: 77, ..Sampling::GREEDY };
            let request =
                Request { choices: 4, sampling, max_tokens: Some(20), ..request(&tokens) };
            let answer = check(&served, request, &tokens, 0);
            assert_ne!(answer.texts[0], answer.texts[1]);
            // Only the prompt becomes a head, and that whole.
            let next = [tokens.as_slice(), answer.reply(), &prompt(2, 10)].concat();
            check(&served, crate::support::engine::request(&next), &next, tokens.len());
        }
    }
}

#[test]
fn namespaces_never_share_kv() {
    let served = serve(Setup::default());
    let tokens = prompt(1, 600);
    let of = |name: &str| Request { namespace: Namespace::new(name), ..request_of("a", &tokens) };
    for name in ["one", "two"] {
        check(&served, of(name), &tokens, 0);
    }
    for name in ["one", "two"] {
        check(&served, of(name), &tokens, tokens.len() - 1);
    }
    // While both run.
    let of = |name: &str| Request { max_tokens: Some(300), ..of(name) };
    served.model.forget();
    let mut streams = served.ask_and_hold([of("one"), of("two"), of("three")]);
    served.model.step_until(|rows| rows.len() == 3);
    for rows in served.model.steps() {
        for (index, row) in rows.iter().enumerate() {
            for other in &rows[..index] {
                assert!(row.blocks.iter().all(|block| !other.blocks.contains(block)));
            }
        }
    }
    served.model.open();
    let answers: Vec<Answer> = streams.iter_mut().map(crate::support::engine::read).collect();
    let cached: Vec<usize> = answers.iter().map(Answer::cached_tokens).collect();
    assert_eq!(cached, [599, 599, 0]);
    assert_eq!(served.engine.stats().agents, 3);
}

/// What a model says is seldom what its tokenizer would make of it. As ids it is found again.
#[test]
fn known_replies_are_found_again_whatever_their_tokens() {
    let tokenizer = byte_level_tokenizer();
    let template = ChatTemplate::new(&byte_level_source()).unwrap();
    let options = RenderOptions::new(SystemTime::UNIX_EPOCH);
    let one = Namespace::new("one");
    let served = serve(Setup { vocabulary: 902, pool_blocks: 96, ..Setup::default() });
    let mut messages = vec![Message::new("system", "You are terse.")];
    // With which no reply ends inside a character: one that does stands for no text.
    const SEEDS: [u64; 5] = [0, 1, 22, 3, 14];
    let mut known_tokens = 0;
    let mut strange = 0;
    for (number, seed) in SEEDS.into_iter().enumerate() {
        messages.push(Message::new("user", format!("Question {number}?")));
        let conversation = Conversation { messages: &messages, options: &options };
        let mut known = |text: &str| served.engine.known_replies(&one, text);
        let chat = chat_prompt(&template, &tokenizer, conversation, &mut known).unwrap();
        let plain = chat_prompt(&template, &tokenizer, conversation, &mut |_| Vec::new()).unwrap();
        let request = Request {
            namespace: one.clone(),
            prompt: chat.clone(),
            max_tokens: Some(40),
            is_end_ignored: false,
            grammar: None,
            sampling: Sampling { temperature: 1.0, seed, ..Sampling::GREEDY },
            ..request_of("a", &[])
        };
        served.model.forget();
        let answer = served.ask(request);
        assert_eq!(answer.cached_tokens(), known_tokens, "turn {number}");
        let new = answer.admitted().prompt_tokens - known_tokens;
        assert_eq!(served.model.computed_tokens(), new + answer.reply().len() - 1);
        strange += usize::from(chat.resolve_anew() != plain.resolve_anew());
        // Without the last token of the reply, which has no KV.
        known_tokens = answer.admitted().prompt_tokens + answer.reply().len() - 1;
        assert!(!answer.texts[0].ends_with('\u{fffd}'), "choose another seed than {number}");
        messages.push(Message::new("assistant", answer.texts[0].clone()));
    }
    assert_eq!(strange, 4, "every reply is other ids than its text encodes to");
    // Another namespace has none of it.
    let last = messages.last().unwrap().content.as_deref().unwrap();
    assert_eq!(served.engine.known_replies(&one, last).len(), 1);
    assert!(served.engine.known_replies(&Namespace::new("two"), last).is_empty());
}

/// A prompt for which several lists of ids are known takes the one that is kept.
#[test]
fn of_two_lists_of_ids_the_one_with_kv_is_taken() {
    use semantic::text::{Piece, Said};
    let served = serve(Setup::default());
    let (start, reply, other) = (prompt(1, 50), prompt(2, 20), prompt(3, 21));
    let kept = [start.as_slice(), &reply, &prompt(4, 10)].concat();
    check(&served, request(&kept), &kept, 0);
    let pieces = vec![
        Piece::Tokens(start.clone()),
        Piece::Reply(Said { lists: vec![other.into(), reply.clone().into()], ..Said::default() }),
        Piece::Tokens(prompt(5, 9)),
    ];
    let tokens = [start, reply, prompt(5, 9)].concat();
    let request = Request { prompt: Prompt::new(pieces), ..request(&tokens) };
    check(&served, request, &tokens, 70);
}
