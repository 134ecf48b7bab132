//! The thinking that a model writes before its answer, told from the answer.
//!
//! Such a model begins with `<think>`, thinks, ends with `</think>` and answers; or its template has
//! written the first tag already. Only at the beginning is it thinking: a tag further on is text.

use std::mem;

use super::template::{ChatTemplate, Message};
use super::tokenizer::Tokenizer;
use super::tools::{ReplyPart, ToolCallParser};

pub(super) const THINK: &str = "<think>";
pub(super) const THINK_END: &str = "</think>";
const REASONING: &str = "reasoning_content";

/// How the replies of a model that thinks begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reasoning {
    /// With the tag, if it thinks this time.
    Tagged,
    /// Inside: the template ends its prompt with the tag.
    Opened,
}

impl Reasoning {
    /// `None` if neither its template nor its vocabulary knows of thinking.
    pub fn of(template: &ChatTemplate, tokenizer: &Tokenizer) -> Option<Reasoning> {
        let has_tags = || [THINK, THINK_END].iter().all(|tag| tokenizer.added_token(tag).is_some());
        match template.opening().is_empty() {
            false => Some(Reasoning::Opened),
            true => (template.closes_thinking() || has_tags()).then_some(Reasoning::Tagged),
        }
    }
}

/// A reply with its thinking told from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split<'a> {
    /// Without outer white space.
    pub thought: Option<&'a str>,
    /// Without white space before it, if there is thinking.
    pub answer: &'a str,
}

/// Where the end tag never comes it is all thinking.
pub(super) fn split(text: &str, reasoning: Reasoning) -> Split<'_> {
    let inside = match (text.trim_start().strip_prefix(THINK), reasoning) {
        (Some(inside), _) => inside,
        (None, Reasoning::Opened) => text,
        (None, Reasoning::Tagged) => return Split { thought: None, answer: text },
    };
    let (thought, answer) = inside.split_once(THINK_END).unwrap_or((inside, ""));
    Split { thought: Some(thought.trim()), answer: answer.trim_start() }
}

/// A turn that a client sends back: with the thinking in a field, in the text, or nowhere.
pub(super) fn sent(message: &Message, reasoning: Reasoning) -> Split<'_> {
    let content = message.content.as_deref().unwrap_or_default();
    if let Some(thought) = sent_thought(message) {
        return Split { thought: Some(thought), answer: content };
    }
    let is_inline = match reasoning {
        Reasoning::Tagged => content.trim_start().starts_with(THINK),
        Reasoning::Opened => has_tag(content),
    };
    match is_inline {
        true => split(content, reasoning),
        false => Split { thought: None, answer: content },
    }
}

/// What a reply is looked up by, before calls are looked for in it: the answer; if there is none,
/// the thinking. It is the same for all models, and taken from what a client sends as from what was
/// generated; whether a reply that is found is the one is asked later.
pub(super) fn without_thinking(text: &str) -> &str {
    let Split { thought, answer } = split(text, Reasoning::Opened);
    match (answer.trim(), thought) {
        ("", Some(thought)) if !thought.is_empty() => thought,
        ("", _) => text.trim(),
        (answer, _) => answer,
    }
}

/// The same of the text that a client sends beside calls, which may have been thinking alone.
pub(super) fn beside_calls(content: &str) -> &str {
    match content.contains(THINK_END) {
        true => split(content, Reasoning::Opened).answer,
        false => without_thinking(content),
    }
}

/// The thinking that a client sends in a field of its own.
pub(super) fn sent_thought(message: &Message) -> Option<&str> {
    let field = message.extra.get(REASONING).and_then(|field| field.as_str());
    field.map(str::trim).filter(|thought| !thought.is_empty())
}

/// The same turn without it.
pub(super) fn without_field(mut message: Message) -> Message {
    message.extra.shift_remove(REASONING);
    message
}

fn has_tag(text: &str) -> bool {
    text.trim_start().starts_with(THINK) || text.contains(THINK_END)
}

impl Message {
    /// What the assistant thought before it said this. Templates that know of thinking read it.
    pub fn with_thinking(mut self, thought: String) -> Message {
        self.extra.insert(REASONING.to_owned(), thought.into());
        self
    }
}

/// A part of a reply, in their order: all thinking comes first.
#[derive(Clone, Debug, PartialEq)]
pub enum Spoken {
    Thought(String),
    Said(ReplyPart),
}

/// Takes a reply apart while it comes: thinking, text, and calls of tools. No part is empty.
#[derive(Clone, Debug)]
pub struct ReplyReader {
    /// There if thinking is looked for.
    splitter: Option<Splitter>,
    /// There if calls are looked for, which they are behind the thinking only.
    calls: Option<ToolCallParser>,
}

