//! What requests are charged, however they end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use semantic::engine::{Config, Error, Purse, Request, Short, Stream, Terms};

use crate::support::engine::{Fault, Served, Setup, block_on, prompt, read, request, serve};

/// Counts what is taken, of what there is.
#[derive(Debug)]
struct Coins {
    taken: Mutex<usize>,
    most: usize,
}

impl Coins {
    fn new(most: usize) -> Arc<Coins> {
        Arc::new(Coins { taken: Mutex::default(), most })
    }

    fn taken(&self) -> usize {
        *self.taken.lock().unwrap()
    }
}

impl Purse for Coins {
    fn set_aside(&self, tokens: usize, _: Instant) -> Result<(), Short> {
        let mut taken = self.taken.lock().unwrap();
        match *taken + tokens <= self.most {
            true => *taken += tokens,
            false if tokens <= self.most => return Err(Short::For(Duration::from_secs(7))),
            false => return Err(Short::Always { most: self.most }),
        }
        Ok(())
    }

    fn pay(&self, tokens: usize, _: Instant) {
        *self.taken.lock().unwrap() += tokens;
    }

    fn give_back(&self, tokens: usize) {
        *self.taken.lock().unwrap() -= tokens;
    }
}

fn submit(served: &Served, coins: &Arc<Coins>, request: Request) -> Stream {
    let purse = Arc::clone(coins) as Arc<dyn Purse>;
    served.engine.submit_on(Terms { after: None, purse: Some(purse) }, request)
}

fn wait_for_all(served: &Served) {
    block_on(served.engine.drain(Duration::from_secs(60))).expect("they end");
}

#[test]
fn a_turn_costs_what_is_computed_of_its_prompt_and_what_is_generated() {
    let served = serve(Setup::default());
    let coins = Coins::new(usize::MAX);
    let first = prompt(1, 300);
    let next = [first.as_slice(), &prompt(2, 50)].concat();
    let mut before = 0;
    for (tokens, choices, is_known) in [(&first, 1, false), (&first, 1, true), (&next, 3, true)] {
        let request = Request { choices, ..request(tokens) };
        let answer = read(&mut submit(&served, &coins, request));
        let generated: usize = answer.tokens.iter().map(Vec::len).sum();
        assert_eq!(answer.cached_tokens() > 0, is_known);
        let computed = tokens.len() - answer.cached_tokens();
        assert_eq!(coins.taken() - before, computed + generated);
        before = coins.taken();
    }
    // Who does not pay is not charged.
    read(&mut served.engine.submit(request(&prompt(3, 9))));
    assert_eq!(coins.taken(), before);
}

#[test]
fn a_turn_whose_client_leaves_costs_what_it_came_to() {
    let served = serve(Setup::default());
    let coins = Coins::new(usize::MAX);
    served.model.close();
    let long = Request { max_tokens: Some(1_000), ..request(&prompt(1, 40)) };
    let stream = submit(&served, &coins, long);
    served.model.wait_for_step(1);
    // The prompt, and the first token of the reply.
    assert_eq!(coins.taken(), 41);
    served.model.let_through(3);
    served.model.wait_for_step(4);
    assert_eq!(coins.taken(), 43);
    drop(stream);
    served.model.open();
    wait_for_all(&served);
    // Each step gave a token.
    assert_eq!(coins.taken(), 40 + served.model.steps().len());
}

#[test]
fn a_turn_that_fails_costs_what_it_came_to() {
    for fault in [Fault::Error, Fault::Panic, Fault::NotANumber] {
        let served = serve(Setup::default());
        let coins = Coins::new(usize::MAX);
        let tokens = prompt(1, 700);
        served.model.fail_at(600, tokens[600], fault);
        let answer = read(&mut submit(&served, &coins, request(&tokens)));
        assert!(answer.end.is_some_and(|end| end.is_err()), "{fault:?}");
        // What the model computed before the step that failed, none of which is the reply.
        let computed = answer.prefilled.last().copied().unwrap_or(0);
        assert_eq!(coins.taken(), computed, "{fault:?}");
    }
}

#[test]
fn what_never_begins_costs_nothing() {
    let config = Config { running_max: 1, step: Duration::from_secs(3_600), ..Config::default() };
    let served = serve(Setup { config, ..Setup::default() });
    let coins = Coins::new(100);
    let refused = |count: usize| {
        let answer = read(&mut submit(&served, &coins, request(&prompt(1, count))));
        answer.error().clone()
    };
    let larger = Error::LargerThanPurse { tokens: 101, most: 100 };
    assert_eq!(refused(100), larger);
    assert!(larger.to_string().contains("takes 101 tokens at least"), "{larger}");
    // One that runs, and one that waits for it and is left.
    served.model.close();
    let mut runs = served.engine.submit(request(&prompt(2, 9)));
    served.model.wait_for_step(1);
    let waits = submit(&served, &coins, request(&prompt(3, 60)));
    served.model.let_through(2);
    served.model.wait_for_step(3);
    assert_eq!(coins.taken(), 61);
    drop(waits);
    let too_much = submit(&served, &coins, request(&prompt(4, 40)));
    served.model.open();
    read(&mut runs);
    drop(too_much);
    wait_for_all(&served);
    assert_eq!(coins.taken(), 0);
}

/// Also a bad one: what is wrong with it is said first.
#[test]
fn a_request_that_cannot_be_paid_for_is_told_when_it_can() {
    let served = serve(Setup::default());
    let coins = Coins::new(100);
    let mut spent =
        submit(&served, &coins, Request { max_tokens: Some(5), ..request(&prompt(1, 60)) });
    read(&mut spent);
    assert_eq!(coins.taken(), 65);
    let refused = |request: Request| read(&mut submit(&served, &coins, request)).error().clone();
    let wait = Duration::from_secs(7);
    assert_eq!(refused(request(&prompt(2, 35))), Error::TokensSpent { wait });
    assert_eq!(
        refused(Request { choices: 0, ..request(&prompt(2, 35)) }),
        Error::Choices { choices: 0, most: 16 }
    );
    // What it remembers it can go on from.
    let known = Request { max_tokens: Some(5), ..request(&prompt(1, 60)) };
    let answer = read(&mut submit(&served, &coins, known));
    assert_eq!((answer.cached_tokens(), coins.taken()), (59, 65 + 1 + 5));
}
