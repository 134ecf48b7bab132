//! How far the kernels are from plain MLX, both led through the same text with a 16-bit KV cache.
//!
//! With fewer bits a rounding difference of 1e-5 flips codes, which says nothing about the kernels.

use super::report::{Cell, Row, Section};
use super::score::{Perplexity, divergence};
use super::setup::{Setup, blocks};
use super::text::{self, Reader};
use crate::cli::output::Failure;
use crate::model::sample::argmax;
use crate::model::{Device, KvBits, KvConfig};
use crate::types::TokenId;

/// About half a minute of plain MLX on a CPU, with a model of 135M weights.
const TOKENS_DEFAULT: usize = 256;

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

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let tokens = text::tokens(setup, TOKENS_DEFAULT)?;
    let reader = |device| {
        let kv = KvConfig::plain(KvBits::Sixteen);
        let model = setup.load_with(device, kv, blocks(tokens.len()))?;
        Ok::<_, Failure>(Reader::new(model, &tokens, &setup.interrupt))
    };
    let mut reference = reader(Device::Portable)?;
    let mut kernels = reader(Device::Cpu)?;
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
    let notes = vec![format!("{} tokens of text; the reference is plain MLX", tokens.len())];
    Ok(Section { rows: comparison.rows(), notes })
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

    fn rows(&self) -> Vec<Row> {
        let positions = self.positions as f64;
        let agreement = 1.0 - self.disagreements.len() as f64 / positions;
        let largest_gap = self.disagreements.iter().map(|it| it.gap_nats).fold(0.0, f64::max);
        let change = self.kernels.value() / self.reference.value() - 1.0;
        let summary = Row::new("kernels")
            .with("top1_agreement_percent", Cell::Number(100.0 * agreement, 2))
            .with("largest_gap_nats", Cell::Number(largest_gap, 4))
            .with("mean_kl_nats", Cell::Number(self.divergence_nats / positions, 9))
            .with("perplexity", Cell::Number(self.kernels.value(), 4))
            .with("reference_perplexity", Cell::Number(self.reference.value(), 4))
            .with("change_percent", Cell::Number(100.0 * change, 4));
        let disagreements = self.disagreements.iter().map(|it| {
            Row::new(format!("position {}", it.position))
                .with("reference_token", Cell::Count(it.reference.0.into()))
                .with("kernels_token", Cell::Count(it.kernels.0.into()))
                .with("gap_nats", Cell::Number(it.gap_nats, 5))
        });
        std::iter::once(summary).chain(disagreements).collect()
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
        let section = Section { rows: comparison.rows(), notes: Vec::new() };
        expect![[r#"

            fidelity
                       top1_agreement_percent  largest_gap_nats  mean_kl_nats  perplexity  reference_perplexity  change_percent
              kernels                   50.00            0.2500   0.015401466      1.0251                1.0251          0.0000
                          reference_token  kernels_token  gap_nats
              position 1                1              2   0.25000
        "#]]
        .assert_eq(&section.table("fidelity"));
    }

    #[test]
    fn short_pieces_cover_a_piece() {
        assert_eq!(short(5..70).collect::<Vec<_>>(), [5..37, 37..69, 69..70]);
    }
}
