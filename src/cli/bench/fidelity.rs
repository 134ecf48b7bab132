//! How far the kernels are from plain MLX, both led through the same text with a 16-bit KV cache.
//!
//! With fewer bits a rounding difference of 1e-5 flips codes, which says nothing about the kernels.
//! How near they are is a promise, [`PROMISE`]; each figure comes with whether it holds.

use super::report::{Cell, Row, Section, verdict};
use super::score::{Perplexity, divergence};
use super::setup::{Setup, blocks};
use super::text::{self, Reader};
use crate::cli::output::Failure;
use crate::model::sample::argmax;
use crate::model::{Device, Error, KvBits, KvConfig};
use crate::types::TokenId;

/// How near the kernels are to plain MLX. On a short text one disagreement breaks it, and that
/// there is none does not say much.
const PROMISE: Promise = Promise {
    tokens_min: 2048,
    agreement_min_percent: 99.5,
    tie_nats: 0.02,
    divergence_nats: 2e-4,
    change_percent: 0.1,
};

struct Promise {
    /// The length of the text that it is about.
    tokens_min: usize,
    /// The same token is the likeliest after so many of the positions.
    agreement_min_percent: f64,
    /// Where it is not, the reference prefers its own by less than this: the two were tied.
    tie_nats: f64,
    /// The mean divergence is below this.
    divergence_nats: f64,
    /// The perplexity is at most so far from the reference's.
    change_percent: f64,
}

/// What came of the comparison so far. The reference is plain MLX.
#[derive(Default)]
struct Comparison {
    positions: usize,
    divergence_nats: f64,
    reference: Perplexity,
    kernels: Perplexity,
    disagreements: Vec<Disagreement>,
}

/// A position after which the two hold different tokens for the likeliest.
struct Disagreement {
    position: usize,
    reference: TokenId,
    kernels: TokenId,
    /// By how much the reference prefers its own.
    gap_nats: f64,
}

/// The figures that the promise is about.
struct Figures {
    agreement_percent: f64,
    largest_gap_nats: f64,
    mean_divergence_nats: f64,
    change_percent: f64,
}

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let tokens = text::tokens(setup, setup.sizes.fidelity_tokens)?;
    let reader = |device| {
        let kv = KvConfig::plain(KvBits::Sixteen);
        let model = setup.load_with(device, kv, blocks(tokens.len()))?;
        Ok::<_, Error>(Reader::new(model, &tokens, &setup.interrupt))
    };
    let mut kernels = match reader(Device::Cpu) {
        // Other suites measured it on plain MLX, and what they found is worth having.
        Err(error @ Error::NoKernel(_)) => {
            return Ok(Section { rows: Vec::new(), notes: vec![format!("left out: {error}")] });
        }
        kernels => kernels?,
    };
    let mut reference = reader(Device::Portable)?;
    let progress = setup.progress("fidelity", tokens.len());
    let mut comparison = Comparison::default();
    for piece in text::pieces(tokens.len(), setup.summary.vocabulary).flat_map(short) {
        let of_reference = reference.read(piece.clone())?;
        let of_kernels = kernels.read(piece.clone())?;
        for (index, position) in piece.clone().enumerate() {
            let next = tokens.get(position + 1).copied();
            comparison.add(of_reference.at(index), of_kernels.at(index), next);
        }
        progress.advance(piece.len());
    }
    Ok(comparison.section())
}

/// Plain MLX takes seconds for a few dozen tokens, and Ctrl-C is seen in between.
fn short(piece: std::ops::Range<usize>) -> impl Iterator<Item = std::ops::Range<usize>> {
    const TOKENS: usize = 32;
    piece.clone().step_by(TOKENS).map(move |start| start..piece.end.min(start + TOKENS))
}

impl Comparison {
    fn add(&mut self, reference: &[f32], kernels: &[f32], next: Option<TokenId>) {
        let (of_reference, of_kernels) = (argmax(reference), argmax(kernels));
        if of_reference != of_kernels {
            let logit = |token: TokenId| f64::from(reference[token.0 as usize]);
            self.disagreements.push(Disagreement {
                position: self.positions,
                reference: of_reference,
                kernels: of_kernels,
                gap_nats: logit(of_reference) - logit(of_kernels),
            });
        }
        self.divergence_nats += divergence(reference, kernels);
        self.positions += 1;
        if let Some(next) = next {
            self.reference.add(reference, next.0 as usize);
            self.kernels.add(kernels, next.0 as usize);
        }
    }

    fn figures(&self) -> Figures {
        let positions = self.positions as f64;
        let agreement = 1.0 - self.disagreements.len() as f64 / positions;
        // A gap that is not a number stays the largest.
        let larger = |a: f64, b: f64| if a.is_nan() || b <= a { a } else { b };
        Figures {
            agreement_percent: 100.0 * agreement,
            largest_gap_nats: self.disagreements.iter().map(|it| it.gap_nats).fold(0.0, larger),
            mean_divergence_nats: self.divergence_nats / positions,
            change_percent: 100.0 * (self.kernels.value() / self.reference.value() - 1.0),
        }
    }

