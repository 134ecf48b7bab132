//! What fewer bits in the KV cache cost: perplexity of a text that the model is led through.

use super::progress::Progress;
use super::report::{Cell, Row, Section};
use super::score::Perplexity;
use super::setup::{Setup, blocks};
use super::text::{self, Reader};
use crate::cli::output::Failure;
use crate::model::sample::argmax;
use crate::model::{Error, KvBits, KvConfig, KvPart};
use crate::types::TokenId;

const fn part(bits: KvBits, rotated: bool) -> KvPart {
    KvPart { bits, rotated }
}

/// The first is what the others are compared with.
pub const SETTINGS: &[KvConfig] = &[
    KvConfig::plain(KvBits::Sixteen),
    KvConfig::plain(KvBits::Eight),
    KvConfig { key: part(KvBits::Eight, true), value: part(KvBits::Eight, true) },
    KvConfig { key: part(KvBits::Eight, false), value: part(KvBits::Four, false) },
    KvConfig { key: part(KvBits::Eight, false), value: part(KvBits::Four, true) },
    KvConfig::plain(KvBits::Four),
    KvConfig { key: part(KvBits::Four, true), value: part(KvBits::Four, true) },
];

/// What a model made of the text with one setting.
struct Reading {
    perplexity: f64,
    /// The likeliest token after each position.
    tops: Vec<TokenId>,
    token_bytes: usize,
}

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let tokens = text::tokens(setup, setup.sizes.quality_tokens)?;
    let progress = setup.progress("kv-quality", SETTINGS.len() * tokens.len());
    let mut notes = vec![format!("{} tokens of text", tokens.len())];
    let mut readings = Vec::new();
    for &kv in SETTINGS {
        match setup.load_with(setup.compute.device, kv, blocks(tokens.len())) {
            Ok(model) => {
                let reader = Reader::new(model, &tokens, &setup.interrupt);
                readings.push((kv, read(reader, setup.summary.vocabulary, &tokens, &progress)?));
            }
            // Not for every head size there is a setting with few bits.
            Err(Error::Setting(reason)) if !readings.is_empty() => {
                notes.push(format!("{kv}: left out: {reason}"));
            }
            Err(error) => return Err(Failure::from(error)),
        }
    }
    let (_, reference) = &readings[0];
    let rows = readings.iter().map(|(kv, reading)| row(*kv, reading, reference)).collect();
    Ok(Section { rows, notes })
}

fn read(
    mut reader: Reader<'_>,
    vocabulary: usize,
    tokens: &[TokenId],
    progress: &Progress,
) -> Result<Reading, Failure> {
    let mut perplexity = Perplexity::default();
    let mut tops = Vec::new();
    for piece in text::pieces(tokens.len(), vocabulary) {
        let logits = reader.read(piece.clone())?;
        for (index, position) in piece.clone().enumerate() {
            tops.push(argmax(logits.at(index)));
            if let Some(next) = tokens.get(position + 1) {
                perplexity.add(logits.at(index), next.0 as usize);
            }
        }
        progress.advance(piece.len());
    }
    Ok(Reading { perplexity: perplexity.value(), tops, token_bytes: reader.token_bytes() })
}

fn row(kv: KvConfig, reading: &Reading, reference: &Reading) -> Row {
    let change = reading.perplexity / reference.perplexity - 1.0;
    let agreeing = reading.tops.iter().zip(&reference.tops).filter(|(a, b)| a == b).count();
    let agreement = agreeing as f64 / reading.tops.len() as f64;
    Row::new(kv.to_string())
        .with("perplexity", Cell::Number(reading.perplexity, 4))
        .with("change_percent", Cell::Number(100.0 * change, 2))
        .with("top1_agreement_percent", Cell::Number(100.0 * agreement, 2))
        .with("kv_bytes_per_token", Cell::Count(reading.token_bytes as u64))
}
