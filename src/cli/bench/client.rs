//! A client of the server under measurement: HTTP/1.1 on one connection, each part of an answer as
//! it comes.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tokio::net::TcpStream;

/// Nobody waits longer for an answer, whatever becomes of it.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
/// What one read takes.
const PART_BYTES: usize = 16 << 10;

pub struct Client {
    socket: TcpStream,
    /// What it shows that it may ask.
    key: Option<&'static str>,
    /// What has come and is not looked at yet.
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
    /// The connection takes no further request.
    pub is_last: bool,
}

impl Answer {
    /// Null if the body is none.
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// When the parts of a stream came.
#[derive(Debug)]
pub struct Streamed {
    /// With the events as its body.
    pub answer: Answer,
    pub asked: Instant,
    /// Of each event that has text of the reply.
    pub texts: Vec<Instant>,
    pub reply: String,
    pub is_done: bool,
    /// What the server counted, if it was asked to.
    pub usage: Json,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> io::Result<Client> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Client { socket, key: None, buffer: Vec::new() })
    }

    pub fn with_key(self, key: &'static str) -> Client {
        Client { key: Some(key), ..self }
    }

    pub async fn get(&mut self, path: &str) -> io::Result<Answer> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.exchange(head.as_bytes(), |_| ()).await
    }

    /// Asks for a whole answer, as this agent.
    pub async fn chat(&mut self, agent: &str, body: &Json) -> io::Result<Answer> {
        self.post(agent, body.to_string().as_bytes()).await
    }

    pub async fn post(&mut self, agent: &str, body: &[u8]) -> io::Result<Answer> {
        let request = self.request(agent, body);
        self.exchange(&request, |_| ()).await
    }

    /// Asks for a stream, as this agent, and reads it to its end. `on_text` hears of each part.
    pub async fn stream(
        &mut self,
        agent: &str,
        body: &Json,
        mut on_text: impl FnMut(),
    ) -> io::Result<Streamed> {
        let mut body = body.clone();
        body["stream"] = true.into();
        body["stream_options"] = serde_json::json!({ "include_usage": true });
        let asked = Instant::now();
        let (mut texts, mut reply) = (Vec::new(), String::new());
        let (mut is_done, mut usage) = (false, Json::Null);
        let request = self.request(agent, body.to_string().as_bytes());
        let reading = self.exchange(&request, |part| {
            for line in String::from_utf8_lossy(part).lines() {
                let Some(data) = line.strip_prefix("data: ") else { continue };
                is_done |= data == "[DONE]";
                let event: Json = serde_json::from_str(data).unwrap_or_default();
                let text = event["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
                if !text.is_empty() {
                    texts.push(Instant::now());
                    reply.push_str(text);
                    on_text();
                }
                if event["usage"].is_object() {
                    usage = event["usage"].clone();
                }
            }
        });
        let answer = reading.await?;
        Ok(Streamed { answer, asked, texts, reply, is_done, usage })
    }

    fn request(&self, agent: &str, body: &[u8]) -> Vec<u8> {
        let key = self.key.map(|key| format!("Authorization: Bearer {key}\r\n"));
        let lines = format!("X-Agent-ID: {agent}\r\n{}", key.unwrap_or_default());
        post(CHAT, &lines, body)
    }

    /// Sends a request and reads its answer, within the time that anybody would wait. `on_part`
    /// sees each chunk of a chunked one: the server sends events in chunks of whole events.
    async fn exchange(&mut self, request: &[u8], on_part: impl FnMut(&[u8])) -> io::Result<Answer> {
        let answered = async {
            self.write(request).await?;
            self.answer(on_part).await
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(ErrorKind::TimedOut.into()),
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.socket.writable().await?;
            match self.socket.try_write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => (),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn answer(&mut self, mut on_part: impl FnMut(&[u8])) -> io::Result<Answer> {
        let status = self.line().await?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(ErrorKind::InvalidData)?;
        let mut answer = Answer { status, retry_after: None, body: Vec::new(), is_last: false };
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().map_err(|_| ErrorKind::InvalidData)?,
                "transfer-encoding" => is_chunked = true,
                "retry-after" => answer.retry_after = value.parse().ok().map(Duration::from_secs),
                "connection" => answer.is_last = value.eq_ignore_ascii_case("close"),
                _ => (),
            }
        }
        if !is_chunked {
            answer.body = self.take(length).await?;
            return Ok(answer);
        }
        loop {
            let length = self.line().await?;
            let length = usize::from_str_radix(&length, 16).map_err(|_| ErrorKind::InvalidData)?;
            let chunk = self.take(length).await?;
            self.take(2).await?;
            if length == 0 {
                return Ok(answer);
            }
            on_part(&chunk);
            answer.body.extend(chunk);
        }
    }

    /// The next line without its end.
    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn fill(&mut self) -> io::Result<()> {
        let mut part = [0; PART_BYTES];
        loop {
            self.socket.readable().await?;
            match self.socket.try_read(&mut part) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    self.buffer.extend_from_slice(&part[..length]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => (),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A connection of its own for the continuation of a text that is nobody's.
pub async fn complete_once(address: SocketAddr, body: &Json) -> io::Result<Answer> {
    let request = post(COMPLETIONS, "", body.to_string().as_bytes());
    Client::connect(address).await?.exchange(&request, |_| ()).await
}

/// A connection of its own for one whole answer.
pub async fn chat_once(address: SocketAddr, agent: &str, body: &Json) -> io::Result<Answer> {
    Client::connect(address).await?.chat(agent, body).await
}

/// From the one to the other.
pub fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}

/// With these lines in the head.
fn post(path: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
