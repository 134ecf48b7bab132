//! Models that think before they answer: their thinking in a place of its own, and next turns that are not computed again whatever a client keeps of it.

use crate::support::http::{Request, Server, Setup, hello};
use crate::support::store::ShakyDisk;
use serde_json::{Value as Json, json};

/// In the manner of Qwen 3: drops what was thought in earlier turns.
const THINKING: &str = include_str!("../data/text/templates/thinking.jinja");
/// In the manner of DeepSeek R1: asks with the tag, and drops all earlier thinking.
const OPENED: &str = include_str!("../data/text/templates/opened.jinja");
/// Knows nothing of it, but the vocabulary of the tests does.
const CHATML: &str = include_str!("../data/text/templates/chatml.jinja");

const THOUGHT: &str = "The user greets.\nI may greet back.";
const ANSWER: &str = "Good morning. ";
const TAGGED_REPLY: &str =
    "<think>\nThe user greets.\nI may greet back.\n</think>\n\nGood morning. ";
const OPENED_REPLY: &str = "The user greets.\nI may greet back.\n</think>\n\nGood morning. ";

/// Each kind of template, with a reply to it.
const MODELS: [(&str, &str); 3] =
    [(THINKING, TAGGED_REPLY), (OPENED, OPENED_REPLY), (CHATML, TAGGED_REPLY)];

fn saying(template: &'static str, replies: &[&'static str]) -> Server {
    Server::start(Setup { template, replies: replies.to_vec(), ..Setup::default() })
}

