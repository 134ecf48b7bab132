//! Whatever a model with random weights says, it is what its schema allows.

use serde_json::{Map, Value as Json, json};

use super::format;
use crate::support::cli::Machine;
use crate::support::golden::data;
use crate::support::http::{Request, hello};
use crate::support::process::Process;
use crate::support::random::Random;
use crate::support::scale::scaled;

const REPLIES: usize = 500;
/// Clients at a time.
const CLIENTS: usize = 4;

/// A schema whose values take a model of bytes three hundred tokens at most, or nearly so.
fn schema(random: &mut Random, depth: usize) -> Json {
    let kinds = if depth == 0 { 7 } else { 10 };
    match random.range(0..kinds) {
        0 => {
            let least = random.range(0..3);
            json!({ "type": "string", "minLength": least, "maxLength": least + random.range(0..6) })
        }
        1 => {
            let least = random.range(0..1000) as i64 - 500;
            json!({ "type": "integer", "minimum": least, "maximum": least + random.range(0..5000) as i64 })
        }
        2 => json!({ "type": "boolean" }),
        3 => json!({ "enum": ["yes", "no", null, 7, -1.5, { "a": [] }, "\"quoted\" \\ é"] }),
        4 => json!({ "type": "string", "pattern": "^[A-Z][a-z]{0,4}-[0-9]{2}$" }),
        5 => json!({ "type": ["null", "boolean"] }),
        6 => json!({ "type": "string", "format": "date" }),
        7 => {
            let items = schema(random, depth - 1);
            let least = random.range(0..2);
            json!({ "type": "array", "items": items, "minItems": least, "maxItems": least + random.range(0..3) })
        }
        8 => json!({ "anyOf": [schema(random, depth - 1), schema(random, depth - 1)] }),
        _ => object(random, depth - 1),
    }
}

fn object(random: &mut Random, depth: usize) -> Json {
    let names = ["a", "name", "it's", "\u{e9}t\u{e9}", "long name of a thing"];
    let first = random.range(0..names.len());
    let mut properties = Map::new();
    let mut required = Vec::new();
    for index in 0..random.range(1..4) {
        let name = names[(first + index) % names.len()];
        properties.insert(name.to_owned(), schema(random, depth));
        if random.range(0..2) == 0 {
            required.push(name);
        }
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// Whether a value is what a schema of those above allows; by hand, so that it is not the library's own
/// idea of it.
fn is_valid(schema: &Json, value: &Json) -> bool {
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().any(|schema| is_valid(schema, value));
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.contains(value);
    }
    let size = |name: &str| schema[name].as_u64();
    let is_within = |count: usize, least: &str, most: &str| {
        let count = count as u64;
        size(least).is_none_or(|least| count >= least)
            && size(most).is_none_or(|most| count <= most)
    };
    match (&schema["type"], value) {
        (Json::Array(_), value) => value.is_null() || value.is_boolean(),
        (kind, Json::Bool(_)) => kind == "boolean",
        (kind, Json::Number(number)) => {
            let range = schema["minimum"].as_i64()..=schema["maximum"].as_i64();
            kind == "integer" && number.is_i64() && range.contains(&number.as_i64())
        }
        (kind, Json::String(text)) => {
            kind == "string"
                && is_within(text.chars().count(), "minLength", "maxLength")
                && schema.get("pattern").is_none_or(|_| is_code(text))
                && schema.get("format").is_none_or(|_| is_date(text))
        }
        (kind, Json::Array(items)) => {
            kind == "array"
                && is_within(items.len(), "minItems", "maxItems")
                && items.iter().all(|item| is_valid(&schema["items"], item))
        }
        (kind, Json::Object(fields)) => {
            let required = schema["required"].as_array().into_iter().flatten();
            kind == "object"
                && required.filter_map(Json::as_str).all(|name| fields.contains_key(name))
                && fields.iter().all(|(name, value)| {
                    schema["properties"].get(name).is_some_and(|schema| is_valid(schema, value))
                })
        }
        (_, Json::Null) => false,
    }
}

/// `^[A-Z][a-z]{0,4}-[0-9]{2}$`
fn is_code(text: &str) -> bool {
    let Some((word, number)) = text.split_once('-') else { return false };
    let mut letters = word.chars();
    letters.next().is_some_and(|c| c.is_ascii_uppercase())
        && letters.clone().count() <= 4
        && letters.all(|c| c.is_ascii_lowercase())
        && number.len() == 2
        && number.chars().all(|c| c.is_ascii_digit())
}

fn is_date(text: &str) -> bool {
    let parts: Vec<Option<u32>> = text.split('-').map(|part| part.parse().ok()).collect();
    let [Some(_), Some(month), Some(day)] = parts[..] else { return false };
    (1..=12).contains(&month) && (1..=31).contains(&day) && text.len() == 10
}

#[test]
fn the_check_of_the_replies_finds_what_is_wrong() {
    let wrong = [
        (json!({ "type": "string", "maxLength": 2 }), json!("abc")),
        (json!({ "type": "integer", "minimum": 1, "maximum": 3 }), json!(4)),
        (json!({ "type": "integer", "minimum": 1, "maximum": 3 }), json!(2.5)),
        (json!({ "type": "boolean" }), json!("true")),
        (json!({ "enum": ["a"] }), json!("b")),
        (json!({ "type": "string", "pattern": "" }), json!("Ab-1")),
        (json!({ "type": "string", "format": "date" }), json!("2024-13-01")),
        (json!({ "type": ["null", "boolean"] }), json!(0)),
        (
            json!({ "type": "array", "items": { "type": "boolean" }, "maxItems": 1 }),
            json!([true, true]),
        ),
        (json!({ "type": "object", "properties": {}, "required": [] }), json!({ "a": 1 })),
        (json!({ "type": "object", "properties": { "a": {} }, "required": ["a"] }), json!({})),
        (json!({ "anyOf": [{ "type": "boolean" }] }), json!(null)),
        (json!({ "anyOf": [{ "type": "string" }] }), json!({ "a": [] })),
    ];
    for (schema, value) in wrong {
        assert!(!is_valid(&schema, &value), "{schema} {value}");
    }
}

#[test]
fn whatever_a_model_with_random_weights_says_is_valid() {
    let machine = Machine::new();
    let model = data("tiny/llama-f16").display().to_string();
    let process = Process::serving(&machine, &model, &[]);
    let replies = scaled(REPLIES);
    let seen: Vec<usize> = std::thread::scope(|scope| {
        let process = &process;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || {
                    let mut connection = process.client();
                    let mut tokens = 0;
                    for number in (client..replies).step_by(CLIENTS) {
                        let schema = object(&mut Random::new(number as u64), 1);
                        let body = hello(json!({
                            "response_format": format(&schema), "temperature": 1, "seed": number,
                        }));
                        let answer = connection.send(&Request::chat(&body));
                        assert_eq!(answer.status, 200, "{schema}: {answer:?}");
                        let answer = answer.json();
                        let choice = &answer["choices"][0];
                        let text = choice["message"]["content"].as_str().expect("a text");
                        assert_eq!(choice["finish_reason"], "stop", "{number}: {schema}: {text}");
                        let value: Json = serde_json::from_str(text)
                            .unwrap_or_else(|error| panic!("{number}: {error}: {text}"));
                        assert!(is_valid(&schema, &value), "{number}: {schema}: {text}");
                        tokens += answer["usage"]["completion_tokens"].as_u64().unwrap() as usize;
                    }
                    tokens
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("no panic")).collect()
    });
    let tokens: usize = seen.iter().sum();
    assert!(tokens > replies * 5, "they say something");
}
