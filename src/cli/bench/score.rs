//! How well logits foretell the tokens that follow: perplexity, agreement, divergence.

/// The logarithm of a position's softmax denominator, in f64: what turns logits into nats.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - highest).exp()).sum();
    highest + sum.ln()
}

/// The Kullback–Leibler divergence of `other` from `reference`, in nats.
pub fn divergence(reference: &[f32], other: &[f32]) -> f64 {
    assert_eq!(reference.len(), other.len());
    let (reference_total, other_total) = (log_sum_exp(reference), log_sum_exp(other));
    let terms = reference.iter().zip(other).map(|(&reference, &other)| {
        let reference = f64::from(reference) - reference_total;
        let other = f64::from(other) - other_total;
        let probability = reference.exp();
        // An impossible token adds nothing, whatever the other says.
        if probability == 0.0 { 0.0 } else { probability * (reference - other) }
    });
    terms.sum()
}

/// The perplexity of a text, token by token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Perplexity {
    nats: f64,
    tokens: usize,
}

impl Perplexity {
    /// The next token of the text, and the logits of the position before it.
    pub fn add(&mut self, logits: &[f32], next: usize) {
        self.nats += log_sum_exp(logits) - f64::from(logits[next]);
        self.tokens += 1;
    }

    pub fn value(&self) -> f64 {
        (self.nats / self.tokens as f64).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexity_is_the_number_of_equally_likely_choices() {
        let mut perplexity = Perplexity::default();
        perplexity.add(&[3.0; 8], 5);
        perplexity.add(&[-700.0; 8], 0);
        assert!((perplexity.value() - 8.0).abs() < 1e-9, "{}", perplexity.value());
        // Half as likely as all others together.
        let mut perplexity = Perplexity::default();
        perplexity.add(&[0.0, 0.0, f32::NEG_INFINITY], 0);
        assert!((perplexity.value() - 2.0).abs() < 1e-9, "{}", perplexity.value());
    }

    #[test]
    fn divergence_is_zero_from_itself_and_grows_with_the_difference() {
        let reference = [1.0, 2.0, 3.0];
        let shifted = [11.0, 12.0, 13.0];
        assert!(divergence(&reference, &shifted).abs() < 1e-12);
        let near = divergence(&reference, &[1.0, 2.0, 3.1]);
        let far = divergence(&reference, &[1.0, 2.0, 5.0]);
        assert!(0.0 < near && near < far, "{near} {far}");
    }
}
