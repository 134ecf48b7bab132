//! What a server tells of itself and its model, and text to tokens and back, over real sockets.

use serde_json::{Value as Json, json};

use crate::support::http::{Answer, ModelState, Request, Server, Setup, hello};

fn post(server: &Server, path: &str, body: &Json) -> Answer {
    server.send(&Request::post(path, body.to_string()))
}

fn tokens(server: &Server, body: &Json) -> Json {
    let answer = post(server, "/tokenize", body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["tokens"].clone()
}

#[test]
fn the_model_that_is_served_is_listed_with_its_shape() {
    let server = Server::new();
    let list = server.get("/v1/models").json();
    assert_eq!((&list["object"], list["data"].as_array().unwrap().len()), (&json!("list"), 1));
    let model = &list["data"][0];
    assert_eq!((&model["id"], &model["object"]), (&json!("fake"), &json!("model")));
    assert!(model["created"].as_u64().unwrap() > 1_600_000_000);
    let spec = &model["spec"];
    assert_eq!((&spec["block_tokens"], &spec["max_context_length"]), (&json!(256), &json!(8192)));
    assert_eq!((&spec["n_kv_heads"], &spec["kv_bits"]), (&json!(1), &json!("8/8")));
    assert_eq!(server.get("/v1/models/fake").json(), *model);
    for other in ["/v1/models/gpt-4", "/v1/models/org/fake", "/v1/models/Fake"] {
        let answer = server.get(other);
        assert_eq!((answer.status, &answer.error()["code"]), (404, &json!("model_not_found")));
    }
}

#[test]
fn the_root_names_the_server_and_every_route() {
    let server = Server::start(Setup { model: ModelState::Missing, ..Setup::default() });
    let about = server.get("/").json();
    assert_eq!((&about["name"], &about["model"]), (&json!("semantic"), &Json::Null));
    let links = about["links"].as_object().unwrap();
    for route in semantic::http::routes().into_iter().filter(|route| route.method != "*") {
        let methods = links[route.path].as_array().unwrap();
        assert!(methods.contains(&json!(route.method)), "{} {}", route.method, route.path);
    }
    let head = server.send(&Request::new("HEAD", "/"));
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(Server::new().get("/").json()["model"], "fake");
}

#[test]
fn text_becomes_tokens_and_tokens_the_same_text() {
    let server = Server::new();
    for text in ["", "Hello", " two  spaces\n", "Zoë 🦀 <|im_start|>", "a\0b"] {
        let tokens = tokens(&server, &json!({ "content": text }));
        let answer = post(&server, "/detokenize", &json!({ "tokens": tokens }));
        assert_eq!(answer.json()["content"], text);
    }
    // More than the async threads take upon them.
    let long = "Hello, world. ".repeat(10_000);
    let tokens = tokens(&server, &json!({ "content": long }));
    assert_eq!(post(&server, "/detokenize", &json!({ "tokens": tokens })).json()["content"], long);
}

#[test]
fn special_tokens_are_read_as_such_unless_they_are_to_be_text() {
    let server = Server::new();
    let count = |body: Json| tokens(&server, &body).as_array().unwrap().len();
    assert_eq!(count(json!({ "content": "<|im_start|>" })), 1);
    assert!(count(json!({ "content": "<|im_start|>", "parse_special": false })) > 1);
    let with_pieces = tokens(&server, &json!({ "content": "é", "with_pieces": true }));
    let pieces = with_pieces.as_array().unwrap();
    let bytes: Vec<u8> = pieces
        .iter()
        .flat_map(|token| match &token["piece"] {
            Json::String(text) => text.as_bytes().to_vec(),
            bytes => serde_json::from_value(bytes.clone()).unwrap(),
        })
        .collect();
    assert_eq!(bytes, "é".as_bytes());
}

/// What `/tokenize` says of a conversation is what a chat is charged.
#[test]
fn a_conversation_is_counted_as_it_will_be_read() {
    let server = Server::new();
    let body = hello(json!({}));
    let prompt = post(&server, "/apply-template", &body).json()["prompt"].clone();
    assert!(prompt.as_str().unwrap().contains("Hello"));
    let counted = tokens(&server, &body);
    assert_eq!(counted, tokens(&server, &json!({ "content": prompt })));
    let chat = server.chat(&hello(json!({ "max_tokens": 1 }))).json();
    assert_eq!(chat["usage"]["prompt_tokens"], counted.as_array().unwrap().len());
}

#[test]
fn what_is_no_text_and_no_token_is_refused_by_name() {
    let server = Server::new();
    let message = json!([{ "role": "user", "content": "x" }]);
    for (path, body, param) in [
        ("/tokenize", json!({}), json!("content")),
        ("/tokenize", json!({ "content": 1 }), json!("content")),
        ("/tokenize", json!({ "content": "x", "messages": message }), json!("messages")),
        ("/tokenize", json!({ "messages": message, "add_special": true }), json!("add_special")),
        ("/tokenize", json!({ "content": "x", "text": "x" }), json!("text")),
        ("/detokenize", json!({}), json!("tokens")),
        ("/detokenize", json!({ "tokens": [1, 4_000_000] }), json!("tokens[1]")),
        ("/detokenize", json!({ "tokens": [-1] }), json!("tokens[0]")),
        ("/apply-template", json!({ "messages": [] }), json!("messages")),
    ] {
        let answer = post(&server, path, &body);
        assert_eq!((answer.status, &answer.error()["param"]), (400, &param), "{path} {body}");
    }
}
