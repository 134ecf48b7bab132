//! How long steps take, learned from those that were, and how much prefill fits into one. Pure.
//!
//! A step reads the weights once; each decoding sequence and each prefill token adds its share of
//! the linear layers, and of attention what it reads of the KV before it:
//!
//! ```text
//! t = step + row * decode rows + kv * decode context
//!          + token * prefill tokens + read * prefill reads
//! ```
//!
//! The five costs are learned by a Kalman filter on their logarithms, which keeps them positive
//! whatever is observed. An observation counts for the more the less is known of the parts that
//! made it, so the first ones count fully. Before anything is known of a part it is thought to be
//! as much dearer than the guess as the others are. What is further from the prediction than noise
//! explains is cut to that: a machine has other work too, and for once a step may take five times
//! as long.

use std::time::Duration;
use std::{array, iter};

/// What one step has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    decode_rows: usize,
    /// Tokens with KV of all decoding sequences together.
    decode_context: usize,
    prefill_tokens: usize,
    /// Of all prefill tokens together the tokens before each in its sequence.
    prefill_reads: usize,
}

/// What steps cost on this machine, and how long one may take.
pub struct Pace {
    step_s: f64,
    chunk_max: usize,
    /// Natural logarithms of seconds per unit of [`Shape::work`].
    log_cost: Parts,
    /// How uncertain these are, each and together.
    covariance: [Parts; PARTS],
}

/// One value for each part: the step, a decode row, a token of its context, a prefill token and one
/// that it reads.
type Parts = [f64; PARTS];
const PARTS: usize = 5;
const STEP: usize = 0;
const TOKEN: usize = 3;
const READ: usize = 4;

/// The step that ends a prompt may be so many times as long as others if it delays nobody who is there:
/// the next turn of a conversation is read in one step, for weights that are read once.
const LAST_STEP: f64 = 2.5;

/// Seconds before anything is known: a model of 100 M parameters on two cores.
const COST_GUESS: Parts = [5e-3, 1e-3, 1e-6, 1e-3, 2e-7];
/// All parts together may cost 20 times as much or as little: the logarithm of that is 3, its
/// square the variance.
const VARIANCE_SCALE: f64 = 9.0;
/// Each part against the others: a factor of `e`.
const VARIANCE_PART: f64 = 1.0;
/// Steps of one shape differ by a fifth with nothing wrong.
const VARIANCE_NOISE: f64 = 0.04;
/// How much uncertainty each step brings back, as machines change: to all parts together, and to
/// one that the whole step was. With the noise above a step then counts for a sixth in the long
/// run, and a lasting change is learned in some tens of steps.
const DRIFT_SCALE: f64 = 0.0012;
const DRIFT_PART: f64 = 0.0003;
/// Standard deviations at which an observation is cut.
const DEVIATIONS_MAX: f64 = 3.0;

/// Costs beyond these come of a broken clock or a machine that slept.
const COST_MIN_S: f64 = 1e-15;
const COST_MAX_S: f64 = 3_600.0;
/// No step is predicted to be shorter.
const TIME_MIN_S: f64 = 1e-6;

impl Shape {
    /// One more decoding sequence, which has KV of `context` tokens.
    pub fn add_decode(&mut self, context: usize) {
        self.decode_rows += 1;
        self.decode_context = self.decode_context.saturating_add(context);
    }

    /// One more chunk of a prompt: `tokens` that follow `start` tokens with KV.
    pub fn add_prefill(&mut self, start: usize, tokens: usize) {
        let inside = tokens.saturating_mul(tokens.saturating_sub(1)) / 2;
        let reads = tokens.saturating_mul(start).saturating_add(inside);
        self.prefill_tokens = self.prefill_tokens.saturating_add(tokens);
        self.prefill_reads = self.prefill_reads.saturating_add(reads);
    }

    /// Units of each part.
    fn work(&self) -> Parts {
        let Shape { decode_rows, decode_context, prefill_tokens, prefill_reads } = *self;
        [1, decode_rows, decode_context, prefill_tokens, prefill_reads].map(|units| units as f64)
    }
}

