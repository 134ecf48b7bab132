//! What a message looks like, whole and streamed, and what the model reads of one.

use super::*;

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
