//! The wire format of an answer: a response of items, whole or as the events that build it.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::input::{Item, Role};
use super::keep::{Ended, Keep, Keeping, new_id, response_id};
use super::request::{Echo, TextFormat, WireChoice};
use crate::engine::{Admitted, Choice, Delta, Finish, Outcome};
use crate::http::error::{Dialect, Error};
use crate::http::report::{self, Semantic};
use crate::http::{sse, turn};
use crate::text::{ReplyPart, ReplyReader, Spoken, ToolCall};
use crate::types::TranscriptId;

/// One answer under way.
pub struct Reply {
    id: TranscriptId,
    created_at: u64,
    model: String,
    echo: Echo,
    reader: ReplyReader,
    /// Those that are complete.
    output: Vec<OutputItem>,
    /// What may go on.
    open: Option<Open>,
    /// Events that were sent, or would have been.
    events: u64,
    /// Who keeps it, if it is to be kept.
    keep: Option<Keep>,
    kept: Keeping,
    /// The events of the last items, until the end is told.
    last: String,
}

/// An item of the output, of which more may come.
struct Open {
    kind: Kind,
    id: String,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thought,
    Message,
}

impl Reply {
    pub fn new(model: String, echo: Echo, reader: ReplyReader, keep: Option<Keep>) -> Reply {
        Reply {
            id: new_id(),
            created_at: report::unix_seconds(),
            model,
            echo,
            reader,
            output: Vec::new(),
            open: None,
            events: 0,
            keep,
            kept: Keeping::default(),
            last: String::new(),
        }
    }

    /// The whole answer, when it is kept.
    pub async fn whole(mut self, outcome: &Outcome) -> Response {
        self.read(&only_choice(outcome).text);
        if let Some(settling) = turn::Events::settle(&mut self, outcome) {
            settling.await;
        }
        self.ended(outcome)
    }

    fn ended(&self, outcome: &Outcome) -> Response {
        let choice = only_choice(outcome);
        let is_cut = is_cut(choice);
        Response {
            status: if is_cut { "incomplete" } else { "completed" },
            incomplete_details: is_cut.then_some(Incomplete { reason: "max_output_tokens" }),
            output: self.output.clone(),
            store: self.kept.is_kept(),
            usage: Some(Usage::new(&outcome.admitted, choice.completion_tokens)),
            semantic: Some(Semantic::of(outcome)),
            ..self.begun()
        }
    }

    /// Without anything that is only known later.
    fn begun(&self) -> Response {
        let Echo { instructions, max_output_tokens, metadata, .. } = self.echo.clone();
        Response {
            id: response_id(self.id),
            object: "response",
            created_at: self.created_at,
            status: "in_progress",
            background: false,
            error: None,
            incomplete_details: None,
            instructions,
            max_output_tokens,
            metadata,
            model: self.model.clone(),
            output: Vec::new(),
            parallel_tool_calls: self.echo.parallel_tool_calls,
            previous_response_id: self.echo.previous.clone(),
            store: self.keep.is_some(),
            temperature: self.echo.temperature,
            text: Text { format: self.echo.text_format.clone() },
            tool_choice: self.echo.tool_choice.clone(),
            tools: self.echo.tools.clone(),
            top_p: self.echo.top_p,
            truncation: "disabled",
            usage: None,
            semantic: None,
        }
    }

    /// More of the text, as the events of what it adds.
    fn read(&mut self, text: &str) -> String {
        let parts = self.reader.push(text);
        self.add(parts)
    }

    /// What was held back, as it might have become a call or a tag; and the end of the last item.
    fn finish(&mut self, is_cut: bool) -> String {
        let rest = self.reader.finish();
        let mut events = self.add(rest);
        if self.output.is_empty() && self.open.is_none() {
            events += &self.open(Kind::Message);
        }
        let status = if is_cut { "incomplete" } else { "completed" };
        events + &self.close(status)
    }

