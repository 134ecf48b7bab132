//! Takes a reply apart into text and calls while it comes, and holds back only what may be a call.
//!
//! Every character is looked at once: where a call turns out to be none, its text is let go and
//! reading goes on behind it.

use std::mem;

use super::scanner::{Names, Scanner, Step};
use super::{ReplyPart, ToolCall};

/// A call that takes more, with its tags and the white space before it, is text.
pub const CALL_BYTES_MAX: usize = 1 << 20;

/// Before a call of a model whose calls have tags.
pub const CALL: &str = "<tool_call>";
const CALL_END: &str = "</tool_call>";
/// Llama 3 may put it before a call. Where it is a special token it is not seen here.
const PYTHON: &str = "<|python_tag|>";

/// Whether it is worth looking.
pub fn may_have_calls(text: &str) -> bool {
    let beginning = text.trim_start();
    text.contains(CALL) || beginning.starts_with('{') || beginning.starts_with(PYTHON)
}

/// Looks for calls in a text that arrives in parts. What is no call comes out as it went in.
#[derive(Clone, Debug)]
pub struct ToolCallParser {
    names: Names,
    /// Whether a reply that is calls and nothing else may do without tags.
    reads_bare: bool,
    state: State,
    before: Before,
    /// What has come and is not decided: white space, and what may be a call.
    held: String,
    text: String,
    parts: Vec<ReplyPart>,
}

/// What has come before all that is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    Text,
    Call,
}

/// What is held back.
#[derive(Clone, Debug)]
enum State {
    /// White space, or nothing.
    Between,
    /// From this byte on, the beginning of a tag.
    Tag(usize),
    Tagged(Tagged),
    /// A reply that is calls and nothing else.
    Bare(Vec<ToolCall>, Option<Object>),
}

#[derive(Clone, Debug)]
enum Tagged {
    BeforeObject,
    Object(Object),
    /// And so many bytes of the closing tag.
    BehindObject(ToolCall, usize),
}

/// The JSON of a call.
#[derive(Clone, Debug)]
struct Object {
    scanner: Scanner,
    /// Where it begins.
    start: usize,
}

/// What came of one more character of an object.
enum Read {
    More(Object),
    Whole(ToolCall),
}

impl ToolCallParser {
    /// Calls of other names are text.
    pub fn new(names: impl IntoIterator<Item = String>) -> ToolCallParser {
        ToolCallParser::of(Names::These(names.into_iter().collect()))
    }

    /// The same, where what stands between no tags is text.
    pub fn between_tags(self) -> ToolCallParser {
        ToolCallParser { reads_bare: false, ..self }
    }

    pub(super) fn of_any_tool() -> ToolCallParser {
        ToolCallParser::of(Names::Any)
    }

    fn of(names: Names) -> ToolCallParser {
        ToolCallParser {
            names,
            reads_bare: true,
            state: State::Between,
            before: Before::Nothing,
            held: String::new(),
            text: String::new(),
            parts: Vec::new(),
        }
    }

    /// Takes the next part of the text. White space around a call belongs to nothing.
    pub fn push(&mut self, text: &str) -> Vec<ReplyPart> {
        for c in text.chars() {
            if self.held.len() >= CALL_BYTES_MAX {
                self.let_go();
            }
            if !self.take(c) {
                self.let_go();
                let is_taken = self.take(c);
                assert!(is_taken, "where nothing is held back every character has its place");
            }
        }
        self.take_parts()
    }

    /// What was held back, when the text ends.
    pub fn finish(&mut self) -> Vec<ReplyPart> {
        match mem::replace(&mut self.state, State::Between) {
            State::Bare(calls, None) if !calls.is_empty() => {
                self.held.clear();
                self.parts.extend(calls.into_iter().map(ReplyPart::Call));
            }
            _ => self.let_go(),
        }
        self.take_parts()
    }

