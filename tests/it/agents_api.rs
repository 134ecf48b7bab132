//! `/v1/agents` over real sockets: made, asked, told, copied, put on the disk, forgotten.

use serde_json::{Value as Json, json};

use crate::support::http::{Answer, Request, Server, Setup, hello, wait_until};
use crate::support::store::{Failing, ShakyDisk, keeping};
use semantic::engine::Keeping;
use semantic::types::Fingerprint;

const FIRST_KEY: &str = "0123456789abcdef";
const OTHER_KEY: &str = "fedcba9876543210";

fn with_disk() -> (Server, ShakyDisk) {
    let disk = ShakyDisk::default();
    (on(&disk), disk)
}

fn on(disk: &ShakyDisk) -> Server {
    Server::start(Setup { disk: Some(disk.clone()), ..Setup::default() })
}

fn send(server: &Server, method: &str, path: &str) -> Answer {
    server.send(&Request::new(method, path))
}

fn post(server: &Server, path: &str, body: &Json) -> Answer {
    server.send(&Request::post(path, body.to_string()))
}

fn path(agent: &str) -> String {
    let encoded: String = agent.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("/v1/agents/{encoded}")
}

/// One turn of an agent, which says eight tokens at most.
fn generate(server: &Server, agent: &str, prompt: &str) -> Json {
    let body = json!({ "prompt": prompt, "max_tokens": 8, "temperature": 0 });
    let answer = post(server, &format!("{}/generate", path(agent)), &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.error()["code"].as_str().unwrap_or_default().to_owned())
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn a_free_name_is_given_and_one_that_has_memory_is_not() {
    let (server, _disk) = with_disk();
    let answer = post(&server, "/v1/agents", &json!({ "agent_id": "planner" }));
    assert_eq!(answer.status, 201);
    let told = answer.json();
    assert_eq!(
        (&told["agent_id"], &told["status"], &told["cache_size_tokens"]),
        (&json!("planner"), &json!("new"), &json!(0))
    );
    // Nothing is stored before its first turn.
    assert_eq!(code(&server.get("/v1/agents/planner")), refusal(404, "agent_not_found"));
    generate(&server, "planner", "Hello");
    let again = post(&server, "/v1/agents", &json!({ "agent_id": "planner" }));
    assert_eq!(code(&again), refusal(409, "agent_exists"));
    let names: Vec<Json> =
        (0..2).map(|_| send(&server, "POST", "/v1/agents").json()["agent_id"].clone()).collect();
    assert!(names[0].as_str().unwrap().starts_with("agent-"), "{names:?}");
    assert_ne!(names[0], names[1]);
}

#[test]
fn a_turn_goes_on_where_the_last_one_ended() {
    let replies = vec!["Good morning.", "It is late.", "It is late.", "It is late."];
    let disk = Some(ShakyDisk::default());
    let server = Server::start(Setup { replies, disk, ..Setup::default() });
    let first = generate(&server, "a", "Hello");
    assert_eq!((&first["agent"], &first["semantic"]["source"]), (&json!("a"), &json!("cold")));
    let memory = first["cache_size_tokens"].as_u64().unwrap();
    assert_eq!(first["usage"]["total_tokens"], memory);
    let second = generate(&server, "a", "And now?");
    assert_eq!(second["semantic"]["source"], "hot");
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], memory - 1);
    // It is what a client gets that sends the whole conversation.
    let whole = json!({
        "messages": [
            { "role": "user", "content": "Hello" },
            { "role": "assistant", "content": first["text"] },
            { "role": "user", "content": "And now?" },
        ],
        "max_tokens": 8,
        "temperature": 0,
    });
    let chat = server.chat(&whole).json();
    let prompt_tokens = second["usage"]["prompt_tokens"].as_u64().unwrap();
    // All of it is there, and the last token of a prompt is always computed.
    assert_eq!(chat["usage"]["prompt_tokens_details"]["cached_tokens"], prompt_tokens - 1);
    assert_eq!(chat["choices"][0]["message"]["content"], second["text"]);
    assert_eq!(chat["usage"]["prompt_tokens"], second["usage"]["prompt_tokens"]);
    let again = post(&server, "/v1/agents/b/generate", &whole).json();
    assert_eq!((&again["text"], &again["agent"]), (&second["text"], &json!("b")));
}

