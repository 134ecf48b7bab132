//! Replies that are held to a format, over a socket: JSON of a schema, and calls that a client asks for.

mod calls;
mod random;
mod strict;

use serde::de::IgnoredAny;
use serde_json::{Value as Json, json};

use crate::support::http::{Request, Server, Setup, hello};
use semantic::model::fake::{FakeConfig, Memory};

const TAGGED: &str = include_str!("../data/text/templates/tagged_calls.jinja");

/// A card that any model finishes within a few hundred tokens.
fn card() -> Json {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 20 },
            "age": { "type": "integer", "minimum": 0, "maximum": 130 },
            "colours": {
                "type": "array", "items": { "enum": ["red", "green", "blue"] }, "maxItems": 4,
            },
        },
        "required": ["name", "age", "colours"],
        "additionalProperties": false,
    })
}

fn format(schema: &Json) -> Json {
    json!({ "type": "json_schema", "json_schema": { "name": "card", "schema": schema } })
}

fn body(fields: Json) -> Json {
    let mut body = hello(json!({ "response_format": format(&card()), "max_tokens": 800 }));
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

fn pool(pool_blocks: usize) -> FakeConfig {
    FakeConfig { vocabulary: 902, context_tokens: 8192, pool_blocks, memory: Memory::Tokens }
}

fn answered(server: &Server, body: &Json) -> Json {
    let answer = server.chat(body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The texts of all choices, which came to their end.
fn texts(answer: &Json) -> Vec<String> {
    let choices = answer["choices"].as_array().expect("a list");
    let text = |choice: &Json| {
        assert_eq!(choice["finish_reason"], "stop", "{choice}");
        choice["message"]["content"].as_str().expect("a text").to_owned()
    };
    choices.iter().map(text).collect()
}

#[track_caller]
fn check_card(text: &str) {
    let card: Json = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert!(card["name"].as_str().expect("a text").chars().count() <= 20, "{text}");
    assert!((0..=130).contains(&card["age"].as_i64().expect("a number")), "{text}");
    for colour in card["colours"].as_array().expect("a list") {
        assert!(["red", "green", "blue"].contains(&colour.as_str().expect("a text")), "{text}");
    }
    assert_eq!(card.as_object().expect("an object").len(), 3, "{text}");
}

/// The text of a stream, and why it ended.
fn streamed(server: &Server, body: &Json) -> (String, Json) {
    let mut client = server.connect();
    let mut body = body.clone();
    body["stream"] = json!(true);
    client.stream(&body);
    let mut chunks = client.rest();
    assert_eq!(chunks.pop(), Some(json!("[DONE]")));
    let choices = chunks.iter().map(|chunk| &chunk["choices"][0]);
    let text = choices.clone().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
    let finish = choices.map(|choice| &choice["finish_reason"]).find(|finish| !finish.is_null());
    (text, finish.expect("it ends").clone())
}

/// Its prompt ends with an opened tag, and what is held to JSON never closes it.
#[test]
fn a_model_that_is_made_to_think_answers_in_json_at_once() {
    let template = include_str!("../data/text/templates/opened.jinja");
    let server = Server::start(Setup { template, ..Setup::default() });
    let answer = answered(&server, &body(json!({})));
    check_card(&texts(&answer)[0]);
    assert_eq!(answer["choices"][0]["message"].get("reasoning_content"), None);
    let (text, finish) = streamed(&server, &body(json!({})));
    check_card(&text);
    assert_eq!(finish, "stop");
}

#[test]
fn a_reply_keeps_to_its_schema_at_any_temperature_whole_and_streamed() {
    let server = Server::new();
    for temperature in [0.0, 1.0, 2.0] {
        for seed in 0..4 {
            for filters in [json!({}), json!({ "top_k": 2, "min_p": 0.3 }), json!({ "top_p": 0.2 })]
            {
                let mut body = body(json!({ "temperature": temperature, "seed": seed }));
                body.as_object_mut().unwrap().extend(filters.as_object().unwrap().clone());
                let text = texts(&answered(&server, &body)).remove(0);
                check_card(&text);
                assert_eq!(streamed(&server, &body), (text, json!("stop")));
            }
        }
    }
}

#[test]
fn a_json_object_is_one() {
    let server = Server::new();
    let format = json!({ "type": "json_object" });
    let mut whole = 0;
    for seed in 0..20 {
        let body = body(json!({ "response_format": format, "seed": seed, "max_tokens": 100 }));
        let answer = answered(&server, &body);
        let choice = &answer["choices"][0];
        let text = choice["message"]["content"].as_str().expect("a text");
        assert!(text.starts_with('{'), "{text}");
        match choice["finish_reason"].as_str() {
            Some("stop") => {
                // A number may be beyond any float, and is JSON for all that.
                serde_json::from_str::<IgnoredAny>(text).expect("it is JSON");
                whole += 1;
            }
            finish => assert_eq!(
                (finish, &answer["usage"]["completion_tokens"]),
                (Some("length"), &json!(100))
            ),
        }
    }
    assert!(whole > 0, "none came to its end");
}

/// A draw depends on nothing but its own seed and number: neither on what else is in the batch nor on
/// whether it is held to anything.
#[test]
fn neighbours_that_are_held_to_a_schema_change_nobodys_answer() {
    let alone = Server::new();
    let free = |seed: u64| hello(json!({ "seed": seed, "max_tokens": 60, "ignore_eos": true }));
    let held = |seed: u64| body(json!({ "seed": seed }));
    let expected: Vec<Json> = (0..6)
        .flat_map(|seed| [free(seed), held(seed)])
        .map(|body| answered(&alone, &body)["choices"].clone())
        .collect();
    let together = Server::new();
    std::thread::scope(|scope| {
        let bodies = (0..6).flat_map(|seed| [free(seed), held(seed)]);
        let together = &together;
        let asked: Vec<_> = bodies
            .map(|body| scope.spawn(move || answered(together, &body)["choices"].clone()))
            .collect();
        for (asked, expected) in asked.into_iter().zip(&expected) {
            assert_eq!(&asked.join().expect("no panic"), expected);
        }
    });
}

#[test]
fn each_choice_keeps_to_the_schema_as_if_it_were_alone() {
    let server = Server::new();
    let together = texts(&answered(&server, &body(json!({ "n": 5, "seed": 40 }))));
    assert_eq!(together.len(), 5);
    for (index, text) in together.iter().enumerate() {
        check_card(text);
        let alone = answered(&server, &body(json!({ "seed": 40 + index })));
        assert_eq!(&texts(&alone)[0], text);
    }
}

/// A sequence that lost its blocks goes on in the middle of its grammar.
#[test]
fn a_reply_that_was_parked_is_the_same() {
    let items = json!({ "enum": ["one", "two", "three", "and a longer one"] });
    let list = json!({ "type": "array", "items": items, "minItems": 150, "maxItems": 150 });
    let list = json!({ "type": "object", "properties": { "list": list }, "required": ["list"], "additionalProperties": false });
    let ask = |seed: usize| {
        body(json!({ "response_format": format(&list), "seed": seed, "max_tokens": 6000 }))
    };
    let roomy = Server::start(Setup { fake: pool(256), ..Setup::default() });
    let expected: Vec<String> =
        (0..4).map(|seed| texts(&answered(&roomy, &ask(seed))).remove(0)).collect();
    assert_eq!(roomy.engine().stats().parkings, 0);
    let tight = Server::start(Setup { fake: pool(32), ..Setup::default() });
    std::thread::scope(|scope| {
        let tight = &tight;
        let asked: Vec<_> = (0..4)
            .map(|seed| scope.spawn(move || texts(&answered(tight, &ask(seed))).remove(0)))
            .collect();
        for (asked, expected) in asked.into_iter().zip(&expected) {
            assert_eq!(&asked.join().expect("no panic"), expected);
        }
    });
    assert!(tight.engine().stats().parkings > 0, "{:?}", tight.engine().stats());
}

#[test]
fn a_limit_or_a_stop_cuts_the_text_where_it_is() {
    let server = Server::new();
    let whole = texts(&answered(&server, &body(json!({ "seed": 1 })))).remove(0);
    let cut = answered(&server, &body(json!({ "seed": 1, "max_tokens": 3 })));
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    let text = cut["choices"][0]["message"]["content"].as_str().expect("a text");
    assert!(whole.starts_with(text) && text != whole, "{text}");
    let stopped = texts(&answered(&server, &body(json!({ "seed": 1, "stop": "age" })))).remove(0);
    assert_eq!(Some(stopped.as_str()), whole.split("age").next());
}

/// The model's own probabilities are told, whatever its grammar allows, one for each token.
#[test]
fn log_probabilities_are_the_models_own() {
    let server = Server::new();
    let answer =
        answered(&server, &body(json!({ "seed": 2, "logprobs": true, "top_logprobs": 1 })));
    let logprobs = answer["choices"][0]["logprobs"]["content"].as_array().expect("a list");
    assert_eq!(json!(logprobs.len()), answer["usage"]["completion_tokens"]);
    let differ = |token: &&Json| token["token"] != token["top_logprobs"][0]["token"];
    assert!(logprobs.iter().filter(differ).count() > logprobs.len() / 2, "{logprobs:?}");
}

#[test]
fn a_schema_that_cannot_be_held_to_is_refused_before_anything_is_computed() {
    let server = Server::new();
    let mut found = String::new();
    let nested =
        |schema: Json| json!({ "type": "object", "properties": { "a": { "items": schema } } });
    for schema in [
        nested(json!({ "type": "string", "format": "colour" })),
        nested(json!({ "type": "text" })),
        nested(json!({ "not": {} })),
        nested(json!({ "$ref": "https://example.com/a.json" })),
        nested(json!({ "$ref": "#/$defs/a" })),
        nested(json!({ "pattern": "[", "type": "string" })),
        nested(json!({ "pattern": "(?<=a)b", "type": "string" })),
        nested(json!({ "oneOf": [{ "type": "integer" }, { "minimum": 3 }] })),
        json!({ "type": "object", "properties": { "a": false }, "required": ["a"] }),
        json!({ "enum": ["a".repeat(300_000)] }),
    ] {
        let answer = server.chat(&body(json!({ "response_format": format(&schema) })));
        assert_eq!(answer.status, 400, "{answer:?}");
        let error = answer.error();
        let text = |name: &str| error[name].as_str().unwrap_or("none").to_owned();
        found += &format!("{}: {}\n", text("param"), text("message"));
    }
    for format in [
        json!({ "type": "xml" }),
        json!({ "type": "json_schema" }),
        json!({ "type": "json_schema", "json_schema": { "name": "a" } }),
        json!({ "type": "json_schema", "json_schema": { "schema": {} } }),
        json!({ "type": "json_schema", "json_schema": { "name": "a b", "schema": {} } }),
        json!({ "type": "json_schema", "json_schema": { "name": "a", "schema": true } }),
        json!({ "type": "json_schema", "json_schema": { "name": "a", "schema": {}, "x": 1 } }),
        json!({ "type": "json_object", "json_schema": { "name": "a", "schema": {} } }),
    ] {
        let answer = server.chat(&body(json!({ "response_format": format })));
        assert_eq!(answer.status, 400, "{answer:?}");
        let error = answer.error();
        let text = |name: &str| error[name].as_str().unwrap_or("none").to_owned();
        found += &format!("{}: {}\n", text("param"), text("message"));
    }
    let both = server.chat(&body(json!({ "ignore_eos": true })));
    found += &both.error()["message"].to_string();
    expect_test::expect![[r#"
        response_format.json_schema.schema: response_format.json_schema.schema/properties/a/items cannot be held to: Unknown format: colour
        response_format.json_schema.schema: response_format.json_schema.schema/properties/a/items cannot be held to: Invalid type: text
        response_format.json_schema.schema: response_format.json_schema.schema/properties/a/items cannot be held to: not supported: ["not"]
        response_format.json_schema.schema: response_format.json_schema.schema/properties/a/items cannot be held to: a $ref is supported that begins with #/
        response_format.json_schema.schema: response_format.json_schema.schema/properties/a/items cannot be held to: Reference segment '$defs' not found in '#/$defs/a'.
        response_format.json_schema.schema: response_format.json_schema.schema/properties/a/items cannot be held to: regex parse error: unclosed character class
        response_format.json_schema.schema: response_format.json_schema.schema/properties/a/items cannot be held to: regex parse error: look-around, including look-ahead and look-behind, is not supported
        response_format.json_schema.schema: response_format.json_schema.schema/properties/a/items cannot be held to: oneOf is supported where no value fits two of its schemas; else anyOf
        response_format.json_schema.schema: response_format.json_schema.schema cannot be held to: Unsatisfiable schema: required property 'a' is unsatisfiable: Unsatisfiable schema: schema is false
        response_format.json_schema.schema: response_format.json_schema.schema has 300018 bytes of schemas; at most 262144
        response_format.type: response_format.type is "xml"; it is "text", "json_object" or "json_schema"
        response_format.json_schema: response_format.json_schema is missing
        response_format.json_schema.schema: response_format.json_schema.schema is missing
        response_format.json_schema.name: response_format.json_schema.name is missing
        response_format.json_schema.name: response_format.json_schema.name is "a b"; it is 1 to 64 letters, digits, _, - and .
        response_format.json_schema.schema: response_format.json_schema.schema: invalid type: boolean `true`, expected a map at line 1 column 127
        response_format.json_schema.x: response_format.json_schema.x is not known to this server
        response_format.json_schema: response_format.json_schema does not go with type "json_object"
        "ignore_eos does not go with a reply that is held to a format""#]].assert_eq(&found);
    assert_eq!(server.engine().stats().blocks_used, 0);
}

/// Each of them asks for work without end, for memory without end, or for a deep stack.
#[test]
fn no_schema_keeps_the_server_from_its_work() {
    let server = Server::new();
    let chain = |links: usize, link: fn(String) -> Json| {
        let defs = (0..links).map(|n| (format!("d{n}"), link(format!("#/$defs/d{}", n + 1))));
        let mut defs: serde_json::Map<String, Json> = defs.collect();
        defs.insert(format!("d{links}"), json!({ "type": "null" }));
        json!({ "$ref": "#/$defs/d0", "$defs": defs })
    };
    let doubling = json!({ "allOf": (0..14).map(|n| json!({ "anyOf": [
        { "properties": { format!("a{n}"): { "type": "string" } }, "required": [format!("a{n}")] },
        { "properties": { format!("b{n}"): { "type": "string" } }, "required": [format!("b{n}")] },
    ] })).collect::<Vec<_>>() });
    let wide: serde_json::Map<String, Json> =
        (0..3000).map(|n| (format!("property {n}"), json!({ "type": "string" }))).collect();
    let mut deep = json!({ "type": "null" });
    for _ in 0..50 {
        deep = json!({ "items": deep });
    }
    let schemas = [
        chain(5900, |to| json!({ "$ref": to })),
        chain(4500, |to| json!({ "$ref": to, "type": "null" })),
        chain(1900, |to| json!({ "allOf": [{ "$ref": to }] })),
        chain(1150, |to| json!({ "anyOf": [{ "$ref": to }, { "properties": {} }] })),
        chain(1400, |to| json!({ "properties": { "a": { "$ref": to } }, "required": ["a"] })),
        chain(2900, |to| json!({ "items": { "$ref": to } })),
        json!({ "const": "a".repeat(200_000) }),
        json!({ "type": "string", "pattern": "ab".repeat(50_000) }),
        json!({ "type": "string", "pattern": format!("{}a{}", "(".repeat(240), "b|c)*".repeat(240)) }),
        chain(
            1,
            |_| json!({ "anyOf": [{ "$ref": "#/$defs/d0" }, { "items": { "$ref": "#/$defs/d0" } }] }),
        ),
        doubling,
        json!({ "properties": wide }),
        json!({ "enum": (0..15_000).map(|n| format!("value {n}")).collect::<Vec<_>>() }),
        json!({ "type": "string", "maxLength": 2_000_000_000 }),
        json!({ "type": "string", "minLength": 1_000_000 }),
        json!({ "type": "array", "minItems": 4_000_000_000u64 }),
        json!({ "type": "string", "pattern": "^(a{1,1000}){1,1000}$" }),
        json!({ "type": "string", "pattern": "^(.*a.{20}){5}$" }),
        json!({ "type": "string", "pattern": "^((a|b|ab)*c|(b|ba)*d){1,50}$", "format": "email" }),
        json!({ "type": "number", "multipleOf": 0.0000001, "minimum": 1e-300, "maximum": 1e300 }),
        json!({ "type": "integer", "multipleOf": 99_991 }),
        deep,
    ];
    for schema in schemas {
        let shown: String = schema.to_string().chars().take(100).collect();
        let ask = body(json!({ "response_format": format(&schema), "max_tokens": 40 }));
        let answer = server.chat(&ask);
        assert!([200, 400].contains(&answer.status), "{shown}: {answer:?}");
        // It serves others as before.
        check_card(&texts(&answered(&server, &body(json!({ "seed": 1 }))))[0]);
    }
}

#[test]
fn an_agents_next_turn_may_be_held_to_a_schema() {
    let server = Server::new();
    for turn in 0..3 {
        let body = json!({ "prompt": "A card.", "response_format": format(&card()), "max_tokens": 800, "seed": turn });
        let answer = server.send(&Request::post("/v1/agents/a/generate", body.to_string()));
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        check_card(answer["text"].as_str().expect("a text"));
        assert_eq!(answer["finish_reason"], "stop");
        // A reply that ended without a token for it is gone on from like any other.
        let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
        assert_eq!(cached > Some(0), turn > 0, "{answer}");
    }
}
