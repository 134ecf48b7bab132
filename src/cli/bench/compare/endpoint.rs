//! A server that is asked as any client of OpenAI's chat would, and what its stream took.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value as Json, json};

use super::events::{self, Counts};
use super::flags::Named;
use crate::cli::bench::child::unix_s;
use crate::cli::output::{Failure, printable};

/// Nobody waits longer for a stream, whatever becomes of it.
const STREAM_TIMEOUT: Duration = Duration::from_secs(600);
/// For what takes no work.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Of a list of models, or of an error.
const BODY_BYTES_MAX: u64 = 4 << 20;
/// Of a stream, in which some send all that they know of each token.
const STREAM_BYTES_MAX: u64 = 256 << 20;
/// The field by which a server is asked to count.
const COUNTS: &str = "stream_options";
/// Of an error that is shown.
const SAID_CHARS_MAX: usize = 200;

/// Clones share what is known of the server, and the agents that are to be deleted.
#[derive(Clone)]
pub struct Endpoint {
    pub name: String,
    base: String,
    key: Option<String>,
    model: String,
    agent: ureq::Agent,
    /// It takes the field by which it is asked to count; most do, older ones refuse it.
    counts: Arc<AtomicBool>,
    kind: Kind,
}

/// What is asked besides what every server knows.
#[derive(Clone)]
enum Kind {
    /// One of ours: each conversation has an agent, which is deleted in the end.
    Ours(Arc<Agents>),
    Other,
}

/// Agents that there are by now, numbered.
struct Agents {
    /// No run names what another did.
    run: String,
    next: AtomicU64,
}

/// Whose conversation it is, where that makes a difference.
#[derive(Clone)]
pub struct Speaker(Option<String>);

/// What a stream gave.
pub struct Streamed {
    pub asked: Instant,
    pub first: Instant,
    pub last: Instant,
    pub reply: String,
    /// `None` if the server counts nothing.
    pub counts: Option<Counts>,
    /// Events with text: about as many as tokens.
    pub events: u64,
}

impl Endpoint {
    /// Asks it for its models: it is there, and takes the key.
    pub fn reach(named: Named) -> Result<Endpoint, Failure> {
        let Named { name, base, key, model } = named;
        let (agent, counts) = (client(), Arc::new(AtomicBool::new(true)));
        let (model, named_model) = (String::new(), model);
        let mut endpoint = Endpoint { name, base, key, model, agent, counts, kind: Kind::Other };
        let listed = endpoint
            .get("/v1/models")
            .with_context(|| format!("--url {}={}", endpoint.name, endpoint.base))?;
        // Some name none, and need none.
        let first = listed["data"][0]["id"].as_str().unwrap_or("default");
        endpoint.model = named_model.unwrap_or_else(|| first.to_owned());
        // Others have no such path, or a page there.
        let about = endpoint.get("/").unwrap_or_default();
        if about["name"] == env!("CARGO_PKG_NAME") {
            let run = format!("{:x}", (unix_s() * 1e3) as u64);
            endpoint.kind = Kind::Ours(Arc::new(Agents { run, next: AtomicU64::new(0) }));
        }
        Ok(endpoint)
    }

    /// What it is, for the reader of the report.
    pub fn about(&self) -> String {
        format!("{}: {} at {}", self.name, printable(&self.model), self.base)
    }

    /// Somebody who has said nothing yet.
    pub fn speaker(&self) -> Speaker {
        match &self.kind {
            Kind::Ours(agents) => {
                let number = agents.next.fetch_add(1, Ordering::Relaxed);
                Speaker(Some(agents.name(number)))
            }
            Kind::Other => Speaker(None),
        }
    }

