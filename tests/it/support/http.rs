//! The server in this process, over a real socket, with a fake model; and a client that reads what
//! is really sent.

use semantic::engine::{self, Engine, Keeping};
use semantic::http::{
    Access, AdminKey, App, Bounds, Config, Grant, KeyDigest, KeyRates, Keys, KvShape, LogControl,
    Origin, Rates, Serving, bind, serve,
};
use semantic::metrics::Metrics;
use semantic::model::fake::{Fake, FakeConfig, Memory};
use semantic::model::{Batch, Error, Logits, Model, Row, Spec, Wanted};
use semantic::text::{ChatTemplate, Grammars, Special, Tokenizer};
use semantic::types::{BLOCK_TOKENS, BlockId, Namespace, TextSource, TokenId};
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::store::{ShakyDisk, keeping};

/// `<|endoftext|>` and `<|im_end|>` of the fixture tokenizer.
const END_TOKENS: [usize; 2] = [0, 2];
pub const CHAT: &str = "/v1/chat/completions";
/// Far above what any answer here takes on a busy machine; a server that hangs must not hang us.
const WATCHDOG: Duration = Duration::from_secs(30);

/// What a test says about its server.
pub struct Setup {
    pub keys: Option<&'static str>,
    pub admin_key: Option<&'static str>,
    pub cors_origins: Vec<Origin>,
    pub rates: Rates,
    /// Of each key.
    pub key_rates: KeyRates,
    pub bounds: Bounds,
    pub model: ModelState,
    pub engine: engine::Config,
    pub fake: FakeConfig,
    /// What each step of the model takes at least.
    pub step: Duration,
    /// The model never ends its turn.
    pub is_endless: bool,
    /// The model fails from this step on.
    pub fails_at: Option<usize>,
    /// How it fails.
    pub fault: Fault,
    pub template: &'static str,
    /// What the model says, one after another; afterwards it speaks for itself.
    pub replies: Vec<&'static str>,
    /// What agents are kept on; nothing is if there is none.
    pub disk: Option<ShakyDisk>,
    /// The same as a store that is open.
    pub keeping: Option<Keeping>,
    /// What each token of a step takes at least, beside the step.
    pub token: Duration,
    pub log: LogControl,
}

/// What a model does that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Error,
    Panic,
    /// It does not come back until the server goes.
    Hang,
}

/// How far the model is when the server is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Its files are not open; there is no engine.
    Missing,
    /// Until [`Server::finish_loading`].
    Loading,
    Serving,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            keys: None,
            admin_key: None,
            cors_origins: Vec::new(),
            rates: Rates { agent: 0, global: 0, failed_keys: 0, tokens: 0 },
            key_rates: KeyRates::default(),
            bounds: Bounds::default(),
            model: ModelState::Serving,
            engine: engine::Config::default(),
            fake: FakeConfig {
                vocabulary: 902,
                context_tokens: 8192,
                pool_blocks: 64,
                memory: Memory::Tokens,
            },
            step: Duration::ZERO,
            is_endless: false,
            fails_at: None,
            fault: Fault::Error,
            template: include_str!("../../data/text/templates/chatml.jinja"),
            replies: Vec::new(),
            disk: None,
            keeping: None,
            token: Duration::ZERO,
            log: LogControl::default(),
        }
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub app: Arc<App>,
    pub metrics: Arc<Metrics>,
    /// `None` where the model is missing.
    engine: Option<Engine>,
    /// The model waits for its end while it loads.
    load_gate: Option<mpsc::Sender<()>>,
    /// A model that hangs waits for its end.
    hang_gate: Option<mpsc::Sender<()>>,
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
            Some(keys) if setup.key_rates == KeyRates::default() => {
                Access::Keys(Keys::parse(keys).expect("keys"))
            }
            Some(keys) => {
                let grant = |key| Grant {
                    digest: KeyDigest::of(key),
                    namespace: Namespace::new(key),
                    rates: setup.key_rates,
                };
                let grants = keys.split(',').map(grant).collect();
                Access::Keys(Keys::default().with(grants).expect("each is there once"))
            }
            None => Access::Open,
        };
        let metrics = Arc::clone(&setup.engine.metrics);
        let app = App::new(Config {
            access,
            allowed_hosts: ["127.0.0.1", "localhost", "[::1]"].map(String::from).to_vec(),
            admin: setup.admin_key.map(|key| AdminKey::new(key).expect("a key")),
            cors_origins: setup.cors_origins,
            rates: setup.rates,
            bounds: setup.bounds,
            metrics: Arc::clone(&metrics),
            log: setup.log,
        });
        let (load_gate, gate) = mpsc::channel::<()>();
        let (hang_gate, hang) = mpsc::channel::<()>();
        let model = Paced {
            fake: Fake::new(setup.fake),
            step: setup.step,
            token: setup.token,
            is_endless: setup.is_endless,
            steps_left: setup.fails_at,
            script: Script::new(&setup.replies),
            fault: setup.fault,
            hang,
        };
        let load = move || {
            // Sent or dropped, it is the same.
            let _ = gate.recv();
            Ok::<Box<dyn Model>, String>(Box::new(model))
        };
        let keeping = setup.keeping.or(setup.disk.map(|disk| keeping(disk.open())));
        let engine = (setup.model != ModelState::Missing).then(|| {
            let text = text(setup.template);
            let tokenizer = Arc::new(Tokenizer::new(&text).expect("a tokenizer"));
            let engine = Engine::start(setup.engine, Arc::clone(&tokenizer), keeping, load);
            app.start_serving(Serving {
                engine: engine.clone(),
                grammars: Grammars::new(Arc::clone(&tokenizer)),
                tokenizer,
                template: ChatTemplate::new(&text).expect("a template"),
                model: "fake".to_owned(),
                kv: KvShape { heads: 1, head_dim: 64, bits: "8/8".to_owned() },
            });
            engine
        });
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
        let stop = Some(stop);
        let (load_gate, hang_gate) = (Some(load_gate), Some(hang_gate));
        let mut server =
            Server { address, app, metrics, engine, load_gate, hang_gate, runtime, stop, task };
        if setup.model == ModelState::Serving {
            server.finish_loading();
        }
        server
    }

    /// Waits until the model is loaded.
    pub fn finish_loading(&mut self) {
        drop(self.load_gate.take());
        self.engine().wait_started().expect("the fake starts");
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("there is a model")
    }

    /// The ids of a text that no template has seen.
    pub fn encode_raw(&self, prompt: &str) -> Vec<TokenId> {
        let tokenizer = Tokenizer::new(&text("")).expect("a tokenizer");
        tokenizer.encode_raw(prompt).expect("ids")
    }

    /// The ids of a text that a template has made.
    pub fn encode(&self, rendered: &str) -> Vec<TokenId> {
        let tokenizer = Tokenizer::new(&text("")).expect("a tokenizer");
        tokenizer.encode(rendered, Special::Parse).expect("ids")
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

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.load_gate.take());
        drop(self.hang_gate.take());
        if let Some(engine) = &self.engine {
            engine.shutdown();
        }
    }
}

