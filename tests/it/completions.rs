//! Raw completions with a served model: what they report, how they go on, what is refused.

use crate::support::http::{Answer, Request, Server, Setup};
use serde_json::{Value as Json, json};

const COMPLETIONS: &str = "/v1/completions";
const PROMPT: &str = "Once upon a time there was";

/// What temperature 0 makes of it, so that it is always the same.
fn greedy(fields: Json) -> Json {
    let mut body = json!({ "prompt": PROMPT, "temperature": 0 });
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

fn asked(server: &Server, body: &Json) -> Answer {
    server.send(&Request::post(COMPLETIONS, body.to_string()))
}

fn answered(server: &Server, body: &Json) -> Json {
    let answer = asked(server, body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn text(completion: &Json) -> &str {
    completion["choices"][0]["text"].as_str().expect("a text")
}

fn cached_tokens(completion: &Json) -> u64 {
    completion["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
}

/// The parts of a stream that ends as it should, without `[DONE]`.
fn parts(server: &Server, body: &Json) -> Vec<Json> {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let mut client = server.connect();
    let head = client.open(&Request::post(COMPLETIONS, body.to_string()));
    assert_eq!(head.status, 200);
    let mut parts = client.rest();
    assert_eq!(parts.pop(), Some(json!("[DONE]")));
    parts
}

fn streamed_text(parts: &[Json], choice: usize) -> String {
    let choices = parts.iter().flat_map(|part| part["choices"].as_array().expect("a list"));
    choices
        .filter(|part| part["index"] == choice)
        .filter_map(|part| part["text"].as_str())
        .collect()
}

fn endless() -> Server {
    Server::start(Setup { is_endless: true, ..Setup::default() })
}

#[test]
fn a_completion_has_openais_shape_and_sixteen_tokens() {
    let server = endless();
    let completion = answered(&server, &greedy(json!({ "model": "whatever", "user": "me" })));
    let keys = |json: &Json| json.as_object().expect("an object").keys().cloned().collect();
    let top: Vec<String> = keys(&completion);
    assert_eq!(top, ["id", "object", "created", "model", "choices", "usage", "semantic"]);
    assert!(completion["id"].as_str().expect("an id").starts_with("cmpl-"));
    assert_eq!(
        (&completion["object"], &completion["model"]),
        (&json!("text_completion"), &json!("fake"))
    );
    let choice = json!({
        "text": text(&completion),
        "index": 0,
        "logprobs": null,
        "finish_reason": "length",
    });
    assert_eq!(completion["choices"], json!([choice]));
    let prompt_tokens = completion["usage"]["prompt_tokens"].as_u64().expect("a number");
    let usage = json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 16,
        "total_tokens": prompt_tokens + 16,
        "prompt_tokens_details": { "cached_tokens": 0 },
    });
    assert_eq!(completion["usage"], usage);
    assert_eq!(completion["semantic"]["source"], "cold");
}

#[test]
fn a_text_a_list_of_one_and_its_tokens_are_the_same_prompt() {
    let server = endless();
    let expected = answered(&server, &greedy(json!({})));
    // Without a template around it the prompt is the text's own ids.
    let tokens: Vec<u32> = server.encode_raw(PROMPT).iter().map(|token| token.0).collect();
    assert_eq!(expected["usage"]["prompt_tokens"], tokens.len());
    for prompt in [json!([PROMPT]), json!(tokens), json!([tokens])] {
        let completion = answered(&server, &greedy(json!({ "prompt": prompt })));
        assert_eq!(text(&completion), text(&expected), "{prompt}");
        assert_eq!(cached_tokens(&completion), tokens.len() as u64 - 1);
    }
}

#[test]
fn what_was_completed_before_is_not_computed_again() {
    let server = endless();
    let agent = |session: &str, prompt: &str| {
        answered(&server, &greedy(json!({ "prompt": prompt, "session_id": session })))
    };
    let first = agent("teller", PROMPT);
    assert_eq!(first["semantic"]["agent"], "teller");
    let before = first["usage"]["total_tokens"].as_u64().expect("a number");
    let second = agent("teller", &format!("{PROMPT}{} And then", text(&first)));
    // The text's own ids may differ from the generated ones at the seam.
    assert!(cached_tokens(&second) > before / 2, "{second}");
    assert_eq!(second["semantic"]["source"], "hot");
}

#[test]
fn a_streamed_completion_says_the_same_in_parts() {
    let server = endless();
    let body = greedy(json!({ "n": 2, "temperature": 1, "seed": 7 }));
    let whole = answered(&server, &body);
    let parts = parts(&server, &body);
    for choice in 0..2 {
        assert_eq!(streamed_text(&parts, choice), whole["choices"][choice]["text"]);
    }
    let (last, others) = parts.split_last().expect("parts");
    assert!(others.len() > 5, "{parts:?}");
    assert!(
        others.iter().all(|part| part.get("semantic").is_none() && part.get("usage").is_none())
    );
    assert!(
        parts.iter().all(|part| part["object"] == "text_completion" && part["id"] == last["id"])
    );
    assert_eq!(last["semantic"]["source"], "hot");
    let ends: Vec<&Json> = parts
        .iter()
        .map(|part| &part["choices"][0]["finish_reason"])
        .filter(|reason| !reason.is_null())
        .collect();
    assert_eq!(ends, ["length", "length"]);
}

#[test]
fn a_streamed_completion_tells_its_usage_if_it_is_asked() {
    let server = endless();
    let asked = greedy(json!({ "stream_options": { "include_usage": true } }));
    let parts = parts(&server, &asked);
    let (last, others) = parts.split_last().expect("parts");
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(16)));
    assert!(others.iter().all(|part| part["usage"].is_null() && part.get("usage").is_some()));
}

