//! What requests get: admission, tokens as they come, cancellation, patience with slow readers.

use std::time::Duration;

use semantic::engine::{Config, Error, Event, Finish, Request};
use semantic::model::sample::{Bias, Sampling};
use semantic::types::{BLOCK_TOKENS, Namespace, TokenId};

use crate::support::engine::{
    Answer, CONTEXT_TOKENS, Setup, VOCABULARY, alone, prompt, read, request, request_of, serve,
};
use crate::support::text::byte_level_tokenizer;

#[track_caller]
fn refused(request: Request, expected: &str) {
    let served = serve(Setup { pool_blocks: 4, ..Setup::default() });
    let answer = served.ask(request);
    assert_eq!(answer.error().to_string(), expected);
    assert!(answer.admitted.is_none());
    assert_eq!(served.model.steps(), [[]; 0]);
}

#[test]
fn reject_empty_prompt() {
    refused(request(&[]), "the prompt is empty");
}

#[test]
fn reject_zero_max_tokens() {
    let request = Request { max_tokens: Some(0), ..request(&prompt(1, 9)) };
    refused(request, "max_tokens is 0; it is at least 1");
}

#[test]
fn what_cannot_be_served_is_refused_at_once() {
    let tokens = prompt(1, 9);
    let base = || request(&tokens);
    refused(Request { choices: 0, ..base() }, "0 choices; at least 1 and at most 16");
    refused(Request { choices: 17, ..base() }, "17 choices; at least 1 and at most 16");
    refused(Request { logprobs: Some(21), ..base() }, "21 alternatives per token; at most 20");
    let sampling = Sampling { temperature: f32::NAN, ..Sampling::GREEDY };
    refused(Request { sampling, ..base() }, "temperature is NaN; it goes from 0 to 100");
    let biased = |ids: std::ops::Range<usize>| {
        let bias = |id| Bias { token: TokenId(id as u32), bias: -100.0 };
        let sampling = Sampling { biases: Some(ids.map(bias).collect()), ..Sampling::GREEDY };
        Request { sampling, ..base() }
    };
    refused(
        biased(VOCABULARY..VOCABULARY + 1),
        "logit_bias has token 64; the model's vocabulary is 64",
    );
    refused(biased(0..VOCABULARY), "logit_bias bans all 64 tokens of the vocabulary");
    refused(
        request(&prompt(1, CONTEXT_TOKENS)),
        "the prompt has 2048 tokens; the model's context is 2048",
    );
    refused(
        request(&[TokenId(VOCABULARY as u32)]),
        "the prompt has token 64; the model's vocabulary is 64",
    );
}

#[test]
fn pool_exhausted_rejects() {
    let base = || request(&prompt(1, 1_000));
    refused(
        Request { max_tokens: Some(25), ..base() },
        "the request does not fit the KV pool: 5 blocks requested, 4 of 4 available",
    );
    refused(
        Request { max_tokens: Some(20), choices: 2, ..base() },
        "the request does not fit the KV pool: 6 blocks requested, 4 of 4 available",
    );
}

#[test]
fn a_reply_without_a_limit_is_as_long_as_pool_and_context_allow() {
    for (pool_blocks, tokens) in [(3, 100), (3, 511), (3, 767), (64, 100), (64, 2_047)] {
        let served = serve(Setup { pool_blocks, ..Setup::default() });
        let tokens = prompt(1, tokens);
        let request = Request { max_tokens: None, logprobs: None, ..request(&tokens) };
        let answer = served.ask(request);
        let choice = &answer.outcome().choices[0];
        assert_eq!(choice.finish, Finish::Length);
        let total = tokens.len() + choice.completion_tokens;
        let most = CONTEXT_TOKENS.min(pool_blocks * BLOCK_TOKENS);
        assert!(total <= most);
        assert!(total + BLOCK_TOKENS > most, "{total} of {most} tokens");
        assert_eq!(served.engine.stats().parkings, 0);
    }
}