fn answered(server: &Server, path: &str, body: &Json) -> Json {
    let answer = server.send(&Request::post(path, body.to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn chat(server: &Server, fields: Json) -> Json {
    answered(server, "/v1/chat/completions", &hello(fields))
}

fn message(server: &Server, fields: Json) -> Json {
    let mut body = hello(fields);
    let max_tokens = body.get("max_tokens").cloned().unwrap_or(json!(200));
    body["max_tokens"] = max_tokens;
    answered(server, "/v1/messages", &body)
}

/// What a client makes of the chunks of a stream: thinking, text, and the end.
fn streamed_chat(server: &Server, fields: Json) -> (String, String, Json) {
    let mut body = hello(fields);
    body["stream"] = json!(true);
    let mut client = server.connect();
    client.stream(&body);
    let mut chunks = client.rest();
    assert_eq!(chunks.pop(), Some(json!("[DONE]")));
    let (mut thought, mut text, mut finish) = (String::new(), String::new(), Json::Null);
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        if let Some(more) = choice["delta"]["reasoning_content"].as_str() {
            assert!(text.is_empty() && !more.is_empty(), "all thinking comes first");
            thought += more;
        }
        text += choice["delta"]["content"].as_str().unwrap_or_default();
        finish = choice["finish_reason"].clone();
    }
    (thought, text, finish)
}

#[test]
fn thinking_and_answer_are_told_apart_as_openais_followers_tell_them() {
    for (template, reply) in MODELS {
        let server = saying(template, &[reply, reply]);
        let whole = chat(&server, json!({}));
        let expected =
            json!({ "role": "assistant", "reasoning_content": THOUGHT, "content": ANSWER });
        assert_eq!(whole["choices"][0]["message"], expected, "{template}");
        let expected = (THOUGHT.to_owned(), ANSWER.to_owned(), json!("stop"));
        assert_eq!(streamed_chat(&server, json!({})), expected, "{template}");
    }
}

#[test]
fn thinking_and_answer_are_blocks_of_a_message() {
    for (template, reply) in MODELS {
        let server = saying(template, &[reply, reply]);
        let thinking = json!({ "type": "thinking", "thinking": THOUGHT, "signature": "" });
        let text = json!({ "type": "text", "text": ANSWER });
        assert_eq!(message(&server, json!({}))["content"], json!([thinking, text]));

        let mut client = server.connect();
        let body = hello(json!({ "max_tokens": 200, "stream": true }));
        client.open(&Request::post("/v1/messages", body.to_string()));
        let mut blocks: Vec<Json> = Vec::new();
        let mut ended = 0;
        while let Some(event) = client.event() {
            let (_, data) = event.split_once("\ndata: ").expect("two lines");
            let event: Json = serde_json::from_str(data).expect("JSON");
            match event["type"].as_str() {
                Some("content_block_start") => {
                    assert_eq!((&event["index"], ended), (&json!(blocks.len()), blocks.len()));
                    blocks.push(event["content_block"].clone());
                }
                Some("content_block_delta") => {
                    let block = blocks.last_mut().expect("one has begun");
                    assert_eq!(event["index"], json!(ended));
                    let delta = event["delta"].as_object().expect("an object");
                    for name in ["thinking", "text", "signature"] {
                        if let Some(more) = delta.get(name).and_then(Json::as_str) {
                            assert_eq!(delta["type"], json!(format!("{name}_delta")));
                            let before = block[name].as_str().expect("a text");
                            block[name] = json!(format!("{before}{more}"));
                        }
                    }
                }
                Some("content_block_stop") => ended += 1,
                _ => (),
            }
        }
        assert_eq!(json!(blocks), json!([thinking, text]));
        assert_eq!(ended, 2);
    }
}

#[test]
fn a_tag_that_the_reply_does_not_begin_with_is_text() {
    let reply = "Say <think>no</think> more.";
    let server = saying(THINKING, &[reply, reply, reply]);
    let expected = json!({ "role": "assistant", "content": reply });
    assert_eq!(chat(&server, json!({}))["choices"][0]["message"], expected);
    let expected = (String::new(), reply.to_owned(), json!("stop"));
    assert_eq!(streamed_chat(&server, json!({})), expected);
    assert_eq!(message(&server, json!({}))["content"], json!([{ "type": "text", "text": reply }]));
}

#[test]
fn thinking_that_does_not_end_is_all_there_is() {
    for (template, reply) in MODELS {
        let server = saying(template, &[reply, reply, reply]);
        let cut = chat(&server, json!({ "max_tokens": 6, "session_id": "a" }));
        let said = &cut["choices"][0]["message"];
        let thought = said["reasoning_content"].as_str().expect("a text");
        assert!(!thought.is_empty() && THOUGHT.starts_with(thought), "{cut}");
        assert_eq!(
            (&said["content"], &cut["choices"][0]["finish_reason"]),
            (&json!(""), &json!("length"))
        );
        let blocks = message(&server, json!({ "max_tokens": 6 }))["content"].take();
        assert_eq!(
            (&blocks[0]["type"], &blocks[1]),
            (&json!("thinking"), &json!({ "type": "text", "text": "" }))
        );
        // Sent back, it is where it was.
        let turns =
            json!([hello(json!({}))["messages"][0], said, { "role": "user", "content": "Go on." }]);
        let next = chat(&server, json!({ "messages": turns, "session_id": "a", "max_tokens": 1 }));
        assert!(cached(&next) + 1 >= total(&cut), "{template} {next}");
    }
}

#[test]
fn a_client_may_have_the_thinking_in_the_text() {
    for (template, reply) in MODELS {
        let server = saying(template, &[reply, reply, reply, reply]);
        let expected = json!({ "role": "assistant", "content": reply });
        let whole = chat(&server, json!({ "reasoning_format": "none" }));
        assert_eq!(whole["choices"][0]["message"], expected);
        let streamed = streamed_chat(&server, json!({ "reasoning_format": "none" }));
        assert_eq!(streamed, (String::new(), reply.to_owned(), json!("stop")));
        let blocks = message(&server, json!({ "reasoning_format": "none" }))["content"].take();
        assert_eq!(blocks, json!([{ "type": "text", "text": reply }]));
        let apart = chat(&server, json!({ "reasoning_format": "auto" }));
        assert_eq!(apart["choices"][0]["message"]["reasoning_content"], THOUGHT);
    }
}

#[test]
fn what_cannot_be_is_refused_by_the_name_of_its_field() {
    let server = saying(THINKING, &[]);
    let refused = |path: &str, fields: Json| {
        let mut body = hello(json!({ "max_tokens": 5 }));
        for (name, value) in fields.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let answer = server.send(&Request::post(path, body.to_string()));
        assert_eq!(answer.status, 400, "{answer:?}");
        answer.json()["error"]["message"].as_str().expect("a text").to_owned()
    };
    for path in ["/v1/chat/completions", "/v1/messages"] {
        assert_eq!(
            refused(path, json!({ "reasoning_format": "raw" })),
            "reasoning_format is \"raw\"; it is \"auto\", \"deepseek\" or \"none\""
        );
    }
    let thinks = json!([{ "role": "user", "content": "Hi", "reasoning_content": "Hm." }]);
    assert_eq!(
        refused("/v1/chat/completions", json!({ "messages": thinks })),
        "messages[0].reasoning_content is there; only the assistant thinks aloud"
    );
}

fn cached(answer: &Json) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
}

fn total(answer: &Json) -> u64 {
    answer["usage"]["total_tokens"].as_u64().expect("a number")
}

fn read(answer: &Json) -> u64 {
    let number = |name: &str| answer["usage"][name].as_u64().expect("a number");
    number("input_tokens") + number("cache_read_input_tokens")
}

/// What a client of the chat route sends back of a message.
const ECHOES: [fn(&Json, &str) -> Json; 3] = [
    |said, _| json!({ "role": "assistant", "content": said["content"].as_str().expect("a text").trim() }),
    |said, _| said.clone(),
    |_, reply| json!({ "role": "assistant", "content": reply }),
];

#[test]
fn the_next_turn_computes_nothing_again_whatever_is_sent_of_the_thinking() {
    for (template, reply) in MODELS {
        for (number, echo) in ECHOES.iter().enumerate() {
            let server = saying(template, &[reply; 4]);
            let mut messages = vec![];
            let mut before = 0;
            for turn in 0..4 {
                messages.push(json!({ "role": "user", "content": format!("Hello {turn}") }));
                let answer = chat(&server, json!({ "messages": messages, "session_id": "a" }));
                // All but the token that ended the turn, which the template writes.
                assert!(cached(&answer) + 1 >= before, "{template} {number} {turn}: {answer}");
                before = total(&answer);
                messages.push(echo(&answer["choices"][0]["message"], reply));
            }
        }
    }
}

#[test]
fn the_next_message_computes_nothing_again_with_its_thinking_blocks_and_without() {
    for (template, reply) in MODELS {
        for keeps_thinking in [true, false] {
            let server = saying(template, &[reply; 3]);
            let mut messages = vec![];
            let mut before = 0;
            for turn in 0..3 {
                messages.push(json!({ "role": "user", "content": format!("Hello {turn}") }));
                let mut answer = message(&server, json!({ "messages": messages }));
                let cached = answer["usage"]["cache_read_input_tokens"].as_u64().expect("a number");
                assert!(cached + 1 >= before, "{template} {keeps_thinking} {turn}: {answer}");
                before =
                    read(&answer) + answer["usage"]["output_tokens"].as_u64().expect("a number");
                let mut blocks = answer["content"].take();
                if !keeps_thinking {
                    blocks = json!([blocks[1]]);
                }
                messages.push(json!({ "role": "assistant", "content": blocks }));
            }
        }
    }
}

#[test]
fn a_call_that_was_thought_about_is_found_again_without_the_thinking() {
    let call = "<think>\nI must look.\n</think>\n\n<tool_call>\n{\"name\": \"look\", \"arguments\": {}}\n</tool_call>";
    let server = saying(THINKING, &[call, TAGGED_REPLY, TAGGED_REPLY]);
    let tools = json!([{ "type": "function", "function": { "name": "look", "parameters": {} } }]);
    let first = chat(&server, json!({ "tools": tools, "session_id": "a" }));
    let mut said = first["choices"][0]["message"].clone();
    assert_eq!(
        (&said["reasoning_content"], &said["content"]),
        (&json!("I must look."), &Json::Null)
    );
    assert_eq!(said["tool_calls"][0]["function"]["name"], "look");
    said.as_object_mut().expect("an object").remove("reasoning_content");
    let mut turns = vec![hello(json!({}))["messages"][0].clone(), said];
    turns.push(json!({ "role": "tool", "tool_call_id": "x", "content": "nothing" }));
    let next = chat(&server, json!({ "messages": turns, "tools": tools, "session_id": "a" }));
    assert!(cached(&next) + 1 >= total(&first), "{next}");
    turns.push(json!({ "role": "assistant", "content": ANSWER }));
    turns.push(json!({ "role": "user", "content": "Again!" }));
    let last = chat(&server, json!({ "messages": turns, "tools": tools, "session_id": "a" }));
    assert!(cached(&last) + 1 >= total(&next), "{last}");
}

#[test]
fn nobody_gets_what_the_model_thought_for_another() {
    let keys = Some("key-of-the-tests-1,key-of-the-tests-2");
    let replies = vec![TAGGED_REPLY; 3];
    let server = Server::start(Setup { keys, template: THINKING, replies, ..Setup::default() });
    let ask = |key: &str, messages: &Json| {
        let body = hello(json!({ "messages": messages }));
        let request = Request::chat(&body).header("Authorization", format!("Bearer {key}"));
        let answer = server.send(&request);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["usage"]["prompt_tokens"].as_u64().expect("a number")
    };
    ask("key-of-the-tests-1", &json!([{ "role": "user", "content": "Hello" }]));
    let turns = json!([
        { "role": "user", "content": "Hello" },
        { "role": "assistant", "content": ANSWER },
        { "role": "user", "content": "And?" },
    ]);
    let other = ask("key-of-the-tests-2", &turns);
    assert!(ask("key-of-the-tests-1", &turns) > other + 10, "one has the thinking, one has not");
}

/// The same answer, thought about in several ways.
const SAME: [&str; 3] = [
    "<think>\nBriefly.\n</think>\n\nGood morning. ",
    "<think>\nIt is early, so I may wish a good morning.\n</think>\n\nGood morning. ",
    "<think>\nThe user greets, and whoever greets is to be greeted as well, as I see it.\n</think>\n\nGood morning. ",
];

/// The second turn of somebody who was answered so before, and keeps the answer alone.
fn second_turn() -> Json {
    json!([
        hello(json!({}))["messages"][0],
        { "role": "assistant", "content": ANSWER },
        { "role": "user", "content": "And?" },
    ])
}

fn read_tokens(answer: &Json) -> u64 {
    answer["usage"]["prompt_tokens"].as_u64().expect("a number")
}

#[test]
fn agents_that_said_the_same_each_go_on_from_what_they_thought() {
    let disk = ShakyDisk::default();
    let start = |replies: &[&'static str]| {
        let (replies, disk) = (replies.to_vec(), Some(disk.clone()));
        Server::start(Setup { template: THINKING, replies, disk, ..Setup::default() })
    };
    let names = ["a", "b", "c"];
    let server = start(&SAME);
    let firsts = names.map(|name| chat(&server, json!({ "session_id": name })));
    let check = |server: &Server, source: &str| {
        let mut question_tokens = Vec::new();
        for (name, first) in names.iter().zip(&firsts) {
            let body = json!({ "session_id": name, "messages": second_turn(), "max_tokens": 1 });
            let second = chat(server, body);
            assert_eq!(second["semantic"]["source"], source, "{second}");
            assert!(cached(&second) >= total(first) - 1, "{name}: {first} {second}");
            question_tokens.push(read_tokens(&second) - total(first));
        }
        assert!(question_tokens.windows(2).all(|two| two[0] == two[1]), "{question_tokens:?}");
    };
    check(&server, "hot");
    drop(server);
    check(&start(&[]), "warm");
}

#[test]
fn what_one_agent_thought_stands_before_the_same_words_of_no_other() {
    let alone = saying(THINKING, &[]);
    let expected = read_tokens(&chat(&alone, json!({ "messages": second_turn() })));
    let server = saying(THINKING, &SAME);
    for name in ["a", "b", "c"] {
        chat(&server, json!({ "session_id": name }));
    }
    let ask = |fields: Json| read_tokens(&chat(&server, fields));
    // Another agent, nobody, and one whose beginning is not what it was.
    let turns = second_turn();
    assert_eq!(ask(json!({ "session_id": "d", "messages": turns })), expected);
    assert_eq!(ask(json!({ "messages": turns })), expected);
    let mut other = turns;
    other[0]["content"] = json!("Hallo");
    let anew = read_tokens(&chat(&alone, json!({ "messages": other })));
    assert_eq!(ask(json!({ "session_id": "a", "messages": other })), anew);
    // What is gone answers nobody.
    assert_eq!(server.send(&Request::new("DELETE", "/v1/agents/b")).status, 204);
    assert_eq!(ask(json!({ "session_id": "b", "messages": second_turn() })), expected);
}

#[test]
fn an_agent_that_is_taken_forward_again_goes_on_from_what_it_thought() {
    let disk = ShakyDisk::default();
    let start = |replies: &[&'static str]| {
        let (replies, disk) = (replies.to_vec(), Some(disk.clone()));
        Server::start(Setup { template: THINKING, replies, disk, ..Setup::default() })
    };
    let rollback = |server: &Server, body: Json| {
        let request = Request::post("/v1/agents/a/rollback", body.to_string());
        assert_eq!(server.send(&request).status, 200);
    };
    let server = start(&SAME);
    let mut turns = json!([{ "role": "user", "content": "Hello" }]);
    let mut turn = |server: &Server| {
        let answer = chat(server, json!({ "session_id": "a", "messages": turns }));
        let said = answer["choices"][0]["message"]["content"].clone();
        let messages = turns.as_array_mut().expect("a list");
        messages.push(json!({ "role": "assistant", "content": said }));
        messages.push(json!({ "role": "user", "content": "And?" }));
        answer
    };
    let first = turn(&server);
    let second = turn(&server);
    assert_eq!(second["semantic"]["generation"], 2);
    rollback(&server, json!({}));
    drop(server);
    // What it said last is in an older save only.
    let server = start(&[]);
    rollback(&server, json!({ "generation": 2 }));
    let third = turn(&server);
    assert!(cached(&third) >= total(&second) - 1, "{first} {second} {third}");
}
