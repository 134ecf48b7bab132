//! The wire format of an answer: a message of blocks, whole or as the events that build it.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::engine::{Admitted, Choice, Delta, Finish, Outcome};
use crate::http::error::{Dialect, Error};
use crate::http::report::{self, Semantic};
use crate::http::{sse, turn};
use crate::text::{ReplyPart, ToolCallParser};

/// One answer under way.
pub struct Reply {
    id: String,
    model: String,
    /// There if calls of tools are looked for.
    parser: Option<ToolCallParser>,
    /// Blocks that have been begun in a stream.
    blocks: usize,
    /// Whether the last of them is a text that may go on.
    is_in_text: bool,
    has_called: bool,
}

impl Reply {
    pub fn new(model: String, parser: Option<ToolCallParser>) -> Reply {
        let id = report::id("msg_");
        Reply { id, model, parser, blocks: 0, is_in_text: false, has_called: false }
    }

    /// The whole answer.
    pub fn message(mut self, outcome: &Outcome) -> Message {
        let choice = only_choice(outcome);
        let mut parts = self.read(&choice.text);
        parts.extend(self.rest());
        let mut content: Vec<Block> = Vec::new();
        for part in parts {
            match (part, content.last_mut()) {
                (ReplyPart::Text(more), Some(Block::Text { text })) => text.push_str(&more),
                (ReplyPart::Text(text), _) => content.push(Block::Text { text }),
                (ReplyPart::Call(call), _) => {
                    self.has_called = true;
                    let id = call_id();
                    let (name, input) = (call.name, call.arguments);
                    content.push(Block::ToolUse { id, name, input });
                }
            }
        }
        if content.is_empty() {
            content.push(Block::Text { text: String::new() });
        }
        let (stop_reason, stop_sequence) = self.stop(choice);
        Message {
            id: self.id,
            kind: "message",
            role: "assistant",
            model: self.model,
            content,
            stop_reason: Some(stop_reason),
            stop_sequence,
            usage: Usage::new(&outcome.admitted, choice.completion_tokens),
            semantic: Some(Semantic::of(outcome)),
        }
    }

    /// The parts of more text, without empty ones.
    fn read(&mut self, text: &str) -> Vec<ReplyPart> {
        let parts = match &mut self.parser {
            Some(parser) => parser.push(text),
            None => vec![ReplyPart::Text(text.to_owned())],
        };
        said(parts)
    }

    /// What was held back, as it might have become a call.
    fn rest(&mut self) -> Vec<ReplyPart> {
        said(self.parser.as_mut().map(ToolCallParser::finish).unwrap_or_default())
    }

    fn stop(&self, choice: &Choice) -> (&'static str, Option<String>) {
        match &choice.finish {
            Finish::StopSequence(text) => ("stop_sequence", Some(text.clone())),
            Finish::Length => ("max_tokens", None),
            Finish::Stop | Finish::Cancelled if self.has_called => ("tool_use", None),
            // Whoever cancelled is gone.
            Finish::Stop | Finish::Cancelled => ("end_turn", None),
        }
    }

    fn tell(&mut self, parts: Vec<ReplyPart>) -> String {
        parts.into_iter().map(|part| self.tell_part(part)).collect()
    }

    fn tell_part(&mut self, part: ReplyPart) -> String {
        match part {
            ReplyPart::Text(text) => {
                let start = match self.is_in_text {
                    true => String::new(),
                    false => self.start(&Block::Text { text: String::new() }),
                };
                self.is_in_text = true;
                start + &self.delta(json!({ "type": "text_delta", "text": text }))
            }
            ReplyPart::Call(call) => {
                let end = self.end_text();
                self.has_called = true;
                let (id, input) = (call_id(), Map::new());
                let start = self.start(&Block::ToolUse { id, name: call.name, input });
                let json = json!({
                    "type": "input_json_delta",
                    "partial_json": call.arguments_json,
                });
                end + &start + &self.delta(json) + &self.stop_block()
            }
        }
    }