/// A fake that takes its time, and may never end its turn.
struct Paced {
    fake: Fake,
    step: Duration,
    token: Duration,
    is_endless: bool,
    steps_left: Option<usize>,
    script: Script,
    fault: Fault,
    hang: mpsc::Receiver<()>,
}

impl Model for Paced {
    fn spec(&self) -> &Spec {
        self.fake.spec()
    }

    fn path(&self) -> &'static str {
        self.fake.path()
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<Vec<Logits>, Error> {
        let tokens: usize = batch.rows.iter().map(|row| row.tokens.len()).sum();
        std::thread::sleep(self.step + self.token * tokens as u32);
        match &mut self.steps_left {
            Some(0) => match self.fault {
                Fault::Error => {
                    return Err(Error::Batch("the weights at /secret are gone".to_owned()));
                }
                Fault::Panic => panic!("as the test wants"),
                Fault::Hang => drop(self.hang.recv()),
            },
            Some(left) => *left -= 1,
            None => (),
        }
        let mut logits = self.fake.step(batch)?;
        for (row, logits) in batch.rows.iter().zip(&mut logits) {
            if !self.script.replies.is_empty()
                && row.logits == Wanted::Last
                && let Some(token) = self.script.next(read(&mut self.fake, row)?)
            {
                let mut certain = vec![-1e9; self.fake.spec().vocabulary];
                certain[token.0 as usize] = 0.0;
                *logits = Logits::new(certain.len(), certain);
            }
        }
        match self.is_endless {
            true => Ok(logits.iter().map(without_ends).collect()),
            false => Ok(logits),
        }
    }

    fn export(&mut self, block: BlockId, tokens: usize) -> Result<Vec<u8>, Error> {
        self.fake.export(block, tokens)
    }

    fn import(&mut self, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<(), Error> {
        self.fake.import(block, tokens, bytes)
    }
}

/// Replies that are said word for word, whatever the prompt.
struct Script {
    /// Of each reply, with the token that ends a turn.
    replies: Vec<Vec<TokenId>>,
    next: usize,
    /// What was read where a reply goes on, with the reply and how much of it has been said.
    under_way: HashMap<Vec<TokenId>, (usize, usize)>,
}

impl Script {
    /// The texts are spelled as an encoder would not write them, as a model may: three characters
    /// at a time. So they are found again only by who remembers the tokens.
    fn new(replies: &[&str]) -> Script {
        let tokenizer = Tokenizer::new(&text("")).expect("a tokenizer");
        let spell = |reply: &&str| {
            let characters: Vec<char> = reply.chars().collect();
            let parts = characters.chunks(3).map(|part| part.iter().collect::<String>());
            let ids = parts.flat_map(|part| tokenizer.encode(&part, Special::Ignore).expect("ids"));
            ids.chain([TokenId(END_TOKENS[1] as u32)]).collect()
        };
        let replies = replies.iter().map(spell).collect();
        Script { replies, next: 0, under_way: HashMap::new() }
    }

