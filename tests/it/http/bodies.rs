//! Bodies: which are read, and what is wrong with the others.

use super::*;

#[test]
fn what_is_not_json_by_its_headers_is_not_read() {
    let server = Server::start(loading());
    let body = hello(json!({})).to_string();
    let post = || Request::post(CHAT, body.clone());
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
        let answer = server.send(&post().header("Content-Type", kind));
        assert_eq!(refused(&answer, 415)["code"], "unsupported_media_type", "{kind}");
    }
    let mut bare = post();
    bare.headers.clear();
    refused(&server.send(&bare), 415);
    refused(&server.send(&post().header("Content-Encoding", "gzip")), 415);
    for kind in ["Application/JSON", "application/json; charset=utf-8"] {
        let answer = server.send(&post().header("Content-Type", kind));
        assert_eq!(refused(&answer, 503)["code"], "model_loading", "{kind}");
    }
}

#[test]
fn a_body_has_a_size_and_a_time() {
    let server = with_bounds(Bounds {
        body_bytes: 1000,
        body_timeout: Duration::from_millis(200),
        ..Bounds::default()
    });
    let large = |bytes: usize| hello(json!({ "user": "x".repeat(bytes) }));
    // Announced, announced without being sent, and in chunks without a length.
    let answer = server.chat(&large(1000));
    assert_eq!(refused(&answer, 413)["code"], "request_too_large");
    assert_eq!(answer.header("connection"), Some("close"));
    let announced = Request::chat(&json!({})).header("Content-Length", "10000000000");
    refused(&server.send(&announced), 413);
    let text = large(1000).to_string();
    let chunked = format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len());
    let chunked = Request::post(CHAT, chunked).header("Transfer-Encoding", "chunked");
    refused(&server.send(&chunked), 413);
    // Within the size.
    assert_eq!(refused(&server.chat(&large(800)), 503)["code"], "model_loading");
    // Begun and not finished.
    let started = Instant::now();
    let slow = Request::post(CHAT, "{").header("Content-Length", "100");
    let mut client = server.connect();
    let answer = client.send(&slow);
    assert_eq!(refused(&answer, 408)["code"], "request_timeout");
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert!(client.is_closed());
}

/// Who is refused before the body was read must not lose the answer to it.
#[test]
fn a_refusal_arrives_although_the_body_is_still_on_its_way() {
    let server = with_keys();
    let large = hello(json!({ "user": "x".repeat(1 << 20) }));
    let mut client = server.connect();
    for _ in 0..3 {
        // On the same connection, which so is whole.
        refused(&client.send(&Request::chat(&large)), 401);
    }
}

