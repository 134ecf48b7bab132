//! Times works in rounds, one of ours and one of the peer's in turn, and says what each moves.
//!
//! Bytes and operations are by formula, not counted: a decode step reads every weight as it lies
//! in the file once and each sequence's KV once; a prefilled token is multiplied with every weight
//! of the layers, and the last one with the head too.

use super::driver::Driver;
use super::figure::Figure;
use super::live::Live;
use super::machine::load_average;
use super::report::{Cell, Row, Section};
use super::setup::{Setup, blocks};
use crate::cli::output::Failure;
use crate::model::{ModelSummary, Spec};

/// What is timed once per round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A prompt of so many tokens from an empty KV.
    Prefill { tokens: usize },
    /// So many tokens, one after another, after a context that is not timed.
    Decode { context: usize, tokens: usize },
    /// The same for several sequences in the same steps.
    Batch { sequences: usize, context: usize, tokens: usize },
}

impl Work {
    /// Tokens that the time is divided by.
    pub fn timed_tokens(&self) -> usize {
        match *self {
            Work::Prefill { tokens } | Work::Decode { tokens, .. } => tokens,
            Work::Batch { sequences, tokens, .. } => sequences * tokens,
        }
    }

    /// Tokens that each sequence has in the end.
    pub fn sequence_tokens(&self) -> usize {
        match *self {
            Work::Prefill { tokens } => tokens,
            Work::Decode { context, tokens } | Work::Batch { context, tokens, .. } => {
                context + tokens
            }
        }
    }

    fn sequences(&self) -> usize {
        match *self {
            Work::Prefill { .. } | Work::Decode { .. } => 1,
            Work::Batch { sequences, .. } => sequences,
        }
    }

    /// Also what is timed.
    pub fn long_name(&self) -> String {
        match self {
            Work::Prefill { .. } => format!("prefill {}", self.name()),
            Work::Decode { .. } | Work::Batch { .. } => format!("decode, {}", self.name()),
        }
    }

    fn name(&self) -> String {
        match *self {
            Work::Prefill { tokens } => format!("{tokens} tokens"),
            Work::Decode { context, .. } => format!("context {context}"),
            Work::Batch { sequences: 1, .. } => "1 sequence".to_owned(),
            Work::Batch { sequences, .. } => format!("{sequences} sequences"),
        }
    }
}

