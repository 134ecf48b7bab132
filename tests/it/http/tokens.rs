//! Tokens per minute, and the headers that tell what is left of a key's limits.

use super::*;
use semantic::http::KeyRates;

/// A server with two keys that have these limits.
fn limited(key: u32, tokens: u32) -> Server {
    let key_rates = KeyRates { key: Some(key), agent: None, tokens: Some(tokens) };
    let keys = Some("key-of-the-tests-1,key-of-the-tests-2");
    Server::start(Setup { keys, key_rates, is_endless: true, ..Setup::default() })
}

fn chat(server: &Server, key: &str, fields: Json) -> Answer {
    server.send(&Request::chat(&hello(fields)).header("x-api-key", key))
}

/// `r` and `t` of a limit.
fn left(answer: &Answer, name: &str) -> (u64, Option<u64>) {
    let header = answer.header("ratelimit").unwrap_or_else(|| panic!("{answer:?}"));
    let item = header.split(", ").find(|item| item.starts_with(&format!("{name:?};")));
    let item = item.unwrap_or_else(|| panic!("{header}"));
    let parameter = |name: &str| {
        let text = item.split(';').find_map(|part| part.strip_prefix(name))?;
        Some(text.parse().expect("a number"))
    };
    (parameter("r=").expect("what remains"), parameter("t="))
}

fn usage(answer: &Answer) -> (u64, u64) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let usage = &answer.json()["usage"];
    let number = |value: &Json| value.as_u64().expect("a number");
    let cached = number(&usage["prompt_tokens_details"]["cached_tokens"]);
    (number(&usage["total_tokens"]) - cached, cached)
}

/// One token a second comes back, so a test that takes a while sees a few more than it used.
#[track_caller]
fn check_used(answer: &Answer, most: u64, used: u64, since: Instant) {
    let (remaining, more_after) = left(answer, "tokens");
    let back = since.elapsed().as_secs() + 1;
    let expected = most.saturating_sub(used)..=(most - used + back).min(most);
    assert!(expected.contains(&remaining), "{remaining} is not in {expected:?}");
    assert_eq!(more_after, (remaining < most).then_some(1));
}

#[test]
fn every_answer_to_a_limited_key_says_what_is_left() {
    let server = limited(60, 60_000);
    let policy = "\"requests\";q=60;w=60, \"tokens\";q=60000;w=60;qu=\"tokens\"";
    let check = |answer: &Answer, status: u16, remaining: u64| {
        assert_eq!((answer.status, answer.header("ratelimit-policy")), (status, Some(policy)));
        assert_eq!(left(answer, "requests"), (remaining, Some(1)));
        assert!(left(answer, "tokens").0 > 50_000);
    };
    check(&chat(&server, KEY, json!({ "max_tokens": 1 })), 200, 59);
    check(&chat(&server, KEY, json!({ "max_tokens": 0 })), 400, 58);
    let mut client = server.connect();
    let body = hello(json!({ "max_tokens": 1, "stream": true }));
    check(&client.open(&Request::chat(&body).header("x-api-key", KEY)), 200, 57);
    // Neither counted nor hidden.
    let models = Request::get("/v1/models").header("x-api-key", KEY);
    check(&server.send(&models), 200, 57);
    for _ in 0..57 {
        chat(&server, KEY, json!({ "max_tokens": 0 }));
    }
    let answer = chat(&server, KEY, json!({}));
    check(&answer, 429, 0);
    assert_eq!(answer.header("retry-after"), Some("1"));
    // The other has not asked for anything.
    let other = server.send(&Request::get("/v1/models").header("x-api-key", OTHER_KEY));
    assert_eq!(other.header("ratelimit"), Some("\"requests\";r=60, \"tokens\";r=60000"));
    let stranger =
        server.send(&Request::get("/v1/models").header("x-api-key", "no-key-of-this-server"));
    assert_eq!((stranger.status, stranger.header("ratelimit")), (401, None));
    assert_eq!(server.get("/").header("ratelimit"), None);
    assert_eq!(server.get("/health").header("ratelimit"), None);
}

