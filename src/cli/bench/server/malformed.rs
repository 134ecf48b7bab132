//! Bodies that nobody means: each is the client's mistake, and the server lives on.

use serde_json::{Value as Json, json};

use super::client::Client;
use super::{Host, UNLIMITED, chat};
use crate::cli::bench::report::{Cell, Row};
use crate::cli::output::Failure;

const BODIES: usize = 10_000;
/// Bytes of JSON that matter to its grammar, and some that no text has.
const NOISE: &[u8] = b"{}[]\",:0123456789-+.eE\\utfnl \n\x00\x7f\xff\xc3";
/// What no field takes.
const ODD: &[&str] = &[
    "null",
    "-1",
    "1e309",
    "-0.0",
    "18446744073709551616",
    "\"\"",
    "[]",
    "{}",
    "true",
    "[[[[]]]]",
    "\"\\ud800\"",
    "NaN",
    "1.5",
    "[null]",
];

pub fn rows(host: &Host<'_>) -> Result<Vec<Row>, Failure> {
    let mut server = host.serving("malformed", &UNLIMITED)?;
    let count = host.share(BODIES);
    let mut dice = Dice(0x5eed);
    // Ok, the client's mistake in our shape, in another shape, the server's, none.
    let mut counts = [0_u64; 5];
    host.block_on(async {
        let mut connection = Client::connect(server.address).await?;
        for _ in 0..count {
            let answer = connection.post("mutant", &body(&mut dice)).await;
            let is_last = answer.as_ref().map_or(true, |answer| answer.is_last);
            counts[class(answer.ok().map(|answer| (answer.status, answer.json())))] += 1;
            if is_last {
                connection = Client::connect(server.address).await?;
            }
        }
        std::io::Result::Ok(())
    })?;
    host.setup.interrupt.check()?;
    let is_alive = host.block_on(async {
        let answer = async { Client::connect(server.address).await?.get("/health/ready").await };
        answer.await.is_ok_and(|answer| answer.status == 200)
    }) && server.try_wait()?.is_none();
    let [ok, refused, shapeless, failed, unanswered] = counts;
    let holds = shapeless + failed + unanswered == 0 && is_alive;
    let row = Row::new(format!("{count} malformed bodies"))
        .with("http_2xx", Cell::Count(ok))
        .with("http_4xx", Cell::Count(refused))
        .with("other_shape", Cell::Count(shapeless))
        .with("http_5xx", Cell::Count(failed))
        .with("unanswered", Cell::Count(unanswered))
        .with("ready_after", Cell::Text(if is_alive { "yes" } else { "no" }.into()))
        .with("promise", Cell::Verdict(holds));
    Ok(vec![row])
}

fn class(answer: Option<(u16, Json)>) -> usize {
    match answer {
        Some((200..=299, _)) => 0,
        Some((400..=499, body)) if body["error"]["message"].is_string() => 1,
        Some((400..=499, _)) => 2,
        Some(_) => 3,
        None => 4,
    }
}

/// A request with a mistake or several.
fn body(dice: &mut Dice) -> Vec<u8> {
    let mut whole = chat("Hello", 1);
    whole["stop"] = json!(["a", "b"]);
    whole["top_p"] = json!(0.5);
    whole["stream_options"] = json!({ "include_usage": true });
    let fields: Vec<String> =
        whole.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
    let mut text = whole.to_string();
    if dice.below(2) == 0 {
        // One value is another.
        let field = &fields[dice.below(fields.len())];
        let old = format!("\"{field}\":{}", whole[field.as_str()]);
        text = text.replace(&old, &format!("\"{field}\":{}", ODD[dice.below(ODD.len())]));
    }
    let mut bytes = text.into_bytes();
    for _ in 0..dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(4) {
            0 => bytes[at] = NOISE[dice.below(NOISE.len())],
            1 => bytes.insert(at, NOISE[dice.below(NOISE.len())]),
            2 if bytes.len() > 1 => drop(bytes.remove(at)),
            _ => bytes.truncate(at + 1),
        }
    }
    bytes
}

/// SplitMix64: the same bodies in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
