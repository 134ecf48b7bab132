//! `/v1/status`: the numbers of the page.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::support::http::{ModelState, Request, Server, Setup, hello};
use crate::support::scrape::Scrape;
use crate::support::store::ShakyDisk;

const FIRST_KEY: &str = "0123456789abcdef";
const OTHER_KEY: &str = "fedcba9876543210";

fn turn(agent: &str, prompt: &str) -> Request<'static> {
    let body = hello(json!({
        "messages": [{ "role": "user", "content": prompt }],
        "session_id": agent,
        "max_tokens": 4,
        "temperature": 0,
    }));
    Request::chat(&body)
}

fn number(json: &Json) -> f64 {
    json.as_f64().unwrap_or_else(|| panic!("{json} is no number"))
}

/// A number may lose its last bit on the way through JSON.
fn assert_close(told: f64, counted: f64, name: &str) {
    assert!((told - counted).abs() <= counted.abs() * 1e-9, "{name}: {told} of {counted}");
}

#[test]
fn what_is_told_is_what_was_counted() {
    let disk = Some(ShakyDisk::default());
    let step = Duration::from_millis(3);
    let server = Server::start(Setup { disk, step, ..Setup::default() });
    let idle = server.get("/v1/status").json();
    assert_eq!((&idle["status"], &idle["model"]), (&json!("serving"), &json!("fake")));
    // Nothing has measured it yet.
    for name in ["seconds_per_prompt_token", "seconds_saved"] {
        assert_eq!(idle["since_start"][name], Json::Null);
    }
    // More than a step reads at once, twice.
    let prompt = "one word after another ".repeat(150);
    for _ in 0..2 {
        assert_eq!(server.send(&turn("a", &prompt)).status, 200);
    }
    assert_eq!(server.send(&Request::new("DELETE", "/v1/agents/a?evict_only=true")).status, 200);
    assert_eq!(server.send(&turn("a", &prompt)).status, 200);
    let told = server.get("/v1/status").json();
    let scrape = Scrape::of(&server);
    let total = &told["since_start"];
    for (name, series) in [
        ("prompts", "semantic_cache_queries_total"),
        ("prompts_hot", "semantic_cache_hits_total{tier=\"hot\"}"),
        ("prompts_warm", "semantic_cache_hits_total{tier=\"warm\"}"),
        ("prompt_tokens", "semantic_prompt_tokens_total"),
        ("reused_tokens", "semantic_reused_tokens_total"),
        ("restored_tokens", "semantic_restored_tokens_total"),
        ("generation_tokens", "semantic_generation_tokens_total"),
        ("restore_s", "semantic_restore_duration_seconds_sum"),
    ] {
        assert_close(number(&total[name]), scrape.value(series), name);
        assert!(number(&total[name]) > 0.0, "{name}");
    }
    let tokens = scrape.value("semantic_prefill_step_tokens_total");
    let per_token = scrape.value("semantic_prefill_step_duration_seconds_sum") / tokens;
    assert!(per_token > 0.0);
    assert_close(number(&total["seconds_per_prompt_token"]), per_token, "a token");
    let saved = number(&total["reused_tokens"]) * per_token - number(&total["restore_s"]);
    assert_close(number(&total["seconds_saved"]), saved, "saved");

    let recent = &told["recent"];
    let all = |name: &str| -> Vec<f64> {
        recent[name].as_array().expect("a list").iter().map(number).collect()
    };
    assert_eq!(all("tokens").iter().sum::<f64>(), number(&total["generation_tokens"]));
    assert_eq!(all("first_tokens").iter().sum::<f64>(), 3.0);
    let waited: f64 = all("first_token_s").iter().sum();
    let counted = scrape.value("semantic_time_to_first_token_seconds_sum");
    assert!((waited - counted).abs() < 1e-6, "{waited} {counted}");
    assert_eq!(told["agents"], json!({ "hot": 1, "warm": 0 }));
    assert_eq!(told["pool"]["blocks_total"], 64);
    assert!(number(&told["store"]["bytes"]) > 0.0);
}

/// A short prompt is read in one step, which tells what a step costs and not what a token does.
#[test]
fn short_prompts_measure_nothing() {
    let server = Server::new();
    for _ in 0..2 {
        assert_eq!(server.send(&turn("a", "Hello")).status, 200);
    }
    let total = server.get("/v1/status").json()["since_start"].clone();
    assert!(number(&total["reused_tokens"]) > 0.0);
    assert_eq!(total["seconds_saved"], Json::Null);
}

#[test]
fn nobody_reads_of_anothers_agents() {
    let keys = Some("0123456789abcdef,fedcba9876543210");
    let server = Server::start(Setup { keys, ..Setup::default() });
    let secret = turn("a-secret-name", "a secret text").header("x-api-key", FIRST_KEY);
    assert_eq!(server.send(&secret).status, 200);
    let ask = |key: &str, path| server.send(&Request::get(path).header("x-api-key", key));
    for key in [FIRST_KEY, OTHER_KEY] {
        let told = ask(key, "/v1/status");
        assert_eq!(told.json()["agents"], json!({ "hot": 1, "warm": 0 }));
        assert!(!told.body.contains("secret"), "{told:?}");
    }
    assert_eq!(ask(FIRST_KEY, "/v1/agents").json()["data"][0]["id"], "a-secret-name");
    assert_eq!(ask(OTHER_KEY, "/v1/agents").json()["data"], json!([]));
}

#[test]
fn a_server_whose_model_is_not_there_yet_says_so() {
    for (model, name) in [(ModelState::Missing, Json::Null), (ModelState::Loading, json!("fake"))] {
        let server = Server::start(Setup { model, ..Setup::default() });
        let told = server.get("/v1/status").json();
        assert_eq!((&told["status"], &told["model"]), (&json!("starting"), &name));
        assert_eq!((&told["pool"]["block_bytes"], &told["store"]), (&Json::Null, &Json::Null));
    }
}