#[test]
fn tokens_arrive_via_queue() {
    let served = serve(Setup::default());
    let tokens = prompt(1, 40);
    let mut stream = served.ask_and_hold([request(&tokens)]).remove(0);
    // The step before has been delivered, as this one waits.
    let Some(Ok(Event::Admitted(admitted))) = stream.blocking_next() else { panic!() };
    assert_eq!((admitted.prompt_tokens, admitted.cached_tokens), (40, 0));
    let expected = alone(&tokens, &Sampling::GREEDY, 8);
    let mut seen = Vec::new();
    while seen.len() < 8 {
        match stream.blocking_next() {
            Some(Ok(Event::Text(delta))) => seen.extend(delta.logprobs.iter().map(|l| l.token)),
            Some(Ok(Event::Prefilled { .. })) => assert!(seen.is_empty()),
            other => panic!("{other:?}"),
        }
        assert_eq!(seen, expected[..seen.len()]);
        served.model.let_through(1);
    }
    let Some(Ok(Event::Finished(outcome))) = stream.blocking_next() else { panic!() };
    assert_eq!(outcome.choices[0].completion_tokens, 8);
    assert!(stream.blocking_next().is_none());
}

#[test]
fn step_with_multiple_submissions() {
    let served = serve(Setup::default());
    let prompts: Vec<_> = (1..=5).map(|seed| prompt(seed, 30 * seed as usize)).collect();
    let long = |tokens: &Vec<_>| Request { max_tokens: Some(80), ..request(tokens) };
    let mut streams = served.ask_and_hold(prompts.iter().map(long));
    served.model.step_until(|rows| rows.len() == 5);
    served.model.open();
    for (stream, tokens) in streams.iter_mut().zip(&prompts) {
        assert_eq!(read(stream).reply(), alone(tokens, &Sampling::GREEDY, 80));
    }
}

#[test]
fn two_concurrent_requests() {
    let served = serve(Setup::default());
    let prompts = [prompt(1, 90), prompt(2, 91)];
    let mut streams = served.ask_and_hold(prompts.iter().map(|tokens| request(tokens)));
    served.model.open();
    for (stream, tokens) in streams.iter_mut().zip(&prompts) {
        assert_eq!(read(stream).reply(), alone(tokens, &Sampling::GREEDY, 8));
    }
}

#[test]
fn both_long_prompts() {
    let served = serve(Setup::default());
    let prompts = [prompt(1, 1_500), prompt(2, 1_400)];
    let mut streams = served.ask_and_hold(prompts.iter().map(|tokens| request(tokens)));
    served.model.open();
    for (stream, tokens) in streams.iter_mut().zip(&prompts) {
        assert_eq!(read(stream).reply(), alone(tokens, &Sampling::GREEDY, 8));
    }
    assert_eq!(served.model.computed_tokens(), 1_500 + 1_400 + 2 * 7);
}

#[test]
fn decode_steps_happen_during_prefill() {
    let served = serve(Setup::default());
    let (short, long) = (prompt(1, 20), prompt(2, 1_900));
    let short_request = Request { max_tokens: Some(400), ..request(&short) };
    let mut streams = served.ask_and_hold([short_request]);
    served.model.step_until(|rows| rows.iter().any(|row| row.start > 25));
    streams.push(served.engine.submit(request(&long)));
    served.model.open();
    let answers: Vec<Answer> = streams.iter_mut().map(read).collect();
    assert_eq!(answers[0].reply(), alone(&short, &Sampling::GREEDY, 400));
    assert_eq!(answers[1].reply(), alone(&long, &Sampling::GREEDY, 8));
    let steps = served.model.steps();
    let is_prefill = |start: usize, tokens: usize| start < long.len() && tokens > 1;
    let both = steps.iter().filter(|rows| {
        rows.iter().any(|row| is_prefill(row.start, row.tokens.len())) && rows.len() > 1
    });
    assert!(both.count() > 3);
}

#[test]
fn short_and_long_concurrent() {
    let served = serve(Setup::default());
    let (long, short) = (prompt(1, 1_900), prompt(2, 20));
    let mut streams = served.ask_and_hold([request(&long), request(&short)]);
    // The short one generates while the long one is being read.
    served.model.step_until(|rows| rows.iter().any(|row| row.start > 20 && row.tokens.len() == 1));
    let last = served.model.steps().pop().unwrap();
    assert!(last.iter().any(|row| row.tokens.len() > 1 && row.start < 1_900));
    served.model.open();
    for (stream, tokens) in streams.iter_mut().zip([&long, &short]) {
        assert_eq!(read(stream).reply(), alone(tokens, &Sampling::GREEDY, 8));
    }
}

