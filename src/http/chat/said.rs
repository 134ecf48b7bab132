//! What one choice of an answer has said so far: thinking, text, and calls of tools.

use crate::engine::Finish;
use crate::http::report;
use crate::text::{ReplyPart, ReplyReader, Spoken, TEXTS_JOINED_BY, ToolCall};

/// One choice under way.
#[derive(Clone, Debug)]
pub struct Said {
    reader: ReplyReader,
    has_text: bool,
    is_behind_call: bool,
    calls: usize,
}

/// More of it, as OpenAI's format and its followers have it: the thinking, one text, and calls by
/// their number.
#[derive(Debug, PartialEq)]
pub enum More {
    Thought(String),
    Text(String),
    Call { index: usize, id: String, call: ToolCall },
}

impl Said {
    pub fn new(reader: ReplyReader) -> Said {
        Said { reader, has_text: false, is_behind_call: false, calls: 0 }
    }

    /// What comes of more text; nothing while it may become a tag or a call.
    pub fn push(&mut self, text: &str) -> Vec<More> {
        let parts = self.reader.push(text);
        self.more(parts)
    }

    /// What was held back, when the text ends.
    pub fn finish(&mut self) -> Vec<More> {
        let parts = self.reader.finish();
        self.more(parts)
    }

    pub fn finish_reason(&self, finish: &Finish) -> &'static str {
        match finish {
            Finish::Stop | Finish::StopSequence(_) | Finish::Cancelled if self.calls > 0 => {
                "tool_calls"
            }
            finish => report::finish_reason(finish),
        }
    }

    fn more(&mut self, parts: Vec<Spoken>) -> Vec<More> {
        parts.into_iter().map(|part| self.part(part)).collect()
    }

    fn part(&mut self, part: Spoken) -> More {
        match part {
            Spoken::Thought(thought) => More::Thought(thought),
            Spoken::Said(ReplyPart::Text(text)) => {
                let is_joined = self.has_text && self.is_behind_call;
                self.is_behind_call = false;
                self.has_text = true;
                More::Text(if is_joined { format!("{TEXTS_JOINED_BY}{text}") } else { text })
            }
            Spoken::Said(ReplyPart::Call(call)) => {
                let index = self.calls;
                self.calls += 1;
                self.is_behind_call = true;
                More::Call { index, id: report::id("call_"), call }
            }
        }
    }
}