#[test]
fn log_probabilities_come_as_lists_of_the_same_length() {
    let server = endless();
    let body = greedy(json!({ "logprobs": 3 }));
    let whole = answered(&server, &body);
    let logprobs = &whole["choices"][0]["logprobs"];
    let list = |name: &str| logprobs[name].as_array().expect("a list").clone();
    let names = ["tokens", "token_logprobs", "top_logprobs", "text_offset"];
    for name in names {
        assert_eq!(list(name).len(), 16, "{name}");
    }
    for (index, top) in list("top_logprobs").iter().enumerate() {
        let top = top.as_object().expect("an object");
        assert!((1..=3).contains(&top.len()), "{top:?}");
        let token = list("tokens")[index].as_str().expect("a text").to_owned();
        assert_eq!(top[&token], list("token_logprobs")[index]);
    }
    let offsets: Vec<u64> =
        list("text_offset").iter().map(|offset| offset.as_u64().expect("a number")).collect();
    assert!(offsets[0] == 0 && offsets.is_sorted(), "{offsets:?}");
    let streamed: Vec<Json> = parts(&server, &body)
        .iter()
        .filter_map(|part| part["choices"][0]["logprobs"]["tokens"].as_array())
        .flatten()
        .cloned()
        .collect();
    assert_eq!(streamed, list("tokens"));
}

fn biases(ids: std::ops::Range<u32>, bias: f64) -> Json {
    Json::Object(ids.map(|id| (id.to_string(), json!(bias))).collect())
}

/// On both routes, greedy or drawn, whole or streamed.
#[test]
fn a_biased_token_comes_or_stays_away_and_its_log_probability_is_the_models_own() {
    let server = endless();
    let one = |fields: Json| {
        let mut body = greedy(json!({ "logprobs": 5, "max_tokens": 1 }));
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("one").clone());
        answered(&server, &body)
    };
    let logprobs = |completion: &Json| completion["choices"][0]["logprobs"].clone();
    let top = |completion: &Json| {
        logprobs(completion)["top_logprobs"][0].as_object().expect("an object").clone()
    };
    // A part of a character is shown as its bytes, and has no text to look up.
    let is_text = |token: &str| !token.starts_with("bytes:") && server.encode(token).len() == 1;
    let (prompt, plain) = (0..100)
        .map(|number| format!("{PROMPT} {number}"))
        .map(|prompt| (prompt.clone(), one(json!({ "prompt": prompt }))))
        .find(|(_, plain)| {
            is_text(text(plain)) && top(plain).keys().filter(|t| is_text(t)).count() > 1
        })
        .expect("a prompt after which two texts are likely");
    let (first, top) = (text(&plain), top(&plain));
    let rival = top.keys().find(|token| *token != first && is_text(token)).expect("a rival");
    let id = |token: &str| server.encode(token)[0].0.to_string();
    for temperature in [0.0, 2.0] {
        let with = |bias: Json| {
            let fields =
                json!({ "prompt": prompt, "logit_bias": bias, "temperature": temperature });
            one(fields)
        };
        let forced = with(json!({ id(rival): 100 }));
        assert_eq!(text(&forced), rival);
        assert_eq!(logprobs(&forced)["token_logprobs"][0], top[rival]);
        assert_eq!(logprobs(&forced)["top_logprobs"][0], json!(top));
        let banned = with(json!({ id(first): -100 }));
        assert_ne!(text(&banned), first);
        assert_eq!(text(&with(json!({ id(first): 100, id(rival): 0 }))), first);
    }
    let body = greedy(json!({ "logit_bias": { id(rival): 100 }, "max_tokens": 4 }));
    assert_eq!(text(&answered(&server, &body)), rival.repeat(4));
    assert_eq!(streamed_text(&parts(&server, &body), 0), rival.repeat(4));
    let chat = json!({
        "messages": [{ "role": "user", "content": "Hello" }],
        "logit_bias": { id(rival): 100 },
        "max_tokens": 4,
    });
    let chat = server.chat(&chat).json();
    assert_eq!(chat["choices"][0]["message"]["content"], rival.repeat(4));
}

