//! Bodies that nobody means: each is the client's mistake, and the server lives on.

use serde_json::{Value as Json, json};

use super::client::Client;
use super::mutant::{Dice, mutant};
use super::{Host, UNLIMITED, chat};
use crate::cli::bench::report::{Cell, Row};
use crate::cli::output::Failure;

const BODIES: usize = 10_000;
/// Any will do; the same in every run.
const SEED: u64 = 0x5eed;

pub fn rows(host: &Host<'_>) -> Result<Vec<Row>, Failure> {
    let mut server = host.serving("malformed", &UNLIMITED)?;
    let count = host.share(BODIES);
    let (mut dice, whole) = (Dice::new(SEED), whole());
    // Ok, the client's mistake in our shape, in another shape, the server's, none.
    let mut counts = [0_u64; 5];
    host.block_on(async {
        let mut connection = Client::connect(server.address).await?;
        for _ in 0..count {
            let answer = connection.post("mutant", &mutant(&mut dice, &whole)).await;
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

/// A request with many fields. Without the one limit of its length it still has the other.
fn whole() -> Json {
    let mut whole = chat("Hello", 1);
    whole["stop"] = json!(["a", "b"]);
    whole["top_p"] = json!(0.5);
    whole["max_completion_tokens"] = json!(1);
    whole["seed"] = json!(7);
    whole["user"] = json!("me");
    whole
}