impl Pace {
    /// Steps should last `step` and have at most `chunk_max` prefill tokens, at least 1.
    pub fn new(step: Duration, chunk_max: usize) -> Pace {
        assert!(chunk_max > 0);
        let covariance = |part, other| match part == other {
            true => VARIANCE_SCALE + VARIANCE_PART,
            false => VARIANCE_SCALE,
        };
        Pace {
            step_s: step.as_secs_f64(),
            chunk_max,
            log_cost: COST_GUESS.map(f64::ln),
            covariance: array::from_fn(|part| array::from_fn(|other| covariance(part, other))),
        }
    }

    /// How many prefill tokens that follow `start` tokens with KV fit into a step beside what it
    /// has already.
    ///
    /// The first chunk of a step gets at least 1, and as many as cost what reading the weights
    /// does: where that takes the whole step, as with large models, at least half of the time is
    /// to be of use. A further chunk may get 0.
    pub fn prefill_tokens(&self, step: &Shape, start: usize) -> usize {
        self.fitting(self.step_s, step, start)
    }

    /// The same of a step that should last so long, if that is shorter.
    pub fn prefill_tokens_within(&self, time: Duration, step: &Shape, start: usize) -> usize {
        self.fitting(self.step_s.min(time.as_secs_f64()), step, start)
    }

    /// The same of a step that ends a prompt beside which nothing runs.
    pub fn prefill_tokens_at_last(&self, start: usize) -> usize {
        self.fitting(self.step_s * LAST_STEP, &Shape::default(), start)
    }

    fn fitting(&self, step_s: f64, step: &Shape, start: usize) -> usize {
        let cost = self.costs();
        let token = cost[TOKEN] + cost[READ] * start as f64;
        let left = (step_s - self.seconds(step)).max(0.0);
        // Solves `token * n + read * n² / 2 = left` without a difference of almost equal numbers.
        let fitting = 2.0 * left / (token + (token * token + 2.0 * cost[READ] * left).sqrt());
        let least = match step.prefill_tokens {
            0 => (cost[STEP] / token).ceil().max(1.0),
            _ => 0.0,
        };
        let room = self.chunk_max.saturating_sub(step.prefill_tokens);
        (fitting.max(least) as usize).min(room)
    }