/// What it says again is nothing new, and yet what it has said last.
#[test]
fn an_agent_goes_on_from_what_it_said_last_also_after_a_restart() {
    let asks = |server: &Server, text: &str| {
        let messages = json!([{ "role": "user", "content": text }]);
        let body =
            json!({ "messages": messages, "session_id": "a", "temperature": 0, "max_tokens": 5 });
        let answer = server.chat(&body).json();
        assert_eq!(answer["semantic"]["durable"], true, "{answer}");
        answer["semantic"]["generation"].clone()
    };
    let goes_on = |is_restarted: bool| {
        let (mut server, disk) = with_disk();
        let texts = ["Hello", "What do you know of the sea, and of the wind?", "Hello", "Hello"];
        let generations = texts.map(|text| asks(&server, text));
        assert_eq!(generations, [1, 2, 3, 3].map(Json::from));
        if is_restarted {
            drop(server);
            server = on(&disk);
        }
        generate(&server, "a", "And now?")["usage"]["prompt_tokens"].clone()
    };
    assert_eq!(goes_on(true), goes_on(false));
}

#[test]
fn an_agent_keeps_the_system_message_that_it_began_with() {
    let (server, _disk) = with_disk();
    let ask = |system: &str| {
        let body = json!({ "prompt": "Hello", "system": system, "max_tokens": 4 });
        post(&server, "/v1/agents/a/generate", &body)
    };
    assert_eq!(ask("You are brief.").status, 200);
    assert_eq!(ask("You are brief.").status, 200);
    let other = ask("You are verbose.");
    assert_eq!((other.status, &other.error()["param"]), (400, &json!("system")));
}

