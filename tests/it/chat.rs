//! Chats with a served model: whole and streamed, what they report, how they end.

mod answers;
mod crowds;
mod ends;
mod probes;

use crate::support::http::{CHAT, Client, ModelState, Request, Server, Setup, hello, wait_until};
use semantic::engine;
use semantic::http::Bounds;
use semantic::model::fake::{FakeConfig, Memory};
use serde_json::{Value as Json, json};
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// A model that takes its time and never ends by itself.
fn endless() -> Setup {
    Setup { is_endless: true, step: Duration::from_millis(2), ..Setup::default() }
}

fn small_pool(pool_blocks: usize) -> FakeConfig {
    let memory = Memory::Tokens;
    FakeConfig { vocabulary: 902, context_tokens: 8192, pool_blocks, memory }
}

/// What temperature 0 makes of it, so that it is always the same.
fn greedy(fields: Json) -> Json {
    let mut body = hello(json!({ "temperature": 0, "max_tokens": 20 }));
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

fn answered(server: &Server, body: &Json) -> Json {
    let answer = server.chat(body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn content(completion: &Json) -> &str {
    completion["choices"][0]["message"]["content"].as_str().expect("a text")
}

/// The chunks of a stream that ends as it should, without `[DONE]`.
fn chunks(server: &Server, body: &Json) -> Vec<Json> {
    let mut client = server.connect();
    let mut body = body.clone();
    body["stream"] = json!(true);
    client.stream(&body);
    let mut chunks = client.rest();
    assert_eq!(chunks.pop(), Some(json!("[DONE]")));
    chunks
}

/// The text of one choice.
fn streamed_text(chunks: &[Json], choice: usize) -> String {
    let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().expect("a list"));
    choices
        .filter(|part| part["index"] == choice)
        .filter_map(|part| part["delta"]["content"].as_str())
        .collect()
}

/// Nothing runs, waits or is held that could not be had at once.
fn is_idle(server: &Server) -> bool {
    let stats = server.engine().stats();
    stats.running + stats.waiting + stats.parked == 0 && stats.blocks_used == stats.blocks_evictable
}

/// All that the server sends until it closes.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let socket = TcpStream::connect(address).await.expect("the server listens");
    socket.writable().await.expect("the server reads");
    assert_eq!(socket.try_write(request).expect("a small request"), request.len());
    let (mut answer, mut part) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        socket.readable().await.expect("the server answers");
        match socket.try_read(&mut part) {
            Ok(0) => return String::from_utf8(answer).expect("text"),
            Ok(length) => answer.extend_from_slice(&part[..length]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
}
