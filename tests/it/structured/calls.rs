//! Calls that a client asks for: `required`, one function by name, on both APIs.

use serde_json::{Value as Json, json};

use super::{TAGGED, answered, body, pool};
use crate::support::http::{Request, Server, Setup, hello};

const BARE: &str = include_str!("../../data/text/templates/json_calls.jinja");

fn server(template: &'static str) -> Server {
    Server::start(Setup { template, fake: pool(256), ..Setup::default() })
}

fn parameters() -> Json {
    json!({
        "type": "object",
        "properties": {
            "town": { "$ref": "#/$defs/town" },
            "days": { "type": "integer", "minimum": 1, "maximum": 14 },
        },
        "required": ["town", "days"],
        "additionalProperties": false,
        "$defs": { "town": { "enum": ["Graz", "Linz", "<tool_call>"] } },
    })
}

fn tools() -> Json {
    json!([
        { "type": "function",
          "function": { "name": "weather", "parameters": parameters(), "strict": true } },
        { "type": "function", "function": { "name": "now" } },
    ])
}

fn asked(fields: Json) -> Json {
    let mut body = hello(json!({ "tools": tools(), "max_tokens": 2000 }));
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

/// The names of the calls of an answer, whose arguments are as they should be.
fn called(answer: &Json) -> Vec<String> {
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
    assert_eq!(choice["message"]["content"], Json::Null, "{answer}");
    let calls = choice["message"]["tool_calls"].as_array().expect("calls");
    let name = |call: &Json| {
        let arguments = call["function"]["arguments"].as_str().expect("a text");
        let arguments: Json = serde_json::from_str(arguments).expect("JSON");
        let name = call["function"]["name"].as_str().expect("a name");
        check(name, &arguments);
        name.to_owned()
    };
    calls.iter().map(name).collect()
}

#[track_caller]
fn check(name: &str, arguments: &Json) {
    match name {
        "weather" => {
            let town = arguments["town"].as_str().expect("a text");
            assert!(["Graz", "Linz", "<tool_call>"].contains(&town), "{arguments}");
            assert!((1..=14).contains(&arguments["days"].as_i64().expect("a number")));
            assert_eq!(arguments.as_object().map(|object| object.len()), Some(2));
        }
        _ => assert_eq!((name, arguments), ("now", &json!({}))),
    }
}

#[test]
fn a_reply_that_has_to_call_does_so_and_keeps_to_the_parameters() {
    for template in [TAGGED, BARE] {
        let server = server(template);
        let mut seen = Vec::new();
        for seed in 0..10 {
            let body = asked(json!({ "tool_choice": "required", "seed": seed }));
            let names = called(&answered(&server, &body));
            assert!((1..=16).contains(&names.len()), "{names:?}");
            // What is streamed is the same.
            let mut client = server.connect();
            let mut body = body;
            body["stream"] = json!(true);
            client.stream(&body);
            let chunks = client.rest();
            let deltas = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0]);
            let streamed: Vec<&str> =
                deltas.filter_map(|call| call["function"]["name"].as_str()).collect();
            assert_eq!(streamed, names);
            seen.extend(names);
        }
        assert!(["weather", "now"].iter().all(|name| seen.contains(&(*name).to_owned())));
    }
}

#[test]
fn one_function_is_called_once_if_it_is_named_or_one_call_is_all_that_is_wanted() {
    for template in [TAGGED, BARE] {
        let server = server(template);
        for seed in 0..10 {
            let choice = json!({ "type": "function", "function": { "name": "weather" } });
            let named = asked(json!({ "tool_choice": choice, "seed": seed }));
            assert_eq!(called(&answered(&server, &named)), ["weather"]);
            let one =
                json!({ "tool_choice": "required", "parallel_tool_calls": false, "seed": seed });
            assert_eq!(called(&answered(&server, &asked(one))).len(), 1);
        }
    }
}