    fn section(&self) -> Section {
        let figures = self.figures();
        let bounds = PROMISE.bounds(&figures);
        let summary = Row::new("kernels")
            .with("top1_agreement_percent", Cell::Number(figures.agreement_percent, 2))
            .with("largest_gap_nats", Cell::Number(figures.largest_gap_nats, 4))
            .with("mean_kl_nats", Cell::Number(figures.mean_divergence_nats, 9))
            .with("perplexity", Cell::Number(self.kernels.value(), 4))
            .with("reference_perplexity", Cell::Number(self.reference.value(), 4))
            .with("change_percent", Cell::Number(figures.change_percent, 4))
            .with("promise", Cell::Verdict(bounds.iter().all(|(_, holds)| *holds)));
        let disagreements = self.disagreements.iter().map(|it| {
            Row::new(format!("position {}", it.position))
                .with("reference_token", Cell::Count(it.reference.0.into()))
                .with("kernels_token", Cell::Count(it.kernels.0.into()))
                .with("gap_nats", Cell::Number(it.gap_nats, 5))
                .with("promise", Cell::Verdict(it.gap_nats < PROMISE.tie_nats))
        });
        let rows = std::iter::once(summary).chain(disagreements).collect();
        let mut notes = vec![self.about()];
        notes.extend(bounds.iter().map(|(bound, holds)| format!("{bound}: {}", verdict(*holds))));
        Section { rows, notes }
    }

    fn about(&self) -> String {
        let text = format!("{} tokens of text; the reference is plain MLX", self.positions);
        match self.positions < PROMISE.tokens_min {
            false => text,
            true => format!("{text}; the promise is about {} and more", PROMISE.tokens_min),
        }
    }
}

impl Promise {
    /// What is promised, and whether it holds. What is not a number keeps no promise.
    fn bounds(&self, figures: &Figures) -> [(String, bool); 4] {
        [
            (
                format!("top-1 agreement of {} % or more", self.agreement_min_percent),
                figures.agreement_percent >= self.agreement_min_percent,
            ),
            (
                format!("every disagreement a tie, a gap below {} nats", self.tie_nats),
                figures.largest_gap_nats < self.tie_nats,
            ),
            (
                format!("mean KL divergence below {:e} nats", self.divergence_nats),
                figures.mean_divergence_nats < self.divergence_nats,
            ),
            (
                format!("perplexity within {} % of the reference's", self.change_percent),
                figures.change_percent.abs() <= self.change_percent,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_disagreement_is_shown_with_its_gap() {
        let mut comparison = Comparison::default();
        comparison.add(&[0.0, 5.0, 1.0], &[0.0, 5.0, 1.0], Some(TokenId(1)));
        comparison.add(&[0.0, 2.0, 1.75], &[0.0, 2.0, 2.25], None);
        let section = comparison.section();
        expect![[r#"

            fidelity
                       top1_agreement_percent  largest_gap_nats  mean_kl_nats  perplexity  reference_perplexity  change_percent        promise
              kernels                   50.00            0.2500   0.015401466      1.0251                1.0251          0.0000  does not hold
                          reference_token  kernels_token  gap_nats        promise
              position 1                1              2   0.25000  does not hold
              (2 tokens of text; the reference is plain MLX; the promise is about 2048 and more)
              (top-1 agreement of 99.5 % or more: does not hold)
              (every disagreement a tie, a gap below 0.02 nats: does not hold)
              (mean KL divergence below 2e-4 nats: does not hold)
              (perplexity within 0.1 % of the reference's: holds)
        "#]]
        .assert_eq(&section.table("fidelity", &[]));
    }

    #[test]
    fn a_promise_holds_up_to_its_bounds_and_not_for_what_is_no_number() {
        let holds = |agreement_percent, largest_gap_nats, mean_divergence_nats, change_percent| {
            let figures = Figures {
                agreement_percent,
                largest_gap_nats,
                mean_divergence_nats,
                change_percent,
            };
            PROMISE.bounds(&figures).map(|(_, holds)| holds)
        };
        assert_eq!(holds(99.5, 0.0199, 1.9e-4, -0.1), [true; 4]);
        assert_eq!(holds(99.4, 0.02, 2e-4, -0.11), [false; 4]);
        assert_eq!(holds(f64::NAN, f64::NAN, f64::NAN, f64::NAN), [false; 4]);
        let mut comparison = Comparison::default();
        comparison.add(&[0.0, 2.0, f32::NAN], &[0.0, 2.0, 2.25], None);
        comparison.add(&[0.0, 2.0, 1.75], &[0.0, 2.0, 2.25], None);
        let figures = comparison.figures();
        assert!(figures.largest_gap_nats.is_nan());
        assert!(figures.mean_divergence_nats.is_nan());
    }

    #[test]
    fn short_pieces_cover_a_piece() {
        assert_eq!(short(5..70).collect::<Vec<_>>(), [5..37, 37..69, 69..70]);
    }
}
