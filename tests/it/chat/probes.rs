//! What probes see while chats run, and how a server is drained.

use super::*;

fn ready(server: &Server) -> (u16, Json) {
    let answer = server.get("/health/ready");
    (answer.status, answer.json())
}

#[test]
fn test_health_live_always_200() {
    let is_alive = |server: &Server| server.get("/health/live").status == 200;
    let mut server =
        Server::start(Setup { model: ModelState::Loading, fake: small_pool(3), ..endless() });
    assert!(is_alive(&server), "while the model loads");
    server.finish_loading();
    assert!(is_alive(&server), "serving");
    let mut client = server.connect();
    client.stream(&hello(json!({ "stream": true })));
    wait_until("the pool is exhausted", || ready(&server).0 == 503);
    assert!(is_alive(&server), "with an exhausted pool");
    server.app.start_shutting_down();
    assert!(is_alive(&server), "shutting down");
    let drained = server.runtime.block_on(server.engine().drain(Duration::from_millis(10)));
    assert!(drained.is_err() && is_alive(&server), "draining");
    server.engine().shutdown();
    assert!(is_alive(&server), "without an engine");
}

#[test]
fn test_health_startup_503_until_model_loaded() {
    let mut server = Server::start(Setup { model: ModelState::Loading, ..Setup::default() });
    let startup = |server: &Server| {
        let answer = server.get("/health/startup");
        (answer.status, answer.json())
    };
    let starting = json!({ "status": "starting", "reason": "model_loading" });
    assert_eq!(startup(&server), (503, starting));
    assert_eq!(ready(&server).1["reason"], "model_loading");
    server.finish_loading();
    assert_eq!(startup(&server), (200, json!({ "status": "started" })));
    assert_eq!(ready(&server), (200, json!({ "status": "ready", "pool_utilization": 0.0 })));
    server.app.start_shutting_down();
    assert_eq!(startup(&server).0, 200);
}

/// Each of these requests holds three blocks: its prompt and 512 tokens ahead.
#[test]
fn test_health_ready_503_when_pool_exhausted() {
    let step = Duration::from_millis(20);
    let server = Server::start(Setup { fake: small_pool(30), step, ..endless() });
    let mut clients: Vec<Client> = Vec::new();
    let mut open = |count: usize| {
        for _ in 0..count {
            let mut client = server.connect();
            client.stream(&hello(json!({ "stream": true })));
            clients.push(client);
        }
    };
    let wait_for = |percent: f64| {
        wait_until("so much is in use", || ready(&server).1["pool_utilization"] == percent);
    };
    open(9);
    wait_for(90.0);
    assert_eq!(ready(&server), (200, json!({ "status": "ready", "pool_utilization": 90.0 })));
    open(1);
    wait_for(100.0);
    let exhausted = json!({
        "status": "not_ready",
        "reason": "pool_near_exhaustion",
        "pool_utilization": 100.0,
    });
    assert_eq!(ready(&server), (503, exhausted));
    clients.pop();
    wait_for(90.0);
    assert_eq!(ready(&server).0, 503, "not before 85 %");
    clients.pop();
    wait_until("it is ready again", || ready(&server).0 == 200);
    clients.clear();
    wait_for(0.0);
}

#[test]
fn test_health_ready_503_when_shutting_down() {
    let server = Server::new();
    assert_eq!(ready(&server).0, 200);
    server.app.start_shutting_down();
    let leaving = json!({
        "status": "not_ready",
        "reason": "shutting_down",
        "pool_utilization": 0.0,
    });
    assert_eq!(ready(&server), (503, leaving.clone()));
    // A lame duck still answers.
    assert_eq!(server.chat(&greedy(json!({}))).status, 200);
    server.runtime.block_on(server.engine().drain(Duration::from_secs(5))).expect("it drains");
    assert_eq!(ready(&server).1["reason"], "shutting_down");
}

#[test]
fn test_drain_prevents_new_requests() {
    let server = Server::start(endless());
    let mut running = server.connect();
    running.stream(&hello(json!({ "stream": true, "max_tokens": 100 })));
    let engine = server.engine().clone();
    let drain = server.runtime.spawn(async move { engine.drain(Duration::from_secs(10)).await });
    wait_until("it drains", || server.engine().status() == engine::Status::Draining);
    let mut refused = server.connect();
    let answer = refused.send(&Request::chat(&hello(json!({}))));
    assert_eq!((answer.status, &answer.error()["code"]), (503, &json!("shutting_down")));
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert!(refused.is_closed());
    assert_eq!(ready(&server).0, 503);
    assert_eq!(server.get("/health").status, 200);
    let events = running.rest();
    assert_eq!(events.last(), Some(&json!("[DONE]")));
    assert_eq!(server.runtime.block_on(drain).expect("no panic"), Ok(1));
}

#[test]
fn test_graceful_shutdown_with_active_requests() {
    const CLIENTS: usize = 50;
    let fake = small_pool(400);
    let mut server = Server::start(Setup { fake, ..endless() });
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = server.connect();
            client.stream(&hello(json!({ "stream": true, "max_tokens": 50 })));
            client
        })
        .collect();
    server.app.start_shutting_down();
    assert_eq!(ready(&server).0, 503);
    let engine = server.engine().clone();
    let shutdown = server.runtime.spawn(async move {
        engine.drain(Duration::from_secs(20)).await.expect("all finish");
        engine.evict_all_to_disk().await.expect("the engine lives")
    });
    let readers: Vec<_> =
        clients.into_iter().map(|mut client| std::thread::spawn(move || client.rest())).collect();
    server.runtime.block_on(shutdown).expect("no panic");
    server.stop();
    for reader in readers {
        let events = reader.join().expect("no panic");
        assert_eq!(events.last(), Some(&json!("[DONE]")));
        assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "length");
    }
    assert!(std::net::TcpStream::connect(server.address).is_err());
}