    fn add(&mut self, parts: Vec<Spoken>) -> String {
        let mut events = String::new();
        for part in parts {
            match part {
                Spoken::Thought(text) => events += &self.add_text(Kind::Thought, &text),
                Spoken::Said(ReplyPart::Text(text)) if text.is_empty() => (),
                Spoken::Said(ReplyPart::Text(text)) => {
                    events += &self.add_text(Kind::Message, &text);
                }
                Spoken::Said(ReplyPart::Call(call)) => events += &self.add_call(call),
            }
        }
        events
    }

    fn add_text(&mut self, kind: Kind, more: &str) -> String {
        let mut events = match &self.open {
            Some(open) if open.kind == kind => String::new(),
            Some(_) => self.close("completed") + &self.open(kind),
            None => self.open(kind),
        };
        let index = self.output.len();
        let Some(Open { id, text, .. }) = &mut self.open else { return events };
        text.push_str(more);
        let mut fields = json!({
            "item_id": id,
            "output_index": index,
            "content_index": 0,
            "delta": more,
        });
        if kind == Kind::Message {
            fields["logprobs"] = json!([]);
        }
        events += &self.event(kind.delta(), fields);
        events
    }

    fn open(&mut self, kind: Kind) -> String {
        let id = report::id(kind.id_prefix());
        let index = self.output.len();
        let item = match kind {
            Kind::Thought => json!({
                "id": id,
                "type": "reasoning",
                "status": "in_progress",
                "summary": [],
                "content": [],
            }),
            Kind::Message => json!({
                "id": id,
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }),
        };
        let added = json!({ "output_index": index, "item": item });
        let part = json!({
            "item_id": id,
            "output_index": index,
            "content_index": 0,
            "part": kind.part(String::new()),
        });
        self.open = Some(Open { kind, id, text: String::new() });
        self.event("response.output_item.added", added)
            + &self.event("response.content_part.added", part)
    }

    fn close(&mut self, status: &'static str) -> String {
        let Some(Open { kind, id, text }) = self.open.take() else { return String::new() };
        let index = self.output.len();
        let at = |name: &str, value: Value| {
            let mut fields = json!({ "item_id": id, "output_index": index, "content_index": 0 });
            fields[name] = value;
            fields
        };
        let mut done = at("text", text.as_str().into());
        if kind == Kind::Message {
            done["logprobs"] = json!([]);
        }
        let mut events = self.event(kind.done(), done);
        let part = kind.part(text.clone());
        events += &self.event("response.content_part.done", at("part", part));
        let item = match kind {
            Kind::Thought => OutputItem::Reasoning {
                id,
                status,
                summary: Vec::new(),
                content: vec![ThoughtPart::of(text)],
            },
            Kind::Message => {
                let content = vec![OutputPart::of(text)];
                OutputItem::Message { id, status, role: "assistant", content }
            }
        };
        events + &self.complete(item)
    }

    fn add_call(&mut self, call: ToolCall) -> String {
        let mut events = self.close("completed");
        let index = self.output.len();
        let (id, call_id) = (report::id("fc_"), report::id("call_"));
        let ToolCall { name, arguments_json: arguments, .. } = call;
        let item = json!({
            "id": id,
            "type": "function_call",
            "status": "in_progress",
            "call_id": call_id,
            "name": name,
            "arguments": "",
        });
        let added = json!({ "output_index": index, "item": item });
        events += &self.event("response.output_item.added", added);
        let delta = json!({ "item_id": id, "output_index": index, "delta": arguments });
        events += &self.event("response.function_call_arguments.delta", delta);
        let done = json!({
            "item_id": id,
            "output_index": index,
            "name": name,
            "arguments": arguments,
        });
        events += &self.event("response.function_call_arguments.done", done);
        let status = "completed";
        events + &self.complete(OutputItem::FunctionCall { id, status, call_id, name, arguments })
    }

    fn complete(&mut self, item: OutputItem) -> String {
        let fields = json!({ "output_index": self.output.len(), "item": item });
        self.output.push(item);
        self.event("response.output_item.done", fields)
    }