/// A work with what its rounds gave.
struct Timed {
    work: Work,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

/// The works that the model's context has room for, and a note for each of the others.
pub fn fitting(setup: &Setup<'_>, works: Vec<Work>) -> (Vec<Work>, Vec<String>) {
    let context = setup.summary.context_tokens;
    let (fitting, others): (Vec<Work>, Vec<Work>) =
        works.into_iter().partition(|work| work.sequence_tokens() <= context);
    let left_out =
        |work: &Work| format!("{}: left out, the model's context is {context}", work.name());
    (fitting, others.iter().map(left_out).collect())
}

/// Times the works that the model's context has room for.
pub fn section(setup: &Setup<'_>, suite: &str, works: Vec<Work>) -> Result<Section, Failure> {
    let (fitting, mut notes) = fitting(setup, works);
    if fitting.is_empty() {
        return Ok(Section { rows: Vec::new(), notes });
    }
    if let Some(peer) = &setup.peer {
        notes.extend(fitting.iter().find_map(|work| peer.cannot(work)));
    }
    let count = fitting.iter().map(Work::sequences).max().unwrap_or(1);
    let tokens = fitting.iter().map(Work::sequence_tokens).max().unwrap_or(1);
    let (spec, timed) = match suite {
        // What a server's clients get.
        "batch" => {
            // Each has a prompt that is kept and the copy of its last block.
            let live = Live::start(setup, 2 * count * (blocks(tokens) + 1), count)?;
            let timed = rounds(setup, suite, &mut |work| live.tokens_per_s(work), fitting)?;
            (live.spec(), timed)
        }
        _ => {
            let model = setup.load(count, tokens)?;
            let spec = model.spec().clone();
            let mut driver = Driver::new(model, count, tokens, &setup.interrupt);
            (spec, rounds(setup, suite, &mut |work| driver.tokens_per_s(work), fitting)?)
        }
    };
    let rows = timed.into_iter().map(|timed| row(setup, &spec, timed)).collect();
    notes.extend(memory_note(setup, suite));
    notes.extend(load_note(setup.threads()));
    Ok(Section { rows, notes })
}

/// One round that is not counted, then `--runs` in which ours and theirs alternate.
fn rounds(
    setup: &Setup<'_>,
    suite: &str,
    tokens_per_s: &mut dyn FnMut(&Work) -> Result<f64, Failure>,
    works: Vec<Work>,
) -> Result<Vec<Timed>, Failure> {
    let runs = setup.sizes.runs;
    let progress = setup.progress(suite, works.len() * (runs + 1));
    for work in &works {
        tokens_per_s(work)?;
        progress.advance(1);
    }
    let mut timed: Vec<Timed> = works
        .into_iter()
        .map(|work| Timed { work, ours: Vec::new(), theirs: Vec::new() })
        .collect();
    for _ in 0..runs {
        for Timed { work, ours, theirs } in &mut timed {
            ours.push(tokens_per_s(work)?);
            if let Some(peer) = &setup.peer {
                theirs.extend(peer.tokens_per_s(work, &setup.interrupt)?);
            }
            progress.advance(1);
        }
    }
    Ok(timed)
}

fn row(setup: &Setup<'_>, spec: &Spec, timed: Timed) -> Row {
    let Timed { work, ours, theirs } = timed;
    let ours = Figure::new(ours);
    let speed = ours.median();
    let mut row = Row::new(work.name()).with("tokens_per_s", Cell::Figure(ours.clone()));
    if !theirs.is_empty() {
        let theirs = Figure::new(theirs);
        let ratio = ours.ratio(&theirs);
        row = row
            .with("peer_tokens_per_s", Cell::Figure(theirs))
            .with("ratio", Cell::Number(ratio, 2));
    }
    match work {
        Work::Prefill { tokens } => {
            let operations = prefill_operations(&setup.summary, tokens);
            row.with("operations_per_token", Cell::Count(operations as u64))
                .with("gop_per_s", Cell::Number(operations * speed / 1e9, 1))
        }
        Work::Decode { .. } | Work::Batch { .. } => {
            let bytes = decode_bytes(&setup.summary, spec, &work);
            let bandwidth = bytes * speed;
            row.with("bytes_per_token", Cell::Count(bytes as u64))
                .with("gb_per_s", Cell::Number(bandwidth / 1e9, 1))
                .with("of_memory_read", Cell::Number(bandwidth / setup.read_bytes_per_s(), 2))
        }
    }
}

/// Operations of the linear layers per token: a multiplication and an addition per weight.
fn prefill_operations(summary: &ModelSummary, tokens: usize) -> f64 {
    2.0 * (summary.layer_weights as f64 + summary.head_weights as f64 / tokens as f64)
}

/// Bytes of weights and KV that a decode step reads, per token it makes.
fn decode_bytes(summary: &ModelSummary, spec: &Spec, work: &Work) -> f64 {
    let tokens = match *work {
        Work::Prefill { tokens } | Work::Decode { tokens, .. } | Work::Batch { tokens, .. } => {
            tokens
        }
    };
    let end = work.sequence_tokens();
    assert_eq!(summary.windows.len(), spec.layers.len());
    let kv = summary.windows.iter().zip(&spec.layers).map(|(window, layer)| {
        let bytes = (layer.key_bytes + layer.value_bytes) as f64;
        bytes * mean_seen(end - tokens, tokens, window.unwrap_or(end))
    });
    summary.step_bytes as f64 / work.sequences() as f64 + kv.sum::<f64>()
}

/// Tokens whose KV one of `tokens` tokens after `context` reads in a layer, on average: all before
/// it and its own, or as many of the last as the layer's window has.
fn mean_seen(context: usize, tokens: usize, window: usize) -> f64 {
    let growing = window.saturating_sub(context).min(tokens);
    // context + 1, context + 2, … and then the window again and again.
    let grown = growing * context + growing * (growing + 1) / 2;
    (grown + (tokens - growing) * window) as f64 / tokens as f64
}

fn memory_note(setup: &Setup<'_>, suite: &str) -> Option<String> {
    let is_bound_by_memory = suite != "prefill";
    is_bound_by_memory.then(|| {
        format!(
            "{} threads read {:.1} GB/s from memory here when they do nothing else",
            setup.threads(),
            setup.read_bytes_per_s() / 1e9
        )
    })
}

/// Says that others were using the cores. It hits programs unevenly: one whose threads wait for
/// each other by spinning loses many times what the others take.
pub fn load_note(threads: usize) -> Option<String> {
    /// We, or the peer, and one that does little.
    const OTHERS: f64 = 1.0;
    let load = load_average()?;
    (load > threads as f64 + OTHERS).then(|| {
        format!("the machine was busy: a load of {load:.1} for {threads} threads; do not compare")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LayerSpec;

    #[test]
    fn bytes_and_operations_follow_the_formula() {
        let summary = ModelSummary {
            kv_heads: 1,
            head_dim: 64,
            context_tokens: 1024,
            vocabulary: 100,
            windows: vec![None; 2],
            layer_weights: 1000,
            head_weights: 400,
            step_bytes: 800,
        };
        let spec = Spec {
            vocabulary: 100,
            context_tokens: 1024,
            pool_blocks: 4,
            prefill_tokens: 32,
            layers: vec![LayerSpec { key_bytes: 3, value_bytes: 2, snapshot_bytes: 0 }; 2],
            tensors: Vec::new(),
        };
        assert_eq!(prefill_operations(&summary, 4), 2.0 * (1000.0 + 100.0));
        let decode = Work::Decode { context: 100, tokens: 3 };
        assert_eq!(decode_bytes(&summary, &spec, &decode), 800.0 + 10.0 * 102.0);
        let batch = Work::Batch { sequences: 4, context: 100, tokens: 3 };
        assert_eq!(decode_bytes(&summary, &spec, &batch), 200.0 + 10.0 * 102.0);
        assert_eq!(batch.timed_tokens(), 12);
    }

    /// All layers were taken to read all of the context.
    #[test]
    fn a_layer_with_a_window_reads_no_more_than_it() {
        let layer = LayerSpec { key_bytes: 3, value_bytes: 2, snapshot_bytes: 0 };
        let spec = Spec {
            vocabulary: 100,
            context_tokens: 1024,
            pool_blocks: 4,
            prefill_tokens: 32,
            layers: vec![layer; 3],
            tensors: Vec::new(),
        };
        let summary = ModelSummary {
            kv_heads: 1,
            head_dim: 64,
            context_tokens: 1024,
            vocabulary: 100,
            windows: vec![Some(16), None, Some(102)],
            layer_weights: 1000,
            head_weights: 400,
            step_bytes: 800,
        };
        let decode = Work::Decode { context: 100, tokens: 4 };
        // 101 to 104 tokens, of which the layers see 16, all and up to 102.
        let seen = 16.0 + 102.5 + (101.0 + 3.0 * 102.0) / 4.0;
        assert_eq!(decode_bytes(&summary, &spec, &decode), 800.0 + 5.0 * seen);
        let seen = |context: usize, tokens: usize, window: usize| {
            let each = (context + 1..=context + tokens).map(|seen| seen.min(window));
            each.sum::<usize>() as f64 / tokens as f64
        };
        for window in 1..12 {
            assert_eq!(mean_seen(5, 3, window), seen(5, 3, window), "{window}");
            assert_eq!(mean_seen(0, 4, window), seen(0, 4, window), "{window}");
        }
    }
}
