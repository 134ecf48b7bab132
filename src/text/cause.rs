//! Why two texts of the same conversation part, guessed from what is there.
//!
//! What is remembered can be used up to the first token that differs, so what moves or changes near
//! the beginning of a prompt costs everything behind it. These are the usual reasons.

use serde_json::Value;

/// What probably made a prompt differ from what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Date,
    Time,
    /// A number or an id that is another one each time.
    Nonce,
    /// The same JSON with another order of keys or other white space.
    ToolJson,
    /// The reasoning before a reply is there in one only.
    Thinking,
    SystemChanged,
    /// It stands elsewhere, or only one of the two has one.
    SystemMoved,
    /// Another model, or other bits of its KV cache: tokens do not matter then.
    OtherModel,
    /// The text is the same, its tokens are not.
    OtherTokens,
    /// Something else in a message of this role.
    Message(Role),
    Unknown,
}

/// Who a message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl Cause {
    /// One word for programs.
    pub fn code(self) -> &'static str {
        match self {
            Cause::Date => "date",
            Cause::Time => "time",
            Cause::Nonce => "nonce",
            Cause::ToolJson => "tool_json",
            Cause::Thinking => "thinking",
            Cause::SystemChanged => "system_changed",
            Cause::SystemMoved => "system_moved",
            Cause::OtherModel => "other_model",
            Cause::OtherTokens => "other_tokens",
            Cause::Message(_) => "message",
            Cause::Unknown => "unknown",
        }
    }

    /// What happened.
    pub fn explanation(self) -> &'static str {
        match self {
            Cause::Date => "a date that changes",
            Cause::Time => "a time that changes",
            Cause::Nonce => "a number or an id that is another one each time",
            Cause::ToolJson => "the same JSON with another order of keys or other white space",
            Cause::Thinking => "the reasoning before a reply is in one of them only",
            Cause::SystemChanged => "the system message has changed",
            Cause::SystemMoved => "the system message is elsewhere, or in one of them only",
            Cause::OtherModel => "another model, or other bits of its KV cache",
            Cause::OtherTokens => "the same text, split into other tokens",
            Cause::Message(Role::System) => "the system message has changed",
            Cause::Message(Role::User) => "a message of the user has changed",
            Cause::Message(Role::Assistant) => "a reply has changed",
            Cause::Message(Role::Tool) => "the result of a tool has changed",
            Cause::Unknown => "the text has changed",
        }
    }

    /// What can be done about it, where there is something.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            Cause::Date | Cause::Time | Cause::Nonce => {
                Some("put what changes after what stays, at best into the newest message")
            }
            Cause::ToolJson => {
                Some("write tools and their results the same way each time, e.g. with sorted keys")
            }
            Cause::Thinking => {
                Some("send replies back as they came, under the agent that said them")
            }
            Cause::SystemChanged | Cause::SystemMoved => {
                Some("keep the system message as it is, and first")
            }
            Cause::OtherModel => Some("go on with the model and the --kv-bits it was saved with"),
            Cause::OtherTokens => Some("send replies back as they came, to the last character"),
            Cause::Message(_) | Cause::Unknown => None,
        }
    }
}

/// Why two texts part. Both are whole: from the beginning of the conversation on, special tokens
/// included. `None` where one is the beginning of the other, as with a message that was appended.
pub fn cause(stored: &str, given: &str) -> Option<Cause> {
    let at = common_bytes(stored, given);
    if at == stored.len() || at == given.len() {
        return None;
    }
    let sides = Sides { stored, given, at };
    Some(if sides.is_same_json() {
        Cause::ToolJson
    } else if is_thought_dropped(stored, given, at) || is_thought_dropped(given, stored, at) {
        Cause::Thinking
    } else if let Some(cause) = sides.changing_word() {
        cause
    } else {
        sides.by_role()
    })
}

/// Two texts and where they part.
struct Sides<'a> {
    stored: &'a str,
    given: &'a str,
    at: usize,
}

/// JSON that begins further back is no tool's.
const JSON_STARTS_MAX: usize = 64;

impl Sides<'_> {
    /// Whether some JSON around the difference means the same on both sides.
    fn is_same_json(&self) -> bool {
        let opens = |(_, byte): &(usize, u8)| matches!(byte, b'{' | b'[');
        let before = self.stored.bytes().enumerate().take(self.at);
        let starts: Vec<usize> = before.filter(opens).map(|(start, _)| start).collect();
        starts.into_iter().rev().take(JSON_STARTS_MAX).any(|start| {
            let first = json_at(&self.stored[start..], self.at - start);
            first.is_some() && first == json_at(&self.given[start..], self.at - start)
        })
    }

    /// A word on both sides that is of a kind that never stays.
    fn changing_word(&self) -> Option<Cause> {
        let stored = Word::at(self.stored, self.at).kind(self.at)?;
        let given = Word::at(self.given, self.at).kind(self.at)?;
        (stored == given).then_some(stored)
    }

    fn by_role(&self) -> Cause {
        match (role_at(self.stored, self.at), role_at(self.given, self.at)) {
            (Some(Role::System), Some(Role::System)) => Cause::SystemChanged,
            (Some(Role::System), _) | (_, Some(Role::System)) => Cause::SystemMoved,
            (Some(role), _) => Cause::Message(role),
            (None, _) => Cause::Unknown,
        }
    }
}