    fn of_response(&mut self, name: &str, response: &Response) -> String {
        self.event(name, json!({ "response": response }))
    }

    /// The next event, which has its name as its type, too.
    fn event(&mut self, name: &str, fields: Value) -> String {
        let mut event = json!({ "type": name, "sequence_number": self.events });
        if let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) {
            event.extend(fields);
        }
        self.events += 1;
        sse::named_event(name, &event.to_string())
    }
}

impl Kind {
    fn id_prefix(self) -> &'static str {
        match self {
            Kind::Thought => "rs_",
            Kind::Message => "msg_",
        }
    }

    fn delta(self) -> &'static str {
        match self {
            Kind::Thought => "response.reasoning_text.delta",
            Kind::Message => "response.output_text.delta",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Kind::Thought => "response.reasoning_text.done",
            Kind::Message => "response.output_text.done",
        }
    }

    fn part(self, text: String) -> Value {
        match self {
            Kind::Thought => json!(ThoughtPart::of(text)),
            Kind::Message => json!(OutputPart::of(text)),
        }
    }
}

impl turn::Events for Reply {
    fn admitted(&mut self, _: &Admitted) -> String {
        let begun = self.begun();
        self.of_response("response.created", &begun)
            + &self.of_response("response.in_progress", &begun)
    }

    fn text(&mut self, delta: &Delta) -> String {
        self.read(&delta.text)
    }

    fn settle(&mut self, outcome: &Outcome) -> Option<turn::Settling> {
        self.last = self.finish(is_cut(only_choice(outcome)));
        let keep = self.keep.take()?;
        let ended = Ended {
            id: self.id,
            agent: outcome.admitted.agent.clone(),
            is_durable: outcome.durability.is_durable(),
            said: self.output.iter().map(OutputItem::said).collect(),
            // What is kept says of itself that it is.
            response: json!(Response { store: true, ..self.ended(outcome) }),
        };
        Some(keep.keep(ended, self.kept.clone()))
    }

    fn finished(&mut self, outcome: &Outcome) -> String {
        let ended = self.ended(outcome);
        let name = match is_cut(only_choice(outcome)) {
            true => "response.incomplete",
            false => "response.completed",
        };
        std::mem::take(&mut self.last) + &self.of_response(name, &ended)
    }

    fn failed(&mut self, error: &Error) -> String {
        let told: Value = serde_json::from_str(&error.json(Dialect::OpenAi)).unwrap_or_default();
        let told = &told["error"];
        if self.events == 0 {
            // There is no response yet that could have failed.
            let fields = json!({
                "code": told["code"],
                "message": told["message"],
                "param": told["param"],
                "error": told,
            });
            return self.event("error", fields);
        }
        let text = |name: &str| told[name].as_str().map(str::to_owned);
        let code = text("code").or_else(|| text("type")).unwrap_or_default();
        let error = Some(Failure { code, message: text("message").unwrap_or_default() });
        let output = self.output.clone();
        let begun = self.begun();
        let failed = Response { status: "failed", error, output, store: false, ..begun };
        self.of_response("response.failed", &failed)
    }
}

fn only_choice(outcome: &Outcome) -> &Choice {
    outcome.choices.first().expect("one was asked for")
}

fn is_cut(choice: &Choice) -> bool {
    match choice.finish {
        Finish::Length => true,
        // Whoever cancelled is gone.
        Finish::Stop | Finish::StopSequence(_) | Finish::Cancelled => false,
    }
}

