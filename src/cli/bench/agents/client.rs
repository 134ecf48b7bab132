//! A client of any server with OpenAI's chat completions: the whole conversation each time, the
//! answer as a stream, and when its first text came.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value as Json, json};

/// Nobody waits longer for an answer; a prompt of thousands of tokens may take minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// What a server that does not answer may hold up a look whether it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// Of an answer that is no stream.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

pub struct Client {
    address: String,
    agent: ureq::Agent,
}

/// What is asked.
pub struct Asked<'a> {
    pub agent: &'a str,
    pub messages: &'a [Json],
    pub reply_tokens: usize,
    /// What only this server knows, as fields of the body.
    pub further: Json,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    pub text: String,
    /// From the request to the first text.
    pub ttft: Duration,
    pub prompt_tokens: usize,
    /// Of those, what the server had.
    pub cached_tokens: usize,
    pub reply_tokens: usize,
    /// Where our server had it.
    pub source: Option<String>,
}

impl Client {
    pub fn new(port: u16) -> Client {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_TIMEOUT))
            .http_status_as_error(false)
            // A second request on a connection may wait 40 ms for an acknowledgement (RFC 1122).
            .max_idle_connections(0);
        Client { address: format!("http://127.0.0.1:{port}"), agent: config.build().into() }
    }

    pub fn is_ready(&self, path: &str) -> bool {
        let request = self.agent.get(format!("{}{path}", self.address));
        let answer = request.config().timeout_global(Some(READY_TIMEOUT)).build().call();
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Posts to a path of a server's own.
    pub fn post(&self, path: &str, body: &Json) -> anyhow::Result<Json> {
        let mut answer = self.send(path, None, body)?;
        Ok(answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_json()?)
    }

    pub fn delete(&self, path: &str) -> anyhow::Result<()> {
        let answer = self.agent.delete(format!("{}{path}", self.address)).call()?;
        match answer.status().is_success() {
            true => Ok(()),
            false => bail!("{path} answered {}", answer.status()),
        }
    }

    pub fn chat(&self, asked: &Asked<'_>) -> anyhow::Result<Answered> {
        let mut body = json!({
            "messages": asked.messages,
            "max_tokens": asked.reply_tokens,
            "temperature": 0,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        if let (Some(body), Some(further)) = (body.as_object_mut(), asked.further.as_object()) {
            body.extend(further.clone());
        }
        let started = Instant::now();
        let mut answer = self.send("/v1/chat/completions", Some(asked.agent), &body)?;
        let reader = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).reader();
        let mut said = Said::default();
        for line in BufReader::new(reader).lines() {
            said.hear(&line?, started)?;
        }
        said.answered()
    }

    fn send(
        &self,
        path: &str,
        agent: Option<&str>,
        body: &Json,
    ) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        let mut request = self.agent.post(format!("{}{path}", self.address));
        if let Some(agent) = agent {
            request = request.header("X-Agent-ID", agent);
        }
        let mut answer = request.send_json(body).with_context(|| path.to_owned())?;
        if !answer.status().is_success() {
            let said = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
            bail!("{path} answered {}: {}", answer.status(), said.unwrap_or_default());
        }
        Ok(answer)
    }
}

/// What of an answer has come.
#[derive(Default)]
struct Said {
    text: String,
    ttft: Option<Duration>,
    usage: Json,
    source: Option<String>,
    is_done: bool,
}

impl Said {
    fn hear(&mut self, line: &str, started: Instant) -> anyhow::Result<()> {
        let Some(data) = line.strip_prefix("data: ") else { return Ok(()) };
        if data == "[DONE]" {
            // A reply may be of tokens that have no text.
            self.ttft.get_or_insert_with(|| started.elapsed());
            self.is_done = true;
            return Ok(());
        }
        let event: Json = serde_json::from_str(data).with_context(|| data.to_owned())?;
        if !event["error"].is_null() {
            bail!("the answer broke off: {}", event["error"]);
        }
        if let Some(text) = event["choices"][0]["delta"]["content"].as_str()
            && !text.is_empty()
        {
            self.ttft.get_or_insert_with(|| started.elapsed());
            self.text += text;
        }
        if event["usage"].is_object() {
            self.usage = event["usage"].clone();
        }
        if let Some(source) = event["semantic"]["source"].as_str() {
            self.source = Some(source.to_owned());
        }
        Ok(())
    }

    fn answered(self) -> anyhow::Result<Answered> {
        if !self.is_done {
            bail!("the answer broke off after {:?}", self.text);
        }
        let count = |value: &Json| value.as_u64().map(|count| count as usize);
        let ttft = self.ttft.context("the answer has no end")?;
        Ok(Answered {
            text: self.text,
            ttft,
            prompt_tokens: count(&self.usage["prompt_tokens"]).context("no usage was sent")?,
            cached_tokens: count(&self.usage["prompt_tokens_details"]["cached_tokens"])
                .unwrap_or_default(),
            reply_tokens: count(&self.usage["completion_tokens"]).context("no usage was sent")?,
            source: self.source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(lines: &[&str]) -> anyhow::Result<Answered> {
        let mut said = Said::default();
        let started = Instant::now();
        lines.iter().try_for_each(|line| said.hear(line, started))?;
        said.answered()
    }

    #[test]
    fn a_stream_is_put_together() {
        let answered = hear(&[
            r#"data: {"choices":[{"delta":{"role":"assistant","content":null}}]}"#,
            "",
            ": keep-alive",
            r#"data: {"choices":[{"delta":{"content":"He"}}]}"#,
            r#"data: {"choices":[{"delta":{"content":"llo"}}]}"#,
            r#"data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":5}},"semantic":{"source":"warm"}}"#,
            "data: [DONE]",
        ])
        .expect("an answer");
        assert_eq!(answered.text, "Hello");
        assert_eq!(
            [answered.prompt_tokens, answered.cached_tokens, answered.reply_tokens],
            [7, 5, 2]
        );
        assert_eq!(answered.source.as_deref(), Some("warm"));
    }

    #[test]
    fn what_is_no_whole_answer_is_refused() {
        let text = r#"data: {"choices":[{"delta":{"content":"He"}}]}"#;
        for (lines, message) in [
            (&[text][..], "the answer broke off after \"He\""),
            (&[text, r#"data: {"error":"full"}"#], "the answer broke off: \"full\""),
            (&[text, "data: [DONE]"], "no usage was sent"),
            (&["data: {"], "data: {"),
        ] {
            let error = hear(lines).expect_err("it is none").to_string();
            assert!(message.contains(&error), "{error}");
        }
    }
}