#[test]
fn sequences_that_outgrow_the_pool_are_parked_and_come_back_the_same() {
    let served = serve(Setup { pool_blocks: 9, ..Setup::default() });
    let prompts: Vec<_> = (1..=3).map(|seed| prompt(seed, 100 * seed as usize)).collect();
    let requests = prompts.iter().map(|tokens| Request {
        max_tokens: Some(1_200),
        logprobs: Some(0),
        ..request(tokens)
    });
    let mut streams = served.ask_and_hold(requests);
    served.model.open();
    for (stream, tokens) in streams.iter_mut().zip(&prompts) {
        assert_eq!(read(stream).reply(), alone(tokens, &Sampling::GREEDY, 1_200));
    }
    assert!(served.engine.stats().parkings > 0);
}

#[test]
fn a_dropped_stream_frees_its_blocks_within_a_step() {
    let served = serve(Setup { pool_blocks: 5, ..Setup::default() });
    let large = |seed| Request { max_tokens: Some(200), ..request(&prompt(seed, 1_000)) };
    let stream = served.ask_and_hold([large(1)]).remove(0);
    let mut next = served.engine.submit(large(2));
    drop(stream);
    served.model.let_through(1);
    served.model.wait_for_step(3);
    let last = served.model.steps().pop().unwrap();
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].tokens[0], prompt(2, 1)[0]);
    served.model.open();
    assert_eq!(read(&mut next).reply().len(), 200);
}

#[test]
fn a_cancelled_stream_still_gets_the_text_held_back_and_the_outcome() {
    let tokenizer = byte_level_tokenizer();
    let tokens = prompt(1, 3);
    let expected = alone(&tokens, &Sampling::GREEDY, 30);
    let whole = tokenizer.decode(&expected[..20]);
    // What comes of twenty tokens begins this stop sequence, so all of it is held back.
    let stops = vec![format!("{whole}and this never comes")];
    let served = serve(Setup::default());
    let request = Request { stops, max_tokens: Some(1_000), ..request(&tokens) };
    let mut stream = served.ask_and_hold([request]).remove(0);
    served.model.step_until(|rows| rows.iter().any(|row| row.start == 11));
    stream.cancel();
    served.model.open();
    let answer = read(&mut stream);
    let choice = &answer.outcome().choices[0];
    assert_eq!(choice.finish, Finish::Cancelled);
    // The token of the step that waited is the last.
    assert_eq!(choice.completion_tokens, 13 - tokens.len());
    assert_eq!(choice.text, tokenizer.decode(&expected[..choice.completion_tokens]));
    assert!(!choice.text.is_empty());
}

#[test]
fn a_request_cancelled_while_it_waits_ends_without_a_token() {
    let config = Config { running_max: 1, step: Duration::from_secs(3_600), ..Config::default() };
    let served = serve(Setup { config, ..Setup::default() });
    let mut streams = served.ask_and_hold([request(&prompt(1, 30)), request(&prompt(2, 30))]);
    streams[1].cancel();
    served.model.open();
    let answers: Vec<Answer> = streams.iter_mut().map(read).collect();
    assert_eq!(answers[0].reply().len(), 8);
    let choice = &answers[1].outcome().choices[0];
    assert_eq!((&choice.finish, choice.completion_tokens), (&Finish::Cancelled, 0));
    assert!(answers[1].admitted.is_none());
}

#[test]
fn a_reader_that_never_reads_does_not_hold_up_the_others() {
    let served = serve(Setup::default());
    let long = |seed| Request { max_tokens: Some(1_500), ..request(&prompt(seed, 30)) };
    let mut streams = served.ask_and_hold([long(1), long(2)]);
    served.model.open();
    let answer = read(&mut streams[1]);
    assert_eq!(answer.reply(), alone(&prompt(2, 30), &Sampling::GREEDY, 1_500));
    // Nothing was lost, and what had to wait comes joined rather than token by token.
    let mut items = Vec::new();
    while let Some(item) = streams[0].blocking_next() {
        items.push(item.unwrap());
    }
    let tokens: usize = items
        .iter()
        .map(|event| if let Event::Text(delta) = event { delta.tokens } else { 0 })
        .sum();
    assert_eq!(tokens, 1_500);
    assert!(items.len() < 200, "{} items were kept for it", items.len());
    let Some(Event::Finished(outcome)) = items.last() else { panic!() };
    assert_eq!(outcome.choices[0].completion_tokens, 1_500);
}