    /// How long a step will take, at least a microsecond.
    pub fn predict(&self, step: &Shape) -> Duration {
        let seconds = self.seconds(step).max(TIME_MIN_S);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Learns from a step that has been: one of the filter.
    pub fn observe(&mut self, step: &Shape, took: Duration) {
        let (work, cost, predicted) = (step.work(), self.costs(), self.seconds(step));
        // How the logarithm of the time changes with the logarithm of each cost.
        let share: Parts = array::from_fn(|part| work[part] * cost[part] / predicted);
        let uncertain = self.covariance.map(|row| dot(&row, &share));
        let variance = dot(&uncertain, &share).max(0.0) + VARIANCE_NOISE;
        let error_max = DEVIATIONS_MAX * variance.sqrt();
        // Nothing is taken for almost nothing: a time of 0 has a logarithm of minus infinity.
        let error = (took.as_secs_f64() / predicted).ln().clamp(-error_max, error_max);
        for part in 0..PARTS {
            let log_cost = self.log_cost[part] + uncertain[part] / variance * error;
            self.log_cost[part] = log_cost.clamp(COST_MIN_S.ln(), COST_MAX_S.ln());
            for other in 0..PARTS {
                let learned = uncertain[part] * uncertain[other] / variance;
                self.covariance[part][other] += DRIFT_SCALE - learned;
            }
            // Parts that always come together cannot be told apart and would grow uncertain
            // without end.
            if self.covariance[part][part] < VARIANCE_PART {
                self.covariance[part][part] += DRIFT_PART * share[part];
            }
        }
    }

    /// Seconds per unit of [`Shape::work`].
    fn costs(&self) -> Parts {
        self.log_cost.map(f64::exp)
    }

    /// More than 0, as no step is without its fixed cost.
    fn seconds(&self, step: &Shape) -> f64 {
        dot(&step.work(), &self.costs())
    }
}

fn dot(a: &Parts, b: &Parts) -> f64 {
    iter::zip(a, b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A model on a machine: what its parts cost in truth, in seconds.
    struct Machine {
        cost: Parts,
        noise: Noise,
    }

    /// SmolLM2-135M and an 8B model on two cores, a 1B model on more, and one on a GPU.
    const MACHINES: [Parts; 4] = [SMALL, LARGE, [20e-3, 6e-3, 2e-6, 5e-3, 4e-7], GPU];
    const SMALL: Parts = [3.4e-3, 1e-3, 1e-6, 0.8e-3, 2.2e-7];
    const LARGE: Parts = [97e-3, 40e-3, 4e-6, 40e-3, 1.3e-6];
    const GPU: Parts = [8e-3, 6e-5, 1e-8, 3e-5, 2e-9];

    impl Machine {
        fn new(cost: Parts) -> Machine {
            Machine { cost, noise: Noise(7) }
        }

        fn seconds(&self, step: &Shape) -> f64 {
            dot(&step.work(), &self.cost)
        }

        /// A step with a tenth of noise.
        fn run(&mut self, step: &Shape) -> Duration {
            Duration::from_secs_f64(self.seconds(step) * (1.0 + 0.1 * self.noise.next()))
        }

        /// Steps of an engine, where up to 8 clients decode, come and go while prompts of 10,000
        /// tokens are read. Returns what nine in ten predictions were wrong by at most.
        fn serve(&mut self, pace: &mut Pace, steps: usize) -> f64 {
            let mut start = 0;
            let mut errors = Vec::new();
            for number in 0..steps {
                let mut step = Shape::default();
                let clients = (self.noise.next() * 4.0 + 4.0) as usize;
                for client in 0..clients {
                    step.add_decode(100 + client * 700 + number);
                }
                if clients == 0 || number % 3 > 0 {
                    let tokens = pace.prefill_tokens(&step, start);
                    step.add_prefill(start, tokens);
                    start = (start + tokens) % 10_000;
                }
                errors.push(self.error(pace, &step));
                pace.observe(&step, self.run(&step));
            }
            errors.sort_by(f64::total_cmp);
            errors[steps * 9 / 10]
        }

        /// How far the prediction is from the truth, as a part of the smaller of the two.
        fn error(&self, pace: &Pace, step: &Shape) -> f64 {
            let ratio = pace.predict(step).as_secs_f64() / self.seconds(step);
            ratio.max(1.0 / ratio) - 1.0
        }
    }

    /// A sequence of numbers from -1 to 1.
    struct Noise(u64);

    impl Noise {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as f64 / (1_u64 << 30) as f64 - 1.0
        }
    }

    fn decode(rows: usize, context: usize) -> Shape {
        let mut step = Shape::default();
        for _ in 0..rows {
            step.add_decode(context);
        }
        step
    }

    fn prefill(start: usize, tokens: usize) -> Shape {
        let mut step = Shape::default();
        step.add_prefill(start, tokens);
        step
    }

    fn pace() -> Pace {
        Pace::new(Duration::from_millis(100), 512)
    }

    /// What has served this machine for a while.
    fn learned(cost: Parts) -> (Machine, Pace) {
        let (mut machine, mut pace) = (Machine::new(cost), pace());
        machine.serve(&mut pace, 200);
        (machine, pace)
    }

    #[test]
    fn a_shape_is_the_sum_of_its_rows() {
        let mut step = decode(2, 300);
        step.add_prefill(1_000, 4);
        step.add_prefill(0, 1);
        assert_eq!(step.work(), [1.0, 2.0, 600.0, 5.0, 4_006.0]);
    }

    #[test]
    fn any_machine_is_known_to_15_percent_after_60_steps() {
        for cost in MACHINES {
            let (mut machine, mut pace) = (Machine::new(cost), pace());
            machine.serve(&mut pace, 60);
            let error = machine.serve(&mut pace, 500);
            assert!(error < 0.15, "{error} of {cost:?}");
        }
    }

    #[test]
    fn the_first_step_counts_fully() {
        for cost in MACHINES {
            for step in [decode(1, 100), prefill(0, 64)] {
                let (machine, mut pace) = (Machine::new(cost), pace());
                pace.observe(&step, Duration::from_secs_f64(machine.seconds(&step)));
                let error = machine.error(&pace, &step);
                assert!(error < 0.3, "{error} of {step:?}, {cost:?}");
            }
        }
    }

    #[test]
    fn slow_first_steps_are_forgotten() {
        for cost in MACHINES {
            let mut slow = Machine::new(cost.map(|cost| cost * 5.0));
            let (mut machine, mut pace) = (Machine::new(cost), pace());
            slow.serve(&mut pace, 3);
            machine.serve(&mut pace, 60);
            let error = machine.serve(&mut pace, 100);
            assert!(error < 0.15, "{error} of {cost:?}");
        }
    }

    #[test]
    fn one_step_that_takes_five_times_as_long_changes_little() {
        for cost in MACHINES {
            for step in [decode(1, 1_000), decode(8, 2_000), prefill(0, 100), prefill(8_000, 40)] {
                let (mut machine, mut pace) = learned(cost);
                for _ in 0..10 {
                    pace.observe(&step, machine.run(&step));
                }
                let before = pace.predict(&step).as_secs_f64();
                pace.observe(&step, Duration::from_secs_f64(5.0 * machine.seconds(&step)));
                let change = pace.predict(&step).as_secs_f64() / before;
                assert!((1.0..1.2).contains(&change), "{change} of {step:?}, {cost:?}");
            }
        }
    }

    #[test]
    fn a_lasting_change_is_learned_in_50_steps() {
        for cost in MACHINES {
            for factor in [3.0, 0.3] {
                let (_, mut pace) = learned(cost);
                let mut changed = Machine::new(cost.map(|cost| cost * factor));
                changed.serve(&mut pace, 50);
                let error = changed.serve(&mut pace, 50);
                assert!(error < 0.15, "{error} of {cost:?} times {factor}");
            }
        }
    }

    #[test]
    fn what_prefill_costs_is_not_forgotten_while_there_is_none() {
        let (mut machine, mut pace) = learned(SMALL);
        for number in 0..5_000 {
            let step = decode(2, 100 + number);
            pace.observe(&step, machine.run(&step));
        }
        for step in [prefill(0, 100), prefill(4_096, 50), prefill(8_000, 30)] {
            let error = machine.error(&pace, &step);
            assert!(error < 0.15, "{error} of {step:?}");
        }
    }

    #[test]
    fn what_cannot_be_told_apart_does_not_grow_uncertain_without_end() {
        let (mut machine, mut pace) = (Machine::new(LARGE), pace());
        for _ in 0..500_000 {
            let step = decode(1, 1_000);
            pace.observe(&step, machine.run(&step));
        }
        for part in 0..PARTS {
            assert!(pace.covariance[part][part] <= VARIANCE_SCALE + VARIANCE_PART);
        }
    }

    #[test]
    fn the_last_step_of_a_prompt_that_is_alone_may_be_longer() {
        let (machine, pace) = learned(SMALL);
        for start in [0, 4_096] {
            let step = prefill(start, pace.prefill_tokens_at_last(start));
            let seconds = machine.seconds(&step);
            assert!((0.21..0.29).contains(&seconds), "{seconds} s at {start}");
        }
    }

    #[test]
    fn a_step_with_the_prefill_that_fits_lasts_a_step() {
        let (machine, pace) = learned(SMALL);
        for (rows, start) in [(0, 0), (1, 0), (8, 0), (0, 4_096), (0, 8_000), (8, 8_000)] {
            let mut step = decode(rows, 1_000);
            let tokens = pace.prefill_tokens(&step, start);
            step.add_prefill(start, tokens);
            let seconds = machine.seconds(&step);
            assert!((0.085..0.115).contains(&seconds), "{seconds} s for {step:?}");
            assert_eq!(pace.prefill_tokens(&step, start), 0, "the step is full");
        }
        let gpu = learned(GPU).1;
        assert_eq!(gpu.prefill_tokens(&Shape::default(), 0), 512);
        assert_eq!(gpu.prefill_tokens(&prefill(0, 500), 0), 12);
        assert_eq!(gpu.prefill_tokens(&prefill(0, 600), 0), 0);
    }

    #[test]
    fn half_of_a_step_is_of_use_where_the_weights_take_all_of_it() {
        let (_, pace) = learned(LARGE);
        assert!(pace.predict(&decode(1, 128)) > Duration::from_millis(100));
        assert_eq!(pace.prefill_tokens(&decode(1, 128), 0), 3);
    }

    fn any_step() -> impl Strategy<Value = Shape> {
        let size = || prop_oneof![0..10_usize, 0..10_000_usize, Just(usize::MAX)];
        (0..20_usize, size(), size(), size()).prop_map(|(rows, context, start, tokens)| {
            let mut step = decode(rows, context);
            step.add_prefill(start, tokens);
            step
        })
    }

    fn any_time() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::MAX),
            (0..100_000_u64).prop_map(Duration::from_micros),
            (0..100_000_u64).prop_map(Duration::from_secs),
        ]
    }

    proptest! {
        #[test]
        fn property_bounds_hold_whatever_is_observed(
            observed in prop::collection::vec((any_step(), any_time(), 1..50_usize), 0..40),
            step in any_step(),
            limits in (any_time(), 1..1_000_usize),
            rows in 0..16_usize,
            context in 0..20_000_usize,
            start in 0..20_000_usize,
            more in 1..10_000_usize,
        ) {
            let (step_time, chunk_max) = limits;
            let mut pace = Pace::new(step_time, chunk_max);
            for (step, took, times) in observed {
                for _ in 0..times {
                    pace.observe(&step, took);
                }
            }
            let possible = COST_MIN_S * 0.9..COST_MAX_S * 1.1;
            prop_assert!(pace.costs().iter().all(|cost| possible.contains(cost)));
            prop_assert!(pace.covariance.as_flattened().iter().all(|value| value.is_finite()));
            prop_assert!(pace.predict(&step) >= Duration::from_micros(1));

            let tokens = pace.prefill_tokens(&decode(rows, context), start);
            prop_assert!(tokens >= 1);
            prop_assert!(tokens <= chunk_max);
            let after_more = pace.prefill_tokens(&decode(rows, context), start + more);
            prop_assert!(after_more <= tokens);
            let with_more_rows = pace.prefill_tokens(&decode(rows + more % 16, context), start);
            prop_assert!(with_more_rows <= tokens);
            prop_assert!(pace.prefill_tokens(&step, start) <= chunk_max);
        }

        #[test]
        fn property_what_fits_fits_and_no_token_more(
            cost in prop::array::uniform5(-12.0..-1.0_f64),
            start in 0..20_000_usize,
            other in 0..20_usize,
        ) {
            let mut pace = Pace::new(Duration::from_secs(1), usize::MAX);
            pace.log_cost = cost.map(|power| 10.0_f64.powf(power).ln());
            // There is a chunk already, so that nothing is given beyond what fits.
            let before = prefill(0, other + 1);
            let tokens = pace.prefill_tokens(&before, start);
            let seconds = |tokens| {
                let mut step = before;
                step.add_prefill(start, tokens);
                pace.seconds(&step)
            };
            prop_assert!(tokens == 0 || seconds(tokens) < 1.0 + 1e-9);
            prop_assert!(seconds(tokens + 2) > 1.0 - 1e-9);
        }
    }
}
