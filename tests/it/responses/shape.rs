//! What a response looks like, whole and streamed, and what the model reads of one.

use super::*;

#[test]
fn a_whole_response_has_openais_shape() {
    let server = Server::new();
    let fields = json!({
        "session_id": "writer",
        "instructions": "Be brief.",
        "metadata": { "b": "1", "a": "2" },
        "top_p": 0.5,
        "user": "me",
    });
    let response = answered(&server, &hi(fields));
    let id = response["id"].as_str().expect("an id");
    assert!(id.starts_with("resp_") && id.len() == 37, "{id}");
    assert!(response["created_at"].as_u64().expect("a time") > 1_600_000_000);
    let item = &response["output"][0];
    assert!(item["id"].as_str().expect("an id").starts_with("msg_"));
    let part = json!({
        "type": "output_text",
        "text": text(&response),
        "annotations": [],
        "logprobs": [],
    });
    let expected = json!({
        "id": id,
        "object": "response",
        "created_at": response["created_at"],
        "status": "incomplete",
        "background": false,
        "error": null,
        "incomplete_details": { "reason": "max_output_tokens" },
        "instructions": "Be brief.",
        "max_output_tokens": 20,
        "metadata": { "b": "1", "a": "2" },
        "model": "fake",
        "output": [{
            "type": "message",
            "id": item["id"],
            "status": "incomplete",
            "role": "assistant",
            "content": [part],
        }],
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "store": true,
        "temperature": 0.0,
        "text": { "format": { "type": "text" } },
        "tool_choice": "auto",
        "tools": [],
        "top_p": 0.5,
        "truncation": "disabled",
        "usage": {
            "input_tokens": tokens(&response, "input_tokens"),
            "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": 20,
            "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": tokens(&response, "input_tokens") + 20,
        },
        "semantic": response["semantic"],
    });
    assert_eq!(response, expected);
    assert_eq!(response["semantic"]["agent"], "writer");
    assert_eq!(response["semantic"]["source"], "cold");
    let kept = server.get(&format!("{RESPONSES}/{id}"));
    assert_eq!((kept.status, kept.json()), (200, response));
}

#[test]
fn a_response_is_what_a_chat_answers() {
    let server = Server::new();
    let response = answered(&server, &hi(json!({ "instructions": "Be brief." })));
    let chat = server.chat(&json!({
        "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "Hello" },
        ],
        "temperature": 0,
        "max_tokens": 20,
    }));
    let chat = chat.json();
    assert_eq!(chat["choices"][0]["message"]["content"], text(&response));
    assert_eq!(chat["usage"]["prompt_tokens"], tokens(&response, "input_tokens"));
}

#[test]
fn the_events_of_a_response_come_in_openais_order() {
    let server = Server::start(Setup { replies: vec!["", "Hello to you."], ..Setup::default() });
    let empty = streamed(&server, &hi(json!({})));
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(outline(&empty), expected);

    let events = streamed(&server, &hi(json!({ "instructions": "Be kind." })));
    let expected = [&expected[..4], &["response.output_text.delta"], &expected[4..]].concat();
    assert_eq!(outline(&events), expected);
    let begun = &events[0]["response"];
    assert_eq!((&begun["status"], &begun["output"]), (&json!("in_progress"), &json!([])));
    assert_eq!((&begun["usage"], &events[1]["response"]), (&json!(null), begun));
    let item = &events[2]["item"];
    assert_eq!((&item["status"], &item["content"]), (&json!("in_progress"), &json!([])));
    assert_eq!(events[3]["part"]["text"], "");
    assert_eq!(deltas(&events, "response.output_text.delta"), "Hello to you.");
    let told: Vec<&Json> = events.iter().filter(|event| event.get("item_id").is_some()).collect();
    for event in told {
        assert_eq!((&event["item_id"], &event["output_index"]), (&item["id"], &json!(0)));
        assert_eq!(event["content_index"], 0);
    }
    let [.., text_done, part_done, item_done, completed] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(text_done["text"], "Hello to you.");
    assert_eq!(part_done["part"]["text"], "Hello to you.");
    let response = &completed["response"];
    assert_eq!(item_done["item"], response["output"][0]);
    assert_eq!((&response["status"], text(response)), (&json!("completed"), "Hello to you."));
    assert_eq!((&response["id"], &response["created_at"]), (&begun["id"], &begun["created_at"]));
    assert_eq!(response["store"], true);
    let id = response["id"].as_str().expect("an id");
    assert_eq!(&server.get(&format!("{RESPONSES}/{id}")).json(), response);
}

