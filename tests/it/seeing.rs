//! What `/metrics` says of a server, and that nobody can make it say more.

use std::collections::BTreeSet;
use std::time::Duration;

use semantic::engine;
use semantic::http::Rates;
use serde_json::{Value as Json, json};

use crate::support::http::{CHAT, ModelState, Request, Server, Setup, hello, wait_until};
use crate::support::log;
use crate::support::scale::scaled;
use crate::support::scrape::Scrape;

const GRAFANA: &str = include_str!("../../docs/deploy/grafana.json");
const KEY: &str = "key-of-the-tests-1";

/// So many tokens, greedily, as this agent.
fn turn(agent: &str, messages: &Json, tokens: usize) -> Json {
    json!({
        "messages": messages,
        "session_id": agent,
        "temperature": 0,
        "max_tokens": tokens,
    })
}

fn user(text: &str) -> Json {
    json!({ "role": "user", "content": text })
}

fn request_total(method: &str, path: &str, status: u16) -> String {
    format!("semantic_request_total{{method=\"{method}\",path=\"{path}\",status=\"{status}\"}}")
}

#[test]
fn request_counter_increments() {
    let server = Server::new();
    for expected in [1.0, 2.0] {
        assert_eq!(server.chat(&hello(json!({ "max_tokens": 2 }))).status, 200);
        server.chat(&hello(json!({ "max_tokens": 0 })));
        server.get("/no/such/path");
        server.send(&Request::new("BREW", "/"));
        let scrape = Scrape::of(&server);
        for (method, path, status) in
            [("POST", CHAT, 200), ("POST", CHAT, 400), ("GET", "other", 404), ("OTHER", "/", 405)]
        {
            let series = request_total(method, path, status);
            assert_eq!(scrape.value(&series), expected, "{series}");
        }
    }
}

#[test]
fn refusals_are_counted_too() {
    let server = Server::start(Setup {
        keys: Some(KEY),
        rates: Rates { agent: 1, global: 2, failed_keys: 0, tokens: 0 },
        ..Setup::default()
    });
    server.chat(&hello(json!({})));
    let send = |agent: &str| {
        let body = hello(json!({ "max_tokens": 1, "session_id": agent }));
        server.send(&Request::chat(&body).header("x-api-key", KEY)).status
    };
    // What its own limit refuses takes nothing from the others.
    assert_eq!([send("a"), send("a"), send("b"), send("c")], [200, 429, 200, 429]);
    let metrics = Request::get("/metrics").header("x-api-key", KEY);
    let scrape = Scrape::read(&server.send(&metrics));
    assert_eq!(scrape.value(&request_total("POST", CHAT, 401)), 1.0);
    assert_eq!(scrape.value(&request_total("POST", CHAT, 429)), 2.0);
    assert_eq!(scrape.value("semantic_limiter_refusals_total{limit=\"agent\"}"), 1.0);
    assert_eq!(scrape.value("semantic_limiter_refusals_total{limit=\"global\"}"), 1.0);
}

#[test]
fn request_histogram_records() {
    let server = Server::start(Setup { step: Duration::from_millis(2), ..Setup::default() });
    let answer = server.chat(&hello(json!({ "max_tokens": 5 }))).json();
    let tokens = answer["usage"]["completion_tokens"].as_f64().unwrap();
    let scrape = Scrape::of(&server);
    let labels = format!("{{method=\"POST\",path=\"{CHAT}\"}}");
    let duration = |part: &str| format!("semantic_request_duration_seconds_{part}{labels}");
    assert_eq!(scrape.value(&duration("count")), 1.0);
    assert!(scrape.value(&duration("sum")) > 0.0);
    for once in [
        "semantic_time_to_first_token_seconds",
        "semantic_e2e_request_latency_seconds",
        "semantic_request_queue_time_seconds",
        "semantic_request_prefill_time_seconds",
        "semantic_request_decode_time_seconds",
    ] {
        assert_eq!(scrape.value(&format!("{once}_count")), 1.0, "{once}");
    }
    assert_eq!(scrape.value("semantic_inter_token_latency_seconds_count"), tokens - 1.0);
    assert!(scrape.value("semantic_inter_token_latency_seconds_sum") > 0.0);
    let steps = scrape.value("semantic_step_duration_seconds_count");
    assert!(steps >= tokens, "{steps}");
    assert_eq!(scrape.value("semantic_batch_size_sum"), steps, "one row each");
}