    fn take_parts(&mut self) -> Vec<ReplyPart> {
        self.end_text();
        mem::take(&mut self.parts)
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.parts.push(ReplyPart::Text(mem::take(&mut self.text)));
        }
    }

    /// What is held back is text, but for the white space behind a call.
    fn let_go(&mut self) {
        self.state = State::Between;
        let text = match self.before {
            Before::Call => self.held.trim_start(),
            Before::Nothing | Before::Text => &self.held,
        };
        if !text.is_empty() {
            self.before = Before::Text;
        }
        self.text.push_str(text);
        self.held.clear();
    }

    /// Whether the character may follow what is held back.
    fn take(&mut self, c: char) -> bool {
        let state = mem::replace(&mut self.state, State::Between);
        let next = match state {
            State::Between => Some(self.between(c)),
            State::Tag(start) => self.tag(start, c),
            State::Tagged(tagged) => self.tagged(tagged, c),
            State::Bare(calls, object) => self.bare(calls, object, c),
        };
        next.map(|state| self.state = state).is_some()
    }

    fn between(&mut self, c: char) -> State {
        match c {
            _ if c.is_whitespace() => self.hold(c, State::Between),
            '<' => self.hold(c, State::Tag(self.held.len())),
            '{' if self.reads_bare && self.before == Before::Nothing => {
                let object = self.object(c);
                State::Bare(Vec::new(), object)
            }
            _ => {
                self.let_go();
                self.before = Before::Text;
                self.text.push(c);
                State::Between
            }
        }
    }

    fn hold(&mut self, c: char, state: State) -> State {
        self.held.push(c);
        state
    }

    fn tag(&mut self, start: usize, c: char) -> Option<State> {
        let mut tag = self.held[start..].to_owned();
        tag.push(c);
        let is_possible = |whole: &str| match whole {
            PYTHON => self.reads_bare && self.before == Before::Nothing,
            _ => true,
        };
        let whole = [CALL, PYTHON].into_iter().find(|whole| whole.starts_with(&tag))?;
        let state = match whole {
            _ if !is_possible(whole) => return None,
            _ if tag != whole => State::Tag(start),
            PYTHON => State::Bare(Vec::new(), None),
            _ => State::Tagged(Tagged::BeforeObject),
        };
        Some(self.hold(c, state))
    }

    fn tagged(&mut self, tagged: Tagged, c: char) -> Option<State> {
        let next = match tagged {
            Tagged::BeforeObject if c == '{' => Tagged::Object(self.object(c)?),
            Tagged::BeforeObject if c.is_whitespace() => {
                self.held.push(c);
                Tagged::BeforeObject
            }
            Tagged::BeforeObject => return None,
            Tagged::Object(object) => match self.read(object, c)? {
                Read::More(object) => Tagged::Object(object),
                Read::Whole(call) => Tagged::BehindObject(call, 0),
            },
            Tagged::BehindObject(call, 0) if c.is_whitespace() => {
                self.held.push(c);
                Tagged::BehindObject(call, 0)
            }
            Tagged::BehindObject(call, read) if CALL_END[read..].starts_with(c) => {
                self.held.push(c);
                if read + 1 == CALL_END.len() {
                    self.held.clear();
                    self.end_text();
                    self.parts.push(ReplyPart::Call(call));
                    self.before = Before::Call;
                    return Some(State::Between);
                }
                Tagged::BehindObject(call, read + 1)
            }
            Tagged::BehindObject(..) => return None,
        };
        Some(State::Tagged(next))
    }

    fn bare(&mut self, mut calls: Vec<ToolCall>, object: Option<Object>, c: char) -> Option<State> {
        let object = match object {
            Some(object) => match self.read(object, c)? {
                Read::More(object) => Some(object),
                Read::Whole(call) => {
                    calls.push(call);
                    None
                }
            },
            None if c == '{' => Some(self.object(c)?),
            None if c.is_whitespace() || (c == ';' && !calls.is_empty()) => {
                self.held.push(c);
                None
            }
            None => return None,
        };
        Some(State::Bare(calls, object))
    }

    /// One that begins with this character.
    fn object(&mut self, c: char) -> Option<Object> {
        let object = Object { scanner: Scanner::default(), start: self.held.len() };
        match self.read(object, c)? {
            Read::More(object) => Some(object),
            Read::Whole(_) => None,
        }
    }

    /// `None` if it is no call; then the character is not held back.
    fn read(&mut self, mut object: Object, c: char) -> Option<Read> {
        match object.scanner.push(c, &self.names) {
            Step::More => {
                self.held.push(c);
                Some(Read::More(object))
            }
            Step::Complete => {
                self.held.push(c);
                let call = call(object, &self.held);
                if call.is_none() {
                    self.held.pop();
                }
                call.map(Read::Whole)
            }
            Step::Broken => None,
        }
    }
}

