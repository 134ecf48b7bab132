//! Chooses the next token from logits: biases, penalties, what a grammar allows, then temperature, top-k,
//! top-p, min-p, then a draw.
//!
//! The order is that of Hugging Face's `generate` and of vLLM. Pure: the n-th draw of a sequence
//! depends on the seed and n alone, so a sequence that was parked or restored draws the same.
//! Log-probabilities are those of the model itself, whatever chose the token.

use std::sync::Arc;

use crate::types::{TokenId, TokenSet};

/// As OpenAI has it: the lowest bans a token, the highest all but forces it.
pub const BIAS_MAX: f32 = 100.0;
/// Each one costs a few nanoseconds at every token, and what a request holds has a limit.
pub const BIASES_MAX: usize = 1024;

/// Recent tokens that the repetition penalty looks at, as in llama.cpp.
pub const REPEAT_WINDOW_TOKENS: usize = 64;

/// How to choose. The constructor of a valid one is [`Sampling::check`].
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy; 1 leaves the model's distribution as it is.
    pub temperature: f32,
    /// Only the k most likely tokens.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that together have this probability.
    pub top_p: f32,
    /// Only tokens at least this likely relative to the most likely one.
    pub min_p: f32,
    /// Divides the logits of recent tokens (multiplies negative ones); 1 changes nothing.
    pub repeat_penalty: f32,
    /// Taken from a token's logit for each time that the reply has it already; 0 changes nothing.
    pub frequency_penalty: f32,
    /// Taken once from the logits of all tokens that the reply has already; 0 changes nothing.
    pub presence_penalty: f32,
    /// Added to the model's logits before anything else, of each token once.
    pub biases: Option<Arc<[Bias]>>,
    pub seed: u64,
}

/// What is added to the logit of a token: from minus [`BIAS_MAX`], which bans it, to [`BIAS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bias {
    pub token: TokenId,
    pub bias: f32,
}

impl Bias {
    /// Whether the token never comes, whatever its logit.
    pub fn is_ban(self) -> bool {
        self.bias == -BIAS_MAX
    }
}

impl Sampling {
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: None,
        top_p: 1.0,
        min_p: 0.0,
        repeat_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        biases: None,
        seed: 0,
    };

    /// Refuses values that mean nothing, naming the setting, its value and its range.
    pub fn check(&self) -> Result<(), String> {
        let in_range = |name: &str, value: f32, low: f32, high: f32| {
            // NaN is in no range.
            match (low..=high).contains(&value) {
                true => Ok(()),
                false => Err(format!("{name} is {value}; it goes from {low} to {high}")),
            }
        };
        in_range("temperature", self.temperature, 0.0, 100.0)?;
        in_range("top_p", self.top_p, 0.0, 1.0)?;
        in_range("min_p", self.min_p, 0.0, 1.0)?;
        in_range("repeat_penalty", self.repeat_penalty, 0.01, 100.0)?;
        // OpenAI's range.
        in_range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        in_range("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        if self.biases().len() > BIASES_MAX {
            return Err(format!(
                "logit_bias has {} tokens; at most {BIASES_MAX}",
                self.biases().len()
            ));
        }
        for Bias { token, bias } in self.biases() {
            in_range(&format!("logit_bias of token {token}"), *bias, -BIAS_MAX, BIAS_MAX)?;
        }
        match self.top_k {
            Some(0) => Err("top_k is 0; it is at least 1".to_owned()),
            _ => Ok(()),
        }
    }

    pub fn biases(&self) -> &[Bias] {
        self.biases.as_deref().unwrap_or_default()
    }
}

/// A sequence so far.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// Prompt and reply.
    pub tokens: &'a [TokenId],
    /// Where the reply begins.
    pub prompt_tokens: usize,
    /// What may come next; all tokens if nothing says so.
    pub allowed: Option<&'a TokenSet>,
}

impl<'a> History<'a> {
    /// What was generated.
    fn reply(&self) -> &'a [TokenId] {
        &self.tokens[self.prompt_tokens..]
    }

    /// What the repetition penalty looks at, which may reach into the prompt.
    fn recent(&self) -> &'a [TokenId] {
        &self.tokens[self.tokens.len().saturating_sub(REPEAT_WINDOW_TOKENS)..]
    }
}

/// A token with its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub token: TokenId,
    pub probability: f32,
}