    fn start(&mut self, block: &Block) -> String {
        let index = self.blocks;
        self.blocks += 1;
        event(
            "content_block_start",
            &json!({ "type": "content_block_start", "index": index, "content_block": block }),
        )
    }

    /// Of the block that was begun last.
    fn delta(&self, delta: Value) -> String {
        let index = self.blocks.saturating_sub(1);
        event(
            "content_block_delta",
            &json!({ "type": "content_block_delta", "index": index, "delta": delta }),
        )
    }

    fn stop_block(&self) -> String {
        let index = self.blocks.saturating_sub(1);
        event("content_block_stop", &json!({ "type": "content_block_stop", "index": index }))
    }

    fn end_text(&mut self) -> String {
        match std::mem::take(&mut self.is_in_text) {
            true => self.stop_block(),
            false => String::new(),
        }
    }
}

impl turn::Events for Reply {
    const KEEP_ALIVE: &'static str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

    fn admitted(&mut self, admitted: &Admitted) -> String {
        let message = Message {
            id: self.id.clone(),
            kind: "message",
            role: "assistant",
            model: self.model.clone(),
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: Usage::new(admitted, 0),
            semantic: None,
        };
        let start = json!({ "type": "message_start", "message": message });
        event("message_start", &start) + Self::KEEP_ALIVE
    }

    fn text(&mut self, delta: &Delta) -> String {
        let parts = self.read(&delta.text);
        self.tell(parts)
    }

    fn finished(&mut self, outcome: &Outcome) -> String {
        let rest = self.rest();
        let mut events = self.tell(rest);
        if self.blocks == 0 {
            events += &self.start(&Block::Text { text: String::new() });
            self.is_in_text = true;
        }
        events += &self.end_text();
        let choice = only_choice(outcome);
        let (stop_reason, stop_sequence) = self.stop(choice);
        let delta = json!({
            "type": "message_delta",
            "delta": { "stop_reason": stop_reason, "stop_sequence": stop_sequence },
            "usage": Usage::new(&outcome.admitted, choice.completion_tokens),
            "semantic": Semantic::of(outcome),
        });
        events += &event("message_delta", &delta);
        events + &event("message_stop", &json!({ "type": "message_stop" }))
    }

    fn failed(&mut self, error: &Error) -> String {
        sse::named_event("error", &error.json(Dialect::Anthropic))
    }
}

fn only_choice(outcome: &Outcome) -> &Choice {
    outcome.choices.first().expect("one was asked for")
}

fn said(mut parts: Vec<ReplyPart>) -> Vec<ReplyPart> {
    parts.retain(|part| !matches!(part, ReplyPart::Text(text) if text.is_empty()));
    parts
}

fn call_id() -> String {
    report::id("toolu_")
}

fn event(name: &str, json: &Value) -> String {
    sse::named_event(name, &json.to_string())
}

#[derive(JsonSchema, Serialize)]
pub struct Message {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: String,
    content: Vec<Block>,
    stop_reason: Option<&'static str>,
    stop_sequence: Option<String>,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    semantic: Option<Semantic>,
}

#[derive(JsonSchema, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "MessageBlock")]
enum Block {
    Text { text: String },
    ToolUse { id: String, name: String, input: Map<String, Value> },
}

/// Every token of the prompt is counted once: computed, or read from what was kept.
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "MessageUsage")]
struct Usage {
    input_tokens: usize,
    /// What is kept of a turn costs nothing that is not in the other numbers.
    cache_creation_input_tokens: usize,
    cache_read_input_tokens: usize,
    output_tokens: usize,
}

impl Usage {
    fn new(admitted: &Admitted, output_tokens: usize) -> Usage {
        Usage {
            input_tokens: admitted.prompt_tokens - admitted.cached_tokens,
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: admitted.cached_tokens,
            output_tokens,
        }
    }
}