#[derive(JsonSchema, Serialize)]
pub struct Response {
    id: String,
    object: &'static str,
    created_at: u64,
    /// `completed`, or `incomplete` where the tokens were used up.
    status: &'static str,
    background: bool,
    /// Of a stream's last event, if it failed.
    error: Option<Failure>,
    incomplete_details: Option<Incomplete>,
    instructions: Option<String>,
    max_output_tokens: Option<usize>,
    metadata: Map<String, Value>,
    model: String,
    output: Vec<OutputItem>,
    parallel_tool_calls: bool,
    previous_response_id: Option<String>,
    /// Whether it can be gone on from.
    store: bool,
    temperature: f64,
    text: Text,
    #[schemars(with = "WireChoice")]
    tool_choice: Value,
    tools: Vec<Value>,
    top_p: f64,
    truncation: &'static str,
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    semantic: Option<Semantic>,
}

#[derive(JsonSchema, Serialize)]
#[schemars(rename = "ResponseError")]
struct Failure {
    code: String,
    message: String,
}

#[derive(JsonSchema, Serialize)]
#[schemars(rename = "ResponseIncomplete")]
struct Incomplete {
    reason: &'static str,
}

#[derive(JsonSchema, Serialize)]
#[schemars(rename = "ResponseTextOptions")]
struct Text {
    format: TextFormat,
}

#[derive(Clone, JsonSchema, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "ResponseOutputItem")]
enum OutputItem {
    Reasoning {
        id: String,
        status: &'static str,
        /// None is made.
        summary: Vec<Value>,
        content: Vec<ThoughtPart>,
    },
    Message {
        id: String,
        status: &'static str,
        role: &'static str,
        content: Vec<OutputPart>,
    },
    FunctionCall {
        id: String,
        status: &'static str,
        call_id: String,
        name: String,
        arguments: String,
    },
}

#[derive(Clone, JsonSchema, Serialize)]
#[schemars(rename = "ResponseOutputPart")]
struct OutputPart {
    #[serde(rename = "type")]
    kind: &'static str,
    text: String,
    /// None are made.
    annotations: Vec<Value>,
    logprobs: Vec<Value>,
}

#[derive(Clone, JsonSchema, Serialize)]
#[schemars(rename = "ResponseReasoningPart")]
struct ThoughtPart {
    #[serde(rename = "type")]
    kind: &'static str,
    text: String,
}

#[derive(JsonSchema, Serialize)]
#[schemars(rename = "ResponseUsage")]
struct Usage {
    input_tokens: usize,
    input_tokens_details: InputDetails,
    output_tokens: usize,
    output_tokens_details: OutputDetails,
    total_tokens: usize,
}

#[derive(JsonSchema, Serialize)]
#[schemars(rename = "ResponseInputTokens")]
struct InputDetails {
    cached_tokens: usize,
}

#[derive(JsonSchema, Serialize)]
#[schemars(rename = "ResponseOutputTokens")]
struct OutputDetails {
    /// They are not told from others.
    reasoning_tokens: usize,
}

impl OutputItem {
    /// The same as an item of the conversation.
    fn said(&self) -> Item {
        match self {
            OutputItem::Reasoning { content, .. } => {
                Item::Thought { text: content.iter().map(|part| part.text.as_str()).collect() }
            }
            OutputItem::Message { content, .. } => Item::Message {
                role: Role::Assistant,
                text: content.iter().map(|part| part.text.as_str()).collect(),
            },
            OutputItem::FunctionCall { call_id, name, arguments, .. } => Item::Call {
                call_id: call_id.clone(),
                name: name.clone(),
                arguments: arguments.clone(),
            },
        }
    }
}

impl ThoughtPart {
    fn of(text: String) -> ThoughtPart {
        ThoughtPart { kind: "reasoning_text", text }
    }
}

impl OutputPart {
    fn of(text: String) -> OutputPart {
        OutputPart { kind: "output_text", text, annotations: Vec::new(), logprobs: Vec::new() }
    }
}

impl Usage {
    fn new(admitted: &Admitted, output_tokens: usize) -> Usage {
        Usage {
            input_tokens: admitted.prompt_tokens,
            input_tokens_details: InputDetails { cached_tokens: admitted.cached_tokens },
            output_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: 0 },
            total_tokens: admitted.prompt_tokens + output_tokens,
        }
    }
}
