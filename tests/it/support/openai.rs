//! A server that speaks OpenAI's chat as sparsely as some do: streams that end with the
//! connection, no counts, fields that it does not know refused.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method and path.
    pub what: String,
    pub head: String,
    pub body: Json,
}

pub struct Sparse {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Sparse {
    /// Replies have so many events with text. Conversations of more messages are too long.
    pub fn new(events: usize, messages_max: usize) -> Sparse {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&asked);
        // Lives as long as the test process; it only waits.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let hears = Arc::clone(&hears);
                std::thread::spawn(move || serve(stream, events, messages_max, &hears));
            }
        });
        Sparse { url, asked }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("the requests").clone()
    }
}

fn serve(stream: TcpStream, events: usize, messages_max: usize, hears: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or_default() == 0 {
            return;
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    reader.read_exact(&mut body).expect("the body");
    let what = head.rsplit_once(" http/1.1").map_or("", |(what, _)| what);
    let what = what.lines().next().unwrap_or_default();
    let what = what.split(" http").next().unwrap_or_default().to_owned();
    let body: Json = serde_json::from_slice(&body).unwrap_or_default();
    let (status, text) = answer(&what, &body, events, messages_max);
    hears.lock().expect("the requests").push(Asked { what, head, body });
    let kind = if text.starts_with("data:") { "text/event-stream" } else { "application/json" };
    let answer =
        format!("HTTP/1.0 {status} X\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n{text}");
    let _ = (&stream).write_all(answer.as_bytes());
}

fn answer(what: &str, body: &Json, events: usize, messages_max: usize) -> (u16, String) {
    let refused = |message: &str| (400, json!({ "error": { "message": message } }).to_string());
    match what {
        "get /v1/models" => {
            (200, json!({ "data": [{ "id": "first" }, { "id": "second" }] }).to_string())
        }
        "post /v1/chat/completions" => {
            if body.get("stream_options").is_some() {
                return refused("stream_options: extra fields not permitted");
            }
            if body["messages"].as_array().is_none_or(|all| all.len() > messages_max) {
                return refused("the conversation is too long");
            }
            let event = json!({ "choices": [{ "delta": { "content": "word " } }] });
            (200, format!("data:{event}\n\n").repeat(events) + "data: [DONE]\n\n")
        }
        _ => (404, "<html>nothing here</html>".to_owned()),
    }
}
