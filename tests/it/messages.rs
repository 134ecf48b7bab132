//! Anthropic's messages with a served model: whole and streamed, what they report, what is refused.

mod calls;
mod ends;
mod refusals;
mod shape;

use crate::support::http::{Answer, Client, Request, Server, Setup, wait_until};
use semantic::engine;
use semantic::http::{Bounds, Rates};
use serde_json::{Value as Json, json};
use std::time::Duration;

const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";
const KEY: &str = "key-of-the-tests-1";

/// Shows all that the model could read of a conversation, and asks with a line of its own.
const PLAIN: &str = "{% if tools %}{{ tools | tojson }}{{ '\n' }}{% endif %}\
    {% for m in messages %}<{{ m.role }}>{{ m.content or '' }}\
    {% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}{% endif %}\
    {% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}\
    {% if m.name %}[{{ m.name }}]{% endif %}{{ '\n' }}{% endfor %}<assistant>";

/// The smallest valid body, with further or other fields.
fn hi(fields: Json) -> Json {
    let messages = json!([{ "role": "user", "content": "Hello" }]);
    let mut body = json!({ "model": "any", "max_tokens": 20, "messages": messages });
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

fn greedy(fields: Json) -> Json {
    let mut body = hi(fields);
    body["temperature"] = json!(0);
    body
}

fn asked(server: &Server, body: &Json) -> Answer {
    server.send(&Request::post(MESSAGES, body.to_string()))
}

fn answered(server: &Server, body: &Json) -> Json {
    let answer = asked(server, body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn counted(server: &Server, body: &Json) -> Json {
    let answer = server.send(&Request::post(COUNT, body.to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Status, type and message of a refusal, whose shape is checked.
fn refused(answer: &Answer) -> (u16, String, String) {
    let json = answer.json();
    let keys: Vec<&String> = json.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["type", "error", "request_id"], "{answer:?}");
    assert_eq!(json["type"], "error");
    assert_eq!(json["request_id"].as_str(), answer.header("x-request-id"));
    let text = |name: &str| json["error"][name].as_str().expect("a text").to_owned();
    (answer.status, text("type"), text("message"))
}

fn text(message: &Json) -> &str {
    message["content"][0]["text"].as_str().expect("a text")
}

fn tokens(message: &Json, name: &str) -> u64 {
    message["usage"][name].as_u64().expect("a number")
}

fn prompt_tokens(message: &Json) -> u64 {
    tokens(message, "input_tokens") + tokens(message, "cache_read_input_tokens")
}

/// The names of a stream's events with their data, in which the type is the name.
fn events(client: &mut Client) -> Vec<Json> {
    let event = |event: String| {
        let (name, data) = event.split_once('\n').expect("two lines");
        let data = data.strip_prefix("data: ").expect("data");
        let json: Json = serde_json::from_str(data).expect("JSON");
        assert_eq!(name.strip_prefix("event: "), json["type"].as_str());
        json
    };
    std::iter::from_fn(|| client.event()).map(event).collect()
}

fn streaming(server: &Server, body: &Json) -> Client {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let mut client = server.connect();
    let head = client.open(&Request::post(MESSAGES, body.to_string()));
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    client
}

fn streamed(server: &Server, body: &Json) -> Vec<Json> {
    events(&mut streaming(server, body))
}

/// The types of events, each run of the same once.
fn outline(events: &[Json]) -> Vec<&str> {
    let mut types: Vec<&str> =
        events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    types.dedup();
    types
}

fn streamed_text(events: &[Json]) -> String {
    events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect()
}

fn endless() -> Setup {
    Setup { is_endless: true, step: Duration::from_millis(2), ..Setup::default() }
}

fn is_idle(server: &Server) -> bool {
    let stats = server.engine().stats();
    stats.running + stats.waiting + stats.parked == 0 && stats.blocks_used == stats.blocks_evictable
}
