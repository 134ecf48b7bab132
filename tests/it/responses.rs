//! OpenAI's responses with a served model: whole and streamed, with tools, and from an earlier one.

mod calls;
mod keeping;
mod previous;
mod refusals;
mod shape;
mod thinking;

use crate::support::http::{Answer, Client, Request, Server, Setup, wait_until};
use crate::support::store::{Failing, ShakyDisk};
use semantic::http::Bounds;
use serde_json::{Value as Json, json};
use std::time::Duration;

const RESPONSES: &str = "/v1/responses";
const TAGGED: &str = include_str!("../data/text/templates/tagged_calls.jinja");

/// Shows all that the model could read of a conversation, and asks with a line of its own.
const PLAIN: &str = "{% if tools %}{{ tools | tojson }}{{ '\n' }}{% endif %}\
    {% for m in messages %}<{{ m.role }}>{{ m.content or '' }}\
    {% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}{% endif %}\
    {% if m.name %}[{{ m.name }}]{% endif %}{{ '\n' }}{% endfor %}<assistant>";

/// The smallest body, with further or other fields; the same is said to it each time.
fn hi(fields: Json) -> Json {
    let mut body =
        json!({ "model": "any", "input": "Hello", "max_output_tokens": 20, "temperature": 0 });
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

fn asked(server: &Server, body: &Json) -> Answer {
    server.send(&Request::post(RESPONSES, body.to_string()))
}

fn answered(server: &Server, body: &Json) -> Json {
    let answer = asked(server, body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The next turn after a response.
fn after(server: &Server, response: &Json, input: &str) -> Json {
    answered(server, &hi(json!({ "previous_response_id": response["id"], "input": input })))
}

fn text(response: &Json) -> &str {
    response["output"][0]["content"][0]["text"].as_str().expect("a text")
}

fn tokens(response: &Json, name: &str) -> u64 {
    response["usage"][name].as_u64().expect("a number")
}

fn cached(response: &Json) -> u64 {
    response["usage"]["input_tokens_details"]["cached_tokens"].as_u64().expect("a number")
}

fn code(answer: &Answer) -> (u16, Json, Json) {
    let error = answer.error();
    (answer.status, error["code"].clone(), error["param"].clone())
}

fn streaming(server: &Server, body: &Json) -> Client {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let mut client = server.connect();
    let head = client.open(&Request::post(RESPONSES, body.to_string()));
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    client
}

/// An event, whose name is its type.
fn event(client: &mut Client) -> Option<Json> {
    let event = client.event()?;
    let (name, data) = event.split_once('\n').expect("two lines");
    let data = data.strip_prefix("data: ").expect("data");
    let json: Json = serde_json::from_str(data).expect("JSON");
    assert_eq!(name.strip_prefix("event: "), json["type"].as_str());
    Some(json)
}

/// All events that are still to come, whose numbers are checked.
fn events(client: &mut Client, first: usize) -> Vec<Json> {
    let events: Vec<Json> = std::iter::from_fn(|| event(client)).collect();
    for (number, event) in (first..).zip(&events) {
        assert_eq!(event["sequence_number"], number, "{events:?}");
    }
    events
}

fn streamed(server: &Server, body: &Json) -> Vec<Json> {
    events(&mut streaming(server, body), 0)
}

/// The types of events, each run of the same once.
fn outline(events: &[Json]) -> Vec<&str> {
    let mut types: Vec<&str> =
        events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    types.dedup();
    types
}

fn deltas(events: &[Json], name: &str) -> String {
    let of_name = events.iter().filter(|event| event["type"] == name);
    of_name.filter_map(|event| event["delta"].as_str()).collect()
}

/// Says four things and then speaks for itself; what is asked again is answered again.
fn speaking() -> Setup {
    let replies = vec!["Good morning.", "It is late.", "Nothing is.", "It was a pleasure."];
    Setup { replies, ..Setup::default() }
}

fn endless() -> Setup {
    Setup { is_endless: true, step: Duration::from_millis(2), ..Setup::default() }
}

fn is_idle(server: &Server) -> bool {
    let stats = server.engine().stats();
    stats.running + stats.waiting + stats.parked == 0 && stats.blocks_used == stats.blocks_evictable
}