/// What is wrong with a body, and which field is to blame.
#[test]
fn a_malformed_body_is_refused_with_the_field_that_is_wrong() {
    let server = Server::start(loading());
    let mut found = String::new();
    let mut check = |body: &str| {
        let answer = server.send(&Request::post(CHAT, body));
        let error = refused(&answer, 400);
        assert_eq!(error["type"], "invalid_request_error");
        let shown: String = body.chars().take(60).collect();
        let [message, param] = [&error["message"], &error["param"]];
        let message: String = message.as_str().expect("a text").chars().take(160).collect();
        found.push_str(&format!("{shown}\n    {param} {message}\n"));
    };
    for body in [
        "",
        "{",
        "[]",
        "null",
        "7",
        "\"text\"",
        "\u{feff}{}",
        "{}",
        "{} {}",
        r#"{"messages":[{"role":"user","content":"\ud800"}]}"#,
        r#"{"messages":[],"messages":[]}"#,
        r#"{"messages":NaN}"#,
    ] {
        check(body);
    }
    check(&"[".repeat(100_000));
    check(&format!("{{\"messages\":{}", "[".repeat(100_000)));
    check(&format!("{{\"tools\":{}", "[".repeat(100_000)));
    for messages in [
        json!([]),
        json!("hi"),
        json!({}),
        json!([7]),
        json!([{}]),
        json!([{ "role": "user" }]),
        json!([{ "content": "hi" }]),
        json!([{ "role": "robot", "content": "hi" }]),
        json!([{ "role": 7, "content": "hi" }]),
        json!([{ "role": "user", "content": null }]),
        json!([{ "role": "user", "content": 7 }]),
        json!([{ "role": "user", "content": {} }]),
        json!([{ "role": "user", "content": [] }]),
        json!([{ "role": "user", "content": ["hi"] }]),
        json!([{ "role": "user", "content": [{ "type": "text" }] }]),
        json!([{ "role": "user", "content": [{ "type": "text", "text": 7 }] }]),
        json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }]),
        json!([{ "role": "user", "content": [{ "type": "audio", "text": "" }] }]),
        json!([{ "role": "user", "content": "hi" }, { "role": "user", "content": "", "x": 1 }]),
        json!([{ "role": "assistant", "content": "", "tool_calls": [7] }]),
        json!(vec![json!({ "role": "user", "content": "" }); 2049]),
    ] {
        check(&json!({ "messages": messages }).to_string());
    }
    for (field, value) in [
        ("model", "7"),
        ("temprature", "1"),
        ("max_tokens", "0"),
        ("max_tokens", "-1"),
        ("max_tokens", "1.5"),
        ("max_tokens", "\"5\""),
        ("max_tokens", "2147483648"),
        ("max_tokens", "18446744073709551616"),
        ("max_completion_tokens", "0"),
        ("temperature", "-0.1"),
        ("temperature", "2.1"),
        ("temperature", "1e309"),
        ("temperature", "NaN"),
        ("temperature", "\"hot\""),
        ("top_p", "1.01"),
        ("top_p", "-1e300"),
        ("top_k", "0"),
        ("top_k", "-1"),
        ("min_p", "2"),
        ("n", "0"),
        ("n", "17"),
        ("n", "1e2"),
        ("seed", "1e3"),
        ("seed", "9223372036854775808"),
        ("stop", "7"),
        ("stop", "\"\""),
        ("stop", "[\"a\",7]"),
        ("stop", &format!("{:?}", ["a"; 10_000])),
        ("stop", &format!("{:?}", "a".repeat(2000))),
        ("logprobs", "3"),
        ("top_logprobs", "2"),
        ("stream", "1"),
        ("stream_options", "{}"),
        ("stream_options", "{\"x\":1}"),
        ("response_format", "{\"type\":\"json\"}"),
        ("response_format", "{\"type\":\"text\",\"json_schema\":{}}"),
        ("response_format", "\"text\""),
        ("frequency_penalty", "2.5"),
        ("presence_penalty", "-2.01"),
        ("tools", "[7]"),
        ("logit_bias", "7"),
        ("logit_bias", "{\"Hello\":1}"),
        ("logit_bias", "{\"7\":100.1}"),
        ("logit_bias", "{\"7\":null}"),
        ("session_id", "\"\""),
        ("session_id", "7"),
        ("chat_template", "\"{{ x }}\""),
    ] {
        check(&hello(json!({})).to_string().replacen('{', &format!("{{\"{field}\":{value},"), 1));
    }
    check(&hello(json!({ "max_tokens": 5, "max_completion_tokens": 6 })).to_string());
    check(&hello(json!({ "logprobs": true, "top_logprobs": 21 })).to_string());
    check(&hello(json!({ "session_id": "x".repeat(257) })).to_string());
    expect![[r#"

            null the body is not valid JSON: EOF while parsing a value at line 1 column 0
        {
            null the body is not valid JSON: EOF while parsing an object at line 1 column 1
        []
            null the body is not a JSON object
        null
            null the body is not a JSON object
        7
            null the body is not a JSON object
        "text"
            null the body is not a JSON object
        ﻿{}
            null the body is not a JSON object
        {}
            "messages" messages is missing
        {} {}
            "messages" messages is missing
        {"messages":[{"role":"user","content":"\ud800"}]}
            "messages[0].content" messages[0].content: unexpected end of hex escape at line 1 column 46
        {"messages":[],"messages":[]}
            null the body is not valid: duplicate field `messages` at line 1 column 25
        {"messages":NaN}
            "messages" messages: expected value at line 1 column 13
        [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
            null the body is not a JSON object
        {"messages":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
            "messages[0][0]" messages[0][0]: expected value at line 1 column 15
        {"tools":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
            "tools[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]…" tools[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0
        {"messages":[]}
            "messages" messages is empty; there is at least one
        {"messages":"hi"}
            "messages" messages: invalid type: string "hi", expected a list at line 1 column 16
        {"messages":{}}
            "messages" messages: invalid type: object, expected a list at line 1 column 12
        {"messages":[7]}
            "messages[0]" messages[0]: invalid type: integer `7`, expected an object at line 1 column 14
        {"messages":[{}]}
            "messages[0].role" messages[0].role is missing
        {"messages":[{"role":"user"}]}
            "messages[0].content" messages[0].content is missing
        {"messages":[{"content":"hi"}]}
            "messages[0].role" messages[0].role is missing
        {"messages":[{"role":"robot","content":"hi"}]}
            "messages[0].role" messages[0].role: unknown variant `robot`, expected one of `system`, `developer`, `user`, `assistant`, `tool` at line 1 column 28
        {"messages":[{"role":7,"content":"hi"}]}
            "messages[0].role" messages[0].role: expected value at line 1 column 22
        {"messages":[{"role":"user","content":null}]}
            "messages[0].content" messages[0].content is missing
        {"messages":[{"role":"user","content":7}]}
            "messages[0].content" messages[0].content: invalid type: integer `7`, expected a string or a list at line 1 column 39
        {"messages":[{"role":"user","content":{}}]}
            "messages[0].content" messages[0].content: invalid type: object, expected a string or a list at line 1 column 40
        {"messages":[{"role":"user","content":[]}]}
            "messages[0].content" messages[0].content is empty
        {"messages":[{"role":"user","content":["hi"]}]}
            "messages[0].content[0]" messages[0].content[0]: invalid type: string "hi", expected an object at line 1 column 43
        {"messages":[{"role":"user","content":[{"type":"text"}]}]}
            "messages[0].content[0].text" messages[0].content[0].text is missing
        {"messages":[{"role":"user","content":[{"type":"text","text"
            "messages[0].content[0].text" messages[0].content[0].text: invalid type: integer `7`, expected a string at line 1 column 62
        {"messages":[{"role":"user","content":[{"type":"image_url","
            "messages[0].content[0].image_url" messages[0].content[0].image_url is not known to this server
        {"messages":[{"role":"user","content":[{"type":"audio","text
            "messages[0].content[0].type" messages[0].content[0].type is "audio"; it is "text"
        {"messages":[{"role":"user","content":"hi"},{"role":"user","
            "messages[1].x" messages[1].x is not known to this server
        {"messages":[{"role":"assistant","content":"","tool_calls":[
            "messages[0].tool_calls[0]" messages[0].tool_calls[0]: invalid type: integer `7`, expected an object at line 1 column 61
        {"messages":[{"role":"user","content":""},{"role":"user","co
            "messages" messages has 2049 items; at most 2048
        {"model":7,"messages":[{"role":"user","content":"Hello"}]}
            "model" model: invalid type: integer `7`, expected a string at line 1 column 10
        {"temprature":1,"messages":[{"role":"user","content":"Hello"
            "temprature" temprature is not known to this server
        {"max_tokens":0,"messages":[{"role":"user","content":"Hello"
            "max_tokens" max_tokens is 0; it goes from 1 to 2147483647
        {"max_tokens":-1,"messages":[{"role":"user","content":"Hello
            "max_tokens" max_tokens: invalid value: integer `-1`, expected a whole number from 0 at line 1 column 16
        {"max_tokens":1.5,"messages":[{"role":"user","content":"Hell
            "max_tokens" max_tokens: invalid type: floating point `1.5`, expected a whole number from 0 at line 1 column 17
        {"max_tokens":"5","messages":[{"role":"user","content":"Hell
            "max_tokens" max_tokens: invalid type: string "5", expected a whole number from 0 at line 1 column 17
        {"max_tokens":2147483648,"messages":[{"role":"user","content
            "max_tokens" max_tokens is 2147483648; it goes from 1 to 2147483647
        {"max_tokens":18446744073709551616,"messages":[{"role":"user
            "max_tokens" max_tokens: invalid type: floating point `1.8446744073709552e+19`, expected a whole number from 0 at line 1 column 34
        {"max_completion_tokens":0,"messages":[{"role":"user","conte
            "max_completion_tokens" max_completion_tokens is 0; it goes from 1 to 2147483647
        {"temperature":-0.1,"messages":[{"role":"user","content":"He
            "temperature" temperature is -0.1; it goes from 0.0 to 2.0
        {"temperature":2.1,"messages":[{"role":"user","content":"Hel
            "temperature" temperature is 2.1; it goes from 0.0 to 2.0
        {"temperature":1e309,"messages":[{"role":"user","content":"H
            "temperature" temperature: number out of range at line 1 column 20
        {"temperature":NaN,"messages":[{"role":"user","content":"Hel
            "temperature" temperature: expected value at line 1 column 16
        {"temperature":"hot","messages":[{"role":"user","content":"H
            "temperature" temperature: invalid type: string "hot", expected a number at line 1 column 20
        {"top_p":1.01,"messages":[{"role":"user","content":"Hello"}]
            "top_p" top_p is 1.01; it goes from 0.0 to 1.0
        {"top_p":-1e300,"messages":[{"role":"user","content":"Hello"
            "top_p" top_p is -1e300; it goes from 0.0 to 1.0
        {"top_k":0,"messages":[{"role":"user","content":"Hello"}]}
            "top_k" top_k is 0; it goes from 1 to 2147483647
        {"top_k":-1,"messages":[{"role":"user","content":"Hello"}]}
            "top_k" top_k: invalid value: integer `-1`, expected a whole number from 0 at line 1 column 11
        {"min_p":2,"messages":[{"role":"user","content":"Hello"}]}
            "min_p" min_p is 2.0; it goes from 0.0 to 1.0
        {"n":0,"messages":[{"role":"user","content":"Hello"}]}
            "n" n is 0; it goes from 1 to 16
        {"n":17,"messages":[{"role":"user","content":"Hello"}]}
            "n" n is 17; it goes from 1 to 16
        {"n":1e2,"messages":[{"role":"user","content":"Hello"}]}
            "n" n: invalid type: floating point `100.0`, expected a whole number from 0 at line 1 column 8
        {"seed":1e3,"messages":[{"role":"user","content":"Hello"}]}
            "seed" seed: invalid type: floating point `1000.0`, expected a whole number at line 1 column 11
        {"seed":9223372036854775808,"messages":[{"role":"user","cont
            "seed" seed: invalid value: integer `9223372036854775808`, expected a whole number at line 1 column 27
        {"stop":7,"messages":[{"role":"user","content":"Hello"}]}
            "stop" stop: invalid type: integer `7`, expected a string or a list at line 1 column 9
        {"stop":"","messages":[{"role":"user","content":"Hello"}]}
            "stop" a text of stop is empty
        {"stop":["a",7],"messages":[{"role":"user","content":"Hello"
            "stop[1]" stop[1]: invalid type: integer `7`, expected a string at line 1 column 14
        {"stop":["a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "
            "stop" stop has 10000 texts; at most 16
        {"stop":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
            "stop" a text of stop has 2000 bytes; at most 1024
        {"logprobs":3,"messages":[{"role":"user","content":"Hello"}]
            "logprobs" logprobs: invalid type: integer `3`, expected a boolean at line 1 column 13
        {"top_logprobs":2,"messages":[{"role":"user","content":"Hell
            "top_logprobs" top_logprobs needs logprobs to be true
        {"stream":1,"messages":[{"role":"user","content":"Hello"}]}
            "stream" stream: invalid type: integer `1`, expected a boolean at line 1 column 11
        {"stream_options":{},"messages":[{"role":"user","content":"H
            "stream_options" stream_options needs stream to be true
        {"stream_options":{"x":1},"messages":[{"role":"user","conten
            "stream_options.x" stream_options.x is not known to this server
        {"response_format":{"type":"json"},"messages":[{"role":"user
            "response_format.type" response_format.type is "json"; it is "text", "json_object" or "json_schema"
        {"response_format":{"type":"text","json_schema":{}},"message
            "response_format.json_schema.name" response_format.json_schema.name is missing
        {"response_format":"text","messages":[{"role":"user","conten
            "response_format" response_format: invalid type: string "text", expected an object at line 1 column 25
        {"frequency_penalty":2.5,"messages":[{"role":"user","content
            "frequency_penalty" frequency_penalty is 2.5; it goes from -2.0 to 2.0
        {"presence_penalty":-2.01,"messages":[{"role":"user","conten
            "presence_penalty" presence_penalty is -2.01; it goes from -2.0 to 2.0
        {"tools":[7],"messages":[{"role":"user","content":"Hello"}]}
            "tools[0]" tools[0] is 7; it is an object
        {"logit_bias":7,"messages":[{"role":"user","content":"Hello"
            "logit_bias" logit_bias: invalid type: integer `7`, expected a map at line 1 column 15
        {"logit_bias":{"Hello":1},"messages":[{"role":"user","conten
            "logit_bias" logit_bias has the key "Hello"; a key is a token's id
        {"logit_bias":{"7":100.1},"messages":[{"role":"user","conten
            "logit_bias.7" logit_bias.7 is 100.1; it goes from -100.0 to 100.0
        {"logit_bias":{"7":null},"messages":[{"role":"user","content
            "logit_bias.7" logit_bias.7: invalid type: null, expected a number at line 1 column 23
        {"session_id":"","messages":[{"role":"user","content":"Hello
            "session_id" session_id: the agent id is empty
        {"session_id":7,"messages":[{"role":"user","content":"Hello"
            "session_id" session_id: invalid type: integer `7`, expected a string at line 1 column 15
        {"chat_template":"{{ x }}","messages":[{"role":"user","conte
            "chat_template" chat_template is not known to this server
        {"messages":[{"role":"user","content":"Hello"}],"max_tokens"
            "max_tokens" max_tokens is 5 and max_completion_tokens 6; give one
        {"messages":[{"role":"user","content":"Hello"}],"logprobs":t
            "top_logprobs" top_logprobs is 21; it goes from 0 to 20
        {"messages":[{"role":"user","content":"Hello"}],"session_id"
            "session_id" session_id: the agent id has 257 bytes; at most 256
    "#]].assert_eq(&found);
}

#[test]
fn a_bad_agent_header_is_refused_and_named() {
    let server = Server::start(loading());
    for name in ["x-agent-id", "x-session-id"] {
        for id in ["", &"x".repeat(257)] {
            let answer = server.send(&Request::chat(&hello(json!({}))).header(name, id));
            assert_eq!(refused(&answer, 400)["param"], name);
        }
    }
}

#[test]
fn what_clients_send_out_of_habit_is_accepted() {
    let server = Server::start(loading());
    let bodies = [
        hello(json!({ "model": "gpt-4o", "n": 1, "stream": false, "stop": null })),
        hello(
            json!({ "temperature": 0, "top_p": 1, "frequency_penalty": 0.0, "presence_penalty": 0 }),
        ),
        hello(json!({ "user": "u", "store": true, "prompt_cache_key": "k", "tools": null })),
        hello(json!({ "logit_bias": {} })),
        hello(json!({ "logit_bias": { "7": -100, "8": 100, "9": 0.5 } })),
        hello(json!({ "response_format": { "type": "text" }, "max_tokens": 2_147_483_647 })),
        hello(json!({ "stream": true, "stream_options": { "include_usage": true }, "seed": -1 })),
        hello(json!({ "max_tokens": 5, "max_completion_tokens": 5, "stop": ["a", "b"] })),
        json!({ "messages": [
            { "role": "developer", "content": "Be brief." },
            { "role": "user", "content": [{ "type": "text", "text": "a" }], "name": "Bob" },
            { "role": "assistant", "content": "b", "refusal": null, "tool_calls": null },
            { "role": "tool", "content": "c", "tool_call_id": "t" },
        ] }),
    ];
    for body in bodies {
        // As far as it goes without a model.
        assert_eq!(refused(&server.chat(&body), 503)["code"], "model_loading", "{body}");
    }
}
