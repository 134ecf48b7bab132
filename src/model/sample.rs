//! Chooses the next token from logits: penalties, then temperature, top-k, top-p, min-p, then a draw.
//!
//! The order is that of Hugging Face's `generate` and of vLLM. Pure: the n-th draw of a sequence
//! depends on the seed and n alone, so a sequence that was parked or restored draws the same.

use crate::types::TokenId;

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
    pub seed: u64,
}

impl Sampling {
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: None,
        top_p: 1.0,
        min_p: 0.0,
        repeat_penalty: 1.0,
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
        match self.top_k {
            Some(0) => Err("top_k is 0; it is at least 1".to_owned()),
            _ => Ok(()),
        }
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
    /// Natural logarithm, of the model's own distribution: before temperature and filters.
    pub logprob: f32,
    /// Likeliest first.
    pub top: Vec<(TokenId, f32)>,
}

/// The token for draw number `draw` of a sequence. `history` is the sequence so far, prompt
/// included. `None` if the logits hold a NaN: the model is broken, and any choice would be a lie.
pub fn sample(
    logits: &[f32],
    sampling: &Sampling,
    history: &[TokenId],
    draw: u64,
) -> Option<TokenId> {
    if logits.iter().any(|logit| logit.is_nan()) {
        return None;
    }
    let penalised = penalise(logits, sampling, history);
    let logits = penalised.as_deref().unwrap_or(logits);
    if sampling.temperature == 0.0 {
        return Some(argmax(logits));
    }
    let candidates = distribution(logits, sampling);
    let mut left = uniform(sampling.seed, draw);
    for candidate in &candidates {
        left -= f64::from(candidate.probability);
        if left < 0.0 {
            return Some(candidate.token);
        }
    }
    // Rounding can leave a sum just below one.
    candidates.last().map(|candidate| candidate.token)
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

/// Changes logits before any choice is made. A grammar mask or a further penalty belongs here.
fn penalise(logits: &[f32], sampling: &Sampling, history: &[TokenId]) -> Option<Vec<f32>> {
    if sampling.repeat_penalty == 1.0 {
        return None;
    }
    let mut logits = logits.to_vec();
    let recent = &history[history.len().saturating_sub(REPEAT_WINDOW_TOKENS)..];
    let mut recent: Vec<usize> = recent.iter().map(|token| token.0 as usize).collect();
    recent.sort_unstable();
    recent.dedup();
    for token in recent {
        if let Some(logit) = logits.get_mut(token) {
            // Keskar et al., 2019 (CTRL), with the sign fixed as everyone has it.
            *logit = match *logit > 0.0 {
                true => *logit / sampling.repeat_penalty,
                false => *logit * sampling.repeat_penalty,
            };
        }
    }
    Some(logits)
}

/// The tokens that remain after all filters, most likely first, renormalised.
pub fn distribution(logits: &[f32], sampling: &Sampling) -> Vec<Candidate> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit =
        |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if let Some(k) = sampling.top_k
        && k < order.len()
    {
        order.select_nth_unstable_by(k - 1, by_logit);
        order.truncate(k);
    }
    order.sort_unstable_by(by_logit);
    let highest = f64::from(logits[order[0] as usize]);
    let temperature = f64::from(sampling.temperature);
    let weight = |token: u32| match f64::from(logits[token as usize]) - highest {
        // Also where both are infinite.
        0.0 => 1.0,
        difference if difference.is_nan() => 1.0,
        difference => (difference / temperature).exp(),
    };
    let weights: Vec<f64> = order.iter().map(|&token| weight(token)).collect();
    let total: f64 = weights.iter().sum();
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
    order[..kept]
        .iter()
        .zip(&weights)
        .map(|(&token, weight)| Candidate {
            token: TokenId(token),
            probability: (weight / cumulative) as f32,
        })
        .collect()
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
        assert_eq!(sample(&logits, &penalised, &[], 0), Some(TokenId(1)));
        assert_eq!(sample(&logits, &penalised, &[TokenId(1)], 0), Some(TokenId(2)));
        let adjusted = penalise(&logits, &penalised, &[TokenId(0), TokenId(1), TokenId(1)]);
        assert_eq!(adjusted, Some(vec![-2.0, 1.5, 2.0]));
        let mut history = vec![TokenId(1)];
        history.extend([TokenId(0); REPEAT_WINDOW_TOKENS]);
        assert_eq!(sample(&logits, &penalised, &history, 0), Some(TokenId(1)));
    }

    #[test]
    fn draws_follow_the_distribution_and_repeat_with_their_seed() {
        let sampling = Sampling { seed: 7, ..sampling() };
        let draws: Vec<_> = (0..20_000).map(|n| sample(&LOGITS, &sampling, &[], n)).collect();
        let again: Vec<_> = (0..20_000).map(|n| sample(&LOGITS, &sampling, &[], n)).collect();
        assert_eq!(draws, again);
        for candidate in distribution(&LOGITS, &sampling) {
            let count = draws.iter().filter(|draw| **draw == Some(candidate.token)).count();
            let share = count as f32 / draws.len() as f32;
            // Four standard deviations of 20,000 draws are at most 0.0141.
            assert!((share - candidate.probability).abs() < 0.0142, "{candidate:?}: {share}");
        }
        let other = Sampling { seed: 8, ..sampling.clone() };
        let others: Vec<_> = (0..20_000).map(|n| sample(&LOGITS, &other, &[], n)).collect();
        assert_ne!(draws, others);
    }

    #[test]
    fn broken_logits_choose_nothing_and_infinities_are_survived() {
        assert_eq!(sample(&[0.0, f32::NAN], &sampling(), &[], 0), None);
        let certain = [f32::NEG_INFINITY, f32::INFINITY, 0.0];
        assert_eq!(sample(&certain, &sampling(), &[], 3), Some(TokenId(1)));
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
        assert!(refused(Sampling { top_k: Some(0), ..sampling() }).contains("top_k"));
        assert_eq!(Sampling::GREEDY.check(), Ok(()));
    }
}
