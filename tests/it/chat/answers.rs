//! What a chat answers, whole and streamed.

use super::*;

#[test]
fn a_whole_answer_has_openais_shape() {
    let server = Server::new();
    let completion = answered(&server, &greedy(json!({ "model": "whatever" })));
    let keys = |json: &Json| json.as_object().expect("an object").keys().cloned().collect();
    let top: Vec<String> = keys(&completion);
    assert_eq!(top, ["id", "object", "created", "model", "choices", "usage", "semantic"]);
    assert!(completion["id"].as_str().expect("an id").starts_with("chatcmpl-"));
    assert_eq!(completion["object"], "chat.completion");
    assert!(completion["created"].as_u64() > Some(1_700_000_000));
    assert_eq!(completion["model"], "fake");
    let choice = &completion["choices"][0];
    let of_choice: Vec<String> = keys(choice);
    assert_eq!(of_choice, ["index", "message", "logprobs", "finish_reason"]);
    assert_eq!((&choice["index"], &choice["logprobs"]), (&json!(0), &json!(null)));
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(content(&completion).len() > 10);
    assert_eq!(choice["finish_reason"], "length");
    let prompt_tokens = completion["usage"]["prompt_tokens"].as_u64().expect("a number");
    let usage = json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 20,
        "total_tokens": prompt_tokens + 20,
        "prompt_tokens_details": { "cached_tokens": 0 },
    });
    assert_eq!(completion["usage"], usage);
    let agent = completion["semantic"]["agent"].clone();
    let semantic = json!({
        "agent": agent,
        "generation": null,
        "durable": false,
        "source": "cold",
        "restored_tokens": 0,
        "restore_ms": 0.0,
    });
    assert_eq!(completion["semantic"], semantic);
}

