//! Whether a reply's thinking is told apart, as a request asks for it.

use super::Serving;
use super::error::Error;
use super::fields::wrong;
use super::held::Format;
use crate::text::{Reasoning, ReplyReader, Splitter, ToolCallParser};

/// How the thinking of a model that thinks is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasoningFormat {
    /// In a place of its own.
    Apart,
    /// Within the text, as the model wrote it.
    Inline,
}

impl ReasoningFormat {
    /// From `reasoning_format`, in llama.cpp's words.
    pub fn read(given: Option<&str>) -> Result<ReasoningFormat, Error> {
        match given {
            None | Some("auto" | "deepseek") => Ok(ReasoningFormat::Apart),
            Some("none") => Ok(ReasoningFormat::Inline),
            Some(given) => {
                Err(wrong("reasoning_format", given, "\"auto\", \"deepseek\" or \"none\""))
            }
        }
    }

    /// One that is held to a format is that from its first token on, wherever the template begins.
    pub fn of_a_reply(self, held_to: Option<&Format>) -> ReasoningFormat {
        match held_to {
            Some(format) if !format.leaves_text() => ReasoningFormat::Inline,
            Some(_) | None => self,
        }
    }

    /// What takes a reply of this model apart.
    pub fn reader(self, serving: &Serving, calls: Option<ToolCallParser>) -> ReplyReader {
        let reasoning = match self {
            ReasoningFormat::Apart => Reasoning::of(&serving.template, &serving.tokenizer),
            ReasoningFormat::Inline => None,
        };
        ReplyReader::new(reasoning.map(Splitter::new), calls)
    }
}
