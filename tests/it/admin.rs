//! What who runs a server asks of it while it runs, over real sockets.

use std::sync::{Arc, Mutex};

use semantic::http::LogControl;
use serde_json::{Value as Json, json};

use crate::support::http::{Answer, ModelState, Request, Server, Setup, hello, wait_until};
use crate::support::store::{Failing, ShakyDisk};

const KEY: &str = "the-key-of-the-administrator";

fn setup() -> Setup {
    let disk = Some(ShakyDisk::default());
    Setup { admin_key: Some(KEY), disk, ..Setup::default() }
}

fn ask(server: &Server, request: Request<'_>) -> Answer {
    server.send(&request.header("X-Admin-Key", KEY))
}

fn post(server: &Server, path: &str, body: &Json) -> Answer {
    ask(server, Request::post(path, body.to_string()))
}

fn stats(server: &Server) -> Json {
    ask(server, Request::get("/admin/stats")).json()
}

fn say_hello(server: &Server, agent: &str) -> Answer {
    server.chat(&hello(json!({ "max_tokens": 4, "session_id": agent })))
}

#[test]
fn who_has_no_admin_key_changes_nothing() {
    let server = Server::start(Setup { model: ModelState::Missing, ..setup() });
    let routes = ["/admin/evict", "/admin/drain", "/admin/stats", "/admin/log-level"];
    for (path, method) in routes.into_iter().zip(["POST", "POST", "GET", "PUT"]) {
        assert_eq!(server.send(&Request::new(method, path)).status, 401, "{path}");
        let wrong = Request::new(method, path).header("X-Admin-Key", "the-key-of-somebody-else");
        assert_eq!(server.send(&wrong).status, 401, "{path}");
    }
    assert_eq!(ask(&server, Request::new("POST", "/admin/evict")).status, 503);
}

#[test]
fn all_idle_agents_go_to_the_disk() {
    let server = Server::start(setup());
    for agent in ["a", "b"] {
        assert_eq!(say_hello(&server, agent).status, 200);
    }
    let told = stats(&server);
    assert_eq!(told["agents"], json!({ "total": 2, "hot": 2, "warm": 0, "dirty": 0 }));
    let evicted = ask(&server, Request::new("POST", "/admin/evict")).json();
    assert_eq!(evicted, json!({ "saved": 2, "failed": 0, "forgotten": 0 }));
    let told = stats(&server);
    assert_eq!(told["agents"], json!({ "total": 2, "hot": 0, "warm": 2, "dirty": 0 }));
    assert_eq!(told["pool"]["blocks_used"], 0);
    assert_eq!((&told["status"], &told["store"]["agents"]), (&json!("serving"), &json!(2)));
    assert!(told["store"]["disk_bytes"].as_u64().unwrap() > 0);
    assert!(told["uptime_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn what_the_disk_does_not_take_is_counted() {
    let disk = ShakyDisk::default();
    let server = Server::start(Setup { disk: Some(disk.clone()), ..setup() });
    disk.set_failing(Failing::Writes);
    say_hello(&server, "a");
    let evicted = ask(&server, Request::new("POST", "/admin/evict")).json();
    assert_eq!(evicted, json!({ "saved": 0, "failed": 1, "forgotten": 0 }));
    assert_eq!(stats(&server)["agents"]["dirty"], 1);
}

#[test]
fn a_drained_server_has_finished_what_ran_and_takes_no_more() {
    let server = Server::start(setup());
    let mut client = server.connect();
    client.stream(&hello(json!({ "stream": true, "max_tokens": 200 })));
    let drained = ask(&server, Request::new("POST", "/admin/drain"));
    assert_eq!(drained.status, 200);
    assert!(drained.json()["drained"].as_u64().unwrap() <= 1);
    assert_eq!(client.rest().last(), Some(&json!("[DONE]")));
    let refused = say_hello(&server, "a");
    assert_eq!((refused.status, &refused.error()["code"]), (503, &json!("shutting_down")));
    assert_eq!(server.get("/health/ready").json()["reason"], "shutting_down");
    assert_eq!(server.get("/health/live").status, 200);
    assert_eq!(stats(&server)["status"], "draining");
    // What is left to do works on.
    assert_eq!(ask(&server, Request::new("POST", "/admin/evict")).status, 200);
    assert_eq!(post(&server, "/admin/drain", &json!({ "timeout_s": 1 })).json()["drained"], 0);
}

#[test]
fn a_drain_that_takes_too_long_says_what_is_left() {
    let server = Server::start(Setup { is_endless: true, ..setup() });
    let mut client = server.connect();
    client.stream(&hello(json!({ "stream": true })));
    wait_until("it runs", || stats(&server)["requests"]["running"] == 1);
    let late = post(&server, "/admin/drain", &json!({ "timeout_s": 0 }));
    assert_eq!((late.status, &late.error()["code"]), (504, &json!("drain_timeout")));
    assert!(late.error()["message"].as_str().unwrap().starts_with("1 requests were still running"));
    for timeout in [json!(-1), json!("x"), json!(1e9)] {
        let answer = post(&server, "/admin/drain", &json!({ "timeout_s": timeout }));
        assert_eq!((answer.status, &answer.error()["param"]), (400, &json!("timeout_s")));
    }
}

#[test]
fn the_log_gets_another_level_while_the_server_runs() {
    let levels = Arc::new(Mutex::new(Vec::new()));
    let log = LogControl::new({
        let levels = Arc::clone(&levels);
        move |level| match level {
            "nonsense" => Err("it is no level".to_owned()),
            level => {
                levels.lock().unwrap().push(level.to_owned());
                Ok(())
            }
        }
    });
    let server = Server::start(Setup { log, ..setup() });
    let put = |body: Json| {
        let request =
            Request { method: "PUT", ..Request::post("/admin/log-level", body.to_string()) };
        ask(&server, request)
    };
    assert_eq!(put(json!({ "level": "debug" })).status, 204);
    assert_eq!(*levels.lock().unwrap(), ["debug"]);
    for body in [json!({ "level": "nonsense" }), json!({ "level": 1 }), json!({})] {
        let answer = put(body);
        assert_eq!((answer.status, &answer.error()["param"]), (400, &json!("level")));
    }
    assert_eq!(levels.lock().unwrap().len(), 1);
}
