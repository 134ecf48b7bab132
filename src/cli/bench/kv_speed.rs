//! What the bits of the KV cache cost or gain in time: each setting beside 16 bits.
//!
//! Two models are in memory at a time. The rounds of a setting alternate with those of 16 bits, so
//! a ratio is of figures taken in the same minutes; those of two settings are not.

use super::driver::Driver;
use super::figure::Figure;
use super::kv_quality::SETTINGS;
use super::progress::Progress;
use super::report::{Cell, Row, Section};
use super::rounds::{self, Work, load_note};
use super::setup::{Setup, blocks};
use crate::cli::output::Failure;
use crate::model::{Error, KvConfig};

/// What the rounds of one work gave, of a setting and of 16 bits.
#[derive(Default)]
struct Speeds {
    setting: Vec<f64>,
    reference: Vec<f64>,
}

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let sizes = &setup.sizes;
    let works = sizes.contexts.iter().flat_map(|&context| {
        let tokens = sizes.decode_tokens;
        [Work::Prefill { tokens: context }, Work::Decode { context, tokens }]
    });
    let (works, mut notes) = rounds::fitting(setup, works.collect());
    let Some(tokens) = works.iter().map(Work::sequence_tokens).max() else {
        return Ok(Section { rows: Vec::new(), notes });
    };
    let load = |kv| {
        let model = setup.load_with(setup.compute.device, kv, blocks(tokens))?;
        Ok::<_, Error>(Driver::new(model, 1, tokens, &setup.interrupt))
    };
    let (reference_kv, others) = SETTINGS.split_first().expect("there is a reference");
    let rounds = works.len() * (setup.sizes.runs + 1);
    let progress = setup.progress("kv-speed", 2 * others.len() * rounds);
    let mut reference = load(*reference_kv)?;
    // By setting and work.
    let mut measured = Vec::new();
    for &kv in others {
        match load(kv) {
            Ok(mut driver) => {
                let pair = Pair { setting: &mut driver, reference: &mut reference };
                measured.push((kv, pair.measure(&works, setup.sizes.runs, &progress)?));
            }
            // Not for every head size there is a setting with few bits or a rotation.
            Err(Error::Setting(reason)) => notes.push(format!("{kv}: left out: {reason}")),
            Err(error) => return Err(Failure::from(error)),
        }
    }
    let rows = works.iter().enumerate().flat_map(|(index, work)| {
        measured.iter().map(move |(kv, speeds)| row(work, *kv, &speeds[index]))
    });
    let rows = rows.collect();
    notes.extend(load_note(setup.threads()));
    Ok(Section { rows, notes })
}

/// The two models that are in memory.
struct Pair<'a, 'b> {
    setting: &'a mut Driver<'b>,
    reference: &'a mut Driver<'b>,
}

impl Pair<'_, '_> {
    /// The speeds of each work. The first round is not counted.
    fn measure(
        self,
        works: &[Work],
        runs: usize,
        progress: &Progress,
    ) -> Result<Vec<Speeds>, Failure> {
        let mut all: Vec<Speeds> = works.iter().map(|_| Speeds::default()).collect();
        for round in 0..=runs {
            for (work, speeds) in works.iter().zip(&mut all) {
                let reference = self.reference.tokens_per_s(work)?;
                let setting = self.setting.tokens_per_s(work)?;
                if round > 0 {
                    speeds.reference.push(reference);
                    speeds.setting.push(setting);
                }
                progress.advance(2);
            }
        }
        Ok(all)
    }
}

fn row(work: &Work, kv: KvConfig, speeds: &Speeds) -> Row {
    let setting = Figure::new(speeds.setting.clone());
    let reference = Figure::new(speeds.reference.clone());
    let ratio = setting.ratio(&reference);
    Row::new(format!("{}, KV {kv}", work.long_name()))
        .with("tokens_per_s", Cell::Figure(setting))
        .with("tokens_per_s_at_16", Cell::Figure(reference))
        .with("ratio_to_16", Cell::Number(ratio, 2))
}