#[test]
fn a_streamed_response_has_the_text_of_a_whole_one() {
    let server = Server::new();
    let whole = answered(&server, &hi(json!({})));
    let events = streamed(&server, &hi(json!({})));
    assert_eq!(deltas(&events, "response.output_text.delta"), text(&whole));
    let last = events.last().expect("events");
    assert_eq!(last["type"], "response.incomplete");
    let response = &last["response"];
    assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!((text(response), cached(response) > 0), (text(&whole), true));
}

/// What the model reads of each conversation.
#[test]
fn items_become_the_turns_that_templates_know() {
    let server = Server::start(Setup { template: PLAIN, ..Setup::default() });
    let reads = |fields: Json, expected: &str| {
        let mut body = hi(fields);
        body["max_output_tokens"] = json!(1);
        let response = answered(&server, &body);
        let ids: Vec<u32> = server.encode(expected).iter().map(|token| token.0).collect();
        assert_eq!(tokens(&response, "input_tokens"), ids.len() as u64, "{body} {expected}");
        // As many tokens may be another text, so it is asked for as it is.
        let raw = json!({ "prompt": ids, "temperature": 0, "max_tokens": 1 });
        let raw = server.send(&Request::post("/v1/completions", raw.to_string())).json();
        let cached = raw["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
        assert_eq!(cached, Some(ids.len() as u64 - 1), "{expected}");
    };
    reads(json!({}), "<user>Hello\n<assistant>");
    reads(json!({ "instructions": "Be brief." }), "<system>Be brief.\n<user>Hello\n<assistant>");
    let part = |kind: &str, text: &str| json!({ "type": kind, "text": text });
    let items = json!([
        { "role": "developer", "content": "Be brief." },
        { "type": "message", "role": "user", "content": [part("input_text", "One"), part("input_text", "two")] },
        { "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
          "content": [{ "type": "output_text", "text": "Three", "annotations": [], "logprobs": [] }] },
        { "role": "assistant", "content": "Four" },
        { "role": "system", "content": "Be kind." },
        { "role": "user", "content": "" },
    ]);
    reads(
        json!({ "input": items }),
        "<system>Be brief.\n<user>One\ntwo\n<assistant>Three\n<assistant>Four\n<system>Be kind.\n<user>\n<assistant>",
    );
    let items = json!([
        { "role": "user", "content": "Look." },
        { "role": "assistant", "content": "Yes." },
        { "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look",
          "arguments": "{\"z\": 1, \"a\": \"b\"}", "status": "completed" },
        { "role": "assistant", "content": "A moment." },
        { "type": "function_call_output", "call_id": "call_1", "output": "found" },
        { "type": "function_call_output", "call_id": "call_1",
          "output": [part("input_text", "and"), part("input_text", "more")] },
    ]);
    reads(
        json!({ "input": items }),
        "<user>Look.\n<assistant>Yes.\nA moment.{\"name\": \"look\", \"arguments\": {\"z\": 1, \"a\": \"b\"}}\n\
         <tool>found[look]\n<tool>and\nmore[look]\n<assistant>",
    );
    let tool = json!({
        "type": "function",
        "name": "look",
        "parameters": { "type": "object", "properties": { "z": {}, "a": {} } },
        "description": "Looks.",
        "strict": null,
    });
    reads(
        json!({ "tools": [tool], "tool_choice": "none" }),
        "[{\"type\": \"function\", \"function\": {\"name\": \"look\", \
         \"parameters\": {\"type\": \"object\", \"properties\": {\"z\": {}, \"a\": {}}}, \
         \"description\": \"Looks.\"}}]\n<user>Hello\n<assistant>",
    );
}
