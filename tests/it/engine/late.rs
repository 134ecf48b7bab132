//! What comes from the disk when nobody waits for it any more: the blocks that it was for are
//! somebody else's by then.

use semantic::engine::{Request, Source};
use semantic::model::sample::Sampling;

use crate::support::engine::{Setup, alone, prompt, read, request, request_of, serve};
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
