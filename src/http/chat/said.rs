//! What one choice of an answer has said so far: text, and calls of tools.

use crate::engine::Finish;
use crate::http::report;
use crate::text::{ReplyPart, TEXTS_JOINED_BY, ToolCall, ToolCallParser};

/// One choice under way.
#[derive(Clone, Debug)]
pub struct Said {
    /// There if calls are looked for.
    parser: Option<ToolCallParser>,
    has_text: bool,
    is_behind_call: bool,
    calls: usize,
}

/// More of it, as OpenAI's format has it: one text, and calls by their number.
#[derive(Debug, PartialEq)]
pub enum More {
    Text(String),
    Call { index: usize, id: String, call: ToolCall },
}

impl Said {
    pub fn new(parser: Option<ToolCallParser>) -> Said {
        Said { parser, has_text: false, is_behind_call: false, calls: 0 }
    }

    /// What comes of more text; nothing while it may become a call.
    pub fn push(&mut self, text: &str) -> Vec<More> {
        let parts = match &mut self.parser {
            Some(parser) => parser.push(text),
            None => vec![ReplyPart::Text(text.to_owned())],
        };
        self.more(parts)
    }

    /// What was held back, when the text ends.
    pub fn finish(&mut self) -> Vec<More> {
        let parts = self.parser.as_mut().map(ToolCallParser::finish);
        self.more(parts.unwrap_or_default())
    }

    pub fn finish_reason(&self, finish: &Finish) -> &'static str {
        match finish {
            Finish::Stop | Finish::StopSequence(_) | Finish::Cancelled if self.calls > 0 => {
                "tool_calls"
            }
            finish => report::finish_reason(finish),
        }
    }

    fn more(&mut self, parts: Vec<ReplyPart>) -> Vec<More> {
        parts.into_iter().map(|part| self.part(part)).collect()
    }

    fn part(&mut self, part: ReplyPart) -> More {
        match part {
            ReplyPart::Text(text) => {
                let is_joined = self.has_text && self.is_behind_call;
                self.is_behind_call = false;
                self.has_text = true;
                More::Text(if is_joined { format!("{TEXTS_JOINED_BY}{text}") } else { text })
            }
            ReplyPart::Call(call) => {
                let index = self.calls;
                self.calls += 1;
                self.is_behind_call = true;
                More::Call { index, id: report::id("call_"), call }
            }
        }
    }
}