#[test]
fn a_stop_text_ends_a_completion_and_is_not_part_of_it() {
    let server = endless();
    let whole = answered(&server, &greedy(json!({ "max_tokens": 30 })));
    let whole = text(&whole);
    let middle = whole.char_indices().nth(whole.chars().count() / 2).expect("a middle").0;
    let stop: String = whole[middle..].chars().take(3).collect();
    let cut = answered(&server, &greedy(json!({ "max_tokens": 30, "stop": stop })));
    assert_eq!(text(&cut), whole.split(&stop).next().expect("a beginning"));
    assert_eq!(cut["choices"][0]["finish_reason"], "stop");
}

#[test]
fn what_a_completion_cannot_be_is_refused_and_named() {
    let server = Server::new();
    let refusals = [
        (json!({ "prompt": null }), "prompt"),
        (json!({ "prompt": [] }), "prompt"),
        (json!({ "prompt": ["one", "two"] }), "prompt"),
        (json!({ "prompt": [[1], [2]] }), "prompt"),
        (json!({ "prompt": [1, "two"] }), "prompt"),
        (json!({ "prompt": [1, -2] }), "prompt[1]"),
        (json!({ "prompt": [1, 5_000_000_000_u64] }), "prompt[1]"),
        (json!({ "prompt": [1, 100_000] }), "prompt"),
        (json!({ "prompt": "word ".repeat(20_000) }), "prompt"),
        (json!({ "prompt": { "text": "x" } }), "prompt"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "temperature": 2.5 }), "temperature"),
        (json!({ "logprobs": 6 }), "logprobs"),
        (json!({ "logprobs": true }), "logprobs"),
        (json!({ "echo": true }), "echo"),
        (json!({ "suffix": "end" }), "suffix"),
        (json!({ "best_of": 2 }), "best_of"),
        (json!({ "n": 2, "best_of": 1 }), "best_of"),
        (json!({ "logit_bias": [[1, 2]] }), "logit_bias"),
        (json!({ "logit_bias": { "word": 2 } }), "logit_bias"),
        (json!({ "logit_bias": { "07": 2 } }), "logit_bias"),
        (json!({ "logit_bias": { "-1": 2 } }), "logit_bias"),
        (json!({ "logit_bias": { "100000": 2 } }), "logit_bias"),
        (json!({ "logit_bias": { "4294967296": 2 } }), "logit_bias"),
        (json!({ "logit_bias": { "1": -100.5 } }), "logit_bias.1"),
        (json!({ "logit_bias": { "1": "2" } }), "logit_bias.1"),
        (json!({ "logit_bias": biases(0..1025, 1.0) }), "logit_bias"),
        (json!({ "stream_options": {} }), "stream_options"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "stop": "" }), "stop"),
    ];
    for (fields, param) in refusals {
        let answer = asked(&server, &greedy(fields.clone()));
        let error = answer.error();
        assert_eq!((answer.status, &error["param"]), (400, &json!(param)), "{fields} {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    // What says what is so anyway is not refused.
    let habits = json!({ "echo": false, "best_of": 1, "suffix": null, "logit_bias": null, "n": 1 });
    answered(&server, &greedy(habits));
}