#[test]
fn what_turns_cost_and_what_the_cache_spared_adds_up() {
    let server = Server::new();
    let mut messages = json!([user("Who are you?")]);
    let mut usage = [0.0; 3];
    for question in ["What can you do?", "Why?"] {
        let answer = server.chat(&turn("ada", &messages, 8)).json();
        let of = &answer["usage"];
        let cached = &of["prompt_tokens_details"]["cached_tokens"];
        for (sum, figure) in
            usage.iter_mut().zip([&of["prompt_tokens"], &of["completion_tokens"], cached])
        {
            *sum += figure.as_f64().unwrap();
        }
        let all = messages.as_array_mut().unwrap();
        all.push(answer["choices"][0]["message"].clone());
        all.push(user(question));
    }
    let scrape = Scrape::of(&server);
    let [prompt, completion, cached] = usage;
    assert!(cached > 0.0);
    for (series, expected) in [
        ("semantic_prompt_tokens_total", prompt),
        ("semantic_generation_tokens_total", completion),
        ("semantic_reused_tokens_total", cached),
        ("semantic_restored_tokens_total", 0.0),
        ("semantic_cache_queries_total", 2.0),
        ("semantic_cache_hits_total{tier=\"hot\"}", 1.0),
        ("semantic_cache_hits_total{tier=\"warm\"}", 0.0),
        ("semantic_cache_misses_total{cause=\"new\"}", 1.0),
        ("semantic_agents{tier=\"hot\"}", 1.0),
        ("semantic_agents{tier=\"warm\"}", 0.0),
        ("semantic_agents_active", 1.0),
    ] {
        assert_eq!(scrape.value(series), expected, "{series}");
    }
    let ended = ["stop", "length"].map(|why| {
        scrape.value(&format!("semantic_request_success_total{{finished_reason=\"{why}\"}}"))
    });
    assert_eq!(ended[0] + ended[1], 2.0);
}

/// One agent, whose system message changes under it in ways that people know.
#[test]
fn a_prompt_that_parts_from_what_was_said_is_a_miss_with_its_cause() {
    let server = Server::new();
    let ask = |system: &str, question: &str| {
        let messages = json!([{ "role": "system", "content": system }, user(question)]);
        assert_eq!(server.chat(&turn("ada", &messages, 2)).status, 200);
    };
    let causes = |expected: [f64; 4]| {
        let scrape = Scrape::of(&server);
        let causes = ["new", "date", "system_changed", "message"];
        let found = causes.map(|cause| {
            scrape.value(&format!("semantic_cache_misses_total{{cause=\"{cause}\"}}"))
        });
        assert_eq!(found, expected);
    };
    ask("You are terse. Today is 2026-01-02.", "Why?");
    causes([1.0, 0.0, 0.0, 0.0]);
    ask("You are terse. Today is 2026-01-03.", "Why?");
    causes([1.0, 1.0, 0.0, 0.0]);
    ask("You are never terse. Today is 2026-01-03.", "Why?");
    causes([1.0, 1.0, 1.0, 0.0]);
    ask("You are terse. Today is 2026-01-03.", "When?");
    causes([1.0, 1.0, 1.0, 1.0]);
    // Back to what was said before, as for another try of the same turn: no miss.
    ask("You are terse. Today is 2026-01-03.", "When?");
    causes([1.0, 1.0, 1.0, 1.0]);
}