#[test]
fn a_stream_says_the_same_in_parts() {
    let server = Server::new();
    let body = greedy(json!({}));
    let whole = answered(&server, &body);
    let chunks = chunks(&server, &body);
    assert_eq!(streamed_text(&chunks, 0), content(&whole));
    assert!(chunks.len() > 5, "{chunks:?}");
    let (first, last) = (&chunks[0], chunks.last().expect("chunks"));
    assert_eq!(first["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!((&chunk["id"], &chunk["created"]), (&first["id"], &first["created"]));
        assert_eq!(chunk.get("usage"), None);
        let is_last = std::ptr::eq(chunk, last);
        let reason = if is_last { json!("length") } else { json!(null) };
        assert_eq!(chunk["choices"][0]["finish_reason"], reason);
        assert_eq!(chunk.get("semantic").is_some(), is_last);
    }
    assert_eq!(last["choices"][0]["delta"], json!({}));
}

#[test]
fn a_stream_tells_its_usage_if_it_is_asked() {
    let server = Server::new();
    let whole = answered(&server, &greedy(json!({})));
    let asked = greedy(json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let chunks = chunks(&server, &asked);
    let (last, others) = chunks.split_last().expect("chunks");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
    assert_eq!(last["usage"]["completion_tokens"], 20);
    assert_eq!(last["semantic"]["source"], "hot");
    assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
}

/// The second turn recomputes its own message and no more, and whose agent it is does not matter.
#[test]
fn what_was_said_before_is_not_computed_again() {
    let server = Server::new();
    let ask = |messages: &Json| answered(&server, &greedy(json!({ "messages": messages })));
    let mut messages = json!([{ "role": "user", "content": "Tell me something." }]);
    let first = ask(&messages);
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    let again = ask(&messages);
    assert_eq!(content(&again), content(&first));
    let tokens =
        |completion: &Json, name: &str| completion["usage"][name].as_u64().expect("a number");
    let cached = |completion: &Json| {
        completion["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
    };
    // At least one token is computed for its logits.
    assert_eq!(cached(&again), tokens(&first, "prompt_tokens") - 1);
    let turns = messages.as_array_mut().expect("a list");
    turns.push(json!({ "role": "assistant", "content": content(&first) }));
    turns.push(json!({ "role": "user", "content": "Go on." }));
    let second = ask(&messages);
    let before = tokens(&first, "prompt_tokens") + tokens(&first, "completion_tokens");
    assert!(cached(&second) >= before - 1, "{second}");
    assert!(cached(&second) < tokens(&second, "prompt_tokens"));
    assert_eq!(second["semantic"]["source"], "hot");
}

#[test]
fn an_agent_is_named_by_header_then_body_or_gets_a_name() {
    let server = Server::new();
    let agent = |headers: &[(&'static str, &str)], body: Json| {
        let body = greedy(body);
        let mut request = Request::chat(&body);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let answer = server.send(&request);
        answer.json()["semantic"]["agent"].as_str().expect("a name").to_owned()
    };
    let body = || json!({ "session_id": "from-body", "max_tokens": 1 });
    let session = ("X-Session-ID", "from-session");
    assert_eq!(agent(&[session, ("X-Agent-ID", "from-agent")], body()), "from-agent");
    assert_eq!(agent(&[session], body()), "from-session");
    assert_eq!(agent(&[], body()), "from-body");
    assert_eq!(agent(&[("X-Agent-ID", "Zoë/../x")], body()), "Zoë/../x");
    let nameless = || agent(&[], json!({ "max_tokens": 1 }));
    assert_ne!(nameless(), nameless());
}

#[test]
fn one_key_never_sees_what_another_one_computed() {
    let keys = "key-of-the-tests-1,key-of-the-tests-2";
    let server = Server::start(Setup { keys: Some(keys), ..Setup::default() });
    let cached = |key: &str| {
        let request = Request::chat(&greedy(json!({}))).header("x-api-key", key);
        let answer = server.send(&request.header("X-Agent-ID", "same"));
        let completion = answer.json();
        completion["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
    };
    assert_eq!(cached("key-of-the-tests-1"), 0);
    assert!(cached("key-of-the-tests-1") > 0);
    assert_eq!(cached("key-of-the-tests-2"), 0);
}

#[test]
fn a_stop_text_ends_the_answer_and_is_not_part_of_it() {
    let server = Server::new();
    let whole = answered(&server, &greedy(json!({})));
    let whole = content(&whole);
    let middle = whole.char_indices().nth(whole.chars().count() / 2).expect("a middle").0;
    let stop: String = whole[middle..].chars().take(3).collect();
    let expected = whole.split(&stop).next().expect("a beginning");
    for stop in [json!(stop), json!(["\u{1}never\u{1}", stop])] {
        let cut = answered(&server, &greedy(json!({ "stop": stop })));
        assert_eq!(
            (content(&cut), &cut["choices"][0]["finish_reason"]),
            (expected, &json!("stop"))
        );
        let chunks = chunks(&server, &greedy(json!({ "stop": stop })));
        assert_eq!(streamed_text(&chunks, 0), expected);
    }
}

#[test]
fn a_model_that_ends_its_turn_stops() {
    let server = Server::new();
    let body = hello(json!({ "temperature": 1, "seed": 3 }));
    let completion = answered(&server, &body);
    assert_eq!(completion["choices"][0]["finish_reason"], "stop", "{completion}");
}

#[test]
fn a_seed_repeats_an_answer_and_choices_count_it_up() {
    let server = Server::new();
    let body = |seed: i64, n: u64| {
        hello(json!({ "seed": seed, "n": n, "max_tokens": 20, "temperature": 1.5 }))
    };
    let alone: Vec<String> =
        (7..10).map(|seed| content(&answered(&server, &body(seed, 1))).to_owned()).collect();
    assert_eq!(alone[0], content(&answered(&server, &body(7, 1))));
    assert!(alone[0] != alone[1] && alone[1] != alone[2]);
    let together = answered(&server, &body(7, 3));
    let chunks = chunks(&server, &body(7, 3));
    for (index, text) in alone.iter().enumerate() {
        let choice = &together["choices"][index];
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"], text.as_str());
        assert_eq!(&streamed_text(&chunks, index), text);
    }
    assert_eq!(together["usage"]["completion_tokens"], 60);
    // Without a seed none is repeated.
    let mut body = body(0, 1);
    body.as_object_mut().expect("an object").remove("seed");
    assert_ne!(content(&answered(&server, &body)), content(&answered(&server, &body)));
}

#[test]
fn log_probabilities_of_every_token_and_its_rivals() {
    let server = Server::new();
    let body = greedy(json!({ "logprobs": true, "top_logprobs": 3, "max_tokens": 12 }));
    let completion = answered(&server, &body);
    let whole = completion["choices"][0]["logprobs"]["content"].as_array().expect("a list").clone();
    assert_eq!(whole.len(), 12);
    for token in &whole {
        let top = token["top_logprobs"].as_array().expect("a list");
        assert_eq!(top.len(), 3);
        // The likeliest was taken.
        let plain = json!({
            "token": token["token"],
            "logprob": token["logprob"],
            "bytes": token["bytes"],
        });
        assert_eq!(top[0], plain);
        let values: Vec<f64> =
            top.iter().map(|rival| rival["logprob"].as_f64().expect("a number")).collect();
        assert!(values[0] < 0.0 && values.is_sorted_by(|a, b| a >= b), "{values:?}");
    }
    let bytes: Vec<u8> = whole
        .iter()
        .flat_map(|token| token["bytes"].as_array().expect("a list"))
        .map(|byte| byte.as_u64().expect("a byte") as u8)
        .collect();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with(content(&completion).trim_end_matches('\u{fffd}')), "{text}");
    let chunks = chunks(&server, &body);
    let streamed: Vec<Json> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .cloned()
        .collect();
    assert_eq!(streamed, whole);
    let none = answered(&server, &greedy(json!({ "logprobs": true, "max_tokens": 1 })));
    assert_eq!(none["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[test]
fn a_prompt_that_cannot_be_served_is_refused_with_the_numbers() {
    let server = Server::start(Setup { fake: small_pool(4), ..Setup::default() });
    let long = |words: usize| json!([{ "role": "user", "content": "word ".repeat(words) }]);
    let answer = server.chat(&greedy(json!({ "messages": long(20_000) })));
    let error = answer.error();
    assert_eq!((answer.status, &error["code"]), (400, &json!("context_length_exceeded")));
    let message = error["message"].as_str().expect("a text");
    assert!(message.contains("context is 8192"), "{message}");
    let answer = server.chat(&greedy(json!({ "messages": long(300), "max_tokens": 4000 })));
    let error = answer.error();
    assert_eq!((answer.status, &error["code"]), (400, &json!("request_too_large")), "{error}");
    let message = error["message"].as_str().expect("a text");
    assert!(message.contains("of 4 available"), "{message}");
}

#[test]
fn a_conversation_that_the_template_refuses_is_the_clients_to_mend() {
    let template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}x";
    let server = Server::start(Setup { template, ..Setup::default() });
    let messages = json!([{ "role": "system", "content": "x" }]);
    let answer = server.chat(&hello(json!({ "messages": messages })));
    assert_eq!((answer.status, &answer.error()["code"]), (400, &json!("invalid_messages")));
    assert!(answer.body.contains("no system message"));
}

/// The promise of a stream's format: nothing that a model writes can end an event.
#[test]
fn every_event_is_one_line_of_json() {
    let server = Server::new();
    let mut client = server.connect();
    let body = hello(json!({ "stream": true, "max_tokens": 400, "temperature": 2, "seed": 1 }));
    assert_eq!(client.open(&Request::post(CHAT, body.to_string())).status, 200);
    let text: String = client
        .rest()
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert!(text.contains(|c: char| c.is_control()), "{text:?}");
}