impl ReplyReader {
    pub fn new(splitter: Option<Splitter>, calls: Option<ToolCallParser>) -> ReplyReader {
        ReplyReader { splitter, calls }
    }

    /// What comes of more text; nothing while it may become a tag or a call.
    pub fn push(&mut self, text: &str) -> Vec<Spoken> {
        let pieces = match &mut self.splitter {
            Some(splitter) => splitter.push(text),
            None => Pieces { thought: String::new(), answer: text.to_owned() },
        };
        self.read(pieces)
    }

    /// What was held back, when the text ends.
    pub fn finish(&mut self) -> Vec<Spoken> {
        let pieces = self.splitter.as_mut().map(Splitter::finish).unwrap_or_default();
        let mut parts = self.read(pieces);
        let rest = self.calls.as_mut().map(ToolCallParser::finish).unwrap_or_default();
        parts.extend(rest.into_iter().map(Spoken::Said));
        parts
    }

    fn read(&mut self, Pieces { thought, answer }: Pieces) -> Vec<Spoken> {
        let mut parts = Vec::new();
        if !thought.is_empty() {
            parts.push(Spoken::Thought(thought));
        }
        if !answer.is_empty() {
            let said = match &mut self.calls {
                Some(parser) => parser.push(&answer),
                None => vec![ReplyPart::Text(answer)],
            };
            parts.extend(said.into_iter().map(Spoken::Said));
        }
        parts
    }
}

/// Tells thinking from the answer in a text that arrives in parts, as [`split`] does for a whole
/// one. Each character is looked at once or, as part of what may be a tag, a few times.
#[derive(Clone, Debug)]
pub struct Splitter {
    reasoning: Reasoning,
    place: Place,
    /// White space that counts only if more comes.
    white: String,
    /// What may become a tag.
    tag: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Beginning,
    /// Within the tags, with or without anything thought.
    Thinking {
        has_begun: bool,
    },
    /// The tag has come, and perhaps white space.
    Behind,
    Answer,
}

/// What a text came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    pub thought: String,
    pub answer: String,
}

impl Splitter {
    pub fn new(reasoning: Reasoning) -> Splitter {
        let place = Place::Beginning;
        Splitter { reasoning, place, white: String::new(), tag: String::new() }
    }

    pub fn push(&mut self, text: &str) -> Pieces {
        let mut pieces = Pieces::default();
        if self.place == Place::Beginning {
            self.begin(text, &mut pieces);
        } else {
            self.go_on(text, &mut pieces);
        }
        pieces
    }

    /// What was held back, when the text ends.
    pub fn finish(&mut self) -> Pieces {
        let mut pieces = Pieces::default();
        let tag = mem::take(&mut self.tag);
        match (self.place, self.reasoning) {
            (Place::Beginning, Reasoning::Tagged) => {
                pieces.answer = mem::take(&mut self.white) + &tag;
            }
            (Place::Beginning, Reasoning::Opened) => {
                self.white.clear();
                self.think(&tag, false, &mut pieces);
            }
            (Place::Thinking { has_begun }, _) => {
                self.think(&tag, has_begun, &mut pieces);
            }
            (Place::Behind | Place::Answer, _) => (),
        }
        pieces
    }

    fn begin(&mut self, text: &str, pieces: &mut Pieces) {
        let text = match self.tag.is_empty() {
            true => {
                let rest = text.trim_start();
                self.white.push_str(&text[..text.len() - rest.len()]);
                rest
            }
            false => text,
        };
        self.tag.push_str(text);
        if THINK.starts_with(&self.tag) && self.tag.len() < THINK.len() {
            return;
        }
        let (white, text) = (mem::take(&mut self.white), mem::take(&mut self.tag));
        match (text.strip_prefix(THINK), self.reasoning) {
            (Some(inside), _) => {
                self.place = Place::Thinking { has_begun: false };
                self.go_on(inside, pieces);
            }
            (None, Reasoning::Opened) => {
                self.place = Place::Thinking { has_begun: false };
                self.go_on(&text, pieces);
            }
            (None, Reasoning::Tagged) => {
                self.place = Place::Answer;
                self.go_on(&(white + &text), pieces);
            }
        }
    }

    fn go_on(&mut self, text: &str, pieces: &mut Pieces) {
        match self.place {
            Place::Beginning => unreachable!("it has begun"),
            Place::Thinking { has_begun } => {
                let text = mem::take(&mut self.tag) + text;
                match text.split_once(THINK_END) {
                    Some((thought, answer)) => {
                        self.think(thought, has_begun, pieces);
                        self.white.clear();
                        self.place = Place::Behind;
                        self.go_on(answer, pieces);
                    }
                    None => {
                        let (thought, tag) = text.split_at(tag_start(&text));
                        self.tag.push_str(tag);
                        let has_begun = self.think(thought, has_begun, pieces);
                        self.place = Place::Thinking { has_begun };
                    }
                }
            }
            Place::Behind => {
                let text = text.trim_start();
                if !text.is_empty() {
                    self.place = Place::Answer;
                    pieces.answer.push_str(text);
                }
            }
            Place::Answer => pieces.answer.push_str(text),
        }
    }