    /// What comes after these tokens, unless all has been said.
    fn next(&mut self, mut read: Vec<TokenId>) -> Option<TokenId> {
        // The engine warms up with these; nobody has asked yet.
        if read.iter().all(|token| *token == TokenId(0)) {
            return None;
        }
        let (reply, said) = self.under_way.get(&read).copied().unwrap_or_else(|| {
            self.next += 1;
            (self.next - 1, 0)
        });
        let token = *self.replies.get(reply)?.get(said)?;
        read.push(token);
        self.under_way.insert(read, (reply, said + 1));
        Some(token)
    }
}

/// All tokens of a sequence, which the fake has as its KV.
fn read(fake: &mut Fake, row: &Row<'_>) -> Result<Vec<TokenId>, Error> {
    let mut tokens = Vec::new();
    for block in row.blocks {
        let count = (row.end() - tokens.len()).min(BLOCK_TOKENS);
        if count == 0 {
            break;
        }
        let bytes = fake.export(*block, count)?;
        let entries = bytes.chunks_exact(8).take(count);
        tokens.extend(
            entries.map(|entry| {
                TokenId(u32::from_le_bytes(entry[4..].try_into().expect("four bytes")))
            }),
        );
    }
    Ok(tokens)
}

/// Below all that the fake makes.
fn without_ends(logits: &Logits) -> Logits {
    let mut values = Vec::new();
    let mut vocabulary = 1;
    for position in 0..logits.positions() {
        let mut row = logits.at(position).to_vec();
        END_TOKENS.iter().for_each(|token| row[*token] = -1e9);
        vocabulary = row.len();
        values.extend(row);
    }
    Logits::new(vocabulary, values)
}

/// The fixture tokenizer with this template.
fn text(template: &str) -> TextSource {
    TextSource::Folder {
        tokenizer_json: include_bytes!("../../data/text/byte_level.tokenizer.json").to_vec(),
        tokenizer_config_json: None,
        chat_template_jinja: Some(template.to_owned()),
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

    pub fn bytes(&self) -> Vec<u8> {
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
    pub socket: BufReader<TcpStream>,
    /// Of the body under way: what is known of its length.
    left: Length,
    /// Of a stream of events, what has come of the next ones.
    events: String,
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
        Client { socket: BufReader::new(stream), left: Length::Bytes(0), events: String::new() }
    }

    pub fn send(&mut self, request: &Request<'_>) -> Answer {
        self.write(&request.bytes());
        self.answer(request.method)
    }

    /// The status of a request that may be refused before it is read.
    pub fn try_get(&mut self, path: &str) -> Option<u16> {
        self.socket.get_mut().write_all(&Request::get(path).bytes()).ok()?;
        let mut line = String::new();
        self.socket.read_line(&mut line).ok()?;
        line.split(' ').nth(1)?.parse().ok()
    }

    /// Sends a request and reads the head of its answer; the rest comes as [`Client::event`].
    pub fn open(&mut self, request: &Request<'_>) -> Answer {
        self.write(&request.bytes());
        self.head()
    }

    /// Sends a request for a stream, which begins.
    pub fn stream(&mut self, body: &Json) {
        let head = self.open(&Request::chat(body));
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).expect("the server reads");
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
            // RFC 9112, 6.3: it has no body, whatever its head says.
            (None, None) if status == 204 => Length::Bytes(0),
            (None, None) => Length::UntilClosed,
        };
        answer
    }

    /// The next event of a stream, or comment; `None` at its end.
    pub fn event(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.events.split_once("\n\n") {
                let event = event.to_owned();
                self.events = rest.to_owned();
                return Some(event);
            }
            let Some(part) = self.part() else {
                assert_eq!(self.events, "", "an event is not whole");
                return None;
            };
            self.events.push_str(&String::from_utf8(part).expect("text"));
        }
    }

    /// The data of the next event.
    pub fn data(&mut self) -> Option<Json> {
        let event = self.event()?;
        let data = event.strip_prefix("data: ").expect("one line of data");
        assert!(!data.contains('\n'), "{data}");
        Some(match data {
            "[DONE]" => Json::from("[DONE]"),
            _ => serde_json::from_str(data).expect("JSON"),
        })
    }

    /// All that is still to come.
    pub fn rest(&mut self) -> Vec<Json> {
        std::iter::from_fn(|| self.data()).collect()
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
                self.socket.read_to_end(&mut all).expect("the rest");
                self.left = Length::Bytes(0);
                return Some(all);
            }
        };
        let mut part = vec![0; length];
        self.socket.read_exact(&mut part).expect("a whole part");
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
        match self.socket.read(&mut [0]) {
            Ok(length) => length == 0,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => panic!("{error}"),
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.socket.read_line(&mut line).expect("a line") {
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

/// Looks again and again, but not for ever: an unoptimised server loads the default model in 5 s, on
/// a busy machine in several times that.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether something is as quick as it should be, which a busy machine may hide a few times.
pub fn is_once_below(limit: Duration, times: impl Iterator<Item = Duration>) {
    let mut seen = Vec::new();
    for time in times.take(10) {
        seen.push(time);
        if time < limit {
            return;
        }
    }
    panic!("never below {limit:?}: {seen:?}");
}