/// A token that was chosen, with its log-probability and those of the likeliest tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    pub token: TokenId,
    /// Natural logarithm, of the model's own distribution: before penalties, temperature and
    /// filters. Minus infinity for what the model holds impossible.
    pub logprob: f32,
    /// Likeliest first, of equals the lowest id.
    pub top: Vec<(TokenId, f32)>,
}

/// The token for draw number `draw` of a sequence. `None` if the logits hold a NaN: the model is
/// broken, and any choice would be a lie. Also if none of the model's tokens is allowed.
pub fn sample(logits: &[f32], sampling: &Sampling, history: History, draw: u64) -> Option<TokenId> {
    if logits.iter().any(|logit| logit.is_nan()) {
        return None;
    }
    let penalised = penalise(logits, sampling, history);
    let logits = penalised.as_deref().unwrap_or(logits);
    let Some(allowed) = history.allowed else {
        return Some(choose(logits, sampling, draw));
    };
    // The choice is among those alone: a token that is not there cannot come, whatever the logits.
    let (ids, logits): (Vec<TokenId>, Vec<f32>) =
        allowed.iter().map_while(|token| Some((token, *logits.get(token.0 as usize)?))).unzip();
    match logits.iter().any(|logit| *logit > f32::NEG_INFINITY) {
        true => Some(ids[choose(&logits, sampling, draw).0 as usize]),
        // A ban does not go against a grammar.
        false => ids.first().copied(),
    }
}

/// The index of one of these logits, of which there is at least one.
fn choose(logits: &[f32], sampling: &Sampling, draw: u64) -> TokenId {
    if sampling.temperature == 0.0 {
        return argmax(logits);
    }
    if is_unfiltered(sampling) {
        return draw_by_id(logits, sampling.temperature, uniform(sampling.seed, draw));
    }
    let candidates = distribution(logits, sampling);
    let mut left = uniform(sampling.seed, draw);
    for candidate in &candidates {
        left -= f64::from(candidate.probability);
        if left < 0.0 {
            return candidate.token;
        }
    }
    // Rounding can leave a sum just below one. What is banned stands last, and does not come.
    let possible = candidates.iter().rfind(|candidate| candidate.probability > 0.0);
    possible.or(candidates.first()).expect("the likeliest always stays").token
}

/// Whether every token can come.
fn is_unfiltered(sampling: &Sampling) -> bool {
    sampling.top_k.is_none() && sampling.top_p >= 1.0 && sampling.min_p == 0.0
}

/// A draw from all tokens, `at` in `0 .. 1` of their weights in the order of their ids: sorting a
/// vocabulary for each token would cost as much as a layer of a small model.
fn draw_by_id(logits: &[f32], temperature: f32, at: f64) -> TokenId {
    let weights: Vec<f64> = weights(logits, temperature).collect();
    let mut left = at * weights.iter().sum::<f64>();
    let mut last = 0;
    for (index, weight) in weights.iter().enumerate() {
        if *weight > 0.0 {
            last = index;
            left -= weight;
        }
        if left < 0.0 {
            break;
        }
    }
    // Rounding can leave a little; then it is the last token that can come.
    TokenId(last as u32)
}

/// The most likely token; the lowest id of equals.
pub fn argmax(logits: &[f32]) -> TokenId {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    TokenId(best as u32)
}

/// The log-probability of `chosen` and of the `top` likeliest tokens by these logits, which are
/// the model's own: what vLLM and OpenAI report, whatever penalties and filters chose the token.
pub fn logprobs(logits: &[f32], chosen: TokenId, top: usize) -> TokenLogprob {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let below = |logit: f32| below(logit, highest);
    let total: f64 = logits.iter().map(|logit| below(*logit).exp()).sum();
    let logprob = |token: u32| (below(logits[token as usize]) - total.ln()) as f32;
    TokenLogprob {
        token: chosen,
        logprob: logprob(chosen.0),
        top: likeliest(logits, top).into_iter().map(|id| (TokenId(id), logprob(id))).collect(),
    }
}