#[test]
fn what_is_remembered_costs_nothing() {
    let server = limited(0, 60);
    let started = Instant::now();
    let first = chat(&server, KEY, json!({ "max_tokens": 3 }));
    let (used, cached) = usage(&first);
    assert_eq!(cached, 0);
    assert!(used > 10);
    check_used(&first, 60, used, started);
    let again = chat(&server, KEY, json!({ "max_tokens": 3 }));
    let (more, cached) = usage(&again);
    assert!(cached > 5 && more == 1 + 3, "{again:?}");
    check_used(&again, 60, used + more, started);
}

#[test]
fn who_has_used_its_tokens_waits_and_the_others_do_not() {
    let server = limited(0, 60);
    // A reply is as long as it is, and what it takes beyond the minute is waited out.
    let (used, _) = usage(&chat(&server, KEY, json!({ "max_tokens": 150 })));
    assert!(used > 150);
    let answer = chat(&server, KEY, json!({}));
    let error = refused(&answer, 429);
    assert_eq!(error["code"], "rate_limit_exceeded");
    let after: u64 = answer.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((80..=used - 60 + 1).contains(&after), "{after} of {used}");
    let message = format!("too many tokens a minute; try again in {after} s");
    assert_eq!(error["message"], message);
    assert_eq!(left(&answer, "tokens").0, 0);
    assert!(left(&answer, "tokens").1.is_some_and(|t| t <= after));
    let tokenize = Request::post("/tokenize", json!({ "content": "Hello" }).to_string());
    assert_eq!(server.send(&tokenize.header("x-api-key", KEY)).status, 200);
    usage(&chat(&server, OTHER_KEY, json!({ "max_tokens": 1 })));
    // As Anthropic's clients hear it.
    let body = json!({ "max_tokens": 1, "messages": hello(json!({}))["messages"] }).to_string();
    let message = Request::post("/v1/messages", body).header("x-api-key", KEY);
    let answer = server.send(&message);
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (429, &json!("rate_limit_error")));
}

#[test]
fn a_request_that_no_minute_has_room_for_is_told_so() {
    let server = limited(0, 60);
    let long = json!([{ "role": "user", "content": "word ".repeat(60) }]);
    for stream in [false, true] {
        let answer = chat(&server, KEY, json!({ "messages": long, "stream": stream }));
        let error = refused(&answer, 400);
        assert_eq!(
            (&error["code"], &error["param"]),
            (&json!("request_too_large"), &json!("messages"))
        );
        let message = error["message"].as_str().expect("a text");
        assert!(message.ends_with("there are never more than 60 a minute"), "{message}");
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.header("ratelimit"), Some("\"tokens\";r=60"));
    }
}

/// The engine is the first to know how much of a prompt is new.
#[test]
fn a_prompt_that_the_rest_of_the_minute_has_no_room_for_waits() {
    let server = limited(0, 60);
    let (used, _) = usage(&chat(&server, KEY, json!({ "max_tokens": 1 })));
    let content = "word ".repeat(8);
    let longer = json!({ "messages": [{ "role": "user", "content": content }], "max_tokens": 1 });
    let needed = chat(&server, OTHER_KEY, longer.clone());
    assert!(used + usage(&needed).0 > 60, "{needed:?}");
    let answer = chat(&server, KEY, longer);
    assert_eq!(refused(&answer, 429)["code"], "rate_limit_exceeded");
    let after: u64 = answer.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=60).contains(&after), "{after}");
    assert!(left(&answer, "tokens").0 > 0);
}

/// A server that asks for no key has one budget for all.
#[test]
fn without_keys_all_share_the_tokens() {
    let rates = Rates { agent: 0, global: 0, failed_keys: 0, tokens: 60 };
    let server = Server::start(Setup { rates, is_endless: true, ..Setup::default() });
    assert_eq!(server.chat(&hello(json!({ "max_tokens": 100 }))).status, 200);
    let answer = server.chat(&hello(json!({ "session_id": "another" })));
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("ratelimit-policy"), Some("\"tokens\";q=60;w=60;qu=\"tokens\""));
}