/// The length of what both begin with, in whole characters.
fn common_bytes(one: &str, other: &str) -> usize {
    let pairs = one.chars().zip(other.chars());
    pairs.take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

/// The JSON that a text begins with, if it is whole and longer than `reach`.
fn json_at(text: &str, reach: usize) -> Option<Value> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok()?;
    (values.byte_offset() > reach).then_some(value)
}

/// What reasoning stands between.
const THOUGHTS: [(&str, &str); 3] =
    [("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<|channel|>analysis", "<|end|>")];

/// How much of what follows a thought must be the same on the other side.
const AFTER_THOUGHT_CHARS: usize = 16;

/// Whether `with` has a thought where they part, and `without` goes on with what comes after it or
/// has an empty one.
fn is_thought_dropped(with: &str, without: &str, at: usize) -> bool {
    THOUGHTS.iter().any(|(open, close)| {
        let Some(start) = with.match_indices(open).map(|it| it.0).take_while(|it| *it <= at).last()
        else {
            return false;
        };
        let Some(end) = with[start..].find(close).map(|end| start + end + close.len()) else {
            return false;
        };
        if end <= at {
            return false;
        }
        let rest = &without[start.min(without.len())..];
        let rest = match rest.strip_prefix(open).map(|rest| rest.trim_start().strip_prefix(close)) {
            Some(Some(after_empty)) => after_empty,
            // It has some thought, which is not the same as having none.
            Some(None) => return false,
            None => rest,
        };
        let next = |text: &str| -> String {
            text.trim_start().chars().take(AFTER_THOUGHT_CHARS).collect()
        };
        let (expected, found) = (next(&with[end..]), next(rest));
        !found.is_empty() && (expected.starts_with(&found) || found.starts_with(&expected))
    })
}

/// A word of a text, with those around it.
struct Word<'a> {
    text: &'a str,
    start: usize,
    /// The two before and the two after, for dates that are written out.
    neighbours: Vec<&'a str>,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl<'a> Word<'a> {
    /// The word that has this position inside it or at its end.
    fn at(text: &'a str, at: usize) -> Word<'a> {
        let is_part = |c: char| c.is_alphanumeric() || "-:/._+".contains(c);
        let before = text[..at].rfind(|c| !is_part(c)).map(|i| i + next_char_bytes(text, i));
        let start = before.unwrap_or(0);
        let end = text[at..].find(|c| !is_part(c)).map_or(text.len(), |i| at + i);
        let words = |text: &'a str| text.split(|c| !is_part(c)).filter(|word| !word.is_empty());
        let mut neighbours: Vec<&str> = words(&text[..start]).rev().take(2).collect();
        neighbours.extend(words(&text[end..]).take(2));
        Word { text: text[start..end].trim_matches(['.', ':', '/', '-']), start, neighbours }
    }

    /// What kind of word it is, of those that change by themselves. Of a moment, the half that has
    /// this position counts.
    fn kind(&self, at: usize) -> Option<Cause> {
        if self.is_moment() {
            let half = self.text.find('T').unwrap_or_default();
            return Some(if at < self.start + half { Cause::Date } else { Cause::Time });
        }
        if is_clock(self.text) || self.is_unix_time() {
            Some(Cause::Time)
        } else if self.is_date() {
            Some(Cause::Date)
        } else if self.is_nonce() {
            Some(Cause::Nonce)
        } else {
            None
        }
    }

    /// `2026-01-02T10:30:00Z`
    fn is_moment(&self) -> bool {
        self.text.split_once('T').is_some_and(|(date, time)| {
            is_numeric_date(date) && is_clock(time.trim_end_matches('Z'))
        })
    }

    fn is_date(&self) -> bool {
        let is_number = |text: &str| {
            let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let suffix = &text[digits.len()..];
            is_digits(digits, 1..=4) && matches!(suffix, "" | "st" | "nd" | "rd" | "th")
        };
        let has_month = self.neighbours.iter().any(|word| is_name(word, &MONTHS));
        is_numeric_date(self.text)
            || is_name(self.text, &MONTHS)
            || is_name(self.text, &DAYS)
            || (is_number(self.text) && has_month)
    }

    /// Seconds or milliseconds since 1970, for the next centuries.
    fn is_unix_time(&self) -> bool {
        self.text.starts_with('1')
            && (is_digits(self.text, 10..=10) || is_digits(self.text, 13..=13))
    }

    /// A UUID, a digest, a counter: long, and not a word of a language.
    fn is_nonce(&self) -> bool {
        let letters = self.text.bytes().filter(u8::is_ascii_alphanumeric).count();
        let digits = self.text.bytes().filter(u8::is_ascii_digit).count();
        let is_plain =
            self.text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        is_plain && letters >= 6 && digits >= 2 && (letters >= 8 || digits == letters)
    }
}