/// Changes logits before any choice is made: biases, then the repetition penalty, as in vLLM. A further
/// penalty belongs here.
fn penalise(logits: &[f32], sampling: &Sampling, history: History) -> Option<Vec<f32>> {
    let repeats = sampling.repeat_penalty != 1.0;
    let counts = sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0;
    if !repeats && !counts && sampling.biases.is_none() {
        return None;
    }
    let mut logits = logits.to_vec();
    for bias in sampling.biases() {
        if let Some(logit) = logits.get_mut(bias.token.0 as usize) {
            // A ban is one also for a logit above a hundred, and for one that is infinite.
            *logit = if bias.is_ban() { f32::NEG_INFINITY } else { *logit + bias.bias };
        }
    }
    if repeats {
        for (token, _) in counted(history.recent()) {
            if let Some(logit) = logits.get_mut(token.0 as usize) {
                // Keskar et al., 2019 (CTRL), with the sign fixed as everyone has it.
                *logit = match *logit > 0.0 {
                    true => *logit / sampling.repeat_penalty,
                    false => *logit * sampling.repeat_penalty,
                };
            }
        }
    }
    if counts {
        for (token, count) in counted(history.reply()) {
            if let Some(logit) = logits.get_mut(token.0 as usize) {
                *logit -= sampling.frequency_penalty * count as f32;
                *logit -= sampling.presence_penalty;
            }
        }
    }
    Some(logits)
}

/// Each token once, with how often it is there.
fn counted(tokens: &[TokenId]) -> Vec<(TokenId, usize)> {
    let mut sorted = tokens.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect()
}

/// The tokens that remain after all filters, most likely first, renormalised.
pub fn distribution(logits: &[f32], sampling: &Sampling) -> Vec<Candidate> {
    let count = sampling.top_k.unwrap_or(logits.len());
    // Sorting a whole vocabulary for each token would cost as much as a layer of a small model, and
    // hardly ever do more tokens than these remain.
    if count > LIKELIEST_COUNT {
        let total: f64 = match sampling.top_k {
            None => weights(logits, sampling.temperature).sum(),
            Some(_) => f64::INFINITY,
        };
        let order = likeliest(logits, LIKELIEST_COUNT);
        if let Some(candidates) = filter(logits, sampling, order, Some(total)) {
            return candidates;
        }
    }
    let order = likeliest(logits, count);
    filter(logits, sampling, order, None).expect("all there are were looked at")
}

/// Tokens that are looked at first.
const LIKELIEST_COUNT: usize = 1024;

/// What top-p and min-p leave of tokens in the order of their likelihood. Given the weight of all
/// tokens, `None` if more than these would remain.
fn filter(
    logits: &[f32],
    sampling: &Sampling,
    mut order: Vec<u32>,
    total: Option<f64>,
) -> Option<Vec<Candidate>> {
    let highest = logits[order[0] as usize];
    let temperature = f64::from(sampling.temperature);
    let weights: Vec<f64> =
        order.iter().map(|&token| weight(logits[token as usize], highest, temperature)).collect();
    let is_part = total.is_some();
    let total = total.unwrap_or_else(|| weights.iter().sum());
    let mut kept = 0;
    let mut cumulative = 0.0;
    for weight in &weights {
        // The first token always stays; min-p compares with the most likely one, whose weight is 1.
        let enough = cumulative >= f64::from(sampling.top_p) * total;
        if kept > 0 && (enough || *weight < f64::from(sampling.min_p)) {
            break;
        }
        cumulative += weight;
        kept += 1;
    }
    if is_part && kept == order.len() {
        return None;
    }
    order.truncate(kept);
    let candidate = |(token, weight): (u32, &f64)| Candidate {
        token: TokenId(token),
        probability: (weight / cumulative) as f32,
    };
    Some(order.into_iter().zip(&weights).map(candidate).collect())
}

/// The weight of every token, that of the likeliest being 1.
fn weights(logits: &[f32], temperature: f32) -> impl Iterator<Item = f64> {
    let highest = logits[argmax(logits).0 as usize];
    logits.iter().map(move |logit| weight(*logit, highest, f64::from(temperature)))
}

fn weight(logit: f32, highest: f32, temperature: f64) -> f64 {
    match below(logit, highest) {
        // Also at temperature 0.
        0.0 => 1.0,
        difference => (difference / temperature).exp(),
    }
}

/// The `count` likeliest tokens, or all there are: likeliest first, of equals the lowest id.
fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    // Adding zero makes minus zero plus zero, and the two are equals then.
    let logit = |token: u32| logits[token as usize] + 0.0;
    let by_logit = |a: &u32, b: &u32| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b));
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    if 0 < count && count < order.len() {
        order.select_nth_unstable_by(count - 1, by_logit);
    }
    order.truncate(count);
    order.sort_unstable_by(by_logit);
    order
}