/// The client has the calls as names and arguments, the server as the tokens they were written as.
#[test]
fn a_call_that_was_forced_is_found_again_in_the_next_turn() {
    for template in [TAGGED, BARE] {
        let server = server(template);
        for seed in 0..5 {
            let choice = json!({ "type": "function", "function": { "name": "weather" } });
            let first = asked(json!({ "tool_choice": choice, "seed": seed }));
            let answer = answered(&server, &first);
            let message = &answer["choices"][0]["message"];
            let id = &message["tool_calls"][0]["id"];
            let result = json!({ "role": "tool", "tool_call_id": id, "content": "rain" });
            let mut next = first.clone();
            next["messages"] = json!([first["messages"][0], message, result]);
            next["tool_choice"] = json!("required");
            let after = answered(&server, &next);
            let cached = after["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
            let total = answer["usage"]["total_tokens"].as_u64().expect("a number");
            assert!(cached >= Some(total - 1), "{cached:?} of {total}");
        }
    }
}

#[test]
fn with_tools_and_a_schema_a_reply_is_the_one_or_the_other() {
    let server = server(TAGGED);
    let (mut calls, mut cards) = (0, 0);
    for seed in 0..30 {
        let mut body = body(json!({ "tools": tools(), "seed": seed, "max_tokens": 2000 }));
        // The first token decides, and it hangs on what was asked.
        body["messages"][0]["content"] = json!(format!("Hello {seed}"));
        let answer = answered(&server, &body);
        match answer["choices"][0]["finish_reason"].as_str() {
            Some("tool_calls") => {
                called(&answer);
                calls += 1;
            }
            _ => {
                super::check_card(&super::texts(&answer)[0]);
                cards += 1;
            }
        }
    }
    assert!(calls > 0, "{cards} cards");
    assert!(cards > 0, "{calls} calls");
}

fn anthropic(server: &Server, choice: Json, seed_text: usize) -> crate::support::http::Answer {
    let tool = |name: &str, schema: Json| json!({ "name": name, "input_schema": schema });
    let body = json!({
        "messages": [{ "role": "user", "content": format!("Hello {seed_text}") }],
        "max_tokens": 2000,
        "tools": [tool("weather", parameters()), tool("now", json!({ "additionalProperties": false }))],
        "tool_choice": choice,
    });
    server.send(&Request::post("/v1/messages", body.to_string()))
}

#[test]
fn anthropics_any_and_tool_force_calls_too() {
    for template in [TAGGED, BARE] {
        let server = server(template);
        for number in 0..5 {
            for (choice, is_one, is_named) in [
                (json!({ "type": "any" }), false, false),
                (json!({ "type": "any", "disable_parallel_tool_use": true }), true, false),
                (json!({ "type": "tool", "name": "weather" }), true, true),
            ] {
                let answer = anthropic(&server, choice, number);
                assert_eq!(answer.status, 200, "{answer:?}");
                let answer = answer.json();
                assert_eq!(answer["stop_reason"], "tool_use", "{answer}");
                let content = answer["content"].as_array().expect("a list");
                assert!(!content.is_empty() && (!is_one || content.len() == 1), "{answer}");
                for block in content {
                    assert_eq!(block["type"], "tool_use", "{answer}");
                    check(block["name"].as_str().expect("a name"), &block["input"]);
                    assert!(!is_named || block["name"] == "weather");
                }
            }
        }
    }
}

#[test]
fn a_choice_that_cannot_be_kept_is_refused() {
    let mut found = String::new();
    let mut refuse = |server: &Server, body: Json| {
        let answer = server.chat(&body);
        assert_eq!(answer.status, 400, "{answer:?}");
        let error = answer.error();
        let text = |name: &str| error[name].as_str().unwrap_or("none").to_owned();
        found += &format!("{}: {}\n", text("param"), text("message"));
    };
    let tagged = server(TAGGED);
    let named = |name: &str| json!({ "type": "function", "function": { "name": name } });
    refuse(&tagged, hello(json!({ "tool_choice": "required" })));
    refuse(&tagged, asked(json!({ "tool_choice": named("later") })));
    refuse(&tagged, asked(json!({ "tool_choice": { "type": "custom" } })));
    refuse(&tagged, asked(json!({ "tool_choice": { "type": "function" } })));
    refuse(&tagged, asked(json!({ "tool_choice": { "type": "function", "function": {} } })));
    refuse(&tagged, asked(json!({ "tool_choice": "required", "ignore_eos": true })));
    let mut wrong = asked(json!({ "tool_choice": "required" }));
    wrong["tools"][0]["function"]["parameters"]["$defs"]["town"] = json!({ "not": {} });
    refuse(&tagged, wrong);
    // It shows tools, but how it shows calls is not how any model writes them that is understood.
    let odd = server(
        "{{ tools | tojson }}{% for m in messages %}{{ m.content or m.tool_calls }}{% endfor %}",
    );
    refuse(&odd, asked(json!({ "tool_choice": "required" })));
    refuse(&odd, asked(json!({})));
    let mut one = asked(json!({ "parallel_tool_calls": false }));
    one["tools"][0]["function"]["strict"] = json!(null);
    refuse(&odd, one);
    expect_test::expect![[r#"
        tool_choice: tool_choice asks for a call, and there are no tools
        tool_choice.function.name: tool_choice.function.name is "later", which is none of the tools
        tool_choice.type: tool_choice.type is "custom"; it is "function"
        tool_choice.function: tool_choice.function is missing
        tool_choice.function.name: tool_choice.function.name is missing
        ignore_eos: ignore_eos does not go with a reply that is held to a format
        tools[0].function.parameters: tools[0].function.parameters/properties/town cannot be held to: not supported: ["not"]
        tool_choice: tool_choice needs calls in the model's own format; the template of fake shows none
        tools[0].function.strict: tools[0].function.strict needs calls in the model's own format; the template of fake shows none
        parallel_tool_calls: parallel_tool_calls needs calls in the model's own format; the template of fake shows none
    "#]].assert_eq(&found);
    let missing = anthropic(&tagged, json!({ "type": "tool" }), 0);
    assert_eq!(missing.json()["error"]["message"], "tool_choice.name is missing");
    let unknown = anthropic(&tagged, json!({ "type": "tool", "name": "later" }), 0);
    assert_eq!(
        unknown.json()["error"]["message"],
        "tool_choice.name is \"later\", which is none of the tools"
    );
}
