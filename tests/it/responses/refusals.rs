//! What a request for a response may not say, and how one fails.

use super::*;

#[test]
fn what_is_not_served_is_refused_by_the_name_of_its_field() {
    let server = Server::new();
    let item = |item: Json| json!({ "input": [item] });
    let part = |part: Json| item(json!({ "role": "user", "content": [part] }));
    let tool = |tool: Json| json!({ "tools": [tool] });
    let call = |name: &str, value: Json| {
        let mut call =
            json!({ "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}" });
        call[name] = value;
        item(call)
    };
    let many: serde_json::Map<String, Json> = (0..17).map(|n| (n.to_string(), json!(""))).collect();
    for (fields, param) in [
        (json!({ "background": true }), "background"),
        (json!({ "conversation": "conv_1" }), "conversation"),
        (json!({ "context_management": [] }), "context_management"),
        (json!({ "include": ["reasoning.encrypted_content"] }), "include"),
        (json!({ "max_tool_calls": 1 }), "max_tool_calls"),
        (json!({ "prompt": { "id": "x" } }), "prompt"),
        (json!({ "prompt_cache_retention": "24h" }), "prompt_cache_retention"),
        (json!({ "reasoning": { "effort": "low" } }), "reasoning"),
        (json!({ "service_tier": "flex" }), "service_tier"),
        (json!({ "stream_options": {} }), "stream_options"),
        (json!({ "text": { "format": { "type": "xml" } } }), "text.format.type"),
        (json!({ "text": { "format": { "type": "json_object", "x": 1 } } }), "text.format.x"),
        (json!({ "text": { "format": { "type": "json_schema" } } }), "text.format.name"),
        (
            json!({ "text": { "format": { "type": "json_schema", "name": "x" } } }),
            "text.format.schema",
        ),
        (
            json!({ "text": { "format": { "type": "json_schema", "name": "x", "schema": { "not": {} } } } }),
            "text.format.schema",
        ),
        (json!({ "text": { "format": { "type": "text", "name": "x" } } }), "text.format.name"),
        (json!({ "text": { "verbosity": "low" } }), "text.verbosity"),
        (json!({ "text": { "x": 1 } }), "text.x"),
        (json!({ "top_logprobs": 1 }), "top_logprobs"),
        (json!({ "truncation": "auto" }), "truncation"),
        (json!({ "max_tokens": 1 }), "max_tokens"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "max_output_tokens": 0 }), "max_output_tokens"),
        (json!({ "temperature": 2.1 }), "temperature"),
        (json!({ "top_p": 1.1 }), "top_p"),
        (json!({ "metadata": { "a": 1 } }), "metadata"),
        (json!({ "metadata": { "a": "x".repeat(513) } }), "metadata"),
        (json!({ "metadata": { "x".repeat(65): "" } }), "metadata"),
        (json!({ "metadata": many }), "metadata"),
        (json!({ "session_id": "" }), "session_id"),
        (json!({ "tool_choice": "required" }), "tool_choice"),
        (json!({ "tool_choice": "any" }), "tool_choice"),
        (json!({ "tool_choice": { "type": "function", "name": "f" } }), "tool_choice.name"),
        (json!({ "tool_choice": { "type": "allowed_tools" } }), "tool_choice.type"),
        (tool(json!({ "type": "web_search" })), "tools[0].type"),
        (tool(json!({ "type": "function", "function": { "name": "f" } })), "tools[0].function"),
        (tool(json!({ "type": "function", "name": "f", "strict": 1 })), "tools[0].strict"),
        (tool(json!({ "type": "function", "name": "" })), "tools[0].name"),
        (tool(json!({ "type": "function", "name": "f", "parameters": 1 })), "tools[0].parameters"),
        (json!({ "input": [] }), "input"),
        (json!({ "input": 1 }), "input"),
        (item(json!({ "type": "item_reference", "id": "msg_1" })), "input[0].type"),
        (
            item(json!({ "type": "reasoning", "encrypted_content": "x" })),
            "input[0].encrypted_content",
        ),
        (
            item(
                json!({ "type": "reasoning", "content": [{ "type": "output_text", "text": "" }] }),
            ),
            "input[0].content[0].type",
        ),
        (item(json!({ "type": "reasoning", "role": "user" })), "input[0].role"),
        (item(json!({ "id": "msg_1" })), "input[0].role"),
        (item(json!({ "role": "tool", "content": "" })), "input[0].role"),
        (item(json!({ "role": "user" })), "input[0].content"),
        (item(json!({ "role": "user", "content": [] })), "input[0].content"),
        (item(json!({ "role": "user", "content": "", "call_id": "c" })), "input[0].call_id"),
        (item(json!({ "role": "user", "content": "", "x": 1 })), "input[0].x"),
        (part(json!({ "type": "input_image", "image_url": "data:" })), "input[0].content[0].type"),
        (part(json!({ "type": "input_file", "file_id": "f" })), "input[0].content[0].type"),
        (part(json!({ "type": "input_text" })), "input[0].content[0].text"),
        (part(json!({ "type": "input_text", "text": "", "x": 1 })), "input[0].content[0].x"),
        (call("arguments", json!("[]")), "input[0].arguments"),
        (call("arguments", json!(null)), "input[0].arguments"),
        (call("name", json!(null)), "input[0].name"),
        (call("role", json!("user")), "input[0].role"),
        (item(json!({ "type": "function_call_output", "call_id": "c" })), "input[0].output"),
    ] {
        let answer = asked(&server, &hi(fields.clone()));
        assert_eq!((answer.status, &answer.error()["param"]), (400, &json!(param)), "{fields}");
    }
    let answer = asked(&server, &json!({}));
    assert_eq!((answer.status, &answer.error()["param"]), (400, &json!("input")));
    // Null is what some clients write for what they do not set.
    let nulls = json!({ "reasoning": null, "include": [], "truncation": "disabled", "tools": null,
        "text": { "format": { "type": "text" } }, "store": null, "background": false });
    assert_eq!(asked(&server, &hi(nulls)).status, 200);
}

