//! Strict functions where the model may call or not: text is free, and a call keeps to its function.

use serde_json::{Value as Json, json};

use super::{TAGGED, answered, pool};
use crate::support::http::{Request, Server, Setup, hello};

const BARE: &str = include_str!("../../data/text/templates/json_calls.jinja");

/// What a model would say that is held to nothing.
const WRONG: &str = "I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": \"Paris\", \"x\": 1}}\n</tool_call>";
const TWO_CALLS: &str = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n\
    <tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
/// A reply that would be a call of a model whose calls have no tags.
const UNTAGGED: &str = "{\"name\": \"weather\", \"arguments\": {\"town\": 1}}";

fn server(template: &'static str, replies: &[&'static str]) -> Server {
    Server::start(Setup {
        template,
        fake: pool(256),
        replies: replies.to_vec(),
        ..Setup::default()
    })
}

fn weather() -> Json {
    json!({
        "type": "object",
        "properties": { "town": { "enum": ["Graz", "Linz"] } },
        "required": ["town"],
        "additionalProperties": false,
    })
}

fn asked(fields: Json) -> Json {
    let mut body = hello(json!({
        "max_tokens": 2000,
        "tools": [
            { "type": "function",
              "function": { "name": "weather", "parameters": weather(), "strict": true } },
            // It could not be held to its parameters, and is not.
            { "type": "function", "function": { "name": "now", "parameters": { "not": {} } } },
        ],
    }));
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

/// The names of the calls of a message, whose arguments are as they should be.
fn called(message: &Json) -> Vec<String> {
    let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |call: &Json| {
        let arguments = call["function"]["arguments"].as_str().expect("a text");
        let arguments: Json = serde_json::from_str(arguments).expect("JSON");
        let name = call["function"]["name"].as_str().expect("a name");
        assert!(arguments.is_object());
        if name == "weather" {
            let town = arguments["town"].as_str();
            assert!(town == Some("Graz") || town == Some("Linz"), "{arguments}");
            assert_eq!(arguments.as_object().map(serde_json::Map::len), Some(1));
        }
        name.to_owned()
    };
    calls.iter().map(name).collect()
}

#[test]
fn a_call_that_the_model_chooses_to_make_keeps_to_a_strict_function() {
    // It says no more itself, so that the rest is drawn at random among what is allowed.
    for (template, begun) in [(TAGGED, "Well.\n<tool_call>"), (BARE, "{\"name\": \"")] {
        for seed in 0..20 {
            let server = server(template, &[begun]);
            let mut body = asked(json!({ "seed": seed, "temperature": 1 }));
            // What is not strict may go on without end.
            body["tools"].as_array_mut().expect("a list").pop();
            let message = &answered(&server, &body)["choices"][0]["message"];
            let names = called(message);
            assert!(!names.is_empty(), "{message}");
        }
        let server = server(template, &["Well."]);
        let message = &answered(&server, &asked(json!({})))["choices"][0]["message"];
        assert_eq!(message["content"], "Well.", "{message}");
    }
}

#[test]
fn the_text_before_a_call_is_the_models_and_what_the_call_may_not_say_is_not_said() {
    let server = server(TAGGED, &[WRONG]);
    let message = &answered(&server, &asked(json!({})))["choices"][0]["message"];
    let content = message["content"].as_str().expect("a text");
    assert!(content.starts_with("I look."), "{message}");
    assert_eq!(called(message), ["weather"]);
}

#[test]
fn there_is_one_call_where_they_may_not_be_parallel() {
    let calls = |fields: Json| {
        let answer = answered(&server(TAGGED, &[TWO_CALLS]), &asked(fields));
        called(&answer["choices"][0]["message"]).len()
    };
    assert_eq!(calls(json!({})), 2);
    assert_eq!(calls(json!({ "parallel_tool_calls": false })), 1);
    let body = json!({
        "messages": [{ "role": "user", "content": "Hi" }],
        "max_tokens": 2000,
        "tools": [{ "name": "now", "input_schema": {} }],
        "tool_choice": { "type": "auto", "disable_parallel_tool_use": true },
    });
    let answer =
        server(TAGGED, &[TWO_CALLS]).send(&Request::post("/v1/messages", body.to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    let blocks = answer["content"].as_array().expect("a list").iter();
    assert_eq!(blocks.filter(|block| block["type"] == "tool_use").count(), 1, "{answer}");
}

#[test]
fn anthropics_strict_tools_are_kept_to_as_well() {
    let server = server(TAGGED, &[WRONG]);
    let body = json!({
        "messages": [{ "role": "user", "content": "Hi" }],
        "max_tokens": 2000,
        "tools": [{ "name": "weather", "input_schema": weather(), "strict": true }],
    });
    let answer = server.send(&Request::post("/v1/messages", body.to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
    let blocks = &answer.json()["content"];
    let said = blocks[0]["text"].as_str().expect("a text");
    assert_eq!((said.trim(), &blocks[1]["name"]), ("I look.", &json!("weather")), "{blocks}");
    let town = blocks[1]["input"]["town"].as_str().expect("a text").to_owned();
    assert!(town == "Graz" || town == "Linz", "{town}");
}

/// It has no tags, so nothing has held it to anything.
#[test]
fn what_only_looks_like_a_call_of_another_model_is_text() {
    let server = server(TAGGED, &[UNTAGGED, UNTAGGED]);
    let message = &answered(&server, &asked(json!({})))["choices"][0]["message"];
    assert_eq!((&message["content"], &message["tool_calls"]), (&json!(UNTAGGED), &Json::Null));
    let mut free = asked(json!({}));
    free["tools"][0]["function"]["strict"] = json!(false);
    let message = &answered(&server, &free)["choices"][0]["message"];
    assert_eq!(message["tool_calls"][0]["function"]["name"], "weather", "{message}");
}

#[test]
fn json_of_a_schema_is_no_call_where_calls_have_tags() {
    let server = server(TAGGED, &["{\"name\": \"now\", \"arguments\": {}}"]);
    let schema = json!({
        "type": "object",
        "properties": { "name": { "const": "now" }, "arguments": { "maxProperties": 0 } },
        "required": ["name", "arguments"],
        "additionalProperties": false,
    });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
    let mut body = asked(json!({ "response_format": format }));
    // This one has parameters that nothing could be held to.
    body["tools"].as_array_mut().expect("a list")[1]["function"] = json!({ "name": "now" });
    let message = &answered(&server, &body)["choices"][0]["message"];
    assert_eq!(message["tool_calls"], Json::Null, "{message}");
    let card = message["content"].as_str().expect("a text");
    let card: Json = serde_json::from_str(card).expect("JSON");
    assert_eq!(card["name"], "now");
}
