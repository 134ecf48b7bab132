//! The server in this process, over a real socket, with a fake model; and a client that reads what
//! is really sent.

use semantic::engine::Engine;
use semantic::http::{Access, App, Bounds, Config, Keys, Rates, Serving, bind, serve};
use semantic::text::{ChatTemplate, Tokenizer};
use semantic::types::TextSource;
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const CHAT: &str = "/v1/chat/completions";
/// Far above what any answer here takes on a busy machine; a server that hangs must not hang us.
const WATCHDOG: Duration = Duration::from_secs(30);

/// What a test says about its server.
pub struct Setup {
    pub keys: Option<&'static str>,
    pub rates: Rates,
    pub bounds: Bounds,
    /// Whether the model's files are open; if not, there is no engine either.
    pub is_open: bool,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            keys: None,
            rates: Rates { agent: 0, global: 0 },
            bounds: Bounds::default(),
            is_open: true,
        }
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub app: Arc<App>,
    pub engine: Engine,
    pub runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Server {
    pub fn new() -> Server {
        Server::start(Setup::default())
    }

    pub fn start(setup: Setup) -> Server {
        let access = match setup.keys {
            Some(keys) => Access::Keys(Keys::parse(keys).expect("keys")),
            None => Access::Open,
        };
        let app = App::new(Config {
            access,
            allowed_hosts: ["127.0.0.1", "localhost", "[::1]"].map(String::from).to_vec(),
            rates: setup.rates,
            bounds: setup.bounds,
        });
        let text = text();
        let engine = Engine {};
        if setup.is_open {
            app.start_serving(Serving {
                engine: engine.clone(),
                tokenizer: Arc::new(Tokenizer::new(&text).expect("a tokenizer")),
                template: ChatTemplate::new(&text).expect("a template"),
                model: "fake".to_owned(),
            });
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let _inside = runtime.enter();
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let task = Some(runtime.spawn(serve(listener, Arc::clone(&app), stopped)));
        drop(_inside);
        Server { address, app, engine, runtime, stop: Some(stop), task }
    }

    pub fn connect(&self) -> Client {
        Client::new(self.address)
    }

    /// One request on a connection of its own.
    pub fn send(&self, request: &Request<'_>) -> Answer {
        self.connect().send(request)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send(&Request::get(path))
    }

    pub fn chat(&self, body: &Json) -> Answer {
        self.send(&Request::chat(body))
    }

    /// Stops accepting and waits until the server has returned.
    pub fn stop(&mut self) -> Duration {
        let started = Instant::now();
        drop(self.stop.take());
        let task = self.task.take().expect("it is stopped once");
        self.runtime.block_on(task).expect("the server does not panic");
        started.elapsed()
    }
}

/// The fixture tokenizer with a ChatML template.
pub fn text() -> TextSource {
    TextSource::Folder {
        tokenizer_json: include_bytes!("../../data/text/byte_level.tokenizer.json").to_vec(),
        tokenizer_config_json: None,
        chat_template_jinja: Some(
            include_str!("../../data/text/templates/chatml.jinja").to_owned(),
        ),
        end_tokens: Vec::new(),
    }
}

/// The smallest valid body, with further or other fields.
pub fn hello(fields: Json) -> Json {
    let mut body = json!({ "messages": [{ "role": "user", "content": "Hello" }] });
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

#[derive(Clone)]
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// Written as they are; those that a request needs are added if they are not here.
    pub headers: Vec<(&'a str, String)>,
    pub body: Vec<u8>,
}

impl<'a> Request<'a> {
    pub fn new(method: &'a str, path: &'a str) -> Request<'a> {
        Request { method, path, headers: Vec::new(), body: Vec::new() }
    }

    pub fn get(path: &'a str) -> Request<'a> {
        Request::new("GET", path)
    }

    pub fn post(path: &'a str, body: impl Into<Vec<u8>>) -> Request<'a> {
        Request { body: body.into(), ..Request::new("POST", path) }
            .header("Content-Type", "application/json")
    }

    pub fn chat(body: &Json) -> Request<'a> {
        Request::post(CHAT, body.to_string())
    }

    /// Adds a header, or changes it.
    pub fn header(mut self, name: &'a str, value: impl Into<String>) -> Request<'a> {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name, value.into()));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let Request { method, path, headers, body } = self;
        let has = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        if !has("Host") {
            text.push_str("Host: localhost\r\n");
        }
        if !has("Content-Length") && !has("Transfer-Encoding") && !body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        [text.as_bytes(), b"\r\n", body].concat()
    }
}

/// One connection.
pub struct Client {
    pub stream: BufReader<TcpStream>,
    /// Of the body under way: what is known of its length.
    left: Length,
}

#[derive(Clone, Copy)]
enum Length {
    Bytes(usize),
    Chunked,
    UntilClosed,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Client {
    pub fn new(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a timeout");
        stream.set_nodelay(true).expect("an option");
        Client { stream: BufReader::new(stream), left: Length::Bytes(0) }
    }

    pub fn send(&mut self, request: &Request<'_>) -> Answer {
        self.write(&request.bytes());
        self.answer(request.method)
    }

    /// The status of a request that may be refused before it is read.
    pub fn try_get(&mut self, path: &str) -> Option<u16> {
        self.stream.get_mut().write_all(&Request::get(path).bytes()).ok()?;
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        line.split(' ').nth(1)?.parse().ok()
    }

    /// Sends a request and reads the head of its answer; the rest comes as [`Client::event`].
    pub fn open(&mut self, request: &Request<'_>) -> Answer {
        self.write(&request.bytes());
        self.head()
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("the server reads");
    }

    pub fn answer(&mut self, method: &str) -> Answer {
        let mut answer = self.head();
        if method != "HEAD" {
            while let Some(part) = self.part() {
                answer.body.push_str(&String::from_utf8(part).expect("text"));
            }
        }
        answer
    }

    pub fn head(&mut self) -> Answer {
        let status = self.line().expect("an answer");
        let status = status.strip_prefix("HTTP/1.1 ").expect("HTTP/1.1");
        let status = status[..3].parse().expect("a status");
        let mut headers = Vec::new();
        loop {
            let line = self.line().expect("a head");
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let answer = Answer { status, headers, body: String::new() };
        self.left = match (answer.header("transfer-encoding"), answer.header("content-length")) {
            (Some(_), _) => Length::Chunked,
            (None, Some(length)) => Length::Bytes(length.parse().expect("a number")),
            (None, None) => Length::UntilClosed,
        };
        answer
    }

    /// The next event of a stream, without `data: `; `None` at its end.
    pub fn event(&mut self) -> Option<String> {
        let text = String::from_utf8(self.part()?).expect("text");
        Some(text)
    }

    /// The next part of a body as it was sent; `None` at its end.
    pub fn part(&mut self) -> Option<Vec<u8>> {
        let (length, is_chunk) = match self.left {
            Length::Bytes(0) => return None,
            Length::Bytes(length) => (length, false),
            Length::Chunked => {
                let length = self.line().expect("a chunk's length");
                (usize::from_str_radix(&length, 16).expect("a length"), true)
            }
            Length::UntilClosed => {
                let mut all = Vec::new();
                self.stream.read_to_end(&mut all).expect("the rest");
                self.left = Length::Bytes(0);
                return Some(all);
            }
        };
        let mut part = vec![0; length];
        self.stream.read_exact(&mut part).expect("a whole part");
        if is_chunk {
            assert_eq!(self.line().as_deref(), Some(""));
        }
        if !is_chunk || length == 0 {
            self.left = Length::Bytes(0);
        }
        (length > 0).then_some(part)
    }

    /// Whether the server closes the connection, having sent nothing more.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(length) => length == 0,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => panic!("{error}"),
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).expect("a line") {
            0 => None,
            _ => Some(line.trim_end_matches("\r\n").to_owned()),
        }
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error, whose shape is checked.
    pub fn error(&self) -> Json {
        let json = self.json();
        let keys = |json: &Json| json.as_object().expect("an object").keys().cloned().collect();
        let outer: Vec<String> = keys(&json);
        assert_eq!(outer, ["error"], "{self:?}");
        let inner: Vec<String> = keys(&json["error"]);
        assert_eq!(inner, ["message", "type", "param", "code"], "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        json["error"].clone()
    }
}
