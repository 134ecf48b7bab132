//! Anthropic's messages with a served model: whole and streamed, what they report, what is refused.

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

#[test]
fn a_whole_message_has_anthropics_shape() {
    let server = Server::new();
    let message = answered(&server, &greedy(json!({ "session_id": "writer" })));
    let keys: Vec<&String> = message.as_object().expect("an object").keys().collect();
    let expected = [
        "id",
        "type",
        "role",
        "model",
        "content",
        "stop_reason",
        "stop_sequence",
        "usage",
        "semantic",
    ];
    assert_eq!(keys, expected);
    assert!(message["id"].as_str().expect("an id").starts_with("msg_"));
    assert_eq!((&message["type"], &message["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(message["model"], "fake");
    assert_eq!(message["content"], json!([{ "type": "text", "text": text(&message) }]));
    assert_eq!(message["stop_reason"], "max_tokens");
    assert_eq!(message["stop_sequence"], json!(null));
    let usage = json!({
        "input_tokens": tokens(&message, "input_tokens"),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 20,
    });
    assert_eq!(message["usage"], usage);
    assert_eq!(message["semantic"]["agent"], "writer");
}

#[test]
fn a_message_is_what_a_chat_answers() {
    let server = Server::new();
    let message = answered(&server, &greedy(json!({ "system": "Be brief." })));
    let chat = server.chat(&json!({
        "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "Hello" },
        ],
        "temperature": 0,
        "max_tokens": 20,
    }));
    let chat = chat.json();
    assert_eq!(chat["choices"][0]["message"]["content"], text(&message));
    assert_eq!(chat["usage"]["prompt_tokens"], prompt_tokens(&message));
}

#[test]
fn the_events_of_a_message_come_in_anthropics_order() {
    let server = Server::new();
    let body = greedy(json!({}));
    let whole = answered(&server, &body);
    let events = streamed(&server, &body);
    let expected = [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(outline(&events), expected);
    let start = &events[0]["message"];
    assert!(start["id"].as_str().expect("an id").starts_with("msg_"));
    assert_eq!((&start["content"], &start["stop_reason"]), (&json!([]), &json!(null)));
    assert_eq!(prompt_tokens(start), prompt_tokens(&whole));
    assert!(tokens(start, "cache_read_input_tokens") > 0);
    let block = json!({ "type": "text", "text": "" });
    let block = json!({ "type": "content_block_start", "index": 0, "content_block": block });
    assert_eq!(events[2], block);
    assert_eq!(streamed_text(&events), text(&whole));
    let end = &events[events.len() - 2];
    let delta = json!({ "stop_reason": "max_tokens", "stop_sequence": null });
    assert_eq!((&end["delta"], &end["usage"]["output_tokens"]), (&delta, &json!(20)));
    assert_eq!(end["semantic"]["source"], "hot");
}

#[test]
fn a_message_says_why_it_stopped() {
    let server = Server::start(Setup { replies: vec!["One two three.", ""], ..Setup::default() });
    let stopped = answered(&server, &hi(json!({ "stop_sequences": ["never", " three"] })));
    assert_eq!((text(&stopped), &stopped["stop_reason"]), ("One two", &json!("stop_sequence")));
    assert_eq!(stopped["stop_sequence"], " three");
    // A model that says nothing says it in a block, for those who look for one.
    let empty = answered(&server, &hi(json!({ "system": "Say nothing." })));
    assert_eq!((text(&empty), &empty["stop_reason"]), ("", &json!("end_turn")));

    let replies = vec!["One two three.", ""];
    let server = Server::start(Setup { replies, ..Setup::default() });
    let events = streamed(&server, &hi(json!({ "stop_sequences": [" three"] })));
    let delta = json!({ "stop_reason": "stop_sequence", "stop_sequence": " three" });
    assert_eq!(
        (streamed_text(&events).as_str(), &events[events.len() - 2]["delta"]),
        ("One two", &delta)
    );
    let empty = streamed(&server, &hi(json!({ "system": "Say nothing." })));
    assert!(outline(&empty).starts_with(&[
        "message_start",
        "ping",
        "content_block_start",
        "content_block_stop"
    ]));
}

/// What was answered comes back as blocks, and is found again.
#[test]
fn a_conversation_of_messages_is_not_computed_again() {
    let replies = vec!["Hello to you, too.", "On it goes."];
    let server = Server::start(Setup { replies, ..Setup::default() });
    let first = answered(&server, &greedy(json!({})));
    let turns = json!([
        { "role": "user", "content": [{ "type": "text", "text": "Hello", "cache_control": { "type": "ephemeral" } }] },
        { "role": "assistant", "content": first["content"] },
        { "role": "user", "content": "Go on." },
    ]);
    let second = answered(&server, &greedy(json!({ "messages": turns })));
    let before = prompt_tokens(&first) + tokens(&first, "output_tokens");
    assert!(tokens(&second, "cache_read_input_tokens") >= before - 1, "{first} {second}");
    assert!(tokens(&second, "input_tokens") > 0);
    assert_eq!(second["semantic"]["source"], "hot");
}

/// What the model reads of each conversation.
#[test]
fn blocks_become_the_turns_that_templates_know() {
    let server = Server::start(Setup { template: PLAIN, ..Setup::default() });
    let reads = |fields: Json, expected: &str| {
        let counted = counted(&server, &hi(fields.clone()));
        let expected_tokens = server.encode(expected).len();
        assert_eq!(counted, json!({ "input_tokens": expected_tokens }), "{fields} {expected}");
        // As many tokens may be another text, so it is asked for as a chat's only turn as well.
        let message = answered(&server, &greedy(fields));
        let raw =
            json!({ "prompt": server.encode(expected).iter().map(|t| t.0).collect::<Vec<_>>() });
        let mut raw = raw;
        raw["temperature"] = json!(0);
        raw["max_tokens"] = json!(1);
        let raw = server.send(&Request::post("/v1/completions", raw.to_string())).json();
        let cached = raw["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
        assert_eq!(cached, Some(prompt_tokens(&message) - 1), "{expected}");
    };
    let text = |text: &str| json!({ "type": "text", "text": text });
    reads(json!({}), "<user>Hello\n<assistant>");
    reads(json!({ "system": "" }), "<user>Hello\n<assistant>");
    reads(
        json!({ "system": [text("Be brief."), text("Be kind.")] }),
        "<system>Be brief.\nBe kind.\n<user>Hello\n<assistant>",
    );
    // Turns of the same role are one.
    reads(
        json!({ "messages": [
            { "role": "user", "content": "One" },
            { "role": "user", "content": [text("two"), text("three")] },
            { "role": "assistant", "content": "Four" },
            { "role": "system", "content": "Now be brief." },
            { "role": "user", "content": "five" },
        ] }),
        "<user>One\ntwo\nthree\n<assistant>Four\n<system>Now be brief.\n<user>five\n<assistant>",
    );
    let call = json!({ "type": "tool_use", "id": "toolu_1", "name": "look", "input": { "z": 1, "a": "b" } });
    let thought = json!({ "type": "thinking", "thinking": "Hm.", "signature": "s" });
    let unreadable = json!({ "type": "redacted_thinking", "data": "x" });
    let result = |content: Json| json!({ "type": "tool_result", "tool_use_id": "toolu_1", "content": content });
    let mut failed = result(json!([text("gone"), text("for good")]));
    failed["is_error"] = json!(true);
    reads(
        json!({ "messages": [
            { "role": "user", "content": "Look." },
            { "role": "assistant", "content": [thought, unreadable, text("Yes."), call] },
            { "role": "user", "content": [result(json!("found")), failed, text("And?")] },
        ] }),
        "<user>Look.\n<assistant>Yes.{\"name\": \"look\", \"arguments\": {\"z\": 1, \"a\": \"b\"}}(Hm.)\n\
         <tool>found[look]\n<tool>Error: gone\nfor good[look]\n<user>And?\n<assistant>",
    );
    let tool = json!({
        "name": "look",
        "input_schema": { "type": "object", "properties": { "z": {}, "a": {} } },
        "description": "Looks.",
        "cache_control": { "type": "ephemeral" },
    });
    reads(
        json!({ "tools": [tool], "tool_choice": { "type": "none" } }),
        "[{\"type\": \"function\", \"function\": {\"name\": \"look\", \"description\": \"Looks.\", \
         \"parameters\": {\"type\": \"object\", \"properties\": {\"z\": {}, \"a\": {}}}}}]\n<user>Hello\n<assistant>",
    );
}

#[test]
fn tokens_are_counted_as_they_are_read() {
    let server = Server::new();
    let body = greedy(
        json!({ "system": "Be brief.", "messages": [{ "role": "user", "content": "Why?" }] }),
    );
    let message = answered(&server, &body);
    assert_eq!(counted(&server, &body), json!({ "input_tokens": prompt_tokens(&message) }));
    // The reply is counted as what it was generated as.
    let turns = json!([
        { "role": "user", "content": "Why?" },
        { "role": "assistant", "content": message["content"] },
        { "role": "user", "content": "And then?" },
    ]);
    let body = greedy(json!({ "system": "Be brief.", "messages": turns }));
    let mut count = body.clone();
    count.as_object_mut().expect("an object").remove("max_tokens");
    let input_tokens = counted(&server, &count);
    assert_eq!(input_tokens["input_tokens"], prompt_tokens(&answered(&server, &body)));
    let answer = server.send(&Request::post(COUNT, json!({ "messages": [] }).to_string()));
    assert_eq!(refused(&answer).0, 400);
}

#[test]
fn what_a_message_cannot_be_is_refused_and_named() {
    let server = Server::start(Setup { template: PLAIN, ..Setup::default() });
    let user = |content: Json| json!({ "messages": [{ "role": "user", "content": content }] });
    let tool = |fields: Json| {
        let mut tool = json!({ "name": "look", "input_schema": { "type": "object" } });
        for (name, value) in fields.as_object().expect("an object") {
            tool[name] = value.clone();
        }
        json!({ "tools": [tool] })
    };
    let image = json!({ "type": "image", "source": { "type": "url", "url": "https://x" } });
    let document = json!({ "type": "document", "source": {}, "title": "x", "context": "y" });
    let assistant = |content: Json| {
        json!({ "messages": [
            { "role": "user", "content": "x" },
            { "role": "assistant", "content": content },
            { "role": "user", "content": "y" },
        ] })
    };
    let refusals = [
        // missing_required_field
        (json!({ "max_tokens": null }), "max_tokens is missing"),
        (json!({ "messages": [] }), "messages is empty"),
        (json!({ "messages": [{ "role": "user" }] }), "messages[0].content is missing"),
        // invalid_temperature and its like
        (json!({ "temperature": 1.5 }), "temperature is 1.5; it goes from 0.0 to 1.0"),
        (json!({ "temperature": -0.1 }), "temperature is -0.1"),
        (json!({ "temperature": "hot" }), "temperature: invalid type"),
        (json!({ "top_p": 2 }), "top_p is 2.0"),
        (json!({ "top_k": -1 }), "top_k: invalid value"),
        (json!({ "max_tokens": 0 }), "max_tokens is 0"),
        (json!({ "stop_sequences": [""] }), "a text of stop_sequences is empty"),
        (json!({ "stop_sequences": vec!["x"; 17] }), "stop_sequences has 17 texts"),
        // empty_message_content
        (user(json!("")), "messages[0].content is empty"),
        (user(json!([])), "messages[0].content is empty"),
        (user(json!([{ "type": "text", "text": "" }])), "messages[0].content is empty"),
        (user(json!([{ "type": "text" }])), "messages[0].content[0].text is missing"),
        // invalid_role, first_message_not_user
        (
            json!({ "messages": [{ "role": "robot", "content": "x" }] }),
            "messages[0].role: unknown variant",
        ),
        (
            json!({ "messages": [{ "role": "assistant", "content": "x" }] }),
            "messages[0].role is \"assistant\"; the user begins",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": "x" }, { "role": "assistant", "content": "y" }] }),
            "cannot be prefilled",
        ),
        (
            user(json!([{ "type": "text", "text": "x" }, image])),
            "messages[0].content[1].type is \"image\"",
        ),
        (user(json!([document])), "messages[0].content[0].type is \"document\""),
        (
            user(json!([{ "type": "tool_use", "id": "i", "name": "n", "input": {} }])),
            "messages[0].content[0].type is \"tool_use\"",
        ),
        (user(json!([{ "type": "tool_result" }])), "messages[0].content[0].tool_use_id is missing"),
        (
            user(json!([{ "type": "tool_result", "tool_use_id": "i", "content": [image] }])),
            "messages[0].content[0].content[0].type is \"image\"",
        ),
        (
            user(json!([{ "type": "text", "text": "x", "citations": [] }])),
            "messages[0].content[0].citations is not supported",
        ),
        (
            assistant(json!([{ "type": "tool_use", "id": "i", "name": "n" }])),
            "messages[1].content[0].input is missing",
        ),
        (
            assistant(json!([{ "type": "tool_use", "id": "i", "name": "n", "input": "{}" }])),
            "messages[1].content[0].input: invalid type",
        ),
        (
            assistant(json!([{ "type": "tool_result", "tool_use_id": "i" }])),
            "messages[1].content[0].type is \"tool_result\"",
        ),
        (json!({ "system": [image] }), "system[0].type is \"image\""),
        (
            tool(json!({ "type": "web_search_20250305", "max_uses": 3 })),
            "tools[0].type is \"web_search_20250305\"",
        ),
        (tool(json!({ "name": "" })), "tools[0].name is \"\""),
        (tool(json!({ "name": "a b" })), "tools[0].name is \"a b\""),
        (tool(json!({ "input_schema": null })), "tools[0].input_schema is missing"),
        (tool(json!({ "strict": true })), "tools[0].strict is not supported"),
        (tool(json!({ "defer_loading": true })), "tools[0].defer_loading is not supported"),
        (tool(json!({ "input_examples": [{}] })), "tools[0].input_examples is not supported"),
        (tool(json!({ "colour": "red" })), "tools[0].colour is not supported"),
        (
            json!({ "tools": [{ "name": "a", "input_schema": {} }, { "name": "a", "input_schema": {} }] }),
            "tools[1].name is \"a\", which another tool has",
        ),
        (json!({ "tool_choice": { "type": "any" } }), "tool_choice.type is \"any\""),
        (
            json!({ "tool_choice": { "type": "tool", "name": "look" } }),
            "tool_choice.type is \"tool\"",
        ),
        (
            json!({ "tool_choice": { "type": "auto", "disable_parallel_tool_use": true } }),
            "tool_choice.disable_parallel_tool_use is not supported",
        ),
        (
            json!({ "thinking": { "type": "enabled", "budget_tokens": 1024 } }),
            "thinking.type is \"enabled\"",
        ),
        // What is another type's is not ignored.
        (
            json!({ "thinking": { "type": "disabled", "budget_tokens": 5 } }),
            "thinking.budget_tokens does not go with type \"disabled\"",
        ),
        (
            json!({ "tool_choice": { "type": "auto", "name": "look" } }),
            "tool_choice.name does not go with type \"auto\"",
        ),
        (
            user(json!([{ "type": "text", "text": "x", "input": { "q": 1 } }])),
            "messages[0].content[0].input does not go with type \"text\"",
        ),
        (
            user(json!([{ "type": "text", "text": "x", "content": "y" }])),
            "messages[0].content[0].content does not go with",
        ),
        (
            user(json!([{ "type": "text", "text": "x", "source": {} }])),
            "messages[0].content[0].source does not go with",
        ),
        (
            user(json!([{ "type": "text", "text": "x", "is_error": true }])),
            "messages[0].content[0].is_error does not go with",
        ),
        (
            user(json!([{ "type": "tool_result", "tool_use_id": "i", "text": "x" }])),
            "messages[0].content[0].text does not go with type \"tool_result\"",
        ),
        (
            assistant(json!([{ "type": "thinking", "thinking": "x", "data": "y" }])),
            "messages[1].content[0].data does not go with type \"thinking\"",
        ),
        (json!({ "service_tier": "priority" }), "service_tier is \"priority\""),
        (json!({ "container": "c" }), "container is not supported"),
        (json!({ "mcp_servers": [] }), "mcp_servers is not supported"),
        (json!({ "context_management": {} }), "context_management is not supported"),
        (json!({ "output_config": { "effort": "high" } }), "output_config is not supported"),
        (json!({ "metadata": { "mood": "good" } }), "metadata.mood is not known"),
        (json!({ "prompt": "x" }), "prompt is not known"),
        (user(json!("word ".repeat(20_000))), "the model's context is 8192"),
    ];
    for (fields, expected) in refusals {
        let answer = asked(&server, &hi(fields.clone()));
        let (status, kind, message) = refused(&answer);
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{fields} {message}");
        assert!(message.contains(expected), "{message} is not {expected}");
    }
    // What would be refused is not counted either, but for the length of an answer.
    for (fields, expected) in [
        (json!({ "temperature": 99 }), "temperature is 99.0"),
        (json!({ "max_tokens": 0 }), "max_tokens is 0"),
        (json!({ "stop_sequences": vec![""; 99] }), "stop_sequences has 99 texts"),
    ] {
        let request = Request::post(COUNT, hi(fields).to_string());
        let (status, _, message) = refused(&server.send(&request));
        assert_eq!(status, 400);
        assert!(message.contains(expected), "{message} is not {expected}");
    }
    assert!(
        counted(&server, &hi(json!({ "max_tokens": null })))["input_tokens"].as_u64() > Some(0)
    );
    // malformed_json
    let (status, kind, _) = refused(&server.send(&Request::post(MESSAGES, "{\"model\":")));
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
}

#[test]
fn a_refusal_repeats_little_of_what_it_refuses() {
    let server = Server::new();
    let long = "\u{1}".repeat(100_000);
    let text = |kind: &str| json!([{ "role": "user", "content": [{ "type": kind }] }]);
    for fields in [
        json!({ "messages": text(&long) }),
        json!({ "thinking": { "type": long } }),
        json!({ "tool_choice": { "type": long } }),
        json!({ "service_tier": long }),
        json!({ "tools": [{ "type": long }] }),
        json!({ "tools": [{ "name": long, "input_schema": {} }] }),
        json!({ "tools": [{ "name": "a", "input_schema": {}, (long.clone()): 1 }] }),
    ] {
        let answer = asked(&server, &hi(fields));
        assert_eq!(refused(&answer).0, 400);
        assert!(answer.body.len() < 1000, "{}", answer.body.len());
    }
    let call = json!({ "id": "i", "type": long, "function": { "name": "a", "arguments": "{}" } });
    for fields in [
        json!({ "messages": text(&long) }),
        json!({ "messages": [{ "role": "assistant", "tool_calls": [call] }] }),
        json!({ "response_format": { "type": long } }),
        json!({ "tool_choice": long }),
        json!({ "tools": [{ "type": long }] }),
        json!({ "tools": [{ "type": "function", "function": { "name": long } }] }),
        json!({ "tools": [{ "type": "function", "function": { "name": "a", (long.clone()): 1 } }] }),
    ] {
        let answer = server.chat(&crate::support::http::hello(fields));
        assert_eq!(answer.status, 400);
        assert!(answer.body.len() < 1000, "{}", answer.body.len());
    }
}

#[test]
fn what_anthropics_clients_send_out_of_habit_is_accepted() {
    let server = Server::new();
    let body = hi(json!({
        "max_tokens": 1,
        "top_k": 0,
        "top_p": 0.9,
        "metadata": { "user_id": "me" },
        "service_tier": "auto",
        "thinking": { "type": "disabled" },
        "cache_control": { "type": "ephemeral", "ttl": "1h" },
        "tools": [],
        "stream": false,
    }));
    let request = Request::post(MESSAGES, body.to_string());
    let request = request.header("anthropic-version", "2023-06-01");
    let answer = server.send(&request.header("anthropic-beta", "prompt-caching-2024-07-31,new-1"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answered(&server, &hi(json!({ "max_tokens": 1, "thinking": { "type": "adaptive" } })));
}

/// Three tools, and a server whose model calls two of them with text around the calls.
fn calling(template: &'static str, replies: Vec<&'static str>) -> (Server, Json) {
    let server = Server::start(Setup { template, replies, ..Setup::default() });
    let tool = |name: &str| {
        json!({
            "name": name,
            "description": format!("The {name} of a town."),
            "input_schema": { "type": "object", "properties": { "town": { "type": "string" } } },
        })
    };
    let tools: Vec<Json> = ["weather", "time", "map"].map(tool).to_vec();
    (server, json!(tools))
}

const TAGGED: &str = include_str!("../data/text/templates/tagged_calls.jinja");
const JSON_CALLS: &str = include_str!("../data/text/templates/json_calls.jinja");
const TWO_CALLS: &str = "I shall look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": \"Graz\"}}\n</tool_call>\n\
    <tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>";

#[test]
fn calls_of_tools_are_blocks_of_a_message() {
    let (server, tools) = calling(TAGGED, vec![TWO_CALLS]);
    let message = answered(&server, &hi(json!({ "tools": tools, "max_tokens": 200 })));
    let content = message["content"].as_array().expect("a list");
    assert_eq!(content[0], json!({ "type": "text", "text": "I shall look." }));
    let ids = [&content[1]["id"], &content[2]["id"]].map(|id| id.as_str().expect("an id"));
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.starts_with("toolu_")), "{ids:?}");
    let call = |id: &str, name: &str, input: Json| json!({ "type": "tool_use", "id": id, "name": name, "input": input });
    assert_eq!(content[1], call(ids[0], "weather", json!({ "town": "Graz" })));
    assert_eq!(content[2], call(ids[1], "time", json!({})));
    assert_eq!((content.len(), &message["stop_reason"]), (3, &json!("tool_use")));
}

#[test]
fn calls_of_tools_are_streamed_by_their_index() {
    let (server, tools) = calling(TAGGED, vec![TWO_CALLS]);
    let events = streamed(&server, &hi(json!({ "tools": tools, "max_tokens": 200 })));
    let of = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
    let starts: Vec<(&Json, &Json)> = of("content_block_start")
        .map(|event| (&event["index"], &event["content_block"]["type"]))
        .collect();
    let expected =
        [(0, "text"), (1, "tool_use"), (2, "tool_use")].map(|(i, t)| (json!(i), json!(t)));
    assert_eq!(starts, expected.iter().map(|(i, t)| (i, t)).collect::<Vec<_>>());
    let stops: Vec<&Json> = of("content_block_stop").map(|event| &event["index"]).collect();
    assert_eq!(stops, [0, 1, 2]);
    assert_eq!(streamed_text(&events), "I shall look.");
    let input = |index: usize| {
        let json: String = of("content_block_delta")
            .filter(|event| event["index"] == index)
            .filter_map(|event| event["delta"]["partial_json"].as_str())
            .collect();
        serde_json::from_str::<Json>(&json).expect("JSON")
    };
    assert_eq!((input(1), input(2)), (json!({ "town": "Graz" }), json!({})));
    let start = of("content_block_start").nth(1).expect("a call");
    assert_eq!(
        (&start["content_block"]["name"], &start["content_block"]["input"]),
        (&json!("weather"), &json!({}))
    );
    assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "tool_use");
}

#[test]
fn what_is_no_call_of_a_tool_stays_text() {
    let unknown = "<tool_call>\n{\"name\": \"launch\", \"arguments\": {}}\n</tool_call>";
    let replies = vec![unknown, TWO_CALLS, "<tool_call>\n{\"name\": \"time\""];
    let (server, tools) = calling(TAGGED, replies);
    let ask = |fields: Json| {
        let mut body = hi(json!({ "tools": tools, "max_tokens": 200 }));
        for (name, value) in fields.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let message = answered(&server, &body);
        assert_eq!(message["stop_reason"], "end_turn");
        assert_eq!(message["content"].as_array().expect("a list").len(), 1);
        text(&message).to_owned()
    };
    assert_eq!(ask(json!({})), unknown);
    // Calls are not looked for where none is wanted.
    let none = json!({ "tool_choice": { "type": "none" }, "system": "No calls." });
    assert_eq!(ask(none), TWO_CALLS);
    assert_eq!(ask(json!({ "system": "Be quick." })), "<tool_call>\n{\"name\": \"time\"");
}

/// The calls come back as blocks, with ids that no prompt has and inputs that were parsed.
#[test]
fn calls_and_their_results_are_not_computed_again() {
    const CALL: &str = "{\"name\": \"weather\", \"parameters\": {\"town\": \"Graz\", \"days\": 2}}";
    for (template, reply) in [(TAGGED, TWO_CALLS), (JSON_CALLS, CALL)] {
        let (server, tools) = calling(template, vec![reply, "It rains, and it is late."]);
        let mut body = hi(json!({ "tools": tools, "max_tokens": 200 }));
        let first = answered(&server, &body);
        assert_eq!(first["stop_reason"], "tool_use");
        let calls = first["content"].as_array().expect("a list").iter();
        let results: Vec<Json> = calls
            .filter(|block| block["type"] == "tool_use")
            .map(|call| json!({ "type": "tool_result", "tool_use_id": call["id"], "content": "rain" }))
            .collect();
        body["messages"] = json!([
            { "role": "user", "content": "Hello" },
            { "role": "assistant", "content": first["content"] },
            { "role": "user", "content": results },
        ]);
        let second = answered(&server, &body);
        assert_eq!(text(&second), "It rains, and it is late.");
        let before = prompt_tokens(&first) + tokens(&first, "output_tokens");
        assert!(tokens(&second, "cache_read_input_tokens") >= before - 1, "{first} {second}");
        assert_eq!(counted(&server, &body)["input_tokens"], prompt_tokens(&second));
    }
}

#[test]
fn a_model_that_knows_no_tools_says_so() {
    let server = Server::new();
    let tools = json!([{ "name": "look", "input_schema": { "type": "object" } }]);
    let (status, _, message) = refused(&asked(&server, &hi(json!({ "tools": tools }))));
    assert_eq!((status, message.as_str()), (400, "the template of fake renders no tools"));
}

#[test]
fn refusals_of_all_kinds_have_anthropics_shape() {
    let rates = Rates { agent: 1, ..Setup::default().rates };
    let server = Server::start(Setup { keys: Some(KEY), rates, ..Setup::default() });
    let post = |path: &'static str| Request::post(path, hi(json!({ "max_tokens": 1 })).to_string());
    let kind = |request: &Request<'_>| {
        let (status, kind, _) = refused(&server.send(request));
        (status, kind)
    };
    assert_eq!(kind(&post(MESSAGES)), (401, "authentication_error".to_owned()));
    let other = post(MESSAGES).header("x-api-key", "key-of-the-tests-2");
    assert_eq!(kind(&other), (401, "authentication_error".to_owned()));
    let unknown = post("/v1/messages/batches").header("x-api-key", KEY);
    assert_eq!(kind(&unknown), (404, "not_found_error".to_owned()));
    let read = Request::get(MESSAGES).header("Authorization", format!("Bearer {KEY}"));
    assert_eq!(kind(&read), (405, "invalid_request_error".to_owned()));
    let mut typed = post(MESSAGES).header("x-api-key", KEY);
    typed.headers.retain(|(name, _)| *name != "Content-Type");
    assert_eq!(kind(&typed.header("Content-Type", "text/plain")).0, 415);
    let agent = post(MESSAGES).header("x-api-key", KEY).header("X-Agent-ID", "a");
    assert_eq!(server.send(&agent).status, 200);
    let answer = server.send(&agent);
    assert_eq!((refused(&answer).0, refused(&answer).1.as_str()), (429, "rate_limit_error"));
    assert_eq!(answer.header("retry-after"), Some("60"));
    // An agent in the body is counted like one in a header.
    let body = hi(json!({ "max_tokens": 1, "session_id": "b" })).to_string();
    let session = || Request::post(MESSAGES, body.clone()).header("x-api-key", KEY);
    assert_eq!((server.send(&session()).status, server.send(&session()).status), (200, 429));
}

#[test]
fn a_server_that_is_full_says_so_in_anthropics_words() {
    let engine = engine::Config { running_max: 1, queue_max: 1, ..engine::Config::default() };
    let server = Server::start(Setup { engine, ..endless() });
    let long = hi(json!({ "max_tokens": 5000 }));
    let mut running = streaming(&server, &long);
    assert!(running.event().is_some());
    let mut waiting = server.connect();
    waiting.write(&Request::post(MESSAGES, long.to_string()).bytes());
    wait_until("it waits", || server.engine().stats().waiting == 1);
    let answer = asked(&server, &long);
    assert_eq!((refused(&answer).0, refused(&answer).1.as_str()), (503, "overloaded_error"));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[test]
fn a_client_that_leaves_a_message_frees_its_blocks() {
    let server = Server::start(endless());
    let mut client = streaming(&server, &hi(json!({ "max_tokens": 5000 })));
    for _ in 0..5 {
        assert!(client.event().is_some());
    }
    assert_eq!(server.engine().stats().running, 1);
    drop(client);
    wait_until("the blocks are free", || is_idle(&server));
}

#[test]
fn a_message_that_is_cut_ends_with_an_error_event() {
    let server = Server::start(endless());
    let mut client = streaming(&server, &hi(json!({ "max_tokens": 5000 })));
    assert!(client.event().is_some());
    server.engine().cut();
    let events = events(&mut client);
    let last = events.last().expect("events");
    assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("api_error")));
    assert!(!events.iter().any(|event| event["type"] == "message_stop"));
}

/// The one runs, the other waits in line, and both say that they are alive.
#[test]
fn a_message_pings_while_it_waits_and_while_the_model_is_busy() {
    let engine = engine::Config { running_max: 1, ..engine::Config::default() };
    let bounds = Bounds { keep_alive: Duration::from_millis(20), ..Bounds::default() };
    let step = Duration::from_millis(100);
    let server = Server::start(Setup { engine, bounds, step, ..endless() });
    let mut first = streaming(&server, &hi(json!({ "max_tokens": 50 })));
    wait_until("it runs", || server.engine().stats().running == 1);
    // Its headers come although it is not admitted.
    let mut second = streaming(&server, &hi(json!({ "max_tokens": 1 })));
    for _ in 0..3 {
        assert_eq!(second.event().as_deref(), Some("event: ping\ndata: {\"type\":\"ping\"}"));
    }
    wait_until("it waits", || server.engine().stats().waiting == 1);
    let pings = std::iter::from_fn(|| first.event()).take(8);
    assert!(pings.filter(|event| event.starts_with("event: ping")).count() >= 3);
    drop(first);
    assert_eq!(outline(&events(&mut second)).last(), Some(&"message_stop"));
}

/// After the headers a refusal can only be an event.
#[test]
fn a_message_that_waits_too_long_is_told_inside_its_stream() {
    let queue_time = Duration::from_millis(300);
    let engine = engine::Config { running_max: 1, queue_time, ..engine::Config::default() };
    let bounds = Bounds { keep_alive: Duration::from_millis(20), ..Bounds::default() };
    let server = Server::start(Setup { engine, bounds, ..endless() });
    let mut first = streaming(&server, &hi(json!({ "max_tokens": 5000 })));
    assert!(first.event().is_some());
    let events = streamed(&server, &hi(json!({})));
    assert_eq!(outline(&events), ["ping", "error"]);
    assert_eq!(events.last().expect("events")["error"]["type"], "overloaded_error");
}

/// As Claude Code holds them: each session with its own system text, the whole conversation sent
/// every time, streamed, and all at once.
#[test]
fn test_five_concurrent_claude_code_sessions() {
    const TURNS: usize = 4;
    let session = |server: &Server, index: usize| {
        let mut turns: Vec<Json> = Vec::new();
        let mut said = Vec::new();
        for turn in 0..TURNS {
            turns.push(json!({ "role": "user", "content": format!("Step {turn} of {index}.") }));
            let body = greedy(json!({
                "system": [{ "type": "text", "text": format!("You are number {index}. ").repeat(20) }],
                "messages": turns,
                "stream": true,
            }));
            let request = Request::post(MESSAGES, body.to_string());
            let mut client = server.connect();
            let head = client.open(&request.header("X-Session-ID", format!("session-{index}")));
            assert_eq!(head.status, 200);
            let events = events(&mut client);
            let text = streamed_text(&events);
            let end = &events[events.len() - 2];
            assert_eq!(end["semantic"]["agent"], format!("session-{index}"));
            if turn > 0 {
                let read = prompt_tokens(end);
                let cached = tokens(end, "cache_read_input_tokens");
                // Most of what it reads it has read before.
                assert!(cached * 10 > read * 7, "{cached} of {read}");
            }
            turns.push(
                json!({ "role": "assistant", "content": [{ "type": "text", "text": text }] }),
            );
            said.push(text);
        }
        said
    };
    let alone: Vec<Vec<String>> = {
        let server = Server::new();
        (0..5).map(|index| session(&server, index)).collect()
    };
    let server = Server::new();
    let together: Vec<Vec<String>> = std::thread::scope(|scope| {
        let (server, session) = (&server, &session);
        let start = |index| scope.spawn(move || session(server, index));
        let sessions: Vec<_> = (0..5).map(start).collect();
        sessions.into_iter().map(|session| session.join().expect("no panic")).collect()
    });
    assert_eq!(together, alone);
    wait_until("nothing is held", || is_idle(&server));
}
