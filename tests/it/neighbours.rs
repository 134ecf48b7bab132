//! Who shares a server with somebody noisy: one key's flood of long prompts costs an agent of
//! another key neither its turn nor its memory.

use std::time::Duration;

use semantic::engine::{Config, Request, Source};
use semantic::types::{BLOCK_TOKENS, Namespace, TokenId};

use crate::support::engine::{SeenRow, Served, Setup, prompt, read, request, request_of, serve};
use crate::support::store::ShakyDisk;

/// Of the pool.
const BLOCKS: usize = 16;
/// Of a prompt of the flood: three of them are the whole pool.
const FLOOD_TOKENS: usize = 5 * BLOCK_TOKENS;

fn of(namespace: &str, request: Request) -> Request {
    Request { namespace: Namespace::new(namespace), ..request }
}

fn serve_with(running_max: usize) -> Served {
    let step = Duration::from_secs(3_600);
    let config = Config { running_max, step, ..Config::default() };
    let disk = Some(ShakyDisk::default());
    serve(Setup { config, disk, pool_blocks: BLOCKS, ..Setup::default() })
}

/// What the quiet agent has said and heard so far; how much of it was there, and where.
fn talk(served: &Served, history: &[TokenId]) -> (Vec<TokenId>, (usize, Source)) {
    let tokens = [history, &prompt(7, 20)].concat();
    let answer = served.ask(of("quiet", request_of("b", &tokens)));
    let found = (answer.cached_tokens(), answer.admitted().source);
    ([tokens.as_slice(), answer.reply()].concat(), found)
}

#[test]
fn a_neighbour_is_served_next_however_long_the_line_of_the_noisy_one() {
    let served = serve_with(1);
    let flood = |seed| of("noisy", request(&prompt(seed, 200)));
    let mut running = served.ask_and_hold([flood(1)]);
    let mut line: Vec<_> = (2..40).map(|seed| served.engine.submit(flood(seed))).collect();
    let mut quiet = served.engine.submit(of("quiet", request_of("b", &prompt(50, 20))));
    served.model.forget();
    served.model.open();
    assert_eq!(read(&mut quiet).reply().len(), 8);
    // What had begun, at most one of the line, and the neighbour's.
    let first_tokens: Vec<TokenId> = served
        .model
        .steps()
        .iter()
        .flatten()
        .filter(|row| row.start == 0)
        .map(|row| row.tokens[0])
        .collect();
    let place = first_tokens.iter().position(|token| *token == prompt(50, 1)[0]);
    assert!(place.is_some_and(|place| place <= 1), "{place:?} of {first_tokens:?}");
    read(&mut running[0]);
    line.iter_mut().for_each(|stream| drop(read(stream)));
}

#[test]
fn a_flood_that_fills_the_pool_again_and_again_costs_a_neighbour_no_token_of_its_memory() {
    let served = serve_with(64);
    let (mut history, _) = talk(&served, &prompt(60, 600));
    for round in 0..5 {
        // Each needs what somebody else has in the pool.
        let flood = (1..8).map(|flooder| {
            let tokens = prompt(round * 8 + flooder, FLOOD_TOKENS);
            served.engine.submit(of("noisy", request(&tokens)))
        });
        let mut flood: Vec<_> = flood.collect();
        let before = history.len();
        let (longer, (cached, _)) = talk(&served, &history);
        // The last token that it said has no KV yet.
        assert_eq!(cached, before - 1, "round {round}");
        history = longer;
        for stream in &mut flood {
            assert_eq!(read(stream).reply().len(), 8);
        }
    }
}

/// Two of the flood run and hold most of the pool. The third would have to take what the neighbour
/// has, which would then wait for one of the two to end.
#[test]
fn of_a_flood_who_finds_no_room_waits_for_the_flood() {
    let served = serve_with(64);
    let (history, _) = talk(&served, &prompt(60, 2 * BLOCK_TOKENS));
    let flood = |seed| of("noisy", request(&prompt(seed, 4 * BLOCK_TOKENS)));
    served.model.forget();
    let mut running = served.ask_and_hold([flood(1), flood(2)]);
    let mut third = served.engine.submit(flood(3));
    // It is looked at before the neighbour asks.
    for step in 2..5 {
        served.model.let_through(1);
        served.model.wait_for_step(step + 1);
    }
    let tokens = [history.as_slice(), &prompt(7, 20)].concat();
    let mut quiet = served.engine.submit(of("quiet", request_of("b", &tokens)));
    served.model.forget();
    served.model.open();
    assert_eq!(read(&mut quiet).admitted().source, Source::Hot);
    running.iter_mut().for_each(|stream| assert_eq!(read(stream).reply().len(), 8));
    assert_eq!(read(&mut third).reply().len(), 8);
    let steps = served.model.steps();
    let is_in = |token: TokenId| move |row: &SeenRow| row.start == 0 && row.tokens[0] == token;
    let third_began = steps.iter().position(|rows| rows.iter().any(is_in(prompt(3, 1)[0])));
    let quiet_began =
        steps.iter().position(|rows| rows.iter().any(|row| row.start == history.len() - 1));
    assert!(quiet_began < third_began, "{quiet_began:?} {third_began:?}");
}

#[test]
fn a_neighbours_turn_is_read_in_the_next_step_and_nobodys_long_prompt_beside_it() {
    let served = serve_with(64);
    let (history, _) = talk(&served, &prompt(60, 300));
    served.model.forget();
    let flood = |seed| of("noisy", request(&prompt(seed, FLOOD_TOKENS)));
    let mut running = served.ask_and_hold([flood(1), flood(2)]);
    let tokens = [history.as_slice(), &prompt(7, 20)].concat();
    let mut quiet = served.engine.submit(of("quiet", request_of("b", &tokens)));
    served.model.forget();
    served.model.open();
    assert_eq!(read(&mut quiet).reply().len(), 8);
    running.iter_mut().for_each(|stream| assert_eq!(read(stream).reply().len(), 8));
    let steps = served.model.steps();
    let is_turn = |row: &SeenRow| row.start == history.len() - 1;
    let began = steps.iter().position(|rows| rows.iter().any(is_turn));
    // The one that waited at the gate was decided before.
    assert!(began.is_some_and(|began| began <= 1), "{began:?}");
    let beside = steps[began.unwrap()].iter().filter(|row| !is_turn(row));
    assert_eq!(beside.filter(|row| row.tokens.len() > 1).count(), 0);
}

/// Each round of the flood is more than the pool, and the neighbour's is what was used least recently;
/// but it is less than half of the pool, and the flood has the rest.
#[test]
fn who_has_more_than_its_share_makes_room_for_itself() {
    let served = serve_with(64);
    let (mut history, _) = talk(&served, &prompt(60, 600));
    for round in 0..5 {
        for flooder in 1..5 {
            let tokens = prompt(round * 8 + flooder, FLOOD_TOKENS);
            assert_eq!(served.ask(of("noisy", request(&tokens))).reply().len(), 8);
        }
        let tokens = [history.as_slice(), &prompt(7, 20)].concat();
        let answer = served.ask(of("quiet", request_of("b", &tokens)));
        assert_eq!(answer.admitted().source, Source::Hot, "round {round}");
        history = [tokens.as_slice(), answer.reply()].concat();
    }
}