#[test]
fn pool_utilization_metric() {
    let server = Server::start(Setup {
        is_endless: true,
        step: Duration::from_millis(1),
        ..Setup::default()
    });
    let idle = Scrape::of(&server);
    assert_eq!(idle.value("semantic_pool_utilization_ratio"), 0.0);
    assert_eq!(idle.value("semantic_pool_blocks{state=\"free\"}"), 64.0);
    let mut client = server.connect();
    client.stream(&hello(json!({ "stream": true, "max_tokens": 8000 })));
    client.event().expect("it has begun");
    wait_until("the pool is in use", || {
        let scrape = Scrape::of(&server);
        let used = scrape.value("semantic_pool_blocks{state=\"used\"}");
        if scrape.value("semantic_num_requests_running") == 1.0 {
            assert!(used > 0.0);
            assert_eq!(scrape.value("semantic_pool_utilization_ratio"), used / 64.0);
            assert_eq!(scrape.value("semantic_kv_cache_usage_ratio"), used / 64.0);
        }
        used > 0.0
    });
    drop(client);
    wait_until("an idle agent's blocks could be had", || {
        let scrape = Scrape::of(&server);
        scrape.value("semantic_pool_utilization_ratio") == 0.0
            && scrape.value("semantic_num_requests_running") == 0.0
    });
    let scrape = Scrape::of(&server);
    assert_eq!(scrape.value("semantic_request_success_total{finished_reason=\"abort\"}"), 1.0);
}

#[test]
fn metrics_endpoint_not_tracked() {
    let server = Server::new();
    let series = |scrape: &Scrape| scrape.series().map(str::to_owned).collect::<BTreeSet<_>>();
    let before = series(&Scrape::of(&server));
    let looks = ["/metrics", "/v1/status"];
    let probes = ["/health", "/health/live", "/health/ready", "/health/none"];
    for path in [&looks[..], &probes[..]].concat() {
        server.get(path);
    }
    let after = series(&Scrape::of(&server));
    assert_eq!(before, after);
    assert!(!after.iter().any(|series| series.starts_with("semantic_request_total")));
}

#[test]
fn the_metrics_are_there_while_the_model_loads() {
    for model in [ModelState::Missing, ModelState::Loading] {
        let server = Server::start(Setup { model, ..Setup::default() });
        assert_eq!(Scrape::of(&server).value("semantic_pool_blocks{state=\"free\"}"), 0.0);
    }
}

#[test]
fn connections_are_counted_while_they_are_open() {
    let server = Server::new();
    let mut others: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut others {
        client.send(&Request::get("/health"));
    }
    let count = || Scrape::of(&server).value("semantic_connections{door=\"main\"}");
    assert_eq!(count(), 4.0);
    drop(others);
    wait_until("they are closed", || count() == 1.0);
}

#[test]
fn who_leaves_before_the_answer_is_counted_as_such() {
    let server = Server::start(Setup {
        is_endless: true,
        step: Duration::from_millis(1),
        ..Setup::default()
    });
    let mut client = server.connect();
    client.write(&Request::chat(&hello(json!({ "max_tokens": 8000 }))).bytes());
    wait_until("it runs", || Scrape::of(&server).value("semantic_num_requests_running") == 1.0);
    drop(client);
    let left = request_total("POST", CHAT, 499);
    wait_until("it is counted", || Scrape::of(&server).count(&left) == 1.0);
}

/// The client hears that it failed, the log why, and of whom.
#[test]
fn error_logged_with_context() {
    log::keep();
    let server = Server::start(Setup { fails_at: Some(5), ..Setup::default() });
    let body = hello(json!({ "max_tokens": 50, "session_id": "ada" }));
    for (id, is_streamed) in [("failing-1", false), ("failing-2", true)] {
        let mut body = body.clone();
        body["stream"] = json!(is_streamed);
        let mut client = server.connect();
        let request = Request::chat(&body).header("X-Request-ID", id);
        let answer = client.open(&request);
        let said = match is_streamed && answer.status == 200 {
            true => json!(client.rest()).to_string(),
            false => answer.body,
        };
        assert!(!said.contains("/secret"), "{said}");
        wait_until(id, || log::lines_of(id).len() >= 2);
        let lines = log::lines_of(id);
        let [failed, answered] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(failed["level"], "ERROR", "{lines:?}");
        assert!(failed["error"].as_str().is_some_and(|error| error.contains("/secret")));
        assert_eq!(failed["spans"][0]["agent"], "ada", "{lines:?}");
        assert_eq!(answered["spans"][0]["finish"], "error", "{lines:?}");
        assert_eq!(answered["spans"][0]["error"], "internal_error", "{lines:?}");
        assert_eq!(answered["message"], "request answered", "{lines:?}");
    }
    let series = "semantic_request_success_total{finished_reason=\"error\"}";
    assert_eq!(Scrape::of(&server).value(series), 2.0);
}

