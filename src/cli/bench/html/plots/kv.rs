//! What fewer bits of the KV cache cost in quality, and what they save.

use super::super::lines::{Axis, Colour};
use super::super::number::number;
use super::super::scale::Scale;
use super::super::strips::{Placed, Sign, Strip, Strips};
use super::{Chart, Plot, Report, Row, number_in, plain, rows};

const CHANGE: &str = "change_percent";

pub fn plot(report: &Report) -> Option<Plot> {
    let rows = rows(report, "kv-quality");
    let changes = rows.iter().filter_map(|row| number_in(row, CHANGE));
    let scale = Scale::linear(changes)?;
    Some(Plot {
        finding: finding(report, rows),
        about: "Perplexity of the same text by bits of keys and values (r: rotated), against 16 \
                bits of both; beside it how often the most likely token stays the same.",
        chart: Chart::Strips(Strips {
            axis: Axis {
                name: "% change of perplexity, less is better".into(),
                scale,
                write: plain,
            },
            key: Vec::new(),
            rows: rows.iter().filter_map(strip).collect(),
        }),
    })
}

fn strip(row: &Row) -> Option<Strip> {
    let change = number_in(row, CHANGE)?;
    let agreement = number_in(row, "top1_agreement_percent");
    let bytes = number_in(row, "kv_bytes_per_token");
    let values = [
        Some(format!("{} %", signed(change))),
        agreement.map(|percent| format!("{} % same token", number(percent))),
        bytes.map(|bytes| format!("{} bytes/token", number(bytes))),
    ];
    let values = values.into_iter().flatten().collect();
    let bar = Placed { sign: Sign::Bar, colour: Colour::Ours, value: change, range: None };
    Some(Strip { name: row.name.clone(), values, signs: vec![bar] })
}

fn signed(value: f64) -> String {
    // What is shown as nothing has no sign.
    match value {
        _ if value.abs() < 0.0005 => "0".to_owned(),
        _ if value > 0.0 => format!("+{value:.2}"),
        _ => format!("−{:.2}", value.abs()),
    }
}

/// About the setting that was used, against 16 bits.
fn finding(report: &Report, rows: &[Row]) -> String {
    let used = report.settings.get("kv_bits").and_then(|bits| bits.as_str()).unwrap_or("8/8");
    let named = |name: &str| rows.iter().find(|row| row.name == name);
    let found = named(used).and_then(|row| {
        let whole = number_in(named("16/16")?, "kv_bytes_per_token")?;
        let share = number_in(row, "kv_bytes_per_token")? / whole;
        Some((number_in(row, CHANGE)?, share))
    });
    match found {
        Some((change, share)) => format!(
            "KV bits {used}: {} % of the memory of 16 bits, perplexity {} %",
            number((100.0 * share).round()),
            signed(change)
        ),
        None => "Perplexity by bits of the KV cache".to_owned(),
    }
}