#[test]
fn who_waits_too_long_is_told_so() {
    let config = Config {
        running_max: 1,
        // Whoever is not let in at once has waited too long.
        queue_time: Duration::ZERO,
        step: Duration::from_secs(3_600),
        ..Config::default()
    };
    let served = serve(Setup { config, ..Setup::default() });
    let mut stream = served.engine.submit(request(&prompt(1, 30)));
    let answer = read(&mut stream);
    assert!(matches!(answer.error(), Error::WaitedTooLong(_)), "{answer:?}");
    assert!(answer.admitted.is_none());
    assert_eq!(served.engine.stats().waiting, 0);
}

#[test]
fn a_namespace_that_floods_the_queue_leaves_room_for_others() {
    let config = Config {
        running_max: 1,
        queue_max: 8,
        step: Duration::from_secs(3_600),
        ..Config::default()
    };
    let served = serve(Setup { config, ..Setup::default() });
    let of = |name: &str, seed| Request {
        namespace: Namespace::new(name),
        ..request(&prompt(seed, 20))
    };
    let mut running = served.ask_and_hold([of("flood", 1)]);
    let mut flood: Vec<_> = (2..8).map(|seed| served.engine.submit(of("flood", seed))).collect();
    let mut other: Vec<_> = (8..11).map(|seed| served.engine.submit(of("other", seed))).collect();
    served.model.open();
    assert_eq!(read(&mut running[0]).reply().len(), 8);
    let ends = |streams: &mut Vec<_>| -> Vec<String> {
        let answers = streams.iter_mut().map(read);
        answers
            .map(|answer| match answer.end.unwrap() {
                Ok(_) => "served".to_owned(),
                Err(error) => error.to_string(),
            })
            .collect()
    };
    let (served, full) = (
        || "served".to_owned(),
        |waiting| format!("{waiting} requests are waiting; no more are taken"),
    );
    let flood = ends(&mut flood);
    assert_eq!(flood, [served(), served(), served(), served(), full(4), full(4)]);
    assert_eq!(ends(&mut other), [served(), served(), full(6)]);
}

#[test]
fn the_head_of_the_line_is_not_passed() {
    let served = serve(Setup { pool_blocks: 8, ..Setup::default() });
    let first = Request { max_tokens: Some(400), ..request(&prompt(1, 300)) };
    // Nothing but this one fits beside the first, and it does not.
    let large = Request { max_tokens: Some(200), ..request(&prompt(2, 1_700)) };
    let small = request(&prompt(3, 10));
    let mut streams = served.ask_and_hold([first, large, small]);
    served.model.open();
    let answers: Vec<Answer> = streams.iter_mut().map(read).collect();
    assert!(answers.iter().all(|answer| answer.end.as_ref().unwrap().is_ok()));
    let begun = |seed: u32| {
        let first = TokenId(3 + seed);
        let steps = served.model.steps();
        let begins =
            |row: &crate::support::engine::SeenRow| row.start == 0 && row.tokens[0] == first;
        steps.iter().position(|rows| rows.iter().any(begins)).unwrap()
    };
    assert!(begun(1) < begun(2));
    assert!(begun(2) <= begun(3));
}

#[test]
fn an_agent_has_the_name_it_was_given_or_one_of_its_own() {
    let config = Config { instance: 0xabc, ..Config::default() };
    let served = serve(Setup { config, ..Setup::default() });
    let named = served.ask(request_of("planner", &prompt(1, 9)));
    assert_eq!(named.outcome().admitted.agent.as_str(), "planner");
    let nameless = served.ask(request(&prompt(2, 9)));
    assert_eq!(nameless.admitted().agent.as_str(), "auto-abc-2");
}
