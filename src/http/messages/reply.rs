//! The wire format of an answer: a message of blocks, whole or as the events that build it.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::engine::{Admitted, Choice, Delta, Finish, Outcome};
use crate::http::error::{Dialect, Error};
use crate::http::report::{self, Semantic};
use crate::http::{sse, turn};
use crate::text::{ReplyPart, ReplyReader, Spoken};

/// One answer under way.
pub struct Reply {
    id: String,
    model: String,
    reader: ReplyReader,
    /// Blocks that have been begun in a stream.
    blocks: usize,
    /// Whether the last of them may go on.
    open: Option<Open>,
    has_called: bool,
}

/// A block whose end is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Thinking,
    Text,
}

/// Clients of Anthropic's send it back, and its SDKs expect it to be there. Nothing is signed here.
const SIGNATURE: &str = "";

impl Reply {
    pub fn new(model: String, reader: ReplyReader) -> Reply {
        let id = report::id("msg_");
        Reply { id, model, reader, blocks: 0, open: None, has_called: false }
    }

    /// The whole answer.
    pub fn message(mut self, outcome: &Outcome) -> Message {
        let choice = only_choice(outcome);
        let mut parts = self.reader.push(&choice.text);
        parts.extend(self.reader.finish());
        let mut content: Vec<Block> = Vec::new();
        for part in parts {
            match (part, content.last_mut()) {
                (Spoken::Thought(more), Some(Block::Thinking { thinking, .. })) => {
                    thinking.push_str(&more);
                }
                (Spoken::Thought(thinking), _) => {
                    content.push(Block::Thinking { thinking, signature: SIGNATURE });
                }
                (Spoken::Said(ReplyPart::Text(more)), Some(Block::Text { text })) => {
                    text.push_str(&more)
                }
                (Spoken::Said(ReplyPart::Text(text)), _) => content.push(Block::Text { text }),
                (Spoken::Said(ReplyPart::Call(call)), _) => {
                    self.has_called = true;
                    let id = call_id();
                    let (name, input) = (call.name, call.arguments);
                    content.push(Block::ToolUse { id, name, input });
                }
            }
        }
        if !content.iter().any(Block::is_answer) {
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

    fn stop(&self, choice: &Choice) -> (&'static str, Option<String>) {
        match &choice.finish {
            Finish::StopSequence(text) => ("stop_sequence", Some(text.clone())),
            Finish::Length => ("max_tokens", None),
            Finish::Stop | Finish::Cancelled if self.has_called => ("tool_use", None),
            // Whoever cancelled is gone.
            Finish::Stop | Finish::Cancelled => ("end_turn", None),
        }
    }

    fn tell(&mut self, parts: Vec<Spoken>) -> String {
        parts.into_iter().map(|part| self.tell_part(part)).collect()
    }

    fn tell_part(&mut self, part: Spoken) -> String {
        match part {
            Spoken::Thought(thought) => {
                let start = self.open(Open::Thinking);
                start + &self.delta(json!({ "type": "thinking_delta", "thinking": thought }))
            }
            Spoken::Said(ReplyPart::Text(text)) => {
                let start = self.open(Open::Text);
                start + &self.delta(json!({ "type": "text_delta", "text": text }))
            }
            Spoken::Said(ReplyPart::Call(call)) => {
                let end = self.end_open();
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

    /// Begins such a block if the last one is none.
    fn open(&mut self, open: Open) -> String {
        if self.open == Some(open) {
            return String::new();
        }
        let end = self.end_open();
        self.open = Some(open);
        let block = match open {
            Open::Thinking => Block::Thinking { thinking: String::new(), signature: SIGNATURE },
            Open::Text => Block::Text { text: String::new() },
        };
        end + &self.start(&block)
    }

    fn end_open(&mut self) -> String {
        match self.open.take() {
            Some(Open::Thinking) => {
                let signature = json!({ "type": "signature_delta", "signature": SIGNATURE });
                self.delta(signature) + &self.stop_block()
            }
            Some(Open::Text) => self.stop_block(),
            None => String::new(),
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
        let parts = self.reader.push(&delta.text);
        self.tell(parts)
    }

    fn finished(&mut self, outcome: &Outcome) -> String {
        let rest = self.reader.finish();
        let mut events = self.tell(rest);
        if self.blocks == 0 || self.open == Some(Open::Thinking) {
            events += &self.open(Open::Text);
        }
        events += &self.end_open();
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
    Thinking { thinking: String, signature: &'static str },
    Text { text: String },
    ToolUse { id: String, name: String, input: Map<String, Value> },
}

impl Block {
    /// There is at least one, as in all that Anthropic's models say.
    fn is_answer(&self) -> bool {
        !matches!(self, Block::Thinking { .. })
    }
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
