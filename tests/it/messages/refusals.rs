//! What a message cannot be, and what it may be though it changes nothing.

use super::*;

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
        (tool(json!({ "defer_loading": true })), "tools[0].defer_loading is not supported"),
        (tool(json!({ "input_examples": [{}] })), "tools[0].input_examples is not supported"),
        (tool(json!({ "colour": "red" })), "tools[0].colour is not supported"),
        (
            json!({ "tools": [{ "name": "a", "input_schema": {} }, { "name": "a", "input_schema": {} }] }),
            "tools[1].name is \"a\", which another tool has",
        ),
        (json!({ "tool_choice": { "type": "any" } }), "tool_choice asks for a call"),
        (
            json!({ "tool_choice": { "type": "tool", "name": "look" } }),
            "tool_choice.name is \"look\", which is none of the tools",
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