/// A completion has no turns that a next one could follow.
#[test]
fn an_agent_that_completes_a_text_goes_on_from_what_it_said_before() {
    let (server, disk) = with_disk();
    let memory = generate(&server, "a", "Hello")["cache_size_tokens"].as_u64().unwrap();
    let complete = || {
        let body = json!({ "prompt": "Once upon a time", "max_tokens": 8, "model": "fake" });
        let request = Request::post("/v1/completions", body.to_string());
        let answer = server.send(&request.header("X-Agent-ID", "a"));
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    complete();
    let cached = |told: &Json| told["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
    let next = generate(&server, "a", "And now?");
    assert_eq!(cached(&next), memory - 1);
    complete();
    drop(server);
    let server = on(&disk);
    let then = generate(&server, "a", "And then?");
    assert_eq!(cached(&then), next["cache_size_tokens"].as_u64().unwrap() - 1);
}

#[test]
fn of_two_turns_at_once_an_agent_refuses_one() {
    let disk = Some(ShakyDisk::default());
    let server = Server::start(Setup { disk, is_endless: true, ..Setup::default() });
    let mut client = server.connect();
    let body = json!({ "prompt": "Hello", "stream": true });
    client.open(&Request::post("/v1/agents/a/generate", body.to_string()));
    let second = post(&server, "/v1/agents/a/generate", &json!({ "prompt": "Hello" }));
    assert_eq!(code(&second), refusal(409, "agent_busy"));
    drop(client);
    let body = json!({ "prompt": "And now?", "max_tokens": 8 });
    let ask = || post(&server, "/v1/agents/a/generate", &body).status;
    wait_until("its turn ends", || ask() == 200);
}

#[test]
fn a_streamed_turn_has_the_text_of_a_whole_one() {
    let (server, _disk) = with_disk();
    let whole = generate(&server, "a", "Hello");
    let body = json!({ "prompt": "Hello", "max_tokens": 8, "temperature": 0, "stream": true });
    let mut client = server.connect();
    let head = client.open(&Request::post("/v1/agents/b/generate", body.to_string()));
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let chunks = client.rest();
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, whole["text"]);
    let last = &chunks[chunks.len() - 2];
    assert_eq!(
        (&last["semantic"]["agent"], &last["semantic"]["durable"]),
        (&json!("b"), &json!(true))
    );
    assert_eq!(chunks.last(), Some(&json!("[DONE]")));
}

#[test]
fn a_turn_that_makes_no_sense_is_refused_by_the_name_of_its_field() {
    let (server, _disk) = with_disk();
    let message = json!([{ "role": "user", "content": "x" }]);
    for (body, param) in [
        (json!({}), "prompt"),
        (json!({ "prompt": "" }), "prompt"),
        (json!({ "prompt": "x", "messages": message }), "messages"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": message, "system": "x" }), "system"),
        (json!({ "prompt": "x", "max_tokens": 0 }), "max_tokens"),
        (json!({ "prompt": "x", "temperature": 3 }), "temperature"),
        (json!({ "prompt": "x", "top_p": -1 }), "top_p"),
        (json!({ "prompt": "x", "stop": [""] }), "stop"),
        (json!({ "prompt": "x", "n": 2 }), "n"),
        (json!({ "prompt": "x", "agent_id": "b" }), "agent_id"),
    ] {
        let answer = post(&server, "/v1/agents/a/generate", &body);
        assert_eq!((answer.status, &answer.error()["param"]), (400, &json!(param)), "{body}");
    }
    assert_eq!(server.get("/v1/agents").json()["total"], 0);
}

#[test]
fn what_is_told_of_an_agent_is_what_it_has() {
    let (server, disk) = with_disk();
    let memory = generate(&server, "a", "Hello")["cache_size_tokens"].clone();
    let told = server.get("/v1/agents/a").json();
    assert_eq!((&told["object"], &told["id"]), (&json!("agent"), &json!("a")));
    assert_eq!((&told["tier"], &told["tokens"]), (&json!("hot"), &memory));
    assert_eq!((&told["dirty"], &told["busy"]), (&json!(false), &json!(false)));
    assert_eq!((&told["generation"], &told["model"]), (&json!(1), &json!("fake")));
    assert!(told["bytes"].as_u64().unwrap() > 0);
    assert!(told["last_used"].as_u64().unwrap() > 1_600_000_000);
    disk.set_failing(Failing::Writes);
    generate(&server, "a", "And now?");
    assert_eq!(server.get("/v1/agents/a").json()["dirty"], true);
    let refused = send(&server, "DELETE", "/v1/agents/a?evict_only=true");
    assert_eq!(code(&refused), refusal(503, "not_saved"));
    assert!(refused.header("retry-after").is_some());
    disk.set_failing(Failing::Nothing);
    // What has just failed is not tried again at once, however often somebody asks.
    let mut evicted = None;
    wait_until("the disk is tried again", || {
        let answer = send(&server, "DELETE", "/v1/agents/a?evict_only=true");
        evicted = (answer.status == 200).then(|| answer.json());
        evicted.is_some()
    });
    assert_eq!(evicted, Some(json!({ "saved": 1, "failed": 0, "forgotten": 0 })));
    let told = server.get("/v1/agents/a").json();
    assert_eq!((&told["tier"], &told["dirty"]), (&json!("warm"), &json!(false)));
    assert_eq!(generate(&server, "a", "And then?")["semantic"]["source"], "warm");
}

#[test]
fn agents_are_listed_by_name_a_page_at_a_time() {
    let (server, _disk) = with_disk();
    for name in ["d", "a", "c", "e", "b"] {
        generate(&server, name, "Hello");
    }
    let page = |query: &str| {
        let page = server.get(&format!("/v1/agents{query}")).json();
        let ids = page["data"].as_array().unwrap().iter();
        let ids: Vec<String> = ids.map(|agent| agent["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!((&page["object"], &page["total"]), (&json!("list"), &json!(5)));
        (ids.concat(), page["has_more"].as_bool().unwrap())
    };
    assert_eq!(page(""), ("abcde".to_owned(), false));
    assert_eq!(page("?limit=2"), ("ab".to_owned(), true));
    assert_eq!(page("?limit=2&after=b"), ("cd".to_owned(), true));
    assert_eq!(page("?limit=2&after=d"), ("e".to_owned(), false));
    assert_eq!(page("?after=%62%62"), ("cde".to_owned(), false));
    assert_eq!(page("?after=x"), (String::new(), false));
    for query in ["?limit=0", "?limit=1001", "?limit=x", "?before=a"] {
        assert_eq!(server.get(&format!("/v1/agents{query}")).status, 400, "{query}");
    }
}

#[test]
fn an_agent_that_is_deleted_is_gone_also_for_the_next_process() {
    let (server, disk) = with_disk();
    generate(&server, "a", "Hello");
    generate(&server, "b", "Hello");
    assert_eq!(send(&server, "DELETE", "/v1/agents/a").status, 204);
    assert_eq!(code(&server.get("/v1/agents/a")), refusal(404, "agent_not_found"));
    assert_eq!(code(&send(&server, "DELETE", "/v1/agents/a")), refusal(404, "agent_not_found"));
    drop(server);
    let server = on(&disk);
    assert_eq!(server.get("/v1/agents/a").status, 404);
    assert_eq!(server.get("/v1/agents/b").json()["tier"], "warm");
    assert_eq!(generate(&server, "b", "And now?")["semantic"]["source"], "warm");
    assert_eq!(generate(&server, "a", "Hello there")["semantic"]["agent"], "a");
    for query in ["?evict_only=1", "?keep=true"] {
        let answer = send(&server, "DELETE", &format!("/v1/agents/a{query}"));
        assert_eq!(answer.status, 400, "{query}");
    }
    assert_eq!(server.get("/v1/agents/a").status, 200);
}

#[test]
fn an_agent_that_speaks_is_busy_until_it_has_ended() {
    let disk = ShakyDisk::default();
    let server = Server::start(Setup { disk: Some(disk), is_endless: true, ..Setup::default() });
    let mut client = server.connect();
    client.stream(&hello(json!({ "stream": true, "session_id": "a" })));
    client.data().expect("it has begun");
    assert_eq!(server.get("/v1/agents/a").json()["busy"], true);
    assert_eq!(code(&send(&server, "DELETE", "/v1/agents/a")), refusal(409, "agent_busy"));
    drop(client);
    wait_until("its turn ends", || send(&server, "DELETE", "/v1/agents/a").status == 204);
    assert_eq!(server.get("/v1/agents/a").status, 404);
}

#[test]
fn a_copy_has_what_its_original_has_and_goes_its_own_way() {
    let (server, disk) = with_disk();
    generate(&server, "a", "Hello");
    let fork = |from: &str, to: &str| {
        post(&server, &format!("/v1/agents/{from}/fork"), &json!({ "agent_id": to }))
    };
    let answer = fork("a", "b");
    assert_eq!(answer.status, 201);
    let (copy, original) = (answer.json(), server.get("/v1/agents/a").json());
    assert_eq!((&copy["id"], &copy["tokens"]), (&json!("b"), &original["tokens"]));
    assert_eq!(code(&fork("a", "b")), refusal(409, "agent_exists"));
    assert_eq!(code(&fork("x", "c")), refusal(404, "agent_not_found"));
    assert_eq!(fork("a", "").status, 400);
    assert_eq!(fork("a", &"x".repeat(257)).status, 400);
    let ways = ["a", "b"].map(|agent| generate(&server, agent, "And now?"));
    assert_eq!(ways[0]["text"], ways[1]["text"]);
    assert_ne!(ways[1]["semantic"]["source"], "cold");
    assert_eq!(send(&server, "DELETE", "/v1/agents/a").status, 204);
    drop(server);
    let server = on(&disk);
    assert_eq!(generate(&server, "b", "And then?")["semantic"]["source"], "warm");
}

#[test]
fn an_agent_goes_back_to_what_it_was_and_forward_again() {
    let (server, disk) = with_disk();
    let rollback = |server: &Server, body: &Json| post(server, "/v1/agents/a/rollback", body);
    generate(&server, "a", "Hello");
    let before = server.get("/v1/agents/a").json();
    assert_eq!(code(&rollback(&server, &json!({}))), refusal(404, "save_not_found"));
    generate(&server, "a", "And now?");
    let after = server.get("/v1/agents/a").json();
    assert_ne!(before["tokens"], after["tokens"]);

    let answer = rollback(&server, &json!({}));
    assert_eq!(answer.status, 200, "{answer:?}");
    let back = answer.json();
    assert_eq!((&back["tokens"], &back["tier"]), (&before["tokens"], &json!("warm")));
    // Nothing is lost: what was newer is an older save now.
    assert!(back["generation"].as_u64() > after["generation"].as_u64());
    let forward = rollback(&server, &json!({ "generation": after["generation"] })).json();
    assert_eq!(forward["tokens"], after["tokens"]);

    let back = rollback(&server, &json!({ "generation": before["generation"] })).json();
    assert_eq!(back["tokens"], before["tokens"]);
    let turn = generate(&server, "a", "And now?");
    assert_eq!(turn["semantic"]["source"], "warm");
    assert_eq!(server.get("/v1/agents/a").json()["tokens"], after["tokens"]);
    let refused = rollback(&server, &json!({ "generation": 99 }));
    assert_eq!(code(&refused), refusal(404, "save_not_found"));
    assert_eq!(rollback(&server, &json!({ "generation": -1 })).status, 400);
    let nobody = post(&server, "/v1/agents/x/rollback", &json!({}));
    assert_eq!(code(&nobody), refusal(404, "agent_not_found"));

    rollback(&server, &json!({ "generation": before["generation"] }));
    drop(server);
    let server = on(&disk);
    assert_eq!(server.get("/v1/agents/a").json()["tokens"], before["tokens"]);
}

#[test]
fn how_long_an_agent_is_kept_is_said_and_told() {
    let (server, disk) = with_disk();
    let put = |server: &Server, agent: &str, body: &Json| {
        let path = format!("/v1/agents/{agent}/retention");
        server.send(&Request { method: "PUT", ..Request::post(&path, body.to_string()) })
    };
    generate(&server, "a", "Hello");
    let before = server.get("/v1/agents/a").json();
    assert_eq!((&before["pinned"], &before["expires_at"]), (&json!(false), &json!(null)));
    let kept = put(&server, "a", &json!({ "pinned": true, "ttl_seconds": 3_600 }));
    assert_eq!(kept.status, 200, "{kept:?}");
    let kept = kept.json();
    assert_eq!((&kept["pinned"], &kept["ttl_seconds"]), (&json!(true), &json!(3_600)));
    let lifetime = kept["expires_at"].as_u64().unwrap() - before["last_used"].as_u64().unwrap();
    assert!((3_590..=3_600).contains(&lifetime), "{lifetime}");
    drop(server);
    let server = on(&disk);
    assert_eq!(server.get("/v1/agents/a").json()["expires_at"], kept["expires_at"]);
    // What is not said is off.
    let kept = put(&server, "a", &json!({})).json();
    assert_eq!((&kept["pinned"], &kept["ttl_seconds"]), (&json!(false), &json!(null)));
    for bad in [json!({ "ttl_seconds": 0 }), json!({ "ttl_seconds": -1 }), json!({ "pin": true })] {
        assert_eq!(put(&server, "a", &bad).status, 400, "{bad}");
    }
    assert_eq!(code(&put(&server, "x", &json!({}))), refusal(404, "agent_not_found"));
}

#[test]
fn an_agent_that_will_be_asked_is_brought_back_before() {
    let (server, disk) = with_disk();
    generate(&server, "a", "Hello");
    let warm = |server: &Server, agent: &str| {
        post(server, &format!("/v1/agents/{agent}/warm"), &json!({}))
    };
    assert_eq!(warm(&server, "a").json()["state"], "hot");
    assert_eq!(code(&warm(&server, "x")), refusal(404, "agent_not_found"));
    drop(server);
    let server = on(&disk);
    assert_eq!(server.get("/v1/agents/a").json()["tier"], "warm");
    let told = warm(&server, "a").json();
    assert_eq!((&told["object"], &told["state"]), (&json!("agent.warmed"), &json!("warming")));
    let is_hot = || server.get("/v1/agents/a").json()["tier"] == "hot";
    wait_until("it is in memory", is_hot);
    assert_eq!(generate(&server, "a", "And now?")["semantic"]["source"], "hot");
}

#[test]
fn where_a_prompt_parts_from_what_an_agent_has_is_told() {
    let (server, _disk) = with_disk();
    generate(&server, "a", "Hello there, what is the time?");
    let explain = |query: &str| server.get(&format!("/v1/agents/a/explain{query}"));
    let found = explain("?prompt=Hello%20there,%20who%20is%20the%20king?").json();
    assert_eq!((&found["id"], &found["cause"]), (&json!("a"), &json!("message")), "{found}");
    let parting = &found["difference"];
    assert_eq!(parting["token"], found["same_tokens"]);
    assert!(parting["before"].as_str().unwrap().ends_with("Hello there, wh"), "{found}");
    assert!(parting["stored"].as_str().unwrap().starts_with("at is the time?"), "{found}");
    assert!(parting["given"].as_str().unwrap().starts_with("o is the king?"), "{found}");
    let same = explain("?prompt=Hello%20there,%20what%20is%20the%20time?").json();
    assert_eq!((&same["difference"], &same["cause"]), (&Json::Null, &Json::Null), "{same}");
    assert_eq!(same["same_tokens"], same["given_tokens"]);
    for query in ["", "?system=x", "?text=x"] {
        assert_eq!(explain(query).status, 400, "{query}");
    }
    assert_eq!(code(&server.get("/v1/agents/x/explain")), refusal(404, "agent_not_found"));
    // A query stands in the logs of proxies; a body does not.
    let given = |agent: &str, body: &Json| {
        let path = format!("/v1/agents/{agent}/explain");
        server.send(&Request::post(&path, body.to_string()))
    };
    let prompt = json!({ "prompt": "Hello there, who is the king?" });
    assert_eq!(given("a", &prompt).json(), found);
    for body in [json!({}), json!({ "system": "x" }), json!({ "text": "x" })] {
        assert_eq!(given("a", &body).status, 400, "{body}");
    }
    assert_eq!(code(&given("x", &prompt)), refusal(404, "agent_not_found"));
}

#[test]
fn an_agent_of_another_model_is_said_to_be_that() {
    let (server, disk) = with_disk();
    generate(&server, "a", "Hello");
    drop(server);
    let other = Keeping { fingerprint: Fingerprint([9; 32]), ..keeping(disk.open()) };
    let server = Server::start(Setup { keeping: Some(other), ..Setup::default() });
    assert_eq!(server.get(&path("a")).json()["usable"], false);
    for query in ["", "?prompt=Hello"] {
        let found = server.get(&format!("/v1/agents/a/explain{query}"));
        assert_eq!(found.status, 200, "{found:?}");
        let found = found.json();
        assert_eq!((&found["cause"], &found["same_tokens"]), (&json!("other_model"), &json!(0)));
        assert!(found["advice"].is_string() && found["difference"].is_null(), "{found}");
    }
}

#[test]
fn where_nothing_is_kept_an_agent_cannot_go_to_the_disk() {
    let server = Server::new();
    generate(&server, "a", "Hello");
    let refused = send(&server, "DELETE", "/v1/agents/a?evict_only=true");
    assert_eq!(code(&refused), refusal(409, "nothing_kept"));
    assert_eq!(post(&server, "/v1/agents/a/fork", &json!({ "agent_id": "b" })).status, 201);
    assert_eq!(send(&server, "DELETE", "/v1/agents/a").status, 204);
    assert_eq!(generate(&server, "b", "And now?")["semantic"]["source"], "hot");
}

/// Names are from outside: none is a path, and those that look alike are different.
#[test]
fn any_text_is_a_name_and_none_is_a_path() {
    let (server, _disk) = with_disk();
    let longest = "ä".repeat(128);
    let names = [
        "..",
        ".",
        "../../etc/passwd",
        "%2e%2e%2f",
        "\0",
        "a\0",
        "a\n",
        "x.tmp",
        "a b",
        "a/b",
        "a\\b",
        "?x=1",
        "#",
        "%",
        "+",
        "\u{202e}abc",
        "Zoë",
        "Zoe\u{308}",
        "Bob",
        "bob",
        "🦀",
        "list",
        &longest,
    ];
    for name in names {
        assert_eq!(generate(&server, name, "Hello")["agent"], name);
    }
    assert_eq!(server.get("/v1/agents").json()["total"], names.len());
    for name in names {
        let told = server.get(&path(name));
        assert_eq!((told.status, &told.json()["id"]), (200, &json!(name)));
    }
    for name in names {
        assert_eq!(send(&server, "DELETE", &path(name)).status, 204, "{name:?}");
    }
    assert_eq!(server.get("/v1/agents").json()["total"], 0);
    for (path, status) in [
        (path(&"ä".repeat(129)), 400),
        ("/v1/agents/%ff".to_owned(), 400),
        ("/v1/agents/%c3%28".to_owned(), 400),
        ("/v1/agents/".to_owned(), 404),
    ] {
        assert_eq!(server.get(&path).status, status, "{path}");
    }
}

/// Who asks for another's agent hears what he would hear if there were none.
#[test]
fn the_agents_of_one_key_are_nobody_for_another() {
    let disk = ShakyDisk::default();
    let keys = Some("0123456789abcdef,fedcba9876543210");
    let server = Server::start(Setup { disk: Some(disk), keys, ..Setup::default() });
    let send = |key: &str, method: &'static str, path: &'static str, body: Option<Json>| {
        let request = match body {
            Some(body) => Request::post(path, body.to_string()),
            None => Request::new(method, path),
        };
        server.send(&request.header("X-API-Key", key))
    };
    let generate = |key, prompt| {
        let body = json!({ "prompt": prompt, "max_tokens": 8, "temperature": 0 });
        send(key, "POST", "/v1/agents/a/generate", Some(body)).json()
    };
    let own = generate(FIRST_KEY, "Hello");
    let verbs: [(&'static str, &'static str, Option<Json>); 4] = [
        ("GET", "/v1/agents/a", None),
        ("DELETE", "/v1/agents/a", None),
        ("DELETE", "/v1/agents/a?evict_only=true", None),
        ("POST", "/v1/agents/a/fork", Some(json!({ "agent_id": "b" }))),
    ];
    for (method, path, body) in verbs {
        let answer = send(OTHER_KEY, method, path, body);
        assert_eq!(code(&answer), refusal(404, "agent_not_found"), "{method} {path}");
    }
    assert_eq!(send(OTHER_KEY, "GET", "/v1/agents", None).json()["total"], 0);
    // The same name is another agent, which finds nothing of the first.
    assert_eq!(send(OTHER_KEY, "POST", "/v1/agents", Some(json!({ "agent_id": "a" }))).status, 201);
    let others = generate(OTHER_KEY, "Hello");
    assert_eq!(others["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(others["text"], own["text"]);
    assert_eq!(send(OTHER_KEY, "DELETE", "/v1/agents/a", None).status, 204);
    let next = generate(FIRST_KEY, "And now?");
    assert_eq!(next["semantic"]["source"], "hot");
    assert_eq!(send(FIRST_KEY, "GET", "/v1/agents", None).json()["total"], 1);
    assert_eq!(send("", "GET", "/v1/agents/a", None).status, 401);
}