#[test]
fn a_conversation_that_no_context_takes_is_refused_by_its_field() {
    let server = Server::new();
    let first = answered(&server, &hi(json!({})));
    let long = "word ".repeat(20_000);
    for previous in [json!(null), first["id"].clone()] {
        let body = hi(json!({ "input": long, "previous_response_id": previous }));
        let expected = (400, json!("context_length_exceeded"), json!("input"));
        assert_eq!(code(&asked(&server, &body)), expected);
    }
    let many: Vec<Json> = vec![json!({ "role": "user", "content": "" }); 2048];
    let body = hi(json!({ "input": many, "previous_response_id": first["id"] }));
    let refused = asked(&server, &body);
    assert_eq!(code(&refused), (400, json!(null), json!("input")));
    // It speaks of what the client has not sent.
    let message = refused.error()["message"].to_string();
    assert!(message.contains("has 2048 items and the responses before it have 2;"), "{message}");
}

#[test]
fn a_response_that_fails_says_so_in_its_last_event() {
    let setup = || Setup { fails_at: Some(20), ..endless() };
    let body = hi(json!({ "max_output_tokens": 1000 }));
    let server = Server::start(setup());
    let events = streamed(&server, &body);
    let last = events.last().expect("events");
    let response = &last["response"];
    assert_eq!((&last["type"], &response["status"]), (&json!("response.failed"), &json!("failed")));
    assert_eq!(
        (&response["error"]["code"], &response["store"]),
        (&json!("internal_error"), &json!(false))
    );
    assert!(!format!("{events:?}").contains("secret"));
    let whole = asked(&Server::start(setup()), &body);
    assert_eq!((whole.status, whole.error()["code"].clone()), (500, json!("internal_error")));
}

/// It waits in line, so the head of its answer has gone out.
#[test]
fn a_response_that_fails_before_it_begins_is_an_error_event() {
    let bounds = Bounds { keep_alive: Duration::from_millis(10), ..Bounds::default() };
    let engine = semantic::engine::Config {
        running_max: 1,
        queue_time: Duration::from_millis(300),
        ..semantic::engine::Config::default()
    };
    let server = Server::start(Setup { bounds, engine, ..endless() });
    let mut running = streaming(&server, &hi(json!({ "max_output_tokens": 8000 })));
    event(&mut running).expect("it has begun");
    let mut waiting = streaming(&server, &hi(json!({})));
    let told: Vec<String> = std::iter::from_fn(|| waiting.event()).collect();
    let (last, before) = told.split_last().expect("events");
    assert!(!before.is_empty() && before.iter().all(|event| event == ": keep-alive"), "{told:?}");
    let data = last.strip_prefix("event: error\ndata: ").expect("an error");
    let error: Json = serde_json::from_str(data).expect("JSON");
    assert_eq!((&error["type"], &error["sequence_number"]), (&json!("error"), &json!(0)));
    assert_eq!(
        (&error["code"], &error["error"]["code"]),
        (&json!("queue_timeout"), &json!("queue_timeout"))
    );
}