/// How far a logit is below the highest one; not at all if both are infinite.
fn below(logit: f32, highest: f32) -> f64 {
    match f64::from(logit) - f64::from(highest) {
        difference if difference.is_nan() => 0.0,
        difference => difference,
    }
}

/// Draw number `draw` in `0 .. 1`: SplitMix64 (Steele et al., 2014) at a position, not a state.
fn uniform(seed: u64, draw: u64) -> f64 {
    let mut z = seed.wrapping_add(draw.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, 0.0];
    const NOTHING: History = History { tokens: &[], prompt_tokens: 0, allowed: None };

    fn prompt(tokens: &[TokenId]) -> History<'_> {
        History { tokens, prompt_tokens: tokens.len(), allowed: None }
    }

    fn sampling() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::GREEDY }
    }

    #[track_caller]
    fn check(sampling: &Sampling, expected: &[(u32, f32)]) {
        let found = distribution(&LOGITS, sampling);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (candidate, (token, probability)) in found.iter().zip(expected) {
            assert_eq!(candidate.token, TokenId(*token));
            assert!((candidate.probability - probability).abs() < 1e-5, "{found:?}");
        }
    }

    #[test]
    fn temperature_one_is_softmax() {
        // e^3, e^2, e^1, e^0 over their sum 31.19287.
        check(&sampling(), &[(1, 0.643914), (2, 0.236883), (0, 0.087144), (3, 0.032059)]);
    }

    /// A part of a large vocabulary is looked at first; what comes of it is what all of it gives.
    #[test]
    fn a_large_vocabulary_is_filtered_as_if_it_were_sorted() {
        let logits: Vec<f32> =
            (0..5_000u32).map(|id| (id.wrapping_mul(2_654_435_761) % 9_973) as f32 / 1e3).collect();
        for (top_p, min_p, temperature) in
            [(0.5, 0.0, 1.0), (0.9, 0.0, 1.0), (0.99, 0.0, 3.0), (1.0, 0.5, 1.0), (1.0, 0.01, 5.0)]
        {
            let sampling = Sampling { top_p, min_p, temperature, ..sampling() };
            let whole = filter(&logits, &sampling, likeliest(&logits, logits.len()), None).unwrap();
            let found = distribution(&logits, &sampling);
            assert_eq!(found.len(), whole.len());
            for (found, whole) in found.iter().zip(&whole) {
                assert_eq!(found.token, whole.token);
                assert!((found.probability - whole.probability).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn temperature_divides_the_logits() {
        let cold = Sampling { temperature: 0.5, ..sampling() };
        // e^6, e^4, e^2, e^0 over their sum 466.4160.
        check(&cold, &[(1, 0.864955), (2, 0.117059), (0, 0.015842), (3, 0.002144)]);
    }

    #[test]
    fn top_k_keeps_the_k_most_likely() {
        // e^1 and e^0 over their sum.
        check(&Sampling { top_k: Some(2), ..sampling() }, &[(1, 0.731059), (2, 0.268941)]);
        check(&Sampling { top_k: Some(1), ..sampling() }, &[(1, 1.0)]);
        assert_eq!(distribution(&LOGITS, &Sampling { top_k: Some(9), ..sampling() }).len(), 4);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_p() {
        check(&Sampling { top_p: 0.64, ..sampling() }, &[(1, 1.0)]);
        check(&Sampling { top_p: 0.65, ..sampling() }, &[(1, 0.731059), (2, 0.268941)]);
        check(&Sampling { top_p: 0.0, ..sampling() }, &[(1, 1.0)]);
    }

    #[test]
    fn min_p_compares_with_the_most_likely() {
        // Relative to the best: 1, 0.368, 0.135, 0.050.
        check(&Sampling { min_p: 0.36, ..sampling() }, &[(1, 0.731059), (2, 0.268941)]);
        check(&Sampling { min_p: 1.0, ..sampling() }, &[(1, 1.0)]);
    }

    #[test]
    fn the_repetition_penalty_pushes_recent_tokens_down() {
        let penalised = Sampling { repeat_penalty: 2.0, ..Sampling::GREEDY };
        let logits = [-1.0, 3.0, 2.0];
        assert_eq!(sample(&logits, &penalised, NOTHING, 0), Some(TokenId(1)));
        assert_eq!(sample(&logits, &penalised, prompt(&[TokenId(1)]), 0), Some(TokenId(2)));
        let history = [TokenId(0), TokenId(1), TokenId(1)];
        let adjusted = penalise(&logits, &penalised, prompt(&history));
        assert_eq!(adjusted, Some(vec![-2.0, 1.5, 2.0]));
        let mut history = vec![TokenId(1)];
        history.extend([TokenId(0); REPEAT_WINDOW_TOKENS]);
        assert_eq!(sample(&logits, &penalised, prompt(&history), 0), Some(TokenId(1)));
    }

    #[test]
    fn frequency_and_presence_penalties_count_what_was_generated_and_not_the_prompt() {
        let logits = [1.0, 3.0, -2.0, 0.5];
        let tokens = [3, 0, 1, 1, 2, 1, 99].map(TokenId);
        let history = History { tokens: &tokens, prompt_tokens: 2, allowed: None };
        let penalties = |frequency_penalty, presence_penalty| Sampling {
            frequency_penalty,
            presence_penalty,
            ..Sampling::GREEDY
        };
        let penalised = |sampling| penalise(&logits, &sampling, history);
        assert_eq!(penalised(penalties(0.0, 0.0)), None);
        assert_eq!(penalised(penalties(0.5, 0.0)), Some(vec![1.0, 1.5, -2.5, 0.5]));
        assert_eq!(penalised(penalties(0.0, 2.0)), Some(vec![1.0, 1.0, -4.0, 0.5]));
        assert_eq!(penalised(penalties(-1.0, 0.5)), Some(vec![1.0, 5.5, -1.5, 0.5]));
        // The repetition penalty looks at the prompt too, and comes first.
        let both = Sampling { repeat_penalty: 2.0, ..penalties(0.5, 0.0) };
        assert_eq!(penalised(both), Some(vec![0.5, 0.0, -4.5, 0.25]));
        assert_eq!(sample(&logits, &penalties(0.0, 2.0), prompt(&tokens), 0), Some(TokenId(1)));
        assert_eq!(sample(&logits, &penalties(1.0, 0.0), history, 0), Some(TokenId(0)));
    }

    fn biased(biases: &[(u32, f32)]) -> Sampling {
        let biases = biases.iter().map(|&(token, bias)| Bias { token: TokenId(token), bias });
        Sampling { biases: Some(biases.collect()), ..Sampling::GREEDY }
    }

    #[test]
    fn biases_are_added_before_penalties_and_greedy_follows_them() {
        let greedy = |biases: &[(u32, f32)]| sample(&LOGITS, &biased(biases), NOTHING, 0);
        assert_eq!(greedy(&[(1, -0.9)]), Some(TokenId(1)));
        assert_eq!(greedy(&[(1, -1.1)]), Some(TokenId(2)));
        assert_eq!(greedy(&[(3, 100.0)]), Some(TokenId(3)));
        assert_eq!(greedy(&[(3, 5.0), (1, 5.0), (99, 100.0)]), Some(TokenId(1)));
        // -1 + 3 = 2 is divided; without the bias -1 would be multiplied.
        let penalised = Sampling { repeat_penalty: 2.0, ..biased(&[(0, 3.0)]) };
        let adjusted = penalise(&[-1.0, 0.5], &penalised, prompt(&[TokenId(0)]));
        assert_eq!(adjusted, Some(vec![1.0, 0.5]));
    }

    #[test]
    fn a_banned_token_never_comes_however_likely_it_is() {
        let logits = [500.0, f32::INFINITY, 0.0, 1.0];
        let banned = biased(&[(0, -100.0), (1, -100.0)]);
        assert_eq!(sample(&logits, &banned, NOTHING, 0), Some(TokenId(3)));
        // Neither where it stands among the candidates with no weight at all.
        for top_k in [None, Some(4)] {
            let drawn = Sampling { temperature: 100.0, top_k, ..banned.clone() };
            for draw in 0..2_000 {
                let token = sample(&logits, &drawn, NOTHING, draw).expect("no NaN");
                assert!(token.0 >= 2, "{token}");
            }
        }
    }

    #[track_caller]
    fn check_logprobs(logits: &[f32], chosen: u32, top: usize, expected: (f32, &[(u32, f32)])) {
        let found = logprobs(logits, TokenId(chosen), top);
        let close = |a: f32, b: f32| a == b || (a - b).abs() < 1e-5;
        assert_eq!(found.token, TokenId(chosen));
        assert!(close(found.logprob, expected.0), "{found:?}");
        assert_eq!(found.top.len(), expected.1.len(), "{found:?}");
        for ((token, logprob), (expected_token, expected)) in found.top.iter().zip(expected.1) {
            assert_eq!(*token, TokenId(*expected_token), "{found:?}");
            assert!(close(*logprob, *expected), "{found:?}");
        }
    }

    #[test]
    fn log_probabilities_are_the_logits_less_the_logarithm_of_their_sum() {
        // ln(e^1 + e^3 + e^2 + e^0) = ln 31.19287 = 3.440190.
        check_logprobs(&LOGITS, 3, 0, (-3.44019, &[]));
        check_logprobs(&LOGITS, 2, 2, (-1.44019, &[(1, -0.44019), (2, -1.44019)]));
        let all = [(1, -0.44019), (2, -1.44019), (0, -2.44019), (3, -3.44019)];
        check_logprobs(&LOGITS, 1, 9, (-0.44019, &all));
        // Far from zero, where e^x is beyond any float.
        check_logprobs(&[1e4, 1e4 - 1.0], 1, 1, (-1.313262, &[(0, -0.313262)]));
    }

    #[test]
    fn of_equal_log_probabilities_the_lowest_id_comes_first() {
        let half = -std::f32::consts::LN_2;
        let zeros = [f32::NEG_INFINITY, -0.0, 0.0];
        check_logprobs(&zeros, 1, 1, (half, &[(1, half)]));
        check_logprobs(&zeros, 2, 2, (half, &[(1, half), (2, half)]));
        let third = -(3.0f32.ln());
        check_logprobs(&[5.0; 3], 0, 2, (third, &[(0, third), (1, third)]));
    }

    #[test]
    fn an_impossible_token_has_a_log_probability_of_minus_infinity() {
        let never = f32::NEG_INFINITY;
        check_logprobs(&[0.0, never, never], 1, 2, (never, &[(0, 0.0), (1, never)]));
        check_logprobs(&[f32::INFINITY, 0.0], 0, 2, (0.0, &[(0, 0.0), (1, never)]));
        let half = -std::f32::consts::LN_2;
        check_logprobs(&[never, never], 0, 1, (half, &[(0, half)]));
    }

    #[test]
    fn draws_follow_the_distribution_and_repeat_with_their_seed() {
        let sampling = Sampling { seed: 7, ..sampling() };
        let draws: Vec<_> = (0..20_000).map(|n| sample(&LOGITS, &sampling, NOTHING, n)).collect();
        let again: Vec<_> = (0..20_000).map(|n| sample(&LOGITS, &sampling, NOTHING, n)).collect();
        assert_eq!(draws, again);
        for candidate in distribution(&LOGITS, &sampling) {
            let count = draws.iter().filter(|draw| **draw == Some(candidate.token)).count();
            let share = count as f32 / draws.len() as f32;
            // Four standard deviations of 20,000 draws are at most 0.0141.
            assert!((share - candidate.probability).abs() < 0.0142, "{candidate:?}: {share}");
        }
        let other = Sampling { seed: 8, ..sampling.clone() };
        let others: Vec<_> = (0..20_000).map(|n| sample(&LOGITS, &other, NOTHING, n)).collect();
        assert_ne!(draws, others);
    }

    #[test]
    fn broken_logits_choose_nothing_and_infinities_are_survived() {
        assert_eq!(sample(&[0.0, f32::NAN], &sampling(), NOTHING, 0), None);
        let certain = [f32::NEG_INFINITY, f32::INFINITY, 0.0];
        assert_eq!(sample(&certain, &sampling(), NOTHING, 3), Some(TokenId(1)));
    }

    fn among(allowed: &TokenSet) -> History<'_> {
        History { allowed: Some(allowed), ..NOTHING }
    }

    #[test]
    fn what_is_not_allowed_never_comes_and_the_rest_keeps_its_proportions() {
        let allowed = TokenSet::from_iter([TokenId(0), TokenId(2), TokenId(77)]);
        assert_eq!(sample(&LOGITS, &Sampling::GREEDY, among(&allowed), 0), Some(TokenId(2)));
        for sampling in [sampling(), Sampling { top_p: 0.999, ..sampling() }] {
            let draw = |n| sample(&LOGITS, &sampling, among(&allowed), n);
            let draws: Vec<_> = (0..20_000).map(draw).collect();
            assert!(draws.iter().all(|draw| matches!(draw, Some(TokenId(0 | 2)))));
            let share = draws.iter().filter(|draw| **draw == Some(TokenId(2))).count() as f32 / 2e4;
            // e^2 / (e^2 + e^1), within four standard deviations.
            assert!((share - 0.731059).abs() < 0.0126, "{share}");
        }
    }

    /// The filters look at what is allowed only: the likeliest of all may be none of it.
    #[test]
    fn filters_come_after_what_is_allowed() {
        let allowed = TokenSet::from_iter([TokenId(0), TokenId(3)]);
        let filters = [
            Sampling { top_k: Some(1), ..sampling() },
            Sampling { top_p: 0.1, ..sampling() },
            Sampling { min_p: 0.9, ..sampling() },
        ];
        for sampling in filters {
            for n in 0..100 {
                assert_eq!(sample(&LOGITS, &sampling, among(&allowed), n), Some(TokenId(0)));
            }
        }
        let penalised = Sampling { frequency_penalty: 2.0, ..Sampling::GREEDY };
        let reply = [TokenId(0)];
        let history = History { tokens: &reply, prompt_tokens: 0, allowed: Some(&allowed) };
        assert_eq!(sample(&LOGITS, &penalised, history, 0), Some(TokenId(3)));
    }

    #[test]
    fn an_impossible_token_comes_if_it_is_all_that_is_allowed_and_none_comes_of_none() {
        let never = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY];
        let allowed = TokenSet::from_iter([TokenId(0), TokenId(2)]);
        for sampling in [sampling(), Sampling::GREEDY, Sampling { top_p: 0.5, ..sampling() }] {
            for n in 0..100 {
                let token = sample(&never, &sampling, among(&allowed), n);
                assert!(matches!(token, Some(TokenId(0 | 2))), "{token:?}");
            }
            let beyond = TokenSet::from_iter([TokenId(3)]);
            assert_eq!(sample(&never, &sampling, among(&beyond), 0), None);
        }
        // A NaN is a broken model's, whether or not it could be chosen.
        let allowed = TokenSet::from_iter([TokenId(0)]);
        assert_eq!(sample(&[0.0, f32::NAN], &Sampling::GREEDY, among(&allowed), 0), None);
    }

    #[test]
    fn meaningless_settings_are_refused_by_name() {
        let refused = |sampling: Sampling| sampling.check().unwrap_err();
        assert_eq!(
            refused(Sampling { temperature: -1.0, ..sampling() }),
            "temperature is -1; it goes from 0 to 100"
        );
        assert!(refused(Sampling { temperature: f32::NAN, ..sampling() }).contains("NaN"));
        assert!(refused(Sampling { top_p: 1.5, ..sampling() }).contains("top_p"));
        assert!(refused(Sampling { min_p: f32::INFINITY, ..sampling() }).contains("min_p"));
        assert!(refused(Sampling { repeat_penalty: 0.0, ..sampling() }).contains("repeat"));
        assert!(refused(Sampling { frequency_penalty: 2.1, ..sampling() }).contains("frequency_p"));
        assert_eq!(
            refused(Sampling { presence_penalty: -2.5, ..sampling() }),
            "presence_penalty is -2.5; it goes from -2 to 2"
        );
        assert!(refused(Sampling { top_k: Some(0), ..sampling() }).contains("top_k"));
        assert_eq!(
            refused(biased(&[(1, 100.0), (7, -100.5)])),
            "logit_bias of token 7 is -100.5; it goes from -100 to 100"
        );
        let many: Vec<_> = (0..=BIASES_MAX as u32).map(|token| (token, 1.0)).collect();
        assert_eq!(refused(biased(&many)), "logit_bias has 1025 tokens; at most 1024");
        assert_eq!(biased(&many[1..]).check(), Ok(()));
        assert_eq!(Sampling::GREEDY.check(), Ok(()));
    }
}
