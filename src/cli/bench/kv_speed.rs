//! What the bits of the KV cache cost or gain in time, all settings in turn.

use super::driver::Driver;
use super::figure::Figure;
use super::kv_quality::SETTINGS;
use super::report::{Cell, Row, Section};
use super::rounds::{Work, load_note};
use super::setup::{Setup, blocks};
use crate::cli::output::Failure;

pub fn run(setup: &Setup<'_>) -> Result<Section, Failure> {
    let sizes = &setup.arguments.sizes;
    let context_max = setup.summary.context_tokens;
    let contexts =
        sizes.contexts.iter().filter(|&tokens| tokens + sizes.decode_tokens <= context_max);
    let works: Vec<Work> = contexts
        .flat_map(|&context| {
            let tokens = sizes.decode_tokens;
            [Work::Prefill { tokens: context }, Work::Decode { context, tokens }]
        })
        .collect();
    let Some(tokens) = works.iter().map(Work::sequence_tokens).max() else {
        let notes = vec![format!("left out: the model's context is {context_max}")];
        return Ok(Section { rows: Vec::new(), notes });
    };
    let mut drivers = Vec::new();
    for &kv in SETTINGS {
        let model = setup.load_with(setup.compute.device, kv, blocks(tokens))?;
        drivers.push(Driver::new(model, 1, tokens, &setup.interrupt));
    }
    let runs = setup.arguments.runs;
    let progress = setup.progress("kv-speed", works.len() * SETTINGS.len() * (runs + 1));
    // By work and setting. The first round is not counted.
    let mut speeds = vec![vec![Vec::new(); SETTINGS.len()]; works.len()];
    for round in 0..=runs {
        for (work, speeds) in works.iter().zip(&mut speeds) {
            for (driver, speeds) in drivers.iter_mut().zip(speeds) {
                let speed = driver.tokens_per_s(work)?;
                if round > 0 {
                    speeds.push(speed);
                }
                progress.advance(1);
            }
        }
    }
    let mut rows = Vec::new();
    for (work, speeds) in works.iter().zip(speeds) {
        let figures: Vec<Figure> = speeds.into_iter().map(Figure::new).collect();
        for (kv, figure) in SETTINGS.iter().zip(&figures) {
            let ratio = figure.ratio(&figures[0]);
            rows.push(
                Row::new(format!("{}, KV {kv}", work.long_name()))
                    .with("tokens_per_s", Cell::Figure(figure.clone()))
                    .with("ratio_to_16", Cell::Number(ratio, 2)),
            );
        }
    }
    Ok(Section { rows, notes: load_note(setup.threads()).into_iter().collect() })
}
