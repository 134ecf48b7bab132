//! Shares what a step has time for among the prompts that are being read. Pure.
//!
//! While several namespaces are there, steps are short ([`NEIGHBOURS_STEP`]) and [`turn`] says who
//! takes part in one: whoever comes to a prompt that is being read waits for the rest of a short
//! step and then has its own.

use std::time::Duration;

use super::Order;

/// Of a step's time for prompts, what the oldest gets at least: a stream of short requests cannot
/// hold it up for ever.
const OLDEST_SHARE: f64 = 0.25;

/// How long a step that reads a prompt should last while another namespace may come: less than what
/// a small model takes for the question of a next turn, and a few times what its weights take to
/// read, so that little is lost.
pub const NEIGHBOURS_STEP: Duration = Duration::from_millis(12);

/// So many steps in a row are without the oldest prompt, and the next is its own: it has a quarter
/// of them.
const PASSES_MAX: usize = 3;

/// A sequence with more than one token to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefilling {
    pub order: Order,
    /// Tokens that have KV.
    pub context: usize,
    /// Tokens that have none.
    pub left: usize,
}

/// How many tokens each of them brings to the step, in the order given here and none twice.
/// `capacity` is the number of tokens at a context that would fill the step alone.
///
/// The shortest goes first, so that a short request passes a long one; the oldest has a quarter
/// of the time for itself. Something is always done.
pub fn share(prefilling: &[Prefilling], capacity: &dyn Fn(usize) -> usize) -> Vec<(Order, usize)> {
    let Some(oldest) = prefilling.iter().map(|one| one.order).min() else { return Vec::new() };
    let mut by_length = prefilling.to_vec();
    by_length.sort_by_key(|one| (one.left, one.order));
    let mut free = 1.0;
    let mut is_oldest_served = false;
    let mut shares = Vec::new();
    for one in by_length {
        is_oldest_served |= one.order == oldest;
        let kept = if is_oldest_served { 0.0 } else { OLDEST_SHARE };
        let whole = capacity(one.context).max(1) as f64;
        // The tolerance keeps a rounding error from taking a token away.
        let tokens = one.left.min(((free - kept) * whole + 1e-6).max(0.0) as usize);
        if tokens > 0 {
            free -= tokens as f64 / whole;
            shares.push((one.order, tokens));
        }
    }
    if shares.is_empty() {
        shares.push((oldest, 1));
    }
    shares
}

/// Which of them share the next step while steps are short: those whose rest is short enough for a
/// step of full length, without the long ones. `whole` is the number of tokens at a context that
/// would fill such a step; the oldest has been `passed` so many times in a row.
pub fn turn(
    prefilling: Vec<Prefilling>,
    passed: usize,
    whole: &dyn Fn(usize) -> usize,
) -> Vec<Prefilling> {
    if passed >= PASSES_MAX {
        return prefilling.into_iter().min_by_key(|one| one.order).into_iter().collect();
    }
    let is_short = |one: &Prefilling| one.left <= whole(one.context);
    match prefilling.iter().any(is_short) {
        true => prefilling.into_iter().filter(is_short).collect(),
        false => prefilling,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::RequestId;
    use super::*;

    fn one(request: u64, context: usize, left: usize) -> Prefilling {
        Prefilling {
            order: Order { admission: request, request: RequestId(request), choice: 0 },
            context,
            left,
        }
    }

    #[track_caller]
    fn check(prefilling: &[Prefilling], capacity: usize, expected: &[(u64, usize)]) {
        let found = share(prefilling, &|_| capacity);
        let found: Vec<_> =
            found.iter().map(|(order, tokens)| (order.request.0, *tokens)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn alone_a_prompt_has_all_of_the_step() {
        check(&[one(1, 0, 4_000)], 100, &[(1, 100)]);
        check(&[one(1, 0, 40)], 100, &[(1, 40)]);
        check(&[], 100, &[]);
    }

    #[test]
    fn short_and_long_concurrent() {
        check(&[one(1, 0, 4_000), one(2, 0, 200)], 100, &[(2, 75), (1, 25)]);
        check(&[one(1, 0, 4_000), one(2, 0, 30)], 100, &[(2, 30), (1, 70)]);
    }

    #[test]
    fn a_short_one_that_is_the_oldest_has_no_need_of_a_share() {
        check(&[one(1, 0, 50), one(2, 0, 4_000)], 100, &[(1, 50), (2, 50)]);
    }

    #[test]
    fn both_long_prompts() {
        check(&[one(1, 0, 4_000), one(2, 0, 4_000)], 100, &[(1, 100)]);
        check(&[one(1, 0, 4_000), one(2, 0, 3_999)], 100, &[(2, 75), (1, 25)]);
    }

    #[test]
    fn something_is_always_done() {
        check(&[one(1, 0, 4_000), one(2, 0, 3_000)], 1, &[(1, 1)]);
        check(&[one(1, 0, 4_000)], 0, &[(1, 1)]);
    }

    #[track_caller]
    fn check_turn(prefilling: &[Prefilling], passed: usize, expected: &[u64]) {
        let found = turn(prefilling.to_vec(), passed, &|_| 100);
        let found: Vec<_> = found.iter().map(|one| one.order.request.0).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_short_ones_go_without_the_long_ones() {
        check_turn(&[one(1, 0, 4_000), one(2, 0, 100)], 0, &[2]);
        check_turn(&[one(1, 0, 100), one(2, 0, 4_000)], 0, &[1]);
        check_turn(&[one(1, 0, 4_000), one(2, 0, 30), one(3, 0, 101), one(4, 0, 9)], 2, &[2, 4]);
        check_turn(&[one(1, 0, 4_000), one(2, 0, 101)], 0, &[1, 2]);
        check_turn(&[], 0, &[]);
    }

    #[test]
    fn the_oldest_has_every_fourth_step_for_itself() {
        check_turn(&[one(1, 0, 4_000), one(2, 0, 30)], 3, &[1]);
        check_turn(&[one(2, 0, 30), one(1, 0, 4_000), one(3, 0, 5_000)], 3, &[1]);
    }

    proptest! {
        #[test]
        fn the_step_is_never_overfull_and_the_oldest_proceeds(
            sizes in prop::collection::vec((0usize..9_000, 2usize..9_000), 1..20),
            base in 1usize..600,
        ) {
            let prefilling: Vec<_> =
                sizes.iter().zip(1..).map(|((context, left), id)| one(id, *context, *left)).collect();
            let capacity = |context: usize| (base * 4_000 / (4_000 + context)).max(1);
            let shares = share(&prefilling, &capacity);
            let mut time = 0.0;
            for (order, tokens) in &shares {
                let of = prefilling.iter().find(|one| one.order == *order).unwrap();
                prop_assert!(*tokens >= 1);
                prop_assert!(*tokens <= of.left);
                time += *tokens as f64 / capacity(of.context) as f64;
            }
            prop_assert!(time <= 1.0 + 1e-3, "{}", time);
            let first = capacity(prefilling[0].context);
            let oldest = shares.iter().find(|(order, _)| order.request.0 == 1);
            let least = prefilling[0].left.min(first / 4);
            prop_assert!(oldest.map_or(0, |(_, tokens)| *tokens) >= least);
        }
    }
}