/// What clients choose - names, paths, methods, ids, traces - is in no label.
#[test]
fn no_client_can_make_a_series() {
    let server = Server::start(Setup {
        engine: engine::Config { queue_max: 4096, ..engine::Config::default() },
        ..Setup::default()
    });
    let mut client = server.connect();
    let mut visit = |number: usize| {
        let name = format!("agent-{number}");
        let path = format!("/{name}");
        let agent = format!("/v1/agents/{name}");
        let query = format!("{CHAT}?{name}");
        let method = format!("M{number}");
        let body = hello(json!({ "max_tokens": 1, "session_id": name, "user": name })).to_string();
        for request in [
            Request::get(&path),
            Request::get(&agent),
            Request::new(&method, "/"),
            Request::post(&query, body.clone()).header("X-Request-ID", name.as_str()),
            Request::post(CHAT, body).header("X-Agent-ID", name.as_str()),
        ] {
            client.send(&request);
        }
    };
    visit(0);
    let before = Scrape::of(&server);
    for number in 1..=scaled(10_000) {
        visit(number);
    }
    let after = Scrape::of(&server);
    assert!(before.series().eq(after.series()));
    assert!(!after.series().any(|series| series.contains("agent-")));
}

/// Rules that name what is not there never fire, and nobody notices.
#[test]
fn every_name_in_the_alert_rules_and_in_the_readme_is_there() {
    let server = Server::new();
    server.metrics.set_build("0.0.0", "0.0.0", "fake");
    assert_eq!(server.chat(&hello(json!({ "max_tokens": 2 }))).status, 200);
    let scrape = Scrape::of(&server);
    for (file, text) in [
        ("alerts.yml", include_str!("../../docs/deploy/alerts.yml")),
        ("grafana.json", GRAFANA),
        ("docs/operating.md", include_str!("../../docs/operating.md")),
    ] {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let words = text.split(|c| !is_part(c));
        let names: BTreeSet<&str> = words
            .filter(|word| word.starts_with("semantic_") || word.starts_with("process_"))
            .filter(|word| *word != "semantic_")
            .collect();
        assert!(names.len() > 10, "{file} names only {names:?}");
        for name in names {
            // A family of histograms by its own name, in prose, or what appears once it happens.
            let family = name.strip_suffix("_bucket").unwrap_or(name);
            let is_there = scrape.has(family) || scrape.has(&format!("{family}_count"));
            assert!(is_there, "{file}: {name} is not in /metrics");
        }
    }
    for family in scrape.families() {
        let is_told = include_str!("../../docs/operating.md").contains(&format!("`{family}`"));
        assert!(is_told, "docs/operating.md has no `{family}`");
    }
}

#[test]
fn the_panels_of_the_dashboard_have_a_title_a_query_and_a_place_of_their_own() {
    let dashboard: Json = serde_json::from_str(GRAFANA).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() > 10, "{}", panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        let queries = panel["targets"].as_array().expect("queries");
        assert!(!queries.is_empty(), "{title}");
        for query in queries {
            let query = query["expr"].as_str().expect("an expression");
            let opened = query.matches(['(', '[', '{']).count();
            assert_eq!(opened, query.matches([')', ']', '}']).count(), "{title}: {query}");
            assert!(query.contains("$instance"), "{title}: {query}");
        }
        let number = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        assert!(number("x") + number("w") <= 24, "{title}");
        for x in number("x")..number("x") + number("w") {
            for y in number("y")..number("y") + number("h") {
                assert!(taken.insert((x, y)), "{title} lies on another panel");
            }
        }
    }
}

/// Every rule says what it is about and how grave it is.
#[test]
fn every_alert_has_an_expression_a_severity_and_a_summary() {
    let text = include_str!("../../docs/deploy/alerts.yml");
    let rules: Vec<&str> = text.split("- alert: ").skip(1).collect();
    assert!(rules.len() >= 10, "{}", rules.len());
    for rule in rules {
        for part in ["expr: ", "severity: ", "summary: "] {
            assert!(rule.contains(part), "no {part}in {rule}");
        }
        let opened = rule.matches(['(', '[', '{']).count();
        assert_eq!(opened, rule.matches([')', ']', '}']).count(), "{rule}");
    }
}