    /// More thinking, without outer white space. Whether there is any by now.
    fn think(&mut self, text: &str, has_begun: bool, pieces: &mut Pieces) -> bool {
        let text = if has_begun { text } else { text.trim_start() };
        let shown = text.trim_end();
        if !shown.is_empty() {
            pieces.thought.push_str(&mem::take(&mut self.white));
            pieces.thought.push_str(shown);
        }
        self.white.push_str(&text[shown.len()..]);
        has_begun || !shown.is_empty()
    }
}

/// Where the end of the text begins that may become the end tag.
fn tag_start(text: &str) -> usize {
    let lengths = (1..THINK_END.len()).rev();
    let held = lengths.into_iter().find(|length| text.ends_with(&THINK_END[..*length]));
    text.len() - held.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(parts: &[&str], reasoning: Reasoning) -> Pieces {
        let mut splitter = Splitter::new(reasoning);
        let mut whole = Pieces::default();
        let mut add = |pieces: Pieces| {
            whole.thought += &pieces.thought;
            whole.answer += &pieces.answer;
        };
        for part in parts {
            add(splitter.push(part));
        }
        add(splitter.finish());
        whole
    }

    #[track_caller]
    fn check(text: &str, reasoning: Reasoning, thought: &str, answer: &str) {
        let expected = Pieces { thought: thought.to_owned(), answer: answer.to_owned() };
        assert_eq!(read(&[text], reasoning), expected, "{text:?}");
    }

    #[test]
    fn thinking_is_what_a_reply_begins_with_and_nothing_else() {
        use Reasoning::{Opened, Tagged};
        check("<think>\nHm.\n</think>\n\nNo. ", Tagged, "Hm.", "No. ");
        check(" \n<think>Hm</think>No", Tagged, "Hm", "No");
        check("\nNo <think>Hm</think>", Tagged, "", "\nNo <think>Hm</think>");
        check("<thin", Tagged, "", "<thin");
        check(" \n", Tagged, "", " \n");
        check("<think>Hm </thin", Tagged, "Hm </thin", "");
        check("<think>\n\n</think>\n\nNo</think>", Tagged, "", "No</think>");
        check("Hm.\n</think>\n\nNo.", Opened, "Hm.", "No.");
        check("<think>\nHm.\n</think>\n\nNo.", Opened, "Hm.", "No.");
        check("Hm <think> hm", Opened, "Hm <think> hm", "");
        check("</think>No", Opened, "", "No");
    }

    #[test]
    fn calls_are_looked_for_behind_the_thinking_only() {
        let call = "<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>";
        let calls = ToolCallParser::new(["a".to_owned()]);
        let mut reader = ReplyReader::new(Some(Splitter::new(Reasoning::Tagged)), Some(calls));
        let mut parts = reader.push(&format!("<think>{call}</think>{call}"));
        parts.extend(reader.finish());
        assert_eq!(parts.len(), 2, "{parts:?}");
        assert_eq!(parts[0], Spoken::Thought(call.to_owned()));
        assert!(matches!(parts[1], Spoken::Said(ReplyPart::Call(_))), "{parts:?}");
    }

    fn text() -> impl Strategy<Value = String> {
        let words =
            vec![" ", "\n", "<think>", "</think>", "<thin", "</", "<", "k>", "é", "Hm", "\u{a0}"];
        prop::collection::vec(prop::sample::select(words), 0..10).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn however_a_text_comes_it_is_told_apart_the_same_and_nothing_is_lost(
            text in text(),
            is_opened in any::<bool>(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let reasoning = if is_opened { Reasoning::Opened } else { Reasoning::Tagged };
            let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.get(&ends)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<&str> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            let found = read(&parts, reasoning);
            let whole = split(&text, reasoning);
            prop_assert_eq!(&found.thought, whole.thought.unwrap_or_default());
            prop_assert_eq!(&found.answer, whole.answer);
            // What is not told is tags and white space, in their places.
            let mut left = text.as_str();
            if whole.thought.is_some() {
                left = left.trim_start();
                left = left.strip_prefix(THINK).unwrap_or(left).trim_start();
                left = left.strip_prefix(&*found.thought).expect("the thinking").trim_start();
                left = left.strip_prefix(THINK_END).unwrap_or(left).trim_start();
            }
            prop_assert_eq!(left, &found.answer);
        }
    }
}