    /// Reads the reply to these messages as it comes.
    pub fn stream(
        &self,
        speaker: &Speaker,
        messages: &[Json],
        reply_tokens: usize,
    ) -> anyhow::Result<Streamed> {
        let mut body = json!({
            "model": self.model,
            "messages": messages,
            "max_tokens": reply_tokens,
            "temperature": 0,
            "stream": true,
        });
        if self.counts.load(Ordering::Relaxed) {
            body[COUNTS] = json!({ "include_usage": true });
        }
        let asked = Instant::now();
        let mut answer = self.post(speaker, &body)?;
        if body.get(COUNTS).is_some() && matches!(answer.status().as_u16(), 400 | 422) {
            let refusal = refusal(&mut answer);
            if !refusal.to_string().contains(COUNTS) {
                return Err(refusal);
            }
            self.counts.store(false, Ordering::Relaxed);
            return self.stream(speaker, messages, reply_tokens);
        }
        if !answer.status().is_success() {
            return Err(refusal(&mut answer));
        }
        let reader = answer.body_mut().with_config().limit(STREAM_BYTES_MAX).reader();
        read(asked, BufReader::new(reader))
    }

    /// Deletes those who spoke. A server that is gone has nobody to delete.
    pub fn delete_agents(&self) {
        let Kind::Ours(agents) = &self.kind else { return };
        for number in 0..agents.next.swap(0, Ordering::Relaxed) {
            let url = format!("{}/v1/agents/{}", self.base, agents.name(number));
            let _ = self.with_key(self.agent.delete(url)).call();
        }
    }

    fn post(
        &self,
        speaker: &Speaker,
        body: &Json,
    ) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        let mut request = self.agent.post(format!("{}/v1/chat/completions", self.base));
        if let Speaker(Some(agent)) = speaker {
            request = request.header("X-Agent-ID", agent);
        }
        let request = self.with_key(request).config().timeout_global(Some(STREAM_TIMEOUT)).build();
        Ok(request.send_json(body)?)
    }

    fn get(&self, path: &str) -> anyhow::Result<Json> {
        let mut answer = self.with_key(self.agent.get(format!("{}{path}", self.base))).call()?;
        if !answer.status().is_success() {
            return Err(refusal(&mut answer).context(format!("{path} is refused")));
        }
        let body = answer.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_vec()?;
        serde_json::from_slice(&body).with_context(|| format!("{path} is no JSON"))
    }

    fn with_key<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.key {
            Some(key) => request.header("Authorization", format!("Bearer {key}")),
            None => request,
        }
    }
}

impl Agents {
    fn name(&self, number: u64) -> String {
        format!("bench-{}-{number}", self.run)
    }
}

fn client() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        // The server itself is measured, and no other.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        // What is compressed comes in pieces of another size.
        .accept_encoding("identity")
        // A second request on a connection may wait 40 ms for an acknowledgement (RFC 1122).
        .max_idle_connections(0)
        .build()
        .into()
}

/// What an answer says that is none.
fn refusal(answer: &mut ureq::http::Response<ureq::Body>) -> anyhow::Error {
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_vec();
    let body = body.unwrap_or_default();
    let said = match serde_json::from_slice(&body) {
        Ok(json) => events::said(&json),
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    let shown: String = printable(said.trim()).chars().take(SAID_CHARS_MAX).collect();
    anyhow!("{status}: {shown}")
}

fn read(asked: Instant, mut lines: impl BufRead) -> anyhow::Result<Streamed> {
    let (mut first, mut last) = (None, asked);
    let (mut reply, mut counts, mut events) = (String::new(), None, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.by_ref().take(BODY_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let Some(event) = events::event(&String::from_utf8_lossy(&line)) else { continue };
        if let Some(error) = event.error {
            bail!("the stream broke off: {}", printable(&error));
        }
        if event.is_text {
            last = Instant::now();
            first.get_or_insert(last);
            reply.push_str(&event.text);
            events += 1;
        }
        counts = event.counts.or(counts);
        if event.is_done {
            break;
        }
    }
    let first = first.context("it streamed no text")?;
    Ok(Streamed { asked, first, last, reply, counts, events })
}

impl Streamed {
    /// Of the reply.
    pub fn tokens(&self) -> u64 {
        self.counts.map_or(self.events, |counts| counts.completion_tokens)
    }
}