fn call(object: Object, held: &str) -> Option<ToolCall> {
    let Object { scanner, start } = object;
    let scanned = scanner.finish()?;
    let arguments_json = held[start..].get(scanned.arguments)?.to_owned();
    let arguments = serde_json::from_str(&arguments_json).ok()?;
    Some(ToolCall { name: scanned.name, arguments, arguments_json })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each part in brackets, a call as `name(arguments)`.
    fn read(parts: &[&str]) -> String {
        let mut parser = ToolCallParser::new(["look", "look_up"].map(String::from));
        let mut read: Vec<ReplyPart> = parts.iter().flat_map(|part| parser.push(part)).collect();
        read.extend(parser.finish());
        shown(&joined(read))
    }

    /// Texts that follow each other are one.
    fn joined(parts: Vec<ReplyPart>) -> Vec<ReplyPart> {
        let mut joined: Vec<ReplyPart> = Vec::new();
        for part in parts {
            match (joined.last_mut(), part) {
                (Some(ReplyPart::Text(text)), ReplyPart::Text(more)) => text.push_str(&more),
                (_, part) => joined.push(part),
            }
        }
        joined
    }

    fn shown(parts: &[ReplyPart]) -> String {
        let shown = |part: &ReplyPart| match part {
            ReplyPart::Text(text) => format!("[{text}]"),
            ReplyPart::Call(call) => format!("{}({})", call.name, call.arguments_json),
        };
        parts.iter().map(shown).collect()
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(read(&[text]), expected);
        let parts: Vec<String> = text.chars().map(String::from).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        assert_eq!(read(&parts), expected, "character by character");
    }

    #[test]
    fn calls_between_tags_stand_among_text() {
        check(
            "I look.\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": [1, {\"a\": \"}\"}]}}\n</tool_call>",
            r#"[I look.]look({"at": [1, {"a": "}"}]})"#,
        );
        check(
            "<tool_call>{\"arguments\":{},\"name\":\"look\"}</tool_call>\n\n<tool_call>\n{\"name\":\"look_up\",\"arguments\":{\"x\":\"\\\"\"}}</tool_call>\n",
            r#"look({})look_up({"x":"\""})"#,
        );
        check(
            "A <tool_call>{\"name\":\"look\",\"parameters\":{}}</tool_call> B \n",
            "[A]look({})[B \n]",
        );
    }

    #[test]
    fn a_reply_that_is_json_and_nothing_else_is_calls() {
        check(r#"{"name": "look", "parameters": {"at": null}}"#, r#"look({"at": null})"#);
        check(
            "\n<|python_tag|>{\"type\": \"function\", \"name\": \"look\", \"arguments\": {}} ; {\"name\":\"look_up\",\"parameters\":{}};\n",
            "look({})look_up({})",
        );
        check(
            "{\"name\":\"look\",\"parameters\":{}}\n{\"name\":\"look\",\"parameters\":{}}",
            "look({})look({})",
        );
    }

    #[test]
    fn between_tags_only_what_has_none_is_text() {
        let mut parser = ToolCallParser::new(["look".to_owned()]).between_tags();
        let bare = r#"{"name": "look", "arguments": {}}"#;
        assert_eq!(shown(&parser.push(bare)), format!("[{bare}]"));
        let tagged = format!("<tool_call>{bare}</tool_call>");
        assert_eq!(shown(&parser.push(&tagged)), "look({})");
    }

    /// And comes out as it went in.
    #[track_caller]
    fn check_text(text: &str) {
        check(text, &format!("[{text}]"));
    }

    #[test]
    fn what_is_no_call_is_text_to_the_byte() {
        check_text("  Hello <b>you</b> \n");
        check_text("<tool_call>\n{\"name\":\"look\",\"arguments\":{}}\n");
        check_text("<tool_call>{\"name\":\"other\",\"arguments\":{}}</tool_call>");
        check_text("<tool_call>{\"name\":\"look\"}</tool_call>");
        check_text("<tool_call>{\"name\":\"look\",\"arguments\":\"{}\"}</tool_call>");
        check_text("<tool_call>{\"name\":\"look\",\"arguments\":{},\"id\":1}</tool_call>");
        check_text("<tool_call>{\"name\":\"look\",\"name\":\"look\",\"arguments\":{}}</tool_call>");
        check_text("<tool_call>{\"name\":\"look\",\"arguments\":{}}}</tool_call>");
        check_text("<tool_call>{\"name\":\"look\",\"arguments\":{\"a\":01}}</tool_call>");
        check_text("<tool_call>{\"name\":\"look\",\"arguments\":{\"a\":[}]}}</tool_call>");
        check_text("<tool_call>{'name':'look','arguments':{}}</tool_call>");
        check_text("<tool_call></tool_call>");
        check_text("</tool_call>");
        check_text("{\"name\":\"look\",\"parameters\":{}} I hope that helps.");
        check_text("Here: {\"name\":\"look\",\"parameters\":{}}");
        check_text("{\"name\":\"look\",\"parameters\":{}");
        check_text("{\"name\":\"Ada\",\"age\":36}");
        check_text("<|python_tag|>look.call(at=1)");
        check_text("Hello <|python_tag|>{\"name\":\"look\",\"parameters\":{}}");
        check_text("{}");
    }

    #[test]
    fn a_call_that_is_none_hides_none_behind_it() {
        check(
            "<tool_call>{\"name\":\"look\",\"arguments\":{}\n<tool_call>{\"name\":\"look\",\"arguments\":{}}</tool_call>",
            "[<tool_call>{\"name\":\"look\",\"arguments\":{}\n]look({})",
        );
        check(
            "<tool_<tool_call><tool_call>{\"name\":\"look\",\"arguments\":{}}</tool_call>",
            "[<tool_<tool_call>]look({})",
        );
    }

    #[test]
    fn only_what_may_be_a_call_is_held_back() {
        let mut parser = ToolCallParser::new(["look".to_owned()]);
        let mut shows = |text: &str| shown(&parser.push(text));
        assert_eq!(shows("Well"), "[Well]");
        assert_eq!(shows(", <too"), "[,]");
        assert_eq!(shows("ls>"), "[ <tools>]");
        assert_eq!(shows("<tool_call>{\"na"), "");
        assert_eq!(shows("m"), "");
        assert_eq!(shows("es"), "[<tool_call>{\"names]");
        assert_eq!(shows("<tool_call>{\"name\": \"lo"), "");
        assert_eq!(shows("v"), "[<tool_call>{\"name\": \"lov]");
        let mut parser = ToolCallParser::new(["look".to_owned()]);
        assert_eq!(shown(&parser.push("{\"c")), "[{\"c]");
    }

    #[test]
    fn a_call_of_more_than_its_limit_is_text() {
        let call = |bytes: usize| {
            format!(
                "<tool_call>{{\"name\":\"look\",\"arguments\":{{\"a\":\"{}\"}}}}</tool_call>",
                "x".repeat(bytes)
            )
        };
        let around = call(0).len();
        assert!(read(&[&call(CALL_BYTES_MAX - around)]).starts_with("look("));
        let longer = call(CALL_BYTES_MAX + 1 - around);
        assert!(read(&[&longer]) == format!("[{longer}]"));
    }

    #[test]
    fn a_call_may_nest_as_deep_as_json_is_read() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            format!("{{\"name\":\"look\",\"parameters\":{{\"a\":{open}{close}}}}}")
        };
        assert!(read(&[&nested(100)]).starts_with("look("));
        assert_eq!(read(&[&nested(10_000)]), format!("[{}]", nested(10_000)));
    }

    fn text() -> impl Strategy<Value = String> {
        let words = prop::sample::select(vec![
            "<tool_call>",
            "</tool_call>",
            "<|python_tag|>",
            "<tool",
            "{",
            "}",
            "\"name\":",
            "\"look\"",
            "\"arguments\":",
            "\"a\":1",
            ",",
            "{\"name\":\"look\",\"arguments\":{}}",
            "<tool_call>{\"name\":\"look\",\"arguments\":{\"b\":[true]}}</tool_call>",
            ";",
            "\\",
            "\"",
            "[",
            "]",
            " ",
            "\n",
            "é",
            "Hello",
        ]);
        prop::collection::vec(words, 0..14).prop_map(|words| words.concat())
    }

    fn is_call(part: &ReplyPart) -> bool {
        matches!(part, ReplyPart::Call(_))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn however_a_text_is_cut_its_parts_are_the_same_and_nothing_of_it_is_lost(
            text in text(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let bounds: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.get(&bounds)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<&str> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&parts), read(&[&text]));

            let mut parser = ToolCallParser::new(["look".to_owned()]);
            let mut read = parser.push(&text);
            read.extend(parser.finish());
            if !read.iter().any(is_call) {
                let all: String = read.iter().map(|part| match part {
                    ReplyPart::Text(text) => text.as_str(),
                    ReplyPart::Call(_) => "",
                }).collect();
                prop_assert_eq!(&all, &text);
            }
            for part in &read {
                match part {
                    // What is left is in the text, in order.
                    ReplyPart::Text(part) => prop_assert!(text.contains(part.trim())),
                    ReplyPart::Call(call) => prop_assert!(text.contains(&call.arguments_json)),
                }
            }
        }
    }
}