fn next_char_bytes(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(0, char::len_utf8)
}

fn is_digits(text: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `10:30`, `10:30:59.123`, `9:05am`
fn is_clock(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let text = text.trim_end_matches("am").trim_end_matches("pm");
    let text = text.split(['+', '.']).next().unwrap_or_default();
    let parts: Vec<&str> = text.split(':').collect();
    (2..=3).contains(&parts.len())
        && is_digits(parts[0], 1..=2)
        && parts[1..].iter().all(|part| is_digits(part, 2..=2))
}

/// `2026-01-02`, `1/2/2026`, `02.01.26`
fn is_numeric_date(text: &str) -> bool {
    ['-', '/', '.'].iter().any(|separator| {
        let parts: Vec<&str> = text.split(*separator).collect();
        let [first, middle, last] = parts[..] else { return false };
        is_digits(middle, 1..=2)
            && match first.len() {
                4 => is_digits(first, 4..=4) && is_digits(last, 1..=2),
                _ => is_digits(first, 1..=2) && (is_digits(last, 2..=2) || is_digits(last, 4..=4)),
            }
    })
}

/// Whether a word is a month or a day of the week, whole or as its first three letters.
fn is_name(word: &str, names: &[&str]) -> bool {
    const WHOLE: [&str; 19] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    let word = word.trim_end_matches('.').to_ascii_lowercase();
    let is_whole = WHOLE.contains(&word.as_str());
    names.iter().any(|name| word == *name || (is_whole && word.starts_with(name)))
}

/// How templates write who speaks. What precedes the role's name, then how a role is written
/// without one.
const ROLE_MARKERS: [&str; 5] =
    ["<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "<|start|>", "<|"];
const ROLE_NAMES: [(&str, Role); 7] = [
    ("system", Role::System),
    ("developer", Role::System),
    ("user", Role::User),
    ("assistant", Role::Assistant),
    ("model", Role::Assistant),
    ("tool", Role::Tool),
    ("ipython", Role::Tool),
];
const ROLE_SIGNS: [(&str, Role); 6] = [
    ("<<SYS>>", Role::System),
    ("<</SYS>>", Role::User),
    ("[SYSTEM_PROMPT]", Role::System),
    ("[/SYSTEM_PROMPT]", Role::User),
    ("[INST]", Role::User),
    ("[/INST]", Role::Assistant),
];

/// Whose message a position is in, its header included.
fn role_at(text: &str, at: usize) -> Option<Role> {
    let last = |header: &str| {
        let starts = text.match_indices(header).map(|found| found.0);
        starts.take_while(|start| *start <= at).last()
    };
    let named = ROLE_MARKERS.iter().flat_map(|marker| {
        ROLE_NAMES.iter().map(move |(name, role)| (format!("{marker}{name}"), *role))
    });
    let signs = ROLE_SIGNS.iter().map(|(sign, role)| ((*sign).to_owned(), *role));
    let found = named.chain(signs).filter_map(|(header, role)| Some((last(&header)?, role)));
    found.max_by_key(|(start, _)| *start).map(|(_, role)| role)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(text: &str) -> String {
        format!("<|im_start|>system\n{text}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n")
    }

    fn reply(text: &str) -> String {
        format!("{}<|im_start|>assistant\n{text}<|im_end|>\n<|im_start|>user\nGo on", system("A"))
    }

    #[test]
    fn each_usual_reason_is_told_from_the_others() {
        let uuids =
            ["3f2504e0-4f89-11d3-9a0c-0305e82c3301", "9b2d1c44-77aa-4c1e-8f00-5a6b7c8d9e0f"];
        for (stored, given, cause) in [
            ("Today is 2026-01-02.", "Today is 2026-01-03.", Cause::Date),
            ("Today is 1/2/2026, be nice", "Today is 12/2/2026, be nice", Cause::Date),
            ("It is 2 January 2026", "It is 15 January 2026", Cause::Date),
            ("It is January 2nd, 2026", "It is January 3rd, 2026", Cause::Date),
            ("Today Date: 26 Jul 2024", "Today Date: 26 Aug 2024", Cause::Date),
            ("Happy Monday!", "Happy Tuesday!", Cause::Date),
            ("now: 2026-01-02T10:30:00Z", "now: 2026-01-03T10:30:00Z", Cause::Date),
            ("now: 2026-01-02T10:30:00Z", "now: 2026-01-02T10:31:00Z", Cause::Time),
            ("at 9:59 sharp", "at 10:00 sharp", Cause::Time),
            ("at 10:30:59.125", "at 10:30:59.250", Cause::Time),
            ("at 9:05am", "at 9:06am", Cause::Time),
            ("t=1767312000 ok", "t=1767398400 ok", Cause::Time),
            (uuids[0], uuids[1], Cause::Nonce),
            ("request a81f03bc:", "request 0c7d11e9:", Cause::Nonce),
            ("seed 482913", "seed 991204", Cause::Nonce),
            (
                r#"Tools: [{"name":"f","type":"g"}] end"#,
                r#"Tools: [{"type":"g","name":"f"}] end"#,
                Cause::ToolJson,
            ),
            (r#"<tool>{"a":{"b":1}}"#, r#"<tool>{"a": {"b": 1}}"#, Cause::ToolJson),
            ("{\"a\":[1,\n2]} x", "{\"a\":[1,2]} x", Cause::ToolJson),
        ] {
            let (stored, given) = (system(stored), system(given));
            assert_eq!(super::cause(&stored, &given), Some(cause), "{stored:?} and {given:?}");
            assert_eq!(super::cause(&given, &stored), Some(cause), "{given:?} and {stored:?}");
        }
    }

    #[test]
    fn thinking_that_is_gone_is_told_from_another_reply() {
        let thought = reply("<think>\nHm, 4?\n</think>\n\nFour, I should say.");
        for without in [
            "Four, I should say.",
            "\n\nFour, I should say.",
            "<think>\n\n</think>\n\nFour, I should say.",
        ] {
            assert_eq!(cause(&thought, &reply(without)), Some(Cause::Thinking), "{without:?}");
            assert_eq!(cause(&reply(without), &thought), Some(Cause::Thinking), "{without:?}");
        }
        for other in ["Five, I should say.", "<think>\nHm, 5?\n</think>\n\nFour, I should say."] {
            let found = cause(&thought, &reply(other));
            assert_eq!(found, Some(Cause::Message(Role::Assistant)), "{other:?}");
        }
    }

    #[test]
    fn what_else_changed_is_told_by_whose_message_it_is() {
        let header = "<|start_header_id|>";
        let llama = |system: &str| format!("{header}system<|end_header_id|>\n\n{system}<|eot_id|>");
        let without = "<|im_start|>user\nHi<|im_end|>\n";
        for (stored, given, expected) in [
            (system("Be brief."), system("Be kind."), Cause::SystemChanged),
            (llama("Be brief."), llama("Be kind."), Cause::SystemChanged),
            (system("Be brief."), without.to_owned(), Cause::SystemMoved),
            (
                "[INST] <<SYS>>\nA\n<</SYS>>\nHi".to_owned(),
                "[INST] Hi".to_owned(),
                Cause::SystemMoved,
            ),
            (
                format!("{without}<|im_start|>system\nA"),
                format!("{without}<|im_start|>assistant\nA"),
                Cause::SystemMoved,
            ),
            (reply("Yes."), reply("No."), Cause::Message(Role::Assistant)),
            (
                format!("{}<|im_start|>user\nOne", system("A")),
                format!("{}<|im_start|>user\nTwo", system("A")),
                Cause::Message(Role::User),
            ),
            ("once upon".to_owned(), "twice upon".to_owned(), Cause::Unknown),
            ("räuber".to_owned(), "rüuber".to_owned(), Cause::Unknown),
        ] {
            assert_eq!(cause(&stored, &given), Some(expected), "{stored:?} and {given:?}");
        }
    }

    #[test]
    fn what_was_appended_is_no_difference() {
        let turn = system("Be brief.");
        let next = format!("{turn}<|im_start|>assistant\n2026-01-02");
        assert_eq!(cause(&turn, &next), None);
        assert_eq!(cause(&next, &turn), None);
        assert_eq!(cause(&turn, &turn), None);
        assert_eq!(cause("", "x"), None);
    }

    #[test]
    fn no_text_is_too_odd() {
        let odd = ["{", "[[[[", "é", "<think>", "</think>", "T", ":", "::", "-", "1", "<|", "日本"];
        for first in odd {
            for second in odd {
                for third in odd {
                    let _ = cause(&format!("{first}{second}"), &format!("{first}{third}"));
                }
            }
        }
    }
}
