//! Chats with tools over a socket: what a model calls, what its client hears of it, and that a conversation full of calls is not computed again.

use crate::support::http::{Request, Server, Setup, hello};
use semantic::model::fake::{FakeConfig, Memory};
use serde_json::{Value as Json, json};

/// In the manner of Qwen 2.5 and Hermes.
const TAGGED: &str = include_str!("../data/text/templates/tagged_calls.jinja");
/// In the manner of Llama 3.
const JSON: &str = include_str!("../data/text/templates/json_calls.jinja");
/// Renders no tools.
const CHATML: &str = include_str!("../data/text/templates/chatml.jinja");

/// A model that says this, one after another.
fn saying(template: &'static str, replies: &[&'static str]) -> Server {
    let fake = FakeConfig {
        vocabulary: 902,
        context_tokens: 16384,
        pool_blocks: 128,
        memory: Memory::Tokens,
    };
    Server::start(Setup { template, replies: replies.to_vec(), fake, ..Setup::default() })
}

fn tool(name: &str) -> Json {
    json!({
        "type": "function",
        "function": {
            "name": name,
            "description": format!("Does what {name} does."),
            "parameters": {
                "type": "object",
                "properties": { "city": { "type": "string" }, "days": { "type": "integer" } },
                "required": ["city"],
            },
        },
    })
}

fn with_tools(fields: Json) -> Json {
    let mut body = hello(json!({ "tools": [tool("get_weather"), tool("get_time")] }));
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

fn answered(server: &Server, body: &Json) -> Json {
    let answer = server.chat(body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The chunks of a stream that ends as it should, without `[DONE]`.
fn chunks(server: &Server, body: &Json) -> Vec<Json> {
    let mut client = server.connect();
    let mut body = body.clone();
    body["stream"] = json!(true);
    client.stream(&body);
    let mut chunks = client.rest();
    assert_eq!(chunks.pop(), Some(json!("[DONE]")));
    chunks
}

/// What a client makes of a stream: the whole choice, without ids' values.
fn collected(chunks: &[Json], choice: usize) -> Json {
    let mut text: Option<String> = None;
    let mut calls: Vec<Json> = Vec::new();
    let mut finish = Json::Null;
    let parts = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().expect("a list"));
    for part in parts.filter(|part| part["index"] == choice) {
        assert!(finish.is_null(), "nothing comes after the end");
        finish = part["finish_reason"].clone();
        if let Some(more) = part["delta"]["content"].as_str().filter(|more| !more.is_empty()) {
            text.get_or_insert_default().push_str(more);
        }
        for call in part["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().expect("a number") as usize;
            assert!(index == calls.len() || index + 1 == calls.len(), "one after another");
            if index == calls.len() {
                assert_eq!(call["function"]["arguments"], "");
                calls.push(json!({
                    "id": call["id"],
                    "type": call["type"],
                    "function": { "name": call["function"]["name"], "arguments": "" },
                }));
            } else {
                assert_eq!(call["id"], Json::Null);
                let arguments = &mut calls[index]["function"]["arguments"];
                let more = call["function"]["arguments"].as_str().expect("a text");
                *arguments = format!("{}{more}", arguments.as_str().expect("a text")).into();
            }
        }
    }
    let mut message = json!({ "role": "assistant", "content": text });
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    json!({ "message": message, "finish_reason": finish })
}

/// The message and the end of a choice, whose calls have ids of their own.
fn told(choice: &Json) -> String {
    let mut choice = choice.clone();
    let mut ids = Vec::new();
    let calls = choice.pointer_mut("/message/tool_calls").and_then(Json::as_array_mut);
    for call in calls.into_iter().flatten() {
        let id = call["id"].take();
        assert!(id.as_str().is_some_and(|id| id.starts_with("call_")), "{id}");
        assert!(!ids.contains(&id));
        ids.push(id);
    }
    format!("{} {}", choice["message"], choice["finish_reason"])
}

/// The same whole and streamed.
#[track_caller]
fn check(template: &'static str, reply: &'static str, expected: &str) {
    let server = saying(template, &[reply, reply]);
    let whole = answered(&server, &with_tools(json!({})));
    assert_eq!(told(&whole["choices"][0]), expected);
    let chunks = chunks(&server, &with_tools(json!({})));
    assert_eq!(told(&collected(&chunks, 0)), expected, "streamed");
}

#[test]
fn calls_are_told_as_openai_tells_them() {
    check(
        TAGGED,
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Wien\", \"days\": 2}}\n</tool_call>",
        r#"{"role":"assistant","content":null,"tool_calls":[{"id":null,"type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Wien\", \"days\": 2}"}}]} "tool_calls""#,
    );
    check(
        TAGGED,
        "I look.\n<tool_call>{\"name\":\"get_time\",\"arguments\":{}}</tool_call>\n<tool_call>{\"arguments\":{\"city\":\"é\"},\"name\":\"get_time\"}</tool_call>\nWait.",
        r#"{"role":"assistant","content":"I look.\nWait.","tool_calls":[{"id":null,"type":"function","function":{"name":"get_time","arguments":"{}"}},{"id":null,"type":"function","function":{"name":"get_time","arguments":"{\"city\":\"é\"}"}}]} "tool_calls""#,
    );
    check(
        JSON,
        "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Wien\"}}; {\"name\": \"get_time\", \"parameters\": {}}",
        r#"{"role":"assistant","content":null,"tool_calls":[{"id":null,"type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Wien\"}"}},{"id":null,"type":"function","function":{"name":"get_time","arguments":"{}"}}]} "tool_calls""#,
    );
}

#[test]
fn what_is_no_call_stays_text() {
    for reply in [
        "It is warm. ",
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Wien\"}\n</tool_call>\n",
        "<tool_call>{\"name\":\"open_door\",\"arguments\":{}}</tool_call>",
        "{\"name\":\"Wien\",\"country\":\"Austria\"}",
        "Use <tool_call> like {\"name\":\"get_time\",\"parameters\":{}}",
    ] {
        let expected = format!(r#"{{"role":"assistant","content":{}}} "stop""#, json!(reply));
        check(TAGGED, reply, &expected);
    }
}

#[test]
fn a_call_that_is_cut_is_text_and_one_that_is_whole_is_a_call() {
    let call = "<tool_call>{\"name\":\"get_time\",\"arguments\":{}}</tool_call>";
    let replies = [
        call,
        call,
        "<tool_call>{\"name\":\"get_time\",\"arguments\":{}}</tool_call> and more and more",
    ];
    let server = saying(TAGGED, &replies);
    let whole = answered(&server, &with_tools(json!({})));
    let tokens = whole["usage"]["completion_tokens"].as_u64().expect("a number");
    let cut = answered(&server, &with_tools(json!({ "max_tokens": tokens - 3 })));
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert_eq!(cut["choices"][0]["message"].get("tool_calls"), None);
    let text = cut["choices"][0]["message"]["content"].as_str().expect("a text");
    assert!(call.starts_with(text), "{text}");
    // What came after a call is gone, the call is not.
    let cut = answered(&server, &with_tools(json!({ "max_tokens": tokens + 2 })));
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert_eq!(cut["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "get_time");
}

#[test]
fn asked_for_no_calls_the_model_reads_the_same_and_writes_text() {
    let call = "<tool_call>{\"name\":\"get_time\",\"arguments\":{}}</tool_call>";
    let server = saying(TAGGED, &[call, call]);
    let first = answered(&server, &with_tools(json!({ "tool_choice": "auto" })));
    let second = answered(&server, &with_tools(json!({ "tool_choice": "none" })));
    let expected = format!(r#"{{"role":"assistant","content":{}}} "stop""#, json!(call));
    assert_eq!(told(&second["choices"][0]), expected);
    assert_eq!(first["usage"]["prompt_tokens"], second["usage"]["prompt_tokens"]);
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    assert!(cached.is_some_and(|cached| cached + 1 >= prompt_tokens(&second)), "{cached:?}");
}

#[test]
fn each_choice_makes_its_own_calls() {
    let call = "Well. <tool_call>{\"name\":\"get_time\",\"arguments\":{}}</tool_call>";
    let server = saying(TAGGED, &[call, call]);
    let body = with_tools(json!({ "n": 3, "seed": 1 }));
    let whole = answered(&server, &body);
    let streamed = chunks(&server, &body);
    for choice in 0..3 {
        let expected = told(&whole["choices"][choice]);
        assert!(expected.contains("get_time"), "{expected}");
        assert_eq!(told(&collected(&streamed, choice)), expected);
    }
}

#[test]
fn every_token_of_a_call_has_its_log_probability() {
    let call = "So <tool_call>{\"name\":\"get_time\",\"arguments\":{}}</tool_call>";
    let server = saying(TAGGED, &[call, call]);
    let fields = json!({ "logprobs": true, "stream_options": { "include_usage": true } });
    let chunks = chunks(&server, &with_tools(fields));
    let count =
        |chunk: &Json| chunk["choices"][0]["logprobs"]["content"].as_array().map_or(0, Vec::len);
    let usage = &chunks.last().expect("there are some")["usage"];
    let streamed: usize = chunks.iter().map(count).sum();
    // The token that ends the turn has no text and is not told of.
    assert_eq!(Some(streamed as u64), usage["completion_tokens"].as_u64());
    let whole = answered(&server, &with_tools(json!({ "logprobs": true })));
    assert_eq!(whole["choices"][0]["logprobs"]["content"].as_array().map(Vec::len), Some(streamed));
}

#[test]
fn a_template_that_renders_no_tools_refuses_them() {
    let server = saying(CHATML, &[]);
    let answer = server.chat(&with_tools(json!({})));
    assert_eq!(answer.status, 400);
    assert_eq!(answer.error()["param"], "tools");
    assert_eq!(answer.error()["message"], "the template of fake renders no tools");
    // A conversation that had calls elsewhere goes on.
    assert_eq!(server.chat(&with_tools(json!({ "tools": [], "max_tokens": 1 }))).status, 200);
}

#[test]
fn a_tool_is_shown_as_it_was_sent_to_the_order_of_its_keys() {
    let server = saying(TAGGED, &["Yes.", "Yes.", "Yes."]);
    let ask = |tools: &str| {
        let messages = r#"[{"role":"user","content":"Hi"}]"#;
        let body = format!(r#"{{"messages":{messages},"tools":[{tools}]}}"#);
        let answer = server.send(&Request::post("/v1/chat/completions", body));
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        (prompt_tokens(&answer), cached_tokens(&answer))
    };
    let tool = r#"{"function":{"description":"x","name":"a","parameters":{"b":1,"a":2}},"type":"function"}"#;
    let (prompt, _) = ask(tool);
    let (again, cached) = ask(tool);
    assert_eq!(again, prompt);
    assert!(cached + 1 >= prompt, "{cached} of {prompt}");
    let (_, cached) = ask(
        r#"{"type":"function","function":{"description":"x","name":"a","parameters":{"b":1,"a":2}}}"#,
    );
    assert!(cached < prompt / 2, "{cached} of {prompt}");
}

fn prompt_tokens(answer: &Json) -> u64 {
    answer["usage"]["prompt_tokens"].as_u64().expect("a number")
}

fn cached_tokens(answer: &Json) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
}

/// How a client gives a call's arguments back.
#[derive(Clone, Copy)]
enum Echo {
    Verbatim,
    /// Read and written again, as frameworks do that keep them as objects.
    Rewritten,
}

/// Eight times the user asks, the model calls, the tool answers and the model speaks.
#[track_caller]
fn check_conversation(template: &'static str, replies: &[&'static str], echo: Echo) {
    let server = saying(template, replies);
    let tools: Vec<Json> = (0..15).map(|number| tool(&format!("tool_{number}"))).collect();
    let mut messages = vec![json!({ "role": "system", "content": "You are a guide." })];
    let mut before = 0;
    for (turn, _) in replies.iter().enumerate() {
        if messages.last().is_some_and(|last| last["role"] != "tool") {
            messages.push(json!({ "role": "user", "content": format!("And day {turn}?") }));
        }
        let body = json!({ "messages": messages, "tools": tools, "session_id": "guide" });
        let mut answer = answered(&server, &body);
        let cached = cached_tokens(&answer);
        // All but the token that ended the turn, which the template writes.
        assert!(cached + 1 >= before, "turn {turn}: {cached} of {before}");
        assert!(before == 0 || before > 1000, "tools are in the prompt");
        before = prompt_tokens(&answer)
            + answer["usage"]["completion_tokens"].as_u64().expect("a number");
        let mut message = answer["choices"][0]["message"].take();
        let mut results = Vec::new();
        let calls = message.get_mut("tool_calls").and_then(Json::as_array_mut);
        for call in calls.into_iter().flatten() {
            results.push(json!({
                "role": "tool",
                "tool_call_id": call["id"],
                "content": format!("{turn} degrees"),
            }));
            if let Echo::Rewritten = echo {
                let arguments = call["function"]["arguments"].as_str().expect("a text");
                let arguments: Json = serde_json::from_str(arguments).expect("JSON");
                call["function"]["arguments"] = format!("{arguments:#}").into();
            }
        }
        assert_eq!(results.is_empty(), turn % 2 == 1, "{message}");
        messages.push(message);
        messages.extend(results);
    }
    assert_eq!(messages.iter().filter(|message| message["role"] == "user").count(), 8);
}

#[test]
fn of_a_conversation_with_15_tools_and_8_turns_nothing_is_computed_twice_tagged_calls() {
    let one = "<tool_call>\n{\"name\": \"tool_3\", \"arguments\": {\"city\": \"Wien\", \"days\": 3}}\n</tool_call>";
    let odd = "I look at both.\n\n<tool_call>{\"arguments\":{\"city\":\"Gr\\u00e4z\"},\"name\":\"tool_14\"}</tool_call>\n\n<tool_call>{\"name\":\"tool_0\",\"arguments\":{}}</tool_call>";
    let replies = [
        one,
        "It is warm.",
        odd,
        " Take a coat.\n",
        one,
        "It is warm.",
        odd,
        "Cold.",
        one,
        "Warm.",
        odd,
        "Take a coat.",
        one,
        "As I said.",
        odd,
        "Good bye.",
    ];
    check_conversation(TAGGED, &replies, Echo::Verbatim);
    check_conversation(TAGGED, &replies, Echo::Rewritten);
}

#[test]
fn of_a_conversation_with_15_tools_and_8_turns_nothing_is_computed_twice_json_calls() {
    let one = "{\"name\": \"tool_3\", \"parameters\": {\"city\": \"Wien\", \"days\": 3.0}}";
    let odd =
        "{ \"parameters\" : {\"days\":[1,\t2],\"city\":\"Gr\\u00e4z\"}, \"name\":\"tool_14\" }\n";
    let replies = [
        one,
        "It is warm.",
        odd,
        " Take a coat.\n",
        one,
        "It is warm.",
        odd,
        "Cold.",
        one,
        "Warm.",
        odd,
        "Take a coat.",
        one,
        "As I said.",
        odd,
        "Good bye.",
    ];
    check_conversation(JSON, &replies, Echo::Verbatim);
    check_conversation(JSON, &replies, Echo::Rewritten);
}

#[test]
fn tools_that_cannot_be_served_are_refused_and_named() {
    let server = saying(TAGGED, &[]);
    let mut found = String::new();
    let mut refuse = |body: Json| {
        let answer = server.chat(&body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let error = answer.error();
        let message = error["message"].as_str().expect("a text");
        found += &format!("{}: {message}\n", error["param"].as_str().expect("a field"));
    };
    let function = |name: &str, value: Json| {
        let mut tool = tool("a");
        tool["function"][name] = value;
        json!([tool])
    };
    for tools in [
        json!({}),
        json!(["a"]),
        json!([{ "type": "web_search" }]),
        json!([{ "function": { "name": "a" } }]),
        json!([{ "type": "function" }]),
        json!([{ "type": "function", "function": {} }]),
        json!([{ "type": "function", "function": { "name": "a" }, "x": 1 }]),
        function("name", json!("a b")),
        function("name", json!("a".repeat(65))),
        function("name", json!("a".repeat(1000))),
        function("name", json!(7)),
        function("description", json!(7)),
        function("parameters", json!("{}")),
        function("strict", json!("no")),
        function("x", json!(1)),
        json!([tool("a"), tool("b"), tool("a")]),
        json!((0..129).map(|number| tool(&number.to_string())).collect::<Vec<_>>()),
    ] {
        refuse(hello(json!({ "tools": tools })));
    }
    for fields in [
        json!({ "tool_choice": "any" }),
        json!({ "tool_choice": { "type": "function", "function": { "name": "get_tim" } } }),
        json!({ "tool_choice": 1 }),
        json!({ "functions": [] }),
        json!({ "function_call": "auto" }),
    ] {
        refuse(with_tools(fields));
    }
    let call = |fields: Json| {
        let mut call = json!({ "id": "1", "type": "function", "function": { "name": "a", "arguments": "{}" } });
        for (name, value) in fields.as_object().expect("an object") {
            call[name] = value.clone();
        }
        json!({ "role": "assistant", "content": null, "tool_calls": [call] })
    };
    for message in [
        call(json!({ "function": { "name": "a", "arguments": "{" } })),
        call(json!({ "function": { "name": "a", "arguments": "[]" } })),
        call(json!({ "function": { "name": "a", "arguments": {} } })),
        call(json!({ "function": { "arguments": "{}" } })),
        call(json!({ "type": "custom" })),
        call(json!({ "id": null })),
        call(json!({ "x": 1 })),
        json!({ "role": "assistant", "content": null, "tool_calls": [] }),
        json!({ "role": "assistant", "content": null }),
        json!({ "role": "assistant", "content": "a", "function_call": {} }),
        json!({ "role": "assistant", "content": "a", "refusal": "no" }),
        json!({ "role": "assistant", "content": "a", "annotations": [{}] }),
        json!({ "role": "user", "content": "a", "tool_calls": call(json!({}))["tool_calls"] }),
        json!({ "role": "tool", "tool_call_id": "1" }),
        json!({ "role": "tool", "tool_call_id": "1", "content": [{ "type": "image" }] }),
    ] {
        refuse(with_tools(json!({ "messages": [{ "role": "user", "content": "a" }, message] })));
    }
    expect_test::expect![[r#"
        tools: tools: invalid type: object, expected a list at line 1 column 56
        tools[0]: tools[0] is "a"; it is an object
        tools[0].type: tools[0].type is "web_search"; it is "function"
        tools[0].type: tools[0].type is missing
        tools[0].function: tools[0].function is missing
        tools[0].function.name: tools[0].function.name is missing
        tools[0].x: tools[0].x is not known to this server
        tools[0].function.name: tools[0].function.name is "a b"; it is 1 to 64 letters, digits, _, - and .
        tools[0].function.name: tools[0].function.name is "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"; it is 1 to 64 letters, digits, _, - and .
        tools[0].function.name: tools[0].function.name is a text of 1000 bytes; it is 1 to 64 letters, digits, _, - and .
        tools[0].function.name: tools[0].function.name is 7; it is a string
        tools[0].function.description: tools[0].function.description is 7; it is a string
        tools[0].function.parameters: tools[0].function.parameters is "{}"; it is an object
        tools[0].function.strict: tools[0].function.strict is "no"; it is a boolean
        tools[0].function.x: tools[0].function.x is not known to this server
        tools[2].function.name: tools[2].function.name is "a", which another tool has
        tools: tools has 129 items; at most 128
        tool_choice: tool_choice is "any"; it is "auto", "none", "required" or a function
        tool_choice.function.name: tool_choice.function.name is "get_tim", which is none of the tools
        tool_choice: tool_choice is 1; it is "auto", "none", "required" or a function
        functions: functions is not supported by this server
        function_call: function_call is not supported by this server
        messages[1].tool_calls[0].function.arguments: messages[1].tool_calls[0].function.arguments is not the text of a JSON object
        messages[1].tool_calls[0].function.arguments: messages[1].tool_calls[0].function.arguments is not the text of a JSON object
        messages[1].tool_calls[0].function.arguments: messages[1].tool_calls[0].function.arguments: invalid type: object, expected a string at line 1 column 155
        messages[1].tool_calls[0].function.name: messages[1].tool_calls[0].function.name is missing
        messages[1].tool_calls[0].type: messages[1].tool_calls[0].type is "custom"; it is "function"
        messages[1].tool_calls[0].id: messages[1].tool_calls[0].id: invalid type: null, expected a string at line 1 column 102
        messages[1].tool_calls[0].x: messages[1].tool_calls[0].x is not known to this server
        messages[1].content: messages[1].content is missing
        messages[1].content: messages[1].content is missing
        messages[1].function_call: messages[1].function_call is not supported by this server
        messages[1].refusal: messages[1].refusal is not supported by this server
        messages[1].annotations: messages[1].annotations is not supported by this server
        messages[1].tool_calls: messages[1].tool_calls is there; only the assistant calls tools
        messages[1].content: messages[1].content is missing
        messages[1].content[0].type: messages[1].content[0].type is "image"; it is "text"
    "#]]
    .assert_eq(&found);
}

#[test]
fn what_frameworks_send_out_of_habit_is_accepted() {
    let server = saying(TAGGED, &["Yes.", "Yes.", "Yes."]);
    let mut plain = tool("get_time");
    plain["function"]["strict"] = json!(false);
    let bare = json!({ "type": "function", "function": { "name": "a", "description": null } });
    let calls = json!([{
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": { "name": "unknown tool", "arguments": " {\"a\": [1]}\n" },
    }]);
    for fields in [
        json!({ "tools": [plain, bare], "tool_choice": "auto", "parallel_tool_calls": true }),
        json!({ "tools": [], "tool_choice": null }),
        json!({ "messages": [
            { "role": "user", "content": "Hi" },
            { "role": "assistant", "content": null, "tool_calls": calls, "refusal": null,
              "annotations": [], "audio": null, "function_call": null },
            { "role": "tool", "tool_call_id": "another", "name": "x",
              "content": [{ "type": "text", "text": "1" }, { "type": "text", "text": "2" }] },
        ] }),
    ] {
        let answer = server.chat(&with_tools(fields));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}
